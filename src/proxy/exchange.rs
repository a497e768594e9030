//! The slow path's first step: what of a request must be known before anything is looked up.

use std::rc::Rc;

use bytes::Bytes;

use crate::cache::key::{BodyDigest, Class};
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

/// The digest of a request's content: of what POST and QUERY ask, empty or not, and of what a GET
/// brings although it should not. Its type is part of it.
///
/// # Errors
/// [`Reason::BodyNotCanonical`]: two requests with this digest need not mean the same.
fn content_digest(
    class: Class,
    fields: &Fields,
    body: &RequestBody,
) -> Result<Option<BodyDigest>, Reason> {
    let body = match body {
        RequestBody::Whole(body) => body,
        RequestBody::None | RequestBody::Streamed => &Bytes::new(),
    };
    if body.is_empty() && class == Class::Read {
        return Ok(None);
    }
    let read_by_more = NOT_IN_DIGEST.iter().any(|name| fields.contains(name));
    if read_by_more || fields.all("Content-Type").nth(1).is_some() {
        return Err(Reason::BodyNotCanonical);
    }
    let content_type = fields.get("Content-Type").unwrap_or_default();
    if body.is_empty() {
        return Ok(Some(json::digest_nothing(content_type)));
    }
    let digest = json::digest_body(content_type, body);
    digest.map(Some).map_err(|_| Reason::BodyNotCanonical)
}

/// Request fields that change what a content means (RFC 9110 sections 8.4 to 8.7, 14.4): rare
/// enough to go to the origin.
const NOT_IN_DIGEST: [&str; 4] =
    ["Content-Encoding", "Content-Language", "Content-Location", "Content-Range"];

/// The primary key, with a digest of the content where there is one.
fn key(
    core: &Core,
    upstream: &Upstream,
    class: Class,
    head: &RequestHead,
    body: &RequestBody,
) -> Result<Key, Reason> {
    let digest = content_digest(class, &head.fields, body)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(
        class: Class,
        lines: &[(&str, &str)],
        body: &'static str,
    ) -> Result<Option<BodyDigest>, Reason> {
        let mut fields = Fields::new();
        lines.iter().for_each(|(name, value)| fields.push(name, value));
        let body = match body {
            "" => RequestBody::None,
            body => RequestBody::Whole(Bytes::from_static(body.as_bytes())),
        };
        content_digest(class, &fields, &body)
    }

    /// RFC 9110 section 8: what says how a content is to be read is part of what is asked.
    #[test]
    fn contents_share_a_digest_only_where_they_mean_the_same() {
        let json = ("Content-Type", "application/json");
        let text = ("Content-Type", "text/plain");
        for class in [Class::Post, Class::Query] {
            let all = [
                digest(class, &[], ""),
                digest(class, &[json], ""),
                digest(class, &[text], ""),
                digest(class, &[text], "{}"),
                digest(class, &[json], "{}"),
                digest(class, &[], "{}"),
            ];
            for (at, one) in all.iter().enumerate() {
                assert!(matches!(one, Ok(Some(_))), "{at}");
                assert_eq!(all.iter().filter(|it| *it == one).count(), 1, "{at}");
            }
            for name in NOT_IN_DIGEST.into_iter().chain(["Content-Type"]) {
                for body in ["", "{}"] {
                    let found = digest(class, &[json, (name, "x")], body);
                    assert_eq!(found, Err(Reason::BodyNotCanonical), "{name}");
                }
            }
            assert_eq!(digest(class, &[json], "{"), Err(Reason::BodyNotCanonical));
        }
    }

    #[test]
    fn a_get_without_content_has_no_digest_whatever_it_says_of_it() {
        let lines = [("Content-Type", "a/b"), ("Content-Encoding", "gzip")];
        assert_eq!(digest(Class::Read, &lines, ""), Ok(None));
        let empty = RequestBody::Whole(Bytes::new());
        assert_eq!(content_digest(Class::Read, &Fields::new(), &empty), Ok(None));
        assert!(matches!(digest(Class::Read, &[], "x"), Ok(Some(_))));
        assert_eq!(digest(Class::Read, &lines, "x"), Err(Reason::BodyNotCanonical));
    }
}
