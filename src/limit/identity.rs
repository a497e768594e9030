//! Who a client is: its address, found behind trusted proxies, or its key.
//!
//! `X-Forwarded-For` and `Forwarded` (RFC 7239) are lists to which every proxy appends the peer it
//! saw. Only what a trusted proxy appended may be believed, so that the walk begins at the peer,
//! goes through the list from its end, and stops at the first address that is not trusted: that is
//! the client. What stands before it was written by the client and is never read. A member that is
//! no address (`unknown`, `_hidden`, garbage) ends the walk at the proxy that sent it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use crate::base::Seed;

/// What an identity is. Its word is the policy's name in the RateLimit fields and the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An IPv4 address, or the /64 of an IPv6 address.
    Address,
    /// An API key.
    Key,
}

impl Kind {
    /// `ip` or `key`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "ip",
            Self::Key => "key",
        }
    }

    /// The hash under which the limiter knows a client address.
    ///
    /// IPv6 by /64: that is what one customer gets, and to walk through it costs nothing.
    #[must_use]
    pub fn hash_address(seed: &Seed, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(v4) => seed.hash(&v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                seed.hash(&[a, b, c, d, e, f, g, h])
            }
        }
    }

    /// The hash under which the limiter knows an API key; never that of an address.
    #[must_use]
    pub fn hash_key(seed: &Seed, key: &[u8]) -> u64 {
        seed.hash(key) ^ KEY_DOMAIN
    }

    /// The hash under which it knows an address by its wrong guesses of tokens.
    #[must_use]
    pub fn hash_guesses(seed: &Seed, address: IpAddr) -> u64 {
        Self::hash_address(seed, address) ^ GUESS_DOMAIN
    }
}

/// The networks whose word about a client's address is believed (`security.trusted_proxies`).
///
/// A look-up goes through the list: cheap for the handful that it is. Default: nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
}

impl TrustedProxies {
    /// Parses CIDRs (`10.0.0.0/8`, `2001:db8::/32`) and single addresses.
    ///
    /// # Errors
    /// The index of the first that is neither, and why.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, CidrFault)> {
        let networks = texts.iter().enumerate();
        let networks =
            networks.map(|(at, text)| parse_network(text.as_ref()).map_err(|it| (at, it)));
        Ok(Self { networks: networks.collect::<Result<_, _>>()? })
    }

    /// Whether `address` belongs to a trusted proxy.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The client's address behind trusted proxies, v4-mapped ones as IPv4.
    ///
    /// Takes the field lines in the order they came. Where there is an `X-Forwarded-For` line,
    /// `Forwarded` is not read: a proxy that writes the one often passes the other on unread. At
    /// most 32 proxies are walked through. Allocates nothing.
    #[must_use]
    pub fn client_address<'f>(
        &self,
        peer: IpAddr,
        x_forwarded_for: impl Iterator<Item = &'f [u8]>,
        forwarded: impl Iterator<Item = &'f [u8]>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.contains(client) {
            return client;
        }
        let mut members = Members::default();
        for line in x_forwarded_for {
            members.push_list(line);
        }
        if members.count == 0 {
            for line in forwarded {
                members.push_elements(line);
            }
        }
        for member in members.newest_first() {
            let Some(address) = member.and_then(parse_node) else { break };
            client = address.to_canonical();
            if !self.contains(client) {
                break;
            }
        }
        client
    }
}

/// The last members of a list of any length; `None` for one that cannot be understood.
#[derive(Default)]
struct Members<'f> {
    ring: [Option<&'f [u8]>; PROXIES_MAX],
    count: usize,
}

impl<'f> Members<'f> {
    fn push(&mut self, member: Option<&'f [u8]>) {
        if let Some(place) = self.ring.get_mut(self.count % PROXIES_MAX) {
            *place = member;
        }
        self.count += 1;
    }

    fn newest_first(&self) -> impl Iterator<Item = Option<&'f [u8]>> {
        let oldest = self.count.saturating_sub(PROXIES_MAX);
        (oldest..self.count).rev().map(|at| self.ring.get(at % PROXIES_MAX).copied().flatten())
    }

    /// `X-Forwarded-For`: addresses between commas. Empty members don't count (RFC 9110 section
    /// 5.6.1.2).
    fn push_list(&mut self, line: &'f [u8]) {
        for member in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if !member.is_empty() {
                self.push(Some(member));
            }
        }
    }

    /// `Forwarded`: elements of `name=value` pairs (RFC 7239 section 4).
    ///
    /// Read from the left because of quoted commas. A quote that a client leaves open cannot hide
    /// what a proxy appends: the first quote of the proxy's own then closes it and is followed by
    /// something that may not stand there, and the line is garbage as a whole.
    fn push_elements(&mut self, line: &'f [u8]) {
        let mut rest = line.trim_ascii();
        let before = self.count;
        while !rest.is_empty() {
            let Some((node, after)) = parse_element(rest) else {
                self.count = before;
                self.push(None);
                return;
            };
            match node {
                Element::Empty => {}
                Element::Node(node) => self.push(Some(node)),
                Element::Nameless => self.push(None),
            }
            rest = after;
        }
    }
}

enum Element<'f> {
    /// Nothing between two commas.
    Empty,
    /// The value of `for`, without its quotes.
    Node(&'f [u8]),
    /// No `for`, or more than one.
    Nameless,
}

/// The first element of a Forwarded line, and what follows its comma; `None` for bad syntax.
fn parse_element(line: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let mut element = Element::Empty;
    let mut rest = line.trim_ascii_start();
    loop {
        match rest {
            [] => return Some((element, rest)),
            [b',', after @ ..] => return Some((element, after.trim_ascii_start())),
            // RFC 7239 section 4: pairs may be missing between semicolons.
            [b';', after @ ..] => rest = after,
            _ => {
                let (name, after) = split_token(rest)?;
                let (value, after) = split_value(after.strip_prefix(b"=")?)?;
                element = match element {
                    Element::Empty | Element::Nameless if !name.eq_ignore_ascii_case(b"for") => {
                        Element::Nameless
                    }
                    Element::Empty => Element::Node(value),
                    Element::Nameless => Element::Node(value),
                    Element::Node(_) if name.eq_ignore_ascii_case(b"for") => return None,
                    Element::Node(node) => Element::Node(node),
                };
                rest = after.trim_ascii_start();
                if !matches!(rest, [] | [b',' | b';', ..]) {
                    return None;
                }
            }
        }
        rest = rest.trim_ascii_start();
    }
}

fn split_token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = text.iter().position(|byte| !is_token(byte)).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

/// A token or a quoted string; an escape inside stays as it is, since no address has one.
fn split_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else { return split_token(text) };
    let mut at = 0;
    loop {
        match quoted.get(at)? {
            b'"' => return Some((quoted.get(..at)?, quoted.get(at + 1..)?)),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// An address with or without port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, and without
/// brackets `2001:db8::1`, which `X-Forwarded-For` has.
fn parse_node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    // RFC 7239 section 6: a port may be obfuscated too; the address before it is still meant.
    let (host, port) = text.rsplit_once(':')?;
    let obfuscated = port.strip_prefix('_').is_some_and(|it| !it.is_empty());
    if obfuscated {
        return match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
    }
    match text.parse::<SocketAddr>().ok()? {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => None,
        address => Some(address.ip()),
    }
}

fn parse_network(text: &str) -> Result<IpNet, CidrFault> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| CidrFault::Syntax)?,
    };
    if network.trunc() != network {
        return Err(CidrFault::HostBits);
    }
    // Addresses are compared in their canonical form, so networks must have it too.
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().zip(Some(v6)),
        _ => None,
    };
    match mapped {
        Some((address, v6)) => {
            let network = Ipv4Net::new(address, v6.prefix_len() - 96);
            network.map(IpNet::V4).map_err(|_| CidrFault::Syntax)
        }
        None => Ok(network),
    }
}

/// Why a trusted network is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrFault {
    /// Neither an address nor a CIDR.
    Syntax,
    /// Bits are set behind the prefix length, so that it is unclear what was meant.
    HostBits,
}

impl CidrFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "cidr_syntax",
            Self::HostBits => "cidr_host_bits",
        }
    }
}

impl fmt::Display for CidrFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Syntax => "write an address or a CIDR such as `10.0.0.0/8` or `2001:db8::/32`",
            Self::HostBits => "bits are set behind the prefix length: write the network's address",
        })
    }
}

impl std::error::Error for CidrFault {}

/// More proxies than any real chain has; the walk ends there.
const PROXIES_MAX: usize = 32;

/// Keeps a key that is spelt like the bytes of an address apart from it.
const KEY_DOMAIN: u64 = 0x6b65_795f_6b65_795f;
/// Keeps what an address guesses apart from what it asks.
const GUESS_DOMAIN: u64 = 0x6775_6573_735f_675f;

#[cfg(test)]
mod tests;
