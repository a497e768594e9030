//! How fast request heads are parsed, judged and classified, beside bare `httparse`.
//!
//! `httparse` finds lines and no more; ours also checks what it lets pass, validates target and
//! Host, decides the framing and notes the known names. The aim is at least 70 % of its bytes per
//! second in the same run. `cargo bench --bench parse` measures and prints the ratios;
//! `cargo test --benches` runs each case once.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use apiproxyd::http1::{Limits, Name, Slots, parse_request};
use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let heads = [("browser", browser()), ("minimal", minimal()), ("fields100", fields100())];
    for (name, head) in &heads {
        let mut group = criterion.benchmark_group(*name);
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function("httparse", |bencher| bencher.iter(|| bare(black_box(head))));
        group.bench_function("http1", |bencher| bencher.iter(|| ours(black_box(head))));
        group.finish();
    }
    criterion.final_summary();
    if std::env::args().any(|it| it == "--profile-time") {
        return;
    }
    let rounds = if std::env::args().any(|it| it == "--bench") { 40 } else { 1 };
    for (name, head) in &heads {
        let (bare, ours, checksum) = pair(head, rounds);
        println!(
            "{name:>10}: {} bytes, httparse {bare:.2} GB/s, http1 {ours:.2} GB/s, {:.0} % \
             (checksum {checksum})",
            head.len(),
            ours / bare * 100.0,
        );
    }
}

/// Best of short alternating rounds, so that a noisy neighbour or a clock change hits both alike.
fn pair(head: &[u8], rounds: u32) -> (f64, f64, usize) {
    let (mut best_bare, mut best_ours, mut checksum) = (Duration::MAX, Duration::MAX, 0);
    let count = if rounds == 1 { 1 } else { 20_000 };
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..count {
            checksum += bare(black_box(head));
        }
        best_bare = best_bare.min(start.elapsed());
        let start = Instant::now();
        for _ in 0..count {
            checksum += ours(black_box(head));
        }
        best_ours = best_ours.min(start.elapsed());
    }
    let rate = |time: Duration| head.len() as f64 * f64::from(count) / time.as_secs_f64() / 1e9;
    (rate(best_bare), rate(best_ours), checksum)
}

fn bare(head: &[u8]) -> usize {
    let mut slots = [const { MaybeUninit::uninit() }; 100];
    let mut request = httparse::Request::new(&mut []);
    let read = request.parse_with_uninit_headers(head, &mut slots);
    assert!(read.is_ok_and(|it| it.is_complete()));
    request.headers.len()
}

fn ours(head: &[u8]) -> usize {
    let mut slots = Slots::new();
    match parse_request(head, black_box(&LIMITS), &mut slots) {
        Ok(Some(request)) if request.known.has(Name::Host) => request.fields.len(),
        _ => panic!("a valid head was refused"),
    }
}

/// A connection's limits outlive the parse, so making them is not measured.
static LIMITS: LazyLock<Limits> = LazyLock::new(Limits::default);

fn minimal() -> Vec<u8> {
    b"GET /v1/items/42 HTTP/1.1\r\nHost: api.example.com\r\n\r\n".to_vec()
}

fn browser() -> Vec<u8> {
    b"GET /v1/players/76561198000000000/statistics?season=12&detail=full HTTP/1.1\r\n\
      Host: api.example.com\r\n\
      Connection: keep-alive\r\n\
      sec-ch-ua: \"Chromium\";v=\"128\", \"Not;A=Brand\";v=\"24\", \"Browser\";v=\"128\"\r\n\
      sec-ch-ua-mobile: ?0\r\n\
      User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
      Chrome/128.0.0.0 Safari/537.36\r\n\
      sec-ch-ua-platform: \"Linux\"\r\n\
      Accept: application/json, text/plain, */*\r\n\
      Origin: https://www.example.com\r\n\
      Sec-Fetch-Site: same-site\r\n\
      Sec-Fetch-Mode: cors\r\n\
      Sec-Fetch-Dest: empty\r\n\
      Referer: https://www.example.com/players/76561198000000000\r\n\
      Accept-Encoding: gzip, deflate, br, zstd\r\n\
      Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
      If-None-Match: W/\"5f-8a1b2c3d4e5f60718293a4b5c6d7e8f9\"\r\n\r\n"
        .to_vec()
}

fn fields100() -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n".to_vec();
    for n in 1..100 {
        head.extend_from_slice(format!("X-Custom-Field-{n}: value number {n}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}
