//! Many requests for one thing at the same moment.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::client::request;
use support::{
    Connection, Gate, Metrics, Origin, Proxy, Setup, answer, assert_cached, eventually, load,
};

/// Waits until so many requests wait for a fetch.
#[track_caller]
fn await_waiting(proxy: &Proxy, count: usize) {
    let waiting = || Metrics::of(proxy).value("apiproxyd_requests_in_flight");
    eventually("all wait", || waiting() == count as f64);
}

/// Descriptors for ten thousand clients and for the other tests; one test at a time has them.
fn room_for_ten_thousand() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    support::raise_descriptors(13_000);
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn ten_thousand_concurrent_cold_requests_become_one() {
    let _alone = room_for_ten_thousand();
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[("Cache-Control", "max-age=60")], "shared body")
    });
    let proxy = Setup::over(&origin).with("client.request_timeout", 60).start();
    let mut clients = load::connect_all(proxy.addr(), 10_000);
    load::send_all(&mut clients, &request("GET", "/api/v1/x", &[], ""));
    await_waiting(&proxy, 10_000);
    gate.open();
    for client in &mut clients {
        let response = client.read("GET");
        assert_eq!((response.status, response.text()), (200, "shared body"));
    }
    assert_eq!(origin.count(), 1);
}

/// Before the answer's head, or in the middle of its body.
#[test]
fn ten_thousand_are_served_by_one_request_when_the_first_client_leaves_halfway() {
    let _alone = room_for_ten_thousand();
    for head_first in [false, true] {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::script(move |connection| {
            if connection.request().is_none() {
                return;
            }
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n";
            let sent = if head_first { format!("{head}first") } else { String::new() };
            connection.send(&sent);
            held.pass();
            connection.send(&format!("{head}first-last")[sent.len()..]);
            connection.await_close();
        });
        let proxy = Setup::over(&origin).with("client.request_timeout", 60).start();
        let get = request("GET", "/api/v1/x", &[], "");
        let mut first = proxy.connect();
        first.send(&get);
        origin.await_requests(1);
        if head_first {
            first.await_text("first");
        }
        let mut clients = load::connect_all(proxy.addr(), 9_999);
        load::send_all(&mut clients, &get);
        await_waiting(&proxy, 10_000);
        first.reset();
        await_waiting(&proxy, 9_999);
        gate.open();
        for client in &mut clients {
            let response = client.read("GET");
            assert_eq!((response.status, response.text()), (200, "first-last"));
        }
        assert_eq!(origin.count(), 1);
        assert_eq!(proxy.get("/api/v1/x").cache(), "HIT");
        origin.disconnect();
    }
}

/// Those who wait wake up on the other core while the response and the index that leads to it are
/// being shown: a fifth of such rounds used to cost a second fetch.
#[test]
fn concurrent_cold_requests_for_a_variant_become_one() {
    const ROUNDS: usize = 100;
    let origin = Origin::respond(|_| {
        answer(200, &[("Cache-Control", "max-age=60"), ("Vary", "Language")], "shared body")
    });
    let proxy = Setup::over(&origin).start();
    let mut clients = load::connect_all(proxy.addr(), 100);
    for round in 0..ROUNDS {
        let target = format!("/api/v1/{round}");
        load::send_all(&mut clients, &request("GET", &target, &[("Language", "en")], ""));
        for client in &mut clients {
            assert_eq!(client.read("GET").text(), "shared body");
        }
    }
    assert_eq!(origin.count(), ROUNDS);
}

#[test]
fn followers_read_the_body_while_it_grows() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        if connection.request().is_none() {
            return;
        }
        connection.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n");
        connection.send("Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        held.pass();
        connection.send("5\r\n-last\r\n0\r\n\r\n");
    });
    let proxy = Setup::over(&origin).start();
    let mut clients = load::connect_all(proxy.addr(), 20);
    for client in &mut clients {
        client.send(request("GET", "/api/v1/x", &[], ""));
        client.await_text("first");
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read("GET").text(), "first-last");
    }
    assert_eq!(origin.count(), 1);
}

/// All who wait when a fetch fails have the error at once: a convoy of attempts one behind the
/// other would take as many times as long, and ask the origin as often.
#[test]
fn followers_of_a_failed_fetch_are_all_answered_at_once() {
    type Play = fn(&mut Connection);
    // A reset may be repeated once, for whoever leads; a time-out never is.
    let plays: [(Play, u16, usize); 2] = [(Connection::reset, 502, 2), (await_close, 504, 1)];
    for (play, status, most) in plays {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::script(move |connection| {
            if connection.request().is_some() {
                held.pass();
                play(connection);
            }
        });
        let proxy = Setup::over(&origin)
            .with("client.circuit_breaker_enabled", false)
            .with("client.request_timeout", 3)
            .start();
        let mut clients = load::connect_all(proxy.addr(), 500);
        load::send_all(&mut clients, &request("GET", "/api/v1/x", &[], ""));
        await_waiting(&proxy, 500);
        let started = Instant::now();
        gate.open();
        for client in &mut clients {
            assert_eq!(client.read("GET").status, status);
        }
        // Time-outs one behind the other would take half an hour.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert!(origin.count() <= most, "{} requests", origin.count());
    }
}

fn await_close(connection: &mut Connection) {
    connection.await_close();
}

#[test]
fn followers_of_a_failed_renewal_get_what_is_stored_at_once() {
    let (gate, turn) = (Gate::default(), AtomicUsize::new(0));
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            if turn.fetch_add(1, Ordering::SeqCst) == 0 {
                connection.send(answer(200, &[("Cache-Control", "max-age=0")], "stored"));
            } else {
                held.pass();
                connection.reset();
            }
        }
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    assert_eq!(proxy.get("/api/v1/x").text(), "stored");
    let mut clients = load::connect_all(proxy.addr(), 500);
    load::send_all(&mut clients, &request("GET", "/api/v1/x", &[], ""));
    await_waiting(&proxy, 500);
    gate.open();
    for client in &mut clients {
        assert_cached(&client.read("GET"), "STALE", "stored");
    }
    assert!(origin.count() <= 3, "{} requests", origin.count());
}

/// What the origin itself says is everybody's, also when it can't be stored, and however it frames
/// what it says.
#[test]
fn error_of_the_origin_is_shared_by_all_who_wait() {
    let chunked = "HTTP/1.1 503 Away\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n0\r\n\r\n";
    let closing = "HTTP/1.1 503 Away\r\nConnection: close\r\n\r\ndown";
    for reply in [answer(503, &[], "down"), chunked.into(), closing.into()] {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::script(move |connection| {
            while connection.request().is_some() {
                held.pass();
                if !connection.send(&reply) || reply.ends_with(b"\r\n\r\ndown") {
                    return;
                }
            }
        });
        let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
        let mut clients = load::connect_all(proxy.addr(), 500);
        load::send_all(&mut clients, &request("GET", "/api/v1/x", &[], ""));
        await_waiting(&proxy, 500);
        gate.open();
        for client in &mut clients {
            let response = client.read("GET");
            assert_eq!((response.status, response.text()), (503, "down"));
        }
        assert_eq!(origin.count(), 1);
    }
}

#[test]
fn uncacheable_answers_are_not_shared() {
    let gate = Gate::default();
    let (held, turn) = (gate.clone(), AtomicUsize::new(0));
    let origin = Origin::respond(move |_| {
        held.pass();
        let body = format!("mine {}", turn.fetch_add(1, Ordering::SeqCst));
        answer(200, &[("Cache-Control", "no-store")], body)
    });
    let proxy = Setup::over(&origin).start();
    let mut clients = load::connect_all(proxy.addr(), 20);
    load::send_all(&mut clients, &request("GET", "/api/v1/x", &[], ""));
    origin.await_requests(1);
    gate.open();
    let mut bodies: Vec<String> =
        clients.iter_mut().map(|it| it.read("GET").text().to_owned()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20, "each its own");
}
