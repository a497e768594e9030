//! What the daemon would do with a request, and why, without doing it: the key, what is stored
//! under it and where, and the decision, by the code that serves requests (`gate::route`,
//! `exchange::Prepared`, `variant`, `judge`). Reads both tiers; never contacts an upstream,
//! changes no order of eviction, counts nothing.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{CacheStatus, Entry, Key, Kind, Outcome, Reason, stale_on_error};
use crate::http::RequestHead;
use crate::net::{mono, wall};
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;
use crate::proxy::cut;
use crate::proxy::error::Refusal;
use crate::proxy::exchange::{NoInquiry, Prepared};
use crate::proxy::fetch;
use crate::proxy::fill;
use crate::proxy::gate;
use crate::proxy::hub::Traffic;
use crate::proxy::inquiry::Inquiry;
use crate::proxy::judge::{Verdict, forwarded, judge, may_share};
use crate::proxy::origin::Purpose;
use crate::proxy::request::{Destination, Task, Trail};
use crate::proxy::variant::{self, is_newer};
use crate::store::GetOutcome;

/// A request as described: its path is normalised and without the API prefix.
pub struct Described {
    /// Method, path, query and fields.
    pub head: RequestHead,
    /// Its body.
    pub body: Option<Bytes>,
}

/// What would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer from the cache, fresh.
    Serve,
    /// Answer from the cache, stale.
    ServeStale,
    /// Answer from the cache, stale, and refresh in the background.
    ServeStaleAndRefresh,
    /// Ask the origin whether what is stored still holds.
    Validate,
    /// Fetch from the origin what a stored part lacks.
    Complete,
    /// Fetch from the origin; others who ask meanwhile share it.
    Fetch,
    /// Wait for a fetch that is under way.
    Follow,
    /// Fetch from the origin for this client alone; the answer may be stored.
    FetchAlone,
    /// Pass to the origin; neither looked up nor stored.
    Pass,
    /// Refuse.
    Refuse,
}

/// What is stored for the request.
pub struct Found {
    /// The response.
    pub entry: Arc<Entry>,
    /// Some core has it in memory.
    pub memory: bool,
    /// The second tier has it.
    pub second_tier: bool,
}

/// All that is to be said.
pub struct Explanation {
    /// Which upstream; `None` when it is refused before.
    pub upstream: Option<u16>,
    /// The key: of the variant where one was found, else the primary key. `None` when the cache
    /// is not asked.
    pub key: Option<Key>,
    /// What is stored.
    pub found: Option<Found>,
    /// The fields that choose between stored variants.
    pub vary: Vec<String>,
    /// What would be done.
    pub action: Action,
    /// Why, in one word; none for a fresh hit and a plain miss.
    pub reason: Option<&'static str>,
    /// What Cache-Status would begin with.
    pub status: Option<CacheStatus>,
}

impl Action {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::ServeStale => "serve_stale",
            Self::ServeStaleAndRefresh => "serve_stale_and_refresh",
            Self::Validate => "validate",
            Self::Complete => "complete",
            Self::Fetch => "fetch",
            Self::Follow => "follow",
            Self::FetchAlone => "fetch_alone",
            Self::Pass => "pass",
            Self::Refuse => "refuse",
        }
    }
}

/// Explains a request; `asking` is the one that asks for it.
pub async fn explain(core: &Rc<Core>, asking: &Task, described: Described) -> Explanation {
    let Described { head, body } = described;
    let routed = gate::route(core.plan(), &head.method, head.path.as_bytes());
    let (upstream, path) = match routed {
        Ok((upstream, path)) => (upstream.index, String::from_utf8_lossy(path).into_owned()),
        Err(refusal) => return refused(None, refusal.as_str()),
    };
    let head = RequestHead { path, ..head };
    let prepared = Prepared::of(core, upstream, &head);
    let task = Task {
        head,
        framing: asking.framing,
        peer: asking.peer,
        client: asking.client,
        id: asking.id,
        destination: Destination::Upstream(upstream),
        standings: asking.standings,
        started: asking.started,
        trail: Trail::default(),
    };
    let body = body.map_or(RequestBody::None, RequestBody::Whole);
    let inquiry = match prepared.inquiry(core, Box::new(task), body) {
        Ok(inquiry) => inquiry,
        Err(other) => {
            let NoInquiry { reason, .. } = *other;
            if reason == Reason::OnlyIfCached {
                return refused(Some(upstream), reason.as_str());
            }
            let status = CacheStatus::forwarded(reason);
            return Explanation {
                upstream: Some(upstream),
                status: Some(status),
                reason: Some(reason.as_str()),
                action: Action::Pass,
                ..refused(None, "")
            };
        }
    };
    let (found, index) = find(core, &inquiry).await;
    decide(core, &inquiry, found, index.as_deref())
}

fn refused(upstream: Option<u16>, reason: &'static str) -> Explanation {
    Explanation {
        upstream,
        key: None,
        found: None,
        vary: Vec::new(),
        action: Action::Refuse,
        reason: Some(reason),
        status: None,
    }
}

/// What is stored for the request, and the index of variants that led to it.
async fn find(core: &Rc<Core>, inquiry: &Inquiry) -> (Option<Found>, Option<Arc<Entry>>) {
    let Some(found) = look_up(core, inquiry, &inquiry.primary).await else { return (None, None) };
    if !matches!(found.entry.kind(), Kind::VaryIndex(_)) {
        return (Some(found), None);
    }
    let index = found.entry;
    let mut newest: Option<Found> = None;
    for key in variant::keys(&core.shared.seed, inquiry, &index) {
        let Some(found) = look_up(core, inquiry, &key).await else { continue };
        let older = newest.as_ref().is_none_or(|it| is_newer(&found.entry, &it.entry));
        if older && !matches!(found.entry.kind(), Kind::VaryIndex(_)) {
            newest = Some(found);
        }
    }
    (newest, Some(index))
}

async fn look_up(core: &Rc<Core>, inquiry: &Inquiry, key: &Key) -> Option<Found> {
    core.drain_inbox();
    let local = core.shard.borrow().peek(key.hash(), key.bytes()).cloned();
    let live = local.or_else(|| core.shared.hub.live(key.hash(), key.bytes()));
    let stored = second_tier(core, inquiry, key).await;
    let (memory, second_tier) = (live.is_some(), stored.is_some());
    let entry = live.or(stored)?;
    Some(Found { entry, memory, second_tier })
}

async fn second_tier(core: &Rc<Core>, inquiry: &Inquiry, key: &Key) -> Option<Arc<Entry>> {
    let store = core.store.as_ref()?;
    let journal = &core.shared.journal;
    let mark = journal.mark();
    let GetOutcome::Hit(row) = store.get(key.digest(&inquiry.upstream(core).name())).await else {
        return None;
    };
    if !journal.spared(mark, inquiry.primary.bytes()) {
        return None;
    }
    let expired = row.expired_at;
    let entry = fill::read(core, row, key)?;
    Some(Arc::new(fill::expire(core, entry, expired)))
}

fn decide(
    core: &Core,
    inquiry: &Inquiry,
    found: Option<Found>,
    index: Option<&Entry>,
) -> Explanation {
    let (action, reason, status) = match &found {
        Some(found) => with_entry(core, inquiry, &found.entry),
        None => without_entry(core, inquiry, None, index.is_some()),
    };
    let key = found.as_ref().map_or(&inquiry.primary, |it| it.entry.key()).clone();
    let vary = match index.map(Entry::kind) {
        Some(Kind::VaryIndex(index)) => {
            index.specs.iter().map(|it| it.as_str().to_owned()).collect()
        }
        Some(Kind::Content | Kind::Part(_)) | None => Vec::new(),
    };
    let reason = reason.map(Reason::as_str);
    let upstream = Some(inquiry.upstream);
    Explanation { upstream, key: Some(key), found, vary, action, reason, status }
}

type Decided = (Action, Option<Reason>, Option<CacheStatus>);

fn with_entry(core: &Core, inquiry: &Inquiry, entry: &Arc<Entry>) -> Decided {
    match judge(inquiry, entry, wall()) {
        Verdict::Serve(status) => {
            let fresh = matches!(status.outcome, Outcome::Hit);
            let action = if fresh { Action::Serve } else { Action::ServeStale };
            (action, status.detail, Some(status))
        }
        Verdict::ServeAndRefresh(status) => {
            (Action::ServeStaleAndRefresh, status.detail, Some(status))
        }
        Verdict::Ask(reason) => without_entry(core, inquiry, Some((entry, reason)), false),
        Verdict::Alone(status) => (Action::FetchAlone, status.detail, Some(status)),
        Verdict::Refuse => (Action::Refuse, Some(Reason::OnlyIfCached), None),
    }
}

/// Nothing is stored that will do; `unfit` is what is, and why it won't.
fn without_entry(
    core: &Core,
    inquiry: &Inquiry,
    unfit: Option<(&Arc<Entry>, Reason)>,
    index: bool,
) -> Decided {
    if inquiry.facts.forward().is_err() {
        return (Action::Refuse, Some(Reason::OnlyIfCached), None);
    }
    let status = forwarded(unfit.map(|it| it.1), index);
    let reason = status.detail;
    if !may_share(inquiry, unfit.is_some()) {
        return (Action::FetchAlone, reason, Some(status));
    }
    let key = unfit.map_or(&inquiry.primary, |it| it.0.key());
    let traffic = core.shared.hub.peek(key.hash(), key.bytes(), mono());
    match (traffic, unfit) {
        (Traffic::Flight, _) => {
            (Action::Follow, reason, Some(CacheStatus { collapsed: true, ..status }))
        }
        (Traffic::Solo, _) => {
            let status = CacheStatus::forwarded(Reason::MarkedUncacheable);
            (Action::FetchAlone, status.detail, Some(status))
        }
        (Traffic::Waiting | Traffic::None, None) => (Action::Fetch, reason, Some(status)),
        (Traffic::Waiting | Traffic::None, Some((entry, _))) => {
            let (facts, now) = (entry.facts(), wall());
            let instead = stale_on_error(&inquiry.facts, &facts, &inquiry.policy, now);
            if traffic == Traffic::Waiting
                && cut::answers(inquiry, entry, now)
                && let Ok(why) = instead
            {
                let status = CacheStatus::stale(facts.ttl(now), why);
                return (Action::ServeStale, Some(why), Some(status));
            }
            let action = match fetch::purpose(inquiry, Some(entry)) {
                Purpose::Fill { stored: Some(_), .. } => Action::Validate,
                Purpose::Complete { .. } => Action::Complete,
                Purpose::Fill { stored: None, .. } | Purpose::Part { .. } | Purpose::Pass => {
                    Action::Fetch
                }
            };
            (action, reason, Some(status))
        }
    }
}

/// What a description of a request can't be.
pub const BAD_DESCRIPTION: Refusal =
    Refusal::BadTarget("write ?method=GET&path=/v1/x, with header=Name:value as often as needed");
