//! The SQLite backend: one file, one writing and one reading connection.
//!
//! What happens to the file, and what the store does. Whatever it is, no client's request fails of
//! it: look-ups miss, writes are dropped, both are counted. Each change of state is one line of the
//! log; `apiproxyd_store_up` and `/health` tell the state.
//!
//! | state of the file | behaviour | counted |
//! |---|---|---|
//! | absent | created, 0600, its folder 0700 | |
//! | of another format version | its tables are dropped and made anew | `emptied` |
//! | of the predecessor | moved aside to `.legacy-TIME`, a new one started | `moved_aside` |
//! | damaged, or no SQLite file | moved aside to `.damaged-TIME`, a new one | `moved_aside` |
//! | another program's database | untouched; unavailable (`foreign`) until it is gone | errors |
//! | folder or file not writable | unavailable (`io`) until it is | errors |
//! | held by another process | unavailable (`locked`) until that process ends | errors |
//! | locked by another program | writes unavailable (`locked`), look-ups go on | errors |
//! | removed or replaced while running | noticed within a second, opened again | `reopened` |
//! | disk full | writes unavailable (`disk_full`), look-ups go on | errors |
//! | disk full, or `io`, at a clear | removed, a new one started | `reopened` |
//!
//! Rows carry growing ids: the oldest row has the least. A clear is one durable change of the
//! `state` row (everything up to this id is gone); the space is reclaimed afterwards, step by step.

mod conn;
mod file;
mod purge;
mod reader;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::backend::{Backend, Reader, Writer};
use crate::store::fault::{Fault, Unavailable};
use crate::store::settings::Settings;
use crate::store::shared::Shared;
use crate::store::sqlite::reader::SqliteReader;
use crate::store::sqlite::writer::SqliteWriter;
use crate::store::stats::Op;

/// The backend. The writer owns the file: it creates, replaces and locks it.
pub(crate) struct Sqlite {
    place: Arc<Place>,
    /// Opened at start, so that a fault shows at once.
    first: Mutex<Option<SqliteWriter>>,
}

/// The file and what both connections must know of each other.
pub(crate) struct Place {
    path: PathBuf,
    max_disk_bytes: u64,
    pages_max: u32,
    shared: Arc<Shared>,
    /// Times that the writer opened a file here; zero: there is none yet. A reader of an earlier
    /// one must open again.
    generation: AtomicU64,
    /// The generation that somebody found damaged; zero: none. The writer replaces it. A reader
    /// that stumbles once more over a file that has been replaced does no harm.
    damaged: AtomicU64,
    /// Held as long as this process uses the file.
    lock: Mutex<Option<File>>,
}

impl Sqlite {
    /// Opens or creates the file. What is wrong with it is told and tried again, as later.
    pub(crate) fn open(settings: &Settings, shared: Arc<Shared>) -> Self {
        let place = Arc::new(Place {
            path: settings.path.clone(),
            max_disk_bytes: settings.max_disk_bytes,
            pages_max: settings.pages_max,
            shared,
            generation: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            lock: Mutex::new(None),
        });
        let first = SqliteWriter::open(&place);
        place.shared.stats.on_state(Op::Put, first.as_ref().err());
        Self { place, first: Mutex::new(first.ok()) }
    }
}

impl Backend for Sqlite {
    fn reader(&self, _index: usize) -> Result<Box<dyn Reader>, Fault> {
        Ok(Box::new(SqliteReader::open(&self.place)?))
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Fault> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(writer) => Ok(Box::new(writer)),
            None => Ok(Box::new(SqliteWriter::open(&self.place)?)),
        }
    }
}

impl Place {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers damage to the file of this generation, whoever found it.
    fn noting<T>(&self, generation: u64, result: Result<T, Fault>) -> Result<T, Fault> {
        if matches!(&result, Err(Fault { reason: Unavailable::Damaged, .. })) {
            self.damaged.store(generation, Ordering::Release);
        }
        result
    }

    /// Whether the present file was found damaged.
    fn is_damaged(&self) -> bool {
        let generation = self.generation();
        generation > 0 && self.damaged.load(Ordering::Acquire) == generation
    }
}
