//! What is to be done with a request, given what was found for it: the decisions of `serve`, apart
//! from their doing, so that an explanation is what would happen.

use crate::base::Wall;
use crate::cache::{CacheStatus, Entry, Forward, Reason, Reuse, reuse};
use crate::http::Method;
use crate::proxy::cut::{self, Held};
use crate::proxy::inquiry::Inquiry;

/// What to do with an entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer with it.
    Serve(CacheStatus),
    /// Answer with it, stale, and renew it in the background.
    ServeAndRefresh(CacheStatus),
    /// Ask the origin first: it won't do as it is.
    Ask(Reason),
    /// Ask the origin, for this client alone.
    Alone(CacheStatus),
    /// Answer 504: the origin would have to be asked, and the request forbids it.
    Refuse,
}

/// Judges an entry.
#[must_use]
pub fn judge(inquiry: &Inquiry, entry: &Entry, now: Wall) -> Verdict {
    let facts = entry.facts();
    if inquiry.facts.authorization && !facts.shareable {
        return match inquiry.facts.forward() {
            Ok(()) => Verdict::Alone(CacheStatus::forwarded(Reason::Authorization)),
            Err(_) => Verdict::Refuse,
        };
    }
    if !cut::answers(inquiry, entry, now) {
        return match inquiry.facts.forward() {
            // Of what is large no more than is asked for.
            Ok(()) if inquiry.wants_range() && !is_short(entry) => {
                Verdict::Alone(CacheStatus::forwarded(Reason::Partial))
            }
            Ok(()) => Verdict::Ask(cut::lack(entry)),
            Err(_) => Verdict::Refuse,
        };
    }
    let ttl = facts.ttl(now);
    match reuse(&inquiry.facts, &facts, &inquiry.policy, now) {
        Reuse::Fresh => Verdict::Serve(CacheStatus::hit(ttl)),
        Reuse::Stale(reason) => Verdict::Serve(CacheStatus::stale(ttl, reason)),
        Reuse::StaleWhileRevalidate => {
            Verdict::ServeAndRefresh(CacheStatus::stale(ttl, Reason::StaleWhileRevalidate))
        }
        Reuse::Validate(reason) => Verdict::Ask(reason),
        Reuse::Refuse(_) => Verdict::Refuse,
        Reuse::Bypass(reason) => Verdict::Alone(CacheStatus::forwarded(reason)),
    }
}

/// Whether the whole of a part is known to be short enough to be fetched for a range of it.
fn is_short(entry: &Entry) -> bool {
    match Held::of(entry) {
        Held::Whole => true,
        Held::Part(part) => part.complete.is_some_and(|it| it <= RANGE_FILL_BYTES_MAX),
    }
}

/// A longer response is not fetched whole for a request for a range of it.
pub const RANGE_FILL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What is said of an answer from the origin, when `unfit` says why what is stored won't do, or
/// nothing is stored, beside an index of variants or not.
#[must_use]
pub fn forwarded(unfit: Option<Reason>, index: bool) -> CacheStatus {
    match unfit {
        Some(reason) => CacheStatus::forwarded(reason),
        None if index => CacheStatus::missed(Forward::VaryMiss),
        None => CacheStatus::missed(Forward::UriMiss),
    }
}

/// Whether the request may share a fetch with others. A HEAD fetches no body; Authorization may
/// bring what is for it alone, unless what is stored was for all.
#[must_use]
pub fn may_share(inquiry: &Inquiry, unfit: bool) -> bool {
    match inquiry.task.head.method {
        Method::Head => false,
        _ => !inquiry.facts.authorization || unfit,
    }
}
