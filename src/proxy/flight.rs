//! A fetch in flight, watched by everybody who waits for its key.
//!
//! ```text
//! Waiting --head of the answer--> Streaming --end--> Landed(Entry | Private | Failed)
//!    \_______________________________________________^
//! ```
//!
//! The fetch moves it forward, watchers on any core sleep until it moves. It moves once into each
//! stage; a landed flight stays landed. The guard that leads a flight lands it as failed when it
//! is dropped (see [`crate::proxy::hub::Lead`]), so that nobody sleeps for ever.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::base::Wall;
use crate::cache::{Facts, Reason};
use crate::http::{Fields, ResponseHead};
use crate::proxy::error::Fault;
use crate::proxy::growing::{Growing, Reader};

/// One fetch for one key. `E` is the cache entry.
pub struct Flight<E> {
    state: Mutex<State<E>>,
    /// The key was purged meanwhile: what the fetch brings is delivered, not stored.
    doomed: AtomicBool,
    /// Requests that joined beside the one that started it.
    followers: AtomicU32,
    /// The client it was started for is gone.
    deserted: AtomicBool,
    /// Fields of the answer for the client it was started for and nobody else.
    own: Mutex<Fields>,
    /// The status that the origin answered with; zero before.
    answered: AtomicU16,
}

/// How far a flight has come.
pub enum Stage<E> {
    /// An interim answer (103) that the watcher has not seen.
    Hint(Arc<ResponseHead>),
    /// The answer's head is known, its body is arriving.
    Streaming(Arc<Incoming>),
    /// It is over.
    Landed(Outcome<E>),
}

/// How a flight ended.
pub enum Outcome<E> {
    /// With an entry that answers all who wait.
    Entry(Arc<E>, How),
    /// With an answer for the leader alone: the others go on by themselves.
    Private,
    /// With a fault, and perhaps something stale that may be served instead.
    Failed(Fault, Option<Arc<E>>),
}

/// Where the entry of a landed flight comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// From the second tier, fresh.
    Stored,
    /// From the origin.
    Fetched,
    /// The origin confirmed what was stored.
    Validated,
    /// From the origin; the key was purged meanwhile, so that it answers those who wait and is not
    /// stored.
    Purged,
}

/// An answer whose body is still arriving.
pub struct Incoming {
    /// The head, ready for clients: hop-by-hop fields removed, and those that are for the
    /// leader's client alone.
    pub head: ResponseHead,
    /// Length of the body when the origin stated it.
    pub length: Option<u64>,
    /// Whether the body is gzip.
    pub gzip: bool,
    /// Whether all who wait may read it, or the leader's client alone.
    pub shared: bool,
    /// Why it can't be stored; `None` when it is being stored.
    pub reason: Option<Reason>,
    /// What the policy made of it, where it is being stored.
    pub facts: Option<Facts>,
    /// When the head came.
    pub received: Wall,
    /// The body.
    pub body: Arc<Growing>,
}

struct State<E> {
    hints: Vec<Arc<ResponseHead>>,
    streaming: Option<Arc<Incoming>>,
    /// The place in the body of the client it was started for, until that client takes it: so that
    /// its answer can't be lost to it, whatever becomes of the body meanwhile.
    first: Option<Reader>,
    landed: Option<Outcome<E>>,
    watchers: Vec<Waker>,
}

impl<E> Flight<E> {
    /// A flight that waits for its head.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                hints: Vec::new(),
                streaming: None,
                first: None,
                landed: None,
                watchers: Vec::new(),
            }),
            doomed: AtomicBool::new(false),
            followers: AtomicU32::new(0),
            deserted: AtomicBool::new(false),
            own: Mutex::default(),
            answered: AtomicU16::new(0),
        })
    }

    /// An interim answer came.
    pub fn hint(&self, head: ResponseHead) {
        let mut state = self.lock();
        state.hints.push(Arc::new(head));
        wake(state);
    }

    /// The head is there, and its body for those who want it.
    pub fn stream(&self, incoming: Arc<Incoming>) {
        let mut first = incoming.body.reader();
        let mut state = self.lock();
        debug_assert!(state.landed.is_none() && state.streaming.is_none());
        // Whoever deserts says so before looking for it here.
        if !self.is_deserted() {
            state.first = first.take();
        }
        state.streaming = Some(incoming);
        wake(state);
    }

    /// Whether the head is there and the body is not.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.lock().streaming.is_some()
    }

    /// The body from its beginning, for the client that it was started for: once.
    #[must_use]
    pub fn take_first(&self) -> Option<Reader> {
        self.lock().first.take()
    }

    /// It is over. The first landing counts.
    pub fn land(&self, outcome: Outcome<E>) {
        let mut state = self.lock();
        if state.landed.is_none() {
            state.landed = Some(outcome);
            wake(state);
        }
    }

    /// Waits for the next hint, the head or the end. `hints` counts the hints seen.
    pub async fn stage(&self, hints: &mut usize) -> Stage<E> {
        let seen = *hints;
        let stage = self.wait(|state| {
            if let Some(hint) = state.hints.get(seen) {
                return Some(Stage::Hint(Arc::clone(hint)));
            }
            // An entry is better than its stream; a stream better than to hear that it is over.
            match (&state.landed, &state.streaming) {
                (Some(entry @ Outcome::Entry(..)), _) => Some(Stage::Landed(entry.clone())),
                (_, Some(incoming)) => Some(Stage::Streaming(Arc::clone(incoming))),
                (Some(outcome), None) => Some(Stage::Landed(outcome.clone())),
                (None, None) => None,
            }
        });
        let stage = stage.await;
        if matches!(stage, Stage::Hint(_)) {
            *hints += 1;
        }
        stage
    }

    /// Waits until it is over.
    pub async fn landed(&self) -> Outcome<E> {
        self.wait(|state| state.landed.clone()).await
    }

    /// Marks what it brings as not to be stored.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    /// Whether its key was purged since it started.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    /// The origin has answered with this status. Leaves fields for the client it was started for:
    /// those that `private` or `no-cache` list (RFC 9111 sections 5.2.2.4 and 5.2.2.7).
    pub fn on_answer(&self, status: u16, fields: Fields) {
        self.answered.store(status, Ordering::Release);
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = fields;
    }

    /// The status that the origin answered with. What is made of it may have another: the rest of
    /// a stored part comes with 206.
    #[must_use]
    pub fn answered(&self) -> u16 {
        self.answered.load(Ordering::Acquire)
    }

    /// Takes the fields that were left.
    #[must_use]
    pub fn take_own(&self) -> Fields {
        std::mem::take(&mut *self.own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client it was started for leaves. An answer for it alone has no reader then.
    pub fn desert(&self) {
        self.deserted.store(true, Ordering::Release);
        let (streaming, first) = {
            let mut state = self.lock();
            (state.streaming.clone(), state.first.take())
        };
        drop(first);
        if let Some(incoming) = streaming {
            incoming.body.abandon();
        }
    }

    /// Whether the client it was started for has left.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.deserted.load(Ordering::Acquire)
    }

    /// Counts a request that joined.
    pub fn on_follower(&self) {
        self.followers.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that joined so far.
    #[must_use]
    pub fn followers(&self) -> u32 {
        self.followers.load(Ordering::Relaxed)
    }

    async fn wait<T>(&self, ready: impl Fn(&State<E>) -> Option<T>) -> T {
        poll_fn(|cx| {
            let mut state = self.lock();
            if let Some(value) = ready(&state) {
                return Poll::Ready(value);
            }
            if !state.watchers.iter().any(|it| it.will_wake(cx.waker())) {
                state.watchers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Clone for Outcome<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Entry(entry, how) => Self::Entry(Arc::clone(entry), *how),
            Self::Private => Self::Private,
            Self::Failed(fault, stale) => Self::Failed(*fault, stale.clone()),
        }
    }
}

fn wake<E>(mut state: MutexGuard<'_, State<E>>) {
    let watchers = std::mem::take(&mut state.watchers);
    drop(state);
    for watcher in watchers {
        watcher.wake();
    }
}
