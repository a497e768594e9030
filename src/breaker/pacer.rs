//! When the next request may leave for an upstream: its own rate, and the pauses it asked for.
//!
//! A pause is what a 429 or 503 with `Retry-After`, or used-up RateLimit fields, ask for (RFC 9110
//! section 10.2.3). The rate is `client.requests_per_second`: slots at equal distances, given out
//! in order by one atomic word, so that all cores together keep to it. Whoever would wait longer
//! than it may gets no slot and is told the true time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::Mono;
use crate::breaker::state::OPEN_MAX;

/// The pace of one upstream, shared by all cores.
#[derive(Debug)]
pub struct Pacer {
    /// Nanoseconds between two slots; 0 when there is no rate.
    interval: u64,
    /// The next free slot, in nanoseconds; always 0 when there is no rate.
    next: AtomicU64,
    /// In nanoseconds; only grows.
    paused_until: AtomicU64,
}

/// When a request may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// At once.
    Now,
    /// After this time; the slot is taken.
    Wait(Duration),
    /// Not as soon as that; no slot was taken.
    Refused {
        /// When to ask again.
        retry_after: Duration,
    },
}

impl Pacer {
    /// `requests_per_second`: `None` for no limit, 0 counts as 1.
    #[must_use]
    pub fn new(requests_per_second: Option<u32>) -> Self {
        let interval = requests_per_second.map_or(0, |rate| SECOND_NANOS / u64::from(rate.max(1)));
        Self { interval, next: AtomicU64::new(0), paused_until: AtomicU64::new(0) }
    }

    /// When may a request leave that waits at most for `patience`?
    ///
    /// Cost without a rate: one load; with one: a load more and a compare-and-swap.
    pub fn turn(&self, patience: Duration, now: Mono) -> Turn {
        let earliest = self.paused_until.load(Ordering::Relaxed).max(now.as_nanos());
        if self.interval == 0 {
            return wait(earliest, patience, now);
        }
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let slot = next.max(earliest);
            let turn = wait(slot, patience, now);
            if matches!(turn, Turn::Refused { .. }) {
                return turn;
            }
            let after = slot.saturating_add(self.interval);
            let order = Ordering::Relaxed;
            match self.next.compare_exchange_weak(next, after, order, order) {
                Ok(_) => return turn,
                Err(seen) => next = seen,
            }
        }
    }

    /// The upstream asked to be left alone for `span`; at most an hour is granted, and a pause that
    /// lasts longer already stays.
    pub fn pause(&self, span: Duration, now: Mono) {
        let until = now.plus(span.min(OPEN_MAX)).as_nanos();
        self.paused_until.fetch_max(until, Ordering::Relaxed);
    }

    /// How long the pause lasts; `None` when there is none.
    #[must_use]
    pub fn paused_for(&self, now: Mono) -> Option<Duration> {
        let until = Mono::from_nanos(self.paused_until.load(Ordering::Relaxed));
        (until > now).then(|| until.since(now))
    }
}

fn wait(slot: u64, patience: Duration, now: Mono) -> Turn {
    let wait = Mono::from_nanos(slot).since(now);
    match wait {
        Duration::ZERO => Turn::Now,
        _ if wait <= patience => Turn::Wait(wait),
        _ => Turn::Refused { retry_after: wait },
    }
}

const SECOND_NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(offset: u64) -> Mono {
        Mono::START.plus(millis(offset))
    }

    #[test]
    fn without_a_rate_everything_leaves_at_once() {
        let pacer = Pacer::new(None);
        assert!((0..1_000).all(|_| pacer.turn(Duration::ZERO, at(5)) == Turn::Now));
    }

    #[test]
    fn slots_lie_an_interval_apart_and_unused_ones_are_lost() {
        let pacer = Pacer::new(Some(10));
        let turn = |now| pacer.turn(millis(250), now);
        assert_eq!(turn(at(0)), Turn::Now);
        assert_eq!(turn(at(0)), Turn::Wait(millis(100)));
        assert_eq!(turn(at(50)), Turn::Wait(millis(150)));
        assert_eq!(turn(at(50)), Turn::Wait(millis(250)));
        assert_eq!(turn(at(50)), Turn::Refused { retry_after: millis(350) });
        // The refusal took no slot.
        assert_eq!(turn(at(400)), Turn::Now);
        assert_eq!(turn(at(5_000)), Turn::Now);
        assert_eq!(turn(at(5_000)), Turn::Wait(millis(100)));
    }

    #[test]
    fn a_pause_holds_until_its_end_and_is_bounded() {
        for rate in [None, Some(10)] {
            let pacer = Pacer::new(rate);
            let turn = |now| pacer.turn(millis(1_000), now);
            pacer.pause(millis(3_000), at(0));
            pacer.pause(millis(10), at(0));
            assert_eq!(pacer.paused_for(at(1_000)), Some(millis(2_000)));
            assert_eq!(turn(at(1_000)), Turn::Refused { retry_after: millis(2_000) });
            assert_eq!(turn(at(2_500)), Turn::Wait(millis(500)));
            assert_eq!(turn(at(3_200)), Turn::Now);
            assert_eq!(pacer.paused_for(at(3_000)), None);
            pacer.pause(Duration::MAX, at(0));
            assert_eq!(pacer.paused_for(at(0)), Some(OPEN_MAX));
        }
    }

    #[test]
    fn threads_together_keep_the_rate() {
        let pacer = Pacer::new(Some(1_000));
        let mut waits = Vec::new();
        thread::scope(|scope| {
            let take = || (0..500).map(|_| pacer.turn(Duration::MAX, at(0))).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            waits.extend(threads.into_iter().flat_map(|it| it.join().unwrap()));
        });
        let mut slots: Vec<_> = waits
            .into_iter()
            .map(|turn| match turn {
                Turn::Now => Duration::ZERO,
                Turn::Wait(wait) => wait,
                Turn::Refused { .. } => panic!("nobody waits longer than for ever"),
            })
            .collect();
        slots.sort_unstable();
        assert!(slots.into_iter().eq((0..2_000).map(millis)));
    }
}
