//! What comes out of the runs: medians, a table, JSON.

use std::path::Path;
use std::time::Duration;

use apiproxyd::net::runtime::Driver;

use crate::load::Outcome;

/// One run, in numbers.
#[derive(Clone, Copy)]
pub struct Sample {
    requests: u64,
    per_second: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    /// Microseconds of the core threads' time for each request.
    cpu: f64,
    /// The same of the floor in the same round.
    floor_cpu: f64,
    floor_per_second: f64,
}

impl Sample {
    pub fn new(outcome: &Outcome, cpu: Duration) -> Self {
        let requests = outcome.requests.max(1) as f64;
        let per_second = requests / outcome.elapsed.as_secs_f64();
        let latency = |share| outcome.latency.quantile(share).as_secs_f64() * 1e6;
        let cpu = cpu.as_secs_f64() * 1e6 / requests;
        Self {
            requests: outcome.requests,
            per_second,
            p50: latency(0.5),
            p99: latency(0.99),
            p999: latency(0.999),
            cpu,
            floor_cpu: cpu,
            floor_per_second: per_second,
        }
    }

    /// With the floor it is to be compared with.
    pub fn above(mut self, floor: &Self) -> Self {
        (self.floor_cpu, self.floor_per_second) = (floor.cpu, floor.per_second);
        self
    }

    fn ratio(&self) -> f64 {
        self.cpu / self.floor_cpu
    }
}

/// A scenario's line: each figure the median of its rounds.
pub struct Row {
    name: &'static str,
    median: Sample,
    ratio: f64,
}

impl Row {
    pub fn median(name: &'static str, samples: &mut [Sample]) -> Self {
        let of = |figure: fn(&Sample) -> f64| {
            let mut figures: Vec<f64> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let median = Sample {
            requests: samples.iter().map(|it| it.requests).sum(),
            per_second: of(|it| it.per_second),
            p50: of(|it| it.p50),
            p99: of(|it| it.p99),
            p999: of(|it| it.p999),
            cpu: of(|it| it.cpu),
            floor_cpu: of(|it| it.floor_cpu),
            floor_per_second: of(|it| it.floor_per_second),
        };
        // Not the ratio of the medians: a round's two runs share the machine's mood.
        Self { name, median, ratio: of(Sample::ratio) }
    }
}

/// The table.
pub fn print(rows: &[Row], checksum: u64) {
    println!(
        "{:<22} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>10}",
        "scenario",
        "req/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "CPU us",
        "floor us",
        "ratio",
        "floor r/s"
    );
    for Row { name, median: it, ratio } in rows {
        println!(
            "{name:<22} {:>10.0} {:>9.0} {:>9.0} {:>9.0} {:>9.2} {:>9.2} {ratio:>7.2} {:>10.0}",
            it.per_second, it.p50, it.p99, it.p999, it.cpu, it.floor_cpu, it.floor_per_second
        );
    }
    println!("checksum {checksum:016x}");
}

/// The table as JSON: `target/throughput.json`.
pub fn write(rows: &[Row], idle_bytes: Option<f64>, driver: Driver) {
    if let Some(bytes) = idle_bytes {
        println!("idle keep-alive connection: {bytes:.0} bytes of resident memory");
    }
    let scenarios: Vec<_> = rows
        .iter()
        .map(|Row { name, median: it, ratio }| {
            serde_json::json!({
                "name": name,
                "requests": it.requests,
                "requests_per_second": it.per_second,
                "latency_p50_us": it.p50,
                "latency_p99_us": it.p99,
                "latency_p999_us": it.p999,
                "server_cpu_us_per_request": it.cpu,
                "floor_cpu_us_per_request": it.floor_cpu,
                "floor_requests_per_second": it.floor_per_second,
                "cpu_ratio_to_floor": ratio,
            })
        })
        .collect();
    let report = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "driver": format!("{driver:?}"),
        "idle_connection_bytes": idle_bytes,
        "scenarios": scenarios,
    });
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("throughput.json");
    match std::fs::write(&file, format!("{report:#}\n")) {
        Ok(()) => println!("written to {}", file.display()),
        Err(error) => eprintln!("{}: {error}", file.display()),
    }
}

/// Latencies in buckets of at most 1/32 of their value, from 1 ns to 18 minutes.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

const STEPS: u64 = 32;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 40 * STEPS as usize], total: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, took: Duration, times: u64) {
        let last = self.counts.len() - 1;
        self.counts[bucket(took.as_nanos() as u64).min(last)] += times;
        self.total += times;
    }

    /// The upper end of the bucket that holds the share's value.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return Duration::from_nanos(upper(bucket));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let power = u64::from(nanos.ilog2() - STEPS.ilog2());
    ((power + 1) * STEPS + (nanos >> power) - STEPS) as usize
}

fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << power) - 1
}
