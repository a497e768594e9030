//! One part of the hub, behind one lock: what is alive, and what goes on.
//!
//! Two maps in the order of places. `live` has twenty bytes for a key that some core holds and must
//! be small, since there are as many as entries; `busy` has whatever a fetch or a failure leaves,
//! and is small because there are few.
//!
//! Entries die without telling. Each insertion looks at the next few places of either map and
//! removes what is dead there, so that never more than a fraction of the map is, without a pause in
//! which all of it is looked at.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use crate::base::Mono;
use crate::proxy::flight::Flight;
use crate::proxy::hub::place::Place;
use crate::proxy::hub::{Keyed, Published, RETRY_SPAN_MAX, RETRY_SPAN_MIN};

/// One part of the hub.
pub(super) struct Stripe<E> {
    /// Held by the shards and by answers on their way; dead ones stay until they are swept.
    pub(super) live: BTreeMap<Place, Weak<E>>,
    pub(super) busy: BTreeMap<Place, Busy<E>>,
    /// How far the sweep has come that goes along with insertions.
    live_swept: Option<Place>,
    busy_swept: Option<Place>,
}

/// What goes on for a key.
pub(super) struct Busy<E> {
    pub(super) key: Arc<[u8]>,
    pub(super) flight: Option<Arc<Flight<E>>>,
    pub(super) solo_until: Mono,
    /// After failures: no attempt to renew what is stored before that.
    pub(super) retry_at: Mono,
    /// In a row; doubles the wait.
    failures: u32,
}

impl<E> Stripe<E> {
    pub(super) const fn new() -> Self {
        Self { live: BTreeMap::new(), busy: BTreeMap::new(), live_swept: None, busy_swept: None }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len() + self.busy.len()
    }

    /// Notes a new fetch.
    pub(super) fn start(&mut self, place: Place, key: &[u8], now: Mono) -> Started<E> {
        self.sweep_along(now);
        let busy = self.busy.entry(place).or_insert_with(|| Busy::new(key));
        debug_assert!(busy.flight.is_none() && *busy.key == *key);
        let flight = Flight::new();
        busy.flight = Some(Arc::clone(&flight));
        Started { key: Arc::clone(&busy.key), flight }
    }

    /// What goes on at a place, if it is this flight.
    fn of_flight(&mut self, place: Place, flight: &Arc<Flight<E>>) -> Option<&mut Busy<E>> {
        let busy = self.busy.get_mut(&place)?;
        let same = busy.flight.as_ref().is_some_and(|it| Arc::ptr_eq(it, flight));
        same.then_some(busy)
    }

    /// Ends a flight; whether it stood here until now. Its marks stay.
    pub(super) fn release(&mut self, place: Place, flight: &Arc<Flight<E>>, now: Mono) -> bool {
        let Some(busy) = self.of_flight(place, flight) else { return false };
        busy.flight = None;
        if busy.is_over(now) {
            self.busy.remove(&place);
        }
        true
    }

    /// Ends a flight with an answer that can't be stored.
    pub(super) fn mark_solo(&mut self, place: Place, flight: &Arc<Flight<E>>, until: Mono) {
        let room = self.has_room();
        let Some(busy) = self.of_flight(place, flight) else { return };
        busy.flight = None;
        if room {
            busy.solo_until = until;
        } else {
            self.busy.remove(&place);
        }
    }

    /// Notes a failure to renew what is stored.
    pub(super) fn mark_failed(&mut self, place: Place, flight: &Arc<Flight<E>>, now: Mono) {
        let room = self.has_room();
        if let Some(busy) = self.of_flight(place, flight).filter(|_| room) {
            busy.wait(now);
        }
    }

    /// Notes a failure to renew what is stored, of an attempt that has no flight.
    pub(super) fn note_failure(&mut self, place: Place, key: &[u8], now: Mono) {
        if !self.has_room() {
            return;
        }
        self.sweep_along(now);
        let busy = self.busy.entry(place).or_insert_with(|| Busy::new(key));
        if *busy.key == *key {
            busy.wait(now);
        }
    }

    /// Requests for a key need not go alone any longer.
    pub(super) fn allow_sharing(&mut self, place: Place) {
        if let Some(busy) = self.busy.get_mut(&place) {
            busy.solo_until = Mono::START;
        }
    }

    /// Nothing stale can be served meanwhile: the next attempt need not wait.
    pub(super) fn press(&mut self, place: Place) {
        if let Some(busy) = self.busy.get_mut(&place) {
            busy.retry_at = Mono::START;
        }
    }

    /// A success: what stood in the way of the next request does no longer.
    pub(super) fn forgive(&mut self, place: Place) {
        if self.busy.get(&place).is_some_and(|it| it.flight.is_none()) {
            self.busy.remove(&place);
        }
    }

    /// Whether another mark may be left. Without one requests merely queue once more.
    fn has_room(&self) -> bool {
        self.busy.len() < BUSY_MAX
    }

    /// Looks at a few more places.
    fn sweep_along(&mut self, now: Mono) {
        self.live_swept = self.sweep_live(self.live_swept, SWEPT_ALONG);
        let next = self.busy.range((after(self.busy_swept), Bound::Unbounded)).next();
        let seen = next.map(|(place, busy)| (*place, busy.is_over(now)));
        self.busy_swept = seen.map(|it| it.0);
        if let Some((place, true)) = seen {
            self.busy.remove(&place);
        }
    }

    /// Removes what is dead among the next `count` places; where to go on, if not at the end.
    pub(super) fn sweep_live(&mut self, from: Option<Place>, count: usize) -> Option<Place> {
        let mut dead = Vec::new();
        let (mut last, mut left) = (None, count);
        for (place, live) in self.live.range((after(from), Bound::Unbounded)).take(count) {
            if live.strong_count() == 0 {
                dead.push(*place);
            }
            last = Some(*place);
            left -= 1;
        }
        for place in dead {
            self.live.remove(&place);
        }
        last.filter(|_| left == 0)
    }

    /// Removes marks that have had their time.
    pub(super) fn sweep_busy(&mut self, now: Mono) {
        self.busy.retain(|_, it| !it.is_over(now));
    }
}

/// A flight that has begun.
pub(super) struct Started<E> {
    pub(super) key: Arc<[u8]>,
    pub(super) flight: Arc<Flight<E>>,
}

impl<E: Keyed> Stripe<E> {
    /// The live entry of a key.
    pub(super) fn live(&self, place: Place, key: &[u8]) -> Option<Arc<E>> {
        self.live.get(&place)?.upgrade().filter(|it| it.key_bytes() == key)
    }

    /// Shows an entry under its key.
    pub(super) fn hold(&mut self, place: Place, entry: &Arc<E>, now: Mono) -> Published {
        self.sweep_along(now);
        match self.live.entry(place) {
            MapEntry::Vacant(free) => {
                free.insert(Arc::downgrade(entry));
                Published::New
            }
            MapEntry::Occupied(mut held) => {
                let older = held.get().upgrade();
                match older {
                    // Two keys at one place: see the head of `place.rs`.
                    Some(it) if it.key_bytes() != entry.key_bytes() => return Published::Doomed,
                    _ => drop(held.insert(Arc::downgrade(entry))),
                }
                if older.is_some() { Published::Replaced } else { Published::New }
            }
        }
    }

    /// Forgets the keys that a purge concerns and dooms their fetches; live entries are added to
    /// `found`. Where to go on, if not at the end.
    pub(super) fn forget(
        &mut self,
        of: &mut Forgetting<'_>,
        found: &mut Vec<Arc<E>>,
    ) -> Option<Place> {
        if of.after.is_none() {
            self.doom(of);
        }
        let start = of.after.map_or(Bound::Included(*of.places.start()), Bound::Excluded);
        let rest = self.live.range((start, Bound::Included(*of.places.end())));
        let (mut last, mut gone) = (None, Vec::new());
        for (place, live) in rest.take(of.left) {
            match live.upgrade() {
                Some(entry) if (of.matches)(entry.key_bytes()) => {
                    found.push(entry);
                    gone.push(*place);
                }
                Some(_) => {}
                None => gone.push(*place),
            }
            last = Some(*place);
            of.left -= 1;
        }
        for place in gone {
            self.live.remove(&place);
        }
        last.filter(|_| of.left == 0)
    }

    fn doom(&mut self, of: &Forgetting<'_>) {
        let concerned: Vec<Place> = self
            .busy
            .range(of.places.clone())
            .filter(|(_, it)| (of.matches)(&it.key))
            .map(|(place, _)| *place)
            .collect();
        for place in concerned {
            if let Some(flight) = self.busy.remove(&place).and_then(|it| it.flight) {
                flight.doom();
            }
        }
    }
}

/// One step of a purge in one stripe.
pub(super) struct Forgetting<'a> {
    pub(super) places: std::ops::RangeInclusive<Place>,
    /// Where the step before ended; none: this is the stripe's first.
    pub(super) after: Option<Place>,
    /// Live keys that may still be looked at.
    pub(super) left: usize,
    pub(super) matches: &'a dyn Fn(&[u8]) -> bool,
}

impl<E> Busy<E> {
    fn new(key: &[u8]) -> Self {
        Self {
            key: key.into(),
            flight: None,
            solo_until: Mono::START,
            retry_at: Mono::START,
            failures: 0,
        }
    }

    /// The origin failed: the next attempt waits. Attempts that ran side by side, and end while the
    /// first of them has the others wait already, are one failure.
    fn wait(&mut self, now: Mono) {
        if self.retry_at > now {
            return;
        }
        let span = RETRY_SPAN_MIN * (1 << self.failures.min(6));
        self.retry_at = now.plus(span.min(RETRY_SPAN_MAX));
        self.failures = self.failures.saturating_add(1);
    }

    fn is_over(&self, now: Mono) -> bool {
        // The count of failures is remembered for a while after the last wait has ended.
        let failed = self.failures > 0 && self.retry_at.plus(RETRY_SPAN_MAX) > now;
        self.flight.is_none() && self.solo_until <= now && !failed
    }
}

fn after(place: Option<Place>) -> Bound<Place> {
    place.map_or(Bound::Unbounded, Bound::Excluded)
}

/// Places looked at with each insertion: with four, at most a quarter of the map is dead while
/// entries come and go.
const SWEPT_ALONG: usize = 4;
/// Keys of a stripe that may be fetched or marked; past it no mark is left. 64 stripes of some 150
/// bytes each: 10 MiB.
const BUSY_MAX: usize = 1024;
