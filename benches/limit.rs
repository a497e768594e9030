//! The limiter's cost on the hit path: `cargo bench --bench limit`. The aim is 50 ns a check.
//!
//! `known` is a request of an identity that has a cell, with one identity and with as many as make
//! every check a cache miss of the second level; `new` founds a cell each time; `fields` writes the
//! RateLimit fields of an answer; `identity` finds a client behind two proxies.
//!
//! `guard` adds up what a hit pays for protection and metrics, at most 150 ns; `scrape` is paid by
//! another thread, `access_line` by the core, where the access log is on.

use std::hint::black_box;
use std::iter;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apiproxyd::base::{Mono, Seed, Wall};
use apiproxyd::breaker::Position;
use apiproxyd::http::{Method, Version};
use apiproxyd::limit::limiter::CELLS_DEFAULT;
use apiproxyd::limit::{Ask, Kind, Limiter, Quota, Standing, TrustedProxies, Verdict, fields};
use apiproxyd::logs::{End, Form, Heard, Line, Masks};
use apiproxyd::metrics::{
    CacheResult, CoreCells, Counter, Extras, Format, StoreExtras, UpstreamExtras, render,
};
use apiproxyd::route::{Pattern, PatternSet};
use criterion::{Criterion, criterion_group, criterion_main};

/// Hashes as identities have them.
fn hashes(count: u64) -> Vec<u64> {
    let seed = Seed::fixed(1);
    (0..count).map(|index| seed.hash(&index.to_le_bytes())).collect()
}

fn quota(per_minute: u32, burst: u32) -> Quota {
    Quota::new(per_minute, burst).unwrap_or_else(|fault| panic!("{fault}"))
}

fn check(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("limit");
    for (name, identities, quota) in [
        ("known/one/admitted", 1, quota(20_000_000, 1_000_000)),
        ("known/one/rejected", 1, quota(60, 10)),
        ("known/100000/admitted", 100_000, quota(600, 10)),
        ("known/100000/rejected", 100_000, quota(6, 10)),
    ] {
        let (limiter, hashes) = (Limiter::default(), hashes(identities));
        let mut now = Mono::from_nanos(1 << 40);
        let mut turns = hashes.iter().cycle();
        let mut admitted = 0_u64;
        group.bench_function(name, |timer| {
            timer.iter(|| {
                now = now.plus(Duration::from_nanos(3_000));
                let hash = turns.next().copied().unwrap_or_default();
                let verdict = limiter.check(black_box(hash), &quota, now);
                admitted += u64::from(matches!(verdict, Verdict::Admitted(_)));
                verdict
            });
        });
        eprintln!("limit/{name}: {admitted} admitted");
    }

    let (limiter, limit) = (Limiter::default(), quota(60, 10));
    let seed = Seed::fixed(1);
    let (mut now, mut index) = (Mono::from_nanos(1 << 40), 0_u64);
    group.bench_function("new", |timer| {
        timer.iter(|| {
            now = now.plus(Duration::from_nanos(1_000));
            index += 1;
            limiter.check(seed.hash(&index.to_le_bytes()), &limit, now)
        });
    });
    eprintln!("limit/new: {} live of {index}, {CELLS_DEFAULT} cells", limiter.live(now));

    let (limiter, limit) = (Limiter::default(), quota(20_000_000, 1_000_000));
    let ask = |kind, hash| Ask { kind, hash, quota: &limit };
    let (ip, key) = (ask(Kind::Address, seed.hash(b"ip")), ask(Kind::Key, seed.hash(b"key")));
    group.bench_function("both", |timer| {
        timer.iter(|| {
            now = now.plus(Duration::from_nanos(3_000));
            limiter.check_both(black_box(ip), black_box(key), now)
        });
    });
    group.finish();
}

fn answer(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("limit");
    let quota = quota(60, 10);
    let standing = Standing { remaining: 9, reset_after: Duration::from_secs(1) };
    let mut out = Vec::with_capacity(256);
    group.bench_function("fields", |timer| {
        timer.iter(|| {
            out.clear();
            fields::push_policy(&mut out, &[(Kind::Address, black_box(&quota))]);
            fields::push_standing(&mut out, &[(Kind::Address, black_box(standing))]);
            out.len()
        });
    });

    let seed = Seed::fixed(1);
    let peer = IpAddr::from([10, 0, 0, 1]);
    let trusted = TrustedProxies::parse(&["10.0.0.0/8"]).unwrap_or_default();
    group.bench_function("identity", |timer| {
        timer.iter(|| {
            let line = black_box(b"192.0.2.7, 10.0.0.2".as_slice());
            let client = trusted.client_address(peer, iter::once(line), iter::empty());
            Kind::hash_address(&seed, client)
        });
    });
    group.finish();
}

/// What protection and insight add to a hit: endpoint list, limiter with the fields that tell of
/// it, counters. `guard/sum` is all of it for one request; the aim is 150 ns. Its parts stand
/// beside it.
fn guard(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("guard");
    let patterns = ["/v1/a", "/v1/b/*", "/v1/c*", "/v2/*", "/v1/weather/*", "/v1/z"];
    let parse = |it: &&str| Pattern::parse(it).unwrap_or_else(|fault| panic!("{fault}"));
    let allowed = PatternSet::new(patterns.iter().map(parse));
    let (limiter, quota) = (Limiter::default(), quota(20_000_000, 1_000_000));
    let (seed, cells) = (Seed::fixed(1), CoreCells::new());
    let address = IpAddr::from([192, 0, 2, 7]);
    let path: &[u8] = b"/v1/weather/oslo/today";
    let mut now = Mono::from_nanos(1 << 40);
    let mut admit = |out: &mut Vec<u8>| {
        now = now.plus(Duration::from_nanos(3_000));
        let hash = Kind::hash_address(&seed, black_box(address));
        match limiter.check(hash, &quota, now) {
            Verdict::Admitted(standing) => {
                fields::push_policy(out, &[(Kind::Address, &quota)]);
                fields::push_standing(out, &[(Kind::Address, standing)]);
            }
            Verdict::Rejected { .. } => out.push(0),
        }
    };
    let count = |bytes: u64| {
        cells.inc(Counter::LimiterAdmitted);
        cells.on_hit(black_box(&Method::Get), 200, CacheResult::Hit, bytes);
        cells.inc(Counter::L1Hits);
    };
    let mut out = Vec::with_capacity(256);
    group.bench_function("allowlist", |timer| timer.iter(|| allowed.matches(black_box(path))));
    group.bench_function("limit", |timer| {
        timer.iter(|| {
            out.clear();
            admit(&mut out);
            out.len()
        });
    });
    group.bench_function("metrics", |timer| timer.iter(|| count(black_box(1_024))));
    group.bench_function("sum", |timer| {
        timer.iter(|| {
            out.clear();
            let allowed = allowed.matches(black_box(path));
            admit(&mut out);
            count(black_box(1_024));
            (allowed, out.len())
        });
    });
    group.finish();
    assert_eq!(cells.value(Counter::L1Hits), cells.value(Counter::LimiterAdmitted));
}

/// A page of metrics for two and for 64 cores. Written by a thread of its own: no core pays it.
fn scrape(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("scrape");
    for cores in [2, 64] {
        let cells: Vec<_> = (0..cores).map(|_| Arc::new(CoreCells::new())).collect();
        for format in [Format::OpenMetrics, Format::Classic] {
            let upstream = UpstreamExtras {
                name: "https://api.example.com".into(),
                breaker: Position::Closed,
                failures: 0,
                permits_taken: 3,
                permits: 100,
                idle: 2,
                waiting: 0,
                received_bytes: 1 << 30,
            };
            let extras = Extras {
                upstreams: vec![upstream],
                store: Some(StoreExtras::default()),
                ..Extras::default()
            };
            group.bench_function(format!("{cores}/{format:?}"), |timer| {
                timer.iter(|| render(&cells, extras.clone(), format).len());
            });
        }
    }
    group.finish();
}

/// A line of the access log, in both forms.
fn line(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("access_line");
    let heard = Heard {
        method: "GET",
        path: b"/api/v1/weather/oslo/today",
        query: Some(b"units=metric&lang=en"),
        host: b"proxy.example.com",
        version: Version::Http11,
        scheme: "https",
        agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        trace: None,
    };
    let line = Line {
        at: Wall::from_millis(1_795_448_907_123),
        took: Duration::from_micros(12),
        client: IpAddr::from([192, 0, 2, 7]),
        peer: None,
        key: None,
        heard: Some(heard),
        status: 200,
        bytes: 1_024,
        cache: "hit",
        detail: None,
        upstream: None,
        end: End::Complete,
        request_id: "c49f909e13d92a55",
    };
    let masks = Masks::default();
    let mut out = Vec::with_capacity(1_024);
    for form in [Form::Text, Form::Json] {
        group.bench_function(format!("{form:?}"), |timer| {
            timer.iter(|| {
                out.clear();
                black_box(&line).write(form, &masks, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, check, answer, guard, scrape, line);
criterion_main!(benches);
