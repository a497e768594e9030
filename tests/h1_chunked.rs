//! Chunked request bodies (RFC 9112 section 7.1), streamed to the origin and read whole.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::{Edge, assert_forwarded, assert_refused, post};
use support::eventually;

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn chunked_bodies_reach_the_origin_whatever_their_form() {
    let edge = Edge::plain();
    let long_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "e".repeat(1000));
    let rows = [
        ("9112-7.1 one chunk", "3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("9112-7.1 three chunks", "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", "abc"),
        ("9112-7.1 no chunk", "0\r\n\r\n", ""),
        (
            "9112-7.1 digits in either case",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
        ),
        ("9112-7.1 leading zeros", "0003\r\nabc\r\n00\r\n\r\n", "abc"),
        ("9112-7.1 sixteen digits", "0000000000000003\r\nabc\r\n0\r\n\r\n", "abc"),
        ("9112-7.1.1 an extension", "3;a\r\nabc\r\n0\r\n\r\n", "abc"),
        ("9112-7.1.1 an extension with a value", "3;a=b;c=\"d;e\"\r\nabc\r\n0;last\r\n\r\n", "abc"),
        ("9112-7.1.1 an extension as long as allowed", &long_extension, "abc"),
        ("9112-7.1.2 trailers", "3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", "abc"),
        (
            "9110-6.5.1 forbidden trailers",
            "3\r\nabc\r\n0\r\nHost: evil\r\nContent-Length: 9\r\n\r\n",
            "abc",
        ),
        ("9112-7.1 CR LF in the data", "6\r\n0\r\n\r\n \r\n0\r\n\r\n", "0\r\n\r\n "),
    ];
    let rows: Vec<_> =
        rows.map(|(rule, body, seen)| (rule, post(CHUNKED, body), "POST /x", seen)).into();
    assert_forwarded(&edge, &rows);
    let mixed = post("tRANSFER-eNCODING: \tCHUNKED \r\n", "3\r\nabc\r\n0\r\n\r\n");
    assert_forwarded(
        &edge,
        &[("9112-7 the name of the coding in any case", mixed, "POST /x", "abc")],
    );
}

#[test]
fn rfc9110_6_5_1_trailers_do_not_become_fields() {
    let edge = Edge::plain();
    let body = "3\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: Bearer evil\r\n\r\n";
    assert_eq!(edge.send(post(CHUNKED, body)).read("POST").status, 200);
    let seen = edge.origin.last();
    assert_eq!(seen.field("Authorization"), None);
    assert_eq!(seen.field("X-Sum"), None);
    assert_eq!(seen.field("Trailer"), None);
}

fn malformed() -> Vec<(&'static str, String, u16)> {
    let extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "e".repeat(1025));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "t".repeat(8192));
    let trailers = format!("0\r\n{}\r\n", "X: 1\r\n".repeat(101));
    let many = format!("{}0\r\n\r\n", "1;eeeeeeeeeeeeeee\r\na\r\n".repeat(100));
    [
        ("9112-7.1 a space before the size", " 3\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 a space behind the size", "3 \r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1.1 a space before an extension", "3 ;a\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 a tab", "3\t\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 a minus sign", "-3\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 a plus sign", "+3\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 a prefix", "0x3\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 no digit", "g\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 an underscore", "1_0\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 no size", "\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 only an extension", ";a\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 seventeen digits", "00000000000000003\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 beyond 64 bits", "1ffffffffffffffff\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-2.2 LF behind the size", "3\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-2.2 CR behind the size", "3\rabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 more data than stated", "3\r\nabcd\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 less data than stated", "4\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 LF behind the data", "3\r\nabc\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1 no line end behind the data", "3\r\nabc0\r\n\r\n".to_owned(), 400),
        (
            "9112-7.1.1 a control byte in an extension",
            "3;a\x01\r\nabc\r\n0\r\n\r\n".to_owned(),
            400,
        ),
        ("9112-7.1.1 NUL in an extension", "3;a\0\r\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1.1 LF in an extension", "3;a\nabc\r\n0\r\n\r\n".to_owned(), 400),
        ("9112-7.1.1 an extension above the limit", extension, 400),
        ("9112-7.1.1 more extensions than data", many, 400),
        ("9112-7.1.2 a trailer without colon", "0\r\nX\r\n\r\n".to_owned(), 400),
        ("9112-7.1.2 a folded trailer", "0\r\nX: 1\r\n 2\r\n\r\n".to_owned(), 400),
        ("9112-7.1.2 a trailer ended by LF", "0\r\nX: 1\n\r\n".to_owned(), 400),
        ("9112-7.1.2 a trailer section above the limit", trailer, 431),
        ("9112-7.1.2 too many trailers", trailers, 431),
        ("9112-7.1 LF for the last line", "0\r\n\n".to_owned(), 400),
    ]
    .into_iter()
    .map(|(rule, body, status)| (rule, post(CHUNKED, &body), status))
    .collect()
}

/// While the body streams, the origin may have its beginning; it never gets an end.
#[test]
fn malformed_chunked_bodies_are_refused_while_they_stream() {
    let edge = Edge::plain();
    assert_refused(&edge, &malformed());
}

/// Where the whole body is wanted first, the origin hears nothing at all.
#[test]
fn malformed_chunked_bodies_are_refused_before_the_origin_is_asked() {
    let edge = Edge::with(|setup| setup.with("security.require_json_body", true));
    let json = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let rows: Vec<_> = malformed()
        .into_iter()
        .map(|(rule, bytes, status)| (rule, bytes.replacen(CHUNKED, json, 1), status))
        .collect();
    assert_refused(&edge, &rows);
    assert_eq!(edge.origin.connections(), 1, "the last look's own");
}

#[test]
fn rfc9112_7_1_a_chunked_body_may_come_byte_by_byte() {
    let edge = Edge::plain();
    let mut client = edge.proxy.connect();
    for byte in post(CHUNKED, "3;x\r\nabc\r\n0\r\nX: 1\r\n\r\n").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.read("POST").status, 200);
    assert_eq!(edge.origin.last().body, b"abc");
    assert_eq!(client.get("/api/after").status, 200, "the connection lives on");
}

/// RFC 9112 section 8: a body cut short is no request.
#[test]
fn rfc9112_8_a_body_cut_short_is_never_complete_for_the_origin() {
    let edge = Edge::plain();
    for body in ["5\r\nabc", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n", "3\r\nabc\r\n0\r\nX: 1\r\n"] {
        let before = edge.origin.connections();
        let mut client = edge.send(post(CHUNKED, body));
        eventually("the origin hears of it", || edge.origin.connections() > before);
        client.half_close();
        client.expect_close();
    }
    let mut client = edge.send(post("Content-Length: 5\r\n", "abc"));
    client.half_close();
    client.expect_close();
    assert_eq!(edge.proxy.get("/api/alive").status, 200);
    assert_eq!(edge.origin.count(), 1, "{:?}", edge.origin.requests());
}
