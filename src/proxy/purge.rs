//! Making stored responses disappear: from every core, the hub and the second tier, before the
//! answer that says so.
//!
//! The order is what makes it sound. First the journal notes the purge, so that nothing that is
//! under way puts an old row back; the hub forgets its keys, dooms their flights, and the cores
//! drop what it found. Then the second tier commits. Then all of memory once more: somebody may
//! have read the old row from the second tier before it was gone, and its mark in the journal is
//! older than this.
//!
//! Cost: a path or a resource is found in the hub at once (some 10 us beside what is removed),
//! whatever the number of entries. A subtree takes a walk through all keys, which a helper thread
//! makes: 0.1 us a key, in steps of 25 us.

use std::borrow::Cow;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use monoio::time::timeout;

use crate::cache::key::{Parts, path_of};
use crate::cache::{Entry, Key};
use crate::metrics::Counter;
use crate::proxy::core::{Core, Shared};
use crate::proxy::hub::{Reach, Walk};
use crate::proxy::inbox::{Acks, CoreMessage, KeyFilter};
use crate::proxy::keyed::keyed_query;
use crate::proxy::plan::{Plan, Upstream};
use crate::store::{Effect, Purge, Selection, Unavailable};

/// Forgets everything. After it nobody serves anything older, also after a restart.
///
/// # Errors
/// Why the second tier has not confirmed yet. It hides its rows all the same and goes on trying.
pub async fn clear(core: &Core) -> Result<u64, Unavailable> {
    let entries = core.shared.ledger.entries();
    let order = Order { matches: Arc::new(|_| true), subject: Subject::Everything };
    let second_tier = async {
        match &core.store {
            Some(store) => confirmed(store.clear(), ORDER_SPAN).await,
            None => Ok(entries),
        }
    };
    order.everywhere(core, second_tier).await.1
}

/// A purge on its way through the tiers.
#[derive(Clone)]
struct Order {
    matches: KeyFilter,
    subject: Subject,
}

/// What a purge is about: where its keys stand in the hub.
#[derive(Clone)]
enum Subject {
    /// Everything there is.
    Everything,
    /// Anything that matches.
    Any,
    /// A path on every upstream.
    Path(Vec<u8>),
    /// A resource.
    Resource { upstream: u16, path: Vec<u8>, query: Option<Vec<u8>> },
    /// One key.
    Key { hash: u64, key: Vec<u8> },
}

impl Subject {
    fn reach(&self) -> Reach<'_> {
        match self {
            Self::Everything | Self::Any => Reach::Any,
            Self::Path(path) => Reach::Path(path),
            Self::Resource { upstream, path, query } => {
                Reach::Resource { upstream: *upstream, path, query: query.as_deref() }
            }
            Self::Key { hash, key } => Reach::Key { hash: *hash, key },
        }
    }
}

impl Order {
    /// Memory, second tier, memory again: see the head of this file. Says how many entries memory
    /// had, and what the second tier said.
    async fn everywhere<T>(self, core: &Core, second_tier: impl Future<Output = T>) -> (u64, T) {
        core.cells.inc(Counter::Purges);
        // Who passed the journal before this purge was noted there has queued its row for the
        // second tier when all cores have answered: before the order that follows.
        let before = self.forget_in_memory(core, Barrier::Always).await;
        let result = second_tier.await;
        let after = self.forget_in_memory(core, Barrier::WhenFound).await;
        (before + after, result)
    }

    async fn forget_in_memory(&self, core: &Core, barrier: Barrier) -> u64 {
        let shared = &core.shared;
        shared.journal.record(Arc::clone(&self.matches));
        match self.subject {
            Subject::Everything => {
                shared.helper.discard(shared.hub.clear());
                core.tell_all(CoreMessage::Clear).await;
                0
            }
            Subject::Any => self.walk_elsewhere(core).await,
            _ => self.walk_here(core, barrier).await,
        }
    }

    /// What is in reach is what is removed, so that this core can do it, a step at a time.
    async fn walk_here(&self, core: &Core, barrier: Barrier) -> u64 {
        let mut walk = core.shared.hub.walk(&self.subject.reach());
        let (mut count, mut told) = (0, barrier == Barrier::WhenFound);
        while let Some(found) = self.step(&core.shared, &mut walk) {
            count += found.len() as u64;
            if !found.is_empty() {
                core.tell_all(CoreMessage::DropAll(found)).await;
                told = true;
            }
        }
        if !told {
            core.tell_all(CoreMessage::DropAll(Arc::default())).await;
        }
        count
    }

    /// A helper walks, while this core serves. Too many purges waiting: this core must do it.
    async fn walk_elsewhere(&self, core: &Core) -> u64 {
        let acks = Acks::new();
        let count = Arc::new(AtomicU64::new(0));
        let job = {
            let (order, shared) = (self.clone(), Arc::clone(&core.shared));
            let (acks, count) = (acks.clone(), Arc::clone(&count));
            let own = acks.ack();
            move || {
                count.store(order.walk_through(&shared, Some(&acks)), Ordering::Relaxed);
                drop(own);
            }
        };
        if let Err(job) = core.shared.helper.take(Box::new(job)) {
            job();
        }
        core.drain_inbox();
        acks.all().await;
        count.load(Ordering::Relaxed)
    }

    /// Walks in one go, and has every core confirm if that is asked.
    fn walk_through(&self, shared: &Shared, acks: Option<&Acks>) -> u64 {
        let mut walk = shared.hub.walk(&self.subject.reach());
        let mut count = 0;
        let tell = |found: Arc<[Arc<Entry>]>| {
            for inbox in &shared.inboxes {
                inbox.send(CoreMessage::DropAll(Arc::clone(&found)), acks.map(Acks::ack));
            }
        };
        while let Some(found) = self.step(shared, &mut walk) {
            count += found.len() as u64;
            if !found.is_empty() {
                tell(found);
            }
        }
        // So that every core has passed this point, whatever was found.
        tell(Arc::default());
        count
    }

    fn step(&self, shared: &Shared, walk: &mut Walk) -> Option<Arc<[Arc<Entry>]>> {
        shared.hub.forget(walk, &|key| (self.matches)(key)).map(Into::into)
    }
}

/// Whether a purge that finds nothing in memory waits for the cores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Barrier {
    Always,
    WhenFound,
}

/// Waits for the second tier's word, but not for ever: a hung database must not hang an answer.
async fn confirmed(
    purged: impl Future<Output = Result<u64, Unavailable>>,
    span: Duration,
) -> Result<u64, Unavailable> {
    timeout(span, purged).await.unwrap_or(Err(Unavailable::Timeout))
}

/// Forgets what another instance has purged in the store they share. In the thread of the store's
/// writer, which goes on when every core has been told.
pub fn remote(shared: &Shared, purge: &Purge) {
    for order in remote_orders(shared, &purge.selection) {
        shared.journal.record(Arc::clone(&order.matches));
        order.walk_through(shared, None);
    }
}

fn remote_orders(shared: &Shared, selection: &Selection) -> Vec<Order> {
    let order = |subject, matches| vec![Order { matches, subject }];
    match selection {
        Selection::Path(row) => {
            let subject = subject_of_row(shared, row).unwrap_or(Subject::Any);
            order(subject, row_matcher(shared, row, |row, path| row == path))
        }
        Selection::Prefix(prefix) => {
            let subject = subject_of_prefix(shared, prefix).unwrap_or(Subject::Any);
            order(subject, row_matcher(shared, prefix, |row, path| row.starts_with(path)))
        }
        Selection::AnyOf(parts) => parts.iter().flat_map(|it| remote_orders(shared, it)).collect(),
        // Digests name keys that this instance can't recognise: rare, so forget everything.
        Selection::All | Selection::Digests(_) => order(Subject::Any, Arc::new(|_: &[u8]| true)),
    }
}

/// The resource of a row's path; see [`row_path`].
fn subject_of_row(shared: &Shared, row: &str) -> Option<Subject> {
    let upstreams = &shared.plan.settings.upstreams;
    let (at, rest) = upstreams.iter().enumerate().find_map(|(at, it)| {
        let rest = row.strip_prefix(&it.upstream.to_string())?.strip_prefix(' ')?;
        Some((at, rest))
    })?;
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.as_bytes().to_vec())),
        None => (rest, None),
    };
    let upstream = u16::try_from(at).ok()?;
    Some(Subject::Resource { upstream, path: path.into(), query })
}

/// A prefix that ends where a query begins is a path with all its queries.
fn subject_of_prefix(shared: &Shared, prefix: &str) -> Option<Subject> {
    match subject_of_row(shared, prefix)? {
        Subject::Resource { path, query: Some(query), .. } if query.is_empty() => {
            Some(Subject::Path(path))
        }
        _ => None,
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

/// Forgets paths or subtrees, on every upstream.
///
/// # Errors
/// As [`clear`].
pub async fn remove(core: &Core, scopes: &[Scope]) -> Result<u64, Unavailable> {
    selected(core, scopes, Effect::Remove).await
}

/// Makes paths or subtrees stale: they are validated before they are used again.
///
/// # Errors
/// As [`clear`].
pub async fn expire(core: &Core, scopes: &[Scope]) -> Result<u64, Unavailable> {
    // Dropped from memory, they come back from the second tier, marked.
    selected(core, scopes, Effect::Expire).await
}

async fn selected(core: &Core, scopes: &[Scope], effect: Effect) -> Result<u64, Unavailable> {
    let subject = match scopes {
        [Scope::Path(path)] => Subject::Path(path.clone().into()),
        _ => Subject::Any,
    };
    let order = Order { matches: matcher(scopes.to_vec()), subject };
    let second_tier = async {
        let Some(store) = &core.store else { return Ok(0) };
        let selection = selection(core.plan(), scopes);
        confirmed(store.purge(Purge { selection, effect }), ORDER_SPAN).await
    };
    // Where there is a second tier it has all that memory has, but for what it had to drop.
    let (in_memory, rows) = order.everywhere(core, second_tier).await;
    rows.map(|rows| rows.max(in_memory))
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
    let keyed = keyed_query(core.plan(), upstream, query.map(str::as_bytes));
    let resource = Subject::Resource {
        upstream: upstream.origin,
        path: path.as_bytes().to_vec(),
        query: keyed.map(Cow::into_owned),
    };
    let matches = of_resource(core, upstream, path, query);
    let order = Order { matches: Arc::clone(&matches), subject: resource };
    order.everywhere(core, from_store(core, Selection::Path(row.into()))).await;
    matches
}

/// Forgets one key.
pub async fn forget(core: &Rc<Core>, upstream: &Upstream, key: &Key) {
    let digest = key.digest(&upstream.name());
    let (hash, bytes) = (key.hash(), key.bytes().to_vec());
    let own = bytes.clone();
    let matches: KeyFilter = Arc::new(move |key| key == own);
    let order = Order { matches, subject: Subject::Key { hash, key: bytes } };
    order.everywhere(core, from_store(core, Selection::Digests([digest].into()))).await;
}

async fn from_store(core: &Core, selection: Selection) {
    let Some(store) = &core.store else { return };
    let purge = Purge { selection, effect: Effect::Remove };
    if let Err(reason) = confirmed(store.purge(purge), CONSEQUENCE_SPAN).await {
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

fn matcher(scopes: Vec<Scope>) -> KeyFilter {
    Arc::new(move |key| {
        let Some(path) = path_of(key) else { return false };
        scopes.iter().any(|scope| match scope {
            Scope::Path(exact) => path == exact.as_bytes(),
            Scope::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
        })
    })
}

/// The rows of all scopes, on every upstream, as one order: one commit, one notification.
fn selection(plan: &Plan, scopes: &[Scope]) -> Selection {
    let mut parts = Vec::new();
    for (at, upstream) in plan.upstreams.iter().enumerate() {
        if plan.upstreams[..at].iter().any(|it| it.target == upstream.target) {
            continue;
        }
        parts.extend(scopes.iter().flat_map(|scope| match scope {
            // With and without a query.
            Scope::Path(path) => vec![
                Selection::Path(row_path(plan, upstream, path, None).into()),
                Selection::Prefix(format!("{} {path}?", upstream.target).into()),
            ],
            Scope::Prefix(prefix) => {
                vec![Selection::Prefix(row_path(plan, upstream, prefix, None).into())]
            }
        }));
    }
    Selection::AnyOf(parts.into())
}

/// What one purge leaves in the journal: a note before the second tier and one after it.
pub const NOTES: usize = 2;
/// How long the answer to a purge waits for the second tier to confirm it.
const ORDER_SPAN: Duration = Duration::from_secs(10);
/// How long the answer to another request waits where a purge is a consequence of it. Its client
/// has not asked about the cache; and this instance hides the rows already.
const CONSEQUENCE_SPAN: Duration = Duration::from_secs(2);
