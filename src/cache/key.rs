//! The cache key: canonical bytes that say which stored response a request asks for.
//!
//! ```text
//! class 1 | upstream 2 | parts 1 | path length 4 | path
//!         [ query length 4 | query ] [ credential 16 ] [ body 32 ]     <- the primary key ends
//!         [ generation 8 | normalised values of the fields in Vary ]   <- a variant's key
//! ```
//!
//! Numbers are big-endian. Every part is of fixed length or carries its length, and `parts` says
//! which optional ones are there: two requests have equal bytes only when all parts are equal,
//! whatever bytes an outsider puts into them. A primary key is a prefix of its variants' keys
//! (RFC 9111 section 4.1), so that a look-up that finds a vary index appends to the same buffer.
//!
//! Cost: one pass of copies into a buffer that the caller reuses; nothing is allocated once that
//! buffer has grown. In memory the bytes are hashed under the process's seed and compared in full;
//! the second tier uses [`Key::digest`].

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::base::Seed;
use crate::http::Method;

/// A 16-byte cryptographic digest: of a key for the second tier, of a credential within a key.
pub type Digest = [u8; 16];

/// The digest of a request's body and its media type, see [`crate::cache::json::digest_body`].
pub type BodyDigest = [u8; 32];

/// Which methods share a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// GET, and HEAD, which is answered from a stored GET (RFC 9110 section 9.3.2).
    Read,
    /// POST cached by its body, where the configuration names it.
    Post,
    /// QUERY cached by its body.
    Query,
}

impl Class {
    /// The class of a method; `None` for methods whose responses are never reused.
    #[must_use]
    pub const fn of(method: &Method) -> Option<Self> {
        match method {
            Method::Get | Method::Head => Some(Self::Read),
            Method::Post => Some(Self::Post),
            Method::Query => Some(Self::Query),
            Method::Put
            | Method::Delete
            | Method::Connect
            | Method::Options
            | Method::Trace
            | Method::Patch
            | Method::Extension(_) => None,
        }
    }

    /// The method that stands for the class.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "GET",
            Self::Post => "POST",
            Self::Query => "QUERY",
        }
    }

    const fn as_byte(self) -> u8 {
        match self {
            Self::Read => b'G',
            Self::Post => b'P',
            Self::Query => b'Q',
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'G' => Some(Self::Read),
            b'P' => Some(Self::Post),
            b'Q' => Some(Self::Query),
            _ => None,
        }
    }
}

/// Writes a key into a buffer: what is always there first, then the optional parts.
///
/// The buffer holds a valid primary key after every call.
#[derive(Debug)]
pub struct KeyWriter<'a> {
    buf: &'a mut Vec<u8>,
}

impl<'a> KeyWriter<'a> {
    /// Starts the key of a method class, an upstream's number, a normalised path and what follows
    /// `?` (`None` when there is no `?`, which differs from an empty query). Empties `buf` first.
    pub fn new(
        buf: &'a mut Vec<u8>,
        class: Class,
        upstream: u16,
        path: &[u8],
        query: Option<&[u8]>,
    ) -> Self {
        buf.clear();
        let [high, low] = upstream.to_be_bytes();
        let parts = if query.is_some() { HAS_QUERY } else { 0 };
        buf.extend_from_slice(&[class.as_byte(), high, low, parts]);
        push_sized(buf, path);
        if let Some(query) = query {
            push_sized(buf, query);
        }
        Self { buf }
    }

    /// Adds the digest of the credential the response belongs to.
    #[must_use]
    pub fn credential(self, credential: &Digest) -> Self {
        debug_assert!(!self.has(HAS_CREDENTIAL | HAS_BODY), "credential once, before the body");
        self.add(HAS_CREDENTIAL, credential)
    }

    /// Adds the digest of the request's body.
    #[must_use]
    pub fn body(self, body: &BodyDigest) -> Self {
        debug_assert!(!self.has(HAS_BODY), "one body");
        self.add(HAS_BODY, body)
    }

    /// The key's bytes.
    #[must_use]
    pub fn finish(self) -> &'a mut Vec<u8> {
        debug_assert!(Parts::parse(self.buf).is_some_and(|parts| parts.variant.is_none()));
        self.buf
    }

    fn has(&self, bits: u8) -> bool {
        self.buf.get(PARTS_AT).is_some_and(|parts| parts & bits != 0)
    }

    fn add(self, bit: u8, bytes: &[u8]) -> Self {
        if let Some(parts) = self.buf.get_mut(PARTS_AT) {
            *parts |= bit;
        }
        self.buf.extend_from_slice(bytes);
        self
    }
}

/// Makes the primary key in `key` the start of a variant's: adds the generation of its vary index.
/// The caller appends the normalised values (`vary::secondary_key`), or none.
pub fn begin_variant(key: &mut Vec<u8>, generation: u64) {
    debug_assert!(Parts::parse(key).is_some_and(|parts| parts.variant.is_none()));
    key.extend_from_slice(&generation.to_be_bytes());
}

/// An owned key with its hash under the process's seed.
#[derive(Clone)]
pub struct Key {
    bytes: Box<[u8]>,
    /// Always `seed.hash(&bytes)` of the one seed of the process.
    hash: u64,
}

impl Key {
    /// Copies a key out of the buffer it was built in. One allocation.
    #[must_use]
    pub fn new(bytes: &[u8], seed: &Seed) -> Self {
        Self { bytes: bytes.into(), hash: seed.hash(bytes) }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hash of the bytes; the same on every core of this process and in no other process.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The name of this key in the second tier. `origin` is the upstream's scheme and authority:
    /// the tier outlives the configuration that numbers the upstreams, and what one origin answered
    /// must not be found for another that has taken over its number.
    #[must_use]
    pub fn digest(&self, origin: &[u8]) -> Digest {
        let length = (origin.len() as u64).to_be_bytes();
        cut(Sha256::new().chain_update(length).chain_update(origin).chain_update(&self.bytes))
    }

    /// What the key is made of; `None` for bytes that no [`KeyWriter`] wrote.
    #[must_use]
    pub fn parts(&self) -> Option<Parts<'_>> {
        Parts::parse(&self.bytes)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            Some(parts) => write!(f, "Key({parts})"),
            None => write!(f, "Key({})", self.bytes.escape_ascii()),
        }
    }
}

/// SHA-256 cut to 16 bytes, for credentials: nobody can find two that share one.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    cut(Sha256::new_with_prefix(bytes))
}

fn cut(hash: Sha256) -> Digest {
    let mut digest = [0; 16];
    for (to, from) in digest.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    digest
}

/// A key taken apart: for purges by path and for explaining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The methods that share the response.
    pub class: Class,
    /// The number of the upstream.
    pub upstream: u16,
    /// The normalised path.
    pub path: &'a [u8],
    /// What follows `?`.
    pub query: Option<&'a [u8]>,
    /// The digest of the credential the response belongs to.
    pub credential: Option<&'a Digest>,
    /// The digest of the request's body.
    pub body: Option<&'a BodyDigest>,
    /// What makes it one variant of several.
    pub variant: Option<Variant<'a>>,
}

/// The part of a key that tells the variants of one resource apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant<'a> {
    /// The generation of the vary index that led here; another index, another generation.
    pub generation: u64,
    /// Normalised values of the request fields named in Vary.
    pub values: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes a key apart; `None` for bytes that no [`KeyWriter`] wrote. Allocates nothing.
    #[must_use]
    pub fn parse(key: &'a [u8]) -> Option<Self> {
        let ([class, high, low, parts], rest) = key.split_first_chunk()?;
        if parts & !(HAS_QUERY | HAS_CREDENTIAL | HAS_BODY) != 0 {
            return None;
        }
        let (path, mut rest) = split_sized(rest)?;
        let mut query = None;
        if parts & HAS_QUERY != 0 {
            let (text, after) = split_sized(rest)?;
            (query, rest) = (Some(text), after);
        }
        let mut credential = None;
        if parts & HAS_CREDENTIAL != 0 {
            let (digest, after) = rest.split_first_chunk()?;
            (credential, rest) = (Some(digest), after);
        }
        let mut body = None;
        if parts & HAS_BODY != 0 {
            let (digest, after) = rest.split_first_chunk()?;
            (body, rest) = (Some(digest), after);
        }
        let variant = match rest.split_first_chunk() {
            Some((generation, values)) => {
                Some(Variant { generation: u64::from_be_bytes(*generation), values })
            }
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self {
            class: Class::from_byte(*class)?,
            upstream: u16::from_be_bytes([*high, *low]),
            path,
            query,
            credential,
            body,
            variant,
        })
    }
}

impl fmt::Display for Parts<'_> {
    /// One line for people, such as `GET 0 /v1/x?a=1 credential=ab.. variant=7:..`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.class.as_str(), self.upstream, self.path.escape_ascii())?;
        if let Some(query) = self.query {
            write!(f, "?{}", query.escape_ascii())?;
        }
        if let Some(credential) = self.credential {
            write_hex(f, " credential=", credential)?;
        }
        if let Some(body) = self.body {
            write_hex(f, " body=", body)?;
        }
        if let Some(variant) = self.variant {
            write!(f, " variant={}:{}", variant.generation, variant.values.escape_ascii())?;
        }
        Ok(())
    }
}

/// The path within a key: what a purge by path or by prefix compares.
#[must_use]
pub fn path_of(key: &[u8]) -> Option<&[u8]> {
    split_sized(key.get(PARTS_AT + 1..)?).map(|(path, _)| path)
}

fn push_sized(buf: &mut Vec<u8>, bytes: &[u8]) {
    // A request head has at most some MiB; a longer part could not have been read.
    debug_assert!(u32::try_from(bytes.len()).is_ok());
    buf.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    buf.extend_from_slice(bytes);
}

fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn write_hex(f: &mut fmt::Formatter<'_>, label: &str, bytes: &[u8]) -> fmt::Result {
    f.write_str(label)?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Where the byte stands that says which optional parts follow.
const PARTS_AT: usize = 3;
const HAS_QUERY: u8 = 1;
const HAS_CREDENTIAL: u8 = 2;
const HAS_BODY: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (u16, Vec<u8>, Option<Vec<u8>>, Option<Digest>, Option<BodyDigest>, Option<Tail>);
    type Tail = (u64, Vec<u8>);

    fn build((upstream, path, query, credential, body, tail): &Owned) -> Vec<u8> {
        let mut buf = b"left over".to_vec();
        let mut writer = KeyWriter::new(&mut buf, Class::Read, *upstream, path, query.as_deref());
        if let Some(credential) = credential {
            writer = writer.credential(credential);
        }
        if let Some(body) = body {
            writer = writer.body(body);
        }
        let key = writer.finish();
        if let Some((generation, values)) = tail {
            begin_variant(key, *generation);
            key.extend_from_slice(values);
        }
        buf
    }

    fn arbitrary() -> impl Strategy<Value = Owned> {
        // Few values, so that different cases meet at part boundaries.
        let bytes = || proptest::collection::vec(0..3u8, 0..6);
        let credential = proptest::option::of(Just([1; 16]));
        let body = proptest::option::of(Just([0; 32]));
        let tail = proptest::option::of((0..3u64, bytes()));
        (0..2u16, bytes(), proptest::option::of(bytes()), credential, body, tail)
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_when_all_parts_are(a in arbitrary(), b in arbitrary()) {
            prop_assert_eq!(build(&a) == build(&b), a == b);
        }

        #[test]
        fn a_key_comes_apart_into_what_it_was_made_of(a in arbitrary()) {
            let key = build(&a);
            let parts = Parts::parse(&key).unwrap();
            let tail = parts.variant.map(|it| (it.generation, it.values.to_vec()));
            let query = parts.query.map(<[u8]>::to_vec);
            let back =
                (parts.upstream, parts.path.to_vec(), query, parts.credential.copied(),
                 parts.body.copied(), tail);
            prop_assert_eq!(path_of(&key), Some(a.1.as_slice()));
            prop_assert_eq!(&back, &a);
            let (up, path, query, credential, body, _) = a;
            let primary = build(&(up, path, query, credential, body, None));
            prop_assert!(key.starts_with(&primary));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Parts::parse(&bytes), path_of(&bytes));
        }
    }

    #[test]
    fn an_empty_query_is_not_an_absent_one() {
        let key = |query| build(&(0, b"/a".to_vec(), query, None, None, None));
        assert_ne!(key(None), key(Some(Vec::new())));
    }

    #[test]
    fn head_shares_the_key_of_get_and_unsafe_methods_have_none() {
        assert_eq!(Class::of(&Method::Head), Class::of(&Method::Get));
        assert_ne!(Class::of(&Method::Post), Class::of(&Method::Query));
        assert_eq!(Class::of(&Method::Put), None);
        for class in [Class::Read, Class::Post, Class::Query] {
            assert_eq!(Class::from_byte(class.as_byte()), Some(class));
        }
    }

    #[test]
    fn the_digest_is_the_start_of_sha_256() {
        // FIPS 180-2, example B.1.
        assert_eq!(digest(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn an_origin_that_takes_over_a_number_finds_nothing_of_the_former() {
        let key = Key::new(b"key", &Seed::fixed(1));
        let other_seed = Key::new(b"key", &Seed::fixed(2));
        assert_eq!(key.digest(b"https://a"), other_seed.digest(b"https://a"));
        assert_ne!(key.digest(b"https://a"), key.digest(b"https://b"));
        assert_ne!(Key::new(b"bc", &Seed::fixed(1)).digest(b"a"), key.digest(b"ab"));
    }

    #[test]
    fn a_key_reads_well() {
        let key = build(&(3, b"/a".to_vec(), Some(b"b=1".to_vec()), None, None, Some((7, vec![]))));
        assert_eq!(Parts::parse(&key).unwrap().to_string(), "GET 3 /a?b=1 variant=7:");
        assert_eq!(format!("{:?}", Key::new(b"x", &Seed::fixed(1))), "Key(x)");
    }

    #[test]
    fn a_reused_buffer_is_not_allocated_again() {
        let mut buf = Vec::new();
        let long = [b'a'; 300];
        let _ =
            KeyWriter::new(&mut buf, Class::Read, 0, &long, Some(&long)).body(&[0; 32]).finish();
        let room = buf.capacity();
        let _ = KeyWriter::new(&mut buf, Class::Read, 0, b"/", None).finish();
        assert_eq!(buf.capacity(), room);
    }
}
