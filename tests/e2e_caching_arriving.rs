//! Answers that are still arriving: who may share them, how old they are said to be, what of them
//! is given before their end, and when they are given up.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::client::request;
use support::{Client, Connection, Gate, Origin, Proxy, Setup, answer, eventually};

/// An origin that begins its first answer with "first" and ends it with "-last" when the gate
/// opens; later requests get "second" at once.
fn halting(head: &'static str, gate: &Gate) -> Origin {
    let (held, turn) = (gate.clone(), AtomicUsize::new(0));
    Origin::script(move |connection| {
        while connection.request().is_some() {
            if turn.fetch_add(1, Ordering::SeqCst) > 0 {
                connection.send(answer(200, &[("Cache-Control", "no-store")], "second"));
                continue;
            }
            let chunked = !head.contains("Content-Length");
            let framing = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
            let (first, last) = match chunked {
                true => ("5\r\nfirst\r\n", "5\r\n-last\r\n0\r\n\r\n"),
                false => ("first", "-last"),
            };
            connection.send(format!("HTTP/1.1 200 OK\r\n{head}{framing}\r\n{first}"));
            held.pass();
            connection.send(last);
        }
    })
}

/// A client whose answer has begun to arrive.
fn leading(proxy: &Proxy) -> Client {
    let mut leader = proxy.connect();
    leader.send(request("GET", "/api/x", &[], ""));
    leader.await_text("first");
    leader
}

/// RFC 9111 sections 4 and 5.2.1: who comes when the head is there is judged by it.
#[test]
fn late_followers_get_what_their_directives_allow() {
    const FRESH: &str = "Cache-Control: max-age=60\r\n";
    const STALE: &str = "Cache-Control: max-age=60, must-revalidate\r\nAge: 61\r\nETag: \"a\"\r\n";
    const ASKS: &str = "Cache-Control: no-cache\r\nETag: \"a\"\r\n";
    let rows = [
        (FRESH, "", "first-last"),
        (FRESH, "max-age=30", "first-last"),
        (FRESH, "no-cache", "second"),
        (FRESH, "max-age=0", "second"),
        (FRESH, "min-fresh=100", "second"),
        (FRESH, "only-if-cached", "first-last"),
        (STALE, "", "second"),
        (STALE, "max-stale=100", "second"),
        (STALE, "only-if-cached", "504"),
        (ASKS, "", "second"),
    ];
    for (head, directives, expected) in rows {
        let gate = Gate::default();
        let origin = halting(head, &gate);
        let proxy = Setup::over(&origin).start();
        let mut leader = leading(&proxy);
        let mut follower = proxy.connect();
        follower.send(request("GET", "/api/x", &[("Cache-Control", directives)], ""));
        if expected == "first-last" {
            follower.await_text("first");
            gate.open();
        }
        let found = follower.read("GET");
        let text = if found.status == 200 { found.text().into() } else { found.status.to_string() };
        assert_eq!(text, expected, "{head:?} {directives}");
        gate.open();
        assert_eq!(leader.read("GET").text(), "first-last");
    }
}

/// RFC 9111 section 4.2.3.
#[test]
fn late_followers_are_told_the_age() {
    let gate = Gate::default();
    let origin = halting("Cache-Control: max-age=600\r\nAge: 50\r\n", &gate);
    let proxy = Setup::over(&origin).start();
    let mut leader = leading(&proxy);
    let mut follower = leading(&proxy);
    gate.open();
    assert_eq!(leader.read("GET").age(), Some(50));
    let age = follower.read("GET").age().unwrap();
    assert!((50..80).contains(&age), "{age}");

    let gate = Gate::default();
    let origin = halting("Cache-Control: max-age=600\r\n", &gate);
    let proxy = Setup::over(&origin).start();
    let mut leader = leading(&proxy);
    // A second passes sooner or later.
    eventually("a follower is told that it is not the first", || {
        let mut follower = proxy.connect();
        follower.send(request("GET", "/api/x", &[], ""));
        let text = follower.await_text("first").to_vec();
        String::from_utf8(text).unwrap().contains("\r\nAge: ")
    });
    gate.open();
    assert_eq!(leader.read("GET").age(), None);
}

/// What can be known by the head is not kept back until the end.
#[test]
fn conditions_and_ranges_do_not_wait_for_the_end() {
    const CHUNKED: &str = "Cache-Control: max-age=60\r\nETag: \"a\"\r\n";
    const KNOWN: &str = "Cache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Length: 10\r\n";
    const UNKEPT: &str = "Cache-Control: no-store\r\nETag: \"a\"\r\n";
    let rows = [
        (CHUNKED, ("If-None-Match", "\"a\""), 304, ""),
        (CHUNKED, ("If-None-Match", "\"b\""), 200, "first"),
        (CHUNKED, ("Range", "bytes=0-"), 200, "first"),
        (KNOWN, ("Range", "bytes=0-2"), 206, "fir"),
        (KNOWN, ("Range", "bytes=3-4"), 206, "st"),
        (KNOWN, ("Range", "bytes=3-"), 206, "st"),
        (UNKEPT, ("If-None-Match", "\"a\""), 304, ""),
        (UNKEPT, ("If-None-Match", "\"b\""), 200, "first"),
        (UNKEPT, ("Range", "bytes=0-"), 200, "first"),
    ];
    for (head, field, status, text) in rows {
        let gate = Gate::default();
        let origin = halting(head, &gate);
        let proxy = Setup::over(&origin).start();
        let mut client = proxy.connect();
        client.send(request("GET", "/api/x", &[field], ""));
        client.await_text(&format!("HTTP/1.1 {status} "));
        if !text.is_empty() {
            client.await_text(text);
        }
        gate.open();
        let response = client.read("GET");
        let whole = match (status, text) {
            (200, _) => "first-last",
            (206, "st") if field.1 == "bytes=3-" => "st-last",
            _ => text,
        };
        assert_eq!((response.status, response.text()), (status, whole), "{head:?} {field:?}");
        assert_eq!(origin.count(), 1, "{head:?} {field:?}");
    }
}

/// Nor is what can't be stored asked for twice for the sake of a range.
#[test]
fn range_of_what_is_not_stored_is_cut_from_the_first_answer() {
    let body: Vec<u8> = (0..100_000_u32).map(|it| (it % 251) as u8).collect();
    let sent = body.clone();
    let origin = Origin::respond(move |_| answer(200, &[("Cache-Control", "no-store")], &sent));
    let proxy = Setup::over(&origin).start();
    let part = proxy.ask("GET", "/api/x", &[("Range", "bytes=70000-79999")]);
    assert_eq!((part.status, part.field("Content-Range")), (206, Some("bytes 70000-79999/100000")));
    assert!(part.body == body[70_000..80_000]);
    assert_eq!(origin.count(), 1);
}

/// Those who wait for the whole used to keep their connections, left or not, until the origin
/// ended.
#[test]
fn who_waits_for_the_whole_may_leave() {
    const KNOWN: &str = "Cache-Control: max-age=60\r\nContent-Length: 10\r\n";
    const VARYING: &str = "Cache-Control: max-age=60\r\nContent-Length: 10\r\nVary: Foo\r\n";
    let rows = [(KNOWN, ("Range", "bytes=0-0,2-2")), (VARYING, ("Foo", "1"))];
    for (head, field) in rows {
        let gate = Gate::default();
        let origin = halting(head, &gate);
        let proxy = Setup::over(&origin).with("client.request_timeout", 60).start();
        let mut leader = leading(&proxy);
        let before = proxy.fd_count();
        let waiting: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = proxy.connect();
                client.send(request("GET", "/api/x", &[field], ""));
                client
            })
            .collect();
        eventually("all are there", || proxy.fd_count() >= before + 20);
        drop(waiting);
        proxy.await_fds(before);
        gate.open();
        assert_eq!(leader.read("GET").text(), "first-last");
        assert_eq!(origin.count(), 1);
    }
}

/// Sends events, or whatever it is, until nobody takes more; counts what was taken.
fn endless(connection: &mut Connection, head: &str, chunk: &[u8], sent: &AtomicUsize) {
    if connection.request().is_none() {
        return;
    }
    connection.send(format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n"));
    let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    while connection.send(&framed) {
        sent.fetch_add(chunk.len(), Ordering::SeqCst);
        if chunk.len() < 1_000 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Events are for those who are there: not kept, not shared, ended with their reader.
#[test]
fn event_streams_are_each_subscribers_own() {
    const EVENTS: &str = "Content-Type: text/event-stream; charset=utf-8\r\n";
    const TAGGED: &str = "Content-Type: Text/Event-Stream\r\nETag: \"a\"\r\n";
    for head in [EVENTS, TAGGED] {
        let origin = Origin::script(move |connection| {
            endless(connection, head, b"data: x\n\n", &AtomicUsize::new(0));
        });
        let proxy = Setup::over(&origin).with("client.request_timeout", 60).start();
        let mut clients = Vec::new();
        for number in 1..=3 {
            let mut client = proxy.connect();
            client.send(request("GET", "/api/x", &[], ""));
            let text = String::from_utf8(client.await_text("data: x").to_vec()).unwrap();
            assert!(!text.contains("; stored"), "{text}");
            assert_eq!(origin.count(), number);
            clients.push(client);
        }
        drop(clients);
        eventually("the origin is rid of them", || origin.open() == 0);
    }
}

/// Where the origin says for how long, they are kept once they have ended, and not shared before.
#[test]
fn running_event_stream_is_not_shared_though_it_may_be_stored() {
    let gate = Gate::default();
    let head = "Content-Type: text/event-stream\r\nCache-Control: max-age=60\r\n";
    let origin = halting(head, &gate);
    let proxy = Setup::over(&origin).start();
    let mut leader = leading(&proxy);
    assert_eq!(proxy.get("/api/x").text(), "second");
    gate.open();
    assert_eq!(leader.read("GET").text(), "first-last");
    assert_eq!(proxy.get("/api/x").cache(), "HIT");
}

/// A storable answer without end is completed for the next reader, within the time of an exchange
/// and the bytes of an entry.
#[test]
fn endless_answer_is_given_up_some_time_after_its_last_reader() {
    let rows = [(1, &b"drip"[..], 1_usize << 20), (60, &[b'x'; 65_536][..], 64 << 20)];
    for (seconds, chunk, most) in rows {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sent);
        let origin = Origin::script(move |connection| {
            endless(connection, "Cache-Control: max-age=60\r\n", chunk, &counted);
        });
        let setup = Setup::over(&origin).with("client.request_timeout", seconds);
        let proxy = setup.with("cache.memory_cache_max_object", 1 << 20).start();
        let mut client = proxy.connect();
        client.send(request("GET", "/api/x", &[], ""));
        client.await_bytes(500);
        client.reset();
        eventually("the origin is rid of it", || origin.open() == 0);
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < most, "{sent} bytes");
    }
}
