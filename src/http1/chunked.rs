//! The chunked coding (RFC 9112 section 7.1), decoded as it arrives, for both sides.
//!
//! ```text
//!          HEXDIG            ";"            CRLF, size > 0
//!  Start ---------> Size -----------> Ext ----------------> Data --> DataCr --> DataLf --> Start
//!                     \_______________/ \__ CRLF, size = 0 --> Trailers --empty line--> Done
//! ```
//!
//! Data is not copied: a step says which range of its input is data. Refused, though a lenient
//! reader could guess: white space around a size, a sign, more than 16 digits, a line ended by LF
//! alone. Each is a known way to make two parties disagree about where a body ends.

use std::ops::Range;

use memchr::memchr;

use crate::http::Fields;
use crate::http1::Limits;
use crate::http1::fault::FieldFault;
use crate::http1::scan::{FieldEvent, FieldScan, is_value_byte};

/// Why a chunked body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkFault {
    /// Something other than hexadecimal digits stands where a size must (RFC 9112 section 7.1).
    BadSize,
    /// A size of more than 16 digits.
    SizeTooLong,
    /// A control byte in a chunk extension (RFC 9112 section 7.1.1).
    BadExtension,
    /// Longer extensions than the limit, or more of them than data.
    ExtensionTooLong,
    /// A size line that ends in LF or CR alone.
    BadLineEnd,
    /// No CRLF where the chunk's data must end.
    MissingCrlf,
    /// A fault in the trailer section.
    Trailer(FieldFault),
    /// A longer trailer section than the limit.
    TrailerTooLarge,
}

impl ChunkFault {
    /// The status that answers it in a request.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Trailer(fault) => fault.status(),
            Self::TrailerTooLarge => 431,
            _ => 400,
        }
    }

    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadSize => "bad_chunk_size",
            Self::SizeTooLong => "chunk_size_too_long",
            Self::BadExtension => "bad_chunk_extension",
            Self::ExtensionTooLong => "chunk_extension_too_long",
            Self::BadLineEnd => "bad_chunk_line_end",
            Self::MissingCrlf => "missing_chunk_crlf",
            Self::Trailer(fault) => fault.as_str(),
            Self::TrailerTooLarge => "trailer_too_large",
        }
    }
}

/// What one step made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are dealt with. Less than all of them when data was found or the
    /// body is done: call again with the rest.
    pub consumed: usize,
    /// Where in the input the data found in this step stands; perhaps empty.
    pub data: Range<usize>,
    /// Whether the body, trailers included, has ended.
    pub done: bool,
}

/// The decoder of one body.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// In `Size` and `Ext` the size read so far, in `Data` the bytes still to come.
    size: u64,
    /// Bytes of extension in the current line.
    ext_line_bytes: usize,
    /// Bytes of extension beyond those of data so far.
    ext_excess_bytes: u64,
    limits: Limits,
    /// From the last chunk on.
    trailers: Option<Box<Trailers>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// After that many digits.
    Size(u8),
    Ext,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

#[derive(Clone, Debug)]
struct Trailers {
    scan: FieldScan,
    line: Vec<u8>,
    bytes: usize,
    fields: Fields,
}

impl ChunkedDecoder {
    /// At the start of a body.
    #[must_use]
    pub const fn new(limits: &Limits) -> Self {
        let limits = limits.clamped();
        let (size, ext_line_bytes, ext_excess_bytes) = (0, 0, 0);
        let (state, trailers) = (State::Start, None);
        Self { state, size, ext_line_bytes, ext_excess_bytes, limits, trailers }
    }

    /// Whether the body, trailers included, has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields, to be taken once done; those that a trailer must not carry are dropped
    /// (RFC 9110 section 6.5.1).
    #[must_use]
    pub fn take_trailers(&mut self) -> Fields {
        self.trailers.take().map(|it| it.fields).unwrap_or_default()
    }

    /// Goes on to the next stretch of data, the body's end or the end of the input.
    ///
    /// # Errors
    ///
    /// The first fault by position. Where the body ends is unknown then: the connection must be
    /// closed, and what was decoded must not pass for the whole.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, ChunkFault> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if self.state == State::Data {
                let data = self.take_data(at, input.len());
                return Ok(Decoded { consumed: data.end, data, done: false });
            }
            if self.state == State::Done {
                break;
            }
            self.on_byte(byte)?;
            at += 1;
        }
        Ok(Decoded { consumed: at, data: at..at, done: self.state == State::Done })
    }

    fn take_data(&mut self, at: usize, end: usize) -> Range<usize> {
        let there = u64::try_from(end - at).unwrap_or(u64::MAX);
        let taken = self.size.min(there);
        self.size -= taken;
        self.ext_excess_bytes = self.ext_excess_bytes.saturating_sub(taken);
        if self.size == 0 {
            self.state = State::DataCr;
        }
        // `taken` is at most `end - at`.
        let len = usize::try_from(taken).unwrap_or(end - at);
        debug_assert!(len > 0 && at + len <= end);
        at..at + len
    }

    fn on_byte(&mut self, byte: u8) -> Result<(), ChunkFault> {
        self.state = match (self.state, byte) {
            (State::Start, _) => {
                self.size = u64::from(hex(byte).ok_or(ChunkFault::BadSize)?);
                State::Size(1)
            }
            (State::Size(_) | State::Ext, b'\r') => State::SizeLf,
            (State::Size(_), b';') => {
                self.ext_line_bytes = 0;
                self.on_ext_byte()?
            }
            (State::Size(_), b'\n') => return Err(ChunkFault::BadLineEnd),
            (State::Size(digits), _) => {
                let digit = hex(byte).ok_or(ChunkFault::BadSize)?;
                if digits == SIZE_DIGITS_MAX {
                    return Err(ChunkFault::SizeTooLong);
                }
                self.size = self.size << 4 | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Ext, b'\n') => return Err(ChunkFault::BadLineEnd),
            (State::Ext, byte) if !is_value_byte(byte) => return Err(ChunkFault::BadExtension),
            (State::Ext, _) => self.on_ext_byte()?,
            (State::SizeLf, b'\n') if self.size > 0 => State::Data,
            (State::SizeLf, b'\n') => {
                self.trailers = Some(Box::new(Trailers::new()));
                State::Trailers
            }
            (State::SizeLf, _) => return Err(ChunkFault::BadLineEnd),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::DataCr | State::DataLf, _) => return Err(ChunkFault::MissingCrlf),
            (State::Trailers, _) => self.on_trailer_byte(byte)?,
            (State::Data | State::Done, _) => {
                debug_assert!(false, "decode deals with these");
                return Err(ChunkFault::BadSize);
            }
        };
        Ok(())
    }

    fn on_ext_byte(&mut self) -> Result<State, ChunkFault> {
        let max = self.limits.chunk_ext_bytes_max;
        self.ext_line_bytes += 1;
        self.ext_excess_bytes += 1;
        let excess_max = u64::try_from(max).unwrap_or(u64::MAX);
        if self.ext_line_bytes > max || self.ext_excess_bytes > excess_max {
            return Err(ChunkFault::ExtensionTooLong);
        }
        Ok(State::Ext)
    }

    fn on_trailer_byte(&mut self, byte: u8) -> Result<State, ChunkFault> {
        let trailers = self.trailers.get_or_insert_with(|| Box::new(Trailers::new()));
        trailers.bytes += 1;
        let event = trailers.scan.on_byte(byte, &self.limits).map_err(ChunkFault::Trailer)?;
        // The empty line that every body has is not counted.
        if trailers.bytes > self.limits.trailer_bytes_max.saturating_add(2) {
            return Err(ChunkFault::TrailerTooLarge);
        }
        match event {
            FieldEvent::Within => trailers.line.push(byte),
            FieldEvent::Line => trailers.end_line(),
            FieldEvent::End => {
                trailers.line = Vec::new();
                return Ok(State::Done);
            }
        }
        Ok(State::Trailers)
    }
}

impl Trailers {
    const fn new() -> Self {
        Self { scan: FieldScan::new(), line: Vec::new(), bytes: 0, fields: Fields::new() }
    }

    /// Keeps or drops the line, which ends in CR and is well-formed.
    fn end_line(&mut self) {
        let colon = memchr(b':', &self.line).unwrap_or(self.line.len());
        if let Some((name, value)) = self.line.split_at_checked(colon) {
            let value = value.strip_prefix(b":").unwrap_or(value);
            if !name.is_empty() && !is_forbidden_trailer(name) {
                self.fields.push(name, value.strip_suffix(b"\r").unwrap_or(value));
            }
        }
        self.line.clear();
    }
}

/// Fields that mean something before the content is seen: framing, routing, request modifiers,
/// authentication, control data, description of the content (RFC 9110 section 6.5.1), and what
/// the proxy itself writes. Sorted.
const FORBIDDEN_TRAILERS: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "last-modified",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
];

/// Names that proxies and frameworks take orders from, by their beginnings.
const FORBIDDEN_TRAILER_PREFIXES: &[&str] =
    &["x-forwarded-", "x-real-ip", "x-api-key", "x-request-id", "x-http-method", "x-original-"];

/// Whether a trailer section must not carry a field of that name.
#[must_use]
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    let starts = |prefix: &&str| {
        name.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    FORBIDDEN_TRAILERS.iter().any(|it| name.eq_ignore_ascii_case(it.as_bytes()))
        || FORBIDDEN_TRAILER_PREFIXES.iter().any(starts)
        // The targeted cache controls: CDN-Cache-Control and its like (RFC 9213).
        || name.len() > 14 && name.to_ascii_lowercase().ends_with(b"-cache-control")
}

/// The line before a chunk's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHead {
    bytes: [u8; CHUNK_HEAD_BYTES],
    from: usize,
}

impl ChunkHead {
    /// The line as it goes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

/// The line before a chunk of `len` bytes, which must not be 0: that would be the last chunk.
/// After the data goes CRLF.
#[must_use]
pub fn encode_chunk_head(len: u64) -> ChunkHead {
    debug_assert!(len > 0, "an empty chunk ends the body");
    let mut bytes = *b"0000000000000000\r\n";
    let mut from = CHUNK_HEAD_BYTES - 2;
    let mut rest = len;
    for (at, slot) in bytes.iter_mut().enumerate().rev().skip(2) {
        let digit = HEX.get(usize::try_from(rest & 0xf).unwrap_or_default());
        *slot = digit.copied().unwrap_or_default();
        from = at;
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    ChunkHead { bytes, from }
}

/// Appends a chunk with this data; nothing for no data, since that would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
    out.extend_from_slice(encode_chunk_head(len).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, the trailers and the empty line.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Fields) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers.as_wire());
    out.extend_from_slice(b"\r\n");
}

/// The last chunk without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// As many as fit 64 bits; leading zeros count.
const SIZE_DIGITS_MAX: u8 = 16;
const CHUNK_HEAD_BYTES: usize = 18;
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests;
