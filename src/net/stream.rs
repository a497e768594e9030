//! A connection of either kind, with one interface, so that the HTTP drivers are written once.
//!
//! One reader and one writer may be active at the same time, in one task or in two.
//!
//! The operations under TLS are boxed: their futures are twice as large as those of plain TCP, and
//! every exchange would carry the difference. The box costs nothing beside the cryptography.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use monoio::io::CancelHandle;

use crate::net::tcp::{Peek, Tcp};
use crate::net::tls::TlsStream;

/// A connection to a client or an origin. Dropping it closes the socket.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(Tcp),
    /// TLS over TCP.
    Tls(TlsStream),
}

impl Stream {
    /// Appends what has arrived to `buf`'s spare capacity, waiting for at least one byte.
    /// `Ok(0)` is a clean end. See [`Tcp::read`] and [`TlsStream::read`].
    ///
    /// # Errors
    /// As [`Tcp::read`]; with TLS also `UnexpectedEof` (no close_notify) and `InvalidData`.
    pub async fn read(&self, buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Tcp(tcp) => tcp.read(buf).await,
            Self::Tls(tls) => Box::pin(tls.read(buf)).await,
        }
    }

    /// As [`Stream::read`], ended early by `cancel`; loses nothing. See [`Tcp::read_cancelable`].
    ///
    /// # Errors
    /// As [`Stream::read`]; `ECANCELED` ([`crate::net::tcp::is_canceled`]).
    pub async fn read_cancelable(
        &self,
        buf: Vec<u8>,
        cancel: CancelHandle,
    ) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Tcp(tcp) => tcp.read_cancelable(buf, cancel).await,
            Self::Tls(tls) => Box::pin(tls.read_cancelable(buf, cancel)).await,
        }
    }

    /// Writes all of `buf` and hands it back, for reuse.
    ///
    /// # Errors
    /// As [`Tcp::write_all`] and [`TlsStream::write_all`].
    pub async fn write_all(&self, buf: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Tcp(tcp) => tcp.write_all(buf).await,
            Self::Tls(tls) => Box::pin(tls.write_all(buf)).await,
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`Tcp::write_all`] and [`TlsStream::write_all`].
    pub async fn write_all_bytes(&self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.write_all_bytes(bytes).await,
            Self::Tls(tls) => Box::pin(tls.write_all_bytes(bytes)).await,
        }
    }

    /// Writes `head`, then `body`, in as few operations as is cheap. Hands `head` back empty.
    ///
    /// # Errors
    /// As [`Tcp::write_all`] and [`TlsStream::write_all`].
    pub async fn write_two(&self, head: Vec<u8>, body: Bytes) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Tcp(tcp) => tcp.write_two(head, body).await,
            Self::Tls(tls) => Box::pin(tls.write_two(head, body)).await,
        }
    }

    /// Takes as much of `bytes` as there is room for, without waiting. Not beside another write.
    ///
    /// # Errors
    /// As [`Tcp::try_write`] and [`TlsStream::try_write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Waits until there is something to read, or the peer closed or failed; consumes nothing.
    /// May be dropped at any time. Never answers [`Peek::Nothing`].
    ///
    /// # Errors
    /// As [`Tcp::readable`].
    pub async fn readable(&self) -> io::Result<Peek> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
            Self::Tls(tls) => tls.readable().await,
        }
    }

    /// What lies ahead, now; never waits. Not while a read is under way.
    #[must_use]
    pub fn peek_state(&self) -> Peek {
        match self {
            Self::Tcp(tcp) => tcp.peek_state(),
            Self::Tls(tls) => tls.peek_state(),
        }
    }

    /// Ends our direction cleanly, with close_notify under TLS: the peer reads an end of stream
    /// after what was written. Idempotent.
    ///
    /// # Errors
    /// As [`Tcp::shutdown_write`].
    pub async fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown_write(),
            Self::Tls(tls) => {
                tls.close_notify().await?;
                tls.tcp().shutdown_write()
            }
        }
    }

    /// Ends both directions now and wakes whoever reads or writes. See [`Tcp::shutdown_both`].
    pub fn shutdown_both(&self) {
        self.tcp().shutdown_both();
    }

    /// The peer's address, IPv4-mapped ones as plain IPv4.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.tcp().peer_addr()
    }

    /// The protocol that ALPN agreed on; `None` without TLS.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(tls) => tls.alpn(),
        }
    }

    /// Bytes that came off the wire so far: rises while the peer makes progress.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.tcp().bytes_received()
    }

    /// Bytes that went onto the wire so far: rises while a long write makes progress.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.tcp().bytes_sent()
    }

    fn tcp(&self) -> &Tcp {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }
}

impl AsRef<Self> for Stream {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl From<Tcp> for Stream {
    fn from(tcp: Tcp) -> Self {
        Self::Tcp(tcp)
    }
}

impl From<TlsStream> for Stream {
    fn from(tls: TlsStream) -> Self {
        Self::Tls(tls)
    }
}
