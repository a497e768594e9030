//! One exchange on an HTTP/2 connection to an origin: a stream (RFC 9113 section 8.1).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};

use crate::http::list::decimal;
use crate::http::{Fields, Method, ResponseHead, Version};
use crate::proxy::error::Fault;
use crate::proxy::origin::connection::{AtHand, Handling, Head};
use crate::proxy::origin::http1::Expected;
use crate::proxy::origin::multiplexed::{Multiplexed, Seat};
use crate::proxy::origin::request::OutgoingHead;

/// One exchange on a connection.
pub struct Http2 {
    /// Dropped behind `stage`, and with it perhaps the connection.
    stage: Stage,
    seat: Seat,
    /// Other exchanges came before it on this connection.
    reused: bool,
    handling: Handling,
    length: Option<u64>,
    bytes_max: u64,
    bytes: u64,
    /// Bytes handed out whose room the origin has not been given back.
    unreleased: usize,
    /// The last bytes of the announced length. They are handed out with the stream's end: whether
    /// more comes, or an error, is not known before, and an answer that breaks its own announcement
    /// must not look whole to anybody (RFC 9113 section 8.1.1).
    last: Bytes,
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
        let seat = Seat::on(shared);
        Self {
            stage: Stage::Idle,
            reused: seat.is_reused(),
            seat,
            handling: Handling::Unknown,
            length: None,
            bytes_max: u64::MAX,
            bytes: 0,
            unreleased: 0,
            last: Bytes::new(),
        }
    }

    pub(super) async fn send(&mut self, head: &OutgoingHead<'_>, body: Bytes) -> Result<(), Fault> {
        let mut stream = self.open(head, body.is_empty())?;
        if !body.is_empty() {
            // What the windows don't take yet waits inside h2.
            stream.send_data(body, true).map_err(|error| self.fault(&error))?;
        }
        Ok(())
    }

    pub(super) async fn send_head(&mut self, head: &OutgoingHead<'_>) -> Result<Sender, Fault> {
        let stream = self.open(head, false)?;
        Ok(Sender { stream: RefCell::new(stream), waiting: Cell::new(false) })
    }

    fn open(
        &mut self,
        head: &OutgoingHead<'_>,
        is_whole: bool,
    ) -> Result<SendStream<Bytes>, Fault> {
        let request = head.to_http2()?;
        let (response, stream) = self.seat.shared().open(request, is_whole).map_err(|error| {
            self.handling = Handling::Never;
            self.fault(&error)
        })?;
        self.stage = Stage::Waiting(response);
        Ok(stream)
    }

    pub(super) async fn head(&mut self, expected: &Expected<'_>) -> Result<Head, Fault> {
        let Stage::Waiting(response) = &mut self.stage else { return Err(Fault::Reset) };
        let head = poll_fn(|cx| poll_head(response, cx)).await;
        let head = match head {
            Ok(head) => head,
            Err(error) => return Err(self.fault(&error)),
        };
        self.seat.note_answer();
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
        self.seat.is_answered()
    }

    pub(super) const fn handling(&self) -> Handling {
        self.handling
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
                    let last = std::mem::take(&mut self.last);
                    return Poll::Ready(Ok((!last.is_empty()).then_some(last)));
                }
            };
            if chunk.is_empty() {
                continue;
            }
            self.unreleased = chunk.len();
            self.bytes += chunk.len() as u64;
            self.seat.shared().permits().note_received(chunk.len() as u64);
            if self.bytes > self.bytes_max {
                return Poll::Ready(Err(Fault::TooLarge));
            }
            if self.length == Some(self.bytes) {
                self.last = chunk;
                continue;
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
    }

    /// What an error before the answer's head means.
    fn fault(&mut self, error: &h2::Error) -> Fault {
        // RFC 9113 section 6.8: only those that it has not looked at fail with the GOAWAY.
        if error.is_go_away() && error.is_remote() {
            self.seat.shared().retire();
            self.handling = Handling::Never;
            return Fault::Reset;
        }
        if error.is_io() {
            return Fault::Reset;
        }
        match error.reason() {
            // RFC 9113 section 8.7.
            Some(Reason::REFUSED_STREAM) => {
                self.handling = Handling::Refused;
                Fault::Reset
            }
            // Closed, or reset without a word.
            None | Some(Reason::NO_ERROR | Reason::CANCEL | Reason::INTERNAL_ERROR) => Fault::Reset,
            Some(_) => Fault::Invalid("http2_error"),
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

/// Room for a head of usual size and what we add.
const FIELDS_BYTES: usize = 1536;
