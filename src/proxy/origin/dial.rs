//! A connection to an upstream: one that is there, or a new one (name, guard, TCP, TLS).

use std::io;
use std::rc::Rc;

use rustls::pki_types::ServerName;

use crate::metrics::Counter;
use crate::net::ticks::{Deadline, timeout};
use crate::net::{self, ConnectError, Dial, Stream, tls};
use crate::proxy::core::Core;
use crate::proxy::error::Fault;
use crate::proxy::inbox::CoreMessage;
use crate::proxy::origin::connection::Connection;
use crate::proxy::origin::http1::Http1;
use crate::proxy::origin::http2::Http2;
use crate::proxy::origin::multiplexed::Multiplexed;
use crate::proxy::origin::opening::{Opening, Way};
use crate::proxy::origin::permits::Permit;
use crate::proxy::origin::pool::{Place, Reuse};
use crate::proxy::plan::Upstream;
use crate::route::Scheme;

/// A connection: an idle one that will do, else a new one, else the next that is free. Whoever
/// waits for one does so until `deadline`.
///
/// # Errors
/// Why there is none; [`Fault::Busy`] where too many wait, [`Fault::Queued`] where it waited in
/// vain.
pub async fn connect(
    core: &Rc<Core>,
    upstream: &Upstream,
    reuse: Reuse,
    deadline: Deadline,
) -> Result<Connection, Fault> {
    if let Some(opening) = core.pool(upstream).opening() {
        if let Some(shared) = opening.shared() {
            return stream_on(shared);
        }
        // Boxed, as whatever dials or waits is large, and most questions do neither.
        return Box::pin(find_out(core, upstream, (reuse, deadline), opening)).await;
    }
    own(core, upstream, (reuse, deadline)).await
}

fn stream_on(shared: Rc<Multiplexed>) -> Result<Connection, Fault> {
    if shared.is_full() {
        return Err(Fault::Busy);
    }
    Ok(Connection::Http2(Http2::on(shared)))
}

async fn find_out(
    core: &Rc<Core>,
    upstream: &Upstream,
    how: (Reuse, Deadline),
    opening: &Opening,
) -> Result<Connection, Fault> {
    loop {
        match opening.way() {
            Way::Shared(shared) => return stream_on(shared),
            Way::Http1 => return own(core, upstream, how).await,
            Way::Wait(waiting) => waiting.ended().await?,
            Way::Dial(dialling) => {
                let connection = own(core, upstream, how).await;
                match &connection {
                    Ok(_) => dialling.succeeded(),
                    Err(fault) => dialling.failed(*fault),
                }
                return connection;
            }
        }
    }
}

/// A connection for this exchange alone, unless it turns out to be one for many.
async fn own(
    core: &Rc<Core>,
    upstream: &Upstream,
    (reuse, deadline): (Reuse, Deadline),
) -> Result<Connection, Fault> {
    let pool = core.pool(upstream);
    let place = match pool.try_acquire(reuse) {
        Some(place) => place,
        None => Box::pin(queue(core, upstream, (reuse, deadline))).await?,
    };
    match place {
        Place::Kept(connection) => Ok(Connection::Http1(connection)),
        Place::New(permit) => Box::pin(open(core, upstream, permit)).await,
    }
}

async fn queue(
    core: &Core,
    upstream: &Upstream,
    (reuse, deadline): (Reuse, Deadline),
) -> Result<Place, Fault> {
    let ask = || core.tell_others(&CoreMessage::YieldIdle(upstream.origin));
    let waiting = core.pool(upstream).acquire(reuse, ask);
    deadline.bound(waiting).await.unwrap_or(Err(Fault::Queued))
}

/// A new connection, within `client.dial_timeout` for all its steps.
async fn open(core: &Rc<Core>, upstream: &Upstream, permit: Permit) -> Result<Connection, Fault> {
    let dialled = timeout(core.plan().settings.client.dial_timeout, dial(core, upstream));
    let stream = dialled.await.unwrap_or(Err(Fault::Timeout))?;
    core.cells.inc(Counter::UpstreamConnectionsOpened);
    let opening = core.pool(upstream).opening();
    if stream.alpn() == Some(tls::HTTP2) {
        let shared = Multiplexed::start(stream, permit).await?;
        if let Some(opening) = opening {
            opening.adopt(&shared);
        }
        return stream_on(shared);
    }
    if let Some(opening) = opening {
        opening.settle_for_http1();
    }
    Ok(Connection::Http1(Http1::dialled(stream, permit)))
}

/// Dials. Every address is checked, and the connection goes to the very address that was.
async fn dial(core: &Core, upstream: &Upstream) -> Result<Stream, Fault> {
    let (plan, target) = (core.plan(), &upstream.target);
    let (host, port, scheme) = (target.host(), target.port(), target.scheme());
    plan.settings.ssrf.check_url(scheme.as_str(), host, port).map_err(|_| Fault::NotAllowed)?;
    let addresses = core.shared.resolver.resolve(host, port).await.map_err(|_| Fault::Resolve)?;
    let client = &plan.settings.client;
    let dial = Dial { timeout: client.dial_timeout, keep_alive: client.keep_alive };
    let vet = |address| plan.settings.ssrf.check_address(address);
    let tcp = net::connect(&addresses, &vet, dial).await.map_err(|error| match error {
        ConnectError::Refused(_) => Fault::NotAllowed,
        ConnectError::Timeout => Fault::Timeout,
        ConnectError::NoAddress | ConnectError::Failed(_) => Fault::Dial,
    })?;
    if scheme == Scheme::Http {
        return Ok(Stream::Tcp(tcp));
    }
    let config = core.shared.tls.clone().ok_or(Fault::Tls)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Fault::Tls)?;
    let stream = tls::connect(tcp, config, name).await;
    stream.map(Stream::from).map_err(|error| {
        tracing::warn!(upstream = %target, %error, "TLS to the upstream");
        match error.kind() {
            // What was said is not acceptable: a certificate, a version, no TLS at all.
            io::ErrorKind::InvalidData => Fault::Tls,
            // It closed instead of saying anything, as it may on any connection.
            _ => Fault::Reset,
        }
    })
}
