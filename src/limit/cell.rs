//! One identity's word: its tag and its theoretical arrival time, changed together by one
//! compare-and-swap.
//!
//! ```text
//!  63            40 39                                      0
//! +----------------+-----------------------------------------+
//! |      tag       |  theoretical arrival time, ticks        |   tag 0: never used
//! +----------------+-----------------------------------------+
//! ```
//!
//! GCRA (ITU-T I.371): the arrival time says until when the identity has spent its rate. `ahead` of
//! it by the burst, requests are refused; once it has passed, the bucket is full and the cell as
//! good as empty, without anybody clearing it.
//!
//! Ticks wrap after 26 days. A time that seems further ahead than any quota allows (`horizon`) is
//! in truth a past one. Admitted weakness: a cell left untouched for a multiple of 26 days, give or
//! take the longest burst, counts as owing for that long; of identities that return after such a
//! time about one in thirty thousand gets a refusal or two.
//!
//! The tag has 24 bits besides those that choose the bucket: two live identities of one bucket
//! share a cell once in 2.4 million pairs, and are then limited together (the refusing side).

use crate::limit::quota::{Quota, TICKS_BITS, TICKS_MASK};

/// The word of an identity that owes nothing at `now`.
pub(super) const fn idle(tag: u64, now: u64) -> u64 {
    debug_assert!(tag != 0 && tag < 1 << TAG_BITS);
    tag << TICKS_BITS | now & TICKS_MASK
}

/// The identity's part of a word.
pub(super) const fn tag_of(word: u64) -> u64 {
    word >> TICKS_BITS
}

/// How far the word's time lies ahead of `now`; 0 when it has passed.
pub(super) const fn ahead(word: u64, now: u64, horizon: u64) -> u64 {
    let distance = word.wrapping_sub(now) & TICKS_MASK;
    if distance > horizon { 0 } else { distance }
}

/// Who gives way to a newcomer: the cell of the lowest rank. Unused ones first, then the one whose
/// time passed longest ago, and only then the one that owes least.
pub(super) const fn rank(word: u64, now: u64, horizon: u64) -> u64 {
    if tag_of(word) == 0 {
        return 0;
    }
    match ahead(word, now, horizon) {
        0 => OWES_NOTHING - (now.wrapping_sub(word) & TICKS_MASK),
        owed => OWES_NOTHING + owed,
    }
}

/// What a request would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Step {
    /// The word after it.
    pub(super) word: u64,
    /// Requests that could follow at once.
    pub(super) remaining: u32,
    /// Ticks until the whole burst is available again.
    pub(super) reset: u64,
}

/// Takes one request from the quota, or says how many ticks to wait.
pub(super) fn step(word: u64, quota: &Quota, now: u64, horizon: u64) -> Result<Step, u64> {
    let owed = ahead(word, now, horizon) + quota.interval();
    let limit = quota.tolerance() + quota.slack();
    if owed > limit {
        return Err(owed - quota.tolerance());
    }
    let remaining = u32::try_from((limit - owed) / quota.interval()).unwrap_or(u32::MAX);
    debug_assert!(remaining < quota.burst());
    let time = now.wrapping_add(owed) & TICKS_MASK;
    Ok(Step { word: tag_of(word) << TICKS_BITS | time, remaining, reset: owed })
}

/// What an identity has left, and the ticks until it has its whole burst; where nothing is left,
/// until its next request is admitted. Takes nothing.
pub(super) fn standing(word: u64, quota: &Quota, now: u64, horizon: u64) -> (u32, u64) {
    let owed = ahead(word, now, horizon);
    let left = (quota.tolerance() + quota.slack()).saturating_sub(owed) / quota.interval();
    match u32::try_from(left).unwrap_or(u32::MAX) {
        0 => (0, (owed + quota.interval()).saturating_sub(quota.tolerance())),
        left => (left.min(quota.burst()), owed),
    }
}

/// The word as if one request had not been made.
pub(super) const fn give_back(word: u64, quota: &Quota) -> u64 {
    let time = word.wrapping_sub(quota.interval()) & TICKS_MASK;
    tag_of(word) << TICKS_BITS | time
}

/// The rank between passed and owing cells; above every number of ticks.
const OWES_NOTHING: u64 = 1 << (TICKS_BITS + 1);

/// What is not in the time is tag.
pub(super) const TAG_BITS: u32 = u64::BITS - TICKS_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    const HORIZON: u64 = 1 << 38;

    fn spend(mut word: u64, quota: &Quota, now: u64) -> (u32, u64) {
        let mut admitted = 0;
        while let Ok(step) = step(word, quota, now, HORIZON) {
            word = step.word;
            admitted += 1;
        }
        (admitted, word)
    }

    #[test]
    fn an_idle_identity_gets_exactly_its_burst() {
        for (per_minute, burst) in [(60, 10), (60, 1), (300, 10), (1, 3), (u32::MAX, 50)] {
            let quota = Quota::new(per_minute, burst).unwrap();
            for now in [0, 1, 12_345_678, TICKS_MASK - 3, TICKS_MASK] {
                let (admitted, word) = spend(idle(7, now), &quota, now);
                assert_eq!(admitted, burst, "{per_minute} at {now}");
                assert_eq!(tag_of(word), 7);
            }
        }
    }

    #[test]
    fn what_was_waited_for_is_admitted_and_no_tick_before_the_slack_is() {
        let quota = Quota::new(60, 10).unwrap();
        let (_, word) = spend(idle(7, 500), &quota, 500);
        let wait = step(word, &quota, 500, HORIZON).unwrap_err();
        assert_eq!(wait, quota.interval());
        assert!(step(word, &quota, 500 + wait, HORIZON).is_ok());
        let soonest = 500 + wait - quota.slack();
        assert!(step(word, &quota, soonest, HORIZON).is_ok());
        assert!(step(word, &quota, soonest - 1, HORIZON).is_err());
    }

    #[test]
    fn a_request_with_a_slightly_older_clock_keeps_its_place_in_the_burst() {
        let quota = Quota::new(60, 10).unwrap();
        let mut word = idle(7, 5_000);
        for _ in 0..9 {
            word = step(word, &quota, 5_000, HORIZON).unwrap().word;
        }
        let late = step(word, &quota, 5_000 - quota.slack(), HORIZON).unwrap();
        assert_eq!(late.remaining, 0);
        assert!(step(late.word, &quota, 5_000, HORIZON).is_err());
    }

    #[test]
    fn a_time_that_has_passed_is_a_full_bucket_even_across_the_wrap() {
        let quota = Quota::new(60, 10).unwrap();
        let (_, word) = spend(idle(7, TICKS_MASK - 10), &quota, TICKS_MASK - 10);
        let later = quota.tolerance() + 5;
        assert_eq!(ahead(word, later, HORIZON), 0);
        assert_eq!(spend(word, &quota, later).0, 10);
    }

    #[test]
    fn cells_give_way_in_the_order_unused_longest_passed_owing_least() {
        let now = 5_u64;
        let words = [
            0,
            idle(7, now.wrapping_sub(HORIZON)),
            idle(7, TICKS_MASK),
            idle(7, now - 1),
            idle(7, now),
            idle(7, now + 1),
            idle(7, now + 1_000),
        ];
        let ranks = words.map(|word| rank(word, now, HORIZON));
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }

    #[test]
    fn a_standing_says_what_a_step_would_find() {
        let quota = Quota::new(60, 3).unwrap();
        let mut word = idle(7, 500);
        assert_eq!(standing(word, &quota, 500, HORIZON), (3, 0));
        for left in (0..3).rev() {
            let taken = step(word, &quota, 500, HORIZON).unwrap();
            word = taken.word;
            let (remaining, ticks) = standing(word, &quota, 500, HORIZON);
            assert_eq!((remaining, taken.remaining), (left, left));
            let expected = if left == 0 { quota.interval() } else { taken.reset };
            assert_eq!(ticks, expected, "{left}");
        }
        let wait = step(word, &quota, 500, HORIZON).unwrap_err();
        assert_eq!(standing(word, &quota, 500, HORIZON), (0, wait));
        assert_eq!(standing(word, &quota, 500 + wait, HORIZON).0, 1);
    }

    #[test]
    fn giving_back_undoes_a_step() {
        let quota = Quota::new(60, 10).unwrap();
        for now in [100, TICKS_MASK] {
            let word = step(idle(7, now), &quota, now, HORIZON).unwrap().word;
            let next = step(word, &quota, now, HORIZON).unwrap().word;
            assert_eq!(give_back(next, &quota), word);
            assert_eq!(give_back(word, &quota), idle(7, now));
        }
    }
}
