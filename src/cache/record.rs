//! How an entry is written into the second tier, and read back with suspicion.
//!
//! A row has two parts, this record and the body. The record:
//!
//! ```text
//! version 1 | CRC-32 of all that follows 4 | kind 1 | body length 8 | CRC-32 of the body 4
//!           | facts 52 | key length 4 | key | content: field text, to the end
//!                                           | vary index: generation 8 | { length 2 | names } ...
//!                                           | part: first 8 | complete 8 | field text, to the end
//! ```
//!
//! A part's last place follows from the body's length; a complete length of 0 is unknown.
//!
//! Numbers are big-endian, times milliseconds. A database commits a row as a whole, but files get
//! damaged, are restored in part and are written by other versions: a record is read as if an enemy
//! had written it. Whatever is not exactly what [`encode`] writes is a [`RecordFault`], hence a
//! miss; nothing is allocated that the record's own length does not pay for. The key is compared in
//! full, so that a row found by its digest can't answer for another request.
//!
//! The checksums are against accidents, which CRC-32 finds as well as any; who can write the
//! database can write a matching one. Cost: one pass over the body (measured: 25 GB/s).
//!
//! The encoded variant is not stored: it is made again by the first client that wants it.

use std::sync::Arc;

use bytes::Bytes;
use libdeflater::crc32;

use crate::base::Wall;
use crate::cache::entry::{Entry, Kind, VaryIndex, content_length_agrees};
use crate::cache::facts::Facts;
use crate::cache::key::Key;
use crate::cache::ledger::Ledger;
use crate::cache::packed::Packed;
use crate::cache::part::Part;
use crate::cache::vary::VarySpec;
use crate::http::Fields;
use crate::http::range::Span;

/// The first byte of every record; a row with another one is a miss and is replaced in time.
pub const FORMAT_VERSION: u8 = 1;

/// Why a row is no entry. Each is a miss; all but `OtherVersion` and `OtherKey` are worth a
/// warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// Written by another version of this software.
    OtherVersion,
    /// Cut short, changed, or never a record.
    Corrupt,
    /// The checksums hold and yet a value is out of its range: a fault in whoever wrote it.
    Invalid,
    /// The body is not the one that the record was written with.
    OtherBody,
    /// A record of another key with the same digest.
    OtherKey,
}

impl RecordFault {
    /// Every fault, for documents and tests.
    pub const ALL: [Self; 5] =
        [Self::OtherVersion, Self::Corrupt, Self::Invalid, Self::OtherBody, Self::OtherKey];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherVersion => "record_other_version",
            Self::Corrupt => "record_corrupt",
            Self::Invalid => "record_invalid",
            Self::OtherBody => "record_other_body",
            Self::OtherKey => "record_other_key",
        }
    }
}

/// The record of an entry; its body is stored beside it.
#[must_use]
pub fn encode(entry: &Entry) -> Vec<u8> {
    let (key, wire) = (entry.key().bytes(), entry.fields().as_wire());
    let mut out = Vec::with_capacity(FIXED_BYTES + key.len() + wire.len());
    out.push(FORMAT_VERSION);
    out.extend_from_slice(&[0; 4]);
    out.push(match entry.kind() {
        Kind::Content => KIND_CONTENT,
        Kind::VaryIndex(_) => KIND_VARY_INDEX,
        Kind::Part(_) => KIND_PART,
    });
    out.extend_from_slice(&(entry.body().len() as u64).to_be_bytes());
    out.extend_from_slice(&crc32(entry.body()).to_be_bytes());
    put_facts(entry.packed(), &mut out);
    // A key is as long as a request head can be.
    debug_assert!(u32::try_from(key.len()).is_ok());
    out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
    match entry.kind() {
        Kind::Content => out.extend_from_slice(wire),
        Kind::VaryIndex(index) => put_index(index, &mut out),
        Kind::Part(part) => {
            out.extend_from_slice(&part.span.first.to_be_bytes());
            out.extend_from_slice(&part.complete.unwrap_or(0).to_be_bytes());
            out.extend_from_slice(wire);
        }
    }
    seal(&mut out);
    out
}

/// The entry of a row that was looked up for `key`, charged to `ledger`.
///
/// # Errors
/// [`RecordFault`]: the row is to be treated as absent.
pub fn decode(
    record: &[u8],
    body: Bytes,
    key: &Key,
    ledger: &Arc<Ledger>,
) -> Result<Entry, RecordFault> {
    let (version, rest) = record.split_first().ok_or(RecordFault::Corrupt)?;
    if *version != FORMAT_VERSION {
        return Err(RecordFault::OtherVersion);
    }
    let (sum, rest) = rest.split_first_chunk().ok_or(RecordFault::Corrupt)?;
    if u32::from_be_bytes(*sum) != crc32(rest) {
        return Err(RecordFault::Corrupt);
    }
    let mut reader = Reader { rest };
    let kind = reader.u8()?;
    let (body_bytes, body_sum) = (reader.u64()?, reader.u32()?);
    let facts = facts(&mut reader)?;
    let key_bytes = reader.u32()?;
    if reader.bytes(key_bytes as usize)? != key.bytes() {
        return Err(RecordFault::OtherKey);
    }
    if body_bytes != body.len() as u64 || body_sum != crc32(&body) {
        return Err(RecordFault::OtherBody);
    }
    match kind {
        KIND_CONTENT if facts.status != 206 => {
            let fields = fields(reader.rest, &body)?;
            Ok(Entry::new(key.clone(), facts, &fields, body, ledger))
        }
        KIND_PART if facts.status == 206 => {
            let part = part(&mut reader, body_bytes)?;
            let fields = fields(reader.rest, &body)?;
            if fields.contains("Content-Range") {
                return Err(RecordFault::Invalid);
            }
            Ok(Entry::part(key.clone(), facts, &fields, body, part, ledger))
        }
        KIND_VARY_INDEX if body.is_empty() => {
            let index = index(&mut reader)?;
            Ok(Entry::vary_index(key.clone(), facts, index, ledger))
        }
        _ => Err(RecordFault::Invalid),
    }
}

/// Writes the checksum over all that follows it.
fn seal(record: &mut [u8]) {
    let sum = record.get(SEALED_AT..).map_or(0, crc32);
    if let Some(place) = record.get_mut(1..SEALED_AT) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

fn put_facts(facts: &Packed, out: &mut Vec<u8>) {
    out.extend_from_slice(&facts.status.to_be_bytes());
    out.extend_from_slice(&[facts.source(), facts.flags()]);
    let millis = |seconds| u64::from(seconds) * 1_000;
    let times = [facts.response_time.as_millis(), millis(facts.date_secs)];
    for millis in times.into_iter().chain(facts.spans).chain(facts.leaves.map(millis)) {
        out.extend_from_slice(&millis.to_be_bytes());
    }
}

fn facts(reader: &mut Reader<'_>) -> Result<Facts, RecordFault> {
    let status = reader.u16()?;
    let (source, flags) = (reader.u8()?, reader.u8()?);
    let times = (Wall::from_millis(reader.u64()?), whole_seconds(reader.u64()?)?);
    let spans = [reader.u64()?, reader.u64()?];
    let leaves = [whole_seconds(reader.u64()?)?, whole_seconds(reader.u64()?)?];
    let packed = Packed::from_parts(times, spans, leaves, status, (flags, source));
    packed.map(|it| it.facts()).ok_or(RecordFault::Invalid)
}

/// Whole seconds, told in milliseconds.
fn whole_seconds(millis: u64) -> Result<u32, RecordFault> {
    u32::try_from(millis / 1_000)
        .ok()
        .filter(|_| millis.is_multiple_of(1_000))
        .ok_or(RecordFault::Invalid)
}

fn put_index(index: &VaryIndex, out: &mut Vec<u8>) {
    out.extend_from_slice(&index.generation.to_be_bytes());
    for spec in &index.specs {
        let names = spec.as_str().as_bytes();
        // A list longer than a head may be can't have come in one.
        debug_assert!(u16::try_from(names.len()).is_ok());
        out.extend_from_slice(&(names.len() as u16).to_be_bytes());
        out.extend_from_slice(names);
    }
}

fn index(reader: &mut Reader<'_>) -> Result<VaryIndex, RecordFault> {
    let generation = reader.u64()?;
    let mut specs = Vec::new();
    while !reader.rest.is_empty() {
        let length = usize::from(reader.u16()?);
        let names = std::str::from_utf8(reader.bytes(length)?).ok();
        specs.push(names.and_then(VarySpec::parse).ok_or(RecordFault::Invalid)?);
    }
    if specs.is_empty() {
        return Err(RecordFault::Invalid);
    }
    Ok(VaryIndex { generation, specs: specs.into() })
}

fn fields(wire: &[u8], body: &[u8]) -> Result<Fields, RecordFault> {
    let fields = Fields::from_wire(wire).filter(|it| content_length_agrees(it, body));
    fields.ok_or(RecordFault::Invalid)
}

fn part(reader: &mut Reader<'_>, body_bytes: u64) -> Result<Part, RecordFault> {
    let (first, complete) = (reader.u64()?, reader.u64()?);
    let last = body_bytes.checked_sub(1).and_then(|it| it.checked_add(first));
    let last = last.ok_or(RecordFault::Invalid)?;
    let complete = (complete > 0).then_some(complete);
    let part = Part { span: Span { first, last }, complete };
    let fits = complete.is_none_or(|length| last < length) && last < u64::MAX && !part.is_whole();
    if fits { Ok(part) } else { Err(RecordFault::Invalid) }
}

/// Takes values off the front; what isn't there is `Corrupt`.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordFault> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(RecordFault::Corrupt)?;
        self.rest = rest;
        Ok(*array)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], RecordFault> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(RecordFault::Corrupt)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, RecordFault> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, RecordFault> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, RecordFault> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordFault> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Where the part under the record's checksum begins.
const SEALED_AT: usize = 5;

/// Everything but key, fields and lists.
const FIXED_BYTES: usize = SEALED_AT + 1 + 8 + 4 + FACTS_BYTES + 4;
const FACTS_BYTES: usize = 2 + 1 + 1 + 6 * 8;

const KIND_CONTENT: u8 = 0;
const KIND_VARY_INDEX: u8 = 1;
const KIND_PART: u8 = 2;

#[cfg(test)]
mod tests;
