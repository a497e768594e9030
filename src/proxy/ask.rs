//! One question to an origin: breaker, connection, request, answer's head.
//!
//! The transparent repetition lives here and nowhere else: a request goes out a second time only
//! if not a byte of an answer came back and it may be repeated (RFC 9110 section 9.2.2).

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use monoio::time::timeout;
use rustls::pki_types::ServerName;

use crate::breaker;
use crate::cache;
use crate::http::{Fields, Method, ResponseHead};
use crate::metrics::{CoreCells, Counter};
use crate::net::{Dial, Stream, tls};
use crate::proxy::core::{Core, Moment};
use crate::proxy::error::Fault;
use crate::proxy::origin::{
    self, Answer, Connection, Head, Outgoing, OutgoingBody, Permit, Purpose, request_head,
};
use crate::proxy::plan::Upstream;
use crate::proxy::race::{First, race};
use crate::proxy::request::Task;
use crate::route::Scheme;

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
}

/// An answer whose body is still to be read.
pub struct Asked {
    /// The connection it comes on.
    pub connection: Connection,
    /// Its head.
    pub answer: Answer,
    /// When it was asked and answered.
    pub times: cache::Exchange,
    /// The breaker's leave: reported when the answer's end is known.
    pub leave: Leave,
}

/// A breaker's leave to ask. Dropped without a report, it counts as cancelled.
pub struct Leave {
    permit: Option<breaker::Permit>,
    cells: Arc<CoreCells>,
}

impl Leave {
    /// The upstream did its part.
    pub fn succeeded(mut self) {
        if let Some(change) = self.permit.take().and_then(breaker::Permit::on_success) {
            tracing::info!(?change, "circuit breaker");
        }
    }

    /// It did not.
    pub fn failed(mut self, retry_after: Option<std::time::Duration>) {
        let now = crate::net::mono();
        let change = self.permit.take().and_then(|it| it.on_failure(retry_after, now));
        if let Some(change) = change {
            tracing::warn!(?change, "circuit breaker");
            if change == breaker::Change::Opened {
                self.cells.inc(Counter::BreakerOpened);
            }
        }
    }

    /// Reports by the status: 5xx are the upstream's failures, 4xx are not.
    pub fn answered(self, head: &ResponseHead) {
        if head.status >= 500 {
            self.failed(retry_after(head));
        } else {
            self.succeeded();
        }
    }
}

/// Asks an origin, up to the head of its answer. `hint` is told each interim answer that is for
/// the client.
pub async fn ask(
    core: &Rc<Core>,
    question: &Question<'_>,
    mut hint: impl AsyncFnMut(&ResponseHead),
) -> Result<Asked, Fault> {
    let leave = enter(core, question.upstream)?;
    let span = question.upstream.request_timeout;
    let begun = crate::net::mono();
    let asked = timeout(span, attempt(core, question, &mut hint)).await;
    question.task.trail.upstream.set(Some(crate::net::mono().since(begun)));
    let asked = asked.unwrap_or(Err(Fault::Timeout));
    match asked {
        Ok((connection, answer, times)) => Ok(Asked { connection, answer, times, leave }),
        Err(fault) => {
            core.cells.on_upstream_failure(fault.as_str());
            if is_upstreams_fault(fault) {
                leave.failed(None);
            }
            Err(fault)
        }
    }
}

/// The breaker's leave to ask an upstream now.
pub fn enter(core: &Core, upstream: &Upstream) -> Result<Leave, Fault> {
    let cells = Arc::clone(&core.cells);
    if !core.plan().settings.client.circuit_breaker_enabled {
        return Ok(Leave { permit: None, cells });
    }
    let breaker = &core.shared.breakers[usize::from(upstream.origin)];
    match breaker.enter(crate::net::mono()) {
        Ok(permit) => Ok(Leave { permit: Some(permit), cells }),
        Err(refused) => {
            core.cells.inc(Counter::BreakerRefused);
            let secs = refused.retry_after.as_millis().div_ceil(1_000);
            Err(Fault::CircuitOpen(u32::try_from(secs).unwrap_or(u32::MAX).max(1)))
        }
    }
}

async fn attempt(
    core: &Rc<Core>,
    question: &Question<'_>,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<(Connection, Answer, cache::Exchange), Fault> {
    let mut repeated = false;
    loop {
        let connection = if repeated {
            connect_fresh(core, question.upstream).await?
        } else {
            connect(core, question.upstream).await?
        };
        let (requested, mut connection) = (Moment::now().wall, connection);
        core.cells.inc(Counter::UpstreamRequests);
        match converse(core, question, &mut connection, hint).await {
            Ok(answer) => {
                let times = cache::Exchange { requested, responded: Moment::now().wall };
                return Ok((connection, answer, times));
            }
            Err(fault) if may_repeat(question, &connection, fault) && !repeated => {
                core.cells.inc(Counter::Retries);
                repeated = true;
            }
            Err(fault) => return Err(fault),
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
    let states_length = matches!(
        question.task.head.method,
        Method::Post | Method::Put | Method::Patch | Method::Query
    );
    let body = match length {
        0 if !states_length => OutgoingBody::None,
        _ => OutgoingBody::Length(length),
    };
    let head = head_text(question, body);
    if length <= UNANSWERED_BYTES_MAX {
        // An origin that takes no more may have said why before.
        let _ = connection.send(head, question.body.clone()).await;
        return answer(core, question, connection, hint).await;
    }
    // RFC 9112 section 9.5: a long body may be answered, or refused, before its end.
    let sender = connection.sender();
    let sending = sender.send_whole(head, question.body.clone());
    let mut answer = pin!(answer(core, question, connection, hint));
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
        now: crate::net::wall(),
    })
}

/// Reads heads until the final one.
pub async fn answer(
    core: &Core,
    question: &Question<'_>,
    connection: &mut Connection,
    hint: &mut impl AsyncFnMut(&ResponseHead),
) -> Result<Answer, Fault> {
    let plan = core.plan();
    let method = &question.task.head.method;
    let drop_key = |fields: &mut Fields| {
        if let Some(key) = &question.upstream.api_key {
            origin::drop_key(fields, key);
        }
    };
    let mut interims = 0;
    loop {
        let head =
            connection.head(method, &plan.response_limits, plan.response_body_bytes_max).await?;
        match head {
            Head::Final(mut answer) => {
                drop_key(&mut answer.head.fields);
                return Ok(answer);
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

/// A connection: an idle one, else a new one.
pub async fn connect(core: &Core, upstream: &Upstream) -> Result<Connection, Fault> {
    let pool = &core.pools[usize::from(upstream.origin)];
    if let Some(connection) = pool.take_idle() {
        return Ok(connection);
    }
    let permit = pool.permit().await?;
    // One may have come back while we waited.
    match pool.take_idle() {
        Some(connection) => Ok(connection),
        None => open(core, upstream, permit).await,
    }
}

/// A connection that has not been used: what fails on it was not closed while idle.
pub async fn connect_fresh(core: &Core, upstream: &Upstream) -> Result<Connection, Fault> {
    let pool = &core.pools[usize::from(upstream.origin)];
    pool.make_room();
    let permit = pool.permit().await?;
    open(core, upstream, permit).await
}

async fn open(core: &Core, upstream: &Upstream, permit: Permit) -> Result<Connection, Fault> {
    let pool = &core.pools[usize::from(upstream.origin)];
    let stream = dial(core, upstream).await?;
    core.cells.inc(Counter::UpstreamConnectionsOpened);
    Ok(pool.adopt(stream, permit))
}

async fn dial(core: &Core, upstream: &Upstream) -> Result<Stream, Fault> {
    let (plan, target) = (core.plan(), &upstream.target);
    let (host, port) = (target.host(), target.port());
    let scheme = target.scheme();
    plan.settings.ssrf.check_url(scheme.as_str(), host, port).map_err(|_| Fault::NotAllowed)?;
    let addresses = core.shared.resolver.resolve(host, port).await.map_err(|_| Fault::Resolve)?;
    let client = &plan.settings.client;
    let dial = Dial { timeout: client.dial_timeout, keep_alive: client.keep_alive };
    let vet = |address| plan.settings.ssrf.check_address(address);
    let tcp = crate::net::connect(&addresses, &vet, dial).await.map_err(|error| match error {
        crate::net::ConnectError::Refused(_) => Fault::NotAllowed,
        crate::net::ConnectError::Timeout => Fault::Timeout,
        _ => Fault::Dial,
    })?;
    match scheme {
        Scheme::Http => Ok(Stream::Tcp(tcp)),
        Scheme::Https => {
            let config = core.shared.tls.clone().ok_or(Fault::Tls)?;
            let name = ServerName::try_from(host.to_owned()).map_err(|_| Fault::Tls)?;
            let handshake = timeout(client.dial_timeout, tls::connect(tcp, config, name));
            let stream = handshake.await.map_err(|_| Fault::Timeout)?;
            stream.map(Stream::from).map_err(|error| {
                tracing::warn!(%error, "TLS to the upstream");
                Fault::Tls
            })
        }
    }
}

/// A request may go out twice when nothing of an answer came, and doing it twice does no harm.
fn may_repeat(question: &Question<'_>, connection: &Connection, fault: Fault) -> bool {
    let head = &question.task.head;
    let harmless = match head.method {
        Method::Get | Method::Head | Method::Options | Method::Query => true,
        Method::Put | Method::Delete => true,
        _ => head.fields.contains("Idempotency-Key"),
    };
    fault == Fault::Reset && connection.may_have_been_idle_closed() && harmless
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
        | Fault::OfflineNotCached
        | Fault::Abandoned
        | Fault::Internal => false,
    }
}

/// Retry-After in whole seconds; dates are left to the client.
fn retry_after(head: &ResponseHead) -> Option<std::time::Duration> {
    let value = head.fields.single("Retry-After")?;
    crate::http::list::delta_seconds(value).map(|it| std::time::Duration::from_secs(it.into()))
}

/// A body up to this length fits the socket's buffer: sending it never waits for the origin.
const UNANSWERED_BYTES_MAX: u64 = 64 * 1024;
/// An origin that sends more interim answers than that is broken.
const INTERIMS_MAX: u32 = 32;
