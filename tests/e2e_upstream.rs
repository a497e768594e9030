//! Connections to an origin: how many, how long, for whom.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::client::request;
use support::{Connection, Gate, Metrics, Origin, Proxy, Setup, answer, eventually, load};

const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn quick() -> Origin {
    Origin::fixed(answer(200, &[NO_STORE], "x"))
}

/// A gauge of the only upstream.
#[track_caller]
fn gauge(proxy: &Proxy, name: &str, label: &str) -> f64 {
    Metrics::of(proxy).sum(&format!("apiproxyd_upstream_{name}"), &[label])
}

/// Sends a request of its own for each client, none of which shares a fetch.
fn ask_all(clients: &mut [support::Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/v1/{number}"), &[], ""));
    }
}

#[test]
fn connections_are_bounded_for_the_process_and_everybody_is_served() {
    let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (active.clone(), most.clone());
    let origin = Origin::respond(move |_| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        answer(200, &[NO_STORE], "x")
    });
    let proxy = Setup::over(&origin).with("client.max_conns_per_host", 3).start();
    let mut clients = load::connect_all(proxy.addr(), 90);
    ask_all(&mut clients);
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!(origin.open() <= 3);
    assert_eq!(gauge(&proxy, "permits", ""), 3.0);
    assert_eq!(gauge(&proxy, "waiting_requests", ""), 0.0);
}

/// Each is woken when its turn comes, also from another core: a wait for the next sweep, half a
/// second away, would take ten seconds and more.
#[test]
fn a_connection_that_comes_back_on_any_core_wakes_who_waits() {
    let origin = quick();
    let proxy = Setup::over(&origin).with("client.max_conns_per_host", 1).start();
    let mut clients = load::connect_all(proxy.addr(), 40);
    let started = Instant::now();
    for _ in 0..5 {
        ask_all(&mut clients);
        for client in &mut clients {
            assert_eq!(client.read("GET").status, 200);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn whoever_waits_for_a_connection_in_vain_gets_504_in_time() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |request| {
        if request.target == "/held" {
            held.pass();
        }
        answer(200, &[NO_STORE], "x")
    });
    let proxy = Setup::over(&origin)
        .with("client.max_conns_per_host", 1)
        .with("client.circuit_breaker_threshold", 1)
        .with("routes", serde_json::json!([{ "prefix": "/short", "request_timeout": 1 }]))
        .start();
    let mut first = proxy.connect();
    first.send(request("GET", "/api/held", &[], ""));
    origin.await_requests(1);
    let mut second = proxy.connect();
    let started = Instant::now();
    second.send_request("POST", "/api/short/x", &JSON, "{}");
    let late = second.read("POST");
    assert_eq!((late.status, late.problem()), (504, "upstream_timeout".to_owned()));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(late.field("Cache-Status"), Some("apiproxyd; fwd=method; detail=queued"));
    gate.open();
    assert_eq!(first.read("GET").status, 200);
    // That was our queue, not the origin: its breaker is closed.
    assert_eq!(proxy.get("/api/v1/x").status, 200);
    assert_eq!(gauge(&proxy, "waiting_requests", ""), 0.0);
}

#[test]
fn client_that_leaves_the_queue_leaves_no_trace() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[NO_STORE], "x")
    });
    let proxy = Setup::over(&origin).with("client.max_conns_per_host", 1).start();
    let mut first = proxy.connect();
    first.send(request("GET", "/api/held", &[], ""));
    origin.await_requests(1);
    let mut waiting = load::connect_all(proxy.addr(), 20);
    for client in &mut waiting {
        client.send_request("POST", "/api/v1/x", &JSON, "{}");
    }
    eventually("all wait", || gauge(&proxy, "waiting_requests", "") == 20.0);
    drop(waiting);
    eventually("none waits", || gauge(&proxy, "waiting_requests", "") == 0.0);
    gate.open();
    assert_eq!(first.read("GET").status, 200);
    assert_eq!(proxy.get("/api/v1/y").status, 200);
    assert_eq!(origin.count(), 2, "nothing was sent for those who had left");
}

/// 4096 may wait for one origin.
#[test]
fn more_than_may_wait_are_told_at_once() {
    support::raise_descriptors(4_500);
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[NO_STORE], "x")
    });
    let proxy = Setup::over(&origin).with("client.max_conns_per_host", 1).start();
    let mut clients = load::connect_all(proxy.addr(), 4_097);
    for client in &mut clients {
        client.send_request("POST", "/api/v1/x", &JSON, "{}");
    }
    eventually("the queue is full", || gauge(&proxy, "waiting_requests", "") == 4_096.0);
    let refused = proxy.connect().post("/api/v1/x", "{}");
    assert_eq!((refused.status, refused.problem()), (503, "upstream_busy".to_owned()));
    assert_eq!(refused.field("Retry-After"), Some("1"));
    drop(clients);
    eventually("the queue is empty", || gauge(&proxy, "waiting_requests", "") == 0.0);
    gate.open();
    assert_eq!(proxy.get("/api/v1/y").status, 200);
}

#[test]
fn connections_are_kept_and_used_again() {
    let origin = quick();
    let proxy = Setup::over(&origin).with("server.cores", 1).start();
    for number in 0..20 {
        assert_eq!(proxy.get(&format!("/api/{number}")).status, 200);
    }
    assert_eq!((origin.count(), origin.connections()), (20, 1));
}

/// An origin that answers ten at a time, so that as many connections are made.
fn wide(together: usize) -> Origin {
    let arrived = Arc::new(AtomicUsize::new(0));
    Origin::respond(move |_| {
        arrived.fetch_add(1, Ordering::SeqCst);
        eventually("all have come", || arrived.load(Ordering::SeqCst) >= together);
        answer(200, &[NO_STORE], "x")
    })
}

fn fill(proxy: &Proxy, prefix: &str, count: usize) {
    let mut clients = load::connect_all(proxy.addr(), count);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api{prefix}/{number}"), &[], ""));
    }
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
}

#[test]
fn idle_connections_are_bounded_for_each_host() {
    let origin = wide(12);
    let proxy = Setup::over(&origin).with("client.max_idle_conns_per_host", 2).start();
    fill(&proxy, "", 12);
    assert_eq!(origin.connections(), 12);
    eventually("two are left", || origin.open() == 2);
    eventually("two are counted", || gauge(&proxy, "connections", "idle") == 2.0);
    assert_eq!(gauge(&proxy, "permits_taken", ""), 2.0);
    // And stay.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(origin.open(), 2);
}

#[test]
fn idle_connections_are_bounded_for_all_hosts_together() {
    let (one, other) = (wide(6), wide(6));
    let proxy = Setup::over(&one)
        .with("client.max_idle_conns", 3)
        .with("routes", serde_json::json!([{ "prefix": "/other", "entry_point": other.url() }]))
        .start();
    fill(&proxy, "", 6);
    fill(&proxy, "/other", 6);
    eventually("at most three are left", || one.open() + other.open() <= 3);
}

#[test]
fn idle_connection_is_closed_in_time() {
    let origin = quick();
    let proxy = Setup::over(&origin).with("client.idle_conn_timeout", 1).start();
    assert_eq!(proxy.get("/api/v1/x").status, 200);
    let started = Instant::now();
    eventually("it is closed", || origin.open() == 0);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    eventually("its place is free", || gauge(&proxy, "permits_taken", "") == 0.0);
}

/// RFC 9112 section 9.2: what comes without a question is no answer to the next one.
#[test]
fn connection_that_has_spoken_unasked_is_not_used_again() {
    let spoken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&spoken);
    let origin = Origin::script(move |connection: &mut Connection| {
        while let Some(request) = connection.request() {
            connection.send(answer(200, &[NO_STORE], &request.target));
            connection.send(answer(200, &[NO_STORE], "not asked for"));
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = Setup::over(&origin).with("server.cores", 1).start();
    for number in 0..10 {
        assert_eq!(proxy.get(&format!("/api/{number}")).text(), format!("/{number}"));
        // Else the next question may be on its way before it.
        eventually("it has spoken", || spoken.load(Ordering::SeqCst) > number);
    }
    assert_eq!(origin.connections(), 10);
}

/// The origin closes behind its answer without having said so.
#[test]
fn connection_that_was_closed_is_not_used_again() {
    let origin = Origin::script(|connection: &mut Connection| {
        if connection.request().is_some() {
            connection.send(answer(200, &[NO_STORE], "x"));
        }
    });
    let proxy = Setup::over(&origin).with("server.cores", 1).start();
    for number in 0..10 {
        let posted = proxy.connect().post(&format!("/api/{number}"), "{}");
        assert_eq!(posted.status, 200);
        eventually("it is closed", || origin.open() == 0);
    }
    assert_eq!(Metrics::of(&proxy).value("apiproxyd_upstream_retries_total"), 0.0);
}

/// When the kernel probes the daemon's connection to `port`, in seconds; `None` without a timer for
/// that. The sixth column is the timer's kind (2 is this one) and its hundredths of a second.
fn next_probe(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let mut rows = table.lines().map(|it| it.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|it| it.len() > 5 && it[2].ends_with(&remote) && it[3] == "01");
    let hundredths = row.expect("no connection")[5].strip_prefix("02:")?;
    Some(u64::from_str_radix(hundredths, 16).unwrap() / 100)
}

#[test]
fn tcp_keep_alive_is_set_as_wanted() {
    // Zero is never: what the kernel can count to, nine hours.
    for (seconds, earliest, latest) in [(30, 20, 30), (500, 490, 500), (0, 32_000, 32_767)] {
        let origin = quick();
        let proxy = Setup::over(&origin).with("client.keep_alive", seconds).start();
        assert_eq!(proxy.get("/api/v1/x").status, 200);
        let probe = next_probe(origin.addr().port());
        assert!(probe.is_some_and(|it| (earliest..=latest).contains(&it)), "{seconds}: {probe:?}");
    }
}
