//! Where a request's body ends (RFC 9112 section 6): every doubt is refused.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::{Edge, assert_forwarded, assert_refused, post};

#[test]
fn doubtful_framing_is_refused_and_nothing_is_forwarded() {
    let edge = Edge::plain();
    let rows: Vec<(&str, String, u16)> = [
        ("9112-6.1 both", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        (
            "9112-6.1 both, the other way",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            400,
        ),
        ("9112-6.1 both, length zero", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
        ("9112-6.3 two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("9112-6.3 two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("9112-6.3 a list of equal lengths", "Content-Length: 5, 5\r\n", 400),
        ("9112-6.3 a plus sign", "Content-Length: +5\r\n", 400),
        ("9112-6.3 a minus sign", "Content-Length: -5\r\n", 400),
        ("9112-6.3 hexadecimal", "Content-Length: 0x5\r\n", 400),
        ("9112-6.3 a fraction", "Content-Length: 5.0\r\n", 400),
        ("9112-6.3 an exponent", "Content-Length: 1e1\r\n", 400),
        ("9112-6.3 a space within", "Content-Length: 5 5\r\n", 400),
        ("9112-6.3 quotes", "Content-Length: \"5\"\r\n", 400),
        ("9112-6.3 an empty length", "Content-Length:\r\n", 400),
        ("9112-6.3 beyond 64 bits", "Content-Length: 18446744073709551616\r\n", 400),
        ("9112-6.3 far beyond", "Content-Length: 99999999999999999999999999\r\n", 400),
        ("9112-6.1 identity", "Transfer-Encoding: identity\r\n", 400),
        ("9112-6.1 an unknown coding", "Transfer-Encoding: xchunked\r\n", 400),
        ("9112-6.1 not last", "Transfer-Encoding: chunked, gzip\r\n", 400),
        ("9112-6.1 twice", "Transfer-Encoding: chunked, chunked\r\n", 400),
        (
            "9112-6.1 in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        (
            "9112-6.1 identity behind",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            400,
        ),
        ("9112-6.1 a coding we don't undo", "Transfer-Encoding: gzip, chunked\r\n", 501),
        ("9112-7 a parameter", "Transfer-Encoding: chunked;q=1\r\n", 400),
        ("9112-6.1 quotes", "Transfer-Encoding: \"chunked\"\r\n", 400),
        ("9112-6.1 an empty element", "Transfer-Encoding: ,chunked\r\n", 400),
        ("9112-6.1 empty", "Transfer-Encoding:\r\n", 400),
        ("9110-5.5 a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", 400),
        ("9112-5.1 a space before the colon", "Transfer-Encoding : chunked\r\n", 400),
        ("9112-5.1 the same for the length", "Content-Length : 5\r\n", 400),
        ("9112-5.2 folded", "Transfer-Encoding:\r\n chunked\r\n", 400),
    ]
    .into_iter()
    .map(|(rule, fields, status)| (rule, post(fields, "0\r\n\r\n"), status))
    .collect();
    assert_refused(&edge, &rows);
    let http10 = "POST /api/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let keep =
        "POST /api/x HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_refused(
        &edge,
        &[
            ("9112-6.1 chunked in HTTP/1.0", http10, 400),
            ("9112-6.1 chunked in HTTP/1.0 that is kept alive", keep, 400),
        ],
    );
}

#[test]
fn bodies_of_stated_length_are_passed_on_whole() {
    let edge = Edge::plain();
    let get = "GET /api/x HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: 3\r\n\r\nabc".to_owned();
    let rows = [
        ("9112-6.2 five bytes", post("Content-Length: 5\r\n", "hello"), "POST /x", "hello"),
        ("9112-6.2 none", post("Content-Length: 0\r\n", ""), "POST /x", ""),
        ("9112-6.3 no framing is no body", post("", ""), "POST /x", ""),
        ("9112-6.2 leading zeros", post("Content-Length: 0005\r\n", "hello"), "POST /x", "hello"),
        (
            "9110-5.5 white space around",
            post("Content-Length: \t5 \r\n", "hello"),
            "POST /x",
            "hello",
        ),
        ("9110-5.1 any case", post("cOnTeNt-LeNgTh: 5\r\n", "hello"), "POST /x", "hello"),
        ("9110-9.3.1 a GET may have content", get, "GET /x", "abc"),
        (
            "9112-6.2 CR LF in content",
            post("Content-Length: 4\r\n", "\r\n\r\n"),
            "POST /x",
            "\r\n\r\n",
        ),
    ];
    assert_forwarded(&edge, &rows);
}

/// RFC 9110 section 8.6: a user agent says 0 for methods that expect content.
#[test]
fn rfc9110_8_6_an_empty_post_states_its_length() {
    let edge = Edge::plain();
    let mut client = edge.send(post("", ""));
    assert_eq!(client.read("POST").status, 200);
    assert_eq!(edge.origin.last().field("Content-Length"), Some("0"));
    client.send_request("GET", "/api/x", &[], "");
    client.read("GET");
    assert_eq!(edge.origin.last().field("Content-Length"), None);
}

/// The body of one request must never become the next request, whatever became of the first.
#[test]
fn rfc9112_6_a_body_is_never_taken_for_a_request() {
    let edge = Edge::plain();
    let body = edge::SMUGGLED;
    let length = body.len();
    for (line, status) in [
        ("POST /api/x HTTP/1.1", 200),
        ("POST /nowhere HTTP/1.1", 404),
        ("BREW /api/x HTTP/1.1", 501),
        ("POST /health HTTP/1.1", 405),
        ("POST /api/%00 HTTP/1.1", 400),
    ] {
        let before = edge.origin.count();
        let head = format!("{line}\r\nHost: proxy.test\r\nContent-Length: {length}\r\n\r\n");
        let mut client = edge.send(head + body);
        assert_eq!(client.read("POST").status, status, "{line}");
        client.try_send("GET /api/after HTTP/1.1\r\nHost: proxy.test\r\n\r\n").ok();
        if let Ok(after) = client.try_read("GET") {
            assert_eq!(after.text(), "GET /after", "{line}");
        }
        let seen = edge.origin.requests().split_off(before);
        assert!(seen.iter().all(|it| it.target != "/smuggled"), "{line}: {seen:?}");
    }
}
