//! What decides where a message ends and whether the connection lives on, for both sides:
//! Content-Length, Transfer-Encoding (RFC 9112 section 6), Connection (section 9).

use crate::http::Version;
use crate::http::fields::is_token_byte;
use crate::http1::Line;
use crate::http1::known::{Known, Name, is_word};

/// What Transfer-Encoding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// One line, whose value is `chunked`.
    Chunked,
    /// Well-formed codings and then, last and once, `chunked`.
    ChunkedAfterOthers,
    /// Anything else.
    Bad,
}

/// The value of Content-Length: decimal digits only, at most `u64::MAX`. A list of equal numbers,
/// which RFC 9112 section 6.3 lets a recipient repair, is not repaired.
pub(super) fn parse_content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// Reads all Transfer-Encoding lines (RFC 9112 section 6.1). Empty list elements, which a recipient
/// may skip elsewhere, make it [`Coding::Bad`] here.
pub(super) fn parse_coding(known: &Known<'_>, lines: &[Line<'_>]) -> Coding {
    let mut values = known.values(Name::TransferEncoding, lines);
    let (first, more) = (values.next().unwrap_or_default(), values.next().is_some());
    if !more && first.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let values = known.values(Name::TransferEncoding, lines);
    let mut chunked_last = false;
    for element in values.flat_map(|value| value.split(|b| *b == b',')) {
        let element = trim_ows(element);
        let name = element.split(|b| *b == b';').next().map_or(element, trim_ows);
        let well_formed = !name.is_empty() && name.iter().all(|b| is_token_byte(*b));
        if chunked_last || !well_formed {
            return Coding::Bad;
        }
        chunked_last = element.eq_ignore_ascii_case(b"chunked");
        // `chunked` takes no parameters (RFC 9112 section 7.1).
        if !chunked_last && name.eq_ignore_ascii_case(b"chunked") {
            return Coding::Bad;
        }
    }
    if chunked_last { Coding::ChunkedAfterOthers } else { Coding::Bad }
}

/// Whether the connection outlives the exchange (RFC 9112 section 9.3). Tokens of all Connection
/// lines count, in any case.
pub(super) fn is_persistent(known: &Known<'_>, lines: &[Line<'_>], version: Version) -> bool {
    if !known.repeated(Name::Connection) {
        let value = known.value(Name::Connection, lines).unwrap_or_default();
        if value.is_empty() || is_word(value, b"keep-alive") {
            return version != Version::Http10 || !value.is_empty();
        }
    }
    let (mut close, mut keep_alive) = (false, false);
    for value in known.values(Name::Connection, lines) {
        for option in value.split(|b| *b == b',').map(trim_ows) {
            close |= option.eq_ignore_ascii_case(b"close");
            keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    !close && (version != Version::Http10 || keep_alive)
}

/// Without SP and HTAB at both ends (RFC 9110 section 5.6.3).
pub(super) fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
