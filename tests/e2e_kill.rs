//! `kill -9` of the daemon under load: what it serves after its restart is whole, right, and no
//! older than the last change that it confirmed.
//!
//! `STORE_KILLS` sets how often it is killed on each backend.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

#[path = "support/postgres.rs"]
mod cluster;
mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use support::client::{Client, request};
use support::{Origin, Response, Setup, answer, eventually};

const KEYS: u64 = 60;
const CLIENTS: u64 = 4;

/// A small generator (xorshift64*), so that a failing run can be played again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

type Versions = Mutex<HashMap<String, u64>>;

/// The one right body of a path in a version: a mixture of two would show.
fn body_of(path: &str, version: u64) -> Vec<u8> {
    let sum = path.bytes().fold(7_usize, |sum, byte| sum * 31 % 100_003 + usize::from(byte));
    let length = [50, 3_000, 20_000, 300_000][sum % 4] + sum % 97;
    let text = format!("{path} v{version} ");
    text.bytes().cycle().take(length).collect()
}

/// The version of a body; panics when it is no right one.
fn version_of(path: &str, body: &[u8]) -> u64 {
    let start = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
    let words = start.split(' ').nth(1).and_then(|it| it.strip_prefix('v'));
    let version = words.and_then(|it| it.parse().ok());
    let version = version.unwrap_or_else(|| panic!("{path}: {start:?}"));
    assert!(body == body_of(path, version), "{path}: not the body of version {version}");
    version
}

/// GET answers with the present version, PUT makes a new one.
fn origin(versions: &Arc<Versions>) -> Origin {
    let versions = Arc::clone(versions);
    Origin::respond(move |request| {
        let mut versions = versions.lock().unwrap();
        let version = versions.entry(request.target.clone()).or_insert(1);
        if request.method == "PUT" {
            *version += 1;
            return answer(204, &[("X-Version", &version.to_string())], "");
        }
        let fields = [("Cache-Control", "max-age=3600"), ("Content-Type", "text/plain")];
        answer(200, &fields, body_of(&request.target, *version))
    })
}

/// What all clients know.
#[derive(Default)]
struct Known {
    /// By path: the version of the last change that was confirmed.
    floors: Versions,
    answers: AtomicUsize,
    hits: AtomicUsize,
    stop: AtomicBool,
}

impl Known {
    fn floor(&self, path: &str) -> u64 {
        self.floors.lock().unwrap().get(path).copied().unwrap_or(1)
    }

    fn raise(&self, path: String, version: u64) {
        let mut floors = self.floors.lock().unwrap();
        let floor = floors.entry(path).or_insert(1);
        *floor = version.max(*floor);
    }
}

/// Asks and changes until the daemon is gone; panics on a wrong answer.
fn play(addr: SocketAddr, seed: u64, known: &Known) {
    let mut dice = Dice(seed | 1);
    let mut client = Client::connect(addr);
    while !known.stop.load(Ordering::SeqCst) {
        let path = format!("/{}", dice.roll(KEYS));
        let target = format!("/api{path}");
        if dice.roll(12) == 0 {
            let fields = [("Content-Type", "application/json")];
            let Some(response) = exchange(&mut client, "PUT", &target, &fields) else { return };
            assert_eq!(response.status, 204, "{response:?}");
            known.raise(path, response.field("X-Version").unwrap().parse().unwrap());
            continue;
        }
        let floor = known.floor(&path);
        let Some(response) = exchange(&mut client, "GET", &target, &[]) else { return };
        check(&path, floor, &response, known);
    }
}

fn check(path: &str, floor: u64, response: &Response, known: &Known) {
    assert_eq!(response.status, 200, "{response:?}");
    let version = version_of(path, &response.body);
    assert!(version >= floor, "{path}: version {version}, but {floor} was confirmed");
    known.answers.fetch_add(1, Ordering::SeqCst);
    known.hits.fetch_add(usize::from(response.cache() == "HIT"), Ordering::SeqCst);
}

/// `None` when the daemon is gone.
fn exchange(
    client: &mut Client,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Option<Response> {
    let body = if method == "PUT" { "{}" } else { "" };
    client.try_send(request(method, target, fields, body)).ok()?;
    client.try_read(method).ok()
}

/// Kills and restarts; at the end everything is asked for once more.
fn kill_repeatedly(setup: &Setup, versions: &Versions) {
    let kills: u64 = std::env::var("STORE_KILLS").map_or(12, |it| it.parse().unwrap());
    let known = Known::default();
    let mut dice = Dice(4711);
    for kill in 0..kills {
        let proxy = setup.start();
        let until = known.answers.load(Ordering::SeqCst) + 100 + dice.roll(900) as usize;
        known.stop.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (addr, known) = (proxy.addr(), &known);
                scope.spawn(move || play(addr, kill * CLIENTS + client, known));
            }
            // A client that panicked answers no more: its panic ends the test.
            eventually("enough was answered", || known.answers.load(Ordering::SeqCst) >= until);
            known.stop.store(dice.roll(2) == 0, Ordering::SeqCst);
            proxy.kill();
        });
    }
    let proxy = setup.start();
    let hits = known.hits.load(Ordering::SeqCst);
    let all = versions.lock().unwrap().clone();
    for (path, version) in all {
        let response = proxy.get(&format!("/api{path}"));
        check(&path, known.floor(&path), &response, &known);
        assert!(known.floor(&path) <= version);
    }
    let left = known.hits.load(Ordering::SeqCst) - hits;
    assert!(left > 0, "nothing of {hits} hits was left in the second tier");
    let metrics = proxy.get("/metrics").text().to_owned();
    for line in ["removed_total{reason=\"damaged\"} 0", "repairs_total{kind=\"moved_aside\"} 0"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn what_is_served_after_kills_under_load_is_right_on_sqlite() {
    let versions = Arc::<Versions>::default();
    let origin = origin(&versions);
    let setup = Setup::over(&origin).with("cache.memory_cache_size", 10);
    kill_repeatedly(&setup, &versions);
}

#[test]
fn what_is_served_after_kills_under_load_is_right_on_postgres() {
    let Some(database) = cluster::database() else { return };
    let versions = Arc::<Versions>::default();
    let origin = origin(&versions);
    let setup = Setup::over(&origin)
        .with("cache.memory_cache_size", 10)
        .with("cache.backend", "postgres")
        .with("cache.postgres_dsn", database.dsn());
    kill_repeatedly(&setup, &versions);
}
