//! The policy facts of a stored response: stand-in until the policy's own are merged.

use std::time::Duration;

use crate::base::Wall;

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
}
