//! `/cache/stats`, `/cache/clear`, `/cache/entries`, `/cache/expire`.

use serde_json::json;

use crate::admin::gathered::extras;
use crate::admin::query;
use crate::admin::reply::Answered;
use crate::metrics::{CacheSummary, Snapshot};
use crate::proxy::error::Refusal;
use crate::proxy::purge::{self, Scope};
use crate::proxy::{Core, Task};
use crate::store::Unavailable;

/// The counters since the start.
pub fn stats(core: &Core) -> Answered {
    let all = Snapshot::of(&core.shared.cells);
    Answered::json(200, &CacheSummary::new(&all, &extras(&core.shared)))
}

/// Forgets everything.
pub async fn clear(core: &Core) -> Result<Answered, Refusal> {
    Ok(purged(purge::clear(core).await))
}

/// Forgets `?path=` or `?prefix=`.
pub async fn remove(core: &Core, task: &Task) -> Result<Answered, Refusal> {
    Ok(purged(purge::remove(core, &scopes(core, task)?).await))
}

/// Makes `?path=` or `?prefix=` stale.
pub async fn expire(core: &Core, task: &Task) -> Result<Answered, Refusal> {
    Ok(purged(purge::expire(core, &scopes(core, task)?).await))
}

/// The second tier hides its rows at once, confirmed or not; an operator must know the difference.
fn purged(result: Result<u64, Unavailable>) -> Answered {
    match result {
        Ok(rows) => Answered::json(200, &json!({"status": "ok", "entries": rows})),
        Err(reason) => {
            let body = json!({"status": "pending", "reason": reason.as_str()});
            Answered::json(503, &body)
        }
    }
}

/// Exactly one of `path` and `prefix`, as clients write it or without the API prefix, in each of
/// its readings.
fn scopes(core: &Core, task: &Task) -> Result<Vec<Scope>, Refusal> {
    let mut parameters = query::parameters(task);
    let (name, value) = parameters.next().ok_or(BAD_SELECTION)?;
    let scope = match name {
        "path" => Scope::Path,
        "prefix" => Scope::Prefix,
        _ => return Err(BAD_SELECTION),
    };
    match parameters.next() {
        None => {}
        Some(("path" | "prefix", _)) => {
            return Err(Refusal::BadTarget("write one of path and prefix, once"));
        }
        Some(_) => return Err(BAD_SELECTION),
    }
    let readings = query::readings(value);
    let mut paths: Vec<_> = readings.iter().filter_map(|it| query::normal_path(core, it)).collect();
    paths.dedup();
    if paths.is_empty() {
        return Err(Refusal::BadTarget("the path must be one that a request can have"));
    }
    Ok(paths.into_iter().map(scope).collect())
}

const BAD_SELECTION: Refusal = Refusal::BadTarget("write ?path=/v1/x or ?prefix=/v1/");
