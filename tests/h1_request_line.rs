//! The request line (RFC 9112 section 3): what is refused, what is passed on and in which form.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::{Edge, Failures, assert_forwarded, assert_refused, closed, head, must, read};

#[test]
fn malformed_request_lines_are_refused_and_nothing_is_forwarded() {
    let edge = Edge::plain();
    let long_method = format!("{} /api/x HTTP/1.1", "M".repeat(65));
    let rows = [
        ("9112-3 two spaces before the target", head("GET  /api/x HTTP/1.1", ""), 400),
        ("9112-3 two spaces before the version", head("GET /api/x  HTTP/1.1", ""), 400),
        ("9112-3 a tab for the space", head("GET\t/api/x HTTP/1.1", ""), 400),
        ("9112-3 a space in front", head(" GET /api/x HTTP/1.1", ""), 400),
        ("9112-3 a space behind", head("GET /api/x HTTP/1.1 ", ""), 400),
        ("9112-3 a space in the target", head("GET /api/x y HTTP/1.1", ""), 400),
        ("9112-3 no target", head("GET HTTP/1.1", ""), 400),
        ("9112-2.2 LF alone", head("GET /api/x HTTP/1.1", "").replacen("\r\n", "\n", 1), 400),
        ("9112-2.2 CR alone", head("GET /api/x HTTP/1.1\rX: 1", ""), 400),
        ("9112-2.2 three empty lines in front", format!("\r\n\r\n\r\n{}", get()), 400),
        ("9112-2.2 an LF in front", format!("\n{}", get()), 400),
        ("9112-2.2 a CR in front", format!("\r{}", get()), 400),
        ("9112-3.1 a method that is no token", head("G@T /api/x HTTP/1.1", ""), 400),
        ("9112-3.1 a method in brackets", head("(GET) /api/x HTTP/1.1", ""), 400),
        ("9112-3.1 no method", head(" /api/x HTTP/1.1", ""), 400),
        ("9112-3.1 a method that is too long", head(&long_method, ""), 501),
        ("9112-2.3 no version (HTTP/0.9)", "GET /api/x\r\n\r\n".to_owned(), 400),
        ("9112-2.3 lower case", head("GET /api/x http/1.1", ""), 400),
        ("9112-2.3 no minor version", head("GET /api/x HTTP/1", ""), 400),
        ("9112-2.3 two digits", head("GET /api/x HTTP/1.10", ""), 400),
        ("9112-2.3 a leading zero", head("GET /api/x HTTP/01.1", ""), 400),
        ("9112-2.3 a comma", head("GET /api/x HTTP/1,1", ""), 400),
        ("9112-2.3 another protocol", head("GET /api/x ICY/1.1", ""), 400),
        ("9110-15.6.6 version 2.0", head("GET /api/x HTTP/2.0", ""), 505),
        ("9110-15.6.6 version 3.0", head("GET /api/x HTTP/3.0", ""), 505),
        ("9110-15.6.6 version 0.9 on the line", head("GET /api/x HTTP/0.9", ""), 505),
    ];
    assert_refused(&edge, &rows);
    assert_eq!(edge.origin.count(), 1, "nothing but the last look");
}

#[test]
fn targets_of_no_form_are_refused_and_nothing_is_forwarded() {
    let edge = Edge::plain();
    let rows: Vec<(&str, Vec<u8>, u16)> = [
        ("9112-3.2 a relative path", "GET api/x HTTP/1.1"),
        ("9112-3.2 a fragment", "GET /api/x#y HTTP/1.1"),
        ("9112-3.2 a control byte", "GET /api/\x01x HTTP/1.1"),
        ("9112-3.2 NUL", "GET /api/x\0 HTTP/1.1"),
        ("9112-3.2 DEL", "GET /api/\x7fx HTTP/1.1"),
        ("9112-3.2 UTF-8", "GET /api/é HTTP/1.1"),
        ("9112-3.2.2 another scheme", "GET ftp://proxy.test/api/x HTTP/1.1"),
        ("9112-3.2.2 no authority", "GET http:///api/x HTTP/1.1"),
        ("9112-3.2.2 one slash", "GET http:/api/x HTTP/1.1"),
        ("9110-4.2.4 user information", "GET http://u:p@proxy.test/api/x HTTP/1.1"),
        ("9112-3.2.2 a bad port", "GET http://proxy.test:x/api/x HTTP/1.1"),
        ("9112-3.2.2 another host than Host", "GET http://other.test/api/x HTTP/1.1"),
        ("9112-3.2.2 another port than Host", "GET http://proxy.test:81/api/x HTTP/1.1"),
        ("9112-3.2.3 authority-form for GET", "GET proxy.test:80 HTTP/1.1"),
        ("9112-3.2.3 origin-form for CONNECT", "CONNECT /api/x HTTP/1.1"),
        ("9112-3.2.3 CONNECT without a port", "CONNECT proxy.test HTTP/1.1"),
        ("9112-3.2.4 asterisk-form for GET", "GET * HTTP/1.1"),
    ]
    .into_iter()
    .map(|(rule, line)| (rule, head(line, "").into_bytes(), 400))
    .collect();
    assert_refused(&edge, &rows);
    let latin1 = [b"GET /api/\xe9 HTTP/1.1\r\nHost: proxy.test\r\n\r\n".to_vec()];
    assert_refused(&edge, &[("9112-3.2 a byte above 127", &latin1[0], 400)]);
}

#[test]
fn every_form_reaches_the_origin_in_origin_form() {
    let edge = Edge::plain();
    let rows = [
        ("9112-3.2.1 origin-form", get(), "GET /x", ""),
        ("9112-3.2.1 with a query", head("GET /api/x?a=%2f&b HTTP/1.1", ""), "GET /x?a=%2f&b", ""),
        (
            "9112-3.2.2 absolute-form",
            head("GET http://proxy.test/api/x HTTP/1.1", ""),
            "GET /x",
            "",
        ),
        (
            "9112-3.2.2 with a query",
            head("GET http://proxy.test/api/x?y HTTP/1.1", ""),
            "GET /x?y",
            "",
        ),
        (
            "9110-4.2.3 hosts don't differ by case",
            head("GET http://PROXY.test/api/x HTTP/1.1", ""),
            "GET /x",
            "",
        ),
        (
            "9110-4.2.3 the default port may be left out",
            head("GET http://proxy.test:80/api/x HTTP/1.1", ""),
            "GET /x",
            "",
        ),
        (
            "9112-3.2.2 a scheme in capitals",
            head("GET HTTP://proxy.test/api/x HTTP/1.1", ""),
            "GET /x",
            "",
        ),
        ("9112-2.3 version 1.0", head("GET /api/x HTTP/1.0", ""), "GET /x", ""),
        (
            "9112-3.2 version 1.0 without Host",
            "GET /api/x HTTP/1.0\r\n\r\n".to_owned(),
            "GET /x",
            "",
        ),
        ("9110-2.5 version 1.2 counts as 1.1", head("GET /api/x HTTP/1.2", ""), "GET /x", ""),
        ("9110-2.5 version 1.9 counts as 1.1", head("GET /api/x HTTP/1.9", ""), "GET /x", ""),
        ("9112-2.2 an empty line in front", format!("\r\n{}", get()), "GET /x", ""),
        ("9112-2.2 two empty lines in front", format!("\r\n\r\n{}", get()), "GET /x", ""),
        ("9110-9.3.2 HEAD", head("HEAD /api/x HTTP/1.1", ""), "HEAD /x", ""),
        ("9110-9.3.5 DELETE", head("DELETE /api/x HTTP/1.1", ""), "DELETE /x", ""),
        ("9110-9.3.7 OPTIONS of a path", head("OPTIONS /api/x HTTP/1.1", ""), "OPTIONS /x", ""),
    ];
    assert_forwarded(&edge, &rows);
}

#[test]
fn methods_that_are_not_served_are_answered_here() {
    let edge = Edge::plain();
    let rows = [
        ("9110-9.3.6 CONNECT", "CONNECT proxy.test:443 HTTP/1.1", 405),
        ("9110-9.3.8 TRACE", "TRACE /api/x HTTP/1.1", 405),
        ("9110-9.1 an unknown method", "BREW /api/x HTTP/1.1", 501),
        ("9110-9.1 methods differ by case", "get /api/x HTTP/1.1", 501),
        ("9110-9.1 methods differ by case", "Post /api/x HTTP/1.1", 501),
    ];
    let mut failures = Failures::default();
    for (rule, line, status) in rows {
        let host = if line.starts_with("CONNECT") { ":443" } else { "" };
        let mut client = edge.send(format!("{line}\r\nHost: proxy.test{host}\r\n\r\n"));
        let check = read(&mut client, "GET").and_then(|answer| {
            must(answer.status == status, || format!("{} instead of {status}", answer.status))?;
            let allow = answer.field("Allow").is_some_and(|it| it.contains("GET"));
            must(allow == (status == 405), || format!("Allow: {:?}", answer.field("Allow")))?;
            must(edge.origin.count() == 0, || "forwarded".to_owned())?;
            // What follows a refused CONNECT may have been meant for the tunnel.
            if line.starts_with("CONNECT") { closed(&mut client) } else { Ok(()) }
        });
        failures.note(rule, check);
    }
    failures.assert_none();
}

#[test]
fn rfc9110_9_1_unknown_methods_pass_unchanged_where_they_are_let_through() {
    let edge = Edge::with(|setup| setup.with("security.allow_unknown_methods", true));
    let rows = [
        ("9110-9.1 an unknown method", head("BREW /api/x HTTP/1.1", ""), "BREW /x", ""),
        ("9110-9.1 methods differ by case", head("get /api/x HTTP/1.1", ""), "get /x", ""),
        (
            "9110-9.1 any token",
            head("A!#$%&'*+-.^_`|~9 /api/x HTTP/1.1", ""),
            "A!#$%&'*+-.^_`|~9 /x",
            "",
        ),
    ];
    assert_forwarded(&edge, &rows);
}

/// RFC 9110 section 9.3.7: it asks about the server as a whole, which is this one.
#[test]
fn rfc9112_3_2_4_options_of_the_server_is_answered_here() {
    let edge = Edge::plain();
    let mut failures = Failures::default();
    for line in ["OPTIONS * HTTP/1.1", "OPTIONS http://proxy.test HTTP/1.1"] {
        let mut client = edge.send(head(line, ""));
        let check = read(&mut client, "OPTIONS").and_then(|answer| {
            must(answer.status == 204, || format!("{}", answer.status))?;
            let allow = answer.field("Allow").unwrap_or_default();
            must(allow.contains("GET") && allow.contains("OPTIONS"), || allow.to_owned())?;
            must(answer.field("Content-Length").is_none(), || format!("{answer:?}"))?;
            must(edge.origin.count() == 0, || "forwarded".to_owned())?;
            must(client.get("/health").status == 200, || "the connection is not usable".to_owned())
        });
        failures.note(line, check);
    }
    failures.assert_none();
}

/// RFC 9110 section 7.6.2: each hop takes one off, and the last one answers.
#[test]
fn rfc9110_7_6_2_max_forwards_counts_down_for_options_only() {
    let edge = Edge::plain();
    let mut client = edge.proxy.connect();
    assert_eq!(client.ask("OPTIONS", "/api/x", &[("Max-Forwards", "3")]).status, 200);
    assert_eq!(edge.origin.last().field("Max-Forwards"), Some("2"));
    assert_eq!(client.ask("GET", "/api/x", &[("Max-Forwards", "3")]).status, 200);
    assert_eq!(edge.origin.last().field("Max-Forwards"), Some("3"));
    let last = client.ask("OPTIONS", "/api/x", &[("Max-Forwards", "0")]);
    assert_eq!(last.status, 204);
    assert!(last.field("Allow").is_some_and(|it| it.contains("OPTIONS")));
    assert_eq!(edge.origin.count(), 2);
}

fn get() -> String {
    head("GET /api/x HTTP/1.1", "")
}

/// RFC 9110 section 7.4: what is asked of an https origin is answered over TLS only.
#[test]
fn rfc9110_7_4_https_target_over_a_plain_connection_is_misdirected() {
    let edge = Edge::plain();
    let mut client = edge.send("GET https://proxy.test/api/x HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
    let refused = client.read("GET");
    assert_eq!((refused.status, refused.problem()), (421, "misdirected_request".to_owned()));
    assert_eq!(client.get("/api/y").status, 200);
    let mut client = edge.send("GET http://proxy.test/api/x HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
    assert_eq!(client.read("GET").status, 200);
    assert_eq!(edge.origin.count(), 2);
}
