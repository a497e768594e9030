//! The way back from the storage threads to a core: one queue, one wake for each burst.
//!
//! Any thread pushes; one task of the core collects. A push does not wake: the storage thread
//! pushes all results of a drained batch and then wakes each touched mailbox once (FINDINGS.md:
//! 3 to 5 times cheaper than a wake for each reply). Every command that carries a [`Reply`] is
//! answered exactly once, since dropping one unanswered sends [`Unavailable::Bug`]; so the queue
//! is bounded by the slots of its core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use arc_swap::ArcSwapOption;
use crossbeam::queue::SegQueue;

use crate::store::fault::Unavailable;
use crate::store::row::Row;
use crate::store::stats::Usage;

/// What comes back for one command.
#[derive(Debug)]
pub(crate) enum Answer {
    Hit(Row),
    Miss,
    /// Rows concerned.
    Done(u64),
    Usage(Usage),
    Unavailable(Unavailable),
}

/// One core's mailbox.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    answers: SegQueue<(u32, Answer)>,
    /// Set by the first push of a burst, reset before the core collects: later wakes of the same
    /// burst cost one atomic swap.
    notified: AtomicBool,
    waker: ArcSwapOption<Waker>,
    /// Whether look-ups of this core wait.
    awaited: AtomicBool,
}

impl Mailbox {
    /// Wakes the collecting task unless it has been woken and has not collected since.
    pub(crate) fn wake(&self) {
        if !self.notified.swap(true, Ordering::AcqRel)
            && let Some(waker) = &*self.waker.load()
        {
            waker.wake_by_ref();
        }
    }

    /// Says whether look-ups wait, which may have to be given up.
    pub(crate) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Registers the collecting task. To be called before [`Mailbox::collect`], so that a push
    /// that is not collected wakes the new waker.
    pub(crate) fn register(&self, waker: &Waker) {
        let known = self.waker.load().as_ref().is_some_and(|it| it.will_wake(waker));
        if !known {
            self.waker.store(Some(Arc::new(waker.clone())));
        }
    }

    /// Takes all answers that are there.
    pub(crate) fn collect(&self, mut take: impl FnMut(u32, Answer)) {
        self.notified.swap(false, Ordering::AcqRel);
        while let Some((token, answer)) = self.answers.pop() {
            take(token, answer);
        }
    }
}

/// The duty to answer one command.
#[derive(Debug)]
pub(crate) struct Reply {
    /// None once answered.
    mailbox: Option<Arc<Mailbox>>,
    token: u32,
}

impl Reply {
    pub(crate) fn new(mailbox: Arc<Mailbox>, token: u32) -> Self {
        Self { mailbox: Some(mailbox), token }
    }

    /// Nobody waits.
    pub(crate) const fn nobody() -> Self {
        Self { mailbox: None, token: 0 }
    }

    /// Takes the duty back: nothing is sent. For a command that could not be queued.
    pub(crate) fn forget(mut self) {
        self.mailbox = None;
    }

    /// Answers and wakes at once.
    pub(crate) fn send(mut self, answer: Answer) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.answers.push((self.token, answer));
            mailbox.wake();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.answers.push((self.token, Answer::Unavailable(Unavailable::Bug)));
            mailbox.wake();
        }
    }
}

/// Collects the mailboxes touched by a batch and wakes each of them once, when dropped.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    touched: Vec<Arc<Mailbox>>,
}

impl Burst {
    pub(crate) fn send(&mut self, mut reply: Reply, answer: Answer) {
        let Some(mailbox) = reply.mailbox.take() else { return };
        mailbox.answers.push((reply.token, answer));
        // As many as there are cores, mostly one or two: a scan is the cheapest set.
        if !self.touched.iter().any(|it| Arc::ptr_eq(it, &mailbox)) {
            self.touched.push(mailbox);
        }
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        for mailbox in &self.touched {
            mailbox.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn collected(mailbox: &Mailbox) -> Vec<u32> {
        let mut tokens = Vec::new();
        mailbox.collect(|token, _| tokens.push(token));
        tokens
    }

    #[test]
    fn a_burst_wakes_a_mailbox_once() {
        let count = Arc::new(Count::default());
        let mailbox = Arc::new(Mailbox::default());
        mailbox.register(&Waker::from(Arc::clone(&count)));
        let mut burst = Burst::default();
        for token in 0..10 {
            burst.send(Reply::new(Arc::clone(&mailbox), token), Answer::Miss);
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        drop(burst);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        Reply::new(Arc::clone(&mailbox), 10).send(Answer::Miss);
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "not collected yet: no second wake");
        assert_eq!(collected(&mailbox), (0..=10).collect::<Vec<_>>());
        Reply::new(Arc::clone(&mailbox), 11).send(Answer::Miss);
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn an_unanswered_reply_answers_itself_and_a_forgotten_one_does_not() {
        let mailbox = Arc::new(Mailbox::default());
        Reply::new(Arc::clone(&mailbox), 1).forget();
        drop(Reply::new(Arc::clone(&mailbox), 2));
        assert_eq!(collected(&mailbox), [2]);
    }
}
