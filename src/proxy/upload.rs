//! A request whose body is read as it goes out, with the origin's back-pressure on the client.
//!
//! The origin may answer at any moment (RFC 9112 section 9.5). Its answer then goes to the client
//! while the rest of the body still goes to the origin: an origin that answers as it reads gets all
//! of it. The exchange ends with the answer; what the client has not sent by then is not wanted.
//!
//! ```text
//!  body:    ----------------------------- through, or no longer wanted
//!  answer:  ..... waiting ..... | head | body | end
//! ```

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

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
    let Pass { task, upstream, .. } = pass;
    let deadline = Deadline::after(upstream.request_timeout);
    let leave = match obtain(core, upstream, Patience::Some).await {
        Ok(leave) => leave,
        Err(fault) => return rescue::fail(core, task, fault, pass.status, client).await,
    };
    core.shared.upstream(upstream).retries.on_request();
    let framing = match task.framing.body {
        BodyLength::Length(length) => OutgoingBody::Length(length),
        BodyLength::Chunked | BodyLength::None => OutgoingBody::Chunked,
    };
    let opened = match deadline.bound(open(core, question, framing, deadline)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(fault)) => return fail(core, pass, leave, fault, client).await,
        Err(Elapsed) => return fail(core, pass, leave, Fault::Timeout, client).await,
    };
    core.cells.inc(Counter::UpstreamRequests);
    exchange(core, pass, (ground, question), (leave, deadline), opened, client).await;
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

async fn exchange(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    (ground, question): (&Ground, &Question<'_>),
    (mut leave, deadline): (Leave, Deadline),
    (mut connection, sender): (Connection, Sender),
    client: &impl Downstream,
) {
    let Pass { task, upstream, .. } = pass;
    let (requested, begun) = (wall(), mono());
    let upload =
        Upload { sender, stall: upstream.request_timeout, client, is_over: Cell::new(false) };
    let mut sending = pin!(upload.run());
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

/// The body on its way.
struct Upload<'c, C> {
    sender: Sender,
    /// How long the origin may take nothing.
    stall: Duration,
    client: &'c C,
    /// It is through, or given up.
    is_over: Cell<bool>,
}

impl<C: Downstream> Upload<'_, C> {
    /// Sends all of it. An origin that takes no more ends it without an error.
    async fn run(&self) -> Result<Sent, BodyEnd> {
        let sent = self.pump().await;
        self.is_over.set(true);
        sent
    }

    async fn pump(&self) -> Result<Sent, BodyEnd> {
        while let Some(chunk) = self.client.body().await? {
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
            self.client.stop_body();
            let _ = sending.await;
        }
    }
}
