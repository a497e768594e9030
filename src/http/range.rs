//! Byte ranges (RFC 9110 section 14): which parts a request asks for, and how a 206 names them.
//!
//! A Range field may be ignored at any time, and here is whenever it is malformed, of another unit,
//! or looks like an attempt to make us work (section 14.2 and 17.15): more than [`RANGES_MAX`]
//! ranges, more than two that overlap. What is left overlaps nowhere, so that a multipart answer is
//! never much larger than the representation.

use std::fmt;
use std::fmt::Write as _;

use crate::http::list::{decimal, members, trim};

/// The ranges of one Range field, in the order asked for; at least one, at most [`RANGES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Vec<Range>);

/// One `range-spec` of unit bytes (RFC 9110 section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// `first-last`, both included; `first <= last`.
    Closed {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// `first-`: to the end.
    Open {
        /// Offset of the first byte.
        first: u64,
    },
    /// `-count`: that many bytes at the end.
    Suffix {
        /// May exceed the representation, which is then meant as a whole.
        count: u64,
    },
}

/// A part of a representation of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte; not below `first`.
    pub last: u64,
}

/// What to answer to a Range field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// 200 with everything: the field is ignored.
    Whole,
    /// 206 with one part.
    One(Span),
    /// 206 with `multipart/byteranges`: two or more spans that neither overlap nor touch, in the
    /// order asked for.
    Many(Vec<Span>),
    /// 416: no range lies within the representation.
    Unsatisfiable,
}

/// More ranges than this in one field are taken for abuse. Players and PDF readers ask for a few.
pub const RANGES_MAX: usize = 16;
/// RFC 9110 section 14.2 suspects "more than two overlapping ranges".
const OVERLAPS_MAX: usize = 2;

impl Ranges {
    /// Reads the value of a Range field; `None` means that the field is to be ignored: it is
    /// malformed, of another unit than bytes, or has too many ranges.
    ///
    /// Positions too large to hold are very large, hence unsatisfiable.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, set) = value.split_at_checked(memchr::memchr(b'=', value)?)?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let mut ranges = Vec::new();
        for member in members(set.get(1..)?) {
            if ranges.len() == RANGES_MAX {
                return None;
            }
            ranges.push(Range::parse(member)?);
        }
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    /// The ranges in the order asked for.
    #[must_use]
    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }
}

impl Range {
    fn parse(text: &[u8]) -> Option<Self> {
        let (first, rest) = text.split_at_checked(memchr::memchr(b'-', text)?)?;
        let last = rest.get(1..)?;
        if first.is_empty() {
            return Some(Self::Suffix { count: decimal(last)? });
        }
        let first = decimal(first)?;
        if last.is_empty() {
            return Some(Self::Open { first });
        }
        let last = decimal(last)?;
        // RFC 9110 section 14.1.1: such a range makes the whole field invalid.
        (first <= last).then_some(Self::Closed { first, last })
    }

    /// The part this is of `length` bytes; `None` if it lies outside. `length` is not zero.
    fn within(self, length: u64) -> Option<Span> {
        let end = length.checked_sub(1)?;
        let (first, last) = match self {
            Self::Closed { first, last } => (first, last.min(end)),
            Self::Open { first } => (first, end),
            Self::Suffix { count: 0 } => return None,
            Self::Suffix { count } => (length.saturating_sub(count), end),
        };
        (first <= end).then_some(Span { first, last })
    }
}

impl fmt::Display for Range {
    /// As it stands in a Range field, behind `bytes=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { first, last } => write!(f, "{first}-{last}"),
            Self::Open { first } => write!(f, "{first}-"),
            Self::Suffix { count } => write!(f, "-{count}"),
        }
    }
}

impl Span {
    /// How many bytes; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub const fn len(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The bytes of `body` that this names; `None` when the body is shorter.
    #[must_use]
    pub fn slice<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        let first = usize::try_from(self.first).ok()?;
        body.get(first..=usize::try_from(self.last).ok()?)
    }

    /// The same bytes, counted from `offset` on; `None` if some are before it.
    #[must_use]
    pub fn from(&self, offset: u64) -> Option<Self> {
        let (first, last) = (self.first.checked_sub(offset)?, self.last.checked_sub(offset)?);
        Some(Self { first, last })
    }

    /// Whether every byte of `other` is one of these.
    #[must_use]
    pub const fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the two together have no gap.
    #[must_use]
    pub const fn touches(&self, other: &Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }

    /// The span from the first to the last byte of both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Applies ranges to a representation of `length` bytes (RFC 9110 sections 14.1.2, 14.2, 15.3.7.2).
///
/// Ranges outside the representation are left out, those that overlap or touch are joined at the
/// place of the first. For an empty representation nothing can be named in a Content-Range, so that
/// a suffix range gets the (empty) whole.
#[must_use]
pub fn resolve(ranges: &Ranges, length: u64) -> Resolved {
    let suffix = |range: &Range| matches!(range, Range::Suffix { count: 1.. });
    if length == 0 && ranges.0.iter().any(suffix) {
        return Resolved::Whole;
    }
    let asked: Vec<Span> = ranges.0.iter().filter_map(|range| range.within(length)).collect();
    let overlaps = asked
        .iter()
        .enumerate()
        .filter(|(index, span)| asked.iter().take(*index).any(|earlier| earlier.overlaps(span)));
    if overlaps.count() > OVERLAPS_MAX {
        return Resolved::Whole;
    }
    let spans = coalesce(&asked);
    match spans.as_slice() {
        [] => Resolved::Unsatisfiable,
        [span] => Resolved::One(*span),
        _ => Resolved::Many(spans),
    }
}

/// Joins spans that overlap or touch. Quadratic in at most [`RANGES_MAX`] spans.
fn coalesce(asked: &[Span]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::with_capacity(asked.len());
    for span in asked {
        let mut joined = *span;
        let mut place = None;
        // A span that grew may now touch one that it was apart from: until nothing changes.
        while let Some(at) = spans.iter().position(|earlier| earlier.touches(&joined)) {
            joined = joined.join(spans.remove(at));
            place = Some(place.map_or(at, |place: usize| place.min(at)));
        }
        spans.insert(place.unwrap_or(spans.len()), joined);
    }
    spans
}

/// The value of a Content-Range field of unit bytes (RFC 9110 section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// In a 206: which part it is.
    Part {
        /// The part.
        span: Span,
        /// The length of the whole; `None` when unknown (`*`).
        complete: Option<u64>,
    },
    /// In a 416: how long the whole is.
    Unsatisfied {
        /// The length of the whole.
        complete: u64,
    },
}

impl ContentRange {
    /// Reads the value; `None` when it is malformed, of another unit or contradicts itself, in
    /// which case nothing may be combined with the part (RFC 9110 section 14.4).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, rest) = value.split_at_checked(memchr::memchr(b' ', value)?)?;
        let rest = trim(rest);
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let (range, complete) = rest.split_at_checked(memchr::memchr(b'/', rest)?)?;
        let complete = match complete.get(1..)? {
            b"*" => None,
            digits => Some(decimal(digits).filter(|length| *length < u64::MAX)?),
        };
        if range == b"*" {
            return Some(Self::Unsatisfied { complete: complete? });
        }
        let Range::Closed { first, last } = Range::parse(range)? else { return None };
        let fits = complete.is_none_or(|length| last < length) && last < u64::MAX;
        fits.then_some(Self::Part { span: Span { first, last }, complete })
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { span: Span { first, last }, complete: Some(length) } => {
                write!(f, "bytes {first}-{last}/{length}")
            }
            Self::Part { span: Span { first, last }, complete: None } => {
                write!(f, "bytes {first}-{last}/*")
            }
            Self::Unsatisfied { complete } => write!(f, "bytes */{complete}"),
        }
    }
}

/// A `multipart/byteranges` body (RFC 9110 section 14.6) in the making.
///
/// The boundary must be a token of at most 70 bytes that does not occur in the representation: take
/// a random one.
#[derive(Clone, Copy, Debug)]
pub struct Multipart<'a> {
    /// Between the parts.
    pub boundary: &'a str,
    /// The Content-Type of the whole representation, for each part; `None` when it has none.
    pub content_type: Option<&'a [u8]>,
    /// The length of the whole representation; `None` when unknown.
    pub complete: Option<u64>,
    /// The parts, as [`Resolved::Many`] has them.
    pub spans: &'a [Span],
}

impl Multipart<'_> {
    /// The Content-Type of the 206.
    #[must_use]
    pub fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Appends the whole body, cut out of `bytes`, which are those of the representation from
    /// offset `from` on; false, and `out` as it was, when they are not all that the spans name.
    #[must_use]
    pub fn write_body(&self, bytes: &[u8], from: u64, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        for (index, span) in self.spans.iter().enumerate() {
            let Some(part) = span.from(from).and_then(|it| it.slice(bytes)) else {
                out.truncate(start);
                return false;
            };
            self.write_part_head(index, *span, out);
            out.extend_from_slice(part);
        }
        out.extend_from_slice(self.end().as_bytes());
        true
    }

    /// Appends what stands before the bytes of the part at `index`.
    pub fn write_part_head(&self, index: usize, span: Span, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(self.boundary.len() + 64);
        text.push_str(if index == 0 { "--" } else { "\r\n--" });
        text.push_str(self.boundary);
        out.extend_from_slice(text.as_bytes());
        if let Some(content_type) = self.content_type {
            out.extend_from_slice(b"\r\nContent-Type: ");
            out.extend_from_slice(content_type);
        }
        text.clear();
        let range = ContentRange::Part { span, complete: self.complete };
        // Writing to a String cannot fail.
        let _ = write!(text, "\r\nContent-Range: {range}\r\n\r\n");
        out.extend_from_slice(text.as_bytes());
    }

    /// What stands behind the last part.
    #[must_use]
    pub fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

#[cfg(test)]
mod tests;
