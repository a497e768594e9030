//! Origins that speak HTTP/2 (RFC 9113): one connection for a core, a stream for each exchange.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::client::request;
use support::multiplex::Exchange;
use support::{Latch, Limits, Setup, eventually, load};
use upstream::Multi;

const NO_STORE: (&str, &str) = ("cache-control", "no-store");

fn echo(exchange: Exchange) {
    let body = format!("{} {}", exchange.seen.method, exchange.target());
    exchange.answer(200, &[("cache-control", "max-age=60")], body);
}

#[test]
fn request_and_answer_go_through_and_are_cached() {
    let edge = Multi::over(async |exchange| echo(exchange));
    let answer = edge.proxy.get("/api/v1/x?a=1");
    assert_eq!((answer.status, answer.text()), (200, "GET /v1/x?a=1"));
    assert_eq!(answer.field("Via"), Some("2.0 apiproxyd"));
    assert_eq!(edge.proxy.get("/api/v1/x?a=1").cache(), "HIT");
    assert_eq!(edge.origin.count(), 1);
}

/// RFC 9113 section 8.2.2: what concerns one connection is no part of HTTP/2.
#[test]
fn fields_of_the_clients_connection_are_not_sent() {
    let edge = Multi::over(async |exchange| echo(exchange));
    let fields = [
        ("Connection", "keep-alive, X-Hop"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Upgrade", "websocket"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("X-Hop", "1"),
        ("X-End", "2"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
    ];
    assert_eq!(edge.proxy.ask("GET", "/api/v1/x", &fields).status, 200);
    let seen = edge.origin.requests().pop().unwrap();
    let gone = ["connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"];
    for name in gone.into_iter().chain(["x-hop", "transfer-encoding", "host"]) {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_eq!(seen.field("x-end"), Some("2"));
    assert_eq!(seen.fields.get_all("cookie").iter().count(), 2);
    assert_eq!(seen.authority, format!("localhost:{}", edge.origin.port()));
}

#[test]
fn many_concurrent_requests_share_one_connection() {
    let latch = Latch::new();
    let held = latch.clone();
    let edge = Multi::over(move |exchange| {
        let held = held.clone();
        async move {
            held.pass().await;
            echo(exchange);
        }
    });
    let mut clients = load::connect_all(edge.proxy.addr(), 200);
    // A burst on a core that knows nothing of this origin yet.
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/v1/{number}"), &[], ""));
    }
    edge.origin.await_requests(200);
    latch.open();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read("GET").text(), format!("GET /v1/{number}"));
    }
    assert_eq!((edge.origin.connections(), edge.origin.streams_most()), (1, 200));
    let permits = edge
        .metric(&format!("apiproxyd_upstream_permits_taken{{upstream=\"{}\"}}", edge.origin.url()));
    assert_eq!(permits, 1.0, "one connection takes one place");
}

#[test]
fn each_core_has_one_connection() {
    let edge = Multi::with(Limits::default(), |it| it, async |exchange| echo(exchange));
    let mut clients = load::connect_all(edge.proxy.addr(), 100);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/v1/{number}"), &[], ""));
    }
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    assert!(edge.origin.connections() <= 2, "{}", edge.origin.connections());
}

/// Also in the moment before its settings are there: none is sent to be refused.
#[test]
fn origins_limit_of_streams_is_kept() {
    let limits = Limits { streams: Some(10), ..Limits::default() };
    let edge = Multi::with(
        limits,
        |it| it.with("server.cores", 1),
        async |exchange| {
            tokio::task::yield_now().await;
            echo(exchange);
        },
    );
    let mut clients = load::connect_all(edge.proxy.addr(), 150);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/v1/{number}"), &[], ""));
    }
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    assert_eq!((edge.origin.connections(), edge.origin.count()), (1, 150));
    assert!(edge.origin.streams_most() <= 10, "{}", edge.origin.streams_most());
    assert_eq!(edge.metric("apiproxyd_upstream_retries_total"), 0.0);
}

/// RFC 9113 section 6.8: running streams finish, and new requests go on a new connection, however
/// often the origin changes it.
#[test]
fn graceful_end_of_a_connection_costs_no_request() {
    let latch = Latch::new();
    let held = latch.clone();
    let edge = Multi::over(move |exchange| {
        let held = held.clone();
        async move {
            if exchange.target().starts_with("/held") {
                held.pass().await;
            }
            echo(exchange);
        }
    });
    let mut running = load::connect_all(edge.proxy.addr(), 20);
    for (number, client) in running.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/held/{number}"), &[], ""));
    }
    edge.origin.await_requests(20);
    for round in 1..=15 {
        edge.origin.go_away();
        let post = [("Content-Type", "application/json")];
        eventually("the next request goes on a new connection", || {
            let mut client = edge.proxy.connect();
            client.send_request("POST", &format!("/api/v1/{round}"), &post, "{}");
            assert_eq!(client.read("POST").status, 200);
            edge.origin.connections() > round
        });
    }
    latch.open();
    for (number, client) in running.iter_mut().enumerate() {
        assert_eq!(client.read("GET").text(), format!("GET /held/{number}"));
    }
    eventually("the old connections are closed", || edge.origin.open() == 1);
}

#[test]
fn connection_that_the_origin_ended_is_replaced() {
    let edge = Multi::over(async |exchange| echo(exchange));
    for round in 1..=5 {
        assert_eq!(edge.proxy.get(&format!("/api/v1/{round}")).status, 200);
        assert_eq!(edge.origin.connections(), round);
        edge.origin.abort();
        eventually("the origin has closed", || edge.origin.open() == 0);
    }
}

/// RFC 8297.
#[test]
fn interim_answers_are_passed_on() {
    let edge = Multi::over(async |mut exchange: Exchange| {
        exchange.interim(103, &[("link", "</a.css>; rel=preload")]);
        echo(exchange);
    });
    for target in ["/api/v1/x", "/api/v1/y"] {
        let answer = edge.proxy.get(target);
        assert_eq!(answer.status, 200);
        let (status, fields) = &answer.interim[0];
        assert_eq!((*status, fields.only("Link")), (103, Some("</a.css>; rel=preload")));
    }
}

#[test]
fn trailers_are_left_out_and_the_body_is_whole() {
    let edge = Multi::over(async |mut exchange: Exchange| {
        let Some(mut body) = exchange.start(200, &[("cache-control", "max-age=60")]) else {
            return;
        };
        body.all(Bytes::from_static(b"whole")).await;
        body.end_with("x-trailer", "1");
    });
    for _ in 0..2 {
        let answer = edge.proxy.get("/api/v1/x");
        assert_eq!((answer.text(), answer.field("X-Trailer")), ("whole", None));
        assert!(answer.trailers.0.is_empty());
    }
    assert_eq!(edge.origin.count(), 1, "stored");
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

#[test]
fn large_answer_comes_whole() {
    let body = Bytes::from(pattern(8 << 20));
    let sent = body.clone();
    let edge = Multi::over(move |mut exchange: Exchange| {
        let sent = sent.clone();
        async move {
            let Some(mut body) = exchange.start(200, &[NO_STORE]) else { return };
            body.all(sent).await;
            body.end();
        }
    });
    let answer = edge.proxy.get("/api/v1/x");
    assert!(answer.body == body, "{} bytes", answer.body.len());
}

/// A request with a body of any bytes, sent with its length or in chunks.
fn put(target: &str, chunked: bool, body: &[u8]) -> Vec<u8> {
    let head = format!("PUT {target} HTTP/1.1\r\nHost: proxy.test\r\n");
    if !chunked {
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        return [head.as_bytes(), body].concat();
    }
    let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(10_000) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

fn any_body(setup: Setup) -> Setup {
    setup.with("server.cores", 1).with("security.require_json_body", false)
}

/// With windows so small that it can't go out at once.
#[test]
fn large_request_goes_whole_through_small_windows() {
    let limits = Limits { window_bytes: Some(16 * 1024), ..Limits::default() };
    let edge = Multi::with(limits, any_body, async |mut exchange: Exchange| {
        let body = exchange.body().await;
        let right = body == pattern(body.len());
        exchange.answer(200, &[NO_STORE], format!("{} {right}", body.len()));
    });
    for chunked in [false, true] {
        let mut client = edge.proxy.connect();
        client.send(put("/api/v1/x", chunked, &pattern(8 << 20)));
        assert_eq!(client.read("PUT").text(), "8388608 true", "chunked: {chunked}");
    }
}

/// A body that is gathered first, for it must be JSON.
#[test]
fn large_json_goes_whole() {
    let edge = Multi::over(async |mut exchange: Exchange| {
        let body = exchange.body().await;
        exchange.answer(200, &[NO_STORE], body);
    });
    let json = format!("[\"{}\"]", "x".repeat(1 << 20));
    let mut client = edge.proxy.connect();
    assert!(client.post("/api/v1/x", &json).text() == json);
}

/// The origin answers before the body's end, and takes no more of it (RFC 9113 section 8.1).
#[test]
fn early_answer_ends_the_upload() {
    let edge = Multi::with(Limits::default(), any_body, async |mut exchange: Exchange| {
        exchange.piece().await;
        exchange.answer(413, &[NO_STORE], "no more");
    });
    let mut client = edge.proxy.connect();
    client.try_send(put("/api/v1/x", true, &pattern(4 << 20))).ok();
    let answer = client.read("PUT");
    assert_eq!((answer.status, answer.text()), (413, "no more"));
    let again = edge.proxy.connect().post("/api/v1/y", "{}");
    assert_eq!(again.status, 413);
    assert_eq!(edge.origin.connections(), 1);
}

/// A client that does not read holds up its own stream and nothing else, and the daemon holds no
/// more of it than a window.
#[test]
fn client_that_does_not_read_stops_its_origin_and_nobody_else() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let edge = Multi::over(move |mut exchange: Exchange| {
        let sent = counted.clone();
        async move {
            if exchange.target() == "/short" {
                return echo(exchange);
            }
            let Some(mut body) = exchange.start(200, &[NO_STORE]) else { return };
            let bytes = Bytes::from(vec![b'x'; 64 * 1024]);
            while let Some(some) = body.some(&bytes).await {
                sent.fetch_add(some as u64, Ordering::SeqCst);
            }
        }
    });
    let mut clients = load::connect_all(edge.proxy.addr(), 40);
    load::send_all(&mut clients, &request("GET", "/api/endless", &[], ""));
    edge.origin.await_requests(40);
    let (mut last, mut still) = (0, Instant::now());
    eventually("the origin is stopped", || {
        let now = sent.load(Ordering::SeqCst);
        if now != last {
            (last, still) = (now, Instant::now());
        }
        still.elapsed() > Duration::from_millis(500)
    });
    // What is in the sockets of a loopback connection is the kernel's.
    let held = edge.proxy.rss_bytes();
    assert!(held < 120 << 20, "{} MiB for {} MiB", held >> 20, last >> 20);
    let started = Instant::now();
    assert_eq!(edge.proxy.get("/api/short").status, 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(edge.origin.connections(), 1);
}

#[test]
fn client_that_leaves_ends_its_stream() {
    let given_up = Arc::new(AtomicU64::new(0));
    let counted = given_up.clone();
    let edge = Multi::over(move |mut exchange: Exchange| {
        let counted = counted.clone();
        async move {
            if exchange.target() == "/body" {
                let Some(mut body) = exchange.start(200, &[NO_STORE]) else { return };
                body.some(&Bytes::from_static(b"some")).await;
                body.given_up().await;
            } else {
                exchange.given_up().await;
            }
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let posted = [("Content-Type", "application/json")];
    let mut waiting = edge.proxy.connect();
    waiting.send_request("POST", "/api/head", &posted, "{}");
    let mut reading = edge.proxy.connect();
    reading.send(request("GET", "/api/body", &[], ""));
    reading.await_text("some");
    edge.origin.await_requests(2);
    drop(waiting);
    reading.reset();
    eventually("both streams are given up", || given_up.load(Ordering::SeqCst) == 2);
    assert_eq!(edge.origin.open(), 1, "the connection lives on");
}

/// A core that has the only connection lets go of it for another core that waits.
#[test]
fn one_connection_for_two_cores_is_handed_over() {
    let one = |setup: Setup| setup.with("client.max_conns_per_host", 1);
    let edge = Multi::with(Limits::default(), one, async |exchange| {
        exchange.answer(200, &[NO_STORE], "x");
    });
    // Enough connections that both cores serve some.
    let mut clients = load::connect_all(edge.proxy.addr(), 32);
    for round in 0..5 {
        load::send_all(&mut clients, &request("GET", &format!("/api/{round}"), &[], ""));
        for client in &mut clients {
            client.patience(Duration::from_secs(10));
            assert_eq!(client.read("GET").status, 200);
        }
        assert!(edge.origin.open() <= 1);
    }
}

#[test]
fn idle_connection_is_closed_in_time() {
    let idle = |setup: Setup| setup.with("server.cores", 1).with("client.idle_conn_timeout", 1);
    let edge = Multi::with(Limits::default(), idle, async |exchange| echo(exchange));
    assert_eq!(edge.proxy.get("/api/v1/x").status, 200);
    assert_eq!(edge.origin.open(), 1);
    eventually("it is closed", || edge.origin.open() == 0);
    let permits = format!("apiproxyd_upstream_permits_taken{{upstream=\"{}\"}}", edge.origin.url());
    eventually("its place is free", || edge.metric(&permits) == 0.0);
}

/// The order to stop comes while a stream runs and the connection is open.
#[test]
fn drain_lets_streams_end() {
    let latch = Latch::new();
    let held = latch.clone();
    let mut edge = Multi::over(move |exchange| {
        let held = held.clone();
        async move {
            held.pass().await;
            exchange.answer(200, &[NO_STORE], "whole");
        }
    });
    let mut client = edge.proxy.connect();
    client.send(request("GET", "/api/v1/x", &[], ""));
    edge.origin.await_requests(1);
    edge.proxy.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("it no longer accepts", || std::net::TcpStream::connect(edge.proxy.addr()).is_err());
    latch.open();
    assert_eq!(client.read("GET").text(), "whole");
    drop(client);
    let stopped = Instant::now();
    assert_eq!(edge.proxy.await_exit(), Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
}
