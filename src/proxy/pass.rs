//! Straight to the origin and back, for one client: what the cache can't answer or keep.
//!
//! Both directions run at once: the request's body goes out while the answer may already come
//! in, each with the other side's back-pressure.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;

use crate::cache::{CacheStatus, WRITTEN_ANEW};
use crate::http::{Field, Method, ResponseHead, hop};
use crate::net::ticks::timeout;
use crate::net::wall;
use crate::proxy::answer;
use crate::proxy::ask::{self, Asked, Question};
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;
use crate::proxy::deliver::{self, Whole};
use crate::proxy::downstream::{Downstream, Gone, Length, Reply};
use crate::proxy::effects::{self, Filling};
use crate::proxy::error::Fault;
use crate::proxy::fill::{self, Ground, Kept, Material};
use crate::proxy::origin::{AtHand, Patience, Purpose};
use crate::proxy::plan::Upstream;
use crate::proxy::race::{First, race};
use crate::proxy::record::{self, Sent, Told};
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
    let patience = Patience::Some;
    let question = Question { task, upstream, purpose: Purpose::Pass, body, patience };
    if let RequestBody::Streamed = pass.body {
        // Boxed: what runs both directions at once is large.
        return Box::pin(upload::streamed(core, &pass, &ground, &question, client)).await;
    }
    let asked = match race(ask(core, &question, client), client.gone()).await {
        First::Left(asked) => asked,
        First::Right(()) => return record::left(core, task),
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
    asked: Asked,
    client: &impl Downstream,
) {
    let Pass { task, upstream, status, .. } = pass;
    if !effects::has_any(upstream, task, &asked) {
        return send(core, task, upstream, asked, *status, client).await;
    }
    // Boxed, as a purge that all cores confirm is large.
    let filling = Box::pin(effects::settle(core, task, upstream, ground, &asked)).await;
    match filling {
        None => send(core, task, upstream, asked, *status, client).await,
        Some(filling) => Box::pin(fill_get(core, pass, filling, asked, client)).await,
    }
}

/// Stores an answer that says what a GET would now get, and sends it.
async fn fill_get(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    filling: Filling,
    mut asked: Asked,
    client: &impl Downstream,
) {
    match gather(&mut asked).await {
        Ok(body) => {
            let (answer, result) = kept(core, pass, filling, asked, body);
            deliver::whole(core, pass.task, answer, result, client).await;
        }
        Err(fault) => broken(core, pass.task, asked, fault, pass.status, client).await,
    }
}

/// Stores what an answer says of GET, and makes the client's of it.
fn kept(
    core: &Rc<Core>,
    pass: &Pass<'_>,
    filling: Filling,
    asked: Asked,
    body: Bytes,
) -> (Whole, Told) {
    let Filling { inquiry, ground, facts } = filling;
    let (head, times) = (asked.head.clone(), asked.times);
    asked.finish(core, pass.upstream);
    let material = Material { head: head.clone(), times, facts, body: body.clone(), grown_from: 0 };
    let (_, kept) = fill::fill_solo(core, &inquiry, &ground, material);
    let stored = kept == Kept::Stored;
    let status = CacheStatus { stored, fwd_status: Some(head.status), ..pass.status };
    let mut head = clean(head);
    deliver::note(&mut head.fields, &status);
    let length = Some(body.len() as u64);
    (Whole { head, body, length }, deliver::result_of(&status))
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
    asked.fail(core, fault);
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
    // RFC 9110 section 8.6.
    fields.remove("Content-Length");
    // A client that is gone is noticed with its answer.
    let _ = client.interim(hint.status, &fields).await;
}

/// An answer's head as a client gets it: hop-by-hop fields removed, Via and Date added.
#[must_use]
pub fn clean(mut head: ResponseHead) -> ResponseHead {
    let ending = hop::Ending::of(&head.fields);
    let ours = |field: &Field<'_>| WRITTEN_ANEW.iter().any(|name| field.is(name));
    let ends =
        |field: &Field<'_>| ending.has(field.name) || field.is("Content-Length") || ours(field);
    if head.fields.iter().any(|field| ends(&field)) {
        head.fields.retain(|field| !ends(&field));
    }
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
    let stated = stated_length(&asked.head);
    let code = asked.head.status;
    let mut head = clean(asked.take_head());
    deliver::note(&mut head.fields, &CacheStatus { fwd_status: Some(code), ..status });
    let result = deliver::result_of(&status);
    let first = match asked.connection.at_hand() {
        Ok(AtHand::Whole(chunks)) => {
            asked.finish(core, upstream);
            chunks.iter().for_each(|chunk| copy.take(chunk));
            copy.end();
            let body = joined(chunks);
            let bodyless = task.head.method == Method::Head || code == 304 || code == 204;
            let length = if bodyless { stated } else { Some(body.len() as u64) };
            let answer = Whole { head, body, length };
            return deliver::whole(core, task, answer, result, client).await;
        }
        Ok(AtHand::Part(chunks)) => chunks,
        Err(fault) => return broken(core, task, asked, fault, status, client).await,
    };
    let length = asked.connection.length();
    answer::push_own(core.plan(), &mut head.fields, &task.id, &task.standings);
    let length = length.map_or(Length::Unknown, Length::Known);
    let reply = Reply { status: code, fields: head.fields, length };
    let sent = match client.start(reply).await {
        // Boxed: most answers are whole.
        Ok(()) => Box::pin(pump(core, upstream, asked, first, &mut copy, client)).await,
        Err(Gone) => Sent::left(0),
    };
    record::answered(core, task, code, result, sent);
}

/// Sends `first` and then the rest as it comes.
async fn pump(
    core: &Core,
    upstream: &Upstream,
    mut asked: Asked,
    first: Vec<Bytes>,
    copy: &mut Copied<impl FnOnce(&[Bytes])>,
    client: &impl Downstream,
) -> Sent {
    let mut bytes = 0;
    for chunk in first {
        copy.take(&chunk);
        bytes += chunk.len() as u64;
        if client.chunk(chunk).await.is_err() {
            return Sent::left(bytes);
        }
    }
    let mut gone = pin!(client.gone());
    loop {
        // The origin may be silent for long: a client that leaves must not wait for its next byte.
        let chunk = match race(next(upstream, &mut asked), gone.as_mut()).await {
            First::Left(chunk) => chunk,
            First::Right(()) => return Sent::left(bytes),
        };
        match chunk {
            Ok(Some(chunk)) => {
                copy.take(&chunk);
                if asked.connection.is_done() {
                    copy.end();
                }
                bytes += chunk.len() as u64;
                if client.chunk(chunk).await.is_err() {
                    return Sent::left(bytes);
                }
            }
            Ok(None) => {
                copy.end();
                asked.finish(core, upstream);
                return match client.finish().await {
                    Ok(()) => Sent::whole(bytes),
                    Err(Gone) => Sent::left(bytes),
                };
            }
            Err(fault) => {
                asked.fail(core, fault);
                client.cut();
                return Sent::cut(bytes);
            }
        }
    }
}

/// The next bytes of a body that is passed on as it comes: each may take its time.
///
/// # Errors
/// As [`Connection::chunk`], and when nothing comes.
pub async fn next(upstream: &Upstream, asked: &mut Asked) -> Result<Option<Bytes>, Fault> {
    let chunk = asked.connection.chunk();
    timeout(upstream.request_timeout, chunk).await.unwrap_or(Err(Fault::Timeout))
}

/// Reads all of a body, in memory of its own, within the time of the exchange.
///
/// # Errors
/// As [`Connection::chunk`], and when the time is over.
pub async fn gather(asked: &mut Asked) -> Result<Bytes, Fault> {
    let deadline = asked.deadline;
    let gathered = deadline.bound(async {
        let room = asked.connection.length().unwrap_or(0).min(GATHER_ROOM_BYTES);
        let mut whole = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        while let Some(chunk) = asked.connection.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    });
    gathered.await.unwrap_or(Err(Fault::Timeout))
}

/// The chunks in one piece; copied only where there are several.
fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    match chunks.len() {
        0 => Bytes::new(),
        1 => chunks.swap_remove(0),
        _ => chunks.concat().into(),
    }
}

/// Reserved at once for a body of stated length: it has to come first.
const GATHER_ROOM_BYTES: u64 = 256 * 1024;

/// The Content-Length of a head without body (HEAD, 304), to be passed on.
fn stated_length(head: &ResponseHead) -> Option<u64> {
    head.fields.single("Content-Length").and_then(crate::http::list::decimal)
}
