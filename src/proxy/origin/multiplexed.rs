//! One HTTP/2 connection to an origin, shared by all exchanges of a core (RFC 9113).
//!
//! ```text
//!  exchange --stream--\
//!  exchange --stream---> Multiplexed --handle--> task: h2 connection <-> Duplex | Outlet <-> TLS
//!  exchange --stream--/       (in the pool)
//! ```
//!
//! The connection runs as a task of its own, which ends when the pool has let go of it and the last
//! stream has ended, or when the origin closes it. It is *retired* when it takes no new streams:
//! after a GOAWAY, when its place is wanted by another core, and when it has been silent for
//! [`SILENT_TICKS`] while a request waits on it, since it may then be dead without a sign. Streams
//! that run go on. Streams beyond the origin's limit wait inside `h2`, within their own deadlines.
//!
//! Windows: a stream may have [`STREAM_WINDOW_BYTES`] on its way or unread, the connection as much
//! as all its streams together. So a client that does not read stops its own stream and never the
//! others, and what the daemon may have to hold is bounded by the streams that the origin admits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{self, ResponseFuture, SendRequest};

use crate::net::duplex::{Duplex, Outlet, drive, duplex};
use crate::net::{Stream, guarded, ticks};
use crate::proxy::error::Fault;
use crate::proxy::origin::permits::{Permit, Permits};

/// A connection that many exchanges share.
pub struct Multiplexed {
    sender: RefCell<SendRequest<Bytes>>,
    state: Rc<State>,
    peer: SocketAddr,
    /// The tick in which it was made.
    since: u64,
}

/// What the connection's task and its streams tell each other.
struct State {
    permits: Arc<Permits>,
    /// It takes no more streams.
    is_retired: Cell<bool>,
    /// The task has ended: nothing is counted any more.
    has_ended: Cell<bool>,
    /// Streams that have been opened.
    opened: Cell<u64>,
    /// Streams that are open or wait to be.
    streams: Cell<usize>,
    /// Streams whose answer has not begun.
    unanswered: Cell<usize>,
    /// The tick in which the last stream ended.
    idle_since: Cell<u64>,
    /// The tick in which something came last, or the first of those that wait began to.
    heard_at: Cell<u64>,
}

/// One stream's place on a connection; leaves it when dropped.
pub(super) struct Seat {
    shared: Rc<Multiplexed>,
    is_answered: Cell<bool>,
}

impl Multiplexed {
    /// Begins HTTP/2 on a connection whose handshake agreed on it.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the origin takes nothing.
    pub async fn start(stream: Stream, permit: Permit) -> Result<Rc<Self>, Fault> {
        let peer = stream.peer_addr();
        let (duplex, outlet) = duplex(Rc::new(stream), Vec::new());
        let (sender, connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(FIRST_STREAMS)
            .max_header_list_size(HEAD_BYTES_MAX)
            .enable_push(false)
            .handshake::<_, Bytes>(duplex)
            .await
            .map_err(|_| Fault::Reset)?;
        let state = State::new(Arc::clone(permit.permits()));
        let task = guarded(run(permit, Running(Rc::clone(&state)), outlet, connection));
        drop(monoio::spawn(async move {
            if task.await.is_err() {
                tracing::error!("an HTTP/2 connection to an upstream panicked; its core lives on");
            }
        }));
        Ok(Rc::new(Self { sender: RefCell::new(sender), state, peer, since: ticks::now() }))
    }

    /// Whether it takes another stream. Finds out about a GOAWAY that has come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        if self.state.is_retired.get() {
            return false;
        }
        // Never pending: this handle has no stream that waits.
        let mut cx = Context::from_waker(Waker::noop());
        let refuses = matches!(self.sender.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)));
        if refuses || self.state.is_silent() {
            self.retire();
        }
        !self.state.is_retired.get()
    }

    /// Takes no new streams from now on.
    pub fn retire(&self) {
        self.state.is_retired.set(true);
    }

    /// Whether more wait for it than a queue may hold.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state.streams.get() >= STREAMS_MAX
    }

    /// The origin's address.
    #[must_use]
    pub const fn peer(&self) -> IpAddr {
        self.peer.ip()
    }

    /// Whether it has no stream.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state.streams.get() == 0
    }

    /// Ticks since its last stream ended; zero while it has one.
    #[must_use]
    pub fn idle_ticks(&self) -> u64 {
        match self.state.streams.get() {
            0 => ticks::now() - self.state.idle_since.get(),
            _ => 0,
        }
    }

    /// Ticks since it was made.
    #[must_use]
    pub fn age_ticks(&self) -> u64 {
        ticks::now() - self.since
    }

    /// The bounds it counts under.
    pub(super) fn permits(&self) -> &Permits {
        &self.state.permits
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// Why not; nothing of the request has left then, and the connection takes no more.
    pub(super) fn open(
        &self,
        request: ::http::Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut sender = self.sender.borrow().clone();
        let opened = sender.send_request(request, is_whole).inspect_err(|_| self.retire())?;
        self.state.opened.set(self.state.opened.get() + 1);
        Ok(opened)
    }
}

impl State {
    fn new(permits: Arc<Permits>) -> Rc<Self> {
        permits.on_idle();
        Rc::new(Self {
            permits,
            is_retired: Cell::new(false),
            has_ended: Cell::new(false),
            opened: Cell::new(0),
            streams: Cell::new(0),
            unanswered: Cell::new(0),
            idle_since: Cell::new(ticks::now()),
            heard_at: Cell::new(ticks::now()),
        })
    }

    fn is_silent(&self) -> bool {
        self.unanswered.get() > 0 && ticks::now() - self.heard_at.get() >= SILENT_TICKS
    }

    fn on_begin(&self) {
        if self.streams.get() == 0 && !self.has_ended.get() {
            self.permits.on_used();
        }
        if self.unanswered.get() == 0 {
            self.heard_at.set(ticks::now());
        }
        self.streams.set(self.streams.get() + 1);
        self.unanswered.set(self.unanswered.get() + 1);
    }

    fn on_end(&self) {
        self.streams.set(self.streams.get() - 1);
        self.idle_since.set(ticks::now());
        if self.streams.get() == 0 && !self.has_ended.get() {
            self.permits.on_idle();
        }
    }
}

impl Seat {
    /// Takes a place.
    pub(super) fn on(shared: Rc<Multiplexed>) -> Self {
        shared.state.on_begin();
        Self { shared, is_answered: Cell::new(false) }
    }

    /// The connection.
    pub(super) const fn shared(&self) -> &Rc<Multiplexed> {
        &self.shared
    }

    /// Whether other exchanges came before on this connection.
    pub(super) fn is_reused(&self) -> bool {
        self.shared.state.opened.get() > 0
    }

    /// The answer has begun.
    pub(super) fn note_answer(&self) {
        if !self.is_answered.replace(true) {
            let unanswered = &self.shared.state.unanswered;
            unanswered.set(unanswered.get() - 1);
        }
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.is_answered.get()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever gives up after so long says so to those who come next.
        if self.shared.state.is_silent() {
            self.shared.retire();
        }
        self.note_answer();
        self.shared.state.on_end();
    }
}

/// The end of a connection's task, however it comes.
struct Running(Rc<State>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_retired.set(true);
        self.0.has_ended.set(true);
        if self.0.streams.get() == 0 {
            self.0.permits.on_used();
        }
    }
}

/// Runs a connection to its end. The permit stands first, to be given back last: after the socket.
async fn run(
    _permit: Permit,
    running: Running,
    mut outlet: Outlet,
    connection: client::Connection<Duplex, Bytes>,
) {
    let mut connection = pin!(connection);
    let mut received = 0;
    let ended = poll_fn(|cx| {
        let ended = drive(connection.as_mut(), &mut outlet, cx);
        let now = outlet.stream().bytes_received();
        if std::mem::replace(&mut received, now) != now {
            running.0.heard_at.set(ticks::now());
        }
        ended
    });
    let ended = ended.await;
    running.0.is_retired.set(true);
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP/2 to the upstream");
    }
    // What it said last (a GOAWAY) may still be on its way.
    let rest = poll_fn(|cx| {
        outlet.poll(cx);
        if outlet.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    let _ = ticks::timeout(LAST_WORDS_SPAN, rest).await;
}

/// What an origin may send on a stream before it is read: a quarter of a megabyte, which keeps a
/// stream of 5 MB/s going over 50 ms.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all streams of a connection: what they may have together.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX as u32;
/// Streams that may be open or wait on one connection.
const STREAMS_MAX: usize = 4096;
/// Streams that are opened before the origin has said how many it takes: few origins take less,
/// and those who wait do so for one round trip of the connection's life.
const FIRST_STREAMS: usize = 10;
/// As for HTTP/1.1.
const HEAD_BYTES_MAX: u32 = 128 * 1024;
/// What is left to be said at a connection's end gets that long.
const LAST_WORDS_SPAN: Duration = Duration::from_secs(2);
/// A connection on which nothing came while a request waited so long may be dead: 5 s. One that is
/// only slow loses nothing but the next streams.
const SILENT_TICKS: u64 = 20;

const _: () = assert!(CONNECTION_WINDOW_BYTES < 1 << 31, "RFC 9113 section 6.9.1");
