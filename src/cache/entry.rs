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
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use once_cell::race::OnceBox;

use crate::cache::control::forbids_transforming;
use crate::cache::facts::Facts;
use crate::cache::key::Key;
use crate::cache::ledger::Ledger;
pub use crate::cache::packed::Marks;
use crate::cache::packed::Packed;
use crate::cache::part::Part;
use crate::cache::vary::VarySpec;
use crate::http::media::MediaType;
use crate::http::{Fields, accept};

/// One stored response, whole or in part, or the index of a resource's variants.
pub struct Entry {
    key: Key,
    /// Exactly as much memory as text.
    fields: Fields,
    body: Bytes,
    /// With the marks.
    facts: Packed,
    /// Three rare things that never meet share one word: a vary index and a part have it set from
    /// the start, a response sets it at most once.
    extra: OnceBox<Extra>,
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
    Encoded(Box<Encoded>),
    Part(Part),
    VaryIndex(Box<VaryIndex>),
    /// Another coding was found not to pay.
    Useless,
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
        Self::open(key, facts, exact(fields), body, OnceBox::new(), ledger)
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
        let extra = OnceBox::with_value(Box::new(Extra::Part(part)));
        Self::open(key, facts, exact(fields), body, extra, ledger)
    }

    /// The index of the variants under a primary key. `facts` are those of the newest variant.
    #[must_use]
    pub fn vary_index(key: Key, facts: Facts, index: VaryIndex, ledger: &Arc<Ledger>) -> Self {
        debug_assert!(!index.specs.is_empty());
        let extra = OnceBox::with_value(Box::new(Extra::VaryIndex(Box::new(index))));
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
        extra: OnceBox<Extra>,
        ledger: &Arc<Ledger>,
    ) -> Self {
        let facts = Packed::new(&facts).with_marks(Marks::of(&fields));
        debug_assert!(facts.is_valid(), "{facts:?}");
        let entry = Self { key, fields, body, facts, extra, ledger: Arc::clone(ledger) };
        ledger.open(entry.size_bytes());
        entry
    }

    /// Notes whether the origin set one of the fields that the caller adds to every answer.
    #[must_use]
    pub fn with_own_fields(mut self, own_fields: bool) -> Self {
        self.facts = self.facts.with_marks(Marks { own_fields, ..self.marks() });
        self
    }

    /// Leaves a body as it is whose length is not among these.
    #[must_use]
    pub fn compressed_within(mut self, lengths: RangeInclusive<u64>) -> Self {
        let marks = self.marks();
        let compressible = marks.compressible && lengths.contains(&(self.body.len() as u64));
        self.facts = self.facts.with_marks(Marks { compressible, ..marks });
        self
    }

    /// Says that the response varies on Accept-Encoding, unless it does so itself: for one that is
    /// sent in two codings (RFC 9110 section 12.5.5).
    #[must_use]
    pub fn varying_on_coding(mut self) -> Self {
        if let Some(fields) = varying_on_coding(&self.fields) {
            let fields = exact(&fields);
            self.ledger.grow((fields.as_wire().len() - self.fields.as_wire().len()) as u64);
            self.fields = fields;
        }
        self
    }

    /// What the hit path must know.
    #[must_use]
    pub const fn marks(&self) -> Marks {
        self.facts.marks()
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
            Some(Extra::VaryIndex(index)) => Kind::VaryIndex(index),
            Some(Extra::Part(part)) => Kind::Part(*part),
            Some(Extra::Encoded(_) | Extra::Useless) | None => Kind::Content,
        }
    }

    /// The response in its other content coding: gzip when stored plain, plain when stored as gzip.
    #[must_use]
    pub fn other_coding(&self) -> OtherCoding<'_> {
        match self.extra.get() {
            None => OtherCoding::NotMade,
            Some(Extra::Encoded(encoded)) => OtherCoding::Made(encoded),
            Some(Extra::Part(_) | Extra::VaryIndex(_) | Extra::Useless) => OtherCoding::Useless,
        }
    }

    /// Keeps the other coding, or with `None` the finding that it does not pay, and returns what
    /// holds from now on. Whoever comes second has worked in vain: the first result stays, so that
    /// no two clients see different bytes for one validator (RFC 9110 section 8.8.3.3).
    pub fn keep_other_coding(&self, encoded: Option<Encoded>) -> OtherCoding<'_> {
        let extra = encoded.map_or(Extra::Useless, |encoded| {
            debug_assert!(content_length_agrees(&encoded.fields, &encoded.body));
            Extra::Encoded(Box::new(Encoded { fields: exact(&encoded.fields), ..encoded }))
        });
        if self.extra.set(Box::new(extra)).is_ok() {
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
        let Some(extra) = self.extra.get() else { return 0 };
        let content = match extra {
            Extra::Encoded(it) => size_of::<Encoded>() + it.fields.as_wire().len() + it.body.len(),
            Extra::VaryIndex(index) => {
                let specs = index.specs.iter();
                let names = specs.map(|spec| size_of::<VarySpec>() + spec.as_str().len());
                size_of::<VaryIndex>() + names.sum::<usize>()
            }
            Extra::Part(_) | Extra::Useless => 0,
        };
        (size_of::<Extra>() + content) as u64
    }
}

impl Marks {
    /// What a head says; `own_fields` is not found here.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let coding = fields.combined("Content-Encoding");
        let gzip = coding.as_deref().is_some_and(accept::is_gzip);
        let fixed = forbids_transforming(fields);
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

/// The fields with Accept-Encoding in Vary; `None` if it is there.
#[must_use]
pub fn varying_on_coding(fields: &Fields) -> Option<Fields> {
    let named = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding");
    if crate::http::list::field_members(fields, "Vary").any(named) {
        return None;
    }
    let mut varying = fields.clone();
    varying.push("Vary", "Accept-Encoding");
    Some(varying)
}

/// The same fields in no more memory than their text needs.
fn exact(fields: &Fields) -> Fields {
    let mut exact = Fields::with_capacity(fields.as_wire().len());
    exact.extend(fields);
    exact
}

/// Memory per entry beside key, head and body: the entry with the two counts of its `Arc`, its
/// place in one core's index, and its place in the hub of all cores. Allocator rounding is not in
/// it; `benches/cache.rs` measures that.
pub const OVERHEAD_BYTES: usize =
    size_of::<Entry>() + 2 * size_of::<usize>() + INDEX_BYTES + HUB_BYTES;

/// A slab node, and a slot of the index at its emptiest: five bytes, and right after growing 16 of
/// 7 slots are free.
pub(crate) const INDEX_BYTES: usize = NODE_BYTES + 5 * 16 / 7;

/// Held against the shard's node there.
pub(crate) const NODE_BYTES: usize = 16;

/// Twenty bytes in a tree whose nodes are some two thirds full.
const HUB_BYTES: usize = 37;

/// With the counts of its `Arc` an entry fills an allocator's bin of 160 bytes.
const _: () = assert!(size_of::<Entry>() == 144);
const _: () = assert!(OVERHEAD_BYTES <= 250, "an entry costs at most 250 bytes");

#[cfg(test)]
mod tests;
