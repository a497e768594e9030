//! The numbers of one core.
//!
//! One thread writes them: a relaxed load, an add and a relaxed store, which compile to plain
//! instructions without a locked bus cycle. Others may read at any time and see each number as it
//! was a moment ago. Counting a hit takes 2.3 ns (measured, optimised, in a loop).
//!
//! Two writers would lose counts; that is why every core has its own, aligned so
//! that no two share a cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::Mono;
use crate::http::Method;
use crate::metrics::labels::{
    CacheResult, HEAD_REFUSALS, METHOD_OTHER, METHODS, REFUSAL_STATUSES, STATUS_CLASSES,
    UPSTREAM_FAILURES, method_index, status_class_index, word_index,
};
use crate::metrics::table::{Counter, Gauge};

/// What one core counts. Only the thread of that core may call the methods that take a number or
/// an event; reading is for everybody (see [`Snapshot`](crate::metrics::Snapshot)).
///
/// About 7 KiB. Aligned to two cache lines, since the processor fetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct CoreCells {
    pub(crate) counters: [Cell; Counter::ALL.len()],
    pub(crate) gauges: [Cell; Gauge::ALL.len()],
    /// By method, status class and cache result: see [`request_index`].
    pub(crate) requests: [Cell; REQUEST_CELLS],
    /// Body bytes sent, by cache result.
    pub(crate) body_bytes: [Cell; RESULTS],
    /// Responses by the size of their body: see [`size_bucket`].
    pub(crate) sizes: [Cell; SIZE_BUCKETS],
    /// Responses by cache result and duration: see [`duration_bucket`].
    pub(crate) durations: [[Cell; DURATION_BUCKETS]; RESULTS],
    /// Sum of the measured durations, by cache result.
    pub(crate) duration_nanos: [Cell; RESULTS],
    /// By [`REFUSAL_STATUSES`]; the last is for all others.
    pub(crate) refusals: [Cell; REFUSAL_STATUSES.len() + 1],
    /// By [`HEAD_REFUSALS`].
    pub(crate) head_refusals: [Cell; HEAD_REFUSALS.len()],
    /// By [`UPSTREAM_FAILURES`].
    pub(crate) upstream_failures: [Cell; UPSTREAM_FAILURES.len()],
    pub(crate) loop_lag_nanos: Cell,
    /// When the event loop last went round, in nanoseconds of the process's clock.
    ticked_nanos: Cell,
}

impl CoreCells {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counters: cells(),
            gauges: cells(),
            requests: cells(),
            body_bytes: cells(),
            sizes: cells(),
            durations: std::array::from_fn(|_| cells()),
            duration_nanos: cells(),
            refusals: cells(),
            head_refusals: cells(),
            upstream_failures: cells(),
            loop_lag_nanos: Cell::default(),
            ticked_nanos: Cell::default(),
        }
    }

    /// Counts one.
    #[inline]
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`, in the counter's unit.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        add(&self.counters, counter as usize, n);
    }

    /// Replaces the value of a gauge.
    #[inline]
    pub fn set(&self, gauge: Gauge, value: u64) {
        if let Some(cell) = self.gauges.get(gauge as usize) {
            cell.set(value);
        }
    }

    /// One more of what the gauge counts.
    #[inline]
    pub fn raise(&self, gauge: Gauge) {
        add(&self.gauges, gauge as usize, 1);
    }

    /// One fewer of what the gauge counts; stays at zero.
    #[inline]
    pub fn lower(&self, gauge: Gauge) {
        if let Some(cell) = self.gauges.get(gauge as usize) {
            debug_assert!(cell.value() > 0, "{gauge:?} lowered more often than raised");
            cell.set(cell.value().saturating_sub(1));
        }
    }

    /// An answer that needed no waiting, with `body_bytes` of body. Four plain additions, no clock:
    /// it counts as faster than the lowest bound of the histogram.
    #[inline]
    pub fn on_hit(&self, method: &Method, status: u16, result: CacheResult, body_bytes: u64) {
        self.count(method_index(method), status, result, body_bytes);
        if let Some(buckets) = self.durations.get(result as usize) {
            add(buckets, 0, 1);
        }
    }

    /// An answer, the time from its request's head to its own last byte, and the bytes of its body
    /// that were sent.
    #[inline]
    pub fn on_response(
        &self,
        method: &Method,
        status: u16,
        result: CacheResult,
        took: Duration,
        body_bytes: u64,
    ) {
        self.count(method_index(method), status, result, body_bytes);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(buckets) = self.durations.get(result as usize) {
            add(buckets, duration_bucket(nanos), 1);
        }
        add(&self.duration_nanos, result as usize, nanos);
    }

    /// A request refused before it was routed, with a status of ours, in place of
    /// [`CoreCells::on_response`]: it counts with method `other` and cache result `none`, and is in
    /// neither histogram.
    pub fn on_refusal(&self, status: u16) {
        self.on_routed_refusal(status);
        add(&self.requests, request_index(METHOD_OTHER, status, CacheResult::None), 1);
    }

    /// A request refused after it was routed: its answer counts by itself.
    pub fn on_routed_refusal(&self, status: u16) {
        let other = REFUSAL_STATUSES.len();
        let index = REFUSAL_STATUSES.iter().position(|it| *it == status).unwrap_or(other);
        add(&self.refusals, index, 1);
    }

    /// Why a head or body was refused, beside `inc(Counter::H1Refused)`. A word that is not in
    /// [`HEAD_REFUSALS`] counts as `other`.
    pub fn on_head_refusal(&self, word: &str) {
        add(&self.head_refusals, word_index(&HEAD_REFUSALS, word), 1);
    }

    /// An exchange with an upstream failed. A word that is not in [`UPSTREAM_FAILURES`] counts as
    /// `other`.
    pub fn on_upstream_failure(&self, word: &'static str) {
        add(&self.upstream_failures, word_index(&UPSTREAM_FAILURES, word), 1);
    }

    /// The event loop went round, this much later than it had asked for.
    pub fn on_tick(&self, now: Mono, lag: Duration) {
        self.ticked_nanos.set(now.as_nanos());
        self.on_loop_lag(lag);
    }

    /// When the event loop last went round; the start of the clock before it first did. Anybody
    /// may ask, from any thread.
    #[must_use]
    pub fn last_tick(&self) -> Mono {
        Mono::from_nanos(self.ticked_nanos.value())
    }

    /// The event loop woke this much later than it had asked for. Keeps the worst and lets it fade
    /// by an eighth with each report, so that a scrape every few seconds still sees a stall.
    pub fn on_loop_lag(&self, lag: Duration) {
        let nanos = u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX);
        let faded = self.loop_lag_nanos.value() / 8 * 7;
        self.loop_lag_nanos.set(nanos.max(faded));
    }

    /// Anybody may ask, from any thread.
    #[must_use]
    pub fn value(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).map_or(0, Cell::value)
    }

    #[inline]
    fn count(&self, method: usize, status: u16, result: CacheResult, body_bytes: u64) {
        add(&self.requests, request_index(method, status, result), 1);
        add(&self.body_bytes, result as usize, body_bytes);
        add(&self.sizes, size_bucket(body_bytes), 1);
    }
}

impl Default for CoreCells {
    fn default() -> Self {
        Self::new()
    }
}

/// One number with one writer. Wraps around after 2^64.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Upper bounds of the duration buckets, in nanoseconds; one more is for what is above all.
pub(crate) const DURATION_BOUNDS: [u64; 18] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];
pub(crate) const DURATION_BUCKETS: usize = DURATION_BOUNDS.len() + 1;
/// Size buckets end at 256 B, 1 KiB, 4 KiB and so on to 64 MiB; one more is above all.
pub(crate) const SIZE_BUCKETS: usize = 11;
pub(crate) const RESULTS: usize = CacheResult::ALL.len();
pub(crate) const REQUEST_CELLS: usize = METHODS.len() * STATUS_CLASSES.len() * RESULTS;

/// Upper bound of a size bucket in bytes; `None` for the last.
pub(crate) const fn size_bound(bucket: usize) -> Option<u64> {
    if bucket + 1 < SIZE_BUCKETS { Some(256 << (2 * bucket)) } else { None }
}

/// Index into `requests`.
#[inline]
pub(crate) const fn request_index(method: usize, status: u16, result: CacheResult) -> usize {
    (method * STATUS_CLASSES.len() + status_class_index(status)) * RESULTS + result as usize
}

/// The bucket whose bound is the first at or above `nanos`.
#[inline]
fn duration_bucket(nanos: u64) -> usize {
    DURATION_BOUNDS.partition_point(|bound| *bound < nanos)
}

/// The bucket whose bound is the first at or above `bytes`, from the number's length in bits: the
/// bounds are powers of four.
#[inline]
fn size_bucket(bytes: u64) -> usize {
    let bits = u64::BITS - (bytes.saturating_sub(1) >> 8).leading_zeros();
    (bits.div_ceil(2) as usize).min(SIZE_BUCKETS - 1)
}

/// The one place that counts. An index that is out of range, which would be a bug here, is lost.
#[inline]
fn add(cells: &[Cell], index: usize, n: u64) {
    debug_assert!(index < cells.len());
    if let Some(cell) = cells.get(index) {
        cell.set(cell.value().wrapping_add(n));
    }
}

fn cells<const N: usize>() -> [Cell; N] {
    std::array::from_fn(|_| Cell::default())
}

#[cfg(test)]
mod tests;
