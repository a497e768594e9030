//! The bounds on connections to one origin that hold for the process, and the queue of those who
//! wait for one.
//!
//! A permit counts a connection from before it is dialled until it is closed, idle time included.
//! The queue is one for all cores and nobody overtakes: a place that is free goes to the first of
//! all, an idle connection to the first of its core. Each is woken when it may be its turn, looks,
//! and passes on what it was woken for when it leaves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::base::Mono;
use crate::net::clock;

/// The process-wide bounds on connections to one origin.
pub struct Permits {
    max: usize,
    idle_max: usize,
    open: AtomicUsize,
    idle: AtomicUsize,
    /// Bytes of bodies read on all its connections so far.
    received_bytes: AtomicU64,
    idle_everywhere: Arc<IdleEverywhere>,
    waiting: Mutex<VecDeque<Waiter>>,
    /// The length of `waiting`, to be looked at without its lock.
    waiters: AtomicUsize,
    next_ticket: AtomicU64,
    /// The other cores have been asked to let go of what they don't use, and have not looked yet.
    is_asked_for: AtomicBool,
}

/// Idle connections to all origins together.
pub struct IdleEverywhere {
    max: usize,
    idle: AtomicUsize,
}

/// A request in the queue.
struct Waiter {
    ticket: u64,
    core: usize,
    since: Mono,
    waker: Waker,
}

/// Where a request stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Before all others: what is free is its.
    First,
    /// Before all others of its core: what that core has idle is its.
    FirstOfCore,
    /// Behind another one of its core.
    Behind,
    /// Too many wait; it does not.
    Refused,
}

/// For whom a connection is that comes back.
pub(super) enum Next {
    /// Nobody waits.
    Nobody,
    /// The first of its core.
    Own(Waker),
    /// Another core, which can only use its place.
    Other,
}

/// One connection's place under the bound; given back when dropped.
pub struct Permit {
    permits: Arc<Permits>,
}

impl IdleEverywhere {
    /// At most so many.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, idle: AtomicUsize::new(0) })
    }
}

impl Permits {
    /// At most `max` connections, of which at most `idle_max` idle.
    #[must_use]
    pub fn new(max: usize, idle_max: usize, idle_everywhere: Arc<IdleEverywhere>) -> Arc<Self> {
        Arc::new(Self {
            max: max.max(1),
            idle_max,
            open: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            received_bytes: AtomicU64::new(0),
            idle_everywhere,
            waiting: Mutex::new(VecDeque::new()),
            waiters: AtomicUsize::new(0),
            next_ticket: AtomicU64::new(0),
            is_asked_for: AtomicBool::new(false),
        })
    }

    /// The bound.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections idle now.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Bytes of bodies read on all its connections so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes of a body.
    pub(super) fn note_received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Requests that wait for a connection now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.load(Ordering::Acquire)
    }

    pub(super) fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < self.max).then_some(open + 1)
        });
        taken.ok().map(|_| Permit { permits: Arc::clone(self) })
    }

    /// A connection is idle from now on.
    pub(super) fn on_idle(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
        self.idle_everywhere.idle.fetch_add(1, Ordering::Relaxed);
    }

    /// One that was idle is not any more, or is closed.
    pub(super) fn on_used(&self) {
        self.idle.fetch_sub(1, Ordering::Relaxed);
        self.idle_everywhere.idle.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn has_too_many_idle(&self) -> bool {
        let everywhere = &self.idle_everywhere;
        self.idle() > self.idle_max || everywhere.idle.load(Ordering::Relaxed) > everywhere.max
    }

    /// Whether the other cores are to be asked now for what they don't use: once for all who wait.
    pub(super) fn ask(&self) -> bool {
        !self.is_asked_for.swap(true, Ordering::AcqRel)
    }

    /// A core is about to look what it can let go of.
    pub(super) fn note_asked(&self) {
        self.is_asked_for.store(false, Ordering::Release);
    }

    /// A number for a place in the queue.
    pub(super) fn ticket(&self) -> u64 {
        self.next_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a request into the queue, or renews its waker; says where it stands.
    pub(super) fn enqueue(&self, ticket: u64, core: usize, waker: &Waker) -> Standing {
        let mut waiting = self.lock();
        let first_of_core = waiting.iter().find(|it| it.core == core).map(|it| it.ticket);
        if let Some(known) = waiting.iter_mut().find(|it| it.ticket == ticket) {
            known.waker.clone_from(waker);
        } else if waiting.len() < WAITING_MAX {
            let waker = waker.clone();
            waiting.push_back(Waiter { ticket, core, since: clock::mono(), waker });
            self.waiters.store(waiting.len(), Ordering::Release);
        } else {
            return Standing::Refused;
        }
        if waiting.front().is_some_and(|first| first.ticket == ticket) {
            Standing::First
        } else if first_of_core.is_none_or(|first| first == ticket) {
            Standing::FirstOfCore
        } else {
            Standing::Behind
        }
    }

    pub(super) fn dequeue(&self, ticket: u64) {
        let mut waiting = self.lock();
        waiting.retain(|it| it.ticket != ticket);
        self.waiters.store(waiting.len(), Ordering::Release);
    }

    pub(super) fn wake_first(&self) {
        if self.waiting() == 0 {
            return;
        }
        let first = self.lock().front().map(|it| it.waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }

    /// For whom a connection is that came back on `core`.
    pub(super) fn next(&self, core: usize) -> Next {
        if self.waiting() == 0 {
            return Next::Nobody;
        }
        let waiting = self.lock();
        let Some(first) = waiting.front() else { return Next::Nobody };
        let late = clock::mono().since(first.since) > OTHERS_PATIENCE;
        let own = waiting.iter().find(|it| it.core == core);
        match own {
            Some(own) if own.ticket == first.ticket || !late => Next::Own(own.waker.clone()),
            _ => Next::Other,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The bounds it counts under.
    pub(super) const fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.permits.open.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0);
        self.permits.wake_first();
    }
}

/// Requests that may wait for a connection to one origin.
pub(super) const WAITING_MAX: usize = 4096;
/// How long a request of another core waits before a connection that comes back here is closed for
/// it, although one of this core could use it as it is.
const OTHERS_PATIENCE: Duration = Duration::from_millis(50);
