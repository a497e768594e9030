//! The quick way through a head: one pass, nothing copied, nothing allocated.
//!
//! It knows well-formed heads only. Whatever is not one, or not yet, is left to `scan`, which names
//! the first fault. So a mistake here can refuse or misread nothing that the scan would accept
//! without being noticed: the two, and a third, slow reading, are compared in the tests.
//!
//! Cost: names that are known need no validation of their own; values are looked at in vectors.

use arrayvec::ArrayVec;

use crate::http::fields::is_token_byte;
use crate::http1::known::{Firsts, Known, Name, Noting};
use crate::http1::scan::is_value_byte;
use crate::http1::words::{below, equal, find, is_plain, not_ascii, skip_value};
use crate::http1::{FIELDS_MAX, Limits, Line, METHOD_BYTES_MAX};

/// Room for the lines of a head.
pub(super) type Lines<'b> = ArrayVec<Line<'b>, FIELDS_MAX>;

/// A well-formed request line of HTTP/1.x.
#[derive(Clone, Copy)]
pub(super) struct RequestLine<'b> {
    /// A token.
    pub(super) method: &'b [u8],
    /// Visible ASCII without `#`; not empty.
    pub(super) target: &'b [u8],
    /// Where in the target its first `?` stands.
    pub(super) query_at: Option<usize>,
    /// 0 to 9.
    pub(super) minor: u8,
    /// Bytes it took, its CRLF included.
    pub(super) len: usize,
}

/// Reads the request line that `text` starts with (RFC 9112 section 3).
#[inline(always)]
pub(super) fn request_line<'b>(text: &'b [u8], limits: &Limits) -> Option<RequestLine<'b>> {
    let method = if text.starts_with(b"GET ") { text.get(..3)? } else { method(text)? };
    let from = method.len() + 1;
    let stops = |word| {
        let visible = below(word, 0x21) | not_ascii(word) | equal(word, 0x7f);
        visible | equal(word, b'#')
    };
    let end = find(text, from, stops, |byte| !byte.is_ascii_graphic() || byte == b'#')?;
    let target = text.get(from..end)?;
    if target.is_empty() || target.len() > limits.target_bytes_max {
        return None;
    }
    let [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9', b'\r', b'\n'] =
        text.get(end..)?.first_chunk()?
    else {
        return None;
    };
    let query_at = find(target, 0, |word| equal(word, b'?'), |byte| byte == b'?');
    let len = end + b" HTTP/1.1\r\n".len();
    Some(RequestLine { method, target, query_at, minor: minor - b'0', len })
}

/// A method other than GET, up to the space behind it.
fn method(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().take(METHOD_BYTES_MAX + 1).position(|byte| !is_token_byte(*byte))?;
    let method = text.get(..end).filter(|it| !it.is_empty());
    method.filter(|_| text.get(end) == Some(&b' '))
}

/// Reads the field lines that `text` starts with, up to and including the empty line (RFC 9112
/// section 5); the bytes that they took, and the known names among them.
#[inline(always)]
pub(super) fn fields<'h, 'b>(
    text: &'b [u8],
    limits: &Limits,
    lines: &mut Lines<'b>,
    first: &'h mut Firsts,
) -> Option<(usize, Known<'h>)> {
    let fields_max = limits.fields_max.min(FIELDS_MAX);
    let mut noting = Noting::new(first);
    let mut at = 0;
    loop {
        if text.get(at..)?.starts_with(b"\r\n") {
            return Some((at + 2, noting.finish()));
        }
        let colon = find(text, at, |word| equal(word, b':'), |byte| byte == b':')?;
        let name = text.get(at..colon)?;
        match Name::of(name) {
            Some(known) => noting.note(known, lines.len()),
            None if is_token(name) => {}
            None => return None,
        }
        let (value, end) = value(text, colon + 1)?;
        if end - at > limits.field_bytes_max || lines.len() >= fields_max {
            return None;
        }
        lines.push(Line { name, value });
        at = end + 2;
    }
}

#[inline(always)]
fn is_token(name: &[u8]) -> bool {
    let plain = is_plain(name, [b'-', b'_']) || name.iter().all(|byte| is_token_byte(*byte));
    plain && !name.is_empty()
}

/// The value that starts at `from`, without white space at its ends, and where its CRLF stands.
#[inline(always)]
fn value(text: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let mut start = from;
    while let Some(b' ' | b'\t') = text.get(start) {
        start += 1;
    }
    let mut end = start;
    loop {
        end = skip_value(text, end);
        let stops = |word| below(word, 0x20) | equal(word, 0x7f);
        end = find(text, end, stops, |byte| byte < 0x20 || byte == 0x7f)?;
        if text.get(end) != Some(&b'\t') {
            break;
        }
        end += 1;
    }
    if !text.get(end..)?.starts_with(b"\r\n") {
        return None;
    }
    let mut value = text.get(start..end)?;
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    debug_assert!(value.iter().all(|byte| is_value_byte(*byte)));
    Some((value, end))
}
