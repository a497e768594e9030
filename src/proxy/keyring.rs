//! The keys that clients may present, as the gate wants them: found in constant time, however many
//! there are.
//!
//! What a client sends is hashed (SHA-256) and looked up by a second, seeded hash of that digest:
//! nobody outside can tell which digests lie close to one another in the index, so that the search
//! tells nothing. One digest is then compared in full and in constant time: that of the key found,
//! or one of no key.
//!
//! Cost: a SHA-256 of the presented key and a binary search.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest as _, Sha256};

use crate::base::Seed;
use crate::config::{ClientKey, ClientKeys};

/// The index over the configured keys. Immutable.
pub struct Keyring {
    seed: Seed,
    /// Seeded hash of the digest, and the key's number; sorted.
    index: Box<[(u64, u16)]>,
    keys: Box<[ClientKey]>,
}

impl Keyring {
    /// Indexes them. Keys past the 65,535th are not admitted: the configuration refuses so many.
    #[must_use]
    pub fn new(keys: &ClientKeys) -> Self {
        let seed = Seed::random();
        let numbered = (0..=u16::MAX).zip(&keys.0);
        let mut index: Vec<_> = numbered.map(|(at, it)| (seed.hash(&it.digest), at)).collect();
        index.sort_unstable();
        Self { seed, index: index.into(), keys: keys.0.as_slice().into() }
    }

    /// Whether no key is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of the key that a client presents; `None` when it is none of these.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<u16> {
        self.find_by(presented, |one, other| verify_slices_are_equal(one, other).is_ok())
    }

    /// The key of that number.
    #[must_use]
    pub fn key(&self, number: u16) -> Option<&ClientKey> {
        self.keys.get(usize::from(number))
    }

    fn find_by(&self, presented: &[u8], equal: impl FnOnce(&[u8], &[u8]) -> bool) -> Option<u16> {
        let digest = Sha256::digest(presented);
        let hash = self.seed.hash(&digest);
        let at = self.index.partition_point(|(other, _)| *other < hash);
        let found = self.index.get(at).filter(|(other, _)| *other == hash).map(|(_, it)| *it);
        let expected = found.and_then(|it| self.key(it)).map_or(&NOBODY, |it| &it.digest);
        // Compared also where nothing was found: the answer takes as long.
        let same = equal(expected, &digest);
        found.filter(|_| same)
    }
}

/// The digest of no key: nobody knows one that has it.
const NOBODY: [u8; 32] = [0; 32];

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn keyring(count: usize) -> Keyring {
        let key = |at: usize| ClientKey {
            name: format!("key-{at}"),
            digest: Sha256::digest(format!("secret {at}")).into(),
            per_minute: None,
            burst: None,
            quota: None,
        };
        Keyring::new(&ClientKeys((0..count).map(key).collect()))
    }

    #[test]
    fn each_key_is_found_and_no_other() {
        let keyring = keyring(1_000);
        for at in 0..1_000_u16 {
            assert_eq!(keyring.find(format!("secret {at}").as_bytes()), Some(at));
            assert_eq!(keyring.key(at).unwrap().name, format!("key-{at}"));
        }
        for other in ["", "secret", "secret 1000", "Secret 1", "secret 1 "] {
            assert_eq!(keyring.find(other.as_bytes()), None, "{other}");
        }
        assert!(Keyring::new(&ClientKeys::default()).find(b"secret 0").is_none());
        assert_eq!(keyring.key(1_000).map(|it| it.name.as_str()), None);
    }

    /// No early end, and no look at the presented text itself: what differs between a right key, a
    /// nearly right one and any other is one comparison of 32 bytes in constant time.
    #[test]
    fn every_guess_costs_one_comparison_of_whole_digests() {
        let keyring = keyring(100);
        for guess in ["secret 0", "secret 99", "secret 9x", "", "a much longer guess than any key"]
        {
            let calls = Cell::new(0);
            let equal = |one: &[u8], other: &[u8]| {
                calls.set(calls.get() + 1);
                assert_eq!((one.len(), other.len()), (32, 32));
                one == other
            };
            let found = keyring.find_by(guess.as_bytes(), equal);
            assert_eq!(found.is_some(), matches!(guess, "secret 0" | "secret 99"), "{guess}");
            assert_eq!(calls.get(), 1, "{guess}");
        }
    }
}
