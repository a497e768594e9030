//! Where a body ends, whichever way it is delimited; the same machine for both sides.
//!
//! A body that the connection's end cuts short is an error, never a shorter body (RFC 9112
//! section 8); only a close-delimited one ends that way.

use std::ops::Range;

use crate::http::Fields;
use crate::http1::Limits;
use crate::http1::chunked::{ChunkFault, ChunkedDecoder};
use crate::http1::request::BodyLength;
use crate::http1::response::ResponseBody;

/// Why a body is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyFault {
    /// The chunked coding is broken.
    Chunk(ChunkFault),
    /// The connection ended before the body did (RFC 9112 section 8).
    Truncated,
}

impl BodyFault {
    /// The status that answers it in a request.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Chunk(fault) => fault.status(),
            Self::Truncated => 400,
        }
    }

    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chunk(fault) => fault.as_str(),
            Self::Truncated => "body_truncated",
        }
    }
}

/// What one step made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are dealt with; call again with the rest unless done. The rest
    /// after the end belongs to the next message.
    pub consumed: usize,
    /// Where in the input the data found in this step stands; perhaps empty.
    pub data: Range<usize>,
    /// Whether the body has ended.
    pub done: bool,
}

/// Reads one body to its end.
#[derive(Clone, Debug)]
pub struct BodyReader {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Bytes still to come; 0 is the end.
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
    Closed,
}

impl BodyReader {
    /// For a request's body.
    #[must_use]
    pub fn for_request(body: BodyLength, limits: &Limits) -> Self {
        let kind = match body {
            BodyLength::None => Kind::Length(0),
            BodyLength::Length(length) => Kind::Length(length),
            BodyLength::Chunked => Kind::Chunked(Box::new(ChunkedDecoder::new(limits))),
        };
        Self { kind }
    }

    /// For a response's body.
    #[must_use]
    pub fn for_response(body: ResponseBody, limits: &Limits) -> Self {
        let kind = match body {
            ResponseBody::None => Kind::Length(0),
            ResponseBody::Length(length) => Kind::Length(length),
            ResponseBody::Chunked => Kind::Chunked(Box::new(ChunkedDecoder::new(limits))),
            ResponseBody::UntilClose => Kind::UntilClose,
        };
        Self { kind }
    }

    /// Whether the body has ended. True from the start where there is none.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.kind {
            Kind::Length(rest) => *rest == 0,
            Kind::Chunked(decoder) => decoder.is_done(),
            Kind::UntilClose => false,
            Kind::Closed => true,
        }
    }

    /// Bytes of data still to come, where that is known.
    #[must_use]
    pub const fn remaining(&self) -> Option<u64> {
        match self.kind {
            Kind::Length(rest) => Some(rest),
            Kind::Closed => Some(0),
            Kind::Chunked(_) | Kind::UntilClose => None,
        }
    }

    /// The trailer fields, to be taken once done.
    #[must_use]
    pub fn take_trailers(&mut self) -> Fields {
        match &mut self.kind {
            Kind::Chunked(decoder) => decoder.take_trailers(),
            _ => Fields::new(),
        }
    }

    /// Goes on to the next stretch of data, the body's end or the end of the input.
    ///
    /// # Errors
    ///
    /// A fault of the chunked coding: close the connection.
    pub fn on_bytes(&mut self, input: &[u8]) -> Result<Step, BodyFault> {
        match &mut self.kind {
            Kind::Length(rest) => {
                let there = u64::try_from(input.len()).unwrap_or(u64::MAX);
                let taken = there.min(*rest);
                *rest -= taken;
                let consumed = usize::try_from(taken).unwrap_or(input.len());
                debug_assert!(consumed <= input.len());
                Ok(Step { consumed, data: 0..consumed, done: *rest == 0 })
            }
            Kind::Chunked(decoder) => {
                let step = decoder.decode(input).map_err(BodyFault::Chunk)?;
                Ok(Step { consumed: step.consumed, data: step.data, done: step.done })
            }
            Kind::UntilClose => {
                Ok(Step { consumed: input.len(), data: 0..input.len(), done: false })
            }
            Kind::Closed => Ok(Step { consumed: 0, data: 0..0, done: true }),
        }
    }

    /// The connection ended.
    ///
    /// # Errors
    ///
    /// [`BodyFault::Truncated`] when the body had not.
    pub fn on_eof(&mut self) -> Result<(), BodyFault> {
        if matches!(self.kind, Kind::UntilClose) {
            self.kind = Kind::Closed;
        }
        if self.is_done() { Ok(()) } else { Err(BodyFault::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` to the end; the data, the bytes consumed, and whether it was the end.
    fn read(reader: &mut BodyReader, input: &[u8]) -> (Vec<u8>, usize, bool) {
        let (mut data, mut at) = (Vec::new(), 0);
        loop {
            let step = reader.on_bytes(&input[at..]).unwrap();
            data.extend_from_slice(&input[at..][step.data]);
            at += step.consumed;
            assert_eq!(step.done, reader.is_done());
            if step.done || at == input.len() {
                return (data, at, step.done);
            }
        }
    }

    fn response(body: ResponseBody) -> BodyReader {
        BodyReader::for_response(body, &Limits::default())
    }

    #[test]
    fn each_kind_ends_where_it_must_and_leaves_the_rest() {
        for (body, input, data, consumed, done) in [
            (ResponseBody::None, &b"HTTP"[..], &b""[..], 0, true),
            (ResponseBody::Length(0), b"x", b"", 0, true),
            (ResponseBody::Length(3), b"abcdef", b"abc", 3, true),
            (ResponseBody::Length(9), b"abcdef", b"abcdef", 6, false),
            (ResponseBody::Length(u64::MAX), b"ab", b"ab", 2, false),
            (ResponseBody::Chunked, b"3\r\nabc\r\n0\r\n\r\nX", b"abc", 13, true),
            (ResponseBody::UntilClose, b"abc", b"abc", 3, false),
        ] {
            assert_eq!(
                read(&mut response(body), input),
                (data.to_vec(), consumed, done),
                "{body:?}"
            );
        }
    }

    #[test]
    fn rfc9112_8_a_body_cut_short_is_an_error() {
        for (body, input) in [
            (ResponseBody::Length(3), &b"ab"[..]),
            (ResponseBody::Length(1), b""),
            (ResponseBody::Chunked, b"3\r\nabc\r\n"),
            (ResponseBody::Chunked, b"3\r\nabc\r\n0\r\n"),
            (ResponseBody::Chunked, b""),
        ] {
            let mut reader = response(body);
            let _ = read(&mut reader, input);
            assert_eq!(reader.on_eof(), Err(BodyFault::Truncated), "{body:?} {input:?}");
        }
    }

    #[test]
    fn rfc9112_8_only_a_close_delimited_body_ends_with_the_connection() {
        let mut reader = response(ResponseBody::UntilClose);
        let _ = read(&mut reader, b"abc");
        assert_eq!(reader.on_eof(), Ok(()));
        assert!(reader.is_done());
        assert_eq!(reader.on_bytes(b"late").unwrap(), Step { consumed: 0, data: 0..0, done: true });
        for body in [ResponseBody::None, ResponseBody::Length(0)] {
            assert_eq!(response(body).on_eof(), Ok(()));
        }
    }

    #[test]
    fn a_request_without_framing_has_no_body() {
        let limits = Limits::default();
        let reader = BodyReader::for_request(BodyLength::None, &limits);
        assert!(reader.is_done() && reader.remaining() == Some(0));
        let reader = BodyReader::for_request(BodyLength::Length(7), &limits);
        assert!(!reader.is_done() && reader.remaining() == Some(7));
        let mut reader = BodyReader::for_request(BodyLength::Chunked, &limits);
        assert_eq!(reader.remaining(), None);
        let input = b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n";
        assert_eq!(read(&mut reader, input), (b"a".to_vec(), input.len(), true));
        assert_eq!(reader.take_trailers().as_wire(), b"X-Sum: 1\r\n");
    }

    #[test]
    fn a_broken_chunk_is_reported_with_its_reason() {
        let mut reader = response(ResponseBody::Chunked);
        let fault = reader.on_bytes(b"x").unwrap_err();
        assert_eq!((fault.as_str(), fault.status()), ("bad_chunk_size", 400));
    }
}
