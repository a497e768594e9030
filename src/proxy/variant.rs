//! Variants of a resource (RFC 9111 section 4.1): from a vary index to the key of the response.
//!
//! Under the primary key of a resource whose responses carry Vary stands an index: the lists of
//! fields seen, newest first, and a generation. A variant's key is the primary key, the
//! generation and the request's values of one list. Dropping the index makes all variants
//! unreachable at once, since the next index has another generation.
//!
//! Nearly every resource has one list, and a request then one key. An origin that changes its list
//! makes more: a request has a key under each, and of what stands under them the newest by Date is
//! its response (section 4). Only who has looked under all of them, in every tier, knows it: the
//! hit path does where this core has them all, else `serve` gathers them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::base::Seed;
use crate::cache::key::begin_variant;
use crate::cache::{
    AcceptEncoding, Entry, Facts, Key, Kind, Ledger, Settings, Shard, Vary, VaryIndex, VarySpec,
    secondary_key,
};
use crate::http::Fields;
use crate::http::hop::Ending;
use crate::http::untrusted::dashed;
use crate::proxy::inquiry::Inquiry;

/// Finds the variant for a request's values in a core's part of L1; nothing unless the shard has
/// one under each list and it is whole. `key` holds the primary key, and is used up.
pub fn find_in_shard<'v>(
    seed: &Seed,
    shard: &mut Shard,
    key: &mut Vec<u8>,
    index: &Entry,
    values: impl Fn(&str) -> Option<Cow<'v, [u8]>>,
) -> Option<Arc<Entry>> {
    let Kind::VaryIndex(index) = index.kind() else { return None };
    let primary_bytes = key.len();
    let mut newest: Option<Arc<Entry>> = None;
    for spec in &index.specs {
        key.truncate(primary_bytes);
        begin_variant(key, index.generation);
        secondary_key(spec, ENCODING, &values, key);
        let entry = shard.get(seed.hash(key), key)?;
        if newest.as_ref().is_none_or(|it| is_newer(entry, it)) {
            newest = Some(Arc::clone(entry));
        }
    }
    newest.filter(|it| matches!(it.kind(), Kind::Content))
}

/// Whether one of two responses that match a request is to be preferred.
#[must_use]
pub fn is_newer(one: &Entry, other: &Entry) -> bool {
    one.facts().is_newer_than(&other.facts())
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
    // A field that Connection says to end here did not choose.
    let ending = Ending::of(request);
    let goes_on = |name: &str| !ending.has(&dashed(name.as_bytes()));
    let sent = |name: &str| request.combined(name).filter(|_| goes_on(name));
    secondary_key(spec, ENCODING, sent, &mut bytes);
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
    // Vary on the coding is answered by making the coding.
    let spec = match Vary::of(fields) {
        Vary::On(spec) => spec.without("accept-encoding"),
        Vary::None | Vary::Any | Vary::TooWide => None,
    };
    let Some(spec) = spec else { return Placed { key: inquiry.primary.clone(), index: None } };
    let old = known.and_then(|it| match it.kind() {
        Kind::VaryIndex(index) => Some((it, index)),
        Kind::Content | Kind::Part(_) => None,
    });
    let outlives = |index: &Entry| {
        index.facts().keep_until(&inquiry.policy) >= facts.keep_until(&inquiry.policy)
    };
    if let Some((_, old)) = old.filter(|(it, old)| old.specs.contains(&spec) && outlives(it)) {
        return Placed { key: key_of(seed, inquiry, old.generation, &spec), index: None };
    }
    let old = old.map(|it| it.1);
    let generation = old.map_or(number, |it| it.generation);
    let key = key_of(seed, inquiry, generation, &spec);
    let older = old.map(|it| &*it.specs).unwrap_or_default();
    let older = older.iter().filter(|it| **it != spec).take(SPECS_MAX - 1).cloned();
    let specs = std::iter::once(spec.clone()).chain(older).collect();
    let index = VaryIndex { generation, specs };
    let facts = facts_of_index(facts, &inquiry.policy);
    let index = Entry::vary_index(inquiry.primary.clone(), facts, index, ledger);
    Placed { key, index: Some(Arc::new(index)) }
}

/// The facts of an index: kept for twice as long as the variant that it is made for, so that it is
/// not made anew for every later one.
fn facts_of_index(facts: &Facts, policy: &Settings) -> Facts {
    let kept = facts.keep_until(policy).since(facts.response_time);
    Facts { lifetime: facts.lifetime.saturating_add(kept), ..*facts }
}

/// The daemon asks origins for what the client takes and makes the other coding itself.
pub const ENCODING: AcceptEncoding = AcceptEncoding::Negotiated;
/// Lists of fields one resource may have; a look-up tries each.
const SPECS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Wall;
    use crate::cache::LifetimeSource;

    fn facts() -> Facts {
        Facts {
            response_time: Wall::from_secs(1_000),
            date: Wall::from_secs(1_000),
            initial_age: Duration::from_secs(5),
            lifetime: Duration::from_secs(60),
            stale_while_revalidate: None,
            stale_if_error: Some(Duration::from_secs(30)),
            status: 200,
            lifetime_source: LifetimeSource::MaxAge,
            stale_forbidden: false,
            no_cache: false,
            immutable: false,
            has_validator: false,
            shareable: false,
        }
    }

    #[test]
    fn an_index_is_kept_twice_as_long_as_its_variant() {
        let (policy, facts) = (Settings::default(), facts());
        let kept = facts.keep_until(&policy);
        assert_eq!(kept, Wall::from_secs(1_000 + 55 + 30));
        let index = facts_of_index(&facts, &policy).keep_until(&policy);
        assert_eq!(index, kept.plus(Duration::from_secs(85)));
    }
}
