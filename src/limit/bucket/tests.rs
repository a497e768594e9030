use std::collections::HashSet;

use super::*;
use crate::limit::cell::ahead;
use crate::limit::quota::TICKS_MASK;

/// A gate and two cells: enough to be full, few enough to explore.
const WORDS: usize = 3;
const NOW: u64 = 1_000_000_000;
const HORIZON: u64 = 1 << 38;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Actor {
    Running(Attempt),
    Done(Result<(), ()>),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    words: [u64; WORDS],
    actors: Vec<Actor>,
}

/// What one exploration saw.
struct Explored {
    worlds: usize,
    /// Each final state's words, and which actors were admitted.
    finals: HashSet<([u64; WORDS], Vec<bool>)>,
}

fn attempt(tag: u64, quota: Quota, now: u64) -> Attempt {
    Attempt::new(tag, quota, now, HORIZON, WORDS)
}

/// Runs every interleaving of the actors' atomic operations; `check` sees every world.
fn explore(cells: [u64; 2], actors: &[Attempt], check: impl Fn(&World)) -> Explored {
    let actors = actors.iter().map(|it| Actor::Running(*it)).collect();
    let mut todo = vec![World { words: [0, cells[0], cells[1]], actors }];
    let (mut seen, mut finals) = (HashSet::new(), HashSet::new());
    while let Some(world) = todo.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        check(&world);
        let mut running = false;
        for at in 0..world.actors.len() {
            let Actor::Running(mut attempt) = world.actors[at] else { continue };
            running = true;
            let mut next = world.clone();
            let outcome = match attempt.next_op() {
                Op::Load(word) => attempt.on_seen(world.words[word]),
                Op::Swap { at: word, old, new } => {
                    if world.words[word] == old {
                        next.words[word] = new;
                    }
                    attempt.on_seen(world.words[word])
                }
            };
            next.actors[at] = match outcome {
                None => Actor::Running(attempt),
                Some(outcome) => Actor::Done(outcome.map(drop).map_err(drop)),
            };
            todo.push(next);
        }
        if !running {
            let admitted = |actor: &Actor| matches!(actor, Actor::Done(Ok(())));
            finals.insert((world.words, world.actors.iter().map(admitted).collect()));
        }
    }
    Explored { worlds: seen.len(), finals }
}

/// The invariant of the protocol.
fn no_identity_has_two_cells(world: &World) {
    let [_, one, two] = world.words;
    assert!(tag_of(one) != tag_of(two) || tag_of(one) == 0, "{world:?}");
}

fn owed_by(words: &[u64; WORDS], tag: u64) -> Option<u64> {
    let word = words[1..].iter().find(|word| tag_of(**word) == tag)?;
    Some(ahead(*word, NOW, HORIZON))
}

#[test]
fn in_every_interleaving_a_new_identity_gets_exactly_its_burst() {
    for burst in 1..=3 {
        let quota = Quota::new(60, burst).unwrap();
        let explored = explore([0, 0], &[attempt(7, quota, NOW); 3], no_identity_has_two_cells);
        assert!(explored.worlds > 500, "the model did not run");
        for (words, admitted) in &explored.finals {
            let count = admitted.iter().filter(|it| **it).count();
            assert_eq!(count, burst.min(3) as usize, "{words:x?}");
            assert_eq!(owed_by(words, 7), Some(quota.interval() * u64::from(burst.min(3))));
        }
    }
}

#[test]
fn in_every_interleaving_clocks_that_differ_within_the_slack_lose_nothing() {
    let quota = Quota::new(60, 2).unwrap();
    let clocks = [NOW, NOW + quota.slack() / 2, NOW + quota.slack()];
    let actors = clocks.map(|now| attempt(7, quota, now));
    let explored = explore([0, 0], &actors, no_identity_has_two_cells);
    for (words, admitted) in &explored.finals {
        assert_eq!(admitted.iter().filter(|it| **it).count(), 2, "{words:x?}");
    }
}

#[test]
fn in_every_interleaving_two_new_identities_find_a_cell_each() {
    let quota = Quota::new(60, 1).unwrap();
    let passed = idle(9, NOW - 5);
    for cells in [[0, 0], [passed, 0], [idle(8, NOW - 3), passed]] {
        let actors = [7, 7, 5].map(|tag| attempt(tag, quota, NOW));
        let explored = explore(cells, &actors, no_identity_has_two_cells);
        for (words, admitted) in &explored.finals {
            assert!(admitted[0] != admitted[1] && admitted[2], "{words:x?} {admitted:?}");
            let each = Some(quota.interval());
            assert_eq!((owed_by(words, 7), owed_by(words, 5)), (each, each), "{words:x?}");
        }
    }
}

#[test]
fn in_every_interleaving_a_known_identity_keeps_its_debt_while_others_are_founded() {
    let quota = Quota::new(60, 3).unwrap();
    // It has one request left.
    let known = idle(9, NOW + 2 * quota.interval());
    let actors = [attempt(9, quota, NOW), attempt(9, quota, NOW), attempt(7, quota, NOW)];
    let explored = explore([known, idle(8, NOW - 1)], &actors, no_identity_has_two_cells);
    for (words, admitted) in &explored.finals {
        assert!(admitted[0] != admitted[1] && admitted[2], "{words:x?} {admitted:?}");
        assert_eq!(owed_by(words, 9), Some(3 * quota.interval()));
    }
}

#[test]
fn in_a_full_bucket_the_one_that_owes_least_is_evicted() {
    let quota = Quota::new(60, 10).unwrap();
    let rich = idle(8, NOW + 9 * quota.interval());
    let poor = idle(9, NOW + 2 * quota.interval());
    for cells in [[rich, poor], [poor, rich]] {
        let explored = explore(cells, &[attempt(7, quota, NOW)], no_identity_has_two_cells);
        let (words, admitted) = explored.finals.iter().next().unwrap();
        assert!(admitted[0]);
        assert_eq!(owed_by(words, 8), Some(9 * quota.interval()));
        assert_eq!(owed_by(words, 9), None);
    }
}

#[test]
fn in_every_interleaving_a_full_bucket_never_holds_an_identity_twice() {
    let quota = Quota::new(60, 2).unwrap();
    let owing = |tag| idle(tag, NOW + 2 * quota.interval());
    for tags in [[7, 7, 5], [7, 5, 4], [8, 7, 7], [7, 7, 7]] {
        let actors = tags.map(|tag| attempt(tag, quota, NOW));
        let explored = explore([owing(8), owing(9)], &actors, no_identity_has_two_cells);
        assert!(explored.finals.iter().all(|(words, _)| words[1] & TICKS_MASK != 0));
    }
}

/// A request of 7 reads the gate that announces 7 and stalls; 5, which costs ten times as much,
/// evicts 7; 7 is founded again in the other cell, which now owes less. What the stalled request
/// then finds where 7 was announced is no pending insertion.
#[test]
fn in_every_interleaving_a_stalled_request_finishes_no_insertion_of_the_past() {
    let (cheap, dear) = (Quota::new(60, 10).unwrap(), Quota::new(6, 10).unwrap());
    let other = idle(9, NOW + 5 * cheap.interval());
    let actors = [(7, cheap), (7, cheap), (5, dear), (7, cheap)];
    let actors = actors.map(|(tag, quota)| attempt(tag, quota, NOW));
    let explored = explore([0, other], &actors, no_identity_has_two_cells);
    assert!(explored.worlds > 10_000, "the model did not run");
}
