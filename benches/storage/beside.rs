//! What goes on beside the look-ups, in threads of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use apiproxyd::base::Wall;
use apiproxyd::store::{Client, Effect, GetOutcome, Purge, Row, Selection, StoreHandle};

use super::{BODY_BYTES, load};
use crate::client::{digest, filling, in_loop, row};

/// Something that the store does at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    /// A thousand puts of 1 KiB a second.
    Puts,
    /// Puts of 4 MiB, one behind the other.
    Large,
    /// Look-ups of 4 MiB, one behind the other.
    Gets,
    /// Puts of 1 KiB and purges of their path, one behind the other.
    Purges,
    /// The janitor's sweep of as many rows as are looked up; measured as long as it takes.
    Sweep,
}

/// It is going on.
pub struct Running {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// There is nothing more to measure.
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    started: Instant,
    what: &'static str,
}

impl Running {
    fn new(what: &'static str) -> Self {
        Self {
            threads: Vec::new(),
            stop: Arc::default(),
            over: Arc::default(),
            done: Arc::default(),
            started: Instant::now(),
            what,
        }
    }

    /// By orders to a store.
    pub fn orders(beside: &Beside, store: &StoreHandle, entries: u64) -> Self {
        let what = match beside {
            Beside::Nothing => return Self::new(""),
            Beside::Puts => "puts",
            Beside::Large => "puts of 4 MiB",
            Beside::Gets => "look-ups of 4 MiB",
            Beside::Purges => "purges",
            Beside::Sweep => "rows swept",
        };
        let mut running = Self::new(what);
        let (stop, over) = (Arc::clone(&running.stop), Arc::clone(&running.over));
        let done = Arc::clone(&running.done);
        let (store, beside) = (store.clone(), *beside);
        let (ready, wait) = std::sync::mpsc::channel();
        running.threads.push(std::thread::spawn(move || {
            in_loop(&store, async |client: Client| {
                if beside == Beside::Gets {
                    client.put(row(LARGE, 4 << 20), client.epoch()).unwrap();
                    client.flush().await.unwrap();
                }
                if beside == Beside::Sweep {
                    filling(&client, (LARGE..LARGE + entries).map(past)).await;
                    ready.send(()).unwrap();
                    let swept = client.sweep(Wall::from_secs(2_000_000_000)).await.unwrap();
                    done.store(swept, Ordering::Relaxed);
                    over.store(true, Ordering::Relaxed);
                    return;
                }
                ready.send(()).unwrap();
                let started = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let turn = done.fetch_add(1, Ordering::Relaxed);
                    order(beside, &client, turn, started).await;
                }
            });
        }));
        wait.recv().unwrap();
        running.started = Instant::now();
        running
    }

    /// By requests that the daemon has to store the answers of.
    pub fn misses(beside: &Beside, addr: SocketAddr) -> Self {
        if *beside == Beside::Nothing {
            return Self::new("");
        }
        let mut running = Self::new("puts");
        for _ in 0..CLIENTS {
            let (stop, done) = (Arc::clone(&running.stop), Arc::clone(&running.done));
            let started = running.started;
            running.threads.push(std::thread::spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let turn = done.fetch_add(1, Ordering::Relaxed);
                    until(started, turn);
                    let target = format!("/api/keep/{BODY_BYTES}/beside-{turn}-{started:?}");
                    let target = target.replace([' ', '{', '}'], "");
                    stream.write_all(&load::request(addr, &target)).unwrap();
                    let (mut bytes, mut part) = (0, [0; 4096]);
                    while bytes <= BODY_BYTES {
                        bytes += stream.read(&mut part).unwrap();
                    }
                }
            }));
        }
        running
    }

    /// Whether there is nothing more to measure.
    pub fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    /// Stops it; says what was done, in words.
    pub fn end(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let (mut done, mut span) = (self.done.load(Ordering::Relaxed), self.started.elapsed());
        self.threads.into_iter().for_each(|it| it.join().unwrap());
        if done == 0 {
            // One long order.
            (done, span) = (self.done.load(Ordering::Relaxed), self.started.elapsed());
        }
        if self.what.is_empty() {
            return String::new();
        }
        format!(" ({:.0} {}/s beside)", done as f64 / span.as_secs_f64(), self.what)
    }
}

async fn order(beside: Beside, client: &Client, turn: u64, started: Instant) {
    match beside {
        Beside::Nothing | Beside::Sweep => {}
        Beside::Puts => {
            let due = started + PUT_EVERY * u32::try_from(turn).unwrap_or(u32::MAX);
            monoio::time::sleep(due.saturating_duration_since(Instant::now())).await;
            client.put(row(LARGE + 1 + turn, BODY_BYTES), client.epoch()).unwrap();
        }
        Beside::Large => {
            client.put(row(LARGE + turn % 16, 4 << 20), client.epoch()).unwrap();
            client.flush().await.unwrap();
        }
        Beside::Gets => {
            let found = client.get(digest(LARGE)).await;
            assert!(matches!(found, GetOutcome::Hit(_)), "{found:?}");
        }
        Beside::Purges => {
            let row = row(LARGE + turn, BODY_BYTES);
            let selection = Selection::Path(row.path.clone());
            client.put(row, client.epoch()).unwrap();
            let removed = client.purge(Purge { selection, effect: Effect::Remove }).await;
            assert_eq!(removed, Ok(1));
        }
    }
}

/// A row whose time has passed.
fn past(name: u64) -> Row {
    Row { keep_until: Wall::from_secs(1_800_000_000), ..row(name, BODY_BYTES) }
}

fn until(started: Instant, turn: u64) {
    let due = started + PUT_EVERY * u32::try_from(turn).unwrap_or(u32::MAX);
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

const PUT_EVERY: Duration = Duration::from_millis(1);
/// Connections that make the daemon store: each waits for its answers.
const CLIENTS: usize = 4;
/// Beyond the rows that are looked up.
const LARGE: u64 = 1 << 40;
