//! Origins inside TLS: who they prove to be, what they agree on, how they end.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;
mod upstream;

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use support::client::request;
use support::{
    Authority, Connection, Fault, Limits, Metrics, Multiplexing, Origin, Proxy, Setup, answer,
    eventually, load,
};
use upstream::{Multi, Secure, trusting};

const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn answer_all(connection: &mut Connection) {
    while connection.request().is_some() {
        connection.send(answer(200, &[NO_STORE], "x"));
    }
}

#[track_caller]
fn failures(proxy: &Proxy, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    Metrics::of(proxy).sum("apiproxyd_upstream_failures_total", &[&reason])
}

#[test]
fn certificates_that_prove_nothing_are_refused() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let rows = [
        ("another name", authority.issue(&["other.test", "127.0.0.2"])),
        ("expired", authority.issue_expired(&["localhost", "127.0.0.1"])),
        ("an unknown authority", stranger.issue(&["localhost", "127.0.0.1"])),
        ("its own", support::tls::make()),
    ];
    for (what, made) in rows {
        let origin = Origin::secure(made.server(&["h2", "http/1.1"]), answer_all);
        for url in [origin.url(), origin.url().replace("localhost", "127.0.0.1")] {
            let setup = trusting(Setup::at(&url), &authority);
            let proxy = setup.with("security.block_private_ips", false).start();
            let got = proxy.get("/api/v1/x");
            assert_eq!((got.status, got.problem()), (502, "upstream_unreachable".into()), "{what}");
            assert_eq!(failures(&proxy, "tls"), 1.0, "{what}");
            // The operator learns why, the client does not.
            eventually("the log says why", || proxy.stderr().contains("certificate"));
            assert!(!got.text().contains("certificate"), "{what}");
        }
        assert_eq!(origin.count(), 0, "{what}");
    }
}

#[test]
fn authority_of_the_ca_file_is_trusted_and_the_name_is_asked_for() {
    let (told, hear) = channel();
    let told = Mutex::new(told);
    let edge = Secure::over(&["http/1.1"], move |connection| {
        connection.shake_hands();
        told.lock().unwrap().send((connection.server_name(), connection.protocol())).unwrap();
        answer_all(connection);
    });
    assert_eq!(edge.proxy.get("/api/v1/x").status, 200);
    let heard = hear.recv().unwrap();
    assert_eq!(heard, (Some("localhost".to_owned()), Some("http/1.1".to_owned())));
}

/// RFC 6066 section 3: an address is no name.
#[test]
fn address_is_proven_without_a_name() {
    let authority = Authority::new();
    let (told, hear) = channel();
    let told = Mutex::new(told);
    let made = authority.issue(&["127.0.0.1"]);
    let origin = Origin::secure(made.server(&[]), move |connection| {
        connection.shake_hands();
        told.lock().unwrap().send((connection.server_name(), connection.protocol())).unwrap();
        answer_all(connection);
    });
    let url = origin.url().replace("localhost", "127.0.0.1");
    let proxy = trusting(Setup::at(&url), &authority).start();
    assert_eq!(proxy.get("/api/v1/x").status, 200);
    assert_eq!(hear.recv().unwrap(), (None, None));
}

#[test]
fn http2_is_not_asked_for_where_it_is_switched_off() {
    let authority = Authority::new();
    let tls = authority.issue(&["localhost"]).server(&["h2", "http/1.1"]);
    let origin = Origin::secure(tls, |connection| {
        assert!(connection.shake_hands());
        assert_eq!(connection.protocol().as_deref(), Some("http/1.1"));
        answer_all(connection);
    });
    let setup = trusting(Setup::over(&origin), &authority).with("client.http2", false);
    let proxy = setup.start();
    assert_eq!(proxy.get("/api/v1/x").status, 200);
}

/// Whatever the first finds holds for the others: a burst on a core that knows nothing yet ends
/// with as many connections as the exchanges need, and they are kept.
#[test]
fn origin_without_http2_is_spoken_to_in_http11() {
    let edge = Secure::over(&["http/1.1"], answer_all);
    let mut clients = load::connect_all(edge.proxy.addr(), 30);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/v1/{number}"), &[], ""));
    }
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    let after_burst = edge.origin.connections();
    assert!(after_burst <= 30);
    for number in 0..10 {
        assert_eq!(edge.proxy.get(&format!("/api/v2/{number}")).status, 200);
    }
    assert_eq!(edge.origin.connections(), after_burst);
}

#[test]
fn sessions_are_resumed() {
    let (told, hear) = channel();
    let told = Mutex::new(told);
    let edge = Secure::with(
        &["http/1.1"],
        |setup| setup,
        move |connection| {
            connection.shake_hands();
            told.lock().unwrap().send(connection.is_resumed()).unwrap();
            if connection.request().is_some() {
                connection.send(answer(200, &[NO_STORE, ("Connection", "close")], "x"));
            }
        },
    );
    // Of both cores: what one learned the other uses.
    for number in 0..12 {
        assert_eq!(edge.proxy.get(&format!("/api/v1/{number}")).status, 200);
        assert_eq!(hear.recv().unwrap(), number > 0, "{number}");
    }
}

#[test]
fn sessions_of_http2_are_resumed() {
    let edge = Multi::over(async |exchange| exchange.answer(200, &[NO_STORE], "x"));
    for round in 1..=3 {
        assert_eq!(edge.proxy.get(&format!("/api/v1/{round}")).status, 200);
        edge.origin.abort();
        eventually("the origin has closed", || edge.origin.open() == 0);
    }
    assert_eq!(edge.origin.resumed(), 2);
}

/// An origin that accepts and never says anything.
#[test]
fn handshake_that_stalls_ends_in_time() {
    let edge = Secure::with(
        &["http/1.1"],
        |setup| setup.with("client.dial_timeout", 1),
        |connection| connection.sleep_until_closed(),
    );
    let started = Instant::now();
    let late = edge.proxy.get("/api/v1/x");
    assert_eq!((late.status, late.problem()), (504, "upstream_timeout".to_owned()));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    eventually("the connection is closed", || edge.origin.open() == 0);
}

/// All who wait for a first connection learn of its failure at once: no convoy of attempts, one
/// after the other, each as long as the first.
#[test]
fn handshake_that_stalls_is_waited_for_once() {
    let edge = Secure::with(
        &["h2", "http/1.1"],
        |setup| {
            let setup = setup.with("server.cores", 1).with("client.dial_timeout", 1);
            setup.with("client.circuit_breaker_enabled", false)
        },
        |connection| connection.sleep_until_closed(),
    );
    let mut clients = load::connect_all(edge.proxy.addr(), 50);
    let started = Instant::now();
    for client in &mut clients {
        client.send_request("POST", "/api/v1/x", &JSON, "{}");
    }
    for client in &mut clients {
        assert_eq!(client.read("POST").status, 504);
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(edge.origin.connections(), 1);
}

/// The first connection is dropped as soon as it is accepted: whatever was to go out on it may go
/// out on another one, for nothing of it has left.
#[test]
fn connection_that_is_dropped_in_its_handshake_is_tried_once_more() {
    for alpn in ["h2", "http/1.1"] {
        let edge = Secure::over(&[alpn, "http/1.1"], move |connection| {
            if connection.number == 0 {
                return connection.cut();
            }
            if alpn == "h2" {
                if !support::frames::begin(connection, &[]) {
                    return;
                }
                while let Some(stream) = support::frames::request(connection) {
                    connection.send(support::frames::answer(stream, &[("a", "b")], "x"));
                }
            } else {
                answer_all(connection);
            }
        });
        assert_eq!(edge.proxy.connect().post("/api/v1/x", "{}").status, 200, "{alpn}");
        assert_eq!(edge.origin.connections(), 2);
    }
}

#[test]
fn origin_that_speaks_no_tls_is_refused() {
    let origin = Origin::script(|connection| {
        connection.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        connection.await_close();
    });
    let url = origin.url().replace("http://", "https://");
    let proxy = Setup::at(&url).start();
    let got = proxy.get("/api/v1/x");
    assert_eq!((got.status, got.problem()), (502, "upstream_unreachable".to_owned()));
    assert_eq!(failures(&proxy, "tls"), 1.0);
}

/// RFC 9112 section 9.8: a body that ends with the connection is whole only if TLS says so.
#[test]
fn body_until_the_close_needs_the_end_of_tls() {
    let edge = Secure::with(
        &["http/1.1"],
        |setup| setup.with("client.circuit_breaker_enabled", false),
        |connection| {
            let Some(request) = connection.request() else { return };
            connection.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nsome");
            if request.target == "/whole" { connection.close() } else { connection.cut() }
        },
    );
    assert_eq!(edge.proxy.get("/api/whole").text(), "some");
    for _ in 0..2 {
        let mut client = edge.proxy.connect();
        client.send(request("GET", "/api/cut", &[], ""));
        match client.try_read("GET") {
            Ok(answer) => assert_eq!(answer.status, 502, "{answer:?}"),
            Err(Fault::Cut(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(edge.proxy.get("/api/whole").cache(), "HIT");
    assert_eq!(edge.origin.count(), 3, "what was cut was not stored");
}

/// An origin may take HTTP/2 up, or give it up, from one connection to the next.
#[test]
fn change_of_protocol_is_followed() {
    let authority = Authority::new();
    let made = authority.issue(&["localhost"]);
    let both = made.server(&["h2", "http/1.1"]);
    let origin = Multiplexing::start(both, Limits::default(), async |exchange| {
        exchange.answer(200, &[("cache-control", "no-store")], "two");
    });
    let old = made.server(&["http/1.1"]);
    let port = origin.port();
    let setup = trusting(Setup::at(&origin.url()), &authority).with("server.cores", 1);
    let proxy = setup.start();
    assert_eq!(proxy.get("/api/v1/x").text(), "two");
    drop(origin);
    let origin = Origin::secure_at(port, old, |connection| {
        while connection.request().is_some() {
            connection.send(answer(200, &[NO_STORE], "one"));
        }
    });
    eventually("the new protocol is spoken", || {
        let got = proxy.get("/api/v1/x");
        got.status == 200 && got.text() == "one"
    });
    drop(origin);
}
