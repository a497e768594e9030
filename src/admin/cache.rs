//! `/cache/stats`, `/cache/clear`, `/cache/entries`, `/cache/expire`.

use serde_json::json;

use crate::admin::gathered::extras;
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
    Ok(purged(purge::remove(core, scope(core, task)?).await))
}

/// Makes `?path=` or `?prefix=` stale.
pub async fn expire(core: &Core, task: &Task) -> Result<Answered, Refusal> {
    Ok(purged(purge::expire(core, scope(core, task)?).await))
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

/// Exactly one of `path` and `prefix`, as clients write it or without the API prefix.
fn scope(core: &Core, task: &Task) -> Result<Scope, Refusal> {
    let query = task.head.query.as_deref().unwrap_or_default();
    let mut found = None;
    for part in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let path = normal(core, value)?;
        let scope = match name {
            "path" => Scope::Path(path),
            "prefix" => Scope::Prefix(path),
            _ => return Err(Refusal::BadTarget("write ?path=/v1/x or ?prefix=/v1/")),
        };
        if found.replace(scope).is_some() {
            return Err(Refusal::BadTarget("write one of path and prefix, once"));
        }
    }
    found.ok_or(Refusal::BadTarget("write ?path=/v1/x or ?prefix=/v1/"))
}

fn normal(core: &Core, value: &str) -> Result<String, Refusal> {
    let bad = Refusal::BadTarget("the path must start with a slash");
    let decoded = value.replace("%2F", "/").replace("%2f", "/");
    let normal = crate::http::target::normalise_path(decoded.as_bytes(), core.plan().slashes);
    let normal = normal.map_err(|_| bad)?;
    let prefix = &core.plan().prefix;
    let inner = if prefix.as_str().is_empty() { None } else { prefix.strip(&normal) };
    String::from_utf8(inner.unwrap_or(&normal).to_vec()).map_err(|_| bad)
}
