//! Many requests for one thing at the same moment.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use support::client::request;
use support::{Gate, Origin, Setup, answer, load};

/// 500 concurrent identical cold requests over 500 connections: the origin sees one.
#[test]
fn concurrent_cold_requests_become_one() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[("Cache-Control", "max-age=60")], "shared body")
    });
    let proxy = Setup::over(&origin).start();
    let mut clients = load::connect_all(proxy.addr(), 500);
    load::send_all(&mut clients, &request("GET", "/api/v1/x", &[], ""));
    origin.await_requests(1);
    gate.open();
    for client in &mut clients {
        let response = client.read("GET");
        assert_eq!((response.status, response.text()), (200, "shared body"));
    }
    assert_eq!(origin.count(), 1);
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

#[test]
fn followers_of_a_failed_fetch_are_all_answered() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        if connection.request().is_some() {
            held.pass();
            connection.reset();
        }
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    let mut clients = load::connect_all(proxy.addr(), 50);
    load::send_all(&mut clients, &request("GET", "/api/v1/x", &[], ""));
    origin.await_requests(1);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 502);
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
