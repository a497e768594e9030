//! Straight to the origin and back, for one client: what the cache can't answer or keep.
//!
//! Both directions run at once: the request's body goes out while the answer may already come
//! in, each with the other side's back-pressure.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use monoio::time::timeout;

use crate::cache::CacheStatus;
use crate::http::{Method, ResponseHead, hop};
use crate::net::wall;
use crate::proxy::answer;
use crate::proxy::ask::{self, Asked, Question};
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;
use crate::proxy::deliver::{self, Whole};
use crate::proxy::downstream::{Downstream, Length, Reply};
use crate::proxy::effects::{self, Filling};
use crate::proxy::error::Fault;
use crate::proxy::fill::{self, Ground, Kept, Material};
use crate::proxy::origin::{AtHand, Purpose};
use crate::proxy::plan::Upstream;
use crate::proxy::race::{First, race};
use crate::proxy::request::Task;
use crate::proxy::rescue;
use crate::proxy::upload;

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
        return upload::streamed(core, &pass, &ground, &question, client).await;
    }
    let asked = match race(ask(core, &question, client), client.gone()).await {
        First::Left(asked) => asked,
        First::Right(()) => return,
    };
    match asked {
        Ok(asked) => settled(core, &pass, &ground, asked, client).await,
        Err(fault) => rescue::fail(core, task, fault, pass.status, client).await,
    }
}

/// Sends an answer after what it means for what is stored is done.
pub async fn settled(
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
        Err(fault) => return broken(core, task, asked, fault, *status, client).await,
    };
    let (head, times) = (asked.answer.head.clone(), asked.times);
    let material = Material { head: head.clone(), times, facts, body: body.clone(), grown_from: 0 };
    let (_, kept) = fill::fill_solo(core, &inquiry, &ground, material);
    finish(core, upstream, asked);
    let stored = kept == Kept::Stored;
    let status = CacheStatus { stored, fwd_status: Some(head.status), ..*status };
    let mut head = clean(head);
    deliver::note(&mut head.fields, &status);
    let length = Some(body.len() as u64);
    let result = deliver::result_of(&status);
    deliver::whole(core, task, Whole { head, body, length }, result, client).await;
}

/// Sends the error that an answer cut short becomes while nothing of it has gone out.
async fn broken(
    core: &Core,
    task: &Task,
    asked: Asked,
    fault: Fault,
    status: CacheStatus,
    client: &impl Downstream,
) {
    asked.leave.failed(None);
    core.cells.on_upstream_failure(fault.as_str());
    rescue::fail(core, task, fault, status, client).await;
}

/// Asks, and hands interim answers on.
pub async fn ask(
    core: &Rc<Core>,
    question: &Question<'_>,
    client: &impl Downstream,
) -> Result<Asked, Fault> {
    ask::ask(core, question, async |hint: &ResponseHead| tell(hint, client).await).await
}

/// Passes an interim answer on, without what belongs to the origin's connection.
pub async fn tell(hint: &ResponseHead, client: &impl Downstream) {
    let mut fields = hint.fields.clone();
    hop::strip_hop_by_hop(&mut fields);
    // A client that is gone is noticed with its answer.
    let _ = client.interim(hint.status, &fields).await;
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

/// Sends an answer as it arrives; one that is here already in one write.
pub async fn send(
    core: &Core,
    task: &Task,
    upstream: &Upstream,
    asked: Asked,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let copy = Copied { chunks: Vec::new(), at_end: None::<fn(&[Bytes])> };
    send_copied(core, task, upstream, asked, status, copy, client).await;
}

/// A copy of a body that goes by.
pub struct Copied<F> {
    /// What has gone by; nothing where nobody asks for it.
    chunks: Vec<Bytes>,
    /// Is given all of it, before the client has the end.
    at_end: Option<F>,
}

impl<F: FnOnce(&[Bytes])> Copied<F> {
    /// For `at_end`, which is not called for a body that the client doesn't wait for, or that is
    /// cut short.
    pub const fn new(at_end: F) -> Self {
        Self { chunks: Vec::new(), at_end: Some(at_end) }
    }

    fn take(&mut self, chunk: &Bytes) {
        if self.at_end.is_some() {
            self.chunks.push(chunk.clone());
        }
    }

    fn end(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end(&self.chunks);
        }
    }
}

/// As [`send`], with a copy of the body.
pub async fn send_copied(
    core: &Core,
    task: &Task,
    upstream: &Upstream,
    mut asked: Asked,
    status: CacheStatus,
    mut copy: Copied<impl FnOnce(&[Bytes])>,
    client: &impl Downstream,
) {
    let stated = stated_length(&asked.answer.head);
    let code = asked.answer.head.status;
    let mut head = clean(asked.answer.head.clone());
    deliver::note(&mut head.fields, &CacheStatus { fwd_status: Some(code), ..status });
    let result = deliver::result_of(&status);
    let first = match asked.connection.at_hand(&mut asked.answer.body) {
        Ok(AtHand::Whole(chunks)) => {
            finish(core, upstream, asked);
            chunks.iter().for_each(|chunk| copy.take(chunk));
            copy.end();
            let body = Bytes::from(chunks.concat());
            let bodyless = task.head.method == Method::Head || code == 304 || code == 204;
            let length = if bodyless { stated } else { Some(body.len() as u64) };
            let answer = Whole { head, body, length };
            return deliver::whole(core, task, answer, result, client).await;
        }
        Ok(AtHand::Part(chunks)) => chunks,
        Err(fault) => return broken(core, task, asked, fault, status, client).await,
    };
    let length = asked.answer.body.length();
    answer::push_own(core.plan(), &mut head.fields, &task.id, &task.standings);
    let length = length.map_or(Length::Unknown, Length::Known);
    let reply = Reply { status: code, fields: head.fields, length };
    let mut bytes = 0;
    if client.start(reply).await.is_ok() {
        bytes = pump(core, upstream, asked, first, &mut copy, client).await;
    }
    deliver::count(core, task, code, result, bytes);
}

/// Sends `first` and then the rest as it comes; the bytes sent.
async fn pump(
    core: &Core,
    upstream: &Upstream,
    mut asked: Asked,
    first: Vec<Bytes>,
    copy: &mut Copied<impl FnOnce(&[Bytes])>,
    client: &impl Downstream,
) -> u64 {
    let mut bytes = 0;
    for chunk in first {
        copy.take(&chunk);
        bytes += chunk.len() as u64;
        if client.chunk(chunk).await.is_err() {
            return bytes;
        }
    }
    let mut gone = pin!(client.gone());
    loop {
        // The origin may be silent for long: a client that leaves must not wait for its next byte.
        let chunk = match race(next(upstream, &mut asked), gone.as_mut()).await {
            First::Left(chunk) => chunk,
            First::Right(()) => return bytes,
        };
        match chunk {
            Ok(Some(chunk)) => {
                copy.take(&chunk);
                if asked.answer.body.is_done() {
                    copy.end();
                }
                bytes += chunk.len() as u64;
                if client.chunk(chunk).await.is_err() {
                    return bytes;
                }
            }
            Ok(None) => {
                copy.end();
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
