//! Messages between cores.
//!
//! Each core has one bounded inbox, written by anybody, read by its core before every look-up
//! (one atomic load when it is empty). A full inbox is never waited for: it becomes the order to
//! forget everything, which is what the messages ask for in parts.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crossbeam::queue::ArrayQueue;

/// What one core asks of another.
#[derive(Clone)]
pub enum CoreMessage {
    /// A newer entry for this key exists, or none should: drop yours.
    Drop {
        /// The key's hash under the process's seed.
        hash: u64,
        /// The key.
        key: Arc<[u8]>,
    },
    /// Drop every entry whose key satisfies the filter.
    DropWhere(KeyFilter),
    /// Drop everything.
    Clear,
    /// Close an idle connection to the upstream of that number, if a request waits for its place.
    YieldIdle(u16),
}

/// Says of a key whether it is meant.
pub type KeyFilter = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// One core's inbox.
pub struct Inbox {
    queue: ArrayQueue<(CoreMessage, Option<Ack>)>,
    /// Set with every message; the one load a look-up pays.
    pending: AtomicBool,
    /// Messages were lost: drop everything, then confirm these.
    overflow: Mutex<Option<Vec<Ack>>>,
    waker: Mutex<Option<Waker>>,
}

/// Confirms, when dropped, that one core has done what it was told.
#[derive(Clone)]
pub struct Ack {
    _part: Arc<AckPart>,
}

/// Waits for all cores' confirmations.
pub struct Acks {
    waiting: Arc<Waiting>,
}

struct AckPart {
    waiting: Arc<Waiting>,
}

struct Waiting {
    left: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new() -> Self {
        Self {
            queue: ArrayQueue::new(INBOX_MESSAGES_MAX),
            pending: AtomicBool::new(false),
            overflow: Mutex::new(None),
            waker: Mutex::new(None),
        }
    }

    /// Leaves a message and wakes the core.
    pub fn send(&self, message: CoreMessage, ack: Option<Ack>) {
        if let Err((_, ack)) = self.queue.push((message, ack)) {
            let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
            overflow.get_or_insert_default().extend(ack);
        }
        self.pending.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether there may be something to read.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Hands every message to `handle`; what each confirms is confirmed after it.
    pub fn drain(&self, mut handle: impl FnMut(CoreMessage)) {
        if !self.pending.swap(false, Ordering::AcqRel) {
            return;
        }
        while let Some((message, ack)) = self.queue.pop() {
            handle(message);
            drop(ack);
        }
        let overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acks) = overflow {
            handle(CoreMessage::Clear);
            drop(acks);
        }
    }

    /// Sleeps until a message comes.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_pending() {
                return Poll::Ready(());
            }
            *waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Acks {
    /// Expects confirmations from as many cores as [`Acks::ack`] is called for.
    #[must_use]
    pub fn new() -> Self {
        let waiting = Waiting { left: AtomicUsize::new(0), waker: Mutex::new(None) };
        Self { waiting: Arc::new(waiting) }
    }

    /// One core's duty to confirm.
    #[must_use]
    pub fn ack(&self) -> Ack {
        self.waiting.left.fetch_add(1, Ordering::AcqRel);
        Ack { _part: Arc::new(AckPart { waiting: Arc::clone(&self.waiting) }) }
    }

    /// Waits until all have confirmed.
    pub async fn all(self) {
        poll_fn(|cx| {
            let mut waker = self.waiting.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if self.waiting.left.load(Ordering::Acquire) == 0 {
                return Poll::Ready(());
            }
            *waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Default for Acks {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for AckPart {
    fn drop(&mut self) {
        if self.waiting.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let waker = self.waiting.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Messages an inbox holds. A core drains it at every look-up, so that only a burst of purges from
/// many cores fills it.
const INBOX_MESSAGES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn drop_of(hash: u64) -> CoreMessage {
        CoreMessage::Drop { hash, key: Arc::from(&b"k"[..]) }
    }

    #[test]
    fn messages_come_in_order_and_confirm_when_handled() {
        let inbox = Inbox::new();
        let acks = Acks::new();
        inbox.send(drop_of(1), Some(acks.ack()));
        inbox.send(drop_of(2), None);
        let mut all = pin!(acks.all());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(all.as_mut().poll(&mut cx).is_pending());
        let mut seen = Vec::new();
        inbox.drain(|message| {
            if let CoreMessage::Drop { hash, .. } = message {
                seen.push(hash);
            }
        });
        assert_eq!(seen, [1, 2]);
        assert!(all.as_mut().poll(&mut cx).is_ready());
        assert!(!inbox.is_pending());
    }

    #[test]
    fn full_inbox_becomes_the_order_to_drop_everything() {
        let inbox = Inbox::new();
        let acks = Acks::new();
        for hash in 0..=INBOX_MESSAGES_MAX as u64 {
            inbox.send(drop_of(hash), Some(acks.ack()));
        }
        let mut cleared = false;
        inbox.drain(|message| cleared = matches!(message, CoreMessage::Clear));
        assert!(cleared);
        assert!(pin!(acks.all()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
