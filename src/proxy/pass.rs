//! Straight to the origin and back, for one client: what the cache can't answer or keep.
//!
//! Both directions run at once: the request's body goes out while the answer may already come
//! in, each with the other side's back-pressure.

use std::rc::Rc;

use bytes::Bytes;
use monoio::time::timeout;

use crate::cache::{self, CacheStatus};
use crate::http::{Method, ResponseHead, hop};
use crate::http1::BodyLength;
use crate::http1::chunked::{LAST_CHUNK, write_chunk};
use crate::metrics::Counter;
use crate::net::wall;
use crate::proxy::answer;
use crate::proxy::ask::{self, Asked, Question};
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;
use crate::proxy::deliver::{self, Whole};
use crate::proxy::downstream::{BodyEnd, Downstream, Length, Reply};
use crate::proxy::effects::{self, Filling};
use crate::proxy::error::{Fault, Refusal};
use crate::proxy::fill::{self, Ground, Material};
use crate::proxy::hub::Published;
use crate::proxy::origin::{Connection, OutgoingBody, Purpose};
use crate::proxy::plan::Upstream;
use crate::proxy::race::{First, race};
use crate::proxy::request::Task;
use crate::proxy::rescue;

/// A request on its way past the cache.
pub struct Pass<'a> {
    /// The request.
    pub task: &'a Task,
    /// Where it goes.
    pub upstream: &'a Upstream,
    /// Its body.
    pub body: RequestBody,
    /// What is said of it.
    pub status: CacheStatus,
}

/// Passes a request.
pub async fn pass(core: &Rc<Core>, pass: Pass<'_>, client: &impl Downstream) {
    let (task, upstream) = (pass.task, pass.upstream);
    let ground = Ground::new(core, None);
    let body = match &pass.body {
        RequestBody::Whole(body) => body.clone(),
        RequestBody::None | RequestBody::Streamed => Bytes::new(),
    };
    let question = Question { task, upstream, purpose: Purpose::Pass, body };
    if let RequestBody::Streamed = pass.body {
        return streamed(core, &pass, &ground, &question, client).await;
    }
    let asked = match race(ask(core, &question, client), client.gone()).await {
        First::Left(asked) => asked,
        First::Right(()) => return,
    };
    match asked {
        Ok(asked) => settled(core, &pass, &ground, asked, client).await,
        Err(fault) => rescue::fail(core, task, fault, client).await,
    }
}

/// Sends an answer after what it means for what is stored is done.
async fn settled(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    ground: &Ground,
    mut asked: Asked,
    client: &impl Downstream,
) {
    let Pass { task, upstream, status, .. } = pass;
    let filling = effects::settle(core, task, upstream, ground, &asked).await;
    let Some(Filling { inquiry, ground, facts }) = filling else {
        return send(core, task, upstream, asked, *status, client).await;
    };
    let body = match gather(upstream, &mut asked).await {
        Ok(body) => body,
        Err(fault) => return broken(core, task, asked, fault, client).await,
    };
    let (head, times) = (asked.answer.head.clone(), asked.times);
    let material = Material { head: head.clone(), times, facts, body: body.clone() };
    let (_, published) = fill::fill_solo(core, &inquiry, &ground, material);
    finish(core, upstream, asked);
    let stored = published != Published::Doomed;
    let status = CacheStatus { stored, fwd_status: Some(head.status), ..*status };
    let mut head = clean(head);
    deliver::note(&mut head.fields, &status);
    let length = Some(body.len() as u64);
    let result = deliver::result_of(&status);
    deliver::whole(core, task, Whole { head, body, length }, result, client).await;
}

/// Sends the error that an answer cut short becomes while nothing of it has gone out.
async fn broken(core: &Core, task: &Task, asked: Asked, fault: Fault, client: &impl Downstream) {
    asked.leave.failed(None);
    core.cells.on_upstream_failure(fault.as_str());
    rescue::fail(core, task, fault, client).await;
}

/// Asks, and hands interim answers on.
pub async fn ask(
    core: &Rc<Core>,
    question: &Question<'_>,
    client: &impl Downstream,
) -> Result<Asked, Fault> {
    ask::ask(core, question, async |hint: &ResponseHead| {
        let mut fields = hint.fields.clone();
        hop::strip_hop_by_hop(&mut fields);
        let _ = client.interim(hint.status, &fields).await;
    })
    .await
}

/// An answer's head as a client gets it: hop-by-hop fields removed, Via and Date added.
#[must_use]
pub fn clean(mut head: ResponseHead) -> ResponseHead {
    hop::strip_hop_by_hop(&mut head.fields);
    head.fields.remove("Content-Length");
    head.fields.push("Via", crate::proxy::origin::via(head.version));
    if !head.fields.contains("Date") {
        // RFC 9110 section 6.6.1: whoever has a clock adds it.
        head.fields.push("Date", crate::http::date::write_http_date(wall()));
    }
    head
}

/// Sends an answer as it arrives; a short one in one write.
pub async fn send(
    core: &Core,
    task: &Task,
    upstream: &Upstream,
    mut asked: Asked,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let stated = stated_length(&asked.answer.head);
    let code = asked.answer.head.status;
    let mut head = clean(asked.answer.head.clone());
    deliver::note(&mut head.fields, &CacheStatus { fwd_status: Some(code), ..status });
    let result = deliver::result_of(&status);
    let length = asked.answer.body.length();
    if length.is_some_and(|it| it <= SMALL_BYTES_MAX) {
        let body = match gather(upstream, &mut asked).await {
            Ok(body) => body,
            Err(fault) => return broken(core, task, asked, fault, client).await,
        };
        finish(core, upstream, asked);
        let bodyless = task.head.method == Method::Head || code == 304 || code == 204;
        let length = if bodyless { stated } else { length };
        let answer = Whole { head, body, length };
        return deliver::whole(core, task, answer, result, client).await;
    }
    answer::push_own(core.plan(), &mut head.fields, &task.id, &task.standings);
    let length = length.map_or(Length::Unknown, Length::Known);
    let reply = Reply { status: code, fields: head.fields, length };
    let mut bytes = 0;
    if client.start(reply).await.is_ok() {
        bytes = pump(core, upstream, asked, client).await;
    }
    deliver::count(core, task, code, result, bytes);
}

async fn pump(core: &Core, upstream: &Upstream, mut asked: Asked, client: &impl Downstream) -> u64 {
    let mut bytes = 0;
    loop {
        match next(upstream, &mut asked).await {
            Ok(Some(chunk)) => {
                bytes += chunk.len() as u64;
                if client.chunk(chunk).await.is_err() {
                    return bytes;
                }
            }
            Ok(None) => {
                finish(core, upstream, asked);
                let _ = client.finish().await;
                return bytes;
            }
            Err(fault) => {
                core.cells.on_upstream_failure(fault.as_str());
                asked.leave.failed(None);
                client.cut();
                return bytes;
            }
        }
    }
}

fn finish(core: &Core, upstream: &Upstream, asked: Asked) {
    asked.leave.answered(&asked.answer.head);
    asked.connection.finish(&asked.answer.body, &core.pools[usize::from(upstream.origin)]);
}

async fn next(upstream: &Upstream, asked: &mut Asked) -> Result<Option<Bytes>, Fault> {
    let chunk = asked.connection.chunk(&mut asked.answer.body);
    timeout(upstream.request_timeout, chunk).await.unwrap_or(Err(Fault::Timeout))
}

/// Reads all of a body.
///
/// # Errors
/// As [`Connection::chunk`], and when it stands still.
pub async fn gather(upstream: &Upstream, asked: &mut Asked) -> Result<Bytes, Fault> {
    let Some(first) = next(upstream, asked).await? else { return Ok(Bytes::new()) };
    let Some(second) = next(upstream, asked).await? else { return Ok(exact(&first)) };
    let mut whole = [&*first, &*second].concat();
    while let Some(chunk) = next(upstream, asked).await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// In memory of its own: the read buffer behind a slice may be much larger.
fn exact(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The Content-Length of a head without body (HEAD, 304), to be passed on.
fn stated_length(head: &ResponseHead) -> Option<u64> {
    head.fields.single("Content-Length").and_then(crate::http::list::decimal)
}

/// A request whose body is read as it goes out.
async fn streamed(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    ground: &Ground,
    question: &Question<'_>,
    client: &impl Downstream,
) {
    let Pass { task, upstream, .. } = pass;
    let leave = match ask::enter(core, upstream) {
        Ok(leave) => leave,
        Err(fault) => return rescue::fail(core, task, fault, client).await,
    };
    let framing = match task.framing.body {
        BodyLength::Length(length) => OutgoingBody::Length(length),
        BodyLength::Chunked | BodyLength::None => OutgoingBody::Chunked,
    };
    // A fresh connection: a body that is half sent can't be repeated.
    let connected = timeout(upstream.request_timeout, ask::connect_fresh(core, upstream)).await;
    let mut connection = match connected.unwrap_or(Err(Fault::Timeout)) {
        Ok(connection) => connection,
        Err(fault) => {
            leave.failed(None);
            core.cells.on_upstream_failure(fault.as_str());
            return rescue::fail(core, task, fault, client).await;
        }
    };
    core.cells.inc(Counter::UpstreamRequests);
    let requested = wall();
    let head = ask::head_text(question, framing);
    if let Err(fault) = connection.send(head, Bytes::new()).await {
        leave.failed(None);
        return rescue::fail(core, task, fault, client).await;
    }
    let sender = connection.sender();
    let sent = race_body(core, pass, &sender, &mut connection, framing, client).await;
    match sent {
        Sent::Answered(answer) => {
            let times = cache::Exchange { requested, responded: wall() };
            let asked = Asked { connection, answer, times, leave };
            settled(core, pass, ground, asked, client).await;
        }
        Sent::Refused(refusal) => rescue::refuse(core, task, refusal, client).await,
        Sent::Gone => {}
        Sent::Failed(fault) => {
            leave.failed(None);
            core.cells.on_upstream_failure(fault.as_str());
            rescue::fail(core, task, fault, client).await;
        }
    }
}

enum Sent {
    Answered(crate::proxy::origin::Answer),
    Refused(Refusal),
    Gone,
    Failed(Fault),
}

/// Sends the body and reads the answer's head, whichever comes first. An answer that comes before
/// the body is through ends the sending: the connection is not used again.
async fn race_body(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    sender: &crate::proxy::origin::Sender,
    connection: &mut Connection,
    framing: OutgoingBody,
    client: &impl Downstream,
) -> Sent {
    let method = &pass.task.head.method;
    let mut hint = async |hint: &ResponseHead| {
        let _ = client.interim(hint.status, &hint.fields).await;
    };
    let mut answer = std::pin::pin!(ask::answer(core, method, connection, &mut hint));
    let sending = send_body(sender, framing, client);
    match race(sending, answer.as_mut()).await {
        First::Right(Ok(answer)) => {
            sender.stop();
            return Sent::Answered(answer);
        }
        First::Right(Err(fault)) => return Sent::Failed(fault),
        First::Left(Err(BodyEnd::Gone)) => return Sent::Gone,
        First::Left(Err(BodyEnd::Refused(refusal))) => return Sent::Refused(refusal),
        // Through, or the origin takes no more: what it has to say is what counts.
        First::Left(Ok(())) => {}
    }
    let span = pass.upstream.request_timeout;
    match race(timeout(span, answer), client.gone()).await {
        First::Left(Ok(Ok(answer))) => Sent::Answered(answer),
        First::Left(Ok(Err(fault))) => Sent::Failed(fault),
        First::Left(Err(_)) => Sent::Failed(Fault::Timeout),
        First::Right(()) => Sent::Gone,
    }
}

async fn send_body(
    sender: &crate::proxy::origin::Sender,
    framing: OutgoingBody,
    client: &impl Downstream,
) -> Result<(), BodyEnd> {
    while let Some(chunk) = client.body().await? {
        let sent = if framing == OutgoingBody::Chunked {
            let mut framed = Vec::with_capacity(chunk.len() + 24);
            write_chunk(&mut framed, &chunk);
            sender.send(framed.into()).await
        } else {
            sender.send(chunk).await
        };
        if sent.is_err() {
            return Ok(());
        }
    }
    if framing == OutgoingBody::Chunked {
        let _ = sender.send(Bytes::from_static(LAST_CHUNK)).await;
    }
    sender.complete();
    Ok(())
}

/// Up to this length an answer goes out in one write with its head.
const SMALL_BYTES_MAX: u64 = 16 * 1024;
