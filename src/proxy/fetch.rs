//! Leading a fetch: a task of its own, so that it goes on when the client that started it leaves.
//!
//! It ends in one of four ways, each of which lands the flight: an entry that was stored, an entry
//! that was confirmed, an answer for the leader's client alone, a fault.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use monoio::time::timeout;

use crate::cache::{
    Entry, Facts, Keep, Key, Reason, is_error, own_fields, selects, stale_on_error, storable,
    update,
};
use crate::http::hop;
use crate::metrics::Counter;
use crate::proxy::ask::{Asked, Question, ask};
use crate::proxy::core::Core;
use crate::proxy::error::Fault;
use crate::proxy::fill::{self, Ground, Material};
use crate::proxy::flight::{How, Incoming};
use crate::proxy::growing::{self, Complete, Growing};
use crate::proxy::hub::{Lead, SOLO_SPAN};
use crate::proxy::inquiry::{Inquiry, is_gzip};
use crate::proxy::origin::{AtHand, Body, Connection, Purpose};
use crate::proxy::pass;
use crate::proxy::purge;
use crate::proxy::race::{First, race};

/// A fetch.
pub struct Fetch {
    /// The core that runs it.
    pub core: Rc<Core>,
    /// The request it answers first.
    pub inquiry: Rc<Inquiry>,
    /// What is stored and must be confirmed or replaced.
    pub base: Option<Arc<Entry>>,
    /// Where it started from.
    pub ground: Ground,
}

impl Fetch {
    /// Starts it as a task of this core.
    pub fn spawn(self, lead: Lead<Entry>) {
        // A panic drops the lead, which tells everybody who waits.
        let task = crate::net::guarded(async move { self.run(lead).await });
        let core_task = async move {
            if task.await.is_err() {
                tracing::error!("a fetch panicked; its core lives on");
            }
        };
        drop(monoio::spawn(core_task));
    }

    async fn run(mut self, lead: Lead<Entry>) {
        let core = Rc::clone(&self.core);
        let inquiry = Rc::clone(&self.inquiry);
        let flight = Arc::clone(lead.flight());
        loop {
            let stored = self.base.as_ref().filter(|it| it.facts().has_validator);
            let coded = stored.is_some_and(|it| it.marks().gzip);
            let question = Question {
                task: &inquiry.task,
                upstream: inquiry.upstream(&core),
                purpose: Purpose::Fill {
                    stored: stored.map(|it| it.fields()),
                    gzip: coded || inquiry.codings.gzip.is_acceptable(),
                },
                body: inquiry.body.clone(),
            };
            let asked = ask(&core, &question, async |hint| {
                let mut hint = hint.clone();
                hop::strip_hop_by_hop(&mut hint.fields);
                flight.hint(hint);
            });
            let asked = match asked.await {
                Ok(asked) => asked,
                Err(fault) => return self.failed(lead, fault),
            };
            if asked.answer.head.status != 304 {
                return self.answered(lead, asked).await;
            }
            let Some(base) = self.base.take() else {
                // Nobody asked for that: we sent no condition.
                asked.leave.succeeded();
                return self.failed(lead, Fault::Invalid("unexpected_304"));
            };
            if selects(base.fields(), &asked.answer.head, asked.times.responded) {
                return self.confirmed(lead, &base, asked);
            }
            // A 304 for something we don't have: ask again, for the whole.
            self.finish(asked.connection, &asked.answer.body);
            asked.leave.succeeded();
        }
    }

    fn finish(&self, connection: Connection, body: &Body) {
        connection
            .finish(body, &self.core.pools[usize::from(self.inquiry.upstream(&self.core).origin)]);
    }

    fn failed(&self, lead: Lead<Entry>, fault: Fault) {
        lead.fail(fault, self.stale(), crate::net::mono());
    }

    /// What is stored, if it may stand in for a failure.
    fn stale(&self) -> Option<Arc<Entry>> {
        let base = self.base.as_ref()?;
        let now = crate::net::wall();
        let inquiry = &self.inquiry;
        stale_on_error(&inquiry.facts, &base.facts(), &inquiry.policy, now).ok()?;
        Some(Arc::clone(base))
    }

    /// A 304: the stored response with the fields of the newer head (RFC 9111 section 4.3.4).
    fn confirmed(&self, lead: Lead<Entry>, base: &Arc<Entry>, asked: Asked) {
        let Asked { connection, answer, times, leave } = asked;
        self.finish(connection, &answer.body);
        leave.succeeded();
        let (core, inquiry) = (&self.core, &self.inquiry);
        let policy = &inquiry.policy;
        let updated =
            update(&inquiry.facts, base.status(), base.fields(), &answer.head, times, policy);
        lead.flight().leave_own(updated.own.clone());
        if updated.keep == Keep::Replace {
            let renewal = fill::renewed(core, inquiry, &self.ground, base, &updated);
            let fill::Renewal { entry, index, left } = renewal;
            fill::publish(core, inquiry, lead, &self.ground, index, &entry, How::Validated);
            return left.map_or((), |left| self.forget(left));
        }
        let entry = base.renewed(base.key().clone(), updated.facts, &updated.fields);
        lead.answer(&Arc::new(fill::marked(core, entry)), How::Validated);
        // The newer head forbids to keep it: it answered those who wait and nobody else.
        if let Keep::Remove(_) = updated.keep {
            self.forget(base.key().clone());
        }
    }

    /// Removes what stands under a key, in the background.
    fn forget(&self, key: Key) {
        let (core, inquiry) = (Rc::clone(&self.core), Rc::clone(&self.inquiry));
        drop(monoio::spawn(async move {
            purge::forget(&core, inquiry.upstream(&core), &key).await;
        }));
    }

    async fn answered(self, lead: Lead<Entry>, asked: Asked) {
        let head = &asked.answer.head;
        if is_error(head.status)
            && let Some(stale) = self.stale()
        {
            let fault = Fault::Status(head.status);
            self.core.cells.on_upstream_failure(fault.as_str());
            asked.leave.answered(head);
            return lead.fail(fault, Some(stale), crate::net::mono());
        }
        lead.flight().leave_own(own_fields(head));
        match storable(&self.inquiry.facts, head, asked.times, &self.inquiry.policy) {
            Ok(facts) => self.keep(lead, asked, facts).await,
            Err(reason) => self.hand_on(lead, asked, reason).await,
        }
    }

    /// A storable answer: whole when it came in one piece, else readable while it arrives.
    async fn keep(self, lead: Lead<Entry>, mut asked: Asked, facts: Facts) {
        let length = asked.answer.body.length();
        if let Some(length) = length
            && self.is_too_large(length)
        {
            return self.hand_on(lead, asked, Reason::ResponseTooLarge).await;
        }
        if self.inquiry.facts.range && length.is_some_and(|it| it > RANGE_FILL_BYTES_MAX) {
            // Not all of that for a part: the client goes by itself, with its range.
            asked.leave.succeeded();
            return lead.private();
        }
        let chunks = match asked.connection.at_hand(&mut asked.answer.body) {
            Ok(AtHand::Whole(chunks)) => {
                return self.kept(lead, asked, facts, chunks.concat().into());
            }
            Ok(AtHand::Part(chunks)) => chunks,
            Err(fault) => return self.broken(lead, asked, fault),
        };
        let body = Growing::new(growing::Keep::All);
        chunks.into_iter().for_each(|chunk| body.push(chunk));
        let worth = facts.is_worth_waiting_for();
        lead.flight().stream(Arc::new(self.incoming(&asked, &body, worth, None)));
        match self.pump(&mut asked, &body).await {
            Ok(()) => {
                body.finish(Complete::Whole);
                self.kept(lead, asked, facts, body.concatenated());
            }
            Err(fault) => {
                body.finish(Complete::CutShort);
                self.broken(lead, asked, fault);
            }
        }
    }

    fn kept(self, lead: Lead<Entry>, asked: Asked, facts: Facts, body: Bytes) {
        let Asked { connection, answer, times, leave } = asked;
        leave.answered(&answer.head);
        self.finish(connection, &answer.body);
        let material = Material { head: answer.head, times, facts, body };
        fill::fill(&self.core, &self.inquiry, lead, &self.ground, material);
    }

    /// An answer that can't be stored: for the leader's client alone, except a short error, which
    /// all who wait may have.
    async fn hand_on(self, lead: Lead<Entry>, mut asked: Asked, reason: Reason) {
        // Nothing forbids to show it to others; it is only not worth storing.
        let plain = matches!(reason, Reason::NoFreshness | Reason::NoValidator);
        let error = asked.answer.head.status >= 500 && plain;
        let short = asked.answer.body.length().is_some_and(|it| it <= GATHER_BYTES_MAX);
        if error && short {
            return match self.gather(&mut asked).await {
                Ok(bytes) => {
                    let body = Growing::new(growing::Keep::All);
                    body.push(bytes);
                    body.finish(Complete::Whole);
                    let incoming = self.incoming(&asked, &body, true, Some(reason));
                    lead.flight().stream(Arc::new(incoming));
                    asked.leave.answered(&asked.answer.head);
                    self.finish(asked.connection, &asked.answer.body);
                    lead.private();
                }
                Err(fault) => self.broken(lead, asked, fault),
            };
        }
        self.core.cells.inc(Counter::Uncacheable);
        lead.detach(crate::net::mono().plus(SOLO_SPAN));
        if lead.flight().is_deserted() {
            return;
        }
        let body = Growing::new(growing::Keep::Passing);
        lead.flight().stream(Arc::new(self.incoming(&asked, &body, false, Some(reason))));
        match self.pump(&mut asked, &body).await {
            Ok(()) if asked.answer.body.is_done() => {
                body.finish(Complete::Whole);
                asked.leave.answered(&asked.answer.head);
                self.finish(asked.connection, &asked.answer.body);
                lead.private();
            }
            // The reader left: nobody is to blame.
            Ok(()) => lead.private(),
            Err(fault) => {
                body.finish(Complete::CutShort);
                self.broken(lead, asked, fault);
            }
        }
    }

    /// Whether no tier takes a body of that length.
    fn is_too_large(&self, length: u64) -> bool {
        let plan = self.core.plan();
        let memory = plan.memory_cache && length <= plan.memory_object_bytes_max;
        !memory && self.core.store.is_none()
    }

    fn incoming(
        &self,
        asked: &Asked,
        body: &Arc<Growing>,
        shared: bool,
        reason: Option<Reason>,
    ) -> Incoming {
        let mut head = pass::clean(asked.answer.head.clone());
        let gzip = is_gzip(&head);
        let own = own_fields(&asked.answer.head);
        let is_own = |name: &[u8]| own.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        head.fields.retain(|field| !is_own(field.name));
        let length = asked.answer.body.length();
        Incoming { head, length, gzip, shared, reason, body: Arc::clone(body) }
    }

    fn broken(&self, lead: Lead<Entry>, asked: Asked, fault: Fault) {
        self.core.cells.on_upstream_failure(fault.as_str());
        asked.leave.failed(None);
        self.failed(lead, fault);
    }

    async fn gather(&self, asked: &mut Asked) -> Result<Bytes, Fault> {
        let room = asked.answer.body.length().unwrap_or(0);
        let mut whole = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        while let Some(chunk) = self.next(asked).await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }

    /// Moves the body into `body` until its end, or until nobody reads it any more.
    async fn pump(&self, asked: &mut Asked, body: &Growing) -> Result<(), Fault> {
        while body.room().await {
            match race(self.next(asked), body.deserted()).await {
                First::Left(Ok(Some(chunk))) => body.push(chunk),
                First::Left(Ok(None)) | First::Right(()) => return Ok(()),
                First::Left(Err(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    async fn next(&self, asked: &mut Asked) -> Result<Option<Bytes>, Fault> {
        let span = self.inquiry.upstream(&self.core).request_timeout;
        let next = timeout(span, asked.connection.chunk(&mut asked.answer.body)).await;
        next.unwrap_or(Err(Fault::Timeout))
    }
}

/// Up to this length a body is gathered before anybody gets it: it comes with its head or one
/// round trip later, and is then written in one piece.
const GATHER_BYTES_MAX: u64 = 64 * 1024;
/// A longer response is not fetched whole for a request for a part of it.
const RANGE_FILL_BYTES_MAX: u64 = 4 * 1024 * 1024;
