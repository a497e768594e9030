//! What a client is told about its limits: values of `RateLimit-Policy`, `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-10) and `Retry-After` (RFC 9110 section 10.2.3).
//!
//! ```text
//! RateLimit-Policy: "ip";q=60;w=60
//! RateLimit: "ip";r=9;t=1
//! ```
//!
//! The policy states the sustained rate: `q` requests in `w` = 60 seconds. `r` is what may follow
//! at once, at most the burst; `t` the seconds until the whole burst is back, or, when refused,
//! until the next request is admitted. Values go into the caller's buffer; nothing is allocated
//! beyond that buffer's growth.

use std::time::Duration;

use crate::limit::identity::Kind;
use crate::limit::limiter::Standing;
use crate::limit::quota::Quota;

/// Appends a `RateLimit-Policy` value for these quotas.
pub fn push_policy(out: &mut Vec<u8>, policies: &[(Kind, &Quota)]) {
    for (at, (kind, quota)) in policies.iter().enumerate() {
        push_separator(out, at);
        out.extend_from_slice(match kind {
            Kind::Address => b"\"ip\";q=",
            Kind::Key => b"\"key\";q=",
        });
        push_number(out, u64::from(quota.per_minute()));
        out.extend_from_slice(b";w=60");
    }
}

/// Appends a `RateLimit` value for where the identities stand: after a request that was admitted,
/// or one that some of them refused.
pub fn push_standing(out: &mut Vec<u8>, standings: &[(Kind, Standing)]) {
    for (at, (kind, standing)) in standings.iter().enumerate() {
        push_separator(out, at);
        let seconds = whole_seconds(standing.reset_after);
        push_remaining(out, *kind, u64::from(standing.remaining), seconds);
    }
}

/// Rounded up, so that who waits as told is admitted.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0))
}

/// What Retry-After says: whole seconds, rounded up, at least 1, since 0 would invite a loop.
#[must_use]
pub fn retry_seconds(retry_after: Duration) -> u64 {
    whole_seconds(retry_after).max(1)
}

fn push_separator(out: &mut Vec<u8>, at: usize) {
    if at > 0 {
        out.extend_from_slice(b", ");
    }
}

fn push_remaining(out: &mut Vec<u8>, kind: Kind, remaining: u64, seconds: u64) {
    // The names are spelt out, as `Kind::as_str` says them, to be one copy each.
    out.extend_from_slice(match kind {
        Kind::Address => b"\"ip\";r=",
        Kind::Key => b"\"key\";r=",
    });
    push_number(out, remaining);
    out.extend_from_slice(b";t=");
    push_number(out, seconds);
}

fn push_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn policies_name_the_sustained_rate() {
        let (ip, key) = (Quota::new(60, 10).unwrap(), Quota::new(300, 10).unwrap());
        let one = text(|out| push_policy(out, &[(Kind::Address, &ip)]));
        assert_eq!(one, r#""ip";q=60;w=60"#);
        let both = text(|out| push_policy(out, &[(Kind::Address, &ip), (Kind::Key, &key)]));
        assert_eq!(both, r#""ip";q=60;w=60, "key";q=300;w=60"#);
    }

    #[test]
    fn a_standing_rounds_its_time_up() {
        let ip = Standing { remaining: 9, reset_after: Duration::from_millis(1_001) };
        let key = Standing { remaining: 0, reset_after: Duration::ZERO };
        let both = text(|out| push_standing(out, &[(Kind::Address, ip), (Kind::Key, key)]));
        assert_eq!(both, r#""ip";r=9;t=2, "key";r=0;t=0"#);
    }

    #[test]
    fn a_refusal_never_says_zero_seconds_and_both_fields_say_the_same() {
        let rows = [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (60_000, 60)];
        for (millis, expected) in rows {
            let reset_after = Duration::from_millis(millis);
            assert_eq!(retry_seconds(reset_after), expected);
            let standing = Standing { remaining: 0, reset_after };
            let told = text(|out| push_standing(out, &[(Kind::Key, standing)]));
            if millis > 0 {
                assert_eq!(told, format!(r#""key";r=0;t={expected}"#));
            }
        }
        assert_eq!(retry_seconds(Duration::MAX), u64::MAX);
    }
}
