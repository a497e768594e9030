//! Everything at once: clients that read, pipeline, leave and reset, an origin that answers in
//! every framing and fails now and then, clears in between. What is asserted is what must hold in
//! any order: a whole answer is the right answer, and afterwards nothing is left over.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::client::{Client, request};
use support::{Connection, Dice, Fault, Origin, Proxy, Setup, answer};

/// Whole answers seen, so that a run in which everything failed does not pass.
static WHOLE: AtomicU64 = AtomicU64::new(0);

const CLIENTS: u64 = 8;
const TURNS: u64 = 150;
const KEYS: u64 = 40;

/// The one right body of a path: it begins with the path and has a length of its own.
fn body_of(path: &str) -> Vec<u8> {
    let sum = path.bytes().fold(7_usize, |sum, byte| sum * 31 % 100_003 + usize::from(byte));
    let length = match sum % 4 {
        0 => 10,
        1 => 3_000,
        2 => 70_000,
        _ => 300_000,
    };
    let text = format!("{path} ");
    text.bytes().cycle().take(text.len() + length + sum % 100).collect()
}

/// Plays one connection; what it does to a request depends on the path and on luck.
fn origin_script(connection: &mut Connection, luck: &AtomicU64) {
    while let Some(request) = connection.request() {
        let mut dice = Dice::new(luck.fetch_add(1, Ordering::Relaxed));
        let body = body_of(&request.target);
        let lifetime = match request.target.as_bytes()[1] {
            b'k' => "max-age=60",
            b'r' => "max-age=0",
            _ => "no-store",
        };
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: {lifetime}\r\nETag: \"1\"\r\n");
        let cut = usize::try_from(dice.roll(body.len() as u64)).unwrap();
        let fields = [("Cache-Control", lifetime), ("ETag", "\"1\"")];
        let alive = match dice.roll(20) {
            0 => connection.send(answer(500, &[], "broken")),
            1 => {
                connection.send(&answer(200, &fields, &body)[..cut]);
                connection.reset();
                false
            }
            2 => {
                connection.send(&answer(200, &fields, &body)[..cut]);
                false
            }
            3..6 => {
                connection.send(format!("{head}Connection: close\r\n\r\n"));
                connection.send(&body);
                false
            }
            6..10 => {
                let (first, rest) = body.split_at(cut);
                connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
                for part in [first, rest].iter().filter(|it| !it.is_empty()) {
                    connection.send(format!("{:x}\r\n", part.len()));
                    connection.send(part);
                    connection.send("\r\n");
                }
                connection.send("0\r\n\r\n")
            }
            _ if request.field("If-None-Match").is_some() => {
                connection.send(answer(304, &fields, ""))
            }
            _ => connection.send(answer(200, &fields, &body)),
        };
        if !alive {
            return;
        }
    }
}

/// One client's turns; panics on an answer that is whole and wrong.
fn play(proxy: &Proxy, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut client = proxy.connect();
    for turn in 0..TURNS {
        let kind = ["keep", "revalidate", "pass"][usize::try_from(dice.roll(3)).unwrap()];
        let path = format!("/{kind}/{}", dice.roll(KEYS));
        let get = request("GET", &format!("/api{path}"), &[], "");
        let open = match dice.roll(12) {
            0 => {
                client.try_send(&get[..usize::try_from(dice.roll(get.len() as u64)).unwrap()]).ok();
                client.reset();
                None
            }
            1 => {
                client.try_send(&get).ok();
                None
            }
            2 => {
                client.try_send(&get).ok();
                client.half_close();
                check(&mut client, &path, seed, turn);
                None
            }
            3 => {
                client.try_send(get.repeat(3)).ok();
                let whole = (0..3).all(|_| check(&mut client, &path, seed, turn));
                whole.then_some(client)
            }
            4 if seed == 0 => {
                proxy.clear();
                Some(client)
            }
            _ => {
                client.try_send(&get).ok();
                check(&mut client, &path, seed, turn).then_some(client)
            }
        };
        client = open.unwrap_or_else(|| proxy.connect());
    }
}

/// Reads an answer; whether the connection can go on.
fn check(client: &mut Client, path: &str, seed: u64, turn: u64) -> bool {
    match client.try_read("GET") {
        Ok(response) if response.status == 200 => {
            let right = response.body == body_of(path);
            assert!(right, "client {seed} turn {turn}: another body for {path}");
            WHOLE.fetch_add(1, Ordering::Relaxed);
            response.field("Connection") != Some("close")
        }
        Ok(response) => {
            let expected = matches!(response.status, 500 | 502 | 504);
            assert!(expected, "client {seed} turn {turn}: {path}: {response:?}");
            response.field("Connection") != Some("close")
        }
        Err(Fault::Closed | Fault::Cut(_)) => false,
        Err(other) => panic!("client {seed} turn {turn}: {path}: {other:?}"),
    }
}

#[test]
fn whole_answers_are_right_answers_whatever_happens_around_them() {
    let luck = Arc::new(AtomicU64::new(1));
    let origin = Origin::script(move |connection| origin_script(connection, &luck));
    let setup = Setup::over(&origin).with("client.circuit_breaker_enabled", false);
    let mut proxy = setup.with("cache.memory_cache_size", 30).start();
    proxy.get("/api/pass/0");
    origin.disconnect();
    let fds = proxy.fd_count();
    std::thread::scope(|scope| {
        for seed in 0..CLIENTS {
            let proxy = &proxy;
            scope.spawn(move || play(proxy, seed));
        }
    });
    let whole = WHOLE.load(Ordering::Relaxed);
    assert!(whole > CLIENTS * TURNS / 2, "only {whole} whole answers");
    assert!(proxy.lives(), "{}", proxy.stderr());
    assert_eq!(proxy.get("/health").status, 200);
    origin.disconnect();
    proxy.await_fds(fds);
    proxy.stop();
}
