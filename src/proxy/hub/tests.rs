use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::proxy::flight::Stage;

fn publish(lead: Lead<u32>, entry: &Arc<u32>) -> Published {
    lead.publish(entry, entry, How::Fetched)
}

const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn lead(hub: &Arc<Hub<u32>>) -> Lead<u32> {
    match hub.join(7, b"k", None, NOW) {
        Join::Lead(lead) => lead,
        _ => panic!("expected to lead"),
    }
}

fn follow(hub: &Arc<Hub<u32>>) -> Arc<Flight<u32>> {
    match hub.join(7, b"k", None, NOW) {
        Join::Follow(flight) => flight,
        _ => panic!("expected to follow"),
    }
}

#[test]
fn second_request_follows_and_gets_the_entry() {
    let hub = Hub::new();
    let lead = lead(&hub);
    let flight = follow(&hub);
    assert!(now(flight.stage(&mut 0)).is_none());
    let entry = Arc::new(5);
    assert_eq!(publish(lead, &entry), Published::New);
    assert!(
        matches!(now(flight.stage(&mut 0)), Some(Stage::Landed(Outcome::Entry(it, _))) if *it == 5)
    );
    assert!(matches!(hub.join(7, b"k", None, NOW), Join::Live(it) if *it == 5));
    assert_eq!(flight.followers(), 1);
}

#[test]
fn dropped_lead_wakes_followers_and_frees_the_key() {
    let hub = Hub::new();
    let leading = lead(&hub);
    let flight = follow(&hub);
    drop(leading);
    assert!(matches!(now(flight.landed()), Some(Outcome::Failed(Fault::Abandoned, None))));
    drop(lead(&hub));
    hub.sweep(NOW);
    assert!(hub.is_empty());
}

#[test]
fn purged_flight_is_delivered_but_not_published() {
    let hub = Hub::new();
    let first = lead(&hub);
    let flight = follow(&hub);
    hub.purge(7, b"k");
    let second = lead(&hub);
    assert_eq!(publish(first, &Arc::new(1)), Published::Doomed);
    assert!(matches!(now(flight.landed()), Some(Outcome::Entry(it, _)) if *it == 1));
    assert!(hub.live(7, b"k").is_none());
    let newer = Arc::new(2);
    assert_eq!(publish(second, &newer), Published::New);
    assert_eq!(hub.live(7, b"k").as_deref(), Some(&2));
}

#[test]
fn uncacheable_key_is_fetched_alone_until_the_marker_ends() {
    let hub = Hub::new();
    let leading = lead(&hub);
    let flight = follow(&hub);
    leading.detach(NOW.plus(SOLO_SPAN));
    leading.private();
    assert!(matches!(now(flight.landed()), Some(Outcome::Private)));
    assert!(matches!(hub.join(7, b"k", None, NOW), Join::Solo));
    assert!(matches!(hub.join(7, b"k", None, NOW.plus(SOLO_SPAN)), Join::Lead(_)));
}

#[test]
fn unfit_entry_is_not_offered_but_a_newer_one_is() {
    let hub = Hub::new();
    let stale = Arc::new(1);
    assert_eq!(publish(lead(&hub), &stale), Published::New);
    let Join::Lead(refresh) = hub.join(7, b"k", Some(&stale), NOW) else { panic!("not led") };
    let newer = Arc::new(2);
    assert_eq!(publish(refresh, &newer), Published::Replaced);
    assert!(matches!(hub.join(7, b"k", Some(&stale), NOW), Join::Live(it) if *it == 2));
}

#[test]
fn dead_slots_are_swept_as_the_table_grows() {
    let hub: Arc<Hub<u32>> = Hub::new();
    for key in 0..100_000_u32 {
        let hash = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        drop(hub.join(hash, &key.to_be_bytes(), None, NOW));
    }
    assert!(hub.len() <= STRIPES * SWEEP_SLOTS_MIN, "{} slots", hub.len());
}

#[test]
fn purge_where_reaches_every_stripe() {
    let hub: Arc<Hub<u32>> = Hub::new();
    let mut held = Vec::new();
    for key in 0..1_000_u64 {
        let entry = Arc::new(0);
        hub.announce(key << 40, &key.to_be_bytes(), &entry, NOW);
        held.push(entry);
    }
    hub.purge_where(|key| key[7] % 2 == 0);
    assert_eq!(hub.len(), 500);
}

#[test]
fn attempts_after_a_failure_wait_ever_longer_and_no_more_after_a_success() {
    let (hub, stale): (Arc<Hub<u32>>, _) = (Hub::new(), Arc::new(1));
    hub.announce(7, b"k", &stale, NOW);
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
    // What is found in the second tier says nothing of the origin.
    let Join::Lead(lead) = hub.join(7, b"other", None, now) else { panic!("not led") };
    hub.failed(7, b"other", now);
    lead.publish(&stale, &stale, How::Stored);
    assert_eq!(hub.peek(7, b"other", now), Traffic::Waiting);
    hub.announce(7, b"k", &Arc::new(2), now);
    assert_eq!(hub.peek(7, b"k", now), Traffic::None);
    hub.failed(7, b"k", now);
    let first = now.plus(Duration::from_secs(1));
    assert_eq!(hub.peek(7, b"k", first), Traffic::None, "it starts again with a second");
}

/// A look-up in the second tier may end after somebody has fetched anew.
#[test]
fn entry_of_the_second_tier_never_takes_a_live_ones_place() {
    let hub = Hub::new();
    let stored = Arc::new(1);
    assert!(hub.offer(7, b"k", &stored, NOW).is_none());
    assert_eq!(hub.live(7, b"k").as_deref(), Some(&1));
    let newer = Arc::new(2);
    assert_eq!(hub.announce(7, b"k", &newer, NOW), Published::Replaced);
    assert_eq!(hub.offer(7, b"k", &stored, NOW).as_deref(), Some(&2));
    assert_eq!(hub.live(7, b"k").as_deref(), Some(&2));
}
