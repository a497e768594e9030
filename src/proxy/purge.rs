//! Making stored responses disappear: from every core, the hub and the second tier, before the
//! answer that says so.
//!
//! The order is what makes it sound. The journal notes the purge first, so that nothing of it that
//! was looked up or fetched before can be shown after. Then the hub forgets and dooms its flights,
//! the cores drop their entries and confirm, and the second tier commits.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use crate::cache::Key;
use crate::cache::key::{Class, Parts, path_of};
use crate::metrics::Counter;
use crate::proxy::core::Core;
use crate::proxy::inbox::{CoreMessage, KeyFilter};
use crate::proxy::keyed::{Keyed, keyed_query};
use crate::proxy::plan::{Plan, Upstream};
use crate::store::{Effect, Purge, Selection, Unavailable};

/// Forgets everything. After it nobody serves anything older, also after a restart.
///
/// # Errors
/// Why the second tier has not confirmed yet. It hides its rows all the same and goes on trying.
pub async fn clear(core: &Core) -> Result<u64, Unavailable> {
    begin(core, Arc::new(|_| true));
    core.shared.hub.purge_where(|_| true);
    let entries = core.shared.ledger.entries();
    core.tell_all(CoreMessage::Clear).await;
    match &core.store {
        Some(store) => store.clear().await,
        None => Ok(entries),
    }
}

/// What a purge by path concerns.
#[derive(Clone, Debug)]
pub enum Scope {
    /// One path with all its queries and variants.
    Path(String),
    /// A path and everything below it.
    Prefix(String),
}

/// Forgets a path or a subtree, on every upstream.
///
/// # Errors
/// As [`clear`].
pub async fn remove(core: &Core, scope: Scope) -> Result<u64, Unavailable> {
    let matches = matcher(scope.clone());
    begin(core, Arc::clone(&matches));
    core.shared.hub.purge_where(|key| matches(key));
    core.tell_all(CoreMessage::DropWhere(matches)).await;
    second_tier(core, &scope, Effect::Remove).await
}

/// Makes a path or a subtree stale: it is validated before it is used again.
///
/// # Errors
/// As [`clear`].
pub async fn expire(core: &Core, scope: Scope) -> Result<u64, Unavailable> {
    let matches = matcher(scope.clone());
    begin(core, Arc::clone(&matches));
    core.shared.hub.purge_where(|key| matches(key));
    // Dropped from memory, they come back from the second tier, marked.
    core.tell_all(CoreMessage::DropWhere(matches)).await;
    second_tier(core, &scope, Effect::Expire).await
}

/// An unsafe method changed this resource (RFC 9111 section 4.4): forgets what is stored for it,
/// whoever it was stored for.
pub async fn invalidate(core: &Core, upstream: &Upstream, path: &str, query: Option<&str>) {
    let row = row_path(core.plan(), upstream, path, query);
    let matches = of_resource(core, upstream, path, query);
    begin(core, Arc::clone(&matches));
    if is_partitioned(core, upstream) {
        core.shared.hub.purge_where(|key| matches(key));
        core.tell_all(CoreMessage::DropWhere(matches)).await;
    } else {
        let mut key = Vec::new();
        let (path, query) = (path.as_bytes(), query.map(str::as_bytes));
        let keyed = Keyed { class: Class::Read, path, query, api_key: None, body: None };
        keyed.write(core.plan(), upstream, &mut key);
        let hash = core.shared.seed.hash(&key);
        core.shared.hub.purge(hash, &key);
        core.tell_all(CoreMessage::Drop { hash, key: key.into() }).await;
    }
    if let Some(store) = &core.store {
        let selection = Selection::Path(row.into());
        if let Err(reason) = store.purge(Purge { selection, effect: Effect::Remove }).await {
            tracing::warn!(
                reason = reason.as_str(),
                "the second tier has not confirmed an invalidation"
            );
        }
    }
}

/// Forgets one key.
pub async fn forget(core: &Rc<Core>, upstream: &Upstream, key: &Key) {
    let hash = key.hash();
    core.shared.hub.purge(hash, key.bytes());
    let digest = key.digest(&upstream.name());
    core.tell_all(CoreMessage::Drop { hash, key: key.bytes().into() }).await;
    if let Some(store) = &core.store {
        let selection = Selection::Digests([digest].into());
        let _ = store.purge(Purge { selection, effect: Effect::Remove }).await;
    }
}

/// What the second tier selects rows by: origin, path and the query as the key has it.
#[must_use]
pub fn row_path(plan: &Plan, upstream: &Upstream, path: &str, query: Option<&str>) -> String {
    let origin = &upstream.target;
    match keyed_query(plan, upstream, query.map(str::as_bytes)) {
        Some(query) => format!("{origin} {path}?{}", String::from_utf8_lossy(&query)),
        None => format!("{origin} {path}"),
    }
}

/// The keys of one resource, whatever its method, credential, body and variant.
fn of_resource(core: &Core, upstream: &Upstream, path: &str, query: Option<&str>) -> KeyFilter {
    let (origin, path) = (upstream.origin, path.as_bytes().to_vec());
    let query = keyed_query(core.plan(), upstream, query.map(str::as_bytes));
    let query = query.map(Cow::into_owned);
    Arc::new(move |key| {
        Parts::parse(key).is_some_and(|parts| {
            parts.upstream == origin && parts.path == path && parts.query == query.as_deref()
        })
    })
}

fn begin(core: &Core, matches: KeyFilter) {
    core.cells.inc(Counter::Purges);
    core.shared.journal.record(matches);
}

/// Whether one resource can stand under several keys that only a scan finds.
fn is_partitioned(core: &Core, upstream: &Upstream) -> bool {
    let bodies = upstream.policy.methods.post || upstream.policy.methods.query;
    upstream.api_key.is_none() || bodies || core.plan().sort_query || upstream.ignore_query
}

fn matcher(scope: Scope) -> KeyFilter {
    Arc::new(move |key| {
        let Some(path) = path_of(key) else { return false };
        match &scope {
            Scope::Path(exact) => path == exact.as_bytes(),
            Scope::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
        }
    })
}

async fn second_tier(core: &Core, scope: &Scope, effect: Effect) -> Result<u64, Unavailable> {
    let Some(store) = &core.store else { return Ok(0) };
    let mut rows = 0;
    let upstreams = &core.plan().upstreams;
    for (at, upstream) in upstreams.iter().enumerate() {
        if upstreams[..at].iter().any(|it| it.target == upstream.target) {
            continue;
        }
        let selections = match scope {
            // With and without a query.
            Scope::Path(path) => vec![
                Selection::Path(row_path(core.plan(), upstream, path, None).into()),
                Selection::Prefix(format!("{} {path}?", upstream.target).into()),
            ],
            Scope::Prefix(prefix) => {
                vec![Selection::Prefix(row_path(core.plan(), upstream, prefix, None).into())]
            }
        };
        for selection in selections {
            rows += store.purge(Purge { selection, effect }).await?;
        }
    }
    Ok(rows)
}
