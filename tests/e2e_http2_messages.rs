//! HTTP/2 requests that are none (RFC 9113 section 8.1.1): each gets the answer that the RFC has
//! for it, and nothing of it reaches an origin.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use support::frames::{self, END_STREAM};
use support::probe::Got::{GoAway, Status};
use support::probe::{AUTHORITY, Edge, METHOD, PATH, PROTOCOL, SCHEME, got, with};

#[test]
fn rfc9113_8_2_1_field_names_and_values_are_checked() {
    let edge = Edge::new();
    let rows = [
        ("Upper", "v"),
        ("a b", "v"),
        ("a:b", "v"),
        ("", "v"),
        ("a\r\nb", "v"),
        ("a\0", "v"),
        ("a", "v\r\nx: y"),
        ("a", "v\n"),
        ("a", "v\r"),
        ("a", "v\0w"),
        ("\u{e4}", "v"),
    ];
    for line in rows {
        let got = edge.lines(&with(&[line]));
        assert!(
            matches!(got, PROTOCOL | Status(400) | GoAway(frames::PROTOCOL_ERROR)),
            "{line:?}: {got:?}"
        );
    }
    for value in [" v", "v ", "\tv", " "] {
        let got = edge.lines(&with(&[("a", value)]));
        assert!(matches!(got, PROTOCOL | Status(400)), "{value:?}: {got:?}");
    }
    edge.assert_unharmed();
}

#[test]
fn rfc9113_8_2_2_connection_fields_are_refused() {
    let edge = Edge::new();
    let rows = [
        ("connection", "close"),
        ("connection", "x-hop"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ];
    for line in rows {
        let got = edge.lines(&with(&[line]));
        assert!(matches!(got, PROTOCOL | Status(400)), "{line:?}: {got:?}");
    }
    edge.assert_unharmed();
    assert_eq!(edge.lines(&with(&[("te", "trailers")])), Status(200));
}

#[test]
fn rfc9113_8_3_1_pseudo_fields_are_there_once_and_first() {
    let edge = Edge::new();
    let all = [METHOD, SCHEME, PATH, AUTHORITY];
    let without = |name: &str| all.into_iter().filter(|it| it.0 != name).collect::<Vec<_>>();
    let rows: Vec<Vec<(&str, &str)>> = vec![
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        with(&[METHOD]),
        with(&[SCHEME]),
        with(&[PATH]),
        with(&[AUTHORITY]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "x")]),
        vec![METHOD, SCHEME, ("a", "b"), PATH, AUTHORITY],
        vec![("a", "b"), METHOD, SCHEME, PATH, AUTHORITY],
        vec![(":method", ""), SCHEME, PATH, AUTHORITY],
        vec![(":method", "GE T"), SCHEME, PATH, AUTHORITY],
        vec![(":method", "GET / HTTP/1.1\r\n"), SCHEME, PATH, AUTHORITY],
        vec![METHOD, (":scheme", ""), PATH, AUTHORITY],
        vec![METHOD, (":scheme", "ht tp"), PATH, AUTHORITY],
        vec![METHOD, (":scheme", "ftp"), PATH, AUTHORITY],
    ];
    for lines in rows {
        let got = edge.lines(&lines);
        let refused = matches!(got, PROTOCOL | Status(400) | GoAway(frames::PROTOCOL_ERROR));
        assert!(refused, "{lines:?}: {got:?}");
    }
    edge.assert_unharmed();
    // Host may stand for an authority that is not there.
    let host = [&without(":authority")[..], &[("host", "proxy.test")]].concat();
    assert_eq!(edge.lines(&host), Status(200));
    assert_eq!(edge.origin.last().target, "/x");
}

#[test]
fn rfc9113_8_3_1_a_path_is_one() {
    let edge = Edge::new();
    for path in [
        "",
        "api/x",
        "*",
        "/a b",
        "/a\r\nb",
        "/a\0",
        "/api/\u{e4}",
        "http://proxy.test/api/x",
        "/api/x HTTP/1.1\r\nA: b",
        "/api/../../x",
        "/api/%zz",
        "?q",
        "//",
    ] {
        let got = edge.lines(&[METHOD, SCHEME, (":path", path), AUTHORITY]);
        assert!(matches!(got, PROTOCOL | Status(400 | 404)), "{path:?}: {got:?}");
    }
    edge.assert_unharmed();
    // The framing layer takes a fragment off, before anybody sees it.
    for path in ["/api/x#frag", "/api/x#"] {
        let got = edge.lines(&[METHOD, SCHEME, (":path", path), AUTHORITY]);
        assert_eq!(got, Status(200));
        assert_eq!(edge.origin.last().target, "/x");
    }
}

#[test]
fn rfc9113_8_3_1_an_authority_has_no_userinfo_and_host_agrees_with_it() {
    let edge = Edge::new();
    for authority in [
        "user@proxy.test",
        "user:pass@proxy.test",
        "@proxy.test",
        "",
        "a b",
        "a/b",
        "a,b",
        "a:b:c",
        "a:99999",
        "a\r\nb",
        "[::1",
        "a?b",
        "a#b",
    ] {
        let got = edge.lines(&[METHOD, SCHEME, PATH, (":authority", authority)]);
        assert!(matches!(got, PROTOCOL | Status(400)), "{authority:?}: {got:?}");
    }
    for hosts in [
        &["other.test"][..],
        &["proxy.test", "other.test"],
        &["proxy.test", "proxy.test"],
        &["proxy.test:81"],
        &[""],
        &["user@proxy.test"],
    ] {
        let lines: Vec<_> = hosts.iter().map(|it| ("host", *it)).collect();
        assert_eq!(edge.lines(&with(&lines)), Status(400), "{hosts:?}");
    }
    edge.assert_unharmed();
    assert_eq!(edge.lines(&with(&[("host", "Proxy.test:80")])), Status(200));
}

#[test]
fn rfc9113_8_1_1_a_content_length_is_kept() {
    let edge = Edge::new();
    let post = |length: &str, frames: &[Vec<u8>]| {
        let head = frames::ask(1, 0, "POST", "/api/x", &[("content-length", length)]);
        edge.send([&[head][..], frames].concat().concat())
    };
    let data = |flags, text: &str| frames::data(1, flags, text.as_bytes());
    let twice = |second: &str| {
        let lengths = [("content-length", "5"), ("content-length", second)];
        let head = frames::ask(1, 0, "POST", "/api/x", &lengths);
        edge.send([head, data(END_STREAM, "five5")].concat())
    };
    let rows = [
        ("too little", post("5", &[data(END_STREAM, "four")])),
        ("nothing", post("5", &[data(END_STREAM, "")])),
        ("too much", post("5", &[data(END_STREAM, "sixsix")])),
        (
            "trailers too early",
            post("5", &[data(0, "four"), frames::lines(1, END_STREAM, &[("a", "b")])]),
        ),
        ("no number", post("five", &[data(END_STREAM, "five5")])),
        ("signed", post("+5", &[data(END_STREAM, "five5")])),
        ("a list", post("5, 5", &[data(END_STREAM, "five5")])),
        ("huge", post("99999999999999999999", &[data(END_STREAM, "five5")])),
        ("none follows", edge.lines(&with(&[("content-length", "5")]))),
        ("two", twice("5")),
        ("two that differ", twice("6")),
    ];
    for (what, got) in rows {
        assert!(matches!(got, PROTOCOL | Status(400)), "{what}: {got:?}");
    }
    // What the origin may have seen the beginning of, it never took for a request.
    edge.assert_unharmed();
    assert_eq!(post("5", &[data(0, "fi"), data(0, ""), data(END_STREAM, "ve5")]), Status(200));
    assert_eq!(edge.origin.last().body, b"five5");
    // What comes behind the last byte that was announced comes too late for the origin, which has a
    // whole request then; it gets none of it.
    assert_eq!(post("5", &[data(0, "five5"), data(END_STREAM, "x")]), PROTOCOL);
    let posts = edge.origin.requests();
    assert!(posts.iter().all(|it| it.method == "GET" || it.body == b"five5"), "{posts:?}");
}

#[test]
fn rfc9113_8_5_connect_and_trace_are_not_allowed() {
    let edge = Edge::new();
    let connect = [(":method", "CONNECT"), (":authority", "proxy.test:443")];
    assert_eq!(edge.lines(&connect), Status(405));
    // What follows is for a tunnel that there is not.
    let mut client = edge.connect();
    client.send(frames::lines(1, 0, &connect));
    client.send(frames::data(1, 0, b"GET / HTTP/1.1\r\n\r\n"));
    assert_eq!(got(&mut client), Status(405));
    for lines in [
        vec![(":method", "CONNECT"), (":authority", "proxy.test")],
        vec![(":method", "CONNECT"), AUTHORITY, PATH, SCHEME],
        vec![(":method", "CONNECT"), (":authority", "proxy.test:443"), SCHEME],
        vec![(":method", "CONNECT"), (":protocol", "websocket"), AUTHORITY, PATH, SCHEME],
    ] {
        let got = edge.lines(&lines);
        assert!(matches!(got, PROTOCOL | Status(400)), "{lines:?}: {got:?}");
    }
    assert_eq!(edge.lines(&[(":method", "TRACE"), SCHEME, PATH, AUTHORITY]), Status(405));
    edge.assert_unharmed();
}

/// RFC 9110 section 9.3.7.
#[test]
fn rfc9113_8_3_1_an_asterisk_is_for_options() {
    let edge = Edge::new();
    let over_two = edge.lines(&[(":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY]);
    let mut client = edge.proxy.connect();
    client.send("OPTIONS * HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
    assert_eq!(over_two, Status(client.read("OPTIONS").status));
    edge.assert_unharmed();
}

/// RFC 9113 section 10.3: nothing that a client writes becomes a line of its own, or framing, in
/// HTTP/1.1.
#[test]
fn rfc9113_10_3_nothing_is_smuggled_to_an_http1_origin() {
    let edge = Edge::new();
    let smuggled = "v\r\nTransfer-Encoding: chunked\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x";
    let rows: Vec<Vec<(&str, &str)>> = vec![
        with(&[("a", smuggled)]),
        with(&[("cookie", smuggled)]),
        with(&[(smuggled, "v")]),
        with(&[("content-length", "0\r\nTransfer-Encoding: chunked")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("transfer-encoding", "xchunked")]),
        with(&[("transfer_encoding\0", "chunked")]),
        with(&[("host", smuggled)]),
        vec![
            METHOD,
            SCHEME,
            (":path", "/api/x HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled"),
            AUTHORITY,
        ],
        vec![(":method", "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nGET"), SCHEME, PATH, AUTHORITY],
        vec![METHOD, SCHEME, PATH, (":authority", "a\r\nTransfer-Encoding: chunked")],
        vec![METHOD, (":scheme", "http\r\nA: b"), PATH, AUTHORITY],
    ];
    for lines in rows {
        let body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        let bytes = [frames::lines(1, 0, &lines), frames::data(1, END_STREAM, body)].concat();
        let got = edge.send(bytes);
        let refused = matches!(got, PROTOCOL | Status(400) | GoAway(frames::PROTOCOL_ERROR));
        assert!(refused, "{lines:?}: {got:?}");
    }
    edge.assert_unharmed();
    // A body that looks like one is one.
    let body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = frames::ask(1, 0, "POST", "/api/x", &[]);
    assert_eq!(edge.send([post, frames::data(1, END_STREAM, body)].concat()), Status(200));
    assert_eq!(edge.origin.last().body, body);
    let smuggled = edge.origin.requests().iter().any(|it| it.target.contains("smuggled"));
    assert!(!smuggled, "{:?}", edge.origin.requests());
}

#[test]
fn rfc9113_8_1_trailers_are_checked_and_change_nothing() {
    let edge = Edge::new();
    let post = |trailers: &[(&str, &str)], flags| {
        let head = frames::ask(1, 0, "POST", "/api/x", &[]);
        edge.send([head, frames::lines(1, flags, trailers)].concat())
    };
    for trailers in [("Upper", "x"), ("connection", "close"), ("a", "b\r\nc")] {
        let got = post(&[trailers], END_STREAM);
        assert!(
            matches!(got, PROTOCOL | Status(400) | GoAway(frames::PROTOCOL_ERROR)),
            "{trailers:?}: {got:?}"
        );
    }
    let got = post(&[("a", "b")], 0);
    assert!(matches!(got, PROTOCOL | GoAway(frames::PROTOCOL_ERROR)), "no end: {got:?}");
    edge.assert_unharmed();
    // The framing layer drops those that it does not refuse: they change nothing.
    assert_eq!(post(&[(":path", "/other"), (":method", "PUT")], END_STREAM), Status(200));
    assert_eq!(
        (edge.origin.last().target.as_str(), edge.origin.last().method.as_str()),
        ("/x", "POST")
    );
}
