//! The seeded hash of keys and identities.
//!
//! One random seed for a process, so that all cores agree on a key's hash and an outsider cannot
//! choose colliding keys. Never stored: another process has another seed.

use ahash::RandomState;

/// A process's hash seed. Cheap to copy; every clone hashes alike.
#[derive(Clone, Debug)]
pub struct Seed(RandomState);

impl Seed {
    /// A seed that no outsider can guess.
    #[must_use]
    pub fn random() -> Self {
        Self(RandomState::new())
    }

    /// A fixed seed, for tests and benches that must replay.
    #[must_use]
    pub fn fixed(seed: u64) -> Self {
        Self(RandomState::with_seeds(seed, !seed, seed.rotate_left(17), 0x9e37_79b9_7f4a_7c15))
    }

    /// The 64-bit hash of `bytes` under this seed.
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_hash_alike_and_seeds_differ() {
        let seed = Seed::fixed(1);
        assert_eq!(seed.hash(b"key"), seed.clone().hash(b"key"));
        assert_ne!(seed.hash(b"key"), Seed::fixed(2).hash(b"key"));
        assert_ne!(seed.hash(b"key"), seed.hash(b"kez"));
    }
}
