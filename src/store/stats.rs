//! Counters and state of the store, readable from any thread without a lock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::store::fault::{Fault, Unavailable};

/// A kind of work of the storage threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A batch of look-ups.
    Get,
    /// A group of puts, one transaction.
    Put,
    /// Purges that stood one behind the other, or a part of one that takes several transactions.
    Purge,
    /// One bounded batch of the janitor's removals.
    Sweep,
}

impl Op {
    /// All kinds, in the order of [`StoreStats::ops`].
    pub const ALL: [Self; 4] = [Self::Get, Self::Put, Self::Purge, Self::Sweep];

    /// The kind's word as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Purge => "purge",
            Self::Sweep => "sweep",
        }
    }
}

/// Counters of one kind of work. Monotonic.
#[derive(Debug, Default)]
pub struct OpStats {
    /// Times the backend was called.
    pub calls: AtomicU64,
    /// Look-ups, rows or purges that these calls did; over `calls`, the mean batch size.
    pub items: AtomicU64,
    /// Time spent in these calls, in nanoseconds.
    pub nanos: AtomicU64,
    /// Calls that failed.
    pub errors: AtomicU64,
}

/// Counters and gauges of one store. All relaxed: each is exact, together they are not a snapshot.
#[derive(Debug)]
pub struct StoreStats {
    started: Instant,
    /// By [`Op`], in the order of [`Op::ALL`].
    pub ops: [OpStats; 4],
    /// Gauge: rows taken and not yet written or dropped.
    pub put_queue_rows: AtomicU64,
    /// Gauge: bytes of these rows.
    pub put_queue_bytes: AtomicU64,
    /// Look-ups shed because the queue was full.
    pub gets_shed: AtomicU64,
    /// Look-ups that found a row.
    pub hits: AtomicU64,
    /// Look-ups that found none.
    pub misses: AtomicU64,
    /// Look-ups that the backend could not answer.
    pub gets_unavailable: AtomicU64,
    /// Rows dropped because the queue was full.
    pub puts_shed: AtomicU64,
    /// Rows dropped because a clear or a remote purge overtook them.
    pub puts_overtaken: AtomicU64,
    /// Rows dropped because the backend could not write them.
    pub puts_failed: AtomicU64,
    /// Rows removed because their time had passed.
    pub rows_swept: AtomicU64,
    /// Rows removed to keep the size limit.
    pub rows_evicted: AtomicU64,
    /// Rows that failed their checksum; each was a miss.
    pub rows_damaged: AtomicU64,
    /// Files of another format emptied.
    pub files_emptied: AtomicU64,
    /// Files found damaged and moved aside.
    pub files_moved_aside: AtomicU64,
    /// Times the backend was opened again after a fault.
    pub reopened: AtomicU64,
    /// Panics caught in the storage threads.
    pub panics: AtomicU64,
    /// Purges received from other instances.
    pub remote_purges: AtomicU64,
    /// Gauge: rows stored, as last counted by the writer.
    pub rows: AtomicU64,
    /// Gauge: bytes they take in the backend, as last measured.
    pub bytes: AtomicU64,
    /// Gauge: when the storage thread last went round, in milliseconds since the start of the
    /// store. It goes round at least once a second; see [`StoreStats::age_of_heartbeat`].
    pub heartbeat: AtomicU64,
    reads: AtomicU8,
    writes: AtomicU8,
}

impl StoreStats {
    pub(crate) fn new() -> Self {
        let zero = AtomicU64::default;
        Self {
            started: Instant::now(),
            ops: Default::default(),
            put_queue_rows: zero(),
            put_queue_bytes: zero(),
            gets_shed: zero(),
            hits: zero(),
            misses: zero(),
            gets_unavailable: zero(),
            puts_shed: zero(),
            puts_overtaken: zero(),
            puts_failed: zero(),
            rows_swept: zero(),
            rows_evicted: zero(),
            rows_damaged: zero(),
            files_emptied: zero(),
            files_moved_aside: zero(),
            reopened: zero(),
            panics: zero(),
            remote_purges: zero(),
            rows: zero(),
            bytes: zero(),
            heartbeat: zero(),
            reads: AtomicU8::new(0),
            writes: AtomicU8::new(0),
        }
    }

    /// Counters of one kind of work.
    #[must_use]
    pub fn op(&self, op: Op) -> &OpStats {
        let [get, put, purge, sweep] = &self.ops;
        match op {
            Op::Get => get,
            Op::Put => put,
            Op::Purge => purge,
            Op::Sweep => sweep,
        }
    }

    /// Why look-ups fail at present; none while they work.
    #[must_use]
    pub fn reads_unavailable(&self) -> Option<Unavailable> {
        decode(self.reads.load(Ordering::Relaxed))
    }

    /// Why writes fail at present; none while they work.
    #[must_use]
    pub fn writes_unavailable(&self) -> Option<Unavailable> {
        decode(self.writes.load(Ordering::Relaxed))
    }

    /// Why the store is degraded; none while reads and writes work.
    #[must_use]
    pub fn unavailable(&self) -> Option<Unavailable> {
        self.reads_unavailable().or_else(|| self.writes_unavailable())
    }

    /// Time since the storage thread last went round. Above a few seconds it hangs in a system
    /// call, and look-ups with it.
    #[must_use]
    pub fn age_of_heartbeat(&self) -> Duration {
        let beat = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(beat)
    }

    pub(crate) fn beat(&self) {
        self.heartbeat.store(millis(self.started.elapsed()), Ordering::Relaxed);
    }

    /// Counts one call.
    pub(crate) fn on_call(&self, op: Op, items: usize, took: Duration, failed: bool) {
        let stats = self.op(op);
        stats.calls.fetch_add(1, Ordering::Relaxed);
        stats.items.fetch_add(u64::try_from(items).unwrap_or(0), Ordering::Relaxed);
        stats.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(0), Ordering::Relaxed);
        stats.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// Notes whether reads (`Op::Get`) or writes (the others) work, and logs the change. Writes are
    /// said to work only by what wrote something.
    pub(crate) fn on_state(&self, op: Op, fault: Option<&Fault>) {
        let state = if op == Op::Get { &self.reads } else { &self.writes };
        let side = if op == Op::Get { "reads" } else { "writes" };
        let new = fault.map_or(0, |it| encode(it.reason));
        if state.swap(new, Ordering::Relaxed) == new {
            return;
        }
        match fault {
            Some(it) => tracing::warn!(
                side,
                reason = it.reason.as_str(),
                detail = it.detail,
                "store is unavailable"
            ),
            None => tracing::info!(side, "store is available"),
        }
    }
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rows that a look-up can find. PostgreSQL: the server's estimate.
    pub rows: u64,
    /// Bytes they take in the backend, indexes included.
    pub bytes: u64,
}

fn encode(reason: Unavailable) -> u8 {
    let index = Unavailable::ALL.iter().position(|it| *it == reason);
    index.and_then(|it| u8::try_from(it + 1).ok()).unwrap_or(u8::MAX)
}

fn decode(state: u8) -> Option<Unavailable> {
    let index = usize::from(state).checked_sub(1)?;
    Some(Unavailable::ALL.get(index).copied().unwrap_or(Unavailable::Bug))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_state_byte() {
        let stats = StoreStats::new();
        for reason in Unavailable::ALL {
            stats.on_state(Op::Put, Some(&Fault::new(reason, "x")));
            assert_eq!(stats.writes_unavailable(), Some(reason));
            assert_eq!(stats.reads_unavailable(), None);
            assert_eq!(stats.unavailable(), Some(reason));
        }
        stats.on_state(Op::Sweep, None);
        assert_eq!(stats.unavailable(), None);
    }
}
