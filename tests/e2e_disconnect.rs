//! Clients and origins that go away: at any point nothing panics, hangs or keeps a descriptor.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use support::client::{Client, request};
use support::{Fault, Gate, Origin, Proxy, Setup, answer, eventually};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
    HalfClose,
}

const LEAVES: [Leave; 3] = [Leave::Close, Leave::Reset, Leave::HalfClose];

/// Goes away; after a half close the daemon must end the connection by itself.
#[track_caller]
fn leave(mut client: Client, how: Leave) {
    match how {
        Leave::Close => drop(client),
        Leave::Reset => client.reset(),
        Leave::HalfClose => {
            client.half_close();
            client.read_to_end();
        }
    }
}

/// Descriptors of a daemon that has served each kind of exchange and is idle again.
#[track_caller]
fn settled(proxy: &Proxy, origin: &Origin) -> usize {
    proxy.get("/api/warm");
    proxy.get("/health");
    origin.disconnect();
    // The daemon closes behind our back: what has not changed over many looks has settled.
    let (mut last, mut looks) = (usize::MAX, 0);
    eventually("descriptors settle", || {
        let now = proxy.fd_count();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        looks == 25
    });
    last
}

#[track_caller]
fn assert_unharmed(mut proxy: Proxy, origin: &Origin, fds: usize) {
    assert!(proxy.lives(), "{}", proxy.stderr());
    assert_eq!(proxy.get("/health").status, 200);
    assert_eq!(proxy.get("/api/after").status, 200);
    // Again and again: what was under way when the origin closed may have been asked once more, on
    // a new connection that would be kept.
    eventually("descriptors are as before", || {
        origin.disconnect();
        proxy.fd_count() <= fds
    });
    proxy.stop();
}

#[test]
fn client_may_leave_after_any_byte_of_its_request() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let proxy = Setup::over(&origin).start();
    let fds = settled(&proxy, &origin);
    let get = request("GET", "/api/v1/x?a=1", &[("Accept", "*/*")], "");
    let json = [("Content-Type", "application/json")];
    let post = request("POST", "/api/v1/x", &json, r#"{"a":[1,2,3]}"#);
    for bytes in [get, post] {
        for length in 0..=bytes.len() {
            for how in LEAVES {
                let mut client = proxy.connect();
                client.send(&bytes[..length]);
                leave(client, how);
            }
        }
    }
    assert_unharmed(proxy, &origin, fds);
}

#[test]
fn client_may_leave_while_the_origin_is_silent() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |request| {
        if request.target.starts_with("/slow") {
            held.pass();
        }
        answer(200, &[("Cache-Control", "max-age=60")], "x")
    });
    let proxy = Setup::over(&origin).start();
    let fds = settled(&proxy, &origin);
    let before = origin.count();
    for (number, how) in [Leave::Close, Leave::Reset].iter().cycle().take(20).enumerate() {
        let mut client = proxy.connect();
        client.send(request("GET", &format!("/api/slow/{number}"), &[], ""));
        origin.await_requests(before + number + 1);
        leave(client, *how);
    }
    gate.open();
    assert_unharmed(proxy, &origin, fds);
}

/// Interim answers that nobody takes show that the client is gone before the exchange has looked:
/// the answer behind them used to be begun all the same, on a connection known to be lost.
#[test]
fn client_may_leave_while_interim_answers_come() {
    let (asked, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::script(move |connection| {
        while let Some(request) = connection.request() {
            if request.target.starts_with("/hints") {
                gone.lock().unwrap().recv().unwrap();
                for _ in 0..4 {
                    connection.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
                }
            }
            connection.send(answer(200, &[("Cache-Control", "no-store")], "x"));
        }
    });
    let proxy = Setup::over(&origin).start();
    let fds = settled(&proxy, &origin);
    let before = origin.count();
    for number in 0..40 {
        let mut client = proxy.connect();
        client.send(request("POST", &format!("/api/hints/{number}"), &JSON, "{}"));
        origin.await_requests(before + number + 1);
        client.reset();
        asked.send(()).unwrap();
    }
    assert_unharmed(proxy, &origin, fds);
}

/// RFC 9112 section 9.6: who only ends its sending side still gets the answer.
#[test]
fn half_closed_client_still_gets_its_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[], "whole")
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/v1/x", &[], ""));
    client.half_close();
    origin.await_requests(1);
    gate.open();
    assert_eq!(client.read("GET").text(), "whole");
    client.expect_close();
}

#[test]
fn client_may_leave_in_the_middle_of_an_answer() {
    let body = vec![b'x'; 4 << 20];
    let origin = Origin::respond(move |request| {
        let cache_control = if request.target.contains("keep") { "max-age=60" } else { "no-store" };
        answer(200, &[("Cache-Control", cache_control)], &body)
    });
    let proxy = Setup::over(&origin).start();
    let fds = settled(&proxy, &origin);
    // A miss, a pass-through and a hit, left after different amounts.
    proxy.get("/api/keep/hit");
    for taken in [1, 100, 10_000, 1_000_000] {
        for how in [Leave::Close, Leave::Reset] {
            for target in
                [format!("/api/keep/{taken}{how:?}"), "/api/pass".into(), "/api/keep/hit".into()]
            {
                let mut client = proxy.connect();
                client.send(request("GET", &target, &[], ""));
                client.await_bytes(taken);
                leave(client, how);
            }
        }
    }
    assert_unharmed(proxy, &origin, fds);
}

/// The leader's client leaves; the others lose nothing.
#[test]
fn followers_are_served_when_the_first_client_leaves() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n");
            connection.send("Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            held.pass();
            connection.send("5\r\n-last\r\n0\r\n\r\n");
        }
    });
    let proxy = Setup::over(&origin).start();
    let bytes = request("GET", "/api/v1/x", &[], "");
    let mut leader = proxy.connect();
    leader.send(&bytes);
    leader.await_text("first");
    let mut followers = support::load::connect_all(proxy.addr(), 20);
    for follower in &mut followers {
        follower.send(&bytes);
        follower.await_text("first");
    }
    leader.reset();
    gate.open();
    for follower in &mut followers {
        assert_eq!(follower.read("GET").text(), "first-last");
    }
    assert_eq!(origin.count(), 1);
}

/// A storable answer is completed for the next reader (issue 3).
#[test]
fn storable_answer_is_completed_after_its_client_left() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n");
            connection.send("Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            held.pass();
            connection.send("5\r\n-last\r\n0\r\n\r\n");
        }
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/v1/x", &[], ""));
    client.await_text("first");
    client.reset();
    gate.open();
    eventually("the answer is whole", || proxy.get("/api/v1/x").cache() == "HIT");
    assert_eq!(proxy.get("/api/v1/x").text(), "first-last");
    assert_eq!(origin.count(), 1);
}

/// Nobody waits for it and it can't be stored: the origin is spared the rest.
#[test]
fn unstorable_answer_is_cancelled_when_its_client_leaves() {
    let cancelled = Gate::default();
    let seen = cancelled.clone();
    let origin = Origin::script(move |connection| {
        let Some(request) = connection.request() else { return };
        if request.target != "/stream" {
            connection.send(answer(200, &[("Connection", "close")], "x"));
            return;
        }
        connection.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n");
        connection.send("Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        connection.await_close();
        seen.open();
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/stream", &[], ""));
    client.await_text("first");
    client.reset();
    cancelled.pass();
}

#[test]
fn origin_may_leave_at_any_point() {
    let whole = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 11\r\n\r\nwhole \
                 body";
    let origin = Origin::script(move |connection| {
        while let Some(request) = connection.request() {
            let Some(cut) = request.target.strip_prefix("/cut/") else {
                connection.send(answer(200, &[], "x"));
                continue;
            };
            let (how, length) = cut.split_once('/').unwrap();
            connection.send(&whole[..length.parse().unwrap()]);
            if how == "reset" {
                connection.reset();
            }
            return;
        }
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    let fds = settled(&proxy, &origin);
    let head = whole.find("\r\n\r\n").unwrap() + 4;
    for length in 0..whole.len() {
        for how in ["close", "reset"] {
            let mut client = proxy.connect();
            client.send(request("GET", &format!("/api/cut/{how}/{length}"), &[], ""));
            match client.try_read("GET") {
                Ok(response) => assert_eq!(response.status, 502, "{how} after {length}"),
                Err(Fault::Cut(part)) => assert!(length >= head, "{part:?} after {length}"),
                Err(Fault::Closed) => assert!(length >= head, "no answer after {length}"),
                Err(other) => panic!("{how} after {length}: {other:?}"),
            }
        }
    }
    assert_unharmed(proxy, &origin, fds);
}

#[test]
fn many_connections_that_say_nothing_are_let_go() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    let fds = settled(&proxy, &origin);
    let clients = support::load::connect_all(proxy.addr(), 300);
    let sockets = || proxy.fds().iter().filter(|it| it.starts_with("socket:")).count();
    eventually("all are accepted", || sockets() >= 300);
    drop(clients);
    assert_unharmed(proxy, &origin, fds);
}
