//! Whether a stored response may answer a request (RFC 9111 section 4), fresh or stale.
//!
//! The caller has selected it: same key, same variant.

use std::time::Duration;

use crate::base::Wall;
use crate::cache::facts::Facts;
use crate::cache::reason::Reason;
use crate::cache::request::RequestFacts;
use crate::cache::settings::Settings;

/// What to do with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Answer with it.
    Fresh,
    /// Answer with it although it is stale: the request allows it.
    Stale(Reason),
    /// Answer with it although it is stale, and refresh it once in the background (RFC 5861
    /// section 3).
    StaleWhileRevalidate,
    /// Ask the origin first: with the validators where it has some, else in full.
    Validate(Reason),
    /// Answer 504: the origin would have to be asked and the request forbids it (section 5.2.1.7).
    Refuse(Reason),
    /// As if nothing were stored, and store nothing.
    Bypass(Reason),
}

/// What to do with the stored response `facts` for this request (RFC 9111 section 4).
#[must_use]
pub fn reuse(request: &RequestFacts, facts: &Facts, settings: &Settings, now: Wall) -> Reuse {
    let control = &request.control;
    let decided = judge(request, facts, settings, now);
    match decided {
        Err(_) if control.only_if_cached => Reuse::Refuse(Reason::OnlyIfCached),
        Err(Reason::RequestNoStore) => Reuse::Bypass(Reason::RequestNoStore),
        Err(reason) => Reuse::Validate(reason),
        Ok(reuse) => reuse,
    }
}

fn judge(
    request: &RequestFacts,
    facts: &Facts,
    settings: &Settings,
    now: Wall,
) -> Result<Reuse, Reason> {
    let control = &request.control;
    if control.no_store {
        return Err(Reason::RequestNoStore); // Section 5.2.1.5.
    }
    if !facts.clock_agrees(now) {
        return Err(Reason::ClockSkew);
    }
    if facts.no_cache {
        return Err(Reason::NoCache); // Section 5.2.2.4.
    }
    let fresh = facts.is_fresh(now);
    // What is stale would be asked about whatever the request says: that is why it goes to the
    // origin (RFC 9211 section 2.2 keeps `request` for what is fresh).
    let because = |wish: Reason| if fresh { wish } else { Reason::Stale };
    if control.no_cache {
        return Err(because(Reason::RequestNoCache)); // Section 5.2.1.4.
    }
    let age = facts.age(now);
    // Section 5.2.1.1. Zero asks for validation, whatever the clock's resolution; a reload of
    // what is immutable needs none (RFC 8246 section 2).
    let too_old = control.max_age.is_some_and(|limit| age > limit || limit.is_zero());
    if too_old && !(facts.immutable && fresh) {
        return Err(because(Reason::RequestMaxAge));
    }
    // Section 5.2.1.3.
    let left = facts.lifetime.saturating_sub(age);
    if fresh && control.min_fresh.is_some_and(|span| left < span) {
        return Err(Reason::RequestMinFresh);
    }
    if fresh {
        return Ok(Reuse::Fresh);
    }
    judge_stale(request, facts, settings, facts.staleness(now)).ok_or(Reason::Stale)
}

/// The ways in which a stale response may be used without asking (section 4.2.4).
fn judge_stale(
    request: &RequestFacts,
    facts: &Facts,
    settings: &Settings,
    staleness: Duration,
) -> Option<Reuse> {
    let control = &request.control;
    if facts.stale_forbidden || is_server_error(facts.status) {
        return None;
    }
    // A request that limits age or asks for freshness wants nothing stale, unless it says so
    // (section 5.2.1.1).
    let undemanding = control.max_age.is_none() && control.min_fresh.is_none();
    let window = facts.stale_while_revalidate.unwrap_or(settings.stale_while_revalidate);
    if undemanding && staleness < window {
        return Some(Reuse::StaleWhileRevalidate);
    }
    // Section 5.2.1.2.
    let allowed = control.min_fresh.is_none() && allows_stale(request, staleness);
    allowed.then_some(Reuse::Stale(Reason::MaxStale))
}

/// Whether the stored response may stand in for a failure: the origin can't be reached, is too
/// slow, its breaker is open, or it answered with [`is_error`] (RFC 5861 section 4, RFC 9111
/// section 4.3.3). On success the reason is what Cache-Status should tell.
///
/// # Errors
/// Why it may not; the caller passes the failure on.
pub fn stale_on_error(
    request: &RequestFacts,
    facts: &Facts,
    settings: &Settings,
    now: Wall,
) -> Result<Reason, Reason> {
    // Section 4.2.4: forbidden is forbidden, also when disconnected (section 5.2.2.2).
    if facts.no_cache {
        return Err(Reason::NoCache);
    }
    if request.control.no_store {
        return Err(Reason::RequestNoStore);
    }
    let fresh = facts.is_fresh(now);
    if !fresh && (facts.stale_forbidden || is_server_error(facts.status)) {
        return Err(Reason::StaleForbidden);
    }
    if settings.offline {
        return Ok(Reason::Offline);
    }
    if request.control.no_cache {
        return Err(Reason::RequestNoCache); // Section 5.2.1.4: not without validation.
    }
    if !facts.clock_agrees(now) {
        return Err(Reason::ClockSkew);
    }
    let staleness = facts.staleness(now);
    if fresh || staleness < error_window(request, facts, settings) {
        return Ok(Reason::StaleIfError);
    }
    if allows_stale(request, staleness) {
        return Ok(Reason::MaxStale);
    }
    Err(Reason::StaleTooOld)
}

/// Whether a response is an error that a stale one may replace (RFC 5861 section 4).
#[must_use]
pub const fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// The response's word, else the operator's; a request can ask for less, not for more.
fn error_window(request: &RequestFacts, facts: &Facts, settings: &Settings) -> Duration {
    let window = facts.stale_if_error.unwrap_or(settings.stale_if_error);
    request.control.stale_if_error.map_or(window, |wanted| wanted.min(window))
}

/// A limit of zero, which a malformed one is read as, takes nothing stale, even in the very
/// millisecond in which a lifetime ends.
fn allows_stale(request: &RequestFacts, staleness: Duration) -> bool {
    request.control.max_stale.is_some_and(|limit| !limit.is_zero() && staleness <= limit)
}

/// A stored server error is of no use in place of another.
const fn is_server_error(status: u16) -> bool {
    status >= 500
}

#[cfg(test)]
mod tests;
