use super::*;
use crate::http::{Fields, Method, ResponseHead, Version};
use crate::proxy::growing::{Growing, Keep};

const NOW: Wall = Wall::from_secs(1_700_000_000);

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.push(name, value);
    }
    fields
}

fn early(method: Method, asked: &[(&str, &str)], status: u16, length: Option<u64>) -> Early {
    let request = RequestHead {
        method,
        path: "/x".into(),
        query: None,
        authority: "a".into(),
        version: Version::Http11,
        fields: fields(asked),
    };
    let fields = fields(&[("ETag", "\"a\"")]);
    let incoming = Incoming {
        head: ResponseHead { status, version: Version::Http11, fields },
        length,
        gzip: false,
        shared: true,
        reason: None,
        facts: None,
        received: NOW,
        body: Growing::new(Keep::All),
    };
    Early::of(&request, &incoming, NOW)
}

/// RFC 9110 sections 13.2.2 and 14.2: conditions before ranges, ranges of a 200 to GET alone.
#[test]
fn head_decides_what_a_request_gets_before_the_end() {
    const SAME: (&str, &str) = ("If-None-Match", "\"a\"");
    const OTHER: (&str, &str) = ("If-None-Match", "\"b\"");
    const RANGE: (&str, &str) = ("Range", "bytes=2-3");
    let run = Early::Run { span: Span { first: 2, last: 3 }, complete: 10 };
    let known = Some(10);
    type Row<'a> = (&'a [(&'a str, &'a str)], u16, Option<u64>, Early);
    let rows: [Row<'_>; 14] = [
        (&[], 200, None, Early::All),
        (&[SAME], 200, None, Early::NotModified),
        (&[SAME, RANGE], 200, known, Early::NotModified),
        (&[SAME], 404, None, Early::All),
        (&[OTHER], 200, None, Early::All),
        (&[OTHER, RANGE], 200, known, run),
        (&[RANGE], 200, known, run),
        (&[RANGE], 404, known, Early::All),
        (&[RANGE], 200, None, Early::Nothing),
        (&[RANGE, ("If-Range", "\"b\"")], 200, None, Early::All),
        (&[RANGE, ("If-Range", "\"a\"")], 200, known, run),
        (&[("Range", "bytes=1-2,5-6")], 200, known, Early::Nothing),
        (&[("Range", "bytes=10-")], 200, known, Early::Nothing),
        (&[("Range", "lines=1-2")], 200, None, Early::All),
    ];
    for (asked, status, length, expected) in rows {
        assert_eq!(early(Method::Get, asked, status, length), expected, "{asked:?} {status}");
    }
    assert_eq!(early(Method::Post, &[RANGE], 200, known), Early::All);
}
