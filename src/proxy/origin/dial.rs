//! A new connection to an upstream: name, guard, TCP, TLS.

use rustls::pki_types::ServerName;

use crate::net::ticks::timeout;
use crate::net::{ConnectError, Dial, Stream, connect, tls};
use crate::proxy::core::Core;
use crate::proxy::error::Fault;
use crate::proxy::plan::Upstream;
use crate::route::Scheme;

/// Dials. Every address is checked, and the connection goes to the very address that was.
///
/// # Errors
/// What went wrong; [`Fault::Timeout`] after `client.dial_timeout`.
pub async fn dial(core: &Core, upstream: &Upstream) -> Result<Stream, Fault> {
    let (plan, target) = (core.plan(), &upstream.target);
    let (host, port, scheme) = (target.host(), target.port(), target.scheme());
    plan.settings.ssrf.check_url(scheme.as_str(), host, port).map_err(|_| Fault::NotAllowed)?;
    let addresses = core.shared.resolver.resolve(host, port).await.map_err(|_| Fault::Resolve)?;
    let client = &plan.settings.client;
    let dial = Dial { timeout: client.dial_timeout, keep_alive: client.keep_alive };
    let vet = |address| plan.settings.ssrf.check_address(address);
    let tcp = connect(&addresses, &vet, dial).await.map_err(|error| match error {
        ConnectError::Refused(_) => Fault::NotAllowed,
        ConnectError::Timeout => Fault::Timeout,
        ConnectError::NoAddress | ConnectError::Failed(_) => Fault::Dial,
    })?;
    if scheme == Scheme::Http {
        return Ok(Stream::Tcp(tcp));
    }
    let config = core.shared.tls.clone().ok_or(Fault::Tls)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Fault::Tls)?;
    let handshake = timeout(client.dial_timeout, tls::connect(tcp, config, name));
    let stream = handshake.await.map_err(|_| Fault::Timeout)?;
    stream.map(Stream::from).map_err(|error| {
        tracing::warn!(%error, "TLS to the upstream");
        Fault::Tls
    })
}
