//! The rules of HTTP caching seen from outside: tables of what an origin says, what a client asks
//! and what comes of it, with the section of the RFC that says so.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::time::{Duration, SystemTime};

use support::{Origin, Proxy, Response, Setup, answer};

/// Section, fields of the request, status and verdict of the answer.
type Wanted<'a> = (&'a str, Vec<(&'a str, &'a str)>, u16, &'a str);
type Lines<'a> = &'a [(&'a str, &'a str)];

const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");

fn date(offset_secs: i64) -> String {
    let span = Duration::from_secs(offset_secs.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if offset_secs < 0 { now - span } else { now + span })
}

/// Asks twice for a path of its own: first with `say`, then with `fields` beside it.
fn twice(proxy: &Proxy, number: usize, say: &str, fields: Lines<'_>) -> (Response, Response) {
    let target = format!("/api/row/{number}");
    let first = proxy.ask("GET", &target, &[("Say", say)]);
    let mut all = vec![("Say", say)];
    all.extend_from_slice(fields);
    let second = proxy.ask("GET", &target, &all);
    (first, second)
}

fn proxy_over(origin: &Origin) -> Proxy {
    Setup::over(origin).with("cache.ttl", 0).with("client.circuit_breaker_enabled", false).start()
}

/// Each row: the section, what the origin says, whether the next request is a hit.
#[test]
fn what_the_origin_says_decides_whether_its_answer_is_used_again() {
    let (past, future) = (date(-3600), date(3600));
    let expires = |value: &str| format!("Expires: {value}");
    let rows: Vec<(&str, String, bool)> = vec![
        ("RFC 9111 5.2.2.1", "Cache-Control: max-age=60".into(), true),
        ("RFC 9111 5.2 case", "Cache-Control: MaX-aGe=60".into(), true),
        ("RFC 9111 5.2 quoted", "Cache-Control: max-age=\"60\"".into(), true),
        ("RFC 9111 5.2 white space", "Cache-Control: a  ,\t max-age=60 ,,".into(), true),
        (
            "RFC 9111 5.2.3 unknown",
            "Cache-Control: b=\"max-age=0, no-store\", max-age=60".into(),
            true,
        ),
        (
            "RFC 9111 5.2 two fields",
            "Cache-Control: public;;Cache-Control: max-age=60".into(),
            true,
        ),
        ("RFC 9111 1.2.2 overflow", "Cache-Control: max-age=99999999999999999999".into(), true),
        ("RFC 9111 4.2.1 negative", "Cache-Control: max-age=-60".into(), false),
        ("RFC 9111 4.2.1 decimal", "Cache-Control: max-age=60.5".into(), false),
        ("RFC 9111 4.2.1 letters", "Cache-Control: max-age=abc".into(), false),
        ("RFC 9111 5.2.2.10", "Cache-Control: max-age=0, s-maxage=60".into(), true),
        ("RFC 9111 5.2.2.10", "Cache-Control: max-age=60, s-maxage=0".into(), false),
        ("RFC 9111 5.3 beside", format!("Cache-Control: max-age=0;;{}", expires(&future)), false),
        ("RFC 9111 5.3", expires(&future), true),
        ("RFC 9111 5.3", expires(&past), false),
        ("RFC 9111 5.3 RFC 850", expires("Sunday, 06-Nov-44 08:49:37 GMT"), true),
        ("RFC 9111 5.3 asctime", expires("Sun Nov  6 08:49:37 2044"), true),
        ("RFC 9111 5.3 invalid", expires("0"), false),
        ("RFC 9111 4.2.3", "Cache-Control: max-age=60;;Age: 50".into(), true),
        ("RFC 9111 4.2.3", "Cache-Control: max-age=60;;Age: 61".into(), false),
        ("RFC 9111 4.2.3 clocks", format!("Cache-Control: max-age=60;;Date: {past}"), false),
        ("RFC 9111 5.1 invalid", "Cache-Control: max-age=60;;Age: old".into(), true),
        ("RFC 9213 2.2", "CDN-Cache-Control: max-age=60;;Cache-Control: no-store".into(), true),
        ("RFC 9213 2.2", "CDN-Cache-Control: no-store;;Cache-Control: max-age=60".into(), false),
        ("RFC 9111 5.2.2.3", "Cache-Control: no-store, must-understand, max-age=60".into(), true),
        ("RFC 9111 5.2.2.4", "Cache-Control: no-cache, max-age=60".into(), false),
        (
            "RFC 9111 7.3",
            "Set-Cookie: a=b;;Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT".into(),
            false,
        ),
        ("RFC 9111 4.2.2", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT".into(), true),
        ("RFC 9111 4.2.2 nothing said", String::new(), false),
    ];
    let origin = Origin::obedient();
    let proxy = proxy_over(&origin);
    for (number, (section, say, kept)) in rows.iter().enumerate() {
        let (first, second) = twice(&proxy, number, say, &[]);
        assert_eq!(first.cache(), "MISS", "{section}: {say}");
        assert_eq!(second.cache() == "HIT", *kept, "{section}: {say}: {second:?}");
        assert_eq!(first.body == second.body, *kept, "{section}: {say}");
    }
}

/// Each row: the section, what the second request adds, its status and verdict. What is stored is
/// ten seconds old and fresh for fifty more.
#[test]
fn what_the_request_says_decides_whether_it_takes_what_is_stored() {
    const STORED: &str = "Cache-Control: max-age=60;;Age: 10;;ETag: \"a\"";
    const CC: &str = "Cache-Control";
    let (older, newer) = (date(-7200), date(7200));
    let rows: Vec<Wanted<'_>> = vec![
        ("RFC 9111 5.2.1.1", vec![(CC, "max-age=30")], 200, "HIT"),
        ("RFC 9111 5.2.1.1", vec![(CC, "max-age=5")], 200, "REVALIDATED"),
        ("RFC 9111 5.2.1.3", vec![(CC, "min-fresh=30")], 200, "HIT"),
        ("RFC 9111 5.2.1.3", vec![(CC, "min-fresh=55")], 200, "REVALIDATED"),
        ("RFC 9111 5.2.1.4", vec![(CC, "no-cache")], 200, "REVALIDATED"),
        ("RFC 9111 5.2.1.5", vec![(CC, "no-store")], 200, "BYPASS"),
        ("RFC 9111 5.2.1.7", vec![(CC, "only-if-cached")], 200, "HIT"),
        ("RFC 9111 5.4", vec![("Pragma", "no-cache")], 200, "REVALIDATED"),
        ("RFC 9111 5.4", vec![("Pragma", "no-cache"), (CC, "max-age=30")], 200, "HIT"),
        ("RFC 9110 13.1.2", vec![("If-None-Match", "\"b\", W/\"a\"")], 304, "HIT"),
        ("RFC 9110 13.1.2", vec![("If-None-Match", "*")], 304, "HIT"),
        ("RFC 9110 13.1.2", vec![("If-None-Match", "\"b\"")], 200, "HIT"),
        ("RFC 9110 13.1.3", vec![("If-Modified-Since", &newer)], 304, "HIT"),
        ("RFC 9110 13.1.3", vec![("If-Modified-Since", &older)], 200, "HIT"),
        (
            "RFC 9110 13.2.2",
            vec![("If-None-Match", "\"b\""), ("If-Modified-Since", &newer)],
            200,
            "HIT",
        ),
        ("RFC 9110 14.2", vec![("Range", "bytes=0-1")], 206, "HIT"),
        ("RFC 9110 14.2", vec![("Range", "bytes=-3")], 206, "HIT"),
        ("RFC 9110 15.5.17", vec![("Range", "bytes=100-")], 416, "HIT"),
        ("RFC 9110 13.1.5", vec![("Range", "bytes=0-1"), ("If-Range", "\"a\"")], 206, "HIT"),
        ("RFC 9110 13.1.5", vec![("Range", "bytes=0-1"), ("If-Range", "\"b\"")], 200, "HIT"),
        ("RFC 9110 14.2 unit", vec![("Range", "lines=0-1")], 200, "HIT"),
    ];
    let origin = Origin::obedient();
    let proxy = proxy_over(&origin);
    for (number, (section, fields, status, verdict)) in rows.iter().enumerate() {
        let (_, second) = twice(&proxy, number, STORED, fields);
        assert_eq!((second.status, second.cache()), (*status, *verdict), "{section}: {fields:?}");
        if *status == 304 {
            // RFC 9110 section 15.4.5: what a 200 would have said, and no content.
            for name in ["ETag", "Cache-Control", "Date", "Age"] {
                assert!(second.field(name).is_some(), "{section}: {name} in {second:?}");
            }
            assert!(second.body.is_empty());
        }
    }
}

/// RFC 9111 section 5.2.1.7: whatever else keeps a request from the store, it does not reach the
/// origin either.
#[test]
fn only_if_cached_never_reaches_the_origin() {
    let only = ("Cache-Control", "only-if-cached");
    let rows: [(&str, Lines<'_>); 7] = [
        ("GET", &[only]),
        ("HEAD", &[only]),
        ("GET", &[("Cache-Control", "only-if-cached, no-store")]),
        ("GET", &[only, ("If-Match", "\"a\"")]),
        ("GET", &[only, ("Range", "bytes=0-1")]),
        ("GET", &[only, ("Authorization", "Bearer x")]),
        ("POST", &[only, ("Content-Type", "application/json")]),
    ];
    let origin = Origin::obedient();
    let proxy = proxy_over(&origin);
    for (method, fields) in rows {
        let refused = proxy.ask(method, "/api/x", fields);
        assert_eq!(refused.status, 504, "{method} {fields:?}");
        assert_eq!(refused.field("Cache-Status"), Some("apiproxyd; detail=only_if_cached"));
    }
    assert_eq!(origin.count(), 0);
}

/// RFC 9110 section 14: parts of a stored whole are the right bytes.
#[test]
fn ranges_are_cut_from_the_stored_whole() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "0123456789"));
    let proxy = Setup::over(&origin).start();
    // The miss asks for the whole, so that what follows is answered from it.
    let miss = proxy.ask("GET", "/api/x", &[("Range", "bytes=2-4")]);
    assert_eq!((miss.status, miss.text(), miss.cache()), (206, "234", "MISS"));
    assert_eq!(origin.last().field("Range"), None);
    for (range, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-2", "bytes 8-9/10", "89"),
        ("bytes=5-99", "bytes 5-9/10", "56789"),
    ] {
        let part = proxy.ask("GET", "/api/x", &[("Range", range)]);
        assert_eq!((part.status, part.text()), (206, body), "{range}");
        assert_eq!(part.field("Content-Range"), Some(content_range), "{range}");
    }
    let parts = proxy.ask("GET", "/api/x", &[("Range", "bytes=0-1,8-9")]);
    assert_eq!(parts.status, 206);
    assert!(parts.field("Content-Type").unwrap().starts_with("multipart/byteranges; boundary="));
    let none = proxy.ask("GET", "/api/x", &[("Range", "bytes=10-")]);
    assert_eq!((none.status, none.field("Content-Range")), (416, Some("bytes */10")));
    assert_eq!(proxy.get("/api/x").text(), "0123456789");
    assert_eq!(origin.count(), 1);
}

/// A range is of the form that is stored, so that its strong validator can be named with the next
/// one, also where the client would take the whole compressed.
#[test]
fn ranges_are_of_the_stored_form() {
    let text = "a body that compresses well ".repeat(200);
    let fields = [MINUTE, ("Content-Type", "text/plain"), ("ETag", "\"a\"")];
    let origin = Origin::fixed(answer(200, &fields, &text));
    let proxy = Setup::over(&origin).start();
    let gzip = ("Accept-Encoding", "gzip");
    for _ in 0..2 {
        let whole = proxy.ask("GET", "/api/x", &[gzip]);
        assert_eq!(whole.field("Content-Encoding"), Some("gzip"));
        let part = proxy.ask("GET", "/api/x", &[gzip, ("Range", "bytes=2-5")]);
        assert_eq!((part.status, part.text()), (206, "body"));
        assert_eq!((part.field("Content-Encoding"), part.field("ETag")), (None, Some("\"a\"")));
        let next = [gzip, ("Range", "bytes=7-10"), ("If-Range", "\"a\"")];
        assert_eq!(proxy.ask("GET", "/api/x", &next).text(), "that");
    }
}

/// RFC 9110 sections 14.2 and 17.15: what may be ignored is where it looks like abuse.
#[test]
fn ranges_of_every_kind_are_answered_from_the_store() {
    let origin = Origin::fixed(answer(200, &[MINUTE, ("ETag", "\"a\"")], "0123456789"));
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/x");
    let many =
        format!("bytes={}", (0..17).map(|it| format!("{it}-{it}")).collect::<Vec<_>>().join(","));
    let rows = [
        ("bytes=0-0", 206, "0"),
        ("bytes=9-9", 206, "9"),
        ("bytes=0-", 206, "0123456789"),
        ("bytes=-10", 206, "0123456789"),
        ("bytes=-99", 206, "0123456789"),
        ("bytes=0-99999999999999999999", 206, "0123456789"),
        ("BYTES=0-1", 206, "01"),
        ("bytes=0-1, ", 206, "01"),
        ("bytes=0-3,2-5", 206, "012345"),
        ("bytes=0-1,2-3", 206, "0123"),
        ("bytes=10-", 416, ""),
        ("bytes=99999999999999999999-", 416, ""),
        ("bytes=-0", 416, ""),
        ("bytes=2-1", 200, "0123456789"),
        ("bytes=a-b", 200, "0123456789"),
        ("bytes=", 200, "0123456789"),
        ("bytes", 200, "0123456789"),
        ("lines=0-1", 200, "0123456789"),
        ("bytes=0-1;2-3", 200, "0123456789"),
        ("bytes=0-5,1-5,2-5,3-5", 200, "0123456789"),
        (many.as_str(), 200, "0123456789"),
    ];
    for (range, status, body) in rows {
        let response = proxy.ask("GET", "/api/x", &[("Range", range)]);
        assert_eq!((response.status, response.text()), (status, body), "{range}");
        let named = response.field("Content-Range");
        assert_eq!(named.is_some(), status != 200, "{range}: {named:?}");
        if status == 416 {
            assert_eq!(named, Some("bytes */10"));
        }
    }
    let twice = [("Range", "bytes=0-1"), ("Range", "bytes=2-3")];
    assert_eq!(proxy.ask("GET", "/api/x", &twice).status, 200, "two lines");
    assert_eq!(origin.count(), 1);
}

/// A part of what is large is asked for as a part; the whole is not fetched for it.
#[test]
fn range_of_a_large_answer_goes_to_the_origin() {
    let large = vec![b'x'; 5 * 1024 * 1024];
    let origin = Origin::respond(move |asked| match asked.field("Range") {
        Some("bytes=0-3") => {
            let range = ("Content-Range", "bytes 0-3/5242880");
            answer(206, &[("Cache-Control", "max-age=60"), range], "part")
        }
        _ => answer(200, &[("Cache-Control", "max-age=60")], &large),
    });
    let proxy = Setup::over(&origin).start();
    let part = proxy.ask("GET", "/api/x", &[("Range", "bytes=0-3")]);
    assert_eq!((part.status, part.text()), (206, "part"), "{:?}", part.fields);
    // The part is not taken for the whole.
    assert_eq!(proxy.get("/api/x").body.len(), 5 * 1024 * 1024);
}

/// RFC 9111 section 4.1.
#[test]
fn variants_are_chosen_by_the_normalised_fields_that_vary_names() {
    let origin = Origin::obedient();
    let proxy = proxy_over(&origin);
    let say = ("Say", "Cache-Control: max-age=60;;Vary: Accept-Language, Shape");
    let ask = |fields: Lines<'_>| {
        let mut all = vec![say];
        all.extend_from_slice(fields);
        let response = proxy.ask("GET", "/api/x", &all);
        (response.cache().to_owned(), response.text().to_owned())
    };
    let language = |value| ("Accept-Language", value);
    assert_eq!(ask(&[language("en, de")]), ("MISS".into(), "answer 0".into()));
    assert_eq!(ask(&[language("de ,  EN")]), ("HIT".into(), "answer 0".into()));
    assert_eq!(ask(&[language("en, de"), ("Shape", "a,b")]), ("MISS".into(), "answer 1".into()));
    assert_eq!(ask(&[("shape", "a , b"), language("en, de")]), ("HIT".into(), "answer 1".into()));
    assert_eq!(ask(&[language("en, de;q=0.5")]), ("MISS".into(), "answer 2".into()));
    assert_eq!(ask(&[]), ("MISS".into(), "answer 3".into()));
    for number in 0..3 {
        let fields: [Lines<'_>; 3] = [
            &[language("en, de")],
            &[language("en, de"), ("Shape", "a,b")],
            &[language("en, de;q=0.5")],
        ];
        assert_eq!(ask(fields[number]), ("HIT".into(), format!("answer {number}")));
    }
}

/// RFC 9111 section 5.2: directives are for every cache on the way.
#[test]
fn directives_of_a_request_reach_the_origin() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let say = ("Say", "Cache-Control: max-age=600;;ETag: \"a\"");
    let sent = [("Cache-Control", "no-cache, x-ext=1"), ("Pragma", "no-cache")];
    for more in [&[][..], &[("Authorization", "x")], &[("Range", "bytes=0-1")]] {
        for _ in 0..2 {
            let asked = [&[say][..], &sent, more].concat();
            let before = origin.count();
            assert!(proxy.ask("GET", "/api/x", &asked).status < 300);
            assert_eq!(origin.count(), before + 1);
            for (name, value) in sent {
                assert_eq!(origin.last().field(name), Some(value), "{more:?}");
            }
        }
    }
    // None of its own.
    proxy.clear();
    proxy.ask("GET", "/api/x", &[say]);
    assert_eq!(origin.last().field("Cache-Control"), None);
}

/// It asks the cache and has its answer; the refresh that it starts does not.
#[test]
fn a_refresh_does_not_ask_for_what_is_stored() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let say = ("Say", "Cache-Control: max-age=0, stale-while-revalidate=600");
    proxy.ask("GET", "/api/x", &[say]);
    let stale = proxy.ask("GET", "/api/x", &[say, ("Cache-Control", "only-if-cached")]);
    assert_eq!(stale.cache(), "STALE");
    origin.await_requests(2);
    assert_eq!(origin.last().field("Cache-Control"), None);
}

/// RFC 9211 section 2.2.
#[test]
fn what_is_stale_is_forwarded_as_stale_whatever_the_request_says() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    for (lifetime, forward) in [("600", "fwd=request"), ("0", "fwd=stale")] {
        let say = format!("Cache-Control: max-age={lifetime};;ETag: \"a\"");
        proxy.ask("GET", "/api/x", &[("Say", &say)]);
        for wanted in ["no-cache", "max-age=0"] {
            let asked = [("Say", say.as_str()), ("Cache-Control", wanted)];
            let response = proxy.ask("GET", "/api/x", &asked);
            let status = response.field("Cache-Status").unwrap();
            assert!(status.contains(forward), "{lifetime} {wanted}: {status}");
        }
        proxy.clear();
    }
}

/// An answer carries the daemon's own request id, and says only itself that it is offline.
#[test]
fn what_the_daemon_writes_of_an_exchange_is_not_stored() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let say = ("Say", "Cache-Control: max-age=600;;X-Request-Id: of-the-first;;X-Offline: true");
    proxy.ask("GET", "/api/x", &[say]);
    for id in ["second", "third"] {
        let hit = proxy.ask("GET", "/api/x", &[say, ("X-Request-Id", id)]);
        assert_eq!(hit.cache(), "HIT");
        assert_eq!(hit.fields.all("X-Request-Id").collect::<Vec<_>>(), [id]);
        assert_eq!(hit.field("X-Offline"), None);
    }
}
