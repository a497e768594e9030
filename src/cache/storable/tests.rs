use std::time::Duration;

use super::*;
use crate::cache::sample::{AT_ONCE, DATE, Lines, date as at, fields, get, get_with, head, secs};

fn judged(status: u16, lines: Lines<'_>) -> Result<(), Reason> {
    storable(&get(&[]), &head(status, lines), AT_ONCE, &Settings::default()).map(drop)
}

fn with_control(value: &str) -> Result<(), Reason> {
    judged(200, &[("Cache-Control", value)])
}

/// RFC 9111 sections 3 and 5.2.2.
#[test]
fn directives_decide_what_is_stored() {
    for (value, expected) in [
        ("max-age=60", Ok(())),
        ("public", Ok(())),
        ("No-StOrE", Err(Reason::NoStore)),
        ("max-age=10000, no-store", Err(Reason::NoStore)),
        ("private, max-age=3600", Err(Reason::Private)),
        ("private=\"a\", max-age=3600", Ok(())),
        ("no-cache=\"a\", max-age=3600", Ok(())),
        ("no-cache", Err(Reason::NoValidator)),
        ("max-age=3600, no-store, must-understand", Ok(())),
        ("must-understand", Ok(())),
    ] {
        assert_eq!(with_control(value), expected, "{value}");
    }
    let tagged = [("Cache-Control", "no-cache"), ("ETag", "\"a\"")];
    assert_eq!(judged(200, &tagged), Ok(()));
}

/// RFC 9213 section 2.2.
#[test]
fn a_targeted_field_decides_in_place_of_cache_control() {
    let cc = |value| ("Cache-Control", value);
    let cdn = |value| ("CDN-Cache-Control", value);
    for (lines, expected) in [
        ([cc("no-store"), cdn("max-age=10000")], Ok(())),
        ([cc("max-age=10000"), cdn("no-store")], Err(Reason::NoStore)),
        ([cc("max-age=10000"), cdn("private")], Err(Reason::Private)),
        ([cc("max-age=10000"), cdn("no-cache")], Err(Reason::NoValidator)),
        ([cc("no-store"), cdn("max-age=10000, &&&&&")], Err(Reason::NoStore)),
        ([cc("no-store"), cdn("max-age=\"10000\"")], Err(Reason::NoStore)),
        ([cc("no-store"), cdn("")], Err(Reason::NoStore)),
    ] {
        assert_eq!(judged(200, &lines), expected, "{lines:?}");
    }
}

/// RFC 9111 section 3.3: one part, to a request for a range, by the rules for a 200.
#[test]
fn a_part_is_stored_as_an_incomplete_200_would_be() {
    const PART: (&str, &str) = ("Content-Range", "bytes 0-4/10");
    const LONG: (&str, &str) = ("Cache-Control", "max-age=60");
    let ranged = get(&[("Range", "bytes=0-4")]);
    let multipart = ("Content-Type", "multipart/byteranges; boundary=x");
    let rows: &[(Lines<'_>, Result<(), Reason>)] = &[
        (&[PART, LONG], Ok(())),
        (&[PART], Ok(())),
        (&[PART, ("ETag", "\"a\"")], Ok(())),
        (&[PART, ("Cache-Control", "no-store")], Err(Reason::NoStore)),
        (&[PART, ("Cache-Control", "private")], Err(Reason::Private)),
        (&[PART, LONG, ("Vary", "*")], Err(Reason::VaryAny)),
        (&[LONG], Err(Reason::PartUnusable)),
        (&[LONG, multipart], Err(Reason::PartUnusable)),
        (&[LONG, ("Content-Range", "bytes 4-2/10")], Err(Reason::PartUnusable)),
        (&[LONG, ("Content-Range", "lines 0-4/10")], Err(Reason::PartUnusable)),
    ];
    for (lines, expected) in rows {
        let found = storable(&ranged, &head(206, lines), AT_ONCE, &Settings::default());
        assert_eq!(found.map(drop), *expected, "{lines:?}");
    }
    assert_eq!(judged(206, &[PART, LONG]), Err(Reason::PartUnusable), "nobody asked for it");
}

/// RFC 9111 section 3: which methods.
#[test]
fn only_responses_to_cacheable_methods_are_stored() {
    let head = head(200, &[("Cache-Control", "max-age=60")]);
    let store = |method: Method, settings: &Settings| {
        let request = RequestFacts::parse(&method, &Fields::new());
        storable(&request, &head, AT_ONCE, settings).map(drop)
    };
    let settings = Settings::default();
    assert_eq!(store(Method::Get, &settings), Ok(()));
    for method in [Method::Head, Method::Post, Method::Query, Method::Put, Method::Options] {
        assert_eq!(store(method.clone(), &settings), Err(Reason::MethodNotCached), "{method}");
    }
    let mut by_body = settings;
    by_body.methods.post = true;
    by_body.methods.query = true;
    assert_eq!(store(Method::Post, &by_body), Ok(()));
    assert_eq!(store(Method::Query, &by_body), Ok(()));
    assert_eq!(store(Method::Put, &by_body), Err(Reason::MethodNotCached));
}

/// RFC 9110 section 9.3.3: a POST's response needs explicit freshness.
#[test]
fn a_post_is_not_stored_on_a_guess() {
    let methods = crate::cache::Methods { post: true, query: true, ..Settings::default().methods };
    let settings = Settings { methods, ..Settings::default() };
    let forced = Settings { force_ttl: Some(secs(60)), ..settings };
    let later = at(60);
    let modified = at(-86_400);
    let rows: [(Lines<'_>, bool); 8] = [
        (&[("Cache-Control", "max-age=60")], true),
        (&[("Cache-Control", "s-maxage=60")], true),
        (&[("CDN-Cache-Control", "max-age=60")], true),
        (&[("Expires", &later)], true),
        (&[], false),
        (&[("Cache-Control", "public")], false),
        (&[("Last-Modified", &modified)], false),
        (&[("Cache-Control", "no-cache"), ("ETag", "\"a\"")], false),
    ];
    for (lines, stored) in rows {
        let store = |method: Method, settings: &Settings| {
            let request = RequestFacts::parse(&method, &Fields::new());
            storable(&request, &head(200, lines), AT_ONCE, settings).map(drop)
        };
        let expected = if stored { Ok(()) } else { Err(Reason::NoFreshness) };
        assert_eq!(store(Method::Post, &settings), expected, "{lines:?}");
        assert_eq!(store(Method::Query, &settings), Ok(()), "{lines:?}");
        assert_eq!(store(Method::Post, &forced), Ok(()), "the operator's word, {lines:?}");
    }
}

/// RFC 9111 section 3, RFC 9110 section 15, RFC 6585.
#[test]
fn a_status_is_stored_with_a_lifetime_unless_it_is_for_one_request() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503]
        .into_iter()
        .chain([504, 599, 999])
    {
        assert_eq!(judged(status, &[("Cache-Control", "max-age=60")]), Ok(()), "{status}");
        let stale = at(-5_000);
        let stale = judged(status, &[("Expires", &stale), ("Date", DATE)]);
        assert_eq!(stale.is_ok(), status < 400, "{status}: a stale error is of no use");
    }
    assert_eq!(judged(206, &[("Cache-Control", "max-age=60")]), Err(Reason::PartUnusable));
    for status in [103, 304, 401, 407, 408, 412, 416, 417, 421, 425, 426, 428, 429, 431, 511] {
        let judged = judged(status, &[("Cache-Control", "public, max-age=60")]);
        assert_eq!(judged, Err(Reason::Status), "{status}");
    }
}

/// RFC 9111 sections 3 and 4.2.2, RFC 9110 section 15.1.
#[test]
fn without_a_lifetime_the_status_must_allow_one() {
    for (status, stored) in [
        (200, true),
        (203, true),
        (204, true),
        (300, true),
        (301, true),
        (308, true),
        (201, false),
        (202, false),
        (302, false),
        (307, false),
        (403, false),
        (404, false),
        (410, false),
        (500, false),
        (503, false),
        (599, false),
    ] {
        let expected = if stored { Ok(()) } else { Err(Reason::NoFreshness) };
        assert_eq!(judged(status, &[]), expected, "{status}");
    }
}

/// The operator speaks of 404 and 410; Last-Modified of all errors that may be kept heuristically.
#[test]
fn without_explicit_freshness_an_error_has_the_operators_lifetime_or_a_share() {
    let modified = at(-86_400);
    let changed: Lines<'_> = &[("Last-Modified", modified.as_str()), ("Date", DATE)];
    let public: Lines<'_> = &[("Cache-Control", "public")];
    for (lines, is_changed) in [(&[][..], false), (changed, true), (public, false)] {
        for status in [400, 403, 404, 405, 410, 414, 451, 500, 501, 503, 599] {
            for ttl in [0, 5] {
                let settings = Settings { negative_ttl: secs(ttl), ..Settings::default() };
                let judged = storable(&get(&[]), &head(status, lines), AT_ONCE, &settings);
                let lifetime = judged.map(|facts| facts.lifetime);
                let expected = match status {
                    404 | 410 if ttl > 0 => Ok(secs(ttl)),
                    404 | 405 | 410 | 414 | 501 if is_changed => Ok(secs(8_640)),
                    _ => Err(Reason::NoFreshness),
                };
                assert_eq!(lifetime, expected, "{status} {lines:?} negative_ttl={ttl}");
            }
        }
    }
    // What the origin states holds for every error.
    assert_eq!(judged(501, &[("Cache-Control", "max-age=60")]), Ok(()));
}

/// RFC 9111 section 5.2.2.3.
#[test]
fn must_understand_needs_a_registered_status() {
    let line = [("Cache-Control", "max-age=3600, no-store, must-understand")];
    assert_eq!(judged(200, &line), Ok(()));
    assert_eq!(judged(404, &line), Ok(()));
    assert_eq!(judged(599, &line), Err(Reason::StatusNotUnderstood));
    let line = [("Cache-Control", "max-age=3600, must-understand")];
    assert_eq!(judged(299, &line), Err(Reason::StatusNotUnderstood));
}

/// RFC 9111 section 3.5.
#[test]
fn an_authorized_response_needs_leave_to_be_shared() {
    let request = get(&[("Authorization", "Basic x")]);
    for (value, expected) in [
        ("max-age=60", Err(Reason::Authorization)),
        ("max-age=60, proxy-revalidate", Err(Reason::Authorization)),
        ("max-age=60, public", Ok(())),
        ("max-age=60, must-revalidate", Ok(())),
        ("s-maxage=60", Ok(())),
        ("public, private", Err(Reason::Private)),
    ] {
        let head = head(200, &[("Cache-Control", value)]);
        let judged = storable(&request, &head, AT_ONCE, &Settings::default()).map(drop);
        assert_eq!(judged, expected, "{value}");
    }
}

/// RFC 9111 section 7.3.
#[test]
fn a_cookie_is_stored_only_where_a_directive_says_so() {
    let cookie = ("Set-Cookie", "a=b");
    let later = at(60);
    let cases: [(Lines<'_>, Result<(), Reason>); 8] = [
        (&[cookie], Err(Reason::SetCookie)),
        (&[cookie, ("Expires", &later)], Err(Reason::SetCookie)),
        (&[cookie, ("Cache-Control", "no-cache"), ("ETag", "\"a\"")], Err(Reason::SetCookie)),
        (&[("Set-Cookie2", "a=b")], Err(Reason::SetCookie)),
        (&[cookie, ("Cache-Control", "max-age=60")], Ok(())),
        (&[cookie, ("Cache-Control", "public")], Ok(())),
        (&[cookie, ("Cache-Control", "s-maxage=60")], Ok(())),
        (&[cookie, ("Cache-Control", "no-cache=\"set-cookie\"")], Ok(())),
    ];
    for (lines, expected) in cases {
        assert_eq!(judged(200, lines), expected, "{lines:?}");
    }
}

/// RFC 9111 sections 4.1 and 5.2.1.5.
#[test]
fn vary_star_and_a_requests_no_store_keep_it_out() {
    let long = ("Cache-Control", "max-age=60");
    assert_eq!(judged(200, &[long, ("Vary", "Foo, *")]), Err(Reason::VaryAny));
    assert_eq!(judged(200, &[long, ("Vary", "Foo, Bar")]), Ok(()));
    let wide: Vec<String> = (0..40).map(|n| format!("x{n}")).collect();
    assert_eq!(judged(200, &[long, ("Vary", &wide.join(","))]), Err(Reason::VaryTooWide));
    let judged =
        storable(&get_with("no-store"), &head(200, &[long]), AT_ONCE, &Settings::default());
    assert_eq!(judged, Err(Reason::RequestNoStore));
}

/// What can never be served is not stored.
#[test]
fn a_response_that_is_stale_at_once_is_stored_only_if_it_can_be_of_use() {
    let strict = Settings { stale_if_error: Duration::ZERO, ..Settings::default() };
    let offline = Settings { offline: true, ..strict };
    let of = |value: &str, settings: &Settings| {
        let head = head(200, &[("Cache-Control", value)]);
        storable(&get(&[]), &head, AT_ONCE, settings).map(drop)
    };
    assert_eq!(of("max-age=0", &strict), Err(Reason::NoValidator));
    assert_eq!(of("max-age=0", &offline), Ok(()));
    assert_eq!(of("max-age=0", &Settings::default()), Ok(()));
    assert_eq!(of("max-age=0, stale-if-error=5", &strict), Ok(()));
    assert_eq!(of("max-age=0, stale-while-revalidate=5", &strict), Ok(()));
    assert_eq!(of("max-age=0, must-revalidate", &offline), Err(Reason::NoValidator));
    assert_eq!(of("s-maxage=0", &Settings::default()), Err(Reason::NoValidator));
    let old = head(200, &[("Cache-Control", "max-age=5"), ("Age", "7")]);
    assert_eq!(storable(&get(&[]), &old, AT_ONCE, &strict), Err(Reason::NoValidator));
    let tagged = head(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")]);
    assert!(storable(&get(&[]), &tagged, AT_ONCE, &strict).is_ok());
}

/// Pragma in a response means nothing (RFC 9111 section 5.4); a forced lifetime lifts no ban.
#[test]
fn neither_pragma_nor_a_forced_lifetime_changes_what_may_be_stored() {
    assert_eq!(judged(200, &[("Pragma", "no-cache")]), Ok(()));
    let forced = Settings { force_ttl: Some(secs(60)), ..Settings::default() };
    for (value, expected) in [
        ("max-age=0", Ok(())),
        ("no-store", Err(Reason::NoStore)),
        ("private", Err(Reason::Private)),
        ("no-cache", Err(Reason::NoValidator)),
    ] {
        let head = head(200, &[("Cache-Control", value)]);
        let judged = storable(&get(&[]), &head, AT_ONCE, &forced).map(drop);
        assert_eq!(judged, expected, "{value}");
    }
}

/// RFC 9111 section 3.1, RFC 9110 section 7.6.1.
#[test]
fn fields_of_the_connection_and_withheld_ones_are_not_stored() {
    let head = head(
        200,
        &[
            ("Connection", "a, b"),
            ("a", "1"),
            ("B", "2"),
            ("c", "3"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Authentication-Info", "x"),
            ("Proxy-Authorization", "x"),
            ("Proxy-Connection", "close"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Age", "5"),
            ("x-request-id", "of the first client"),
            ("X-Offline", "true"),
            ("Date", DATE),
            ("Set-Cookie", "a=b"),
            ("Content-Range", "x"),
            ("Cache-Control", "no-cache=\"d, e\", private=\"f\", max-age=9"),
            ("D", "4"),
            ("e", "5"),
            ("f", "6"),
        ],
    );
    let expected = fields(&[
        ("c", "3"),
        ("Date", DATE),
        ("Set-Cookie", "a=b"),
        ("Content-Range", "x"),
        ("Cache-Control", "no-cache=\"d, e\", private=\"f\", max-age=9"),
    ]);
    assert_eq!(stored_fields(&head, AT_ONCE), expected);
}

/// RFC 9110 section 6.6.1.
#[test]
fn a_stored_response_has_a_valid_date() {
    let expected = fields(&[("X", "1"), ("Date", DATE)]);
    assert_eq!(stored_fields(&head(200, &[("X", "1")]), AT_ONCE), expected);
    let invalid = head(200, &[("Date", "foo"), ("X", "1")]);
    assert_eq!(stored_fields(&invalid, AT_ONCE), expected);
    let own = at(-50);
    let own = [("Date", own.as_str())];
    assert_eq!(stored_fields(&head(200, &own), AT_ONCE), fields(&own));
}
