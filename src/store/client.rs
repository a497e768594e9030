//! A core's side of the store: futures that wait for the storage thread without blocking.
//!
//! One [`Client`] a core, not `Send`; its clones share the same slots. Each command in flight has
//! a slot; its number travels with the command and comes back with the answer. A future that is
//! dropped leaves its slot marked: it is free again when the answer, which always comes, has been
//! thrown away, so that a late answer cannot reach another's slot and the mailbox stays bounded
//! (`slots.rs`).
//!
//! [`Client::drain`] must run as a task of the core: it hands out the answers.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossbeam::channel::TrySendError;

use crate::base::Wall;
use crate::store::fault::{Dropped, Unavailable};
use crate::store::handle::{Ends, StoreHandle};
use crate::store::mailbox::{Answer, Mailbox, Reply};
use crate::store::row::{Digest, Purge, Row};
use crate::store::shared::{Command, Control, Epoch};
use crate::store::slots::Slots;
use crate::store::stats::{StoreStats, Usage};

/// What a look-up found.
#[derive(Debug)]
pub enum GetOutcome {
    /// The row; it may be expired, or past its `keep_until`.
    Hit(Row),
    /// There is none.
    Miss,
    /// Not known; to be treated as a miss.
    Unavailable(Unavailable),
}

/// One core's access to the store. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    core: Rc<Core>,
}

#[derive(Debug)]
struct Core {
    handle: StoreHandle,
    mailbox: Arc<Mailbox>,
    slots: RefCell<Slots>,
}

impl Client {
    /// To be called in the thread of the core that will use it.
    pub(crate) fn new(handle: StoreHandle) -> Self {
        let mailbox = Arc::default();
        if let Some(ends) = handle.ends() {
            ends.shared.enrol(&mailbox);
        }
        Self { core: Rc::new(Core { handle, mailbox, slots: RefCell::default() }) }
    }

    /// Looks a row up. The command is sent here, not at the first poll; dropping the future at any
    /// time is safe. One hop to the storage thread and back: 10 to 60 us.
    ///
    /// It is `Unavailable` after a second, or a quarter more, and at once while the storage thread
    /// has not been seen for two. An answer to a look-up that was sent before a purge was answered
    /// may still be the row as it was before.
    pub fn get(&self, digest: Digest) -> Lookup {
        let Some(ends) = self.core.handle.ends() else {
            return Lookup(Waiting::answered(Answer::Miss));
        };
        let stats = &ends.shared.stats;
        if stats.age_of_heartbeat() > HEARTBEAT_AGE_MAX {
            stats.gets_unavailable.fetch_add(1, Ordering::Relaxed);
            return Lookup(Waiting::answered(Answer::Unavailable(Unavailable::Timeout)));
        }
        let until = Some(Instant::now() + LOOKUP_SPAN);
        let waiting = self.send(ends, until, |reply| {
            let sent = ends.data.try_send(Command::Get { digest, reply });
            sent.map_err(|err| match err {
                TrySendError::Full(command) => (taken_back(command), Unavailable::QueueFull),
                TrySendError::Disconnected(command) => (taken_back(command), Unavailable::Closed),
            })
        });
        if matches!(waiting.state, State::Answered(Some(Answer::Unavailable(_)))) {
            stats.gets_shed.fetch_add(1, Ordering::Relaxed);
        }
        Lookup(waiting)
    }

    /// Where the store is in the sequence of clears. To be taken before the response of a row is
    /// fetched, and given to [`Client::put`]. One atomic load.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.core.handle.epoch()
    }

    /// Queues a row to be written; look-ups find it from now on. Never blocks.
    ///
    /// # Errors
    /// The row is dropped, and counted, when too much is waiting, when the store was cleared since
    /// `epoch`, or when it was shut down.
    pub fn put(&self, row: Row, epoch: Epoch) -> Result<(), Dropped> {
        let Some(ends) = self.core.handle.ends() else { return Ok(()) };
        let queued = queue_put(ends, row, epoch);
        let counter = match queued {
            Ok(()) => return Ok(()),
            Err(Dropped::Cleared) => &ends.shared.stats.puts_overtaken,
            Err(Dropped::QueueFull | Dropped::Closed) => &ends.shared.stats.puts_shed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        queued
    }

    /// Removes or expires the selected rows and answers how many those were; rows that had been
    /// expired before may count or not. Puts that were sent
    /// before are included. Once answered, no look-up sent afterwards finds a row as it was,
    /// and a removal of all rows survives a crash.
    ///
    /// The answer waits for the backend, without limit if that hangs: callers give it a deadline.
    ///
    /// A purge that fails is not forgotten: its rows stay hidden and it is tried again until it
    /// succeeds or the process ends. One that finds the queue full becomes a purge of everything.
    ///
    /// # Errors
    /// Why it is not done yet.
    pub async fn purge(&self, purge: Purge) -> Result<u64, Unavailable> {
        let Some(ends) = self.core.handle.ends() else { return Ok(0) };
        if purge == Purge::CLEAR {
            ends.shared.epoch.fetch_add(1, Ordering::AcqRel);
        }
        ends.shared.purges.on_sent();
        let sent = self.control(ends, |reply| Control::Purge { purge, reply });
        if let State::Answered(Some(Answer::Unavailable(reason))) = &sent.state {
            // In its place, before it is no longer counted as on its way.
            if *reason == Unavailable::QueueFull {
                ends.shared.lose_purge();
            }
            ends.shared.purges.on_unsent();
        }
        done(sent.await)
    }

    /// Removes every row: [`Client::purge`] of [`Purge::CLEAR`]. Durable when answered.
    ///
    /// # Errors
    /// As [`Client::purge`].
    pub async fn clear(&self) -> Result<u64, Unavailable> {
        self.purge(Purge::CLEAR).await
    }

    /// Removes every row whose `keep_until` is not after `now`, in bounded batches between other
    /// writes, and answers how many those were.
    ///
    /// # Errors
    /// Why it was given up.
    pub async fn sweep(&self, now: Wall) -> Result<u64, Unavailable> {
        let Some(ends) = self.core.handle.ends() else { return Ok(0) };
        self.done(ends, |reply| Control::Sweep { now, reply }).await
    }

    /// Waits until all puts sent before have been written or dropped.
    ///
    /// # Errors
    /// When the store is shut down.
    pub async fn flush(&self) -> Result<(), Unavailable> {
        let Some(ends) = self.core.handle.ends() else { return Ok(()) };
        self.done(ends, |reply| Control::Flush { reply }).await.map(|_| ())
    }

    /// Asks the backend what is stored; [`StoreStats`] has it as of the last such question or
    /// upkeep.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn usage(&self) -> Result<Usage, Unavailable> {
        let Some(ends) = self.core.handle.ends() else { return Ok(Usage::default()) };
        match self.control(ends, |reply| Control::Usage { reply }).await {
            Answer::Usage(usage) => Ok(usage),
            Answer::Unavailable(reason) => Err(reason),
            Answer::Hit(_) | Answer::Miss | Answer::Done(_) => Err(Unavailable::Bug),
        }
    }

    /// The store's counters.
    #[must_use]
    pub fn stats(&self) -> &StoreStats {
        self.core.handle.stats()
    }

    /// Hands out answers for ever: to be spawned once as a task of the core, before the first
    /// command. May be dropped when the core ends; commands in flight are then never answered.
    pub fn drain(&self) -> impl Future<Output = ()> + 'static {
        let core = Rc::clone(&self.core);
        poll_fn(move |cx| {
            core.mailbox.register(cx.waker());
            core.hand_out();
            Poll::Pending
        })
    }

    async fn done(
        &self,
        ends: &Ends,
        control: impl FnOnce(Reply) -> Control,
    ) -> Result<u64, Unavailable> {
        done(self.control(ends, control).await)
    }

    fn control(&self, ends: &Ends, make: impl FnOnce(Reply) -> Control) -> Waiting {
        self.send(ends, None, |reply| {
            ends.control.try_send(make(reply)).map_err(|err| match err {
                TrySendError::Full(control) => (order_taken_back(control), Unavailable::QueueFull),
                TrySendError::Disconnected(control) => {
                    (order_taken_back(control), Unavailable::Closed)
                }
            })
        })
    }

    /// Reserves a slot and sends a command that will be answered there.
    fn send(
        &self,
        ends: &Ends,
        until: Option<Instant>,
        send: impl FnOnce(Reply) -> Result<(), (Option<Reply>, Unavailable)>,
    ) -> Waiting {
        if ends.shared.closed() {
            return Waiting::answered(Answer::Unavailable(Unavailable::Closed));
        }
        let Some(token) = self.core.slots.borrow_mut().reserve(until) else {
            return Waiting::answered(Answer::Unavailable(Unavailable::QueueFull));
        };
        let reply = Reply::new(Arc::clone(&self.core.mailbox), token);
        if let Err((reply, reason)) = send(reply) {
            if let Some(reply) = reply {
                reply.forget();
            }
            self.core.slots.borrow_mut().free(token);
            return Waiting::answered(Answer::Unavailable(reason));
        }
        self.core.tell_awaited();
        Waiting { state: State::Sent { core: Rc::clone(&self.core), token } }
    }
}

impl Core {
    fn hand_out(&self) {
        self.mailbox.collect(|token, answer| {
            let waker = self.slots.borrow_mut().fill(token, answer);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let late = self.slots.borrow_mut().take_late(Instant::now);
        for waker in late {
            waker.wake();
        }
        self.tell_awaited();
    }

    fn tell_awaited(&self) {
        self.mailbox.set_awaited(self.slots.borrow().lookups > 0);
    }
}

fn queue_put(ends: &Ends, mut row: Row, epoch: Epoch) -> Result<(), Dropped> {
    row.expired_at = None;
    let ticket = ends.shared.admit(&row)?;
    if epoch != ends.shared.epoch() {
        return Err(Dropped::Cleared);
    }
    let command = Command::Put { row: Arc::new(row), epoch, ticket };
    ends.data.try_send(command).map_err(|err| match err {
        TrySendError::Full(_) => Dropped::QueueFull,
        TrySendError::Disconnected(_) => Dropped::Closed,
    })
}

fn done(answer: Answer) -> Result<u64, Unavailable> {
    match answer {
        Answer::Done(rows) => Ok(rows),
        Answer::Unavailable(reason) => Err(reason),
        Answer::Hit(_) | Answer::Miss | Answer::Usage(_) => Err(Unavailable::Bug),
    }
}

fn taken_back(command: Command) -> Option<Reply> {
    match command {
        Command::Get { reply, .. } => Some(reply),
        Command::Put { .. } => None,
    }
}

fn order_taken_back(control: Control) -> Option<Reply> {
    match control {
        Control::Purge { reply, .. }
        | Control::Sweep { reply, .. }
        | Control::Usage { reply }
        | Control::Flush { reply } => Some(reply),
        Control::Stop => None,
    }
}

/// A look-up in flight.
#[derive(Debug)]
#[must_use = "a look-up does nothing for its caller unless awaited"]
pub struct Lookup(Waiting);

impl Future for Lookup {
    type Output = GetOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<GetOutcome> {
        Pin::new(&mut self.0).poll(cx).map(|answer| match answer {
            Answer::Hit(row) => GetOutcome::Hit(row),
            Answer::Miss => GetOutcome::Miss,
            Answer::Unavailable(reason) => GetOutcome::Unavailable(reason),
            Answer::Done(_) | Answer::Usage(_) => GetOutcome::Unavailable(Unavailable::Bug),
        })
    }
}

/// A command in flight.
#[derive(Debug)]
struct Waiting {
    state: State,
}

#[derive(Debug)]
enum State {
    Sent { core: Rc<Core>, token: u32 },
    Answered(Option<Answer>),
}

impl Waiting {
    fn answered(answer: Answer) -> Self {
        Self { state: State::Answered(Some(answer)) }
    }
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = match &mut self.state {
            State::Answered(answer) => answer.take(),
            State::Sent { core, token } => {
                let answer = core.slots.borrow_mut().poll(*token, cx.waker());
                if answer.is_none() {
                    return Poll::Pending;
                }
                answer
            }
        };
        self.state = State::Answered(None);
        // Polled again after its end: an answer has to be made up, and this one harms nobody.
        Poll::Ready(answer.unwrap_or(Answer::Unavailable(Unavailable::Bug)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let State::Sent { core, token } = &self.state {
            core.slots.borrow_mut().abandon(*token);
        }
    }
}

/// How long a look-up may take: what it could find is hardly worth more.
const LOOKUP_SPAN: Duration = Duration::from_secs(1);
/// A storage thread that has not been seen for so long hangs. It goes round four times a second,
/// and after each read.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(2);
