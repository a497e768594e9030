//! Waiting for whichever of two things comes first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// Which one came.
pub enum First<A, B> {
    /// The first; it wins when both are there.
    Left(A),
    /// The second.
    Right(B),
}

/// Waits for either; the other is dropped with the returned future.
pub const fn race<A: Future, B: Future>(left: A, right: B) -> Race<A, B> {
    Race { left, right }
}

pin_project! {
    /// See [`race`]. Not an `async fn`: that would hold both futures twice.
    #[must_use = "it waits when awaited"]
    pub struct Race<A, B> {
        #[pin]
        left: A,
        #[pin]
        right: B,
    }
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = First<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(value) = this.left.poll(cx) {
            return Poll::Ready(First::Left(value));
        }
        this.right.poll(cx).map(First::Right)
    }
}
