//! One question to an origin: leave, connection, request, answer's head.
//!
//! The transparent repetition lives here and nowhere else: a request goes out a second time only
//! if not a byte of an answer came back, it may be repeated (RFC 9110 section 9.2.2), and the
//! upstream's retries are not used up.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;

use crate::cache;
use crate::http::{Fields, Method, RequestHead, ResponseHead};
use crate::metrics::Counter;
use crate::net::ticks::Deadline;
use crate::net::{mono, wall};
use crate::proxy::core::Core;
use crate::proxy::error::Fault;
use crate::proxy::origin::{
    self, Connection, Expected, Handling, Head, Leave, Outgoing, OutgoingBody, OutgoingHead,
    Patience, Purpose, Reuse, connect, may_repeat, may_repeat_free, obtain,
};
use crate::proxy::plan::{Plan, Upstream};
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
    /// What it comes on, and its body.
    pub connection: Connection,
    /// Its head.
    pub head: ResponseHead,
    /// When it was asked and answered.
    pub times: cache::Exchange,
    /// Reported when the answer's end is known.
    pub leave: Leave,
    /// The end of the exchange's time, for what is not streamed.
    pub deadline: Deadline,
}

impl Asked {
    /// Takes the head; an empty one of the same status is left.
    #[must_use]
    pub fn take_head(&mut self) -> ResponseHead {
        let (status, version) = (self.head.status, self.head.version);
        ResponseHead { status, version, fields: std::mem::take(&mut self.head.fields) }
    }

    /// The answer is complete: reports it, and keeps the connection for the next question.
    pub fn finish(self, core: &Core, upstream: &Upstream) {
        self.leave.complete();
        self.connection.finish(core.pool(upstream));
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
    let begun = mono();
    let how = (deadline, leave.is_probe());
    let asked = deadline.bound(attempt(core, question, how, &mut hint)).await;
    question.task.trail.upstream.set(Some(mono().since(begun)));
    match asked.unwrap_or(Err(Fault::Timeout)) {
        Ok((connection, head, times)) => {
            let request = &question.task.head.fields;
            leave.on_head(core, upstream, request, &head, times.responded);
            Ok(Asked { connection, head, times, leave, deadline })
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

/// A question that failed.
struct Failed {
    fault: Fault,
    repeat: Repeat,
}

/// Whether a question that failed may be asked once more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Never,
    /// Within the upstream's budget.
    Budgeted,
    /// The upstream has not looked at it, so that it puts no load on it.
    Free,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { fault, repeat: Repeat::Never }
    }
}

async fn attempt(
    core: &Rc<Core>,
    question: &Question<'_>,
    (deadline, is_probe): (Deadline, bool),
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<(Connection, ResponseHead, cache::Exchange), Fault> {
    let state = core.shared.upstream(question.upstream);
    state.retries.on_request();
    let reuse = reuse(&question.task.head);
    let mut failed = match once(core, question, (reuse, deadline), hint).await {
        Ok(asked) => return Ok(asked),
        Err(failed) => failed,
    };
    // One that was looked at once more at most. One that was not may meet another connection at its
    // end: an origin that ends each after a few streams has many of them.
    for _ in 0..UNSEEN_REPEATS_MAX {
        let again = match failed.repeat {
            Repeat::Never => false,
            Repeat::Budgeted => !is_probe && may_repeat(state),
            Repeat::Free => may_repeat_free(state),
        };
        if !again {
            break;
        }
        let is_last = failed.repeat == Repeat::Budgeted;
        core.cells.inc(Counter::Retries);
        // Boxed: it is the same once more, and seldom.
        failed = match Box::pin(once(core, question, (Reuse::Never, deadline), hint)).await {
            Ok(asked) => return Ok(asked),
            Err(failed) => failed,
        };
        if is_last {
            break;
        }
    }
    Err(failed.fault)
}

async fn once(
    core: &Rc<Core>,
    question: &Question<'_>,
    (reuse, deadline): (Reuse, Deadline),
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<(Connection, ResponseHead, cache::Exchange), Failed> {
    let connected = connect(core, question.upstream, reuse, deadline).await;
    let mut connection = connected.map_err(|fault| match fault {
        // It was accepted and closed. Nothing of the request has left.
        Fault::Reset if question.patience != Patience::None => {
            Failed { fault, repeat: Repeat::Budgeted }
        }
        _ => fault.into(),
    })?;
    let requested = wall();
    core.cells.inc(Counter::UpstreamRequests);
    match converse(core, question, &mut connection, hint).await {
        Ok(head) => Ok((connection, head, cache::Exchange { requested, responded: wall() })),
        Err(fault) => {
            let repeat = match repeat(&question.task.head, &connection, fault) {
                // Where something stale stands in, an outage costs one attempt; the race with an
                // origin that closes an idle connection is none.
                Repeat::Budgeted
                    if question.patience == Patience::None && !connection.is_reused() =>
                {
                    Repeat::Never
                }
                repeat => repeat,
            };
            Err(Failed { fault, repeat })
        }
    }
}

async fn converse(
    core: &Core,
    question: &Question<'_>,
    connection: &mut Connection,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<ResponseHead, Fault> {
    let length = question.body.len() as u64;
    let method = &question.task.head.method;
    let states_length =
        matches!(method, Method::Post | Method::Put | Method::Patch | Method::Query);
    let body = match length {
        0 if !states_length => OutgoingBody::None,
        _ => OutgoingBody::Length(length),
    };
    let head = outgoing(core.plan(), question, body);
    if length <= UNANSWERED_BYTES_MAX {
        // An origin that takes no more may have said why before.
        let _ = connection.send(&head, question.body.clone()).await;
        return answer(core, question, connection, hint).await;
    }
    // Boxed, since most bodies are short.
    Box::pin(converse_at_length(core, question, connection, &head, hint)).await
}

/// RFC 9112 section 9.5: a long body may be answered, or refused, before its end.
async fn converse_at_length(
    core: &Core,
    question: &Question<'_>,
    connection: &mut Connection,
    head: &OutgoingHead<'_>,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<ResponseHead, Fault> {
    let sender = connection.send_head(head).await?;
    let sending = async {
        sender.send(question.body.clone()).await?;
        sender.finish().await
    };
    let mut answer = pin!(answer(core, question, connection, hint));
    match race(sending, answer.as_mut()).await {
        First::Left(_) => answer.await,
        First::Right(answer) => answer,
    }
}

/// The request's head as it goes out.
pub fn outgoing<'a>(plan: &Plan, question: &Question<'a>, body: OutgoingBody) -> OutgoingHead<'a> {
    let task = question.task;
    let out = Outgoing {
        head: &task.head,
        upstream: question.upstream,
        body,
        client: task.client,
        scheme: scheme(plan, task),
        request_id: task.id.as_str(),
        purpose: question.purpose,
        now: wall(),
    };
    out.head()
}

/// How the client speaks: what a proxy says whose X-Forwarded-For is believed too, else what it
/// does here.
fn scheme(plan: &Plan, task: &Task) -> &'static str {
    let own = if task.peer.tls { "https" } else { "http" };
    if !plan.trusted_proxies.contains(task.peer.address) {
        return own;
    }
    let said = task.head.fields.single("X-Forwarded-Proto").unwrap_or_default();
    let schemes = ["http", "https"];
    let said = schemes.into_iter().find(|it| said.eq_ignore_ascii_case(it.as_bytes()));
    said.unwrap_or(own)
}

/// Reads heads until the final one.
pub async fn answer(
    core: &Core,
    question: &Question<'_>,
    connection: &mut Connection,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<ResponseHead, Fault> {
    let plan = core.plan();
    let expected = Expected {
        method: &question.task.head.method,
        limits: &plan.response_limits,
        bytes_max: plan.response_body_bytes_max,
    };
    let drop_key = |fields: &mut Fields| {
        if let Some(key) = &question.upstream.api_key {
            origin::drop_key(fields, key);
        }
    };
    let mut interims = 0;
    loop {
        match connection.head(&expected).await? {
            Head::Final(mut head) => {
                drop_key(&mut head.fields);
                core.shared.upstream(question.upstream).note_version(head.version);
                return Ok(head);
            }
            Head::Interim(mut interim) => {
                drop_key(&mut interim.fields);
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

/// Which idle connections will do. One that the origin has closed meanwhile is no loss for what may
/// be repeated.
pub fn reuse(head: &RequestHead) -> Reuse {
    if is_harmless(head) || head.method.is_idempotent() { Reuse::Any } else { Reuse::Recent }
}

/// A request may go out twice when nothing of an answer came, and doing it twice does no harm: it
/// asks for no change, the client says how to tell two from one, or the origin says that it has not
/// looked at it. Where the connection has been idle, most likely nobody has read it: then
/// idempotence is enough.
fn repeat(head: &RequestHead, connection: &Connection, fault: Fault) -> Repeat {
    if fault != Fault::Reset || connection.is_answered() {
        return Repeat::Never;
    }
    let idempotent = head.method.is_idempotent();
    match connection.handling() {
        Handling::Never => Repeat::Free,
        Handling::Refused => Repeat::Budgeted,
        Handling::Unknown if is_harmless(head) => Repeat::Budgeted,
        Handling::Unknown if idempotent && connection.is_reused() => Repeat::Budgeted,
        Handling::Unknown => Repeat::Never,
    }
}

fn is_harmless(head: &RequestHead) -> bool {
    head.method.is_safe() || head.fields.contains("Idempotency-Key")
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
        | Fault::Queued
        | Fault::CircuitOpen(_)
        | Fault::Paused(_)
        | Fault::OfflineNotCached
        | Fault::Abandoned
        | Fault::Internal => false,
    }
}

/// How often a question is put to another connection that the last one did not look at.
const UNSEEN_REPEATS_MAX: usize = 5;
/// A body up to this length fits the socket's buffer: sending it never waits for the origin.
const UNANSWERED_BYTES_MAX: u64 = 64 * 1024;
/// An origin that sends more interim answers than that is broken.
const INTERIMS_MAX: u32 = 32;
