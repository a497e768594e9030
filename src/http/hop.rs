//! Hop-by-hop fields (RFC 9110 section 7.6.1): those that speak of this connection only and end
//! here, on the way in and on the way out, before anything else looks at the fields.
//!
//! **Fields named in Connection.** The RFC lets the sender name any field, and a client can abuse
//! that to have a proxy remove fields that the next one relies on (who the client is, how to
//! cache). So a name in Connection is not obeyed where it can only do harm: fields that frame,
//! route, authenticate, select or describe the content, steer caches, or name the client. No honest
//! sender lists them: section 7.6.1 forbids it for fields meant for all recipients of the content.
//! Such a field is kept as if it had not been named.
//!
//! Removing is what the caller does first, so that policy, cache key and the next hop see one set
//! of fields.

use crate::http::fields::Fields;
use crate::http::list::{field_members, is_token};

/// Whether a field ends at this hop whether or not Connection names it.
///
/// Includes the proxy credentials and challenges, which are for the adjacent proxy (section 11.7)
/// and which a cache must not store (RFC 9111 section 3.1), and Trailer, since the trailers it
/// announces are not passed on.
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    // The first letter decides for nearly every field.
    let first = name.first().map_or(0, u8::to_ascii_lowercase);
    matches!(first, b'c' | b'h' | b'k' | b'p' | b't' | b'u')
        && HOP_BY_HOP.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// The options in Connection: tokens, in order, in the case they came in. Compare without case.
pub fn connection_tokens(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    field_members(fields, "Connection").filter(|member| is_token(member))
}

/// The fields of one message that end here: the hop-by-hop fields, and those named in Connection
/// except the protected ones (see the head of this file).
pub struct Ending {
    /// In lower case and sorted, so that many names times many fields stay cheap.
    named: Vec<Vec<u8>>,
}

impl Ending {
    /// Reads Connection. Allocates only where it names other fields.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let removable = |name: &&[u8]| !is_hop_by_hop(name) && !is_protected(name);
        let named = connection_tokens(fields).filter(removable);
        let mut named: Vec<Vec<u8>> = named.map(<[u8]>::to_ascii_lowercase).collect();
        named.sort_unstable();
        Self { named }
    }

    /// Whether a field of that name ends here.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        let is_named = || {
            let order = |known: &Vec<u8>| known.iter().copied().cmp(lower(name));
            self.named.binary_search_by(order).is_ok()
        };
        is_hop_by_hop(name) || (!self.named.is_empty() && is_named())
    }
}

/// Removes the fields that end here.
///
/// Read what is needed of Connection, TE, Upgrade or Trailer before. Costs one pass and no
/// allocation if there is nothing to remove.
pub fn strip_hop_by_hop(fields: &mut Fields) {
    if !fields.iter().any(|field| is_hop_by_hop(field.name)) {
        // Nor is there a Connection that could name others.
        return;
    }
    let ending = Ending::of(fields);
    fields.retain(|field| !ending.has(field.name));
}

/// Whether a field stays although Connection names it.
#[must_use]
pub fn is_protected(name: &[u8]) -> bool {
    let starts = |prefix: &str| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    PROTECTED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || PROTECTED_PREFIXES.iter().any(|prefix| starts(prefix))
}

fn lower(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().map(u8::to_ascii_lowercase)
}

const HOP_BY_HOP: [&str; 11] = [
    "Connection",
    "Keep-Alive",
    "Transfer-Encoding",
    "TE",
    "Trailer",
    "Upgrade",
    "HTTP2-Settings",
    "Proxy-Connection",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "Proxy-Authentication-Info",
];

const PROTECTED: [&str; 43] = [
    // Framing and routing.
    "Host",
    "Content-Length",
    "Expect",
    "Max-Forwards",
    "Via",
    // Who asks.
    "Authorization",
    "WWW-Authenticate",
    "Authentication-Info",
    "Cookie",
    "Set-Cookie",
    "Origin",
    "Referer",
    "X-API-Key",
    "X-Real-IP",
    "X-Client-IP",
    "X-Request-Id",
    "Forwarded",
    "True-Client-IP",
    "CF-Connecting-IP",
    // What the content is.
    "Content-Type",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-Range",
    "Content-Disposition",
    "Location",
    // Caching and conditions.
    "Age",
    "Cache-Control",
    "CDN-Cache-Control",
    "Cache-Status",
    "Date",
    "ETag",
    "Expires",
    "Last-Modified",
    "Pragma",
    "Range",
    "Retry-After",
    "Surrogate-Control",
    "Vary",
    "Accept-Ranges",
    // RFC 8470: whoever removes it lets replays through.
    "Early-Data",
    // Tracing.
    "Traceparent",
    "Tracestate",
];

/// Negotiation (`Accept`, `Accept-Encoding`, ...), conditions, what proxies say of the client, and
/// what protects browsers.
const PROTECTED_PREFIXES: [&str; 7] = [
    "Accept",
    "If-",
    "Sec-",
    "X-Forwarded-",
    "Access-Control-",
    "Content-Security-Policy",
    "Strict-Transport-Security",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name, value);
        }
        fields
    }

    fn names_after_stripping(lines: &[(&str, &str)]) -> Vec<String> {
        let mut fields = fields(lines);
        strip_hop_by_hop(&mut fields);
        fields.iter().map(|field| String::from_utf8(field.name.to_vec()).unwrap()).collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        for name in HOP_BY_HOP {
            for name in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                assert!(is_hop_by_hop(name.as_bytes()), "{name}");
                assert_eq!(names_after_stripping(&[("A", "1"), (&name, "x")]), ["A"], "{name}");
            }
        }
        for name in ["", "Host", "Content-Length", "Trailers", "T", "Upgrade-Insecure-Requests"] {
            assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn fields_named_in_connection_end_here() {
        let lines = [
            ("Connection", "close, X-One , ,\t\"x-four\""),
            ("x-one", "1"),
            ("X-Two", "2"),
            ("X-Three", "3"),
            ("x-four", "4"),
            ("X-ONE", "5"),
            ("connection", "x-TWO"),
            ("X-On", "6"),
        ];
        assert_eq!(names_after_stripping(&lines), ["X-Three", "x-four", "X-On"]);
    }

    #[test]
    fn a_client_cannot_have_protected_fields_removed() {
        for name in PROTECTED.into_iter().chain(["X-Forwarded-For", "accept-language", "If-Match"])
        {
            let lines = [("Connection", name), (name, "v")];
            assert_eq!(names_after_stripping(&lines), [name], "{name}");
        }
    }

    #[test]
    fn without_hop_by_hop_fields_nothing_changes() {
        let before = fields(&[("Host", "a"), ("X-Close", "b")]);
        let mut after = before.clone();
        strip_hop_by_hop(&mut after);
        assert_eq!(before, after);
    }

    #[test]
    fn connection_options_are_tokens_over_all_lines() {
        let fields = fields(&[("Connection", "Keep-Alive, a b"), ("connection", "CLOSE,,\"x\"")]);
        assert_eq!(connection_tokens(&fields).collect::<Vec<_>>(), [&b"Keep-Alive"[..], b"CLOSE"]);
    }

    #[test]
    fn the_two_lists_are_disjoint() {
        for name in HOP_BY_HOP {
            assert!(!is_protected(name.as_bytes()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn stripping_agrees_with_a_slow_reading(
            lines in prop::collection::vec(
                (
                    "(x-[abc]|TE|Upgrade|Host|Connection|connection)",
                    "(x-[abc]|Host|,|close| ){0,4}",
                ),
                0..8,
            ),
        ) {
            let lines: Vec<(&str, &str)> =
                lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let named: HashSet<String> = lines
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
                .flat_map(|(_, value)| value.split(','))
                .map(|token| token.trim().to_owned())
                .collect();
            let kept: Vec<&str> = lines
                .iter()
                .map(|(name, _)| *name)
                .filter(|name| *name == "Host" || name.starts_with("x-") && !named.contains(*name))
                .collect();
            prop_assert_eq!(names_after_stripping(&lines), kept);
        }
    }
}
