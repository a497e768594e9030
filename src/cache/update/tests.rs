use super::*;
use crate::base::Wall;
use crate::cache::facts::LifetimeSource;
use crate::cache::sample::{DATE, Lines, NOW, date as at, fields, get, head, secs};

/// An hour after the sample exchange.
const LATER: Exchange = {
    let then = Wall::from_secs(NOW.as_secs() + 3_600);
    Exchange { requested: then, responded: then }
};

fn updated(stored: Lines<'_>, newer: Lines<'_>) -> Updated {
    update(&get(&[]), 200, &fields(stored), &head(304, newer), LATER, &Settings::default())
}

/// RFC 9111 sections 3.2 and 4.3.4.
#[test]
fn a_304_replaces_the_fields_it_has_and_keeps_the_others() {
    let later = at(3_600);
    let updated = updated(
        &[
            ("Date", DATE),
            ("Cache-Control", "max-age=2"),
            ("ETag", "\"a\""),
            ("Test-Header", "old"),
            ("X-Kept", "1"),
            ("X-Two", "old 1"),
            ("X-Two", "old 2"),
            ("Content-Length", "36"),
            ("Content-Type", "text/plain"),
            ("Content-Encoding", "gzip"),
            ("Content-Range", "x"),
            ("Content-Location", "/foo"),
        ],
        &[
            ("Date", &later),
            ("cache-control", "max-age=3600"),
            ("ETag", "\"a\""),
            ("test-header", "new"),
            ("X-Two", "new 1"),
            ("X-Two", "new 2"),
            ("Content-Length", "10"),
            ("Content-Type", "text/html"),
            ("Content-Encoding", "br"),
            ("Content-Range", "y"),
            ("Content-Location", "/bar"),
            ("Connection", "X-Hop"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Age", "7"),
        ],
    );
    let expected = fields(&[
        ("X-Kept", "1"),
        ("Content-Length", "36"),
        ("Content-Type", "text/plain"),
        ("Content-Encoding", "gzip"),
        ("Content-Range", "x"),
        ("Date", &later),
        ("cache-control", "max-age=3600"),
        ("ETag", "\"a\""),
        ("test-header", "new"),
        ("X-Two", "new 1"),
        ("X-Two", "new 2"),
        ("Content-Location", "/bar"),
    ]);
    assert_eq!(updated.fields, expected);
    assert_eq!(updated.keep, Keep::Replace);
    assert_eq!(updated.facts.initial_age, secs(7));
    assert_eq!(updated.facts.lifetime, secs(3_600));
    assert_eq!(updated.facts.response_time, LATER.responded);
    assert_eq!(updated.facts.status, 200);
    assert!(updated.own.is_empty());
}

#[test]
fn a_304_without_date_makes_the_response_new_nevertheless() {
    let updated = updated(&[("Date", DATE), ("Cache-Control", "max-age=60")], &[]);
    assert_eq!(updated.facts.lifetime_source, LifetimeSource::MaxAge);
    assert_eq!(updated.facts.initial_age, secs(0));
    assert_eq!(updated.fields.get("Date"), Some(at(3_600).as_bytes()));
    assert!(updated.facts.is_fresh(LATER.responded));
}

/// RFC 9111 section 4.2.1: a stored Expires that is not renewed stays in the past.
#[test]
fn an_old_expires_is_not_renewed_by_a_304_that_omits_it() {
    let expires = at(60);
    let updated = updated(&[("Date", DATE), ("Expires", &expires), ("ETag", "\"a\"")], &[]);
    assert!(!updated.facts.is_fresh(LATER.responded));
}

/// RFC 9111 section 3: the rules of storing hold again.
#[test]
fn a_304_that_forbids_storing_removes_the_stored_response() {
    let stored: Lines<'_> = &[("Cache-Control", "max-age=60"), ("ETag", "\"a\"")];
    for (line, reason) in [
        (("Cache-Control", "no-store"), Reason::NoStore),
        (("Cache-Control", "private"), Reason::Private),
        (("Vary", "*"), Reason::VaryAny),
    ] {
        assert_eq!(updated(stored, &[line]).keep, Keep::Remove(reason), "{line:?}");
    }
    let request = get(&[("Authorization", "x")]);
    let left = update(&request, 200, &fields(stored), &head(304, &[]), LATER, &Settings::default());
    assert_eq!(left.keep, Keep::Leave(Reason::Authorization));
}

/// RFC 9111 section 7.3 and 5.2.2.4: one client's fields don't reach another through a 304.
#[test]
fn what_is_for_one_client_is_not_kept() {
    let heuristic: Lines<'_> = &[("ETag", "\"a\""), ("X", "1")];
    let cookie = ("Set-Cookie", "session=1");
    let with_cookie = updated(heuristic, &[cookie, ("X", "2")]);
    assert!(!with_cookie.fields.contains("Set-Cookie"));
    assert_eq!(with_cookie.own, fields(&[cookie]));
    assert_eq!(with_cookie.keep, Keep::Replace);
    assert_eq!(with_cookie.fields.get("X"), Some(&b"2"[..]));

    let shared = updated(&[("Cache-Control", "max-age=60")], &[cookie]);
    assert!(shared.fields.contains("Set-Cookie") && shared.own.is_empty());

    let withheld = updated(
        &[("Cache-Control", "max-age=60, private=\"x-user\"")],
        &[("X-User", "me"), ("X-All", "1")],
    );
    assert_eq!(withheld.own, fields(&[("X-User", "me")]));
    assert!(!withheld.fields.contains("X-User") && withheld.fields.contains("X-All"));
}

/// RFC 9111 section 4.3.5.
#[test]
fn a_head_response_updates_what_it_describes_and_invalidates_what_it_contradicts() {
    let modified = at(-100);
    let stored = fields(&[("ETag", "\"a\""), ("Last-Modified", &modified)]);
    let cases: [(u16, Lines<'_>, HeadUpdate); 13] = [
        (200, &[("ETag", "\"a\""), ("Content-Length", "10")], HeadUpdate::Update),
        (200, &[("Content-Length", "10")], HeadUpdate::Update),
        (200, &[], HeadUpdate::Update),
        (200, &[("Last-Modified", &modified)], HeadUpdate::Update),
        (200, &[("ETag", "\"a\""), ("Last-Modified", DATE)], HeadUpdate::Invalidate),
        (200, &[("ETag", "\"b\"")], HeadUpdate::Invalidate),
        (200, &[("ETag", "\"a\""), ("Content-Length", "11")], HeadUpdate::Invalidate),
        (200, &[("Content-Length", "ten")], HeadUpdate::Invalidate),
        (200, &[("ETag", "\"b\""), ("Content-Encoding", "br")], HeadUpdate::Ignore),
        (404, &[], HeadUpdate::Invalidate),
        (410, &[], HeadUpdate::Invalidate),
        (304, &[("ETag", "\"b\"")], HeadUpdate::Ignore),
        (503, &[], HeadUpdate::Ignore),
    ];
    for (status, lines, expected) in cases {
        let decided = head_update(200, &stored, Some(10), &head(status, lines), LATER);
        assert_eq!(decided, expected, "{status} {lines:?}");
    }
    assert_eq!(head_update(301, &stored, Some(10), &head(200, &[]), LATER), HeadUpdate::Ignore);
    assert_eq!(head_update(404, &stored, Some(10), &head(404, &[]), LATER), HeadUpdate::Ignore);
}

#[test]
fn a_head_response_renews_freshness() {
    let stored = fields(&[("Cache-Control", "max-age=2"), ("Template-A", "1")]);
    let newer = head(200, &[("Cache-Control", "max-age=1000"), ("Template-A", "2")]);
    let updated = update(&get(&[]), 200, &stored, &newer, LATER, &Settings::default());
    assert_eq!(updated.facts.ttl(LATER.responded), 1_000);
    assert_eq!(updated.fields.get("Template-A"), Some(&b"2"[..]));
}
