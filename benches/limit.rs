//! The limiter's cost on the hit path: `cargo bench --bench limit`. The aim is 50 ns a check.
//!
//! `known` is a request of an identity that has a cell, with one identity and with as many as make
//! every check a cache miss of the second level; `new` founds a cell each time; `fields` writes the
//! RateLimit fields of an answer; `identity` finds a client behind two proxies.

use std::hint::black_box;
use std::iter;
use std::net::IpAddr;
use std::time::Duration;

use apiproxyd::base::{Mono, Seed};
use apiproxyd::limit::limiter::CELLS_DEFAULT;
use apiproxyd::limit::{Ask, Kind, Limiter, Quota, Standing, TrustedProxies, Verdict, fields};
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

criterion_group!(benches, check, answer);
criterion_main!(benches);
