//! Status codes (RFC 9110 section 15 and the IANA registry).

use crate::http::method::Method;

/// The registered phrase of a status; empty for others, which is a valid phrase on the wire
/// (RFC 9112 section 4).
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        104 => "Upload Resumption Supported",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400..=499 => client_error_phrase(status),
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}

const fn client_error_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        _ => "",
    }
}

/// Whether the response ends the exchange: anything but the interim 1xx (RFC 9110 section 15.2).
#[must_use]
pub const fn is_final(status: u16) -> bool {
    status >= 200
}

/// Whether a cache may make up a lifetime for it (RFC 9110 section 15.1). A cache that does not
/// handle parts sets 206 aside itself.
#[must_use]
pub const fn heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether a body can follow the head of a response to `method` (RFC 9112 section 6.3, rules 1
/// and 2). Where not, framing fields speak of a body that does not come.
///
/// True for 205, which has no content but needs its length stated (RFC 9110 section 15.3.6).
#[must_use]
pub const fn body_allowed(status: u16, method: &Method) -> bool {
    match method {
        Method::Head => false,
        // Becomes a tunnel.
        Method::Connect if status >= 200 && status < 300 => false,
        _ => is_final(status) && status != 204 && status != 304,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_the_registered_ones() {
        let rows = [
            (100, "Continue"),
            (200, "OK"),
            (203, "Non-Authoritative Information"),
            (304, "Not Modified"),
            (404, "Not Found"),
            (413, "Content Too Large"),
            (422, "Unprocessable Content"),
            (431, "Request Header Fields Too Large"),
            (503, "Service Unavailable"),
            (511, "Network Authentication Required"),
        ];
        for (status, phrase) in rows {
            assert_eq!(reason_phrase(status), phrase);
        }
        for status in [0, 99, 105, 199, 209, 299, 306, 418, 499, 509, 599, 600, 999, u16::MAX] {
            assert_eq!(reason_phrase(status), "", "{status}");
        }
        let registered = |class: u16| {
            let statuses = class * 100..class * 100 + 100;
            statuses.filter(|status| !reason_phrase(*status).is_empty()).count()
        };
        // As the IANA registry has them, without those marked unused.
        assert_eq!([1, 2, 3, 4, 5].map(registered), [5, 10, 8, 28, 11]);
    }

    #[test]
    fn phrases_fit_a_status_line() {
        for status in 0..1_000 {
            let phrase = reason_phrase(status);
            assert!(phrase.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{status}");
        }
    }

    #[test]
    fn lifetimes_may_be_made_up_for_twelve_statuses() {
        // RFC 9110 section 15.1
        let cacheable: Vec<u16> = (0..1_000).filter(|it| heuristically_cacheable(*it)).collect();
        assert_eq!(cacheable, [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501]);
    }

    #[test]
    fn bodies_follow_neither_head_nor_interim_nor_204_nor_304() {
        let rows = [
            (200, Method::Get, true),
            (205, Method::Get, true),
            (404, Method::Get, true),
            (100, Method::Get, false),
            (101, Method::Get, false),
            (103, Method::Post, false),
            (204, Method::Get, false),
            (304, Method::Get, false),
            (200, Method::Head, false),
            (500, Method::Head, false),
            (200, Method::Connect, false),
            (299, Method::Connect, false),
            (403, Method::Connect, true),
            (200, Method::Post, true),
        ];
        for (status, method, expected) in rows {
            assert_eq!(body_allowed(status, &method), expected, "{status} {method}");
        }
        assert!(!is_final(199) && is_final(200));
    }
}
