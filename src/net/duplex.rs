//! A connection as the traits that the `h2` crate works on, with writes gathered.
//!
//! `h2` flushes after each frame of a kilobyte or more; sent as it asks, every answer would be a
//! system call of its own. So here [`AsyncWrite::poll_flush`] only says whether there is room, and
//! whoever polls the connection calls [`Outlet::poll`] when it has nothing more to do: all frames
//! of one turn leave together.
//!
//! ```text
//!  h2 <- poll_read  <- inbound buffer  <- read loop  <- Stream
//!  h2 -> poll_write -> outbound buffer -> write loop -> Stream     driven by Outlet::poll
//! ```
//!
//! Each direction has one boxed loop for the life of the connection over buffers that it owns, so
//! that no operation allocates a future and nothing that is under way is ever dropped before the
//! connection is. Cost: two buffers of at most [`READ_BYTES`] and [`OUTBOUND_BYTES_MAX`].

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::stream::Stream;

/// The traits' side: owned by `h2`.
pub struct Duplex {
    shared: Rc<Shared>,
    reading: Loop,
}

/// The sending side: owned by whoever polls the connection.
pub struct Outlet {
    shared: Rc<Shared>,
    writing: Loop,
}

/// A loop that never ends by itself.
type Loop = Pin<Box<dyn Future<Output = ()>>>;

struct Shared {
    stream: Stream,
    inbound: RefCell<Inbound>,
    outbound: RefCell<Outbound>,
}

#[derive(Default)]
struct Inbound {
    bytes: Vec<u8>,
    /// Below it everything has been taken.
    taken: usize,
    end: Option<End>,
}

/// How the receiving direction ended.
#[derive(Clone, Copy)]
enum End {
    Clean,
    Failed(io::ErrorKind),
}

#[derive(Default)]
struct Outbound {
    /// To be written next.
    bytes: Vec<u8>,
    is_writing: bool,
    /// `h2` has nothing more to send.
    is_ending: bool,
    has_ended: bool,
    failure: Option<io::ErrorKind>,
}

/// Splits a connection.
#[must_use]
pub fn duplex(stream: Stream) -> (Duplex, Outlet) {
    let (inbound, outbound) = (RefCell::default(), RefCell::default());
    let shared = Rc::new(Shared { stream, inbound, outbound });
    let reading = Box::pin(read_all(Rc::clone(&shared)));
    let writing = Box::pin(write_all(Rc::clone(&shared)));
    (Duplex { shared: Rc::clone(&shared), reading }, Outlet { shared, writing })
}

/// Reads whenever all that was read before has been taken.
async fn read_all(shared: Rc<Shared>) {
    loop {
        let Inbound { mut bytes, .. } = shared.inbound.take();
        bytes.clear();
        bytes.reserve(READ_BYTES);
        let (read, bytes) = shared.stream.read(bytes).await;
        {
            let mut inbound = shared.inbound.borrow_mut();
            (inbound.bytes, inbound.taken) = (bytes, 0);
            match read {
                Ok(0) => inbound.end = Some(End::Clean),
                Ok(_) => {}
                Err(error) => inbound.end = Some(End::Failed(error.kind())),
            }
        }
        until(|| shared.inbound.borrow().is_waiting()).await;
    }
}

/// Writes whatever there is, then ends the direction when it is to end.
async fn write_all(shared: Rc<Shared>) {
    let mut spare = Vec::new();
    loop {
        until(|| {
            let outbound = shared.outbound.borrow();
            let has_work = !outbound.bytes.is_empty() || outbound.is_ending;
            has_work && !outbound.has_ended && outbound.failure.is_none()
        })
        .await;
        let bytes = {
            let mut outbound = shared.outbound.borrow_mut();
            outbound.is_writing = true;
            std::mem::replace(&mut outbound.bytes, std::mem::take(&mut spare))
        };
        let is_last = bytes.is_empty();
        let written = if is_last {
            shared.stream.shutdown_write().await
        } else {
            let (written, mut bytes) = shared.stream.write_all(bytes).await;
            bytes.clear();
            spare = bytes;
            written
        };
        let mut outbound = shared.outbound.borrow_mut();
        outbound.is_writing = false;
        outbound.has_ended |= is_last;
        outbound.failure = written.err().map(|error| error.kind());
    }
}

/// Waits for a condition that is looked at whenever the loop is polled.
async fn until(condition: impl Fn() -> bool) {
    poll_fn(|_| if condition() { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Duplex {
    /// The connection's address, counters and state.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.shared.stream
    }
}

impl Outlet {
    /// Sends what was gathered. To be called after each poll of the connection.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        let pending = self.writing.as_mut().poll(cx);
        debug_assert!(pending.is_pending());
    }

    /// Whether everything that was gathered is on its way or can't be sent any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let outbound = self.shared.outbound.borrow();
        let is_idle = outbound.bytes.is_empty() && !outbound.is_writing;
        is_idle || outbound.failure.is_some()
    }

    /// The connection's address, counters and state.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.shared.stream
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(read) = this.shared.inbound.borrow_mut().take(out) {
                return Poll::Ready(read);
            }
            let pending = this.reading.as_mut().poll(cx);
            debug_assert!(pending.is_pending());
            if this.shared.inbound.borrow().is_waiting() {
                return Poll::Pending;
            }
        }
    }
}

impl Inbound {
    /// Moves bytes to `out`; `None` when more must be read first.
    fn take(&mut self, out: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            return match self.end? {
                End::Clean => Some(Ok(())),
                End::Failed(kind) => Some(Err(kind.into())),
            };
        }
        let count = rest.len().min(out.remaining());
        out.put_slice(rest.get(..count).unwrap_or_default());
        self.taken += count;
        Some(Ok(()))
    }

    const fn is_waiting(&self) -> bool {
        self.taken == self.bytes.len() && self.end.is_none()
    }
}

/// Whoever polls these also calls [`Outlet::poll`] in the same task: the write that makes room
/// wakes it.
impl AsyncWrite for Duplex {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut outbound = self.shared.outbound.borrow_mut();
        if let Some(kind) = outbound.failure {
            return Poll::Ready(Err(kind.into()));
        }
        let room = OUTBOUND_BYTES_MAX.saturating_sub(outbound.bytes.len());
        if room == 0 {
            return Poll::Pending;
        }
        let count = bytes.len().min(room);
        outbound.bytes.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outbound = self.shared.outbound.borrow();
        match outbound.failure {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None if outbound.bytes.len() < OUTBOUND_BYTES_MAX => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbound = self.shared.outbound.borrow_mut();
        outbound.is_ending = true;
        match outbound.failure {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None if outbound.has_ended => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

/// What a read has room for: one TLS record and what follows it soon.
pub const READ_BYTES: usize = 32 * 1024;
/// What is gathered at most before `h2` has to wait.
pub const OUTBOUND_BYTES_MAX: usize = 128 * 1024;
