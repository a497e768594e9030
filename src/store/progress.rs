//! How far purges have come, where every thread can see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Purges on their way: sent by clients, taken by the storage thread, done by the writer.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    sent: AtomicU64,
    taken: AtomicU64,
    /// One could not be queued: everything is purged in its place.
    lost: AtomicBool,
    /// The number of the last one that was handed to the writer.
    issued: AtomicU64,
    /// Up to this number they are done. Behind the puts while one is owed.
    done: AtomicU64,
    /// Some are owed: those that come now will be, too.
    owed: AtomicBool,
}

impl Progress {
    /// A client is about to send one.
    pub(crate) fn on_sent(&self) {
        self.sent.fetch_add(1, Ordering::AcqRel);
    }

    /// It could not be sent.
    pub(crate) fn on_unsent(&self) {
        self.sent.fetch_sub(1, Ordering::AcqRel);
    }

    /// It reached the storage thread, which has given it a number or refused it.
    pub(crate) fn on_taken(&self) {
        self.taken.fetch_add(1, Ordering::AcqRel);
    }

    /// How many reached the storage thread.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether one was lost since the last time.
    pub(crate) fn take_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) && self.lost.swap(false, Ordering::AcqRel)
    }

    /// One goes to the writer under this number.
    pub(crate) fn on_issued(&self, seq: u64) {
        self.issued.store(seq, Ordering::Release);
    }

    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Acquire)
    }

    /// What the writer has done, and whether it owes any.
    pub(crate) fn on_done(&self, upto: u64, owed: bool) {
        self.done.store(upto, Ordering::Release);
        self.owed.store(owed, Ordering::Release);
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    pub(crate) fn are_owed(&self) -> bool {
        self.owed.load(Ordering::Acquire)
    }

    /// Whether some have no number yet.
    pub(crate) fn are_untaken(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.sent.load(Ordering::Acquire) != self.taken()
    }

    /// Whether some are not done.
    pub(crate) fn may_be_owed(&self) -> bool {
        self.are_untaken() || self.done() < self.issued()
    }
}
