//! Variants of a resource (RFC 9111 section 4.1): from a vary index to the key of the response.
//!
//! Under the primary key of a resource whose responses carry Vary stands an index: the lists of
//! fields seen, newest first, and a generation. A variant's key is the primary key, the
//! generation and the request's values of one list. Dropping the index makes all variants
//! unreachable at once, since the next index has another generation.

use std::borrow::Cow;
use std::sync::Arc;

use crate::base::Seed;
use crate::cache::key::begin_variant;
use crate::cache::{
    AcceptEncoding, Entry, Facts, Key, Kind, Ledger, Shard, Vary, VaryIndex, VarySpec,
    secondary_key,
};
use crate::http::Fields;
use crate::proxy::inquiry::Inquiry;

/// Finds the variant for a request's values in a core's part of L1, newest list first. `key` holds
/// the primary key, and is used up.
pub fn find_in_shard<'v>(
    seed: &Seed,
    shard: &mut Shard,
    key: &mut Vec<u8>,
    index: &Entry,
    values: impl Fn(&str) -> Option<Cow<'v, [u8]>>,
) -> Option<Arc<Entry>> {
    let Kind::VaryIndex(index) = index.kind() else { return None };
    let primary_bytes = key.len();
    for spec in &index.specs {
        key.truncate(primary_bytes);
        begin_variant(key, index.generation);
        secondary_key(spec, ENCODING, &values, key);
        if let Some(entry) = shard.get(seed.hash(key), key) {
            return Some(Arc::clone(entry));
        }
    }
    None
}

/// The keys under which this request's variant may stand, newest list first.
#[must_use]
pub fn keys(seed: &Seed, inquiry: &Inquiry, index: &Entry) -> Vec<Key> {
    let Kind::VaryIndex(index) = index.kind() else { return Vec::new() };
    let of = |spec| key_of(seed, inquiry, index.generation, spec);
    index.specs.iter().map(of).collect()
}

fn key_of(seed: &Seed, inquiry: &Inquiry, generation: u64, spec: &VarySpec) -> Key {
    let mut bytes = inquiry.primary.bytes().to_vec();
    begin_variant(&mut bytes, generation);
    let request = &inquiry.task.head.fields;
    secondary_key(spec, ENCODING, |name| request.combined(name), &mut bytes);
    Key::new(&bytes, seed)
}

/// Where a response is to stand.
pub struct Placed {
    /// Its key.
    pub key: Key,
    /// A new or changed index to stand under the primary key; `None` where the old one will do,
    /// or the response does not vary.
    pub index: Option<Arc<Entry>>,
}

/// Places a response with these fields, beside the index that was found, if any. `number` is used
/// as the generation of a new index.
#[must_use]
pub fn place(
    seed: &Seed,
    ledger: &Arc<Ledger>,
    inquiry: &Inquiry,
    known: Option<&Arc<Entry>>,
    fields: &Fields,
    facts: &Facts,
    number: u64,
) -> Placed {
    let spec = match Vary::of(fields) {
        Vary::On(spec) if spec.as_str() != "accept-encoding" => spec,
        // Vary on the coding alone is answered by making the coding.
        _ => return Placed { key: inquiry.primary.clone(), index: None },
    };
    let old = known.and_then(|it| match it.kind() {
        Kind::VaryIndex(index) => Some(index),
        Kind::Content => None,
    });
    if let Some(old) = old.filter(|it| it.specs.first() == Some(&spec)) {
        return Placed { key: key_of(seed, inquiry, old.generation, &spec), index: None };
    }
    let generation = old.map_or(number, |it| it.generation);
    let key = key_of(seed, inquiry, generation, &spec);
    let older = old.map(|it| &*it.specs).unwrap_or_default();
    let older = older.iter().filter(|it| **it != spec).take(SPECS_MAX - 1).cloned();
    let specs = std::iter::once(spec.clone()).chain(older).collect();
    let index = VaryIndex { generation, specs };
    let index = Entry::vary_index(inquiry.primary.clone(), *facts, index, ledger);
    Placed { key, index: Some(Arc::new(index)) }
}

/// The daemon asks origins for what the client takes and makes the other coding itself.
pub const ENCODING: AcceptEncoding = AcceptEncoding::Negotiated;
/// Lists of fields one resource may have; a look-up tries each.
const SPECS_MAX: usize = 4;
