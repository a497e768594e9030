use super::refused::{FRAMING, HEADS, field};
use super::*;
use crate::http1::fault::FieldFault;
use crate::http1::{FIELDS_MAX, Scheme};

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
    for (fault, rows) in HEADS {
        for (rule, head) in *rows {
            assert_eq!(parse(head), Err(*fault), "{rule}");
        }
    }
    let long = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(65));
    for len in [65, 66, long.len()] {
        assert_eq!(parse(&long.as_bytes()[..len]), Err(RequestFault::MethodTooLong));
    }
}

#[test]
fn every_ambiguous_framing_is_refused() {
    for (fault, rows) in FRAMING {
        for (rule, fields) in *rows {
            for line in ["POST / HTTP/1.1", "GET / HTTP/1.1", "HEAD / HTTP/1.2"] {
                let head = format!("{line}\r\nHost: a\r\n{fields}\r\n\r\n");
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
fn every_fault_has_its_status_and_a_word() {
    let faults = HEADS.iter().map(|it| it.0).chain(FRAMING.iter().map(|it| it.0));
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
            "PUT / HTTP/1.1\r\nHost: a\r\n\
        Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
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
