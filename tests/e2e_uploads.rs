//! Requests with a body that wait for a connection.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use support::client::request;
use support::{Client, Gate, Metrics, Origin, Proxy, Setup, answer, eventually};

const LENGTH: usize = 200_000;

fn waiting(proxy: &Proxy) -> f64 {
    Metrics::of(proxy).sum("apiproxyd_upstream_waiting_requests", &[""])
}

/// An origin that answers `/v1/hold` when the gate opens, and one connection to it, which is held.
fn held() -> (Origin, Gate, Proxy, Client) {
    let gate = Gate::default();
    let ours = gate.clone();
    let origin = Origin::respond(move |request| {
        if request.target == "/v1/hold" {
            ours.pass();
        }
        answer(200, &[("Cache-Control", "no-store")], request.body.len().to_string())
    });
    let proxy = Setup::over(&origin)
        .with("client.max_conns_per_host", 1)
        .with("security.require_json_body", false)
        .start();
    let mut holder = proxy.connect();
    holder.send(request("GET", "/api/v1/hold", &[], ""));
    origin.await_requests(1);
    (origin, gate, proxy, holder)
}

fn head(length: usize) -> String {
    format!("POST /api/v1/up HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn upload_whose_client_has_left_gives_its_place_away() {
    let (origin, gate, proxy, mut holder) = held();
    let mut clients: Vec<_> = (0..5).map(|_| proxy.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(head(100));
        // Some have sent all of it.
        client.send(if number < 3 { "part".to_owned() } else { "x".repeat(100) });
    }
    eventually("all wait", || waiting(&proxy) == 5.0);
    for client in clients {
        client.reset();
    }
    eventually("none waits", || waiting(&proxy) == 0.0);
    gate.open();
    assert_eq!(holder.read("GET").status, 200);
    assert_eq!(proxy.get("/api/v1/next").status, 200);
    assert_eq!(origin.count(), 2);
}

#[test]
fn upload_that_waited_arrives_whole() {
    let (origin, gate, proxy, mut holder) = held();
    let mut clients: Vec<_> = (0..4).map(|_| proxy.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(head(LENGTH));
        // Nothing, a little, more than is read ahead, all.
        client.send("x".repeat([0, 10, LENGTH / 2, LENGTH][number]));
    }
    eventually("all wait", || waiting(&proxy) == 4.0);
    gate.open();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send("x".repeat(LENGTH - [0, 10, LENGTH / 2, LENGTH][number]));
    }
    for client in &mut clients {
        assert_eq!(client.read("POST").text(), LENGTH.to_string());
        // What follows on the connection is read as what it is.
        assert_eq!(client.get("/api/v1/next").status, 200);
    }
    assert_eq!(holder.read("GET").status, 200);
    assert_eq!(origin.count(), 9);
}

#[test]
fn upload_whose_client_waits_to_be_asked_is_not_asked_before_its_turn() {
    let (_origin, gate, proxy, mut holder) = held();
    let mut client = proxy.connect();
    // RFC 9110 section 10.1.1: it would send what may not be wanted.
    client.send("POST /api/v1/up HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n");
    client.send("Content-Length: 3\r\n\r\n");
    eventually("it waits", || waiting(&proxy) == 1.0);
    assert!(client.is_silent(), "it is not asked for its body yet");
    gate.open();
    client.await_text("100 Continue");
    client.send("abc");
    eventually("it is answered", || !client.await_text("200 OK").is_empty());
    assert_eq!(holder.read("GET").status, 200);
}
