//! The shard against a slow model, and each rule by name.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::base::Seed;
use crate::cache::key::Key;
use crate::cache::packed::tests::plain_facts;
use crate::http::Fields;

const PLENTY: u64 = 1 << 40;

fn entry(name: u8, body_bytes: usize, ledger: &Arc<Ledger>) -> Arc<Entry> {
    let key = Key::new(&[name], &Seed::fixed(1));
    let body = Bytes::from(vec![name; body_bytes]);
    Arc::new(Entry::new(key, plain_facts(), &Fields::new(), body, ledger))
}

fn shard(entries_max: u32, bytes_max: u64) -> (Shard, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::new(bytes_max));
    (Shard::new(entries_max, Arc::clone(&ledger)), ledger)
}

fn put(shard: &mut Shard, name: u8, body_bytes: usize) -> Inserted {
    let entry = entry(name, body_bytes, &Arc::clone(&shard.ledger));
    shard.insert(entry)
}

fn get(shard: &mut Shard, name: u8) -> Option<usize> {
    shard.get(Seed::fixed(1).hash(&[name]), &[name]).map(|entry| entry.body().len())
}

fn names(shard: &Shard) -> Vec<u8> {
    shard.iter().map(|entry| entry.key().bytes()[0]).collect()
}

/// The list is the table is the occupied slots; free slots are all in the free chain.
fn check(shard: &Shard) {
    let (mut at, mut newer, mut count) = (shard.newest, NONE, 0);
    while at != NONE {
        let node = shard.node(at);
        assert_eq!(node.newer, newer);
        let key = node.entry.as_ref().unwrap().key();
        assert_eq!(shard.find(key.hash(), key.bytes()), Some(at));
        (newer, at, count) = (at, node.older, count + 1);
    }
    assert_eq!((shard.oldest, shard.len()), (newer, count));
    let (mut free, mut chained) = (shard.free, 0);
    while free != NONE {
        assert!(shard.node(free).entry.is_none());
        (free, chained) = (shard.node(free).older, chained + 1);
    }
    assert_eq!(count + chained, shard.nodes.len());
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, usize),
    Get(u8),
    Peek(u8),
    Remove(u8),
    Sweep(usize, u8),
    LimitEntries(u32),
    LimitBytes(u64),
    Shed,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12u8, 0..400usize).prop_map(|(name, size)| Step::Insert(name, size)),
        8 => (0..12u8).prop_map(Step::Get),
        2 => (0..12u8).prop_map(Step::Peek),
        2 => (0..12u8).prop_map(Step::Remove),
        1 => (1..8usize, 0..12u8).prop_map(|(batch, above)| Step::Sweep(batch, above)),
        1 => (0..9u32).prop_map(Step::LimitEntries),
        1 => (0..4_000u64).prop_map(Step::LimitBytes),
        1 => Just(Step::Shed),
        1 => Just(Step::Clear),
    ]
}

/// Newest first: name and size in memory.
struct Model {
    list: VecDeque<(u8, u64)>,
    entries_max: usize,
    bytes_max: u64,
}

impl Model {
    fn bytes(&self) -> u64 {
        self.list.iter().map(|(_, bytes)| bytes).sum()
    }

    fn evict_while(&mut self, needed: impl Fn(&Self) -> bool) -> usize {
        let before = self.list.len();
        while !self.list.is_empty() && needed(self) {
            self.list.pop_back();
        }
        before - self.list.len()
    }

    fn take(&mut self, name: u8) -> Option<(u8, u64)> {
        let at = self.list.iter().position(|(it, _)| *it == name)?;
        self.list.remove(at)
    }

    fn insert(&mut self, name: u8, bytes: u64) -> Inserted {
        let replaced = self.take(name).is_some();
        if self.entries_max == 0 || bytes > self.bytes_max {
            return Inserted { replaced, ..Inserted::default() };
        }
        let mut evicted = self.evict_while(|model| model.list.len() >= model.entries_max);
        self.list.push_front((name, bytes));
        evicted += self.evict_while(|it| it.list.len() > 1 && it.bytes() > it.bytes_max);
        Inserted { kept: true, replaced, evicted, bytes_over: 0 }
    }
}

fn play(steps: Vec<Step>) {
    let (mut shard, ledger) = shard(6, PLENTY);
    let mut model = Model { list: VecDeque::new(), entries_max: 6, bytes_max: PLENTY };
    for step in steps {
        match step {
            Step::Insert(name, size) => {
                let made = entry(name, size, &ledger);
                let bytes = made.size_bytes();
                assert_eq!(shard.insert(made), model.insert(name, bytes));
            }
            Step::Get(name) => {
                let expected = model.take(name).inspect(|it| model.list.push_front(*it));
                assert_eq!(get(&mut shard, name).is_some(), expected.is_some());
            }
            Step::Peek(name) => {
                let found = shard.peek(Seed::fixed(1).hash(&[name]), &[name]);
                let expected = model.list.iter().find(|(it, _)| *it == name);
                assert_eq!(found.map(|it| it.size_bytes()), expected.map(|it| it.1));
            }
            Step::Remove(name) => {
                let removed = shard.remove(Seed::fixed(1).hash(&[name]), &[name]);
                assert_eq!(removed.map(|it| it.size_bytes()), model.take(name).map(|it| it.1));
            }
            Step::Sweep(batch, above) => {
                let (mut removed, mut next) = (0, Some(Cursor::default()));
                while let Some(from) = next {
                    let swept = shard.sweep(from, batch, |it| it.key().bytes()[0] > above);
                    removed += swept.removed;
                    next = swept.next;
                }
                let before = model.list.len();
                model.list.retain(|(name, _)| *name <= above);
                assert_eq!(removed, before - model.list.len());
            }
            Step::LimitEntries(most) => {
                model.entries_max = most as usize;
                let expected = model.evict_while(|it| it.list.len() > it.entries_max);
                assert_eq!(shard.limit_to(most), expected);
            }
            Step::LimitBytes(most) => {
                model.bytes_max = most;
                ledger.limit_to(most);
            }
            Step::Shed => {
                let expected = model.evict_while(|it| it.bytes() > it.bytes_max);
                assert_eq!(shard.shed(usize::MAX), expected);
            }
            Step::Clear => {
                assert_eq!(shard.clear().len(), model.list.len());
                model.list.clear();
            }
        }
        let expected: Vec<u8> = model.list.iter().map(|(name, _)| *name).collect();
        assert_eq!(names(&shard), expected);
        assert_eq!((ledger.bytes(), ledger.entries()), (model.bytes(), expected.len() as u64));
        check(&shard);
    }
}

proptest! {
    #[test]
    fn the_shard_behaves_as_the_model(steps in proptest::collection::vec(step(), 0..80)) {
        play(steps);
    }
}

#[test]
fn the_least_recently_used_leaves_first() {
    let (mut shard, _) = shard(3, PLENTY);
    for name in 1..=3 {
        assert_eq!(put(&mut shard, name, 0), Inserted { kept: true, ..Inserted::default() });
    }
    assert!(get(&mut shard, 1).is_some());
    assert_eq!(put(&mut shard, 4, 0).evicted, 1);
    assert_eq!(names(&shard), [4, 1, 3]);
}

#[test]
fn a_peek_does_not_count_as_use() {
    let (mut shard, _) = shard(2, PLENTY);
    let _ = (put(&mut shard, 1, 0), put(&mut shard, 2, 0));
    assert!(shard.peek(Seed::fixed(1).hash(&[1]), &[1]).is_some());
    assert_eq!(names(&shard), [2, 1]);
}

#[test]
fn an_entry_replaces_the_one_of_its_key() {
    let (mut shard, ledger) = shard(3, PLENTY);
    let _ = put(&mut shard, 1, 10);
    let second = put(&mut shard, 1, 20);
    assert!(second.kept && second.replaced);
    assert_eq!((get(&mut shard, 1), shard.len(), ledger.entries()), (Some(20), 1, 1));
}

#[test]
fn keys_of_one_hash_are_told_apart() {
    let (mut shard, _) = shard(3, PLENTY);
    let _ = put(&mut shard, 1, 0);
    let hash = Seed::fixed(1).hash(&[1]);
    assert!(shard.get(hash, &[1]).is_some());
    assert!(shard.get(hash, &[2]).is_none());
    assert!(shard.remove(hash, &[2]).is_none());
}

#[test]
fn an_entry_larger_than_the_limit_is_not_kept_and_ends_the_older_one() {
    let (mut shard, ledger) = shard(3, 1_000);
    let _ = put(&mut shard, 1, 10);
    let large = put(&mut shard, 1, 1_001);
    assert_eq!(large, Inserted { replaced: true, ..Inserted::default() });
    assert_eq!((shard.len(), ledger.bytes()), (0, 0));
}

#[test]
fn a_core_below_memory_pressure_keeps_its_newest_and_reports_the_excess() {
    let (mut mine, ledger) = shard(9, 2_000);
    let mut other = Shard::new(9, Arc::clone(&ledger));
    let _ = (put(&mut other, 1, 500), put(&mut other, 2, 500));
    let done = put(&mut mine, 3, 700);
    assert!(done.kept && done.bytes_over > 0 && mine.len() == 1, "{done:?}");
    assert_eq!(other.shed(usize::MAX), 1);
    assert_eq!((names(&other), ledger.bytes_over()), (vec![2], 0));
}

#[test]
fn entries_held_elsewhere_do_not_stop_the_shedding() {
    let (mut shard, ledger) = shard(9, 1_000);
    let held = entry(1, 100, &ledger);
    let _ = shard.insert(Arc::clone(&held));
    ledger.limit_to(10);
    assert_eq!((shard.shed(usize::MAX), shard.is_empty()), (1, true));
    assert_eq!(ledger.bytes(), held.size_bytes());
}

#[test]
fn slots_are_used_again_and_nothing_is_allocated_beyond_the_limit() {
    let (mut shard, _) = shard(4, PLENTY);
    let room = shard.index_bytes();
    for round in 0..1_000u32 {
        let _ = put(&mut shard, round.to_le_bytes()[0], 0);
    }
    assert_eq!((shard.nodes.len(), shard.index_bytes()), (4, room));
    check(&shard);
}

#[test]
fn a_sweep_goes_on_where_it_stopped() {
    let (mut shard, _) = shard(9, PLENTY);
    for name in 0..9 {
        let _ = put(&mut shard, name, 0);
    }
    let first = shard.sweep(Cursor::default(), 4, |_| true);
    assert_eq!((first.removed, first.next), (4, Some(Cursor(4))));
    let rest = shard.sweep(first.next.unwrap(), usize::MAX, |it| it.key().bytes()[0] != 8);
    assert_eq!((rest, names(&shard)), (Swept { removed: 4, next: None }, vec![8]));
    let _ = shard.clear();
    assert_eq!(shard.sweep(Cursor(4), 4, |_| true), Swept { removed: 0, next: None });
}

#[test]
fn a_cleared_shard_is_usable_and_its_content_is_held_until_dropped() {
    let (mut shard, ledger) = shard(9, PLENTY);
    let _ = (put(&mut shard, 1, 0), put(&mut shard, 2, 0));
    let cleared = shard.clear();
    assert_eq!((cleared.len(), cleared.is_empty(), shard.is_empty()), (2, false, true));
    assert_eq!(ledger.entries(), 2);
    drop(cleared);
    assert_eq!(ledger.entries(), 0);
    assert!(put(&mut shard, 1, 0).kept);
    check(&shard);
}
