//! The sum of all cores' cells at one moment.
//!
//! Each number is exact; together they are not one instant, since the cores go on counting while
//! they are read. Costs the cores nothing but the cache lines that the reader takes. About 10 KiB.

use std::ops::Deref;

use crate::metrics::cells::{
    Cell, CoreCells, DURATION_BUCKETS, REQUEST_CELLS, RESULTS, SIZE_BUCKETS,
};
use crate::metrics::labels::{CacheResult, HEAD_REFUSALS, REFUSAL_STATUSES, UPSTREAM_FAILURES};
use crate::metrics::table::{Counter, Gauge};

/// What all cores have counted.
#[derive(Clone, Debug)]
pub struct Snapshot {
    counters: [u64; Counter::ALL.len()],
    gauges: [u64; Gauge::ALL.len()],
    pub(crate) requests: [u64; REQUEST_CELLS],
    pub(crate) body_bytes: [u64; RESULTS],
    pub(crate) sizes: [u64; SIZE_BUCKETS],
    pub(crate) durations: [[u64; DURATION_BUCKETS]; RESULTS],
    pub(crate) duration_nanos: [u64; RESULTS],
    pub(crate) refusals: [u64; REFUSAL_STATUSES.len() + 1],
    pub(crate) head_refusals: [u64; HEAD_REFUSALS.len()],
    pub(crate) upstream_failures: [u64; UPSTREAM_FAILURES.len()],
    pub(crate) cores: Vec<CoreFigures>,
}

/// What is told for each core by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreFigures {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    pub(crate) loop_lag_nanos: u64,
}

impl Snapshot {
    /// Adds up the cells of the cores, in order of their numbers.
    #[must_use]
    pub fn of<C: Deref<Target = CoreCells>>(cores: &[C]) -> Self {
        let mut sum = Self {
            counters: [0; _],
            gauges: [0; _],
            requests: [0; _],
            body_bytes: [0; _],
            sizes: [0; _],
            durations: [[0; _]; _],
            duration_nanos: [0; _],
            refusals: [0; _],
            head_refusals: [0; _],
            upstream_failures: [0; _],
            cores: Vec::with_capacity(cores.len()),
        };
        for cells in cores {
            sum.add(cells);
        }
        sum
    }

    fn add(&mut self, core: &CoreCells) {
        add(&mut self.counters, &core.counters);
        add(&mut self.gauges, &core.gauges);
        let requests = add(&mut self.requests, &core.requests);
        add(&mut self.body_bytes, &core.body_bytes);
        add(&mut self.sizes, &core.sizes);
        for (sums, cells) in self.durations.iter_mut().zip(&core.durations) {
            add(sums, cells);
        }
        add(&mut self.duration_nanos, &core.duration_nanos);
        add(&mut self.refusals, &core.refusals);
        add(&mut self.head_refusals, &core.head_refusals);
        add(&mut self.upstream_failures, &core.upstream_failures);
        // Closed first: read the other way round, a connection that comes and goes in between
        // would make it one too few.
        let closed = core.value(Counter::ConnectionsClosed);
        let accepted = core.value(Counter::ConnectionsAccepted);
        self.cores.push(CoreFigures {
            requests,
            connections: accepted.saturating_sub(closed),
            loop_lag_nanos: core.loop_lag_nanos.value(),
        });
    }

    /// The sum of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }

    /// The sum of a gauge.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges.get(gauge as usize).copied().unwrap_or(0)
    }

    /// Requests answered with this cache result, of all methods and statuses.
    #[must_use]
    pub fn requests(&self, result: CacheResult) -> u64 {
        let of_result = self.requests.iter().skip(result as usize).step_by(RESULTS);
        total(of_result)
    }

    /// All requests answered.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        total(&self.requests)
    }

    /// Client connections that are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        total(self.cores.iter().map(|core| &core.connections))
    }

    /// Bytes of bodies that came from the cache instead of an upstream.
    #[must_use]
    pub fn saved_bytes(&self) -> u64 {
        let saved = |result: CacheResult| self.body_bytes.get(result as usize).copied();
        let results = [CacheResult::Hit, CacheResult::Stale, CacheResult::Revalidated];
        results.into_iter().filter_map(saved).fold(0, u64::wrapping_add)
    }
}

/// Cells wrap around, so do their sums.
pub(crate) fn total<'a>(values: impl IntoIterator<Item = &'a u64>) -> u64 {
    values.into_iter().fold(0, |sum, value| sum.wrapping_add(*value))
}

/// Adds cells to sums and returns what was added.
fn add<const N: usize>(sums: &mut [u64; N], cells: &[Cell; N]) -> u64 {
    let mut added = 0_u64;
    for (sum, cell) in sums.iter_mut().zip(cells) {
        let value = cell.value();
        *sum = sum.wrapping_add(value);
        added = added.wrapping_add(value);
    }
    added
}
