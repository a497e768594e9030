//! Where a key stands in the hub: beside the other keys of its resource, and these beside the other
//! resources of its path.
//!
//! ```text
//! path 4 | resource 4 | key 4      hashes under the process's seed, compared in this order
//! ```
//!
//! A purge is about a path or a resource (RFC 9111 section 4.4), whose keys are many: methods,
//! credentials, bodies, variants. In this order they are one run, so that a purge costs what it
//! removes. Twelve bytes instead of the key itself: the entry has the key, and is compared with it
//! whenever a place leads to one. That two keys share a place takes 96 equal bits under a seed that
//! no outsider knows; whoever comes second is then not shown.

use std::ops::RangeInclusive;

use crate::base::Seed;
use crate::cache::key::Parts;

/// The place of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    path: u32,
    resource: u32,
    key: u32,
}

/// Which keys a purge may concern: the narrowest of these that holds them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// One key.
    Key {
        /// Its hash under the process's seed.
        hash: u64,
        /// Its bytes.
        key: &'a [u8],
    },
    /// A resource of an upstream: whatever the method, credential, body and variant.
    Resource {
        /// The number of the upstream.
        upstream: u16,
        /// The path as keys have it.
        path: &'a [u8],
        /// The query as keys have it.
        query: Option<&'a [u8]>,
    },
    /// A path with all its queries, on every upstream.
    Path(&'a [u8]),
    /// Any key: it takes a walk through all of them.
    Any,
}

impl Place {
    pub(super) const FIRST: Self = Self { path: 0, resource: 0, key: 0 };
    pub(super) const LAST: Self = Self { path: u32::MAX, resource: u32::MAX, key: u32::MAX };

    /// The place of a key with that hash. Bytes that no key writer wrote stand by themselves.
    pub(super) fn of(seed: &Seed, hash: u64, key: &[u8]) -> Self {
        let (path, resource) = match Parts::parse(key) {
            Some(parts) => groups(seed, parts.upstream, parts.path, parts.query),
            None => (0, 0),
        };
        Self { path, resource, key: cut(hash) }
    }
}

impl Reach<'_> {
    /// The places in reach.
    pub(super) fn places(&self, seed: &Seed) -> RangeInclusive<Place> {
        match *self {
            Self::Key { hash, key } => {
                let place = Place::of(seed, hash, key);
                place..=place
            }
            Self::Resource { upstream, path, query } => {
                let (path, resource) = groups(seed, upstream, path, query);
                Place { path, resource, key: 0 }..=Place { path, resource, key: u32::MAX }
            }
            Self::Path(path) => {
                let path = cut(seed.hash(path));
                Place { path, ..Place::FIRST }..=Place { path, ..Place::LAST }
            }
            Self::Any => Place::FIRST..=Place::LAST,
        }
    }
}

fn groups(seed: &Seed, upstream: u16, path: &[u8], query: Option<&[u8]>) -> (u32, u32) {
    let path = seed.hash(path);
    // No query is not an empty one.
    let query = query.map_or(0, |it| seed.hash(it) | 1);
    let resource = path ^ query.wrapping_add(u64::from(upstream).wrapping_mul(ODD));
    // The path's own bits say nothing more among its resources.
    (cut(path), cut(resource.wrapping_mul(ODD) >> 32))
}

/// The low bits; the stripe is chosen by others.
const fn cut(hash: u64) -> u32 {
    hash as u32
}

/// 2^64 over the golden ratio: spreads small numbers over all bits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::{Class, KeyWriter};

    fn place(seed: &Seed, class: Class, upstream: u16, path: &str, query: Option<&str>) -> Place {
        let mut key = Vec::new();
        let query = query.map(str::as_bytes);
        let _ = KeyWriter::new(&mut key, class, upstream, path.as_bytes(), query).finish();
        Place::of(seed, seed.hash(&key), &key)
    }

    #[test]
    fn a_place_is_in_reach_of_its_own_path_and_resource_and_no_other() {
        let seed = Seed::fixed(1);
        let resources = [
            (0, "/a", None),
            (1, "/a", None),
            (0, "/a", Some("")),
            (0, "/a", Some("x=1")),
            (0, "/b", Some("x=1")),
        ];
        for (upstream, path, query) in resources {
            for class in [Class::Read, Class::Post] {
                let at = place(&seed, class, upstream, path, query);
                assert!(Reach::Any.places(&seed).contains(&at));
                for other in resources {
                    let reach = Reach::Resource {
                        upstream: other.0,
                        path: other.1.as_bytes(),
                        query: other.2.map(str::as_bytes),
                    };
                    let same = other == (upstream, path, query);
                    assert_eq!(reach.places(&seed).contains(&at), same, "{other:?}");
                    let reach = Reach::Path(other.1.as_bytes());
                    assert_eq!(reach.places(&seed).contains(&at), other.1 == path, "{other:?}");
                }
            }
        }
    }

    #[test]
    fn one_key_is_in_reach_of_itself() {
        let seed = Seed::fixed(2);
        let reach = |key: &'static [u8]| Reach::Key { hash: seed.hash(key), key };
        let at = Place::of(&seed, seed.hash(b"foreign"), b"foreign");
        assert!(reach(b"foreign").places(&seed).contains(&at));
        assert!(!reach(b"other").places(&seed).contains(&at));
    }
}
