//! To the origin for one client, with an answer that the cache may still be able to keep: what
//! can't or need not share a fetch (a HEAD, Authorization, a range of what is large, a key whose
//! answers could not be stored lately).

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{Arriving, CacheStatus, Entry, Reason, is_error, own_fields};
use crate::http::Method;
use crate::net::{mono, wall};
use crate::proxy::ask::{Asked, Question};
use crate::proxy::core::Core;
use crate::proxy::cut::{Held, answers, cut};
use crate::proxy::deliver::{self, Whole};
use crate::proxy::downstream::Downstream;
use crate::proxy::effects;
use crate::proxy::error::Fault;
use crate::proxy::fill::{self, Ground};
use crate::proxy::inquiry::Inquiry;
use crate::proxy::keeping::Keeping;
use crate::proxy::origin::{Patience, Purpose};
use crate::proxy::pass::{self, Copied, ask, clean, gather};
use crate::proxy::purge;
use crate::proxy::race::{First, race};
use crate::proxy::record;
use crate::proxy::rescue;

/// A request that goes to the origin by itself.
pub struct Alone<'a> {
    /// The request.
    pub inquiry: &'a Inquiry,
    /// The index of variants that was found.
    pub index: Option<Arc<Entry>>,
    /// What is stored and won't do as it is.
    pub stored: Option<Arc<Entry>>,
    /// Why it goes.
    pub status: CacheStatus,
}

impl Alone<'_> {
    /// Asks, keeps what can be kept, answers.
    pub async fn run(self, core: &Rc<Core>, client: &impl Downstream) {
        let inquiry = self.inquiry;
        let ground = Ground::new(core, self.index.clone());
        let upstream = inquiry.upstream(core);
        let question = Question {
            task: &inquiry.task,
            upstream,
            purpose: self.purpose(),
            body: inquiry.body.clone(),
            patience: if self.has_substitute() { Patience::None } else { Patience::Some },
        };
        let asked = match race(ask(core, &question, client), client.gone()).await {
            First::Left(Ok(asked)) => asked,
            First::Left(Err(fault)) => return self.rescue(core, fault, client).await,
            First::Right(()) => return record::left(core, &inquiry.task),
        };
        let code = asked.head.status;
        if is_error(code) && self.stale(core, Fault::Status(code), client).await.is_ok() {
            core.cells.on_upstream_failure(Fault::Status(code).as_str());
            return asked.leave.complete();
        }
        let status = CacheStatus { fwd_status: Some(code), ..self.status };
        if inquiry.task.head.method == Method::Head {
            // Boxed: it may have to purge, which is large.
            let renewing = effects::renew(core, inquiry, &ground, self.stored.as_ref(), &asked);
            Box::pin(renewing).await;
        }
        if effects::changes(inquiry, &asked) {
            let (base, length) = (self.stored.as_deref(), asked.connection.length());
            let keeping = Keeping::of(inquiry, base, &asked.head, length, asked.times);
            let settling = effects::settle(core, &inquiry.task, upstream, &ground, &asked);
            Box::pin(settling).await;
            // Its own key is among those that go.
            let status = status.unstored(keeping.err().unwrap_or(Reason::Purged));
            return pass::send(core, &inquiry.task, upstream, asked, status, client).await;
        }
        if let Purpose::Pass = question.purpose {
            return pass::send(core, &inquiry.task, upstream, asked, status, client).await;
        }
        self.filled(core, &ground, asked, status, client).await;
    }

    /// The conditions of a HEAD are the origin's to judge, and nothing is filled by it. Nor is the
    /// whole of what may be large fetched for a part of it, or for a client that may have it
    /// already.
    fn purpose(&self) -> Purpose<'static> {
        let gzip = self.inquiry.codings.gzip.is_acceptable();
        match self.inquiry.task.head.method {
            Method::Head => Purpose::Pass,
            _ if self.inquiry.is_partial() => Purpose::Part { gzip },
            _ => Purpose::Fill { stored: None, gzip },
        }
    }

    /// Whether what is stored could stand in for an answer.
    fn has_substitute(&self) -> bool {
        self.stored.as_ref().is_some_and(|it| answers(self.inquiry, it, wall()))
    }

    /// Removes what is stored where the answer says that it holds no longer.
    async fn supersede(&self, core: &Rc<Core>, status: u16, why: Reason) {
        let stored = self.stored.as_ref().filter(|_| effects::supersedes(status, why));
        let Some(stored) = stored else { return };
        // Boxed, as a purge that all cores confirm is large.
        Box::pin(purge::forget(core, self.inquiry.upstream(core), stored.key())).await;
    }

    async fn rescue(&self, core: &Rc<Core>, fault: Fault, client: &impl Downstream) {
        let unused = match self.stale(core, fault, client).await {
            Ok(()) => return,
            Err(reason) => reason,
        };
        rescue::fault(core, self.inquiry, fault, unused, self.status, client).await;
    }

    /// Sends what is stored in place of an error, and lets the next attempt wait.
    ///
    /// # Errors
    /// Why it does not: nothing is stored, or the policy speaks against it.
    async fn stale(
        &self,
        core: &Rc<Core>,
        fault: Fault,
        client: &impl Downstream,
    ) -> Result<(), Option<Reason>> {
        let stored = self.stored.as_ref().ok_or(None)?;
        rescue::substitutes(self.inquiry, stored, wall())?;
        let key = stored.key();
        core.shared.hub.failed(key.hash(), key.bytes(), mono());
        Ok(rescue::stale(core, self.inquiry, stored, fault.said(), client).await?)
    }

    /// Stores what can be stored of an answer, and sends it.
    async fn filled(
        &self,
        core: &Rc<Core>,
        ground: &Ground,
        asked: Asked,
        status: CacheStatus,
        client: &impl Downstream,
    ) {
        let inquiry = self.inquiry;
        let (head, length) = (&asked.head, asked.connection.length());
        let base = self.stored.as_deref();
        let keeping = Keeping::of(inquiry, base, head, length, asked.times);
        let small = length.is_some_and(|it| it <= GATHER_BYTES_MAX);
        // What must be cut, decoded or judged by conditions must be whole first.
        // What the origin has done already (206, 304) is for this client as it is.
        let shaped = !matches!(head.status, 206 | 304)
            && (inquiry.is_partial() || inquiry.must_decode(head));
        let head_status = head.status;
        let copying = match keeping {
            // Boxed: to gather, to shape and to copy are large, to pass on is not.
            Ok(keeping) if small => {
                let gathered = self.gathered(core, ground, asked, Ok(keeping), client);
                return Box::pin(gathered).await;
            }
            Err(why) if small && shaped => {
                let gathered = self.gathered(core, ground, asked, Err(why), client);
                return Box::pin(gathered).await;
            }
            keeping => keeping.and_then(|it| Ok((room(core, it.length(length))?, it))),
        };
        match copying {
            Ok((room, keeping)) => {
                let kept = (keeping, room);
                Box::pin(self.copied(core, ground, asked, kept, status, client)).await;
            }
            Err(why) => {
                self.supersede(core, head_status, why).await;
                let (task, upstream) = (&inquiry.task, inquiry.upstream(core));
                pass::send(core, task, upstream, asked, status.unstored(why), client).await;
            }
        }
    }

    /// Sends an answer as it comes, and stores what it makes when all of it has come. It holds
    /// `room` until then.
    async fn copied(
        &self,
        core: &Rc<Core>,
        ground: &Ground,
        asked: Asked,
        (keeping, room): (Keeping, Arriving),
        status: CacheStatus,
        client: &impl Downstream,
    ) {
        let (inquiry, times) = (self.inquiry, asked.times);
        let status = CacheStatus { stored: true, ..status };
        let head = keeping.head(&asked.head);
        let copy = Copied::new(move |chunks: &[Bytes]| {
            if let Ok(body) = keeping.body(chunks) {
                let material = keeping.material(head, times, body);
                let _ = fill::fill_solo(core, inquiry, ground, material);
            }
            drop(room);
        });
        let (task, upstream) = (&inquiry.task, inquiry.upstream(core));
        pass::send_copied(core, task, upstream, asked, status, copy, client).await;
    }

    /// Takes all of an answer, stores what it makes, and sends what of it the client wants.
    async fn gathered(
        &self,
        core: &Rc<Core>,
        ground: &Ground,
        mut asked: Asked,
        keeping: Result<Keeping, Reason>,
        client: &impl Downstream,
    ) {
        let inquiry = self.inquiry;
        let upstream = inquiry.upstream(core);
        let status = CacheStatus { fwd_status: Some(asked.head.status), ..self.status };
        let gathered = {
            let mut gathering = pin!(gather(&mut asked));
            match race(gathering.as_mut(), client.gone()).await {
                First::Left(gathered) => gathered,
                // What can be stored is completed for the next reader.
                First::Right(()) if keeping.is_ok() => gathering.await,
                First::Right(()) => return record::left(core, &inquiry.task),
            }
        };
        let body = match gathered {
            Ok(body) => body,
            Err(fault) => {
                asked.fail(core, fault);
                return self.rescue(core, fault, client).await;
            }
        };
        let (head, times) = (asked.take_head(), asked.times);
        asked.finish(core, upstream);
        let stored = keeping.and_then(|keeping| {
            let body = keeping.whole_body(body.clone())?;
            let material = keeping.material(head.clone(), times, body);
            Ok(fill::fill_solo(core, inquiry, ground, material))
        });
        let (entry, status) = match stored {
            Ok((entry, kept)) => (Some(entry), kept.told(status)),
            Err(why) => {
                self.supersede(core, head.status, why).await;
                (None, status.unstored(why))
            }
        };
        // A part goes on as the origin sent it: it is the answer to this request.
        if let Some(entry) = entry.filter(|_| head.status != 206) {
            let own = own_fields(&head);
            return deliver::entry_with(core, inquiry, &entry, &own, status, client).await;
        }
        let mut whole = if head.status == 206 {
            let length = Some(body.len() as u64);
            Whole { head: clean(head), body, length }
        } else {
            let (request, received) = (&inquiry.task.head, times.responded);
            cut(request, clean(head), body, Held::Whole, received, wall())
        };
        deliver::note(&mut whole.head.fields, &status);
        let result = deliver::result_of(&status);
        deliver::whole(core, &inquiry.task, whole, result, client).await;
    }
}

/// A share of the memory for a copy of a body of this length.
///
/// # Errors
/// Why there is none.
fn room(core: &Core, length: Option<u64>) -> Result<Arriving, Reason> {
    let length = length.filter(|it| core.takes(*it)).ok_or(Reason::ResponseTooLarge)?;
    core.shared.ledger.arriving(length).ok_or(Reason::NoRoom)
}

/// Up to this length a storable answer is gathered before it is sent.
const GATHER_BYTES_MAX: u64 = 256 * 1024;
