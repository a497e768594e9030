//! The clocks. Pure code takes the time as an argument; this is where the shell gets it.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::{Mono, Wall};

/// Wall-clock time, to the millisecond. A clock set before 1970 reads as the epoch.
///
/// Costs one vDSO call (about 20 ns), no system call.
#[must_use]
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Not `as_millis`: that divides 128 bits.
    Wall::from_millis(since.as_secs() * 1_000 + u64::from(since.subsec_millis()))
}

/// Monotonic time since this function's first call in the process, the same for all threads.
///
/// Costs one vDSO call (about 20 ns), no system call.
#[must_use]
pub fn mono() -> Mono {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    Mono::from_nanos(since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back_between_threads() {
        let before = mono();
        let other = std::thread::spawn(mono).join().unwrap();
        assert!(before <= other);
        assert!(other <= mono());
    }

    #[test]
    fn wall_time_is_after_the_year_2024() {
        assert!(wall() > Wall::from_secs(1_704_067_200));
    }
}
