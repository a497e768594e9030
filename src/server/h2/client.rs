//! An exchange's client over HTTP/2: one stream (RFC 9113 section 8.1).

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::Response;

use crate::http::Fields;
use crate::net::ticks;
use crate::proxy::downstream::{BodyEnd, Downstream, Gone, Reply};
use crate::proxy::error::Refusal;
use crate::proxy::{Plan, Task};
use crate::server::h2::message;

/// The client of one exchange.
pub(super) struct Client {
    body: RefCell<RecvStream>,
    respond: RefCell<SendResponse<Bytes>>,
    /// From the head of the answer on.
    stream: OnceCell<RefCell<SendStream<Bytes>>>,
    state: Cell<State>,
    wants_continue: Cell<bool>,
    /// Nobody wants more of the body.
    stopped: Cell<bool>,
    /// Whoever waits for more of it.
    waiting: Cell<Option<Waker>>,
    /// Bytes handed out whose room the client has not been given back.
    unreleased: Cell<usize>,
    body_bytes: Cell<u64>,
    body_bytes_max: u64,
    read_span: Duration,
    write_span: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the answer was sent.
    Waiting,
    /// Its head was.
    Started,
    /// All of it.
    Complete,
    /// It can't be completed: the client was told.
    Cut,
    /// The client is gone, or takes nothing any more.
    Lost,
}

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a whole answer.
    Complete,
    /// With what there was of it.
    Cut,
    /// By the client: it did not wait for the end.
    GivenUp,
}

impl Client {
    pub(super) fn new(
        plan: &Plan,
        task: &Task,
        body: RecvStream,
        respond: SendResponse<Bytes>,
    ) -> Self {
        let server = &plan.settings.server;
        Self {
            body: RefCell::new(body),
            respond: RefCell::new(respond),
            stream: OnceCell::new(),
            state: Cell::new(State::Waiting),
            wants_continue: Cell::new(task.framing.expects_continue),
            stopped: Cell::new(false),
            waiting: Cell::new(None),
            unreleased: Cell::new(0),
            body_bytes: Cell::new(0),
            body_bytes_max: plan.request_body_bytes_max,
            read_span: server.read_timeout,
            write_span: server.write_timeout,
        }
    }

    /// The exchange is over: what was not completed is not to be taken for the whole.
    pub(super) async fn end(self) -> Ended {
        match self.state.get() {
            State::Complete => {
                let mut body = self.body.into_inner();
                // As in `poll_body`.
                let _ = body.flow_control().release_capacity(self.unreleased.get());
                linger(body).await;
                Ended::Complete
            }
            State::Cut => Ended::Cut,
            // An exchange leaves without an answer where the client has left.
            State::Waiting | State::Started | State::Lost => {
                self.reset();
                Ended::GivenUp
            }
        }
    }

    fn reset(&self) {
        let reason = Reason::INTERNAL_ERROR;
        match self.stream.get() {
            Some(stream) => stream.borrow_mut().send_reset(reason),
            None => self.respond.borrow_mut().send_reset(reason),
        }
    }

    /// Whether nothing more can be sent.
    fn is_over(&self) -> bool {
        matches!(self.state.get(), State::Cut | State::Lost)
    }

    /// The next piece of the request's body; empty ones are none.
    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyEnd>> {
        let mut body = self.body.borrow_mut();
        // The room of what was handed out before: whoever comes for more has dealt with it.
        let unreleased = self.unreleased.take();
        if unreleased > 0 {
            // An error says that the stream has ended, which the next lines find out.
            let _ = body.flow_control().release_capacity(unreleased);
        }
        loop {
            if self.stopped.get() {
                return Poll::Ready(Err(BodyEnd::Gone));
            }
            self.waiting.set(Some(cx.waker().clone()));
            match ready!(body.poll_data(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.unreleased.set(piece.len());
                    self.body_bytes.set(self.body_bytes.get() + piece.len() as u64);
                    let too_large = self.body_bytes.get() > self.body_bytes_max;
                    let refused = BodyEnd::Refused(Refusal::BodyTooLarge);
                    return Poll::Ready(if too_large { Err(refused) } else { Ok(Some(piece)) });
                }
                // Reset, or not as long as it said: the stream is over either way.
                Some(Err(_)) => {
                    self.state.set(State::Lost);
                    return Poll::Ready(Err(BodyEnd::Gone));
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Sends the head of the answer.
    fn send_head(&self, reply: &Reply, is_whole: bool) -> Result<(), Gone> {
        if self.is_over() {
            return Err(Gone);
        }
        debug_assert!(self.state.get() == State::Waiting);
        let response = message::response(reply);
        match self.respond.borrow_mut().send_response(response, is_whole) {
            Ok(stream) => {
                // The first: a second head is an error of the line above.
                let _ = self.stream.set(RefCell::new(stream));
                self.state.set(if is_whole { State::Complete } else { State::Started });
                Ok(())
            }
            Err(_) => self.lost(),
        }
    }

    fn send_interim(&self, response: Response<()>) -> Result<(), Gone> {
        let sent = self.respond.borrow_mut().send_informational(response);
        sent.or_else(|_| self.lost())
    }

    /// Sends a piece of the body as the client's windows allow, then the end if it `is_last`.
    async fn send(&self, piece: Bytes, is_last: bool) -> Result<(), Gone> {
        if self.is_over() {
            return Err(Gone);
        }
        debug_assert!(self.state.get() == State::Started);
        let Some(stream) = self.stream.get() else { return self.lost() };
        match send(stream, piece, is_last, self.write_span).await {
            Ok(()) if is_last => self.state.set(State::Complete),
            Ok(()) => {}
            Err(Gone) => return self.lost(),
        }
        Ok(())
    }

    fn lost<T>(&self) -> Result<T, Gone> {
        self.state.set(State::Lost);
        Err(Gone)
    }
}

impl Downstream for Client {
    async fn body(&self) -> Result<Option<Bytes>, BodyEnd> {
        if self.wants_continue.take() && self.state.get() == State::Waiting {
            let interim = message::head(100, &Fields::new());
            self.send_interim(interim).map_err(|Gone| BodyEnd::Gone)?;
        }
        let piece = ticks::timeout(self.read_span, poll_fn(|cx| self.poll_body(cx))).await;
        piece.unwrap_or(Err(BodyEnd::Refused(Refusal::Slow)))
    }

    fn stop_body(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    async fn interim(&self, status: u16, fields: &Fields) -> Result<(), Gone> {
        if self.state.get() != State::Waiting {
            return Ok(());
        }
        self.send_interim(message::head(status, fields))
    }

    async fn whole(&self, reply: Reply, body: Bytes) -> Result<(), Gone> {
        self.send_head(&reply, body.is_empty())?;
        if body.is_empty() { Ok(()) } else { self.send(body, true).await }
    }

    async fn start(&self, reply: Reply) -> Result<(), Gone> {
        self.send_head(&reply, false)
    }

    async fn chunk(&self, chunk: Bytes) -> Result<(), Gone> {
        self.send(chunk, false).await
    }

    async fn finish(&self) -> Result<(), Gone> {
        self.send(Bytes::new(), true).await
    }

    fn cut(&self) {
        self.reset();
        self.state.set(State::Cut);
    }

    async fn gone(&self) {
        poll_fn(|cx| {
            let reset = match self.stream.get() {
                Some(stream) => stream.borrow_mut().poll_reset(cx),
                None => self.respond.borrow_mut().poll_reset(cx),
            };
            reset.map(|_| ())
        })
        .await;
    }
}

/// Sends a piece of a body as the client's windows allow; each part of it has `span` to go.
pub(super) async fn send(
    stream: &RefCell<SendStream<Bytes>>,
    mut piece: Bytes,
    is_last: bool,
    span: Duration,
) -> Result<(), Gone> {
    loop {
        let room = if piece.is_empty() {
            0
        } else {
            stream.borrow_mut().reserve_capacity(piece.len());
            match ticks::timeout(span, poll_fn(|cx| poll_room(stream, cx))).await {
                Ok(room) => room?,
                Err(_) => {
                    stream.borrow_mut().send_reset(Reason::CANCEL);
                    return Err(Gone);
                }
            }
        };
        let part = piece.split_to(room.min(piece.len()));
        let is_end = piece.is_empty();
        stream.borrow_mut().send_data(part, is_last && is_end).map_err(|_| Gone)?;
        if is_end {
            return Ok(());
        }
    }
}

/// Takes and drops, for a bounded while, what the client still sends of a body that nobody wants
/// any more. What ends the stream then (RST_STREAM with NO_ERROR, RFC 9113 section 8.1) comes well
/// behind the answer: some clients lose an answer that it follows at once, others look for none
/// while they wait for room to send.
pub(super) async fn linger(mut body: RecvStream) {
    if body.is_end_stream() {
        return;
    }
    let rest = async {
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            let Some(Ok(piece)) = poll_fn(|cx| body.poll_data(cx)).await else { return };
            left = left.saturating_sub(piece.len());
            // As in `poll_body`.
            let _ = body.flow_control().release_capacity(piece.len());
        }
    };
    let _ = ticks::timeout(LINGER_SPAN, rest).await;
}

/// Waits until the windows have room; how much.
fn poll_room(
    stream: &RefCell<SendStream<Bytes>>,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Gone>> {
    let mut stream = stream.borrow_mut();
    match stream.capacity() {
        0 => match ready!(stream.poll_capacity(cx)) {
            Some(Ok(room)) if room > 0 => Poll::Ready(Ok(room)),
            Some(Ok(_)) => Poll::Pending,
            Some(Err(_)) | None => Poll::Ready(Err(Gone)),
        },
        room => Poll::Ready(Ok(room)),
    }
}

/// What is read and thrown away behind an answer, never more than a window of it at a time, and for
/// how long.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;
const LINGER_SPAN: Duration = Duration::from_secs(2);
