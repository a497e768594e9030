//! What of a request matters to the cache, parsed once, off the fast path.

use crate::cache::control::RequestControl;
use crate::cache::reason::Reason;
use crate::cache::settings::Settings;
use crate::http::conditional::{has_conditions, has_origin_conditions};
use crate::http::{Fields, Method};

/// The facts of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The method.
    pub method: Method,
    /// Its directives.
    pub control: RequestControl,
    /// It has Authorization (RFC 9111 section 3.5).
    pub authorization: bool,
    /// It has Range.
    pub range: bool,
    /// It has a condition that only the origin can judge: If-Match or If-Unmodified-Since (RFC 9110
    /// section 13.1.1: against the selected representation, not a cached one), or any at all on a
    /// POST, whose conditions are about the state before it acts (section 13.1.2: 412).
    pub precondition: bool,
}

impl RequestFacts {
    /// Reads a request. Cost: a few scans of the fields.
    #[must_use]
    pub fn parse(method: &Method, fields: &Fields) -> Self {
        Self {
            method: method.clone(),
            control: RequestControl::parse(fields),
            authorization: fields.contains("Authorization"),
            range: fields.contains("Range"),
            precondition: match method {
                Method::Post => has_conditions(fields),
                _ => has_origin_conditions(fields),
            },
        }
    }

    /// The same request as if it had been a GET: for what a POST stores for its target (RFC 9110
    /// section 9.3.3) and for background refreshes.
    #[must_use]
    pub fn as_get(&self) -> Self {
        Self { method: Method::Get, ..self.clone() }
    }

    /// Whether the store may be asked at all.
    ///
    /// # Errors
    /// The reason why the request goes straight to the origin. A response to it is not stored
    /// either, save for the effects of its method ([`crate::cache::invalidates`],
    /// [`crate::cache::fills_get`]).
    pub fn lookup(&self, settings: &Settings) -> Result<(), Reason> {
        if !settings.methods.contains(&self.method) {
            return Err(Reason::MethodNotCached);
        }
        if self.control.no_store {
            return Err(Reason::RequestNoStore);
        }
        if self.precondition {
            return Err(Reason::Precondition);
        }
        Ok(())
    }

    /// Whether the origin may be asked where nothing is stored; if not the answer is a 504.
    ///
    /// # Errors
    /// [`Reason::OnlyIfCached`] (RFC 9111 section 5.2.1.7).
    pub const fn forward(&self) -> Result<(), Reason> {
        if self.control.only_if_cached { Err(Reason::OnlyIfCached) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Methods;
    use crate::cache::sample::{Lines, fields};

    fn facts(method: Method, lines: Lines<'_>) -> RequestFacts {
        RequestFacts::parse(&method, &fields(lines))
    }

    #[test]
    fn a_request_that_the_store_may_not_answer_says_why() {
        let settings = Settings::default();
        let cases: [(Method, Lines<'_>, Result<(), Reason>); 7] = [
            (Method::Get, &[], Ok(())),
            (Method::Head, &[("Range", "bytes=0-1"), ("If-None-Match", "\"a\"")], Ok(())),
            (Method::Post, &[], Err(Reason::MethodNotCached)),
            (Method::Query, &[], Err(Reason::MethodNotCached)),
            (Method::Get, &[("Cache-Control", "no-store")], Err(Reason::RequestNoStore)),
            (Method::Get, &[("If-Match", "\"a\"")], Err(Reason::Precondition)),
            (Method::Get, &[("If-Unmodified-Since", "x")], Err(Reason::Precondition)),
        ];
        for (method, lines, expected) in cases {
            assert_eq!(facts(method, lines).lookup(&settings), expected, "{lines:?}");
        }
    }

    /// RFC 9110 section 13.1: a stored answer to a POST has no state that they could be about.
    #[test]
    fn every_condition_of_a_post_is_the_origins_to_judge() {
        let methods = Methods { post: true, query: true, ..Methods::default() };
        let settings = Settings { methods, ..Settings::default() };
        let plain = facts(Method::Post, &[("Range", "bytes=0-1")]);
        assert_eq!(plain.lookup(&settings), Ok(()));
        for name in
            ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"]
        {
            let lines = [(name, "\"a\"")];
            let post = facts(Method::Post, &lines);
            assert_eq!(post.lookup(&settings), Err(Reason::Precondition), "{name}");
            let origins = matches!(name, "If-Match" | "If-Unmodified-Since");
            for method in [Method::Get, Method::Query] {
                assert_eq!(facts(method, &lines).precondition, origins, "{name}");
            }
        }
    }

    /// RFC 9111 section 5.2.1.7.
    #[test]
    fn only_if_cached_never_reaches_the_origin() {
        let facts = facts(Method::Get, &[("Cache-Control", "only-if-cached")]);
        assert_eq!(facts.lookup(&Settings::default()), Ok(()));
        assert_eq!(facts.forward(), Err(Reason::OnlyIfCached));
    }

    #[test]
    fn what_the_policy_needs_is_read() {
        let facts = facts(Method::Post, &[("authorization", "x"), ("range", "bytes=0-")]);
        assert!(facts.authorization && facts.range && !facts.precondition);
        assert_eq!(facts.as_get().method, Method::Get);
        assert!(facts.as_get().authorization);
    }
}
