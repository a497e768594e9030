//! How much memory the cache holds, counted once for the whole process.
//!
//! Entries are shared between cores, the hub, answers on their way out and rows on their way to the
//! second tier; none of these knows who lets go last. So an entry is charged when it is made and
//! refunded when its last holder drops it: the figure is what is really held, not what an index
//! lists. Two relaxed additions for each; nothing on a hit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The account. One for a process, behind an `Arc` that every [`crate::cache::entry::Entry`] holds.
#[derive(Debug)]
pub struct Ledger {
    /// Sum over all live entries.
    bytes: AtomicU64,
    /// Number of live entries.
    entries: AtomicU64,
    /// The part of `bytes` that is held for bodies which are still arriving.
    arriving: AtomicU64,
    /// `cache.memory_cache_max_bytes`; changes when the configuration is read again.
    bytes_max: AtomicU64,
}

impl Ledger {
    /// An empty account with a limit in bytes.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            arriving: AtomicU64::new(0),
            bytes_max: AtomicU64::new(bytes_max),
        }
    }

    /// Bytes held by live entries.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Live entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Changes the limit. Shards shrink to it at their next insertion or when told to shed.
    pub fn limit_to(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Bytes above the limit; zero when within it.
    #[must_use]
    pub fn bytes_over(&self) -> u64 {
        self.bytes().saturating_sub(self.bytes_max())
    }

    /// A share of the memory for a body that is to be stored and still arrives, of which so many
    /// bytes are known to come; `None` when such bodies have half of all memory. One that is larger
    /// than that passes while there is no other.
    #[must_use]
    pub fn arriving(self: &Arc<Self>, bytes: u64) -> Option<Arriving> {
        let mut arriving = Arriving { ledger: Arc::clone(self), bytes: 0 };
        arriving.grow(bytes).then_some(arriving)
    }

    /// An entry was made.
    pub(crate) fn open(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.grow(bytes);
    }

    /// A live entry grew (an encoded variant was added).
    pub(crate) fn grow(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An entry of that size is gone.
    pub(crate) fn close(&self, bytes: u64) {
        let entries_before = self.entries.fetch_sub(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(entries_before >= 1 && bytes_before >= bytes, "refunded more than charged");
    }
}

/// A body's share of the memory while it arrives, given back when dropped: then there is an entry,
/// or nothing.
#[derive(Debug)]
pub struct Arriving {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Arriving {
    /// Holds so many bytes more, if there is room for them.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let ledger = &self.ledger;
        let before = ledger.arriving.fetch_add(bytes, Ordering::Relaxed);
        let others = before.saturating_sub(self.bytes);
        let fits = before + bytes <= (ledger.bytes_max() / 2).max(ARRIVING_BYTES_MIN);
        if others > 0 && !fits {
            ledger.arriving.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        ledger.grow(bytes);
        self.bytes += bytes;
        true
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.ledger.arriving.fetch_sub(self.bytes, Ordering::Relaxed);
        self.ledger.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bodies that arrive may have that much, however small the limit is: without memory for entries
/// they are still stored in the second tier.
const ARRIVING_BYTES_MIN: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn arriving(ledger: &Ledger) -> u64 {
        ledger.arriving.load(Ordering::Relaxed)
    }

    #[test]
    fn bodies_that_arrive_have_half_of_the_memory() {
        const MIB: u64 = 1 << 20;
        let ledger = Arc::new(Ledger::new(100 * MIB));
        let mut first = ledger.arriving(30 * MIB).unwrap();
        assert_eq!((ledger.bytes(), arriving(&ledger)), (30 * MIB, 30 * MIB));
        let second = ledger.arriving(20 * MIB).unwrap();
        assert!(ledger.arriving(1).is_none() && !first.grow(1));
        assert_eq!(ledger.bytes(), 50 * MIB);
        drop(second);
        assert!(first.grow(500 * MIB), "larger than all, and alone");
        assert!(ledger.arriving(1).is_none());
        assert_eq!(ledger.bytes_over(), 430 * MIB);
        drop(first);
        assert_eq!((ledger.bytes(), arriving(&ledger), ledger.entries()), (0, 0, 0));
        let none = Arc::new(Ledger::new(0));
        let small = none.arriving(15 * MIB);
        assert!(small.is_some() && none.arriving(MIB).is_some());
    }

    #[test]
    fn the_account_balances_and_knows_its_excess() {
        let ledger = Ledger::new(100);
        ledger.open(80);
        assert_eq!((ledger.bytes(), ledger.entries(), ledger.bytes_over()), (80, 1, 0));
        ledger.grow(50);
        assert_eq!(ledger.bytes_over(), 30);
        ledger.limit_to(10);
        assert_eq!(ledger.bytes_over(), 120);
        ledger.close(130);
        assert_eq!((ledger.bytes(), ledger.entries(), ledger.bytes_over()), (0, 0, 0));
    }
}
