//! One connection for reading and writing, where no more than one may be open.
//!
//! The writer owns it, and the reader borrows it between two of the writer's calls: a look-up waits
//! for a group that is being written, or for its own limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::Wall;
use crate::store::backend::{Purged, Reader, Step, Upkeep, Writer, Written};
use crate::store::fault::{Fault, Unavailable};
use crate::store::postgres::conn::Link;
use crate::store::postgres::reader::in_batches;
use crate::store::postgres::writer::{Known, PgWriter};
use crate::store::row::{Digest, Purge, Row};
use crate::store::shared::Shared;
use crate::store::stats::Usage;

/// The connection, while it is open.
#[derive(Default)]
pub(super) struct Single(Mutex<Option<PgWriter>>);

impl Single {
    fn lock(&self) -> MutexGuard<'_, Option<PgWriter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that owns it.
pub(super) struct SingleWriter(Arc<Single>);

impl SingleWriter {
    pub(super) fn open(
        single: &Arc<Single>,
        link: &Arc<Link>,
        known: &Arc<Mutex<Known>>,
    ) -> Result<Self, Fault> {
        let writer = PgWriter::open(link, known)?;
        *single.lock() = Some(writer);
        Ok(Self(Arc::clone(single)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut PgWriter) -> Result<T, Fault>) -> Result<T, Fault> {
        let closed = || Fault::new(Unavailable::Bug, "a connection that is not there");
        f(self.0.lock().as_mut().ok_or_else(closed)?)
    }
}

impl Drop for SingleWriter {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Writer for SingleWriter {
    fn put(&mut self, rows: &[Arc<Row>]) -> Result<Written, Fault> {
        self.with(|it| it.put(rows))
    }

    fn purge(&mut self, purges: &[Purge], now: Wall) -> Result<Purged, Fault> {
        self.with(|it| it.purge(purges, now))
    }

    fn sweep(&mut self, now: Wall) -> Result<Step, Fault> {
        self.with(|it| it.sweep(now))
    }

    fn upkeep(&mut self) -> Result<Upkeep, Fault> {
        self.with(Writer::upkeep)
    }

    fn probe(&mut self, bytes: usize) -> Result<(), Fault> {
        self.with(|it| it.probe(bytes))
    }

    fn usage(&mut self) -> Result<Usage, Fault> {
        self.with(Writer::usage)
    }
}

/// The side that borrows it.
pub(super) struct SingleReader {
    single: Arc<Single>,
    shared: Arc<Shared>,
}

impl SingleReader {
    pub(super) fn new(single: &Arc<Single>, link: &Link) -> Self {
        Self { single: Arc::clone(single), shared: Arc::clone(&link.shared) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut PgWriter) -> Result<T, Fault>) -> Result<T, Fault> {
        let closed = || {
            // The writer knows why.
            let reason = self.shared.stats.writes_unavailable().unwrap_or(Unavailable::Starting);
            Fault::new(reason, "the connection is not open yet")
        };
        f(self.single.lock().as_mut().ok_or_else(closed)?)
    }
}

impl Reader for SingleReader {
    fn read(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        self.with(|it| in_batches(digests, |digests, bytes| it.find(digests, bytes)))
    }

    fn idle(&mut self) -> Result<(), Fault> {
        self.with(|_| Ok(()))
    }
}
