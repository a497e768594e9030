use proptest::prelude::*;

use super::*;
use crate::cache::sample::{DATE, Lines, NOW, fields, head};

fn part(first: u64, last: u64, complete: impl Into<Option<u64>>) -> Part {
    Part { span: Span { first, last }, complete: complete.into() }
}

fn ranges(text: &str) -> Ranges {
    Ranges::parse(format!("bytes={text}").as_bytes()).unwrap()
}

/// RFC 9110 sections 14.4 and 15.3.7.
#[test]
fn one_valid_content_range_makes_a_part() {
    let rows: &[(u16, Lines<'_>, Option<Part>)] = &[
        (206, &[("Content-Range", "bytes 0-4/10")], Some(part(0, 4, 10))),
        (206, &[("content-range", "BYTES 4-9/*")], Some(part(4, 9, None))),
        (206, &[("Content-Range", "bytes 0-9/10")], Some(part(0, 9, 10))),
        (200, &[("Content-Range", "bytes 0-4/10")], None),
        (206, &[], None),
        (206, &[("Content-Type", "multipart/byteranges; boundary=x")], None),
        (206, &[("Content-Range", "bytes 0-4/10"), ("Content-Range", "bytes 0-4/10")], None),
        (206, &[("Content-Range", "bytes */10")], None),
        (206, &[("Content-Range", "bytes 4-2/10")], None),
        (206, &[("Content-Range", "bytes 4-10/10")], None),
        (206, &[("Content-Range", "lines 0-4/10")], None),
        (206, &[("Content-Range", "bytes 0-4")], None),
        (206, &[("Content-Range", "bytes=0-4/10")], None),
    ];
    for (status, lines, expected) in rows {
        assert_eq!(Part::of(&head(*status, lines)), *expected, "{lines:?}");
    }
}

/// RFC 9111 section 3.3: only a range wholly within the part.
#[test]
fn a_part_answers_what_lies_wholly_within_it() {
    let one = |first, last| Some(Resolved::One(Span { first, last }));
    let known = part(4, 9, 20);
    for (text, expected) in [
        ("4-9", one(4, 9)),
        ("5-8", one(5, 8)),
        ("9-9", one(9, 9)),
        ("3-9", None),
        ("4-10", None),
        ("4-", None),
        ("-16", None),
        ("-1", None),
        ("0-", None),
        ("20-", None),
        (
            "4-5,8-9",
            Some(Resolved::Many(vec![Span { first: 4, last: 5 }, Span { first: 8, last: 9 }])),
        ),
        ("4-5,8-10", None),
        // What is out of the representation is left out, as for the whole.
        ("4-5,30-40", one(4, 5)),
        ("4-6,5-9", one(4, 9)),
    ] {
        assert_eq!(known.resolve(&ranges(text)), expected, "{text}");
    }
    let tail = part(4, 9, 10);
    for (text, expected) in [
        ("-5", one(5, 9)),
        ("-6", one(4, 9)),
        ("-7", None),
        ("6-", one(6, 9)),
        ("6-99", one(6, 9)),
        ("3-", None),
        ("-0", None),
    ] {
        assert_eq!(tail.resolve(&ranges(text)), expected, "{text}");
    }
    let unknown = part(4, 9, None);
    for (text, expected) in
        [("4-9", one(4, 9)), ("4-10", None), ("4-", None), ("-1", None), ("0-4", None)]
    {
        assert_eq!(unknown.resolve(&ranges(text)), expected, "{text}");
    }
}

#[test]
fn one_range_may_be_missing() {
    for (part, missing) in [
        (part(0, 4, 10), Some("5-")),
        (part(0, 4, None), Some("5-")),
        (part(5, 9, 10), Some("0-4")),
        (part(0, 9, 10), None),
        (part(3, 5, 10), None),
        (part(5, 9, None), None),
    ] {
        assert_eq!(part.missing().map(|it| it.to_string()).as_deref(), missing, "{part:?}");
        assert_eq!(part.is_whole(), part == self::part(0, 9, 10));
    }
}

const TAG: (&str, &str) = ("ETag", "\"a\"");

fn joined(stored: (Lines<'_>, Part), newer: Lines<'_>) -> Option<Joint> {
    join(&fields(stored.0), &stored.1, &head(206, newer), NOW)
}

/// RFC 9111 section 3.4.
#[test]
fn parts_are_joined_only_by_the_same_strong_validator() {
    const OLD: (&str, &str) = ("Last-Modified", "Mon, 13 Nov 2023 22:13:20 GMT");
    const OLDER: (&str, &str) = ("Last-Modified", "Sun, 12 Nov 2023 22:13:20 GMT");
    const NOW_DATE: (&str, &str) = ("Date", DATE);
    let rest = ("Content-Range", "bytes 5-9/10");
    let rows: &[(Lines<'_>, Lines<'_>, bool)] = &[
        (&[TAG], &[TAG, rest], true),
        (&[TAG, OLD], &[TAG, OLDER, rest], true),
        (&[TAG], &[("ETag", "\"b\""), rest], false),
        (&[("ETag", "W/\"a\"")], &[("ETag", "W/\"a\""), rest], false),
        (&[TAG], &[("ETag", "W/\"a\""), rest], false),
        (&[TAG], &[rest], false),
        (&[], &[TAG, rest], false),
        (&[], &[rest], false),
        (&[OLD, NOW_DATE], &[OLD, NOW_DATE, rest], true),
        (&[OLD, NOW_DATE], &[OLDER, NOW_DATE, rest], false),
        (&[OLD], &[OLD, rest], false),
        (&[OLD, NOW_DATE], &[OLD, NOW_DATE, TAG, rest], false),
    ];
    for (stored, newer, expected) in rows {
        let found = joined((stored, part(0, 4, 10)), newer);
        assert_eq!(found.is_some(), *expected, "{stored:?} {newer:?}");
    }
}

#[test]
fn parts_with_a_gap_or_another_length_are_not_joined() {
    for (stored, range, expected) in [
        (part(0, 4, 10), "bytes 5-9/10", true),
        (part(0, 4, 10), "bytes 3-9/10", true),
        (part(0, 4, 10), "bytes 6-9/10", false),
        (part(0, 4, 10), "bytes 5-9/11", false),
        (part(0, 4, 10), "bytes 5-9/*", true),
        (part(0, 4, None), "bytes 5-9/10", true),
        (part(0, 9, None), "bytes 0-4/5", false),
        (part(6, 9, 10), "bytes 0-4/10", false),
    ] {
        let newer = [TAG, ("Content-Range", range)];
        assert_eq!(joined((&[TAG], stored), &newer).is_some(), expected, "{stored:?} {range}");
    }
}

/// RFC 9111 section 3.4: the newer one's fields, aside from Content-Range.
#[test]
fn the_newer_ones_fields_win_and_the_others_stay() {
    let stored = [TAG, ("Kept", "1"), ("New", "1"), ("Content-Length", "5"), ("Via", "1.1 us")];
    let newer = [
        TAG,
        ("New", "2"),
        ("Content-Range", "bytes 5-7/10"),
        ("Content-Length", "3"),
        ("Connection", "hop"),
        ("Hop", "1"),
    ];
    let joint = joined((&stored, part(0, 4, 10)), &newer).unwrap();
    assert_eq!((joint.head.status, joint.before, joint.after), (206, 5, 0));
    let expected = [("Kept", "1"), TAG, ("New", "2"), ("Content-Range", "bytes 0-7/10")];
    assert_eq!(joint.head.fields, fields(&expected));

    let newer = [TAG, ("Content-Range", "bytes 5-9/10")];
    let whole = joined((&stored, part(0, 4, 10)), &newer).unwrap();
    assert_eq!(whole.head.status, 200);
    assert!(!whole.head.fields.contains("Content-Range"));
}

#[test]
fn a_206_of_everything_is_a_200() {
    let all = as_whole(head(206, &[("Content-Range", "bytes 0-9/10"), TAG]));
    assert_eq!(all, head(200, &[TAG]));
    for range in ["bytes 0-8/10", "bytes 1-9/10", "bytes 0-9/*"] {
        let some = head(206, &[("Content-Range", range)]);
        assert_eq!(as_whole(some.clone()), some);
    }
}

proptest! {
    /// The bytes of the joint are those of the representation, whatever the parts.
    #[test]
    fn joined_parts_are_the_bytes_of_the_whole(
        a in 0_u64..12, a_more in 0_u64..12, b in 0_u64..12, b_more in 0_u64..12,
        told in any::<[bool; 2]>(),
    ) {
        let whole: Vec<u8> = (0..24).collect();
        let length = |told: bool| told.then_some(24);
        let one = part(a, a + a_more, length(told[0]));
        let other = part(b, b + b_more, length(told[1]));
        let slice = |part: &Part| part.span.slice(&whole).unwrap().to_vec();
        let newer = head(206, &[TAG, ("Content-Range", &other.content_range())]);
        let joint = join(&fields(&[TAG]), &one, &newer, NOW);
        let gap = a + a_more + 1 < b || b + b_more + 1 < a;
        prop_assert_eq!(joint.is_none(), gap);
        if let Some(joint) = joint {
            let (stored, before) = (slice(&one), usize::try_from(joint.before).unwrap());
            let after = stored.len() - usize::try_from(joint.after).unwrap();
            let bytes = [&stored[..before], &slice(&other), &stored[after..]].concat();
            let span = Part::of(&joint.head).map_or(Span { first: 0, last: 23 }, |it| it.span);
            prop_assert_eq!(span.slice(&whole).unwrap(), &bytes[..]);
        }
    }

    /// Never a byte that the part has not, and always what the whole would answer.
    #[test]
    fn what_a_part_answers_the_whole_would_answer_alike(
        first in 0_u64..12, more in 0_u64..12, spare in 0_u64..4, told in any::<bool>(),
        text in "([0-9]{1,2}-[0-9]{0,2}|-[0-9])(,[0-9]{1,2}-[0-9]{1,2}){0,2}",
    ) {
        let length = first + more + 1 + spare;
        let part = part(first, first + more, told.then_some(length));
        if let Some(ranges) = Ranges::parse(format!("bytes={text}").as_bytes())
            && let Some(resolved) = part.resolve(&ranges)
        {
            prop_assert_eq!(&resolved, &resolve(&ranges, length));
            let spans = match &resolved {
                Resolved::One(span) => std::slice::from_ref(span),
                Resolved::Many(spans) => spans,
                other => panic!("{other:?}"),
            };
            prop_assert!(spans.iter().all(|it| part.span.contains(it)));
        }
    }
}
