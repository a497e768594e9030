//! A request that the cache may answer, with everything about it that is asked more than once.

use bytes::Bytes;

use crate::cache::{self, Key, RequestFacts};
use crate::http::{ResponseHead, accept};
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

    /// Whether its answer depends on more than the whole representation.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.facts.range || crate::http::conditional::has_conditions(&self.task.head.fields)
    }
}

/// Whether the body is gzip and nothing else.
#[must_use]
pub fn is_gzip(head: &ResponseHead) -> bool {
    head.fields.single("Content-Encoding").is_some_and(|value| {
        value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip")
    })
}
