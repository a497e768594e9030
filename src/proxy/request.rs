//! A request that the hit path could not answer: owned, routed, admitted or refused.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::Mono;
use crate::http::{RequestHead, Version};
use crate::http1::BodyLength;
use crate::proxy::error::Refusal;
use crate::proxy::gate::Standings;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The peer's address, or what PROXY protocol says of it.
    pub address: IpAddr,
    /// The other end of the socket: a load balancer's, where there is one.
    pub socket: IpAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

/// One request with all that was decided about it.
pub struct Task {
    /// The request. Its path is normalised; for an upstream it is the one under the API prefix.
    pub head: RequestHead,
    /// How it is delimited, and what its connection does after.
    pub framing: Framing,
    /// Who asks.
    pub peer: Peer,
    /// The address that is limited and forwarded: the peer's, or what trusted proxies say.
    pub client: IpAddr,
    /// Its id, for answers and logs.
    pub id: RequestId,
    /// Where it goes.
    pub destination: Destination,
    /// Where its sender stands with the limiter.
    pub standings: Standings,
    /// When it was read.
    pub started: Mono,
    /// What the access log will say beside.
    pub trail: Trail,
}

/// What is known of a request on its way and not in its head: for the access log.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Path and query as the client wrote them; noted only where there is an access log.
    pub target: Option<Box<Spelling>>,
    /// The number of the client's key, where keys are asked for.
    pub key: Option<u16>,
    /// How long the upstream took to the head of its answer.
    pub upstream: Cell<Option<Duration>>,
}

/// A target as the client wrote it.
#[derive(Clone, Debug)]
pub struct Spelling {
    /// The path.
    pub path: Box<[u8]>,
    /// The query; `None` where there is none, or where it is not to be logged.
    pub query: Option<Box<[u8]>>,
}

/// How a request is delimited, and what its connection does after.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// The version the client speaks.
    pub version: Version,
    /// Whether the connection lives on.
    pub persistent: bool,
    /// The body.
    pub body: BodyLength,
    /// The client waits for 100 Continue.
    pub expects_continue: bool,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Destination {
    /// To the upstream of that number.
    Upstream(u16),
    /// To an operator endpoint.
    Admin,
    /// Nowhere.
    Refused(Refusal),
}

/// A request's id: the client's own when it is a short token, else sixteen hex digits.
#[derive(Clone, Copy)]
pub struct RequestId {
    text: [u8; ID_BYTES_MAX],
    len: u8,
}

impl Peer {
    /// Whether it is on this machine, by its socket and by what was said of it: an address that is
    /// only claimed opens nothing.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.address.is_loopback() && self.socket.is_loopback()
    }
}

impl Task {
    /// Another request of the same client, at the same time and with the same standing.
    #[must_use]
    pub fn with_head(&self, head: RequestHead) -> Self {
        Self {
            head,
            framing: self.framing,
            peer: self.peer,
            client: self.client,
            id: self.id,
            destination: self.destination,
            standings: self.standings,
            started: self.started,
            trail: Trail::default(),
        }
    }

    /// How it is delimited.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client sends a body.
    #[must_use]
    pub fn has_body(&self) -> bool {
        !matches!(self.framing.body, BodyLength::None | BodyLength::Length(0))
    }
}

impl RequestId {
    /// Takes the client's id, or makes one of `number`.
    #[must_use]
    pub fn new(given: Option<&[u8]>, number: u64) -> Self {
        let mut text = [0; ID_BYTES_MAX];
        let given = given.filter(|it| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
            !it.is_empty() && it.len() <= ID_BYTES_MAX && it.iter().all(plain)
        });
        if let Some(given) = given {
            text[..given.len()].copy_from_slice(given);
            return Self { text, len: given.len() as u8 };
        }
        for (at, digit) in text.iter_mut().take(16).enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15];
        }
        Self { text, len: 16 }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The id's bytes: visible ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

/// Longer ids of clients are replaced.
const ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_client_id_is_kept_and_any_other_replaced() {
        assert_eq!(RequestId::new(Some(b"abc-1"), 7).as_str(), "abc-1");
        assert_eq!(RequestId::new(None, 0xab).as_str(), "00000000000000ab");
        for bad in [&b""[..], b"a b", b"a\"b", b"\xff", &[b'a'; 65]] {
            assert_eq!(RequestId::new(Some(bad), 1).as_str(), "0000000000000001");
        }
    }
}
