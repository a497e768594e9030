//! What is kept of a response beside its fields and content: all that later decisions need.

use std::time::Duration;

use crate::base::Wall;
use crate::cache::settings::{DAY, Settings};

/// The policy facts of a stored response. 88 bytes, copied freely; each field has a plain value
/// so that a record can hold it. Durations are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When the response (or what last updated it) arrived: `response_time` of RFC 9111
    /// section 4.2.3.
    pub response_time: Wall,
    /// The Date of the response; the time of its arrival where it had none (RFC 9110
    /// section 6.6.1).
    pub date: Wall,
    /// `corrected_initial_age` of RFC 9111 section 4.2.3.
    pub initial_age: Duration,
    /// `freshness_lifetime` of RFC 9111 section 4.2.1; zero when there is none.
    pub lifetime: Duration,
    /// The response's own `stale-while-revalidate`; none: the setting applies.
    pub stale_while_revalidate: Option<Duration>,
    /// The response's own `stale-if-error`; none: the setting applies.
    pub stale_if_error: Option<Duration>,
    /// The status, 200 to 999.
    pub status: u16,
    /// What `lifetime` comes from.
    pub lifetime_source: LifetimeSource,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: never served stale (RFC 9111
    /// section 4.2.4).
    pub stale_forbidden: bool,
    /// `no-cache` without a field list: never served without validation (section 5.2.2.4).
    pub no_cache: bool,
    /// `immutable`: a reload need not be validated while fresh (RFC 8246).
    pub immutable: bool,
    /// Has an ETag or Last-Modified to validate with.
    pub has_validator: bool,
    /// `public`, `s-maxage` or `must-revalidate`: may answer requests with Authorization (RFC 9111
    /// section 3.5). Others are not given what was stored for somebody without credentials.
    pub shareable: bool,
}

/// The two instants of an exchange with the origin (RFC 9111 section 4.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the request was sent: `request_time`.
    pub requested: Wall,
    /// When the response's head had arrived: `response_time`.
    pub responded: Wall,
}

/// Where a lifetime comes from, strongest claim first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LifetimeSource {
    /// The setting `force_ttl`.
    Forced = 0,
    /// A targeted field such as CDN-Cache-Control (RFC 9213).
    Targeted = 1,
    /// `s-maxage` (RFC 9111 section 5.2.2.10).
    SMaxage = 2,
    /// `max-age` (section 5.2.2.1).
    MaxAge = 3,
    /// Expires less Date (section 5.3).
    Expires = 4,
    /// The settings, or the time since Last-Modified (section 4.2.2).
    Heuristic = 5,
    /// Nothing: the lifetime is zero.
    None = 6,
}

impl LifetimeSource {
    /// The number a record holds.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The source of that number; `None` for a number that no source has.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Forced,
            1 => Self::Targeted,
            2 => Self::SMaxage,
            3 => Self::MaxAge,
            4 => Self::Expires,
            5 => Self::Heuristic,
            6 => Self::None,
            _ => return None,
        })
    }

    /// The source's word, in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Targeted => "targeted",
            Self::SMaxage => "s_maxage",
            Self::MaxAge => "max_age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::None => "none",
        }
    }

    /// Whether the origin stated the lifetime (RFC 9111 section 4.2: an explicit expiration time).
    #[must_use]
    pub const fn is_explicit(self) -> bool {
        matches!(self, Self::Targeted | Self::SMaxage | Self::MaxAge | Self::Expires)
    }
}

impl Facts {
    /// `current_age` of RFC 9111 section 4.2.3. The Age field is its whole seconds.
    #[must_use]
    pub fn age(&self, now: Wall) -> Duration {
        self.initial_age.saturating_add(now.since(self.response_time))
    }

    /// Freshness left in whole seconds, rounded down; negative: stale by so many. The `ttl` of
    /// Cache-Status (RFC 9211 section 2.4).
    #[must_use]
    pub fn ttl(&self, now: Wall) -> i64 {
        let left = millis(self.lifetime).saturating_sub(millis(self.age(now)));
        left.div_euclid(1_000)
    }

    /// `response_is_fresh` of RFC 9111 section 4.2, for a clock that can be believed.
    #[must_use]
    pub fn is_fresh(&self, now: Wall) -> bool {
        self.lifetime > self.age(now) && self.clock_agrees(now)
    }

    /// Whether a request without Cache-Control, Pragma, Range or preconditions may be answered
    /// right away: the fast path's whole policy.
    #[must_use]
    pub fn serves_plain_request(&self, now: Wall) -> bool {
        !self.no_cache && self.is_fresh(now)
    }

    /// Whether a response with these facts can answer others that waited for it. Where not,
    /// queueing requests behind one another gains nothing.
    #[must_use]
    pub fn is_worth_waiting_for(&self) -> bool {
        !self.no_cache && self.lifetime > self.initial_age
    }

    /// Whether this response is to be preferred to another one that matches the request as well
    /// (RFC 9111 section 4): by Date, and by arrival where that is the same.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.date, self.response_time) > (other.date, other.response_time)
    }

    /// How long past its lifetime the response is; zero while fresh.
    #[must_use]
    pub fn staleness(&self, now: Wall) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// When freshness ends.
    #[must_use]
    pub fn fresh_until(&self) -> Wall {
        self.response_time.plus(self.lifetime.saturating_sub(self.initial_age))
    }

    /// When the entry can be removed for its age: it is past freshness, past every leave to serve
    /// it stale, and past the time for which its validator is kept.
    #[must_use]
    pub fn keep_until(&self, settings: &Settings) -> Wall {
        let stale_allowed = !self.stale_forbidden && !self.no_cache;
        if settings.offline && stale_allowed {
            return Wall::FOREVER;
        }
        let mut grace = Duration::ZERO;
        if stale_allowed {
            let error = self.stale_if_error.unwrap_or(settings.stale_if_error);
            let refresh = self.stale_while_revalidate.unwrap_or(settings.stale_while_revalidate);
            grace = error.max(refresh);
        }
        if self.has_validator {
            grace = grace.max(VALIDATOR_KEPT);
        }
        self.fresh_until().plus(grace)
    }

    /// Whether the response arrived in the past, as far as the clock goes. After the clock was
    /// set back by more than the slack, the age of what was stored before is unknown.
    #[must_use]
    pub fn clock_agrees(&self, now: Wall) -> bool {
        self.response_time <= now.plus(CLOCK_SLACK)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// How long a stale response with a validator is worth its place: a later request costs the
/// origin a 304 instead of a full response.
const VALIDATOR_KEPT: Duration = DAY;

/// Clocks of instances that share a store may differ by this much.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

const _: () = assert!(size_of::<Facts>() <= 96);

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            response_time: Wall::from_secs(1_000),
            date: Wall::from_secs(1_000),
            initial_age: Duration::from_secs(5),
            lifetime: Duration::from_secs(60),
            stale_while_revalidate: None,
            stale_if_error: None,
            status: 200,
            lifetime_source: LifetimeSource::MaxAge,
            stale_forbidden: false,
            no_cache: false,
            immutable: false,
            has_validator: false,
            shareable: false,
        }
    }

    /// RFC 9111 sections 4.2 and 4.2.3.
    #[test]
    fn age_grows_with_the_clock_and_freshness_ends_when_it_reaches_the_lifetime() {
        let facts = facts();
        for (now, age, ttl, fresh) in [
            (1_000, 5, 55, true),
            (1_054, 59, 1, true),
            (1_055, 60, 0, false),
            (1_060, 65, -5, false),
        ] {
            let now = Wall::from_secs(now);
            assert_eq!(facts.age(now), Duration::from_secs(age));
            assert_eq!(facts.ttl(now), ttl);
            assert_eq!(facts.is_fresh(now), fresh, "at {now:?}");
        }
        assert_eq!(facts.fresh_until(), Wall::from_secs(1_055));
        assert_eq!(facts.ttl(Wall::from_millis(1_055_001)), -1);
    }

    /// RFC 9111 section 4.
    #[test]
    fn the_later_date_is_newer_and_of_equal_ones_the_later_arrival() {
        let of = |date, response_time| Facts {
            date: Wall::from_secs(date),
            response_time: Wall::from_secs(response_time),
            ..facts()
        };
        assert!(of(9, 20).is_newer_than(&of(8, 30)) && !of(8, 30).is_newer_than(&of(9, 20)));
        assert!(of(9, 21).is_newer_than(&of(9, 20)) && !of(9, 20).is_newer_than(&of(9, 20)));
    }

    #[test]
    fn a_response_from_the_future_is_not_fresh() {
        let facts = facts();
        assert!(facts.is_fresh(Wall::from_secs(940)));
        assert!(!facts.is_fresh(Wall::from_secs(939)));
        assert!(!facts.serves_plain_request(Wall::from_secs(1)));
    }

    #[test]
    fn an_overflowing_lifetime_is_very_long() {
        let facts = Facts { lifetime: Duration::MAX, ..facts() };
        assert!(facts.is_fresh(Wall::from_secs(1 << 40)));
        assert!(facts.ttl(Wall::from_secs(1_000)) > 1 << 40);
        assert_eq!(facts.fresh_until(), Wall::FOREVER);
    }

    #[test]
    fn an_entry_is_kept_as_long_as_it_is_of_use() {
        let settings = Settings { stale_if_error: Duration::from_secs(10), ..Settings::default() };
        let fresh_until = facts().fresh_until();
        assert_eq!(facts().keep_until(&settings), fresh_until.plus(Duration::from_secs(10)));
        let own = Facts { stale_if_error: Some(Duration::from_secs(7)), ..facts() };
        assert_eq!(own.keep_until(&settings), fresh_until.plus(Duration::from_secs(7)));
        let forbidden = Facts { stale_forbidden: true, ..facts() };
        assert_eq!(forbidden.keep_until(&settings), fresh_until);
        let validator = Facts { has_validator: true, ..forbidden };
        assert_eq!(validator.keep_until(&settings), fresh_until.plus(VALIDATOR_KEPT));
        let offline = Settings { offline: true, ..settings };
        assert_eq!(facts().keep_until(&offline), Wall::FOREVER);
        assert_eq!(forbidden.keep_until(&offline), fresh_until);
    }

    #[test]
    fn every_lifetime_source_reads_back_from_its_code() {
        let sources: Vec<_> = (0..=u8::MAX).filter_map(LifetimeSource::from_code).collect();
        assert_eq!(sources.len(), 7);
        for source in sources {
            assert_eq!(LifetimeSource::from_code(source.code()), Some(source));
        }
    }

    #[test]
    fn nobody_waits_for_what_could_not_answer_them() {
        assert!(facts().is_worth_waiting_for());
        assert!(!Facts { no_cache: true, ..facts() }.is_worth_waiting_for());
        assert!(!Facts { lifetime: Duration::ZERO, ..facts() }.is_worth_waiting_for());
    }
}
