//! What a backend must do. One object reads and one writes, in different threads.
//!
//! Every call blocks, is bounded in work, and may fail with a [`Fault`]; the threads decide what a
//! failure means. `tests/store.rs` and `tests/store_lasting.rs` hold all backends to the same.

use std::sync::Arc;

use crate::base::Wall;
use crate::store::fault::Fault;
use crate::store::row::{Digest, Purge, Row};
use crate::store::stats::Usage;

/// Rows of one transaction. Larger groups gain nothing and block for tens of ms (FINDINGS.md).
pub(crate) const GROUP_ROWS_MAX: usize = 100;

/// Bytes of rows that one read returns, but for a single row that is larger: what a batch of
/// look-ups of large bodies may take at a time.
pub(crate) const READ_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Makes readers and writers; shared by all storage threads.
pub(crate) trait Backend: Send + Sync {
    /// Opens a reader for the thread of this number, below [`Backend::readers`]. Called again
    /// after a fault that [`Fault::breaks_connection`].
    fn reader(&self, index: usize) -> Result<Box<dyn Reader>, Fault>;
    /// Opens the writer; likewise.
    fn writer(&self) -> Result<Box<dyn Writer>, Fault>;
    /// Threads that read, if they are needed.
    fn readers(&self) -> usize {
        1
    }
    /// Whether a look-up may wait for somebody else. If not, it is done in the storage thread
    /// itself, without [`Backend::readers`].
    fn blocks(&self) -> bool {
        false
    }
}

/// Reads rows.
pub(crate) trait Reader: Send {
    /// The rows of the first of these digests, in their order, all as of one instant: of at least
    /// one, and of fewer than asked for when together they exceed [`READ_BYTES_MAX`].
    fn read(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault>;
    /// Called about once a second while there is nothing to read: checks the connection, and may
    /// close an idle one.
    fn idle(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Writes rows. What a call has done is visible to every read that starts after it returned.
pub(crate) trait Writer: Send {
    /// Stores at most [`GROUP_ROWS_MAX`] rows of different digests. On a fault, some may have been
    /// stored.
    fn put(&mut self, rows: &[Arc<Row>]) -> Result<Written, Fault>;
    /// Does a bounded part of these purges, in one transaction that is durable when this returns;
    /// to be called until there is no more. One that selects everything comes alone, and is whole
    /// after the first call, before which a crash leaves the rows as they were.
    fn purge(&mut self, purges: &[Purge], now: Wall) -> Result<Purged, Fault>;
    /// Removes a bounded number of the rows whose `keep_until` is not after `now`.
    fn sweep(&mut self, now: Wall) -> Result<Step, Fault>;
    /// Called several times a second: reclaims space, notices what happened outside.
    fn upkeep(&mut self) -> Result<Upkeep, Fault>;
    /// Writes so many bytes as a row that no look-up asks for, and removes it again: whether puts
    /// work. Called while they don't.
    fn probe(&mut self, bytes: usize) -> Result<(), Fault>;
    /// What is stored.
    fn usage(&mut self) -> Result<Usage, Fault>;
}

/// The outcome of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All rows are stored.
    All,
    /// None is: another instance purged meanwhile. [`Writer::upkeep`] tells what, and the rows
    /// that survive it may be put again.
    Behind,
}

/// The outcome of one bounded part of some purges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purged {
    /// Rows concerned by this part, of each purge that it came to.
    pub(crate) rows: Vec<u64>,
    /// Whether there is more to do.
    pub(crate) more: bool,
}

/// The outcome of one bounded part of a longer work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Rows concerned by this part.
    pub(crate) rows: u64,
    /// Whether there is more to do.
    pub(crate) more: bool,
}

impl Step {
    /// One step of the first of several works that has more to do.
    pub(crate) fn of_first<T>(
        works: &[T],
        mut step: impl FnMut(&T) -> Result<Self, Fault>,
    ) -> Result<Self, Fault> {
        let mut rows = 0;
        for work in works {
            let done = step(work)?;
            rows += done.rows;
            if done.more {
                return Ok(Self { rows, more: true });
            }
        }
        Ok(Self { rows, more: false })
    }
}

/// The outcome of upkeep.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Whether there is more to do at once.
    pub(crate) more: bool,
    /// Purges that other instances made since the last call.
    pub(crate) remote: Vec<Purge>,
}
