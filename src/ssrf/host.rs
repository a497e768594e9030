//! Hosts as they are written, and what they really are.
//!
//! `0x7f.1`, `017700000001` and `2130706433` are all 127.0.0.1 to the C library that resolves them.
//! A host whose last label is a number is therefore read as the WHATWG URL standard reads it
//! ("ends in a number"): it is an IPv4 address or an error, never a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host, in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name: lower case, without a final dot.
    Name(Box<str>),
    /// An address, however it was written; v4-mapped ones as IPv4.
    Address(IpAddr),
}

impl Host {
    /// Reads a host; an IPv6 address with or without brackets.
    ///
    /// # Errors
    /// What makes it neither a name nor an address.
    pub fn parse(text: &str) -> Result<Self, HostFault> {
        let inside = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if inside.is_some() || text.contains(':') {
            let address: Ipv6Addr =
                inside.unwrap_or(text).parse().map_err(|_| HostFault::AddressMalformed)?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let host = text.strip_suffix('.').unwrap_or(text);
        if host.is_empty() {
            return Err(HostFault::Empty);
        }
        if ends_in_number(host) {
            let address = parse_v4(host).ok_or(HostFault::AddressMalformed)?;
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        if host.len() > NAME_BYTES_MAX || !host.split('.').all(is_label) {
            return Err(HostFault::NameMalformed);
        }
        Ok(Self::Name(host.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => out.write_str(name),
            Self::Address(address) => address.fmt(out),
        }
    }
}

/// Why a host cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Nothing, or only a dot.
    Empty,
    /// Not a name of letters, digits, `-` and `_` in labels of at most 63.
    NameMalformed,
    /// Looks like an address and is none.
    AddressMalformed,
    /// A `*` anywhere but as the first label of a name.
    Star,
}

impl HostFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "host_empty",
            Self::NameMalformed => "host_name_malformed",
            Self::AddressMalformed => "host_address_malformed",
            Self::Star => "host_star",
        }
    }
}

impl fmt::Display for HostFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Empty => "name a host, for example `api.example.com`",
            Self::NameMalformed => {
                "a host is letters, digits, `-` and dots only: no scheme, port, path or Unicode"
            }
            Self::AddressMalformed => {
                "this is no address; write one as `192.0.2.7` or `2001:db8::7`"
            }
            Self::Star => "`*` may only stand first, for one or more labels: `*.example.com`",
        })
    }
}

impl std::error::Error for HostFault {}

/// One entry of `allowed_upstream_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(Host),
    /// With the dot in front: `.example.com`.
    Below(Box<str>),
}

impl HostPattern {
    /// Parses a host, or `*.example.com` for every name below `example.com` (not itself).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, HostFault> {
        let (text, starred) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if text.contains('*') {
            return Err(HostFault::Star);
        }
        match (Host::parse(text)?, starred) {
            (Host::Name(name), true) => Ok(Self(Pattern::Below(format!(".{name}").into()))),
            (Host::Address(_), true) => Err(HostFault::Star),
            (host, false) => Ok(Self(Pattern::Exact(host))),
        }
    }

    /// Whether `host` is meant.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (&self.0, host) {
            (Pattern::Exact(exact), _) => exact == host,
            (Pattern::Below(suffix), Host::Name(name)) => {
                name.len() > suffix.len() && name.ends_with(&**suffix)
            }
            (Pattern::Below(_), Host::Address(_)) => false,
        }
    }
}

/// RFC 1123 section 2.1, with `_`, which real names have.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && (last.bytes().all(|it| it.is_ascii_digit()) || parse_number(last).is_some())
}

/// `a`, `a.b`, `a.b.c` or `a.b.c.d`; the last part fills all the bytes that are left.
fn parse_v4(host: &str) -> Option<Ipv4Addr> {
    let mut parts = host.split('.');
    let last = parse_number(parts.next_back()?)?;
    let mut bits = 0_u64;
    let mut shift = 32;
    for part in parts {
        let part = parse_number(part)?;
        if part > 255 || shift == 8 {
            return None;
        }
        shift -= 8;
        bits |= part << shift;
    }
    if last >> shift != 0 {
        return None;
    }
    u32::try_from(bits | last).ok().map(Ipv4Addr::from_bits)
}

/// Decimal, octal with a leading 0, hexadecimal with a leading 0x (alone: 0).
fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [] => return None,
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    if digits.is_empty() {
        return Some(0);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// RFC 1035 section 2.3.4, in text form.
const NAME_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Host {
        Host::Address(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_known_in_every_dress() {
        // WHATWG URL, "IPv4 parser" and "ends in a number checker".
        let rows = [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0X7F.1", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("0x7f.0x0.0x0.0x1", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("0x", "0.0.0.0"),
            ("0x.0x", "0.0.0.0"),
            ("169.254.43518", "169.254.169.254"),
            ("2852039166", "169.254.169.254"),
            ("4294967295", "255.255.255.255"),
            ("10.16777215", "10.255.255.255"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::ffff:7f00:1]", "127.0.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("[FD00:EC2::254]", "fd00:ec2::254"),
        ];
        for (text, expected) in rows {
            assert_eq!(Host::parse(text), Ok(address(expected)), "{text}");
        }
    }

    #[test]
    fn names_are_canonical() {
        let rows = [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("a_b.example", "a_b.example"),
            ("127.0.0.1.nip.io", "127.0.0.1.nip.io"),
            ("1.2.3.4x", "1.2.3.4x"),
            ("0xg", "0xg"),
            ("localhost", "localhost"),
        ];
        for (text, expected) in rows {
            assert_eq!(Host::parse(text), Ok(Host::Name(expected.into())), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_a_fault() {
        let rows = [
            ("", HostFault::Empty),
            (".", HostFault::Empty),
            ("a..b", HostFault::NameMalformed),
            ("a..", HostFault::NameMalformed),
            ("-a", HostFault::NameMalformed),
            ("a b", HostFault::NameMalformed),
            ("a/b", HostFault::NameMalformed),
            ("a@b", HostFault::NameMalformed),
            ("a%2eb", HostFault::NameMalformed),
            ("\u{ff11}\u{ff12}\u{ff17}.1a", HostFault::NameMalformed),
            ("\u{2460}27.0.0.1", HostFault::AddressMalformed),
            ("256.1.1.1", HostFault::AddressMalformed),
            ("1.2.3.256", HostFault::AddressMalformed),
            ("1.2.3.4.5", HostFault::AddressMalformed),
            ("4294967296", HostFault::AddressMalformed),
            ("08", HostFault::AddressMalformed),
            ("a.08", HostFault::AddressMalformed),
            ("a.1", HostFault::AddressMalformed),
            ("1..2", HostFault::AddressMalformed),
            ("99999999999999999999999", HostFault::AddressMalformed),
            ("a:80", HostFault::AddressMalformed),
            ("[::1", HostFault::AddressMalformed),
            ("[127.0.0.1]", HostFault::AddressMalformed),
            ("fe80::1%eth0", HostFault::AddressMalformed),
        ];
        for (text, fault) in rows {
            assert_eq!(Host::parse(text), Err(fault), "{text}");
            assert!(!fault.to_string().is_empty() && !fault.as_str().is_empty());
        }
    }

    #[test]
    fn a_starred_pattern_matches_names_below_only() {
        // pattern, host, expected
        let rows = [
            ("example.com", "EXAMPLE.com.", true),
            ("Example.com.", "example.com", true),
            ("example.com", "a.example.com", false),
            ("example.com", "example.com.evil.net", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.EXAMPLE.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "evilexample.com", false),
            ("*.example.com", "a.example.com.evil.net", false),
            ("127.0.0.1", "0x7f.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::1", "[0::1]", true),
        ];
        for (pattern, host, expected) in rows {
            let (pattern, host) = (HostPattern::parse(pattern), Host::parse(host).unwrap());
            assert_eq!(pattern.unwrap().matches(&host), expected, "{host}");
        }
        for text in ["*", "*.*.com", "a.*.com", "*a.com", "*.127.0.0.1", "*.0.0.1"] {
            assert_eq!(HostPattern::parse(text), Err(HostFault::Star), "{text}");
        }
        assert_eq!(HostPattern::parse("*."), Err(HostFault::Empty));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_its_text_parses_alike(text in "[\\PC.:\\[\\]x0-9]{0,24}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()).unwrap(), host);
            }
        }

        #[test]
        fn every_spelling_of_an_address_is_found(bits: u32) {
            let [a, b, c, d] = bits.to_be_bytes();
            let low16 = bits & 0xffff;
            let low24 = bits & 0xff_ffff;
            for text in [
                format!("{bits}"),
                format!("{bits:#x}"),
                format!("0{bits:o}"),
                format!("{a}.{low24}"),
                format!("{a:#x}.0{b:o}.{low16}"),
                format!("0{a:o}.{b:#X}.{c}.{d}.").replace("0X", "0x"),
            ] {
                let expected = Host::Address(IpAddr::V4(Ipv4Addr::from_bits(bits)));
                prop_assert_eq!(Host::parse(&text).unwrap(), expected, "{}", text);
            }
        }
    }
}
