//! HTTP/2 to an origin (RFC 9113): one connection for a core and upstream, a stream for each
//! exchange.
//!
//! ```text
//!  exchange --stream--\
//!  exchange --stream---> Multiplexed --handle--> task: h2 connection <-> Duplex | Outlet <-> TLS
//!  exchange --stream--/       (in the pool)
//! ```
//!
//! The connection runs as a task of its own, which ends when the pool has let go of it and the last
//! stream has ended, or when the origin closes it. After a GOAWAY, and after a request that waited
//! long while not a byte came, it takes no new streams; those that run go on. Streams beyond the
//! origin's limit wait inside `h2`, within their own deadlines.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};

use crate::http::list::decimal;
use crate::http::{Fields, Method, ResponseHead, Version};
use crate::net::duplex::{Duplex, Outlet, duplex};
use crate::net::{Stream, guarded, ticks};
use crate::proxy::error::Fault;
use crate::proxy::origin::connection::{AtHand, Head};
use crate::proxy::origin::http1::Expected;
use crate::proxy::origin::pool::{Permit, Permits};
use crate::proxy::origin::request::OutgoingHead;

/// A connection that many exchanges share.
pub struct Multiplexed {
    sender: RefCell<SendRequest<Bytes>>,
    state: Rc<State>,
    permits: Arc<Permits>,
    peer: SocketAddr,
}

/// What the connection's task and its streams tell each other.
#[derive(Default)]
struct State {
    /// It takes no more streams.
    is_retired: Cell<bool>,
    /// Streams that have been opened.
    opened: Cell<u64>,
    /// Streams that are open or wait to be.
    streams: Cell<usize>,
    /// The core's tick when the last stream ended.
    idle_since: Cell<u64>,
    /// Bytes that came from the origin, for whoever waits for some.
    received: Cell<u64>,
}

impl Multiplexed {
    /// Begins HTTP/2 on a connection whose handshake agreed on it.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the origin takes nothing.
    pub async fn start(stream: Stream, permit: Permit) -> Result<Rc<Self>, Fault> {
        let peer = stream.peer_addr();
        let (duplex, outlet) = duplex(stream);
        let (sender, connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .enable_push(false)
            .handshake::<_, Bytes>(duplex)
            .await
            .map_err(|_| Fault::Reset)?;
        let (state, permits) = (Rc::new(State::default()), Arc::clone(permit.permits()));
        let task = guarded(run(connection, outlet, Rc::clone(&state), permit));
        drop(monoio::spawn(async move {
            if task.await.is_err() {
                tracing::error!("an HTTP/2 connection to an upstream panicked; its core lives on");
            }
        }));
        Ok(Rc::new(Self { sender: RefCell::new(sender), state, permits, peer }))
    }

    /// Whether it takes another stream.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.state.is_retired.get()
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

    /// Ticks since its last stream ended; zero while it has one.
    #[must_use]
    pub fn idle_ticks(&self) -> u64 {
        match self.state.streams.get() {
            0 => ticks::now() - self.state.idle_since.get(),
            _ => 0,
        }
    }
}

/// Runs a connection to its end.
async fn run(
    connection: client::Connection<Duplex, Bytes>,
    mut outlet: Outlet,
    state: Rc<State>,
    permit: Permit,
) {
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        outlet.poll(cx);
        state.received.set(outlet.stream().bytes_received());
        ended
    });
    let ended = ended.await;
    state.is_retired.set(true);
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP/2 to the upstream");
    }
    drop(permit);
    // What it said last (a GOAWAY) may still be on its way.
    let rest = poll_fn(|cx| {
        outlet.poll(cx);
        if outlet.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    let _ = ticks::timeout(LAST_WORDS_SPAN, rest).await;
}

/// One exchange on a connection.
pub struct Http2 {
    shared: Rc<Multiplexed>,
    stage: Stage,
    /// Other exchanges came before it on this connection.
    reused: bool,
    answered: bool,
    unprocessed: bool,
    length: Option<u64>,
    bytes_max: u64,
    bytes: u64,
    /// Bytes handed out whose room the origin has not been given back.
    unreleased: usize,
    started: u64,
    /// What the connection had received when it started.
    received: u64,
}

enum Stage {
    Idle,
    Waiting(ResponseFuture),
    Body(RecvStream),
    Done,
}

impl Http2 {
    /// An exchange that has not begun.
    #[must_use]
    pub fn on(shared: Rc<Multiplexed>) -> Self {
        let state = &shared.state;
        state.streams.set(state.streams.get() + 1);
        let (reused, received) = (state.opened.get() > 0, state.received.get());
        Self {
            shared,
            stage: Stage::Idle,
            reused,
            answered: false,
            unprocessed: false,
            length: None,
            bytes_max: u64::MAX,
            bytes: 0,
            unreleased: 0,
            started: ticks::now(),
            received,
        }
    }

    pub(super) async fn send(&mut self, head: &OutgoingHead<'_>, body: Bytes) -> Result<(), Fault> {
        let mut stream = self.open(head, body.is_empty()).await?;
        if !body.is_empty() {
            // What the windows don't take yet waits inside h2.
            stream.send_data(body, true).map_err(|error| self.fault(&error))?;
        }
        Ok(())
    }

    pub(super) async fn send_head(&mut self, head: &OutgoingHead<'_>) -> Result<Sender, Fault> {
        let stream = self.open(head, false).await?;
        Ok(Sender { stream: RefCell::new(stream), waiting: Cell::new(false) })
    }

    async fn open(
        &mut self,
        head: &OutgoingHead<'_>,
        is_whole: bool,
    ) -> Result<SendStream<Bytes>, Fault> {
        let request = head.to_http2()?;
        let sender = self.shared.sender.borrow().clone();
        let mut sender = sender.ready().await.map_err(|error| self.refused(&error))?;
        let sent = sender.send_request(request, is_whole);
        let (response, stream) = sent.map_err(|error| self.refused(&error))?;
        self.shared.state.opened.set(self.shared.state.opened.get() + 1);
        self.stage = Stage::Waiting(response);
        Ok(stream)
    }

    /// The connection takes no more streams: nothing of the request has left.
    fn refused(&mut self, error: &h2::Error) -> Fault {
        self.shared.state.is_retired.set(true);
        self.unprocessed = true;
        self.fault(error)
    }

    pub(super) async fn head(&mut self, expected: &Expected<'_>) -> Result<Head, Fault> {
        let Stage::Waiting(response) = &mut self.stage else { return Err(Fault::Reset) };
        let head = poll_fn(|cx| poll_head(response, cx)).await;
        let head = match head {
            Ok(head) => head,
            Err(error) => return Err(self.fault(&error)),
        };
        self.answered = true;
        match head {
            Answered::Interim(interim) => Ok(Head::Interim(head_of(&interim)?)),
            Answered::Final(response) => {
                let head = head_of(&response)?;
                let bodyless = *expected.method == Method::Head || matches!(head.status, 204 | 304);
                let stated = head.fields.single("Content-Length").and_then(decimal);
                let body = response.into_body();
                self.length = if bodyless || body.is_end_stream() { Some(0) } else { stated };
                self.bytes_max = expected.bytes_max;
                self.stage = Stage::Body(body);
                if self.length.is_some_and(|it| it > expected.bytes_max) {
                    return Err(Fault::TooLarge);
                }
                Ok(Head::Final(head))
            }
        }
    }

    pub(super) const fn length(&self) -> Option<u64> {
        self.length
    }

    pub(super) const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    pub(super) const fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }

    pub(super) const fn is_unprocessed(&self) -> bool {
        self.unprocessed
    }

    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn at_hand(&mut self) -> Result<AtHand, Fault> {
        let mut chunks = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_chunk(&mut cx)? {
                Poll::Ready(Some(chunk)) => chunks.push(chunk),
                Poll::Ready(None) => return Ok(AtHand::Whole(chunks)),
                Poll::Pending => return Ok(AtHand::Part(chunks)),
            }
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        let Stage::Body(body) = &mut self.stage else { return Poll::Ready(Ok(None)) };
        // The room of what was handed out before: whoever comes for more has dealt with it.
        let unreleased = std::mem::take(&mut self.unreleased);
        if unreleased > 0 {
            // An error says that the stream has ended, which the next lines find out.
            let _ = body.flow_control().release_capacity(unreleased);
        }
        loop {
            let chunk = match std::task::ready!(body.poll_data(cx)) {
                Some(Ok(chunk)) => chunk,
                Some(Err(_)) => return Poll::Ready(Err(Fault::Truncated)),
                None => {
                    self.stage = Stage::Done;
                    return Poll::Ready(Ok(None));
                }
            };
            if chunk.is_empty() {
                continue;
            }
            self.unreleased = chunk.len();
            self.bytes += chunk.len() as u64;
            self.shared.permits.note_received(chunk.len() as u64);
            if self.bytes > self.bytes_max {
                return Poll::Ready(Err(Fault::TooLarge));
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
    }

    /// What an error before the answer's head means.
    fn fault(&mut self, error: &h2::Error) -> Fault {
        // RFC 9113 section 8.7: these say that the request was not processed.
        let refused = error.reason() == Some(Reason::REFUSED_STREAM);
        let going_away = error.is_go_away() && error.is_remote();
        if going_away {
            self.shared.state.is_retired.set(true);
        }
        self.unprocessed |= refused || (going_away && error.reason() == Some(Reason::NO_ERROR));
        if error.is_io() || refused || going_away {
            return Fault::Reset;
        }
        match error.reason() {
            // Closed, or reset without a word.
            None | Some(Reason::NO_ERROR | Reason::CANCEL | Reason::INTERNAL_ERROR) => Fault::Reset,
            Some(_) => Fault::Invalid("http2_error"),
        }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        let state = &self.shared.state;
        state.streams.set(state.streams.get() - 1);
        state.idle_since.set(ticks::now());
        // Dead without a sign: others must not wait on it as long as this one did.
        let waited = ticks::now() - self.started >= SILENT_TICKS;
        if !self.answered && waited && state.received.get() == self.received {
            state.is_retired.set(true);
        }
    }
}

enum Answered {
    Interim(::http::Response<()>),
    Final(::http::Response<RecvStream>),
}

fn poll_head(
    response: &mut ResponseFuture,
    cx: &mut Context<'_>,
) -> Poll<Result<Answered, h2::Error>> {
    match response.poll_informational(cx) {
        Poll::Ready(Some(interim)) => return Poll::Ready(interim.map(Answered::Interim)),
        Poll::Ready(None) | Poll::Pending => {}
    }
    Pin::new(response).poll(cx).map_ok(Answered::Final)
}

fn head_of<T>(response: &::http::Response<T>) -> Result<ResponseHead, Fault> {
    let status = response.status().as_u16();
    if status == 101 {
        // RFC 9113 section 8.6: there is no such thing here.
        return Err(Fault::Invalid("switching_protocols"));
    }
    let mut fields = Fields::with_capacity(FIELDS_BYTES);
    for (name, value) in response.headers() {
        fields.push(name.as_str(), value.as_bytes());
    }
    Ok(ResponseHead { status, version: Version::Http2, fields })
}

/// The sending side of an exchange.
pub struct Sender {
    stream: RefCell<SendStream<Bytes>>,
    /// The windows are full.
    waiting: Cell<bool>,
}

impl Sender {
    pub(super) async fn send(&self, mut piece: Bytes) -> Result<(), Fault> {
        while !piece.is_empty() {
            self.stream.borrow_mut().reserve_capacity(piece.len());
            self.waiting.set(true);
            let room = self.room().await;
            self.waiting.set(false);
            let part = piece.split_to(room?.min(piece.len()));
            self.stream.borrow_mut().send_data(part, false).map_err(|_| Fault::Reset)?;
        }
        Ok(())
    }

    /// Waits until the windows have room; how much.
    async fn room(&self) -> Result<usize, Fault> {
        poll_fn(|cx| {
            let mut stream = self.stream.borrow_mut();
            match stream.capacity() {
                0 => match std::task::ready!(stream.poll_capacity(cx)) {
                    Some(Ok(room)) => Poll::Ready(Ok(room)),
                    Some(Err(_)) | None => Poll::Ready(Err(Fault::Reset)),
                },
                room => Poll::Ready(Ok(room)),
            }
        })
        .await
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        let ended = self.stream.borrow_mut().send_data(Bytes::new(), true);
        ended.map_err(|_| Fault::Reset)
    }

    pub(super) const fn is_writing(&self) -> bool {
        self.waiting.get()
    }
}

/// What an origin may send on a stream before it is read: a megabyte, so that a fast origin far
/// away is not slowed down.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// As for HTTP/1.1.
const HEAD_BYTES_MAX: u32 = 128 * 1024;
/// Streams that may be open or wait on one connection.
const STREAMS_MAX: usize = 4096;
/// Room for a head of usual size and what we add.
const FIELDS_BYTES: usize = 1536;
/// What is left to be said at a connection's end gets that long.
const LAST_WORDS_SPAN: Duration = Duration::from_secs(2);
/// A connection on which nothing came while a request waited so long is taken for dead: 5 s.
const SILENT_TICKS: u64 = 20;
