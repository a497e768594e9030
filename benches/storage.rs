//! Look-ups in the second tier: how many a second, and how long one takes.
//!
//! `cargo bench --bench storage [-- [--seconds N] [WORD...]]`; words choose the scenarios whose
//! name contains one of them. Under `cargo test --benches` everything runs once, in small.
//!
//! 100,000 entries of 1 KiB, warm, in random order; on SQLite, and on PostgreSQL in a cluster of
//! its own that is made for the run and removed after it. Two vantage points:
//!
//! * `http`: the whole daemon, one core, memory off, so that each hit is one of the second tier.
//!   What is measured has the way over loopback in it, and the load generator beside it.
//! * `client`: the store's client in an event loop of this process: the way to the storage thread,
//!   the look-up, and back.
//!
//! ```text
//!   CPU 0: the daemon's core, or the client's event loop      unpinned: storage threads, database
//!   CPU 1: load generator, origin, writers beside
//! ```

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench does I/O")]

#[path = "storage/beside.rs"]
mod beside;
#[path = "storage/client.rs"]
mod client;
#[path = "../tests/support/postgres.rs"]
mod cluster;
#[allow(dead_code, reason = "shared with another bench")]
#[path = "throughput/floor.rs"]
mod floor;
#[path = "storage/http.rs"]
mod http;
#[allow(dead_code, reason = "shared with another bench")]
#[path = "throughput/load.rs"]
mod load;
#[allow(dead_code, reason = "shared with another bench")]
#[path = "throughput/origin.rs"]
mod origin;
#[allow(dead_code, reason = "shared with another bench")]
#[path = "throughput/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with another bench")]
#[path = "throughput/report.rs"]
mod report;

use std::net::SocketAddr;
use std::time::Duration;

use apiproxyd::net::runtime::Driver;

use beside::Beside;
use report::Histogram;

fn main() {
    let options = Options::parse();
    println!(
        "{:<38} {:>9} {:>8} {:>8} {:>9} {:>9}  goal",
        "scenario", "per s", "p50 us", "p99 us", "p99.9 us", "longest"
    );
    let mut checksum = 0;
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let chosen = SCENARIOS.iter().filter(|it| it.backend == backend);
        let chosen: Vec<_> = chosen.filter(|it| options.wants(it.name)).collect();
        if chosen.is_empty() {
            continue;
        }
        let Some(place) = Place::of(backend) else {
            println!("{backend:?}: PostgreSQL is not installed; its scenarios are left out");
            continue;
        };
        let http: Vec<_> = chosen.iter().filter(|it| it.vantage == Vantage::Http).collect();
        if !http.is_empty() {
            let bench = http::Bench::start(&place, options.entries);
            for scenario in http {
                checksum ^= scenario.report(bench.run(scenario, &options));
            }
        }
        let client: Vec<_> = chosen.iter().filter(|it| it.vantage == Vantage::Client).collect();
        if !client.is_empty() {
            let bench = client::Bench::start(&place, options.entries);
            for scenario in client {
                checksum ^= scenario.report(bench.run(scenario, &options));
            }
        }
    }
    println!("checksum {checksum:016x}");
}

/// One line of the table.
struct Scenario {
    name: &'static str,
    backend: Backend,
    vantage: Vantage,
    /// Look-ups at the same time.
    in_flight: usize,
    /// Look-ups a second; as many as go when 0.
    pace: u32,
    beside: Beside,
    goal: Goal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Vantage {
    Http,
    Client,
}

/// What is to be reached.
#[derive(Clone, Copy)]
struct Goal {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

const NONE: Goal = Goal { per_second: 0.0, p50: Duration::MAX, p99: Duration::MAX };
const ALONE: Goal = Goal { p50: Duration::from_micros(100), p99: Duration::from_millis(1), ..NONE };
const MANY: Goal = Goal { per_second: 30_000.0, ..NONE };
const BESIDE: Goal = Goal { p99: Duration::from_millis(5), ..NONE };
const SERVER: Goal = Goal { per_second: 8_000.0, ..NONE };
/// Of one at a time, or of a stated pace: where 64 ask as fast as they get answers, each waits for
/// 63 others.
const SERVED: Goal = Goal { p50: Duration::from_millis(1), ..NONE };

use Backend::{Postgres, Sqlite};
use Vantage::{Client, Http};

const SCENARIOS: &[Scenario] = &[
    Scenario::new("http sqlite, 1 at a time", Sqlite, Http, 1, Beside::Nothing, ALONE),
    Scenario::new("http sqlite, 64 connections", Sqlite, Http, 64, Beside::Nothing, MANY),
    Scenario::new("http sqlite, 1, 1000 puts/s beside", Sqlite, Http, 1, Beside::Puts, BESIDE),
    Scenario::new("http sqlite, 64, 1000 puts/s beside", Sqlite, Http, 64, Beside::Puts, BESIDE),
    Scenario::new("client sqlite, 1 at a time", Sqlite, Client, 1, Beside::Nothing, ALONE),
    Scenario::new("client sqlite, 64 in flight", Sqlite, Client, 64, Beside::Nothing, MANY),
    Scenario::new("client sqlite, 1, 1000 puts/s beside", Sqlite, Client, 1, Beside::Puts, BESIDE),
    Scenario::new(
        "client sqlite, 64, 1000 puts/s beside",
        Sqlite,
        Client,
        64,
        Beside::Puts,
        BESIDE,
    ),
    Scenario::new("client sqlite, 1, 4 MiB puts beside", Sqlite, Client, 1, Beside::Large, BESIDE),
    Scenario::new("client sqlite, 64, 4 MiB puts beside", Sqlite, Client, 64, Beside::Large, NONE),
    Scenario::new("client sqlite, 64, purges beside", Sqlite, Client, 64, Beside::Purges, NONE),
    Scenario::new("client sqlite, 64, 4 MiB gets beside", Sqlite, Client, 64, Beside::Gets, NONE),
    Scenario::new("client sqlite, 1, a sweep beside", Sqlite, Client, 1, Beside::Sweep, BESIDE),
    Scenario::new("client sqlite, 64, a sweep beside", Sqlite, Client, 64, Beside::Sweep, BESIDE),
    Scenario::new("http postgres, 1 at a time", Postgres, Http, 1, Beside::Nothing, SERVED),
    Scenario::new("http postgres, 64 connections", Postgres, Http, 64, Beside::Nothing, SERVER),
    Scenario::new("client postgres, 1 at a time", Postgres, Client, 1, Beside::Nothing, SERVED),
    Scenario::new("client postgres, 64 in flight", Postgres, Client, 64, Beside::Nothing, SERVER),
    Scenario::new(
        "client postgres, 64, 8000/s asked",
        Postgres,
        Client,
        64,
        Beside::Nothing,
        SERVED,
    )
    .paced(8_200),
    Scenario::new("client postgres, 64, 1000 puts/s", Postgres, Client, 64, Beside::Puts, NONE),
    Scenario::new("client postgres, 64, a sweep beside", Postgres, Client, 64, Beside::Sweep, NONE),
];

impl Scenario {
    const fn new(
        name: &'static str,
        backend: Backend,
        vantage: Vantage,
        in_flight: usize,
        beside: Beside,
        goal: Goal,
    ) -> Self {
        Self { name, backend, vantage, in_flight, pace: 0, beside, goal }
    }

    const fn paced(self, pace: u32) -> Self {
        Self { pace, ..self }
    }

    /// Time from one look-up to the next.
    fn every(&self) -> Option<Duration> {
        (self.pace > 0).then(|| Duration::from_secs(1) / self.pace)
    }

    /// Prints its line; hands its checksum on.
    fn report(&self, outcome: Outcome) -> u64 {
        let Outcome { latency, requests, elapsed, beside, checksum } = outcome;
        let per_second = requests as f64 / elapsed.as_secs_f64();
        let of = |share| latency.quantile(share);
        let micros = |span: Duration| span.as_secs_f64() * 1e6;
        let reached = per_second >= self.goal.per_second
            && of(0.5) <= self.goal.p50
            && of(0.99) <= self.goal.p99;
        println!(
            "{:<38} {per_second:>9.0} {:>8.0} {:>8.0} {:>9.0} {:>9.0}  {}{}{beside}",
            self.name,
            micros(of(0.5)),
            micros(of(0.99)),
            micros(of(0.999)),
            micros(of(1.0)),
            self.goal.words(),
            if self.goal.words().is_empty() || reached { "" } else { ": MISSED" },
        );
        checksum
    }
}

impl Goal {
    fn words(&self) -> String {
        let mut words = Vec::new();
        if self.per_second > 0.0 {
            words.push(format!(">= {:.0}/s", self.per_second));
        }
        for (name, span) in [("p50", self.p50), ("p99", self.p99)] {
            if span < Duration::MAX {
                words.push(format!("{name} < {span:?}"));
            }
        }
        words.join(", ")
    }
}

/// What a run saw.
struct Outcome {
    latency: Histogram,
    requests: u64,
    elapsed: Duration,
    /// What was done beside, in words.
    beside: String,
    checksum: u64,
}

/// Where the rows are; removed when dropped.
enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(cluster::Database),
}

impl Place {
    fn of(backend: Backend) -> Option<Self> {
        Some(match backend {
            Backend::Sqlite => {
                Self::Sqlite(tempfile::TempDir::with_prefix("apiproxyd-bench-").unwrap())
            }
            Backend::Postgres => Self::Postgres(cluster::own_cluster()?),
        })
    }
}

struct Options {
    measuring: bool,
    span: Duration,
    entries: u32,
    words: Vec<String>,
}

impl Options {
    /// `cargo bench` passes `--bench`; `cargo test --benches` does not.
    fn parse() -> Self {
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        let measuring = arguments.iter().any(|it| it == "--bench");
        arguments.retain(|it| it != "--bench");
        let at = arguments.iter().position(|it| it == "--seconds");
        let seconds = at.map(|at| arguments.drain(at..at + 2).nth(1).unwrap());
        let seconds = seconds.map_or(3.0, |it| it.parse().expect("--seconds wants a number"));
        Self {
            measuring,
            span: Duration::from_secs_f64(if measuring { seconds } else { 0.05 }),
            entries: if measuring { 100_000 } else { 500 },
            words: arguments.into_iter().filter(|it| !it.starts_with('-')).collect(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|it| name.contains(it.as_str()))
    }
}

/// Bytes of a body.
const BODY_BYTES: usize = 1024;

/// Numbers without pattern, so that each look-up meets another page.
fn scattered(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// The driver of all sides.
fn driver() -> Driver {
    match driver_word().as_str() {
        "io_uring" => Driver::IoUring,
        "epoll" => Driver::Epoll,
        _ => Driver::Auto,
    }
}

fn driver_word() -> String {
    std::env::var("APIPROXYD_TEST_DRIVER").unwrap_or_else(|_| "auto".to_owned())
}

/// Where a process says that it listens: `... http://ADDR:PORT` at the end of its first line.
fn listening(line: &str) -> Option<SocketAddr> {
    line.trim_end().rsplit_once("http://")?.1.parse().ok()
}
