use super::*;
use crate::cache::sample::{Lines, fields};

fn response(lines: &[&str]) -> ResponseControl {
    let mut fields = Fields::new();
    for line in lines {
        fields.push("Cache-Control", line);
    }
    ResponseControl::parse(&fields)
}

fn request(lines: Lines<'_>) -> RequestControl {
    RequestControl::parse(&fields(lines))
}

const fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// RFC 9111 sections 1.2.2, 4.2.1, 5.2, 5.2.2.1.
#[test]
fn max_age_is_read_in_every_spelling() {
    const LONG: u64 = u32::MAX as u64;
    let cases: &[(&[&str], Option<Duration>)] = &[
        (&["max-age=3600"], secs(3600)),
        (&["MaX-aGe=3600"], secs(3600)),
        (&["max-age=\"3600\""], secs(3600)),
        (&["max-age=003600"], secs(3600)),
        (&["foobar, max-age=3600"], secs(3600)),
        (&[" , ,max-age=3600,,"], secs(3600)),
        (&["foo=\"a, b\" , max-age=1"], secs(1)),
        (&["public", "max-age=5"], secs(5)),
        // Overflow is very long.
        (&["max-age=2147483648"], secs(2_147_483_648)),
        (&["max-age=99999999999"], secs(LONG)),
        (&["max-age=99999999999999999999999999"], secs(LONG)),
        // Invalid is stale.
        (&["max-age=-3600"], secs(0)),
        (&["max-age=3600.5"], secs(0)),
        (&["max-age='3600'"], secs(0)),
        (&["max-age=a3600"], secs(0)),
        (&["max-age=3600a"], secs(0)),
        (&["max-age=+1"], secs(0)),
        (&["max-age"], secs(0)),
        (&["max-age="], secs(0)),
        (&["max-age =3600"], secs(0)),
        (&["max-age= 3600"], secs(0)),
        (&["max-age=\"36 00\""], secs(0)),
        // The first counts.
        (&["max-age=1800, max-age=1"], secs(1800)),
        (&["max-age=1", "max-age=1800"], secs(1)),
        (&["max-age=x, max-age=1800"], secs(0)),
        // Not hidden in, and not hidden by, quoted strings.
        (&["extension=\"max-age=3600\", max-age=1"], secs(1)),
        (&["max-age=1, extension=\"max-age=3600\""], secs(1)),
        (&["extension=\"max-age=3600\""], None),
        (&["extension=\"open, max-age=1"], secs(1)),
        (&["x-max-age=3600"], None),
        (&[], None),
    ];
    for (lines, expected) in cases {
        assert_eq!(response(lines).max_age, *expected, "{lines:?}");
    }
}

/// RFC 9111 sections 5.2.2.2 to 5.2.2.10, RFC 5861, RFC 8246.
#[test]
fn every_response_directive_is_read() {
    let control = response(&[
        "No-StOrE, no-cache, private, public, must-revalidate, proxy-revalidate",
        "must-understand, immutable, s-maxage=7, stale-while-revalidate=8, stale-if-error=9",
    ]);
    let expected = ResponseControl {
        s_maxage: secs(7),
        max_age: None,
        stale_while_revalidate: secs(8),
        stale_if_error: secs(9),
        no_store: true,
        no_cache: true,
        private: true,
        public: true,
        must_revalidate: true,
        proxy_revalidate: true,
        must_understand: true,
        immutable: true,
        targeted: false,
        withheld: Vec::new(),
    };
    assert_eq!(control, expected);
    assert!(control.forbids_stale() && control.shares_authorized());
}

#[test]
fn a_restriction_holds_with_an_odd_argument_and_a_permission_does_not() {
    let control = response(&["no-store=1, must-revalidate=\"x\", public=1, immutable=yes"]);
    assert!(control.no_store && control.must_revalidate);
    assert!(!control.public && !control.immutable);
    assert!(response(&["no-store =x"]).no_store);
    let control = response(&["stale-while-revalidate=x, stale-if-error=1.5"]);
    assert_eq!((control.stale_while_revalidate, control.stale_if_error), (secs(0), secs(0)));
}

#[test]
fn text_that_is_no_directive_holds_as_the_restrictions_whose_words_it_has() {
    let held = |control: &ResponseControl| {
        let flags = [
            ("no-store", control.no_store),
            ("no-cache", control.no_cache),
            ("private", control.private),
            ("must-revalidate", control.must_revalidate),
            ("proxy-revalidate", control.proxy_revalidate),
            ("max-age=0", control.max_age == secs(0)),
            ("s-maxage=0", control.s_maxage == secs(0)),
        ];
        flags.iter().filter(|it| it.1).map(|it| it.0).collect::<Vec<_>>().join(" ")
    };
    for (line, expected) in [
        ("no-store;", "no-store"),
        ("\"no-store\"", "no-store"),
        ("'no-store'", "no-store"),
        ("=no-store", "no-store"),
        ("NO-STORE max-age=60", "no-store max-age=0"),
        ("max-age=60 no-store", "no-store max-age=0"),
        ("private;max-age=60", "private max-age=0"),
        ("max-age=60;private", "private max-age=0"),
        ("public;max-age=60", "max-age=0"),
        ("public; s-maxage=60", "s-maxage=0"),
        ("no-cache;must-revalidate;proxy-revalidate", "no-cache must-revalidate proxy-revalidate"),
        ("x=\"open no-store", "no-store"),
        ("no-store\t\u{a0}", "no-store"),
        // Readable, and about something else.
        ("x=\"no-store, private\"", ""),
        ("x=no-store", ""),
        ("x-no-store", ""),
        ("no-storex", ""),
        ("it's", ""),
        ("community=\"UCI\";x", ""),
    ] {
        let control = response(&[line]);
        assert_eq!(held(&control), expected, "{line}");
        assert!(!control.public && !control.immutable, "{line}");
    }
    // What was said properly before counts first.
    assert_eq!(response(&["max-age=5, public;max-age=60"]).max_age, secs(5));
    let odd = request(&[("Cache-Control", "no-store;, \"no-cache\"")]);
    assert!(odd.no_store && odd.no_cache);
}

/// RFC 9110 section 7.7.
#[test]
fn no_transform_is_read_in_every_spelling() {
    for (line, expected) in [
        ("no-transform", true),
        ("max-age=60, NO-Transform", true),
        ("no-transform=1", true),
        ("no-transform;max-age=60", true),
        ("x=\"no-transform\"", false),
        ("max-age=60", false),
    ] {
        let fields = fields(&[("Cache-Control", line)]);
        assert_eq!(forbids_transforming(&fields), expected, "{line}");
    }
}

/// RFC 9111 sections 5.2.2.4 and 5.2.2.7.
#[test]
fn a_field_list_withholds_fields_and_nothing_else() {
    let cases: &[(&str, bool, &[&str])] = &[
        ("no-cache=\"a\"", false, &["a"]),
        ("no-cache=\"a, b\"", false, &["a", "b"]),
        ("private=\"Set-Cookie\"", false, &["Set-Cookie"]),
        ("no-cache=a", false, &["a"]),
        ("no-cache=\"\"", true, &[]),
        ("no-cache=", true, &[]),
        ("private=\"(,)\"", true, &[]),
        ("no-cache=\"a\", no-cache", true, &["a"]),
        ("no-cache", true, &[]),
    ];
    for (line, whole, names) in cases {
        let control = response(&[line]);
        assert_eq!(control.no_cache || control.private, *whole, "{line}");
        let expected: Vec<Box<[u8]>> = names.iter().map(|n| n.as_bytes().into()).collect();
        assert_eq!(control.withheld, expected, "{line}");
    }
    assert!(response(&["private=\"Set-Cookie\""]).withholds(b"set-cookie"));
}

/// RFC 9111 section 5.2.1.
#[test]
fn every_request_directive_is_read() {
    let control = request(&[(
        "cache-control",
        "max-age=1, MIN-FRESH=2, max-stale=\"3\", stale-if-error=4, no-cache, no-store, \
         no-transform, only-if-cached",
    )]);
    let expected = RequestControl {
        max_age: secs(1),
        min_fresh: secs(2),
        max_stale: secs(3),
        stale_if_error: secs(4),
        no_cache: true,
        no_store: true,
        no_transform: true,
        only_if_cached: true,
    };
    assert_eq!(control, expected);
}

#[test]
fn a_malformed_request_number_demands_the_most() {
    let control = request(&[("Cache-Control", "max-age=x, min-fresh=-1, max-stale=1.5")]);
    assert_eq!(control.max_age, secs(0));
    assert_eq!(control.min_fresh, Some(Duration::MAX));
    assert_eq!(control.max_stale, secs(0));
    assert_eq!(request(&[("Cache-Control", "max-stale")]).max_stale, Some(Duration::MAX));
}

/// RFC 9111 section 5.4.
#[test]
fn pragma_counts_only_without_cache_control() {
    assert!(request(&[("Pragma", "No-Cache")]).no_cache);
    assert!(request(&[("Pragma", "x, no-cache")]).no_cache);
    assert!(!request(&[("Pragma", "unrecognised")]).no_cache);
    assert!(!request(&[("Pragma", "no-cache"), ("Cache-Control", "max-age=9")]).no_cache);
    let mut fields = Fields::new();
    fields.push("Pragma", "no-cache");
    assert!(!ResponseControl::parse(&fields).no_cache);
}
