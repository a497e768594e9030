//! Leading a fetch: a task of its own, so that it goes on when the client that started it leaves.
//!
//! It ends in one of four ways, each of which lands the flight: an entry that was stored, an entry
//! that was confirmed, an answer for the leader's client alone, a fault.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::Wall;
use crate::cache::{Arriving, Entry, Keep, Key, Reason, is_error, own_fields, selects, update};
use crate::http::conditional::Validators;
use crate::http::{Method, ResponseHead, hop};
use crate::metrics::Counter;
use crate::proxy::arrive::{Arrival, Kept};
use crate::proxy::ask::{Asked, Question, ask};
use crate::proxy::core::Core;
use crate::proxy::cut::{self, Held};
use crate::proxy::early::Early;
use crate::proxy::effects;
use crate::proxy::error::Fault;
use crate::proxy::fill::{self, Ground};
use crate::proxy::flight::{How, Incoming};
use crate::proxy::growing::{self, Complete, Growing};
use crate::proxy::hub::{Lead, SOLO_SPAN};
use crate::proxy::inquiry::{Inquiry, is_gzip};
use crate::proxy::judge::RANGE_FILL_BYTES_MAX;
use crate::proxy::keeping::{Keeping, is_event_stream};
use crate::proxy::origin::{AtHand, Patience, Purpose};
use crate::proxy::pass;
use crate::proxy::purge;
use crate::proxy::rescue;

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
    /// What for.
    pub why: Why,
}

/// What a fetch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A client waits for it.
    Asked,
    /// The client has a stale answer already (RFC 5861 section 3).
    Refresh,
}

impl Fetch {
    /// Starts it as a task of this core.
    pub fn spawn(self, lead: Lead<Entry>) {
        if self.why == Why::Refresh {
            // Its client does not wait: an answer for that client alone would have no reader.
            lead.flight().desert();
        }
        let cells = Arc::clone(&self.core.cells);
        // A panic drops the lead, which tells everybody who waits.
        let task = crate::net::guarded(async move { self.run(lead).await });
        let core_task = async move {
            if task.await.is_err() {
                cells.inc(Counter::Panics);
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
            let purpose = purpose(&self.inquiry, self.base.as_ref());
            let is_conditional = matches!(purpose, Purpose::Fill { stored: Some(_), .. });
            let question = Question {
                task: &inquiry.task,
                upstream: inquiry.upstream(&core),
                purpose,
                body: inquiry.body.clone(),
                patience: if self.stale().is_some() { Patience::None } else { Patience::Some },
            };
            let asked = ask(&core, &question, async |hint| {
                let mut hint = hint.clone();
                hop::strip_hop_by_hop(&mut hint.fields);
                // RFC 9110 section 8.6.
                hint.fields.remove("Content-Length");
                flight.hint(hint);
            });
            let asked = match asked.await {
                Ok(asked) => asked,
                Err(fault) => return self.failed(lead, fault),
            };
            if let Purpose::Complete { .. } = purpose
                && !self.completes(&asked)
            {
                // Not the rest of what is stored: ask again, for the whole.
                self.finish(asked);
                self.base = None;
                continue;
            }
            if asked.head.status != 304 {
                return self.answered(lead, asked).await;
            }
            let Some(base) = self.base.take_if(|_| is_conditional) else {
                // Nobody asked for that: we sent no condition.
                asked.leave.succeeded();
                return self.failed(lead, Fault::Invalid("unexpected_304"));
            };
            if selects(base.fields(), &asked.head, asked.times.responded) {
                return self.confirmed(lead, &base, asked);
            }
            // A 304 for something we don't have: ask again, for the whole.
            self.finish(asked);
        }
    }

    /// Whether the answer to [`Purpose::Complete`] is one to go on with: what was missing, the
    /// whole, or an error. A 304, 206 or 416 that does not fit says that something else is stored
    /// here than there.
    fn completes(&self, asked: &Asked) -> bool {
        let (head, length) = (&asked.head, asked.connection.length());
        let whole = || {
            let base = self.base.as_deref();
            let keeping = Keeping::of(&self.inquiry, base, head, length, asked.times);
            let takes = |it: &Keeping| it.length(length).is_none_or(|it| self.core.takes(it));
            keeping.is_ok_and(|it| !it.is_part() && takes(&it))
        };
        !matches!(head.status, 206 | 304 | 416) || (head.status == 206 && whole())
    }

    fn finish(&self, asked: Asked) {
        asked.finish(&self.core, self.inquiry.upstream(&self.core));
    }

    fn failed(&self, lead: Lead<Entry>, fault: Fault) {
        lead.fail(fault, self.stale(), crate::net::mono());
    }

    /// What is stored, if it may stand in for a failure; while it is only refreshed it has done so
    /// already.
    fn stale(&self) -> Option<Arc<Entry>> {
        if self.why == Why::Refresh {
            return self.base.clone();
        }
        let base = self.base.as_ref()?;
        rescue::substitutes(&self.inquiry, base, crate::net::wall()).ok()?;
        Some(Arc::clone(base))
    }

    /// A 304: the stored response with the fields of the newer head (RFC 9111 section 4.3.4).
    fn confirmed(&self, lead: Lead<Entry>, base: &Arc<Entry>, mut asked: Asked) {
        let (head, times) = (asked.take_head(), asked.times);
        self.finish(asked);
        let (core, inquiry) = (&self.core, &self.inquiry);
        let policy = &inquiry.policy;
        let updated = update(&inquiry.facts, base.status(), base.fields(), &head, times, policy);
        lead.flight().on_answer(head.status, updated.own.clone());
        if updated.keep == Keep::Replace {
            let version = head.version;
            let renewal = fill::renewed(core, inquiry, &self.ground, base, &updated, version);
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
        let head = &asked.head;
        if is_error(head.status)
            && let Some(stale) = self.stale()
        {
            let fault = Fault::Status(head.status);
            self.core.cells.on_upstream_failure(fault.as_str());
            asked.leave.complete();
            return lead.fail(fault, Some(stale), crate::net::mono());
        }
        lead.flight().on_answer(head.status, own_fields(head));
        if effects::changes(&self.inquiry, &asked) {
            return self.changed(lead, asked).await;
        }
        let (base, length) = (self.base.as_deref(), asked.connection.length());
        match Keeping::of(&self.inquiry, base, head, length, asked.times) {
            Ok(keeping) if keeping.is_part() => self.keep_part(lead, asked, keeping).await,
            Ok(keeping) => self.keep(lead, asked, keeping).await,
            Err(reason) => {
                self.supersede(asked.head.status, reason).await;
                self.hand_on(lead, asked, reason).await;
            }
        }
    }

    /// An unsafe method has changed something: what is stored for its target goes, and with it what
    /// this answer would be stored under.
    async fn changed(self, lead: Lead<Entry>, asked: Asked) {
        let (core, inquiry) = (&self.core, &self.inquiry);
        let length = asked.connection.length();
        let base = self.base.as_deref();
        let keeping = Keeping::of(inquiry, base, &asked.head, length, asked.times);
        let upstream = inquiry.upstream(core);
        // Boxed, as a purge that all cores confirm is large.
        Box::pin(effects::settle(core, &inquiry.task, upstream, &self.ground, &asked)).await;
        let reason = keeping.err().unwrap_or(Reason::Purged);
        self.hand_on(lead, asked, reason).await;
    }

    /// Removes what is stored where the answer, which is not, says that it holds no longer.
    async fn supersede(&self, status: u16, why: Reason) {
        let base = self.base.as_ref().filter(|_| effects::supersedes(status, why));
        let Some(base) = base else { return };
        let upstream = self.inquiry.upstream(&self.core);
        Box::pin(purge::forget(&self.core, upstream, base.key())).await;
    }

    /// A part although the whole was asked for: the client that wants a range has it all the same.
    async fn keep_part(self, lead: Lead<Entry>, mut asked: Asked, keeping: Keeping) {
        match pass::gather(&mut asked).await {
            Ok(body) if keeping.fits(body.len() as u64) => {
                self.kept(lead, asked, keeping, &[body]);
            }
            Ok(_) => {
                asked.leave.succeeded();
                lead.private();
            }
            Err(fault) => self.broken(lead, asked, fault),
        }
    }

    /// A storable answer: whole when it came in one piece, else readable while it arrives.
    async fn keep(self, lead: Lead<Entry>, mut asked: Asked, keeping: Keeping) {
        let length = keeping.length(asked.connection.length());
        if self.inquiry.wants_range() && length.is_some_and(|it| it > RANGE_FILL_BYTES_MAX) {
            // Not all of that for a part: the client goes by itself, with its range.
            asked.leave.succeeded();
            return lead.private();
        }
        if length.is_some_and(|it| !self.core.takes(it)) {
            self.supersede(asked.head.status, Reason::ResponseTooLarge).await;
            return self.hand_on(lead, asked, Reason::ResponseTooLarge).await;
        }
        let Some(room) = self.core.shared.ledger.arriving(length.unwrap_or(0)) else {
            if keeping.is_joined() {
                // What came is not what the client asked for.
                asked.leave.succeeded();
                return lead.private();
            }
            return self.hand_on(lead, asked, Reason::NoRoom).await;
        };
        let chunks = match asked.connection.at_hand() {
            Ok(AtHand::Whole(chunks)) => {
                drop(room);
                return self.kept(lead, asked, keeping, &chunks);
            }
            Ok(AtHand::Part(chunks)) => chunks,
            Err(fault) => return self.broken(lead, asked, fault),
        };
        let body = Growing::new(growing::Keep::All);
        let (before, after) = keeping.around();
        let stored_bytes = before.len() + after.len();
        body.push(before);
        chunks.into_iter().for_each(|chunk| body.push(chunk));
        let head = keeping.head(&asked.head);
        // What happens is for those who were there: no subscriber gets another's events.
        let shared = !is_event_stream(&head);
        let incoming = self.incoming(head, length, &body, asked.times.responded);
        let facts = Some(keeping.facts);
        lead.flight().stream(Arc::new(Incoming { shared, facts, ..incoming }));
        match self.arrival(&body, length).keep(&lead, &mut asked, room).await {
            Ok(Kept::Whole) => {}
            // Of unknown length, so that nothing goes around it; or unread.
            Ok(Kept::Not) => return self.passed(lead, asked, &body),
            Err(fault) => {
                body.finish(Complete::CutShort);
                return self.broken(lead, asked, fault);
            }
        }
        body.push(after);
        let whole = body.concatenated();
        if !keeping.fits((whole.len() - stored_bytes) as u64) {
            body.finish(Complete::CutShort);
            return self.broken(lead, asked, PART_LENGTH);
        }
        body.finish(Complete::Whole);
        self.fill(lead, asked, keeping, whole);
    }

    /// The end of a body that was passed on and not kept.
    fn passed(&self, lead: Lead<Entry>, asked: Asked, body: &Growing) {
        // Else its readers left: nobody is to blame.
        if asked.connection.is_done() {
            body.finish(Complete::Whole);
            self.finish(asked);
        }
        lead.private();
    }

    fn kept(self, lead: Lead<Entry>, asked: Asked, keeping: Keeping, chunks: &[Bytes]) {
        match keeping.body(chunks) {
            Ok(body) => self.fill(lead, asked, keeping, body),
            Err(_) => self.broken(lead, asked, PART_LENGTH),
        }
    }

    fn fill(self, lead: Lead<Entry>, mut asked: Asked, keeping: Keeping, body: Bytes) {
        let (head, times) = (asked.take_head(), asked.times);
        self.finish(asked);
        let material = keeping.material(head, times, body);
        fill::fill(&self.core, &self.inquiry, lead, &self.ground, material);
    }

    /// An answer that can't be stored: for the leader's client alone, except a short error, which
    /// all who wait may have.
    async fn hand_on(self, lead: Lead<Entry>, mut asked: Asked, reason: Reason) {
        // Nothing forbids to show it to others; it is only not worth storing.
        let plain = matches!(reason, Reason::NoFreshness | Reason::NoValidator);
        let error = asked.head.status >= 500 && plain;
        let short = asked.connection.length().is_some_and(|it| it <= GATHER_BYTES_MAX);
        if error && short {
            return match pass::gather(&mut asked).await {
                Ok(bytes) => {
                    let body = Growing::new(growing::Keep::All);
                    body.push(bytes);
                    body.finish(Complete::Whole);
                    let (head, length) = Self::as_received(&asked);
                    let incoming = self.incoming(head, length, &body, asked.times.responded);
                    let reason = Some(reason);
                    lead.flight().stream(Arc::new(Incoming { shared: true, reason, ..incoming }));
                    self.finish(asked);
                    lead.private();
                }
                Err(fault) => self.broken(lead, asked, fault),
            };
        }
        if error
            && asked.connection.length().is_none()
            && let Some(room) = self.core.shared.ledger.arriving(0)
        {
            return self.share(lead, asked, reason, room).await;
        }
        let now = crate::net::mono();
        // For want of room the next request may well have better luck.
        let luck = reason == Reason::NoRoom;
        self.core.cells.add(Counter::Uncacheable, u64::from(!luck));
        lead.detach(if luck { now } else { now.plus(SOLO_SPAN) });
        if lead.flight().is_deserted() {
            return asked.leave.complete();
        }
        // What is here already may show that there will be no whole answer, while an error can be.
        let chunks = match asked.connection.at_hand() {
            Ok(AtHand::Whole(chunks) | AtHand::Part(chunks)) => chunks,
            Err(fault) => return self.broken(lead, asked, fault),
        };
        let body = Growing::new(growing::Keep::Passing);
        chunks.into_iter().for_each(|chunk| body.push(chunk));
        let (head, length) = Self::as_received(&asked);
        let incoming = self.incoming(head, length, &body, asked.times.responded);
        if let Early::Run { span, .. } =
            Early::of(&self.inquiry.task.head, &incoming, crate::net::wall())
            && span.first > RANGE_FILL_BYTES_MAX
        {
            // As above: no need to send all that goes before it.
            asked.leave.succeeded();
            return lead.private();
        }
        lead.flight().stream(Arc::new(Incoming { reason: Some(reason), ..incoming }));
        match self.arrival(&body, length).pass_on(&mut asked).await {
            Ok(()) => self.passed(lead, asked, &body),
            Err(fault) => {
                body.finish(Complete::CutShort);
                self.broken(lead, asked, fault);
            }
        }
    }

    /// An error of unknown length is shared while it arrives, as long as it proves short.
    async fn share(self, lead: Lead<Entry>, mut asked: Asked, reason: Reason, room: Arriving) {
        let body = Growing::new(growing::Keep::All);
        match asked.connection.at_hand() {
            Ok(AtHand::Whole(chunks) | AtHand::Part(chunks)) => {
                chunks.into_iter().for_each(|chunk| body.push(chunk));
            }
            Err(fault) => return self.broken(lead, asked, fault),
        }
        let (head, length) = Self::as_received(&asked);
        let incoming = self.incoming(head, length, &body, asked.times.responded);
        let incoming = Incoming { shared: true, reason: Some(reason), ..incoming };
        lead.flight().stream(Arc::new(incoming));
        let arrival = Arrival { bytes_max: GATHER_BYTES_MAX, ..self.arrival(&body, length) };
        match arrival.keep(&lead, &mut asked, room).await {
            Ok(Kept::Whole | Kept::Not) => self.passed(lead, asked, &body),
            Err(fault) => {
                body.finish(Complete::CutShort);
                self.broken(lead, asked, fault);
            }
        }
    }

    fn as_received(asked: &Asked) -> (ResponseHead, Option<u64>) {
        (asked.head.clone(), asked.connection.length())
    }

    /// An answer for the leader's client; what else is known of it is for the caller to add.
    fn incoming(
        &self,
        head: ResponseHead,
        length: Option<u64>,
        body: &Arc<Growing>,
        received: Wall,
    ) -> Incoming {
        let own = own_fields(&head);
        let mut head = pass::clean(head);
        let gzip = is_gzip(&head);
        let is_own = |name: &[u8]| own.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        head.fields.retain(|field| !is_own(field.name));
        let body = Arc::clone(body);
        let (shared, reason, facts) = (false, None, None);
        Incoming { head, length, gzip, shared, reason, facts, received, body }
    }

    fn broken(&self, lead: Lead<Entry>, asked: Asked, fault: Fault) {
        asked.fail(&self.core, fault);
        self.failed(lead, fault);
    }

    fn arrival<'a>(&'a self, body: &'a Growing, length: Option<u64>) -> Arrival<'a> {
        let (core, upstream) = (&self.core, self.inquiry.upstream(&self.core));
        Arrival { core, upstream, body, length, bytes_max: u64::MAX }
    }
}

/// What to ask the origin for when `base` is stored: whether it still holds, what it lacks, or the
/// whole. Of methods other than GET always the whole: If-None-Match has the origin fail them (RFC
/// 9110 section 13.1.2), and they have no ranges (section 14.2).
#[must_use]
pub fn purpose<'b>(inquiry: &Inquiry, base: Option<&'b Arc<Entry>>) -> Purpose<'b> {
    let gzip = inquiry.codings.gzip.is_acceptable();
    let whole = Purpose::Fill { stored: None, gzip };
    let is_get = inquiry.task.head.method == Method::Get;
    let Some(base) = base.filter(|_| is_get) else { return whole };
    let (fields, coded) = (base.fields(), base.marks().gzip);
    if cut::answers(inquiry, base, crate::net::wall()) {
        let stored = base.facts().has_validator.then_some(fields);
        return Purpose::Fill { stored, gzip: gzip || (coded && stored.is_some()) };
    }
    let Held::Part(part) = Held::of(base) else { return whole };
    match part.missing().filter(|_| is_strong(base)) {
        Some(missing) => Purpose::Complete { stored: fields, missing, gzip: coded },
        None => whole,
    }
}

/// Whether a stored part can be completed: its validator names these bytes and no others.
fn is_strong(part: &Entry) -> bool {
    let received = part.facts().response_time;
    Validators::of_fields(part.status(), part.fields(), received).strong().is_some()
}

/// The rest of a part is not as long as it says.
const PART_LENGTH: Fault = Fault::Invalid("part_length");
/// Up to this length a body is gathered before anybody gets it: it comes with its head or one
/// round trip later, and is then written in one piece.
pub const GATHER_BYTES_MAX: u64 = 64 * 1024;
