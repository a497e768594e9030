//! Parts of a representation (RFC 9111 sections 3.3 and 3.4, RFC 9110 section 15.3.7): which 206
//! can be kept, which ranges it answers, and how two of them become a longer one or the whole.
//!
//! What is kept is one run of bytes, of which first and last place and, if it was told, the length
//! of the whole are known. Anything else (several parts in one message, other units, a
//! Content-Range that contradicts itself) is not kept: it could answer no more requests, and the
//! simplest thing that is surely right is the best base to complete.
//!
//! A part never answers for the whole. Two are joined only if both name the same strong validator
//! and no byte is missing between them; the newer one's bytes and fields win.

use crate::base::Wall;
use crate::http::conditional::Validators;
use crate::http::range::{ContentRange, Range, Ranges, Resolved, Span, resolve};
use crate::http::{Fields, ResponseHead, hop};

/// Which bytes of its representation a part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The bytes.
    pub span: Span,
    /// How many the whole has, if that is known; more than `span.last`.
    pub complete: Option<u64>,
}

/// A newer part put to a stored one: the head of both together, and which of the stored bytes stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    /// Status 200 where nothing is missing any more, else 206 with the Content-Range of both.
    pub head: ResponseHead,
    /// So many of the stored bytes, from the first one on, go before the newer ones.
    pub before: u64,
    /// So many, up to the last one, go behind them.
    pub after: u64,
}

impl Part {
    /// The part in a 206; `None` if there is not exactly one, said in one valid Content-Range.
    #[must_use]
    pub fn of(head: &ResponseHead) -> Option<Self> {
        if head.status != 206 {
            return None;
        }
        match ContentRange::parse(head.fields.single("Content-Range")?)? {
            ContentRange::Part { span, complete } => Some(Self { span, complete }),
            ContentRange::Unsatisfied { .. } => None,
        }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.span.first == 0 && self.complete == Some(self.span.len())
    }

    /// What of these ranges is to be sent, if all of it lies within the part (RFC 9111 section
    /// 3.3): one span or more, never [`Resolved::Whole`].
    #[must_use]
    pub fn resolve(&self, ranges: &Ranges) -> Option<Resolved> {
        let known = self.complete.is_some();
        // Of an unknown length only what is named from the start can be found.
        let named = |range: &Range| match range {
            Range::Closed { last, .. } => known || *last <= self.span.last,
            Range::Open { .. } | Range::Suffix { .. } => known,
        };
        if !ranges.as_slice().iter().all(named) {
            return None;
        }
        let resolved = resolve(ranges, self.complete.unwrap_or(self.span.last + 1));
        let within = match &resolved {
            Resolved::One(span) => self.span.contains(span),
            Resolved::Many(spans) => spans.iter().all(|it| self.span.contains(it)),
            Resolved::Whole | Resolved::Unsatisfiable => false,
        };
        within.then_some(resolved)
    }

    /// The one range that the whole lacks; `None` if nothing is missing, or on both sides.
    #[must_use]
    pub fn missing(&self) -> Option<Range> {
        let Span { first, last } = self.span;
        let next = last + 1;
        match (first, self.complete) {
            (0, complete) if complete != Some(next) => Some(Range::Open { first: next }),
            (1.., Some(complete)) if complete == next => {
                Some(Range::Closed { first: 0, last: first - 1 })
            }
            _ => None,
        }
    }

    /// The value of Content-Range that names it.
    #[must_use]
    pub fn content_range(&self) -> String {
        ContentRange::Part { span: self.span, complete: self.complete }.to_string()
    }

    /// Both together; `None` if bytes are missing between them, or they disagree on the length.
    fn join(&self, other: &Self) -> Option<Self> {
        let span = self.span.join(other.span);
        let agree = match (self.complete, other.complete) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let complete = self.complete.or(other.complete);
        let fits = complete.is_none_or(|length| span.last < length);
        (agree && fits && self.span.touches(&other.span)).then_some(Self { span, complete })
    }
}

/// A 206 that is all of its representation, as the 200 that it could have been (RFC 9110 section
/// 15.3.7.3); any other head unchanged.
#[must_use]
pub fn as_whole(mut head: ResponseHead) -> ResponseHead {
    if Part::of(&head).is_some_and(|part| part.is_whole()) {
        head.status = 200;
        head.fields.remove("Content-Range");
    }
    head
}

/// What says of the content of one message, and of no other run of bytes (RFC 9530 section 2).
const OF_ONE_MESSAGE: [&str; 4] = ["Content-Length", "Content-Digest", "Content-MD5", "Digest"];

/// Puts a newer 206 to a stored part with these fields (RFC 9111 section 3.4). `None` where the two
/// must not be combined: another validator or a weak one, a gap, another length.
#[must_use]
pub fn join(stored: &Fields, part: &Part, newer: &ResponseHead, now: Wall) -> Option<Joint> {
    let added = Part::of(newer)?;
    let joint = part.join(&added)?;
    let old = Validators::of_fields(206, stored, now).strong()?;
    let new = Validators::of(newer, now).strong()?;
    if !old.names_same(&new) {
        return None;
    }
    let mut received = newer.fields.clone();
    hop::strip_hop_by_hop(&mut received);
    // "MUST use the header fields provided in the new response, aside from Content-Range".
    let mut fields = stored.clone();
    fields.retain(|old| {
        let told = received.iter().any(|new| new.name.eq_ignore_ascii_case(old.name));
        // Written anew for the body that results, and by every hop.
        !told && !old.is("Content-Length") && !old.is("Via")
    });
    fields.extend(&received);
    // Of either message's own bytes.
    fields.retain(|field| !OF_ONE_MESSAGE.iter().any(|name| field.is(name)));
    fields.replace("Content-Range", joint.content_range());
    let head = ResponseHead { status: 206, version: newer.version, fields };
    let before = added.span.first.saturating_sub(part.span.first);
    let after = part.span.last.saturating_sub(added.span.last);
    Some(Joint { head: as_whole(head), before, after })
}

#[cfg(test)]
mod tests;
