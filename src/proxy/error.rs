//! Everything that can go wrong with one exchange, grouped by whose fault it is, and the one match
//! that turns it into a status and a code ("Errors" in the README lists them).

use std::time::Duration;

use crate::http::Fields;
use crate::http1::RequestFault;

/// The request is refused; nothing of it reached the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message breaks HTTP's rules.
    Malformed(RequestFault),
    /// The path or query has bytes or escapes that are not let through.
    BadTarget(&'static str),
    /// X-API-Key more than once: which of them counts would be a guess, ours or the origin's.
    RepeatedKey,
    /// An `https` target over a connection without TLS (RFC 9110 section 7.4).
    Misdirected,
    /// The body is not what its headers say.
    BadBody(&'static str),
    /// Its trailer section is larger than the limit.
    TrailersTooLarge(&'static str),
    /// The body is not well-formed JSON; the offset of the first bad byte.
    BadJson(usize),
    /// A body with a Content-Type that the endpoint does not take.
    NotJson,
    /// A body in a content coding, where the endpoint must see that it is JSON.
    Coded,
    /// The body is larger than `security.max_request_body_size`.
    BodyTooLarge,
    /// The head or body did not arrive in time.
    Slow,
    /// No key, or one that is not known.
    Unauthorized,
    /// An operator endpoint without its token, or with a wrong one.
    TokenNeeded,
    /// The path is not in `whitelisted_endpoints`.
    EndpointNotAllowed,
    /// An operator endpoint without a token set, asked from another machine.
    Forbidden,
    /// No such path.
    NotFound,
    /// The path takes other methods; the value of Allow.
    MethodNotAllowed(&'static str),
    /// A method that is not implemented.
    MethodUnknown,
    /// Too many requests; whole seconds until the next is admitted.
    RateLimited(u32),
    /// `only-if-cached`, and nothing fit to serve.
    OnlyIfCached,
    /// The daemon is short of something.
    Overloaded,
}

/// The origin could not be asked, or answered in a way that can't be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The name could not be resolved.
    Resolve,
    /// The address is refused by the SSRF guard.
    NotAllowed,
    /// No connection.
    Dial,
    /// TLS failed.
    Tls,
    /// The connection ended before the answer's head was complete.
    Reset,
    /// The body ended early.
    Truncated,
    /// The answer breaks HTTP's rules; the rule's word.
    Invalid(&'static str),
    /// The answer is larger than `security.max_response_body_size`.
    TooLarge,
    /// No answer in time.
    Timeout,
    /// Every connection is in use, and too many requests wait for one.
    Busy,
    /// It waited for a connection, and none became free in time.
    Queued,
    /// The breaker is open; whole seconds until it lets a probe through.
    CircuitOpen(u32),
    /// The upstream asked to be left alone, or its pace is used up; whole seconds until it isn't.
    Paused(u32),
    /// An offline endpoint with nothing stored, and no origin.
    OfflineNotCached,
    /// The origin answered with this server error, and there is something stale to serve instead.
    Status(u16),
    /// The fetch was given up by the one who led it.
    Abandoned,
    /// A bug; the panic was caught.
    Internal,
}

/// What a client is told: the parts of an `application/problem+json` (RFC 9457).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status.
    pub status: u16,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people. Never names an address, path, database or library.
    pub detail: &'static str,
    /// Where in the request's body, for [`Refusal::BadJson`].
    pub offset: Option<usize>,
    /// Whole seconds for Retry-After.
    pub retry_after: Option<u32>,
    /// The value of Allow.
    pub allow: Option<&'static str>,
    /// The value of WWW-Authenticate.
    pub challenge: Option<&'static str>,
    /// The value of Accept-Encoding, for what was wrong with the request's coding.
    pub codings: Option<&'static str>,
}

impl Refusal {
    /// The word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.problem().code
    }

    /// What the client is told.
    #[must_use]
    pub fn problem(self) -> Problem {
        match self {
            Self::Malformed(fault) => malformed(fault),
            Self::BadTarget(detail) | Self::BadBody(detail) => {
                Problem::new(400, "bad_request", detail)
            }
            Self::Misdirected => {
                let detail = "an https target is answered over TLS only";
                Problem::new(421, "misdirected_request", detail)
            }
            Self::RepeatedKey => {
                Problem::new(400, "bad_request", "X-API-Key is there more than once")
            }
            Self::TrailersTooLarge(detail) => Problem::new(431, "head_too_large", detail),
            Self::BadJson(offset) => {
                let problem = Problem::new(400, "bad_request", "the body is not valid JSON");
                Problem { offset: Some(offset), ..problem }
            }
            Self::NotJson => {
                Problem::new(415, "unsupported_media_type", "send the body as application/json")
            }
            Self::Coded => {
                let detail = "send the body without a content coding";
                let problem = Problem::new(415, "unsupported_media_type", detail);
                // RFC 9110 section 15.5.16.
                Problem { codings: Some("identity"), ..problem }
            }
            Self::BodyTooLarge => {
                Problem::new(413, "content_too_large", "the request body is too large")
            }
            Self::Slow => Problem::new(408, "request_timeout", "the request took too long"),
            Self::Unauthorized => {
                let problem = Problem::new(401, "unauthorized", "send a valid key in X-API-Key");
                Problem { challenge: Some("ApiKey"), ..problem }
            }
            Self::TokenNeeded => {
                let detail = "send the token as Authorization: Bearer";
                let problem = Problem::new(401, "unauthorized", detail);
                Problem { challenge: Some("Bearer"), ..problem }
            }
            Self::EndpointNotAllowed => {
                Problem::new(403, "endpoint_not_allowed", "this endpoint is not allowed here")
            }
            Self::Forbidden => Problem::new(
                403,
                "forbidden",
                "only from this machine, or with an operator's token set",
            ),
            Self::NotFound => Problem::new(404, "not_found", "no such path"),
            Self::MethodNotAllowed(allow) => {
                let problem =
                    Problem::new(405, "method_not_allowed", "this path takes other methods");
                Problem { allow: Some(allow), ..problem }
            }
            Self::MethodUnknown => {
                Problem::new(501, "method_not_implemented", "this method is not implemented")
            }
            Self::RateLimited(secs) => {
                let problem = Problem::new(429, "rate_limited", "too many requests");
                Problem { retry_after: Some(secs), ..problem }
            }
            Self::OnlyIfCached => {
                Problem::new(504, "only_if_cached", "nothing fit to serve is in the cache")
            }
            Self::Overloaded => {
                let problem = Problem::new(503, "overloaded", "try again in a moment");
                Problem { retry_after: Some(1), ..problem }
            }
        }
    }
}

impl Fault {
    /// The status that the origin itself has answered with.
    #[must_use]
    pub const fn said(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The word for logs, metrics and Cache-Status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::NotAllowed => "not_allowed",
            Self::Dial => "dial",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Invalid(_) => "invalid",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Queued => "queued",
            Self::CircuitOpen(_) => "circuit_open",
            Self::Paused(_) => "paused",
            Self::OfflineNotCached => "offline_not_cached",
            Self::Status(_) => "status",
            Self::Abandoned => "abandoned",
            Self::Internal => "internal",
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn problem(self) -> Problem {
        match self {
            Self::Resolve | Self::Dial | Self::Tls | Self::Reset => {
                Problem::new(502, "upstream_unreachable", "the upstream can't be reached")
            }
            Self::NotAllowed => {
                Problem::new(403, "upstream_not_allowed", "this upstream is not allowed")
            }
            Self::Truncated | Self::Invalid(_) | Self::Status(_) => {
                Problem::new(502, "upstream_invalid", "the upstream's answer was broken")
            }
            Self::TooLarge => {
                Problem::new(502, "upstream_too_large", "the upstream's answer was too large")
            }
            Self::Timeout | Self::Queued => {
                Problem::new(504, "upstream_timeout", "the upstream was too slow")
            }
            Self::Busy => {
                let problem =
                    Problem::new(503, "upstream_busy", "all connections to it are in use");
                Problem { retry_after: Some(1), ..problem }
            }
            Self::CircuitOpen(secs) => {
                let problem =
                    Problem::new(503, "circuit_open", "the upstream failed too often lately");
                Problem { retry_after: Some(secs), ..problem }
            }
            Self::Paused(secs) => {
                let detail = "the upstream wants to be asked later";
                let problem = Problem::new(503, "upstream_paused", detail);
                Problem { retry_after: Some(secs), ..problem }
            }
            Self::OfflineNotCached => {
                let detail = "the upstream can't be reached and nothing is stored for this";
                let problem = Problem::new(503, "offline_not_cached", detail);
                Problem { retry_after: Some(RETRY_LATER.as_secs() as u32), ..problem }
            }
            Self::Abandoned | Self::Internal => {
                Problem::new(500, "internal", "an internal error; it was logged")
            }
        }
    }
}

impl Problem {
    const fn new(status: u16, code: &'static str, detail: &'static str) -> Self {
        Self {
            status,
            code,
            detail,
            offset: None,
            retry_after: None,
            allow: None,
            challenge: None,
            codings: None,
        }
    }

    /// The fields that go with the body.
    #[must_use]
    pub fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        fields.push("Content-Type", "application/problem+json");
        fields.push("Cache-Control", "no-store");
        if let Some(secs) = self.retry_after {
            fields.push("Retry-After", secs.to_string());
        }
        let more = [
            ("Allow", self.allow),
            ("WWW-Authenticate", self.challenge),
            ("Accept-Encoding", self.codings),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                fields.push(name, value);
            }
        }
        fields
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": crate::http::status::reason_phrase(self.status),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        });
        if let (Some(offset), Some(object)) = (self.offset, body.as_object_mut()) {
            object.insert("offset".to_owned(), offset.into());
        }
        let mut text = body.to_string().into_bytes();
        text.push(b'\n');
        text
    }
}

/// Retry-After where nothing better is known.
const RETRY_LATER: Duration = Duration::from_secs(5);

fn malformed(fault: RequestFault) -> Problem {
    let status = fault.status();
    let code = match status {
        414 => "target_too_long",
        417 => "expectation_failed",
        431 => "head_too_large",
        501 => "not_implemented",
        505 => "version_not_supported",
        _ => "bad_request",
    };
    Problem::new(status, code, fault.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::labels::REFUSAL_STATUSES;

    /// "Errors" in the README lists them for people.
    const REFUSALS: [(Refusal, u16, &str); 26] = [
        (Refusal::Malformed(RequestFault::BareLf), 400, "bad_request"),
        (Refusal::Malformed(RequestFault::TargetTooLong), 414, "target_too_long"),
        (Refusal::Malformed(RequestFault::UnknownExpectation), 417, "expectation_failed"),
        (Refusal::Malformed(RequestFault::HeadTooLarge), 431, "head_too_large"),
        (Refusal::Malformed(RequestFault::UnsupportedCoding), 501, "not_implemented"),
        (Refusal::Malformed(RequestFault::UnsupportedVersion), 505, "version_not_supported"),
        (Refusal::BadTarget("x"), 400, "bad_request"),
        (Refusal::RepeatedKey, 400, "bad_request"),
        (Refusal::Misdirected, 421, "misdirected_request"),
        (Refusal::BadBody("x"), 400, "bad_request"),
        (Refusal::TrailersTooLarge("x"), 431, "head_too_large"),
        (Refusal::BadJson(7), 400, "bad_request"),
        (Refusal::NotJson, 415, "unsupported_media_type"),
        (Refusal::Coded, 415, "unsupported_media_type"),
        (Refusal::BodyTooLarge, 413, "content_too_large"),
        (Refusal::Slow, 408, "request_timeout"),
        (Refusal::Unauthorized, 401, "unauthorized"),
        (Refusal::TokenNeeded, 401, "unauthorized"),
        (Refusal::EndpointNotAllowed, 403, "endpoint_not_allowed"),
        (Refusal::Forbidden, 403, "forbidden"),
        (Refusal::NotFound, 404, "not_found"),
        (Refusal::MethodNotAllowed("GET"), 405, "method_not_allowed"),
        (Refusal::MethodUnknown, 501, "method_not_implemented"),
        (Refusal::RateLimited(3), 429, "rate_limited"),
        (Refusal::OnlyIfCached, 504, "only_if_cached"),
        (Refusal::Overloaded, 503, "overloaded"),
    ];
    const FAULTS: [(Fault, u16, &str); 17] = [
        (Fault::Resolve, 502, "upstream_unreachable"),
        (Fault::Dial, 502, "upstream_unreachable"),
        (Fault::Tls, 502, "upstream_unreachable"),
        (Fault::Reset, 502, "upstream_unreachable"),
        (Fault::NotAllowed, 403, "upstream_not_allowed"),
        (Fault::Truncated, 502, "upstream_invalid"),
        (Fault::Invalid("x"), 502, "upstream_invalid"),
        (Fault::Status(500), 502, "upstream_invalid"),
        (Fault::TooLarge, 502, "upstream_too_large"),
        (Fault::Timeout, 504, "upstream_timeout"),
        (Fault::Busy, 503, "upstream_busy"),
        (Fault::Queued, 504, "upstream_timeout"),
        (Fault::CircuitOpen(9), 503, "circuit_open"),
        (Fault::Paused(9), 503, "upstream_paused"),
        (Fault::OfflineNotCached, 503, "offline_not_cached"),
        (Fault::Abandoned, 500, "internal"),
        (Fault::Internal, 500, "internal"),
    ];

    /// Each status of the metric can be counted, and nothing else is there to be.
    #[test]
    fn refusals_have_the_statuses_of_their_metric() {
        let mut statuses = REFUSALS.map(|it| it.1).to_vec();
        statuses.sort_unstable();
        statuses.dedup();
        assert_eq!(statuses, REFUSAL_STATUSES);
    }

    #[test]
    fn every_refusal_and_fault_has_its_status_and_code() {
        let problems = REFUSALS.map(|(it, status, code)| (it.problem(), status, code));
        let more = FAULTS.map(|(it, status, code)| (it.problem(), status, code));
        for (problem, status, code) in problems.into_iter().chain(more) {
            assert_eq!((problem.status, problem.code), (status, code));
            assert_eq!(problem.allow.is_some(), status == 405, "{code}");
            assert_eq!(problem.challenge.is_some(), status == 401, "{code}");
            assert_eq!(problem.retry_after.is_some(), matches!(status, 429 | 503), "{code}");
            let fields = problem.fields();
            assert_eq!(fields.single("Content-Type"), Some(&b"application/problem+json"[..]));
            assert_eq!(fields.contains("Retry-After"), problem.retry_after.is_some(), "{code}");
            assert_eq!(fields.contains("Allow"), problem.allow.is_some(), "{code}");
            assert_eq!(fields.contains("WWW-Authenticate"), problem.challenge.is_some(), "{code}");
            assert_eq!(fields.contains("Accept-Encoding"), problem.codings.is_some(), "{code}");
            let body: serde_json::Value = serde_json::from_slice(&problem.to_json("id-1")).unwrap();
            assert_eq!((&body["status"], &body["code"]), (&status.into(), &code.into()));
            assert_eq!(
                (&body["request_id"], &body["type"]),
                (&"id-1".into(), &"about:blank".into())
            );
            assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        }
    }
}
