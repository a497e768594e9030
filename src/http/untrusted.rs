//! Request fields that a client must not be able to write: what an origin or its framework believes
//! of the hop before it. They never go on; what of them is true, the daemon writes anew.
//!
//! * who the client is: its address, its host, the scheme, its certificate, its name, as proxies
//!   state them;
//! * another target or method than the request line's, which the cache key does not hold: one
//!   client could fill the cache with another resource's answer;
//! * switches of the software behind: a CGI's proxy (`Proxy`), a framework's inner requests.
//!
//! CGI and its heirs (WSGI, Rack, PHP) make one variable of `X-Real-IP` and `X_Real_IP`, so that an
//! underscore counts as a hyphen here: see [`dashed`].

use std::borrow::Cow;

/// A name as origins read it that take `_` for `-`. Borrowed where it has none: one scan.
#[must_use]
pub fn dashed(name: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'_', name).is_none() {
        return Cow::Borrowed(name);
    }
    name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect()
}

/// Whether a request field of that name ends here. A comparison of lengths for most names.
#[must_use]
pub fn is_untrusted(name: &[u8]) -> bool {
    // The first letter decides for most.
    let first = name.first().map_or(0, u8::to_ascii_lowercase);
    if !matches!(first, b'c' | b'f' | b'p' | b't' | b'x') {
        return false;
    }
    let name = dashed(name);
    let starts = |prefix: &&str| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    UNTRUSTED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || UNTRUSTED_PREFIXES.iter().any(starts)
}

/// All names that begin so.
pub const UNTRUSTED_PREFIXES: &[&str] = &[
    // Who the client is.
    "X-Forwarded-",
    "X-Auth-Request-",
    "X-Client-Cert",
    "X-SSL-Client-",
    "X-Envoy-",
    // That, or another target or method.
    "X-Original-",
];

/// All others.
pub const UNTRUSTED: &[&str] = &[
    // Who the client is.
    "Forwarded",
    "X-Forwarded",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Azure-ClientIP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-Remote-User",
    "X-Originating-IP",
    "X-ProxyUser-Ip",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "Fastly-Client-IP",
    "Client-IP",
    "X-Scheme",
    "X-Url-Scheme",
    "Front-End-Https",
    "X-Request-Id",
    // Another target or method.
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

    fn all() -> impl Iterator<Item = String> {
        let prefixes = UNTRUSTED_PREFIXES.iter().map(|it| format!("{it}Anything"));
        UNTRUSTED.iter().map(|it| (*it).to_owned()).chain(prefixes)
    }

    #[test]
    fn names_are_known_in_any_case_and_spelling_and_others_are_not() {
        for name in all() {
            for spelling in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                assert!(is_untrusted(spelling.as_bytes()), "{spelling}");
                assert!(is_untrusted(spelling.replace('-', "_").as_bytes()), "{spelling}");
            }
        }
        for name in ["X_Forwarded-For", "x-real_ip", "X-Client-Cert", "X-Client-Certificate"] {
            assert!(is_untrusted(name.as_bytes()), "{name}");
        }
    }

    /// What ordinary clients send, and what browsers and libraries add, goes on.
    #[test]
    fn what_ordinary_clients_send_is_not_lost() {
        for name in [
            "Accept",
            "Accept-Language",
            "Authorization",
            "Cookie",
            "Content-Type",
            "CF-Access-Client-Id",
            "From",
            "Priority",
            "Prefer",
            "Pragma",
            "Traceparent",
            "Tracestate",
            "X-API-Key",
            "X-Amz-Date",
            "X-B3-TraceId",
            "X-Client-Id",
            "X-Client-Version",
            "X-Correlation-Id",
            "X-CSRF-Token",
            "X-Custom_Field",
            "X-Forwarde",
            "X-GitHub-Api-Version",
            "X-Hub-Signature-256",
            "X-Idempotency-Key",
            "X-Requested-With",
            "X-Shopify-Access-Token",
            "X-SSL-Clients",
            "X-XSRF-TOKEN",
            "Proxyx",
            "",
        ] {
            assert!(!is_untrusted(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        for (at, name) in UNTRUSTED.iter().enumerate() {
            let earlier = &UNTRUSTED[..at];
            assert!(!earlier.iter().any(|it| it.eq_ignore_ascii_case(name)), "{name}");
            let starts = |prefix: &&str| name.starts_with(*prefix);
            assert!(!UNTRUSTED_PREFIXES.iter().any(starts), "{name}");
        }
    }
}
