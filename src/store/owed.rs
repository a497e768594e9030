//! Purges that the backend could not do: in their order, until they are done.
//!
//! Past a bound they become one purge of everything, and so they do where they can't be noted (see
//! `note.rs`): that one a backend can do even where there is no room for any other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::store::fault::{Fault, Unavailable};
use crate::store::retry::Retry;
use crate::store::row::Purge;
use crate::store::shared::Shared;

/// Purges owed to a backend that is away; past it they become one purge of everything.
const OWED_MAX: usize = 64;

/// What is owed, and when it is tried again.
pub(crate) struct Owed {
    shared: Arc<Shared>,
    /// With their numbers.
    purges: VecDeque<(u64, Purge)>,
    retry: Retry,
}

impl Owed {
    /// Nothing.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, purges: VecDeque::new(), retry: Retry::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.purges.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.purges.len()
    }

    /// The first to be done.
    pub(crate) fn first(&self) -> Option<Purge> {
        self.purges.front().map(|(_, purge)| purge.clone())
    }

    /// Whether it is time to try.
    pub(crate) fn is_due(&self) -> bool {
        !self.is_empty() && self.retry.check(Instant::now()).is_ok()
    }

    /// Of operations up to `finished`, up to which one all purges are done.
    pub(crate) fn done_upto(&self, finished: u64) -> u64 {
        self.purges.front().map_or(finished, |(seq, _)| seq - 1)
    }

    /// One more, which failed; noted when this returns.
    pub(crate) fn owe(&mut self, purge: Purge, seq: u64, fault: &Fault) {
        let is_first = self.is_empty();
        if is_first {
            self.retry.on_fault(fault, Instant::now());
        }
        self.purges.push_back((seq, purge));
        let noted = self.shared.note.make(seq);
        if self.purges.len() > OWED_MAX || noted.is_err() {
            self.become_clear();
        }
        if let Err(error) = noted
            && is_first
        {
            tracing::error!(
                %error,
                "a purge that is owed can't be noted: everything is purged in its place"
            );
        }
    }

    fn become_clear(&mut self) {
        // The first number is kept: everything from there on stays hidden.
        if let Some((first, _)) = self.purges.front() {
            self.purges = [(*first, Purge::CLEAR)].into();
        }
    }

    /// Forgets everything for a clear that is tried in its place, to be owed itself under the
    /// number that is returned.
    pub(crate) fn give_way(&mut self) -> Option<u64> {
        let first = self.purges.front().map(|(seq, _)| *seq);
        self.purges.clear();
        self.retry.on_success();
        first
    }

    /// The first is done.
    pub(crate) fn on_paid(&mut self) {
        self.retry.on_success();
        self.purges.pop_front();
    }

    /// The first failed again.
    pub(crate) fn on_failed(&mut self, fault: &Fault) {
        self.retry.on_fault(fault, Instant::now());
    }

    /// Why a purge that comes now is not done.
    pub(crate) fn fault(&self) -> Fault {
        Fault::new(self.shared.why_owed(), "earlier purges are still owed")
    }

    /// The process ends, whatever is owed.
    pub(crate) fn on_end(&self) {
        if self.is_empty() {
            return;
        }
        let purges = self.len();
        if self.shared.note.is_made() {
            tracing::error!(purges, "ended with purges owed: the next start clears the cache");
        } else {
            tracing::error!(purges, "ended with purges owed, which are lost");
        }
    }
}

impl Shared {
    /// Why purges are owed.
    pub(crate) fn why_owed(&self) -> Unavailable {
        self.stats.writes_unavailable().unwrap_or(Unavailable::Starting)
    }
}
