//! The HTTP/2 connection driver, client side (RFC 9113): streams in, `proxy::hit` or an exchange
//! for each, frames out.
//!
//! ```text
//!  accept or h1 --> serve --> Driver --hit that fits the windows--> frames, at once
//!                               |  \--hit that does not-----------> a task that waits for room
//!                               \-----anything else---------------> a task: exchange with a Client
//! ```
//!
//! Framing, HPACK and flow control are the `h2` crate's, which also ends floods of resets,
//! CONTINUATION and empty frames. Streams that are given up after their exchange has begun are
//! counted here, since each may have cost the origin a request. The crate has no clocks: those are
//! here, too. A connection without streams is told GOAWAY after `server.idle_timeout` and closed
//! soon after; a write that makes no progress for `server.write_timeout` ends the connection, a
//! client that gives its stream no room for that long ends the stream; a body that stands still for
//! `server.read_timeout` is answered 408.
//!
//! All frames of one turn leave in one write (`net::duplex`).

mod client;
mod message;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;

use crate::http1::{Slots, judge_http2};
use crate::metrics::Counter;
use crate::net::duplex::{Duplex, Outlet, drive, duplex};
use crate::net::{Stream, guarded, ticks};
use crate::proxy::hit::{self, Ready, Served};
use crate::proxy::unreadable;
use crate::proxy::{Core, Destination, Moment, Peer, Task};
use crate::server::watch::{Phase, Place};

use client::{Client, Ended};
use message::Head;

/// What a connection without TLS that speaks HTTP/2 begins with (RFC 9113 section 3.4), as far as
/// it tells it from HTTP/1.1.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// One client connection.
struct Driver {
    core: Rc<Core>,
    place: Rc<Place>,
    peer: Peer,
    connection: Connection<Duplex, Bytes>,
    streams: Rc<Streams>,
    /// A GOAWAY is on its way: the tick in which it was decided.
    leaves_since: Option<u64>,
    idle_ticks: u64,
}

/// What the connection and the tasks of its streams tell each other.
#[derive(Default)]
struct Streams {
    /// Tasks that run.
    running: Cell<usize>,
    /// The tick in which there was a request or the end of one.
    used_at: Cell<u64>,
    /// Streams that the client gave up, less those that it did not and those of some time ago.
    given_up: Cell<u32>,
}

/// One task's place among them.
struct Running(Rc<Streams>);

/// What was counted of the connection's bytes.
#[derive(Default)]
struct Counted {
    received: u64,
    sent: u64,
}

/// Serves a connection, of which `seen` has been read already, to its end.
pub(super) async fn serve(core: Rc<Core>, place: Place, peer: Peer, seen: Vec<u8>) {
    core.cells.inc(Counter::Http2Connections);
    place.enter(Phase::Quiet);
    let place = Rc::new(place);
    let stream: Rc<dyn AsRef<Stream>> = Rc::clone(place.watched()) as _;
    let mut counted = Counted::default();
    let (duplex, mut outlet) = duplex(stream, seen);
    let server = &core.plan().settings.server;
    let limit = u32::try_from(core.plan().request_limits.head_bytes_max).unwrap_or(u32::MAX);
    let handshake = Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(limit)
        .handshake::<_, Bytes>(duplex);
    let mut handshake = pin!(handshake);
    let shaken = poll_fn(|cx| drive(handshake.as_mut(), &mut outlet, cx));
    if let Ok(Ok(connection)) = ticks::timeout(server.read_timeout, shaken).await {
        let idle_ticks = ticks::of(server.idle_timeout);
        let streams = Rc::<Streams>::default();
        streams.used_at.set(ticks::now());
        let place = Rc::clone(&place);
        let core = Rc::clone(&core);
        let leaves_since = None;
        let driver = Driver { core, place, peer, connection, streams, leaves_since, idle_ticks };
        driver.run(&mut outlet, &mut counted).await;
    }
    // What was said last (a GOAWAY) may still be on its way.
    let rest = poll_fn(|cx| {
        outlet.poll(cx);
        if outlet.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    let _ = ticks::timeout(LAST_WORDS_SPAN, rest).await;
    counted.note(&core, &outlet);
}

impl Driver {
    async fn run(mut self, outlet: &mut Outlet, counted: &mut Counted) {
        let mut tick = ticks::pause();
        let mut is_writing = false;
        poll_fn(|cx| {
            while Pin::new(&mut tick).poll(cx).is_ready() {
                tick = ticks::pause();
                self.on_tick();
                counted.note(&self.core, outlet);
            }
            let mut turn = pin!(poll_fn(|cx| self.turn(cx)));
            let ended = drive(turn.as_mut(), outlet, cx);
            // The watch ends a connection whose write makes no progress.
            if std::mem::replace(&mut is_writing, !outlet.is_empty()) != is_writing {
                if is_writing { self.place.write_begins() } else { self.place.write_ended() }
            }
            ended
        })
        .await;
    }

    /// Takes all requests that are there.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.core.drain_inbox();
        let now = Moment::now();
        if self.streams.given_up.get() > GIVEN_UP_MAX {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
        loop {
            match std::task::ready!(self.connection.poll_accept(cx)) {
                Some(Ok((request, respond))) => self.admit(request, respond, now),
                Some(Err(error)) => {
                    tracing::debug!(%error, "HTTP/2 with a client");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    fn admit(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>, now: Moment) {
        self.streams.used_at.set(ticks::now());
        let (parts, body) = request.into_parts();
        let head = Head::new(parts);
        let scheme = if self.peer.tls { "https" } else { "http" };
        let pseudo = head.pseudo(scheme, body.is_end_stream());
        let mut slots = Slots::new();
        let limits = &self.core.plan().request_limits;
        match judge_http2(pseudo, head.lines(), limits, &mut slots) {
            Err(fault) => {
                self.send(unreadable::refuse_http2(&self.core, &self.peer, fault), respond);
                if !body.is_end_stream() {
                    self.spawn(client::linger(body));
                }
            }
            Ok(request) => match hit::serve_http2(&self.core, &self.peer, &request, now) {
                Served::Hit(ready) => self.send(ready, respond),
                Served::Slow(task) => self.exchange(task, body, respond),
            },
        }
    }

    /// Sends a finished answer: at once where the client's windows have room for it.
    fn send(&self, ready: Ready, mut respond: SendResponse<Bytes>) {
        let Ready { status, fields, body } = ready;
        let sent = respond.send_response(message::head(status, &fields), body.is_empty());
        // An error says that the client has given the stream up.
        let Ok(mut stream) = sent else { return };
        if body.is_empty() {
            return;
        }
        stream.reserve_capacity(body.len());
        if stream.capacity() >= body.len() {
            let _ = stream.send_data(body, true);
            return;
        }
        let span = self.core.plan().settings.server.write_timeout;
        self.spawn(async move {
            let _ = client::send(&RefCell::new(stream), body, true, span).await;
        });
    }

    fn exchange(&self, task: Box<Task>, body: RecvStream, respond: SendResponse<Bytes>) {
        let core = Rc::clone(&self.core);
        let streams = Rc::clone(&self.streams);
        self.spawn(async move {
            let client = Client::new(core.plan(), &task, body, respond);
            match task.destination {
                Destination::Admin => {
                    Box::pin(crate::admin::handle(&core, *task, &client)).await;
                }
                _ => crate::proxy::exchange(&core, task, &client).await,
            }
            streams.note(client.end().await);
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        let running = Running::new(&self.streams);
        let cells = std::sync::Arc::clone(&self.core.cells);
        let work = guarded(work);
        drop(monoio::spawn(async move {
            let _running = running;
            if work.await.is_err() {
                cells.inc(Counter::Panics);
            }
        }));
    }

    /// Looks at the clock.
    fn on_tick(&mut self) {
        let now = ticks::now();
        self.streams.forgive();
        let is_used = self.streams.running.get() > 0;
        let is_idle = !is_used && now - self.streams.used_at.get() >= self.idle_ticks;
        match self.leaves_since {
            None if is_idle || self.place.watch().is_draining() => {
                self.connection.graceful_shutdown();
                self.leaves_since = Some(now);
            }
            Some(since) if !is_used && now - since >= ticks::of(LAST_WORDS_SPAN) => {
                self.place.watched().stream.shutdown_both();
            }
            None | Some(_) => {}
        }
    }
}

impl Counted {
    /// Counts what came and went since the last time.
    fn note(&mut self, core: &Core, outlet: &Outlet) {
        let (received, sent) = (outlet.bytes_received(), outlet.bytes_sent());
        core.cells.add(Counter::BytesReceived, received - self.received);
        core.cells.add(Counter::BytesSent, sent - self.sent);
        (self.received, self.sent) = (received, sent);
    }
}

impl Streams {
    fn note(&self, ended: Ended) {
        match ended {
            Ended::GivenUp => self.given_up.set(self.given_up.get() + 1),
            Ended::Complete => self.forgive(),
            Ended::Cut => {}
        }
    }

    fn forgive(&self) {
        self.given_up.set(self.given_up.get().saturating_sub(1));
    }
}

impl Running {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.running.set(streams.running.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.used_at.set(ticks::now());
    }
}

/// Streams that a client may have open at the same time (RFC 9113 section 5.1.2).
const STREAMS_MAX: u32 = 128;
/// Streams that a client may give up, beyond one for each that it does not and one a tick: all that
/// it may have open, and as many once more (RFC 9113 section 10.5).
const GIVEN_UP_MAX: u32 = 2 * STREAMS_MAX;
/// What a client may send of a body before it is read.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all streams of a connection together: what an unread client can occupy.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What waits of one answer for the socket.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// What is left to be said at a connection's end gets that long.
const LAST_WORDS_SPAN: Duration = Duration::from_secs(2);
