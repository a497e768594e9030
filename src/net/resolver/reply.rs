//! The answer to one request, from the resolver thread to the task that waits on a core.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::net::resolver::{Answer, ResolveError};

/// The two ends of a one-shot answer.
pub(super) fn channel() -> (Reply, Waiting) {
    let slot = Arc::new(Mutex::new(Slot { answer: None, waker: None }));
    (Reply(slot.clone()), Waiting(slot))
}

/// The answering end. Dropped without an answer, it answers [`ResolveError::Busy`], so that
/// nobody waits for ever.
#[derive(Debug)]
pub(super) struct Reply(Arc<Mutex<Slot>>);

/// The waiting end. Dropped early, the answer goes nowhere.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Mutex<Slot>>);

#[derive(Debug)]
struct Slot {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

impl Reply {
    pub(super) fn send(self, answer: Answer) {
        self.fill(answer);
    }

    fn fill(&self, answer: Answer) {
        let waker = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slot.answer.get_or_insert(answer);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.fill(Err(ResolveError::Busy));
    }
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = slot.answer.clone() {
            return Poll::Ready(answer);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
