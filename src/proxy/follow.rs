//! Watching a flight until it answers: the leader's client and all followers alike.

use std::rc::Rc;
use std::sync::Arc;

use crate::cache::{CacheStatus, Entry, Key, Kind, Reason};
use crate::http::Fields;
use crate::net::wall;
use crate::proxy::core::Core;
use crate::proxy::cut;
use crate::proxy::deliver;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Fault;
use crate::proxy::fetch::GATHER_BYTES_MAX;
use crate::proxy::flight::{Flight, How, Incoming, Outcome, Stage};
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

/// Waits for a flight and hands its answer on.
pub async fn follow(
    core: &Rc<Core>,
    inquiry: &Rc<Inquiry>,
    watcher: Watcher,
    status: CacheStatus,
    client: &impl Downstream,
) -> Followed {
    let _deserter = Deserter(&watcher);
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
                return stream(core, inquiry, &watcher, &incoming, status, client).await;
            }
            Stage::Landed(outcome) => {
                return landed(core, inquiry, &watcher, outcome, status, client).await;
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

async fn stream(
    core: &Rc<Core>,
    inquiry: &Rc<Inquiry>,
    watcher: &Watcher,
    incoming: &Arc<Incoming>,
    status: CacheStatus,
    client: &impl Downstream,
) -> Followed {
    let uncacheable = CacheStatus::forwarded(Reason::MarkedUncacheable);
    if !incoming.shared && !watcher.leader {
        return Followed::Alone(uncacheable);
    }
    // A variant's stream is for those whose request has its values, and not all may be had with
    // Authorization; a follower can't know before the entry is there.
    let choosy = incoming.head.fields.contains("Vary") || inquiry.facts.authorization;
    let varies = !watcher.leader && choosy;
    let undecodable = incoming.gzip && !inquiry.codings.gzip.is_acceptable();
    let whole = varies || undecodable || inquiry.is_partial();
    if whole && incoming.reason.is_none() {
        let outcome = watcher.flight.landed().await;
        return landed(core, inquiry, watcher, outcome, status, client).await;
    }
    if varies || undecodable {
        return Followed::Alone(uncacheable);
    }
    let Some(reader) = incoming.body.reader() else {
        // Its beginning is gone: memory ran out while it arrived.
        return Followed::Alone(CacheStatus::forwarded(Reason::NoRoom));
    };
    let status = CacheStatus { fwd_status: Some(incoming.head.status), ..status };
    let status = match incoming.reason {
        Some(why) => status.unstored(why),
        None => CacheStatus { stored: !status.collapsed, ..status },
    };
    let own = watcher.own();
    let short = incoming.length.is_some_and(|it| it <= GATHER_BYTES_MAX);
    if short && inquiry.is_partial() {
        let cut = deliver::incoming_cut(core, inquiry, incoming, reader, &own, status, client);
        if let Err(fault) = cut.await {
            return Followed::Failed(fault, None);
        }
    } else {
        deliver::incoming(core, inquiry, incoming, reader, &own, status, client).await;
    }
    Followed::Answered
}

async fn landed(
    core: &Rc<Core>,
    inquiry: &Rc<Inquiry>,
    watcher: &Watcher,
    outcome: Outcome<Entry>,
    status: CacheStatus,
    client: &impl Downstream,
) -> Followed {
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
    let status = match how {
        How::Stored => return Followed::Again,
        How::Fetched => {
            CacheStatus { stored: !status.collapsed, fwd_status: Some(entry.status()), ..status }
        }
        How::Purged => {
            let status = CacheStatus { fwd_status: Some(entry.status()), ..status };
            status.unstored(Reason::Purged)
        }
        How::Validated => {
            let why = status.detail.unwrap_or(Reason::Stale);
            CacheStatus { collapsed: status.collapsed, ..CacheStatus::revalidated(why) }
        }
    };
    deliver::entry_with(core, inquiry, &entry, &watcher.own(), status, client).await;
    Followed::Answered
}
