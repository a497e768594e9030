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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::Method;
    use crate::metrics::cells::CoreCells;

    fn cells() -> CoreCells {
        let cells = CoreCells::new();
        let answers = [
            (CacheResult::Hit, 5),
            (CacheResult::Miss, 4),
            (CacheResult::Stale, 3),
            (CacheResult::Revalidated, 1),
            (CacheResult::Bypass, 7),
            (CacheResult::Error, 2),
            (CacheResult::None, 9),
        ];
        for (result, times) in answers {
            for _ in 0..times {
                cells.on_response(&Method::Get, 200, result, Duration::ZERO, 100);
            }
        }
        cells.add(Counter::L1Hits, 5);
        cells.add(Counter::L1Misses, 15);
        cells.add(Counter::L2Hits, 3);
        cells.inc(Counter::L2Misses);
        cells.add(Counter::L1Evictions, 2);
        cells.add(Counter::Coalesced, 6);
        cells.add(Counter::StaleServed, 3);
        cells.set(Gauge::L1Entries, 8);
        cells
    }

    fn extras(rows: u64) -> Extras {
        let store = StoreExtras {
            backend: "sqlite",
            rows,
            bytes: rows * 1_000,
            rows_evicted: 4,
            puts_shed: 1,
            puts_failed: 2,
            ..StoreExtras::default()
        };
        Extras { l1_entries: 5, l1_bytes: 700, store: Some(store), ..Extras::default() }
    }

    #[test]
    fn hits_and_misses_are_what_x_cache_told_the_clients() {
        let summary = CacheSummary::new(&Snapshot::of(&[&cells(), &cells()]), &extras(20));
        assert_eq!((summary.hits, summary.misses), (2 * 9, 2 * 4));
        assert!((summary.hit_rate - 9.0 / 13.0).abs() < 1e-12);
        assert_eq!((summary.results.bypass, summary.results.error), (14, 4));
        assert_eq!(summary.bytes_saved, 2 * 900);
        assert_eq!((summary.coalesced, summary.stale_served), (12, 6));
    }

    #[test]
    fn tiers_tell_their_own_rates() {
        let summary = CacheSummary::new(&Snapshot::of(&[&cells()]), &extras(20));
        let l2 = summary.l2.unwrap();
        assert_eq!((summary.l1.hit_rate, l2.hit_rate), (0.25, 0.75));
        assert_eq!((summary.l1.entries, summary.l1.indexed, l2.entries), (5, 8, 20));
        assert_eq!((l2.state, l2.dropped), ("ok", 3));
        assert_eq!(summary.evictions, 2 + 4);
    }

    #[test]
    fn entries_are_those_of_the_fuller_tier() {
        let all = Snapshot::of(&[&cells()]);
        let of = |extras: &Extras| {
            let summary = CacheSummary::new(&all, extras);
            (summary.entries, summary.size_bytes)
        };
        assert_eq!(of(&extras(20)), (20, 20_000));
        assert_eq!(of(&extras(2)), (5, 700));
        assert_eq!(of(&Extras { store: None, ..extras(20) }), (5, 700));
    }

    #[test]
    fn an_unused_cache_has_a_rate_of_zero_and_the_promised_members() {
        let summary = CacheSummary::new(&Snapshot::of::<&CoreCells>(&[]), &Extras::default());
        let json = serde_json::to_value(&summary).unwrap();
        for member in ["entries", "size_bytes", "hit_rate", "hits", "misses"] {
            assert_eq!(json[member].as_f64(), Some(0.0), "{member}");
        }
        for member in ["coalesced", "stale_served", "evictions", "bytes_saved"] {
            assert_eq!(json[member].as_u64(), Some(0), "{member}");
        }
        assert!(json["l1"].is_object() && json["l2"].is_null());
    }

    #[test]
    fn a_store_that_fails_says_why() {
        let mut extras = extras(1);
        extras.store.as_mut().unwrap().writes_unavailable = Some("full");
        let summary = CacheSummary::new(&Snapshot::of::<&CoreCells>(&[]), &extras);
        assert_eq!(summary.l2.unwrap().state, "full");
    }
}
