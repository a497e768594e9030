//! A database behind a line that delays or swallows what it carries.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

#[path = "support/postgres.rs"]
mod cluster;
#[path = "support/store.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use apiproxyd::store::{Backend, GetOutcome, Settings, StoreHandle, Unavailable};
use cluster::Database;
use support::{Desk, PATIENCE, digest, eventually, row};

/// A line to the database, which the test meddles with.
struct Line {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Milliseconds before bytes go on, either way.
    delay: AtomicU64,
    /// Connections of before this generation are black holes: what comes is taken and goes nowhere.
    alive_from: AtomicU64,
    generation: AtomicU64,
    /// New connections are black holes too.
    swallow_new: AtomicBool,
    ended: AtomicBool,
}

impl Line {
    fn to(database: &Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target: SocketAddr = ([127, 0, 0, 1], database.cluster.port()).into();
        let state = Arc::<State>::default();
        let ours = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ours.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                let generation = ours.generation.load(Ordering::SeqCst);
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends.map(|(a, b)| (a.try_clone(), b.try_clone())) {
                    let (from, to, state) = (from.unwrap(), to.unwrap(), Arc::clone(&ours));
                    thread::spawn(move || carry(from, to, generation, &state));
                }
            }
        });
        Self { port, state }
    }

    /// Swallows from now on what the connections of before carry, or also what new ones do.
    fn swallow(&self, new_ones_too: bool) {
        let next = self.state.generation.fetch_add(1, Ordering::SeqCst) + 1;
        self.state.alive_from.store(next, Ordering::SeqCst);
        self.state.swallow_new.store(new_ones_too, Ordering::SeqCst);
    }

    fn delay(&self, delay: Duration) {
        self.state.delay.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    fn settings(&self, database: &Database) -> Settings {
        let port = format!("port={}", self.port);
        let dsn = database.tcp_dsn().replace(&format!("port={}", database.cluster.port()), &port);
        Settings {
            backend: Backend::Postgres,
            dsn,
            statement_timeout: Duration::from_millis(400),
            connect_timeout: Duration::from_secs(2),
            ..Settings::default()
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, generation: u64, state: &State) {
    let mut part = [0; 64 * 1024];
    while let Ok(bytes) = from.read(&mut part) {
        if bytes == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(state.delay.load(Ordering::SeqCst)));
        let old = generation < state.alive_from.load(Ordering::SeqCst);
        if old || state.swallow_new.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&part[..bytes]).is_err() {
            break;
        }
    }
    // A black hole does not even tell the end.
    if generation >= state.alive_from.load(Ordering::SeqCst) {
        to.shutdown(Shutdown::Both).ok();
    }
}

fn works(desk: &Desk) {
    eventually("a put is stored and found", || {
        desk.put(row(7, "/a"));
        desk.flush();
        matches!(desk.get(digest(7)), GetOutcome::Hit(_))
            && desk.handle.stats().unavailable().is_none()
    });
}

#[test]
fn a_slow_line_delays_answers_and_loses_none() {
    let Some(database) = cluster::database() else { return };
    let line = Line::to(&database);
    let desk = Desk::new(StoreHandle::open(&line.settings(&database)).unwrap());
    works(&desk);
    line.delay(Duration::from_millis(50));
    for name in 0..20 {
        desk.put(row(name, "/a"));
    }
    desk.flush();
    for name in 0..20 {
        assert_eq!(desk.find(name), Some(row(name, "/a")));
    }
    assert_eq!(desk.handle.stats().puts_failed.load(Ordering::Relaxed), 0);
    desk.end();
}

#[test]
fn a_line_slower_than_the_time_out_costs_misses_and_is_used_again() {
    let Some(database) = cluster::database() else { return };
    let line = Line::to(&database);
    let desk = Desk::new(StoreHandle::open(&line.settings(&database)).unwrap());
    works(&desk);
    line.delay(Duration::from_millis(1500));
    eventually("look-ups time out", || {
        let started = Instant::now();
        let found = desk.get(digest(7));
        assert!(started.elapsed() < PATIENCE / 4, "a look-up waited for too long");
        matches!(found, GetOutcome::Unavailable(Unavailable::Timeout))
    });
    assert!(desk.handle.stats().unavailable().is_some());
    line.delay(Duration::ZERO);
    works(&desk);
    desk.end();
}

/// Nobody closes these connections, and the system sees nothing wrong with them.
#[test]
fn connections_that_swallow_everything_are_given_up_and_replaced() {
    let Some(database) = cluster::database() else { return };
    let line = Line::to(&database);
    let desk = Desk::new(StoreHandle::open(&line.settings(&database)).unwrap());
    works(&desk);
    for _ in 0..3 {
        line.swallow(false);
        let found = desk.get(digest(7));
        assert!(!matches!(found, GetOutcome::Miss), "{found:?}");
        works(&desk);
    }
    // A purge waits no longer than the writer, and is done when the database is there again.
    line.swallow(true);
    assert!(desk.wait(desk.client.clear()).is_err());
    line.state.swallow_new.store(false, Ordering::SeqCst);
    eventually("the clear that failed is done", || {
        matches!(desk.get(digest(7)), GetOutcome::Miss)
            && desk.handle.stats().unavailable().is_none()
    });
    works(&desk);
    desk.end();
}

#[test]
fn a_locked_table_costs_one_time_out_and_not_one_a_lookup() {
    let Some(database) = cluster::database() else { return };
    let settings = Settings {
        backend: Backend::Postgres,
        dsn: database.dsn(),
        statement_timeout: Duration::from_millis(600),
        ..Settings::default()
    };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    works(&desk);
    let mut other = database.connect();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("LOCK TABLE apiproxyd_entries_v1 IN ACCESS EXCLUSIVE MODE").unwrap();
    eventually("a look-up times out", || {
        matches!(desk.get(digest(7)), GetOutcome::Unavailable(Unavailable::Timeout))
    });
    let started = Instant::now();
    for _ in 0..100 {
        let found = desk.get(digest(7));
        assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Timeout)), "{found:?}");
    }
    assert!(started.elapsed() < settings.statement_timeout, "{:?}", started.elapsed());
    lock.rollback().unwrap();
    eventually("it is noticed", || matches!(desk.get(digest(7)), GetOutcome::Hit(_)));
    works(&desk);
    desk.end();
}
