//! What the daemon would do with a request, and why, without doing it: the key, what is stored
//! under it and where, and the decision, by the code that serves requests (`gate::route`,
//! `gate::key_allowed`, `body::take`, `exchange::Prepared`, `variant`, `judge`). Reads both tiers;
//! never contacts an upstream, changes no order of eviction, counts nothing and takes nothing from
//! a quota: what it can't know without that is in [`NOT_CONSIDERED`].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::{CacheStatus, Entry, Key, Kind, Outcome, Reason, stale_on_error};
use crate::http::{Fields, RequestHead};
use crate::http1::BodyLength;
use crate::net::{mono, wall};
use crate::proxy::body;
use crate::proxy::core::Core;
use crate::proxy::cut;
use crate::proxy::downstream::{BodyEnd, Downstream, Gone, Reply};
use crate::proxy::error::{Fault, Refusal};
use crate::proxy::exchange::{NoInquiry, Prepared};
use crate::proxy::fetch;
use crate::proxy::fill;
use crate::proxy::gate;
use crate::proxy::hub::Traffic;
use crate::proxy::inquiry::Inquiry;
use crate::proxy::judge::{Verdict, forwarded, judge, may_share};
use crate::proxy::origin::{Patience, Purpose, TURN_WAIT_MAX};
use crate::proxy::request::{Destination, Framing, Task, Trail};
use crate::proxy::rescue;
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
    if head.fields.all("X-API-Key").nth(1).is_some() {
        return refused(None, Refusal::RepeatedKey.as_str());
    }
    if let Err(refusal) = gate::key_allowed(core.plan(), head.fields.get("X-API-Key")) {
        return refused(None, refusal.as_str());
    }
    let head = RequestHead { path, ..head };
    let prepared = Prepared::of(core, upstream, &head);
    let length = body.as_ref().map(|it| BodyLength::Length(it.len() as u64));
    let framing = Framing {
        body: length.unwrap_or(BodyLength::None),
        expects_continue: false,
        ..asking.framing
    };
    let task = Task {
        head,
        framing,
        peer: asking.peer,
        client: asking.client,
        id: asking.id,
        destination: Destination::Upstream(upstream),
        standings: asking.standings,
        started: asking.started,
        trail: Trail::default(),
    };
    let sender = Sender(RefCell::new(body));
    let body = match body::take(core, &task, prepared.lookup.is_ok(), &sender).await {
        Ok(body) => body,
        Err(BodyEnd::Refused(refusal)) => return refused(Some(upstream), refusal.as_str()),
        Err(BodyEnd::Gone) => return refused(Some(upstream), Refusal::Slow.as_str()),
    };
    let inquiry = match prepared.inquiry(core, Box::new(task), body) {
        Ok(inquiry) => inquiry,
        Err(other) => {
            let NoInquiry { reason, .. } = *other;
            if reason == Reason::OnlyIfCached {
                return refused(Some(upstream), reason.as_str());
            }
            let status = CacheStatus::forwarded(reason);
            let fault = barred(core, upstream, Patience::Some);
            return Explanation {
                upstream: Some(upstream),
                status: Some(status),
                reason: Some(fault.map_or(reason.as_str(), Fault::as_str)),
                action: if fault.is_some() { Action::Refuse } else { Action::Pass },
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

/// The body that is described, in the place of a client's.
struct Sender(RefCell<Option<Bytes>>);

impl Downstream for Sender {
    async fn body(&self) -> Result<Option<Bytes>, BodyEnd> {
        Ok(self.0.take())
    }

    fn stop_body(&self) {}

    async fn interim(&self, _: u16, _: &Fields) -> Result<(), Gone> {
        Err(Gone)
    }

    async fn whole(&self, _: Reply, _: Bytes) -> Result<(), Gone> {
        Err(Gone)
    }

    async fn start(&self, _: Reply) -> Result<(), Gone> {
        Err(Gone)
    }

    async fn chunk(&self, _: Bytes) -> Result<(), Gone> {
        Err(Gone)
    }

    async fn finish(&self) -> Result<(), Gone> {
        Err(Gone)
    }

    fn cut(&self) {}

    async fn gone(&self) {
        std::future::pending().await
    }
}

/// Why the upstream would not be asked now: as `origin::obtain` would find, without taking a turn
/// or the place of a probe.
fn barred(core: &Core, upstream: u16, patience: Patience) -> Option<Fault> {
    let upstream = core.plan().upstream(upstream);
    let (state, now) = (core.shared.upstream(upstream), mono());
    let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    let span = match patience {
        Patience::None => Duration::ZERO,
        Patience::Some => TURN_WAIT_MAX.min(upstream.request_timeout),
    };
    if let Some(pause) = state.pacer.paused_for(now).filter(|it| *it > span) {
        return Some(Fault::Paused(seconds(pause)));
    }
    let enabled = core.plan().settings.client.circuit_breaker_enabled;
    let closed_for = state.breaker.status(now).retry_after.filter(|_| enabled);
    closed_for.map(|it| Fault::CircuitOpen(seconds(it)))
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
    let decided = match &found {
        Some(found) => with_entry(core, inquiry, &found.entry),
        None => without_entry(core, inquiry, None, index.is_some()),
    };
    let (action, reason, status) = if_barred(core, inquiry, decided);
    let key = found.as_ref().map_or(&inquiry.primary, |it| it.entry.key()).clone();
    let vary = match index.map(Entry::kind) {
        Some(Kind::VaryIndex(index)) => {
            index.specs.iter().map(|it| it.as_str().to_owned()).collect()
        }
        Some(Kind::Content | Kind::Part(_)) | None => Vec::new(),
    };
    let upstream = Some(inquiry.upstream);
    Explanation { upstream, key: Some(key), found, vary, action, reason, status }
}

/// What is to be done, and with what the origin's failure would be bridged.
struct Decided<'e> {
    action: Action,
    reason: Option<Reason>,
    status: Option<CacheStatus>,
    stored: Option<&'e Arc<Entry>>,
}

impl<'e> Decided<'e> {
    const fn new(action: Action, reason: Option<Reason>, status: Option<CacheStatus>) -> Self {
        Self { action, reason, status, stored: None }
    }

    fn over(self, stored: Option<&'e Arc<Entry>>) -> Self {
        Self { stored, ..self }
    }
}

/// The decision as it becomes where the upstream is not to be asked now.
fn if_barred(
    core: &Core,
    inquiry: &Inquiry,
    decided: Decided<'_>,
) -> (Action, Option<&'static str>, Option<CacheStatus>) {
    let Decided { action, reason, status, stored } = decided;
    let substitute = stored.map(|it| rescue::substitutes(inquiry, it, wall()));
    let at_once = match action {
        Action::Validate | Action::Complete | Action::Fetch => {
            matches!(substitute, Some(Ok(_)))
        }
        Action::FetchAlone => stored.is_some_and(|it| cut::answers(inquiry, it, wall())),
        Action::Serve
        | Action::ServeStale
        | Action::ServeStaleAndRefresh
        | Action::Follow
        | Action::Pass
        | Action::Refuse => return (action, reason.map(Reason::as_str), status),
    };
    let patience = if at_once { Patience::None } else { Patience::Some };
    let Some(fault) = barred(core, inquiry.upstream, patience) else {
        return (action, reason.map(Reason::as_str), status);
    };
    match (substitute, stored) {
        (Some(Ok(why)), Some(entry)) => {
            let status = CacheStatus::stale(entry.facts().ttl(wall()), why);
            (Action::ServeStale, Some(why.as_str()), Some(status))
        }
        (Some(Err(unused)), _) => (Action::Refuse, Some(unused.as_str()), status),
        _ => {
            let fault = if inquiry.policy.offline { Fault::OfflineNotCached } else { fault };
            (Action::Refuse, Some(fault.as_str()), status)
        }
    }
}

fn with_entry<'e>(core: &Core, inquiry: &Inquiry, entry: &'e Arc<Entry>) -> Decided<'e> {
    match judge(inquiry, entry, wall()) {
        Verdict::Serve(status) => {
            let fresh = matches!(status.outcome, Outcome::Hit);
            let action = if fresh { Action::Serve } else { Action::ServeStale };
            Decided::new(action, status.detail, Some(status))
        }
        Verdict::ServeAndRefresh(status) => {
            Decided::new(Action::ServeStaleAndRefresh, status.detail, Some(status))
        }
        Verdict::Ask(reason) => {
            without_entry(core, inquiry, Some((entry, reason)), false).over(Some(entry))
        }
        Verdict::Alone(status) => Decided::new(Action::FetchAlone, status.detail, Some(status)),
        Verdict::Refuse => Decided::new(Action::Refuse, Some(Reason::OnlyIfCached), None),
    }
}

/// Nothing is stored that will do; `unfit` is what is, and why it won't.
fn without_entry(
    core: &Core,
    inquiry: &Inquiry,
    unfit: Option<(&Arc<Entry>, Reason)>,
    index: bool,
) -> Decided<'static> {
    if inquiry.facts.forward().is_err() {
        return Decided::new(Action::Refuse, Some(Reason::OnlyIfCached), None);
    }
    let status = forwarded(unfit.map(|it| it.1), index);
    let reason = status.detail;
    if !may_share(inquiry, unfit.is_some()) {
        return Decided::new(Action::FetchAlone, reason, Some(status));
    }
    let key = unfit.map_or(&inquiry.primary, |it| it.0.key());
    let traffic = core.shared.hub.peek(key.hash(), key.bytes(), mono());
    match (traffic, unfit) {
        (Traffic::Flight, _) if core.plan().coalescing => {
            let status = CacheStatus { collapsed: true, ..status };
            Decided::new(Action::Follow, reason, Some(status))
        }
        (Traffic::Flight, _) => Decided::new(Action::FetchAlone, reason, Some(status)),
        (Traffic::Solo, _) => {
            let status = CacheStatus::forwarded(Reason::MarkedUncacheable);
            Decided::new(Action::FetchAlone, status.detail, Some(status))
        }
        (Traffic::Waiting | Traffic::None, None) => {
            Decided::new(Action::Fetch, reason, Some(status))
        }
        (Traffic::Waiting | Traffic::None, Some((entry, _))) => {
            let (facts, now) = (entry.facts(), wall());
            let instead = stale_on_error(&inquiry.facts, &facts, &inquiry.policy, now);
            if traffic == Traffic::Waiting
                && cut::answers(inquiry, entry, now)
                && let Ok(why) = instead
            {
                let status = CacheStatus::stale(facts.ttl(now), why);
                return Decided::new(Action::ServeStale, Some(why), Some(status));
            }
            let action = match fetch::purpose(inquiry, Some(entry)) {
                Purpose::Fill { stored: Some(_), .. } => Action::Validate,
                Purpose::Complete { .. } => Action::Complete,
                Purpose::Fill { stored: None, .. } | Purpose::Part { .. } | Purpose::Pass => {
                    Action::Fetch
                }
            };
            Decided::new(action, reason, Some(status))
        }
    }
}

/// What an explanation leaves out, since to know it would change it or take time.
pub const NOT_CONSIDERED: &str =
    "rate limits of clients, the upstream's own rate and its free connections";

/// What a description of a request can't be.
pub const BAD_DESCRIPTION: Refusal =
    Refusal::BadTarget("write ?method=GET&path=/v1/x, with header=Name:value as often as needed");
