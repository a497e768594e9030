//! Request fields that a client must not be able to write: what an origin or its framework believes
//! of the hop before it. They never go on; what of them is true, the daemon writes anew.
//!
//! * who the client is: its address, its host, the scheme, as proxies state them;
//! * another target or method than the request line's, which the cache key does not hold: one
//!   client could fill the cache with another resource's answer;
//! * switches of the software behind: a CGI's proxy (`Proxy`), a framework's inner requests.

/// Whether a request field of that name ends here. A comparison of lengths for most names.
#[must_use]
pub fn is_untrusted(name: &[u8]) -> bool {
    // The first letter decides for most.
    let first = name.first().map_or(0, u8::to_ascii_lowercase);
    matches!(first, b'c' | b'f' | b'p' | b't' | b'x')
        && UNTRUSTED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// All of them.
pub const UNTRUSTED: &[&str] = &[
    // Who the client is.
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-By",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-Ssl",
    "X-Forwarded-Server",
    "X-Forwarded-Prefix",
    "X-Forwarded-Path",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Original-Forwarded-For",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-Originating-IP",
    "X-ProxyUser-Ip",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "Client-IP",
    "X-Scheme",
    "X-Url-Scheme",
    "Front-End-Https",
    "X-Request-Id",
    // Another target or method.
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Host",
    "X-Original-Method",
    "X-Rewrite-URL",
    "X-Override-URL",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Backend-Host",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-HTTP-Path-Override",
    // Switches. `Proxy` becomes HTTP_PROXY in a CGI's environment.
    "Proxy",
    "X-Middleware-Subrequest",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_others_are_not() {
        for name in UNTRUSTED {
            assert!(is_untrusted(name.to_ascii_lowercase().as_bytes()), "{name}");
            assert!(is_untrusted(name.to_ascii_uppercase().as_bytes()), "{name}");
        }
        for name in ["Accept", "Authorization", "X-API-Key", "X-Forwarded-Fo", "Proxyx", ""] {
            assert!(!is_untrusted(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        for (at, name) in UNTRUSTED.iter().enumerate() {
            let earlier = &UNTRUSTED[..at];
            assert!(!earlier.iter().any(|it| it.eq_ignore_ascii_case(name)), "{name}");
        }
    }
}
