//! How much an identity may ask, in the units of the limiter's cells.

use std::fmt;
use std::time::Duration;

use crate::base::Mono;

/// A rate and a burst, with what GCRA needs worked out once.
///
/// An idle identity may send `burst` requests at once, not one more; from then on it gets back
/// `per_minute / 60` a second, up to `burst`. Rates above 29 million a minute count as that; below,
/// a rate is exceeded by at most 0.000004 % for each request a minute it allows (60 a minute:
/// 0.0002 %), because times are kept in units of 2.048 µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    per_minute: u32,
    burst: u32,
    /// Emission interval: what one request costs. At least 1.
    interval: u64,
    /// What an identity may owe: `burst` intervals. At most [`TOLERANCE_MAX`].
    tolerance: u64,
    /// Less than one interval: how far a request's clock may lag behind another core's without
    /// losing its place in the burst (the "cell delay variation tolerance" of GCRA).
    slack: u64,
}

impl Quota {
    /// A quota of `per_minute` requests a minute with bursts of `burst` requests.
    ///
    /// # Errors
    /// A zero, or a burst that takes longer than six days to earn back.
    pub fn new(per_minute: u32, burst: u32) -> Result<Self, QuotaFault> {
        if per_minute == 0 {
            return Err(QuotaFault::RateZero);
        }
        if burst == 0 {
            return Err(QuotaFault::BurstZero);
        }
        let interval = ((MINUTE_NANOS / u64::from(per_minute)) >> TICK_SHIFT).max(1);
        let tolerance = interval.saturating_mul(u64::from(burst));
        if tolerance > TOLERANCE_MAX {
            return Err(QuotaFault::BurstTooLong);
        }
        let slack = (interval / 16).min(SLACK_MAX);
        debug_assert!(slack < interval);
        Ok(Self { per_minute, burst, interval, tolerance, slack })
    }

    /// Requests a minute.
    #[must_use]
    pub const fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// Requests at once.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    pub(super) const fn interval(&self) -> u64 {
        self.interval
    }

    pub(super) const fn tolerance(&self) -> u64 {
        self.tolerance
    }

    pub(super) const fn slack(&self) -> u64 {
        self.slack
    }
}

/// Why a quota is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaFault {
    /// No requests a minute.
    RateZero,
    /// No requests at once.
    BurstZero,
    /// The burst takes longer than six days to earn back.
    BurstTooLong,
}

impl QuotaFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateZero => "rate_zero",
            Self::BurstZero => "burst_zero",
            Self::BurstTooLong => "burst_too_long",
        }
    }
}

impl fmt::Display for QuotaFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::RateZero => "at least 1 request a minute; to allow nothing, empty the allowlist",
            Self::BurstZero => "a burst is at least 1 request",
            Self::BurstTooLong => "a burst may hold at most the requests of six days",
        })
    }
}

impl std::error::Error for QuotaFault {}

/// `now` in ticks; wraps after 26 days, which `cell.rs` allows for.
pub(super) const fn ticks(now: Mono) -> u64 {
    now.as_nanos() >> TICK_SHIFT & TICKS_MASK
}

/// Rounding goes up: after this time that many ticks have certainly passed.
pub(super) const fn span(ticks: u64) -> Duration {
    Duration::from_nanos(ticks << TICK_SHIFT)
}

/// One tick is 2^11 ns. Finer ticks would wrap sooner, coarser ones would bend high rates.
const TICK_SHIFT: u32 = 11;

/// Bits of a time in a cell.
pub(super) const TICKS_BITS: u32 = 40;
pub(super) const TICKS_MASK: u64 = (1 << TICKS_BITS) - 1;

/// 6.5 days: a quarter of the range of ticks, so that a debt is never mistaken for the past.
const TOLERANCE_MAX: u64 = 1 << (TICKS_BITS - 2);

/// 8.4 ms: a core reads its clock once a turn, and turns of two cores overlap by about as much.
const SLACK_MAX: u64 = 1 << 12;

const MINUTE_NANOS: u64 = 60_000_000_000;

/// The longest interval, a minute, fits this many bits.
pub(super) const INTERVAL_BITS: u32 = 25;
const _: () = assert!(MINUTE_NANOS >> TICK_SHIFT < 1 << INTERVAL_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_admits_nothing_or_never_refills_is_a_fault() {
        assert_eq!(Quota::new(0, 1), Err(QuotaFault::RateZero));
        assert_eq!(Quota::new(1, 0), Err(QuotaFault::BurstZero));
        assert_eq!(Quota::new(1, u32::MAX), Err(QuotaFault::BurstTooLong));
        assert!(Quota::new(u32::MAX, u32::MAX).is_ok());
        assert!(Quota::new(1, 9_000).is_ok());
    }

    #[test]
    fn an_interval_is_never_longer_than_the_rate_says() {
        for per_minute in [1, 7, 60, 300, 12_345, 1_000_000, 29_000_000, u32::MAX] {
            let quota = Quota::new(per_minute, 1).unwrap();
            let exact = 60e9 / f64::from(per_minute);
            let ours = span(quota.interval()).as_nanos() as f64;
            assert!(ours <= exact.max(2048.0), "{per_minute}: {ours} ns");
            assert!(ours > exact - 2048.0, "{per_minute}: {ours} ns");
        }
    }
}
