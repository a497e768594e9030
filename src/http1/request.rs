//! A request head (RFC 9112 sections 2, 3 and 6): parsed in place, classified, judged.
//!
//! `httparse` finds the lines (with SIMD); one pass over its slots checks what it lets pass and
//! notes the known names. Nothing is allocated except for an extension method or a version from
//! 1.2 to 1.9. Unfinished or refused heads are walked again by `scan`, which finds the first fault.

use std::mem::MaybeUninit;

use memchr::memchr;

use crate::http::{Fields, Method, Version};
use crate::http1::authority::Authority;
use crate::http1::fault::RequestFault;
use crate::http1::framing::{Coding, classify, is_persistent, parse_coding, parse_content_length};
use crate::http1::known::{Firsts, Known, Mask, Name};
use crate::http1::scan::{EMPTY_LINES_MAX, RequestParts, Verdict, scan_request};
use crate::http1::target::{Scheme, Target, parse_target, split_query};
use crate::http1::{FIELDS_MAX, Limits, Line, METHOD_BYTES_MAX};

/// A valid request head, borrowed from the read buffer.
#[derive(Clone, Debug)]
pub struct Request<'h, 'b> {
    /// The method; case-sensitive.
    pub method: Method,
    /// The target in one of its four forms.
    pub target: Target<'b>,
    /// `Http10` or `Http11`.
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
    /// Bytes of the buffer that the head took, empty lines before it included.
    pub head_len: usize,
}

/// How a request's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none: neither Content-Length nor Transfer-Encoding.
    None,
    /// Content-Length bytes, perhaps 0.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Scratch for one parse. Making it costs nothing: the slots start uninitialised.
pub struct Slots<'b> {
    lines: [MaybeUninit<Line<'b>>; FIELDS_MAX],
    first: Firsts,
    /// For versions 1.2 to 1.9 only, which `httparse` does not take.
    spare: Vec<Line<'b>>,
}

impl Slots<'_> {
    /// Unused slots.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        let lines = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        Self { lines, first: [0; Name::ALL.len()], spare: Vec::new() }
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
    let Slots { lines, first, spare } = slots;
    let Some(rest) = skip_empty_lines(view) else {
        return walk(view, limits, first, spare);
    };
    let fields_max = limits.fields_max.min(FIELDS_MAX);
    let lines = lines.get_mut(..fields_max).unwrap_or_default();
    let mut raw = httparse::Request::new(&mut []);
    let parsed = raw.parse_with_uninit_headers(rest, lines);
    let (Ok(httparse::Status::Complete(end)), Some(method), Some(target), Some(minor)) =
        (parsed, raw.method, raw.path, raw.version)
    else {
        return walk(view, limits, first, spare);
    };
    // What `httparse` lets pass in the request line: UTF-8 and `#` in the target, a bare LF.
    let line_end = rest.get(method.len() + target.len() + b"  HTTP/1.1".len());
    let kinds = target_kinds(target.as_bytes());
    let clean = line_end == Some(&b'\r')
        && method.len() <= METHOD_BYTES_MAX
        && target.len() <= limits.target_bytes_max
        && kinds & ODD_BYTE == 0;
    let head = rest.get(..end).unwrap_or_default();
    let known = if clean { classify(head, raw.headers, limits, first) } else { None };
    let Some(known) = known else {
        return Err(name_fault(view, limits));
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let head_len = view.len() - rest.len() + end;
    let has_query = kinds & QUERY_BYTE != 0;
    let (method, target) = (method.as_bytes(), target.as_bytes());
    let head = Head { method, target, has_query, version, head_len };
    judge(&head, raw.headers, known)
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

/// What bytes there are in a target, of those that `httparse` lets pass. Vectorised: no branch for
/// each byte, and no search for a query where there is none.
#[inline]
fn target_kinds(target: &[u8]) -> u8 {
    target.iter().fold(0, |kinds, byte| {
        let odd = u8::from(!byte.is_ascii()) | u8::from(*byte == b'#');
        kinds | odd | (u8::from(*byte == b'?') << 1)
    })
}

/// Non-ASCII or `#`.
const ODD_BYTE: u8 = 1;
const QUERY_BYTE: u8 = 2;

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

/// The slow way, for heads that `httparse` did not finish: unfinished, refused, or a version from
/// 1.2 to 1.9, which counts as 1.1 (RFC 9110 section 2.5).
#[cold]
fn walk<'h, 'b>(
    view: &'b [u8],
    limits: &Limits,
    first: &'h mut Firsts,
    spare: &'h mut Vec<Line<'b>>,
) -> Result<Option<Request<'h, 'b>>, RequestFault> {
    let limits = &limits.clamped();
    let parts = match scan_request(view, limits) {
        Verdict::Fault(fault) => return Err(fault),
        Verdict::Unfinished if view.len() >= limits.head_bytes_max => {
            return Err(RequestFault::HeadTooLarge);
        }
        Verdict::Unfinished => return Ok(None),
        Verdict::Finished(parts) => parts,
    };
    debug_assert!(parts.minor > 1, "httparse refused what the scan accepts");
    spare.clear();
    spare.resize(limits.fields_max, httparse::EMPTY_HEADER);
    let outcome = parse_later_version(view, limits, &parts, first, spare);
    outcome.unwrap_or(Err(RequestFault::Disagreement))
}

type Outcome<'h, 'b> = Result<Option<Request<'h, 'b>>, RequestFault>;

fn parse_later_version<'h, 'b>(
    view: &'b [u8],
    limits: &Limits,
    parts: &RequestParts,
    first: &'h mut Firsts,
    spare: &'h mut [Line<'b>],
) -> Option<Outcome<'h, 'b>> {
    let section = view.get(parts.fields_at..parts.end)?;
    let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(section, spare) else {
        return None;
    };
    let head = Head {
        method: view.get(parts.method.0..parts.method.1)?,
        target: view.get(parts.target.0..parts.target.1)?,
        has_query: true,
        version: Version::Http11,
        head_len: parts.end,
    };
    // With no field, the CRLF of the request line stands in for the one before the empty line.
    let known = classify(section, lines, limits, first)?;
    Some(judge(&head, lines, known))
}

#[cold]
fn name_fault(view: &[u8], limits: &Limits) -> RequestFault {
    match scan_request(view, &limits.clamped()) {
        Verdict::Fault(fault) => fault,
        Verdict::Unfinished | Verdict::Finished(_) => {
            debug_assert!(false, "the scan accepts what the fast parser refuses");
            RequestFault::Disagreement
        }
    }
}

/// A head whose lines are well-formed.
struct Head<'b> {
    method: &'b [u8],
    target: &'b [u8],
    /// Whether a `?` may be in the target.
    has_query: bool,
    version: Version,
    head_len: usize,
}

/// Decides what the lines mean together.
#[inline(always)]
fn judge<'h, 'b>(head: &Head<'b>, lines: &'h [Line<'b>], known: Known<'h>) -> Outcome<'h, 'b> {
    let method = match head.method {
        b"GET" => Method::Get,
        other => Method::from_bytes(other).ok_or(RequestFault::BadMethod)?,
    };
    if head.target.first() == Some(&b'/') && method != Method::Connect {
        let split = if head.has_query { split_query(head.target) } else { (head.target, None) };
        let (path, query) = split;
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
    let parsed = parse_target(&method, head.target)?;
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

fn is_same_authority(one: &[u8], other: &[u8], scheme: Scheme) -> bool {
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
fn judge_expectation(
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
