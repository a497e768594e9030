//! What must be refused in a request head, by reason; each row names the section that says so.

use crate::http1::fault::{FieldFault, RequestFault};

type Rows<T> = &'static [(RequestFault, &'static [(&'static str, T)])];

/// Whole heads.
pub(in crate::http1) const HEADS: Rows<&[u8]> = &[
    (
        RequestFault::BareLf,
        &[
            ("2.2 bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
            ("2.2 only bare LF", b"GET / HTTP/1.1\nHost: a\n\n"),
            ("2.2 bare LF before the request", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("2.2 bare LF after an empty line", b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    ),
    (
        field(FieldFault::BareLf),
        &[
            ("2.2 bare LF in the head", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
            ("2.2 bare LF after an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nB:\n\r\n"),
            ("2.2 bare LF after white space", b"GET / HTTP/1.1\r\nHost: a \t\n\r\n"),
            ("2.2 bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
            ("2.2 bare LF in version 1.2", b"GET / HTTP/1.2\r\nHost: a\n\r\n"),
        ],
    ),
    (
        RequestFault::BareCr,
        &[
            ("2.2 bare CR before the request", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("2.2 bare CR in the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
        ],
    ),
    (
        field(FieldFault::BareCr),
        &[
            ("2.2 bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"),
            ("2.2 CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
            ("2.2 bare CR at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"),
        ],
    ),
    (
        RequestFault::TooManyEmptyLines,
        &[("2.2 three empty lines", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")],
    ),
    (
        field(FieldFault::SpaceBeforeFirst),
        &[
            ("2.2 white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
            ("2.2 a tab before the first field", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n"),
        ],
    ),
    (
        field(FieldFault::ObsFold),
        &[
            ("5.2 obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n"),
            ("5.2 obs-fold with a tab", b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n"),
            ("5.2 obs-fold of an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nB:\r\n c\r\n\r\n"),
        ],
    ),
    (
        field(FieldFault::SpaceBeforeColon),
        &[
            ("5.1 white space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
            (
                "5.1 a tab before the colon",
                b"GET / HTTP/1.1\r\nContent-Length\t: 1\r\nHost: a\r\n\r\n",
            ),
        ],
    ),
    (
        field(FieldFault::EmptyName),
        &[("9110 5.1 empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n")],
    ),
    (
        field(FieldFault::BadName),
        &[
            ("9110 5.1 no colon", b"GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n"),
            ("9110 5.1 a control byte in a name", b"GET / HTTP/1.1\r\nHost: a\r\nB\x01: c\r\n\r\n"),
            ("9110 5.1 NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nB\0: c\r\n\r\n"),
            ("9110 5.1 a delimiter in a name", b"GET / HTTP/1.1\r\nHost: a\r\n(B): c\r\n\r\n"),
            ("9110 5.1 non-ASCII in a name", b"GET / HTTP/1.1\r\nHost: a\r\nB\xe9: c\r\n\r\n"),
        ],
    ),
    (
        field(FieldFault::BadValue),
        &[
            ("9110 5.5 NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nB: c\0d\r\n\r\n"),
            (
                "9110 5.5 a control byte in a value",
                b"GET / HTTP/1.1\r\nHost: a\r\nB: c\x0bd\r\n\r\n",
            ),
            ("9110 5.5 DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nB: \x7f\r\n\r\n"),
        ],
    ),
    (
        RequestFault::BadSpacing,
        &[
            ("3 two spaces before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3 two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    ),
    (
        RequestFault::BadVersion,
        &[
            ("3 white space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
            ("3 a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("2.3 lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
            ("2.3 two digits", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
            ("2.3 no minor", b"GET / HTTP/1\r\nHost: a\r\n\r\n"),
            ("2.3 another name", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n"),
            ("2.3 a letter as the minor", b"GET / HTTP/1.x\r\nHost: a\r\n\r\n"),
        ],
    ),
    (
        RequestFault::BadMethod,
        &[
            ("3 white space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3 a tab as the separator", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.1 the method is not a token", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.1 the method has no visible byte", b"\0 / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3 a TLS hello", b"\x16\x03\x01\x02\0\x01"),
        ],
    ),
    (
        RequestFault::BadTargetByte,
        &[
            ("3 a tab before the version", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2 a control byte in the target", b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2 DEL in the target", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2 UTF-8 in the target", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2 other non-ASCII in the target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    ),
    (
        RequestFault::FragmentInTarget,
        &[
            ("3.2 a fragment", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2 a fragment after the query", b"GET /?a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    ),
    (
        RequestFault::MissingVersion,
        &[("2.3 HTTP/0.9", b"GET /\r\n"), ("2.3 HTTP/0.9 with a trailing space", b"GET / \r\n")],
    ),
    (
        RequestFault::UnsupportedVersion,
        &[
            ("9110 15.6.6 version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
            ("9110 15.6.6 version 0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
            ("9110 15.6.6 version 3.1", b"GET / HTTP/3.1\r\nHost: a\r\n\r\n"),
            ("9113 3.4 the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ],
    ),
    (
        RequestFault::BadTargetForm,
        &[
            ("3.2.4 asterisk with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2.4 asterisk and more", b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2.1 no leading slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2.3 authority-form with GET", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2.3 CONNECT with a path", b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2.3 CONNECT without a port", b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("3.2.2 one slash", b"GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
    ),
    (
        RequestFault::BadScheme,
        &[("3.2.2 another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n")],
    ),
    (
        RequestFault::BadTargetAuthority,
        &[
            ("9110 4.2.1 empty host in the target", b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "9110 4.2.4 user information in the target",
                b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("3.2.2 a backslash hides the host", b"GET http://a\\@b/ HTTP/1.1\r\nHost: b\r\n\r\n"),
        ],
    ),
    (
        RequestFault::AuthorityMismatch,
        &[
            ("3.2.2 the target names another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "3.2.2 the target names another port",
                b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
        ],
    ),
    (
        RequestFault::MissingHost,
        &[
            ("3.2 no Host", b"GET / HTTP/1.1\r\n\r\n"),
            ("3.2 absolute-form does not replace Host", b"GET http://a/ HTTP/1.1\r\n\r\n"),
            ("3.2 no Host in version 1.2", b"GET / HTTP/1.2\r\n\r\n"),
        ],
    ),
    (
        RequestFault::RepeatedHost,
        &[
            ("3.2 repeated Host", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            ("3.2 repeated Host in another case", b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n"),
            ("3.2 repeated Host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        ],
    ),
    (
        RequestFault::BadHost,
        &[
            ("3.2 empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            ("3.2 a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
            ("3.2 a list of hosts without a space", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
            ("3.2 user information in Host", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
            ("3.2 a path in Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            ("3.2 a bad port in Host", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
            ("3.2 bad Host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
            ("3.2 bad Host in version 1.2", b"GET / HTTP/1.2\r\nHost: a b\r\n\r\n"),
        ],
    ),
    (
        RequestFault::UnknownExpectation,
        &[
            (
                "9110 10.1.1 another expectation",
                b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
            ),
            (
                "9110 10.1.1 one more expectation",
                b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, b\r\n\r\n",
            ),
            (
                "9110 10.1.1 another expectation in a second line",
                b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: b\r\n\r\n",
            ),
        ],
    ),
];

/// Framing fields, to stand after Host (RFC 9112 section 6).
pub(super) const FRAMING: Rows<&str> = &[
    (
        RequestFault::LengthAndCoding,
        &[
            ("6.1 both", "Content-Length: 3\r\nTransfer-Encoding: chunked"),
            ("6.1 both, the other way round", "Transfer-Encoding: chunked\r\nContent-Length: 3"),
            ("6.1 both, the length bad", "Transfer-Encoding: chunked\r\nContent-Length: x"),
            ("6.1 both, the coding bad", "Transfer-Encoding: x\r\nContent-Length: 3"),
        ],
    ),
    (
        RequestFault::RepeatedContentLength,
        &[
            ("6.3 equal lengths", "Content-Length: 3\r\nContent-Length: 3"),
            ("6.3 other lengths", "Content-Length: 3\r\ncontent-length: 4"),
        ],
    ),
    (
        RequestFault::BadContentLength,
        &[
            ("6.2 list of equal lengths", "Content-Length: 3, 3"),
            ("6.2 list without a space", "Content-Length: 3,3"),
            ("6.2 plus", "Content-Length: +1"),
            ("6.2 minus", "Content-Length: -1"),
            ("6.2 hexadecimal", "Content-Length: 0x1"),
            ("6.2 letters", "Content-Length: 1a"),
            ("6.2 empty", "Content-Length:"),
            ("6.2 white space only", "Content-Length: \t "),
            ("6.2 inner space", "Content-Length: 1 2"),
            ("6.2 quoted", "Content-Length: \"1\""),
            ("6.2 fraction", "Content-Length: 1.0"),
            ("6.2 underscore", "Content-Length: 1_0"),
            ("6.2 2^64", "Content-Length: 18446744073709551616"),
            ("6.2 far above 2^64", "Content-Length: 99999999999999999999999"),
        ],
    ),
    (
        RequestFault::UnsupportedCoding,
        &[
            ("6.1 another coding before", "Transfer-Encoding: gzip, chunked"),
            ("6.1 an unknown coding before", "Transfer-Encoding: foo;a=b, chunked"),
            (
                "6.1 another coding in a line before",
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            ),
        ],
    ),
    (
        RequestFault::BadCoding,
        &[
            ("6.3 chunked is not last", "Transfer-Encoding: chunked, gzip"),
            ("6.3 chunked is not there", "Transfer-Encoding: gzip"),
            ("6.3 identity", "Transfer-Encoding: identity"),
            ("6.3 identity after", "Transfer-Encoding: chunked, identity"),
            ("6.1 chunked twice", "Transfer-Encoding: chunked, chunked"),
            (
                "6.1 chunked in two lines",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            ),
            (
                "6.1 chunked hidden by a second line",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            ),
            ("6.1 a letter before", "Transfer-Encoding: xchunked"),
            ("6.1 a letter after", "Transfer-Encoding: chunkedx"),
            ("7.1 a parameter", "Transfer-Encoding: chunked;x"),
            ("7.1 an empty parameter", "Transfer-Encoding: chunked;"),
            ("6.1 quoted", "Transfer-Encoding: \"chunked\""),
            ("6.1 empty", "Transfer-Encoding:"),
            ("6.1 an empty element before", "Transfer-Encoding: , chunked"),
            ("6.1 an empty element after", "Transfer-Encoding: chunked,"),
            ("6.1 an empty second line", "Transfer-Encoding: chunked\r\nTransfer-Encoding:"),
            ("6.1 two words", "Transfer-Encoding: x chunked"),
            ("6.1 obs-text around", "Transfer-Encoding: chunked\u{a0}"),
        ],
    ),
];

pub(super) const fn field(fault: FieldFault) -> RequestFault {
    RequestFault::Field(fault)
}
