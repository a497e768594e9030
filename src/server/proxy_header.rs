//! The PROXY header at the beginning of a connection (`security.proxy_protocol`), before TLS and
//! HTTP: who the load balancer says is calling.
//!
//! A header must come on every connection, in time, and be well-formed; otherwise the connection
//! is closed without an answer, for whoever sent it speaks another protocol (specification section
//! 2). It is believed from peers in `security.trusted_proxies`, or, where none are named, from
//! every peer; from others it is read and its addresses are ignored.
//!
//! Bytes are looked at before they are taken, and none beyond the header is: the connection's own
//! bytes stay in the socket, for TLS or HTTP to read. Cost: three system calls for a connection.

use std::net::IpAddr;

use monoio::time::timeout;

use crate::limit::proxy_protocol::{HEADER_BYTES_MAX, Header, Progress, parse};
use crate::metrics::Counter;
use crate::net::{Peek, Tcp};
use crate::proxy::Core;

/// The client's address; `None` when the connection is to be closed.
pub async fn client_address(core: &Core, tcp: &Tcp) -> Option<IpAddr> {
    let peer = tcp.peer_addr().ip();
    let plan = core.plan();
    let span = plan.settings.server.read_timeout;
    let (counted, address) = match timeout(span, receive(tcp)).await {
        Ok(Ok(header)) => {
            let trusted = &plan.trusted_proxies;
            let believed = trusted.is_empty() || trusted.contains(peer);
            match header.source.filter(|_| believed) {
                Some(source) => (Counter::ProxyHeaders, Some(source.ip().to_canonical())),
                // The balancer itself, a client without an address, or a stranger's word.
                None => (Counter::ProxyHeadersLocal, Some(peer)),
            }
        }
        Ok(Err(End::Closed)) => (Counter::ProxyHeadersMissing, None),
        Ok(Err(End::Refused(word))) => {
            tracing::debug!(reason = word, %peer, "no PROXY header");
            (Counter::ProxyHeadersRefused, None)
        }
        Err(_) => (Counter::ProxyHeadersLate, None),
    };
    core.cells.inc(counted);
    address
}

/// Why there is no header.
enum End {
    /// The peer closed, or failed: a check whether the port is open does that.
    Closed,
    /// What it sent is none; the reason's word.
    Refused(&'static str),
}

async fn receive(tcp: &Tcp) -> Result<Header, End> {
    let mut header = Vec::new();
    let mut ahead = [0; HEADER_BYTES_MAX];
    loop {
        match tcp.readable().await {
            Ok(Peek::Data) => {}
            Ok(Peek::Nothing | Peek::Closed | Peek::Error) | Err(_) => return Err(End::Closed),
        }
        let taken = header.len();
        let count = tcp.peek(&mut ahead).map_err(|_| End::Closed)?;
        header.extend_from_slice(&ahead[..count]);
        match parse(&header).map_err(|refusal| End::Refused(refusal.as_str()))? {
            Progress::Done { header, consumed } => {
                take(tcp, &mut ahead[..consumed - taken])?;
                return Ok(header);
            }
            // All of it belongs to the header. The parser refuses one that is too long.
            Progress::Incomplete => take(tcp, &mut ahead[..count])?,
        }
    }
}

/// Takes exactly what was seen.
fn take(tcp: &Tcp, seen: &mut [u8]) -> Result<(), End> {
    match tcp.try_read(seen) {
        Ok(count) if count == seen.len() => Ok(()),
        // Bytes that were there do not go away: the connection is beyond understanding.
        Ok(_) | Err(_) => Err(End::Closed),
    }
}
