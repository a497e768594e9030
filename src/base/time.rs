//! Instants. Pure code takes them as its last argument, `now`; the shell reads the clocks.

use std::time::Duration;

/// Wall-clock time in milliseconds since 1970-01-01 UTC.
///
/// What is stored and what is compared with `Date` and `Expires`. It may jump when an operator
/// sets the clock, so that every subtraction saturates at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(u64);

impl Wall {
    /// 1970-01-01 UTC.
    pub const EPOCH: Self = Self(0);
    /// Later than every instant: an entry kept until then is never removed for its age.
    pub const FOREVER: Self = Self(u64::MAX);

    /// The instant this many milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The instant this many whole seconds after the epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000
    }

    /// Time passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This instant moved into the future, at most to [`Wall::FOREVER`].
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This instant moved into the past, at most to the epoch.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Monotonic time in nanoseconds since an arbitrary start of this process.
///
/// For deadlines, rates and measured durations; never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The arbitrary start.
    pub const START: Self = Self(0);

    /// The instant this many nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This instant moved into the future, saturating.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtraction_saturates_when_the_clock_was_set_back() {
        assert_eq!(Wall::from_secs(5).since(Wall::from_secs(9)), Duration::ZERO);
        assert_eq!(Mono::from_nanos(5).since(Mono::from_nanos(9)), Duration::ZERO);
        assert_eq!(Wall::from_secs(5).minus(Duration::from_secs(9)), Wall::EPOCH);
    }

    #[test]
    fn addition_saturates_at_forever() {
        assert_eq!(Wall::from_secs(5).plus(Duration::MAX), Wall::FOREVER);
        assert_eq!(Wall::from_secs(u64::MAX), Wall::FOREVER);
        assert_eq!(Wall::from_millis(1_999).as_secs(), 1);
    }
}
