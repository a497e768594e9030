//! An upstream: where an `entry_point` points.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::route::pattern::{PatternFault, check_path};

/// The index of an upstream in the settings' list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(
    /// The index.
    pub u16,
);

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP, port 80 unless stated.
    Http,
    /// TLS, port 443 unless stated.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme need not write (RFC 9110 section 4.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A parsed `entry_point`, for example `https://api.example.com:8443/base`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    scheme: Scheme,
    /// Lower case, without brackets and without a final dot; never empty.
    host: Box<str>,
    /// Never 0.
    port: u16,
    /// Empty, or starts with `/` and does not end with it.
    base_path: Box<str>,
    /// For the Host field: host, in brackets if IPv6, and the port unless it is the default.
    authority: Box<str>,
}

impl Upstream {
    /// Parses an entry point URL.
    ///
    /// # Errors
    /// The first fault, whose text says what to write instead.
    pub fn parse(url: &str) -> Result<Self, UpstreamFault> {
        if url.is_empty() {
            return Err(UpstreamFault::Empty);
        }
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'\\') {
            return Err(UpstreamFault::WhiteSpace);
        }
        let (scheme, rest) = url.split_once("://").ok_or(UpstreamFault::SchemeMissing)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(UpstreamFault::SchemeUnknown),
        };
        if rest.contains('?') {
            return Err(UpstreamFault::Query);
        }
        if rest.contains('#') {
            return Err(UpstreamFault::Fragment);
        }
        let path_at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        if authority.contains('@') {
            return Err(UpstreamFault::UserInfo);
        }
        let (host, port) = split_authority(authority)?;
        let port = port.map_or(Ok(scheme.default_port()), parse_port)?;
        let base_path = path.trim_end_matches('/');
        if !base_path.is_empty() {
            check_path(base_path).map_err(UpstreamFault::BasePath)?;
        }
        let authority = authority_text(scheme, &host, port);
        Ok(Self { scheme, host, port, base_path: base_path.into(), authority })
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a lower-case name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, stated or the scheme's own; never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path put before every request path; empty, or without a final `/`.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// The value for the Host field and `:authority` (RFC 9110 section 7.2).
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Appends the path for the upstream: base path, then `path`, which starts with `/`.
    ///
    /// A `/` for a base path that is not empty becomes `/base/`, as one would write it.
    pub fn push_path(&self, path: &[u8], out: &mut Vec<u8>) {
        debug_assert!(path.starts_with(b"/"));
        out.extend_from_slice(self.base_path.as_bytes());
        out.extend_from_slice(path);
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}{}", self.scheme.as_str(), self.authority, self.base_path)
    }
}

/// Splits `host[:port]`, the host in its canonical form.
fn split_authority(authority: &str) -> Result<(Box<str>, Option<&str>), UpstreamFault> {
    if let Some(inside) = authority.strip_prefix('[') {
        let (address, rest) = inside.split_once(']').ok_or(UpstreamFault::HostInvalid)?;
        let address: Ipv6Addr = address.parse().map_err(|_| UpstreamFault::HostInvalid)?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':').ok_or(UpstreamFault::HostInvalid)?),
        };
        return Ok((address.to_string().into(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(UpstreamFault::BracketsMissing),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host.is_empty() {
        return Err(UpstreamFault::HostMissing);
    }
    if !is_host_name(&host) {
        return Err(UpstreamFault::HostInvalid);
    }
    Ok((host.into(), port))
}

/// A name of RFC 1123 section 2.1 in ASCII (with `_`, which real names have), or an IPv4 address
/// in dotted decimal. A name whose last label is a number would be an address in another dress
/// (`0x7f.1`, `2130706433`), and only the plain form of those is taken.
fn is_host_name(host: &str) -> bool {
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|it| it.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
    if numeric {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= HOST_BYTES_MAX && host.split('.').all(label_is_valid)
}

fn parse_port(text: &str) -> Result<u16, UpstreamFault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UpstreamFault::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(UpstreamFault::Port),
        Ok(port) => Ok(port),
    }
}

fn authority_text(scheme: Scheme, host: &str, port: u16) -> Box<str> {
    let mut text = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port != scheme.default_port() {
        text.push(':');
        text.push_str(&port.to_string());
    }
    text.into()
}

/// Why an entry point is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// Nothing is written.
    Empty,
    /// White space, a control character or a backslash.
    WhiteSpace,
    /// No `://`.
    SchemeMissing,
    /// Neither `http` nor `https`.
    SchemeUnknown,
    /// `user:password@`.
    UserInfo,
    /// No host.
    HostMissing,
    /// The host is neither a name in ASCII nor an address in its plain form.
    HostInvalid,
    /// An IPv6 address without brackets.
    BracketsMissing,
    /// Not a number from 1 to 65535.
    Port,
    /// The base path is no plain path.
    BasePath(PatternFault),
    /// A query.
    Query,
    /// A fragment.
    Fragment,
}

impl UpstreamFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::WhiteSpace => "white_space",
            Self::SchemeMissing => "scheme_missing",
            Self::SchemeUnknown => "scheme_unknown",
            Self::UserInfo => "user_info",
            Self::HostMissing => "host_missing",
            Self::HostInvalid => "host_invalid",
            Self::BracketsMissing => "brackets_missing",
            Self::Port => "port_invalid",
            Self::BasePath(_) => "base_path_invalid",
            Self::Query => "query",
            Self::Fragment => "fragment",
        }
    }
}

impl fmt::Display for UpstreamFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Empty => "write the upstream's URL, for example `https://api.example.com`",
            Self::WhiteSpace => "a URL has no white space, control characters or backslashes",
            Self::SchemeMissing => "start the URL with `http://` or `https://`",
            Self::SchemeUnknown => "only `http://` and `https://` upstreams can be reached",
            Self::UserInfo => "leave out `user:password@`; use `api_key` for credentials",
            Self::HostMissing => "name a host after `://`",
            Self::HostInvalid => {
                "the host must be a name in ASCII (punycode for others) or an address such as \
                 `192.0.2.7` or `[2001:db8::7]`"
            }
            Self::BracketsMissing => "write an IPv6 address in brackets: `[2001:db8::7]`",
            Self::Port => "the port must be a number from 1 to 65535",
            Self::BasePath(fault) => return write!(out, "in the path: {fault}"),
            Self::Query => "leave out `?` and what follows: queries come from the clients",
            Self::Fragment => "leave out `#` and what follows",
        })
    }
}

impl std::error::Error for UpstreamFault {}

/// The longest name in the DNS, in its text form (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_point_is_taken_apart() {
        // URL, scheme, host, port, base path, authority
        let rows: &[(&str, Scheme, &str, u16, &str, &str)] = &[
            ("https://a.example", Scheme::Https, "a.example", 443, "", "a.example"),
            ("https://a.example/", Scheme::Https, "a.example", 443, "", "a.example"),
            ("HTTP://A.Example:80/v1/", Scheme::Http, "a.example", 80, "/v1", "a.example"),
            ("https://a:80/b/c", Scheme::Https, "a", 80, "/b/c", "a:80"),
            ("http://a.example.:8080", Scheme::Http, "a.example", 8080, "", "a.example:8080"),
            ("http://127.0.0.1:9", Scheme::Http, "127.0.0.1", 9, "", "127.0.0.1:9"),
            ("http://[::1]", Scheme::Http, "::1", 80, "", "[::1]"),
            ("http://[0:0::1]:81/x", Scheme::Http, "::1", 81, "/x", "[::1]:81"),
            ("http://my_host-1", Scheme::Http, "my_host-1", 80, "", "my_host-1"),
            (
                "http://xn--bcher-kva.example",
                Scheme::Http,
                "xn--bcher-kva.example",
                80,
                "",
                "xn--bcher-kva.example",
            ),
        ];
        for &(url, scheme, host, port, base_path, authority) in rows {
            let upstream = Upstream::parse(url).unwrap();
            assert_eq!(upstream.scheme(), scheme, "{url}");
            assert_eq!(upstream.host(), host, "{url}");
            assert_eq!(upstream.port(), port, "{url}");
            assert_eq!(upstream.base_path(), base_path, "{url}");
            assert_eq!(upstream.authority(), authority, "{url}");
        }
    }

    #[test]
    fn every_fault_of_an_entry_point_is_named() {
        let rows: &[(&str, UpstreamFault)] = &[
            ("", UpstreamFault::Empty),
            ("https://a b", UpstreamFault::WhiteSpace),
            (" https://a", UpstreamFault::WhiteSpace),
            ("https://a\\b", UpstreamFault::WhiteSpace),
            ("https://a\r\nX: y", UpstreamFault::WhiteSpace),
            ("a.example", UpstreamFault::SchemeMissing),
            ("localhost:8000", UpstreamFault::SchemeMissing),
            ("ftp://a", UpstreamFault::SchemeUnknown),
            ("file:///etc/passwd", UpstreamFault::SchemeUnknown),
            ("https://user:pw@a", UpstreamFault::UserInfo),
            ("https://", UpstreamFault::HostMissing),
            ("https://:80", UpstreamFault::HostMissing),
            ("https:///x", UpstreamFault::HostMissing),
            ("https://a..b", UpstreamFault::HostInvalid),
            ("https://-a", UpstreamFault::HostInvalid),
            ("https://b\u{fc}cher.example", UpstreamFault::HostInvalid),
            ("https://a%41", UpstreamFault::HostInvalid),
            ("http://2130706433", UpstreamFault::HostInvalid),
            ("http://0x7f.1", UpstreamFault::HostInvalid),
            ("http://127.1", UpstreamFault::HostInvalid),
            ("http://127.0.0.01", UpstreamFault::HostInvalid),
            ("http://a.0x7f", UpstreamFault::HostInvalid),
            ("http://[::1", UpstreamFault::HostInvalid),
            ("http://[::1]x", UpstreamFault::HostInvalid),
            ("http://[fe80::1%25eth0]", UpstreamFault::HostInvalid),
            ("http://::1", UpstreamFault::BracketsMissing),
            ("http://a:0", UpstreamFault::Port),
            ("http://a:", UpstreamFault::Port),
            ("http://a:+80", UpstreamFault::Port),
            ("http://a:65536", UpstreamFault::Port),
            ("http://a/../b", UpstreamFault::BasePath(PatternFault::DotSegment)),
            ("http://a/b*", UpstreamFault::BasePath(PatternFault::StarInside)),
            ("http://a/b?c=d", UpstreamFault::Query),
            ("http://a?c", UpstreamFault::Query),
            ("http://a/b#c", UpstreamFault::Fragment),
        ];
        for &(url, fault) in rows {
            assert_eq!(Upstream::parse(url), Err(fault), "{url}");
            assert!(!fault.to_string().is_empty() && !fault.as_str().is_empty());
        }
        let label = "a".repeat(64);
        let name = vec!["a".repeat(63); 4].join(".");
        for host in [label, name] {
            let fault = Upstream::parse(&format!("http://{host}"));
            assert_eq!(fault, Err(UpstreamFault::HostInvalid), "{host}");
        }
    }

    #[test]
    fn the_base_path_comes_before_the_request_path() {
        let join = |url: &str, path: &str| {
            let mut out = b"GET ".to_vec();
            Upstream::parse(url).unwrap().push_path(path.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(join("http://a", "/x"), "GET /x");
        assert_eq!(join("http://a/", "/"), "GET /");
        assert_eq!(join("http://a/b/", "/x"), "GET /b/x");
        assert_eq!(join("http://a/b", "/"), "GET /b/");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_it_prints_parses_to_the_same(text in "\\PC{0,40}") {
            for url in [text.clone(), format!("http://{text}"), format!("https://[{text}")] {
                if let Ok(upstream) = Upstream::parse(&url) {
                    prop_assert_eq!(Upstream::parse(&upstream.to_string()).unwrap(), upstream);
                }
            }
        }

        #[test]
        fn plausible_urls_survive_a_round_trip(
            url in "https?://[a-z0-9.]{1,12}(:[0-9]{1,5})?(/[a-z]{0,3}){0,3}",
        ) {
            if let Ok(upstream) = Upstream::parse(&url) {
                prop_assert_eq!(Upstream::parse(&upstream.to_string()).unwrap(), upstream);
            }
        }
    }
}
