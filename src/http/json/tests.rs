use proptest::prelude::*;

use super::*;

fn check(text: &[u8]) -> Result<(), usize> {
    let mut checker = Checker::default();
    checker.push(text)?;
    checker.finish()
}

const GOOD: &[&str] = &[
    "{}",
    "[]",
    "\"\"",
    "0",
    "-0",
    "-0.0e-0",
    "10.25E+7",
    "1e400",
    "18446744073709551616",
    "true",
    "false",
    "null",
    " \t\r\n[ ] \n",
    "{\"a\":1,\"a\":2}",
    "{ \"a\" : [ true , { } , null ] , \"\" : \"\" }",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83d\\ude00\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\u{7f}\u{80}\u{7ff}\u{800}\u{fffd}\u{10000}\u{10ffff}\"",
];

/// Each with the offset of what is wrong.
const BAD: &[(&[u8], usize)] = &[
    (b"", 0),
    (b"  ", 2),
    (b"\xef\xbb\xbf{}", 0),
    (b"[", 1),
    (b"]", 0),
    (b"[1", 2),
    (b"[1,", 3),
    (b"[1,]", 3),
    (b"[,1]", 1),
    (b"[1 2]", 3),
    (b"[1}", 2),
    (b"{1:2}", 1),
    (b"{\"a\"}", 4),
    (b"{\"a\":}", 5),
    (b"{\"a\":1,}", 7),
    (b"{\"a\" 1}", 5),
    (b"{\"a\":1]", 6),
    (b"{} {}", 3),
    (b"01", 1),
    (b"-", 1),
    (b"+1", 0),
    (b".5", 0),
    (b"1.", 2),
    (b"1.e5", 2),
    (b"1e", 2),
    (b"1e+", 3),
    (b"1e5.0", 3),
    (b"--1", 1),
    (b"0x10", 1),
    (b"NaN", 0),
    (b"nul", 3),
    (b"nulL", 3),
    (b"truex", 4),
    (b"'a'", 0),
    (b"\"", 1),
    (b"\"\\\"", 3),
    (b"\"\\x\"", 2),
    (b"\"\\u12g4\"", 5),
    (b"\"\\u12", 5),
    (b"\"\x00\"", 1),
    (b"\"\x1f\"", 1),
    (b"\"a\nb\"", 2),
    (b"// no\n1", 0),
    (b"[1]\x00", 3),
    // RFC 3629: overlong, half a pair, beyond the last code, cut, a tail without its head.
    (b"\"\xc0\x80\"", 1),
    (b"\"\xc1\xbf\"", 1),
    (b"\"\xe0\x9f\xbf\"", 2),
    (b"\"\xed\xa0\x80\"", 2),
    (b"\"\xf0\x8f\xbf\xbf\"", 2),
    (b"\"\xf4\x90\x80\x80\"", 2),
    (b"\"\xf5\x80\x80\x80\"", 1),
    (b"\"\xff\"", 1),
    (b"\"\x80\"", 1),
    (b"\"\xe2\x82\"", 3),
    (b"\"\xf0\x9f\x98", 4),
    (b"[\xc3\xa9]", 1),
];

#[test]
fn the_grammar_is_held_to_the_letter() {
    for text in GOOD {
        assert_eq!(check(text.as_bytes()), Ok(()), "{text:?}");
    }
    for (text, at) in BAD {
        assert_eq!(check(text), Err(*at), "{:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn it_does_not_matter_where_a_text_is_cut() {
    let good = GOOD.iter().map(|it| (it.as_bytes(), Ok(())));
    let bad = BAD.iter().map(|(text, at)| (*text, Err(*at)));
    for (text, expected) in good.chain(bad) {
        for at in 0..=text.len() {
            let mut checker = Checker::default();
            let (one, other) = text.split_at(at);
            let result = checker.push(one).and_then(|()| checker.push(other));
            assert_eq!(result.and_then(|()| checker.finish()), expected, "{text:?} at {at}");
        }
    }
}

#[test]
fn depth_costs_a_bit_a_level_and_no_stack() {
    let levels = 1_000_000;
    let mut checker = Checker::default();
    for opening in [&b"["[..], b"{\"a\":"] {
        checker.push(&opening.repeat(levels / 2)).unwrap();
    }
    assert_eq!(checker.finish(), Err(levels / 2 * 6));
    assert!(checker.open.words.len() <= levels / 64 + 1);
    checker.push(b"1").unwrap();
    let mut wrong = checker.clone();
    assert_eq!(wrong.push(b"}]"), Err(levels / 2 * 6 + 2), "an object ends inside an object");
    checker.push(&b"}".repeat(levels / 2)).unwrap();
    checker.push(&b"]".repeat(levels / 2)).unwrap();
    assert_eq!(checker.finish(), Ok(()));
    assert!(checker.open.words.is_empty());
}

#[test]
fn eight_bytes_at_a_time_are_as_good_as_one() {
    for byte in 0..=u8::MAX {
        for place in 0..16 {
            let mut text = *b"abcdefghijklmnop";
            text[place] = byte;
            let plain = (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
            assert_eq!(plain_bytes(&text), if plain { 16 } else { place }, "{byte:#x}");
        }
    }
}

/// Texts that are nearly JSON.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"["[..],
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"\"",
        b"\"a\"",
        b"\\",
        b"\\u00e9",
        b"\\ud800",
        b"0",
        b"1",
        b"-",
        b"+",
        b".",
        b"e",
        b"12",
        b"true",
        b"nul",
        b" ",
        b"\n",
        b"\x00",
        b"\x7f",
        b"\xc3\xa9",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
        b"\x0c",
        b"{\"k\":",
        b"1e400",
    ]);
    prop::collection::vec(pieces, 0..10).prop_map(|it| it.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Two readers of values refuse more, for what they can't hold, but take nothing more: what
    /// simd-json takes needs no second look.
    #[test]
    fn whatever_other_readers_take_is_json(text in texts()) {
        let verdict = check(&text);
        let simd = simd_json::to_tape(&mut text.clone()).is_ok();
        let serde = serde_json::from_slice::<serde_json::Value>(&text).is_ok();
        prop_assert!(verdict.is_ok() || !simd && !serde, "{verdict:?} {simd} {serde}");
        let hold_all = !text.windows(5).any(|it| it == b"1e400" || it == b"\\ud80");
        if hold_all && !text.windows(4).any(|it| it.iter().all(u8::is_ascii_digit)) {
            let exact = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
            let utf8 = std::str::from_utf8(&text).is_ok();
            prop_assert_eq!(verdict.is_ok(), exact && utf8);
        }
    }
}
