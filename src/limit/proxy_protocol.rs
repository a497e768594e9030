//! The PROXY protocol, versions 1 and 2: how a load balancer states the client's address before
//! the first byte of the connection.
//!
//! ```text
//! v1  PROXY TCP4 192.0.2.1 192.0.2.2 51234 443\r\n                       at most 107 bytes
//! v2  0d0a0d0a000d0a515549540a | 2,cmd | family | length | addresses | TLVs
//! ```
//!
//! Strict, and early: a connection that begins otherwise is refused at its first wrong byte.
//! Nothing is buffered here: the caller shows all bytes received so far and reads on while the
//! answer is `Incomplete`, under a time-out of its own. Only where the peer is a trusted proxy may
//! a header be expected at all; it is then mandatory, since a client could otherwise send its own
//! (specification section 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client; `None` when the proxy speaks for itself (`LOCAL`, `UNKNOWN`) or for a client
    /// without an internet address: then the peer is the client.
    pub source: Option<SocketAddr>,
    /// Where the client connected to.
    pub destination: Option<SocketAddr>,
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is there may be the beginning of a header.
    Incomplete,
    /// A whole header; the connection's own bytes begin behind it.
    Done {
        /// What it says.
        header: Header,
        /// Its length in bytes.
        consumed: usize,
    },
}

/// Why a header is refused. The connection is then closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes begin no header of either version.
    NoHeader,
    /// A version 1 line without its end in 107 bytes.
    LineTooLong,
    /// A version 1 line with a wrong family, spacing, address or port.
    LineMalformed,
    /// A version 2 header of another version or command.
    Command,
    /// A version 2 family or transport that no stream of ours has.
    Family,
    /// A version 2 length that is too small for the addresses or larger than [`HEADER_BYTES_MAX`].
    Length,
    /// Version 2 additions that do not add up to the length.
    Additions,
}

impl Refusal {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHeader => "proxy_no_header",
            Self::LineTooLong => "proxy_line_too_long",
            Self::LineMalformed => "proxy_line_malformed",
            Self::Command => "proxy_command",
            Self::Family => "proxy_family",
            Self::Length => "proxy_length",
            Self::Additions => "proxy_additions",
        }
    }
}

/// Looks for a header at the beginning of `bytes`: all that was received so far.
///
/// # Errors
/// The reason, as soon as no continuation could make it a header.
pub fn parse(bytes: &[u8]) -> Result<Progress, Refusal> {
    if starts_alike(bytes, SIGNATURE_V2) {
        parse_v2(bytes)
    } else if starts_alike(bytes, SIGNATURE_V1) {
        parse_v1(bytes)
    } else {
        Err(Refusal::NoHeader)
    }
}

/// Whether one is a prefix of the other.
fn starts_alike(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Progress, Refusal> {
    let window = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        // Only a final CR may be the first half of the end.
        let open = window.strip_suffix(b"\r").unwrap_or(window);
        if open.iter().any(|byte| !(b' '..=b'~').contains(byte)) {
            return Err(Refusal::LineMalformed);
        }
        return if window.len() == LINE_BYTES_MAX {
            Err(Refusal::LineTooLong)
        } else {
            Ok(Progress::Incomplete)
        };
    };
    let line = window.get(..end).and_then(|it| std::str::from_utf8(it).ok());
    let line = line.ok_or(Refusal::LineMalformed)?;
    if line.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
        return Err(Refusal::LineMalformed);
    }
    let header = parse_line(line).ok_or(Refusal::LineMalformed)?;
    Ok(Progress::Done { header, consumed: end + 2 })
}

fn parse_line(line: &str) -> Option<Header> {
    let mut words = line.split(' ');
    if words.next()? != "PROXY" {
        return None;
    }
    let family = words.next()?;
    if family == "UNKNOWN" {
        // "The receiver must ignore anything presented before the CRLF."
        return Some(Header { source: None, destination: None });
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source, destination) = match family {
        "TCP4" => (
            IpAddr::V4(source.parse::<Ipv4Addr>().ok()?),
            IpAddr::V4(destination.parse::<Ipv4Addr>().ok()?),
        ),
        "TCP6" => (
            IpAddr::V6(source.parse::<Ipv6Addr>().ok()?),
            IpAddr::V6(destination.parse::<Ipv6Addr>().ok()?),
        ),
        _ => return None,
    };
    let source = SocketAddr::new(source, parse_port(words.next()?)?);
    let destination = SocketAddr::new(destination, parse_port(words.next()?)?);
    match words.next() {
        Some(_) => None,
        None => Some(Header { source: Some(source), destination: Some(destination) }),
    }
}

/// A decimal number without sign and leading zeros.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if plain && !padded { text.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Progress, Refusal> {
    let rest = bytes.get(SIGNATURE_V2.len()..).unwrap_or_default();
    let command = match rest.first() {
        None => return Ok(Progress::Incomplete),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(Refusal::Command),
    };
    let family = match rest.get(1) {
        None => return Ok(Progress::Incomplete),
        Some(family) => Family::parse(*family, command)?,
    };
    let (Some(high), Some(low)) = (rest.get(2), rest.get(3)) else {
        return Ok(Progress::Incomplete);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let consumed = SIGNATURE_V2.len() + 4 + length;
    if length < family.address_bytes() || consumed > HEADER_BYTES_MAX {
        return Err(Refusal::Length);
    }
    let Some(block) = rest.get(4..4 + length) else {
        return Ok(Progress::Incomplete);
    };
    let header = family.parse_addresses(block).ok_or(Refusal::Length)?;
    // LOCAL: the block is to be skipped, whatever it holds.
    if command == Command::Proxy {
        check_additions(block.get(family.address_bytes()..).unwrap_or_default())?;
    }
    Ok(Progress::Done { header, consumed })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Local,
    Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// No addresses, or none that matter.
    Unspecified,
    Tcp4,
    Tcp6,
    UnixStream,
}

impl Family {
    fn parse(byte: u8, command: Command) -> Result<Self, Refusal> {
        match (command, byte) {
            (Command::Local, _) | (Command::Proxy, 0x00) => Ok(Self::Unspecified),
            (Command::Proxy, 0x11) => Ok(Self::Tcp4),
            (Command::Proxy, 0x21) => Ok(Self::Tcp6),
            (Command::Proxy, 0x31) => Ok(Self::UnixStream),
            // Datagrams and unassigned values.
            (Command::Proxy, _) => Err(Refusal::Family),
        }
    }

    const fn address_bytes(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::Tcp4 => 12,
            Self::Tcp6 => 36,
            Self::UnixStream => 216,
        }
    }

    /// Source address, destination address, source port, destination port.
    fn parse_addresses(self, block: &[u8]) -> Option<Header> {
        let (source, destination, ports) = match self {
            Self::Unspecified | Self::UnixStream => {
                return Some(Header { source: None, destination: None });
            }
            Self::Tcp4 => {
                let (source, rest) = block.split_first_chunk::<4>()?;
                let (destination, rest) = rest.split_first_chunk::<4>()?;
                (IpAddr::from(*source), IpAddr::from(*destination), rest)
            }
            Self::Tcp6 => {
                let (source, rest) = block.split_first_chunk::<16>()?;
                let (destination, rest) = rest.split_first_chunk::<16>()?;
                (IpAddr::from(*source), IpAddr::from(*destination), rest)
            }
        };
        let (source_port, rest) = ports.split_first_chunk::<2>()?;
        let (destination_port, _) = rest.split_first_chunk::<2>()?;
        Some(Header {
            source: Some(SocketAddr::new(source, u16::from_be_bytes(*source_port))),
            destination: Some(SocketAddr::new(destination, u16::from_be_bytes(*destination_port))),
        })
    }
}

/// Additions are type, length in two bytes, value; none of them is needed here.
fn check_additions(mut rest: &[u8]) -> Result<(), Refusal> {
    while !rest.is_empty() {
        let ([_, high, low], after) = rest.split_first_chunk::<3>().ok_or(Refusal::Additions)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = after.get(length..).ok_or(Refusal::Additions)?;
    }
    Ok(())
}

/// A header is never longer; the caller needs no larger buffer for it. Addresses take 232 bytes,
/// the rest is room for additions such as a client certificate's name.
pub const HEADER_BYTES_MAX: usize = 2_048;

/// The longest line of version 1, CRLF included.
const LINE_BYTES_MAX: usize = 107;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests;
