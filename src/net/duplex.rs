//! A connection as the traits that the `h2` crate works on, with writes gathered.
//!
//! `h2` flushes after each frame of a kilobyte or more; sent as it asks, every answer would be a
//! system call of its own. So here [`AsyncWrite::poll_flush`] only says whether there is room, and
//! whoever polls the connection calls [`Outlet::poll`] when it has nothing more to do: all frames
//! of one turn leave together. [`drive`] does both.
//!
//! ```text
//!  h2 <- poll_read  <- inbound buffer  <- read loop  <- Stream
//!  h2 -> poll_write -> outbound buffer -> write loop -> Stream     driven by Outlet::poll
//! ```
//!
//! Each direction has one boxed loop for the life of the connection over buffers that it owns, so
//! that no operation allocates a future and nothing that is under way is ever dropped before the
//! connection is. Cost: two buffers of at most [`READ_BYTES`] and [`OUTBOUND_BYTES_MAX`].

use std::cell::{Cell, RefCell};
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
    /// Whoever else looks after the connection has it too.
    stream: Rc<dyn AsRef<Stream>>,
    received: Cell<u64>,
    sent: Cell<u64>,
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
    /// What `h2` was told to wait for. No waker stands for it: see [`Outlet::poll`].
    awaited: Option<Awaited>,
    is_writing: bool,
    /// `h2` has nothing more to send.
    is_ending: bool,
    has_ended: bool,
    failure: Option<io::ErrorKind>,
}

/// What `h2` may have to wait for on its sending side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Room for more bytes.
    Room,
    /// The end of the direction.
    End,
}

/// What is to be done after [`Outlet::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Poll the connection again: what it waited for has happened already.
    Again,
    /// Nothing until something wakes the task.
    Rest,
}

/// Polls a connection and sends what it wants to send, in one task.
pub fn drive<T>(
    mut connection: Pin<&mut impl Future<Output = T>>,
    outlet: &mut Outlet,
    cx: &mut Context<'_>,
) -> Poll<T> {
    loop {
        let ended = connection.as_mut().poll(cx);
        if outlet.poll(cx) == Next::Rest || ended.is_ready() {
            return ended;
        }
    }
}

/// Splits a connection, of which `seen` has been read already.
#[must_use]
pub fn duplex(stream: Rc<dyn AsRef<Stream>>, seen: Vec<u8>) -> (Duplex, Outlet) {
    let (received, sent) = (Cell::new(seen.len() as u64), Cell::new(0));
    let inbound = RefCell::new(Inbound { bytes: seen, taken: 0, end: None });
    let outbound = RefCell::default();
    let shared = Rc::new(Shared { stream, received, sent, inbound, outbound });
    let reading = Box::pin(read_all(Rc::clone(&shared)));
    let writing = Box::pin(write_all(Rc::clone(&shared)));
    (Duplex { shared: Rc::clone(&shared), reading }, Outlet { shared, writing })
}

impl Shared {
    fn stream(&self) -> &Stream {
        (*self.stream).as_ref()
    }
}

/// Reads whenever all that was read before has been taken.
async fn read_all(shared: Rc<Shared>) {
    loop {
        let Inbound { mut bytes, .. } = shared.inbound.take();
        bytes.clear();
        bytes.reserve(READ_BYTES);
        let (read, bytes) = shared.stream().read(bytes).await;
        {
            let mut inbound = shared.inbound.borrow_mut();
            (inbound.bytes, inbound.taken) = (bytes, 0);
            match read {
                Ok(0) => inbound.end = Some(End::Clean),
                Ok(count) => shared.received.set(shared.received.get() + count as u64),
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
            shared.stream().shutdown_write().await
        } else {
            let count = bytes.len() as u64;
            let (written, mut bytes) = shared.stream().write_all(bytes).await;
            if written.is_ok() {
                shared.sent.set(shared.sent.get() + count);
            }
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
        self.shared.stream()
    }
}

impl Outlet {
    /// Sends what was gathered. To be called after each poll of the connection, which is polled
    /// once more where the answer is so: a write that ends at once (on epoll) wakes nobody.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Next {
        let pending = self.writing.as_mut().poll(cx);
        debug_assert!(pending.is_pending());
        let mut outbound = self.shared.outbound.borrow_mut();
        let happened = match outbound.awaited {
            Some(Awaited::Room) => outbound.has_room(),
            Some(Awaited::End) => outbound.has_ended,
            None => return Next::Rest,
        };
        if happened || outbound.failure.is_some() {
            outbound.awaited = None;
            return Next::Again;
        }
        Next::Rest
    }

    /// Whether everything that was gathered is on its way or can't be sent any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let outbound = self.shared.outbound.borrow();
        let is_idle = outbound.bytes.is_empty() && !outbound.is_writing;
        is_idle || outbound.failure.is_some()
    }

    /// Bytes that were read, inside TLS where there is TLS; those seen before included.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.shared.received.get()
    }

    /// Bytes that were written, inside TLS where there is TLS.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.sent.get()
    }

    /// The connection's address, counters and state.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        self.shared.stream()
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

impl Outbound {
    const fn has_room(&self) -> bool {
        self.bytes.len() < OUTBOUND_BYTES_MAX
    }

    fn wait<T>(&mut self, awaited: Awaited) -> Poll<io::Result<T>> {
        match self.failure {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => {
                self.awaited = Some(awaited);
                Poll::Pending
            }
        }
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
        if outbound.failure.is_some() || !outbound.has_room() {
            return outbound.wait(Awaited::Room);
        }
        let count = bytes.len().min(OUTBOUND_BYTES_MAX - outbound.bytes.len());
        outbound.bytes.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbound = self.shared.outbound.borrow_mut();
        if outbound.failure.is_some() || !outbound.has_room() {
            return outbound.wait(Awaited::Room);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbound = self.shared.outbound.borrow_mut();
        outbound.is_ending = true;
        if outbound.failure.is_none() && outbound.has_ended {
            return Poll::Ready(Ok(()));
        }
        outbound.wait(Awaited::End)
    }
}

/// What a read has room for: one TLS record and what follows it soon.
pub const READ_BYTES: usize = 32 * 1024;
/// What is gathered at most before `h2` has to wait.
pub const OUTBOUND_BYTES_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::net::runtime::testing::on_both;
    use crate::net::tcp::tests::pair;

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

    /// More than fits at once, and the end behind it: on epoll nearly every write ends in the poll
    /// that begins it, so that nothing would wake the task again.
    #[test]
    fn what_does_not_fit_at_once_is_sent_to_its_end() {
        on_both(|| async {
            let (near, far) = pair();
            let (mut duplex, mut outlet) = duplex(Rc::new(Stream::from(near)), Vec::new());
            let bytes = vec![b'x'; OUTBOUND_BYTES_MAX * 20 + 1];
            let total = bytes.len();
            let reading = monoio::spawn(async move {
                let (mut received, mut buf) = (0, Vec::with_capacity(READ_BYTES));
                loop {
                    buf.clear();
                    let (read, back) = far.read(buf).await;
                    buf = back;
                    match read.unwrap() {
                        0 => return received,
                        count => received += count,
                    }
                }
            });
            let mut sending = pin!(async {
                duplex.write_all(&bytes).await?;
                duplex.flush().await?;
                duplex.shutdown().await
            });
            let sent = poll_fn(|cx| drive(sending.as_mut(), &mut outlet, cx));
            monoio::time::timeout(PATIENCE, sent).await.expect("it stands still").unwrap();
            assert_eq!(reading.await, total);
        });
    }

    #[test]
    fn a_peer_that_is_gone_ends_the_sending() {
        on_both(|| async {
            let (near, far) = pair();
            let (mut duplex, mut outlet) = duplex(Rc::new(Stream::from(near)), Vec::new());
            far.shutdown_both();
            drop(far);
            let mut sending = pin!(async {
                loop {
                    duplex.write_all(&[b'x'; 1024]).await?;
                }
            });
            let sent: io::Result<()> = poll_fn(|cx| drive(sending.as_mut(), &mut outlet, cx)).await;
            assert!(sent.is_err());
        });
    }
}
