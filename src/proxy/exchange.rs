//! The slow path's first step: what of a request must be known before anything is looked up.

use std::rc::Rc;

use bytes::Bytes;

use crate::cache::key::Class;
use crate::cache::{self, CacheStatus, Key, Reason, RequestFacts, json};
use crate::http::list::decimal;
use crate::http::{Fields, Method, RequestHead, ResponseHead, Version, accept};
use crate::metrics::{CacheResult, CoreCells, Gauge};
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
use crate::proxy::record;
use crate::proxy::request::{Destination, Task};
use crate::proxy::rescue;
use crate::proxy::serve;

/// Answers a request that the hit path left. Never fails: every fault has an answer, or nobody is
/// left to hear it.
pub async fn exchange(core: &Rc<Core>, task: Box<Task>, client: &impl Downstream) {
    match task.destination {
        Destination::Upstream(index) => proxied(core, task, index, client).await,
        Destination::Refused(refusal) => rescue::refuse(core, &task, refusal, client).await,
        // The drivers hand these to `admin`.
        Destination::Admin => rescue::refuse(core, &task, Refusal::NotFound, client).await,
    }
}

async fn proxied(core: &Rc<Core>, task: Box<Task>, index: u16, client: &impl Downstream) {
    let _counted = InFlight::new(&core.cells);
    if is_last_hop(&task) {
        return answer_options(core, &task, client).await;
    }
    let prepared = Prepared::of(core, index, &task.head);
    let body = match body::take(core, &task, prepared.lookup.is_ok(), client).await {
        Ok(body) => body,
        Err(BodyEnd::Gone) => return record::left(core, &task),
        Err(BodyEnd::Refused(refusal)) => {
            return rescue::refuse(core, &task, refusal, client).await;
        }
    };
    match prepared.inquiry(core, task, body) {
        Ok(inquiry) => serve::serve(core, Rc::new(inquiry), client).await,
        Err(other) => {
            let NoInquiry { task, body, reason } = *other;
            if reason == Reason::OnlyIfCached {
                return rescue::refuse(core, &task, Refusal::OnlyIfCached, client).await;
            }
            let (upstream, status) = (core.plan().upstream(index), CacheStatus::forwarded(reason));
            let pass = Pass { task: &task, upstream, body, status };
            pass::pass(core, pass, client).await;
        }
    }
}

/// Counts an exchange for as long as it runs, however it ends.
struct InFlight<'c>(&'c CoreCells);

impl<'c> InFlight<'c> {
    fn new(cells: &'c CoreCells) -> Self {
        cells.raise(Gauge::RequestsInFlight);
        Self(cells)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lower(Gauge::RequestsInFlight);
    }
}

/// What is known of a request before its body.
pub struct Prepared {
    upstream: u16,
    policy: cache::Settings,
    facts: RequestFacts,
    /// The class of methods it is looked up under, or why it is not.
    pub lookup: Result<Class, Reason>,
}

/// A request that the cache is not asked about.
pub struct NoInquiry {
    /// The request.
    pub task: Box<Task>,
    /// Its body.
    pub body: RequestBody,
    /// Why.
    pub reason: Reason,
}

impl Prepared {
    /// Reads a request's head.
    #[must_use]
    pub fn of(core: &Core, upstream: u16, head: &RequestHead) -> Self {
        let policy = core.plan().policy(core.plan().upstream(upstream), head.path.as_bytes());
        let facts = RequestFacts::parse(&head.method, &head.fields);
        let class = Class::of(&head.method);
        let lookup = facts.lookup(&policy).and(class.ok_or(Reason::MethodNotCached));
        Self { upstream, policy, facts, lookup }
    }

    /// The inquiry, once the body is there.
    ///
    /// # Errors
    /// [`NoInquiry`]: the request goes straight through, or is refused where it says
    /// `only-if-cached`.
    pub fn inquiry(
        self,
        core: &Core,
        task: Box<Task>,
        body: RequestBody,
    ) -> Result<Inquiry, Box<NoInquiry>> {
        let Self { upstream, policy, facts, lookup } = self;
        let of = core.plan().upstream(upstream);
        let key = lookup.and_then(|class| key(core, of, class, &task.head, &body));
        let primary = match key {
            Ok(primary) => primary,
            Err(reason) => {
                let reason = facts.forward().err().unwrap_or(reason);
                return Err(Box::new(NoInquiry { task, body, reason }));
            }
        };
        let codings = accept::codings(&task.head.fields);
        let body = match body {
            RequestBody::Whole(body) => body,
            RequestBody::None | RequestBody::Streamed => Bytes::new(),
        };
        Ok(Inquiry { task, upstream, policy, facts, primary, codings, body })
    }
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
    head: &RequestHead,
    body: &RequestBody,
) -> Result<Key, Reason> {
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
