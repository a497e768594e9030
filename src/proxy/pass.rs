//! Straight to the origin and back, for one client: what the cache can't answer or keep.
//!
//! Both directions run at once: the request's body goes out while the answer may already come
//! in, each with the other side's back-pressure.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use monoio::time::timeout;

use crate::cache::{
    self, CacheStatus, Entry, HeadUpdate, Keep, Reason, Target, head_update, invalidates,
    invalidation_targets, storable, update,
};
use crate::http::{Method, ResponseHead, Version, hop};
use crate::net::wall;
use crate::proxy::answer;
use crate::proxy::ask::{self, Asked, Question};
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;
use crate::proxy::deliver::{self, Whole};
use crate::proxy::downstream::{Downstream, Length, Reply};
use crate::proxy::error::Fault;
use crate::proxy::fill::{self, Ground, Material};
use crate::proxy::inquiry::Inquiry;
use crate::proxy::origin::{AtHand, Purpose};
use crate::proxy::plan::Upstream;
use crate::proxy::purge;
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
    let Pass { task, upstream, status, .. } = &pass;
    let (task, upstream) = (*task, *upstream);
    let body = match &pass.body {
        RequestBody::Whole(body) => body.clone(),
        RequestBody::None | RequestBody::Streamed => Bytes::new(),
    };
    let question = Question { task, upstream, purpose: Purpose::Pass, body };
    if let RequestBody::Streamed = pass.body {
        return upload::streamed(core, &pass, &question, client).await;
    }
    let asked = match race(ask(core, &question, client), client.gone()).await {
        First::Left(asked) => asked,
        First::Right(()) => return,
    };
    match asked {
        Ok(asked) => {
            effects(core, &pass, &asked.answer.head).await;
            send(core, task, upstream, asked, *status, client).await;
        }
        Err(fault) => rescue::fail(core, task, fault, client).await,
    }
}

/// Fetches for one client a response that the cache may still be able to keep.
pub async fn alone(
    core: &Rc<Core>,
    inquiry: &Rc<Inquiry>,
    index: Option<Arc<Entry>>,
    stored: Option<Arc<Entry>>,
    reason: Reason,
    client: &impl Downstream,
) {
    let ground = Ground::new(core, index);
    let task = &inquiry.task;
    let upstream = inquiry.upstream(core);
    let head = task.head.method == Method::Head;
    // The conditions and ranges of a HEAD are the origin's to judge: nothing is filled by it.
    let purpose = if head {
        Purpose::Pass
    } else {
        Purpose::Fill { stored: None, gzip: inquiry.codings.gzip.is_acceptable() }
    };
    let question = Question { task, upstream, purpose, body: inquiry.body.clone() };
    let asked = match race(ask(core, &question, client), client.gone()).await {
        First::Left(asked) => asked,
        First::Right(()) => return,
    };
    let mut asked = match asked {
        Ok(asked) => asked,
        Err(fault) => {
            if let Some(stored) = stored
                && rescue::stale(core, inquiry, &stored, fault, client).await
            {
                return;
            }
            return rescue::fault(core, inquiry, fault, client).await;
        }
    };
    let status = CacheStatus {
        fwd_status: Some(asked.answer.head.status),
        ..CacheStatus::forwarded(reason)
    };
    if head {
        renew(core, inquiry, &ground, &asked).await;
        return send(core, task, upstream, asked, status, client).await;
    }
    let facts = storable(&inquiry.facts, &asked.answer.head, asked.times, &inquiry.policy);
    let small = asked.answer.body.length().is_some_and(|it| it <= GATHER_BYTES_MAX);
    // What must be cut, decoded or judged by conditions must be whole first.
    let partial = inquiry.is_partial() || inquiry.must_decode(&asked.answer.head);
    let whole = small && (facts.is_ok() || partial);
    if !whole {
        return send(core, task, upstream, asked, status, client).await;
    }
    let gathered = match race(gather(upstream, &mut asked), client.gone()).await {
        First::Left(gathered) => gathered,
        First::Right(()) => return,
    };
    let body = match gathered {
        Ok(body) => body,
        Err(fault) => {
            asked.leave.failed(None);
            core.cells.on_upstream_failure(fault.as_str());
            return rescue::fault(core, inquiry, fault, client).await;
        }
    };
    let Asked { connection, answer, times, leave } = asked;
    leave.answered(&answer.head);
    connection.finish(&answer.body, &core.pools[usize::from(upstream.origin)]);
    match facts {
        Ok(facts) => {
            let material = Material { head: answer.head, times, facts, body };
            let entry = fill::fill_solo(core, inquiry, &ground, material);
            let status = CacheStatus { stored: true, ..status };
            deliver::entry(core, inquiry, &entry, status, client).await;
        }
        Err(why) => {
            let status = CacheStatus { detail: Some(why), ..status };
            let head = clean(answer.head);
            let mut whole = deliver::conditioned(inquiry, head, body, times.responded, wall());
            deliver::note(&mut whole.head.fields, &status);
            let result = deliver::result_of(&status);
            deliver::whole(core, task, whole, result, client).await;
        }
    }
}

async fn ask(
    core: &Rc<Core>,
    question: &Question<'_>,
    client: &impl Downstream,
) -> Result<Asked, Fault> {
    ask::ask(core, question, async |hint: &ResponseHead| {
        tell(hint, client).await;
    })
    .await
}

/// Passes an interim answer on, without what belongs to the origin's connection.
pub async fn tell(hint: &ResponseHead, client: &impl Downstream) {
    let mut fields = hint.fields.clone();
    hop::strip_hop_by_hop(&mut fields);
    // A client that is gone is noticed with its answer.
    let _ = client.interim(hint.status, &fields).await;
}

/// Hop-by-hop fields removed, Via added.
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
    mut asked: Asked,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let stated = stated_length(&asked.answer.head);
    let code = asked.answer.head.status;
    let mut head = clean(std::mem::replace(&mut asked.answer.head, empty()));
    deliver::note(&mut head.fields, &CacheStatus { fwd_status: Some(code), ..status });
    let result = deliver::result_of(&status);
    let first = match asked.connection.at_hand(&mut asked.answer.body) {
        Ok(AtHand::Whole(chunks)) => {
            finish(core, upstream, asked, code);
            let body = Bytes::from(chunks.concat());
            let bodyless = task.head.method == Method::Head || code == 304 || code == 204;
            let length = if bodyless { stated } else { Some(body.len() as u64) };
            let answer = Whole { head, body, length };
            return deliver::whole(core, task, answer, result, client).await;
        }
        Ok(AtHand::Part(chunks)) => chunks,
        Err(fault) => {
            asked.leave.failed(None);
            core.cells.on_upstream_failure(fault.as_str());
            return rescue::fail(core, task, fault, client).await;
        }
    };
    let length = asked.answer.body.length();
    answer::push_own(core.plan(), &mut head.fields, &task.id, &task.standings);
    let length = length.map_or(Length::Unknown, Length::Known);
    let reply = Reply { status: code, fields: head.fields, length };
    let mut bytes = 0;
    if client.start(reply).await.is_ok() {
        bytes = pump(core, upstream, asked, (code, first), client).await;
    }
    deliver::count(core, task, code, result, bytes);
}

async fn pump(
    core: &Core,
    upstream: &Upstream,
    mut asked: Asked,
    (code, first): (u16, Vec<Bytes>),
    client: &impl Downstream,
) -> u64 {
    let mut bytes = 0;
    for chunk in first {
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
                bytes += chunk.len() as u64;
                if client.chunk(chunk).await.is_err() {
                    return bytes;
                }
            }
            Ok(None) => {
                finish(core, upstream, asked, code);
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

fn finish(core: &Core, upstream: &Upstream, asked: Asked, code: u16) {
    if code >= 500 {
        asked.leave.failed(None);
    } else {
        asked.leave.succeeded();
    }
    asked.connection.finish(&asked.answer.body, &core.pools[usize::from(upstream.origin)]);
}

async fn next(upstream: &Upstream, asked: &mut Asked) -> Result<Option<Bytes>, Fault> {
    let chunk = asked.connection.chunk(&mut asked.answer.body);
    timeout(upstream.request_timeout, chunk).await.unwrap_or(Err(Fault::Timeout))
}

async fn gather(upstream: &Upstream, asked: &mut Asked) -> Result<Bytes, Fault> {
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

fn empty() -> ResponseHead {
    ResponseHead { status: 200, version: Version::Http11, fields: crate::http::Fields::new() }
}

/// What a HEAD's answer says of the stored GET (RFC 9111 section 4.3.5).
async fn renew(core: &Rc<Core>, inquiry: &Inquiry, ground: &Ground, asked: &Asked) {
    let key = &inquiry.primary;
    let Some(entry) = core.shared.hub.live(key.hash(), key.bytes()) else { return };
    if !matches!(entry.kind(), cache::Kind::Content) {
        return;
    }
    let (head, times) = (&asked.answer.head, asked.times);
    let bytes = entry.body().len() as u64;
    match head_update(entry.status(), entry.fields(), bytes, head, times) {
        HeadUpdate::Ignore => {}
        HeadUpdate::Invalidate => {
            purge::forget(core, inquiry.upstream(core), key).await;
        }
        HeadUpdate::Update => {
            let facts = inquiry.facts.as_get();
            let updated =
                update(&facts, entry.status(), entry.fields(), head, times, &inquiry.policy);
            if updated.keep == Keep::Replace && core.epoch() == ground.epoch {
                let body = entry.body().clone();
                let ledger = &core.shared.ledger;
                let newer = Entry::new(key.clone(), updated.facts, &updated.fields, body, ledger);
                fill::replace(core, inquiry, ground, Arc::new(fill::marked(core, newer)));
            }
        }
    }
}

/// What an answer means for what is stored (RFC 9111 section 4.4), before it is sent.
pub async fn effects(core: &Rc<Core>, pass: &Pass<'_>, head: &ResponseHead) {
    let Pass { task, upstream, .. } = pass;
    if !invalidates(&task.head.method, head.status) {
        return;
    }
    let (path, query) = (&task.head.path, task.head.query.as_deref());
    purge::invalidate(core, upstream, path, query).await;
    let authorities = [task.head.authority.as_str(), upstream.target.authority()];
    let target = Target { authorities: &authorities, path, query };
    for reference in invalidation_targets(&target, head) {
        let path = inner_path(core, upstream, &reference.path);
        purge::invalidate(core, upstream, &path, reference.query.as_deref()).await;
    }
}

/// The path under which the cache knows a reference: without the API prefix a client would use,
/// or the base path the origin does.
fn inner_path(core: &Core, upstream: &Upstream, path: &str) -> String {
    let base = upstream.target.base_path();
    let stripped = core.plan().prefix.strip(path.as_bytes());
    let stripped = stripped.and_then(|it| std::str::from_utf8(it).ok());
    match path.strip_prefix(base).filter(|it| !base.is_empty() && it.starts_with('/')) {
        Some(inner) => inner.to_owned(),
        None if core.plan().prefix.as_str().is_empty() => path.to_owned(),
        None => stripped.unwrap_or(path).to_owned(),
    }
}

/// Up to this length a storable answer is gathered and kept.
const GATHER_BYTES_MAX: u64 = 256 * 1024;
