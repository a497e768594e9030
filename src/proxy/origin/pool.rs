//! Connections of one core to one origin, and the permits that bound them for the process.
//!
//! A permit counts a connection from before it is dialled until it is closed, idle time included.
//! Idle connections belong to their core. When no permit is free, the core asks the others to
//! close one idle connection (the waiting list is process-wide) and sleeps until a permit comes
//! back, on any core.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::Mono;
use crate::net::{Peek, Stream, clock};
use crate::proxy::error::Fault;
use crate::proxy::origin::Connection;

/// The process-wide bound on connections to one origin.
pub struct Permits {
    max: usize,
    idle_max: usize,
    open: AtomicUsize,
    idle: AtomicUsize,
    /// Bytes of bodies read on all its connections so far.
    received_bytes: AtomicU64,
    waiting: Mutex<VecDeque<(u64, Waker)>>,
    next_ticket: AtomicU64,
}

/// One connection's place under the bound; given back when dropped.
pub struct Permit {
    permits: Arc<Permits>,
}

/// The idle connections of one core to one origin.
pub struct Pool {
    permits: Arc<Permits>,
    idle: RefCell<VecDeque<Idle>>,
    idle_timeout: Duration,
}

struct Idle {
    stream: Stream,
    permit: Permit,
    since: Mono,
}

impl Permits {
    /// At most `max` connections, of which at most `idle_max` idle.
    #[must_use]
    pub fn new(max: usize, idle_max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: max.max(1),
            idle_max,
            open: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            received_bytes: AtomicU64::new(0),
            waiting: Mutex::new(VecDeque::new()),
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

    /// Requests that wait for a connection now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Whether an idle connection should be closed, since somebody waits for its place.
    fn is_wanted(&self) -> bool {
        !self.lock().is_empty()
    }

    fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < self.max).then_some(open + 1)
        });
        taken.ok().map(|_| Permit { permits: Arc::clone(self) })
    }

    /// Waits for a place. The caller bounds the time.
    ///
    /// # Errors
    /// [`Fault::Busy`] when [`WAITING_MAX`] wait already.
    async fn take(self: &Arc<Self>) -> Result<Permit, Fault> {
        if let Some(permit) = self.try_take() {
            return Ok(permit);
        }
        let ticket =
            Ticket { permits: self, number: self.next_ticket.fetch_add(1, Ordering::Relaxed) };
        poll_fn(|cx| {
            let mut waiting = self.lock();
            let full = waiting.len() >= WAITING_MAX;
            if let Some(permit) = self.try_take() {
                return Poll::Ready(Ok(permit));
            }
            let known = waiting.iter_mut().find(|(number, _)| *number == ticket.number);
            match known {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None if full => return Poll::Ready(Err(Fault::Busy)),
                None => waiting.push_back((ticket.number, cx.waker().clone())),
            }
            Poll::Pending
        })
        .await
    }

    fn wake_one(&self) {
        let first = self.lock().front().map(|(_, waker)| waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the waiting list; leaves it when dropped, and passes a wake-up on.
struct Ticket<'a> {
    permits: &'a Arc<Permits>,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.permits.lock().retain(|(number, _)| *number != self.number);
        if self.permits.open.load(Ordering::Acquire) < self.permits.max {
            self.permits.wake_one();
        }
    }
}

impl Permit {
    /// Counts bytes of a body read on this connection.
    pub(super) fn note_received(&self, bytes: u64) {
        self.permits.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.permits.open.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0);
        self.permits.wake_one();
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(permits: Arc<Permits>, idle_timeout: Duration) -> Self {
        Self { permits, idle: RefCell::default(), idle_timeout }
    }

    /// An idle connection that is still open and silent, the most recently used first.
    pub fn take_idle(&self) -> Option<Connection> {
        loop {
            let idle = self.idle.borrow_mut().pop_back()?;
            self.permits.idle.fetch_sub(1, Ordering::Relaxed);
            let fresh = clock::mono().since(idle.since) < self.idle_timeout;
            if fresh && idle.stream.peek_state() == Peek::Nothing {
                return Some(Connection::new(idle.stream, idle.permit, true));
            }
        }
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

    /// A place for a new connection, waited for if need be.
    ///
    /// # Errors
    /// [`Fault::Busy`] when too many wait already.
    pub async fn permit(&self) -> Result<Permit, Fault> {
        self.permits.take().await
    }

    /// Closes an idle connection where no new one could be opened otherwise.
    pub fn make_room(&self) {
        if self.permits.open() >= self.permits.max() && self.idle.borrow_mut().pop_front().is_some()
        {
            self.permits.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes a dialled connection into service.
    #[must_use]
    pub fn adopt(&self, stream: Stream, permit: Permit) -> Connection {
        Connection::new(stream, permit, false)
    }

    /// Keeps a connection for the next exchange, or closes it when there are enough or somebody
    /// on another core waits for its place.
    pub(super) fn put(&self, stream: Stream, permit: Permit) {
        let enough = self.permits.idle() >= self.permits.idle_max;
        if enough || self.permits.is_wanted() {
            return;
        }
        self.permits.idle.fetch_add(1, Ordering::Relaxed);
        self.idle.borrow_mut().push_back(Idle { stream, permit, since: clock::mono() });
    }

    /// Closes what has been idle too long, was closed by the origin, or is wanted elsewhere.
    pub fn sweep(&self, now: Mono) {
        let mut wanted = self.permits.waiting();
        let mut closed = Vec::new();
        let mut kept = VecDeque::new();
        for idle in self.idle.take() {
            let old = now.since(idle.since) >= self.idle_timeout;
            if old || wanted > 0 || idle.stream.peek_state() != Peek::Nothing {
                wanted = wanted.saturating_sub(1);
                closed.push(idle);
            } else {
                kept.push_back(idle);
            }
        }
        self.permits.idle.fetch_sub(closed.len(), Ordering::Relaxed);
        self.idle.replace(kept);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.permits.idle.fetch_sub(self.idle.borrow().len(), Ordering::Relaxed);
    }
}

/// Requests that may wait for a connection to one origin.
const WAITING_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn now<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_returned_permit_goes_to_the_one_who_waits() {
        let permits = Permits::new(1, 1);
        let first = permits.try_take().unwrap();
        let mut second = pin!(permits.take());
        assert!(now(&mut second).is_none());
        assert_eq!(permits.waiting(), 1);
        drop(first);
        assert!(matches!(now(&mut second), Some(Ok(_))));
    }

    #[test]
    fn a_waiter_that_leaves_takes_its_place_in_the_queue_along() {
        let permits = Permits::new(1, 1);
        let first = permits.try_take().unwrap();
        {
            let mut second = pin!(permits.take());
            assert!(now(&mut second).is_none());
        }
        assert_eq!(permits.waiting(), 0);
        drop(first);
        assert_eq!(permits.open(), 0);
    }
}
