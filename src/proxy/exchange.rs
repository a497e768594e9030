//! The slow path's first step: what of a request must be known before anything is looked up.

use std::rc::Rc;

use bytes::Bytes;

use crate::cache::key::Class;
use crate::cache::{CacheStatus, Key, Reason, RequestFacts, json};
use crate::http::list::decimal;
use crate::http::{Fields, Method, ResponseHead, Version, accept};
use crate::metrics::CacheResult;
use crate::proxy::body::{self, RequestBody};
use crate::proxy::core::Core;
use crate::proxy::deliver::{self, Whole};
use crate::proxy::downstream::{BodyEnd, Downstream};
use crate::proxy::error::Refusal;
use crate::proxy::gate::METHODS;
use crate::proxy::inquiry::Inquiry;
use crate::proxy::keyed::Keyed;
use crate::proxy::pass::{self, Pass};
use crate::proxy::plan::Upstream;
use crate::proxy::request::{Destination, Task};
use crate::proxy::rescue;
use crate::proxy::serve;

/// Answers a request that the hit path left. Never fails: every fault has an answer, or nobody is
/// left to hear it.
pub async fn exchange(core: &Rc<Core>, task: Task, client: &impl Downstream) {
    match task.destination {
        Destination::Upstream(index) => proxied(core, task, index, client).await,
        Destination::Refused(refusal) => rescue::refuse(core, &task, refusal, client).await,
        // The drivers hand these to `admin`.
        Destination::Admin => rescue::refuse(core, &task, Refusal::NotFound, client).await,
    }
}

async fn proxied(core: &Rc<Core>, task: Task, index: u16, client: &impl Downstream) {
    if is_last_hop(&task) {
        return answer_options(core, &task, client).await;
    }
    let upstream = core.plan().upstream(index);
    let policy = core.plan().policy(upstream, task.head.path.as_bytes());
    let facts = RequestFacts::parse(&task.head.method, &task.head.fields);
    let class = Class::of(&task.head.method);
    let lookup = facts.lookup(&policy).and(class.ok_or(Reason::MethodNotCached));
    let body = match body::take(core, &task, lookup.is_ok(), client).await {
        Ok(body) => body,
        Err(BodyEnd::Gone) => return,
        Err(BodyEnd::Refused(refusal)) => {
            return rescue::refuse(core, &task, refusal, client).await;
        }
    };
    let lookup = lookup.and_then(|class| key(core, upstream, class, &task, &body));
    let primary = match lookup {
        Ok(primary) => primary,
        Err(reason) => {
            let status = CacheStatus::forwarded(reason);
            let pass = Pass { task: &task, upstream, body, status };
            return pass::pass(core, pass, client).await;
        }
    };
    let codings = accept::codings(&task.head.fields);
    let body = match body {
        RequestBody::Whole(body) => body,
        RequestBody::None | RequestBody::Streamed => Bytes::new(),
    };
    let inquiry = Inquiry { task, upstream: index, policy, facts, primary, codings, body };
    serve::serve(core, Rc::new(inquiry), client).await;
}

/// Whether the client wants no hop beyond this one to see its OPTIONS (RFC 9110 section 7.6.2).
fn is_last_hop(task: &Task) -> bool {
    task.head.method == Method::Options
        && task.head.fields.single("Max-Forwards").and_then(decimal) == Some(0)
}

async fn answer_options(core: &Rc<Core>, task: &Task, client: &impl Downstream) {
    let mut fields = Fields::new();
    fields.push("Date", crate::http::date::write_http_date(crate::net::wall()));
    fields.push("Allow", METHODS);
    let head = ResponseHead { status: 204, version: Version::Http11, fields };
    let answer = Whole { head, body: Bytes::new(), length: None };
    deliver::whole(core, task, answer, CacheResult::None, client).await;
}

/// The primary key, with a digest of the body where there is one.
fn key(
    core: &Core,
    upstream: &Upstream,
    class: Class,
    task: &Task,
    body: &RequestBody,
) -> Result<Key, Reason> {
    let head = &task.head;
    let digest = match body {
        RequestBody::Whole(body) => {
            let content_type = head.fields.get("Content-Type").unwrap_or_default();
            let digest = json::digest_body(content_type, body);
            Some(digest.map_err(|_| Reason::BodyNotCanonical)?)
        }
        RequestBody::None | RequestBody::Streamed => None,
    };
    let keyed = Keyed {
        class,
        path: head.path.as_bytes(),
        query: head.query.as_deref().map(str::as_bytes),
        api_key: head.fields.get("X-API-Key"),
        body: digest.as_ref(),
    };
    let mut text = Vec::new();
    keyed.write(core.plan(), upstream, &mut text);
    Ok(Key::new(&text, &core.shared.seed))
}
