//! The numbers of `/cache/stats`.

use serde::Serialize;

use crate::metrics::extras::{Extras, StoreExtras};
use crate::metrics::labels::CacheResult;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::table::{Counter, Gauge};

/// What the cache holds and how well it works, since the start of the process. Serialised as is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheSummary {
    /// Entries that can be served: those of the tier that has more.
    pub entries: u64,
    /// Bytes they take there.
    pub size_bytes: u64,
    /// `hits` over `hits` and `misses`, 0 to 1; 0 before the first.
    pub hit_rate: f64,
    /// Answers whose body came from the cache: HIT, STALE or REVALIDATED.
    pub hits: u64,
    /// Answers marked MISS: the cache was asked and the origin answered.
    pub misses: u64,
    /// All answers, by what the cache had to do with them.
    pub results: Results,
    /// The memory of the cores.
    pub l1: Memory,
    /// The store; none without one.
    pub l2: Option<Store>,
    /// Requests that shared the fetch of another.
    pub coalesced: u64,
    /// Answers served stale.
    pub stale_served: u64,
    /// Entries evicted from memory, and rows from the store, to keep their limits.
    pub evictions: u64,
    /// Bytes of bodies that came from the cache instead of an upstream.
    pub bytes_saved: u64,
}

/// Answers by cache result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Results {
    /// Fresh from the cache.
    pub hit: u64,
    /// From the origin.
    pub miss: u64,
    /// Stale from the cache.
    pub stale: u64,
    /// From the cache, confirmed by the origin.
    pub revalidated: u64,
    /// Past the cache.
    pub bypass: u64,
    /// Failed: an error of the daemon in place of the origin's answer.
    pub error: u64,
    /// Without the cache: operator endpoints, refusals.
    pub none: u64,
}

/// The tier in memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Entries, each once, however many cores hold it.
    pub entries: u64,
    /// Places taken in the indexes of the cores.
    pub indexed: u64,
    /// Bytes the entries take.
    pub size_bytes: u64,
    /// The limit of `size_bytes`.
    pub size_bytes_max: u64,
    /// Look-ups that found something in the core's own index.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// `hits` over both.
    pub hit_rate: f64,
    /// Entries that a core took from another.
    pub hub_hits: u64,
    /// Entries evicted to keep the limits.
    pub evictions: u64,
}

/// The tier on disk or in a database.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Store {
    /// `sqlite` or `postgres`.
    pub backend: &'static str,
    /// `ok`, or the word for what is wrong.
    pub state: &'static str,
    /// Rows, as last counted.
    pub entries: u64,
    /// Bytes they take, as last measured.
    pub size_bytes: u64,
    /// Look-ups that found a row.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// `hits` over both.
    pub hit_rate: f64,
    /// Rows that wait to be written.
    pub queued: u64,
    /// Rows that were not written.
    pub dropped: u64,
    /// Rows removed to keep the size limit.
    pub evictions: u64,
}

impl CacheSummary {
    /// Puts the numbers together.
    #[must_use]
    pub fn new(all: &Snapshot, extras: &Extras) -> Self {
        let results = Results::new(all);
        let hits = results.hit + results.stale + results.revalidated;
        let l1 = Memory::new(all, extras);
        let l2 = extras.store.as_ref().map(|store| Store::new(all, store));
        // Most entries are in both tiers, so the sum would count them twice.
        let (entries, size_bytes) = match &l2 {
            Some(store) if store.entries >= l1.entries => (store.entries, store.size_bytes),
            _ => (l1.entries, l1.size_bytes),
        };
        Self {
            entries,
            size_bytes,
            hit_rate: ratio(hits, results.miss),
            hits,
            misses: results.miss,
            results,
            l1,
            coalesced: all.counter(Counter::Coalesced),
            stale_served: all.counter(Counter::StaleServed),
            evictions: l1.evictions + l2.as_ref().map_or(0, |store| store.evictions),
            bytes_saved: all.saved_bytes(),
            l2,
        }
    }
}

impl Results {
    fn new(all: &Snapshot) -> Self {
        Self {
            hit: all.requests(CacheResult::Hit),
            miss: all.requests(CacheResult::Miss),
            stale: all.requests(CacheResult::Stale),
            revalidated: all.requests(CacheResult::Revalidated),
            bypass: all.requests(CacheResult::Bypass),
            error: all.requests(CacheResult::Error),
            none: all.requests(CacheResult::None),
        }
    }
}

impl Memory {
    fn new(all: &Snapshot, extras: &Extras) -> Self {
        let (hits, misses) = (all.counter(Counter::L1Hits), all.counter(Counter::L1Misses));
        Self {
            entries: extras.l1_entries,
            indexed: all.gauge(Gauge::L1Entries),
            size_bytes: extras.l1_bytes,
            size_bytes_max: extras.l1_bytes_max,
            hits,
            misses,
            hit_rate: ratio(hits, misses),
            hub_hits: all.counter(Counter::HubHits),
            evictions: all.counter(Counter::L1Evictions),
        }
    }
}

impl Store {
    fn new(all: &Snapshot, store: &StoreExtras) -> Self {
        let (hits, misses) = (all.counter(Counter::L2Hits), all.counter(Counter::L2Misses));
        Self {
            backend: store.backend,
            state: store.unavailable().unwrap_or("ok"),
            entries: store.rows,
            size_bytes: store.bytes,
            hits,
            misses,
            hit_rate: ratio(hits, misses),
            queued: store.put_queue_rows,
            dropped: store.puts_shed + store.puts_overtaken + store.puts_failed,
            evictions: store.rows_evicted,
        }
    }
}

/// The share of hits, 0 where there was nothing.
#[allow(clippy::cast_precision_loss)] // A ratio to fifteen digits is enough.
fn ratio(hits: u64, misses: u64) -> f64 {
    let all = hits.saturating_add(misses);
    let share = if all == 0 { 0.0 } else { hits as f64 / all as f64 };
    debug_assert!((0.0..=1.0).contains(&share));
    share
}
