//! How a request finds or founds its identity's cell: the protocol of one bucket, step by step.
//!
//! A bucket is one cache line: a gate and seven cells (`cell.rs`). A request of an identity that
//! has a cell changes that word alone. The hard part is the first request of an identity: two cores
//! that both find no cell must not found two, or a burst of 10 would admit 20. Tags change only
//! through the gate:
//!
//! ```text
//!  63        52 51           27 26   24 23         0
//! +------------+---------------+-------+------------+
//! | insertions | first request | cell  |    tag     |   the newest insertion; tag 0: none so far
//! |  (count)   |  costs, ticks |       |            |
//! +------------+---------------+-------+------------+
//! ```
//!
//! 1. Read the gate. If the cell it names has another tag, that insertion is still pending: finish
//!    it (anybody may, so that a core which stalls in between holds up nobody).
//! 2. Scan the cells. The tag is there: take from that cell. It is not: choose the cell that gives
//!    way (`cell::rank`), and replace the gate by one that names it. If the gate has changed since
//!    step 1, start again: the scan may have missed somebody's insertion.
//! 3. Finish the insertion just announced, unless somebody has. The new cell owes for the request
//!    that founded it from its first moment, so that it is not taken for a free one.
//!
//! So between the gate being read and being replaced no tag changed, and an identity is founded
//! only when no cell has it. `Attempt` is one request walking through this, one atomic operation at
//! a time: [`crate::limit::Limiter`] runs it on atomics, the test runs all interleavings of three
//! of them. Whoever has to start again was overtaken by a request that got its answer.
//!
//! Admitted weaknesses, both harmless without a stall and a coincidence together: a core that
//! stalls between reading and replacing the gate while exactly a multiple of 4,096 insertions pass,
//! the last into the same cell for the same tag; and one that stalls before finishing an insertion
//! until the cell has come back to the very same tag and time. Either could found a second cell.
//! And an identity that owed nothing and returns in the very instant between its cell being
//! announced for another and being taken is forgiven what it asks in that instant.

use std::ops::ControlFlow;

use crate::limit::cell::{Step, TAG_BITS, idle, rank as cell_rank, step, tag_of};
use crate::limit::quota::{INTERVAL_BITS, Quota};

/// Where the gate stands among a bucket's words; the cells follow.
pub(super) const GATE: usize = 0;

/// Words of a bucket: one cache line.
pub(super) const BUCKET_WORDS: usize = 8;

/// One atomic operation on a bucket's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Read it.
    Load(usize),
    /// Replace `old` by `new`, or learn what stands there instead.
    Swap { at: usize, old: u64, new: u64 },
}

/// One request on its way through a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    tag: u64,
    quota: Quota,
    now: u64,
    horizon: u64,
    /// Words of the bucket: [`BUCKET_WORDS`], fewer in a test.
    words: usize,
    /// This request founds its identity's cell: the gate it waits for is its own.
    announced: bool,
    phase: Phase,
}

/// The outcome of an [`Attempt`]: the step taken, or the ticks to wait.
pub(super) type Outcome = Result<Step, u64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Read the gate.
    Gate,
    /// Read the cell that `gate` names: is its insertion done?
    Inspect { gate: u64 },
    /// It is not: is `gate` still the newest, so that `word` is what it is to replace?
    Confirm { gate: u64, word: u64 },
    /// Finish it.
    Finish { gate: u64, word: u64 },
    /// Look for the tag, remembering which cell would give way.
    Scan { gate: u64, at: usize, weakest: usize, rank: u64 },
    /// Announce the insertion.
    Announce { gate: u64, new: u64 },
    /// The tag's cell: take from it.
    Take { at: usize, word: u64, step: Step },
}

impl Attempt {
    /// A request of the identity `tag`, which a first look at the cells did not find.
    pub(super) const fn new(tag: u64, quota: Quota, now: u64, horizon: u64, words: usize) -> Self {
        debug_assert!(tag != 0 && words >= 2 && words <= BUCKET_WORDS);
        Self { tag, quota, now, horizon, words, announced: false, phase: Phase::Gate }
    }

    /// The operation to do next.
    pub(super) fn next_op(&self) -> Op {
        match self.phase {
            Phase::Gate | Phase::Confirm { .. } => Op::Load(GATE),
            Phase::Inspect { gate } => Op::Load(cell_of(gate)),
            Phase::Finish { gate, word } => {
                let new = idle(gate & TAG_MASK, self.now.wrapping_add(cost_of(gate)));
                Op::Swap { at: cell_of(gate), old: word, new }
            }
            Phase::Scan { at, .. } => Op::Load(at),
            Phase::Announce { gate, new } => Op::Swap { at: GATE, old: gate, new },
            Phase::Take { at, word, step } => Op::Swap { at, old: word, new: step.word },
        }
    }

    /// The operation was done and `seen` is what stood there before it.
    pub(super) fn on_seen(&mut self, seen: u64) -> Option<Outcome> {
        match self.advance(seen) {
            ControlFlow::Continue(phase) => self.phase = phase,
            ControlFlow::Break(outcome) => return Some(outcome),
        }
        None
    }

    fn advance(&mut self, seen: u64) -> ControlFlow<Outcome, Phase> {
        ControlFlow::Continue(match self.phase {
            Phase::Gate => inspect(seen),
            Phase::Inspect { gate } if tag_of(seen) == gate & TAG_MASK => self.finished(gate)?,
            Phase::Inspect { gate } => Phase::Confirm { gate, word: seen },
            Phase::Confirm { gate, word } if seen == gate => Phase::Finish { gate, word },
            // Somebody else has announced an insertion, so this one is finished.
            Phase::Confirm { gate, .. } if self.announced => self.finished(gate)?,
            Phase::Confirm { .. } => inspect(seen),
            Phase::Finish { gate, word } if seen == word => self.finished(gate)?,
            Phase::Finish { gate, .. } => Phase::Inspect { gate },
            Phase::Scan { at, .. } if tag_of(seen) == self.tag => self.take(at, seen)?,
            Phase::Scan { gate, at, weakest, rank } => {
                self.scanned(gate, at, weakest, rank, seen)?
            }
            Phase::Announce { gate, new } if seen == gate => {
                self.announced = true;
                Phase::Inspect { gate: new }
            }
            Phase::Announce { .. } => inspect(seen),
            Phase::Take { word, step, .. } if seen == word => {
                return ControlFlow::Break(Ok(step));
            }
            Phase::Take { at, .. } if tag_of(seen) == self.tag => self.take(at, seen)?,
            // Evicted meanwhile.
            Phase::Take { .. } => Phase::Gate,
        })
    }

    /// The insertion that `gate` names is done.
    fn finished(&self, gate: u64) -> ControlFlow<Outcome, Phase> {
        if !self.announced {
            return ControlFlow::Continue(scan(gate));
        }
        let word = idle(self.tag, self.now);
        ControlFlow::Break(step(word, &self.quota, self.now, self.horizon))
    }

    fn take(&self, at: usize, word: u64) -> ControlFlow<Outcome, Phase> {
        match step(word, &self.quota, self.now, self.horizon) {
            Ok(step) => ControlFlow::Continue(Phase::Take { at, word, step }),
            Err(wait) => ControlFlow::Break(Err(wait)),
        }
    }

    /// The cell at `at` belongs to another identity.
    fn scanned(
        &self,
        gate: u64,
        at: usize,
        weakest: usize,
        rank: u64,
        word: u64,
    ) -> ControlFlow<Outcome, Phase> {
        let this = cell_rank(word, self.now, self.horizon);
        let (weakest, rank) = if this < rank { (at, this) } else { (weakest, rank) };
        if at + 1 < self.words {
            return ControlFlow::Continue(Phase::Scan { gate, at: at + 1, weakest, rank });
        }
        let count = (gate >> COUNT_SHIFT).wrapping_add(1);
        let cost = self.quota.interval() << COST_SHIFT;
        let new = count << COUNT_SHIFT | cost | (weakest as u64) << TAG_BITS | self.tag;
        ControlFlow::Continue(Phase::Announce { gate, new })
    }
}

/// What to do with a gate just read.
const fn inspect(gate: u64) -> Phase {
    if gate & TAG_MASK == 0 { scan(gate) } else { Phase::Inspect { gate } }
}

const fn scan(gate: u64) -> Phase {
    Phase::Scan { gate, at: GATE + 1, weakest: GATE + 1, rank: u64::MAX }
}

const fn cell_of(gate: u64) -> usize {
    (gate >> TAG_BITS) as usize % BUCKET_WORDS
}

/// What the request that announced `gate` costs.
const fn cost_of(gate: u64) -> u64 {
    gate >> COST_SHIFT & ((1 << INTERVAL_BITS) - 1)
}

const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
const COST_SHIFT: u32 = TAG_BITS + 3;
const COUNT_SHIFT: u32 = COST_SHIFT + INTERVAL_BITS;
const _: () = assert!(BUCKET_WORDS == 1 << (COST_SHIFT - TAG_BITS));
const _: () = assert!(COUNT_SHIFT <= u64::BITS - 12);

#[cfg(test)]
mod tests;
