//! Connections of one core to one origin, and the bounds that hold for the process.
//!
//! A permit counts a connection from before it is dialled until it is closed, idle time included.
//! Idle connections belong to their core, which uses the latest first. A request that finds neither
//! an idle connection nor a free permit joins a process-wide queue:
//!
//! ```text
//!  a connection comes back on core A --> the first waiter of A takes it
//!                                    \-> nobody of A waits, or another core's has for too long:
//!                                        closed; its permit wakes the first waiter
//!  a connection is closed            --> its permit wakes the first waiter
//!  a request waits, others idle      --> their cores are asked to close one
//! ```
//!
//! The bounds on idle connections hold for those that nobody has used for half a second: between
//! two requests of a busy moment a connection is not idle, and to close it would be to dial it
//! again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::Mono;
use crate::net::{Peek, clock, ticks};
use crate::proxy::error::Fault;
use crate::proxy::origin::http1::{Http1, Line};
use crate::proxy::origin::opening::Opening;

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

/// One connection's place under the bound; given back when dropped.
pub struct Permit {
    permits: Arc<Permits>,
}

/// The idle connections of one core to one origin.
pub struct Pool {
    core: usize,
    permits: Arc<Permits>,
    idle: RefCell<VecDeque<Idle>>,
    /// In ticks.
    idle_max: u64,
    /// Where the upstream may speak HTTP/2, what is known of that.
    opening: Option<Opening>,
}

struct Idle {
    line: Rc<Line>,
    permit: Permit,
    /// The core's tick when its last exchange ended.
    since: u64,
}

/// Which idle connections will do for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Any: should the origin have closed it meanwhile, the request goes out once more.
    Any,
    /// One that was in use a moment ago: the request can't be repeated, and no origin closes a
    /// connection so soon without having said so.
    Recent,
    /// None: the last one failed.
    Never,
}

/// What a request goes out on.
pub enum Place {
    /// A connection that is there already.
    Kept(Http1),
    /// A new one may be dialled.
    New(Permit),
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

    fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < self.max).then_some(open + 1)
        });
        taken.ok().map(|_| Permit { permits: Arc::clone(self) })
    }

    fn on_idle(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
        self.idle_everywhere.idle.fetch_add(1, Ordering::Relaxed);
    }

    fn on_used(&self) {
        self.idle.fetch_sub(1, Ordering::Relaxed);
        self.idle_everywhere.idle.fetch_sub(1, Ordering::Relaxed);
    }

    fn has_too_many_idle(&self) -> bool {
        let everywhere = &self.idle_everywhere;
        self.idle() > self.idle_max || everywhere.idle.load(Ordering::Relaxed) > everywhere.max
    }

    /// Puts a waiter into the queue, or renews its waker; `false` when the queue is full.
    fn enqueue(&self, ticket: u64, core: usize, waker: &Waker) -> bool {
        let mut waiting = self.lock();
        if let Some(known) = waiting.iter_mut().find(|it| it.ticket == ticket) {
            known.waker.clone_from(waker);
            return true;
        }
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        waiting.push_back(Waiter { ticket, core, since: clock::mono(), waker: waker.clone() });
        self.waiters.store(waiting.len(), Ordering::Release);
        true
    }

    fn dequeue(&self, ticket: u64) {
        let mut waiting = self.lock();
        waiting.retain(|it| it.ticket != ticket);
        self.waiters.store(waiting.len(), Ordering::Release);
    }

    fn wake_first(&self) {
        if self.waiting() == 0 {
            return;
        }
        let first = self.lock().front().map(|it| it.waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }

    /// For whom a connection is that came back on `core`.
    fn next(&self, core: usize) -> Next {
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

enum Next {
    Nobody,
    Own(Waker),
    Other,
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

impl Pool {
    /// An empty pool of core number `core`; with `opening` the upstream is asked for HTTP/2.
    #[must_use]
    pub fn new(
        core: usize,
        permits: Arc<Permits>,
        idle_timeout: Duration,
        opening: Option<Opening>,
    ) -> Self {
        Self { core, permits, idle: RefCell::default(), idle_max: ticks::of(idle_timeout), opening }
    }

    /// What is known of the upstream's protocol; `None` where it is HTTP/1.1 in any case.
    #[must_use]
    pub const fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// The bounds it keeps to.
    #[must_use]
    pub const fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    /// Idle connections of this core.
    #[must_use]
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Whether none is idle here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What can be had at once; nothing while others wait.
    #[must_use]
    pub fn try_acquire(&self, reuse: Reuse) -> Option<Place> {
        if self.permits.waiting() > 0 {
            return None;
        }
        self.free(reuse)
    }

    /// Waits in the queue. The caller bounds the time.
    ///
    /// # Errors
    /// [`Fault::Busy`] when `WAITING_MAX` wait already.
    pub async fn acquire(&self, reuse: Reuse) -> Result<Place, Fault> {
        let number = self.permits.next_ticket.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { pool: self, number };
        poll_fn(|cx| {
            if let Some(place) = self.free(reuse) {
                return Poll::Ready(Ok(place));
            }
            if !self.permits.enqueue(ticket.number, self.core, cx.waker()) {
                return Poll::Ready(Err(Fault::Busy));
            }
            // Something may have come back between the look and the queue.
            match self.free(reuse) {
                Some(place) => Poll::Ready(Ok(place)),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn free(&self, reuse: Reuse) -> Option<Place> {
        if let Some(kept) = self.take_idle(reuse) {
            return Some(Place::Kept(kept));
        }
        if let Some(permit) = self.permits.try_take() {
            return Some(Place::New(permit));
        }
        // Idle ones that won't do hold the places that a new one needs.
        drop(self.take_oldest()?);
        self.permits.try_take().map(Place::New)
    }

    /// An idle connection that is still open and silent, the most recently used first.
    fn take_idle(&self, reuse: Reuse) -> Option<Http1> {
        let idle_max = match reuse {
            Reuse::Any => self.idle_max,
            Reuse::Recent => self.idle_max.min(RECENT_TICKS),
            Reuse::Never => return None,
        };
        loop {
            let newest = self.idle.borrow_mut().pop_back()?;
            let span = ticks::now() - newest.since;
            if span >= idle_max && reuse == Reuse::Recent {
                self.idle.borrow_mut().push_back(newest);
                return None;
            }
            self.permits.on_used();
            if span < idle_max && newest.line.peek_state() == Peek::Nothing {
                return Some(Http1::kept(newest.line, newest.permit));
            }
        }
    }

    fn take_oldest(&self) -> Option<Idle> {
        let oldest = self.idle.borrow_mut().pop_front()?;
        self.permits.on_used();
        Some(oldest)
    }

    /// Takes back a connection whose exchange is over.
    pub(super) fn put(&self, line: Rc<Line>, permit: Permit) {
        let next = self.permits.next(self.core);
        if let Next::Other = next {
            return;
        }
        self.permits.on_idle();
        self.idle.borrow_mut().push_back(Idle { line, permit, since: ticks::now() });
        if let Next::Own(waker) = next {
            waker.wake();
        }
    }

    /// Closes an idle connection where a request of another core waits for its place.
    pub fn yield_idle(&self) {
        if self.permits.waiting() > 0 {
            drop(self.take_oldest());
        }
    }

    /// Closes what has been idle too long, what the origin closed, what leads to an address that
    /// `is_current` says the origin has left, and what is too many.
    pub fn sweep(&self, is_current: impl Fn(std::net::IpAddr) -> bool) {
        let all = self.idle.take();
        let mut kept = VecDeque::with_capacity(all.len());
        // The oldest first.
        for idle in all {
            let span = ticks::now() - idle.since;
            let expired = span >= self.idle_max;
            let surplus = span >= GRACE_TICKS && self.permits.has_too_many_idle();
            let moved = || !is_current(idle.line.peer_addr().ip());
            if expired || surplus || moved() || idle.line.peek_state() != Peek::Nothing {
                self.permits.on_used();
            } else {
                kept.push_back(idle);
            }
        }
        self.idle.replace(kept);
        if let Some(opening) = &self.opening {
            opening.sweep(|it| it.idle_ticks() < self.idle_max && is_current(it.peer()));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        while self.take_oldest().is_some() {}
    }
}

/// A place in the queue; leaves it when dropped, and passes on what it was woken for.
struct Ticket<'a> {
    pool: &'a Pool,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let permits = &self.pool.permits;
        permits.dequeue(self.number);
        if permits.waiting() == 0 {
            return;
        }
        if permits.open() < permits.max {
            permits.wake_first();
        } else if !self.pool.is_empty()
            && let Next::Own(waker) = permits.next(self.pool.core)
        {
            waker.wake();
        }
    }
}

/// Requests that may wait for a connection to one origin.
const WAITING_MAX: usize = 4096;
/// How long a request of another core waits before a connection that comes back here is closed for
/// it, although one of this core could use it as it is.
const OTHERS_PATIENCE: Duration = Duration::from_millis(50);
/// A connection counts as idle when it has not been used for that long: half a second.
const GRACE_TICKS: u64 = 2;
/// Three quarters of a second at most: less than any origin's own limit, which is whole seconds.
const RECENT_TICKS: u64 = 3;

#[cfg(test)]
mod tests;
