//! What health, statistics and metrics say beside the cores' cells: gathered from what cores share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::UpstreamSettings;
use crate::metrics::{Extras, OpExtras, StoreExtras, UpstreamExtras};
use crate::proxy::Shared;
use crate::store::{Op, StoreHandle};

/// Reads it all. Some dozens of atomic loads; no database, no lock that a request would take.
pub fn extras(shared: &Shared) -> Extras {
    let now = crate::net::mono();
    let upstreams = (0..).zip(&shared.upstreams).map(|(at, state)| {
        let (status, permits) = (state.breaker.status(now), &state.permits);
        UpstreamExtras {
            name: name(at, &shared.plan.settings.upstreams),
            breaker: status.position,
            failures: status.failures,
            permits_taken: permits.open() as u64,
            permits: permits.max() as u64,
            idle: permits.idle() as u64,
            waiting: permits.waiting() as u64,
            received_bytes: permits.received_bytes(),
        }
    });
    Extras {
        version: env!("CARGO_PKG_VERSION"),
        driver: shared.driver.get().copied().unwrap_or("starting"),
        uptime: now.since(shared.started),
        l1_entries: shared.ledger.entries(),
        l1_bytes: shared.ledger.bytes(),
        l1_bytes_max: shared.ledger.bytes_max(),
        request_body_bytes: shared.plan.request_bodies.bytes(),
        access_log_dropped: shared.access.as_ref().map_or(0, |it| it.writer.dropped()),
        log_dropped: crate::logs::events_dropped(),
        upstreams: upstreams.collect(),
        store: shared.store.as_ref().map(|it| store(shared, it)),
    }
}

/// What an upstream is called. Two of the same URL differ in their keys, which are not to be shown:
/// the later ones get a number.
fn name(at: usize, all: &[UpstreamSettings]) -> Box<str> {
    let url = &all[at].upstream;
    let earlier = all[..at].iter().filter(|it| it.upstream == *url).count();
    if earlier == 0 { url.to_string().into() } else { format!("{url}#{}", earlier + 1).into() }
}

fn store(shared: &Shared, handle: &StoreHandle) -> StoreExtras {
    let stats = handle.stats();
    let ops = [(Op::Get, "get"), (Op::Put, "put"), (Op::Purge, "purge"), (Op::Sweep, "sweep")];
    let ops = ops.map(|(op, word)| {
        let stats = stats.op(op);
        OpExtras {
            op: word,
            calls: load(&stats.calls),
            items: load(&stats.items),
            busy: Duration::from_nanos(load(&stats.nanos)),
            errors: load(&stats.errors),
        }
    });
    StoreExtras {
        backend: shared.plan.settings.cache.backend.as_str(),
        reads_unavailable: stats.reads_unavailable().map(|it| it.as_str()),
        writes_unavailable: stats.writes_unavailable().map(|it| it.as_str()),
        heartbeat_age: stats.age_of_heartbeat(),
        queue_depth: handle.queue_depth() as u64,
        put_queue_rows: load(&stats.put_queue_rows),
        put_queue_bytes: load(&stats.put_queue_bytes),
        ops: ops.to_vec(),
        lookups_shed: load(&stats.gets_shed),
        lookups_unavailable: load(&stats.gets_unavailable),
        puts_shed: load(&stats.puts_shed),
        puts_overtaken: load(&stats.puts_overtaken),
        puts_failed: load(&stats.puts_failed),
        rows_expired: load(&stats.rows_swept),
        rows_evicted: load(&stats.rows_evicted),
        rows_damaged: load(&stats.rows_damaged),
        files_emptied: load(&stats.files_emptied),
        files_moved_aside: load(&stats.files_moved_aside),
        reopened: load(&stats.reopened),
        remote_purges: load(&stats.remote_purges),
        panics: load(&stats.panics),
        rows: load(&stats.rows),
        bytes: load(&stats.bytes),
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
