//! A body that is read while it arrives: one writer, any number of readers on any core.
//!
//! The fetch appends chunks; each reader keeps the number of chunks it has taken and sleeps when
//! it has them all. Two kinds. A **kept** body is going to be stored: it holds every chunk until
//! the end, so that late readers start at the beginning, and the writer never waits. A
//! **passing** body can't be stored: it has one reader, chunks leave when taken, and the writer
//! waits while [`PASSING_BYTES_MAX`] are queued (back-pressure towards the origin).
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

/// What becomes of the chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All are kept for the store and for late readers.
    All,
    /// Each goes to the one reader and is gone.
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
    taken: usize,
    /// Bytes in `chunks`.
    queued_bytes: usize,
    end: Option<Piece>,
    /// The one reader of a passing body is gone: the writer may stop.
    abandoned: bool,
    readers: Vec<Waker>,
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
                taken: 0,
                queued_bytes: 0,
                end: None,
                abandoned: false,
                readers: Vec::new(),
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
        if state.abandoned && state.keep == Keep::Passing {
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

    /// Waits for the piece after the `cursor` chunks taken before, and moves the cursor.
    pub async fn next(&self, cursor: &mut usize) -> Piece {
        poll_fn(|cx| {
            let mut state = self.lock();
            let at = cursor.saturating_sub(state.taken);
            let chunk = match state.keep {
                Keep::All => state.chunks.get(at).cloned(),
                Keep::Passing => state.chunks.pop_front(),
            };
            if let Some(chunk) = chunk {
                *cursor += 1;
                if state.keep == Keep::Passing {
                    state.taken += 1;
                    state.queued_bytes -= chunk.len();
                    if let Some(writer) = state.writer.take() {
                        drop(state);
                        writer.wake();
                    }
                }
                return Poll::Ready(Piece::Chunk(chunk));
            }
            if let Some(end) = &state.end {
                return Poll::Ready(end.clone());
            }
            if !state.readers.iter().any(|it| it.will_wake(cx.waker())) {
                state.readers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until the one reader of a passing body has left; for ever where all is kept.
    pub async fn deserted(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.abandoned {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The reader of a passing body leaves; the writer learns it from [`Growing::room`].
    pub fn abandon(&self) {
        let mut state = self.lock();
        if state.keep == Keep::All {
            return;
        }
        state.abandoned = true;
        state.chunks.clear();
        state.queued_bytes = 0;
        if let Some(writer) = state.writer.take() {
            drop(state);
            writer.wake();
        }
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

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// At the place its framing names.
    Whole,
    /// Before that.
    CutShort,
}

/// Bytes a passing body queues for its reader: enough for a full socket buffer or two, little
/// enough for thousands of slow readers.
pub const PASSING_BYTES_MAX: usize = 256 * 1024;

fn wake(mut state: MutexGuard<'_, State>) {
    let readers = std::mem::take(&mut state.readers);
    drop(state);
    for reader in readers {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn late_reader_of_a_kept_body_starts_at_the_beginning() {
        let body = Growing::new(Keep::All);
        let (mut early, mut late) = (0, 0);
        assert_eq!(now(body.next(&mut early)), None);
        body.push(Bytes::from_static(b"ab"));
        body.push(Bytes::new());
        body.push(Bytes::from_static(b"cd"));
        assert_eq!(now(body.next(&mut early)), Some(Piece::Chunk(Bytes::from_static(b"ab"))));
        body.finish(Complete::Whole);
        body.finish(Complete::CutShort);
        assert_eq!(now(body.next(&mut late)), Some(Piece::Chunk(Bytes::from_static(b"ab"))));
        assert_eq!(now(body.next(&mut late)), Some(Piece::Chunk(Bytes::from_static(b"cd"))));
        assert_eq!(now(body.next(&mut late)), Some(Piece::End));
        assert_eq!(body.concatenated(), "abcd");
    }

    #[test]
    fn writer_of_a_passing_body_waits_for_its_reader() {
        let body = Growing::new(Keep::Passing);
        let mut cursor = 0;
        body.push(Bytes::from(vec![0; PASSING_BYTES_MAX]));
        assert_eq!(now(body.room()), None);
        assert!(matches!(now(body.next(&mut cursor)), Some(Piece::Chunk(_))));
        assert_eq!(now(body.room()), Some(true));
        body.abandon();
        assert_eq!(now(body.room()), Some(false));
    }

    #[test]
    fn cut_body_is_reported_after_its_chunks() {
        let body = Growing::new(Keep::Passing);
        let mut cursor = 0;
        body.push(Bytes::from_static(b"a"));
        body.finish(Complete::CutShort);
        assert!(matches!(now(body.next(&mut cursor)), Some(Piece::Chunk(_))));
        assert_eq!(now(body.next(&mut cursor)), Some(Piece::Truncated));
    }
}
