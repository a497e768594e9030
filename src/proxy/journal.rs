//! What was purged lately, for those who were under way meanwhile.
//!
//! Whoever looks something up or fetches it notes the number of purges before, and asks
//! afterwards whether one of those since concerned its key: then what it holds must not be shown.
//! Purges of other keys don't hinder it, so that an API with many writes is cached all the same.
//!
//! A few thousand purges are remembered; who was under way for longer than that counts
//! as purged, which costs one more fetch and is never wrong.
//!
//! Cost: one atomic load where nothing was purged meanwhile, else a lock and a look at each purge
//! since. Never on the hit path.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::proxy::inbox::KeyFilter;

/// The purges of the process.
#[derive(Default)]
pub struct Journal {
    /// How many there were. Raised after the purge stands in `recent`.
    count: AtomicU64,
    /// The last of them, newest at the end.
    recent: Mutex<VecDeque<KeyFilter>>,
}

/// A moment between two purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Journal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.count.load(Ordering::Acquire))
    }

    /// Notes a purge of the keys that `matches` says. Call it before anything is dropped.
    pub fn record(&self, matches: KeyFilter) {
        let mut recent = self.lock();
        if recent.len() == PURGES_MAX {
            recent.pop_front();
        }
        recent.push_back(matches);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Whether no purge since `since` concerns `key`.
    #[must_use]
    pub fn spared(&self, since: Mark, key: &[u8]) -> bool {
        self.mark() == since || self.concerning(since, key) == Some(0)
    }

    /// How many purges since `since` concern `key`; `None` when that is too long ago to know.
    #[must_use]
    pub fn concerning(&self, since: Mark, key: &[u8]) -> Option<usize> {
        let recent = self.lock();
        let purges = usize::try_from(self.mark().0.saturating_sub(since.0)).ok()?;
        (purges <= recent.len())
            .then(|| recent.iter().rev().take(purges).filter(|matches| matches(key)).count())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<KeyFilter>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At a hundred writes a second a fetch of half a minute still knows what concerns it.
const PURGES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn purge_of(journal: &Journal, key: &'static [u8]) {
        journal.record(Arc::new(move |it| it == key));
    }

    #[test]
    fn a_purge_concerns_its_keys_and_those_under_way_before_it() {
        let journal = Journal::new();
        let before = journal.mark();
        assert!(journal.spared(before, b"a"));
        purge_of(&journal, b"a");
        let after = journal.mark();
        assert!(!journal.spared(before, b"a"));
        assert!(journal.spared(before, b"b"));
        assert!(journal.spared(after, b"a"));
        assert_eq!(journal.concerning(before, b"a"), Some(1));
        assert_eq!(journal.concerning(before, b"b"), Some(0));
        assert_eq!(journal.concerning(after, b"a"), Some(0));
    }

    #[test]
    fn who_was_under_way_for_longer_than_the_journal_reaches_counts_as_purged() {
        let journal = Journal::new();
        let start = journal.mark();
        for _ in 0..PURGES_MAX {
            purge_of(&journal, b"x");
        }
        assert!(journal.spared(start, b"a"));
        purge_of(&journal, b"x");
        assert!(!journal.spared(start, b"a"));
        assert_eq!(journal.concerning(start, b"a"), None);
    }
}
