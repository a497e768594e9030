//! What handles, clients and the storage threads share, and the commands between them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossbeam::queue::SegQueue;

use crate::base::Wall;
use crate::store::fault::Dropped;
use crate::store::mailbox::{Mailbox, Reply};
use crate::store::note::Note;
use crate::store::progress::Progress;
use crate::store::row::{Digest, Purge, Row};
use crate::store::settings::{Backend, Settings};
use crate::store::stats::StoreStats;

/// A point in the sequence of clears. A row fetched before a clear and put after it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub(crate) u64);

/// Look-ups and puts: many, and shed when the queue is full.
#[derive(Debug)]
pub(crate) enum Command {
    Get { digest: Digest, reply: Reply },
    Put { row: Arc<Row>, epoch: Epoch, ticket: Ticket },
}

/// Orders of operators and the janitor: few, in a queue of their own that traffic can't fill.
///
/// The storage thread takes what is in the data queue before each of them, so that a purge never
/// overtakes a put that was sent before it.
#[derive(Debug)]
pub(crate) enum Control {
    Purge { purge: Purge, reply: Reply },
    Sweep { now: Wall, reply: Reply },
    Usage { reply: Reply },
    Flush { reply: Reply },
    Stop,
}

/// Orders that may wait.
pub(crate) const CONTROL_DEPTH: usize = 256;

/// Called in the writer thread for each purge that another instance made, before any row that was
/// put after it is written.
pub type OnRemotePurge = Box<dyn Fn(&Purge) + Send>;

/// One store's common state.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stats: StoreStats,
    pub(crate) queue_depth: u64,
    pub(crate) queue_bytes_max: u64,
    /// Clears so far.
    pub(crate) epoch: AtomicU64,
    pub(crate) closed: AtomicBool,
    /// Sequence number of the last operation handed to the writer.
    pub(crate) issued: AtomicU64,
    /// Up to this number puts are finished: written or given up.
    pub(crate) puts_finished: AtomicU64,
    pub(crate) purges: Progress,
    /// That purges are owed, for the process after this one.
    pub(crate) note: Note,
    /// One for each core.
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
    /// Purges of other instances, for the storage thread, with the last number issued before.
    pub(crate) remote: SegQueue<(u64, Purge)>,
}

impl Shared {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            stats: StoreStats::new(),
            queue_depth: u64::try_from(settings.queue_depth).unwrap_or(u64::MAX),
            queue_bytes_max: settings.queue_bytes_max,
            epoch: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            issued: AtomicU64::new(0),
            puts_finished: AtomicU64::new(0),
            purges: Progress::default(),
            note: note_of(settings),
            mailboxes: Mutex::default(),
            remote: SegQueue::new(),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Notes a purge that could not be queued: too much is forgotten in its place, not too little.
    pub(crate) fn lose_purge(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.purges.lose();
    }

    /// Another core that waits for look-ups.
    pub(crate) fn enrol(&self, mailbox: &Arc<Mailbox>) {
        let mut all = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.strong_count() > 0);
        all.push(Arc::downgrade(mailbox));
    }

    /// Wakes the cores whose look-ups wait, to give up what is late.
    pub(crate) fn wake_waiting(&self) {
        let all = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        for mailbox in all.iter().filter_map(Weak::upgrade) {
            if mailbox.is_awaited() {
                mailbox.wake();
            }
        }
    }

    /// Admits a row to the write queue, or says why not.
    pub(crate) fn admit(self: &Arc<Self>, row: &Row) -> Result<Ticket, Dropped> {
        if self.closed() {
            return Err(Dropped::Closed);
        }
        let bytes = row.size_bytes();
        let ticket = Ticket { shared: Arc::clone(self), bytes };
        let rows_before = self.stats.put_queue_rows.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.stats.put_queue_bytes.fetch_add(bytes, Ordering::Relaxed);
        // A row larger than the whole allowance still passes while nothing else waits.
        let too_many = rows_before >= self.queue_depth;
        let too_large = bytes_before > 0 && bytes_before + bytes > self.queue_bytes_max;
        if too_many || too_large { Err(Dropped::QueueFull) } else { Ok(ticket) }
    }
}

/// With PostgreSQL nothing is kept on this machine, but the folder may be there all the same.
fn note_of(settings: &Settings) -> Note {
    let path = &settings.path;
    let there = path.parent().is_some_and(|it| it.is_dir());
    match settings.backend {
        Backend::Sqlite if path.file_name().is_some() => Note::beside(path),
        Backend::Postgres if there => Note::beside(path),
        _ => Note::default(),
    }
}

/// A row's place in the write queue, given back when dropped: by the writer, when the row is
/// written or given up.
#[derive(Debug)]
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.stats.put_queue_rows.fetch_sub(1, Ordering::Relaxed);
        self.shared.stats.put_queue_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the storage thread hands to the writer, in order. The channel has no bound of its own: puts
/// are bounded by their tickets, orders by the slots of the clients that wait for their answers.
#[derive(Debug)]
pub(crate) enum WriteOp {
    Put { row: Arc<Row>, epoch: Epoch, seq: u64, ticket: Ticket },
    Purge { purge: Purge, seq: u64, reply: Reply },
    Sweep { now: Wall, reply: Reply },
    Usage { reply: Reply },
    Flush { reply: Reply },
}
