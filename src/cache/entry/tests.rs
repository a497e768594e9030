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
fn only_a_body_of_fitting_length_is_worth_to_compress() {
    let ledger = Arc::new(Ledger::new(1 << 20));
    let mut fields = head(5);
    fields.push("Content-Type", "application/json");
    for (lengths, expected) in [(0..=9, true), (5..=5, true), (6..=9, false), (0..=4, false)] {
        let body = Bytes::from_static(b"hello");
        let entry = Entry::new(key(), plain_facts(), &fields, body, &ledger);
        let marks = entry.compressed_within(lengths.clone()).marks();
        assert_eq!(marks.compressible, expected, "{lengths:?}");
    }
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
fn what_is_sent_in_two_codings_says_so_once_and_pays_for_it() {
    let ledger = Arc::new(Ledger::new(1 << 20));
    for (vary, expected) in [
        (&[][..], &["Accept-Encoding"][..]),
        (&["Accept-Language"], &["Accept-Language", "Accept-Encoding"]),
        (&["Accept-Language, accept-encoding"], &["Accept-Language, accept-encoding"]),
        (&["*"], &["*"]),
    ] {
        let mut fields = head(5);
        vary.iter().for_each(|it| fields.push("Vary", *it));
        let body = Bytes::from_static(b"hello");
        let entry = Entry::new(key(), plain_facts(), &fields, body, &ledger);
        let entry = entry.varying_on_coding();
        let lines: Vec<_> = entry.fields().all("Vary").collect();
        assert_eq!(lines, expected.iter().map(|it| it.as_bytes()).collect::<Vec<_>>());
        assert_eq!(ledger.bytes(), entry.size_bytes());
        drop(entry);
        assert_eq!(ledger.bytes(), 0);
    }
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
