//! Making stored responses disappear: from every core, the hub and the second tier, before the
//! answer that says so.
//!
//! The order is what makes it sound. First the journal notes the purge and the hub dooms its
//! flights, so that nothing that is under way puts an old row back; the cores drop their entries.
//! Then the second tier commits. Then all of memory once more: somebody may have read the old row
//! from the second tier before it was gone, and his mark in the journal is older than this.

use std::borrow::Cow;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use monoio::time::timeout;

use crate::cache::Key;
use crate::cache::key::{Class, Parts, path_of};
use crate::metrics::Counter;
use crate::proxy::core::{Core, Shared};
use crate::proxy::inbox::{CoreMessage, KeyFilter};
use crate::proxy::keyed::{Keyed, keyed_query};
use crate::proxy::plan::{Plan, Upstream};
use crate::store::{Effect, Purge, Selection, Unavailable};

/// Forgets everything. After it nobody serves anything older, also after a restart.
///
/// # Errors
/// Why the second tier has not confirmed yet. It hides its rows all the same and goes on trying.
pub async fn clear(core: &Core) -> Result<u64, Unavailable> {
    let entries = core.shared.ledger.entries();
    let order = Order { matches: Arc::new(|_| true), message: CoreMessage::Clear, key: None };
    order
        .everywhere(core, async {
            match &core.store {
                Some(store) => confirmed(store.clear()).await,
                None => Ok(entries),
            }
        })
        .await
}

/// A purge on its way through the tiers.
struct Order {
    matches: KeyFilter,
    message: CoreMessage,
    /// The one key concerned, where it is only one: the hub need not be walked then.
    key: Option<(u64, Vec<u8>)>,
}

impl Order {
    fn of_keys(matches: KeyFilter) -> Self {
        Self { message: CoreMessage::DropWhere(Arc::clone(&matches)), matches, key: None }
    }

    /// Memory, second tier, memory again: see the head of this file.
    async fn everywhere<T>(self, core: &Core, second_tier: impl Future<Output = T>) -> T {
        core.cells.inc(Counter::Purges);
        self.drop_from_memory(core).await;
        let result = second_tier.await;
        self.drop_from_memory(core).await;
        result
    }

    async fn drop_from_memory(&self, core: &Core) {
        let shared = &core.shared;
        shared.journal.record(Arc::clone(&self.matches));
        match &self.key {
            Some((hash, key)) => shared.hub.purge(*hash, key),
            None => shared.hub.purge_where(|key| (self.matches)(key)),
        }
        core.tell_all(self.message.clone()).await;
    }
}

/// Waits for the second tier's word, but not for ever: a hung database must not hang an answer.
async fn confirmed(
    purged: impl Future<Output = Result<u64, Unavailable>>,
) -> Result<u64, Unavailable> {
    timeout(CONFIRM_SPAN, purged).await.unwrap_or(Err(Unavailable::Timeout))
}

/// Forgets what another instance has purged in the store they share.
pub fn remote(shared: &Shared, purge: &Purge) {
    let matches = match &purge.selection {
        Selection::Path(path) => row_matcher(shared, path, |row, path| row == path),
        Selection::Prefix(prefix) => row_matcher(shared, prefix, |row, path| row.starts_with(path)),
        // Digests name keys that this instance can't recognise: rare, so forget everything.
        Selection::All | Selection::Digests(_) => Arc::new(|_: &[u8]| true) as KeyFilter,
    };
    shared.journal.record(Arc::clone(&matches));
    shared.hub.purge_where(|key| matches(key));
    for inbox in &shared.inboxes {
        inbox.send(CoreMessage::DropWhere(Arc::clone(&matches)), None);
    }
}

/// The keys whose row path satisfies `is`.
fn row_matcher(shared: &Shared, text: &Arc<str>, is: fn(&str, &str) -> bool) -> KeyFilter {
    let origins = shared.plan.settings.upstreams.iter().map(|it| it.upstream.to_string());
    let (origins, text) = (origins.collect::<Vec<_>>(), Arc::clone(text));
    Arc::new(move |key| {
        let Some(parts) = Parts::parse(key) else { return false };
        let Some(origin) = origins.get(usize::from(parts.upstream)) else { return false };
        let mut row = format!("{origin} {}", String::from_utf8_lossy(parts.path));
        if let Some(query) = parts.query {
            row.push('?');
            row.push_str(&String::from_utf8_lossy(query));
        }
        is(&row, &text)
    })
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
    let order = Order::of_keys(matcher(scope.clone()));
    order.everywhere(core, second_tier(core, &scope, Effect::Remove)).await
}

/// Makes a path or a subtree stale: it is validated before it is used again.
///
/// # Errors
/// As [`clear`].
pub async fn expire(core: &Core, scope: Scope) -> Result<u64, Unavailable> {
    // Dropped from memory, they come back from the second tier, marked.
    let order = Order::of_keys(matcher(scope.clone()));
    order.everywhere(core, second_tier(core, &scope, Effect::Expire)).await
}

/// An unsafe method changed this resource (RFC 9111 section 4.4): forgets what is stored for it,
/// whoever it was stored for. Tells which keys that concerned.
pub async fn invalidate(
    core: &Core,
    upstream: &Upstream,
    path: &str,
    query: Option<&str>,
) -> KeyFilter {
    let row = row_path(core.plan(), upstream, path, query);
    let mut order = Order::of_keys(of_resource(core, upstream, path, query));
    if !is_partitioned(core, upstream) {
        let mut key = Vec::new();
        let (path, query) = (path.as_bytes(), query.map(str::as_bytes));
        let keyed = Keyed { class: Class::Read, path, query, api_key: None, body: None };
        keyed.write(core.plan(), upstream, &mut key);
        let hash = core.shared.seed.hash(&key);
        order.message = CoreMessage::Drop { hash, key: key.as_slice().into() };
        order.key = Some((hash, key));
    }
    let matches = Arc::clone(&order.matches);
    order.everywhere(core, from_store(core, Selection::Path(row.into()))).await;
    matches
}

/// Forgets one key.
pub async fn forget(core: &Rc<Core>, upstream: &Upstream, key: &Key) {
    let digest = key.digest(&upstream.name());
    let (hash, bytes) = (key.hash(), key.bytes().to_vec());
    let own: KeyFilter = {
        let bytes = bytes.clone();
        Arc::new(move |key| key == bytes)
    };
    let order = Order {
        matches: own,
        message: CoreMessage::Drop { hash, key: bytes.as_slice().into() },
        key: Some((hash, bytes)),
    };
    order.everywhere(core, from_store(core, Selection::Digests([digest].into()))).await;
}

async fn from_store(core: &Core, selection: Selection) {
    let Some(store) = &core.store else { return };
    let purge = Purge { selection, effect: Effect::Remove };
    if let Err(reason) = confirmed(store.purge(purge)).await {
        tracing::warn!(reason = reason.as_str(), "the second tier has not confirmed a purge");
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
            rows += confirmed(store.purge(Purge { selection, effect })).await?;
        }
    }
    Ok(rows)
}

/// What one purge leaves in the journal: a note before the second tier and one after it.
pub const NOTES: usize = 2;
/// How long an answer waits for the second tier to confirm a purge.
const CONFIRM_SPAN: Duration = Duration::from_secs(10);
