//! The right to write, for tasks of one core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A lock for one thread whose waiters are woken when it is released. No queue: few wait, and
/// which goes first is not promised.
#[derive(Debug, Default)]
pub(super) struct WriteLock {
    held: Cell<bool>,
    waiters: RefCell<Vec<Waker>>,
}

/// Releases the lock when dropped.
#[derive(Debug)]
pub(super) struct WriteGuard<'a>(&'a WriteLock);

impl WriteLock {
    pub(super) async fn acquire(&self) -> WriteGuard<'_> {
        poll_fn(|cx| match self.try_acquire() {
            Some(guard) => Poll::Ready(guard),
            None => {
                let mut waiters = self.waiters.borrow_mut();
                if !waiters.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiters.push(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }

    pub(super) fn try_acquire(&self) -> Option<WriteGuard<'_>> {
        let free = !self.held.replace(true);
        free.then(|| WriteGuard(self))
    }

    pub(super) const fn is_held(&self) -> bool {
        self.held.get()
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        for waker in self.0.waiters.take() {
            waker.wake();
        }
    }
}
