//! HTTP/1.1 messages on the wire (RFC 9112): bytes in, decisions out, for both sides.
//!
//! The connection drivers of `server` and `net` call this folder; it never reads, waits or sends.
//! Everything here is stricter than the RFC's "may be lenient" wherever leniency would let two
//! parties see different messages in the same bytes (request smuggling, response splitting).
//!
//! | file | subject |
//! |---|---|
//! | `request`, `target`, `authority` | a request head: parse, classify, judge |
//! | `from_http2` | a request head that came over HTTP/2, judged alike |
//! | `response` | a response head |
//! | `known` | which of the fields that the proxy cares about are there, in one pass |
//! | `framing` | Content-Length, Transfer-Encoding, Connection (RFC 9112 sections 6 and 9) |
//! | `chunked`, `body` | where a body ends, byte by byte |
//! | `quick` | the one pass over a well-formed head, on `words` |
//! | `scan` | the slow walk that names the first fault of a refused or unfinished head |
//! | `write` | heads out |
//!
//! ```text
//!  buffer --quick--> lines, known names --judge--> Request, Response
//!     |                                    \ fault
//!     |  anything odd, or unfinished        v
//!     +----------> scan: first fault by position --> RequestFault::status
//! ```
//!
//! Verdicts don't depend on how the input was split: the scan goes strictly from left to right,
//! and limits count bytes of the message, not of the buffer.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod authority;
pub mod body;
pub mod chunked;
pub mod fault;
mod framing;
pub mod from_http2;
pub mod known;
mod quick;
pub mod request;
pub mod response;
mod scan;
pub mod target;
mod words;
pub mod write;

#[cfg(test)]
mod reference;

pub use body::{BodyFault, BodyReader, Step};
pub use chunked::{ChunkFault, ChunkedDecoder, Decoded};
pub use fault::{FieldFault, RequestFault, ResponseFault};
pub use from_http2::{Pseudo, judge_http2};
pub use known::{Known, Mask, Name};
pub use request::{BodyLength, Request, Slots, parse_request, worth_parsing};
pub use response::{Response, ResponseBody, parse_response};
pub use target::{Scheme, Target};

/// One field line as it stands in the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'b> {
    /// A token, in the case it came in.
    pub name: &'b [u8],
    /// Without white space at its ends, and without control bytes except HTAB.
    pub value: &'b [u8],
}

impl Line<'_> {
    /// Whether the name is `name`, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// What a message may be at most. Whatever exceeds a limit is refused as soon as that is seen,
/// whether or not the rest has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, from its first byte to the empty line. Default 65,536; beyond: 431.
    pub head_bytes_max: usize,
    /// Bytes of a request target. Default 8,192; beyond: 414.
    pub target_bytes_max: usize,
    /// Field lines of a head or of trailers. Default 100, at most [`FIELDS_MAX`]; beyond: 431.
    pub fields_max: usize,
    /// Bytes of one field line without its CRLF. Default 16,384; beyond: 431.
    pub field_bytes_max: usize,
    /// Bytes of extensions of one chunk. Default 1,024. Over a whole body extensions may in
    /// addition not outweigh the data by more than this, so that ignoring them stays cheap.
    pub chunk_ext_bytes_max: usize,
    /// Bytes of a trailer section. Default 8,192.
    pub trailer_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 65_536,
            target_bytes_max: 8_192,
            fields_max: 100,
            field_bytes_max: 16_384,
            chunk_ext_bytes_max: 1_024,
            trailer_bytes_max: 8_192,
        }
    }
}

impl Limits {
    /// With no more fields than there are slots.
    const fn clamped(&self) -> Self {
        let fields_max = if self.fields_max < FIELDS_MAX { self.fields_max } else { FIELDS_MAX };
        Self { fields_max, ..*self }
    }
}

/// The upper end of [`Limits::fields_max`]: there are that many slots, 4 KiB of stack.
pub const FIELDS_MAX: usize = 128;
/// Bytes of a method. None that is registered has more than 17; beyond: 501.
pub const METHOD_BYTES_MAX: usize = 64;
