//! Fast parser against reference, and both against themselves in pieces.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::http::Method;
use crate::http1::{FieldFault, RequestFault, parse_response, request, response};

const ACCEPTED: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
    b"GET /a?b=c HTTP/1.0\r\n\r\n",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\nHost: a.b:80\r\n\r\n",
    b"GET /a HTTP/1.7\r\nHost: [::1]:8080\r\nA:\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nConnection: close , x\r\n\r\nhello",
    b"PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\nExpect: 100-continue\r\n\r\n0\r\n",
    b"GET http://a:80/b?c HTTP/1.1\r\nHost: A\r\nX:\t y \xe9 \r\n\r\n",
    b"GET https://a HTTP/1.1\r\nHost: a:443\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    b"PURGE /a HTTP/1.1\r\nhost:a\r\nRange: 1\r\nRange: 2\r\nX-Long-Name-Here: value, more\r\n\r\n",
];

const RESPONSES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA:\r\n\r\nabc",
    b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 404 N\xf6\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
];

fn samples() -> impl Iterator<Item = &'static [u8]> {
    let refused = request::refused::HEADS.iter().flat_map(|(_, rows)| rows.iter());
    ACCEPTED.iter().copied().chain(refused.map(|row| row.1))
}

/// What either side may say of each beginning of `input`: nothing yet, or what it says of all.
fn judge_prefixes(input: &[u8]) {
    let limits = Limits::default();
    let mut slots = Slots::new();
    let whole = parse_request(input, &limits, &mut slots).map(|it| it.map(|it| summarise(&it)));
    for len in 0..input.len() {
        let mut slots = Slots::new();
        let read = parse_request(&input[..len], &limits, &mut slots);
        let read = read.map(|it| it.map(|it| summarise(&it)));
        if read != Ok(None) {
            assert_eq!(read, whole, "{} of {}", len, input.escape_ascii());
        }
    }
}

fn judge_response_prefixes(input: &[u8]) {
    let limits = Limits::default();
    let whole = parse_response(input, &limits, &Method::Get);
    for len in 0..input.len() {
        let read = parse_response(&input[..len], &limits, &Method::Get);
        if read != Ok(None) {
            assert_eq!(read, whole, "{} of {}", len, input.escape_ascii());
        }
    }
}

fn compare(input: &[u8]) {
    let (fast, reference) = (Verdict::of_fast(input), Verdict::of_reference(input));
    match reference {
        // The fast parser refuses as soon as it can.
        Verdict::Unfinished => {
            assert!(!matches!(fast, Verdict::Accepted(_)), "{}", input.escape_ascii());
        }
        _ => assert_eq!(fast, reference, "{}", input.escape_ascii()),
    }
}

#[test]
fn each_sample_split_at_every_byte_gives_the_same() {
    for sample in samples() {
        judge_prefixes(sample);
        judge_prefixes(&[sample, b"GET / HTTP/1.1\r\n"].concat());
    }
    let refused = response::tests::REFUSED.iter().flat_map(|(_, rows)| rows.iter());
    for sample in RESPONSES.iter().copied().chain(refused.map(|row| row.1)) {
        judge_response_prefixes(sample);
    }
}

#[test]
fn both_parsers_agree_about_each_sample() {
    for sample in samples() {
        compare(sample);
    }
    for sample in ACCEPTED {
        assert!(
            matches!(Verdict::of_fast(sample), Verdict::Accepted(_)),
            "{}",
            sample.escape_ascii()
        );
    }
}

/// Whatever byte stands at whatever place of a head, both parsers must see the same.
#[test]
fn both_parsers_agree_about_each_sample_with_any_byte_replaced_added_or_left_out() {
    let alike = |byte: &u8| byte.is_ascii_alphanumeric() && !b"a1".contains(byte);
    let bytes = (0..=0x81).chain([0xa0, 0xff]).filter(|byte| !alike(byte));
    for sample in ACCEPTED {
        for at in 0..sample.len() {
            let (before, after) = (&sample[..at], &sample[at + 1..]);
            compare(&[before, after].concat());
            for byte in bytes.clone() {
                compare(&[before, &[byte], after].concat());
                compare(&[before, &[byte], &sample[at..]].concat());
            }
        }
    }
}

#[test]
fn limits_are_the_same_in_pieces() {
    let limits = Limits {
        head_bytes_max: 50,
        target_bytes_max: 10,
        fields_max: 2,
        field_bytes_max: 14,
        ..Limits::default()
    };
    for (head, fault) in [
        ("GET /3456789abc HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::TargetTooLong),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: 456789abcdefg\r\n\r\n", field(FieldFault::TooLarge)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nA: b\r\n\r\n", field(FieldFault::TooMany)),
        ("GET /3456789a HTTP/1.1\r\nHost: a\r\nA: 456789abcde\r\n\r\n", RequestFault::HeadTooLarge),
        (
            "GET /34 HTTP/1.1\r\nHost: 7890123\r\nA: 456789abcde\r\n\r\n\0",
            RequestFault::HeadTooLarge,
        ),
        ("GET /3456789a HTTP/1.1\r\nHost: a\r\nB: 456789abcde\r\n\r\0", RequestFault::HeadTooLarge),
    ] {
        let head = [head.as_bytes(), &[b'x'; 60]].concat();
        let judge = |len: usize| {
            let mut slots = Slots::new();
            parse_request(&head[..len], &limits, &mut slots).map(|it| it.is_some())
        };
        let first = (0..=head.len()).find(|len| judge(*len) != Ok(false)).unwrap();
        for len in first..=head.len() {
            assert_eq!(judge(len), Err(fault), "{len} of {}", head.escape_ascii());
        }
    }
}

const fn field(fault: FieldFault) -> RequestFault {
    RequestFault::Field(fault)
}

/// Pieces that have broken parsers before.
const SNIPPETS: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\0",
    "\u{b}",
    "\u{7f}",
    "\u{e9}",
    "#",
    "?",
    "/",
    "*",
    "@",
    "[",
    "]",
    "%",
    "Host: a\r\n",
    "Host: b\r\n",
    "host : a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: +5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding:\u{b}chunked\r\n",
    "Transfer-Encoding\r\n: chunked",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    " folded\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/1.2",
    "HTTP/2.0",
    "http://a",
    "https://b:443/",
    "CONNECT ",
    "OPTIONS ",
    "GET / HTTP/1.1\r\n",
];

#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, Vec<u8>),
    Replace(Index, u8),
    Remove(Index, usize),
    /// Copies a stretch to another place.
    Copy(Index, usize, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let snippet = select(SNIPPETS).prop_map(|it| it.as_bytes().to_vec());
    prop_oneof![
        (any::<Index>(), snippet).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (any::<Index>(), 1..12_usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        (any::<Index>(), 1..30_usize, any::<Index>())
            .prop_map(|(at, len, to)| Edit::Copy(at, len, to)),
    ]
}

fn edited(sample: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for edit in edits {
        let place = |at: &Index, len: usize| if len == 0 { 0 } else { at.index(len) };
        match edit {
            Edit::Insert(at, text) => {
                let at = place(at, bytes.len() + 1);
                bytes.splice(at..at, text.iter().copied());
            }
            Edit::Replace(at, byte) => {
                let at = place(at, bytes.len());
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = *byte;
                }
            }
            Edit::Remove(at, len) => {
                let at = place(at, bytes.len());
                bytes.drain(at..bytes.len().min(at + len));
            }
            Edit::Copy(at, len, to) => {
                let (at, to) = (place(at, bytes.len()), place(to, bytes.len() + 1));
                let piece = bytes[at..bytes.len().min(at + len)].to_vec();
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let sample = select(samples().collect::<Vec<_>>());
    (sample, prop::collection::vec(edit(), 0..5)).prop_map(|(sample, edits)| edited(sample, &edits))
}

fn any_response() -> impl Strategy<Value = Vec<u8>> {
    let sample = select(RESPONSES);
    (sample, prop::collection::vec(edit(), 0..5)).prop_map(|(sample, edits)| edited(sample, &edits))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn both_parsers_agree_about_any_edited_head(head in any_head()) {
        compare(&head);
    }

    #[test]
    fn both_parsers_agree_about_any_bytes(head in prop::collection::vec(any::<u8>(), 0..80)) {
        compare(&head);
        judge_response_prefixes(&head);
    }
}

proptest! {
    #[test]
    fn an_edited_head_gives_the_same_however_it_is_split(head in any_head()) {
        judge_prefixes(&head);
    }

    #[test]
    fn an_edited_response_gives_the_same_however_it_is_split(head in any_response()) {
        judge_response_prefixes(&head);
    }

    #[test]
    fn an_accepted_head_written_again_is_the_same(head in any_head()) {
        let mut slots = Slots::new();
        if let Ok(Some(read)) = parse_request(&head, &Limits::default(), &mut slots) {
            let wire = read.to_fields();
            let again = crate::http::Fields::from_wire(wire.as_wire());
            prop_assert_eq!(again, Some(wire));
        }
    }
}
