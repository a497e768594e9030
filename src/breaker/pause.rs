//! What an answer says about when the upstream wants to be asked again: `Retry-After` (RFC 9110
//! section 10.2.3) and the RateLimit fields (draft-ietf-httpapi-ratelimit-headers, `RateLimit` as
//! in its version 10, `RateLimit-Remaining` and `RateLimit-Reset` as in those before 8).

use std::time::Duration;

use crate::base::Wall;
use crate::http::list::{decimal, delta_seconds, field_members, split_parameters};
use crate::http::{Fields, ResponseHead, date};

/// A pause that an answer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long; as stated, without a bound.
    pub span: Duration,
    /// Why.
    pub cause: Cause,
}

/// Why an upstream wants a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A 503: it can't.
    Unavailable,
    /// A 429: we ask too often.
    TooManyRequests,
    /// This answer used up what it grants.
    QuotaUsedUp,
}

/// The pause that an answer asks for, if any.
#[must_use]
pub fn asked_for(head: &ResponseHead, now: Wall) -> Option<Pause> {
    let span_and_cause = match head.status {
        503 => retry_after(&head.fields, now).map(|span| (span, Cause::Unavailable)),
        429 => {
            let span = retry_after(&head.fields, now).or_else(|| quota_reset(&head.fields));
            span.map(|span| (span, Cause::TooManyRequests))
        }
        _ => quota_reset(&head.fields).map(|span| (span, Cause::QuotaUsedUp)),
    };
    let (span, cause) = span_and_cause.filter(|(span, _)| !span.is_zero())?;
    Some(Pause { span, cause })
}

/// `Retry-After`, in seconds or as a date.
#[must_use]
pub fn retry_after(fields: &Fields, now: Wall) -> Option<Duration> {
    let value = fields.single("Retry-After")?;
    match delta_seconds(value) {
        Some(secs) => Some(Duration::from_secs(secs.into())),
        None => date::parse_http_date(value, now).map(|at| at.since(now)),
    }
}

/// When a used-up quota is full again; `None` while something is left. The longest of several.
fn quota_reset(fields: &Fields) -> Option<Duration> {
    let limits = field_members(fields, "RateLimit").filter_map(used_up);
    let old = || {
        let remaining = fields.single("RateLimit-Remaining").and_then(decimal)?;
        fields.single("RateLimit-Reset").and_then(decimal).filter(|_| remaining == 0)
    };
    limits.max().or_else(old).map(Duration::from_secs)
}

/// The `t` of `"name";r=0;t=30`.
fn used_up(member: &[u8]) -> Option<u64> {
    let (_, parameters) = split_parameters(member);
    let (mut remaining, mut reset) = (None, None);
    for parameter in parameters {
        let value = || parameter.value.and_then(decimal);
        if parameter.is("r") {
            remaining = value();
        } else if parameter.is("t") {
            reset = value();
        }
    }
    reset.filter(|_| remaining == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Version;

    fn answer(status: u16, fields: &[(&str, &str)]) -> Option<(u64, Cause)> {
        let mut all = Fields::new();
        fields.iter().for_each(|(name, value)| all.push(name, value));
        let head = ResponseHead { status, version: Version::Http11, fields: all };
        let now = Wall::from_secs(784_111_777);
        asked_for(&head, now).map(|it| (it.span.as_secs(), it.cause))
    }

    #[test]
    fn rfc9110_10_2_3_retry_after_in_seconds_or_as_a_date() {
        let busy = Some((30, Cause::Unavailable));
        assert_eq!(answer(503, &[("Retry-After", "30")]), busy);
        assert_eq!(answer(503, &[("Retry-After", "Sun, 06 Nov 1994 08:50:07 GMT")]), busy);
        assert_eq!(answer(429, &[("Retry-After", "30")]), Some((30, Cause::TooManyRequests)));
        for value in ["0", "-1", "soon", "1.5", "Sun, 06 Nov 1994 08:00:00 GMT"] {
            assert_eq!(answer(503, &[("Retry-After", value)]), None, "{value}");
        }
        assert_eq!(answer(503, &[("Retry-After", "1"), ("Retry-After", "2")]), None);
    }

    #[test]
    fn other_answers_ask_for_nothing_by_retry_after() {
        for status in [200, 301, 413, 500, 502] {
            assert_eq!(answer(status, &[("Retry-After", "30")]), None, "{status}");
        }
    }

    #[test]
    fn used_up_quota_asks_for_its_reset() {
        let quota = |span| Some((span, Cause::QuotaUsedUp));
        assert_eq!(answer(200, &[("RateLimit", "\"day\";r=0;t=40")]), quota(40));
        assert_eq!(answer(200, &[("RateLimit", "\"a\";r=3;t=90, \"b\";r=0;t=5")]), quota(5));
        assert_eq!(answer(200, &[("RateLimit", "\"a\";r=0;t=9, \"b\";r=0;t=5")]), quota(9));
        let old = [("RateLimit-Remaining", "0"), ("RateLimit-Reset", "7")];
        assert_eq!(answer(200, &old), quota(7));
        assert_eq!(answer(429, &old), Some((7, Cause::TooManyRequests)));
    }

    #[test]
    fn what_is_left_or_not_understood_asks_for_nothing() {
        for value in ["\"a\";r=1;t=90", "\"a\";t=9", "\"a\";r=0", "\"a\";r=x;t=9", "", ";;;"] {
            assert_eq!(answer(200, &[("RateLimit", value)]), None, "{value}");
        }
        assert_eq!(answer(200, &[("RateLimit-Remaining", "0")]), None);
    }
}
