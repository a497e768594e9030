//! Look-ups through the whole daemon.

use std::rc::Rc;
use std::time::Duration;

use apiproxyd::net::runtime::{allowed_cpus, pin_to};

use super::{BODY_BYTES, Options, Outcome, Place, Scenario, driver, driver_word, scattered};
use crate::beside::Running;
use crate::load::{self, Load};
use crate::origin::Origin;
use crate::process::{self, Process};

/// A daemon whose second tier is full.
pub struct Bench {
    server: Process,
    entries: u64,
    _origin: Origin,
    _home: tempfile::TempDir,
}

impl Bench {
    /// Starts it, and has it store so many answers.
    pub fn start(place: &Place, entries: u32) -> Self {
        let cpus = allowed_cpus().unwrap();
        pin_to(*cpus.last().unwrap()).unwrap();
        let origin = Origin::start(driver());
        let home = tempfile::TempDir::with_prefix("apiproxyd-bench-").unwrap();
        let cache = match place {
            Place::Sqlite(folder) => serde_json::json!({
                "path": folder.path().join("http.db"), "memory_cache_enabled": false,
            }),
            Place::Postgres(database) => serde_json::json!({
                "backend": "postgres", "postgres_dsn": database.dsn(),
                "memory_cache_enabled": false,
            }),
        };
        let config = serde_json::json!({
            "entry_point": format!("http://{}", origin.addr()),
            // A list pins; a bare number would be a count.
            "server": {
                "port": 0, "cores": format!("{0}-{0}", cpus[0]), "driver": driver_word(),
            },
            "cache": cache,
            "security": { "block_private_ips": false, "rate_limit_enabled": false },
        });
        let server = process::configured(&config, home.path());
        let bench = Self { server, entries: u64::from(entries), _origin: origin, _home: home };
        // Twice: what the queue had no room for the first time is stored the second time.
        for _ in 0..2 {
            bench.load(64, Duration::from_secs(600), bench.entries, |number| number);
        }
        bench
    }

    fn load(
        &self,
        connections: usize,
        span: Duration,
        requests_max: u64,
        name: impl Fn(u64) -> u64 + 'static,
    ) -> load::Outcome {
        let addr = self.server.addr;
        let target = |name: u64| format!("/api/keep/{BODY_BYTES}/{name}");
        let made: Rc<[Vec<u8>]> =
            (0..self.entries).map(|it| load::request(addr, &target(it))).collect();
        let load = Load {
            addr,
            connections,
            depth: 1,
            body_bytes: BODY_BYTES,
            span,
            requests_max,
            first: 0,
            driver: driver(),
        };
        load.run(move |number, output| output.extend_from_slice(&made[name(number) as usize]))
    }

    /// One scenario, after a short run to warm up.
    pub fn run(&self, scenario: &Scenario, options: &Options) -> Outcome {
        let (entries, few) = (self.entries, if options.measuring { u64::MAX } else { 50 });
        let random = move |number: u64| scattered(number) % entries;
        self.load(scenario.in_flight, options.span / 4, few, random);
        let beside = Running::misses(&scenario.beside, self.server.addr);
        let before = self.cpu();
        let outcome = self.load(scenario.in_flight, options.span, few, random);
        let spent = self.cpu().map(|it| it.as_secs_f64() * 1e6);
        let before = before.map(|it| it.as_secs_f64() * 1e6);
        let each = |at: usize| (spent[at] - before[at]) / outcome.requests as f64;
        // What holds also where others take the CPUs away.
        let cpu = format!(" (CPU: core {:.1} us, store {:.1} us each)", each(0), each(1));
        Outcome {
            latency: outcome.latency,
            requests: outcome.requests,
            elapsed: outcome.elapsed,
            beside: beside.end() + &cpu,
            checksum: outcome.checksum,
        }
    }

    /// CPU time of the core and of the storage threads.
    fn cpu(&self) -> [Duration; 2] {
        [self.server.core_cpu(), self.server.cpu_of("store-")]
    }
}
