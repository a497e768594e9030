//! `Expect: 100-continue` (RFC 9110 section 10.1.1).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use std::time::Duration;

use edge::{Edge, Failures, assert_refused, must, post, read};
use support::{Fault, Origin};

const WAIT: &str = "Expect: 100-continue\r\nContent-Length: 5\r\n";

#[test]
fn rfc9110_10_1_1_the_body_is_asked_for_when_it_is_wanted() {
    for json in [false, true] {
        let edge = Edge::with(|setup| setup.with("security.require_json_body", json));
        for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let body = if framing.starts_with('C') { "[1,2]" } else { "5\r\n[1,2]\r\n0\r\n\r\n" };
            let fields =
                format!("Content-Type: application/json\r\nExpect: 100-Continue\r\n{framing}");
            let mut client = edge.send(post(&fields, ""));
            assert_eq!(client.await_text("\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
            client.send(body);
            let response = client.read("POST");
            assert_eq!((response.status, response.interim.len()), (200, 1), "{framing} {json}");
            let seen = edge.origin.last();
            assert_eq!((seen.body.as_slice(), seen.field("Expect")), (&b"[1,2]"[..], None));
            assert_eq!(client.get("/api/after").status, 200, "the connection lives on");
        }
    }
}

#[test]
fn rfc9110_10_1_1_no_body_is_asked_for_when_the_answer_is_known() {
    let edge = Edge::with(|setup| {
        setup
            .with("security.require_json_body", true)
            .with("whitelisted_endpoints", serde_json::json!(["/open/*"]))
            .with("security.max_request_body_size", 100)
    });
    let line = |target: &str, fields: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: proxy.test\r\nExpect: 100-continue\r\n{fields}\r\n"
        )
    };
    let json = "Content-Type: application/json\r\n";
    let rows = [
        ("9110-15.5.14 too large", line("/api/open/x", "Content-Length: 101\r\n"), 413),
        ("9110-15.5.5 no such path", line("/nowhere", "Content-Length: 5\r\n"), 404),
        ("9110-15.5.4 not allowed", line("/api/shut", "Content-Length: 5\r\n"), 403),
        ("9110-15.5.6 another method", line("/health", "Content-Length: 5\r\n"), 405),
        (
            "9110-15.5.16 no JSON",
            line("/api/open/x", "Content-Type: text/plain\r\nContent-Length: 5\r\n"),
            415,
        ),
        (
            "9110-15.6.2 unknown method",
            line("/api/open/x", "Content-Length: 5\r\n").replace("POST", "BREW"),
            501,
        ),
        (
            "9110-15.5.1 a bad path",
            line("/api/open/%00", &format!("{json}Content-Length: 5\r\n")),
            400,
        ),
    ];
    let mut failures = Failures::default();
    for (rule, bytes, status) in rows {
        let mut client = edge.send(bytes);
        let check = read(&mut client, "POST").and_then(|answer| {
            must(answer.status == status, || format!("{}", answer.status))?;
            must(answer.interim.is_empty(), || "100 Continue".to_owned())?;
            // Nobody can tell whether the body still comes.
            must(answer.field("Connection") == Some("close"), || format!("{answer:?}"))?;
            edge::closed(&mut client)
        });
        failures.note(rule, check);
    }
    failures.assert_none();
    assert_eq!(edge.origin.connections(), 0);
}

#[test]
fn rfc9110_10_1_1_expectations_that_are_not_met_are_refused() {
    let edge = Edge::plain();
    let rows: Vec<_> = [
        ("9110-15.5.18 an unknown expectation", "Expect: tea\r\nContent-Length: 0\r\n"),
        ("9110-15.5.18 two", "Expect: 100-continue, tea\r\nContent-Length: 0\r\n"),
        (
            "9110-15.5.18 in a second line",
            "Expect: 100-continue\r\nExpect: tea\r\nContent-Length: 0\r\n",
        ),
        ("9110-15.5.18 a parameter", "Expect: 100-continue;q=1\r\nContent-Length: 0\r\n"),
    ]
    .into_iter()
    .map(|(rule, fields)| (rule, post(fields, ""), 417))
    .collect();
    assert_refused(&edge, &rows);
}

#[test]
fn rfc9110_10_1_1_no_interim_answer_without_a_body_to_wait_for() {
    let edge = Edge::plain();
    let rows = [
        ("no body", post("Expect: 100-continue\r\n", "")),
        ("a body of no bytes", post("Expect: 100-continue\r\nContent-Length: 0\r\n", "")),
        ("HTTP/1.0", post(WAIT, "hello").replace("HTTP/1.1", "HTTP/1.0")),
        ("a body that came along", post(WAIT, "hello")),
    ];
    let mut failures = Failures::default();
    for (rule, bytes) in rows {
        let check = read(&mut edge.send(bytes), "POST").and_then(|answer| {
            must(answer.status == 200, || format!("{}", answer.status))?;
            must(answer.interim.is_empty(), || "100 Continue".to_owned())
        });
        failures.note(rule, check);
    }
    failures.assert_none();
}

/// An answer of the origin before the body was asked for spares the client the sending.
#[test]
fn rfc9110_10_1_1_the_origins_early_answer_ends_the_wait() {
    let origin = Origin::script(|connection| {
        // The head only: the body never comes.
        if connection.head().is_none() {
            return;
        }
        connection.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        connection.await_close();
    });
    let edge = Edge::over(origin, |setup| setup);
    let mut client = edge.send(post("Expect: 100-continue\r\nContent-Length: 1000000\r\n", ""));
    let response = client.read("POST");
    assert_eq!((response.status, response.text()), (403, "no"));
    client.patience(Duration::from_secs(10));
    assert!(matches!(client.try_read("POST"), Err(Fault::Closed)));
}
