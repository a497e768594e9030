//! How much memory the cache holds, counted once for the whole process.
//!
//! Entries are shared between cores, the hub, answers on their way out and rows on their way to the
//! second tier; none of these knows who lets go last. So an entry is charged when it is made and
//! refunded when its last holder drops it: the figure is what is really held, not what an index
//! lists. Two relaxed additions for each; nothing on a hit.

use std::sync::atomic::{AtomicU64, Ordering};

/// The account. One for a process, behind an `Arc` that every [`crate::cache::entry::Entry`] holds.
#[derive(Debug)]
pub struct Ledger {
    /// Sum over all live entries.
    bytes: AtomicU64,
    /// Number of live entries.
    entries: AtomicU64,
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

#[cfg(test)]
mod tests {
    use super::*;

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
