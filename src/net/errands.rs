//! What a core must not wait for and must not compute itself: handed to a thread, answered to the
//! core's task.
//!
//! A bounded queue of closures; a full one is an answer, too ([`Undone::Shed`]). The thread belongs
//! to `server`, which runs what comes out at the other end.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam::channel::{Receiver, Sender, bounded};

/// A closure on its way to the thread.
pub type Errand = Box<dyn FnOnce() + Send>;

/// The cores' end of the queue.
#[derive(Clone, Debug)]
pub struct Errands(Sender<Errand>);

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// Too many wait already.
    Shed,
    /// A bug ended it.
    Broken,
}

impl Errands {
    /// The two ends.
    #[must_use]
    pub fn channel() -> (Self, Receiver<Errand>) {
        let (sender, receiver) = bounded(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Has `work` done on the thread and waits for what it gives. Dropped early, the result goes
    /// nowhere.
    ///
    /// # Errors
    /// [`Undone`]; at once when too many wait already.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        let slot = Arc::new(Mutex::new(Slot { state: State::Waiting, waker: None }));
        let answer = Answer(Arc::clone(&slot));
        let errand = Box::new(move || answer.give(work()));
        self.0.try_send(errand).map_err(|_| Undone::Shed)?;
        Wait(slot).await
    }
}

struct Slot<T> {
    state: State<T>,
    waker: Option<Waker>,
}

enum State<T> {
    Waiting,
    Done(T),
    Dropped,
}

/// The thread's end of one errand. Dropped without an answer (a panic, the end of the process), it
/// says so, that nobody waits for ever.
struct Answer<T>(Arc<Mutex<Slot<T>>>);

impl<T> Answer<T> {
    fn give(self, value: T) {
        self.settle(State::Done(value));
    }

    fn settle(&self, state: State<T>) {
        let waker = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(slot.state, State::Waiting) {
                slot.state = state;
            }
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.settle(State::Dropped);
    }
}

struct Wait<T>(Arc<Mutex<Slot<T>>>);

impl<T> Future for Wait<T> {
    type Output = Result<T, Undone>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut slot.state, State::Dropped) {
            State::Done(value) => Poll::Ready(Ok(value)),
            State::Dropped => Poll::Ready(Err(Undone::Broken)),
            State::Waiting => {
                slot.state = State::Waiting;
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Scrapes and the like: a few at a time. More are a mistake or an attack.
const WAITING_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_errand_is_answered_by_the_thread() {
        let (errands, arrivals) = Errands::channel();
        let mut asked = pin!(errands.run(|| 6 * 7));
        assert!(poll(asked.as_mut()).is_pending());
        std::thread::spawn(move || arrivals.recv().unwrap()()).join().unwrap();
        assert_eq!(poll(asked.as_mut()), Poll::Ready(Ok(42)));
    }

    #[test]
    fn too_many_and_broken_errands_are_shed() {
        let (errands, arrivals) = Errands::channel();
        let mut first = pin!(errands.run(|| panic!("expected by the test")));
        assert_eq!(poll(first.as_mut()), Poll::<Result<(), Undone>>::Pending);
        for _ in 1..WAITING_MAX {
            assert!(poll(pin!(errands.run(|| ()))).is_pending());
        }
        assert_eq!(poll(pin!(errands.run(|| ()))), Poll::Ready(Err(Undone::Shed)));
        let errand = arrivals.recv().unwrap();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(errand)).is_err());
        assert_eq!(poll(first.as_mut()), Poll::Ready(Err(Undone::Broken)));
    }
}
