//! A request head (RFC 9112 sections 2, 3 and 6): parsed in place, classified, judged.
//!
//! `quick` reads a well-formed head in one pass; nothing is allocated except for an extension
//! method. Unfinished or refused heads are walked again by `scan`, which finds the first fault.

use memchr::memchr;

use crate::http::{Fields, Method, Version};
use crate::http1::authority::Authority;
use crate::http1::fault::RequestFault;
use crate::http1::framing::{Coding, is_persistent, parse_coding, parse_content_length};
use crate::http1::known::{Firsts, Known, Mask, Name};
use crate::http1::quick::{self, Lines, RequestLine};
use crate::http1::scan::{EMPTY_LINES_MAX, Verdict, scan_request};
use crate::http1::target::{Scheme, Target, parse_target};
use crate::http1::{Limits, Line};

/// A valid request head, borrowed from the read buffer.
#[derive(Clone, Debug)]
pub struct Request<'h, 'b> {
    /// The method; case-sensitive.
    pub method: Method,
    /// The target in one of its four forms.
    pub target: Target<'b>,
    /// `Http10` or `Http11`; `Http2` of one that came over HTTP/2.
    pub version: Version,
    /// The authority that the client asked for: of the target where it names one, else of Host.
    /// A valid `host [":" port]`; empty only in HTTP/1.0 without Host.
    pub authority: &'b [u8],
    /// All field lines in order. Names are tokens; values have neither control bytes (except HTAB)
    /// nor white space at their ends.
    pub fields: &'h [Line<'b>],
    /// Which known fields are among them.
    pub known: Known<'h>,
    /// How the body is delimited.
    pub body: BodyLength,
    /// Whether the client lets the connection live on (RFC 9112 section 9.3).
    pub persistent: bool,
    /// Whether the client waits for `100 Continue` before it sends its body. False where no body
    /// follows and in HTTP/1.0 (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// Bytes of the buffer that the head took, empty lines before it included. 0 over HTTP/2.
    pub head_len: usize,
}

/// How a request's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none: neither Content-Length nor Transfer-Encoding.
    None,
    /// Content-Length bytes, perhaps 0.
    Length(u64),
    /// Chunks, or frames of HTTP/2 without a stated length.
    Chunked,
}

/// Scratch for one parse. Making it costs nothing: the slots start uninitialised.
pub struct Slots<'b> {
    pub(super) lines: Lines<'b>,
    pub(super) first: Firsts,
}

impl Slots<'_> {
    /// Unused slots.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self { lines: Lines::new_const(), first: [0; Name::ALL.len()] }
    }
}

impl Default for Slots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

impl<'b> Request<'_, 'b> {
    /// The value of the first line of a known name.
    #[must_use]
    pub fn value(&self, name: Name) -> Option<&'b [u8]> {
        self.known.value(name, self.fields)
    }

    /// The values of all lines of a known name, in order.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &'b [u8]> {
        self.known.values(name, self.fields)
    }

    /// An owned copy of all fields, in order. Costs one allocation.
    #[must_use]
    pub fn to_fields(&self) -> Fields {
        copy_fields(self.fields)
    }
}

/// Reads the request head that `buf` starts with; `None` when more bytes are needed and no limit
/// is exceeded yet. The bytes after [`Request::head_len`] are body or the next request.
///
/// # Errors
///
/// The fault by position; faults of the lines come before those of their meaning. Every one of
/// them leaves the rest of the connection without a meaning: answer and close.
pub fn parse_request<'h, 'b>(
    buf: &'b [u8],
    limits: &Limits,
    slots: &'h mut Slots<'b>,
) -> Result<Option<Request<'h, 'b>>, RequestFault> {
    let view = buf.get(..limits.head_bytes_max).unwrap_or(buf);
    let Some(rest) = skip_empty_lines(view) else { return walk(view, limits) };
    let Some(line) = quick::request_line(rest, limits) else { return walk(view, limits) };
    let Slots { lines, first } = slots;
    lines.clear();
    let section = rest.get(line.len..).unwrap_or_default();
    let Some((section_len, known)) = quick::fields(section, limits, lines, first) else {
        return walk(view, limits);
    };
    let version = if line.minor == 0 { Version::Http10 } else { Version::Http11 };
    let head_len = view.len() - rest.len() + line.len + section_len;
    judge(&Head { line, version, head_len }, lines, known)
}

/// Whether a driver that was told "more bytes" should parse again now that `buf` has grown from
/// `seen` bytes.
///
/// A head can be finished, or a limit of lines exceeded, only by a line's end; the other limits
/// need no better resolution than a doubling. So a client that sends a head byte by byte costs at
/// most one parse for each line and each doubling, not one for each byte.
#[must_use]
pub fn worth_parsing(buf: &[u8], seen: usize) -> bool {
    let doubled = buf.len().checked_ilog2() != seen.checked_ilog2();
    doubled || buf.get(seen..).is_none_or(|new| memchr(b'\n', new).is_some())
}

/// What follows at most two empty lines; `None` when that again is a line end, or nothing at all.
#[inline]
fn skip_empty_lines(view: &[u8]) -> Option<&[u8]> {
    if view.first().is_some_and(|byte| *byte > b'\r') {
        return Some(view);
    }
    let mut rest = view;
    for _ in 0..EMPTY_LINES_MAX {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    rest.first().filter(|byte| !matches!(byte, b'\r' | b'\n')).map(|_| rest)
}

/// The slow way, for heads that the quick one did not finish: the first fault, or that there is
/// none yet.
#[cold]
fn walk<T>(view: &[u8], limits: &Limits) -> Result<Option<T>, RequestFault> {
    match scan_request(view, &limits.clamped()) {
        Verdict::Fault(fault) => Err(fault),
        Verdict::Unfinished if view.len() >= limits.head_bytes_max => {
            Err(RequestFault::HeadTooLarge)
        }
        Verdict::Unfinished => Ok(None),
        Verdict::Finished(_) => {
            debug_assert!(false, "the scan accepts what the quick parser refuses");
            Err(RequestFault::Disagreement)
        }
    }
}

type Outcome<'h, 'b> = Result<Option<Request<'h, 'b>>, RequestFault>;

/// A head whose lines are well-formed.
struct Head<'b> {
    line: RequestLine<'b>,
    version: Version,
    head_len: usize,
}

/// Decides what the lines mean together.
#[inline(always)]
fn judge<'h, 'b>(head: &Head<'b>, lines: &'h [Line<'b>], known: Known<'h>) -> Outcome<'h, 'b> {
    let method = match head.line.method {
        b"GET" => Method::Get,
        other => Method::from_bytes(other).ok_or(RequestFault::BadMethod)?,
    };
    let target = head.line.target;
    if target.first() == Some(&b'/') && method != Method::Connect {
        let split = head.line.query_at.and_then(|at| target.split_at_checked(at));
        let (path, query) = match split {
            Some((path, query)) => (path, query.get(1..)),
            None => (target, None),
        };
        return conclude(head, lines, known, method, Target::Origin { path, query }, None);
    }
    judge_other_form(head, lines, known, method)
}

#[cold]
fn judge_other_form<'h, 'b>(
    head: &Head<'b>,
    lines: &'h [Line<'b>],
    known: Known<'h>,
    method: Method,
) -> Outcome<'h, 'b> {
    let parsed = parse_target(&method, head.line.target)?;
    conclude(head, lines, known, method, parsed.target, parsed.authority)
}

/// All that follows the target. Inlined twice, so that in the usual case the request is built where
/// it is returned: moving its parts around costs more than judging them.
#[inline(always)]
fn conclude<'h, 'b>(
    head: &Head<'b>,
    lines: &'h [Line<'b>],
    known: Known<'h>,
    method: Method,
    target: Target<'b>,
    named: Option<(&'b [u8], Scheme)>,
) -> Outcome<'h, 'b> {
    let host = judge_host(&known, lines, head.version)?;
    let authority = match named {
        Some((named, scheme)) => {
            // HTTP/1.0 may leave Host out.
            if !host.is_empty() && !is_same_authority(named, host, scheme) {
                return Err(RequestFault::AuthorityMismatch);
            }
            named
        }
        None => host,
    };
    let body = judge_body(&known, lines, head.version)?;
    let has_body = !matches!(body, BodyLength::None | BodyLength::Length(0));
    let expects = known.has(Name::Expect) && judge_expectation(&known, lines, head.version)?;
    let persistent = if known.has(Name::Connection) {
        is_persistent(&known, lines, head.version)
    } else {
        head.version != Version::Http10
    };
    debug_assert!(head.version != Version::Http11 || !authority.is_empty());
    Ok(Some(Request {
        method,
        target,
        version: head.version,
        authority,
        fields: lines,
        known,
        body,
        persistent,
        expects_continue: expects && has_body,
        head_len: head.head_len,
    }))
}

/// Exactly one valid Host in HTTP/1.1 (RFC 9112 section 3.2); at most one in HTTP/1.0, where the
/// result is empty without one.
fn judge_host<'b>(
    known: &Known<'_>,
    lines: &[Line<'b>],
    version: Version,
) -> Result<&'b [u8], RequestFault> {
    if known.repeated(Name::Host) {
        return Err(RequestFault::RepeatedHost);
    }
    match known.value(Name::Host, lines) {
        Some(host) if Authority::is_valid(host) => Ok(host),
        Some(_) => Err(RequestFault::BadHost),
        None if version == Version::Http10 => Ok(b""),
        None => Err(RequestFault::MissingHost),
    }
}

pub(super) fn is_same_authority(one: &[u8], other: &[u8], scheme: Scheme) -> bool {
    match (Authority::parse(one), Authority::parse(other)) {
        (Some(one), Some(other)) => one.is_same(&other, scheme),
        _ => false,
    }
}

/// RFC 9112 section 6.3, with every "may" of leniency turned down.
fn judge_body(
    known: &Known<'_>,
    lines: &[Line<'_>],
    version: Version,
) -> Result<BodyLength, RequestFault> {
    const FRAMING: Mask = Mask::of(&[Name::ContentLength, Name::TransferEncoding]);
    if !known.any(FRAMING) {
        return Ok(BodyLength::None);
    }
    if known.has(Name::TransferEncoding) {
        if version == Version::Http10 {
            return Err(RequestFault::CodingInHttp10);
        }
        if known.has(Name::ContentLength) {
            return Err(RequestFault::LengthAndCoding);
        }
        return match parse_coding(known, lines) {
            Coding::Chunked => Ok(BodyLength::Chunked),
            Coding::ChunkedAfterOthers => Err(RequestFault::UnsupportedCoding),
            Coding::Bad => Err(RequestFault::BadCoding),
        };
    }
    if known.repeated(Name::ContentLength) {
        return Err(RequestFault::RepeatedContentLength);
    }
    let value = known.value(Name::ContentLength, lines).unwrap_or_default();
    let length = parse_content_length(value).ok_or(RequestFault::BadContentLength)?;
    Ok(BodyLength::Length(length))
}

/// Whether `100-continue` is expected; nothing else may be (RFC 9110 section 10.1.1).
pub(super) fn judge_expectation(
    known: &Known<'_>,
    lines: &[Line<'_>],
    version: Version,
) -> Result<bool, RequestFault> {
    if version == Version::Http10 {
        return Ok(false);
    }
    for value in known.values(Name::Expect, lines) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(RequestFault::UnknownExpectation);
        }
    }
    Ok(true)
}

/// Copies lines that a parse let through.
pub(super) fn copy_fields(lines: &[Line<'_>]) -> Fields {
    let bytes = lines.iter().map(|line| line.name.len() + line.value.len() + 4).sum();
    let mut fields = Fields::with_capacity(bytes);
    for line in lines {
        fields.push(line.name, line.value);
    }
    fields
}

#[cfg(test)]
pub(super) mod refused;
#[cfg(test)]
mod tests;
