//! One TCP connection, usable by one reader and one writer at the same time.
//!
//! monoio wants `&mut` for each operation although it works on a counted descriptor. The two
//! halves therefore stand in cells of their own, and the borrow that lasts over an operation is
//! the claim of the one reader or the one writer. A second one gets an error, not a mix of bytes.
//!
//! An operation that is dropped before it ends may have moved bytes that nobody will hear of.
//! That direction is then *abandoned*: every later operation in it fails, so that a request is
//! never parsed from, nor a response written behind, a hole. A deadline is enforced by
//! [`Tcp::shutdown_both`] from outside, which ends the operation in the normal way, or by
//! [`Tcp::read_cancelable`].
//!
//! Cost: one ring operation for a read or a write, no allocation, no timer.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use bytes::Bytes;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, CancelHandle, CancelableAsyncReadRent, OwnedReadHalf,
    OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

/// What [`Tcp::write_two`] sends in one operation by copying; beyond it the rest of the body goes
/// in a second one. Copying 16 KiB costs less than the second operation.
const COALESCE_BYTES_MAX: usize = 16 * 1024;
/// How long to wait where the kernel woke us without a reason, so that it can't become a spin.
const SPURIOUS_WAKE_PAUSE: Duration = Duration::from_millis(10);

/// What lies ahead on a connection, found without consuming it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Neither bytes nor an end: an idle connection in good order.
    Nothing,
    /// Unread bytes.
    Data,
    /// The peer has closed (or half-closed) and everything before that was read.
    Closed,
    /// The connection was reset or failed.
    Error,
}

/// A connected TCP socket. Dropping it closes the socket.
pub struct Tcp {
    reader: Side<OwnedReadHalf<TcpStream>>,
    writer: Side<OwnedWriteHalf<TcpStream>>,
    /// Valid as long as the halves live, which is as long as `self`.
    fd: RawFd,
    peer: SocketAddr,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Tcp {
    /// Takes over a monoio stream connected to `peer`.
    #[must_use]
    pub fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        let fd = stream.as_raw_fd();
        let (reader, writer) = stream.into_split();
        let (received, sent) = (Cell::new(0), Cell::new(0));
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self { reader: Side::new(reader), writer: Side::new(writer), fd, peer, received, sent }
    }

    /// Takes over a socket of the standard library connected to `peer`. Call it inside the runtime.
    ///
    /// # Errors
    /// When the socket can't be registered with the driver.
    pub fn from_std(stream: StdStream, peer: SocketAddr) -> io::Result<Self> {
        // epoll needs non-blocking sockets; io_uring would hand `EAGAIN` through on them.
        stream.set_nonblocking(monoio::utils::is_legacy())?;
        Ok(Self::new(TcpStream::from_std(stream)?, peer))
    }

    /// Appends what has arrived to `buf`'s spare capacity, waiting for at least one byte.
    /// `Ok(0)` is the peer's end of stream. Bytes already in `buf` are never touched.
    ///
    /// # Errors
    /// A socket error; `InvalidInput` for a buffer without spare capacity; `WouldBlock` while
    /// another read is under way; `Other` after a read that was dropped unfinished.
    pub async fn read(&self, buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read_with(buf, None).await
    }

    /// As [`Tcp::read`], ended early by `cancel` with `ECANCELED` ([`is_canceled`]). Bytes that
    /// arrived before the cancel are returned; those that arrive later stay in the socket.
    ///
    /// # Errors
    /// As [`Tcp::read`].
    pub async fn read_cancelable(
        &self,
        buf: Vec<u8>,
        cancel: CancelHandle,
    ) -> (io::Result<usize>, Vec<u8>) {
        self.read_with(buf, Some(cancel)).await
    }

    #[inline]
    async fn read_with(
        &self,
        mut buf: Vec<u8>,
        cancel: Option<CancelHandle>,
    ) -> (io::Result<usize>, Vec<u8>) {
        debug_assert!(buf.capacity() > buf.len(), "a read needs spare capacity");
        if buf.capacity() == buf.len() {
            return (Err(io::ErrorKind::InvalidInput.into()), buf);
        }
        let mut claim = match self.reader.claim() {
            Ok(claim) => claim,
            Err(error) => return (Err(error), buf),
        };
        loop {
            let start = buf.len();
            let spare = buf.slice_mut(start..);
            let (result, spare) = match &cancel {
                None => claim.half.read(spare).await,
                Some(cancel) => claim.half.cancelable_read(spare, cancel.clone()).await,
            };
            buf = spare.into_inner();
            match result {
                Err(error) if is_transient(&error, cancel.as_ref()) => {}
                result => {
                    claim.settle();
                    let count = *result.as_ref().unwrap_or(&0);
                    self.received.set(self.received.get() + count as u64);
                    return (result, buf);
                }
            }
        }
    }

    /// Writes all of `buf` and hands it back, for reuse.
    ///
    /// # Errors
    /// A socket error, after which an unknown part has been sent; `WriteZero`; `WouldBlock` while
    /// another write is under way; `Other` after a write that was dropped unfinished.
    pub async fn write_all(&self, buf: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.write_buf(buf).await
    }

    /// Writes all of `bytes`, without copying them.
    ///
    /// # Errors
    /// As [`Tcp::write_all`].
    pub async fn write_all_bytes(&self, bytes: Bytes) -> io::Result<()> {
        self.write_buf(bytes).await.0
    }

    /// Writes `head`, then `body`, in one operation up to 16 KiB of body and in two beyond. Hands
    /// `head` back empty, for reuse.
    ///
    /// A vectored write would need `unsafe` here: monoio keeps pointers, not the buffers, while
    /// such an operation is under way.
    ///
    /// # Errors
    /// As [`Tcp::write_all`].
    pub async fn write_two(&self, mut head: Vec<u8>, mut body: Bytes) -> (io::Result<()>, Vec<u8>) {
        let first = body.split_to(body.len().min(COALESCE_BYTES_MAX));
        head.extend_from_slice(&first);
        let (mut result, mut head) = self.write_buf(head).await;
        head.clear();
        if result.is_ok() && !body.is_empty() {
            result = self.write_buf(body).await.0;
        }
        (result, head)
    }

    async fn write_buf<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
        let mut claim = match self.writer.claim() {
            Ok(claim) => claim,
            Err(error) => return (Err(error), buf),
        };
        let total = buf.bytes_init();
        let (mut buf, mut done) = (buf, 0);
        while done < total {
            let part = buf.slice(done..total);
            let (result, part) = claim.half.write(part).await;
            buf = part.into_inner();
            match result {
                Ok(0) => {
                    claim.settle();
                    return (Err(io::ErrorKind::WriteZero.into()), buf);
                }
                Ok(count) => {
                    done += count;
                    self.sent.set(self.sent.get() + count as u64);
                }
                Err(error) if is_transient(&error, None) => {}
                Err(error) => {
                    claim.settle();
                    return (Err(error), buf);
                }
            }
        }
        claim.settle();
        (Ok(()), buf)
    }

    /// Waits until there are bytes to read, or the peer closed or failed; consumes nothing and
    /// holds no buffer. May be dropped at any time. Counts as a read: not beside another one.
    ///
    /// # Errors
    /// `WouldBlock` while a read is under way; `Other` after a read that was dropped unfinished.
    pub async fn readable(&self) -> io::Result<Peek> {
        let mut claim = self.reader.claim()?;
        claim.settle(); // Nothing is consumed, hence nothing can be lost.
        loop {
            // A receive of no bytes: Linux lets it wait like any other and then takes nothing.
            let (result, _) = claim.half.read(Vec::new().slice_mut(..)).await;
            match (self.peek_state(), result) {
                (Peek::Nothing, Err(error)) if is_transient(&error, None) => {}
                // The socket is in good order, whatever became of the operation.
                // Boxed: it hardly ever happens, and thousands of connections wait here.
                (Peek::Nothing, _) => {
                    Box::pin(monoio::time::sleep(SPURIOUS_WAKE_PAUSE)).await;
                }
                (state, _) => return Ok(state),
            }
        }
    }

    /// What lies ahead, now. One system call, never waits.
    #[must_use]
    pub fn peek_state(&self) -> Peek {
        let mut byte = [0];
        loop {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            return match recv(self.fd, &mut byte, flags) {
                Ok(0) => Peek::Closed,
                Ok(_) => Peek::Data,
                Err(Errno::EAGAIN) => Peek::Nothing,
                Err(Errno::EINTR) => continue,
                Err(_) => Peek::Error,
            };
        }
    }

    /// Copies into `buf` what has already arrived, without taking it or waiting. `Ok(0)` is the end
    /// of stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived or a read is under way; other socket errors.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.claim()?.settle();
        Ok(recv(self.fd, buf, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?)
    }

    /// Receives into `buf` what has already arrived, without waiting. `Ok(0)` is the end of
    /// stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived or a read is under way; other socket errors.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.claim()?.settle();
        let count = recv(self.fd, buf, MsgFlags::MSG_DONTWAIT)?;
        self.received.set(self.received.get() + count as u64);
        Ok(count)
    }

    /// Sends as much of `bytes` as fits the socket's buffer, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits or a write is under way; other socket errors.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.claim()?.settle();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let count = send(self.fd, bytes, flags)?;
        self.sent.set(self.sent.get() + count as u64);
        Ok(count)
    }

    /// Ends our direction: the peer reads an end of stream after what was written. Never waits.
    ///
    /// # Errors
    /// `NotConnected` when the connection is already gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(shutdown(self.fd, Shutdown::Write)?)
    }

    /// Ends both directions now. A read under way returns `Ok(0)` or an error, a write under way
    /// an error: this is how a deadline ends an operation without dropping it.
    pub fn shutdown_both(&self) {
        // The one possible failure is that the connection is gone already.
        let _ = shutdown(self.fd, Shutdown::Both);
    }

    /// The peer's address, IPv4-mapped ones as plain IPv4. No system call.
    #[must_use]
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Bytes read so far: rises while the peer makes progress.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes the kernel took so far: rises while a long write makes progress.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.get()
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        // Dropped on its own, the write half would make a system call for a shutdown that the
        // close implies.
        if let (Some(reader), Some(writer)) = (self.reader.take(), self.writer.take()) {
            drop(reader.reunite(writer));
        }
    }
}

/// Whether an operation ended because its `CancelHandle` fired.
#[must_use]
pub fn is_canceled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ECANCELED as i32)
}

/// An interrupted operation is repeated; so is one that was cancelled although nobody could have
/// asked for that: on epoll, the cancel of an earlier operation may strike a later one.
fn is_transient(error: &io::Error, cancel: Option<&CancelHandle>) -> bool {
    error.kind() == io::ErrorKind::Interrupted || (cancel.is_none() && is_canceled(error))
}

/// One direction of a connection. `None` only while the connection is being dropped.
struct Side<T> {
    half: RefCell<Option<T>>,
    /// An operation was dropped unfinished: what it moved is unknown.
    abandoned: Cell<bool>,
}

/// The right to be the one reader or writer, for one call.
struct Claim<'a, T> {
    half: RefMut<'a, T>,
    abandoned: &'a Cell<bool>,
}

impl<T> Side<T> {
    const fn new(half: T) -> Self {
        Self { half: RefCell::new(Some(half)), abandoned: Cell::new(false) }
    }

    /// Until [`Claim::settle`] the direction counts as abandoned.
    fn claim(&self) -> io::Result<Claim<'_, T>> {
        let half = self.half.try_borrow_mut().map_err(|_| io::ErrorKind::WouldBlock)?;
        if self.abandoned.get() {
            return Err(io::Error::other("an earlier operation was dropped unfinished"));
        }
        let half = RefMut::filter_map(half, Option::as_mut);
        let half = half.map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
        self.abandoned.set(true);
        Ok(Claim { half, abandoned: &self.abandoned })
    }

    fn take(&self) -> Option<T> {
        self.half.try_borrow_mut().ok()?.take()
    }
}

impl<T> Claim<'_, T> {
    fn settle(&mut self) {
        self.abandoned.set(false);
    }
}

#[cfg(test)]
pub(crate) mod tests;
