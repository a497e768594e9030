//! A shard and the hub with a million entries: what one costs in memory, and what purges cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiproxyd::base::{Mono, Seed};
use apiproxyd::cache::entry::{Entry, OVERHEAD_BYTES};
use apiproxyd::cache::ledger::Ledger;
use apiproxyd::cache::shard::Shard;
use apiproxyd::proxy::hub::{Hub, LOOKED_AT_MAX, Published, Reach};

use crate::entries::{filled, write_key};

/// Fills them, and prints what an entry costs beside its key, head and body: what can be counted by
/// count, the hub's trees and the allocator's rounding as the operating system sees them.
pub fn fill(entries: u32) {
    let seed = Seed::fixed(1);
    let ledger = Arc::new(Ledger::new(u64::MAX));
    let empty = resident_bytes();
    let start = Instant::now();
    let mut shard = filled(entries, &seed, &ledger);
    let took = start.elapsed();
    let indexed = resident_bytes();
    let hub: Arc<Hub<Entry>> = Hub::new(seed.clone());
    for entry in shard.iter() {
        let published = hub.announce(entry.key().hash(), entry, Mono::START, || true);
        assert_eq!(published, Published::New);
    }
    let shown = resident_bytes();

    let count = entries as usize;
    let content: usize = shard
        .iter()
        .map(|it| it.key().bytes().len() + it.fields().as_wire().len() + it.body().len())
        .sum();
    let each = |bytes: usize| bytes as f64 / count as f64;
    let entry_bytes = (size_of::<Entry>() + 2 * size_of::<usize>()) as f64;
    let (shard_bytes, hub_bytes) = (each(shard.index_bytes()), each(shown.saturating_sub(indexed)));
    let all = entry_bytes + shard_bytes + hub_bytes;
    let resident = each(shown.saturating_sub(empty + content));
    println!("fill: {count} entries in {took:.2?}, {} bytes of content each", content / count);
    println!(
        "fill: {all:.1} bytes of overhead per entry (entry {entry_bytes}, index of the core \
         {shard_bytes:.1}, hub {hub_bytes:.1})"
    );
    println!("fill: {OVERHEAD_BYTES} of them charged to the ledger");
    println!("fill: {resident:.1} by the resident size, the allocator's rounding included");
    println!("fill checksum: {}", ledger.bytes());
    assert_eq!((shard.len(), hub.len()), (count, count));
    assert_eq!(ledger.bytes(), (content + count * OVERHEAD_BYTES) as u64);
    if entries >= 1_000_000 {
        assert!(all <= 250.0, "{all} bytes of overhead per entry");
    }
    purges(entries, &seed, &hub, &mut shard);
}

/// What a purge costs the core that makes it, and each core that drops what was found.
fn purges(entries: u32, seed: &Seed, hub: &Hub<Entry>, shard: &mut Shard) {
    let (mut key, path) = (Vec::new(), |name: u32| format!("/v1/items/{name:07}"));
    let resource = |path: &[u8]| {
        let path = path.to_vec();
        move |times: u32, hub: &Hub<Entry>, shard: &mut Shard| {
            let reach = Reach::Resource { upstream: 0, path: &path, query: Some(b"page=1") };
            (times > 0).then(|| purge(hub, shard, &reach))
        }
    };
    let absent = resource(b"/v1/nothing");
    let found = (0..100).filter_map(|_| absent(1, hub, shard)).min_by_key(|it| it.0);
    report("a resource that is not there", found.unwrap());
    let found = (0..100.min(entries))
        .filter_map(|at| resource(path(at).as_bytes())(1, hub, shard).filter(|it| it.2 == 1));
    report("a resource with one key", found.min_by_key(|it| it.0).unwrap());
    let found =
        (100..200.min(entries)).map(|at| purge(hub, shard, &Reach::Path(path(at).as_bytes())));
    report("a path", found.min_by_key(|it| it.0).unwrap());
    let found = (200..300.min(entries)).map(|at| {
        let key = write_key(&mut key, at);
        purge(hub, shard, &Reach::Key { hash: seed.hash(key), key })
    });
    report("one key", found.min_by_key(|it| it.0).unwrap());
    report("everything, in a walk", purge(hub, shard, &Reach::Any));
    assert!(hub.is_empty() && shard.is_empty());
}

/// Time in the hub, time in the shard, entries removed.
type Cost = (Duration, Duration, usize);

fn purge(hub: &Hub<Entry>, shard: &mut Shard, reach: &Reach<'_>) -> Cost {
    let (mut walk, mut cost) = (hub.walk(reach), Cost::default());
    loop {
        let start = Instant::now();
        let found = hub.forget(&mut walk, &|_| true);
        cost.0 += start.elapsed();
        let Some(found) = found else { return cost };
        assert!(found.len() <= LOOKED_AT_MAX);
        let start = Instant::now();
        for key in found.iter().map(|it| it.key()) {
            cost.2 += usize::from(shard.remove(key.hash(), key.bytes()).is_some());
        }
        cost.1 += start.elapsed();
    }
}

fn report(what: &str, (hub, shard, removed): Cost) {
    println!("purge of {what}: {removed} removed, {hub:.2?} in the hub, {shard:.2?} in the shard");
}

/// This process's resident memory; 0 where /proc does not say.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok());
    pages.map_or(0, |pages| pages * 4_096)
}
