//! Floods over HTTP/2 (RFC 9113 section 10.5): what costs a client little must not cost the daemon
//! much. Each ends its connection or is answered; others are served meanwhile, and no memory is
//! left in it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::client::Client;
use support::frames::{self, END_HEADERS, END_STREAM, Frame};
use support::{Metrics, Origin, PATIENCE, Proxy, Setup, answer, eventually};

/// What a daemon may have more of in memory after a flood than before.
const MEMORY_BYTES_MAX: u64 = 24 << 20;

fn origin() -> Origin {
    Origin::respond(|_| answer(200, &[("Cache-Control", "max-age=600")], vec![b'x'; 1_000]))
}

fn start(origin: &Origin) -> Proxy {
    let setup = Setup::over(origin).with("server.write_timeout", 1);
    setup.with("security.require_json_body", false).start()
}

/// How a flood ended.
#[derive(Debug)]
struct Flooded {
    /// Pieces that were taken.
    sent: usize,
    /// Whether the daemon ended the connection.
    is_ended: bool,
}

/// Whether the client reads what it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Read,
    Unread,
}

/// Sends `count` pieces behind a preface and `begin`; meanwhile others must be served.
#[track_caller]
fn flood(
    proxy: &Proxy,
    answers: Answers,
    begin: &[u8],
    count: usize,
    piece: impl Fn(u32) -> Vec<u8>,
) -> Flooded {
    // What serving anybody takes is no part of it.
    for _ in 0..20 {
        proxy.get("/health");
    }
    let before = proxy.rss_bytes();
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let reading = (answers == Answers::Read).then(|| {
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || read_all(&mut stream))
    });
    let mut bytes = frames::preface(&[]);
    bytes.extend_from_slice(begin);
    let mut sent = 0;
    let mut slowest = Duration::ZERO;
    while sent < count {
        let batch = (count - sent).min(500);
        bytes.extend((sent..sent + batch).flat_map(|it| piece(it as u32)));
        if stream.write_all(&bytes).is_err() {
            break;
        }
        bytes.clear();
        sent += batch;
        if sent % 5_000 == 0 {
            let start = Instant::now();
            assert_eq!(proxy.get("/health").status, 200);
            slowest = slowest.max(start.elapsed());
        }
    }
    assert!(slowest < Duration::from_secs(2), "others waited {slowest:?}");
    stream.shutdown(std::net::Shutdown::Write).ok();
    let answered = match reading {
        Some(reading) => reading.join().unwrap(),
        None => read_all(&mut stream),
    };
    assert_eq!(proxy.get("/health").status, 200);
    let code = last_code(&answered);
    let grown = || proxy.rss_bytes().saturating_sub(before);
    assert!(grown() < MEMORY_BYTES_MAX, "{} bytes more, {sent} sent", grown());
    Flooded { sent, is_ended: sent < count || code.is_some_and(|it| it != 0) }
}

/// All that comes up to the end.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut part) {
        all.extend_from_slice(&part[..count]);
    }
    all
}

/// The code of the GOAWAY that a connection ended with.
fn last_code(mut bytes: &[u8]) -> Option<u32> {
    let mut code = None;
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if *kind == frames::GOAWAY && rest.len() >= 8 {
            code = Some(u32::from_be_bytes(rest[4..8].try_into().unwrap()));
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    code
}

/// The number of a stream.
const fn nth(turn: u32) -> u32 {
    turn * 2 + 1
}

/// CVE-2023-44487.
#[test]
fn streams_that_are_reset_at_once_end_the_connection() {
    let origin = origin();
    let proxy = start(&origin);
    let flooded = flood(&proxy, Answers::Read, &[], 20_000, |turn| {
        let path = format!("/api/x?{turn}");
        let ask = frames::ask(nth(turn), END_STREAM, "GET", &path, &[]);
        [ask, frames::reset(nth(turn), frames::CANCEL)].concat()
    });
    assert!(flooded.is_ended, "{flooded:?}");
    assert!(origin.count() < 1_000, "{} of {}", origin.count(), flooded.sent);
}

/// The same, with the daemon given the time to begin each of them: a request to the origin that is
/// completed, since its answer can be stored.
#[test]
fn streams_that_are_reset_one_by_one_end_the_connection() {
    let origin = origin();
    let proxy = start(&origin);
    let mut client = proxy.connect();
    client.send(frames::preface(&[]));
    let end = (0..3_000).find_map(|turn| Some(turn).zip(give_up(&mut client, turn)));
    let (turns, code) = end.expect("it goes on");
    assert_eq!(code, frames::ENHANCE_YOUR_CALM);
    assert!((200..1_000).contains(&turns), "{turns}");
    assert!(origin.count() < 1_000, "{}", origin.count());
    assert_eq!(proxy.get("/health").status, 200);
}

/// A client may change its mind, if it takes other answers.
#[test]
fn streams_that_are_reset_now_and_then_end_nothing() {
    let origin = origin();
    let proxy = start(&origin);
    let mut client = proxy.connect();
    client.send(frames::preface(&[]));
    client.send(frames::window(0, 1 << 30));
    for turn in 0..600 {
        assert_eq!(give_up(&mut client, 2 * turn), None, "{turn}");
        let stream = nth(2 * turn + 1);
        client.send(frames::ask(stream, END_STREAM, "GET", "/api/pass", &[("range", "bytes=0-")]));
        let ends = |it: &Frame| it.stream == stream && it.ends_stream();
        while !frames::next(&mut client).is_some_and(|it| ends(&it)) {}
    }
}

/// Begins a stream and ends it as soon as the daemon has seen it. The code of the connection's end,
/// when that comes instead.
fn give_up(client: &mut Client, turn: u32) -> Option<u32> {
    let path = format!("/api/x?{turn}");
    let ask = frames::ask(nth(turn), END_STREAM, "GET", &path, &[]);
    let load = u64::from(turn).to_be_bytes();
    client.try_send([ask, frames::write(frames::PING, 0, 0, &load)].concat()).ok();
    loop {
        let frame = frames::read(client).expect("closed without a word");
        match frame.kind {
            frames::GOAWAY => return Some(frame.code()),
            frames::PING => break,
            _ => {}
        }
    }
    client.try_send(frames::reset(nth(turn), frames::CANCEL)).ok();
    None
}

/// CVE-2024-27316 and its like.
#[test]
fn a_head_without_an_end_ends_the_connection() {
    let origin = origin();
    let proxy = start(&origin);
    let open = frames::write(frames::HEADERS, END_STREAM, 1, &[]);
    let lines = frames::block(&[("a", &"x".repeat(16_000))]);
    for (what, block) in [("large", &lines[..]), ("small", &lines[..0])] {
        let flooded = flood(&proxy, Answers::Read, &open, 20_000, |_| {
            frames::write(frames::CONTINUATION, 0, 1, block)
        });
        assert!(flooded.is_ended, "{what}: {flooded:?}");
    }
    assert_eq!(origin.count(), 0);
}

/// RFC 7541 section 7.3: a table's entry named again and again.
#[test]
fn a_head_that_unfolds_is_not_kept() {
    let origin = origin();
    let proxy = start(&origin);
    // Entered into the table once, with 4,000 bytes; a byte for each further one.
    let mut entry = frames::literal("a", "x".repeat(4_000));
    entry[0] = 0x40;
    let flooded = flood(&proxy, Answers::Read, &[], 500, |turn| {
        let lines =
            [(":method", "GET"), (":scheme", "http"), (":path", "/api/x"), (":authority", "a")];
        let mut block = frames::block(&lines);
        if turn == 0 {
            block.extend_from_slice(&entry);
        }
        block.resize(16_000, 0x80 | 62);
        frames::write(frames::HEADERS, END_HEADERS | END_STREAM, nth(turn), &block)
    });
    assert!(flooded.is_ended, "{flooded:?}");
    assert_eq!(origin.count(), 0);
}

#[test]
fn frames_that_say_nothing_are_bounded() {
    let origin = origin();
    let proxy = start(&origin);
    let open = frames::ask(1, 0, "POST", "/api/x", &[]);
    let done = frames::ask(1, END_STREAM, "GET", "/health", &[]);
    type Piece = fn(u32) -> Vec<u8>;
    let rows: [(&str, &[u8], Piece); 8] = [
        ("empty DATA", &open, |_| frames::data(1, 0, &[])),
        ("padding", &open, |_| frames::write(frames::DATA, frames::PADDED, 1, &[20; 21])),
        ("SETTINGS", &[], |_| frames::settings(&[])),
        ("SETTINGS that change", &[], |turn| {
            frames::settings(&[(frames::INITIAL_WINDOW_SIZE, turn % 2 * 65_535)])
        }),
        ("PING", &[], |turn| frames::write(frames::PING, 0, 0, &u64::from(turn).to_be_bytes())),
        ("PRIORITY", &[], |turn| frames::write(frames::PRIORITY, 0, nth(turn), &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", &done, |_| frames::window(1, 1)),
        ("unknown", &[], |_| frames::write(0x42, 0, 0, &[0; 10])),
    ];
    for (what, begin, piece) in rows {
        let flooded = flood(&proxy, Answers::Read, begin, 50_000, piece);
        let is_ended = ["empty DATA", "padding"].contains(&what);
        assert_eq!(flooded.is_ended, is_ended, "{what}: {flooded:?}");
    }
}

/// Answers that nobody takes wait in the socket, then for the daemon's patience; not in memory.
#[test]
fn answers_that_nobody_reads_are_not_gathered() {
    let origin = origin();
    let proxy = start(&origin);
    type Piece = fn(u32) -> Vec<u8>;
    let rows: [(&str, Piece); 3] = [
        ("PING", |turn| frames::write(frames::PING, 0, 0, &u64::from(turn).to_be_bytes())),
        ("SETTINGS", |_| frames::settings(&[])),
        ("requests", |turn| frames::ask(nth(turn), END_STREAM, "GET", "/api/x", &[])),
    ];
    std::thread::scope(|scope| {
        for (what, piece) in rows {
            let proxy = &proxy;
            scope.spawn(move || {
                let flooded = flood(proxy, Answers::Unread, &[], 2_000_000, piece);
                assert!(flooded.is_ended, "{what}: {flooded:?}");
            });
        }
    });
    let flight = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("nothing is left of them", || flight() <= 1.0);
}
