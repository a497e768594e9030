//! The HTTP/1.1 connection driver, client side: bytes in, `proxy::hit` or an exchange, bytes out.
//!
//! ```text
//!   read --> hit, hit, hit ... --> one write --> read        (all in the buffer were hits)
//!               |
//!               +-- anything else --> write what is ready --> exchange --> on with the buffer
//! ```
//!
//! A connection that waits keeps its buffer for a second, then gives it back to the core's pool
//! and waits without one; the driver's future is small, and an exchange lives in a box of its own.

mod client;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use crate::http1::worth_parsing;
use crate::metrics::Counter;
use crate::net::{Peek, Stream, ticks};
use crate::proxy::{Core, Destination, Moment, Peer, Step, Task, hit, unreadable};
use crate::server::h2;
use crate::server::watch::{Pace, Phase, Place, Watch};

use client::{After, Client};

/// One client connection.
pub(super) struct Connection {
    core: Rc<Core>,
    place: Place,
    peer: Peer,
    /// Bytes received; those before `start` are used up. Taken out while a read is under way.
    input: RefCell<Vec<u8>>,
    start: Cell<usize>,
    /// Answers not yet written. Taken out while a write is under way.
    output: RefCell<Vec<u8>>,
    /// Bytes have come while it was parked.
    is_awake: Cell<bool>,
    /// Nothing but the preface of HTTP/2 has a claim to be looked for in what came first, without
    /// TLS (RFC 9113 section 3.3).
    may_begin_http2: Cell<bool>,
    /// The tick in which it began to wait.
    waits_since: Cell<u64>,
    pace: Cell<Pace>,
}

/// What came of waiting.
enum Received {
    /// Bytes to serve.
    Bytes,
    /// Nothing, for a while: wait without a buffer.
    Nothing,
    /// The client's end, or that of its time.
    End,
}

/// What to do after the buffer has been served.
enum Next {
    /// Write, then read more.
    Read,
    /// Write, with this behind it.
    Body { body: Bytes, persistent: bool },
    /// Write, then close.
    Close,
    /// Write, then run the exchange.
    Exchange(Box<Task>),
    /// Hand everything to the driver of HTTP/2.
    Http2,
}

/// Why nothing is served for now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// Nothing has come for a while.
    Idle,
    /// The connection is over.
    End,
    /// It speaks HTTP/2.
    Http2,
}

impl Connection {
    pub(super) fn new(core: Rc<Core>, watch: &Rc<Watch>, stream: Stream, peer: Peer) -> Self {
        let may_begin_http2 = !peer.tls && core.plan().settings.server.enable_http2;
        let may_begin_http2 = Cell::new(may_begin_http2);
        let place = watch.enter(stream);
        let (input, output) = (RefCell::default(), RefCell::default());
        let (start, is_awake) = (Cell::new(0), Cell::new(false));
        let (waits_since, pace) = (Cell::new(0), Cell::new(Pace::New));
        Self {
            core,
            place,
            peer,
            input,
            start,
            output,
            is_awake,
            may_begin_http2,
            waits_since,
            pace,
        }
    }

    /// Serves the connection to its end.
    #[expect(clippy::manual_async_fn, reason = "an async fn would hold `self` twice")]
    pub(super) fn run(self) -> impl Future<Output = ()> {
        async move {
            // Boxed: while the connection waits, only what the waiting needs is held.
            loop {
                match Box::pin(self.active()).await {
                    Pause::Idle if self.park().await => {}
                    Pause::Idle | Pause::End => return self.recycle(),
                    Pause::Http2 => break,
                }
            }
            let Self { core, place, peer, input, .. } = self;
            Box::pin(h2::serve(core, place, peer, input.into_inner())).await;
        }
    }

    /// Serves it until nothing comes for a while, or it is over.
    async fn active(&self) -> Pause {
        loop {
            match self.receive().await {
                Received::Bytes => {}
                Received::Nothing => return Pause::Idle,
                Received::End => return Pause::End,
            }
            let mut next = self.serve();
            if let Next::Body { body, persistent } = next {
                if self.write(Some(body)).await.is_err() {
                    return Pause::End;
                }
                next = if persistent { Next::Read } else { Next::Close };
            } else if !self.send().await {
                return Pause::End;
            }
            match next {
                Next::Read | Next::Body { .. } => {}
                Next::Close => {
                    self.linger().await;
                    return Pause::End;
                }
                Next::Exchange(task) => {
                    // Boxed: its state is large, and most requests never need it.
                    if !Box::pin(self.exchange(task)).await {
                        return Pause::End;
                    }
                }
                Next::Http2 => return Pause::Http2,
            }
        }
    }

    fn recycle(&self) {
        self.core.recycle(self.input.take());
        self.core.recycle(self.output.take());
        self.start.set(0);
    }

    /// Answers every complete request in the buffer, until one needs more than the hit path.
    fn serve(&self) -> Next {
        let moment = Moment::now();
        self.core.drain_inbox();
        let closing = self.place.watch().is_draining();
        let mut input = self.input.borrow_mut();
        let mut output = self.output.borrow_mut();
        if output.capacity() == 0 {
            *output = self.core.buffer();
        }
        loop {
            let start = self.start.get();
            if start == input.len() {
                input.clear();
                self.start.set(0);
                return Next::Read;
            }
            let request = &input[start..];
            if self.may_begin_http2.get() && request.starts_with(h2::PREFACE) {
                return Next::Http2;
            }
            match hit::serve(&self.core, &self.peer, request, &mut output, moment, closing) {
                Step::More => {
                    // Only what follows the last answer stays, for the next read to complete.
                    input.drain(..start);
                    self.start.set(0);
                    return Next::Read;
                }
                Step::Done { consumed, persistent, body } => {
                    self.may_begin_http2.set(false);
                    self.start.set(start + consumed);
                    if let Some(body) = body {
                        return Next::Body { body, persistent };
                    }
                    if !persistent {
                        return Next::Close;
                    }
                    if output.len() >= OUTPUT_BYTES_MAX {
                        return Next::Read;
                    }
                }
                Step::Slow { consumed, task } => {
                    self.may_begin_http2.set(false);
                    self.start.set(start + consumed);
                    return Next::Exchange(task);
                }
                Step::Broken => return Next::Close,
            }
        }
    }

    /// Runs one exchange; whether the connection goes on.
    async fn exchange(&self, task: Box<Task>) -> bool {
        self.place.enter(Phase::Quiet);
        let client = Client::new(self, &task);
        match task.destination {
            // Boxed: it is larger than all that matters, and seldom.
            Destination::Admin => {
                Box::pin(crate::admin::handle(&self.core, *task, &client)).await;
            }
            _ => crate::proxy::exchange(&self.core, task, &client).await,
        }
        match client.after().await {
            After::Continue => true,
            After::Linger => {
                self.linger().await;
                false
            }
            After::Drop => false,
        }
    }

    /// Waits for bytes to serve.
    async fn receive(&self) -> Received {
        if self.start.get() > 0 && self.start.get() < self.input.borrow().len() {
            // A request that has not been looked at: the one before it was an exchange, or filled
            // the output. (A head that was found incomplete starts at zero.)
            return Received::Bytes;
        }
        self.compact();
        self.give_output_back();
        let seen = self.input.borrow().len();
        loop {
            let partial = !self.input.borrow().is_empty();
            if partial {
                self.place.stay(Phase::Head);
            } else if self.place.watch().is_draining() {
                return Received::End;
            } else if !self.may_wait_with_buffer() {
                return Received::Nothing;
            } else {
                self.place.enter(Phase::Fresh);
            }
            match self.read_more().await {
                Ok(0) => return Received::End,
                Ok(_) if !partial => {
                    if !self.is_awake.take() {
                        self.note_pace();
                    }
                    return Received::Bytes;
                }
                // A head that drips in is not parsed for every byte of it.
                Ok(_) if worth_parsing(&self.input.borrow(), seen) => return Received::Bytes,
                Ok(_) => {}
                Err(error) if !crate::net::is_canceled(&error) => return Received::End,
                Err(_) if self.place.watched().is_expired() => {
                    self.on_expired(partial).await;
                    return Received::End;
                }
                Err(_) if !partial => return Received::Nothing,
                Err(_) => {}
            }
        }
    }

    /// Reads behind what is in the buffer.
    async fn read_more(&self) -> io::Result<usize> {
        let mut input = self.input.take();
        if input.capacity() == 0 {
            input = self.core.buffer();
        } else if input.capacity() - input.len() < READ_BYTES_MIN {
            input.reserve(READ_BYTES);
        }
        let watched = self.place.watched();
        let handle = watched.cancel_handle();
        let (read, input) = watched.stream.read_cancelable(input, handle).await;
        self.input.replace(input);
        self.core.cells.add(Counter::BytesReceived, *read.as_ref().unwrap_or(&0) as u64);
        read
    }

    /// Waits for the next request without a buffer; `false` when there will be none.
    async fn park(&self) -> bool {
        self.recycle();
        self.place.enter(Phase::Parked);
        let watched = self.place.watched();
        watched.forget_reads();
        let peek = watched.stream.readable().await;
        self.note_pace();
        self.is_awake.set(true);
        matches!(peek, Ok(Peek::Data)) && !watched.is_expired()
    }

    /// Whether the wait that begins may take a buffer. Where bytes are there already, it is none.
    fn may_wait_with_buffer(&self) -> bool {
        if self.is_awake.get() {
            return true;
        }
        self.waits_since.set(ticks::now());
        !self.place.watch().is_crowded_for(self.pace.get())
    }

    fn note_pace(&self) {
        let waited = ticks::now() - self.waits_since.get();
        // How soon a first request comes says nothing about a second.
        let is_busy = waited <= 1 && self.pace.get() != Pace::New;
        self.pace.set(if is_busy { Pace::Busy } else { Pace::Slow });
    }

    /// Nothing is to be written for now: others may use the buffer. A large one stays until the
    /// connection is idle, since a client that needed it is likely to need it again.
    fn give_output_back(&self) {
        let mut output = self.output.borrow_mut();
        if output.is_empty() && self.core.takes_back(&output) {
            self.core.recycle(std::mem::take(&mut *output));
        }
    }

    /// A deadline passed: a client in the middle of a head is told, an idle one just leaves. So
    /// does one that has sent empty lines behind its last request: it does not wait for an answer,
    /// and would take one for that to its next request.
    async fn on_expired(&self, partial: bool) {
        if partial && self.refuse_slow() && self.send().await {
            self.linger().await;
        }
    }

    /// Appends the answer to an unfinished head, if one has begun.
    fn refuse_slow(&self) -> bool {
        let (input, mut output) = (self.input.borrow(), self.output.borrow_mut());
        let begun = !input.iter().all(|it| matches!(it, b'\r' | b'\n'));
        let answers = begun && !self.place.watch().is_draining();
        if answers {
            unreadable::refuse_slow(&self.core, &self.peer, &input, &mut output);
        }
        answers
    }

    /// Writes what is ready; `false` when the client is gone.
    async fn send(&self) -> bool {
        if self.output.borrow().is_empty() {
            return true;
        }
        self.write(None).await.is_ok()
    }

    /// Writes what is ready and `body` behind it.
    async fn write(&self, body: Option<Bytes>) -> io::Result<()> {
        self.place.write_begins();
        let output = self.output.take();
        let bytes = output.len() + body.as_ref().map_or(0, Bytes::len);
        let stream = &self.place.watched().stream;
        let (sent, mut output) = match body {
            Some(body) => stream.write_two(output, body).await,
            None => stream.write_all(output).await,
        };
        self.place.write_ended();
        if sent.is_ok() {
            self.core.cells.add(Counter::BytesSent, bytes as u64);
        }
        if output.capacity() > OUTPUT_BYTES_KEPT {
            output = Vec::new();
        }
        output.clear();
        self.output.replace(output);
        sent
    }

    /// Sends what fits of the output now; the rest goes with the next write. For what is sent while
    /// something else is waited for: a write that is dropped with that would leave the connection
    /// without an end to its answer.
    fn write_now(&self) -> io::Result<()> {
        let mut output = self.output.borrow_mut();
        match self.place.watched().stream.try_write(&output) {
            Ok(sent) => {
                output.drain(..sent);
                self.core.cells.add(Counter::BytesSent, sent as u64);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends our direction and reads, for a bounded while, what the client still sends, so that no
    /// reset destroys the last answer on its way (RFC 9112 section 9.6).
    async fn linger(&self) {
        let watched = self.place.watched();
        if watched.stream.shutdown_write().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        self.place.renew(Phase::Body);
        while left > 0 && !watched.is_expired() {
            self.input.borrow_mut().clear();
            match self.read_more().await {
                Ok(0) | Err(_) => break,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    }

    fn compact(&self) {
        let start = self.start.replace(0);
        if start > 0 {
            self.input.borrow_mut().drain(..start);
        }
    }
}

/// Answers gathered before they are written, beyond which the rest of a pipeline waits.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// A larger output buffer is not kept for the next answer.
const OUTPUT_BYTES_KEPT: usize = 128 * 1024;
/// What a head's buffer grows by.
const READ_BYTES: usize = 16 * 1024;
/// Less room than this is not worth a read.
const READ_BYTES_MIN: usize = 1024;
/// What is read and thrown away before a connection is closed, within `server.read_timeout`: a
/// client that sends all of its body before it reads must find the answer, not a reset.
const LINGER_BYTES_MAX: usize = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// It is held as long as the connection is open, and most of them are idle.
    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let bytes = size_of_output(Connection::run);
        assert!(bytes <= 448, "{bytes}");
    }
}
