//! How a request finds or founds its identity's cell: the protocol of one bucket, step by step.
//!
//! A bucket is one cache line: a gate and seven cells (`cell.rs`). A request of an identity that
//! has a cell changes that word alone. The hard part is the first request of an identity: two cores
//! that both find no cell must not found two, or a burst of 10 would admit 20. Tags change only
//! through the gate:
//!
//! ```text
//!  63               27 26   24 23         0
//! +-------------------+-------+------------+
//! |  insertions done  | cell  |    tag     |     the newest insertion; tag 0: none so far
//! +-------------------+-------+------------+
//! ```
//!
//! 1. Read the gate. If the cell it names has another tag, that insertion is still pending: finish
//!    it (anybody may, so that a core which stalls in between holds up nobody).
//! 2. Scan the cells. The tag is there: take from that cell. It is not: choose the cell that owes
//!    least, and replace the gate by one that names it. If the gate has changed since step 1,
//!    start again: the scan may have missed somebody's insertion.
//!
//! So between the gate being read and being replaced no tag changed, and an identity is founded
//! only when no cell has it. `Attempt` is one request walking through this, one atomic operation at
//! a time: [`crate::limit::Limiter`] runs it on atomics, the test below runs all interleavings of
//! three of them.
//!
//! Admitted weakness: a core that stalls just before finishing another's insertion for so long that
//! the cell has since come back to the very same tag and time would found a second cell. The time
//! would have to repeat to the tick.

use crate::limit::cell::{Step, TAG_BITS, ahead, idle, step, tag_of};
use crate::limit::quota::Quota;

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
    /// Look for the tag, remembering who owes least.
    Scan { gate: u64, at: usize, poorest: usize, owed: u64 },
    /// Announce the insertion.
    Announce { gate: u64, new: u64 },
    /// The tag's cell: take from it.
    Take { at: usize, word: u64, step: Step },
}

impl Attempt {
    /// A request of the identity `tag`, which a first look at the cells did not find.
    pub(super) const fn new(tag: u64, quota: Quota, now: u64, horizon: u64, words: usize) -> Self {
        debug_assert!(tag != 0 && words >= 2 && words <= BUCKET_WORDS);
        Self { tag, quota, now, horizon, words, phase: Phase::Gate }
    }

    /// The operation to do next.
    pub(super) fn next_op(&self) -> Op {
        match self.phase {
            Phase::Gate | Phase::Confirm { .. } => Op::Load(GATE),
            Phase::Inspect { gate } => Op::Load(cell_of(gate)),
            Phase::Finish { gate, word } => {
                let new = idle(gate & TAG_MASK, self.now);
                Op::Swap { at: cell_of(gate), old: word, new }
            }
            Phase::Scan { at, .. } => Op::Load(at),
            Phase::Announce { gate, new } => Op::Swap { at: GATE, old: gate, new },
            Phase::Take { at, word, step } => Op::Swap { at, old: word, new: step.word },
        }
    }

    /// The operation was done and `seen` is what stood there before it.
    pub(super) fn on_seen(&mut self, seen: u64) -> Option<Outcome> {
        self.phase = match self.phase {
            Phase::Gate => inspect(seen),
            Phase::Inspect { gate } if tag_of(seen) == gate & TAG_MASK => scan(gate),
            Phase::Inspect { gate } => Phase::Confirm { gate, word: seen },
            Phase::Confirm { gate, word } if seen == gate => Phase::Finish { gate, word },
            Phase::Confirm { .. } => inspect(seen),
            Phase::Finish { gate, word } if seen == word => scan(gate),
            Phase::Finish { gate, .. } => Phase::Inspect { gate },
            Phase::Scan { at, .. } if tag_of(seen) == self.tag => match self.take(at, seen) {
                Ok(phase) => phase,
                Err(wait) => return Some(Err(wait)),
            },
            Phase::Scan { gate, at, poorest, owed } => self.scanned(gate, at, poorest, owed, seen),
            Phase::Announce { gate, new } => inspect(if seen == gate { new } else { seen }),
            Phase::Take { word, step, .. } if seen == word => return Some(Ok(step)),
            Phase::Take { at, .. } if tag_of(seen) == self.tag => match self.take(at, seen) {
                Ok(phase) => phase,
                Err(wait) => return Some(Err(wait)),
            },
            // Evicted meanwhile.
            Phase::Take { .. } => Phase::Gate,
        };
        None
    }

    fn take(&self, at: usize, word: u64) -> Result<Phase, u64> {
        let step = step(word, &self.quota, self.now, self.horizon)?;
        Ok(Phase::Take { at, word, step })
    }

    /// The cell at `at` belongs to another identity.
    fn scanned(&self, gate: u64, at: usize, poorest: usize, owed: u64, word: u64) -> Phase {
        let owes = if tag_of(word) == 0 { 0 } else { ahead(word, self.now, self.horizon) };
        let (poorest, owed) = if owes < owed { (at, owes) } else { (poorest, owed) };
        if at + 1 < self.words {
            return Phase::Scan { gate, at: at + 1, poorest, owed };
        }
        let count = (gate >> COUNT_SHIFT).wrapping_add(1);
        let new = count << COUNT_SHIFT | (poorest as u64) << TAG_BITS | self.tag;
        Phase::Announce { gate, new }
    }
}

/// What to do with a gate just read.
const fn inspect(gate: u64) -> Phase {
    if gate & TAG_MASK == 0 { scan(gate) } else { Phase::Inspect { gate } }
}

const fn scan(gate: u64) -> Phase {
    Phase::Scan { gate, at: GATE + 1, poorest: GATE + 1, owed: u64::MAX }
}

const fn cell_of(gate: u64) -> usize {
    (gate >> TAG_BITS) as usize % BUCKET_WORDS
}

const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
const COUNT_SHIFT: u32 = TAG_BITS + 3;
const _: () = assert!(BUCKET_WORDS == 1 << (COUNT_SHIFT - TAG_BITS));

#[cfg(test)]
mod tests;
