//! Opening the store, its threads, and its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::store::backend::Backend;
use crate::store::client::Client;
use crate::store::fault::StartError;
use crate::store::memory::Memory;
use crate::store::postgres::Postgres;
use crate::store::reads::Reads;
use crate::store::settings::{self, Settings};
use crate::store::shared::{CONTROL_DEPTH, Command, Control, Epoch, OnRemotePurge, Shared};
use crate::store::sqlite::Sqlite;
use crate::store::stats::StoreStats;
use crate::store::storage::Storage;
use crate::store::watch::Watch;
use crate::store::writer::WriterThread;

/// The store as the process sees it. Cheap to clone, to be sent to every core's thread.
///
/// When the last handle and client are dropped the threads write what is queued and end.
#[derive(Clone)]
pub struct StoreHandle {
    inner: Arc<Inner>,
}

enum Inner {
    /// The backend `none`.
    Absent(Box<StoreStats>),
    Present(Ends),
}

/// The sending ends of the queues. The threads hold none, so that they notice the last drop.
pub(crate) struct Ends {
    pub(crate) shared: Arc<Shared>,
    pub(crate) data: Sender<Command>,
    pub(crate) control: Sender<Control>,
    /// Disconnected when all threads have ended.
    ended: Receiver<()>,
    /// Its end ends the watching thread.
    _held: Sender<()>,
}

impl Ends {
    /// For threads that hang, and will not do it themselves, and for orders that came too late.
    fn note_what_may_be_owed(&self) {
        if self.shared.purges.may_be_owed()
            && let Err(error) = self.shared.note.make(u64::MAX)
        {
            tracing::error!(%error, "purges that are owed can't be noted, and are lost");
        }
    }
}

/// How a shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Everything queued was written, or given up because the backend failed; the threads ended.
    Flushed,
    /// The deadline came first; the threads may still be at work.
    DeadlinePassed,
}

impl StoreHandle {
    /// Opens the store and starts its threads. A backend that is only away for now (database down,
    /// file locked, disk full) is no error: the store answers `Unavailable` and comes back.
    ///
    /// # Errors
    /// Faults of the configuration, see [`StartError`].
    pub fn open(settings: &Settings) -> Result<Self, StartError> {
        Self::open_with(settings, None)
    }

    /// As [`StoreHandle::open`], with a function to be told what other instances purge.
    ///
    /// # Errors
    /// As [`StoreHandle::open`].
    pub fn open_with(
        settings: &Settings,
        on_remote: Option<OnRemotePurge>,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(settings));
        let backend: Arc<dyn Backend> = match settings.backend {
            settings::Backend::None => {
                let inner = Arc::new(Inner::Absent(Box::new(StoreStats::new())));
                return Ok(Self { inner });
            }
            settings::Backend::Memory => Arc::new(Memory::default()),
            settings::Backend::Sqlite => Arc::new(Sqlite::open(settings, Arc::clone(&shared))),
            settings::Backend::Postgres => {
                let backend = Postgres::open(settings, Arc::clone(&shared))?;
                // With SQLite whoever opens the file looks.
                if shared.note.inherit() {
                    shared.lose_purge();
                }
                Arc::new(backend)
            }
        };
        Self::start(settings, shared, backend, on_remote)
    }

    pub(crate) fn start(
        settings: &Settings,
        shared: Arc<Shared>,
        backend: Arc<dyn Backend>,
        on_remote: Option<OnRemotePurge>,
    ) -> Result<Self, StartError> {
        // Puts have their own bound, in rows and bytes; both kinds must fit.
        let (data, data_end) = bounded(settings.queue_depth.max(1).saturating_mul(2));
        let (control, control_end) = bounded(CONTROL_DEPTH);
        // Bounded where they are admitted: puts by rows and bytes, orders by their own queue.
        let (ops, ops_end) = unbounded();
        let (alive, ended) = bounded::<()>(0);
        let writer =
            WriterThread::new(Arc::clone(&shared), ops_end, Arc::clone(&backend), on_remote);
        let reads = Reads::start(settings, &shared, &backend, &alive)?;
        // Only the threads may keep the backend: its end is the end of the last of them.
        drop(backend);
        let storage = Storage::new(Arc::clone(&shared), data_end, control_end, ops, reads);
        let also_alive = alive.clone();
        spawn("store-writer", move || {
            writer.run();
            drop(also_alive);
        })?;
        spawn("store", move || {
            storage.run();
            drop(alive);
        })?;
        let (held, handles) = bounded(0);
        let watch = Watch::new(&shared, handles);
        spawn("store-watch", move || watch.run())?;
        let ends = Ends { shared, data, control, ended, _held: held };
        Ok(Self { inner: Arc::new(Inner::Present(ends)) })
    }

    /// A core's client. To be called in that core's thread.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.clone())
    }

    /// Where the store is in the sequence of clears; see [`Client::put`].
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.ends().map_or(Epoch(0), |it| it.shared.epoch())
    }

    /// Counters and state.
    #[must_use]
    pub fn stats(&self) -> &StoreStats {
        match &*self.inner {
            Inner::Absent(stats) => stats,
            Inner::Present(ends) => &ends.shared.stats,
        }
    }

    /// Commands that wait for the storage thread, at this moment.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.ends().map_or(0, |it| it.data.len() + it.control.len())
    }

    /// Refuses new commands, writes what is queued, ends the threads. Blocks until then or for
    /// `deadline`; a second call waits again. Look-ups that are queued are answered.
    #[must_use]
    pub fn shutdown(&self, deadline: Duration) -> Shutdown {
        let Some(ends) = self.ends() else { return Shutdown::Flushed };
        let until = Instant::now() + deadline;
        ends.shared.closed.store(true, Ordering::Release);
        // An error means that the thread has ended already, which is what we want.
        drop(ends.control.send_deadline(Control::Stop, until));
        let ended = match ends.ended.recv_deadline(until) {
            Err(RecvTimeoutError::Disconnected) | Ok(()) => Shutdown::Flushed,
            Err(RecvTimeoutError::Timeout) => Shutdown::DeadlinePassed,
        };
        ends.note_what_may_be_owed();
        ended
    }

    pub(crate) fn ends(&self) -> Option<&Ends> {
        match &*self.inner {
            Inner::Absent(_) => None,
            Inner::Present(ends) => Some(ends),
        }
    }
}

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle").field("present", &self.ends().is_some()).finish()
    }
}

pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(|_| ()).map_err(|err| StartError::Thread { detail: err.to_string() })
}

#[cfg(test)]
mod tests;
