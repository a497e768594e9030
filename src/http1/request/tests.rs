use super::*;
use crate::http1::fault::FieldFault;

/// Heads that must be refused, each with the section that says so.
pub(in crate::http1) const REFUSED: &[(&str, &[u8], RequestFault)] = &[
    // The lines.
    ("9112 2.2 bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", RequestFault::BareLf),
    ("9112 2.2 bare LF in the head", b"GET / HTTP/1.1\r\nHost: a\n\r\n", field(FieldFault::BareLf)),
    ("9112 2.2 bare LF after an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nB:\n\r\n", field(FieldFault::BareLf)),
    ("9112 2.2 bare LF after white space", b"GET / HTTP/1.1\r\nHost: a \t\n\r\n", field(FieldFault::BareLf)),
    ("9112 2.2 bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", field(FieldFault::BareLf)),
    ("9112 2.2 only bare LF", b"GET / HTTP/1.1\nHost: a\n\n", RequestFault::BareLf),
    ("9112 2.2 bare LF before the request", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BareLf),
    ("9112 2.2 bare LF after an empty line", b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BareLf),
    ("9112 2.2 bare CR before the request", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BareCr),
    ("9112 2.2 bare CR in the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", RequestFault::BareCr),
    ("9112 2.2 bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", field(FieldFault::BareCr)),
    ("9112 2.2 CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", field(FieldFault::BareCr)),
    ("9112 2.2 bare CR at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", field(FieldFault::BareCr)),
    ("9112 2.2 three empty lines", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::TooManyEmptyLines),
    ("9112 2.2 white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", field(FieldFault::SpaceBeforeFirst)),
    ("9112 2.2 a tab before the first field", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", field(FieldFault::SpaceBeforeFirst)),
    ("9112 5.2 obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n", field(FieldFault::ObsFold)),
    ("9112 5.2 obs-fold with a tab", b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", field(FieldFault::ObsFold)),
    ("9112 5.2 obs-fold of an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nB:\r\n c\r\n\r\n", field(FieldFault::ObsFold)),
    ("9112 5.1 white space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", field(FieldFault::SpaceBeforeColon)),
    ("9112 5.1 a tab before the colon", b"GET / HTTP/1.1\r\nContent-Length\t: 1\r\nHost: a\r\n\r\n", field(FieldFault::SpaceBeforeColon)),
    ("9110 5.1 empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", field(FieldFault::EmptyName)),
    ("9110 5.1 no colon", b"GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n", field(FieldFault::BadName)),
    ("9110 5.1 a control byte in a name", b"GET / HTTP/1.1\r\nHost: a\r\nB\x01: c\r\n\r\n", field(FieldFault::BadName)),
    ("9110 5.1 NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nB\0: c\r\n\r\n", field(FieldFault::BadName)),
    ("9110 5.1 a delimiter in a name", b"GET / HTTP/1.1\r\nHost: a\r\n(B): c\r\n\r\n", field(FieldFault::BadName)),
    ("9110 5.1 non-ASCII in a name", b"GET / HTTP/1.1\r\nHost: a\r\nB\xe9: c\r\n\r\n", field(FieldFault::BadName)),
    ("9110 5.5 NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nB: c\0d\r\n\r\n", field(FieldFault::BadValue)),
    ("9110 5.5 a control byte in a value", b"GET / HTTP/1.1\r\nHost: a\r\nB: c\x0bd\r\n\r\n", field(FieldFault::BadValue)),
    ("9110 5.5 DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nB: \x7f\r\n\r\n", field(FieldFault::BadValue)),
    // The request line.
    ("9112 3 two spaces before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadSpacing),
    ("9112 3 two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadSpacing),
    ("9112 3 white space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", RequestFault::BadVersion),
    ("9112 3 white space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadMethod),
    ("9112 3 a tab as the separator", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadMethod),
    ("9112 3 a tab before the version", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetByte),
    ("9112 3 a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadVersion),
    ("9112 3.1 the method is not a token", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadMethod),
    ("9112 3.1 the method has no visible byte", b"\0 / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadMethod),
    ("9112 3 the method is too long", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::MethodTooLong),
    ("9112 3 a TLS hello", b"\x16\x03\x01\x02\0\x01", RequestFault::BadMethod),
    ("9112 3.2 a control byte in the target", b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetByte),
    ("9112 3.2 DEL in the target", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetByte),
    ("9112 3.2 UTF-8 in the target", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetByte),
    ("9112 3.2 other non-ASCII in the target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetByte),
    ("9112 3.2 a fragment", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::FragmentInTarget),
    ("9112 3.2 a fragment after the query", b"GET /?a#b HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::FragmentInTarget),
    ("9112 2.3 HTTP/0.9", b"GET /\r\n", RequestFault::MissingVersion),
    ("9112 2.3 HTTP/0.9 with a trailing space", b"GET / \r\n", RequestFault::MissingVersion),
    ("9112 2.3 lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", RequestFault::BadVersion),
    ("9112 2.3 two digits", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", RequestFault::BadVersion),
    ("9112 2.3 no minor", b"GET / HTTP/1\r\nHost: a\r\n\r\n", RequestFault::BadVersion),
    ("9112 2.3 another name", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", RequestFault::BadVersion),
    ("9112 2.3 a letter as the minor", b"GET / HTTP/1.x\r\nHost: a\r\n\r\n", RequestFault::BadVersion),
    ("9110 15.6.6 version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", RequestFault::UnsupportedVersion),
    ("9110 15.6.6 version 0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", RequestFault::UnsupportedVersion),
    ("9110 15.6.6 version 3.1", b"GET / HTTP/3.1\r\nHost: a\r\n\r\n", RequestFault::UnsupportedVersion),
    ("9113 3.4 the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", RequestFault::UnsupportedVersion),
    // The target's form.
    ("9112 3.2.4 asterisk with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetForm),
    ("9112 3.2.4 asterisk and more", b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetForm),
    ("9112 3.2.1 no leading slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetForm),
    ("9112 3.2.3 authority-form with GET", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetForm),
    ("9112 3.2.3 CONNECT with a path", b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetForm),
    ("9112 3.2.3 CONNECT without a port", b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetForm),
    ("9112 3.2.2 another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadScheme),
    ("9112 3.2.2 one slash", b"GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetForm),
    ("9110 4.2.1 empty host in the target", b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetAuthority),
    ("9110 4.2.4 user information in the target", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::BadTargetAuthority),
    ("9112 3.2.2 the target names another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::AuthorityMismatch),
    ("9112 3.2.2 the target names another port", b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestFault::AuthorityMismatch),
    ("9112 3.2.2 a backslash hides the host", b"GET http://a\\@b/ HTTP/1.1\r\nHost: b\r\n\r\n", RequestFault::BadTargetAuthority),
    // Host.
    ("9112 3.2 no Host", b"GET / HTTP/1.1\r\n\r\n", RequestFault::MissingHost),
    ("9112 3.2 absolute-form does not replace Host", b"GET http://a/ HTTP/1.1\r\n\r\n", RequestFault::MissingHost),
    ("9112 3.2 repeated Host", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", RequestFault::RepeatedHost),
    ("9112 3.2 repeated Host in another case", b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", RequestFault::RepeatedHost),
    ("9112 3.2 repeated Host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", RequestFault::RepeatedHost),
    ("9112 3.2 empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 a list of hosts without a space", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 user information in Host", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 a path in Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 a bad port in Host", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 bad Host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 bad Host in version 1.2", b"GET / HTTP/1.2\r\nHost: a b\r\n\r\n", RequestFault::BadHost),
    ("9112 3.2 no Host in version 1.2", b"GET / HTTP/1.2\r\n\r\n", RequestFault::MissingHost),
    ("9112 2.2 bare LF in version 1.2", b"GET / HTTP/1.2\r\nHost: a\n\r\n", field(FieldFault::BareLf)),
    // Expect.
    ("9110 10.1.1 another expectation", b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", RequestFault::UnknownExpectation),
    ("9110 10.1.1 one more expectation", b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, b\r\n\r\n", RequestFault::UnknownExpectation),
    ("9110 10.1.1 another expectation in a second line", b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: b\r\n\r\n", RequestFault::UnknownExpectation),
];

/// Framing fields that must be refused, on their own after Host (RFC 9112 section 6).
const REFUSED_FRAMING: &[(&str, &str, RequestFault)] = &[
    ("6.1 both", "Content-Length: 3\r\nTransfer-Encoding: chunked", RequestFault::LengthAndCoding),
    (
        "6.1 both, the other way round",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        RequestFault::LengthAndCoding,
    ),
    (
        "6.1 both, the length bad",
        "Transfer-Encoding: chunked\r\nContent-Length: x",
        RequestFault::LengthAndCoding,
    ),
    (
        "6.1 both, the coding bad",
        "Transfer-Encoding: x\r\nContent-Length: 3",
        RequestFault::LengthAndCoding,
    ),
    (
        "6.3 equal lengths",
        "Content-Length: 3\r\nContent-Length: 3",
        RequestFault::RepeatedContentLength,
    ),
    (
        "6.3 other lengths",
        "Content-Length: 3\r\ncontent-length: 4",
        RequestFault::RepeatedContentLength,
    ),
    ("6.2 list of equal lengths", "Content-Length: 3, 3", RequestFault::BadContentLength),
    ("6.2 list without a space", "Content-Length: 3,3", RequestFault::BadContentLength),
    ("6.2 plus", "Content-Length: +1", RequestFault::BadContentLength),
    ("6.2 minus", "Content-Length: -1", RequestFault::BadContentLength),
    ("6.2 hexadecimal", "Content-Length: 0x1", RequestFault::BadContentLength),
    ("6.2 letters", "Content-Length: 1a", RequestFault::BadContentLength),
    ("6.2 empty", "Content-Length:", RequestFault::BadContentLength),
    ("6.2 white space only", "Content-Length: \t ", RequestFault::BadContentLength),
    ("6.2 inner space", "Content-Length: 1 2", RequestFault::BadContentLength),
    ("6.2 quoted", "Content-Length: \"1\"", RequestFault::BadContentLength),
    ("6.2 fraction", "Content-Length: 1.0", RequestFault::BadContentLength),
    ("6.2 underscore", "Content-Length: 1_0", RequestFault::BadContentLength),
    ("6.2 2^64", "Content-Length: 18446744073709551616", RequestFault::BadContentLength),
    (
        "6.2 far above 2^64",
        "Content-Length: 99999999999999999999999",
        RequestFault::BadContentLength,
    ),
    (
        "6.1 another coding before",
        "Transfer-Encoding: gzip, chunked",
        RequestFault::UnsupportedCoding,
    ),
    (
        "6.1 an unknown coding before",
        "Transfer-Encoding: foo;a=b, chunked",
        RequestFault::UnsupportedCoding,
    ),
    (
        "6.1 another coding in a line before",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        RequestFault::UnsupportedCoding,
    ),
    ("6.3 chunked is not last", "Transfer-Encoding: chunked, gzip", RequestFault::BadCoding),
    ("6.3 chunked is not there", "Transfer-Encoding: gzip", RequestFault::BadCoding),
    ("6.3 identity", "Transfer-Encoding: identity", RequestFault::BadCoding),
    ("6.3 identity after", "Transfer-Encoding: chunked, identity", RequestFault::BadCoding),
    ("6.1 chunked twice", "Transfer-Encoding: chunked, chunked", RequestFault::BadCoding),
    (
        "6.1 chunked in two lines",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        RequestFault::BadCoding,
    ),
    (
        "6.1 chunked hidden by a second line",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        RequestFault::BadCoding,
    ),
    ("6.1 a letter before", "Transfer-Encoding: xchunked", RequestFault::BadCoding),
    ("6.1 a letter after", "Transfer-Encoding: chunkedx", RequestFault::BadCoding),
    ("7.1 a parameter", "Transfer-Encoding: chunked;x", RequestFault::BadCoding),
    ("7.1 an empty parameter", "Transfer-Encoding: chunked;", RequestFault::BadCoding),
    ("6.1 quoted", "Transfer-Encoding: \"chunked\"", RequestFault::BadCoding),
    ("6.1 empty", "Transfer-Encoding:", RequestFault::BadCoding),
    ("6.1 an empty element before", "Transfer-Encoding: , chunked", RequestFault::BadCoding),
    ("6.1 an empty element after", "Transfer-Encoding: chunked,", RequestFault::BadCoding),
    (
        "6.1 an empty second line",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        RequestFault::BadCoding,
    ),
    ("6.1 two words", "Transfer-Encoding: x chunked", RequestFault::BadCoding),
    ("6.1 obs-text around", "Transfer-Encoding: chunked\u{a0}", RequestFault::BadCoding),
];

const fn field(fault: FieldFault) -> RequestFault {
    RequestFault::Field(fault)
}

fn parse(head: &[u8]) -> Result<Option<usize>, RequestFault> {
    let mut slots = Slots::new();
    let read = parse_request(head, &Limits::default(), &mut slots)?;
    Ok(read.map(|it| it.head_len))
}

fn with<T>(head: impl AsRef<[u8]>, look: impl FnOnce(&Request<'_, '_>) -> T) -> T {
    let head = head.as_ref();
    let mut slots = Slots::new();
    let read = parse_request(head, &Limits::default(), &mut slots);
    look(&read.unwrap().unwrap_or_else(|| panic!("unfinished: {}", head.escape_ascii())))
}

#[test]
fn every_fault_of_the_table_is_refused_with_its_reason() {
    for (rule, head, fault) in REFUSED {
        assert_eq!(parse(head), Err(*fault), "{rule}");
    }
}

#[test]
fn every_ambiguous_framing_is_refused() {
    for (rule, fields, fault) in REFUSED_FRAMING {
        for method in ["POST", "GET", "HEAD"] {
            for version in ["1.1", "1.2"] {
                let head = format!("{method} / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
                assert_eq!(parse(head.as_bytes()), Err(*fault), "{rule}");
            }
        }
    }
}

#[test]
fn rfc9112_6_1_a_coding_in_http10_is_refused() {
    for coding in ["chunked", "gzip, chunked", "identity", ""] {
        let head = format!("POST / HTTP/1.0\r\nTransfer-Encoding: {coding}\r\n\r\n");
        assert_eq!(parse(head.as_bytes()), Err(RequestFault::CodingInHttp10), "{coding}");
    }
}

#[test]
fn every_fault_has_its_status_and_its_own_word() {
    let faults = REFUSED.iter().map(|it| it.2).chain(REFUSED_FRAMING.iter().map(|it| it.2));
    for fault in faults {
        let status = match fault {
            RequestFault::MethodTooLong | RequestFault::UnsupportedCoding => 501,
            RequestFault::UnsupportedVersion => 505,
            RequestFault::UnknownExpectation => 417,
            _ => 400,
        };
        assert_eq!(fault.status(), status, "{fault:?}");
        let word = fault.as_str();
        assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }
    assert_eq!(RequestFault::TargetTooLong.status(), 414);
    for fault in
        [RequestFault::HeadTooLarge, field(FieldFault::TooMany), field(FieldFault::TooLarge)]
    {
        assert_eq!(fault.status(), 431);
    }
}

#[test]
fn rfc9112_3_2_each_form_of_target_is_read() {
    let origin = |path, query| Target::Origin { path, query };
    let absolute =
        |scheme, authority, path, query| Target::Absolute { scheme, authority, path, query };
    use crate::http1::Scheme;
    let rows: &[(&str, &str, Target<'_>, &[u8])] = &[
        ("GET /", "a", origin(b"/", None), b"a"),
        ("GET /?", "a", origin(b"/", Some(b"")), b"a"),
        ("GET /b/c?d=e?f", "a:80", origin(b"/b/c", Some(b"d=e?f")), b"a:80"),
        ("GET //b/../c", "a", origin(b"//b/../c", None), b"a"),
        ("GET /http://b/", "a", origin(b"/http://b/", None), b"a"),
        ("GET http://a", "a", absolute(Scheme::Http, b"a", b"/", None), b"a"),
        ("GET HTTP://a:80/b", "A", absolute(Scheme::Http, b"a:80", b"/b", None), b"a:80"),
        ("GET https://a?b/c", "a:443", absolute(Scheme::Https, b"a", b"/", Some(b"b/c")), b"a"),
        (
            "GET http://[::1]:8/",
            "[::1]:8",
            absolute(Scheme::Http, b"[::1]:8", b"/", None),
            b"[::1]:8",
        ),
        ("OPTIONS *", "a", Target::Asterisk, b"a"),
        ("OPTIONS http://a", "a", Target::Asterisk, b"a"),
        ("OPTIONS http://a/", "a", absolute(Scheme::Http, b"a", b"/", None), b"a"),
        ("CONNECT a:443", "a:443", Target::Authority(b"a:443"), b"a:443"),
    ];
    for (line, host, target, authority) in rows {
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        with(&head, |request| {
            assert_eq!((&request.target, request.authority), (target, *authority), "{line}");
            assert_eq!(request.head_len, head.len());
        });
    }
}

#[test]
fn rfc9112_6_3_the_body_is_delimited_as_the_fields_say() {
    for (fields, body) in [
        ("A: b", BodyLength::None),
        ("Content-Length: 0", BodyLength::Length(0)),
        ("content-length:\t 7 ", BodyLength::Length(7)),
        ("Content-Length: 0007", BodyLength::Length(7)),
        ("Content-Length: 18446744073709551615", BodyLength::Length(u64::MAX)),
        ("Transfer-Encoding: chunked", BodyLength::Chunked),
        ("transfer-encoding:Chunked ", BodyLength::Chunked),
    ] {
        for method in ["GET", "POST", "M-SEARCH"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nbody");
            with(head, |request| assert_eq!(request.body, body, "{fields}"));
        }
    }
}

#[test]
fn rfc9112_9_3_persistence_follows_version_and_connection() {
    for (version, fields, persistent) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Keep-Alive\r\n", true),
        ("1.1", "connection: a ,\tCLOSE , b\r\n", false),
        ("1.1", "Connection: a\r\nB: c\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed, x-close\r\n", true),
        ("1.1", "Connection: , ,\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: a, Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
        ("1.7", "", true),
        ("1.2", "Connection: close\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        with(head, |request| assert_eq!(request.persistent, persistent, "{version} {fields}"));
    }
}

#[test]
fn rfc9110_10_1_1_only_a_request_with_a_body_in_http11_waits_for_100() {
    for (head, expects) in [
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", true),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        ),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", false),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", false),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", false),
        ("PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", false),
        ("PUT / HTTP/1.0\r\nExpect: anything\r\nContent-Length: 1\r\n\r\n", false),
    ] {
        with(head, |request| assert_eq!(request.expects_continue, expects, "{head}"));
    }
}

#[test]
fn rfc9110_2_5_a_later_minor_version_counts_as_1_1() {
    for minor in 2..=9 {
        let head = format!("GET /a HTTP/1.{minor}\r\nHost: a\r\nRange: b\r\n\r\n");
        with(&head, |request| {
            assert_eq!(request.version, Version::Http11);
            assert_eq!(request.value(Name::Range), Some(&b"b"[..]));
            assert_eq!(request.head_len, head.len());
        });
    }
    with("GET / HTTP/1.0\r\n\r\n", |request| {
        assert_eq!((request.version, request.authority), (Version::Http10, &b""[..]));
    });
}

#[test]
fn rfc9112_2_2_at_most_two_empty_lines_may_come_first() {
    for lines in ["", "\r\n", "\r\n\r\n"] {
        let head = format!("{lines}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        with(format!("{head}GET"), |request| assert_eq!(request.head_len, head.len()));
        assert_eq!(parse(lines.as_bytes()), Ok(None));
    }
}

#[test]
fn fields_keep_order_bytes_and_spelling() {
    let head = b"GET / HTTP/1.1\r\nhOsT: a\r\nX-Y: \xe9 \t\xff\t \r\nx-y:\r\nX:a:b\r\n\r\n";
    with(head, |request| {
        let fields = request.to_fields();
        assert_eq!(fields.as_wire(), b"hOsT: a\r\nX-Y: \xe9 \t\xff\r\nx-y: \r\nX: a:b\r\n");
        assert_eq!(Fields::from_wire(fields.as_wire()), Some(fields));
        assert!(request.known.has(Name::Host) && !request.known.has(Name::Range));
    });
}

#[test]
fn rfc9110_9_1_methods_are_case_sensitive_tokens() {
    for name in ["GET", "get", "POST", "PURGE", "!#$%&'*+-.^_`|~09az", &"A".repeat(64)] {
        let head = format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n");
        with(head, |request| assert_eq!(request.method.as_str(), name));
    }
}

#[test]
fn limits_are_exact() {
    let limits = Limits {
        head_bytes_max: 200,
        target_bytes_max: 20,
        fields_max: 3,
        field_bytes_max: 40,
        ..Limits::default()
    };
    let judge = |head: &str| {
        let mut slots = Slots::new();
        parse_request(head.as_bytes(), &limits, &mut slots).map(|it| it.map(|it| it.head_len))
    };
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
    assert!(judge(&target(20)).unwrap().is_some());
    assert_eq!(judge(&target(21)), Err(RequestFault::TargetTooLong));
    assert_eq!(judge(&target(21)[..25]), Err(RequestFault::TargetTooLong), "unfinished");
    assert_eq!(judge(&target(21)[..24]), Ok(None), "unfinished");

    let line =
        |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nB:{}\r\n\r\n", "c".repeat(len - 2));
    assert!(judge(&line(40)).unwrap().is_some());
    assert_eq!(judge(&line(41)), Err(field(FieldFault::TooLarge)));
    assert_eq!(judge(&line(41)[..25 + 40]), Ok(None), "unfinished");
    assert_eq!(judge(&line(41)[..25 + 41]), Err(field(FieldFault::TooLarge)), "unfinished");
    let spaces = format!("GET / HTTP/1.1\r\nHost: a\r\nB:{}c\r\n\r\n", " ".repeat(38));
    assert_eq!(judge(&spaces), Err(field(FieldFault::TooLarge)), "white space counts");

    let many =
        |more: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "B: c\r\n".repeat(more));
    assert!(judge(&many(2)).unwrap().is_some());
    assert_eq!(judge(&many(3)), Err(field(FieldFault::TooMany)));
    assert_eq!(judge("GET / HTTP/1.1\r\nA:b\r\nA:b\r\nA:b\r\nA"), Err(field(FieldFault::TooMany)));

    let head = |len: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        let fields = format!("B: {}\r\nC: {}\r\n\r\n", "b".repeat(36), "c".repeat(36));
        let head = start + &fields;
        format!("{}{head}", "\r\n".repeat(len.saturating_sub(head.len()) / 2))
    };
    let exact = head(0);
    for (max, accepted) in [(exact.len(), true), (exact.len() - 1, false)] {
        let limits = Limits { head_bytes_max: max, ..limits };
        let mut slots = Slots::new();
        let read = parse_request(exact.as_bytes(), &limits, &mut slots);
        assert_eq!(read.is_ok(), accepted, "{max}");
        assert!(accepted || read.unwrap_err() == RequestFault::HeadTooLarge);
    }
}

#[test]
fn a_limit_above_the_number_of_slots_is_that_number() {
    let limits = Limits { fields_max: usize::MAX, ..Limits::default() };
    for (more, accepted) in [(FIELDS_MAX - 1, true), (FIELDS_MAX, false)] {
        for version in ["1.1", "1.2"] {
            let fields = "B: c\r\n".repeat(more);
            let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
            let mut slots = Slots::new();
            let read = parse_request(head.as_bytes(), &limits, &mut slots);
            assert_eq!(read.map(|it| it.is_some()).ok(), accepted.then_some(true));
        }
    }
}

#[test]
fn a_head_in_small_pieces_is_parsed_once_a_line_and_once_a_doubling() {
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(4_000));
    let bytes = head.as_bytes();
    let parses = (1..=bytes.len()).filter(|len| worth_parsing(&bytes[..*len], len - 1)).count();
    assert!(parses <= 3 + 13, "{parses}");
    assert!(worth_parsing(bytes, bytes.len() - 1), "the last byte ends a line");
    assert!(worth_parsing(b"G", 0));
    assert!(!worth_parsing(b"GE", 2));
}
