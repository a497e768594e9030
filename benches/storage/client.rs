//! Look-ups by the store's client, in an event loop as a core has it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use apiproxyd::base::Wall;
use apiproxyd::net::runtime::{ENTRIES_DEFAULT, Runtime, allowed_cpus, pin_to};
use apiproxyd::store::{Backend, Client, GetOutcome, Row, Settings, StoreHandle};

use super::{BODY_BYTES, Options, Outcome, Place, Scenario, driver, scattered};
use crate::beside::Running;
use crate::report::Histogram;

/// A store with so many rows.
pub struct Bench {
    store: StoreHandle,
    entries: u64,
}

impl Bench {
    /// Opens it in the place, and fills it.
    pub fn start(place: &Place, entries: u32) -> Self {
        let settings = match place {
            Place::Sqlite(folder) => {
                Settings { path: folder.path().join("client.db"), ..Settings::default() }
            }
            Place::Postgres(database) => {
                let (backend, dsn) = (Backend::Postgres, database.dsn());
                Settings { backend, dsn, ..Settings::default() }
            }
        };
        // Before this thread is pinned: the threads of the store inherit where it may run.
        let store = StoreHandle::open(&settings).unwrap();
        let bench = Self { store, entries: u64::from(entries) };
        bench.in_loop(async |client: Client| {
            while matches!(client.get(digest(0)).await, GetOutcome::Unavailable(_)) {
                monoio::time::sleep(Duration::from_millis(5)).await;
            }
            filling(&client, (0..bench.entries).map(|name| row(name, BODY_BYTES))).await;
        });
        bench
    }

    /// Runs in an event loop of its own, pinned as a core's is, with a client that is drained.
    fn in_loop<T: Send>(&self, run: impl AsyncFnOnce(Client) -> T + Send) -> T {
        std::thread::scope(|scope| {
            let looped = scope.spawn(move || {
                pin_to(allowed_cpus().unwrap()[0]).unwrap();
                in_loop(&self.store, run)
            });
            looped.join().unwrap()
        })
    }

    /// One scenario, after a short run to warm up.
    pub fn run(&self, scenario: &Scenario, options: &Options) -> Outcome {
        let pace = (scenario.in_flight, scenario.every());
        self.look_up(pace, options.span / 4, &Arc::default());
        let beside = Running::orders(&scenario.beside, &self.store, self.entries);
        let over = beside.over();
        let (latency, requests, elapsed) = self.look_up(pace, options.span, &over);
        Outcome { latency, requests, elapsed, beside: beside.end(), checksum: self.entries }
    }

    fn look_up(
        &self,
        (in_flight, every): (usize, Option<Duration>),
        span: Duration,
        over: &Arc<AtomicBool>,
    ) -> (Histogram, u64, Duration) {
        let entries = self.entries;
        self.in_loop(async move |client: Client| {
            let state = Rc::new(RefCell::new((Histogram::default(), 0_u64)));
            let start = Instant::now();
            let tasks: Vec<_> = (0..in_flight as u64)
                .map(|task| {
                    let (client, state) = (client.clone(), Rc::clone(&state));
                    let over = Arc::clone(over);
                    monoio::spawn(async move {
                        let mut turn = task << 32;
                        while start.elapsed() < span && !over.load(Ordering::Relaxed) {
                            if let Some(every) = every {
                                // Evenly from all tasks together.
                                let turns = (turn & 0xffff_ffff) * in_flight as u64 + task;
                                let due = start + every * u32::try_from(turns).unwrap();
                                let left = due.saturating_duration_since(Instant::now());
                                monoio::time::sleep(left).await;
                            }
                            turn += 1;
                            let name = scattered(turn) % entries;
                            let asked = Instant::now();
                            match client.get(digest(name)).await {
                                GetOutcome::Hit(row) => assert_eq!(row.body.len(), BODY_BYTES),
                                other => panic!("row {name}: {other:?}"),
                            }
                            let mut state = state.borrow_mut();
                            state.0.add(asked.elapsed(), 1);
                            state.1 += 1;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            let elapsed = start.elapsed();
            let (latency, requests) = std::mem::take(&mut *state.borrow_mut());
            (latency, requests, elapsed)
        })
    }
}

/// Runs in an event loop of this thread, with a client that is drained.
pub fn in_loop<T>(store: &StoreHandle, run: impl AsyncFnOnce(Client) -> T) -> T {
    let mut runtime = Runtime::build(driver(), ENTRIES_DEFAULT).unwrap();
    runtime.block_on(async {
        let client = store.client();
        drop(monoio::spawn(client.drain()));
        run(client).await
    })
}

/// Puts rows, as fast as the store takes them.
pub async fn filling(client: &Client, rows: impl Iterator<Item = Row>) {
    for row in rows {
        while client.put(row.clone(), client.epoch()).is_err() {
            client.flush().await.unwrap();
        }
    }
    client.flush().await.unwrap();
}

/// As the daemon's are: without order.
pub fn digest(name: u64) -> [u8; 16] {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&scattered(name).to_be_bytes());
    digest[8..].copy_from_slice(&name.to_be_bytes());
    digest
}

/// A row with the sizes of an API's answer.
pub fn row(name: u64, body_bytes: usize) -> Row {
    Row {
        digest: digest(name),
        path: format!("http://127.0.0.1:9000 /v1/items/{name:07}").into(),
        meta: vec![b'm'; 400].into(),
        body: vec![name as u8; body_bytes].into(),
        stored_at: Wall::from_secs(1_700_000_000),
        keep_until: Wall::from_secs(4_000_000_000),
        expired_at: None,
    }
}
