//! The connections of one core to one origin: those that are idle, and the shared one of HTTP/2.
//!
//! A core uses its latest idle connection first. A request that finds neither one nor a free place
//! waits in the queue of [`Permits`]:
//!
//! ```text
//!  a connection comes back on core A --> the first waiter of A takes it
//!                                    \-> nobody of A waits, or another core's has for too long:
//!                                        closed; its permit wakes the first waiter
//!  a connection is closed            --> its permit wakes the first waiter
//!  a request waits, others idle      --> their cores are asked to close some
//! ```
//!
//! The bounds on idle connections hold for those that nobody has used for half a second: between
//! two requests of a busy moment a connection is not idle, and to close it would be to dial it
//! again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::net::{Peek, ticks};
use crate::proxy::error::Fault;
use crate::proxy::origin::http1::{Http1, Line};
use crate::proxy::origin::opening::Opening;
use crate::proxy::origin::permits::{Next, Permit, Permits, Standing};

/// The connections of one core to one origin.
pub struct Pool {
    core: usize,
    permits: Arc<Permits>,
    idle: RefCell<VecDeque<Idle>>,
    /// In ticks.
    idle_max: u64,
    /// Where the upstream may speak HTTP/2, what is known of that.
    opening: Option<Opening>,
    /// Where the origin is, as last heard; `None` where that is not asked for or not known. A
    /// connection that leads elsewhere is not kept.
    addresses: RefCell<Option<Arc<[IpAddr]>>>,
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

impl Pool {
    /// An empty pool of core number `core`; with `opening` the upstream is asked for HTTP/2.
    #[must_use]
    pub fn new(
        core: usize,
        permits: Arc<Permits>,
        idle_timeout: Duration,
        opening: Option<Opening>,
    ) -> Self {
        let (idle, addresses) = (RefCell::default(), RefCell::default());
        Self { core, permits, idle, idle_max: ticks::of(idle_timeout), opening, addresses }
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

    /// Idle connections of this core, the shared one left out.
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

    /// Waits in the queue. The caller bounds the time. `ask` is called where other cores may have
    /// what they don't use, and have not been asked for it yet.
    ///
    /// # Errors
    /// [`Fault::Busy`] when too many wait already.
    pub async fn acquire(&self, reuse: Reuse, ask: impl Fn()) -> Result<Place, Fault> {
        let permits = &self.permits;
        let ticket = Ticket { pool: self, number: permits.ticket() };
        poll_fn(|cx| {
            // First into the queue, then a look: whatever comes back after that wakes it.
            let place = match permits.enqueue(ticket.number, self.core, cx.waker()) {
                Standing::Refused => return Poll::Ready(Err(Fault::Busy)),
                Standing::First => self.free(reuse),
                Standing::FirstOfCore => self.take_idle(reuse).map(Place::Kept),
                Standing::Behind => None,
            };
            if place.is_none() && permits.idle() > 0 && permits.ask() {
                ask();
            }
            place.map_or(Poll::Pending, |place| Poll::Ready(Ok(place)))
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
        if matches!(next, Next::Other) || self.is_elsewhere(line.peer_addr().ip()) {
            return;
        }
        self.permits.on_idle();
        self.idle.borrow_mut().push_back(Idle { line, permit, since: ticks::now() });
        if let Next::Own(waker) = next {
            waker.wake();
        }
    }

    /// Lets go of what requests of other cores wait for: idle connections, else the shared one,
    /// once it has been of use for a moment.
    pub fn yield_idle(&self) {
        self.permits.note_asked();
        let waiting = self.permits.waiting();
        let closed = (0..waiting).map_while(|_| self.take_oldest()).count();
        if closed < waiting
            && let Some(opening) = &self.opening
        {
            opening.let_go(|it| it.is_idle() || it.age_ticks() >= GRACE_TICKS);
        }
    }

    /// Closes what has been idle too long, what the origin closed, what leads to an address that
    /// the origin has left, and what is too many. `addresses` are the origin's; `None` where they
    /// are not known for now, so that what was known before holds.
    pub fn sweep(&self, addresses: Option<Arc<[IpAddr]>>) {
        if addresses.is_some() {
            self.addresses.replace(addresses);
        }
        let all = self.idle.take();
        let mut kept = VecDeque::with_capacity(all.len());
        // The oldest first.
        for idle in all {
            let span = ticks::now() - idle.since;
            let elsewhere = self.is_elsewhere(idle.line.peer_addr().ip());
            if self.is_too_long(span) || elsewhere || idle.line.peek_state() != Peek::Nothing {
                self.permits.on_used();
            } else {
                kept.push_back(idle);
            }
        }
        self.idle.replace(kept);
        if let Some(opening) = &self.opening {
            opening.let_go(|it| self.is_too_long(it.idle_ticks()) || self.is_elsewhere(it.peer()));
        }
    }

    /// Whether a connection has been idle for too long, by itself or where too many are.
    fn is_too_long(&self, idle_ticks: u64) -> bool {
        let surplus = || idle_ticks >= GRACE_TICKS && self.permits.has_too_many_idle();
        idle_ticks >= self.idle_max || surplus()
    }

    fn is_elsewhere(&self, ip: IpAddr) -> bool {
        self.addresses.borrow().as_ref().is_some_and(|all| !all.contains(&ip))
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
        if permits.open() < permits.max() {
            permits.wake_first();
        } else if !self.pool.is_empty()
            && let Next::Own(waker) = permits.next(self.pool.core)
        {
            waker.wake();
        }
    }
}

/// A connection counts as idle when it has not been used for that long: half a second.
const GRACE_TICKS: u64 = 2;
/// Three quarters of a second at most: less than any origin's own limit, which is whole seconds.
const RECENT_TICKS: u64 = 3;

#[cfg(test)]
mod tests;
