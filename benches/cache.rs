//! What a hit costs before it meets the kernel, what an entry costs in memory, and what a purge
//! costs among a million entries.
//!
//! `cargo bench --bench cache`: first a shard and the hub filled with a million entries, then key,
//! L1 look-up and JSON digest by criterion. Under `cargo test --benches` everything runs once, in
//! small.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "cache/entries.rs"]
mod entries;
#[path = "cache/fill.rs"]
mod fill;

use std::hint::black_box;
use std::sync::Arc;

use apiproxyd::base::Seed;
use apiproxyd::cache::json::digest_body;
use apiproxyd::cache::ledger::Ledger;
use criterion::{BatchSize, Criterion, Throughput};

use entries::{BODY_BYTES, entry, filled, write_key};

/// The daemon's allocator, so that its rounding is in the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // `cargo bench` says so; `cargo test --benches` says nothing.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let (looked_up, entries) = if measuring { (100_000, 1_000_000) } else { (1_000, 1_000) };
    // First, while the process is small.
    fill::fill(entries);
    let mut criterion = Criterion::default().configure_from_args();
    key(&mut criterion);
    look_up(&mut criterion, looked_up);
    json(&mut criterion);
    criterion.final_summary();
}

fn key(criterion: &mut Criterion) {
    let seed = Seed::fixed(1);
    let mut buf = Vec::new();
    criterion.bench_function("key/build_and_hash", |bench| {
        bench.iter(|| seed.hash(write_key(&mut buf, black_box(7))));
    });
}

fn look_up(criterion: &mut Criterion, entries: u32) {
    let seed = Seed::fixed(1);
    let ledger = Arc::new(Ledger::new(u64::MAX));
    let mut shard = filled(entries, &seed, &ledger);
    let (mut buf, mut next, mut sum) = (Vec::new(), 0_u32, 0_usize);
    let mut step = |of: u32| {
        // A stride without pattern, so that each look-up meets cold memory as real ones do.
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = write_key(&mut buf, (next >> 4) % of);
        let hash = seed.hash(key);
        let found = shard.get(hash, key).map_or(0, |entry| entry.body().len());
        sum += found;
        found
    };
    let checksum: usize = (0..entries).map(|_| step(entries)).sum();
    println!("l1 checksum: {checksum}");
    assert_eq!(checksum, entries as usize * BODY_BYTES, "every look-up is a hit");
    criterion.bench_function("l1/hit_anywhere", |bench| bench.iter(|| step(entries)));
    criterion.bench_function("l1/hit_hot", |bench| bench.iter(|| step(16)));
    assert!(sum.is_multiple_of(BODY_BYTES), "every look-up is a hit");

    let mut name = entries;
    criterion.bench_function("l1/insert_and_evict", |bench| {
        let make = || {
            name += 1;
            Arc::new(entry(name, &seed, &ledger))
        };
        bench.iter_batched(make, |entry| shard.insert(entry), BatchSize::SmallInput);
    });
}

fn json(criterion: &mut Criterion) {
    let body = br#"{"query":"query Q($id: ID!) { user(id: $id) { name email } }","#.to_vec();
    let body =
        [&body[..], br#""variables":{"id":"42","page":{"first":20,"after":null}}}"#].concat();
    let digest = digest_body(b"application/json", &body).expect("canonical");
    println!("json checksum: {:02x}{:02x} of {} bytes", digest[0], digest[1], body.len());
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("digest", |bench| {
        bench.iter(|| digest_body(b"application/json", black_box(&body)));
    });
    let many = [&b"["[..], &[&body[..], b","].concat().repeat(499), &body, b"]"].concat();
    group.throughput(Throughput::Bytes(many.len() as u64));
    group.bench_function("digest_60k", |bench| {
        bench.iter(|| digest_body(b"application/json", black_box(&many)));
    });
    group.finish();
}
