//! Coarse time: the deadlines of a core's exchanges, without a timer for each.
//!
//! A timer of the runtime costs 640 bytes of every future that holds one and an insertion and a
//! removal for every request. Deadlines of whole seconds don't need that: here a wait that has one
//! takes a slot of a small table when it first sleeps and leaves it when it ends, and one task of
//! the core looks at all slots every [`TICK`].
//!
//! ```text
//!  timeout(span, work) --pending--> slot (deadline in ticks, waker) --tick is due--> wake: Elapsed
//!                      --ready----> the slot is free again
//! ```
//!
//! Deadlines end up to one tick late, never early. Cost: two stores for a wait, 32 bytes a slot;
//! 10,000 waits are one scan of 20 us every quarter second.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::net::clock::mono;

/// How often deadlines are looked at: the most by which they are late.
pub const TICK: Duration = Duration::from_millis(250);

/// A deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// A moment of this core, to be carried through the steps that share the time until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(u64);

impl Deadline {
    /// `span` from now.
    #[must_use]
    pub fn after(span: Duration) -> Self {
        Self(now().saturating_add(of(span)))
    }

    /// Waits for `work`, at most until then.
    ///
    /// # Errors
    /// As [`timeout`].
    pub fn bound<F: Future>(self, work: F) -> Timeout<F> {
        Timeout { sleep: Sleep { deadline: self.0, slot: Cell::new(None) }, work }
    }
}

/// Ticks of this core since it started.
#[must_use]
pub fn now() -> u64 {
    TICKS.with(|it| it.now.get())
}

/// A span in ticks. One more than fits: it may begin just before a tick.
#[must_use]
pub fn of(span: Duration) -> u64 {
    u64::try_from(span.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Ticks for ever. To be spawned once as a task of the core; `on_tick` is told how late each one
/// comes.
pub async fn run(on_tick: impl Fn(Duration)) {
    loop {
        let due = mono().plus(TICK);
        monoio::time::sleep(TICK).await;
        advance();
        on_tick(mono().since(due));
    }
}

/// Waits for `work`, at most for `span`. Without [`run`] on this core it waits without limit.
///
/// # Errors
/// [`Elapsed`]: `work` is dropped with the returned future, unfinished.
pub fn timeout<F: Future>(span: Duration, work: F) -> Timeout<F> {
    Deadline::after(span).bound(work)
}

/// Sleeps for `span`.
pub fn sleep(span: Duration) -> Sleep {
    Sleep { deadline: now().saturating_add(of(span)), slot: Cell::new(None) }
}

/// Sleeps until the next tick: by how much is not certain, only that what is quick has ended.
pub fn pause() -> Sleep {
    Sleep { deadline: now() + 1, slot: Cell::new(None) }
}

/// A wait for a tick; see [`sleep`] and [`pause`].
#[derive(Debug)]
#[must_use = "it sleeps when awaited"]
pub struct Sleep {
    deadline: u64,
    /// Taken at the first poll that has to wait.
    slot: Cell<Option<usize>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        TICKS.with(|ticks| {
            if ticks.now.get() >= self.deadline {
                return Poll::Ready(());
            }
            let mut table = ticks.table.borrow_mut();
            match self.slot.get() {
                Some(index) => table.renew(index, cx.waker()),
                // No limit at all needs nobody to look at it.
                None if self.deadline == u64::MAX => {}
                None => self.slot.set(Some(table.take(self.deadline, cx.waker()))),
            }
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(index) = self.slot.get() {
            // At the end of the thread there is no table any more.
            let _ = TICKS.try_with(|ticks| ticks.table.borrow_mut().leave(index));
        }
    }
}

pin_project! {
    /// Work with a deadline; see [`timeout`].
    #[must_use = "it works when awaited"]
    pub struct Timeout<F> {
        sleep: Sleep,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(value) = this.work.poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(this.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

thread_local! {
    static TICKS: Ticks = const { Ticks { now: Cell::new(0), table: RefCell::new(Table::new()) } };
}

/// One core's coarse clock and who waits for it.
struct Ticks {
    now: Cell<u64>,
    table: RefCell<Table>,
}

#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
    /// The first free slot.
    free: Option<usize>,
}

#[derive(Debug)]
enum Slot {
    /// Its waker is gone once it has been woken.
    Taken {
        deadline: u64,
        waker: Option<Waker>,
    },
    Free {
        next: Option<usize>,
    },
}

impl Table {
    const fn new() -> Self {
        Self { slots: Vec::new(), free: None }
    }

    fn take(&mut self, deadline: u64, waker: &Waker) -> usize {
        let taken = Slot::Taken { deadline, waker: Some(waker.clone()) };
        let Some(index) = self.free else {
            self.slots.push(taken);
            return self.slots.len() - 1;
        };
        let slot = std::mem::replace(&mut self.slots[index], taken);
        match slot {
            Slot::Free { next } => self.free = next,
            Slot::Taken { .. } => unreachable!("the free list names free slots"),
        }
        index
    }

    fn renew(&mut self, index: usize, waker: &Waker) {
        if let Slot::Taken { waker: known, .. } = &mut self.slots[index]
            && !known.as_ref().is_some_and(|it| it.will_wake(waker))
        {
            *known = Some(waker.clone());
        }
    }

    fn leave(&mut self, index: usize) {
        self.slots[index] = Slot::Free { next: self.free };
        self.free = Some(index);
    }

    fn take_due(&mut self, now: u64) -> Vec<Waker> {
        let due = self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Taken { deadline, waker } if *deadline <= now => waker.take(),
            Slot::Taken { .. } | Slot::Free { .. } => None,
        });
        due.collect()
    }
}

fn advance() {
    let due = TICKS.with(|ticks| {
        let now = ticks.now.get() + 1;
        ticks.now.set(now);
        ticks.table.borrow_mut().take_due(now)
    });
    // Outside the borrow: a waker may do anything.
    due.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn taken() -> usize {
        let is_taken = |it: &&Slot| matches!(it, Slot::Taken { .. });
        TICKS.with(|ticks| ticks.table.borrow().slots.iter().filter(is_taken).count())
    }

    #[test]
    fn work_that_is_ready_takes_no_slot() {
        let mut work = pin!(timeout(Duration::ZERO, async { 7 }));
        assert_eq!(poll(work.as_mut()), Poll::Ready(Ok(7)));
        assert_eq!(taken(), 0);
    }

    #[test]
    fn deadline_is_never_early_and_at_most_one_tick_late() {
        let mut work = pin!(timeout(TICK * 2, pending::<()>()));
        for _ in 0..2 {
            assert_eq!(poll(work.as_mut()), Poll::Pending);
            advance();
        }
        assert_eq!(poll(work.as_mut()), Poll::Pending, "two ticks may be less than two spans");
        advance();
        assert_eq!(poll(work.as_mut()), Poll::Ready(Err(Elapsed)));
    }

    #[test]
    fn slot_is_free_again_once_the_wait_is_dropped() {
        for _ in 0..3 {
            let mut first = Box::pin(timeout(TICK, pending::<()>()));
            let mut second = Box::pin(sleep(TICK));
            assert_eq!(poll(first.as_mut()), Poll::Pending);
            assert_eq!(poll(second.as_mut()), Poll::Pending);
            assert_eq!(taken(), 2);
            drop(first);
            assert_eq!(taken(), 1);
        }
        assert_eq!(taken(), 0);
        TICKS.with(|ticks| assert_eq!(ticks.table.borrow().slots.len(), 2));
    }

    #[test]
    fn wait_without_limit_is_looked_at_by_nobody() {
        let mut work = pin!(timeout(Duration::MAX, pending::<()>()));
        assert_eq!(poll(work.as_mut()), Poll::Pending);
        assert_eq!(taken(), 0);
    }

    #[test]
    fn pause_ends_with_the_next_tick() {
        let mut pause = pin!(pause());
        assert_eq!(poll(pause.as_mut()), Poll::Pending);
        advance();
        assert_eq!(poll(pause.as_mut()), Poll::Ready(()));
    }
}
