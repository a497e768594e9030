//! The authority a request is for: the Host field, or that of an absolute target (RFC 9110 section
//! 7.2, RFC 3986 section 3.2).
//!
//! Stricter than the grammar in one point: no percent-encoding in a host. DNS names and addresses
//! never need it, and every reader decodes it differently. User information is refused (RFC 9110
//! section 4.2.4).

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

/// A valid host and perhaps a port, in normal form. Equal when they name the same endpoint once
/// both state their port; see [`Authority::same_as`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority<'a> {
    /// A lower-case name, an IPv4 address, or an IPv6 address in brackets and canonical form.
    /// Never empty.
    pub host: Cow<'a, str>,
    /// The port, if one is stated (`host:` states none).
    pub port: Option<u16>,
}

/// Why an authority is refused; all are the client's fault (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthorityFault {
    /// Nothing, or no host before the port. What that means is the caller's business.
    Empty,
    /// Longer than any DNS name.
    TooLong,
    /// User information (`user@host`).
    UserInfo,
    /// A byte that no host holds, or brackets around something else than an IPv6 address.
    Host,
    /// Something else than digits up to 65535 behind the colon.
    Port,
}

impl AuthorityFault {
    /// The reason as one word, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "authority_empty",
            Self::TooLong => "authority_too_long",
            Self::UserInfo => "authority_user_info",
            Self::Host => "authority_host",
            Self::Port => "authority_port",
        }
    }
}

impl<'a> Authority<'a> {
    /// Reads an authority and brings it into normal form. Allocates only if that changes the host.
    ///
    /// # Errors
    /// When it is empty or not `host [":" port]`.
    pub fn parse(raw: &'a [u8]) -> Result<Self, AuthorityFault> {
        if raw.contains(&b'@') {
            return Err(AuthorityFault::UserInfo);
        }
        let text = std::str::from_utf8(raw).map_err(|_| AuthorityFault::Host)?;
        let (host, port) = if text.starts_with('[') {
            let end = text.find(']').ok_or(AuthorityFault::Host)?;
            text.split_at(end + 1)
        } else {
            text.split_at(text.find(':').unwrap_or(text.len()))
        };
        let host = parse_host(host)?;
        Ok(Self { host, port: parse_port(port)? })
    }

    /// Whether both name the same endpoint for a scheme whose default port this is (RFC 9110
    /// section 4.2.3).
    #[must_use]
    pub fn same_as(&self, other: &Authority<'_>, default_port: u16) -> bool {
        self.host == other.host
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }

    /// The same without what it borrows.
    #[must_use]
    pub fn into_owned(self) -> Authority<'static> {
        Authority { host: Cow::Owned(self.host.into_owned()), port: self.port }
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn parse_host(host: &str) -> Result<Cow<'_, str>, AuthorityFault> {
    if host.is_empty() {
        return Err(AuthorityFault::Empty);
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(AuthorityFault::TooLong);
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(AuthorityFault::Host)?;
        // Neither zone identifiers nor the addresses of the future.
        let address: Ipv6Addr = inner.parse().map_err(|_| AuthorityFault::Host)?;
        let canonical = format!("[{address}]");
        return Ok(if canonical == host { Cow::Borrowed(host) } else { Cow::Owned(canonical) });
    }
    if !host.bytes().all(is_host_byte) {
        return Err(AuthorityFault::Host);
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(host.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(host))
}

/// `[":" *DIGIT]`: RFC 3986 section 3.2.3 lets the digits be missing.
fn parse_port(text: &str) -> Result<Option<u16>, AuthorityFault> {
    let Some(digits) = text.strip_prefix(':') else {
        return if text.is_empty() { Ok(None) } else { Err(AuthorityFault::Host) };
    };
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AuthorityFault::Port);
    }
    digits.parse().map(Some).map_err(|_| AuthorityFault::Port)
}

/// `unreserved` and `sub-delims` (RFC 3986 section 3.2.2).
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

/// The longest DNS name is 253 bytes, 254 with its final dot.
const HOST_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> Result<String, AuthorityFault> {
        Authority::parse(raw.as_bytes()).map(|authority| authority.to_string())
    }

    #[test]
    fn an_authority_gets_one_spelling() {
        let rows = [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("example.com:80", "example.com:80"),
            ("example.com:", "example.com"),
            ("example.com:0", "example.com:0"),
            ("example.com:65535", "example.com:65535"),
            ("example.com:0080", "example.com:80"),
            ("example.com.", "example.com."),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]", "[::1]"),
            ("[::1]:443", "[::1]:443"),
            ("[0:0:0:0:0:0:0:1]:", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
            ("under_score.internal", "under_score.internal"),
            ("a", "a"),
        ];
        for (raw, expected) in rows {
            assert_eq!(normal(raw).as_deref(), Ok(expected), "{raw}");
        }
        let borrowed = Authority::parse(b"api.example.com:8443").unwrap();
        assert!(matches!(borrowed.host, Cow::Borrowed("api.example.com")));
        assert_eq!(borrowed.port, Some(8_443));
    }

    #[test]
    fn anything_else_is_refused() {
        use AuthorityFault::{Empty, Host, Port, TooLong, UserInfo};
        let long = "a".repeat(256);
        let rows = [
            ("", Empty),
            (":80", Empty),
            (":", Empty),
            ("user@example.com", UserInfo),
            ("user:secret@example.com:80", UserInfo),
            ("@", UserInfo),
            ("a b", Host),
            (" a", Host),
            ("a\t", Host),
            ("a\0", Host),
            ("a/b", Host),
            ("a?b", Host),
            ("a#b", Host),
            ("a\\b", Host),
            ("a%41", Host),
            ("http://a", Port),
            ("caf\u{e9}", Host),
            ("a:b", Port),
            ("a:80 ", Port),
            ("a:+80", Port),
            ("a:-1", Port),
            ("a:65536", Port),
            ("a:99999999999999999999", Port),
            ("a:80:80", Port),
            ("::1", Empty),
            ("2001:db8::1", Port),
            ("[::1", Host),
            ("[]", Host),
            ("[127.0.0.1]", Host),
            ("[::1]80", Host),
            ("[::1]a:80", Host),
            ("[::1%25eth0]", Host),
            ("[::1%eth0]", Host),
            ("[v1.a]", Host),
            ("[::1]:x", Port),
            ("a]", Host),
            ("a[::1]", Host),
            (&long, TooLong),
        ];
        for (raw, expected) in rows {
            assert_eq!(normal(raw), Err(expected), "{raw:?}");
        }
        assert_eq!(Authority::parse(b"\xff").unwrap_err(), Host);
    }

    #[test]
    fn a_missing_port_is_the_default_one() {
        let rows = [
            ("a", "A:80", 80, true),
            ("a:", "a:80", 80, true),
            ("a", "a", 443, true),
            ("a", "a:80", 443, false),
            ("a:1", "a:2", 80, false),
            ("a", "b", 80, false),
            ("[::1]:443", "[0::1]", 443, true),
            ("a", "a.", 80, false),
        ];
        for (one, other, default_port, expected) in rows {
            let one = Authority::parse(one.as_bytes()).unwrap();
            let other = Authority::parse(other.as_bytes()).unwrap();
            assert_eq!(one.same_as(&other, default_port), expected, "{one} {other}");
            assert_eq!(other.same_as(&one, default_port), expected, "{other} {one}");
        }
    }

    #[test]
    fn every_fault_has_its_own_word() {
        use AuthorityFault::{Empty, Host, Port, TooLong, UserInfo};
        let faults = [Empty, TooLong, UserInfo, Host, Port];
        let words: std::collections::HashSet<_> = faults.iter().map(|it| it.as_str()).collect();
        assert_eq!(words.len(), faults.len());
    }

    proptest! {
        #[test]
        fn the_normal_form_reads_back_as_itself(raw in "[A-Za-z0-9.\\[\\]:_%@-]{0,20}") {
            if let Ok(authority) = Authority::parse(raw.as_bytes()) {
                let text = authority.to_string();
                let again = Authority::parse(text.as_bytes()).unwrap();
                prop_assert!(matches!(again.host, Cow::Borrowed(_)));
                prop_assert_eq!(&again, &authority);
                prop_assert_eq!(again.into_owned().to_string(), text);
            }
        }

        #[test]
        fn every_address_and_port_reads_back(address in any::<u128>(), port in any::<u16>()) {
            let raw = format!("[{}]:{port}", Ipv6Addr::from(address));
            prop_assert_eq!(normal(&raw), Ok(raw));
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Authority::parse(&raw);
        }
    }
}
