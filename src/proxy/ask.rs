//! One question to an origin: leave, connection, request, answer's head.
//!
//! The transparent repetition lives here and nowhere else: a request goes out a second time only
//! if not a byte of an answer came back, it may be repeated (RFC 9110 section 9.2.2), and the
//! upstream's retries are not used up.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;

use crate::cache;
use crate::http::{Method, RequestHead, ResponseHead};
use crate::metrics::Counter;
use crate::net::ticks::Deadline;
use crate::net::wall;
use crate::proxy::core::Core;
use crate::proxy::error::Fault;
use crate::proxy::inbox::CoreMessage;
use crate::proxy::origin::{
    Answer, Connection, Head, Leave, Outgoing, OutgoingBody, Patience, Permit, Place, Purpose,
    Reuse, dial, obtain, request_head,
};
use crate::proxy::plan::Upstream;
use crate::proxy::race::{First, race};
use crate::proxy::request::Task;

/// What is asked.
pub struct Question<'a> {
    /// The client's request.
    pub task: &'a Task,
    /// Whom.
    pub upstream: &'a Upstream,
    /// What for.
    pub purpose: Purpose<'a>,
    /// The request's body where it is whole.
    pub body: Bytes,
    /// How long it may wait for its turn.
    pub patience: Patience,
}

/// An answer whose body is still to be read.
pub struct Asked {
    /// The connection it comes on.
    pub connection: Connection,
    /// Its head.
    pub answer: Answer,
    /// When it was asked and answered.
    pub times: cache::Exchange,
    /// Reported when the answer's end is known.
    pub leave: Leave,
    /// The end of the exchange's time, for what is not streamed.
    pub deadline: Deadline,
}

impl Asked {
    /// The answer is complete: reports it, and keeps the connection for the next question.
    pub fn finish(self, core: &Core, upstream: &Upstream) {
        self.leave.complete();
        self.connection.finish(&self.answer.body, core.pool(upstream));
    }

    /// It ended early.
    pub fn fail(self, core: &Core, fault: Fault) {
        core.cells.on_upstream_failure(fault.as_str());
        self.leave.failed();
    }
}

/// Asks an origin, up to the head of its answer. `hint` is told each interim answer that is for
/// the client.
pub async fn ask(
    core: &Rc<Core>,
    question: &Question<'_>,
    mut hint: impl AsyncFnMut(&ResponseHead),
) -> Result<Asked, Fault> {
    let upstream = question.upstream;
    let deadline = Deadline::after(upstream.request_timeout);
    let mut leave = obtain(core, upstream, question.patience).await?;
    let asked = deadline.bound(attempt(core, question, leave.is_probe(), &mut hint)).await;
    match asked.unwrap_or(Err(Fault::Timeout)) {
        Ok((connection, answer, times)) => {
            let request = &question.task.head.fields;
            leave.on_head(core, upstream, request, &answer.head, times.responded);
            Ok(Asked { connection, answer, times, leave, deadline })
        }
        Err(fault) => {
            blame(core, leave, fault);
            Err(fault)
        }
    }
}

/// Counts a fault, and reports it where the upstream is to blame.
pub fn blame(core: &Core, leave: Leave, fault: Fault) {
    core.cells.on_upstream_failure(fault.as_str());
    if is_upstreams_fault(fault) {
        leave.failed();
    }
}

async fn attempt(
    core: &Rc<Core>,
    question: &Question<'_>,
    is_probe: bool,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<(Connection, Answer, cache::Exchange), Fault> {
    let upstream = question.upstream;
    let retries = &core.shared.upstream(upstream).retries;
    retries.on_request();
    let mut reuse = reuse(&question.task.head);
    loop {
        let mut connection = connect(core, upstream, reuse).await?;
        let requested = wall();
        core.cells.inc(Counter::UpstreamRequests);
        match converse(core, question, &mut connection, hint).await {
            Ok(answer) => {
                let times = cache::Exchange { requested, responded: wall() };
                return Ok((connection, answer, times));
            }
            Err(fault) => {
                // Where something stale stands in, an outage costs one attempt; the race with an
                // origin that closes an idle connection is none.
                let spared = question.patience == Patience::None && !connection.is_reused();
                let once_more = reuse != Reuse::Never
                    && !is_probe
                    && !spared
                    && may_repeat(&question.task.head, &connection, fault)
                    && retries.try_spend();
                if !once_more {
                    return Err(fault);
                }
                core.cells.inc(Counter::Retries);
                reuse = Reuse::Never;
            }
        }
    }
}

async fn converse(
    core: &Core,
    question: &Question<'_>,
    connection: &mut Connection,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<Answer, Fault> {
    let length = question.body.len() as u64;
    let method = &question.task.head.method;
    let states_length =
        matches!(method, Method::Post | Method::Put | Method::Patch | Method::Query);
    let body = match length {
        0 if !states_length => OutgoingBody::None,
        _ => OutgoingBody::Length(length),
    };
    let head = head_text(question, body);
    if length <= UNANSWERED_BYTES_MAX {
        // An origin that takes no more may have said why before.
        let _ = connection.send(head, question.body.clone()).await;
        return answer(core, method, connection, hint).await;
    }
    // Boxed, since most bodies are short.
    Box::pin(converse_at_length(core, question, connection, head, hint)).await
}

/// RFC 9112 section 9.5: a long body may be answered, or refused, before its end.
async fn converse_at_length(
    core: &Core,
    question: &Question<'_>,
    connection: &mut Connection,
    head: Vec<u8>,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<Answer, Fault> {
    let sender = connection.sender();
    let sending = sender.send_whole(head, question.body.clone());
    let mut answer = pin!(answer(core, &question.task.head.method, connection, hint));
    match race(sending, answer.as_mut()).await {
        First::Left(_) => answer.await,
        First::Right(answer) => answer,
    }
}

/// The text of the request's head.
pub fn head_text(question: &Question<'_>, body: OutgoingBody) -> Vec<u8> {
    let task = question.task;
    request_head(&Outgoing {
        head: &task.head,
        upstream: question.upstream,
        body,
        client: task.client,
        scheme: if task.peer.tls { "https" } else { "http" },
        request_id: task.id.as_str(),
        purpose: question.purpose,
        now: wall(),
    })
}

/// Reads heads until the final one.
pub async fn answer(
    core: &Core,
    method: &Method,
    connection: &mut Connection,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<Answer, Fault> {
    let plan = core.plan();
    let mut interims = 0;
    loop {
        let head =
            connection.head(method, &plan.response_limits, plan.response_body_bytes_max).await?;
        match head {
            Head::Final(answer) => return Ok(answer),
            Head::Interim(interim) => {
                interims += 1;
                if interims > INTERIMS_MAX {
                    return Err(Fault::Invalid("too_many_interim_responses"));
                }
                // RFC 9110 section 15.2: all but what we asked for ourselves go on; 101 answers
                // an Upgrade, which is hop-by-hop and was not sent.
                if !matches!(interim.status, 100 | 101) {
                    hint(&interim).await;
                }
            }
        }
    }
}

/// A connection: an idle one that will do, else a new one, else the next that is free.
pub async fn connect(
    core: &Rc<Core>,
    upstream: &Upstream,
    reuse: Reuse,
) -> Result<Connection, Fault> {
    // Boxed: what dials or waits is large, and most questions do neither.
    let place = match core.pool(upstream).try_acquire(reuse) {
        Some(place) => place,
        None => Box::pin(queue(core, upstream, reuse)).await?,
    };
    match place {
        Place::Kept(connection) => Ok(connection),
        Place::New(permit) => Box::pin(open(core, upstream, permit)).await,
    }
}

async fn queue(core: &Rc<Core>, upstream: &Upstream, reuse: Reuse) -> Result<Place, Fault> {
    let pool = core.pool(upstream);
    if pool.permits().idle() > 0 {
        core.tell_others(&CoreMessage::YieldIdle(upstream.origin));
    }
    pool.acquire(reuse).await
}

async fn open(core: &Rc<Core>, upstream: &Upstream, permit: Permit) -> Result<Connection, Fault> {
    let stream = dial(core, upstream).await?;
    core.cells.inc(Counter::UpstreamConnectionsOpened);
    Ok(Connection::dialled(stream, permit))
}

/// Which idle connections will do. One that the origin has closed meanwhile is no loss for what may
/// be repeated.
pub fn reuse(head: &RequestHead) -> Reuse {
    if is_harmless(head) || matches!(head.method, Method::Put | Method::Delete) {
        Reuse::Any
    } else {
        Reuse::Recent
    }
}

/// A request may go out twice when nothing of an answer came, and doing it twice does no harm: it
/// asks for no change, or the client says how to tell two from one. Where the connection has been
/// idle, most likely nobody has read it: then idempotence is enough.
fn may_repeat(head: &RequestHead, connection: &Connection, fault: Fault) -> bool {
    let idempotent = matches!(head.method, Method::Put | Method::Delete);
    fault == Fault::Reset
        && !connection.is_answered()
        && (is_harmless(head) || (idempotent && connection.is_reused()))
}

fn is_harmless(head: &RequestHead) -> bool {
    let safe = matches!(head.method, Method::Get | Method::Head | Method::Options | Method::Query);
    safe || head.fields.contains("Idempotency-Key")
}

fn is_upstreams_fault(fault: Fault) -> bool {
    match fault {
        Fault::Resolve
        | Fault::Dial
        | Fault::Tls
        | Fault::Reset
        | Fault::Truncated
        | Fault::Invalid(_)
        | Fault::Timeout
        | Fault::Status(_) => true,
        Fault::NotAllowed
        | Fault::TooLarge
        | Fault::Busy
        | Fault::CircuitOpen(_)
        | Fault::Paused(_)
        | Fault::OfflineNotCached
        | Fault::Abandoned
        | Fault::Internal => false,
    }
}

/// A body up to this length fits the socket's buffer: sending it never waits for the origin.
const UNANSWERED_BYTES_MAX: u64 = 64 * 1024;
/// An origin that sends more interim answers than that is broken.
const INTERIMS_MAX: u32 = 32;
