//! The panic boundary: a panic in a task ends that task, not the core's thread.
//!
//! monoio unwinds a panicking task through its event loop, which ends the core. Whatever runs for
//! one client or one fetch therefore runs under [`guarded`].

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The task panicked; the message was printed by the panic hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// A future behind the boundary. Small: what it runs has a box of its own.
pub struct Guarded<F> {
    /// `None` once it has panicked.
    running: Option<Pin<Box<F>>>,
}

/// Runs a future; a panic in it becomes an error. Costs one allocation, made here and not where the
/// result is awaited: what awaits or spawns it holds a pointer, not the future's size once more.
///
/// What the future owned is dropped before the error is returned, its guards included. State that
/// it shared with others must be sound at every await and panic point: that is what cells and
/// locks without poisoning give here.
///
/// # Errors
/// When the future panicked.
pub fn guarded<F: Future>(future: F) -> Guarded<F> {
    Guarded { running: Some(Box::pin(future)) }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(running) = self.running.as_mut() else { return Poll::Ready(Err(Panicked)) };
        match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(_) => {
                // A drop that panics too must not pass the boundary either.
                let _ = catch_unwind(AssertUnwindSafe(|| self.running = None));
                Poll::Ready(Err(Panicked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_drops_what_the_task_owned() {
        let owned = Rc::new(());
        let held = Rc::clone(&owned);
        let task = guarded(async move {
            let _held = held;
            std::panic::panic_any("expected by the test");
        });
        let polled = pin!(task).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Err(Panicked)));
        assert_eq!(Rc::strong_count(&owned), 1);
    }
}
