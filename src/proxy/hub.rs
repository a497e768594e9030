//! The hub: which keys are alive on some core, being fetched, or known to be uncacheable.
//!
//! A process-wide table in stripes, each behind a short lock, asked on an L1 miss only. It holds
//! entries weakly (the L1 shards and running answers hold them), flights strongly, and a marker
//! with a deadline for keys whose last answer could not be stored, so that their requests don't
//! queue behind one another.
//!
//! No key can be poisoned: whoever leads a flight holds a [`Lead`]; if that is dropped unfinished,
//! for whatever reason, the watchers are told and the key is free for the next request.
//!
//! **Every entry of every shard is known here**: it is shown here before it is promoted, and while
//! a shard holds it, it lives. So a purge looks for its keys here, where those of a resource stand
//! side by side (`hub/place.rs`), and no shard is ever searched. Whatever is shown without a
//! flight looks into the journal of purges under the stripe's lock: a purge that is noted there
//! before it looks here misses nothing.
//!
//! Memory: 20 bytes a live key, some 37 with the map's own (`benches/cache.rs`). A lock is held for
//! the look at one key, or at [`LOOKED_AT_MAX`] of them.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::{Mono, Seed};
use crate::cache::Entry;
use crate::proxy::error::Fault;
use crate::proxy::flight::{Flight, How, Outcome};
use crate::proxy::hub::place::Place;
use crate::proxy::hub::stripe::{Forgetting, Started, Stripe};

mod place;
mod stripe;

pub use place::Reach;

/// The table. `E` is the cache entry.
pub struct Hub<E> {
    seed: Seed,
    stripes: Box<[Mutex<Stripe<E>>]>,
}

/// What can be shown in the hub.
pub trait Keyed {
    /// The bytes of its key.
    fn key_bytes(&self) -> &[u8];
}

impl Keyed for Entry {
    fn key_bytes(&self) -> &[u8] {
        self.key().bytes()
    }
}

/// What the hub knows of a key.
pub enum Join<E: Keyed> {
    /// Another core holds this entry.
    Live(Arc<E>),
    /// Somebody is fetching it.
    Follow(Arc<Flight<E>>),
    /// Nobody is: the caller fetches, the others will follow.
    Lead(Lead<E>),
    /// Its answers could not be stored lately: fetch alone.
    Solo,
    /// The origin failed lately and `unfit` may not be worth another attempt yet.
    Later,
}

/// What goes on for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Nothing.
    None,
    /// It is being fetched.
    Flight,
    /// Its answers could not be stored lately: requests go alone.
    Solo,
    /// The origin failed lately: what is stored is not renewed yet.
    Waiting,
}

/// The duty to land a flight. Dropped unfinished, it lands the flight as failed.
pub struct Lead<E: Keyed> {
    hub: Arc<Hub<E>>,
    stripe: usize,
    place: Place,
    key: Arc<[u8]>,
    flight: Arc<Flight<E>>,
    started: Mono,
}

/// What publishing an entry found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Visible now; no core held an older one.
    New,
    /// Visible now; other cores may hold an older one and must be told.
    Replaced,
    /// The key was purged while the fetch ran: the entry must not be stored anywhere.
    Doomed,
}

/// What became of an entry of the second tier that was offered to all cores.
pub enum Offered<E> {
    /// Visible now.
    Shown,
    /// This one is visible already.
    Known(Arc<E>),
    /// The key was purged since it was looked up: no core may keep it.
    Doomed,
}

/// A purge's or a sweep's way through the hub. What comes in behind it is not met; what is there
/// when it starts, and stays, is.
pub struct Walk {
    places: RangeInclusive<Place>,
    stripe: usize,
    stripes_end: usize,
    /// The last place that was looked at in this stripe.
    after: Option<Place>,
}

impl<E: Keyed> Hub<E> {
    /// An empty hub.
    #[must_use]
    pub fn new(seed: Seed) -> Arc<Self> {
        Arc::new(Self { seed, stripes: (0..STRIPES).map(|_| Mutex::new(Stripe::new())).collect() })
    }

    /// Asks for a key. `unfit` is an entry that the caller knows and can't use as it is (stale, or
    /// the request wants it validated): the hub doesn't offer that one.
    pub fn join(
        self: &Arc<Self>,
        hash: u64,
        key: &[u8],
        unfit: Option<&Arc<E>>,
        now: Mono,
    ) -> Join<E> {
        let place = Place::of(&self.seed, hash, key);
        let at = stripe_of(hash);
        let mut stripe = self.lock(at);
        if let Some(live) = stripe.live(place, key)
            && !unfit.is_some_and(|it| Arc::ptr_eq(it, &live))
        {
            return Join::Live(live);
        }
        if let Some(busy) = stripe.busy.get(&place) {
            if *busy.key != *key {
                // Another key stands there: see the head of `place.rs`.
                return Join::Solo;
            }
            if let Some(flight) = &busy.flight {
                flight.on_follower();
                return Join::Follow(Arc::clone(flight));
            }
            if unfit.is_some() && busy.retry_at > now {
                return Join::Later;
            }
            if busy.solo_until > now {
                return Join::Solo;
            }
        }
        let Started { key, flight } = stripe.start(place, key, now);
        let hub = Arc::clone(self);
        Join::Lead(Lead { hub, stripe: at, place, key, flight, started: now })
    }

    /// The entry some core holds, if any.
    #[must_use]
    pub fn live(&self, hash: u64, key: &[u8]) -> Option<Arc<E>> {
        self.lock(stripe_of(hash)).live(Place::of(&self.seed, hash, key), key)
    }

    /// What a join for this key would find beside an entry, without joining.
    #[must_use]
    pub fn peek(&self, hash: u64, key: &[u8], now: Mono) -> Traffic {
        let stripe = self.lock(stripe_of(hash));
        match stripe.busy.get(&Place::of(&self.seed, hash, key)) {
            Some(busy) if busy.flight.is_some() => Traffic::Flight,
            Some(busy) if busy.retry_at > now => Traffic::Waiting,
            Some(busy) if busy.solo_until > now => Traffic::Solo,
            Some(_) | None => Traffic::None,
        }
    }

    /// Makes an entry known that was fetched without a lead (a solo fetch that proved storable),
    /// if `spared` says that no purge concerned it: asked under the lock that a purge takes after
    /// it was noted.
    pub fn announce(
        &self,
        hash: u64,
        entry: &Arc<E>,
        now: Mono,
        spared: impl FnOnce() -> bool,
    ) -> Published {
        let place = Place::of(&self.seed, hash, entry.key_bytes());
        let mut stripe = self.lock(stripe_of(hash));
        if !spared() {
            return Published::Doomed;
        }
        stripe.forgive(place);
        stripe.hold(place, entry, now)
    }

    /// Makes an entry of the second tier known as [`Hub::announce`] does, unless there is a live
    /// one, which is as new or newer.
    pub fn offer(
        &self,
        hash: u64,
        entry: &Arc<E>,
        now: Mono,
        spared: impl FnOnce() -> bool,
    ) -> Offered<E> {
        let place = Place::of(&self.seed, hash, entry.key_bytes());
        let mut stripe = self.lock(stripe_of(hash));
        if let Some(live) = stripe.live(place, entry.key_bytes()) {
            return Offered::Known(live);
        }
        if !spared() {
            return Offered::Doomed;
        }
        stripe.allow_sharing(place);
        match stripe.hold(place, entry, now) {
            Published::New | Published::Replaced => Offered::Shown,
            Published::Doomed => Offered::Doomed,
        }
    }

    /// An attempt without a lead failed to renew what is stored: as [`Lead::fail`].
    pub fn failed(&self, hash: u64, key: &[u8], now: Mono) {
        let place = Place::of(&self.seed, hash, key);
        self.lock(stripe_of(hash)).note_failure(place, key, now);
    }

    /// A request for which nothing stale will do does not wait for the next attempt: after a
    /// [`Join::Later`], so that the next join leads or follows.
    pub fn press(&self, hash: u64, key: &[u8]) {
        self.lock(stripe_of(hash)).press(Place::of(&self.seed, hash, key));
    }

    /// The way to all keys in reach.
    #[must_use]
    pub fn walk(&self, reach: &Reach<'_>) -> Walk {
        let (first, end) = match reach {
            Reach::Key { hash, .. } => (stripe_of(*hash), stripe_of(*hash) + 1),
            Reach::Resource { .. } | Reach::Path(_) | Reach::Any => (0, STRIPES),
        };
        let places = reach.places(&self.seed);
        Walk { places, stripe: first, stripes_end: end, after: None }
    }

    /// Forgets the next keys on the way for which `matches` says so; a fetch in flight for one of
    /// them will be delivered and not stored. Looks at about [`LOOKED_AT_MAX`] keys and returns the
    /// entries that were alive, for the cores to drop; `None` at the end of the way.
    #[must_use]
    pub fn forget(&self, walk: &mut Walk, matches: &dyn Fn(&[u8]) -> bool) -> Option<Vec<Arc<E>>> {
        let (mut found, mut left) = (Vec::new(), LOOKED_AT_MAX);
        while walk.stripe < walk.stripes_end && left > 0 {
            let places = walk.places.clone();
            let mut step = Forgetting { places, after: walk.after, left, matches };
            walk.after = self.lock(walk.stripe).forget(&mut step, &mut found);
            left = step.left;
            if walk.after.is_none() {
                walk.stripe += 1;
            }
        }
        (left < LOOKED_AT_MAX || walk.stripe < walk.stripes_end).then_some(found)
    }

    /// Forgets everything and dooms every fetch. What comes back is better dropped elsewhere.
    pub fn clear(&self) -> Cleared<E> {
        let cleared = (0..STRIPES).map(|at| {
            let stripe = std::mem::replace(&mut *self.lock(at), Stripe::new());
            stripe.busy.values().filter_map(|it| it.flight.as_ref()).for_each(|it| it.doom());
            stripe
        });
        Cleared { _stripes: cleared.collect() }
    }

    /// Keys in the table, dead ones included: what tests look at.
    #[must_use]
    pub fn len(&self) -> usize {
        (0..STRIPES).map(|at| self.lock(at).len()).sum()
    }

    /// Whether no key is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes keys of which nothing is left: about [`LOOKED_AT_MAX`] are looked at. Whether there
    /// are more on the way.
    pub fn sweep_some(&self, walk: &mut Walk, now: Mono) -> bool {
        if walk.stripe >= walk.stripes_end {
            return false;
        }
        let mut stripe = self.lock(walk.stripe);
        if walk.after.is_none() {
            stripe.sweep_busy(now);
        }
        walk.after = stripe.sweep_live(walk.after, LOOKED_AT_MAX);
        if walk.after.is_none() {
            walk.stripe += 1;
        }
        walk.stripe < walk.stripes_end
    }

    /// [`Hub::sweep_some`] to the end.
    pub fn sweep(&self, now: Mono) {
        let mut walk = self.walk(&Reach::Any);
        while self.sweep_some(&mut walk, now) {}
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "numbers of stripes come from `stripe_of` and walks"
    )]
    fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe<E>> {
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a cleared hub. To drop it takes some 50 ns a key.
pub struct Cleared<E> {
    _stripes: Vec<Stripe<E>>,
}

impl<E: Keyed> Lead<E> {
    /// The flight, for those who watch it.
    #[must_use]
    pub fn flight(&self) -> &Arc<Flight<E>> {
        &self.flight
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Arc<[u8]> {
        &self.key
    }

    /// Ends with `answer` for all who wait. Unless the key was purged meanwhile, the hub shows
    /// `shown` under it from now: the same, or the index that leads to it.
    pub fn publish(self, shown: &Arc<E>, answer: &Arc<E>, how: How) -> Published {
        debug_assert_eq!(*self.key, *shown.key_bytes());
        let published = {
            let mut stripe = self.hub.lock(self.stripe);
            // Doomed under the same lock, and no longer in its place then.
            if stripe.release(self.place, &self.flight, self.started) && !self.flight.is_doomed() {
                match how {
                    // The origin had no part in it.
                    How::Stored => stripe.allow_sharing(self.place),
                    How::Fetched | How::Validated | How::Purged => stripe.forgive(self.place),
                }
                stripe.hold(self.place, shown, self.started)
            } else {
                Published::Doomed
            }
        };
        let how = match (published, how) {
            // Found and not judged yet: each who waits looks for itself.
            (_, How::Stored) | (Published::New | Published::Replaced, _) => how,
            (Published::Doomed, _) => How::Purged,
        };
        self.flight.land(Outcome::Entry(Arc::clone(answer), how));
        published
    }

    /// The answer can't be stored: later requests go alone until `until`, those who wait now too.
    /// The flight itself goes on for the leader's client.
    pub fn detach(&self, until: Mono) {
        self.hub.lock(self.stripe).mark_solo(self.place, &self.flight, until);
    }

    /// Ends with an answer for the leader alone.
    pub fn private(self) {
        self.flight.land(Outcome::Private);
    }

    /// Ends with an entry that answers those who wait and is shown to nobody else.
    pub fn answer(self, answer: &Arc<E>, how: How) {
        self.release();
        self.flight.land(Outcome::Entry(Arc::clone(answer), how));
    }

    /// Ends with a fault. With something stale to serve instead, the next attempt waits: one
    /// second, doubled with each failure, at most half a minute.
    pub fn fail(self, fault: Fault, stale: Option<Arc<E>>, now: Mono) {
        if stale.is_some() {
            self.hub.lock(self.stripe).mark_failed(self.place, &self.flight, now);
        }
        self.release();
        self.flight.land(Outcome::Failed(fault, stale));
    }

    fn release(&self) {
        self.hub.lock(self.stripe).release(self.place, &self.flight, self.started);
    }
}

impl<E: Keyed> Drop for Lead<E> {
    fn drop(&mut self) {
        self.release();
        self.flight.land(Outcome::Failed(Fault::Abandoned, None));
    }
}

/// Others than those that a place keeps.
const fn stripe_of(hash: u64) -> usize {
    (hash >> 40) as usize % STRIPES
}

/// How long an uncacheable answer lets its key's requests go alone. Then one leads again, so that
/// a resource that became cacheable is found out.
pub const SOLO_SPAN: Duration = Duration::from_secs(30);

/// The wait after the first failure to renew a stale entry.
const RETRY_SPAN_MIN: Duration = Duration::from_secs(1);
/// And the longest one.
const RETRY_SPAN_MAX: Duration = Duration::from_secs(30);

/// Stripes: enough that two cores seldom meet on one.
const STRIPES: usize = 64;

/// Keys that are looked at under one lock: some 25 us where they are spread over memory.
pub const LOOKED_AT_MAX: usize = 256;

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;
