use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::cache::key::{Class, KeyWriter};
use crate::proxy::flight::Stage;

/// What the tests show in the hub.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) key: Vec<u8>,
    pub(super) value: u32,
}

impl Keyed for Item {
    fn key_bytes(&self) -> &[u8] {
        &self.key
    }
}

pub(super) fn item(key: &[u8], value: u32) -> Arc<Item> {
    Arc::new(Item { key: key.to_vec(), value })
}

pub(super) const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn publish(lead: Lead<Item>, entry: &Arc<Item>) -> Published {
    lead.publish(entry, entry, How::Fetched)
}

pub(super) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn hub() -> Arc<Hub<Item>> {
    Hub::new(Seed::fixed(1))
}

fn lead(hub: &Arc<Hub<Item>>) -> Lead<Item> {
    match hub.join(7, b"k", None, NOW) {
        Join::Lead(lead) => lead,
        _ => panic!("expected to lead"),
    }
}

fn follow(hub: &Arc<Hub<Item>>) -> Arc<Flight<Item>> {
    match hub.join(7, b"k", None, NOW) {
        Join::Follow(flight) => flight,
        _ => panic!("expected to follow"),
    }
}

fn key(path: &str, query: Option<&str>, class: Class) -> Vec<u8> {
    let mut key = Vec::new();
    let _ = KeyWriter::new(&mut key, class, 0, path.as_bytes(), query.map(str::as_bytes)).finish();
    key
}

fn show(hub: &Hub<Item>, key: &[u8]) -> Arc<Item> {
    let entry = item(key, 0);
    let hash = hub.seed.hash(key);
    assert_eq!(hub.announce(hash, &entry, NOW, || true), Published::New);
    entry
}

/// Forgets what is in reach, and returns the keys that were alive.
fn forget(hub: &Hub<Item>, reach: &Reach<'_>, matches: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut walk = hub.walk(reach);
    let mut found = Vec::new();
    while let Some(some) = hub.forget(&mut walk, matches) {
        assert!(some.len() <= LOOKED_AT_MAX);
        found.extend(some.iter().map(|it| it.key.clone()));
    }
    found.sort();
    found
}

#[test]
fn second_request_follows_and_gets_the_entry() {
    let hub = hub();
    let lead = lead(&hub);
    let flight = follow(&hub);
    assert!(now(flight.stage(&mut 0)).is_none());
    let entry = item(b"k", 5);
    assert_eq!(publish(lead, &entry), Published::New);
    let landed = now(flight.stage(&mut 0));
    assert!(matches!(landed, Some(Stage::Landed(Outcome::Entry(it, _))) if it.value == 5));
    assert!(matches!(hub.join(7, b"k", None, NOW), Join::Live(it) if it.value == 5));
    assert_eq!(flight.followers(), 1);
}

#[test]
fn dropped_lead_wakes_followers_and_frees_the_key() {
    let hub = hub();
    let leading = lead(&hub);
    let flight = follow(&hub);
    drop(leading);
    assert!(matches!(now(flight.landed()), Some(Outcome::Failed(Fault::Abandoned, None))));
    drop(lead(&hub));
    assert!(hub.is_empty(), "nothing is left of a fetch that ended");
}

#[test]
fn purged_flight_is_delivered_but_not_published() {
    let hub = hub();
    let first = lead(&hub);
    let flight = follow(&hub);
    forget(&hub, &Reach::Key { hash: 7, key: b"k" }, &|_| true);
    let second = lead(&hub);
    assert_eq!(publish(first, &item(b"k", 1)), Published::Doomed);
    assert!(matches!(now(flight.landed()), Some(Outcome::Entry(it, _)) if it.value == 1));
    assert!(hub.live(7, b"k").is_none());
    let newer = item(b"k", 2);
    assert_eq!(publish(second, &newer), Published::New);
    assert_eq!(hub.live(7, b"k").map(|it| it.value), Some(2));
}

#[test]
fn uncacheable_key_is_fetched_alone_until_the_marker_ends() {
    let hub = hub();
    let leading = lead(&hub);
    let flight = follow(&hub);
    leading.detach(NOW.plus(SOLO_SPAN));
    leading.private();
    assert!(matches!(now(flight.landed()), Some(Outcome::Private)));
    assert!(matches!(hub.join(7, b"k", None, NOW), Join::Solo));
    assert!(matches!(hub.join(7, b"k", None, NOW.plus(SOLO_SPAN)), Join::Lead(_)));
    hub.sweep(NOW.plus(SOLO_SPAN));
    assert!(hub.is_empty());
}

#[test]
fn unfit_entry_is_not_offered_but_a_newer_one_is() {
    let hub = hub();
    let stale = item(b"k", 1);
    assert_eq!(publish(lead(&hub), &stale), Published::New);
    let Join::Lead(refresh) = hub.join(7, b"k", Some(&stale), NOW) else { panic!("not led") };
    let newer = item(b"k", 2);
    assert_eq!(publish(refresh, &newer), Published::Replaced);
    assert!(matches!(hub.join(7, b"k", Some(&stale), NOW), Join::Live(it) if it.value == 2));
}

#[test]
fn failures_to_renew_wait_longer_each_time_and_a_success_forgives_them() {
    let hub = hub();
    let stale = item(b"k", 1);
    publish(lead(&hub), &stale);
    let join = |at| hub.join(7, b"k", Some(&stale), at);
    let mut at = NOW;
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let Join::Lead(lead) = join(at) else { panic!("not led") };
        lead.fail(Fault::Dial, Some(Arc::clone(&stale)), at);
        let wait = Duration::from_secs(seconds);
        assert!(matches!(join(at.plus(wait - Duration::from_nanos(1))), Join::Later));
        assert_eq!(hub.peek(7, b"k", at), Traffic::Waiting);
        at = at.plus(wait);
    }
    let Join::Lead(lead) = join(at) else { panic!("not led") };
    publish(lead, &item(b"k", 2));
    let Join::Lead(lead) = join(at) else { panic!("not led") };
    lead.fail(Fault::Dial, Some(Arc::clone(&stale)), at);
    assert!(matches!(join(at.plus(Duration::from_secs(1))), Join::Lead(_)), "counted afresh");
}

#[test]
fn dead_keys_are_swept_while_others_come() {
    let hub = hub();
    for number in 0..100_000_u32 {
        let key = number.to_be_bytes();
        let hash = hub.seed.hash(&key);
        let entry = item(&key, number);
        hub.announce(hash, &entry, NOW, || true);
    }
    assert!(hub.len() <= STRIPES * 4, "{} keys", hub.len());
}

#[test]
fn live_keys_are_never_swept() {
    let hub = hub();
    let held: Vec<_> = (0..5_000_u32).map(|it| show(&hub, &it.to_be_bytes())).collect();
    for number in 5_000..50_000_u32 {
        drop(show(&hub, &number.to_be_bytes()));
    }
    hub.sweep(NOW);
    assert_eq!(hub.len(), held.len());
    for entry in &held {
        assert!(hub.live(hub.seed.hash(&entry.key), &entry.key).is_some());
    }
}

#[test]
fn marks_are_bounded() {
    let hub = hub();
    let until = NOW.plus(SOLO_SPAN);
    for number in 0..200_000_u32 {
        let key = number.to_be_bytes();
        let Join::Lead(lead) = hub.join(hub.seed.hash(&key), &key, None, NOW) else {
            panic!("not led");
        };
        lead.detach(until);
        lead.private();
    }
    assert!(hub.len() <= STRIPES * 1024, "{} marks", hub.len());
    hub.sweep(until);
    assert!(hub.is_empty());
}

#[test]
fn a_resource_is_forgotten_with_all_its_keys_and_no_other() {
    let hub = hub();
    let keys: Vec<Vec<u8>> = [Class::Read, Class::Post, Class::Query]
        .into_iter()
        .flat_map(|class| {
            [("/a", None), ("/a", Some("x")), ("/a", Some("y")), ("/b", Some("x"))]
                .map(|(path, query)| key(path, query, class))
        })
        .collect();
    let _held: Vec<_> = keys.iter().map(|it| show(&hub, it)).collect();
    let reach = Reach::Resource { upstream: 0, path: b"/a", query: Some(b"x") };
    let found = forget(&hub, &reach, &|_| true);
    let mut expected = [1, 5, 9].map(|at| keys[at].clone());
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(hub.len(), 9);
    assert_eq!(forget(&hub, &Reach::Path(b"/a"), &|_| true).len(), 6);
    assert_eq!(hub.len(), 3);
    assert!(forget(&hub, &Reach::Path(b"/c"), &|_| true).is_empty());
}

#[test]
fn a_walk_meets_every_key_that_is_there_from_its_start() {
    let hub = hub();
    let held: Vec<_> = (0..10_000_u32).map(|it| show(&hub, &it.to_be_bytes())).collect();
    let found = forget(&hub, &Reach::Any, &|key| key[3].is_multiple_of(2));
    assert_eq!(found.len(), 5_000);
    assert_eq!(hub.len(), 5_000);
    assert_eq!(forget(&hub, &Reach::Any, &|_| true).len(), 5_000);
    assert!(hub.is_empty());
    drop(held);
}

#[test]
fn what_a_purge_noted_before_concerns_is_not_announced() {
    let hub = hub();
    let older = show(&hub, b"k");
    let newer = item(b"k", 1);
    let hash = hub.seed.hash(b"k");
    assert_eq!(hub.announce(hash, &newer, NOW, || false), Published::Doomed);
    // The older one is still found by the purge, whose message tells the cores.
    let found = forget(&hub, &Reach::Key { hash, key: b"k" }, &|_| true);
    assert_eq!(found, std::slice::from_ref(&older.key));
}

#[test]
fn a_cleared_hub_is_empty_and_its_fetches_are_doomed() {
    let hub = hub();
    let _held = show(&hub, b"other");
    let leading = lead(&hub);
    drop(hub.clear());
    assert!(hub.is_empty());
    assert_eq!(publish(leading, &item(b"k", 1)), Published::Doomed);
    assert!(hub.is_empty());
}

#[test]
fn of_two_keys_at_one_place_the_second_goes_alone() {
    let hub = hub();
    // Bytes that are no key stand by their hash alone.
    let first = item(b"k", 1);
    assert_eq!(hub.announce(7, &first, NOW, || true), Published::New);
    assert_eq!(hub.announce(7, &item(b"other", 2), NOW, || true), Published::Doomed);
    assert_eq!(hub.live(7, b"k").map(|it| it.value), Some(1));
    assert!(hub.live(7, b"other").is_none());
    let hub = Hub::new(Seed::fixed(1));
    let _lead = lead(&hub);
    assert!(matches!(hub.join(7, b"other", None, NOW), Join::Solo));
}

#[test]
fn attempts_after_a_failure_wait_ever_longer_and_no_more_after_a_success() {
    let (hub, stale) = (hub(), item(b"k", 1));
    hub.announce(7, &stale, NOW, || true);
    let mut now = NOW;
    for secs in [1, 2, 4, 8, 16, 30, 30] {
        if secs == 4 {
            // Without a lead it counts alike.
            hub.failed(7, b"k", now);
        } else {
            let Join::Lead(lead) = hub.join(7, b"k", Some(&stale), now) else { panic!("{secs}") };
            lead.fail(Fault::Dial, Some(Arc::clone(&stale)), now);
        }
        let end = now.plus(Duration::from_secs(secs));
        assert!(matches!(hub.join(7, b"k", Some(&stale), now), Join::Later), "{secs}");
        assert_eq!(hub.peek(7, b"k", now), Traffic::Waiting);
        assert_eq!(hub.peek(7, b"k", end), Traffic::None, "{secs}");
        now = end;
    }
    hub.failed(7, b"k", now);
    hub.announce(7, &item(b"k", 2), now, || true);
    assert_eq!(hub.peek(7, b"k", now), Traffic::None);
    hub.failed(7, b"k", now);
    let first = now.plus(Duration::from_secs(1));
    assert_eq!(hub.peek(7, b"k", first), Traffic::None, "it starts again with a second");
}

/// Requests that go alone (HEAD, Authorization) fail at the same time in an outage.
#[test]
fn attempts_that_fail_side_by_side_are_one_failure() {
    let hub = hub();
    let at = |milliseconds| NOW.plus(Duration::from_millis(milliseconds));
    (0..5).for_each(|millisecond| hub.failed(7, b"k", at(millisecond)));
    assert_eq!(hub.peek(7, b"k", at(999)), Traffic::Waiting);
    assert_eq!(hub.peek(7, b"k", at(1_000)), Traffic::None);
    (1_000..1_005).for_each(|millisecond| hub.failed(7, b"k", at(millisecond)));
    assert_eq!(hub.peek(7, b"k", at(2_999)), Traffic::Waiting);
    assert_eq!(hub.peek(7, b"k", at(3_000)), Traffic::None);
}

/// Nobody has judged whether it will do: who waits must not take it for an answer of the origin.
#[test]
fn stored_entry_that_was_purged_meanwhile_is_still_only_found() {
    let (hub, stored) = (hub(), item(b"k", 1));
    let leading = lead(&hub);
    let flight = follow(&hub);
    assert!(forget(&hub, &Reach::Key { hash: 7, key: b"k" }, &|_| true).is_empty());
    assert_eq!(leading.publish(&stored, &stored, How::Stored), Published::Doomed);
    assert!(matches!(now(flight.landed()), Some(Outcome::Entry(_, How::Stored))));
}

/// It says nothing of the origin.
#[test]
fn what_the_second_tier_has_does_not_end_the_wait_after_a_failure() {
    let (hub, stored) = (hub(), item(b"k", 1));
    let leading = lead(&hub);
    hub.failed(7, b"k", NOW);
    leading.publish(&stored, &stored, How::Stored);
    assert_eq!(hub.peek(7, b"k", NOW), Traffic::Waiting);
    drop(stored);
    assert!(matches!(hub.offer(7, &item(b"k", 2), NOW, || true), Offered::Shown));
    assert_eq!(hub.peek(7, b"k", NOW), Traffic::Waiting);
}

/// A look-up in the second tier may end after somebody has fetched anew, or has purged.
#[test]
fn entry_of_the_second_tier_never_takes_a_live_ones_place() {
    let (hub, stored) = (hub(), item(b"k", 1));
    assert!(matches!(hub.offer(7, &stored, NOW, || false), Offered::Doomed));
    assert!(hub.live(7, b"k").is_none());
    assert!(matches!(hub.offer(7, &stored, NOW, || true), Offered::Shown));
    assert_eq!(hub.live(7, b"k").as_ref(), Some(&stored));
    let newer = item(b"k", 2);
    assert_eq!(hub.announce(7, &newer, NOW, || true), Published::Replaced);
    assert!(matches!(hub.offer(7, &stored, NOW, || true), Offered::Known(it) if it == newer));
    assert_eq!(hub.live(7, b"k").as_ref(), Some(&newer));
}
