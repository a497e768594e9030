//! Limits and clocks: what is too large or too slow is answered and ends (RFC 9110 section 15.5).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use std::time::{Duration, Instant};

use edge::{Edge, assert_forwarded, assert_refused, head, post};
use support::{Fault, Origin, answer, eventually};

#[test]
fn what_exceeds_a_limit_is_refused_and_nothing_is_forwarded() {
    let edge = Edge::with(|setup| {
        setup
            .with("security.max_header_bytes", 16_384)
            .with("server.max_header_count", 20)
            .with("security.max_request_body_size", 1000)
    });
    let long = |bytes: usize| format!("GET /api/{} HTTP/1.1", "x".repeat(bytes));
    let many = "X: 1\r\n".repeat(20);
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let chunks = format!("{}0\r\n\r\n", "64\r\n".to_owned() + &"x".repeat(100) + "\r\n").repeat(11);
    let rows = [
        ("9110-15.5.15 a target of 8193 bytes", head(&long(8188), ""), 414),
        ("9110-15.5.15 a target without end", format!("GET /api/{}", "x".repeat(20_000)), 414),
        (
            "6585-5 a field above the head's limit",
            head("GET /api/x HTTP/1.1", &format!("X: {}\r\n", "x".repeat(16_384))),
            431,
        ),
        (
            "6585-5 a field without end",
            format!("GET /api/x HTTP/1.1\r\nX: {}", "x".repeat(20_000)),
            431,
        ),
        (
            "6585-5 many fields above the head's limit",
            head("GET /api/x HTTP/1.1", &format!("X: {}\r\n", "x".repeat(2000)).repeat(9)),
            431,
        ),
        ("6585-5 one field too many", head("GET /api/x HTTP/1.1", &many), 431),
        ("9110-15.5.14 a length above the limit", post("Content-Length: 1001\r\n", ""), 413),
        (
            "9110-15.5.14 a length far above",
            post("Content-Length: 18446744073709551615\r\n", ""),
            413,
        ),
        ("9110-15.5.14 one chunk above", post("Transfer-Encoding: chunked\r\n", &chunk), 413),
        (
            "9110-15.5.14 an endless chunk",
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("ffffffffffffffff\r\n{}", "x".repeat(1001)),
            ),
            413,
        ),
    ];
    assert_refused(&edge, &rows);
    let chunks = chunks.replace("0\r\n\r\n64", "64");
    assert_refused(
        &edge,
        &[("9110-15.5.14 many chunks", post("Transfer-Encoding: chunked\r\n", &chunks), 413)],
    );
}

#[test]
fn what_just_fits_a_limit_passes() {
    let edge = Edge::with(|setup| {
        setup
            .with("security.max_header_bytes", 16_384)
            .with("server.max_header_count", 20)
            .with("security.max_request_body_size", 1000)
    });
    let target = "x".repeat(8192 - "/api/".len());
    let thousand = "x".repeat(1000);
    let rows = [
        (
            "9112-3 a target of 8192 bytes",
            head(&format!("GET /api/{target} HTTP/1.1"), ""),
            format!("GET /{target}"),
            String::new(),
        ),
        (
            "6585-5 as many fields as allowed",
            head("GET /api/x HTTP/1.1", &"X: 1\r\n".repeat(19)),
            "GET /x".to_owned(),
            String::new(),
        ),
        (
            "6585-5 a long field",
            head("GET /api/x HTTP/1.1", &format!("X: {}\r\n", "x".repeat(16_000))),
            "GET /x".to_owned(),
            String::new(),
        ),
        (
            "9110-15.5.14 a body of the greatest length",
            post("Content-Length: 1000\r\n", &thousand),
            "POST /x".to_owned(),
            thousand.clone(),
        ),
        (
            "9110-15.5.14 the same in a chunk",
            post("Transfer-Encoding: chunked\r\n", &format!("3e8\r\n{thousand}\r\n0\r\n\r\n")),
            "POST /x".to_owned(),
            thousand.clone(),
        ),
    ];
    let rows: Vec<_> =
        rows.iter().map(|(rule, bytes, line, body)| (*rule, bytes, &**line, &**body)).collect();
    assert_forwarded(&edge, &rows);
}

/// Times of one second, checked every quarter: what is due ends within four seconds.
fn hasty() -> Edge {
    Edge::with(|setup| {
        setup
            .with("server.read_timeout", 1)
            .with("server.write_timeout", 1)
            .with("server.idle_timeout", 1)
    })
}

const DUE: Duration = Duration::from_secs(4);

#[test]
fn rfc9110_15_5_9_an_unfinished_head_is_answered_408() {
    let edge = hasty();
    for part in ["G", "GET /api/x HTTP/1.1\r\n", "GET /api/x HTTP/1.1\r\nHost: proxy.test\r\nX: 1"]
    {
        let start = Instant::now();
        let mut client = edge.send(part);
        let response = client.read("GET");
        assert_eq!(
            (response.status, response.problem().as_str()),
            (408, "request_timeout"),
            "{part:?}"
        );
        client.expect_close();
        assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() < DUE);
    }
    assert_eq!(edge.origin.count(), 0);
}

/// A byte now and then does not prolong a head's time.
#[test]
fn rfc9110_15_5_9_a_head_that_drips_is_answered_408() {
    let edge = hasty();
    let mut client = edge.send("GET /api/x HTTP/1.1\r\nHost: proxy.test\r\n");
    let start = Instant::now();
    client.patience(Duration::from_millis(200));
    let response = loop {
        client.try_send("X: 1\r\n").ok();
        match client.try_read("GET") {
            Err(Fault::Late) => assert!(start.elapsed() < DUE, "still open"),
            answer => break answer.expect("no answer"),
        }
    };
    assert_eq!(response.status, 408);
    assert_eq!(edge.origin.count(), 0);
}

#[test]
fn rfc9110_15_5_9_a_body_that_stops_is_answered_408() {
    let edge = hasty();
    for (fields, part) in [
        ("Content-Length: 10\r\n", "abc"),
        ("Content-Length: 10\r\n", ""),
        ("Transfer-Encoding: chunked\r\n", "a\r\nabc"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"),
    ] {
        let start = Instant::now();
        let mut client = edge.send(post(fields, part));
        let response = client.read("POST");
        assert_eq!(response.status, 408, "{fields}{part}");
        assert_eq!(response.field("Connection"), Some("close"));
        client.expect_close();
        assert!(start.elapsed() < DUE);
    }
    assert_eq!(edge.origin.count(), 0, "nothing complete");
}

/// Progress counts: a body may take longer than the time between two of its parts.
#[test]
fn a_body_that_keeps_coming_may_take_its_time() {
    let edge = hasty();
    let mut client = edge.send(post("Content-Length: 8\r\n", ""));
    let start = Instant::now();
    client.patience(Duration::from_millis(300));
    for byte in *b"progress" {
        assert!(matches!(client.try_read("POST"), Err(Fault::Late)), "answered too early");
        client.send([byte]);
    }
    client.patience(support::PATIENCE);
    assert_eq!(client.read("POST").status, 200);
    assert!(start.elapsed() > Duration::from_secs(2));
    assert_eq!(edge.origin.last().body, b"progress");
}

#[test]
fn rfc9112_9_5_an_idle_connection_is_closed_without_a_word() {
    let edge = hasty();
    let mut silent = edge.proxy.connect();
    let mut used = edge.proxy.connect();
    assert_eq!(used.get("/api/x").status, 200);
    let start = Instant::now();
    silent.expect_close();
    used.expect_close();
    assert!(start.elapsed() < DUE);
}

/// An exchange is not idle, however long the origin takes.
#[test]
fn a_slow_origin_does_not_run_into_the_clients_times() {
    let origin = Origin::respond(|_| {
        std::thread::sleep(Duration::from_millis(2500));
        answer(200, &[("Cache-Control", "no-store")], "late")
    });
    let edge = Edge::over(origin, |setup| {
        setup
            .with("server.read_timeout", 1)
            .with("server.write_timeout", 1)
            .with("server.idle_timeout", 1)
    });
    assert_eq!(edge.proxy.get("/api/x").text(), "late");
}

/// A client that reads nothing holds its connection for the time of one write without progress.
#[test]
fn a_client_that_does_not_read_is_let_go() {
    for cache_control in ["no-store", "max-age=60"] {
        let body = vec![b'x'; 16 << 20];
        let origin = Origin::respond(move |request| match &*request.target {
            "/large" => answer(200, &[("Cache-Control", cache_control)], &body),
            _ => answer(200, &[("Cache-Control", cache_control)], "warm"),
        });
        let edge = Edge::over(origin, |setup| setup.with("server.write_timeout", 1));
        edge.proxy.get("/api/warm");
        edge.origin.disconnect();
        let mut before = usize::MAX;
        eventually("descriptors settle", || {
            std::thread::sleep(Duration::from_millis(50));
            let now = edge.proxy.fd_count();
            std::mem::replace(&mut before, now) == now
        });
        let client = edge.send(head("GET /api/large HTTP/1.1", ""));
        edge.origin.await_requests(2);
        let start = Instant::now();
        // The one connection that may stay is the origin's, idle.
        edge.proxy.await_fds(before + 1);
        assert!(start.elapsed() < 2 * DUE, "{cache_control}");
        drop(client);
    }
}

/// RFC 9112 section 2.2: a head may come byte by byte; it costs no more for that.
#[test]
fn a_long_head_byte_by_byte_costs_little() {
    let edge = Edge::plain();
    let fields: String =
        (0..80).map(|number| format!("X-{number}: {}\r\n", "v".repeat(300))).collect();
    let bytes = head("GET /api/x HTTP/1.1", &fields);
    let before = edge.proxy.cpu_time();
    let mut client = edge.proxy.connect();
    for byte in bytes.as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.read("GET").status, 200);
    let spent = edge.proxy.cpu_time() - before;
    let each = spent / u32::try_from(bytes.len()).unwrap();
    assert!(each < Duration::from_micros(150), "{each:?} for each byte");
}
