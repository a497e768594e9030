//! Clients' API keys, and secrets in general: kept as digests, compared in constant time.
//!
//! A secret is held as its SHA-256 only, so that no dump, log line or debug print can show it, and
//! the configuration may state the digest instead of the key (`sha256:` and 64 hexadecimal digits).
//! What a client presents is digested too, and all digests are compared to their ends: neither
//! which key was nearly right nor how many there are before it shows in the time it takes.
//!
//! Cost: one SHA-256 of the presented key, then 32 bytes for each known one.

use std::fmt;
use std::hint::black_box;

use sha2::{Digest, Sha256};

/// A secret that can be compared and nothing else.
#[derive(Clone)]
pub struct Secret {
    digest: [u8; 32],
}

impl Secret {
    /// Keeps the digest of `text`.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        Self { digest: Sha256::digest(text).into() }
    }

    /// Parses a secret, or `sha256:` and the secret's digest.
    ///
    /// # Errors
    /// An empty secret, or a malformed digest.
    pub fn parse(text: &str) -> Result<Self, SecretFault> {
        let Some(hex) = text.strip_prefix(DIGEST_PREFIX) else {
            return if text.is_empty() {
                Err(SecretFault::Empty)
            } else {
                Ok(Self::new(text.as_bytes()))
            };
        };
        let mut digest = [0; 32];
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if pairs.len() != digest.len() || !rest.is_empty() {
            return Err(SecretFault::Digest);
        }
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            let value = hex_value(*high).zip(hex_value(*low));
            let (high, low) = value.ok_or(SecretFault::Digest)?;
            *byte = high << 4 | low;
        }
        Ok(Self { digest })
    }

    /// Whether `presented` is the secret; takes the same time whatever they differ in.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.equals(&Sha256::digest(presented).into())
    }

    fn equals(&self, digest: &[u8; 32]) -> bool {
        let pairs = self.digest.iter().zip(digest);
        let difference = pairs.fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret")
    }
}

/// The index of a key in `security.client_api_keys`: what logs and overrides may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(
    /// The index.
    pub u16,
);

/// The keys of which a client must present one. Default: none are asked for.
#[derive(Clone, Debug, Default)]
pub struct ClientKeys {
    secrets: Vec<Secret>,
}

impl ClientKeys {
    /// Parses keys and digests of keys.
    ///
    /// # Errors
    /// The index of the first that is wrong, and why.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, SecretFault)> {
        let mut keys = Self::default();
        for (at, text) in texts.iter().enumerate() {
            let secret = Secret::parse(text.as_ref()).map_err(|fault| (at, fault))?;
            if keys.position(&secret.digest).is_some() {
                return Err((at, SecretFault::Duplicate));
            }
            if at > usize::from(u16::MAX) {
                return Err((at, SecretFault::TooMany));
            }
            keys.secrets.push(secret);
        }
        Ok(keys)
    }

    /// Whether no key is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Which key `presented` is; `None` for none.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<KeyId> {
        let at = self.position(&Sha256::digest(presented).into())?;
        u16::try_from(at).ok().map(KeyId)
    }

    /// Looks at all of them, found or not.
    fn position(&self, digest: &[u8; 32]) -> Option<usize> {
        let secrets = self.secrets.iter().enumerate();
        secrets
            .fold(None, |found, (at, secret)| if secret.equals(digest) { Some(at) } else { found })
    }
}

/// Why a secret is refused. Never repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// Nothing is written.
    Empty,
    /// `sha256:` without 64 hexadecimal digits.
    Digest,
    /// The same key again.
    Duplicate,
    /// More than 65,536 keys.
    TooMany,
}

impl SecretFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "secret_empty",
            Self::Digest => "secret_digest",
            Self::Duplicate => "secret_duplicate",
            Self::TooMany => "secrets_too_many",
        }
    }
}

impl fmt::Display for SecretFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Empty => "write a key, or `sha256:` and its digest",
            Self::Digest => "after `sha256:` come the 64 hexadecimal digits of the key's SHA-256",
            Self::Duplicate => "this key is in the list already: remove one of them",
            Self::TooMany => "at most 65,536 keys",
        })
    }
}

impl std::error::Error for SecretFault {}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

const DIGEST_PREFIX: &str = "sha256:";

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4, the digest of `abc`.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_key_and_its_digest_are_the_same_secret() {
        for text in ["abc", ABC, &ABC.to_uppercase().replace("SHA256", "sha256")] {
            let secret = Secret::parse(text).unwrap();
            assert!(secret.matches(b"abc"), "{text}");
            for wrong in [b"".as_slice(), b"ab", b"abcd", b"ABC", ABC.as_bytes()] {
                assert!(!secret.matches(wrong), "{text}");
            }
        }
    }

    #[test]
    fn a_key_is_found_by_its_place_in_the_list() {
        let keys = ClientKeys::parse(&["first", ABC, "third"]).unwrap();
        let rows = [("first", Some(0)), ("abc", Some(1)), ("third", Some(2)), ("fourth", None)];
        for (presented, place) in rows {
            assert_eq!(keys.find(presented.as_bytes()), place.map(KeyId), "{presented}");
        }
        assert_eq!(keys.find(b""), None);
        assert!(!keys.is_empty());
        assert!(ClientKeys::default().is_empty());
        assert_eq!(ClientKeys::default().find(b""), None);
    }

    #[test]
    fn digests_that_differ_in_any_one_bit_are_different() {
        let secret = Secret::parse(ABC).unwrap();
        for bit in 0..256 {
            let mut other = secret.digest;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!secret.equals(&other), "{bit}");
        }
        assert!(secret.equals(&secret.digest.clone()));
    }

    #[test]
    fn faults_name_the_key_by_its_index_only() {
        let rows: &[(&[&str], (usize, SecretFault))] = &[
            (&["a", ""], (1, SecretFault::Empty)),
            (&["sha256:"], (0, SecretFault::Digest)),
            (&[&ABC[..70]], (0, SecretFault::Digest)),
            (&[&format!("{ABC}0")], (0, SecretFault::Digest)),
            (&[&ABC.replace('f', "g")], (0, SecretFault::Digest)),
            (&["a", "abc", ABC], (2, SecretFault::Duplicate)),
        ];
        for (texts, fault) in rows {
            assert_eq!(ClientKeys::parse(texts).unwrap_err(), *fault, "{texts:?}");
            assert!(!fault.1.to_string().is_empty() && !fault.1.as_str().is_empty());
        }
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let keys = ClientKeys::parse(&["hunter2"]).unwrap();
        assert_eq!(format!("{keys:?}"), "ClientKeys { secrets: [Secret] }");
    }
}
