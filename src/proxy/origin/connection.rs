//! One HTTP/1.1 exchange at a time on a connection to an origin.
//!
//! A connection goes back to its pool only after a complete, well-framed answer that allows reuse;
//! every other end closes it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use crate::http::{Method, ResponseHead};
use crate::http1::{BodyReader, Limits, ResponseBody, Step, parse_response};
use crate::net::{Peek, Stream};
use crate::proxy::error::Fault;
use crate::proxy::origin::pool::{Permit, Pool};

/// A connection to an origin with an exchange on it.
pub struct Connection {
    line: Rc<Line>,
    /// Bytes read and not yet used.
    input: Bytes,
    /// It has carried an answer before: the origin may have closed it meanwhile.
    reused: bool,
    /// The origin has said something since the request went out.
    answered: bool,
    /// Counts it for as long as it is open.
    permit: Permit,
}

/// The socket, shared with a body on its way out.
pub struct Line {
    stream: Stream,
    /// The request's body has not been sent to its end: no second request may follow.
    unsent: Cell<bool>,
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

/// The sending side of a connection, for a body that goes out while the answer may come in.
pub struct Sender {
    /// Not held beyond a write, so that the connection can be kept for the next exchange.
    line: Weak<Line>,
    writing: Cell<bool>,
}

impl Sender {
    /// Sends a piece.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the origin takes no more.
    pub async fn send(&self, piece: Bytes) -> Result<(), Fault> {
        let line = self.line.upgrade().ok_or(Fault::Reset)?;
        self.writing.set(true);
        let sent = line.stream.write_all_bytes(piece).await;
        self.writing.set(false);
        sent.map_err(|_| Fault::Reset)
    }

    /// Sends a head and a whole body, and notes that they are through.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the origin takes no more.
    pub async fn send_whole(&self, head: Vec<u8>, body: Bytes) -> Result<(), Fault> {
        let line = self.line.upgrade().ok_or(Fault::Reset)?;
        line.stream.write_two(head, body).await.0.map_err(|_| Fault::Reset)?;
        self.complete();
        Ok(())
    }

    /// Notes that the body is through.
    pub fn complete(&self) {
        if let Some(line) = self.line.upgrade() {
            line.unsent.set(false);
        }
    }

    /// Whether a piece is on its way: the origin takes no more for now.
    #[must_use]
    pub const fn is_writing(&self) -> bool {
        self.writing.get()
    }
}

/// An answer's head with what its framing says.
pub struct Answer {
    /// The head as received.
    pub head: ResponseHead,
    /// The state of its body.
    pub body: Body,
}

impl Answer {
    /// Takes the head; an empty one of the same status is left.
    #[must_use]
    pub fn take_head(&mut self) -> ResponseHead {
        let (status, version) = (self.head.status, self.head.version);
        let fields = std::mem::take(&mut self.head.fields);
        ResponseHead { status, version, fields }
    }
}

/// A body being read.
pub struct Body {
    reader: BodyReader,
    /// From Content-Length.
    length: Option<u64>,
    persistent: bool,
    bytes_max: u64,
    bytes: u64,
}

impl Connection {
    /// A connection that was just dialled.
    #[must_use]
    pub fn dialled(stream: Stream, permit: Permit) -> Self {
        Self {
            line: Line::new(stream),
            input: Bytes::new(),
            reused: false,
            answered: false,
            permit,
        }
    }

    /// One that has been used before.
    pub(super) fn kept(line: Rc<Line>, permit: Permit) -> Self {
        debug_assert!(!line.unsent.get());
        Self { line, input: Bytes::new(), reused: true, answered: false, permit }
    }

    /// The sending side, for a body that is not whole yet.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.line.unsent.set(true);
        Sender { line: Rc::downgrade(&self.line), writing: Cell::new(false) }
    }

    /// Whether it has carried an exchange before: a failure may be the race with an origin that
    /// closes an idle connection.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether the origin has said anything since the request went out.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.answered
    }

    /// Sends a head and, in the same write, what there is of a body.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the origin takes no more: it may have answered all the same.
    pub async fn send(&self, head: Vec<u8>, body: Bytes) -> Result<(), Fault> {
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

    /// Reads the next head, interim or final.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the connection ends first, [`Fault::Invalid`] when it is no HTTP.
    pub async fn head(
        &mut self,
        method: &Method,
        limits: &Limits,
        bytes_max: u64,
    ) -> Result<Head, Fault> {
        let mut buffer: Vec<u8> = std::mem::take(&mut self.input).into();
        loop {
            if !buffer.is_empty() {
                let parsed = parse_response(&buffer, limits, method);
                let parsed = parsed.map_err(|it| Fault::Invalid(it.as_str()))?;
                if let Some(response) = parsed {
                    let mut rest = Bytes::from(buffer);
                    self.input = rest.split_off(response.head_len);
                    return head_of(response, limits, bytes_max);
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

    /// Reads the body's next bytes; `None` at its end.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::Invalid`], [`Fault::TooLarge`].
    pub async fn chunk(&mut self, body: &mut Body) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(step) = self.buffered(body)? {
                return Ok(match step {
                    Buffered::Chunk(chunk) => Some(chunk),
                    Buffered::End => None,
                });
            }
            let room = body.read_bytes();
            let (read, back) = self.line.stream.read(Vec::with_capacity(room)).await;
            match read {
                Ok(0) => {
                    body.persistent = false;
                    return body.reader.on_eof().map(|()| None).map_err(|_| Fault::Truncated);
                }
                Ok(_) => self.input = back.into(),
                Err(_) => return Err(Fault::Truncated),
            }
        }
    }

    /// The body's next bytes if they have been read already.
    ///
    /// # Errors
    /// As [`Connection::chunk`].
    pub fn buffered(&mut self, body: &mut Body) -> Result<Option<Buffered>, Fault> {
        loop {
            if body.reader.is_done() {
                return Ok(Some(Buffered::End));
            }
            if self.input.is_empty() {
                return Ok(None);
            }
            let Step { consumed, data, .. } =
                body.reader.on_bytes(&self.input).map_err(|it| Fault::Invalid(it.as_str()))?;
            let chunk = self.input.slice(data);
            self.input = self.input.slice(consumed..);
            if chunk.is_empty() {
                if consumed == 0 && !body.reader.is_done() {
                    return Ok(None);
                }
                continue;
            }
            body.bytes += chunk.len() as u64;
            if body.bytes > body.bytes_max {
                return Err(Fault::TooLarge);
            }
            return Ok(Some(Buffered::Chunk(chunk)));
        }
    }

    /// The body's bytes that have been read already, and whether that is all of it. Never waits.
    ///
    /// # Errors
    /// As [`Connection::chunk`].
    pub fn at_hand(&mut self, body: &mut Body) -> Result<AtHand, Fault> {
        let mut chunks = Vec::new();
        loop {
            match self.buffered(body)? {
                Some(Buffered::Chunk(chunk)) => chunks.push(chunk),
                Some(Buffered::End) => return Ok(AtHand::Whole(chunks)),
                None => return Ok(AtHand::Part(chunks)),
            }
        }
    }

    /// Gives the connection back when its answer is complete and allows another exchange.
    pub fn finish(self, body: &Body, pool: &Pool) {
        let framed = body.reader.is_done() && body.persistent && self.input.is_empty();
        // A body on its way out holds the line while it writes.
        let is_free = !self.line.unsent.get() && Rc::strong_count(&self.line) == 1;
        if framed && is_free {
            pool.put(self.line, self.permit);
        }
    }
}

/// What [`Connection::head`] read.
pub enum Head {
    /// 1xx: another head follows.
    Interim(ResponseHead),
    /// The answer.
    Final(Answer),
}

/// What [`Connection::at_hand`] found.
pub enum AtHand {
    /// All of the body.
    Whole(Vec<Bytes>),
    /// Its beginning; more will come.
    Part(Vec<Bytes>),
}

/// What [`Connection::buffered`] found.
pub enum Buffered {
    /// Bytes of the body.
    Chunk(Bytes),
    /// Its end.
    End,
}

impl Body {
    /// The length that the origin stated; zero where there is no body.
    #[must_use]
    pub const fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether all of it has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reader.is_done()
    }

    /// How much to ask for: no more than is left when that is known.
    fn read_bytes(&self) -> usize {
        let left = self.length.map_or(BODY_READ_BYTES as u64, |it| it.saturating_sub(self.bytes));
        usize::try_from(left).unwrap_or(BODY_READ_BYTES).clamp(BODY_READ_BYTES_MIN, BODY_READ_BYTES)
    }
}

/// Room for a head: nearly all fit at once.
const HEAD_READ_BYTES: usize = 8 * 1024;
/// Room for a piece of a body: four TLS records.
const BODY_READ_BYTES: usize = 64 * 1024;
const BODY_READ_BYTES_MIN: usize = 4 * 1024;

fn head_of(
    response: crate::http1::Response,
    limits: &Limits,
    bytes_max: u64,
) -> Result<Head, Fault> {
    if response.interim {
        return Ok(Head::Interim(response.head));
    }
    let length = match response.body {
        ResponseBody::None => Some(0),
        ResponseBody::Length(length) => Some(length),
        ResponseBody::Chunked | ResponseBody::UntilClose => None,
    };
    if length.is_some_and(|it| it > bytes_max) {
        return Err(Fault::TooLarge);
    }
    let body = Body {
        reader: BodyReader::for_response(response.body, limits),
        length,
        persistent: response.persistent,
        bytes_max,
        bytes: 0,
    };
    Ok(Head::Final(Answer { head: response.head, body }))
}
