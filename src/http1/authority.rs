//! `host [":" port]`: the Host field and the authority of a target (RFC 9110 section 4.2).

use std::net::Ipv6Addr;

use crate::http1::target::Scheme;

/// A valid authority without user information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Authority<'b> {
    /// Never empty; an IPv6 address in its brackets.
    host: &'b [u8],
    /// `None` when there is none, or nothing after the colon.
    port: Option<u16>,
}

impl<'b> Authority<'b> {
    /// Reads an authority. `None` for an empty host (RFC 9110 section 4.2.1), user information
    /// (section 4.2.4), a list, and whatever else RFC 3986 section 3.2 does not let stand there.
    pub(super) fn parse(text: &'b [u8]) -> Option<Self> {
        let (host, rest) = if text.first() == Some(&b'[') {
            let end = text.iter().position(|b| *b == b']')?;
            let inner = std::str::from_utf8(text.get(1..end)?).ok()?;
            inner.parse::<Ipv6Addr>().ok()?;
            text.split_at_checked(end + 1)?
        } else {
            let end = text.iter().position(|b| *b == b':').unwrap_or(text.len());
            let (host, rest) = text.split_at_checked(end)?;
            if host.is_empty() || !is_registered_name(host) {
                return None;
            }
            (host, rest)
        };
        let port = match rest.split_first() {
            None | Some((b':', [])) => None,
            Some((b':', digits)) => Some(parse_port(digits)?),
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    /// Whether a port stands there, as authority-form demands (RFC 9112 section 3.2.3).
    pub(super) const fn has_port(&self) -> bool {
        self.port.is_some()
    }

    /// Whether `text` is an authority.
    #[inline]
    pub(super) fn is_valid(text: &'b [u8]) -> bool {
        // Nearly every host is one plain name.
        (kinds(text) == NAME_BYTE && !text.is_empty()) || Self::parse(text).is_some()
    }

    /// Whether both name the same origin: hosts without case, an absent port being the scheme's
    /// (RFC 9110 section 4.2.3).
    pub(super) fn is_same(&self, other: &Self, scheme: Scheme) -> bool {
        let port = |it: &Self| it.port.unwrap_or(scheme.default_port());
        self.host.eq_ignore_ascii_case(other.host) && port(self) == port(other)
    }
}

/// `reg-name` of RFC 3986 section 3.2.2 without the comma: it stands in no real host name, and a
/// recipient that takes Host for a list would see another host than we do.
fn is_registered_name(host: &[u8]) -> bool {
    if kinds(host) == NAME_BYTE {
        return true;
    }
    let mut rest = host;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => match after {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    after
                }
                _ => return false,
            },
            byte if is_name_byte(*byte) => after,
            _ => return false,
        };
    }
    true
}

/// The kinds of all bytes together. A fold without a branch for each byte: nearly every host is one
/// plain name, and a loop that may stop anywhere costs more than the rest of the judgement.
#[inline]
fn kinds(text: &[u8]) -> u8 {
    text.iter().fold(NAME_BYTE, |kinds, byte| {
        kinds | KINDS.get(usize::from(*byte)).copied().unwrap_or_default()
    })
}

const fn is_name_byte(byte: u8) -> bool {
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
                | b';'
                | b'='
        )
}

const NAME_BYTE: u8 = 0;
const OTHER_BYTE: u8 = 1;
static KINDS: [u8; 256] = {
    let mut kinds = [OTHER_BYTE; 256];
    let mut byte = 0_u8;
    #[allow(clippy::indexing_slicing, reason = "evaluated at compile time only")]
    while byte < 128 {
        if is_name_byte(byte) {
            kinds[byte as usize] = NAME_BYTE;
        }
        byte += 1;
    }
    kinds
};

fn parse_port(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 {
        return None;
    }
    digits.iter().try_fold(0_u16, |port, digit| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        port.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_authorities_are_read() {
        for (text, port) in [
            ("a", None),
            ("example.org:8080", Some(8080)),
            ("example.org:", None),
            ("EXAMPLE.org:00080", Some(80)),
            ("127.0.0.1:65535", Some(65_535)),
            ("[::1]", None),
            ("[2001:db8::1]:443", Some(443)),
            ("under_score.example", None),
            ("a%20b", None),
            ("a!$&'()*+;=~", None),
        ] {
            let read = Authority::parse(text.as_bytes());
            assert_eq!(read.map(|it| it.port), Some(port), "{text}");
        }
    }

    #[test]
    fn whatever_could_mean_another_host_is_refused() {
        for text in [
            "",
            ":80",
            "a:b",
            "a:80:80",
            "a:+80",
            "a: 80",
            "a:65536",
            "a:000080",
            "a b",
            "a,b",
            "a/b",
            "user@a",
            "user:pw@a",
            "a\\b",
            "a?b",
            "a#b",
            "a%",
            "a%2",
            "a%zz",
            "[::1",
            "[]",
            "[::1]x",
            "[::1]:x",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "::1",
            "a\u{e9}",
            "a\tb",
            "\"a\"",
            "<a>",
            "a|b",
            "a{b",
            "a^b",
            "a`b",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn authorities_compare_without_case_and_with_the_default_port() {
        for (a, b, scheme, same) in [
            ("a", "A:80", Scheme::Http, true),
            ("a:443", "a", Scheme::Https, true),
            ("a:443", "a", Scheme::Http, false),
            ("a", "b", Scheme::Http, false),
            ("a:", "a", Scheme::Http, true),
        ] {
            let read = |text: &'static str| Authority::parse(text.as_bytes()).unwrap();
            assert_eq!(read(a).is_same(&read(b), scheme), same, "{a} {b}");
        }
    }
}
