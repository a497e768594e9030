use proptest::prelude::*;

use super::Range::{Closed, Open, Suffix};
use super::Resolved::{Many, One, Unsatisfiable, Whole};
use super::*;

fn ranges(value: &str) -> Option<Vec<Range>> {
    Ranges::parse(value.as_bytes()).map(|ranges| ranges.0)
}

fn span(first: u64, last: u64) -> Span {
    Span { first, last }
}

#[test]
fn ranges_of_bytes_are_read() {
    // RFC 9110 section 14.1.2
    let rows: &[(&str, &[Range])] = &[
        ("bytes=0-499", &[Closed { first: 0, last: 499 }]),
        ("BYTES=0-0", &[Closed { first: 0, last: 0 }]),
        ("bytes=9500-", &[Open { first: 9_500 }]),
        ("bytes=-500", &[Suffix { count: 500 }]),
        ("bytes=-0", &[Suffix { count: 0 }]),
        ("bytes=0-0,-1", &[Closed { first: 0, last: 0 }, Suffix { count: 1 }]),
        ("bytes= 0-1 , ,\t5- ,", &[Closed { first: 0, last: 1 }, Open { first: 5 }]),
        (
            "bytes=99999999999999999999-99999999999999999999",
            &[Closed { first: u64::MAX, last: u64::MAX }],
        ),
    ];
    for (value, expected) in rows {
        assert_eq!(ranges(value).as_deref(), Some(*expected), "{value}");
    }
}

#[test]
fn a_malformed_range_is_ignored() {
    for value in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes 0-1",
        "bytes =0-1",
        "items=0-1",
        "bytes=0",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-a",
        "bytes=5-4",
        "bytes=0-1,5-4",
        "bytes=0-1,x",
        "bytes=--1",
        "bytes=0--1",
        "bytes=0 - 1",
        "bytes=+0-1",
        "bytes=0-1;2-3",
        "bytes=0x0-1",
    ] {
        assert_eq!(ranges(value), None, "{value}");
    }
}

#[test]
fn too_many_ranges_are_ignored() {
    let value = |count: usize| {
        let list: Vec<String> = (0..count).map(|at| format!("{}-{}", at * 10, at * 10)).collect();
        format!("bytes={}", list.join(","))
    };
    assert_eq!(ranges(&value(RANGES_MAX)).map(|it| it.len()), Some(RANGES_MAX));
    assert_eq!(ranges(&value(RANGES_MAX + 1)), None);
}

#[test]
fn ranges_resolve_against_the_length() {
    let rows: &[(&str, u64, Resolved)] = &[
        ("bytes=0-4", 10, One(span(0, 4))),
        ("bytes=5-", 10, One(span(5, 9))),
        ("bytes=-3", 10, One(span(7, 9))),
        ("bytes=-20", 10, One(span(0, 9))),
        ("bytes=0-99", 10, One(span(0, 9))),
        ("bytes=9-9", 10, One(span(9, 9))),
        ("bytes=10-", 10, Unsatisfiable),
        ("bytes=10-20", 10, Unsatisfiable),
        ("bytes=-0", 10, Unsatisfiable),
        ("bytes=99999999999999999999-", 10, Unsatisfiable),
        // One that is satisfiable is enough.
        ("bytes=10-, 0-1", 10, One(span(0, 1))),
        ("bytes=0-1,4-5", 10, Many(vec![span(0, 1), span(4, 5)])),
        ("bytes=4-5,0-1", 10, Many(vec![span(4, 5), span(0, 1)])),
        ("bytes=0-1,-1", 10, Many(vec![span(0, 1), span(9, 9)])),
        // Joined where they overlap or touch.
        ("bytes=0-3,2-5", 10, One(span(0, 5))),
        ("bytes=0-1,2-3", 10, One(span(0, 3))),
        ("bytes=0-1,6-7,2-5", 10, One(span(0, 7))),
        ("bytes=8-9,0-1,4-5,1-2", 10, Many(vec![span(8, 9), span(0, 2), span(4, 5)])),
        ("bytes=0-,0-", 10, One(span(0, 9))),
        // Section 14.2: more than two that overlap.
        ("bytes=0-,0-,0-,0-", 10, Whole),
        ("bytes=0-3,1-4,2-5,3-6", 10, Whole),
        // Nothing of an empty representation can be named.
        ("bytes=0-", 0, Unsatisfiable),
        ("bytes=0-0", 0, Unsatisfiable),
        ("bytes=-0", 0, Unsatisfiable),
        ("bytes=-5", 0, Whole),
        ("bytes=0-18446744073709551614", u64::MAX, One(span(0, u64::MAX - 1))),
        ("bytes=0-18446744073709551615,5-6", u64::MAX, One(span(0, u64::MAX - 1))),
    ];
    for (value, length, expected) in rows {
        let ranges = Ranges::parse(value.as_bytes()).unwrap();
        assert_eq!(resolve(&ranges, *length), *expected, "{value} of {length}");
    }
}

#[test]
fn content_range_names_a_part_or_the_length() {
    // RFC 9110 section 14.4
    let part = |first, last, complete| ContentRange::Part { span: span(first, last), complete };
    let rows = [
        ("bytes 42-1233/1234", part(42, 1_233, Some(1_234))),
        ("bytes 42-1233/*", part(42, 1_233, None)),
        ("bytes 0-0/1", part(0, 0, Some(1))),
        ("bytes */1234", ContentRange::Unsatisfied { complete: 1_234 }),
        ("bytes */0", ContentRange::Unsatisfied { complete: 0 }),
    ];
    for (text, expected) in rows {
        assert_eq!(ContentRange::parse(text.as_bytes()), Some(expected), "{text}");
        assert_eq!(expected.to_string(), text);
    }
    for text in [
        "",
        "bytes",
        "bytes ",
        "bytes=0-1/2",
        "items 0-1/2",
        "bytes 0-1",
        "bytes 0-2/2",
        "bytes 1-0/2",
        "bytes 0-/2",
        "bytes -1/2",
        "bytes */*",
        "bytes 0-1/",
        "bytes 0-1/x",
        "bytes 0 - 1/2",
        "bytes 0-1/99999999999999999999",
        "bytes 0-99999999999999999999/*",
    ] {
        assert_eq!(ContentRange::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_multipart_body_is_what_section_14_6_shows() {
    let spans = [span(0, 1), span(4, 6)];
    let multipart = Multipart {
        boundary: "B",
        content_type: Some(b"text/plain"),
        complete: Some(8),
        spans: &spans,
    };
    let mut body = b"before".to_vec();
    assert!(multipart.write_body(b"abcdefgh", 0, &mut body));
    let expected = "before--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/8\r\n\r\nab\
        \r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 4-6/8\r\n\r\nefg\r\n--B--\r\n";
    assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
    assert_eq!(multipart.media_type(), "multipart/byteranges; boundary=B");

    // The bytes from the third on will do for what lies among them.
    let tail = [span(2, 3), span(6, 6)];
    let tail = Multipart { content_type: None, complete: None, spans: &tail, ..multipart };
    let mut body = Vec::new();
    assert!(tail.write_body(b"cdefg", 2, &mut body));
    let expected = "--B\r\nContent-Range: bytes 2-3/*\r\n\r\ncd\r\n--B\r\n\
        Content-Range: bytes 6-6/*\r\n\r\ng\r\n--B--\r\n";
    assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
    assert!(!multipart.write_body(b"cdefg", 2, &mut body), "the first two bytes are not there");

    let untyped = Multipart { content_type: None, ..multipart };
    let mut body = Vec::new();
    assert!(untyped.write_body(b"abcdefgh", 0, &mut body));
    assert!(body.starts_with(b"--B\r\nContent-Range: bytes 0-1/8\r\n\r\nab\r\n"));
}

#[test]
fn a_body_shorter_than_its_spans_is_not_written() {
    let spans = [span(0, 1), span(4, 6)];
    let multipart =
        Multipart { boundary: "B", content_type: None, complete: Some(8), spans: &spans };
    let mut body = b"before".to_vec();
    assert!(!multipart.write_body(b"abcde", 0, &mut body));
    assert_eq!(body, b"before");
}

#[test]
fn a_range_is_written_as_it_is_read() {
    for text in ["0-0", "5-", "-7", "3-18446744073709551614"] {
        let ranges = Ranges::parse(format!("bytes={text}").as_bytes()).unwrap();
        assert_eq!(ranges.as_slice()[0].to_string(), text);
    }
}

#[test]
fn spans_know_their_neighbours() {
    // (one, other, contains, touches, joined)
    let rows = [
        (span(2, 5), span(2, 5), true, true, span(2, 5)),
        (span(2, 5), span(3, 4), true, true, span(2, 5)),
        (span(2, 5), span(6, 9), false, true, span(2, 9)),
        (span(2, 5), span(0, 1), false, true, span(0, 5)),
        (span(2, 5), span(7, 9), false, false, span(2, 9)),
    ];
    for (one, other, contains, touches, joined) in rows {
        assert_eq!((one.contains(&other), one.touches(&other)), (contains, touches));
        assert_eq!(one.join(other), joined);
    }
    assert_eq!((span(4, 6).from(3), span(4, 6).from(5)), (Some(span(1, 3)), None));
}

fn any_range() -> impl Strategy<Value = Range> {
    prop_oneof![
        (0_u64..24, 0_u64..24).prop_map(|(first, more)| Closed { first, last: first + more }),
        (0_u64..24).prop_map(|first| Open { first }),
        (0_u64..24).prop_map(|count| Suffix { count }),
    ]
}

/// Byte by byte: whether the range asks for the byte at `at`.
fn asks_for(range: Range, at: u64, length: u64) -> bool {
    match range {
        Closed { first, last } => first <= at && at <= last,
        Open { first } => first <= at,
        Suffix { count } => at + count >= length,
    }
}

proptest! {
    #[test]
    fn exactly_the_bytes_asked_for_are_sent(
        asked in prop::collection::vec(any_range(), 1..6), length in 1_u64..20,
    ) {
        let expected: Vec<u64> = (0..length)
            .filter(|at| asked.iter().any(|range| asks_for(*range, *at, length)))
            .collect();
        let spans = match resolve(&Ranges(asked), length) {
            Whole => return Ok(()),
            Unsatisfiable => vec![],
            One(span) => vec![span],
            Many(spans) => {
                prop_assert!(spans.len() > 1);
                spans
            }
        };
        for (index, one) in spans.iter().enumerate() {
            prop_assert!(spans[..index].iter().all(|other| !one.touches(other)));
        }
        // No byte twice, so that sorting is all that the order can need.
        let mut sent: Vec<u64> = spans.iter().flat_map(|span| span.first..=span.last).collect();
        sent.sort_unstable();
        prop_assert_eq!(sent, expected);
    }

    #[test]
    fn few_ranges_are_never_ignored(
        asked in prop::collection::vec(any_range(), 1..4), length in 1_u64..20,
    ) {
        prop_assert_ne!(resolve(&Ranges(asked), length), Whole);
    }

    #[test]
    fn spans_keep_the_order_asked_for(starts in prop::collection::hash_set(0_u64..50, 2..8)) {
        let asked: Vec<Range> = starts
            .iter()
            .map(|start| Closed { first: start * 3, last: start * 3 + 1 })
            .collect();
        let expected = starts.iter().map(|start| span(start * 3, start * 3 + 1)).collect();
        prop_assert_eq!(resolve(&Ranges(asked), 1_000), Many(expected));
    }

    #[test]
    fn content_ranges_read_back(first in any::<u32>(), more in any::<u32>(), rest in any::<u32>()) {
        let last = u64::from(first) + u64::from(more);
        let complete = (rest > 0).then(|| last + u64::from(rest));
        let range = ContentRange::Part { span: span(u64::from(first), last), complete };
        prop_assert_eq!(ContentRange::parse(range.to_string().as_bytes()), Some(range));
    }

    #[test]
    fn the_length_of_a_multipart_body_is_known_before(
        starts in prop::collection::vec(0_u64..1_000, 2..8), typed in any::<bool>(),
    ) {
        let whole = vec![b'x'; 2_000];
        let spans: Vec<Span> = starts.iter().map(|start| span(*start, start * 2)).collect();
        let multipart = Multipart {
            boundary: "boundary",
            content_type: typed.then_some(&b"application/json"[..]),
            complete: Some(2_000),
            spans: &spans,
        };
        let mut body = Vec::new();
        prop_assert!(multipart.write_body(&whole, 0, &mut body));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        value in prop::collection::vec(any::<u8>(), 0..40), list in "[0-9,-]{0,30}",
        length in any::<u64>(),
    ) {
        let wellformed = [format!("bytes={list}"), format!("bytes {list}/9")];
        for text in wellformed.map(String::into_bytes).into_iter().chain([value]) {
            if let Some(ranges) = Ranges::parse(&text) {
                let _ = resolve(&ranges, length);
            }
            let _ = ContentRange::parse(&text);
        }
    }
}
