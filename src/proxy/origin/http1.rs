//! One HTTP/1.1 exchange at a time on a connection to an origin.
//!
//! A connection goes back to its pool only after a complete, well-framed answer that allows reuse;
//! every other end closes it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use crate::http::Method;
use crate::http1::chunked::{LAST_CHUNK, write_chunk};
use crate::http1::{BodyReader, Limits, Response, ResponseBody, Step, parse_response};
use crate::net::{Peek, Stream};
use crate::proxy::error::Fault;
use crate::proxy::origin::connection::{AtHand, Head};
use crate::proxy::origin::permits::Permit;
use crate::proxy::origin::pool::Pool;
use crate::proxy::origin::request::OutgoingBody;

/// A connection with an exchange on it.
pub struct Http1 {
    line: Rc<Line>,
    /// Bytes read and not yet used.
    input: Bytes,
    /// A read's buffer that may be used again.
    spare: Vec<u8>,
    /// It has carried an answer before: the origin may have closed it meanwhile.
    reused: bool,
    /// The origin has said something since the request went out.
    answered: bool,
    /// The answer's body, once its head is there.
    body: Option<Body>,
    /// Counts it for as long as it is open.
    permit: Permit,
}

/// The socket, shared with a body on its way out.
pub struct Line {
    stream: Stream,
    /// The request's body has not been sent to its end: no second request may follow.
    unsent: Cell<bool>,
}

/// What an answer may be.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The request's method: HEAD has answers without body.
    pub method: &'a Method,
    /// Of the head.
    pub limits: &'a Limits,
    /// Of the body.
    pub bytes_max: u64,
}

/// A body being read.
struct Body {
    reader: BodyReader,
    /// From Content-Length.
    length: Option<u64>,
    persistent: bool,
    bytes_max: u64,
    bytes: u64,
    /// What is wrong behind the bytes that were handed out last.
    fault: Option<Fault>,
}

/// The sending side, for a body that goes out while the answer may come in.
pub struct Sender {
    /// Not held beyond a write, so that the connection can be kept for the next exchange.
    line: Weak<Line>,
    framing: OutgoingBody,
    writing: Cell<bool>,
}

impl Line {
    /// A socket that has carried nothing.
    #[must_use]
    pub fn new(stream: Stream) -> Rc<Self> {
        Rc::new(Self { stream, unsent: Cell::new(false) })
    }

    /// Whether it is open and silent. One system call.
    #[must_use]
    pub fn peek_state(&self) -> Peek {
        self.stream.peek_state()
    }

    /// The origin's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.stream.peer_addr()
    }
}

impl Http1 {
    /// A connection that was just dialled.
    #[must_use]
    pub fn dialled(stream: Stream, permit: Permit) -> Self {
        Self::on(Line::new(stream), permit, false)
    }

    /// One that has been used before.
    pub(super) fn kept(line: Rc<Line>, permit: Permit) -> Self {
        debug_assert!(!line.unsent.get());
        Self::on(line, permit, true)
    }

    fn on(line: Rc<Line>, permit: Permit, reused: bool) -> Self {
        let (input, spare) = (Bytes::new(), Vec::new());
        Self { line, input, spare, reused, answered: false, body: None, permit }
    }

    /// Sends a head and, in the same write, what there is of a body.
    pub(super) async fn send(&mut self, head: Vec<u8>, body: Bytes) -> Result<(), Fault> {
        let stream = &self.line.stream;
        let sent = if body.is_empty() {
            stream.write_all(head).await.0
        } else {
            stream.write_two(head, body).await.0
        };
        sent.map_err(|_| {
            self.line.unsent.set(true);
            Fault::Reset
        })
    }

    /// The sending side, for a body that is not whole yet.
    pub(super) fn sender(&self, framing: OutgoingBody) -> Sender {
        self.line.unsent.set(true);
        Sender { line: Rc::downgrade(&self.line), framing, writing: Cell::new(false) }
    }

    pub(super) async fn head(&mut self, expected: &Expected<'_>) -> Result<Head, Fault> {
        let mut buffer: Vec<u8> = std::mem::take(&mut self.input).into();
        loop {
            if !buffer.is_empty() {
                let parsed = parse_response(&buffer, expected.limits, expected.method);
                let parsed = parsed.map_err(|it| Fault::Invalid(it.as_str()))?;
                if let Some(response) = parsed {
                    let mut rest = Bytes::from(buffer);
                    self.input = rest.split_off(response.head_len);
                    return self.on_response(response, expected);
                }
            }
            buffer.reserve(HEAD_READ_BYTES);
            let (read, back) = self.line.stream.read(buffer).await;
            buffer = back;
            match read {
                Ok(0) | Err(_) => return Err(Fault::Reset),
                Ok(_) => self.answered = true,
            }
        }
    }

    fn on_response(&mut self, response: Response, expected: &Expected<'_>) -> Result<Head, Fault> {
        if response.interim {
            return Ok(Head::Interim(response.head));
        }
        let length = match response.body {
            ResponseBody::None => Some(0),
            ResponseBody::Length(length) => Some(length),
            ResponseBody::Chunked | ResponseBody::UntilClose => None,
        };
        if length.is_some_and(|it| it > expected.bytes_max) {
            return Err(Fault::TooLarge);
        }
        self.body = Some(Body {
            reader: BodyReader::for_response(response.body, expected.limits),
            length,
            persistent: response.persistent,
            bytes_max: expected.bytes_max,
            bytes: 0,
            fault: None,
        });
        Ok(Head::Final(response.head))
    }

    pub(super) fn length(&self) -> Option<u64> {
        self.body.as_ref().and_then(|it| it.length)
    }

    pub(super) fn is_done(&self) -> bool {
        self.body.as_ref().is_some_and(|it| it.reader.is_done() && it.fault.is_none())
    }

    pub(super) const fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }

    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            match self.buffered()? {
                Buffered::Chunk(chunk) => return Ok(Some(chunk)),
                Buffered::End => return Ok(None),
                Buffered::Nothing => {}
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            let bytes = body.read_bytes();
            let mut room = std::mem::take(&mut self.spare);
            room.reserve(bytes);
            let (read, mut back) = self.line.stream.read(room).await;
            match read {
                Ok(0) => {
                    body.persistent = false;
                    return body.reader.on_eof().map(|()| None).map_err(|_| Fault::Truncated);
                }
                // What is kept of an origin that dribbles must not keep a buffer for each drop.
                Ok(count) if count < back.capacity() / 2 => {
                    self.input = Bytes::copy_from_slice(&back);
                    back.clear();
                    self.spare = back;
                }
                Ok(_) => self.input = back.into(),
                Err(_) => return Err(Fault::Truncated),
            }
        }
    }

    /// The body's next bytes if they have been read already: all of them, however many chunks the
    /// origin made of them.
    fn buffered(&mut self) -> Result<Buffered, Fault> {
        let Some(body) = &mut self.body else { return Ok(Buffered::End) };
        if let Some(fault) = body.fault.take() {
            return Err(fault);
        }
        let mut gathered = Gathered::default();
        while !body.reader.is_done() && !self.input.is_empty() {
            let Step { consumed, data, .. } = match body.reader.on_bytes(&self.input) {
                Ok(step) => step,
                Err(fault) => {
                    // What came before it is good, and told first.
                    body.fault = Some(Fault::Invalid(fault.as_str()));
                    break;
                }
            };
            gathered.add(self.input.slice(data));
            self.input = self.input.slice(consumed..);
            if consumed == 0 {
                break;
            }
        }
        let chunk = gathered.end();
        if chunk.is_empty() {
            return match body.fault.take() {
                Some(fault) => Err(fault),
                None if body.reader.is_done() => Ok(Buffered::End),
                None => Ok(Buffered::Nothing),
            };
        }
        body.bytes += chunk.len() as u64;
        self.permit.permits().note_received(chunk.len() as u64);
        if body.bytes > body.bytes_max {
            return Err(Fault::TooLarge);
        }
        Ok(Buffered::Chunk(chunk))
    }

    pub(super) fn at_hand(&mut self) -> Result<AtHand, Fault> {
        let mut chunks = Vec::new();
        loop {
            match self.buffered()? {
                Buffered::Chunk(chunk) => chunks.push(chunk),
                Buffered::End => return Ok(AtHand::Whole(chunks)),
                Buffered::Nothing => return Ok(AtHand::Part(chunks)),
            }
        }
    }

    pub(super) fn finish(self, pool: &Pool) {
        let framed = self.body.is_some_and(|it| it.reader.is_done() && it.persistent);
        // A body on its way out holds the line while it writes.
        let is_free = !self.line.unsent.get() && Rc::strong_count(&self.line) == 1;
        if framed && is_free && self.input.is_empty() {
            pool.put(self.line, self.permit);
        }
    }
}

/// Pieces of one read, as one: the first as it stands, more of them copied together.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: Vec<u8>,
}

impl Gathered {
    fn add(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.first.is_empty() {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(BODY_READ_BYTES_MIN.max(self.first.len() + piece.len()));
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&piece);
    }

    fn end(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}

enum Buffered {
    Chunk(Bytes),
    End,
    Nothing,
}

impl Body {
    /// How much to ask for: no more than is left when that is known.
    fn read_bytes(&self) -> usize {
        let left = self.length.map_or(BODY_READ_BYTES as u64, |it| it.saturating_sub(self.bytes));
        usize::try_from(left).unwrap_or(BODY_READ_BYTES).clamp(BODY_READ_BYTES_MIN, BODY_READ_BYTES)
    }
}

impl Sender {
    pub(super) async fn send(&self, piece: Bytes) -> Result<(), Fault> {
        let piece = match self.framing {
            OutgoingBody::None | OutgoingBody::Length(_) => piece,
            OutgoingBody::Chunked => {
                let mut framed = Vec::with_capacity(piece.len() + CHUNK_FRAME_BYTES);
                write_chunk(&mut framed, &piece);
                framed.into()
            }
        };
        self.write(piece).await
    }

    async fn write(&self, piece: Bytes) -> Result<(), Fault> {
        let line = self.line.upgrade().ok_or(Fault::Reset)?;
        self.writing.set(true);
        let sent = line.stream.write_all_bytes(piece).await;
        self.writing.set(false);
        sent.map_err(|_| Fault::Reset)
    }

    /// Ends the body, and notes that it is through: another request may follow.
    pub(super) async fn finish(&self) -> Result<(), Fault> {
        if self.framing == OutgoingBody::Chunked {
            self.write(Bytes::from_static(LAST_CHUNK)).await?;
        }
        if let Some(line) = self.line.upgrade() {
            line.unsent.set(false);
        }
        Ok(())
    }

    pub(super) const fn is_writing(&self) -> bool {
        self.writing.get()
    }
}

/// Room for a head: nearly all fit at once.
const HEAD_READ_BYTES: usize = 8 * 1024;
/// Room for a piece of a body: four TLS records.
const BODY_READ_BYTES: usize = 64 * 1024;
const BODY_READ_BYTES_MIN: usize = 4 * 1024;
/// The size line and the line end of a chunk, at most.
const CHUNK_FRAME_BYTES: usize = 24;
