use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;
use std::thread;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn quota(per_minute: u32, burst: u32) -> Quota {
    Quota::new(per_minute, burst).unwrap()
}

fn at(seconds: u64) -> Mono {
    Mono::START.plus(SECOND * u32::try_from(seconds).unwrap())
}

fn admits(limiter: &Limiter, hash: u64, quota: &Quota, now: Mono) -> bool {
    matches!(limiter.check(hash, quota, now), Verdict::Admitted(_))
}

/// How many requests are admitted at once.
fn drain(limiter: &Limiter, hash: u64, quota: &Quota, now: Mono) -> u32 {
    let mut admitted = 0;
    while admits(limiter, hash, quota, now) {
        admitted += 1;
    }
    admitted
}

/// Hashes that fall anywhere, as those of identities do.
fn scatter(index: u64) -> u64 {
    let mixed = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 32
}

#[test]
fn an_idle_identity_gets_its_burst_and_then_its_rate() {
    let (limiter, quota) = (Limiter::new(1_000), quota(60, 10));
    assert_eq!(drain(&limiter, 1, &quota, at(100)), 10);
    assert_eq!(drain(&limiter, 1, &quota, at(100)), 0);
    for second in 101..200 {
        assert_eq!(drain(&limiter, 1, &quota, at(second)), 1, "{second}");
    }
    assert_eq!(drain(&limiter, 1, &quota, at(205)), 6);
    assert_eq!(drain(&limiter, 1, &quota, at(900)), 10);
}

#[test]
fn a_verdict_says_what_is_left_and_how_long_to_wait() {
    let (limiter, quota) = (Limiter::new(1_000), quota(60, 2));
    // An interval is kept in ticks of 2.048 us, rounded down.
    let second = span(quota.interval());
    assert!(second <= SECOND && SECOND - second < Duration::from_nanos(2_048));
    let standing = |remaining, reset_after| Verdict::Admitted(Standing { remaining, reset_after });
    assert_eq!(limiter.peek(1, &quota, at(5)), standing(1, second));
    assert_eq!(limiter.check(1, &quota, at(5)), standing(1, second));
    assert_eq!(limiter.peek(1, &quota, at(5)), standing(0, second * 2));
    assert_eq!(limiter.check(1, &quota, at(5)), standing(0, second * 2));
    let rejected = Verdict::Rejected { retry_after: second };
    assert_eq!(limiter.check(1, &quota, at(5)), rejected);
    assert_eq!(limiter.peek(1, &quota, at(5)), rejected);
    assert_eq!(limiter.check(1, &quota, at(5).plus(second)), standing(0, second * 2));
}

#[test]
fn identities_do_not_share_a_quota() {
    let (limiter, quota) = (Limiter::new(100_000), quota(60, 3));
    for index in 0..2_000 {
        assert_eq!(drain(&limiter, scatter(index), &quota, at(1)), 3, "{index}");
    }
    assert_eq!(limiter.live(at(1)), 2_000);
    assert_eq!(limiter.live(at(60)), 0);
}

#[test]
fn a_hash_without_tag_bits_is_an_identity_like_others() {
    let (limiter, quota) = (Limiter::new(1), quota(60, 4));
    assert_eq!(drain(&limiter, 0, &quota, at(1)), 4);
    assert_eq!(drain(&limiter, u64::MAX, &quota, at(1)), 4);
    assert_eq!(drain(&limiter, 0, &quota, at(1)), 0);
}

#[test]
fn a_flood_of_addresses_changes_neither_memory_nor_those_that_are_spent() {
    let (limiter, quota) = (Limiter::new(CELLS_DEFAULT / 16), quota(60, 10));
    let memory = limiter.memory_bytes();
    let spent: Vec<u64> = (0..500).map(scatter).collect();
    for hash in &spent {
        assert_eq!(drain(&limiter, *hash, &quota, at(100)), 10);
    }
    // Half a million other addresses within a second, over ten times what the table holds.
    let later = at(100).plus(SECOND / 2);
    for index in 1_000..500_000 {
        let _ = limiter.check(scatter(index), &quota, later);
    }
    for hash in &spent {
        assert!(!admits(&limiter, *hash, &quota, later));
    }
    assert_eq!(limiter.memory_bytes(), memory);
    assert!(limiter.live(later) <= memory / 8);
}

/// The rule of eviction at its worst: far more addresses than cells, all of which owe something.
/// Who owes more than a newcomer keeps its place; who owes as much or less is forgiven it, which is
/// one request at most.
#[test]
fn ten_million_addresses_change_neither_memory_nor_the_standing_of_who_was_here() {
    // Ten seconds for a request: nobody's debt is gone before the flood is.
    let (limiter, quota) = (Limiter::default(), quota(6, 10));
    let memory = limiter.memory_bytes();
    let known: Vec<(u64, u32)> = (0..1_000).map(|at| (scatter(at), 1 + at as u32 % 10)).collect();
    for (hash, spent) in &known {
        for _ in 0..*spent {
            assert!(admits(&limiter, *hash, &quota, at(100)));
        }
    }
    let (start, span) = (at(100), SECOND * 8);
    thread::scope(|scope| {
        for half in 0..2_u64 {
            let limiter = &limiter;
            scope.spawn(move || {
                for turn in 0..5_000_000_u64 {
                    let now = start.plus(span / 5_000 * u32::try_from(turn / 1_000).unwrap());
                    let _ = limiter.check(scatter(1_000 + turn * 2 + half), &quota, now);
                }
            });
        }
    });
    let now = start.plus(span);
    for (hash, spent) in &known {
        let left = limiter.standing(*hash, &quota, now).remaining;
        let exact = 10 - spent;
        if *spent >= 2 {
            assert_eq!(left, exact, "spent {spent}");
        } else {
            assert!(left == exact || left == exact + 1, "spent {spent}: {left}");
        }
    }
    assert_eq!(limiter.memory_bytes(), memory);
    assert!(limiter.live(now) <= memory / 8);
}

#[test]
fn an_untouched_cell_is_free_again_before_and_after_the_ticks_have_wrapped() {
    let quota = quota(60, 10);
    let wrap = Duration::from_nanos(1 << 51);
    for before in [at(0), at(1_000), at(2_000_000)] {
        for gap in [wrap / 4, wrap / 2, wrap - SECOND * 80, wrap + SECOND * 11, wrap * 5 / 2] {
            let (limiter, later) = (Limiter::new(100), before.plus(gap));
            assert_eq!(drain(&limiter, 1, &quota, before), 10);
            assert_eq!(limiter.live(later), 0, "{before:?} {gap:?}");
            assert_eq!(drain(&limiter, 1, &quota, later), 10, "{before:?} {gap:?}");
        }
    }
}

#[test]
fn giving_back_restores_exactly_one_request() {
    let (limiter, quota) = (Limiter::new(100), quota(60, 10));
    assert_eq!(drain(&limiter, 1, &quota, at(5)), 10);
    limiter.give_back(1, &quota);
    limiter.give_back(1, &quota);
    assert_eq!(drain(&limiter, 1, &quota, at(5)), 2);
    // Nobody knows this identity: nothing to give back.
    limiter.give_back(2, &quota);
    assert_eq!(drain(&limiter, 2, &quota, at(5)), 10);
}

#[test]
fn a_refusal_by_one_identity_takes_nothing_from_the_other() {
    let (few, many) = (quota(60, 2), quota(600, 50));
    for (first, second, refuses) in [(&few, &many, Kind::Address), (&many, &few, Kind::Key)] {
        let limiter = Limiter::new(100);
        let first = Ask { kind: Kind::Address, hash: 1, quota: first };
        let second = Ask { kind: Kind::Key, hash: 2 << 40, quota: second };
        for _ in 0..2 {
            assert!(matches!(limiter.check_both(first, second, at(9)), Both::Admitted { .. }));
        }
        for _ in 0..100 {
            match limiter.check_both(first, second, at(9)) {
                Both::Rejected { by, retry_after } => {
                    assert_eq!((by, retry_after), (refuses, span(few.interval())));
                }
                admitted @ Both::Admitted { .. } => panic!("{admitted:?}"),
            }
        }
        let other = if refuses == Kind::Key { first } else { second };
        assert_eq!(drain(&limiter, other.hash, other.quota, at(9)), 48);
    }
}

#[test]
fn two_refusals_ask_for_the_longer_wait() {
    let (slow, fast) = (quota(6, 1), quota(60, 1));
    let limiter = Limiter::new(100);
    let first = Ask { kind: Kind::Address, hash: 1, quota: &fast };
    let second = Ask { kind: Kind::Key, hash: 2 << 40, quota: &slow };
    assert!(matches!(limiter.check_both(first, second, at(9)), Both::Admitted { .. }));
    let expected = Both::Rejected { by: Kind::Address, retry_after: span(slow.interval()) };
    assert_eq!(limiter.check_both(first, second, at(9)), expected);
}

#[test]
fn threads_together_get_exactly_the_burst_of_a_new_identity() {
    let (limiter, quota) = (Limiter::new(64), quota(60, 10));
    let (threads, rounds) = (4, 2_000);
    let admitted: Vec<_> = (0..rounds).map(|_| AtomicU32::new(0)).collect();
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                barrier.wait();
                // Rounds lie far apart in time, so that no round evicts what another owes.
                for (round, count) in (0_u64..).zip(&admitted) {
                    for _ in 0..8 {
                        if admits(&limiter, scatter(round), &quota, at(round * 100)) {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    barrier.wait();
                }
            });
        }
    });
    for (round, count) in admitted.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), 10, "round {round}");
    }
}

#[test]
fn threads_that_are_refused_by_the_second_leave_the_first_exact() {
    let (generous, tight) = (quota(60, 5_000), quota(60, 10));
    for round in 0..50 {
        let limiter = Limiter::new(64);
        let first = Ask { kind: Kind::Address, hash: scatter(round), quota: &generous };
        let second = Ask { kind: Kind::Key, hash: scatter(round + 1_000), quota: &tight };
        let admitted = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let both = limiter.check_both(first, second, at(7));
                        if matches!(both, Both::Admitted { .. }) {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 10);
        assert_eq!(drain(&limiter, first.hash, &generous, at(7)), 4_990);
    }
}

/// The rule itself, without any cleverness: all admitted requests, and every window of them.
#[derive(Default)]
struct Model {
    /// Ticks at which each identity was admitted.
    admitted: HashMap<u64, Vec<u64>>,
}

impl Model {
    /// A request is admitted unless with it some window since an earlier one holds more than the
    /// burst and what the window's length earns.
    fn check(&mut self, hash: u64, quota: &Quota, now: u64) -> bool {
        let times = self.admitted.entry(hash).or_default();
        let fits = times.iter().enumerate().all(|(at, time)| {
            let requests = (times.len() - at + 1) as u64;
            requests * quota.interval() <= quota.tolerance() + quota.slack() + (now - time)
        });
        if fits {
            times.push(now);
        }
        fits
    }
}

proptest! {
    #[test]
    fn the_limiter_agrees_with_the_slow_model(
        per_minute in prop::sample::select(vec![1_u32, 59, 60, 300, 7_777, 600_000]),
        burst in 1_u32..12,
        start in 0_u64..1 << 52,
        steps in prop::collection::vec((0_u64..3, 0.0_f64..2.0), 1..80),
    ) {
        let quota = quota(per_minute, burst);
        let limiter = Limiter::new(64);
        let mut model = Model::default();
        let mut now = start;
        for (identity, intervals) in steps {
            // Half of the requests come at once, the others up to an interval later.
            let gap = (intervals - 1.0).max(0.0) * span(quota.interval()).as_nanos() as f64;
            now += gap as u64;
            let hash = scatter(identity);
            let expected = model.check(hash, &quota, now >> 11);
            prop_assert_eq!(admits(&limiter, hash, &quota, Mono::from_nanos(now)), expected);
        }
    }

    #[test]
    fn who_waits_as_told_is_admitted_and_no_run_exceeds_rate_and_burst(
        per_minute in 1_u32..2_000_000,
        burst in 1_u32..20,
        start: u32,
    ) {
        let quota = quota(per_minute, burst);
        let limiter = Limiter::new(64);
        let begin = Mono::from_nanos(start.into());
        let (mut now, mut admitted) = (begin, 0_u64);
        for _ in 0..100 {
            match limiter.check(5, &quota, now) {
                Verdict::Admitted(_) => admitted += 1,
                Verdict::Rejected { retry_after } => {
                    now = now.plus(retry_after);
                    prop_assert!(admits(&limiter, 5, &quota, now));
                    admitted += 1;
                }
            }
        }
        let earned = (now.since(begin) + span(quota.slack() + 1)).as_nanos();
        let earned = earned / span(quota.interval()).as_nanos();
        prop_assert!(u128::from(admitted) <= u128::from(burst) + earned);
    }
}
