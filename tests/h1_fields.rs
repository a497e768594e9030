//! The field section of a request, and which fields pass in either direction (RFC 9112 section 5,
//! RFC 9110 sections 5, 6.6.1 and 7.6).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::{Edge, assert_forwarded, assert_refused};
use support::{Origin, answer};

#[test]
fn malformed_field_lines_are_refused_and_nothing_is_forwarded() {
    let edge = Edge::plain();
    let rows: Vec<(&str, Vec<u8>, u16)> = [
        ("9112-5.2 a folded line", &b"X: a\r\n b\r\n"[..]),
        ("9112-5.2 a line folded with a tab", b"X: a\r\n\tb\r\n"),
        ("9112-5.1 a space before the colon", b"X : a\r\n"),
        ("9112-5.1 a tab before the colon", b"X\t: a\r\n"),
        ("9112-5.1 a space in the name", b"X Y: a\r\n"),
        ("9112-5 an empty name", b": a\r\n"),
        ("9112-5 no colon", b"X\r\n"),
        ("9110-5.1 a name that is no token", b"X(Y): a\r\n"),
        ("9110-5.1 a name with a byte above 127", b"X\xe9: a\r\n"),
        ("9110-5.1 a name with a quote", b"\"X\": a\r\n"),
        ("9110-5.5 NUL in a value", b"X: a\0b\r\n"),
        ("9110-5.5 a control byte in a value", b"X: a\x01b\r\n"),
        ("9110-5.5 DEL in a value", b"X: a\x7fb\r\n"),
        ("9112-2.2 a line ended by LF", b"X: a\n"),
        ("9112-2.2 CR in a value", b"X: a\rb\r\n"),
        ("9112-2.2 CR CR LF", b"X: a\r\r\n"),
        ("9112-3.2 a second Host", b"Host: proxy.test\r\n"),
        ("9112-3.2 a second, different Host", b"Host: other.test\r\n"),
        ("9112-3.2 a second Host in another case", b"hOST: proxy.test\r\n"),
    ]
    .into_iter()
    .map(|(rule, line)| {
        let start = &b"GET /api/x HTTP/1.1\r\nHost: proxy.test\r\n"[..];
        (rule, [start, line, b"\r\n"].concat(), 400)
    })
    .collect();
    assert_refused(&edge, &rows);
}

#[test]
fn a_request_without_one_valid_host_is_refused() {
    let edge = Edge::plain();
    let rows: Vec<(&str, String, u16)> = [
        ("9112-3.2 no Host", ""),
        ("9112-3.2 an empty Host", "Host:\r\n"),
        ("9110-7.2 a Host with a space", "Host: a b\r\n"),
        ("9110-7.2 a Host with a path", "Host: a/b\r\n"),
        ("9110-7.2 a Host with user information", "Host: u@a\r\n"),
        ("9110-7.2 two names", "Host: a, b\r\n"),
        ("9110-7.2 a port that is none", "Host: a:b\r\n"),
        ("9110-7.2 a port above 65535", "Host: a:65536\r\n"),
        ("9110-7.2 an open bracket", "Host: [::1\r\n"),
        ("9110-7.2 an address that is none", "Host: [::g]\r\n"),
        ("9112-2.2 white space before the first field", " X: 1\r\nHost: proxy.test\r\n"),
    ]
    .into_iter()
    .map(|(rule, fields)| (rule, format!("GET /api/x HTTP/1.1\r\n{fields}\r\n"), 400))
    .collect();
    assert_refused(&edge, &rows);
}

#[test]
fn unusual_but_valid_field_lines_pass() {
    let edge = Edge::plain();
    let with = |fields: &str| format!("GET /api/x HTTP/1.1\r\n{fields}\r\n");
    let host = "Host: proxy.test\r\n";
    let rows = [
        ("9112-5 no space behind the colon", with("Host:proxy.test\r\n"), "GET /x", ""),
        ("9112-5 white space at both ends", with("Host: \t proxy.test \t\r\n"), "GET /x", ""),
        ("9110-5.1 any case", with("hOsT: proxy.test\r\n"), "GET /x", ""),
        ("9110-5.5 an empty value", with(&format!("{host}X:\r\n")), "GET /x", ""),
        (
            "9110-5.6.2 every byte of a token",
            with(&format!("{host}!#$%&'*+-.^_`|~9: 1\r\n")),
            "GET /x",
            "",
        ),
        ("9110-7.2 a port", with("Host: proxy.test:8080\r\n"), "GET /x", ""),
        ("9110-7.2 an IPv6 address", with("Host: [::1]:80\r\n"), "GET /x", ""),
        (
            "9110-7.8 an upgrade is ignored",
            with(&format!("{host}Connection: Upgrade\r\nUpgrade: websocket\r\n")),
            "GET /x",
            "",
        ),
    ];
    assert_forwarded(&edge, &rows);
    let mut obs_text = with(host).into_bytes();
    obs_text.splice(obs_text.len() - 2.., *b"X: \xe9\t\xff\r\n\r\n");
    assert_forwarded(&edge, &[("9110-5.5 obs-text and a tab in a value", obs_text, "GET /x", "")]);
}

#[test]
fn rfc9110_5_3_repeated_fields_keep_their_order() {
    let edge = Edge::plain();
    edge.proxy.ask("GET", "/api/x", &[("X-A", "1"), ("X-B", "2"), ("x-a", "3")]);
    let seen = edge.origin.last();
    assert_eq!(seen.fields.all("X-A").collect::<Vec<_>>().join(","), "1,3");
}

#[test]
fn rfc9110_7_6_1_fields_of_the_connection_end_here_on_the_way_in() {
    let edge = Edge::plain();
    let fields = [
        ("Connection", "X-Named, keep-alive, close"),
        ("Connection", "x-other"),
        ("X-Named", "1"),
        ("X-Other", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
        ("X-Kept", "1"),
    ];
    edge.proxy.ask("GET", "/api/x", &fields);
    let seen = edge.origin.last();
    for (name, _) in &fields[1..fields.len() - 1] {
        let ours = seen.field(name);
        assert!(ours.is_none() || *name == "Connection", "{name}: {ours:?}");
    }
    assert_eq!(seen.field("X-Kept"), Some("1"));
}

/// RFC 9110 section 7.6.1 forbids to name these; a client that does it anyway must not be able to
/// have them removed.
#[test]
fn rfc9110_7_6_1_connection_cannot_remove_what_others_rely_on() {
    let edge = Edge::plain();
    let named =
        "close, Host, Authorization, Cookie, X-Forwarded-For, Content-Length, Cache-Control";
    let fields = [("Connection", named), ("Authorization", "Bearer a"), ("Cookie", "a=b")];
    let response = edge.proxy.ask("GET", "/api/x", &fields);
    assert_eq!(response.status, 200);
    let seen = edge.origin.last();
    for name in ["Host", "Authorization", "Cookie", "X-Forwarded-For"] {
        assert!(seen.field(name).is_some(), "{name} is gone: {seen:?}");
    }
}

#[test]
fn who_asks_and_by_which_way_is_written_by_us() {
    let edge = Edge::plain();
    let fields = [
        ("X-Forwarded-For", "9.9.9.9"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=9.9.9.9"),
        ("X-Real-IP", "9.9.9.9"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Via", "1.0 before, 1.1 nearer"),
        ("Expect", "100-continue"),
    ];
    edge.proxy.ask("GET", "/api/x", &fields);
    let seen = edge.origin.last();
    assert_eq!(seen.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.field("X-Forwarded-Proto"), Some("http"));
    for name in ["X-Forwarded-Host", "X-Forwarded-Port", "Forwarded", "X-Real-IP", "Expect"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    for name in ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    // RFC 9110 section 7.6.3: the way so far, then this hop.
    let via: Vec<&str> = seen.fields.all("Via").collect();
    assert_eq!(via.join(", "), "1.0 before, 1.1 nearer, 1.1 apiproxyd");
}

#[test]
fn rfc9110_7_6_3_via_names_the_version_that_was_received() {
    let edge = Edge::plain();
    let mut client = edge.send("GET /api/x HTTP/1.0\r\nHost: proxy.test\r\n\r\n");
    assert_eq!(client.read("GET").status, 200);
    assert_eq!(edge.origin.last().field("Via"), Some("1.0 apiproxyd"));
}

#[test]
fn rfc9110_7_6_1_fields_of_the_connection_end_here_on_the_way_out() {
    for cache_control in ["no-store", "max-age=60"] {
        let fields = [
            ("Cache-Control", cache_control),
            ("Connection", "X-Named, keep-alive"),
            ("X-Named", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("Upgrade", "h2c"),
            ("Trailer", "X-Sum"),
            ("X-Kept", "1"),
            ("Server", "origin/1"),
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        let edge = Edge::over(Origin::fixed(answer(200, &fields, "x")), |setup| setup);
        let mut client = edge.proxy.connect();
        for _ in 0..2 {
            let response = client.get("/api/x");
            for (name, _) in &fields[1..7] {
                assert_eq!(response.field(name), None, "{cache_control}: {name}");
            }
            assert_eq!(response.field("X-Kept"), Some("1"));
            // RFC 9110 sections 6.6.1 and 10.2.4: the origin's, not ours.
            assert_eq!(response.field("Server"), Some("origin/1"), "{cache_control}");
            assert_eq!(response.field("Date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
            assert_eq!(response.field("Via"), Some("1.1 apiproxyd"), "{cache_control}");
        }
    }
}

/// RFC 9110 section 6.6.1: a recipient with a clock adds the Date that the origin left out.
#[test]
fn rfc9110_6_6_1_a_missing_date_is_added() {
    let rows = ["no-store", "max-age=60"];
    for cache_control in rows {
        for framing in
            ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"]
        {
            let bytes = format!("HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\n{framing}");
            let edge = Edge::over(Origin::fixed(bytes), |setup| setup);
            let date = edge.proxy.get("/api/x").field("Date").map(str::to_owned);
            let date = date.unwrap_or_else(|| panic!("{cache_control} {framing:?}: no Date"));
            assert!(httpdate::parse_http_date(&date).is_ok(), "{date}");
        }
    }
}
