//! A stored response in memory: immutable, behind an `Arc`, shared by all cores.
//!
//! What is sent often is kept in the form in which it is sent: the head as HTTP/1 text (which
//! [`Fields`] lists for HTTP/2 just as well) and the body as one run of bytes. The one thing that
//! may come later is the same response in another content coding, made once by whoever needs it
//! first.
//!
//! Under a primary key whose responses carry Vary stands not a response but a [`VaryIndex`]: the
//! lists of fields to look at, and the generation that its variants' keys carry (RFC 9111 section
//! 4.1). Dropping the index makes every variant unreachable.
//!
//! A 206 is kept as a [`Part`]: its status is 206, its body the bytes that the part names, its
//! fields have no Content-Range. Whatever answers from an entry must match on its [`Kind`].
//!
//! Cost: [`OVERHEAD_BYTES`] beside key, head and body, checked below. An entry charges the
//! process's [`Ledger`] from when it is made until its last holder drops it.

use std::fmt;
use std::mem::size_of;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::cache::facts::Facts;
use crate::cache::key::Key;
use crate::cache::ledger::Ledger;
use crate::cache::packed::Packed;
use crate::cache::part::Part;
use crate::cache::vary::VarySpec;
use crate::http::Fields;
use crate::http::media::MediaType;

/// One stored response, whole or in part, or the index of a resource's variants.
pub struct Entry {
    key: Key,
    /// Exactly as much memory as text.
    fields: Fields,
    body: Bytes,
    facts: Packed,
    marks: Marks,
    /// Three rare things that never meet share one word: a vary index and a part have it set from
    /// the start, a response sets it at most once, to `None` when another coding was found not to
    /// pay.
    extra: OnceLock<Option<Box<Extra>>>,
    /// Charged with `size_bytes` at every moment of this entry's life.
    ledger: Arc<Ledger>,
}

/// The same response in another content coding, with the head that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Head with its own Content-Encoding, Content-Length, ETag and Vary.
    pub fields: Fields,
    /// The encoded, or decoded, body.
    pub body: Bytes,
}

/// Which request fields choose between the variants of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaryIndex {
    /// Part of every variant's key; never used twice for one primary key.
    pub generation: u64,
    /// The lists seen so far, newest first; usually one.
    pub specs: Box<[VarySpec]>,
}

/// What the hit path must know of an entry beside its facts: found once, when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The body is stored as gzip.
    pub gzip: bool,
    /// The body is stored plain, is of a type that shrinks, and may be transformed.
    pub compressible: bool,
    /// The origin set fields that the caller adds to every answer; see [`Entry::with_own_fields`].
    pub own_fields: bool,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A whole response.
    Content,
    /// Some bytes of a response, which can't stand for the whole (RFC 9111 section 3.3).
    Part(Part),
    /// The index of a resource's variants; head and body are empty.
    VaryIndex(&'a VaryIndex),
}

/// What is known of a response's other content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherCoding<'a> {
    /// Nobody has asked for it yet.
    NotMade,
    /// It was tried and does not pay, or can't be made: don't try again.
    Useless,
    /// Here it is.
    Made(&'a Encoded),
}

enum Extra {
    Encoded(Encoded),
    Part(Part),
    VaryIndex(VaryIndex),
}

impl Entry {
    /// A stored response. `fields` are those to be stored (`storable::stored_fields`), with
    /// Content-Length, where there is one, naming the length of `body`.
    ///
    /// `body` should own its memory alone: a slice of a larger buffer holds all of that buffer,
    /// while the ledger counts the slice. Copies the head; the body is taken as it is.
    ///
    /// # Panics
    /// For a 206, which is a [`Entry::part`].
    #[must_use]
    pub fn new(key: Key, facts: Facts, fields: &Fields, body: Bytes, ledger: &Arc<Ledger>) -> Self {
        debug_assert!(content_length_agrees(fields, &body), "{fields:?} with {} bytes", body.len());
        // Else a part would be given out as the whole.
        assert_ne!(facts.status, 206);
        Self::open(key, facts, exact(fields), body, OnceLock::new(), ledger)
    }

    /// A part of a response: `body` is the bytes that `part` names, `facts` have the status 206.
    ///
    /// # Panics
    /// When they are not.
    #[must_use]
    pub fn part(
        key: Key,
        facts: Facts,
        fields: &Fields,
        body: Bytes,
        part: Part,
        ledger: &Arc<Ledger>,
    ) -> Self {
        // Else a client would get other bytes than those it asked for.
        assert!(part.span.len() == body.len() as u64 && facts.status == 206);
        debug_assert!(content_length_agrees(fields, &body) && !fields.contains("Content-Range"));
        let extra = OnceLock::from(Some(Box::new(Extra::Part(part))));
        Self::open(key, facts, exact(fields), body, extra, ledger)
    }

    /// The index of the variants under a primary key. `facts` are those of the newest variant.
    #[must_use]
    pub fn vary_index(key: Key, facts: Facts, index: VaryIndex, ledger: &Arc<Ledger>) -> Self {
        debug_assert!(!index.specs.is_empty());
        let extra = OnceLock::from(Some(Box::new(Extra::VaryIndex(index))));
        Self::open(key, facts, Fields::new(), Bytes::new(), extra, ledger)
    }

    /// The same response, or index, with another head under `key`: what an update makes of it.
    #[must_use]
    pub fn renewed(&self, key: Key, facts: Facts, fields: &Fields) -> Self {
        match self.kind() {
            Kind::Content => Self::new(key, facts, fields, self.body.clone(), &self.ledger),
            Kind::Part(part) => {
                Self::part(key, facts, fields, self.body.clone(), part, &self.ledger)
            }
            Kind::VaryIndex(index) => Self::vary_index(key, facts, index.clone(), &self.ledger),
        }
    }

    fn open(
        key: Key,
        facts: Facts,
        fields: Fields,
        body: Bytes,
        extra: OnceLock<Option<Box<Extra>>>,
        ledger: &Arc<Ledger>,
    ) -> Self {
        let facts = Packed::new(&facts);
        debug_assert!(facts.is_valid(), "{facts:?}");
        let marks = Marks::of(&fields);
        let entry = Self { key, fields, body, facts, marks, extra, ledger: Arc::clone(ledger) };
        ledger.open(entry.size_bytes());
        entry
    }

    /// Notes whether the origin set one of the fields that the caller adds to every answer.
    #[must_use]
    pub fn with_own_fields(mut self, own_fields: bool) -> Self {
        self.marks.own_fields = own_fields;
        self
    }

    /// What the hit path must know.
    #[must_use]
    pub const fn marks(&self) -> Marks {
        self.marks
    }

    /// The key it is stored under.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The status code; of the newest variant for an index.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.facts.status
    }

    /// The policy facts.
    #[must_use]
    #[inline]
    pub fn facts(&self) -> Facts {
        self.facts.facts()
    }

    /// The facts as they are kept.
    pub(crate) const fn packed(&self) -> &Packed {
        &self.facts
    }

    /// The head as stored.
    #[must_use]
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The body as stored.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Response, part or index.
    #[must_use]
    pub fn kind(&self) -> Kind<'_> {
        match self.extra.get() {
            Some(Some(extra)) => match extra.as_ref() {
                Extra::VaryIndex(index) => Kind::VaryIndex(index),
                Extra::Part(part) => Kind::Part(*part),
                Extra::Encoded(_) => Kind::Content,
            },
            Some(None) | None => Kind::Content,
        }
    }

    /// The response in its other content coding: gzip when stored plain, plain when stored as gzip.
    #[must_use]
    pub fn other_coding(&self) -> OtherCoding<'_> {
        match self.extra.get() {
            None => OtherCoding::NotMade,
            Some(None) => OtherCoding::Useless,
            Some(Some(extra)) => match extra.as_ref() {
                Extra::Encoded(encoded) => OtherCoding::Made(encoded),
                Extra::Part(_) | Extra::VaryIndex(_) => OtherCoding::Useless,
            },
        }
    }

    /// Keeps the other coding, or with `None` the finding that it does not pay, and returns what
    /// holds from now on. Whoever comes second has worked in vain: the first result stays, so that
    /// no two clients see different bytes for one validator (RFC 9110 section 8.8.3.3).
    pub fn keep_other_coding(&self, encoded: Option<Encoded>) -> OtherCoding<'_> {
        let extra = encoded.map(|encoded| {
            debug_assert!(content_length_agrees(&encoded.fields, &encoded.body));
            Box::new(Extra::Encoded(Encoded { fields: exact(&encoded.fields), ..encoded }))
        });
        if self.extra.set(extra).is_ok() {
            self.ledger.grow(self.extra_bytes());
        }
        self.other_coding()
    }

    /// Memory charged for this entry: key, head, body, encoded variant and [`OVERHEAD_BYTES`].
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let parts = [self.key.bytes().len(), self.fields.as_wire().len(), self.body.len()];
        let content: u64 = parts.into_iter().map(|bytes| bytes as u64).sum();
        OVERHEAD_BYTES as u64 + content + self.extra_bytes()
    }

    fn extra_bytes(&self) -> u64 {
        let Some(Some(extra)) = self.extra.get() else { return 0 };
        let content = match extra.as_ref() {
            Extra::Encoded(encoded) => encoded.fields.as_wire().len() + encoded.body.len(),
            Extra::Part(_) => 0,
            Extra::VaryIndex(index) => {
                let specs = index.specs.iter();
                specs.map(|spec| size_of::<VarySpec>() + spec.as_str().len()).sum()
            }
        };
        (size_of::<Extra>() + content) as u64
    }
}

impl Marks {
    fn of(fields: &Fields) -> Self {
        let coding = fields.combined("Content-Encoding");
        let gzip = coding.as_deref().is_some_and(|it| it.eq_ignore_ascii_case(b"gzip"));
        let fixed = fields.combined("Cache-Control").is_some_and(|value| {
            crate::http::list::members(&value).any(|it| it.eq_ignore_ascii_case(b"no-transform"))
        });
        let kind = fields.get("Content-Type").and_then(MediaType::parse);
        let shrinks = kind.is_some_and(|it| it.is_compressible());
        let compressible = coding.is_none() && shrinks && !fixed;
        Self { gzip, compressible, own_fields: false }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.close(self.size_bytes());
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("status", &self.status())
            .field("kind", &self.kind())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Whether Content-Length, if given, is the length of the body. One that isn't would desynchronise
/// a client's connection.
pub(crate) fn content_length_agrees(fields: &Fields, body: &[u8]) -> bool {
    fields
        .all("content-length")
        .all(|value| std::str::from_utf8(value).is_ok_and(|text| text.parse() == Ok(body.len())))
}

/// The same fields in no more memory than their text needs.
fn exact(fields: &Fields) -> Fields {
    let mut exact = Fields::with_capacity(fields.as_wire().len());
    exact.extend(fields);
    exact
}

/// Memory per entry beside key, head and body: the entry with the two counts of its `Arc`, and its
/// place in one core's index. Allocator rounding is not in it; `benches/cache.rs` measures that.
pub const OVERHEAD_BYTES: usize = size_of::<Entry>() + 2 * size_of::<usize>() + INDEX_BYTES;

/// A slab node, and a slot of the index at its emptiest: five bytes, and right after growing 16 of
/// 7 slots are free.
pub(crate) const INDEX_BYTES: usize = NODE_BYTES + 5 * 16 / 7;

/// Held against the shard's node there.
pub(crate) const NODE_BYTES: usize = 16;

const _: () = assert!(OVERHEAD_BYTES <= 250, "an entry costs at most 250 bytes");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;
    use crate::cache::packed::tests::plain_facts;

    fn key() -> Key {
        Key::new(b"key", &Seed::fixed(1))
    }

    fn head(length: usize) -> Fields {
        let mut fields = Fields::with_capacity(4_096);
        fields.push("Content-Length", length.to_string());
        fields
    }

    fn content(ledger: &Arc<Ledger>) -> Entry {
        Entry::new(key(), plain_facts(), &head(5), Bytes::from_static(b"hello"), ledger)
    }

    #[test]
    fn the_ledger_is_charged_until_the_last_holder_lets_go() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let first = Arc::new(content(&ledger));
        let size = first.size_bytes();
        assert_eq!(size, (OVERHEAD_BYTES + 3 + "Content-Length: 5\r\n".len() + 5) as u64);
        let second = Arc::clone(&first);
        drop(first);
        assert_eq!((ledger.bytes(), ledger.entries()), (size, 1));
        drop(second);
        assert_eq!((ledger.bytes(), ledger.entries()), (0, 0));
    }

    #[test]
    fn the_other_coding_is_kept_once_and_charged() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let entry = content(&ledger);
        let plain = entry.size_bytes();
        assert_eq!(entry.other_coding(), OtherCoding::NotMade);
        let encoded = Encoded { fields: head(4), body: Bytes::from_static(b"gzip") };
        assert_eq!(entry.keep_other_coding(Some(encoded.clone())), OtherCoding::Made(&encoded));
        assert!(entry.size_bytes() > plain + 4);
        assert_eq!(ledger.bytes(), entry.size_bytes());
        assert_eq!(entry.keep_other_coding(None), OtherCoding::Made(&encoded));
        assert_eq!((entry.kind(), ledger.bytes()), (Kind::Content, entry.size_bytes()));
        drop(entry);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn a_useless_coding_is_remembered() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let entry = content(&ledger);
        assert_eq!(entry.keep_other_coding(None), OtherCoding::Useless);
        assert_eq!(entry.other_coding(), OtherCoding::Useless);
        assert_eq!(ledger.bytes(), entry.size_bytes());
    }

    #[test]
    fn a_vary_index_is_no_response_and_takes_no_coding() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let specs = [VarySpec::parse("accept-language").unwrap()].into();
        let index = VaryIndex { generation: 7, specs };
        let entry = Entry::vary_index(key(), plain_facts(), index.clone(), &ledger);
        assert_eq!(entry.kind(), Kind::VaryIndex(&index));
        assert_eq!(entry.keep_other_coding(None), OtherCoding::Useless);
        assert_eq!(entry.kind(), Kind::VaryIndex(&index));
        assert_eq!(ledger.bytes(), entry.size_bytes());
    }

    #[test]
    fn a_part_keeps_its_place_and_takes_no_coding() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let span = crate::http::range::Span { first: 3, last: 7 };
        let part = Part { span, complete: Some(20) };
        let facts = Facts { status: 206, ..plain_facts() };
        let body = Bytes::from_static(b"hello");
        let entry = Entry::part(key(), facts, &head(5), body, part, &ledger);
        assert_eq!((entry.kind(), entry.status()), (Kind::Part(part), 206));
        assert_eq!(entry.keep_other_coding(None), OtherCoding::Useless);
        let renewed = entry.renewed(key(), facts, &head(5));
        assert_eq!(renewed.kind(), Kind::Part(part));
        drop(entry);
        assert_eq!(ledger.bytes(), renewed.size_bytes());
    }

    #[test]
    #[should_panic(expected = "part.span.len()")]
    fn a_part_of_another_length_is_not_made() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let span = crate::http::range::Span { first: 3, last: 8 };
        let facts = Facts { status: 206, ..plain_facts() };
        let part = Part { span, complete: None };
        drop(Entry::part(key(), facts, &head(5), Bytes::from_static(b"hello"), part, &ledger));
    }

    #[test]
    fn a_false_content_length_is_noticed() {
        assert!(content_length_agrees(&Fields::new(), b"abc"));
        assert!(content_length_agrees(&head(3), b"abc"));
        assert!(!content_length_agrees(&head(4), b"abc"));
        let mut odd = head(3);
        odd.push("content-length", "x");
        assert!(!content_length_agrees(&odd, b"abc"));
    }

    #[test]
    fn entries_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<Entry>();
    }
}
