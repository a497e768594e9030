//! What of an origin's answer is to be kept: the answer itself, or what it makes of a stored part
//! (RFC 9111 sections 3 and 3.4).

use bytes::Bytes;

use crate::cache::{Entry, Exchange, Facts, LifetimeSource, Part, Reason, part, storable};
use crate::http::{Method, ResponseHead};
use crate::proxy::cut::Held;
use crate::proxy::fill::Material;
use crate::proxy::inquiry::Inquiry;

/// An answer, or a stored part with what the answer adds, on its way into the store.
pub struct Keeping {
    /// The head of what is to be stored, where it is not the answer's own. A 206 says by its
    /// Content-Range which part that is.
    made: Option<ResponseHead>,
    /// What the policy made of it.
    pub facts: Facts,
    /// How long the stored part is that it grows from; zero for what is new.
    grown_from: u64,
    /// Stored bytes that go before the answer's.
    before: Bytes,
    /// Stored bytes that go behind them.
    after: Bytes,
    /// How long the answer's body must be, where its Content-Range says so.
    stated: Option<u64>,
}

impl Keeping {
    /// What is to be kept of an answer with this head and, where it is known, this length. `base`
    /// is what was stored when it was asked for.
    ///
    /// # Errors
    /// Why nothing is.
    pub fn of(
        inquiry: &Inquiry,
        base: Option<&Entry>,
        head: &ResponseHead,
        length: Option<u64>,
        times: Exchange,
    ) -> Result<Self, Reason> {
        if head.status == 206 && inquiry.task.head.method != Method::Get {
            // Nobody can have asked for it (RFC 9110 section 14.2).
            return Err(Reason::PartUnusable);
        }
        let added = Part::of(head);
        let stated = added.map(|it| it.span.len());
        if stated.is_some_and(|stated| length.is_some_and(|it| it != stated)) {
            return Err(Reason::PartUnusable);
        }
        if let Some(joined) = added.and_then(|_| joined(inquiry, base?, head, times)) {
            return Ok(Self { stated, ..joined });
        }
        if added.is_some_and(|it| !it.is_whole() && it.span.len() > PART_BYTES_MAX) {
            return Err(Reason::ResponseTooLarge);
        }
        let made = added.filter(Part::is_whole).map(|_| part::as_whole(head.clone()));
        let kept = made.as_ref().unwrap_or(head);
        let facts = storable(&inquiry.facts, kept, times, &inquiry.policy)?;
        if is_event_stream(kept) && !states_lifetime(&facts) {
            // It has no end by itself, and what it says is over when it is said.
            return Err(Reason::NoFreshness);
        }
        let (before, after) = (Bytes::new(), Bytes::new());
        Ok(Self { made, facts, grown_from: 0, before, after, stated })
    }

    /// The head of what is to be stored, given the answer's.
    #[must_use]
    pub fn head(&self, answer: &ResponseHead) -> ResponseHead {
        self.made.as_ref().unwrap_or(answer).clone()
    }

    /// What is to be stored, given the answer's head and a body made here.
    #[must_use]
    pub fn material(self, answer: ResponseHead, times: Exchange, body: Bytes) -> Material {
        let head = self.made.unwrap_or(answer);
        Material { head, times, facts: self.facts, body, grown_from: self.grown_from }
    }

    /// Whether it can't stand for the whole.
    #[must_use]
    pub const fn is_part(&self) -> bool {
        self.facts.status == 206
    }

    /// Whether bytes that are stored already belong to it.
    #[must_use]
    pub const fn is_joined(&self) -> bool {
        self.grown_from > 0
    }

    /// The bytes that are stored already.
    #[must_use]
    pub fn around(&self) -> (Bytes, Bytes) {
        (self.before.clone(), self.after.clone())
    }

    /// The length of what is to be stored, where that of the answer's body is known.
    #[must_use]
    pub fn length(&self, answer: Option<u64>) -> Option<u64> {
        let around = (self.before.len() + self.after.len()) as u64;
        Some(self.stated.or(answer)? + around)
    }

    /// Whether the answer's body may be so long.
    #[must_use]
    pub fn fits(&self, bytes: u64) -> bool {
        self.stated.is_none_or(|stated| stated == bytes)
    }

    /// The body to be stored, where the answer's is in one piece and in memory of its own.
    ///
    /// # Errors
    /// As [`Keeping::body`].
    pub fn whole_body(&self, body: Bytes) -> Result<Bytes, Reason> {
        if self.before.is_empty() && self.after.is_empty() && self.fits(body.len() as u64) {
            return Ok(body);
        }
        self.body(&[body])
    }

    /// The body to be stored, in memory of its own: `chunks` is the answer's.
    ///
    /// # Errors
    /// [`Reason::PartUnusable`]: the answer is not as long as its Content-Range says.
    pub fn body(&self, chunks: &[Bytes]) -> Result<Bytes, Reason> {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        if !self.fits(bytes as u64) {
            return Err(Reason::PartUnusable);
        }
        let mut body = Vec::with_capacity(self.before.len() + bytes + self.after.len());
        let all = std::iter::once(&self.before).chain(chunks).chain([&self.after]);
        all.for_each(|chunk| body.extend_from_slice(chunk));
        Ok(body.into())
    }
}

/// A stored part with what a newer one adds, if the two may be combined and kept.
fn joined(
    inquiry: &Inquiry,
    base: &Entry,
    newer: &ResponseHead,
    times: Exchange,
) -> Option<Keeping> {
    let Held::Part(stored) = Held::of(base) else { return None };
    let joint = part::join(base.fields(), &stored, newer, times.responded)?;
    if Part::of(&joint.head).is_some_and(|it| it.span.len() > PART_BYTES_MAX) {
        return None;
    }
    let facts = storable(&inquiry.facts, &joint.head, times, &inquiry.policy).ok()?;
    let body = base.body();
    let before = usize::try_from(joint.before).ok().filter(|it| *it <= body.len())?;
    let after = usize::try_from(joint.after).ok().and_then(|it| body.len().checked_sub(it))?;
    let (before, after) = (body.slice(..before), body.slice(after..));
    let grown_from = body.len() as u64;
    Some(Keeping { made: Some(joint.head), facts, grown_from, before, after, stated: None })
}

/// Whether the body is a stream of events as they happen (WHATWG HTML section 9.2).
#[must_use]
pub fn is_event_stream(head: &ResponseHead) -> bool {
    let media_type = head.fields.get("Content-Type").unwrap_or_default();
    let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether somebody, the origin or the operator, said how long a response is fresh.
#[must_use]
pub const fn states_lifetime(facts: &Facts) -> bool {
    !matches!(facts.lifetime_source, LifetimeSource::Heuristic | LifetimeSource::None)
}

/// A longer part is not kept: it is copied each time that it grows.
const PART_BYTES_MAX: u64 = 4 * 1024 * 1024;
