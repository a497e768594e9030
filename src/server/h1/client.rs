//! An exchange's client over HTTP/1.1: the request's body in, the answer out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;

use crate::http::{Fields, Version};
use crate::http1::BodyReader;
use crate::http1::chunked::{LAST_CHUNK, encode_chunk_head, write_chunk};
use crate::http1::write::{CONTINUE, write_response_head, write_status_line};
use crate::net::{Peek, ticks};
use crate::proxy::Task;
use crate::proxy::downstream::{BodyEnd, Downstream, Gone, Length, Reply};
use crate::proxy::error::{Fault, Refusal};
use crate::proxy::unreadable;
use crate::server::h1::Connection;
use crate::server::watch::Phase;

/// The client of one exchange.
pub(super) struct Client<'c> {
    connection: &'c Connection,
    version: Version,
    persistent: Cell<bool>,
    reader: RefCell<BodyReader>,
    wants_continue: Cell<bool>,
    /// How the answer's body is framed once it has been started.
    answer: Cell<Framing>,
    state: Cell<State>,
    body_bytes: Cell<u64>,
    body_bytes_max: u64,
    /// Nobody wants more of the body for now.
    stopped: Cell<bool>,
    /// An answer that must be whole before its framing is known.
    held: RefCell<Option<Held>>,
}

/// An answer for an HTTP/1.0 client. Such a client can't tell the end of a body of unknown length
/// from a cut, so that a short one is gathered, to be sent with its length or not at all.
struct Held {
    reply: Reply,
    body: Vec<u8>,
}

/// What becomes of the connection.
pub(super) enum After {
    /// The next request.
    Continue,
    /// A clean close: what the client still sends is read and dropped for a while.
    Linger,
    /// It is over.
    Drop,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the answer was sent.
    Waiting,
    /// Its head was.
    Started,
    /// All of it.
    Complete,
    /// It can't be completed.
    Cut,
    /// The client is gone.
    Lost,
}

impl<'c> Client<'c> {
    pub(super) fn new(connection: &'c Connection, task: &Task) -> Self {
        let framing = task.framing();
        let plan = connection.core.plan();
        Self {
            version: framing.version,
            persistent: Cell::new(framing.persistent),
            reader: RefCell::new(BodyReader::for_request(framing.body, &plan.request_limits)),
            wants_continue: Cell::new(framing.expects_continue),
            answer: Cell::new(Framing::Length),
            state: Cell::new(State::Waiting),
            body_bytes: Cell::new(0),
            body_bytes_max: plan.request_body_bytes_max,
            stopped: Cell::new(false),
            held: RefCell::new(None),
            connection,
        }
    }

    /// Says what becomes of the connection, now that the exchange is over.
    pub(super) async fn after(self) -> After {
        if self.state.get() == State::Cut && self.held.take().is_some() {
            // Nothing of it was sent: the client can still be told.
            let core = &self.connection.core;
            unreadable::write_fault(
                core,
                Fault::Truncated,
                &mut self.connection.output.borrow_mut(),
            );
            let sent = self.write(None).await;
            return if sent.is_ok() { After::Linger } else { After::Drop };
        }
        if self.state.get() != State::Complete {
            return After::Drop;
        }
        self.stopped.set(false);
        // A client that waits for 100 Continue may send its body or not: nobody can tell.
        let uncertain = self.wants_continue.get() && !self.is_read();
        if !self.persistent.get() || uncertain {
            return After::Linger;
        }
        // A short rest of a body that nobody wanted is read away, a long one is not worth it.
        let wanted = self.body_bytes.get();
        while !self.is_read() {
            let rest = self.body_bytes.get() - wanted;
            if rest > DRAIN_BYTES_MAX || self.body().await.is_err() {
                return After::Linger;
            }
        }
        After::Continue
    }

    fn is_read(&self) -> bool {
        self.reader.borrow().is_done()
    }

    /// Appends the head to the connection's output.
    fn push_head(&self, reply: &Reply) {
        let mut output = self.connection.output.borrow_mut();
        if output.capacity() == 0 {
            *output = self.connection.core.buffer();
        }
        output.reserve(reply.fields.as_wire().len() + 256);
        write_status_line(&mut output, reply.status);
        output.extend_from_slice(reply.fields.as_wire());
        self.answer.set(Framing::Length);
        match reply.length {
            Length::Bodyless => {}
            Length::BodylessOf(length) | Length::Known(length) => {
                push_number(&mut output, b"Content-Length: ", length);
            }
            Length::Unknown if self.version == Version::Http10 => {
                self.answer.set(Framing::UntilClose);
                self.persistent.set(false);
            }
            Length::Unknown => {
                self.answer.set(Framing::Chunked);
                output.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
        }
        let too_large = reply.status == 413;
        if self.connection.place.watch().is_draining() || too_large || self.will_not_drain() {
            self.persistent.set(false);
        }
        if !self.persistent.get() {
            output.extend_from_slice(b"Connection: close\r\n");
        } else if self.version == Version::Http10 {
            output.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        output.extend_from_slice(b"\r\n");
    }

    /// The request's body is not read and too long, or too uncertain, to be read away later.
    fn will_not_drain(&self) -> bool {
        let reader = self.reader.borrow();
        let long = reader.remaining().is_some_and(|it| it > DRAIN_BYTES_MAX);
        !reader.is_done() && (self.wants_continue.get() || long)
    }

    /// The answer goes on from `state`, unless the client was found gone meanwhile: by an interim
    /// answer that it did not take, or by whoever reads its body.
    fn goes_on_from(&self, state: State) -> Result<(), Gone> {
        if matches!(self.state.get(), State::Lost | State::Cut) {
            return Err(Gone);
        }
        debug_assert!(self.state.get() == state);
        Ok(())
    }

    async fn write(&self, body: Option<Bytes>) -> Result<(), Gone> {
        self.connection.write(body).await.map_err(|_| {
            self.state.set(State::Lost);
            Gone
        })
    }

    /// Decodes all that is in the buffer, however many chunks that is; `None` when more must be
    /// read.
    fn buffered(&self) -> Result<Option<Bytes>, BodyEnd> {
        let input = self.connection.input.borrow();
        let mut reader = self.reader.borrow_mut();
        let start = &self.connection.start;
        let mut data = Vec::new();
        while !reader.is_done() && start.get() < input.len() {
            let rest = &input[start.get()..];
            let step = reader.on_bytes(rest).map_err(|fault| {
                self.persistent.set(false);
                BodyEnd::Refused(match fault.status() {
                    431 => Refusal::TrailersTooLarge(fault.as_str()),
                    _ => Refusal::BadBody(fault.as_str()),
                })
            })?;
            if step.consumed == 0 {
                break;
            }
            start.set(start.get() + step.consumed);
            if data.is_empty() {
                data.reserve_exact(step.data.len().max(rest.len().min(BODY_READ_BYTES)));
            }
            data.extend_from_slice(&rest[step.data]);
        }
        self.body_bytes.set(self.body_bytes.get() + data.len() as u64);
        if self.body_bytes.get() > self.body_bytes_max {
            self.persistent.set(false);
            return Err(BodyEnd::Refused(Refusal::BodyTooLarge));
        }
        Ok((!data.is_empty()).then(|| data.into()))
    }

    /// Reads more of the body into the buffer.
    async fn fill(&self) -> Result<(), BodyEnd> {
        if self.wants_continue.take() && self.state.get() == State::Waiting {
            self.connection.output.borrow_mut().extend_from_slice(CONTINUE);
            self.write(None).await.map_err(|_| BodyEnd::Gone)?;
        }
        self.connection.compact();
        // A body is worth more than the small buffer that a head takes.
        self.connection.input.borrow_mut().reserve(BODY_READ_BYTES);
        self.connection.place.enter(Phase::Body);
        let read = self.connection.read_more().await;
        let expired = self.connection.place.watched().is_expired();
        self.connection.place.enter(Phase::Quiet);
        match read {
            Ok(1..) => Ok(()),
            Err(_) if expired => {
                self.persistent.set(false);
                Err(BodyEnd::Refused(Refusal::Slow))
            }
            Err(_) if self.stopped.get() => Err(BodyEnd::Gone),
            Ok(0) | Err(_) => {
                self.state.set(State::Lost);
                Err(BodyEnd::Gone)
            }
        }
    }
}

impl Downstream for Client<'_> {
    async fn body(&self) -> Result<Option<Bytes>, BodyEnd> {
        loop {
            if self.stopped.get() {
                return Err(BodyEnd::Gone);
            }
            if let Some(data) = self.buffered()? {
                return Ok(Some(data));
            }
            if self.is_read() {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    fn stop_body(&self) {
        self.stopped.set(true);
        self.connection.place.watched().cancel_read();
    }

    async fn interim(&self, status: u16, fields: &Fields) -> Result<(), Gone> {
        if self.version == Version::Http10 || self.state.get() != State::Waiting {
            return Ok(());
        }
        write_response_head(&mut self.connection.output.borrow_mut(), status, fields);
        self.connection.write_now().map_err(|_| {
            self.state.set(State::Lost);
            Gone
        })
    }

    async fn whole(&self, reply: Reply, body: Bytes) -> Result<(), Gone> {
        self.goes_on_from(State::Waiting)?;
        self.push_head(&reply);
        self.write((!body.is_empty()).then_some(body)).await?;
        self.state.set(State::Complete);
        Ok(())
    }

    async fn start(&self, reply: Reply) -> Result<(), Gone> {
        self.goes_on_from(State::Waiting)?;
        self.state.set(State::Started);
        if self.version == Version::Http10 && reply.length == Length::Unknown && !is_events(&reply)
        {
            self.held.replace(Some(Held { reply, body: Vec::new() }));
            return Ok(());
        }
        self.push_head(&reply);
        self.write(None).await
    }

    async fn chunk(&self, chunk: Bytes) -> Result<(), Gone> {
        debug_assert!(!chunk.is_empty());
        self.goes_on_from(State::Started)?;
        if let Some(held) = self.held.borrow_mut().as_mut()
            && held.body.len() + chunk.len() <= HELD_BYTES_MAX
        {
            held.body.extend_from_slice(&chunk);
            return Ok(());
        }
        if let Some(Held { reply, body }) = self.held.take() {
            // Too long to be held: its end will be that of the connection.
            self.push_head(&reply);
            self.write(Some(body.into())).await?;
        }
        if self.answer.get() != Framing::Chunked {
            return self.write(Some(chunk)).await;
        }
        // A chunk of usual size goes out with its frame in one write, a large one uncopied.
        if chunk.len() <= CHUNK_COPY_BYTES_MAX {
            write_chunk(&mut self.connection.output.borrow_mut(), &chunk);
            return self.write(None).await;
        }
        let head = encode_chunk_head(chunk.len() as u64);
        self.connection.output.borrow_mut().extend_from_slice(head.as_bytes());
        self.write(Some(chunk)).await?;
        // At once: there are clients that hand a chunk on only when they have seen its end.
        self.connection.output.borrow_mut().extend_from_slice(b"\r\n");
        self.write(None).await
    }

    async fn finish(&self) -> Result<(), Gone> {
        self.goes_on_from(State::Started)?;
        if let Some(Held { mut reply, body }) = self.held.take() {
            reply.length = Length::Known(body.len() as u64);
            self.state.set(State::Waiting);
            return self.whole(reply, body.into()).await;
        }
        if self.answer.get() == Framing::Chunked {
            self.connection.output.borrow_mut().extend_from_slice(LAST_CHUNK);
        }
        if !self.connection.output.borrow().is_empty() {
            self.write(None).await?;
        }
        self.state.set(State::Complete);
        Ok(())
    }

    fn cut(&self) {
        self.state.set(State::Cut);
    }

    async fn gone(&self) {
        // While its body is read, the reading finds out. Whoever reads it shares this task: when it
        // has ended, this is polled again.
        poll_fn(|_| if self.is_read() { Poll::Ready(()) } else { Poll::Pending }).await;
        // To look costs three operations of the ring: an exchange that is over before the next tick
        // is not worth them.
        ticks::pause().await;
        let stream = &self.connection.place.watched().stream;
        match stream.readable().await {
            // A client that has only closed its sending side still waits for the answer; one that
            // has left looks the same until we write. An answer that comes soon, or keeps coming,
            // serves the first; giving up when nothing moves spares the origin for the second.
            Ok(Peek::Closed) => loop {
                let sent = stream.bytes_sent();
                ticks::sleep(HALF_CLOSED_SPAN).await;
                if stream.bytes_sent() == sent {
                    return;
                }
            },
            Ok(Peek::Error) => {}
            // The next request of a pipeline, or a read that was broken off: whether the client
            // stays can't be seen behind it.
            Ok(Peek::Data | Peek::Nothing) | Err(_) => std::future::pending().await,
        }
    }
}

/// Whether a stream is made to be read while it comes.
fn is_events(reply: &Reply) -> bool {
    let value = reply.fields.single("Content-Type");
    value.is_some_and(|it| it.to_ascii_lowercase().starts_with(b"text/event-stream"))
}

fn push_number(output: &mut Vec<u8>, name: &[u8], number: u64) {
    output.extend_from_slice(name);
    output.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    output.extend_from_slice(b"\r\n");
}

/// A rest of an unwanted request body up to this length is read away to keep the connection.
const DRAIN_BYTES_MAX: u64 = 256 * 1024;
/// Up to this length, that of a read from an origin, a chunk is copied behind its size: it goes out
/// with its frame in one write.
const CHUNK_COPY_BYTES_MAX: usize = 64 * 1024;
/// What a read of a body has room for.
const BODY_READ_BYTES: usize = 16 * 1024;
/// What is gathered of an answer for an HTTP/1.0 client.
const HELD_BYTES_MAX: usize = 256 * 1024;
/// How long a half-closed client's answer may still take.
const HALF_CLOSED_SPAN: std::time::Duration = std::time::Duration::from_secs(1);
