//! Dialling an origin: every address is vetted, then tried in order with a fallback delay ("happy
//! eyeballs", RFC 8305 section 5), and the first that answers wins.
//!
//! The addresses that are dialled are the very values that were vetted: no name is looked up here,
//! so that a resolver that answers differently a second time changes nothing.
//!
//! Losers and attempts past the deadline are dropped. That cancels the connect in the kernel and
//! closes its socket a few milliseconds later.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use monoio::net::TcpStream;
use monoio::time::timeout;

use crate::net::tcp::Tcp;

/// Head start of an address over the next one: RFC 8305 section 5, "Connection Attempt Delay".
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Unanswered keep-alive probes before the kernel gives a connection up.
const KEEP_ALIVE_PROBES: u32 = 3;

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// For all addresses together (`client.dial_timeout`, default 10 s).
    pub timeout: Duration,
    /// Idle time before TCP keep-alive probes, and between them (`client.keep_alive`, default
    /// 30 s; whole seconds, as the kernel counts). Zero: none.
    pub keep_alive: Duration,
}

impl Default for Dial {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), keep_alive: Duration::from_secs(30) }
    }
}

/// Why no connection was made. `R` is the reason of the caller's vetting.
#[derive(Debug)]
pub enum ConnectError<R> {
    /// There was no address at all.
    NoAddress,
    /// All addresses were refused by the vetting; the reason for the first.
    Refused(R),
    /// No address answered in time.
    Timeout,
    /// All attempts failed; the last error.
    Failed(io::Error),
}

impl<R> ConnectError<R> {
    /// The word for logs and metric labels.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoAddress => "connect_no_address",
            Self::Refused(_) => "connect_refused_by_guard",
            Self::Timeout => "connect_timeout",
            Self::Failed(_) => "connect_failed",
        }
    }
}

impl<R> fmt::Display for ConnectError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{}: {error}", self.as_str()),
            _ => f.write_str(self.as_str()),
        }
    }
}

impl<R: fmt::Debug> std::error::Error for ConnectError<R> {}

/// Connects to the first of `addresses` that `vet` admits and that answers. The connection has
/// NODELAY and keep-alive set; [`Tcp::peer_addr`] tells which address it was.
///
/// May be dropped at any time.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect<R>(
    addresses: &[SocketAddr],
    vet: &dyn Fn(IpAddr) -> Result<(), R>,
    dial: Dial,
) -> Result<Tcp, ConnectError<R>> {
    let vetted = vetted(addresses, vet)?;
    let raced = timeout(dial.timeout, race(interleaved(vetted))).await;
    let (stream, peer) = raced.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Failed)?;
    tune(&stream, dial.keep_alive).map_err(ConnectError::Failed)?;
    Ok(Tcp::new(stream, peer))
}

fn vetted<R>(
    addresses: &[SocketAddr],
    vet: &dyn Fn(IpAddr) -> Result<(), R>,
) -> Result<Vec<SocketAddr>, ConnectError<R>> {
    let mut refusal = None;
    let mut admitted = Vec::with_capacity(addresses.len());
    for address in addresses {
        match vet(address.ip()) {
            Ok(()) => admitted.push(*address),
            Err(reason) => refusal = refusal.or(Some(reason)),
        }
    }
    match refusal {
        _ if !admitted.is_empty() => Ok(admitted),
        Some(reason) => Err(ConnectError::Refused(reason)),
        None => Err(ConnectError::NoAddress),
    }
}

/// The families in turn, beginning with the resolver's first (RFC 8305 section 4), so that a
/// family that doesn't work here costs one delay and not one for each of its addresses.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let total = addresses.len();
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|it| it.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::with_capacity(total);
    while order.len() < total {
        order.extend(first.next());
        order.extend(second.next());
    }
    order
}

type Outcome = io::Result<(TcpStream, SocketAddr)>;
type Attempt = Pin<Box<dyn Future<Output = Outcome>>>;

async fn race(addresses: Vec<SocketAddr>) -> Outcome {
    let mut waiting = addresses.into_iter();
    let mut running: Vec<Attempt> = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.next() {
            Some(address) => running.push(Box::pin(attempt(address))),
            None if running.is_empty() => return Err(failure),
            None => {}
        }
        let first = first_of(&mut running);
        let outcome = if waiting.as_slice().is_empty() {
            first.await
        } else {
            match timeout(ATTEMPT_DELAY, first).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            }
        };
        match outcome {
            Ok(connected) => return Ok(connected),
            Err(error) => failure = error,
        }
    }
}

/// The outcome of the first attempt that ends, taken out of `running`.
async fn first_of(running: &mut Vec<Attempt>) -> Outcome {
    debug_assert!(!running.is_empty(), "nothing to wait for");
    poll_fn(|cx| {
        for index in 0..running.len() {
            if let Some(attempt) = running.get_mut(index)
                && let Poll::Ready(outcome) = attempt.as_mut().poll(cx)
            {
                drop(running.swap_remove(index));
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

async fn attempt(address: SocketAddr) -> Outcome {
    let stream = TcpStream::connect_addr(address).await?;
    // A port of the ephemeral range without a listener may be picked for our own end: the socket
    // is then connected to itself.
    if address.ip().is_loopback() && stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok((stream, address))
}

fn tune(stream: &TcpStream, keep_alive: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if !keep_alive.is_zero() {
        let seconds = Duration::from_secs(keep_alive.as_secs().max(1));
        stream.set_tcp_keepalive(Some(seconds), Some(seconds), Some(KEEP_ALIVE_PROBES))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Instant;

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::net::runtime::testing::on_both;

    fn admit(_: IpAddr) -> Result<(), &'static str> {
        Ok(())
    }

    fn listener() -> (std::net::TcpListener, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address that never answers: the queue of its listener is full, so that it drops SYNs.
    fn black_hole() -> ((Socket, std::net::TcpStream), SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let queued = std::net::TcpStream::connect(address).unwrap();
        // The listener's own row: local port, any remote, LISTEN, one connection in its queue.
        let full = format!(":{:04X} 00000000:0000 0A 00000000:00000001 ", address.port());
        while !table().contains(&full) {
            std::thread::yield_now();
        }
        ((listener, queued), address)
    }

    fn table() -> String {
        std::fs::read_to_string("/proc/self/net/tcp").unwrap()
    }

    /// Sockets of this machine that are trying to reach `port` (state SYN_SENT).
    fn dialling(port: u16) -> usize {
        let remote = format!(":{port:04X} 02 ");
        table().lines().filter(|line| line.contains(&remote)).count()
    }

    async fn until_nobody_dials(port: u16) {
        let start = Instant::now();
        while dialling(port) != 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "{} sockets leaked", dialling(port));
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn families_alternate_from_the_first_and_keep_their_order() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect()
        };
        for (given, order) in [
            ("::1 ::2 ::3 10.0.0.1 10.0.0.2", "::1 10.0.0.1 ::2 10.0.0.2 ::3"),
            ("10.0.0.1 ::1 ::2", "10.0.0.1 ::1 ::2"),
            ("10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"),
        ] {
            assert_eq!(interleaved(parse(given)), parse(order));
        }
    }

    #[test]
    fn refused_addresses_are_never_dialled() {
        on_both(|| async {
            let (guarded, guarded_address) = listener();
            let (_open, address) = listener();
            let seen = RefCell::new(Vec::new());
            // Both are 127.0.0.1: refuse by turn, as a vetting by address would.
            let vet = |ip| {
                seen.borrow_mut().push(ip);
                if seen.borrow().len() == 1 { Err("private") } else { Ok(()) }
            };
            let tcp = connect(&[guarded_address, address], &vet, Dial::default()).await.unwrap();
            assert_eq!(tcp.peer_addr(), address);
            assert_eq!(seen.borrow().len(), 2);
            guarded.set_nonblocking(true).unwrap();
            assert_eq!(guarded.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

            let refuse = |_| Err("private");
            let error = connect(&[address], &refuse, Dial::default()).await.unwrap_err();
            assert!(matches!(error, ConnectError::Refused("private")), "{error}");
            let error = connect(&[], &admit, Dial::default()).await.unwrap_err();
            assert!(matches!(error, ConnectError::NoAddress), "{error}");
        });
    }

    #[test]
    fn closed_port_fails_over_to_the_next_address_at_once() {
        on_both(|| async {
            let (closed, closed_address) = listener();
            drop(closed);
            let (_open, address) = listener();
            let start = Instant::now();
            let tcp = connect(&[closed_address, address], &admit, Dial::default()).await.unwrap();
            assert_eq!(tcp.peer_addr(), address);
            assert!(start.elapsed() < ATTEMPT_DELAY, "waited for a port that had refused");
            let error = connect(&[closed_address], &admit, Dial::default()).await.unwrap_err();
            let refused = |it: &io::Error| it.kind() == io::ErrorKind::ConnectionRefused;
            assert!(matches!(&error, ConnectError::Failed(it) if refused(it)), "{error}");
        });
    }

    #[test]
    fn silent_address_is_overtaken_and_its_socket_closed() {
        on_both(|| async {
            let (_hole, silent) = black_hole();
            let (_open, address) = listener();
            let tcp = connect(&[silent, address], &admit, Dial::default()).await.unwrap();
            assert_eq!(tcp.peer_addr(), address);
            until_nobody_dials(silent.port()).await;
        });
    }

    #[test]
    fn timed_out_and_dropped_dials_leave_no_socket() {
        on_both(|| async {
            let (_hole, silent) = black_hole();
            let addresses = [silent];
            let short = Dial { timeout: Duration::from_millis(50), ..Dial::default() };
            // That the test can see a leak at all: a dial under way is in the table.
            let dial = monoio::spawn(async move { connect(&[silent], &admit, short).await });
            while dialling(silent.port()) == 0 {
                monoio::time::sleep(Duration::from_micros(100)).await;
            }
            assert!(dial.await.is_err());
            for _ in 0..10 {
                let error = connect(&[silent], &admit, short).await.unwrap_err();
                assert!(matches!(error, ConnectError::Timeout), "{error}");
                let dropped = connect(&addresses, &admit, Dial::default());
                assert!(timeout(Duration::from_millis(5), dropped).await.is_err());
            }
            until_nobody_dials(silent.port()).await;
        });
    }

    #[test]
    fn connected_stream_carries_bytes_both_ways() {
        on_both(|| async {
            let (listener, address) = listener();
            let tcp = connect(&[address], &admit, Dial::default()).await.unwrap();
            let (far, peer) = listener.accept().unwrap();
            let far = Tcp::from_std(far, peer).unwrap();
            tcp.write_all(b"ping".to_vec()).await.0.unwrap();
            let (result, buf) = far.read(Vec::with_capacity(8)).await;
            assert_eq!((result.unwrap(), buf.as_slice()), (4, b"ping".as_slice()));
            far.write_all(buf).await.0.unwrap();
            assert_eq!(tcp.read(Vec::with_capacity(8)).await.0.unwrap(), 4);
        });
    }
}
