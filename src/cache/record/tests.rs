//! Round trips, and records that are not what was written.

use proptest::prelude::*;

use super::*;
use crate::base::Seed;
use crate::cache::packed::tests::{any_facts, plain_facts};

fn key() -> Key {
    Key::new(b"canonical key", &Seed::fixed(1))
}

fn ledger() -> Arc<Ledger> {
    Arc::new(Ledger::new(u64::MAX))
}

fn head() -> Fields {
    let mut fields = Fields::new();
    fields.push("Date", "today");
    fields.push("Content-Length", "5");
    fields
}

const BODY: Bytes = Bytes::from_static(b"hello");

fn content() -> Entry {
    Entry::new(key(), plain_facts(), &head(), BODY, &ledger())
}

fn spec(text: &str) -> VarySpec {
    VarySpec::parse(text).unwrap()
}

fn vary_index() -> Entry {
    let specs = [spec("accept-language,cookie"), spec("origin")].into();
    let index = VaryIndex { generation: u64::MAX - 1, specs };
    Entry::vary_index(key(), plain_facts(), index, &ledger())
}

fn part_of(first: u64, complete: Option<u64>) -> Entry {
    let part = Part { span: Span { first, last: first + 4 }, complete };
    let facts = Facts { status: 206, ..plain_facts() };
    Entry::part(key(), facts, &head(), BODY, part, &ledger())
}

fn read(record: &[u8]) -> Result<Entry, RecordFault> {
    decode(record, BODY, &key(), &ledger())
}

fn fault(record: &[u8]) -> Option<RecordFault> {
    read(record).err()
}

fn same(a: &Entry, b: &Entry) -> bool {
    let parts = |it: &Entry| (it.key().clone(), it.facts(), it.fields().clone(), it.body().clone());
    parts(a) == parts(b) && a.kind() == b.kind() && a.size_bytes() == b.size_bytes()
}

/// Puts other bytes at a place and the right checksum on the whole.
fn forged(mut record: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    record[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut record);
    record
}

const STATUS_AT: usize = SEALED_AT + 1 + 8 + 4;
const KEY_AT: usize = FIXED_BYTES;

#[test]
fn a_response_comes_back_as_it_was() {
    let entry = content();
    assert!(same(&read(&encode(&entry)).unwrap(), &entry));
    assert_eq!(encode(&entry).len(), FIXED_BYTES + key().bytes().len() + head().as_wire().len());
}

#[test]
fn a_vary_index_comes_back_as_it_was() {
    let entry = vary_index();
    let back = decode(&encode(&entry), Bytes::new(), &key(), &ledger()).unwrap();
    assert!(same(&back, &entry));
    // An index has no body.
    assert_eq!(fault(&encode(&entry)), Some(RecordFault::OtherBody));
}

#[test]
fn a_part_comes_back_as_it_was() {
    for (first, complete) in [(0, Some(9)), (4, Some(9)), (7, Some(1 << 40)), (3, None)] {
        let entry = part_of(first, complete);
        assert!(same(&read(&encode(&entry)).unwrap(), &entry), "{first} {complete:?}");
    }
}

#[test]
fn a_part_that_cannot_be_one_is_invalid() {
    let record = encode(&part_of(4, Some(100)));
    let first_at = KEY_AT + key().bytes().len();
    let cases: [(usize, &[u8]); 6] = [
        (first_at, &u64::MAX.to_be_bytes()),
        (first_at, &(u64::MAX - 4).to_be_bytes()),
        (first_at + 8, &8_u64.to_be_bytes()), // shorter than the part
        (STATUS_AT, &200_u16.to_be_bytes()),  // a whole in the form of a part
        (first_at + 16, b"Content-Range: 1\r\n"), // names its place twice
        (first_at + 16, b" "),
    ];
    for (at, bytes) in cases {
        let fault = fault(&forged(record.clone(), at, bytes));
        assert_eq!(fault, Some(RecordFault::Invalid), "{bytes:?} at {at}");
    }
    let all = forged(encode(&part_of(0, Some(9))), first_at + 8, &5_u64.to_be_bytes());
    assert_eq!(fault(&all), Some(RecordFault::Invalid), "a part that is the whole");
    let whole = forged(encode(&content()), STATUS_AT, &206_u16.to_be_bytes());
    assert_eq!(fault(&whole), Some(RecordFault::Invalid), "a part in the form of a whole");
}

#[test]
fn what_is_decoded_is_charged_and_what_is_refused_is_not() {
    let ledger = ledger();
    let record = encode(&content());
    let entry = decode(&record, BODY, &key(), &ledger).unwrap();
    assert_eq!((ledger.entries(), ledger.bytes()), (1, entry.size_bytes()));
    drop(entry);
    assert!(decode(&record[1..], BODY, &key(), &ledger).is_err());
    assert_eq!((ledger.entries(), ledger.bytes()), (0, 0));
}

#[test]
fn every_cut_is_a_fault() {
    for entry in [content(), vary_index(), part_of(3, None)] {
        let record = encode(&entry);
        for end in 0..record.len() {
            let body = entry.body().clone();
            let cut = decode(&record[..end], body, &key(), &ledger());
            assert_eq!(cut.err(), Some(RecordFault::Corrupt), "cut at {end}");
        }
    }
}

#[test]
fn every_changed_bit_is_a_fault() {
    let record = encode(&content());
    for bit in 0..record.len() * 8 {
        let mut record = record.clone();
        record[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 8 { RecordFault::OtherVersion } else { RecordFault::Corrupt };
        assert_eq!(fault(&record), Some(expected), "bit {bit}");
    }
}

#[test]
fn another_body_is_refused() {
    let record = encode(&content());
    for body in [&b"hellp"[..], b"hell", b"hello ", b""] {
        let body = Bytes::copy_from_slice(body);
        let back = decode(&record, body, &key(), &ledger());
        assert_eq!(back.err(), Some(RecordFault::OtherBody));
    }
}

#[test]
fn a_row_of_another_key_does_not_answer() {
    let other = Key::new(b"canonical keY", &Seed::fixed(1));
    let back = decode(&encode(&content()), BODY, &other, &ledger());
    assert_eq!(back.err(), Some(RecordFault::OtherKey));
}

#[test]
fn values_out_of_range_are_invalid_even_under_a_good_checksum() {
    let record = encode(&content());
    let fields_at = KEY_AT + key().bytes().len();
    let cases: [(usize, &[u8]); 7] = [
        (SEALED_AT, &[3]),                     // kind
        (SEALED_AT, &[KIND_VARY_INDEX]),       // an index with a body
        (STATUS_AT, &199_u16.to_be_bytes()),   // an interim status
        (STATUS_AT, &1_000_u16.to_be_bytes()), // no status
        (STATUS_AT + 2, &[7]),                 // lifetime source
        (STATUS_AT + 3, &[128]),               // unknown flag
        (fields_at, b" "),                     // no field name
    ];
    for (at, bytes) in cases {
        let fault = fault(&forged(record.clone(), at, bytes));
        assert_eq!(fault, Some(RecordFault::Invalid), "{bytes:?} at {at}");
    }
    let length_at = record.len() - 3;
    let fault = fault(&forged(record.clone(), length_at, b"6"));
    assert_eq!(fault, Some(RecordFault::Invalid), "Content-Length");
}

#[test]
fn lengths_beyond_the_record_take_no_memory() {
    let forged = forged(encode(&content()), KEY_AT - 4, &u32::MAX.to_be_bytes());
    assert_eq!(fault(&forged), Some(RecordFault::Corrupt));
}

#[test]
fn faults_have_words_of_their_own() {
    let words: std::collections::BTreeSet<_> =
        RecordFault::ALL.into_iter().map(RecordFault::as_str).collect();
    assert_eq!(words.len(), RecordFault::ALL.len());
}

proptest! {
    #[test]
    fn any_response_round_trips(
        facts in any_facts(),
        lines in proptest::collection::vec(("[A-Za-z-]{1,9}", "[ -~]{0,20}"), 0..9),
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut fields = Fields::new();
        for (name, value) in &lines {
            fields.push(name, value);
        }
        let body = Bytes::from(body);
        let facts = Facts { status: if facts.status == 206 { 200 } else { facts.status }, ..facts };
        let entry = Entry::new(key(), facts, &fields, body.clone(), &ledger());
        let back = decode(&encode(&entry), body, &key(), &ledger());
        prop_assert!(same(&back.unwrap(), &entry));
    }

    /// With the checksum put right, so that the change reaches every check behind it.
    #[test]
    fn a_mutated_record_never_panics_and_decodes_to_what_it_says(
        kind in 0..3,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let entry = match kind {
            0 => content(),
            1 => vary_index(),
            _ => part_of(3, Some(20)),
        };
        let mut record = encode(&entry);
        for (at, byte) in changes {
            let at = at.index(record.len());
            record[at] = byte;
        }
        if let Some(cut) = cut {
            record.truncate(cut.index(record.len()));
        }
        seal(&mut record);
        if let Ok(back) = decode(&record, entry.body().clone(), &key(), &ledger()) {
            // One entry, one record.
            prop_assert_eq!(encode(&back), record);
        }
    }

    #[test]
    fn foreign_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        bytes.insert(0, FORMAT_VERSION);
        seal(&mut bytes);
        let _ = read(&bytes);
    }
}
