//! A body that is read while it arrives: one writer, any number of readers on any core.
//!
//! The fetch appends chunks; each reader has a place of its own and sleeps when it has them all.
//! Two kinds. A **kept** body is going to be stored: it holds every chunk until the end, so that
//! readers that come late start at the beginning, and the writer never waits. A **passing** body
//! can't be stored: chunks leave when all who read it have taken them, and the writer waits while
//! [`PASSING_BYTES_MAX`] are queued (back-pressure towards the origin). A kept body for which
//! memory runs out becomes a passing one ([`Growing::let_go`]): those who read it go on, nobody
//! joins.
//!
//! Cost: one short lock for each chunk on either side; nothing here is on the hit path.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;

/// A body in the making, shared by its writer and its readers.
pub struct Growing {
    state: Mutex<State>,
}

/// One who reads it.
pub struct Reader {
    body: Arc<Growing>,
    id: u64,
    /// Chunks taken.
    cursor: usize,
}

/// What becomes of the chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All are kept for the store and for late readers.
    All,
    /// Each goes to those who read now and is gone.
    Passing,
}

/// A reader's next piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that follow those taken before.
    Chunk(Bytes),
    /// The body ended where its framing says so.
    End,
    /// The body was cut short: what was taken must not pass for the whole.
    Truncated,
}

struct State {
    keep: Keep,
    chunks: VecDeque<Bytes>,
    /// Chunks that left the front of `chunks`; zero unless passing.
    gone: usize,
    /// Bytes in `chunks`.
    queued_bytes: usize,
    end: Option<Piece>,
    /// Who reads, and how many chunks each has taken.
    readers: Vec<(u64, usize)>,
    readers_ever: u64,
    /// Nobody reads, or will: the writer of a passing body may stop.
    abandoned: bool,
    waiting: Vec<Waker>,
    writer: Option<Waker>,
}

impl Growing {
    /// An empty body.
    #[must_use]
    pub fn new(keep: Keep) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                keep,
                chunks: VecDeque::new(),
                gone: 0,
                queued_bytes: 0,
                end: None,
                readers: Vec::new(),
                readers_ever: 0,
                abandoned: false,
                waiting: Vec::new(),
                writer: None,
            }),
        })
    }

    /// Appends a chunk and wakes the readers. Empty chunks are ignored.
    pub fn push(&self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let mut state = self.lock();
        debug_assert!(state.end.is_none(), "a chunk after the end");
        if state.is_deserted() {
            return;
        }
        state.queued_bytes += chunk.len();
        state.chunks.push_back(chunk);
        wake(state);
    }

    /// Ends the body. Later calls change nothing: the first end is the true one.
    pub fn finish(&self, complete: Complete) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(match complete {
                Complete::Whole => Piece::End,
                Complete::CutShort => Piece::Truncated,
            });
            wake(state);
        }
    }

    /// Waits until there is room for another chunk; `false` when nobody reads any more.
    pub async fn room(&self) -> bool {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.keep == Keep::All {
                return Poll::Ready(true);
            }
            if state.abandoned {
                return Poll::Ready(false);
            }
            if state.queued_bytes < PASSING_BYTES_MAX {
                return Poll::Ready(true);
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Starts to read at the beginning; `None` when that is gone.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.lock();
        if state.gone > 0 || state.is_deserted() {
            return None;
        }
        state.readers_ever += 1;
        let id = state.readers_ever;
        state.readers.push((id, 0));
        Some(Reader { body: Arc::clone(self), id, cursor: 0 })
    }

    /// Waits until the readers of a passing body have left; for ever where all is kept.
    pub async fn deserted(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.is_deserted() {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The one it was started for leaves. Where nobody else reads, nobody will: the writer of a
    /// passing body learns it from [`Growing::room`].
    pub fn abandon(&self) {
        let mut state = self.lock();
        if state.readers.is_empty() {
            state.desert();
        }
        wake_writer(state);
    }

    /// Keeps no more than those who read need: what all have taken goes. Whether anybody reads; if
    /// not, nobody will.
    #[must_use]
    pub fn let_go(&self) -> bool {
        let mut state = self.lock();
        state.keep = Keep::Passing;
        let read = !state.readers.is_empty();
        if read {
            // The one it was started for may have left when nobody else had come.
            state.abandoned = false;
            state.drop_taken();
        } else {
            state.desert();
        }
        wake(state);
        read
    }

    /// Whether anybody reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !self.lock().readers.is_empty()
    }

    /// Waits until nobody reads.
    pub async fn unread(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.readers.is_empty() {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Ends a kept body that nobody reads: nobody will. Whether that is so.
    #[must_use]
    pub fn give_up(&self) -> bool {
        let mut state = self.lock();
        let unread = state.readers.is_empty();
        if unread {
            state.keep = Keep::Passing;
            state.desert();
        }
        unread
    }

    /// Waits until what was to be kept no longer is: it has to be read now, or left.
    pub async fn passing(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.keep == Keep::Passing {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|it| it.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// All chunks of a kept body in one piece, in memory of its own: the read buffers behind the
    /// chunks may be much larger.
    #[must_use]
    pub fn concatenated(&self) -> Bytes {
        let state = self.lock();
        debug_assert!(state.keep == Keep::All);
        let mut whole = Vec::with_capacity(state.queued_bytes);
        for chunk in &state.chunks {
            whole.extend_from_slice(chunk);
        }
        whole.into()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Waits for the next piece.
    pub async fn next(&mut self) -> Piece {
        poll_fn(|cx| {
            let mut state = self.body.lock();
            let at = self.cursor.saturating_sub(state.gone);
            if let Some(chunk) = state.chunks.get(at).cloned() {
                self.cursor += 1;
                state.moved(self.id, self.cursor);
                wake_writer(state);
                return Poll::Ready(Piece::Chunk(chunk));
            }
            if let Some(end) = &state.end {
                return Poll::Ready(end.clone());
            }
            if !state.waiting.iter().any(|it| it.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.body.lock();
        state.readers.retain(|(id, _)| *id != self.id);
        if state.keep == Keep::Passing {
            if state.readers.is_empty() {
                state.desert();
            }
            state.drop_taken();
        }
        wake_writer(state);
    }
}

impl State {
    fn is_deserted(&self) -> bool {
        self.keep == Keep::Passing && self.abandoned
    }

    fn desert(&mut self) {
        self.abandoned = true;
        if self.keep == Keep::Passing {
            self.chunks.clear();
            self.queued_bytes = 0;
        }
    }

    fn moved(&mut self, id: u64, cursor: usize) {
        if let Some(place) = self.readers.iter_mut().find(|it| it.0 == id) {
            place.1 = cursor;
        }
        self.drop_taken();
    }

    /// Drops what all who read a passing body have taken.
    fn drop_taken(&mut self) {
        let Some(slowest) = self.readers.iter().map(|it| it.1).min() else { return };
        while self.keep == Keep::Passing && self.gone < slowest {
            let Some(chunk) = self.chunks.pop_front() else { return };
            self.gone += 1;
            self.queued_bytes -= chunk.len();
        }
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// At the place its framing names.
    Whole,
    /// Before that.
    CutShort,
}

/// Bytes a passing body queues for its readers: enough for a full socket buffer or two, little
/// enough for thousands of slow readers.
pub const PASSING_BYTES_MAX: usize = 256 * 1024;

fn wake(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    for reader in waiting {
        reader.wake();
    }
}

/// Tells the writer that there is room in a passing body, or that nobody is left.
fn wake_writer(mut state: MutexGuard<'_, State>) {
    if state.keep == Keep::All && !state.readers.is_empty() {
        return;
    }
    let writer = state.writer.take();
    drop(state);
    if let Some(writer) = writer {
        writer.wake();
    }
}

#[cfg(test)]
mod tests;
