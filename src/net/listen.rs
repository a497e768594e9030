//! Listening sockets: one for each core on the same port, among which the kernel spreads the
//! connections (`SO_REUSEPORT`).
//!
//! With that option a second daemon would start on an occupied port in silence and take half of
//! the connections. Hence a probe socket without it is bound first and kept until all are bound.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::tcp::Tcp;

/// Connections the kernel may hold until a core accepts them; it cuts this to `somaxconn`.
const BACKLOG: i32 = 4096;

/// The listening sockets of all cores.
#[derive(Debug)]
pub struct Listeners {
    /// Where they listen; the port is the real one, also when 0 was asked for.
    pub address: SocketAddr,
    /// One for each core, to be moved to its thread and given to [`Acceptor::new`].
    pub sockets: Vec<StdListener>,
}

/// Binds one listening socket for each of `cores` to `address`. Port 0 picks a free one, the same
/// for all. The unspecified IPv6 address also takes IPv4 connections. Waits up to a second for an
/// address that is in use: the sockets of a process that was killed outlive it for some
/// milliseconds while the kernel takes its io_uring down.
///
/// # Errors
/// Says what is wrong with the address, for the operator.
pub fn bind(address: SocketAddr, cores: NonZeroUsize) -> Result<Listeners, BindError> {
    let since = Instant::now();
    loop {
        match bind_now(address, cores) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && since.elapsed() < LEAVING_SPAN =>
            {
                std::thread::sleep(LEAVING_PAUSE);
            }
            bound => return bound,
        }
    }
}

fn bind_now(address: SocketAddr, cores: NonZeroUsize) -> Result<Listeners, BindError> {
    let fault = |error| BindError::new(address, error);
    let probe = socket(address).map_err(fault)?;
    probe.bind(&address.into()).map_err(fault)?;
    let bound = probe.local_addr().map_err(fault)?;
    let bound = bound.as_socket().ok_or_else(|| fault(io::ErrorKind::Unsupported.into()))?;
    let mut sockets = Vec::with_capacity(cores.get());
    for _ in 0..cores.get() {
        let socket = socket(bound).map_err(fault)?;
        setsockopt(&socket, sockopt::ReusePort, &true).map_err(|error| fault(error.into()))?;
        socket.bind(&bound.into()).map_err(fault)?;
        sockets.push(socket);
    }
    // Only now: a listening socket would make the next `bind` collide with the probe.
    drop(probe);
    for socket in &sockets {
        socket.listen(BACKLOG).map_err(fault)?;
    }
    let sockets = sockets.into_iter().map(StdListener::from).collect();
    Ok(Listeners { address: bound, sockets })
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    // `Socket::new` sets CLOEXEC.
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Non-blocking for `Acceptor`, which polls; accepted sockets inherit NODELAY.
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl BindError {
    const fn new(address: SocketAddr, error: io::Error) -> Self {
        Self { address, error }
    }

    /// The error of the system call.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "{address}: address already in use: another process listens there")
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "{address}: permission denied: ports below 1024 need CAP_NET_BIND_SERVICE"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "{address}: no network interface has this address")
            }
            _ => write!(f, "{address}: {}", self.error),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// A core's listening socket inside its runtime.
///
/// It waits for readiness and then accepts by a plain system call, because monoio's own accept
/// leaks the accepted descriptor when it is dropped, and leaves out CLOEXEC. So
/// [`Acceptor::accept`] may be dropped at any time.
#[derive(Debug)]
pub struct Acceptor {
    socket: StdListener,
    /// The same socket under a second descriptor, known to the driver, for waiting.
    waiter: monoio::net::TcpListener,
}

impl Acceptor {
    /// Takes over one of [`Listeners::sockets`]. Call it inside the runtime.
    ///
    /// # Errors
    /// When descriptors are exhausted.
    pub fn new(socket: StdListener) -> io::Result<Self> {
        let waiter = monoio::net::TcpListener::from_std(socket.try_clone()?)?;
        Ok(Self { socket, waiter })
    }

    /// The next connection, with NODELAY and CLOEXEC set. Connections that died in the queue are
    /// passed over.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: the connection stays in the queue and the next
    /// call fails at once, so that the caller should pause before it.
    pub async fn accept(&self) -> io::Result<Tcp> {
        loop {
            match self.socket.accept() {
                Ok((stream, peer)) => return Tcp::from_std(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.waiter.readable(false).await?;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Errors that concern the connection that was about to be accepted, not the listener
/// (`accept(2)`, "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::PermissionDenied
    )
}

/// How long a process that has ended may still hold an address.
const LEAVING_SPAN: Duration = Duration::from_secs(1);
const LEAVING_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as StdStream;

    use super::*;
    use crate::net::runtime::testing::on_both;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn all_cores_share_the_port_that_was_picked() {
        let listeners = bind(local(0), TWO).unwrap();
        assert_ne!(listeners.address.port(), 0);
        for socket in &listeners.sockets {
            assert_eq!(socket.local_addr().unwrap(), listeners.address);
        }
        // Every connection lands on one of them.
        let clients: Vec<_> =
            (0..32).map(|_| StdStream::connect(listeners.address).unwrap()).collect();
        let accepted =
            listeners.sockets.iter().flat_map(|it| std::iter::from_fn(|| it.accept().ok()));
        assert_eq!(accepted.count(), clients.len());
    }

    #[test]
    fn occupied_port_is_refused_also_when_its_owner_shares_it() {
        let first = bind(local(0), TWO).unwrap();
        let error = bind(first.address, TWO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("address already in use"), "{error}");
        drop(first);
    }

    #[test]
    fn port_of_a_process_that_is_ending_is_waited_for() {
        let first = bind(local(0), TWO).unwrap();
        let address = first.address;
        assert_eq!(bind_now(address, TWO).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let leaving = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        assert_eq!(bind(address, TWO).unwrap().address, address);
        leaving.join().unwrap();
    }

    #[test]
    fn port_is_free_again_at_once_after_its_listeners_are_gone() {
        let first = bind(local(0), TWO).unwrap();
        let address = first.address;
        // The side that closes first keeps the port in TIME_WAIT.
        let client = StdStream::connect(address).unwrap();
        for socket in &first.sockets {
            drop(socket.accept());
        }
        drop((first, client));
        bind(address, TWO).unwrap();
    }

    #[test]
    fn foreign_address_is_explained() {
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 0)), TWO).unwrap_err();
        assert!(error.to_string().contains("no network interface"), "{error}");
    }

    #[test]
    fn unspecified_ipv6_address_takes_ipv4_clients_as_plain_ipv4() {
        on_both(|| async {
            let any = SocketAddr::from(([0; 8], 0));
            let Ok(mut listeners) = bind(any, NonZeroUsize::MIN) else {
                return; // A machine without IPv6.
            };
            let acceptor = Acceptor::new(listeners.sockets.remove(0)).unwrap();
            let client = StdStream::connect(local(listeners.address.port())).unwrap();
            let accepted = acceptor.accept().await.unwrap();
            assert_eq!(accepted.peer_addr(), client.local_addr().unwrap());
            assert!(accepted.peer_addr().is_ipv4());
        });
    }

    #[test]
    fn accepted_connection_works_and_a_dropped_accept_leaks_none() {
        on_both(|| async {
            let mut listeners = bind(local(0), NonZeroUsize::MIN).unwrap();
            let acceptor = Acceptor::new(listeners.sockets.remove(0)).unwrap();
            for _ in 0..50 {
                let pause = std::time::Duration::from_micros(200);
                let nobody = monoio::time::timeout(pause, acceptor.accept()).await;
                assert!(nobody.is_err());
                let mut client = StdStream::connect(listeners.address).unwrap();
                client.write_all(b"ping").unwrap();
                let server = acceptor.accept().await.unwrap();
                assert_eq!(server.peer_addr(), client.local_addr().unwrap());
                let (result, buf) = server.read(Vec::with_capacity(16)).await;
                assert_eq!((result.unwrap(), buf.as_slice()), (4, b"ping".as_slice()));
                server.write_all(buf).await.0.unwrap();
                server.shutdown_write().unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).unwrap();
                assert_eq!(answer, "ping");
            }
        });
    }
}
