//! Watching a flight until it answers: the leader's client and all followers alike.
//!
//! Who comes when the head is there already gets what a request gets that finds a stored response:
//! by its own directives and the response's, and with its Age (RFC 9111 section 4).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{CacheStatus, Entry, Key, Kind, Reason, Reuse, reuse};
use crate::http::Fields;
use crate::net::ticks::timeout;
use crate::net::wall;
use crate::proxy::core::Core;
use crate::proxy::cut;
use crate::proxy::deliver::{self, Arriving};
use crate::proxy::downstream::Downstream;
use crate::proxy::early::Early;
use crate::proxy::error::Fault;
use crate::proxy::fetch::GATHER_BYTES_MAX;
use crate::proxy::flight::{Flight, How, Incoming, Outcome, Stage};
use crate::proxy::growing::Reader;
use crate::proxy::inquiry::Inquiry;
use crate::proxy::race::{First, race};
use crate::proxy::record;

/// Somebody who waits.
pub struct Watcher {
    /// For this.
    pub flight: Arc<Flight<Entry>>,
    /// It was started for this one: a private answer is its.
    pub leader: bool,
    /// The key whose answer a follower may take; an entry of another key is another variant.
    pub expected: Option<Key>,
}

impl Watcher {
    /// Fields of the answer that are for this one alone.
    fn own(&self) -> Fields {
        if self.leader { self.flight.take_own() } else { Fields::new() }
    }

    /// Reads the body from its beginning.
    fn reader(&self, incoming: &Incoming) -> Option<Reader> {
        let first = if self.leader { self.flight.take_first() } else { None };
        first.or_else(|| incoming.body.reader())
    }
}

/// What became of the waiting.
pub enum Followed {
    /// The client has its answer, or has left.
    Answered,
    /// Something is known now that was not before: look again.
    Again,
    /// The answer is not for this one, which goes by itself.
    Alone(CacheStatus),
    /// A fault, and perhaps something stale.
    Failed(Fault, Option<Arc<Entry>>),
}

/// When a request came to a flight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Before the answer's head: the origin has answered it together with the first one.
    Before,
    /// When that was there.
    Late,
}

/// Waits for a flight and hands its answer on.
pub async fn follow(
    core: &Rc<Core>,
    inquiry: &Rc<Inquiry>,
    watcher: Watcher,
    status: CacheStatus,
    client: &impl Downstream,
) -> Followed {
    let _deserter = Deserter(&watcher);
    let is_late = !watcher.leader && watcher.flight.is_streaming();
    let came = if is_late { Came::Late } else { Came::Before };
    let mut hints = 0;
    loop {
        let stage = match race(watcher.flight.stage(&mut hints), client.gone()).await {
            First::Left(stage) => stage,
            First::Right(()) => return left(core, inquiry),
        };
        match stage {
            Stage::Hint(head) => {
                if client.interim(head.status, &head.fields).await.is_err() {
                    return left(core, inquiry);
                }
            }
            Stage::Streaming(incoming) => {
                // Who leaves from here on, or goes on alone, leaves an answer of its own unread.
                if let Err(followed) = may_have(inquiry, &watcher, &incoming, came) {
                    return followed;
                }
                let wait = Wait { core, inquiry, watcher: &watcher, status, client };
                return wait.stream(&incoming).await;
            }
            // What landed in between is found, and judged, like anything stored.
            Stage::Landed(Outcome::Entry(..)) if came == Came::Late => return Followed::Again,
            Stage::Landed(outcome) => {
                let wait = Wait { core, inquiry, watcher: &watcher, status, client };
                return wait.landed(outcome).await;
            }
        }
    }
}

/// The client waits no longer.
fn left(core: &Core, inquiry: &Inquiry) -> Followed {
    record::left(core, &inquiry.task);
    Followed::Answered
}

/// Tells the fetch when the client it was started for leaves before the answer.
struct Deserter<'w>(&'w Watcher);

impl Drop for Deserter<'_> {
    fn drop(&mut self) {
        if self.0.leader {
            self.0.flight.desert();
        }
    }
}

/// Whether an answer that is arriving may be this one's, as far as its head tells.
fn may_have(
    inquiry: &Inquiry,
    watcher: &Watcher,
    incoming: &Incoming,
    came: Came,
) -> Result<(), Followed> {
    if watcher.leader {
        return Ok(());
    }
    let alone = |why| Err(Followed::Alone(CacheStatus::forwarded(why)));
    if !incoming.shared {
        return alone(Reason::MarkedUncacheable);
    }
    let Some(facts) = &incoming.facts else { return Ok(()) };
    if inquiry.facts.authorization && !facts.shareable {
        return alone(Reason::Authorization);
    }
    match came {
        Came::Before if facts.is_worth_waiting_for() => Ok(()),
        Came::Before => alone(if facts.no_cache { Reason::NoCache } else { Reason::Stale }),
        Came::Late => match reuse(&inquiry.facts, facts, &inquiry.policy, wall()) {
            Reuse::Fresh | Reuse::Stale(_) | Reuse::StaleWhileRevalidate => Ok(()),
            Reuse::Validate(why) | Reuse::Refuse(why) | Reuse::Bypass(why) => alone(why),
        },
    }
}

/// A request whose answer is arriving, or is there.
struct Wait<'a, D> {
    core: &'a Rc<Core>,
    inquiry: &'a Rc<Inquiry>,
    watcher: &'a Watcher,
    status: CacheStatus,
    client: &'a D,
}

/// What to do when the whole of a body, which is wanted, does not come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instead {
    /// Answer with all of it, as it comes: a range may be ignored (RFC 9110 section 14.2).
    All,
    /// Ask the origin alone.
    Alone,
}

impl<D: Downstream> Wait<'_, D> {
    async fn stream(&self, incoming: &Arc<Incoming>) -> Followed {
        let Self { inquiry, watcher, .. } = *self;
        let Some(reader) = watcher.reader(incoming) else {
            // Its beginning is gone: memory ran out while it arrived.
            return Followed::Alone(CacheStatus::forwarded(Reason::NoRoom));
        };
        // A variant's stream is for those whose request has its values; a follower can't know
        // before the entry is there.
        let varies = !watcher.leader && incoming.head.fields.contains("Vary");
        let undecodable = incoming.gzip && !inquiry.codings.gzip.is_acceptable();
        let instead = if watcher.leader { Instead::All } else { Instead::Alone };
        let early = Early::of(&inquiry.task.head, incoming, wall());
        if incoming.reason.is_some() {
            return match early {
                // A leader has it as it comes: asked once more, the origin would send no other.
                _ if (varies || undecodable) && instead == Instead::Alone => {
                    Followed::Alone(CacheStatus::forwarded(Reason::MarkedUncacheable))
                }
                Early::Nothing if is_short(incoming) => self.cut(incoming, reader).await,
                early => self.send(incoming, reader, early).await,
            };
        }
        if varies || undecodable {
            let patience = inquiry.upstream(self.core).request_timeout;
            return self.whole(incoming, reader, patience, instead).await;
        }
        match early {
            Early::Nothing => self.whole(incoming, reader, SOON, Instead::All).await,
            early => self.send(incoming, reader, early).await,
        }
    }

    /// Waits for the whole of a body that is being stored. Where nobody knows its length, it may
    /// never end, and `patience` does; `reader` holds the place in it until then.
    async fn whole(
        &self,
        incoming: &Arc<Incoming>,
        reader: Reader,
        patience: Duration,
        instead: Instead,
    ) -> Followed {
        let whole = async {
            match race(self.watcher.flight.landed(), incoming.body.passing()).await {
                First::Left(Outcome::Private) | First::Right(()) => None,
                First::Left(outcome) => Some(outcome),
            }
        };
        let bounded = async {
            match incoming.length {
                Some(_) => whole.await,
                None => timeout(patience, whole).await.unwrap_or(None),
            }
        };
        match race(bounded, self.client.gone()).await {
            First::Left(Some(outcome)) => {
                drop(reader);
                self.landed(outcome).await
            }
            First::Left(None) if instead == Instead::All => {
                self.send(incoming, reader, Early::All).await
            }
            First::Left(None) => Followed::Alone(CacheStatus::forwarded(Reason::NoRoom)),
            First::Right(()) => left(self.core, self.inquiry),
        }
    }

    /// Sends a body as it comes, or what of it is wanted.
    async fn send(&self, incoming: &Arc<Incoming>, reader: Reader, early: Early) -> Followed {
        let arriving = self.arriving(incoming, reader);
        deliver::incoming(self.core, self.inquiry, arriving, early, self.client).await;
        Followed::Answered
    }

    /// Sends what is wanted of a short body once it is there.
    async fn cut(&self, incoming: &Arc<Incoming>, reader: Reader) -> Followed {
        let arriving = self.arriving(incoming, reader);
        match deliver::incoming_cut(self.core, self.inquiry, arriving, self.client).await {
            Ok(()) => Followed::Answered,
            Err(fault) => Followed::Failed(fault, None),
        }
    }

    fn arriving<'i>(&self, incoming: &'i Incoming, reader: Reader) -> Arriving<'i> {
        let status = CacheStatus { fwd_status: self.fwd_status(), ..self.status };
        let status = match incoming.reason {
            Some(why) => status.unstored(why),
            None => CacheStatus { stored: !status.collapsed, ..status },
        };
        // The first one gets the origin's own Age.
        let facts = incoming.facts.as_ref().filter(|_| !self.watcher.leader);
        let age = facts.map(|it| it.age(wall()));
        Arriving { incoming, reader, own: self.watcher.own(), age, status }
    }

    fn fwd_status(&self) -> Option<u16> {
        Some(self.watcher.flight.answered())
    }

    async fn landed(&self, outcome: Outcome<Entry>) -> Followed {
        let Self { core, inquiry, watcher, status, client } = *self;
        let (entry, how) = match outcome {
            Outcome::Entry(entry, how) => (entry, how),
            Outcome::Private if watcher.leader => return Followed::Alone(status),
            Outcome::Private => {
                return Followed::Alone(CacheStatus::forwarded(Reason::MarkedUncacheable));
            }
            Outcome::Failed(Fault::Abandoned, _) if !watcher.leader => return Followed::Again,
            Outcome::Failed(fault, stale) => return Followed::Failed(fault, stale),
        };
        // Found, not fetched: whether it will do is for each request to judge.
        if how == How::Stored || matches!(entry.kind(), Kind::VaryIndex(_)) {
            return Followed::Again;
        }
        let other = watcher.expected.as_ref().is_some_and(|it| it != entry.key());
        if other {
            return Followed::Again;
        }
        // A part answers the request that brought it, and those for ranges of it.
        if !watcher.leader && !cut::answers(inquiry, &entry, wall()) {
            return Followed::Again;
        }
        let facts = entry.facts();
        if inquiry.facts.authorization && !facts.shareable && !watcher.leader {
            return Followed::Alone(CacheStatus::forwarded(Reason::Authorization));
        }
        let usable = watcher.leader || facts.is_worth_waiting_for();
        if !usable {
            let why = if facts.no_cache { Reason::NoCache } else { Reason::Stale };
            return Followed::Alone(CacheStatus::forwarded(why));
        }
        let fwd_status = self.fwd_status();
        let status = match how {
            How::Stored => return Followed::Again,
            How::Fetched => CacheStatus { stored: !status.collapsed, fwd_status, ..status },
            How::Purged => CacheStatus { fwd_status, ..status }.unstored(Reason::Purged),
            How::Validated => {
                let why = status.detail.unwrap_or(Reason::Stale);
                CacheStatus { collapsed: status.collapsed, ..CacheStatus::revalidated(why) }
            }
        };
        deliver::entry_with(core, inquiry, &entry, &watcher.own(), status, client).await;
        Followed::Answered
    }
}

fn is_short(incoming: &Incoming) -> bool {
    incoming.length.is_some_and(|it| it <= GATHER_BYTES_MAX)
}

/// How long a request for a range waits for the end of a body of unknown length: most end with
/// their first round trips, and one that does not is better sent whole than late.
const SOON: Duration = Duration::from_secs(1);
