use super::*;
use crate::http1::fault::FieldFault;

type Rows = &'static [(ResponseFault, &'static [(&'static str, &'static [u8])])];

/// Heads that must be refused, by reason; each row names the section that says so.
pub(in crate::http1) const REFUSED: Rows = &[
    (
        ResponseFault::InterimWithBody,
        &[
            ("9110 15.2 a length in 100", b"HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\n"),
            ("9110 15.2 chunks in 103", b"HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ],
    ),
    (
        ResponseFault::BadLineEnd,
        &[
            ("2.2 bare LF after the status line", b"HTTP/1.1 200 OK\nA: b\r\n\r\n"),
            ("2.2 bare LF after the status", b"HTTP/1.1 200\nA: b\r\n\r\n"),
            ("2.2 bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n"),
        ],
    ),
    (
        field(FieldFault::BareLf),
        &[
            ("2.2 bare LF after a field", b"HTTP/1.1 200 OK\r\nA: b\n\r\n"),
            ("2.2 bare LF at the end", b"HTTP/1.1 200 OK\r\nA: b\r\n\n"),
            ("2.2 bare LF and no field", b"HTTP/1.1 200 OK\r\n\n"),
        ],
    ),
    (
        field(FieldFault::BareCr),
        &[("2.2 bare CR in a value", b"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c\r\n\r\n")],
    ),
    (
        ResponseFault::BadVersion,
        &[
            ("2.2 an empty line first", b"\r\nHTTP/1.1 200 OK\r\n\r\n"),
            ("4 garbage", b"garbage\r\n\r\n"),
            ("4 HTTP/0.9", b"<html>"),
            ("4 Shoutcast", b"ICY 200 OK\r\n\r\n"),
            ("4 lower case", b"http/1.1 200 OK\r\n\r\n"),
            ("4 no minor", b"HTTP/1 200 OK\r\n\r\n"),
            ("4 two digits", b"HTTP/1.10 200 OK\r\n\r\n"),
            ("4 a tab", b"HTTP/1.1\t200 OK\r\n\r\n"),
        ],
    ),
    (
        field(FieldFault::SpaceBeforeFirst),
        &[("2.2 white space before the first field", b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n")],
    ),
    (field(FieldFault::ObsFold), &[("5.2 obs-fold", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n")]),
    (field(FieldFault::EmptyName), &[("9110 5.1 empty name", b"HTTP/1.1 200 OK\r\n: b\r\n\r\n")]),
    (field(FieldFault::BadName), &[("9110 5.1 no colon", b"HTTP/1.1 200 OK\r\nA\r\n\r\n")]),
    (
        field(FieldFault::BadValue),
        &[("9110 5.5 NUL in a value", b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n")],
    ),
    (ResponseFault::UnsupportedVersion, &[("4 version 2", b"HTTP/2.0 200 OK\r\n\r\n")]),
    (
        ResponseFault::BadStatus,
        &[
            ("4 two spaces", b"HTTP/1.1  200 OK\r\n\r\n"),
            ("4 two digits of status", b"HTTP/1.1 20 OK\r\n\r\n"),
            ("4 four digits of status", b"HTTP/1.1 2000 OK\r\n\r\n"),
            ("9110 15 a status below 100", b"HTTP/1.1 099 OK\r\n\r\n"),
            ("4 a negative status", b"HTTP/1.1 -20 OK\r\n\r\n"),
            ("4 a letter in the status", b"HTTP/1.1 2x0 OK\r\n\r\n"),
            ("4 no status", b"HTTP/1.1 \r\n\r\n"),
            ("4 the reason right after the status", b"HTTP/1.1 200OK\r\n\r\n"),
        ],
    ),
    (
        ResponseFault::BadReason,
        &[("4 a control byte in the reason", b"HTTP/1.1 200 O\x01K\r\n\r\n")],
    ),
    (
        ResponseFault::SwitchingProtocols,
        &[("9110 15.2.2 101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")],
    ),
    (
        ResponseFault::LengthAndCoding,
        &[(
            "6.1 coding and length",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
        Content-Length: 1\r\n\r\n",
        )],
    ),
    (
        ResponseFault::CodingInHttp10,
        &[("6.1 coding in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")],
    ),
    (
        ResponseFault::RepeatedContentLength,
        &[
            (
                "6.3 equal lengths",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                "6.3 other lengths",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            ),
        ],
    ),
    (
        ResponseFault::BadContentLength,
        &[
            ("6.3 a list of lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n"),
            ("6.3 a signed length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
            ("6.3 an empty length", b"HTTP/1.1 304 OK\r\nContent-Length:\r\n\r\n"),
        ],
    ),
    (
        ResponseFault::BadCoding,
        &[
            (
                "7.4 a coding not asked for",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            ),
            (
                "6.3 chunked is not last",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            ),
            ("6.1 identity", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n"),
            (
                "6.1 chunked twice",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
        Transfer-Encoding: chunked\r\n\r\n",
            ),
        ],
    ),
];

const fn field(fault: FieldFault) -> ResponseFault {
    ResponseFault::Field(fault)
}

fn read(method: Method, head: impl AsRef<[u8]>) -> Response {
    let read = parse_response(head.as_ref(), &Limits::default(), &method).unwrap();
    read.unwrap_or_else(|| panic!("unfinished: {}", head.as_ref().escape_ascii()))
}

/// RFC 9112 section 5.1: a proxy removes it.
#[test]
fn rfc9112_5_1_white_space_before_a_colon_is_removed() {
    let sloppy = b"HTTP/1.1 200 a : b\r\nA : b : c\r\nContent-Length\t : 3\r\nX:y\r\n\r\nabc";
    let clean = b"HTTP/1.1 200 a : b\r\nA: b : c\r\nContent-Length: 3\r\nX:y\r\n\r\nabc";
    let parse = |text: &[u8]| parse_response(text, &Limits::default(), &Method::Get).unwrap();
    let mended = parse(sloppy).unwrap();
    let expected = parse(clean).unwrap();
    assert_eq!(mended.head_len, sloppy.len() - 3);
    assert_eq!(Response { head_len: expected.head_len, ..mended }, expected);
    for end in 0..sloppy.len() - 3 {
        assert_eq!(parse(&sloppy[..end]), None, "{end}");
    }
    for smuggled in ["A\r : b", "A \r: b", "A\n : b", " A : b", "A B : c", "A : \0"] {
        let text = format!("HTTP/1.1 200 OK\r\nX : y\r\n{smuggled}\r\n\r\n");
        let parsed = parse_response(text.as_bytes(), &Limits::default(), &Method::Get);
        assert!(parsed.is_err(), "{smuggled:?}");
    }
}

#[test]
fn every_fault_of_the_table_is_refused_with_its_reason() {
    for (fault, rows) in REFUSED {
        for (rule, head) in *rows {
            for method in [Method::Get, Method::Head] {
                let read = parse_response(head, &Limits::default(), &method);
                assert_eq!(read.unwrap_err(), *fault, "{rule}");
            }
        }
        let word = fault.as_str();
        assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }
}

#[test]
fn rfc9112_6_3_the_body_is_delimited_by_status_method_and_fields() {
    use Method::{Get, Head};
    for (method, status, fields, body, persistent) in [
        (Get, 200, "Content-Length: 5\r\n", ResponseBody::Length(5), true),
        (Get, 200, "Content-Length: 0\r\n", ResponseBody::Length(0), true),
        (Get, 200, "Transfer-Encoding: Chunked\r\n", ResponseBody::Chunked, true),
        (Get, 200, "", ResponseBody::UntilClose, false),
        (Get, 200, "Connection: keep-alive\r\n", ResponseBody::UntilClose, false),
        (Get, 500, "Content-Length: 5\r\nConnection: close\r\n", ResponseBody::Length(5), false),
        (Head, 200, "Content-Length: 5\r\n", ResponseBody::None, true),
        (Head, 200, "Transfer-Encoding: chunked\r\n", ResponseBody::None, true),
        (Head, 200, "", ResponseBody::None, true),
        (Get, 204, "", ResponseBody::None, true),
        (Get, 204, "Content-Length: 0\r\n", ResponseBody::None, true),
        (Get, 204, "Content-Length: 5\r\n", ResponseBody::None, false),
        (Get, 204, "Transfer-Encoding: chunked\r\n", ResponseBody::None, false),
        (Get, 304, "Content-Length: 5\r\n", ResponseBody::None, true),
        (Get, 304, "Transfer-Encoding: chunked\r\n", ResponseBody::None, true),
        (Get, 205, "Content-Length: 5\r\n", ResponseBody::Length(5), true),
        (Get, 103, "Content-Length: 0\r\n", ResponseBody::None, true),
        (Get, 103, "Link: a\r\n", ResponseBody::None, true),
        (Get, 999, "Content-Length: 5\r\n", ResponseBody::Length(5), true),
    ] {
        let head = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let read = read(method, &head);
        assert_eq!((read.body, read.persistent), (body, persistent), "{status} {fields}");
        assert_eq!((read.head.status, read.interim), (status, status < 200));
        assert_eq!(read.head_len, head.len());
    }
}

#[test]
fn rfc9112_9_3_an_http10_origin_stays_only_when_it_says_so() {
    for (fields, body, persistent) in [
        ("Content-Length: 5\r\n", ResponseBody::Length(5), false),
        ("Content-Length: 5\r\nConnection: Keep-Alive\r\n", ResponseBody::Length(5), true),
        ("", ResponseBody::UntilClose, false),
    ] {
        let read = read(Method::Get, format!("HTTP/1.0 200 OK\r\n{fields}\r\n"));
        assert_eq!((read.head.version, read.body), (Version::Http10, body));
        assert_eq!(read.persistent, persistent, "{fields}");
    }
}

#[test]
fn rfc9112_4_the_reason_phrase_is_optional_and_ignored() {
    for line in [
        &b"HTTP/1.1 200"[..],
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 All  is\twell",
        b"HTTP/1.1 200 D\xe9j\xe0",
        b"HTTP/1.7 200 OK",
    ] {
        let head = [line, b"\r\nContent-Length: 1\r\n\r\nx"].concat();
        let read = read(Method::Get, &head);
        assert_eq!((read.head.status, read.head.version), (200, Version::Http11));
        assert_eq!(read.head_len, head.len() - 1);
    }
}

#[test]
fn fields_keep_order_bytes_and_spelling() {
    let read = read(Method::Get, b"HTTP/1.1 200 OK\r\nB: \xff\r\na:  c \r\nB:\r\n\r\n");
    assert_eq!(read.head.fields.as_wire(), b"B: \xff\r\na: c\r\nB: \r\n");
}

#[test]
fn limits_are_exact_and_need_no_end_of_the_head() {
    let limits =
        Limits { head_bytes_max: 100, fields_max: 2, field_bytes_max: 30, ..Limits::default() };
    let judge = |head: &str| {
        parse_response(head.as_bytes(), &limits, &Method::Get).map(|it| it.map(|it| it.head_len))
    };
    let line = |len: usize| format!("HTTP/1.1 200 OK\r\nA:{}\r\n\r\n", "b".repeat(len - 2));
    assert!(judge(&line(30)).unwrap().is_some());
    assert_eq!(judge(&line(31)), Err(field(FieldFault::TooLarge)));
    assert_eq!(judge(&line(31)[..17 + 31]), Err(field(FieldFault::TooLarge)));
    assert!(judge("HTTP/1.1 200 OK\r\nA: b\r\nA: b\r\n\r\n").unwrap().is_some());
    assert_eq!(judge("HTTP/1.1 200 OK\r\nA: b\r\nA: b\r\nA"), Err(field(FieldFault::TooMany)));
    let reason = |len: usize| format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(len - 17));
    assert!(judge(&reason(100)).unwrap().is_some());
    assert_eq!(judge(&reason(101)), Err(ResponseFault::HeadTooLarge));
    assert_eq!(judge(&reason(101)[..100]), Err(ResponseFault::HeadTooLarge));
    assert_eq!(judge(&reason(101)[..99]), Ok(None));
}
