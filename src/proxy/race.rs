//! Waiting for whichever of two things comes first.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Which one came.
pub enum First<A, B> {
    /// The first; it wins when both are there.
    Left(A),
    /// The second.
    Right(B),
}

/// Waits for either; the other is dropped.
pub async fn race<A, B>(
    left: impl Future<Output = A>,
    right: impl Future<Output = B>,
) -> First<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|cx| {
        if let Poll::Ready(value) = left.as_mut().poll(cx) {
            return Poll::Ready(First::Left(value));
        }
        right.as_mut().poll(cx).map(First::Right)
    })
    .await
}
