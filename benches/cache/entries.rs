//! The entries of the benches: small answers of an API, told apart by their paths.

use std::sync::Arc;
use std::time::Duration;

use apiproxyd::base::{Seed, Wall};
use apiproxyd::cache::entry::Entry;
use apiproxyd::cache::facts::{Facts, LifetimeSource};
use apiproxyd::cache::key::{Class, Key, KeyWriter};
use apiproxyd::cache::ledger::Ledger;
use apiproxyd::cache::shard::Shard;
use apiproxyd::http::Fields;
use bytes::Bytes;

/// A shard with so many entries.
pub fn filled(entries: u32, seed: &Seed, ledger: &Arc<Ledger>) -> Shard {
    let mut shard = Shard::new(entries, Arc::clone(ledger));
    for name in 0..entries {
        assert!(shard.insert(Arc::new(entry(name, seed, ledger))).kept);
    }
    shard
}

/// One entry.
pub fn entry(name: u32, seed: &Seed, ledger: &Arc<Ledger>) -> Entry {
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
pub fn write_key(buf: &mut Vec<u8>, name: u32) -> &[u8] {
    let mut path = *b"/v1/items/0000000";
    let mut rest = name;
    for digit in path.iter_mut().rev().take(7) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    KeyWriter::new(buf, Class::Read, 0, &path, Some(b"page=1")).finish()
}

/// Small, so that a million fit any machine.
pub const BODY_BYTES: usize = 256;
