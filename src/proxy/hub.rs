//! The hub: which keys are alive on some core, being fetched, or known to be uncacheable.
//!
//! A process-wide table in stripes, each behind a short lock, asked on an L1 miss only. It holds
//! entries weakly (the L1 shards and running answers hold them), flights strongly, and a marker
//! with a deadline for keys whose last answer could not be stored, so that their requests don't
//! queue behind one another.
//!
//! No key can be poisoned: whoever leads a flight holds a [`Lead`]; if that is dropped unfinished,
//! for whatever reason, the watchers are told and the slot is free for the next request.
//!
//! Dead slots are removed when a stripe has doubled since its last sweep, so that memory follows
//! the number of live keys; each insertion pays a constant share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use crate::base::Mono;
use crate::proxy::error::Fault;
use crate::proxy::flight::{Flight, How, Outcome};

/// The table. `E` is the cache entry.
pub struct Hub<E> {
    stripes: Box<[Mutex<Stripe<E>>]>,
}

/// What the hub knows of a key.
pub enum Join<E> {
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
pub struct Lead<E> {
    hub: Arc<Hub<E>>,
    hash: u64,
    key: Arc<[u8]>,
    flight: Arc<Flight<E>>,
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

struct Stripe<E> {
    slots: HashTable<Slot<E>>,
    /// Sweep when there are that many slots.
    sweep_at: usize,
}

struct Slot<E> {
    hash: u64,
    key: Arc<[u8]>,
    live: Weak<E>,
    flight: Option<Arc<Flight<E>>>,
    solo_until: Mono,
    /// After failures: no attempt to renew what is stored before that.
    retry_at: Mono,
    /// In a row; doubles the wait.
    failures: u32,
}

impl<E> Hub<E> {
    /// An empty hub.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let stripe = || Mutex::new(Stripe { slots: HashTable::new(), sweep_at: SWEEP_SLOTS_MIN });
        Arc::new(Self { stripes: (0..STRIPES).map(|_| stripe()).collect() })
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
        let mut stripe = self.stripe(hash);
        stripe.sweep_if_due(now);
        let slot = stripe.slot(hash, key);
        if let Some(live) = slot.live.upgrade()
            && !unfit.is_some_and(|it| Arc::ptr_eq(it, &live))
        {
            return Join::Live(live);
        }
        if let Some(flight) = &slot.flight {
            flight.on_follower();
            return Join::Follow(Arc::clone(flight));
        }
        if unfit.is_some() && slot.retry_at > now {
            return Join::Later;
        }
        if slot.solo_until > now {
            return Join::Solo;
        }
        let flight = Flight::new();
        slot.flight = Some(Arc::clone(&flight));
        let key = Arc::clone(&slot.key);
        Join::Lead(Lead { hub: Arc::clone(self), hash, key, flight })
    }

    /// The entry some core holds, if any.
    #[must_use]
    pub fn live(&self, hash: u64, key: &[u8]) -> Option<Arc<E>> {
        self.stripe(hash).find(hash, key)?.live.upgrade()
    }

    /// What a join for this key would find beside an entry, without joining.
    #[must_use]
    pub fn peek(&self, hash: u64, key: &[u8], now: Mono) -> Traffic {
        let stripe = self.stripe(hash);
        match stripe.find(hash, key) {
            Some(slot) if slot.flight.is_some() => Traffic::Flight,
            Some(slot) if slot.retry_at > now => Traffic::Waiting,
            Some(slot) if slot.solo_until > now => Traffic::Solo,
            Some(_) | None => Traffic::None,
        }
    }

    /// Makes an entry known that was fetched without a lead (a solo fetch that proved storable).
    pub fn announce(&self, hash: u64, key: &[u8], entry: &Arc<E>, now: Mono) -> Published {
        let mut stripe = self.stripe(hash);
        stripe.sweep_if_due(now);
        let slot = stripe.slot(hash, key);
        slot.succeeded();
        slot.hold(entry)
    }

    /// An attempt without a lead failed to renew what is stored: as [`Lead::fail`].
    pub fn failed(&self, hash: u64, key: &[u8], now: Mono) {
        let mut stripe = self.stripe(hash);
        stripe.sweep_if_due(now);
        stripe.slot(hash, key).wait(now);
    }

    /// Makes an entry of the second tier known, unless there is a live one, which is as new or
    /// newer: then that one is returned.
    pub fn offer(&self, hash: u64, key: &[u8], entry: &Arc<E>, now: Mono) -> Option<Arc<E>> {
        let mut stripe = self.stripe(hash);
        stripe.sweep_if_due(now);
        let slot = stripe.slot(hash, key);
        let live = slot.live.upgrade();
        if live.is_none() {
            slot.solo_until = Mono::START;
            slot.hold(entry);
        }
        live
    }

    /// Forgets a key; a fetch in flight for it will be delivered but not stored.
    pub fn purge(&self, hash: u64, key: &[u8]) {
        let mut stripe = self.stripe(hash);
        if let Ok(slot) = stripe.slots.find_entry(hash, |it| &*it.key == key) {
            let (slot, _) = slot.remove();
            slot.doom();
        }
    }

    /// Forgets every key for which `matches` says so.
    pub fn purge_where(&self, matches: impl Fn(&[u8]) -> bool) {
        for stripe in &self.stripes {
            lock(stripe).slots.retain(|slot| {
                let gone = matches(&slot.key);
                if gone {
                    slot.doom();
                }
                !gone
            });
        }
    }

    /// Slots in the table, dead ones included: a gauge, and what tests look at.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stripes.iter().map(|it| lock(it).slots.len()).sum()
    }

    /// Whether no key is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes slots that hold nothing any more.
    pub fn sweep(&self, now: Mono) {
        for stripe in &self.stripes {
            lock(stripe).sweep(now);
        }
    }

    fn stripe(&self, hash: u64) -> MutexGuard<'_, Stripe<E>> {
        // The table inside uses the low bits and the top seven; take others for the stripe.
        let at = (hash >> 40) as usize % STRIPES;
        lock(&self.stripes[at])
    }
}

impl<E> Lead<E> {
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
        let published = {
            let mut stripe = self.hub.stripe(self.hash);
            match stripe.of_flight(self.hash, &self.key, &self.flight) {
                Some(slot) if !self.flight.is_doomed() => {
                    slot.flight = None;
                    match how {
                        // The origin had no part in it.
                        How::Stored => slot.solo_until = Mono::START,
                        How::Fetched | How::Validated | How::Purged => slot.succeeded(),
                    }
                    slot.hold(shown)
                }
                _ => Published::Doomed,
            }
        };
        let how = if published == Published::Doomed { How::Purged } else { how };
        self.flight.land(Outcome::Entry(Arc::clone(answer), how));
        published
    }

    /// The answer can't be stored: later requests go alone until `until`, those who wait now too.
    /// The flight itself goes on for the leader's client.
    pub fn detach(&self, until: Mono) {
        let mut stripe = self.hub.stripe(self.hash);
        if let Some(slot) = stripe.of_flight(self.hash, &self.key, &self.flight) {
            slot.flight = None;
            slot.solo_until = until;
        }
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
            let mut stripe = self.hub.stripe(self.hash);
            if let Some(slot) = stripe.of_flight(self.hash, &self.key, &self.flight) {
                slot.wait(now);
            }
        }
        self.release();
        self.flight.land(Outcome::Failed(fault, stale));
    }

    fn release(&self) {
        let mut stripe = self.hub.stripe(self.hash);
        if let Some(slot) = stripe.of_flight(self.hash, &self.key, &self.flight) {
            slot.flight = None;
        }
    }
}

impl<E> Drop for Lead<E> {
    fn drop(&mut self) {
        self.release();
        self.flight.land(Outcome::Failed(Fault::Abandoned, None));
    }
}

impl<E> Stripe<E> {
    fn find(&self, hash: u64, key: &[u8]) -> Option<&Slot<E>> {
        self.slots.find(hash, |it| &*it.key == key)
    }

    fn slot(&mut self, hash: u64, key: &[u8]) -> &mut Slot<E> {
        match self.slots.entry(hash, |it| &*it.key == key, |it| it.hash) {
            TableEntry::Occupied(slot) => slot.into_mut(),
            TableEntry::Vacant(place) => {
                let slot = Slot {
                    hash,
                    key: key.into(),
                    live: Weak::new(),
                    flight: None,
                    solo_until: Mono::START,
                    retry_at: Mono::START,
                    failures: 0,
                };
                place.insert(slot).into_mut()
            }
        }
    }

    fn of_flight(
        &mut self,
        hash: u64,
        key: &[u8],
        flight: &Arc<Flight<E>>,
    ) -> Option<&mut Slot<E>> {
        let slot = self.slots.find_mut(hash, |it| &*it.key == key)?;
        let same = slot.flight.as_ref().is_some_and(|it| Arc::ptr_eq(it, flight));
        same.then_some(slot)
    }

    fn sweep_if_due(&mut self, now: Mono) {
        if self.slots.len() >= self.sweep_at {
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Mono) {
        self.slots.retain(|slot| !slot.is_dead(now));
        self.sweep_at = (self.slots.len() * 2).max(SWEEP_SLOTS_MIN);
    }
}

impl<E> Slot<E> {
    fn hold(&mut self, entry: &Arc<E>) -> Published {
        let older = self.live.strong_count() > 0;
        self.live = Arc::downgrade(entry);
        if older { Published::Replaced } else { Published::New }
    }

    /// The origin answered: nothing of what it did before counts.
    fn succeeded(&mut self) {
        self.solo_until = Mono::START;
        self.retry_at = Mono::START;
        self.failures = 0;
    }

    /// It did not: the next attempt waits.
    fn wait(&mut self, now: Mono) {
        let span = RETRY_SPAN_MIN * (1 << self.failures.min(6));
        self.retry_at = now.plus(span.min(RETRY_SPAN_MAX));
        self.failures = self.failures.saturating_add(1);
    }

    fn doom(&self) {
        if let Some(flight) = &self.flight {
            flight.doom();
        }
    }

    fn is_dead(&self, now: Mono) -> bool {
        let marked = self.solo_until > now || self.retry_at > now;
        self.flight.is_none() && self.live.strong_count() == 0 && !marked
    }
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

const SWEEP_SLOTS_MIN: usize = 64;

fn lock<E>(stripe: &Mutex<Stripe<E>>) -> MutexGuard<'_, Stripe<E>> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
