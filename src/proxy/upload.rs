//! A request whose body is read as it goes out, with the origin's back-pressure on the client.
//!
//! The origin may answer at any moment (RFC 9112 section 9.5). Its answer then goes to the client
//! while the rest of the body still goes to the origin: an origin that answers as it reads gets all
//! of it. The exchange ends with the answer; what the client has not sent by then is not wanted.
//!
//! While it waits for its turn, a little of the body is read ahead: that is how a client that
//! leaves is found out, whose place in the queue is then another's.
//!
//! ```text
//!  body:    ----------------------------- through, or no longer wanted
//!  answer:  ..... waiting ..... | head | body | end
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::cache;
use crate::http::ResponseHead;
use crate::http1::BodyLength;
use crate::metrics::Counter;
use crate::net::ticks::{Deadline, Elapsed, timeout};
use crate::net::{mono, wall};
use crate::proxy::ask::{self, Asked, Question};
use crate::proxy::core::Core;
use crate::proxy::downstream::{BodyEnd, Downstream};
use crate::proxy::error::Fault;
use crate::proxy::fill::Ground;
use crate::proxy::origin::{
    Connection, Leave, OutgoingBody, Patience, Reuse, Sender, connect, obtain,
};
use crate::proxy::pass::{self, Pass};
use crate::proxy::race::{First, race};
use crate::proxy::record;
use crate::proxy::rescue;

/// Passes a request whose body has not been read.
pub async fn streamed(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    ground: &Ground,
    question: &Question<'_>,
    client: &impl Downstream,
) {
    let task = pass.task;
    let deadline = Deadline::after(pass.upstream.request_timeout);
    let ahead = Ahead::of(client);
    let mut reading = pin!(ahead.run());
    // Who waits for 100 Continue is not told to send what may not be wanted.
    let waits = (!task.framing.expects_continue).then_some(reading.as_mut());
    let begun = ahead.beside(begin(core, pass, question, deadline), waits).await;
    match begun {
        Ok(Ok((leave, opened))) => {
            core.cells.inc(Counter::UpstreamRequests);
            let from = (leave, deadline);
            let body = (&ahead, reading);
            exchange(core, pass, (ground, question), from, opened, (body, client)).await;
        }
        Ok(Err((leave, fault))) => {
            ahead.stop(reading).await;
            match leave {
                Some(leave) => fail(core, pass, leave, fault, client).await,
                None => rescue::fail(core, task, fault, pass.status, client).await,
            }
        }
        Err(BodyEnd::Gone) => record::left(core, task),
        Err(BodyEnd::Refused(refusal)) => rescue::refuse(core, task, refusal, client).await,
    }
}

/// Leave, and a connection with the head on its way.
async fn begin(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    question: &Question<'_>,
    deadline: Deadline,
) -> Result<(Leave, (Connection, Sender)), (Option<Leave>, Fault)> {
    let Pass { task, upstream, .. } = pass;
    let leave = obtain(core, upstream, Patience::Some).await.map_err(|fault| (None, fault))?;
    core.shared.upstream(upstream).retries.on_request();
    let framing = match task.framing.body {
        BodyLength::Length(length) => OutgoingBody::Length(length),
        BodyLength::Chunked | BodyLength::None => OutgoingBody::Chunked,
    };
    match deadline.bound(open(core, question, framing, deadline)).await {
        Ok(Ok(opened)) => Ok((leave, opened)),
        Ok(Err(fault)) => Err((Some(leave), fault)),
        Err(Elapsed) => Err((Some(leave), Fault::Timeout)),
    }
}

/// A connection with the head on its way.
async fn open(
    core: &Rc<Core>,
    question: &Question<'_>,
    framing: OutgoingBody,
    deadline: Deadline,
) -> Result<(Connection, Sender), Fault> {
    // A body half sent can't be repeated.
    let mut connection = connect(core, question.upstream, Reuse::Recent, deadline).await?;
    let sender = connection.send_head(&ask::outgoing(core.plan(), question, framing)).await?;
    Ok((connection, sender))
}

async fn exchange<C: Downstream>(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    (ground, question): (&Ground, &Question<'_>),
    (mut leave, deadline): (Leave, Deadline),
    (mut connection, sender): (Connection, Sender),
    ((ahead, reading), client): (Begun<'_, C, impl Reading>, &C),
) {
    let Pass { task, upstream, .. } = pass;
    let (requested, begun) = (wall(), mono());
    let upload =
        Upload { sender, stall: upstream.request_timeout, ahead, is_over: Cell::new(false) };
    let mut sending = pin!(upload.run(reading));
    let answer = await_head(core, pass, question, &mut connection, sending.as_mut(), client).await;
    let head = match answer {
        Ok(head) => head,
        Err(End::Body(BodyEnd::Gone)) => return record::left(core, task),
        Err(End::Body(BodyEnd::Refused(refusal))) => {
            return rescue::refuse(core, task, refusal, client).await;
        }
        Err(End::Origin(fault)) => {
            upload.stop(sending.as_mut()).await;
            return fail(core, pass, leave, fault, client).await;
        }
    };
    task.trail.upstream.set(Some(mono().since(begun)));
    let times = cache::Exchange { requested, responded: wall() };
    leave.on_head(core, upstream, &task.head.fields, &head, times.responded);
    let asked = Asked { connection, head, times, leave, deadline };
    let answering = pass::settled(core, pass, ground, asked, client);
    match upload.beside(sending.as_mut(), answering).await {
        Ok(()) => upload.stop(sending).await,
        // The client is gone, or what it sends is not what it announced.
        Err(_) => {
            client.cut();
            record::left(core, task);
        }
    }
}

async fn fail(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    leave: Leave,
    fault: Fault,
    client: &impl Downstream,
) {
    ask::blame(core, leave, fault);
    rescue::fail(core, pass.task, fault, pass.status, client).await;
}

/// How far a body went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// To its end, or as far as the origin took it: what the origin has to say is what counts.
    Enough,
    /// The origin took nothing for as long as it may.
    Stalled,
}

/// Why there is no answer.
enum End {
    /// The body ended before its end.
    Body(BodyEnd),
    /// The origin failed.
    Origin(Fault),
}

/// Waits for the answer's head while the body goes out.
async fn await_head(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    question: &Question<'_>,
    connection: &mut Connection,
    sending: Pin<&mut impl Future<Output = Result<Sent, BodyEnd>>>,
    client: &impl Downstream,
) -> Result<ResponseHead, End> {
    let mut hint = async |hint: &ResponseHead| pass::tell(hint, client).await;
    let mut answer = pin!(ask::answer(core, question, connection, &mut hint));
    match race(sending, answer.as_mut()).await {
        First::Right(answer) => return answer.map_err(End::Origin),
        First::Left(Err(end)) => return Err(End::Body(end)),
        First::Left(Ok(Sent::Stalled)) => return Err(End::Origin(Fault::Timeout)),
        First::Left(Ok(Sent::Enough)) => {}
    }
    let span = pass.upstream.request_timeout;
    match race(timeout(span, answer), client.gone()).await {
        First::Left(answer) => answer.unwrap_or(Err(Fault::Timeout)).map_err(End::Origin),
        First::Right(()) => Err(End::Body(BodyEnd::Gone)),
    }
}

/// What of the body is read before it can be sent on.
struct Ahead<'c, C> {
    client: &'c C,
    chunks: RefCell<VecDeque<Bytes>>,
    state: Cell<Stage>,
    /// It can be sent on: nothing more is to be read ahead.
    enough: Cell<bool>,
}

/// How far the body was read ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    /// As far as it may be.
    Part,
    /// To its end.
    Whole,
}

/// Reads ahead. It is never dropped in the middle of a read: the bytes that this was about to take
/// belong to what follows.
trait Reading: Future<Output = Result<(), BodyEnd>> {}
impl<F: Future<Output = Result<(), BodyEnd>>> Reading for F {}

/// A body of which a part was read.
type Begun<'a, C, R> = (&'a Ahead<'a, C>, Pin<&'a mut R>);

impl<'c, C: Downstream> Ahead<'c, C> {
    fn of(client: &'c C) -> Self {
        let (chunks, state) = (RefCell::default(), Cell::new(Stage::Reading));
        Self { client, chunks, state, enough: Cell::new(false) }
    }

    async fn run(&self) -> Result<(), BodyEnd> {
        let mut bytes = 0;
        while bytes < AHEAD_BYTES_MAX && !self.enough.get() {
            match self.client.body().await {
                Ok(Some(chunk)) => {
                    bytes += chunk.len();
                    self.chunks.borrow_mut().push_back(chunk);
                }
                Ok(None) => {
                    self.state.set(Stage::Whole);
                    return Ok(());
                }
                Err(end) => {
                    self.state.set(Stage::Part);
                    return Err(end);
                }
            }
        }
        self.state.set(Stage::Part);
        Ok(())
    }

    /// Runs `work` to its end, unless the client leaves before. What is read ahead is read only
    /// while `work` waits.
    async fn beside<T>(
        &self,
        work: impl Future<Output = T>,
        reading: Option<Pin<&mut impl Reading>>,
    ) -> Result<T, BodyEnd> {
        let Some(reading) = reading else { return Ok(work.await) };
        let leaving = async {
            if let Err(end) = reading.await {
                return end;
            }
            if self.state.get() == Stage::Part {
                // Only more of the body could tell.
                return pending().await;
            }
            self.client.gone().await;
            BodyEnd::Gone
        };
        let ended = race(pin!(work), pin!(leaving)).await;
        self.enough.set(true);
        match ended {
            First::Left(done) => Ok(done),
            First::Right(end) => Err(end),
        }
    }

    /// The next bytes, those read ahead first.
    async fn next<R: Reading>(&self, mut reading: Pin<&mut R>) -> Result<Option<Bytes>, BodyEnd> {
        self.enough.set(true);
        loop {
            if let Some(chunk) = self.chunks.borrow_mut().pop_front() {
                return Ok(Some(chunk));
            }
            match self.state.get() {
                Stage::Reading => reading.as_mut().await?,
                Stage::Part => return self.client.body().await,
                Stage::Whole => return Ok(None),
            }
        }
    }

    /// Ends a read that is under way.
    async fn stop(&self, reading: Pin<&mut impl Reading>) {
        self.enough.set(true);
        if self.state.get() == Stage::Reading {
            self.client.stop_body();
            let _ = reading.await;
        }
    }
}

/// As much of a body is read before there is a connection for it.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// The body on its way.
struct Upload<'c, C> {
    sender: Sender,
    /// How long the origin may take nothing.
    stall: Duration,
    ahead: &'c Ahead<'c, C>,
    /// It is through, or given up.
    is_over: Cell<bool>,
}

impl<C: Downstream> Upload<'_, C> {
    /// Sends all of it. An origin that takes no more ends it without an error.
    async fn run(&self, reading: Pin<&mut impl Reading>) -> Result<Sent, BodyEnd> {
        let sent = self.pump(reading).await;
        self.is_over.set(true);
        sent
    }

    async fn pump(&self, mut reading: Pin<&mut impl Reading>) -> Result<Sent, BodyEnd> {
        while let Some(chunk) = self.ahead.next(reading.as_mut()).await? {
            match timeout(self.stall, self.sender.send(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(Sent::Enough),
                Err(Elapsed) => return Ok(Sent::Stalled),
            }
        }
        match timeout(self.stall, self.sender.finish()).await {
            Ok(_) => Ok(Sent::Enough),
            Err(Elapsed) => Ok(Sent::Stalled),
        }
    }

    /// Runs the answer to its end, and this beside it.
    async fn beside(
        &self,
        mut sending: Pin<&mut impl Future<Output = Result<Sent, BodyEnd>>>,
        answering: impl Future<Output = ()>,
    ) -> Result<(), BodyEnd> {
        let mut answering = pin!(answering);
        poll_fn(|cx| {
            // The body first: whether it has been read decides whether the answer looks for a
            // client that leaves.
            if !self.is_over.get()
                && let Poll::Ready(Err(end)) = sending.as_mut().poll(cx)
            {
                return Poll::Ready(Err(end));
            }
            answering.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Ends it where it is. A read from the client is brought to its end, not dropped: the bytes
    /// it was about to take belong to what follows.
    async fn stop(&self, sending: Pin<&mut impl Future<Output = Result<Sent, BodyEnd>>>) {
        if !self.is_over.get() && !self.sender.is_writing() {
            self.ahead.client.stop_body();
            let _ = sending.await;
        }
    }
}
