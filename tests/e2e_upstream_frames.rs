//! HTTP/2 origins that break its rules, or use those of its corners that no library does: played
//! frame by frame.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::client::request;
use support::frames::{self, END_STREAM};
use support::{Connection, Fault, Gate, Metrics, Response, Setup, eventually, load};
use upstream::Secure;

const KEPT: (&str, &str) = ("cache-control", "max-age=60");
const NO_STORE: (&str, &str) = ("cache-control", "no-store");
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// Answers every request on a connection.
fn answer_all(connection: &mut Connection) {
    while let Some(stream) = frames::request(connection) {
        connection.send(frames::answer(stream, &[NO_STORE], "answered"));
    }
}

fn over(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Secure {
    Secure::over(&["h2"], move |connection| {
        if frames::begin(connection, &[]) {
            script(connection);
        }
    })
}

#[test]
fn stream_that_ends_in_mid_body_cuts_the_client_and_stores_nothing() {
    let edge = over(|connection| {
        for turn in 0.. {
            let Some(stream) = frames::request(connection) else { return };
            let lengths = [KEPT, ("content-length", "400000")];
            let fields = if turn < 2 { &lengths[..] } else { &lengths[..1] };
            connection.send(frames::head(stream, 0, 200, fields));
            for _ in 0..10 {
                connection.send(frames::data(stream, 0, &[b'x'; 16_000]));
            }
            connection.send(frames::reset(stream, frames::INTERNAL_ERROR));
        }
    });
    for target in ["/api/length", "/api/length", "/api/none", "/api/none"] {
        let mut client = edge.proxy.connect();
        client.send(request("GET", target, &[], ""));
        match client.try_read("GET") {
            Err(Fault::Cut(part)) => assert_eq!(part.status, 200),
            // All of it may be here before the head goes out.
            Ok(answer) => assert_eq!(answer.status, 502),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(Metrics::of(&edge.proxy).value("apiproxyd_upstream_requests_total"), 4.0);
    assert_eq!(edge.origin.connections(), 1, "the connection lives on");
}

/// RFC 9113 section 8.1.1: what is not as long as it says is malformed. The client has the whole of
/// the announced length before that shows: it used to get it all, and then a closed connection in
/// place of its next answer.
#[test]
fn answer_that_breaks_its_announcement_behind_its_last_byte_never_looks_whole() {
    let more = |stream| frames::data(stream, END_STREAM, b"more");
    let endings: [fn(u32) -> Vec<u8>; 2] =
        [more, |stream| frames::reset(stream, frames::INTERNAL_ERROR)];
    for ending in endings {
        for lifetime in [KEPT, NO_STORE] {
            let gate = Gate::default();
            let held = gate.clone();
            let edge = over(move |connection| {
                while let Some(stream) = frames::request(connection) {
                    let fields = [lifetime, ("content-length", "10")];
                    connection.send(frames::head(stream, 0, 200, &fields));
                    connection.send(frames::data(stream, 0, b"first"));
                    held.pass();
                    connection.send(frames::data(stream, 0, b"-last"));
                    connection.send(ending(stream));
                }
            });
            let mut client = edge.proxy.connect();
            client.send(request("GET", "/api/x", &[], ""));
            client.await_text("first");
            gate.open();
            let cut = client.try_read("GET");
            assert!(matches!(cut, Err(Fault::Cut(_))), "{lifetime:?}: {cut:?}");
            // Nothing of it is stored: the origin is asked again, and fails again.
            let mut client = edge.proxy.connect();
            client.send(request("GET", "/api/x", &[], ""));
            let again = client.try_read("GET");
            let failed = |it: Response| it.status == 502;
            assert!(again.is_err() || again.is_ok_and(failed), "{lifetime:?}");
            assert_eq!(Metrics::of(&edge.proxy).value("apiproxyd_upstream_requests_total"), 2.0);
        }
    }
}

/// An answer whose end comes late is whole all the same.
#[test]
fn end_of_a_stream_may_come_behind_its_last_byte() {
    let edge = over(|connection| {
        while let Some(stream) = frames::request(connection) {
            connection.send(frames::head(stream, 0, 200, &[KEPT, ("content-length", "4")]));
            connection.send(frames::data(stream, 0, b"body"));
            std::thread::sleep(Duration::from_millis(20));
            connection.send(frames::data(stream, END_STREAM, b""));
        }
    });
    assert_eq!(edge.proxy.get("/api/x").text(), "body");
    assert_eq!(edge.proxy.get("/api/x").cache(), "HIT");
}

/// RFC 9113 section 8.7: a stream that was refused was not looked at, so that anything may be sent
/// once more.
#[test]
fn refused_stream_is_repeated_whatever_the_method() {
    let edge = over(|connection| {
        for turn in 0.. {
            let Some(stream) = frames::request(connection) else { return };
            if turn % 2 == 0 {
                connection.send(frames::reset(stream, frames::REFUSED_STREAM));
            } else {
                connection.send(frames::answer(stream, &[NO_STORE], "second"));
            }
        }
    });
    let posted = edge.proxy.connect().post("/api/v1/x", "{}");
    assert_eq!((posted.status, posted.text()), (200, "second"));
    // What a request earns is less than a retry: these have to be earned first.
    assert_eq!(edge.proxy.get("/api/v1/x").status, 502);
    assert_eq!(edge.proxy.get("/api/v1/y").text(), "second");
}

#[test]
fn post_that_may_have_been_acted_on_is_not_repeated() {
    for code in [frames::NO_ERROR, frames::INTERNAL_ERROR, frames::CANCEL] {
        let edge = over(move |connection| {
            while let Some(stream) = frames::request(connection) {
                connection.send(frames::reset(stream, code));
            }
        });
        let posted = edge.proxy.connect().post("/api/v1/x", "{}");
        assert_eq!((posted.status, posted.problem()), (502, "upstream_unreachable".to_owned()));
        assert_eq!(Metrics::of(&edge.proxy).value("apiproxyd_upstream_requests_total"), 1.0);
    }
}

/// RFC 9113 section 6.8: those above the last stream were not looked at. They are all repeated,
/// however many they are, for they are no load; those below are finished.
#[test]
fn streams_beyond_a_goaway_are_repeated_on_another_connection() {
    let gate = Gate::default();
    let held = gate.clone();
    let edge = over(move |connection| {
        if connection.number > 0 {
            return answer_all(connection);
        }
        let streams: Option<Vec<u32>> = (0..10).map(|_| frames::request(connection)).collect();
        let streams = streams.unwrap();
        connection.send(frames::go_away(streams[1], frames::NO_ERROR));
        held.pass();
        for stream in &streams[..2] {
            connection.send(frames::answer(*stream, &[NO_STORE], "first"));
        }
        connection.await_close();
    });
    let mut clients = load::connect_all(edge.proxy.addr(), 10);
    for client in &mut clients {
        client.send_request("POST", "/api/v1/x", &JSON, "{}");
    }
    eventually("the second connection", || edge.origin.connections() == 2);
    gate.open();
    let mut texts: Vec<_> =
        clients.iter_mut().map(|it| it.read("POST").text().to_owned()).collect();
    texts.sort();
    assert_eq!(texts.iter().filter(|it| *it == "first").count(), 2);
    assert_eq!(texts.iter().filter(|it| *it == "answered").count(), 8);
}

/// A connection that is dead without a sign: the first who waits on it does so for its own time,
/// those who come five seconds later do not.
#[test]
fn silent_connection_is_given_up_for_others() {
    let edge = over(|connection| {
        if connection.number > 0 {
            return answer_all(connection);
        }
        // Reads, so that the kernel says nothing, and is silent itself.
        connection.await_close();
    });
    let mut first = edge.proxy.connect();
    first.send(request("GET", "/api/first", &[], ""));
    let started = Instant::now();
    let mut number = 0;
    eventually("others get another connection", || {
        number += 1;
        let mut client = edge.proxy.connect();
        client.patience(Duration::from_millis(500));
        client.send(request("GET", &format!("/api/other/{number}"), &[], ""));
        client.try_read("GET").is_ok_and(|answer| answer.status == 200)
    });
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    assert_eq!(edge.origin.connections(), 2);
}

#[test]
fn answers_that_break_the_rules_are_refused() {
    type Reply = fn(u32) -> Vec<u8>;
    let rows: [(&str, Reply); 9] = [
        ("8.3.2 no status", |stream| {
            frames::write(frames::HEADERS, frames::END_HEADERS, stream, &frames::literal("a", "b"))
        }),
        ("8.3.2 a status of letters", |stream| {
            let block = frames::literal(":status", "abc");
            frames::write(frames::HEADERS, frames::END_HEADERS | END_STREAM, stream, &block)
        }),
        ("8.2.2 a field of the connection", |stream| {
            frames::head(stream, END_STREAM, 200, &[("connection", "close")])
        }),
        ("8.2 a name in upper case", |stream| {
            frames::head(stream, END_STREAM, 200, &[("X-Upper", "1")])
        }),
        ("8.1.1 a body shorter than its length", |stream| {
            let head = frames::head(stream, 0, 200, &[KEPT, ("content-length", "9")]);
            [head, frames::data(stream, END_STREAM, b"short")].concat()
        }),
        ("8.1.1 a body longer than its length", |stream| {
            let head = frames::head(stream, 0, 200, &[KEPT, ("content-length", "3")]);
            [head, frames::data(stream, END_STREAM, b"longer")].concat()
        }),
        ("4.2 a frame that is too large", |stream| frames::data(stream, 0, &vec![0; 100_000])),
        ("6.1 data before a head", |stream| frames::data(stream, END_STREAM, b"what")),
        ("4.3 a head that can't be decoded", |stream| {
            frames::write(frames::HEADERS, frames::END_HEADERS, stream, &[0xff; 40])
        }),
    ];
    let turn = Arc::new(AtomicUsize::new(0));
    let replies = rows;
    let counted = turn.clone();
    let edge = Secure::with(
        &["h2"],
        |setup| setup.with("server.cores", 1).with("client.circuit_breaker_enabled", false),
        move |connection| {
            if !frames::begin(connection, &[]) {
                return;
            }
            while let Some(stream) = frames::request(connection) {
                let (_, reply) = replies[counted.load(Ordering::SeqCst)];
                connection.send(reply(stream));
            }
        },
    );
    for (number, (rule, _)) in rows.iter().enumerate() {
        turn.store(number, Ordering::SeqCst);
        for ask in 0..2 {
            let mut client = edge.proxy.connect();
            client.send(request("GET", &format!("/api/{number}"), &[], ""));
            match client.try_read("GET") {
                Ok(answer) => assert_eq!(answer.status, 502, "{rule}, {ask}: {answer:?}"),
                Err(Fault::Cut(_)) => {}
                other => panic!("{rule}, {ask}: {other:?}"),
            }
        }
    }
}

/// Bytes that are no frames, at every moment of a connection.
#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let edge = Secure::with(
        &["h2"],
        |setup| setup.with("server.cores", 1).with("client.circuit_breaker_enabled", false),
        |connection| {
            let garbage = [0xf7; 3_000];
            let number = connection.number;
            if number == 0 {
                connection.shake_hands();
                connection.send(garbage);
                return connection.await_close();
            }
            if !frames::begin(connection, &[]) {
                return;
            }
            let Some(stream) = frames::request(connection) else { return };
            match number {
                1 => connection.send(garbage),
                2 => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
                3 => connection.send(frames::head(stream, 0, 200, &[])) && connection.send(garbage),
                4 => {
                    connection.send(&frames::answer(stream, &[], "x")[..12]);
                    return connection.reset();
                }
                _ => {
                    connection.send(frames::answer(stream, &[NO_STORE], "well"));
                    return answer_all(connection);
                }
            };
            connection.await_close();
        },
    );
    let mut well = 0;
    for number in 0..12 {
        let mut client = edge.proxy.connect();
        client.send_request("POST", &format!("/api/{number}"), &JSON, "{}");
        match client.try_read("POST") {
            Ok(answer) if answer.status == 200 => well += 1,
            Ok(answer) => assert_eq!(answer.status, 502),
            Err(Fault::Cut(part)) => assert_eq!(part.status, 200),
            other => panic!("{other:?}"),
        }
    }
    assert!(well >= 6, "{well}");
}

/// What a request has in its head must not get into the log, whatever its level.
#[test]
fn debug_log_has_no_frames_and_no_values() {
    let edge = Secure::with(
        &["h2"],
        |setup: Setup| setup.with("log.level", "trace").with("api_key", "key-of-the-daemon"),
        |connection| {
            if frames::begin(connection, &[]) {
                answer_all(connection);
            }
        },
    );
    let fields = [("Authorization", "Bearer of-a-client"), ("Cookie", "session=of-a-client")];
    for _ in 0..10 {
        assert_eq!(edge.proxy.ask("GET", "/api/v1/x", &fields).status, 200);
    }
    let log = edge.proxy.stderr();
    for secret in ["of-a-client", "key-of-the-daemon"] {
        assert!(!log.contains(secret), "{log}");
    }
    for other in ["h2::", "rustls::", "monoio::"] {
        assert!(!log.contains(other), "{log}");
    }
}
