//! What moves between rustls and the socket: the reader's side, the writer's side, and the one
//! place where ciphertext leaves.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, IoSlice, Write};
use std::rc::Rc;

use monoio::io::CancelHandle;
use rustls::Connection;

use crate::net::tcp::{Peek, Tcp};
use crate::net::tls::lock::WriteLock;

/// Ciphertext asked for at a time: enough for a request, little for an idle connection.
const READ_BYTES_IDLE: usize = 4 * 1024;
/// The same while the peer keeps filling the buffer: two full records.
const READ_BYTES_BUSY: usize = 32 * 1024;
/// A write buffer up to this size is kept for the next write: one full record.
const KEPT_BYTES_MAX: usize = 17 * 1024;
/// Reads of one look ahead: a peer that sends records without content must not
/// hold the core.
const PEEK_READS_MAX: usize = 8;

/// The state of one connection.
pub(super) struct Inner {
    pub(super) tcp: Tcp,
    pub(super) tls: RefCell<Connection>,
    incoming: RefCell<Incoming>,
    /// Ciphertext taken from rustls and not yet sent: goes before anything that is taken later.
    outgoing: RefCell<Vec<u8>>,
    pub(super) write_lock: WriteLock,
    /// The error that ended the incoming direction, repeated to every later read.
    failure: RefCell<Option<rustls::Error>>,
    pub(super) close_notify_sent: Cell<bool>,
}

/// Ciphertext received and not yet given to rustls.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// Below it everything was given to rustls.
    used: usize,
    /// What to ask for next time; zero is [`READ_BYTES_IDLE`].
    ask: usize,
}

/// What rustls has for the reader.
enum Plaintext {
    /// Bytes were appended.
    Bytes(usize),
    /// The peer's close_notify came, and all before it was read.
    End,
    /// More ciphertext is needed.
    Pending,
}

impl Inner {
    pub(super) fn new(tcp: Tcp, tls: Connection) -> Self {
        Self {
            tcp,
            tls: RefCell::new(tls),
            incoming: RefCell::new(Incoming::default()),
            outgoing: RefCell::new(Vec::new()),
            write_lock: WriteLock::default(),
            failure: RefCell::new(None),
            close_notify_sent: Cell::new(false),
        }
    }

    pub(super) async fn read(
        self: &Rc<Self>,
        mut buf: Vec<u8>,
        cancel: Option<CancelHandle>,
    ) -> (io::Result<usize>, Vec<u8>) {
        debug_assert!(buf.capacity() > buf.len(), "a read needs spare capacity");
        if buf.capacity() == buf.len() {
            return (Err(io::ErrorKind::InvalidInput.into()), buf);
        }
        loop {
            match self.take_plaintext(&mut buf) {
                Ok(Plaintext::Bytes(count)) => return (Ok(count), buf),
                Ok(Plaintext::End) => return (Ok(0), buf),
                Ok(Plaintext::Pending) => {}
                Err(error) => return (Err(error), buf),
            }
            if self.feed() {
                continue;
            }
            let received = match self.failed() {
                Ok(()) => self.receive(cancel.clone()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = received {
                return (Err(error), buf);
            }
        }
    }

    fn take_plaintext(&self, buf: &mut Vec<u8>) -> io::Result<Plaintext> {
        let mut tls = self.tls.borrow_mut();
        let mut reader = tls.reader();
        let mut total = 0;
        loop {
            let spare = buf.capacity() - buf.len();
            match reader.fill_buf() {
                Ok(chunk) if !chunk.is_empty() && spare > 0 => {
                    let count = chunk.len().min(spare);
                    buf.extend(chunk.iter().take(count));
                    reader.consume(count);
                    total += count;
                }
                _ if total > 0 => return Ok(Plaintext::Bytes(total)),
                Ok(_) => return Ok(Plaintext::End),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Plaintext::Pending);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives rustls a piece of what was received. False when there is nothing to give, or rustls
    /// has given up. Call it only when no plaintext is pending: rustls keeps a bounded amount.
    pub(super) fn feed(self: &Rc<Self>) -> bool {
        let mut incoming = self.incoming.borrow_mut();
        let incoming = &mut *incoming;
        let mut rest = incoming.bytes.get(incoming.used..).unwrap_or_default();
        if rest.is_empty() || self.failure.borrow().is_some() {
            return false;
        }
        let mut tls = self.tls.borrow_mut();
        let before = rest.len();
        let fed = tls.read_tls(&mut rest);
        incoming.used += before - rest.len();
        if !matches!(fed, Ok(1..)) {
            // After close_notify nothing counts any more (RFC 8446 section 6.1).
            incoming.used = incoming.bytes.len();
        }
        let unfed = fed.map_err(|error| rustls::Error::General(error.to_string()));
        let processed = tls.process_new_packets();
        drop(tls);
        if let Err(error) = processed.and(unfed) {
            *self.failure.borrow_mut() = Some(error);
        }
        self.flush_now();
        true
    }

    pub(super) fn failed(&self) -> io::Result<()> {
        match &*self.failure.borrow() {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
            None => Ok(()),
        }
    }

    /// Receives ciphertext; zero is the end of the TCP stream, which rustls is told.
    pub(super) async fn receive(&self, cancel: Option<CancelHandle>) -> io::Result<usize> {
        let (mut bytes, ask) = self.incoming.borrow_mut().take_room();
        let result;
        (result, bytes) = match cancel {
            None => self.tcp.read(bytes).await,
            Some(cancel) => self.tcp.read_cancelable(bytes, cancel).await,
        };
        self.received(bytes, ask, result)
    }

    fn received(&self, bytes: Vec<u8>, ask: usize, result: io::Result<usize>) -> io::Result<usize> {
        let mut incoming = self.incoming.borrow_mut();
        incoming.bytes = bytes;
        let count = result?;
        incoming.ask = match count {
            count if count == ask => READ_BYTES_BUSY,
            count if count < READ_BYTES_IDLE => READ_BYTES_IDLE,
            _ => ask,
        };
        if count == 0 {
            self.tls.borrow_mut().read_tls(&mut io::empty())?;
        }
        Ok(count)
    }

    pub(super) fn peek_state(self: &Rc<Self>) -> Peek {
        for _ in 0..PEEK_READS_MAX {
            loop {
                let mut tls = self.tls.borrow_mut();
                match tls.reader().fill_buf() {
                    Ok([]) => return Peek::Closed,
                    Ok(_) => return Peek::Data,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Peek::Closed,
                }
                drop(tls);
                if !self.feed() {
                    break;
                }
            }
            if self.failure.borrow().is_some() {
                return Peek::Error;
            }
            let (mut bytes, ask) = self.incoming.borrow_mut().take_room();
            bytes.resize(READ_BYTES_IDLE, 0);
            let result = self.tcp.try_read(&mut bytes);
            bytes.truncate(*result.as_ref().unwrap_or(&0));
            match self.received(bytes, ask, result) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Peek::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Peek::Error,
            }
        }
        Peek::Nothing
    }

    pub(super) async fn write_parts(&self, mut parts: [&[u8]; 2]) -> io::Result<()> {
        let _lock = self.write_lock.acquire().await;
        if self.close_notify_sent.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        while parts.iter().any(|part| !part.is_empty()) {
            // rustls takes up to its buffer limit, 64 KiB.
            let slices = parts.map(IoSlice::new);
            let sealed = self.tls.borrow_mut().writer().write_vectored(&slices)?;
            if sealed == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            parts = advance(parts, sealed);
            self.flush_locked().await?;
        }
        Ok(())
    }

    /// Seals what rustls takes of `bytes` and sends of it what fits, without waiting. What does not
    /// fit goes out by itself, or with the next write.
    pub(super) fn write_now(self: &Rc<Self>, bytes: &[u8]) -> io::Result<usize> {
        if self.close_notify_sent.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.flush_now();
        if !self.outgoing.borrow().is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sealed = self.tls.borrow_mut().writer().write(bytes)?;
        if sealed == 0 && !bytes.is_empty() {
            // A task waits for room already, and rustls is full.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.flush_now();
        Ok(sealed)
    }

    pub(super) async fn flush(&self) -> io::Result<()> {
        let _lock = self.write_lock.acquire().await;
        self.flush_locked().await
    }

    /// Sends everything rustls has, also what it gets while this waits. The lock must be held.
    pub(super) async fn flush_locked(&self) -> io::Result<()> {
        debug_assert!(self.write_lock.is_held());
        loop {
            let bytes = self.collect();
            if bytes.is_empty() {
                self.keep(bytes);
                return Ok(());
            }
            let (result, mut bytes) = self.tcp.write_all(bytes).await;
            bytes.clear();
            self.keep(bytes);
            result?;
        }
    }

    /// Sends what the reader has caused, without waiting. Whoever holds the lock sends it anyway;
    /// where the socket's buffer is full, a task waits for room.
    pub(super) fn flush_now(self: &Rc<Self>) {
        if !self.tls.borrow().wants_write() && self.outgoing.borrow().is_empty() {
            return;
        }
        let Some(lock) = self.write_lock.try_acquire() else { return };
        let mut bytes = self.collect();
        // An error is the reader's to find: it concerns the socket.
        let sent = self.tcp.try_write(&bytes).unwrap_or(0);
        bytes.drain(..sent);
        let (rest, fatal) = (!bytes.is_empty(), self.failure.borrow().is_some());
        self.keep(bytes);
        drop(lock);
        if rest && !fatal {
            let inner = self.clone();
            monoio::spawn(async move {
                // As above; a dropped connection ends this by `shutdown_both`.
                let _ = inner.flush().await;
            });
        }
    }

    /// All ciphertext that is to be sent now.
    fn collect(&self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut *self.outgoing.borrow_mut());
        let mut tls = self.tls.borrow_mut();
        while tls.wants_write() {
            // Writing to a `Vec` can't fail.
            let _ = tls.write_tls(&mut bytes);
        }
        bytes
    }

    /// Puts back what was not sent, or an empty buffer for the next time.
    fn keep(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() || bytes.capacity() <= KEPT_BYTES_MAX {
            *self.outgoing.borrow_mut() = bytes;
        }
    }
}

impl Incoming {
    /// The empty buffer for the next receive, and how much it asks for.
    fn take_room(&mut self) -> (Vec<u8>, usize) {
        debug_assert!(self.used >= self.bytes.len(), "ciphertext would be lost");
        let ask = self.ask.max(READ_BYTES_IDLE);
        let mut bytes = std::mem::take(&mut self.bytes);
        self.used = 0;
        bytes.clear();
        if bytes.capacity() != ask {
            bytes = Vec::with_capacity(ask);
        }
        (bytes, ask)
    }
}

/// What is left of `parts` after their first `count` bytes.
fn advance(parts: [&[u8]; 2], count: usize) -> [&[u8]; 2] {
    let [first, second] = parts;
    let of_first = count.min(first.len());
    let of_second = count - of_first;
    [first.get(of_first..).unwrap_or_default(), second.get(of_second..).unwrap_or_default()]
}
