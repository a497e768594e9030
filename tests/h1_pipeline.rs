//! Several requests on one connection (RFC 9112 section 9): order, persistence, ends.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::{Edge, Failures, closed, must, read};
use support::{Origin, Request, answer};

/// `/hit*` may be stored, the rest not; the body says what was asked.
fn named(request: &Request) -> Vec<u8> {
    let cache_control = if request.target.starts_with("/hit") { "max-age=60" } else { "no-store" };
    answer(
        200,
        &[("Cache-Control", cache_control)],
        format!("{} {}", request.method, request.target),
    )
}

fn edge() -> Edge {
    Edge::over(Origin::respond(named), |setup| setup)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
}

#[test]
fn rfc9112_9_3_2_answers_come_in_the_order_of_the_requests() {
    let edge = edge();
    edge.proxy.get("/api/hit");
    let targets: Vec<String> = (0..60)
        .map(|number| match number % 3 {
            0 => "/hit".to_owned(),
            1 => format!("/miss{number}"),
            _ => format!("/hit{number}"),
        })
        .collect();
    let bytes: String = targets.iter().map(|it| get(&format!("/api{it}"))).collect();
    let mut client = edge.send(bytes);
    for target in &targets {
        assert_eq!(client.read("GET").text(), format!("GET {target}"));
    }
    assert_eq!(client.get("/api/hit").cache(), "HIT", "the connection lives on");
}

/// Any split of a pipeline is the same pipeline.
#[test]
fn rfc9112_9_3_2_a_pipeline_may_be_cut_anywhere() {
    let edge = edge();
    edge.proxy.get("/api/hit");
    let post = "POST /api/p HTTP/1.1\r\nHost: proxy.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\nabc\r\n0\r\n\r\n";
    let bytes = [get("/api/hit"), get("/api/miss"), post.to_owned(), get("/api/hit")].concat();
    for cut in 1..bytes.len() {
        let mut client = edge.send(&bytes[..cut]);
        // Read what the first part answers, so that the rest comes in a read of its own.
        let first = bytes[..cut].contains("\r\n\r\n").then(|| client.read("GET"));
        client.send(&bytes[cut..]);
        let first = first.unwrap_or_else(|| client.read("GET"));
        assert_eq!(first.text(), "GET /hit", "cut at {cut}");
        for text in ["GET /miss", "POST /p", "GET /hit"] {
            assert_eq!(client.read("GET").text(), text, "cut at {cut}");
        }
    }
}

#[test]
fn a_bad_request_ends_the_pipeline_after_the_good_ones_before_it() {
    let edge = edge();
    edge.proxy.get("/api/hit");
    let mut failures = Failures::default();
    for first in ["/api/hit", "/api/miss"] {
        for (rule, bad, status) in [
            ("9112-5.1", "GET /api/bad HTTP/1.1\r\nHost : x\r\n\r\n", 400),
            ("9112-3.2", "GET /api/bad HTTP/1.1\r\n\r\n", 400),
            (
                "9112-6.1",
                "POST /api/bad HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
            ),
            ("9110-10.1.1", "GET /api/bad HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417),
            ("9112-2.2", "\x16\x03\x01\x02\x00\x01", 400),
        ] {
            let before = edge.origin.count();
            let mut client = edge.send([&*get(first), bad, edge::SMUGGLED].concat());
            let check = read(&mut client, "GET").and_then(|good| {
                must(good.status == 200, || format!("{}", good.status))?;
                let refused = read(&mut client, "GET")?;
                must(refused.status == status, || format!("{}", refused.status))?;
                closed(&mut client)?;
                let seen = edge.origin.requests().split_off(before);
                must(seen.iter().all(|it| it.target == "/miss"), || format!("{seen:?}"))
            });
            failures.note(&format!("{rule} after {first}"), check);
        }
    }
    failures.assert_none();
}

#[test]
fn connections_persist_as_the_request_says() {
    let edge = edge();
    edge.proxy.get("/api/hit");
    let rows = [
        ("9112-9.3 1.1 persists", "HTTP/1.1", "", true),
        ("9112-9.3 close", "HTTP/1.1", "Connection: close\r\n", false),
        ("9110-7.6.1 Close", "HTTP/1.1", "Connection: Close\r\n", false),
        ("9110-7.6.1 close in a list", "HTTP/1.1", "Connection: foo, close ,bar\r\n", false),
        (
            "9110-7.6.1 close in a second line",
            "HTTP/1.1",
            "Connection: foo\r\nConnection: close\r\n",
            false,
        ),
        ("9112-9.3 close beats keep-alive", "HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("9110-7.6.1 another option", "HTTP/1.1", "Connection: closed\r\n", true),
        ("9112-9.3 1.0 does not persist", "HTTP/1.0", "", false),
        ("9112-9.3 1.0 persists when asked", "HTTP/1.0", "Connection: keep-alive\r\n", true),
        ("9112-9.3 1.0 Keep-Alive", "HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        (
            "9112-9.3 1.0 close beats keep-alive",
            "HTTP/1.0",
            "Connection: keep-alive, close\r\n",
            false,
        ),
        ("9110-2.5 1.3 persists", "HTTP/1.3", "", true),
    ];
    let mut failures = Failures::default();
    for (rule, version, fields, persists) in rows {
        for target in ["/api/hit", "/api/miss"] {
            let request = format!("GET {target} {version}\r\nHost: proxy.test\r\n{fields}\r\n");
            // What follows a request that closes must not be answered.
            let mut client = edge.send(request + &get("/api/hit"));
            let check = read(&mut client, "GET").and_then(|first| {
                let close = first.field("Connection") == Some("close");
                must(close != persists, || format!("Connection: {:?}", first.field("Connection")))?;
                if version == "HTTP/1.0" && persists {
                    let said = first.field("Connection");
                    must(said == Some("keep-alive"), || format!("Connection: {said:?}"))?;
                }
                if persists { read(&mut client, "GET").map(drop) } else { closed(&mut client) }
            });
            failures.note(&format!("{rule}, {target}"), check);
        }
    }
    failures.assert_none();
}

/// RFC 9112 section 7.1: an HTTP/1.0 client can't read chunks.
#[test]
fn rfc9112_7_an_http10_client_gets_no_chunks_and_no_interim_answer() {
    let chunked = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let origin =
        Origin::fixed(["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", chunked].concat());
    let edge = Edge::over(origin, |setup| setup);
    for fields in ["", "Connection: keep-alive\r\n", "TE: chunked\r\n"] {
        let mut client = edge.send(format!("GET /api/x HTTP/1.0\r\n{fields}\r\n"));
        let response = client.read("GET");
        assert_eq!(response.field("Transfer-Encoding"), None);
        assert_eq!(response.text(), "abcdef");
        assert!(response.interim.is_empty());
    }
}

#[test]
fn rfc9110_9_3_2_head_has_no_body_and_the_next_answer_follows() {
    let edge = edge();
    for target in ["/api/hit", "/api/miss", "/nowhere", "/health"] {
        for _ in 0..2 {
            let head = format!("HEAD {target} HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
            let mut client = edge.send(head + &get("/api/after"));
            let response = client.read("HEAD");
            assert!(response.field("Content-Length").is_some_and(|it| it != "0"), "{response:?}");
            assert_eq!(client.read("GET").text(), "GET /after", "{target}");
            edge.proxy.get("/api/hit");
        }
    }
}

/// What is sent before the end of an answer that closes is read away, not answered with a reset
/// that would destroy the answer (RFC 9112 section 9.6).
#[test]
fn rfc9112_9_6_an_answer_survives_what_the_client_still_sends() {
    let edge = edge();
    // More than the socket buffers of both ends take: who does not read it resets.
    let rest = vec![b'x'; 20_000_000];
    let rows = [
        ("a refused head", "GET /api/x HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(), 400),
        ("a body that is too large", edge::post("Content-Length: 99999999\r\n", ""), 413),
        ("a refused chunk", edge::post("Transfer-Encoding: chunked\r\n", "zz\r\n"), 400),
        (
            "a request that closes",
            get("/api/x").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            200,
        ),
        (
            "no such path, with a body",
            edge::post("Content-Length: 200000\r\nConnection: close\r\n", "")
                .replace("/api", "/no"),
            404,
        ),
    ];
    let mut failures = Failures::default();
    for (rule, request, status) in rows {
        let mut client = edge.send(request);
        // As http.client does: all of it before the answer is looked at.
        let sent = rest.chunks(10_000).all(|part| client.try_send(part).is_ok());
        client.half_close();
        let check = read(&mut client, "GET").and_then(|answer| {
            must(sent, || "the daemon takes no more".to_owned())?;
            must(answer.status == status, || format!("{}", answer.status))?;
            closed(&mut client)
        });
        failures.note(rule, check);
    }
    failures.assert_none();
}
