//! The real server over loopback: requests per second, latency, and server CPU per request.
//!
//! `cargo bench --bench throughput [-- [--seconds N] [--rounds N] [WORD...]]`; words choose the
//! scenarios whose name contains one of them. `APIPROXYD_TEST_DRIVER` forces a driver. Under
//! `cargo test --benches` each scenario sends 50 requests.
//!
//! The figure to compare is **server CPU per request**: the core threads' own time from the
//! scheduler's account, which holds on a noisy machine. Each scenario is judged by its ratio to
//! the **floor** of the same round: a bare loop that parses with httparse and writes the very
//! bytes the server answers a hit with, in a process of its own on the same CPU and driver.
//!
//! ```text
//!   CPU 0: server (one core) | server without L1 | floor 1 KiB | floor 64 KiB   one at a time
//!   CPU 1: load generator and origin
//! ```

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench does I/O")]

#[path = "throughput/floor.rs"]
mod floor;
#[path = "throughput/idle.rs"]
mod idle;
#[path = "throughput/load.rs"]
mod load;
#[path = "throughput/origin.rs"]
mod origin;
#[path = "throughput/process.rs"]
mod process;
#[path = "throughput/report.rs"]
mod report;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use apiproxyd::net::runtime::{Driver, allowed_cpus, pin_to};

use load::Load;
use process::Process;
use report::{Row, Sample};

fn main() {
    if let Ok(canned) = std::env::var(floor::VARIABLE) {
        return floor::serve(&canned);
    }
    let options = Options::parse();
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|it| options.wants(it.name)).collect();
    let mut bench = Bench::start();
    let mut samples: HashMap<&str, Vec<Sample>> = HashMap::new();
    for round in 0..options.rounds {
        // The floor of a shape is measured once a round, next to the first that needs it.
        let mut floors: HashMap<(usize, usize, usize), Sample> = HashMap::new();
        for scenario in &chosen {
            let shape = (scenario.body_bytes, scenario.connections, scenario.depth);
            let floor = *floors.entry(shape).or_insert_with(|| bench.floor(scenario, &options));
            let server = bench.server(scenario, &options, round);
            samples.entry(scenario.name).or_default().push(server.above(&floor));
        }
    }
    let rows: Vec<Row> = chosen
        .iter()
        .map(|it| Row::median(it.name, &mut samples.remove(it.name).unwrap()))
        .collect();
    report::print(&rows, bench.checksum);
    if options.measuring {
        let idle_bytes = options.wants("idle").then(|| bench.idle_bytes());
        report::write(&rows, idle_bytes, driver());
    }
}

/// What is asked for, and how.
struct Scenario {
    name: &'static str,
    kind: Kind,
    body_bytes: usize,
    connections: usize,
    /// Requests in flight on a connection.
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In memory.
    L1,
    /// In SQLite, memory being off.
    L2,
    /// Never asked for before; stored.
    Miss,
    /// `no-store`.
    Pass,
}

const KIB: usize = 1024;

/// The canonical workload: the names are those of the table and the JSON.
const SCENARIOS: &[Scenario] = &[
    Scenario::new("hit-1k-c1", Kind::L1, KIB, 1, 1),
    Scenario::new("hit-1k-c64", Kind::L1, KIB, 64, 1),
    Scenario::new("hit-1k-c64-pipelined", Kind::L1, KIB, 64, 16),
    Scenario::new("hit-64k-c1", Kind::L1, 64 * KIB, 1, 1),
    Scenario::new("hit-64k-c64", Kind::L1, 64 * KIB, 64, 1),
    Scenario::new("hit-64k-c64-pipelined", Kind::L1, 64 * KIB, 64, 16),
    Scenario::new("l2-1k-c64", Kind::L2, KIB, 64, 1),
    Scenario::new("l2-64k-c64", Kind::L2, 64 * KIB, 64, 1),
    Scenario::new("miss-1k-c64", Kind::Miss, KIB, 64, 1),
    Scenario::new("miss-64k-c64", Kind::Miss, 64 * KIB, 64, 1),
    Scenario::new("pass-1k-c64", Kind::Pass, KIB, 64, 1),
    Scenario::new("pass-64k-c64", Kind::Pass, 64 * KIB, 64, 1),
];

impl Scenario {
    const fn new(
        name: &'static str,
        kind: Kind,
        body_bytes: usize,
        connections: usize,
        depth: usize,
    ) -> Self {
        Self { name, kind, body_bytes, connections, depth }
    }

    /// The request's target number `number` of `round`.
    fn target(&self, round: usize, number: u64) -> String {
        let bytes = self.body_bytes;
        match self.kind {
            Kind::L1 | Kind::L2 => format!("/api/keep/{bytes}/{}", number % KEPT_TARGETS),
            Kind::Miss => format!("/api/keep/{bytes}/{round}-{number}"),
            Kind::Pass => format!("/api/pass/{bytes}/{}", number % KEPT_TARGETS),
        }
    }

    /// Misses of 64 KiB fill the disk: a few thousand show what they cost.
    fn requests_max(&self) -> u64 {
        if self.kind == Kind::Miss && self.body_bytes > KIB { 4_000 } else { u64::MAX }
    }
}

/// Targets that are asked for again: all of them fit the memory of one core.
const KEPT_TARGETS: u64 = 64;

/// The processes and what they answer.
struct Bench {
    /// By whether memory is on.
    servers: HashMap<bool, Process>,
    floors: HashMap<usize, Process>,
    checksum: u64,
    origin: origin::Origin,
    home: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let home = tempfile::TempDir::with_prefix("apiproxyd-bench-").unwrap();
        let cpus = allowed_cpus().unwrap();
        // Load and origin, away from the server where there is a second CPU.
        pin_to(*cpus.last().unwrap()).unwrap();
        let origin = origin::Origin::start(driver());
        let servers = [true, false].map(|memory| {
            let file = home.path().join(format!("memory-{memory}"));
            (memory, process::server(origin.addr(), cpus[0], memory, &file, driver_word()))
        });
        let servers = HashMap::from(servers);
        let mut bench = Self { servers, floors: HashMap::new(), checksum: 0, origin, home };
        for body_bytes in [KIB, 64 * KIB] {
            let file = bench.home.path().join(format!("canned-{body_bytes}"));
            std::fs::write(&file, bench.hit(body_bytes)).unwrap();
            let floor = process::floor(&file, cpus[0], driver_word());
            bench.floors.insert(body_bytes, floor);
        }
        bench
    }

    /// A hit, byte by byte as the server answers it; fills both tiers on the way.
    fn hit(&self, body_bytes: usize) -> Vec<u8> {
        let mut hit = Vec::new();
        for server in [&self.servers[&false], &self.servers[&true]] {
            for number in 0..KEPT_TARGETS {
                let target = format!("/api/keep/{body_bytes}/{number}");
                load::once(server.addr, &target);
                hit = load::once(server.addr, &target);
                let head = String::from_utf8_lossy(&hit[..hit.len().min(KIB)]);
                assert!(head.contains("X-Cache: HIT"), "not a hit: {head}");
            }
        }
        hit
    }

    /// Resident memory for each idle connection, of a server of its own.
    fn idle_bytes(&self) -> f64 {
        let cpu = allowed_cpus().unwrap()[0];
        let file = self.home.path().join("idle");
        let server = process::server(self.origin.addr(), cpu, true, &file, driver_word());
        idle::bytes_per_connection(&server, 6)
    }

    /// The floor in the shape of a scenario.
    fn floor(&mut self, scenario: &'static Scenario, options: &Options) -> Sample {
        let sample = measure(scenario, options, &self.floors[&scenario.body_bytes], 0);
        self.checksum = self.checksum.wrapping_add(sample.1);
        sample.0
    }

    /// The server that a scenario is for.
    fn server(&mut self, scenario: &'static Scenario, options: &Options, round: usize) -> Sample {
        let memory = scenario.kind != Kind::L2;
        let sample = measure(scenario, options, &self.servers[&memory], round);
        self.checksum = self.checksum.wrapping_add(sample.1);
        sample.0
    }
}

/// One run after a short one to warm up, and a checksum of its answers.
fn measure(
    scenario: &'static Scenario,
    options: &Options,
    server: &Process,
    round: usize,
) -> (Sample, u64) {
    let addr = server.addr;
    let make = move |number| load::request(addr, &scenario.target(round, number));
    // Made beforehand where they repeat: the client must stay cheaper than the server.
    let kept: Rc<[Vec<u8>]> = (0..KEPT_TARGETS).map(make).collect();
    let request = move |number: u64, output: &mut Vec<u8>| match scenario.kind {
        Kind::Miss => output.extend_from_slice(&make(number)),
        _ => output.extend_from_slice(&kept[(number % KEPT_TARGETS) as usize]),
    };
    let mut load = Load {
        addr,
        connections: scenario.connections,
        depth: scenario.depth,
        body_bytes: scenario.body_bytes,
        span: options.warm_up,
        requests_max: options.requests_max.min(scenario.requests_max() / 4),
        first: 0,
        driver: driver(),
    };
    // Later requests go on counting, so that a miss stays one.
    load.first = load.run(request.clone()).requests;
    load.span = options.span;
    load.requests_max = options.requests_max.min(scenario.requests_max());
    let before = server.core_cpu();
    let outcome = load.run(request);
    (Sample::new(&outcome, server.core_cpu() - before), outcome.checksum)
}

struct Options {
    measuring: bool,
    rounds: usize,
    span: Duration,
    warm_up: Duration,
    requests_max: u64,
    words: Vec<String>,
}

impl Options {
    /// `cargo bench` passes `--bench`; `cargo test --benches` does not.
    fn parse() -> Self {
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        let measuring = arguments.iter().any(|it| it == "--bench");
        arguments.retain(|it| it != "--bench");
        let mut number = |name: &str, preset: f64| {
            let Some(at) = arguments.iter().position(|it| it == name) else { return preset };
            let value = arguments.drain(at..at + 2).nth(1);
            value.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{name} wants a number"))
        };
        let (seconds, rounds) = (number("--seconds", 2.0), number("--rounds", 3.0));
        let span = if measuring { seconds } else { 60.0 };
        Self {
            measuring,
            rounds: if measuring { (rounds as usize).max(1) } else { 1 },
            span: Duration::from_secs_f64(span),
            warm_up: Duration::from_secs_f64((span / 5.0).min(0.5)),
            requests_max: if measuring { u64::MAX } else { 50 },
            words: arguments.into_iter().filter(|it| !it.starts_with('-')).collect(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|it| name.contains(it.as_str()))
    }
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
