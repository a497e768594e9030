//! One spelling of a request target (RFC 9110 section 4.2.3, RFC 3986 section 6.2.2).
//!
//! Allowlist, cache key and upstream must agree on what a path means, so that a path is brought
//! into its normal form once, at the edge, and what servers are known to read in different ways is
//! refused:
//!
//! * escapes of unreserved characters are decoded, the others kept with upper-case digits;
//! * dot segments are removed, however they were spelt;
//! * raw control bytes, spaces, bytes above 127, `#`, `?` and backslashes are refused, as are bad
//!   escapes and the escapes of control bytes, backslash and (unless allowed) slash;
//! * segments such as `..;x` are refused: servlet containers take them for `..`.
//!
//! Double slashes stay: `/a//b` is another resource than `/a/b`.
//!
//! Cost: a path that is normal already is borrowed; without escapes and leading dots that takes one
//! branch-free pass over its bytes. Normalising is idempotent.

use std::borrow::Cow;
use std::cmp::Ordering;

use memchr::{memchr, memrchr};

use crate::http::list::name_and_value;

/// Whether an encoded slash (`%2F`) may stand in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slashes {
    /// The safe default: some servers decode it before they route, others after.
    #[default]
    Refuse,
    /// It stays as `%2F`. A dot segment beside one is still refused.
    Allow,
}

/// Why a target is refused; all are the client's fault (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetFault {
    /// A path that does not begin with a slash.
    NotAbsolute,
    /// A raw control byte, DEL or space.
    Control,
    /// A raw byte above 127; it belongs in an escape.
    NonAscii,
    /// A raw `#` or `?` within a path: no path ends up with one, unless a parser cut it wrong.
    Delimiter,
    /// A backslash, raw or encoded: some servers take it for a slash.
    Backslash,
    /// A `%` without two hexadecimal digits.
    BadEscape,
    /// An escape of a control byte, NUL or DEL.
    EncodedControl,
    /// An encoded slash where none is allowed.
    EncodedSlash,
    /// A segment that only some servers take for a dot segment: `..;x`, or `..` beside `%2F`.
    AmbiguousDots,
}

impl TargetFault {
    /// The reason as one word, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAbsolute => "target_not_absolute",
            Self::Control => "target_control_byte",
            Self::NonAscii => "target_non_ascii",
            Self::Delimiter => "target_delimiter",
            Self::Backslash => "target_backslash",
            Self::BadEscape => "target_bad_escape",
            Self::EncodedControl => "target_encoded_control",
            Self::EncodedSlash => "target_encoded_slash",
            Self::AmbiguousDots => "target_ambiguous_dots",
        }
    }
}

/// The normal form of a path, without its query. See the head of this file.
///
/// # Errors
/// When the path is not absolute or holds what is refused. With several faults, one of them.
pub fn normalise_path(raw: &[u8], slashes: Slashes) -> Result<Cow<'_, [u8]>, TargetFault> {
    let seen = classes_in(raw);
    if seen == 0 && raw.first() == Some(&b'/') {
        return Ok(Cow::Borrowed(raw));
    }
    if raw.first() != Some(&b'/') {
        return Err(TargetFault::NotAbsolute);
    }
    refuse_classes(seen, REFUSED_IN_PATH)?;
    let mut path = Cow::Borrowed(raw);
    let mut encoded_slash = false;
    if seen & PERCENT != 0 {
        let escapes = Escapes::inspect(raw, slashes)?;
        encoded_slash = escapes.slash;
        if escapes.rewrite {
            path = Cow::Owned(decode_unreserved(raw));
        }
    }
    // Decoding may have brought dots to light.
    if has_dot_segments(&path)? {
        refuse_dots_beside_encoded_slash(&path, encoded_slash)?;
        return Ok(Cow::Owned(remove_dot_segments(&path)));
    }
    refuse_dots_beside_encoded_slash(&path, encoded_slash)?;
    Ok(path)
}

/// Checks a query, without its `?`, and returns it as it is: escapes mean what the origin says.
///
/// # Errors
/// For raw control bytes, spaces and bytes above 127.
pub fn normalise_query(raw: &[u8]) -> Result<Cow<'_, [u8]>, TargetFault> {
    refuse_classes(classes_in(raw), CONTROL | NON_ASCII)?;
    Ok(Cow::Borrowed(raw))
}

/// The query with its `&`-separated pieces sorted by name; nothing is lost, also not repeated and
/// empty pieces. Pieces of one name stay in their order, which has a meaning: of `a=1&a=2` many
/// take the last. Borrowed if it is in order already.
///
/// Names compare byte by byte, escapes as they stand.
#[must_use]
pub fn sorted_query(query: &[u8]) -> Cow<'_, [u8]> {
    let pieces = || query.split(|byte| *byte == b'&');
    if pieces().is_sorted_by(|one, next| compare_names(one, next).is_le()) {
        return Cow::Borrowed(query);
    }
    let mut sorted: Vec<&[u8]> = pieces().collect();
    // Stable.
    sorted.sort_by(|one, other| compare_names(one, other));
    Cow::Owned(sorted.join(&b'&'))
}

fn compare_names(one: &[u8], other: &[u8]) -> Ordering {
    name_and_value(one).0.cmp(name_and_value(other).0)
}

/// Which classes of bytes occur.
#[allow(clippy::indexing_slicing, reason = "hot loop: a u8 indexes a table of 256")]
fn classes_in(raw: &[u8]) -> u8 {
    raw.iter().fold(0, |seen, byte| seen | CLASSES[usize::from(*byte)])
}

const fn refuse_classes(seen: u8, refused: u8) -> Result<(), TargetFault> {
    match seen & refused {
        0 => Ok(()),
        bad if bad & CONTROL != 0 => Err(TargetFault::Control),
        bad if bad & NON_ASCII != 0 => Err(TargetFault::NonAscii),
        bad if bad & BACKSLASH != 0 => Err(TargetFault::Backslash),
        _ => Err(TargetFault::Delimiter),
    }
}

/// What the escapes of a path ask for.
struct Escapes {
    /// Some escape is not in its normal form.
    rewrite: bool,
    /// Some escape is a slash.
    slash: bool,
}

impl Escapes {
    fn inspect(raw: &[u8], slashes: Slashes) -> Result<Self, TargetFault> {
        let mut found = Self { rewrite: false, slash: false };
        let mut rest = raw;
        while let Some((_, escape, after)) = next_escape(rest) {
            let escape = escape.ok_or(TargetFault::BadEscape)?;
            match escape.byte {
                0..=0x1f | 0x7f => return Err(TargetFault::EncodedControl),
                b'\\' => return Err(TargetFault::Backslash),
                b'/' if slashes == Slashes::Refuse => return Err(TargetFault::EncodedSlash),
                b'/' => found.slash = true,
                _ => {}
            }
            let lower = escape.digits.iter().any(u8::is_ascii_lowercase);
            found.rewrite |= lower || is_unreserved(escape.byte);
            rest = after;
        }
        Ok(found)
    }
}

/// `%` and two hexadecimal digits.
struct Escape {
    digits: [u8; 2],
    byte: u8,
}

/// The text before the next `%`, the escape there (`None` if it is none), and the text behind it.
fn next_escape(text: &[u8]) -> Option<(&[u8], Option<Escape>, &[u8])> {
    let (before, from) = text.split_at_checked(memchr(b'%', text)?)?;
    let [b'%', high, low, after @ ..] = from else { return Some((before, None, &[])) };
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let escape = value(*high).zip(value(*low));
    let escape = escape.map(|(a, b)| Escape { digits: [*high, *low], byte: a * 16 + b });
    Some((before, escape, after))
}

/// The text with escapes in normal form: unreserved characters decoded, the others in upper case.
fn decode_unreserved(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escape, after)) = next_escape(rest) {
        out.extend_from_slice(before);
        match escape {
            Some(escape) if is_unreserved(escape.byte) => out.push(escape.byte),
            Some(Escape { digits: [high, low], .. }) => {
                out.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
            }
            // Refused before.
            None => debug_assert!(false, "a bad escape was let through"),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

/// Whether a segment is `.` or `..`; an error when one only may be.
fn has_dot_segments(path: &[u8]) -> Result<bool, TargetFault> {
    if !path.windows(2).any(|pair| pair == b"/.") {
        return Ok(false);
    }
    let mut found = false;
    for segment in segments(path) {
        found |= is_dot_segment(segment);
        if segment.starts_with(b".;") || segment.starts_with(b"..;") {
            return Err(TargetFault::AmbiguousDots);
        }
    }
    Ok(found)
}

/// A dot segment that shows only where `%2F` counts as a slash must not get through: whoever
/// decodes it would walk out of the path that was checked.
fn refuse_dots_beside_encoded_slash(path: &[u8], encoded: bool) -> Result<(), TargetFault> {
    if !encoded {
        return Ok(());
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, escape, after)) = next_escape(rest) {
        decoded.extend_from_slice(before);
        match escape {
            Some(Escape { byte: b'/', .. }) => decoded.push(b'/'),
            _ => decoded.push(b'%'),
        }
        rest = after;
    }
    decoded.extend_from_slice(rest);
    has_dot_segments(&decoded)?;
    let dots = |text| segments(text).filter(|segment| is_dot_segment(segment)).count();
    if dots(&decoded) == dots(path) { Ok(()) } else { Err(TargetFault::AmbiguousDots) }
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut segments = segments(path).peekable();
    while let Some(segment) = segments.next() {
        if !is_dot_segment(segment) {
            out.push(b'/');
            out.extend_from_slice(segment);
            continue;
        }
        if segment == b".." {
            out.truncate(memrchr(b'/', &out).unwrap_or(0));
        }
        if segments.peek().is_none() {
            out.push(b'/');
        }
    }
    debug_assert!(out.first() == Some(&b'/'));
    out
}

/// What stands between the slashes of a path that begins with one.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/')
}

fn is_dot_segment(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

/// RFC 3986 section 2.3: what needs no escape.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const CONTROL: u8 = 1;
const NON_ASCII: u8 = 2;
const BACKSLASH: u8 = 4;
const DELIMITER: u8 = 8;
const REFUSED_IN_PATH: u8 = CONTROL | NON_ASCII | BACKSLASH | DELIMITER;
const PERCENT: u8 = 16;
/// Only a dot behind a slash matters, but dots are few.
const DOT: u8 = 32;

/// The class of each byte; zero for those that are always fine in a path.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            0..=b' ' | 0x7f => CONTROL,
            0x80.. => NON_ASCII,
            b'\\' => BACKSLASH,
            b'#' | b'?' => DELIMITER,
            b'%' => PERCENT,
            b'.' => DOT,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests;
