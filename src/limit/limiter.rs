//! The table of cells that all cores share.
//!
//! The model: `hash -> bucket of seven cells`, a bucket being one cache line. It is the shard too:
//! nothing is locked, so that nothing larger needs dividing. Memory is fixed when the table is
//! made; there is no cleaning task, since a cell whose time has passed is free by itself.
//!
//! A newcomer takes an unused cell, else the one whose time passed longest ago; in a bucket full of
//! cells that still owe, the one that owes least. Whoever has spent a burst stays, and a flood of
//! addresses that come once evicts its own kind. The evicted identity is forgiven what it owed: a
//! full table errs on the admitting side, for a cache can bear some requests too many better than
//! refuse all newcomers during an attack.
//!
//! Cost: a request of a known identity reads one cache line and does one compare-and-swap.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::Mono;
use crate::limit::bucket::{Attempt, BUCKET_WORDS, Op, Outcome};
use crate::limit::cell::{Step, TAG_BITS, ahead, give_back, standing, step, tag_of};
use crate::limit::identity::Kind;
use crate::limit::quota::{Quota, span, ticks};

/// A rate limiter for any number of identities; shared by reference.
#[derive(Debug)]
pub struct Limiter {
    buckets: Box<[Bucket]>,
    /// No cell's time lies further ahead than this: the largest tolerance seen, and a margin for
    /// clocks that differ.
    horizon: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    words: [AtomicU64; BUCKET_WORDS],
}

/// Who asks, and what it may have.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'q> {
    /// What the identity is; the name under which the answer speaks of it.
    pub kind: Kind,
    /// The identity's hash: [`Kind::hash_address`] or [`Kind::hash_key`].
    pub hash: u64,
    /// Its quota.
    pub quota: &'q Quota,
}

/// Where an identity stands after a request was admitted, or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that could follow at once.
    pub remaining: u32,
    /// When the whole burst is available again; after a refusal by this identity, when its next
    /// request is admitted.
    pub reset_after: Duration,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Served.
    Admitted(Standing),
    /// Refused; nothing was taken.
    Rejected {
        /// After this time a request of this identity is admitted, if no other comes before it.
        retry_after: Duration,
    },
}

/// The answer to a request that two identities must admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Both {
    /// Both admit it.
    Admitted {
        /// Where the first stands.
        first: Standing,
        /// Where the second stands.
        second: Standing,
    },
    /// One or both refuse; nothing was taken from either.
    Rejected {
        /// The one that refused; the first, if both did.
        by: Kind,
        /// After this time neither refuses.
        retry_after: Duration,
    },
}

impl Limiter {
    /// A table with at least `cells` cells, rounded up to a power of two of buckets.
    ///
    /// Memory: about 9 bytes a cell, up to twice that by rounding. See [`CELLS_DEFAULT`].
    #[must_use]
    pub fn new(cells: usize) -> Self {
        let buckets = cells.div_ceil(BUCKET_WORDS - 1).max(1).next_power_of_two();
        let buckets = (0..buckets).map(|_| Bucket::default()).collect();
        Self { buckets, horizon: AtomicU64::new(HORIZON_MARGIN) }
    }

    /// Takes one request from the identity `hash`, if its quota allows.
    #[must_use]
    pub fn check(&self, hash: u64, quota: &Quota, now: Mono) -> Verdict {
        verdict(self.take(hash, quota, now))
    }

    /// What [`Limiter::check`] would answer; takes nothing.
    #[must_use]
    pub fn peek(&self, hash: u64, quota: &Quota, now: Mono) -> Verdict {
        let (now, horizon) = (ticks(now), self.horizon(quota));
        verdict(step(self.word(hash, now), quota, now, horizon))
    }

    /// Where the identity `hash` stands now; takes nothing. For the answer to a refused request.
    #[must_use]
    pub fn standing(&self, hash: u64, quota: &Quota, now: Mono) -> Standing {
        let (now, horizon) = (ticks(now), self.horizon(quota));
        let (remaining, ticks) = standing(self.word(hash, now), quota, now, horizon);
        Standing { remaining, reset_after: span(ticks) }
    }

    /// The identity's cell. One without a cell owes nothing: the time of that is `now`.
    fn word(&self, hash: u64, now: u64) -> u64 {
        let tag = tag(hash);
        let words = self.bucket(hash).cells().map(|cell| cell.load(Ordering::Acquire));
        words.into_iter().find(|word| tag_of(*word) == tag).unwrap_or(now)
    }

    /// Takes one request from both identities, or from neither.
    ///
    /// The second is asked first without taking, so that its refusal leaves no trace at all. Only
    /// if another core exhausts it in between is the first one's request taken and given back.
    #[must_use]
    pub fn check_both(&self, first: Ask<'_>, second: Ask<'_>, now: Mono) -> Both {
        if let Verdict::Rejected { retry_after } = self.peek(second.hash, second.quota, now) {
            return match self.peek(first.hash, first.quota, now) {
                Verdict::Rejected { retry_after: other } => {
                    Both::Rejected { by: first.kind, retry_after: retry_after.max(other) }
                }
                Verdict::Admitted(_) => Both::Rejected { by: second.kind, retry_after },
            };
        }
        let standing = match self.check(first.hash, first.quota, now) {
            Verdict::Admitted(standing) => standing,
            Verdict::Rejected { retry_after } => {
                return Both::Rejected { by: first.kind, retry_after };
            }
        };
        match self.check(second.hash, second.quota, now) {
            Verdict::Admitted(second) => Both::Admitted { first: standing, second },
            Verdict::Rejected { retry_after } => {
                self.give_back(first.hash, first.quota);
                Both::Rejected { by: second.kind, retry_after }
            }
        }
    }

    /// Undoes one admitted request of the identity `hash`, as if it had not been made.
    ///
    /// If the identity's cell was evicted meanwhile, its debt is forgiven anyway.
    pub fn give_back(&self, hash: u64, quota: &Quota) {
        let tag = tag(hash);
        for cell in self.bucket(hash).cells() {
            let mut word = cell.load(Ordering::Acquire);
            while tag_of(word) == tag {
                match swap(cell, word, give_back(word, quota)) {
                    Ok(()) => return,
                    Err(seen) => word = seen,
                }
            }
        }
    }

    /// How many identities owe something at `now`. Reads the whole table: for a scrape, not for a
    /// request.
    #[must_use]
    pub fn live(&self, now: Mono) -> usize {
        let (now, horizon) = (ticks(now), self.horizon.load(Ordering::Relaxed));
        let cells = self.buckets.iter().flat_map(Bucket::cells);
        let words = cells.map(|cell| cell.load(Ordering::Relaxed));
        words.filter(|word| tag_of(*word) != 0 && ahead(*word, now, horizon) > 0).count()
    }

    /// The table's size in bytes; it never changes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.buckets)
    }

    fn take(&self, hash: u64, quota: &Quota, now: Mono) -> Outcome {
        let (now, horizon) = (ticks(now), self.horizon(quota));
        let (bucket, tag) = (self.bucket(hash), tag(hash));
        for cell in bucket.cells() {
            let mut word = cell.load(Ordering::Acquire);
            while tag_of(word) == tag {
                let step = step(word, quota, now, horizon)?;
                match swap(cell, word, step.word) {
                    Ok(()) => return Ok(step),
                    Err(seen) => word = seen,
                }
            }
        }
        bucket.found(Attempt::new(tag, *quota, now, horizon, BUCKET_WORDS))
    }

    fn bucket(&self, hash: u64) -> &Bucket {
        let at = hash as usize & (self.buckets.len() - 1);
        // The mask keeps `at` below the length, a power of two: see `new`.
        #[allow(clippy::indexing_slicing, reason = "on the hit path; in range by the mask")]
        &self.buckets[at]
    }

    fn horizon(&self, quota: &Quota) -> u64 {
        let needed = quota.tolerance() + HORIZON_MARGIN;
        let horizon = self.horizon.load(Ordering::Relaxed);
        if horizon >= needed {
            return horizon;
        }
        self.horizon.fetch_max(needed, Ordering::Relaxed).max(needed)
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(CELLS_DEFAULT)
    }
}

impl Bucket {
    fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        self.words.iter().skip(1)
    }

    /// Runs the protocol of `bucket.rs`.
    #[cold]
    fn found(&self, mut attempt: Attempt) -> Outcome {
        loop {
            let seen = match attempt.next_op() {
                Op::Load(at) => self.word(at).load(Ordering::Acquire),
                Op::Swap { at, old, new } => match swap(self.word(at), old, new) {
                    Ok(()) => old,
                    Err(seen) => seen,
                },
            };
            if let Some(outcome) = attempt.on_seen(seen) {
                return outcome;
            }
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        #[allow(clippy::indexing_slicing, reason = "in range by the modulus")]
        &self.words[at % BUCKET_WORDS]
    }
}

fn swap(word: &AtomicU64, old: u64, new: u64) -> Result<(), u64> {
    word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
}

fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Ok(Step { remaining, reset, .. }) => {
            Verdict::Admitted(Standing { remaining, reset_after: span(reset) })
        }
        Err(wait) => Verdict::Rejected { retry_after: span(wait) },
    }
}

/// The high bits of the hash, which do not choose the bucket; never 0, which marks an unused cell.
const fn tag(hash: u64) -> u64 {
    let tag = hash >> (u64::BITS - TAG_BITS);
    if tag == 0 { 1 } else { tag }
}

/// 458,752 cells in 4 MiB, which fits a last-level cache. At 60 a minute an address that comes once
/// owes for a second, so that eviction starts near half a million new addresses a second.
pub const CELLS_DEFAULT: usize = 7 << 16;

/// 64 s in ticks: far more than two cores' clocks differ, far less than the range of ticks.
const HORIZON_MARGIN: u64 = 1 << 25;

#[cfg(test)]
mod tests;
