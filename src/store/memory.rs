//! Rows in this process's memory: the reference backend. Its code is as plain as can be, since the
//! others are tested against it. Without a size limit; a purge or a sweep is one pass over all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::Wall;
use crate::store::backend::{Backend, Purged, Reader, Step, Upkeep, Writer, Written};
use crate::store::fault::Fault;
use crate::store::row::{Digest, Effect, Purge, Row};
use crate::store::stats::Usage;

/// A map behind a lock that only the storage thread and the writer take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    rows: Arc<Mutex<BTreeMap<Digest, Row>>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn reader(&self, _index: usize) -> Result<Box<dyn Reader>, Fault> {
        Ok(Box::new(self.clone()))
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Fault> {
        Ok(Box::new(self.clone()))
    }
}

impl Reader for Memory {
    fn read(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        let rows = self.lock();
        Ok(digests.iter().map(|digest| rows.get(digest).cloned()).collect())
    }
}

impl Writer for Memory {
    fn put(&mut self, rows: &[Arc<Row>]) -> Result<Written, Fault> {
        let mut stored = self.lock();
        for row in rows {
            stored.insert(row.digest, Row { expired_at: None, ..Row::clone(row) });
        }
        Ok(Written::All)
    }

    fn purge(&mut self, purges: &[Purge], now: Wall) -> Result<Purged, Fault> {
        let mut stored = self.lock();
        let mut done = Purged::default();
        for purge in purges {
            let mut rows = 0;
            stored.retain(|digest, row| {
                if !purge.selects(digest, &row.path) {
                    return true;
                }
                rows += 1;
                row.expired_at.get_or_insert(now);
                purge.effect == Effect::Expire
            });
            done.rows.push(rows);
        }
        Ok(done)
    }

    fn sweep(&mut self, now: Wall) -> Result<Step, Fault> {
        let mut stored = self.lock();
        let before = stored.len();
        stored.retain(|_, row| row.keep_until > now || row.keep_until == Wall::FOREVER);
        let rows = u64::try_from(before - stored.len()).unwrap_or(0);
        Ok(Step { rows, more: false })
    }

    fn upkeep(&mut self) -> Result<Upkeep, Fault> {
        Ok(Upkeep::default())
    }

    fn probe(&mut self, _bytes: usize) -> Result<(), Fault> {
        Ok(())
    }

    fn usage(&mut self) -> Result<Usage, Fault> {
        let stored = self.lock();
        let bytes = stored.values().map(Row::size_bytes).sum();
        Ok(Usage { rows: u64::try_from(stored.len()).unwrap_or(0), bytes })
    }
}
