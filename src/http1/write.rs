//! Heads out (RFC 9112 sections 3 and 4).
//!
//! What is written was parsed or composed by us, so it is well-formed already. A request's target
//! and Host are checked once more all the same: they are the places where a mistake further up
//! would become a second request in the origin's eyes. The check costs some nanoseconds.

use crate::http::fields::is_token_byte;
use crate::http::{Fields, Method};

/// Why a request was not written. A bug further up; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteFault {
    /// The method is not a token.
    BadMethod,
    /// The path does not start with `/` (or is not `*`), or path or query hold a byte that is not
    /// visible ASCII.
    BadTarget,
    /// The Host value is empty or holds a byte that is not visible ASCII.
    BadHost,
}

impl WriteFault {
    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadMethod => "bad_method",
            Self::BadTarget => "bad_target",
            Self::BadHost => "bad_host",
        }
    }
}

/// Appends a request head: `method path?query HTTP/1.1`, Host first (RFC 9110 section 7.2), the
/// fields as they are, the empty line. `fields` must not hold a Host of its own.
///
/// # Errors
///
/// When a part could split the message; `out` is unchanged then.
pub fn write_request_head(
    out: &mut Vec<u8>,
    method: &Method,
    path: &str,
    query: Option<&str>,
    host: &str,
    fields: &Fields,
) -> Result<(), WriteFault> {
    debug_assert!(!fields.contains("host"), "two Host fields");
    let method = method.as_str();
    if method.is_empty() || !method.bytes().all(is_token_byte) {
        return Err(WriteFault::BadMethod);
    }
    if !(path.starts_with('/') || path == "*") || !is_visible(path) {
        return Err(WriteFault::BadTarget);
    }
    if query.is_some_and(|query| !is_visible(query)) {
        return Err(WriteFault::BadTarget);
    }
    if host.is_empty() || !is_visible(host) {
        return Err(WriteFault::BadHost);
    }
    let query_len = query.map_or(0, str::len);
    out.reserve(method.len() + path.len() + query_len + host.len() + fields.as_wire().len() + 32);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(fields.as_wire());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends a response head: status line, fields, empty line.
pub fn write_response_head(out: &mut Vec<u8>, status: u16, fields: &Fields) {
    out.reserve(fields.as_wire().len() + 64);
    write_status_line(out, status);
    out.extend_from_slice(fields.as_wire());
    out.extend_from_slice(b"\r\n");
}

/// Appends `HTTP/1.1 NNN Reason CRLF`. A status without a registered reason gets an empty one; the
/// space before it stays (RFC 9112 section 4). A number that is no status becomes 500.
pub fn write_status_line(out: &mut Vec<u8>, status: u16) {
    if let Some(line) = status_line(status) {
        out.extend_from_slice(line);
        return;
    }
    debug_assert!((100..=999).contains(&status), "{status} is not a status");
    let status = if (100..=999).contains(&status) { status } else { 500 };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.extend_from_slice(b" \r\n");
}

/// The interim response that lets a waiting client send its body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// SP, controls and non-ASCII bytes out.
fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

macro_rules! status_lines {
    ($($status:literal $reason:literal,)+) => {
        /// The whole status line of a registered status (the IANA registry, RFC 9110 section 15).
        #[must_use]
        pub const fn status_line(status: u16) -> Option<&'static [u8]> {
            match status {
                $($status => {
                    Some(concat!("HTTP/1.1 ", $status, " ", $reason, "\r\n").as_bytes())
                })+
                _ => None,
            }
        }

        #[cfg(test)]
        const REGISTERED: &[u16] = &[$($status,)+];
    };
}

status_lines! {
    100 "Continue",
    101 "Switching Protocols",
    102 "Processing",
    103 "Early Hints",
    200 "OK",
    201 "Created",
    202 "Accepted",
    203 "Non-Authoritative Information",
    204 "No Content",
    205 "Reset Content",
    206 "Partial Content",
    207 "Multi-Status",
    208 "Already Reported",
    226 "IM Used",
    300 "Multiple Choices",
    301 "Moved Permanently",
    302 "Found",
    303 "See Other",
    304 "Not Modified",
    305 "Use Proxy",
    307 "Temporary Redirect",
    308 "Permanent Redirect",
    400 "Bad Request",
    401 "Unauthorized",
    402 "Payment Required",
    403 "Forbidden",
    404 "Not Found",
    405 "Method Not Allowed",
    406 "Not Acceptable",
    407 "Proxy Authentication Required",
    408 "Request Timeout",
    409 "Conflict",
    410 "Gone",
    411 "Length Required",
    412 "Precondition Failed",
    413 "Content Too Large",
    414 "URI Too Long",
    415 "Unsupported Media Type",
    416 "Range Not Satisfiable",
    417 "Expectation Failed",
    421 "Misdirected Request",
    422 "Unprocessable Content",
    423 "Locked",
    424 "Failed Dependency",
    425 "Too Early",
    426 "Upgrade Required",
    428 "Precondition Required",
    429 "Too Many Requests",
    431 "Request Header Fields Too Large",
    451 "Unavailable For Legal Reasons",
    500 "Internal Server Error",
    501 "Not Implemented",
    502 "Bad Gateway",
    503 "Service Unavailable",
    504 "Gateway Timeout",
    505 "HTTP Version Not Supported",
    506 "Variant Also Negotiates",
    507 "Insufficient Storage",
    508 "Loop Detected",
    511 "Network Authentication Required",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Limits, Slots, parse_request, parse_response};

    fn fields() -> Fields {
        let mut fields = Fields::new();
        fields.push("Accept", "*/*");
        fields.push("X-A", "b");
        fields
    }

    #[test]
    fn rfc9112_3_a_request_head_is_written_with_host_first_and_reads_back() {
        let mut out = b"before ".to_vec();
        write_request_head(&mut out, &Method::Get, "/a", Some("b=c"), "h:1", &fields()).unwrap();
        let head = &out["before ".len()..];
        assert_eq!(head, b"GET /a?b=c HTTP/1.1\r\nHost: h:1\r\nAccept: */*\r\nX-A: b\r\n\r\n");
        let mut slots = Slots::new();
        let read = parse_request(head, &Limits::default(), &mut slots).unwrap().unwrap();
        assert_eq!((read.head_len, read.authority), (head.len(), &b"h:1"[..]));
    }

    #[test]
    fn rfc9112_3_an_empty_query_keeps_its_question_mark() {
        let mut out = Vec::new();
        write_request_head(&mut out, &Method::Head, "/", Some(""), "h", &Fields::new()).unwrap();
        assert_eq!(out, b"HEAD /? HTTP/1.1\r\nHost: h\r\n\r\n");
    }

    #[test]
    fn a_request_that_could_be_split_is_not_written() {
        let method = |name: &str| Method::Extension(name.into());
        for (method, path, query, host, fault) in [
            (method("A B"), "/", None, "h", WriteFault::BadMethod),
            (method(""), "/", None, "h", WriteFault::BadMethod),
            (Method::Get, "/a b", None, "h", WriteFault::BadTarget),
            (Method::Get, "/a\r\nX: 1", None, "h", WriteFault::BadTarget),
            (Method::Get, "", None, "h", WriteFault::BadTarget),
            (Method::Get, "http://x/", None, "h", WriteFault::BadTarget),
            (Method::Get, "/\u{e9}", None, "h", WriteFault::BadTarget),
            (Method::Get, "/", Some("a\n"), "h", WriteFault::BadTarget),
            (Method::Get, "/", Some("a HTTP/1.1"), "h", WriteFault::BadTarget),
            (Method::Get, "/", None, "", WriteFault::BadHost),
            (Method::Get, "/", None, "h\r\nX: 1", WriteFault::BadHost),
        ] {
            let mut out = Vec::new();
            let written = write_request_head(&mut out, &method, path, query, host, &Fields::new());
            assert_eq!(written, Err(fault), "{method} {path:?} {query:?} {host:?}");
            assert!(out.is_empty());
        }
    }

    #[test]
    fn every_registered_status_line_reads_back() {
        for &status in REGISTERED {
            let mut out = Vec::new();
            write_response_head(&mut out, status, &fields());
            if status == 101 {
                continue;
            }
            let read = parse_response(&out, &Limits::default(), &Method::Get).unwrap().unwrap();
            assert_eq!((read.head.status, &read.head.fields), (status, &fields()));
            assert_eq!(read.head_len, out.len());
        }
    }

    #[test]
    fn rfc9112_4_an_unregistered_status_has_an_empty_reason() {
        let mut out = Vec::new();
        write_response_head(&mut out, 299, &Fields::new());
        assert_eq!(out, b"HTTP/1.1 299 \r\n\r\n");
        assert!(parse_response(&out, &Limits::default(), &Method::Get).unwrap().is_some());
    }

    #[test]
    fn rfc9110_15_2_1_continue_reads_back_as_an_interim_response() {
        let read = parse_response(CONTINUE, &Limits::default(), &Method::Post).unwrap().unwrap();
        assert!(read.interim && read.head_len == CONTINUE.len());
    }
}
