//! The fields that the daemon adds to an answer: its own, the cache's, the limiter's.

use std::time::Duration;

use crate::http::Fields;
use crate::limit::{Kind, fields};
use crate::proxy::gate::Standings;
use crate::proxy::plan::Plan;
use crate::proxy::request::RequestId;

/// Appends what every answer carries and `fields` lack: the configured fields, the request id and
/// the limiter's.
pub fn push_own(plan: &Plan, fields: &mut Fields, id: &RequestId, standings: &Standings) {
    let marks = &plan.marks;
    if marks.overlap(fields) {
        let mut missing = Vec::with_capacity(marks.block().len());
        marks.push_missing(fields, &mut missing);
        fields.extend_with(|out| out.extend_from_slice(&missing));
    } else {
        fields.extend_with(|out| out.extend_from_slice(marks.block()));
    }
    fields.extend_with(|out| push_exchange(plan, id, standings, out));
}

/// Appends the request id and the limiter's fields as text.
#[inline]
pub fn push_exchange(plan: &Plan, id: &RequestId, standings: &Standings, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Request-Id: ");
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b"\r\n");
    push_standings(plan, standings, out);
}

/// Appends `Age`.
#[inline]
pub fn push_age(age: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Age: ");
    // RFC 9111 section 1.2.2: beyond that, the greatest value that a recipient must take.
    let secs = age.as_secs().min(2_147_483_648);
    out.extend_from_slice(itoa::Buffer::new().format(secs).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends what a fresh hit says of itself.
#[inline]
pub fn push_hit(ttl: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Cache: HIT\r\nCache-Status: apiproxyd; hit; ttl=");
    out.extend_from_slice(itoa::Buffer::new().format(ttl).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn push_standings(plan: &Plan, standings: &Standings, out: &mut Vec<u8>) {
    let address = standings.address.zip(plan.settings.address_quota.as_ref());
    let (policies, remaining) = match (address, &standings.key) {
        (None, None) => return,
        (Some((standing, quota)), None) => {
            (&[(Kind::Address, quota)][..], &[(Kind::Address, standing)][..])
        }
        (None, Some((standing, quota))) => {
            (&[(Kind::Key, quota)][..], &[(Kind::Key, *standing)][..])
        }
        (Some((first, quota)), Some((second, key_quota))) => (
            &[(Kind::Address, quota), (Kind::Key, key_quota)][..],
            &[(Kind::Address, first), (Kind::Key, *second)][..],
        ),
    };
    out.extend_from_slice(b"RateLimit-Policy: ");
    fields::push_policy(out, policies);
    out.extend_from_slice(b"\r\nRateLimit: ");
    fields::push_standing(out, remaining);
    out.extend_from_slice(b"\r\n");
}
