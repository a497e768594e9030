//! A response head (RFC 9112 sections 4 and 6), as an origin sends it.
//!
//! Origins are sloppy, but a proxy that repairs what they send vouches for its guess before every
//! later reader. So the same strictness as for requests, with two exceptions: the reason phrase,
//! which means nothing, may be missing; and white space between a name and its colon is removed,
//! since RFC 9112 section 5.1 leaves a proxy no choice. Owned, since a response that must be read
//! is on the slow path anyway.

use memchr::memchr;

use crate::http::{Method, ResponseHead, Version};
use crate::http1::fault::{FieldFault, ResponseFault};
use crate::http1::framing::{Coding, is_persistent, parse_coding, parse_content_length};
use crate::http1::known::{Known, Name};
use crate::http1::quick::{self, Lines};
use crate::http1::request::copy_fields;
use crate::http1::scan::{ResponseParts, Verdict, scan_fields, scan_status_line};
use crate::http1::{Limits, Line};

/// A valid response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status, version and fields; for an interim response the status is 100 to 199.
    pub head: ResponseHead,
    /// How the body is delimited.
    pub body: ResponseBody,
    /// Whether the connection may be used again once the body has ended (RFC 9112 section 9.3).
    /// False where the body ends with the connection, and after a 204 that announces a body: should
    /// it follow, it would be taken for the next response.
    pub persistent: bool,
    /// Whether it is a 1xx: the final response is still to come.
    pub interim: bool,
    /// Bytes of the buffer that the head took.
    pub head_len: usize,
}

/// How a response's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none, whatever the fields say: HEAD, 1xx, 204, 304.
    None,
    /// Content-Length bytes, perhaps 0.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All bytes until the origin closes. A cut cannot be told from the end.
    UntilClose,
}

/// Reads the response head that `buf` starts with; `None` when more bytes are needed.
/// `request_method` is that of the request it answers: a response to HEAD has no body.
///
/// # Errors
///
/// The first fault by position; faults of the lines come before those of their meaning. The
/// connection must not be used again after one.
pub fn parse_response(
    buf: &[u8],
    limits: &Limits,
    request_method: &Method,
) -> Result<Option<Response>, ResponseFault> {
    let limits = &limits.clamped();
    let view = buf.get(..limits.head_bytes_max).unwrap_or(buf);
    match parse_strictly(view, limits, request_method) {
        Err(ResponseFault::Field(FieldFault::SpaceBeforeColon)) => {
            let (mended, head_len) = without_space_before_colons(view);
            let parsed = parse_strictly(&mended, limits, request_method)?;
            Ok(parsed.map(|it| Response { head_len, ..it }))
        }
        other => other,
    }
}

/// The head that `view` starts with, without white space before the colons of its fields; and how
/// long it was with it.
#[cold]
fn without_space_before_colons(view: &[u8]) -> (Vec<u8>, usize) {
    let (mut mended, mut taken) = (Vec::with_capacity(view.len()), 0);
    for line in view.split_inclusive(|byte| *byte == b'\n') {
        taken += line.len();
        let name_end = match memchr(b':', line) {
            Some(colon) => colon,
            // The end of a name may still come.
            None if line.last() != Some(&b'\n') => line.len(),
            None => 0,
        };
        let (name, rest) = line.split_at_checked(name_end).unwrap_or((line, b""));
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let kept = name.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
        // The status line has colons of its own.
        let name = if mended.is_empty() { Some(name) } else { name.get(..kept) };
        mended.extend_from_slice(name.unwrap_or_default());
        mended.extend_from_slice(rest);
        if line == b"\r\n" {
            break;
        }
    }
    (mended, taken)
}

fn parse_strictly(
    view: &[u8],
    limits: &Limits,
    request_method: &Method,
) -> Result<Option<Response>, ResponseFault> {
    let unfinished = || {
        let full = view.len() >= limits.head_bytes_max;
        if full { Err(ResponseFault::HeadTooLarge) } else { Ok(None) }
    };
    let parts = match scan_status_line(view) {
        Verdict::Finished(parts) => parts,
        Verdict::Unfinished => return unfinished(),
        Verdict::Fault(fault) => return Err(fault),
    };
    let section = view.get(parts.fields_at..).unwrap_or_default();
    let (mut lines, mut first) = (Lines::new_const(), [0; Name::ALL.len()]);
    let Some((end, known)) = quick::fields(section, limits, &mut lines, &mut first) else {
        return match scan_fields(section, limits) {
            Verdict::Fault(fault) => Err(ResponseFault::Field(fault)),
            Verdict::Unfinished => unfinished(),
            Verdict::Finished(_) => {
                debug_assert!(false, "the scan accepts what the quick parser refuses");
                Err(ResponseFault::Disagreement)
            }
        };
    };
    judge(&parts, &lines, &known, request_method, parts.fields_at + end).map(Some)
}

fn judge(
    parts: &ResponseParts,
    lines: &[Line<'_>],
    known: &Known<'_>,
    request_method: &Method,
    head_len: usize,
) -> Result<Response, ResponseFault> {
    let status = parts.status;
    if status == 101 {
        return Err(ResponseFault::SwitchingProtocols);
    }
    let version = if parts.minor == 0 { Version::Http10 } else { Version::Http11 };
    let framed = judge_body(known, lines, version)?;
    let interim = status < 200;
    let bodiless = interim || matches!(status, 204 | 304) || *request_method == Method::Head;
    let body = if bodiless { ResponseBody::None } else { framed };
    let announced = matches!(framed, ResponseBody::Chunked)
        || matches!(framed, ResponseBody::Length(length) if length > 0);
    // A 304 and the answer to HEAD announce the body of another response (RFC 9110 section 8.6),
    // a 1xx or 204 must not.
    if interim && announced {
        return Err(ResponseFault::InterimWithBody);
    }
    let ambiguous = status == 204 && announced;
    let persistent =
        is_persistent(known, lines, version) && body != ResponseBody::UntilClose && !ambiguous;
    debug_assert!((100..=999).contains(&status));
    let mut fields = copy_fields(lines);
    // What a proxy adds before it sends the head on.
    fields.reserve(PROXY_FIELDS_BYTES);
    let head = ResponseHead { status, version, fields };
    Ok(Response { head, body, persistent, interim, head_len })
}

/// What the fields say, before status and method overrule them (RFC 9112 section 6.3).
fn judge_body(
    known: &Known<'_>,
    lines: &[Line<'_>],
    version: Version,
) -> Result<ResponseBody, ResponseFault> {
    if known.has(Name::TransferEncoding) {
        if version == Version::Http10 {
            return Err(ResponseFault::CodingInHttp10);
        }
        if known.has(Name::ContentLength) {
            return Err(ResponseFault::LengthAndCoding);
        }
        return match parse_coding(known, lines) {
            Coding::Chunked => Ok(ResponseBody::Chunked),
            Coding::ChunkedAfterOthers | Coding::Bad => Err(ResponseFault::BadCoding),
        };
    }
    if known.repeated(Name::ContentLength) {
        return Err(ResponseFault::RepeatedContentLength);
    }
    match known.value(Name::ContentLength, lines) {
        Some(value) => parse_content_length(value)
            .map(ResponseBody::Length)
            .ok_or(ResponseFault::BadContentLength),
        None => Ok(ResponseBody::UntilClose),
    }
}

/// Room for the fields of our own in an answer, so that adding them moves nothing.
const PROXY_FIELDS_BYTES: usize = 768;

#[cfg(test)]
pub(super) mod tests;
