//! TLS over one TCP connection, on rustls, usable by one reader and one writer at the same time.
//!
//! ```text
//!  read  <- plaintext <- rustls <- ciphertext (incoming) <- Tcp::read
//!  write -> rustls -> ciphertext -> Tcp::write_all          one at a time: WriteLock
//!              ^ the reader's alerts and handshake messages go the same way
//! ```
//!
//! rustls is a state machine without I/O; it stands in a `RefCell` that is borrowed between
//! awaits only. All ciphertext leaves through one place, in the order rustls made it, while its
//! lock is held. What a *reader* causes to be sent (an alert, an answer of the protocol) leaves
//! at once by a send that never waits; only if the socket's buffer is full does a task of its own
//! wait for room. If a writer holds the lock, it takes the reader's bytes along.
//!
//! A connection that ends without close_notify is an error, `UnexpectedEof`: a body cut short by
//! an attacker must not look complete (RFC 8446 section 6.1). Bad records are an error,
//! `InvalidData`, after what was decrypted before them has been read.
//!
//! Cost: for a read one ring operation when nothing is buffered, for a write one for each 64 KiB;
//! about 4 KiB of read buffer for an idle connection, besides what rustls keeps.

mod config;
mod inner;
mod lock;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use monoio::io::CancelHandle;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, ServerConfig, ServerConnection,
};

use crate::net::tcp::{Peek, Tcp};
use crate::net::tls::inner::Inner;

pub use config::{TlsConfigError, client_config, server_config};

/// HTTP/2 in ALPN (RFC 9113 section 3.2).
pub const HTTP2: &[u8] = b"h2";
/// HTTP/1.1 in ALPN (RFC 7301 section 6).
pub const HTTP1: &[u8] = b"http/1.1";

/// An established TLS connection. Dropping it closes the socket, without close_notify: the peer
/// sees a truncated stream unless [`TlsStream::close_notify`] ended it before.
pub struct TlsStream {
    /// Shared with at most one task, which sends what a reader could not.
    inner: Rc<Inner>,
    alpn: Option<Box<[u8]>>,
}

/// Performs the server's side of the handshake. Has no time limit; may be dropped at any time.
///
/// # Errors
/// `InvalidData` with rustls's reason when the peer breaks the protocol or nothing in common is
/// found (the peer is sent an alert); `UnexpectedEof`; socket errors.
pub async fn accept(tcp: Tcp, config: Arc<ServerConfig>) -> io::Result<TlsStream> {
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    handshake(tcp, tls.into()).await
}

/// Performs the client's side of the handshake: the peer must prove to be `name`. Has no time
/// limit; may be dropped at any time.
///
/// # Errors
/// As [`accept`]; a certificate that doesn't verify is `InvalidData` too.
pub async fn connect(
    tcp: Tcp,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<TlsStream> {
    let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    handshake(tcp, tls.into()).await
}

async fn handshake(tcp: Tcp, tls: Connection) -> io::Result<TlsStream> {
    let inner = Rc::new(Inner::new(tcp, tls));
    let mut stream = TlsStream { inner, alpn: None };
    let inner = stream.inner.clone();
    loop {
        inner.flush().await?;
        if !inner.tls.borrow().is_handshaking() {
            break;
        }
        if !inner.feed() {
            inner.failed()?;
            if inner.receive(None).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    stream.alpn = inner.tls.borrow().alpn_protocol().map(Into::into);
    Ok(stream)
}

impl TlsStream {
    /// Appends plaintext to `buf`'s spare capacity, waiting for at least one byte. `Ok(0)` is the
    /// peer's close_notify.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends without close_notify; `InvalidData` after a bad
    /// record; as [`Tcp::read`] otherwise.
    pub async fn read(&self, buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.inner.read(buf, None).await
    }

    /// As [`TlsStream::read`], ended early by `cancel` with `ECANCELED`. Loses nothing.
    ///
    /// # Errors
    /// As [`TlsStream::read`].
    pub async fn read_cancelable(
        &self,
        buf: Vec<u8>,
        cancel: CancelHandle,
    ) -> (io::Result<usize>, Vec<u8>) {
        self.inner.read(buf, Some(cancel)).await
    }

    /// Writes all of `buf` and hands it back, for reuse.
    ///
    /// # Errors
    /// `BrokenPipe` after close_notify; `InvalidData` after a bad record from the peer; as
    /// [`Tcp::write_all`] otherwise.
    pub async fn write_all(&self, buf: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        (self.inner.write_parts([&buf, &[]]).await, buf)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`TlsStream::write_all`].
    pub async fn write_all_bytes(&self, bytes: Bytes) -> io::Result<()> {
        self.inner.write_parts([&bytes, &[]]).await
    }

    /// Writes `head`, then `body`, sharing records. Hands `head` back empty.
    ///
    /// # Errors
    /// As [`TlsStream::write_all`].
    pub async fn write_two(&self, mut head: Vec<u8>, body: Bytes) -> (io::Result<()>, Vec<u8>) {
        let result = self.inner.write_parts([&head, &body]).await;
        head.clear();
        (result, head)
    }

    /// Takes as much of `bytes` as there is room for, without waiting. What was taken is sent, if
    /// need be later. Not beside another write.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; `BrokenPipe` after close_notify.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_now(bytes)
    }

    /// Waits until there is plaintext to read, or the peer closed or failed. Records without
    /// plaintext (session tickets, key updates) are dealt with on the way. May be dropped at any
    /// time. Never answers [`Peek::Nothing`].
    ///
    /// # Errors
    /// As [`Tcp::readable`].
    pub async fn readable(&self) -> io::Result<Peek> {
        loop {
            match self.peek_state() {
                Peek::Nothing if self.inner.tcp.readable().await? == Peek::Error => {
                    return Ok(Peek::Error);
                }
                Peek::Nothing => {}
                state => return Ok(state),
            }
        }
    }

    /// What lies ahead, now: never waits. Receives and decrypts what has arrived, so that a
    /// session ticket is not taken for data. [`Peek::Nothing`] while a read is under way;
    /// [`Peek::Closed`] also without close_notify.
    #[must_use]
    pub fn peek_state(&self) -> Peek {
        self.inner.peek_state()
    }

    /// Tells the peer that nothing more follows. Idempotent; reading goes on.
    ///
    /// # Errors
    /// As [`Tcp::write_all`].
    pub async fn close_notify(&self) -> io::Result<()> {
        let _lock = self.inner.write_lock.acquire().await;
        if !self.inner.close_notify_sent.replace(true) {
            self.inner.tls.borrow_mut().send_close_notify();
        }
        self.inner.flush_locked().await
    }

    /// The protocol that ALPN (RFC 7301) agreed on, if any.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// Whether the handshake was shortened by an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.inner.tls.borrow().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The TCP connection below, for its addresses, counters (of ciphertext) and shutdown.
    #[must_use]
    pub fn tcp(&self) -> &Tcp {
        &self.inner.tcp
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("tcp", &self.inner.tcp).finish_non_exhaustive()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // A task that waits for room on behalf of the reader must not outlive the connection.
        if Rc::strong_count(&self.inner) > 1 {
            self.inner.tcp.shutdown_both();
        }
    }
}

#[cfg(test)]
mod tests;
