//! Any bytes as a row of the second tier, with a checksum that is right as often as not: no panic,
//! and what is accepted is written back as the same bytes.
#![no_main]

use std::sync::Arc;

use apiproxyd::base::Seed;
use apiproxyd::cache::{Key, Ledger, record};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// Version, checksum.
const SEALED_BYTES: usize = 5;

fuzz_target!(|input: &[u8]| {
    let Some((body_bytes, rest)) = input.split_first() else { return };
    let at = usize::from(*body_bytes).min(rest.len());
    let (body, row) = rest.split_at(at);
    let mut row = row.to_vec();
    if row.len() > SEALED_BYTES && body_bytes % 2 == 0 {
        row[0] = record::FORMAT_VERSION;
        let sum = crc32fast::hash(&row[SEALED_BYTES..]);
        row[1..SEALED_BYTES].copy_from_slice(&sum.to_be_bytes());
    }
    let key = Key::new(b"key", &Seed::fixed(1));
    let ledger = Arc::new(Ledger::new(1 << 20));
    if let Ok(entry) = record::decode(&row, Bytes::copy_from_slice(body), &key, &ledger) {
        assert_eq!(record::encode(&entry), row);
    }
});
