//! What a hit costs before it meets the kernel, and what an entry costs in memory.
//!
//! `cargo bench --bench cache`: key, L1 look-up and JSON digest by criterion, then a shard filled
//! with a million entries. Under `cargo test --benches` everything runs once, in small.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiproxyd::base::{Seed, Wall};
use apiproxyd::cache::entry::{Entry, OVERHEAD_BYTES};
use apiproxyd::cache::facts::{Facts, LifetimeSource};
use apiproxyd::cache::json::digest_body;
use apiproxyd::cache::key::{Class, Key, KeyWriter};
use apiproxyd::cache::ledger::Ledger;
use apiproxyd::cache::shard::Shard;
use apiproxyd::http::Fields;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};

/// The daemon's allocator, so that its rounding is in the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // `cargo bench` says so; `cargo test --benches` says nothing.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let (looked_up, filled) = if measuring { (100_000, 1_000_000) } else { (1_000, 1_000) };
    // First, while the process is small.
    fill(filled);
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

/// Fills a shard and prints what an entry costs beside its key, head and body: by count, and as the
/// operating system sees it.
fn fill(entries: u32) {
    let seed = Seed::fixed(1);
    let ledger = Arc::new(Ledger::new(u64::MAX));
    let before = resident_bytes();
    let start = Instant::now();
    let shard = filled(entries, &seed, &ledger);
    let took = start.elapsed();
    let resident = resident_bytes().saturating_sub(before);

    let content: usize = shard
        .iter()
        .map(|it| it.key().bytes().len() + it.fields().as_wire().len() + it.body().len())
        .sum();
    let count = entries as usize;
    let arc_bytes = size_of::<Entry>() + 2 * size_of::<usize>();
    let counted = arc_bytes as f64 + shard.index_bytes() as f64 / count as f64;
    println!("fill: {count} entries in {took:.2?}, {} bytes of content each", content / count);
    println!("fill: {counted:.1} bytes of overhead per entry (entry {arc_bytes}, rest index)");
    println!("fill: {OVERHEAD_BYTES} bytes of overhead per entry charged to the ledger");
    let by_system = (resident as f64 - content as f64) / count as f64;
    println!("fill: {by_system:.1} bytes by the resident size, allocator's rounding included");
    println!("fill checksum: {}", ledger.bytes());
    assert_eq!(shard.len(), count);
    assert_eq!(ledger.bytes(), (content + count * OVERHEAD_BYTES) as u64);
    if entries >= 1_000_000 {
        assert!(counted <= 250.0, "{counted} bytes of overhead per entry");
    }
}

fn filled(entries: u32, seed: &Seed, ledger: &Arc<Ledger>) -> Shard {
    let mut shard = Shard::new(entries, Arc::clone(ledger));
    for name in 0..entries {
        assert!(shard.insert(Arc::new(entry(name, seed, ledger))).kept);
    }
    shard
}

fn entry(name: u32, seed: &Seed, ledger: &Arc<Ledger>) -> Entry {
    let mut buf = Vec::with_capacity(64);
    let key = Key::new(write_key(&mut buf, name), seed);
    let mut fields = Fields::new();
    fields.push("Content-Type", "application/json");
    fields.push("Content-Length", BODY_BYTES.to_string());
    fields.push("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    fields.push("ETag", format!("\"{name:016x}\""));
    fields.push("Cache-Control", "public, max-age=3600");
    let facts = Facts {
        response_time: Wall::from_secs(784_111_777),
        date: Wall::from_secs(784_111_777),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(3_600),
        stale_while_revalidate: None,
        stale_if_error: None,
        status: 200,
        lifetime_source: LifetimeSource::MaxAge,
        stale_forbidden: false,
        no_cache: false,
        immutable: false,
        has_validator: true,
        shareable: false,
    };
    Entry::new(key, facts, &fields, Bytes::from(vec![b'x'; BODY_BYTES]), ledger)
}

/// The key of `/v1/items/NNNNNNN?page=1`, as the fast path writes it.
fn write_key(buf: &mut Vec<u8>, name: u32) -> &[u8] {
    let mut path = *b"/v1/items/0000000";
    let mut rest = name;
    for digit in path.iter_mut().rev().take(7) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    KeyWriter::new(buf, Class::Read, 0, &path, Some(b"page=1")).finish()
}

/// This process's resident memory; 0 where /proc does not say.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok());
    pages.map_or(0, |pages| pages * 4_096)
}

/// Small, so that a million fit any machine.
const BODY_BYTES: usize = 256;
