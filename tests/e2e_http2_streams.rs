//! HTTP/2 for clients: windows, clocks and ends. What one stream does harms no other, and every end
//! is told for what it is.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::time::{Duration, Instant};

use h2::Reason;
use nix::sys::signal::Signal;
use support::client::request;
use support::frames::{self, END_STREAM};
use support::http2::{Body, Ended};
use support::{
    Connection, Gate, Http2, Metrics, Origin, Proxy, Setup, Windows, answer, assert_cached,
    eventually,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const LARGE_BYTES: usize = 2_000_000;

fn connect(proxy: &Proxy) -> Http2 {
    Http2::connect(proxy.addr())
}

/// A client whose streams get this much of an answer that is not taken; its connection any amount.
fn narrow(proxy: &Proxy, stream_bytes: u32) -> Http2 {
    let windows = Windows { stream_bytes: Some(stream_bytes), connection_bytes: Some(1 << 28) };
    Http2::narrow(proxy.addr(), windows)
}

fn large() -> Origin {
    Origin::respond(|asked| {
        let keep = if asked.target.contains("keep") { "max-age=600" } else { "no-store" };
        let bytes = if asked.target.contains("large") { LARGE_BYTES } else { 5 };
        answer(200, &[("Cache-Control", keep)], vec![b'x'; bytes])
    })
}

/// An origin whose answers wait for `gate`: all of them, or the second half of their bodies.
fn held(gate: &Gate, cache_control: &'static str) -> Origin {
    let gate = gate.clone();
    Origin::script(move |connection| {
        while let Some(asked) = connection.request() {
            let whole = answer(200, &[("Cache-Control", cache_control)], "first-last");
            let halves = if asked.target.contains("half") { whole.len() - 5 } else { 0 };
            connection.send(&whole[..halves]);
            gate.pass();
            connection.send(&whole[halves..]);
        }
    })
}

#[test]
fn a_client_that_takes_nothing_stops_its_stream_only() {
    let origin = large();
    let proxy = Setup::over(&origin).with("server.write_timeout", 60).start();
    for target in ["/api/large", "/api/large-keep", "/api/large-keep"] {
        let client = narrow(&proxy, 10_000);
        let mut stalled = client.begin_get(target);
        let mut head = stalled.head().unwrap();
        for turn in 0..50 {
            assert_eq!(client.get("/api/small").text(), "xxxxx", "{turn}");
            assert_eq!(client.get("/api/small-keep").text(), "xxxxx", "{turn}");
        }
        let other = client.get("/api/large?other");
        assert_eq!(other.body.len(), LARGE_BYTES);
        // It may go on when it likes.
        stalled.rest(&mut head).unwrap();
        assert_eq!(head.body.len(), LARGE_BYTES, "{target}");
    }
}

#[test]
fn a_client_that_takes_nothing_for_long_is_reset() {
    let origin = large();
    let proxy = Setup::over(&origin).with("server.write_timeout", 1).start();
    let client = narrow(&proxy, 10_000);
    client.get("/api/large-keep");
    let start = Instant::now();
    let targets = ["/api/large", "/api/large-keep", "/api/large-new-keep"];
    let mut stalled = targets.map(|it| client.begin_get(it));
    for stream in &mut stalled {
        assert_eq!(stream.head().unwrap().status, 200);
    }
    for (stream, target) in stalled.iter_mut().zip(targets) {
        assert_eq!(stream.await_reset(), Reason::CANCEL, "{target}");
    }
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(client.get("/api/small").status, 200, "the connection lives on");
    let flight = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("nothing is left of them", || flight() <= 1.0);
}

/// One that reads nothing at all, not even from its socket.
#[test]
fn a_connection_whose_bytes_nobody_reads_is_ended() {
    let origin = large();
    let proxy = Setup::over(&origin).with("server.write_timeout", 1).start();
    let mut client = support::Client::connect_narrow(proxy.addr());
    client.send(frames::preface(&[(frames::INITIAL_WINDOW_SIZE, 1 << 30)]));
    client.send(frames::window(0, 1 << 30));
    for stream in [1, 3, 5] {
        client.send(frames::ask(stream, END_STREAM, "GET", "/api/large-keep", &[]));
    }
    client.await_bytes(100_000);
    let port = format!(":{:04X} ", client.local_addr().port());
    let is_open = || proxy.sockets().iter().any(|it| it.contains(&port));
    assert!(is_open());
    eventually("it is closed", || !is_open());
    client.read_to_end();
}

/// Whatever waits for a client waits without looking.
#[test]
fn what_stands_still_costs_no_time() {
    let gate = Gate::default();
    let (slow, origin) = (held(&gate, "no-store"), large());
    let proxies = [Setup::over(&origin).start(), Setup::over(&slow).start()];
    let client = narrow(&proxies[0], 10_000);
    let mut stalled = ["/api/large", "/api/large-keep"].map(|it| client.begin_get(it));
    for stream in &mut stalled {
        assert_eq!(stream.head().unwrap().status, 200);
    }
    let mut upload = client.begin("POST", "/api/small", &[JSON]);
    upload.send(b"[1,");
    let patient = connect(&proxies[1]);
    let mut waiting = [patient.begin_get("/api/x"), patient.begin_get("/api/half")];
    slow.await_requests(2);
    // Nobody reads what this one is sent, not even from its socket.
    let mut deaf = support::Client::connect_narrow(proxies[0].addr());
    deaf.send(frames::preface(&[(frames::INITIAL_WINDOW_SIZE, 1 << 30)]));
    deaf.send(frames::window(0, 1 << 30));
    deaf.send(frames::ask(1, END_STREAM, "GET", "/api/large", &[]));
    deaf.await_bytes(100_000);
    let spent = || proxies.iter().map(Proxy::cpu_time).sum::<Duration>();
    eventually("nothing is done for half a second", || {
        let before = spent();
        std::thread::sleep(Duration::from_millis(500));
        spent() - before < Duration::from_millis(50)
    });
    gate.open();
    for stream in &mut waiting {
        assert_eq!(stream.answer().text(), "first-last");
    }
}

#[test]
fn a_body_that_stands_still_is_answered_408() {
    let origin = large();
    let setup = Setup::over(&origin).with("server.read_timeout", 1);
    let proxy = setup.with("security.require_json_body", true).start();
    let client = connect(&proxy);
    let mut streams = [&[JSON][..], &[JSON, ("content-length", "100")]].map(|fields| {
        let mut stream = client.begin("POST", "/api/x", fields);
        stream.send(b"[1,");
        stream
    });
    for stream in &mut streams {
        let late = stream.answer();
        assert_eq!((late.status, &*late.problem()), (408, "request_timeout"));
    }
    assert_eq!(client.get("/api/small").status, 200, "the connection lives on");
    assert_eq!(origin.count(), 1);
}

/// RFC 9113 section 8.1: an answer may come before the end of its request. curl 7.88 loses one that
/// RST_STREAM follows at once, and httpx waits for room before it looks for any.
#[test]
fn an_early_answer_leaves_the_client_time_to_end_its_request() {
    let origin = large();
    let proxy = Setup::over(&origin).with("server.read_timeout", 1).start();
    // Not known here, and not even well-formed.
    let cases = [(&[][..], 404), (&[("host", "other.test")], 400)];
    let mut clients = cases.map(|(fields, status)| {
        let mut client = proxy.connect();
        client.send(frames::preface(&[]));
        for stream in [1, 3, 5] {
            client.send(frames::ask(stream, 0, "POST", "/nowhere", fields));
            let head = frames::next(&mut client).unwrap();
            assert_eq!((head.kind, head.stream), (frames::HEADERS, stream));
            assert!(stream > 1 || frames::status(&head) == status, "{head:?}");
            let body = frames::next(&mut client).unwrap();
            assert!(body.ends_stream(), "{body:?}");
        }
        // Ended in good order: nothing more is said of it.
        client.send(frames::data(1, END_STREAM, b"[]"));
        client
    });
    // Not ended: they are, after a while.
    for client in &mut clients {
        let mut ends = [(); 2].map(|()| frames::next(client).unwrap());
        ends.sort_by_key(|it| it.stream);
        for (end, stream) in ends.iter().zip([3, 5]) {
            assert_eq!((end.kind, end.stream), (frames::RST_STREAM, stream));
            assert_eq!(end.code(), frames::NO_ERROR);
        }
    }
    // Some of it is taken, more than a window; not all that anybody likes to send.
    let client = connect(&proxy);
    for (bytes, is_taken) in [(4_000_000, true), (12_000_000, false)] {
        let mut stream = client.begin("POST", "/nowhere", &[JSON]);
        let sent = stream.try_send(&vec![b'x'; bytes]);
        assert_eq!(sent.is_some(), is_taken, "{bytes}");
        stream.end();
        assert_eq!(stream.answer().status, 404);
    }
}

#[test]
fn a_request_that_is_given_up_is_given_up_at_the_origin() {
    let origin = Origin::script(|connection: &mut Connection| {
        while let Some(asked) = connection.request() {
            if asked.target.contains("half") {
                let whole = answer(200, &[("Cache-Control", "no-store")], "0123456789");
                connection.send(&whole[..whole.len() - 5]);
            }
            connection.await_close();
        }
    });
    let proxy = Setup::over(&origin).start();
    for (number, target) in ["/api/x", "/api/half"].into_iter().cycle().take(8).enumerate() {
        let client = connect(&proxy);
        let mut stream = client.begin("POST", target, &[JSON]);
        stream.send(b"[]").end();
        origin.await_requests(number + 1);
        if number < 4 {
            stream.reset(Reason::CANCEL);
            eventually("the origin is left", || origin.open() == 0);
            assert_eq!(client.get("/health").status, 200, "the connection lives on");
        } else {
            drop((stream, client));
            eventually("the origin is left", || origin.open() == 0);
        }
    }
    let flight = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("nothing is left of them", || flight() <= 1.0);
}

#[test]
fn what_can_be_stored_is_completed_for_the_next_one() {
    for (target, leaves) in [("/api/x", true), ("/api/x", false), ("/api/half", true)] {
        let gate = Gate::default();
        let origin = held(&gate, "max-age=600");
        let proxy = Setup::over(&origin).start();
        let client = connect(&proxy);
        let stream = client.begin_get(target);
        origin.await_requests(1);
        if leaves {
            drop((stream, client));
        } else {
            stream.reset(Reason::CANCEL);
            assert_eq!(client.get("/health").status, 200);
        }
        gate.open();
        eventually("it is stored", || proxy.stats()["l1"]["entries"] != 0);
        assert_cached(&proxy.get(target), "HIT", "first-last");
        assert_eq!(origin.count(), 1);
    }
}

/// RFC 9113 section 8.1: what is not complete never ends with END_STREAM.
#[test]
fn an_answer_that_breaks_is_reset() {
    for cache_control in ["no-store", "max-age=600"] {
        for chunked in [false, true] {
            let gate = Gate::default();
            let passed = gate.clone();
            let origin = Origin::script(move |connection| {
                if connection.request().is_none() {
                    return;
                }
                let framing =
                    if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 100" };
                let body = if chunked { "5\r\nfirst\r\n" } else { "first" };
                connection.send(format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\n{framing}\r\n\r\n{body}"
                ));
                passed.pass();
                connection.close();
            });
            let proxy = Setup::over(&origin).start();
            let client = connect(&proxy);
            let mut stream = client.begin_get("/api/x");
            assert_eq!(stream.head().unwrap().status, 200);
            assert_eq!(stream.piece().unwrap().unwrap(), "first");
            gate.open();
            let broken = stream.piece().expect_err("the end of a whole answer");
            assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR), "{broken}");
            assert_eq!(client.get("/health").status, 200, "the connection lives on");
        }
    }
}

#[test]
fn an_idle_connection_is_told_to_go_and_a_busy_one_is_not() {
    let gate = Gate::default();
    let origin = held(&gate, "no-store");
    let proxy = Setup::over(&origin).with("server.idle_timeout", 1).start();
    let (idle, used, busy) = (connect(&proxy), connect(&proxy), connect(&proxy));
    assert_eq!(used.get("/health").status, 200);
    let mut stream = busy.begin_get("/api/x");
    assert_eq!((idle.await_end(), used.await_end()), (Ended::Clean, Ended::Clean));
    // Longer than the other two together.
    assert!(!busy.has_ended());
    gate.open();
    assert_eq!(stream.answer().text(), "first-last");
    assert_eq!(busy.get("/health").status, 200);
    assert_eq!(busy.await_end(), Ended::Clean);
}

/// One that says nothing more at all is closed all the same.
#[test]
fn an_idle_connection_that_does_not_go_is_closed() {
    let origin = large();
    let setup = Setup::over(&origin).with("server.idle_timeout", 1);
    let proxy = setup.with("server.read_timeout", 1).start();
    let whole = [frames::preface(&[]), frames::ask(1, END_STREAM, "GET", "/api/x", &[])].concat();
    let preface = frames::preface(&[]).len();
    // A part of the preface, all of it, and then the middle of a frame and of a head.
    let ends = [20, preface, preface + 5, preface + 15];
    let mut clients = ends.map(|end| {
        let mut client = proxy.connect();
        client.send(&whole[..end]);
        client
    });
    let seen = clients.each_mut().map(|it| kinds(&it.read_to_end()));
    for (end, seen) in ends.iter().zip(seen).skip(1) {
        assert!(seen.contains(&frames::GOAWAY), "{end}: {seen:?}");
    }
}

/// The kinds of a connection's frames.
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = *bytes {
        kinds.push(kind);
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    kinds
}

#[test]
fn on_sigterm_streams_that_run_are_completed() {
    let gate = Gate::default();
    let origin = held(&gate, "no-store");
    let mut proxy = Setup::over(&origin).start();
    let (idle, busy) = (connect(&proxy), connect(&proxy));
    let mut stream = busy.begin_get("/api/half");
    assert_eq!(stream.head().unwrap().status, 200);
    let mut waiting = busy.begin_get("/api/x");
    origin.await_requests(2);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(idle.await_end(), Ended::Clean);
    eventually("no new streams", || {
        busy.try_begin("GET", "/health", &[], Body::None).is_err() || busy.has_ended()
    });
    assert!(!busy.has_ended() && proxy.lives());
    gate.open();
    let mut answer = support::Response::default();
    stream.rest(&mut answer).unwrap();
    assert_eq!(answer.text(), "first-last");
    assert_eq!(waiting.answer().text(), "first-last");
    assert_eq!(busy.await_end(), Ended::Clean);
    assert_eq!(proxy.await_exit(), Some(0));
}

#[test]
fn a_preface_may_come_byte_by_byte() {
    let origin = large();
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    for byte in frames::preface(&[]) {
        client.send([byte]);
    }
    for byte in frames::ask(1, END_STREAM, "GET", "/health", &[]) {
        client.send([byte]);
    }
    let head = frames::next(&mut client).unwrap();
    assert_eq!(frames::status(&head), 200);
}

/// RFC 9113 section 3.3: nothing of it is guessed once HTTP/1.1 was spoken, and what only begins
/// like it is HTTP/1.1.
#[test]
fn http1_over_the_same_port_is_unharmed() {
    let origin = large();
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    assert_eq!(client.get("/api/small").status, 200);
    client.send(frames::PREFACE);
    assert_eq!(client.read("GET").status, 505);
    client.expect_close();
    let mut client = proxy.connect();
    client.send("P").send("R").send("I /api/small HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.read("GET").status, 501);
    let mut client = proxy.connect();
    client.send(request("POST", "/api/small", &[JSON], "[]"));
    assert_eq!(client.read("POST").status, 200);
    assert_eq!(client.get("/api/small").status, 200);
    // An upgrade (RFC 7540 section 3.2) is one that nobody has to take.
    let upgrade = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ];
    assert_eq!(client.ask("GET", "/api/small", &upgrade).status, 200);
}

#[test]
fn descriptors_return_to_what_they_were() {
    let origin = large();
    let proxy = Setup::over(&origin).start();
    connect(&proxy).get("/api/small");
    origin.disconnect();
    eventually("it is idle", || origin.open() == 0);
    let mut last = usize::MAX;
    eventually("descriptors settle", || std::mem::replace(&mut last, proxy.fd_count()) == last);
    for number in 0..40 {
        let client = narrow(&proxy, 10_000);
        assert_eq!(client.get("/api/small").status, 200);
        let mut streams = [client.begin_get("/api/large"), client.begin_get("/api/large-keep")];
        let mut upload = client.begin("POST", "/api/small", &[JSON]);
        upload.send(b"[1,");
        if number % 2 == 0 {
            assert_eq!(streams[0].head().unwrap().status, 200);
        }
    }
    eventually("descriptors are as before", || {
        origin.disconnect();
        proxy.fd_count() <= last
    });
    let flight = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("nothing is left of them", || flight() <= 1.0);
}
