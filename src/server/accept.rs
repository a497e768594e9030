//! Accepting: one long-lived task for each core, a bound for the process.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use monoio::time::timeout;
use rustls::ServerConfig;

use crate::metrics::Counter;
use crate::net::listen::Acceptor;
use crate::net::{Guarded, Stream, Tcp, guarded, tls};
use crate::proxy::{Core, Peer};
use crate::server::h1;
use crate::server::h2;
use crate::server::proxy_header;
use crate::server::watch::Watch;

/// The bound on connections of the process.
pub struct Seats {
    max: usize,
    open: AtomicUsize,
}

/// One connection's place under the bound.
pub struct Seat(Arc<Seats>);

/// One core's way in.
pub struct Door {
    /// The core.
    pub core: Rc<Core>,
    /// Its connections.
    pub watch: Rc<Watch>,
    /// The current certificate.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    /// The bound.
    pub seats: Arc<Seats>,
}

impl Seats {
    /// At most so many.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { max, open: AtomicUsize::new(0) }
    }

    fn take(self: &Arc<Self>) -> Option<Seat> {
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < self.max).then_some(open + 1)
        });
        taken.ok().map(|_| Seat(Arc::clone(self)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Door {
    /// Accepts until `order` comes, then closes the listener and gives what the order said.
    pub async fn accept_until<T>(&self, acceptor: Acceptor, order: impl Future<Output = T>) -> T {
        let mut accepting = std::pin::pin!(self.accept(&acceptor));
        let mut order = std::pin::pin!(order);
        std::future::poll_fn(|cx| {
            if let std::task::Poll::Ready(said) = order.as_mut().poll(cx) {
                return std::task::Poll::Ready(said);
            }
            accepting.as_mut().poll(cx).map(|never| match never {})
        })
        .await
    }

    async fn accept(&self, acceptor: &Acceptor) -> std::convert::Infallible {
        loop {
            let Some(seat) = self.seats.take() else {
                // Full: the kernel's queue holds them until a place is free.
                monoio::time::sleep(FULL_PAUSE).await;
                continue;
            };
            match acceptor.accept().await {
                Ok(tcp) => self.admit(tcp, seat),
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    monoio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, tcp: Tcp, seat: Seat) {
        let core = Rc::clone(&self.core);
        let watch = Rc::clone(&self.watch);
        let address = tcp.peer_addr().ip();
        let peer = Peer { address, socket: address, tls: self.tls.is_some() };
        core.cells.inc(Counter::ConnectionsAccepted);
        let announced = core.plan().settings.security.proxy_protocol;
        match self.tls.as_ref().map(|it| it.load_full()) {
            None if announced => {
                let connection = async move {
                    // Boxed: needed once, before the connection that lasts.
                    if let Some(peer) = Box::pin(announce(&core, &tcp, peer)).await {
                        h1::Connection::new(core, &watch, Stream::from(tcp), peer).run().await;
                    }
                };
                self.spawn(guarded(connection), seat);
            }
            None => {
                // Made here, so that the task holds it once and nothing it is made of.
                let connection = h1::Connection::new(core, &watch, Stream::from(tcp), peer);
                self.spawn(guarded(connection.run()), seat);
            }
            Some(config) => {
                let connection = async move {
                    // Boxed: a handshake's state is large, and needed once.
                    let opened = Box::pin(async {
                        let peer =
                            if announced { announce(&core, &tcp, peer).await? } else { peer };
                        Some((secured(&core, tcp, config).await?, peer))
                    });
                    let Some((stream, peer)) = opened.await else { return };
                    if stream.alpn() == Some(tls::HTTP2) {
                        // Boxed: its state is large, and most connections have none.
                        Box::pin(h2::serve(core, watch.enter(stream), peer, Vec::new())).await;
                    } else {
                        h1::Connection::new(core, &watch, stream, peer).run().await;
                    }
                };
                self.spawn(guarded(connection), seat);
            }
        }
    }

    fn spawn(&self, connection: Guarded<impl Future<Output = ()> + 'static>, seat: Seat) {
        let cells = Arc::clone(&self.core.cells);
        drop(monoio::spawn(async move {
            let _seat = seat;
            if connection.await.is_err() {
                cells.inc(Counter::Panics);
            }
            cells.inc(Counter::ConnectionsClosed);
        }));
    }
}

/// The peer as its PROXY header says; `None` when the connection is to be closed.
async fn announce(core: &Core, tcp: &Tcp, peer: Peer) -> Option<Peer> {
    let address = proxy_header::client_address(core, tcp).await?;
    Some(Peer { address, ..peer })
}

async fn secured(core: &Core, tcp: Tcp, config: Arc<ServerConfig>) -> Option<Stream> {
    let span = core.plan().settings.server.read_timeout;
    let shaken = timeout(span, tls::accept(tcp, config)).await;
    match shaken {
        Ok(Ok(stream)) => {
            core.cells.inc(Counter::TlsHandshakes);
            Some(Stream::from(stream))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake");
            core.cells.inc(Counter::TlsHandshakesFailed);
            None
        }
        Err(_) => {
            core.cells.inc(Counter::TlsHandshakesFailed);
            None
        }
    }
}

/// Between two looks for a free place.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// After an accept that failed for want of descriptors or memory.
const ERROR_PAUSE: Duration = Duration::from_millis(50);
