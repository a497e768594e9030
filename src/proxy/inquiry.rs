//! A request that the cache may answer, with everything about it that is asked more than once.

use bytes::Bytes;

use crate::cache::{self, Entry, Key, Kind, RequestFacts};
use crate::http::{Method, RequestHead, ResponseHead, accept};
use crate::proxy::core::Core;
use crate::proxy::plan::Upstream;
use crate::proxy::request::Task;

/// The request.
pub struct Inquiry {
    /// As it came.
    pub task: Box<Task>,
    /// Where it would go.
    pub upstream: u16,
    /// The policy that holds for it.
    pub policy: cache::Settings,
    /// What it means to the cache.
    pub facts: RequestFacts,
    /// The key before Vary.
    pub primary: Key,
    /// The codings its client takes.
    pub codings: accept::Codings,
    /// Its body, if it has one: then it is part of the key.
    pub body: Bytes,
}

impl Inquiry {
    /// Its upstream.
    #[must_use]
    pub fn upstream<'c>(&self, core: &'c Core) -> &'c Upstream {
        core.plan().upstream(self.upstream)
    }

    /// Whether an answer's body comes in a coding that this client doesn't take.
    #[must_use]
    pub fn must_decode(&self, head: &ResponseHead) -> bool {
        !self.codings.gzip.is_acceptable() && is_gzip(head)
    }

    /// Whether it asks for ranges: of GET alone (RFC 9110 section 14.2).
    #[must_use]
    pub fn wants_range(&self) -> bool {
        self.facts.range && self.task.head.method == Method::Get
    }

    /// Whether its answer depends on more than the whole representation.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.wants_range() || crate::http::conditional::has_conditions(&self.task.head.fields)
    }

    /// The request that renews `stored` in the background. A HEAD brings nothing to store, so that
    /// it becomes the GET whose response that is; what this client wants of it (conditions,
    /// directives, of a whole a range) is not what the cache wants.
    #[must_use]
    pub fn renewing(&self, stored: &Entry) -> Self {
        let mut head = self.task.head.clone();
        if head.method == Method::Head {
            head = RequestHead { method: Method::Get, ..head };
        }
        let is_part = matches!(stored.kind(), Kind::Part(_));
        let kept = |name: &[u8]| {
            let is =
                |names: &[&str]| names.iter().any(|it| name.eq_ignore_ascii_case(it.as_bytes()));
            !is(OF_ONE_CLIENT) && (is_part || !is(OF_A_RANGE))
        };
        head.fields.retain(|field| kept(field.name));
        Self {
            codings: self.codings,
            facts: RequestFacts::parse(&head.method, &head.fields),
            task: Box::new(self.task.with_head(head)),
            upstream: self.upstream,
            policy: self.policy,
            primary: self.primary.clone(),
            body: self.body.clone(),
        }
    }
}

/// What a client says of the answer that it wants now.
const OF_ONE_CLIENT: &[&str] = &["Cache-Control", "Pragma", "If-None-Match", "If-Modified-Since"];
/// And of a part of it.
const OF_A_RANGE: &[&str] = &["Range", "If-Range"];

/// Whether the body is gzip and nothing else.
#[must_use]
pub fn is_gzip(head: &ResponseHead) -> bool {
    head.fields.single("Content-Encoding").is_some_and(|value| {
        value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip")
    })
}
