//! Bodies in motion: as they come, with back-pressure, and what becomes of them when an end leaves.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use edge::{Edge, Failures, head, post};
use support::{Client, Connection, Gate, Origin, answer, eventually};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

/// Each event waits for the client to have seen the one before: none is held back.
#[test]
fn server_sent_events_arrive_one_by_one() {
    for fields in [
        "",
        "Cache-Control: no-cache\r\n",
        "Cache-Control: no-store\r\n",
        "Cache-Control: max-age=60\r\n",
    ] {
        let seen = Arc::new(AtomicUsize::new(0));
        let sent = seen.clone();
        let origin = Origin::script(move |connection| {
            while connection.request().is_some() {
                connection.send(format!("{EVENTS}{fields}Transfer-Encoding: chunked\r\n\r\n"));
                for number in 0..20 {
                    connection.send(format!("b\r\ndata: {number:03}\n\n\r\n"));
                    let start = Instant::now();
                    while sent.load(Ordering::SeqCst) <= number {
                        assert!(start.elapsed() < support::PATIENCE, "event {number} is held back");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                connection.send("0\r\n\r\n");
            }
        });
        let edge = Edge::over(origin, |setup| setup);
        let mut client = edge.send(head("GET /api/events HTTP/1.1", ""));
        let start = Instant::now();
        for number in 0..20 {
            client.await_text(&format!("data: {number:03}\n\n"));
            seen.store(number + 1, Ordering::SeqCst);
        }
        let response = client.read("GET");
        assert_eq!(response.body.len(), 20 * 11, "{fields}");
        assert!(start.elapsed() < Duration::from_secs(4), "{fields}: {:?}", start.elapsed());
    }
}

/// The head alone must not wait for the first byte of the body.
#[test]
fn the_head_of_a_stream_does_not_wait_for_its_body() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            connection.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n"));
            held.pass();
            connection.send("0\r\n\r\n");
        }
    });
    let edge = Edge::over(origin, |setup| setup);
    let mut client = edge.send(head("GET /api/events HTTP/1.1", ""));
    client.await_text("\r\n\r\n");
    gate.open();
    assert_eq!(client.read("GET").text(), "");
}

/// A client that does not read stops the origin: what lies between them is bounded.
#[test]
fn a_slow_reader_holds_the_origin_back() {
    for fields in ["Cache-Control: no-store\r\n", ""] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let total = 256 << 20;
        let origin = Origin::script(move |connection| {
            if connection.request().is_none() {
                return;
            }
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {total}\r\n\r\n"
            ));
            let part = vec![b'x'; 1 << 16];
            while connection.send(&part) {
                counted.fetch_add(part.len(), Ordering::SeqCst);
            }
        });
        let edge = Edge::over(origin, |setup| {
            setup.with("security.max_response_body_size", total).with("server.write_timeout", 30)
        });
        let before = edge.proxy.rss_bytes();
        let client = edge.send(head("GET /api/x HTTP/1.1", fields));
        eventually("it flows", || sent.load(Ordering::SeqCst) > 0);
        let mut last = 0;
        let mut since = Instant::now();
        eventually("it stops", || {
            let now = sent.load(Ordering::SeqCst);
            if std::mem::replace(&mut last, now) != now {
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(500)
        });
        assert!(last < 64 << 20, "{last} bytes are on the way");
        let grown = edge.proxy.rss_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes for one slow reader");
        drop(client);
    }
}

/// The origin does not read: the client is stopped, and nothing is gathered in between.
#[test]
fn a_slow_origin_holds_the_sender_back() {
    let gate = Gate::default();
    let held = gate.clone();
    let length = 256 << 20;
    let origin = Origin::script(move |connection| {
        if connection.head().is_some() {
            held.pass();
            let mut left: usize = length;
            while left > 0 {
                let part = left.min(1 << 16);
                if connection.take(part).is_none() {
                    return;
                }
                left -= part;
            }
            connection.send(answer(200, &[("Cache-Control", "no-store")], "all"));
        }
    });
    let edge = Edge::over(origin, |setup| setup.with("security.max_request_body_size", length));
    let before = edge.proxy.rss_bytes();
    let mut client = edge.send(post(&format!("Content-Length: {length}\r\n"), ""));
    let part = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while let Some(bytes) = client.try_send_part(&part, Duration::from_millis(700)) {
        sent += bytes;
    }
    assert!(sent < 64 << 20, "{sent} bytes are on the way");
    let grown = edge.proxy.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for one slow origin");
    gate.open();
    while sent < length {
        let rest = part.len().min(length - sent);
        client.send(&part[..rest]);
        sent += rest;
    }
    assert_eq!(client.read("POST").text(), "all");
}

#[test]
fn a_request_body_reaches_the_origin_piece_by_piece() {
    let origin = Origin::script(|connection: &mut Connection| {
        while let Some(head) = connection.head() {
            assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
            for size in ["1\r\na\r\n", "1\r\nb\r\n", "0\r\n\r\n"] {
                let Some(piece) = connection.take(size.len()) else { return };
                assert_eq!(piece, size.as_bytes());
                connection.send("HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n");
            }
            connection.send(answer(200, &[("Cache-Control", "no-store")], "ab"));
        }
    });
    let edge = Edge::over(origin, |setup| setup);
    let mut client = edge.send(post("Transfer-Encoding: chunked\r\n", ""));
    // Each piece is sent only when the origin has told that it has the one before.
    for (number, piece) in ["1\r\na\r\n", "1\r\nb\r\n", "0\r\n\r\n"].into_iter().enumerate() {
        client.send(piece);
        let hints = "HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n".len();
        client.await_bytes(hints * (number + 1));
    }
    let response = client.read("POST");
    assert_eq!((response.text(), response.interim.len()), ("ab", 3));
}

/// Plays `stream` up to its middle, then reports when the daemon has closed.
fn cancelled(stream: &'static str, closed: Sender<Instant>) -> Origin {
    Origin::script(move |connection| {
        while let Some(request) = connection.request() {
            if request.target != "/stream" {
                connection.send(answer(200, &[("Cache-Control", "no-store")], "x"));
                continue;
            }
            connection.send(stream);
            connection.await_close();
            closed.send(Instant::now()).ok();
            return;
        }
    })
}

/// Leaves, and waits until the origin sees its connection closed.
fn leave(client: Client, reset: bool, closed: &Receiver<Instant>) -> Result<(), String> {
    if reset {
        client.reset()
    } else {
        drop(client)
    }
    // One second for a half-closed client, and some for a busy machine.
    closed.recv_timeout(Duration::from_secs(5)).map(drop).map_err(|_| "not closed".to_owned())
}

/// The origin falls silent, the client leaves: nobody waits, so the origin's connection ends.
#[test]
fn a_client_that_leaves_ends_an_answer_that_cannot_be_stored() {
    let rows = [
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 100000\r\n\r\na",
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 10\r\n\r\na",
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\r\na",
        "HTTP/1.1 200 OK\r\nCache-Control: no-cache\r\nContent-Type: text/event-stream\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ];
    let mut failures = Failures::default();
    for (number, stream) in rows.into_iter().enumerate() {
        for (method, reset) in [("GET", false), ("GET", true), ("DELETE", false), ("POST", true)] {
            let (sender, closed) = channel();
            let edge = Edge::over(cancelled(stream, sender), |setup| setup);
            let request = if method == "POST" {
                post("Content-Length: 1\r\n", "x").replace("/api/x", "/api/stream")
            } else {
                head(&format!("{method} /api/stream HTTP/1.1"), "")
            };
            let mut client = edge.send(request);
            // A short answer may be gathered before its head is sent.
            if number == 2 {
                edge.origin.await_requests(1);
            } else {
                client.await_text("\r\n\r\n");
            }
            let left = leave(client, reset, &closed);
            failures.note(&format!("{method}, reset: {reset}, row {number}"), left);
        }
    }
    failures.assert_none();
}

/// Before its answer, an exchange that can't be stored ends with its client too.
#[test]
fn a_client_that_leaves_before_the_answer_ends_an_unstorable_exchange() {
    for method in ["DELETE", "POST"] {
        let (sender, closed) = channel();
        let edge = Edge::over(cancelled("", sender), |setup| setup);
        let client = edge.send(head(&format!("{method} /api/stream HTTP/1.1"), ""));
        edge.origin.await_requests(1);
        assert_eq!(leave(client, false, &closed), Ok(()), "{method}");
    }
}

/// A storable answer is completed for the next reader.
#[test]
fn a_client_that_leaves_does_not_end_an_answer_that_can_be_stored() {
    for framing in ["Content-Length: 200000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n30d40\r\n"]
    {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::script(move |connection| {
            while connection.request().is_some() {
                connection
                    .send(format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{framing}"));
                connection.send(vec![b'x'; 150_000]);
                held.pass();
                connection.send(vec![b'x'; 50_000]);
                if framing.starts_with('T') {
                    connection.send("\r\n0\r\n\r\n");
                }
            }
        });
        let edge = Edge::over(origin, |setup| setup);
        let mut client = edge.send(head("GET /api/x HTTP/1.1", ""));
        client.await_bytes(10_000);
        drop(client);
        gate.open();
        eventually("it is whole", || edge.proxy.get("/api/x").cache() == "HIT");
        assert_eq!(edge.proxy.get("/api/x").body.len(), 200_000);
        assert_eq!(edge.origin.count(), 1);
    }
}

/// A client that has only ended its own direction still reads (RFC 9112 section 9.6): it gets all
/// of an answer that keeps coming.
#[test]
fn rfc9112_9_6_a_half_closed_client_gets_all_of_a_slow_stream() {
    let origin = Origin::script(|connection| {
        while connection.request().is_some() {
            connection
                .send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 10\r\n\r\n");
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(300));
                connection.send("x");
            }
        }
    });
    let edge = Edge::over(origin, |setup| setup);
    let mut chunked = edge.send(post("Content-Length: 1\r\n", "x"));
    chunked.half_close();
    assert_eq!(chunked.read("POST").text(), "xxxxxxxxxx");
}
