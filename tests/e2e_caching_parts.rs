//! Parts of responses (RFC 9111 section 3.3, RFC 9110 section 14): stored, used for what lies
//! within them and for nothing else.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::client::request;
use support::ranges::{LARGE, assert_part, bytes, cache_status, honest, range, serve};
use support::{Origin, Setup, answer, eventually};

type Lines<'a> = &'a [(&'a str, &'a str)];

const LONG: (&str, &str) = ("Cache-Control", "max-age=600");
const TAG: (&str, &str) = ("ETag", "\"a\"");

#[test]
fn part_of_what_is_large_answers_every_range_within_it() {
    let body = bytes(LARGE);
    for setup in [
        |origin: &Origin| Setup::over(origin),
        |origin: &Origin| Setup::over(origin).with("cache.backend", "none"),
        |origin: &Origin| Setup::over(origin).with("cache.memory_cache_enabled", false),
    ] {
        let origin = honest(body.clone(), &[LONG, TAG]);
        let proxy = setup(&origin).start();
        let first = range(&proxy, "bytes=1000-9999");
        assert_part(&first, "MISS", "bytes 1000-9999/5242880", &body[1000..10_000]);
        assert!(cache_status(&first).contains("; stored"), "{}", cache_status(&first));
        eventually("it is stored", || range(&proxy, "bytes=1000-1000").cache() == "HIT");
        let stored = origin.count();
        for _ in 0..10 {
            let within = range(&proxy, "bytes=1000-9999");
            assert_part(&within, "HIT", "bytes 1000-9999/5242880", &body[1000..10_000]);
            let within = range(&proxy, "bytes=5000-5004");
            assert_part(&within, "HIT", "bytes 5000-5004/5242880", &body[5000..5005]);
        }
        assert_eq!(origin.count(), stored);
        let several = range(&proxy, "bytes=1000-1001,2000-2001");
        assert_eq!((several.status, several.cache()), (206, "HIT"));
        let text = String::from_utf8_lossy(&several.body).into_owned();
        assert!(text.contains("Content-Range: bytes 1000-1001/5242880\r\n"), "{text}");
        assert!(text.contains("Content-Range: bytes 2000-2001/5242880\r\n"), "{text}");
        // One byte more is not there.
        let beyond = range(&proxy, "bytes=999-1001");
        assert_part(&beyond, "MISS", "bytes 999-1001/5242880", &body[999..1002]);
        assert!(cache_status(&beyond).starts_with("apiproxyd; fwd=partial; fwd-status=206"));
        assert_eq!(origin.last().field("Range"), Some("bytes=999-1001"));
    }
}

#[test]
fn part_survives_a_restart_and_not_a_purge() {
    let body = bytes(LARGE);
    let origin = honest(body.clone(), &[LONG, TAG]);
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    range(&proxy, "bytes=0-99");
    proxy.stop();
    let proxy = setup.start();
    let hit = range(&proxy, "bytes=10-19");
    assert_part(&hit, "HIT", "bytes 10-19/5242880", &body[10..20]);
    for purge in [("POST", "/cache/clear"), ("DELETE", "/cache/entries?path=/x")] {
        assert_eq!(proxy.ask(purge.0, purge.1, &[]).status, 200);
        assert_eq!(range(&proxy, "bytes=10-19").cache(), "MISS", "{purge:?}");
        assert_eq!(range(&proxy, "bytes=10-19").cache(), "HIT", "{purge:?}");
    }
    // RFC 9111 section 4.4.
    proxy.ask("DELETE", "/api/x", &[]);
    assert_eq!(range(&proxy, "bytes=10-19").cache(), "MISS");
    let before = proxy.stats();
    proxy.clear();
    assert!(before["l1"]["size_bytes"].as_u64().unwrap() > 10, "{before}");
    eventually("memory is given back", || proxy.stats()["l1"]["size_bytes"] == json!(0));
}

/// A longer one than what is gathered goes by and is stored all the same.
#[test]
fn long_part_is_stored_while_it_goes_by() {
    let body = bytes(LARGE);
    let origin = honest(body.clone(), &[LONG, TAG]);
    let proxy = Setup::over(&origin).start();
    let first = range(&proxy, "bytes=0-2999999");
    assert_part(&first, "MISS", "bytes 0-2999999/5242880", &body[..3_000_000]);
    let hit = range(&proxy, "bytes=2000000-2999999");
    assert_part(&hit, "HIT", "bytes 2000000-2999999/5242880", &body[2_000_000..3_000_000]);
}

/// RFC 9111 section 3.3: what is neither a range nor within it is not answered from a part.
#[test]
fn part_answers_nothing_but_ranges() {
    let body = bytes(LARGE);
    let rows: [(&str, Lines<'_>, u16, &str); 8] = [
        ("GET", &[("Cache-Control", "only-if-cached")], 504, "MISS"),
        ("GET", &[("Cache-Control", "only-if-cached"), ("Range", "bytes=0-9")], 206, "HIT"),
        ("GET", &[("Cache-Control", "only-if-cached"), ("Range", "bytes=0-100")], 504, "MISS"),
        ("GET", &[("Range", "bytes=0-9"), ("If-None-Match", "\"a\"")], 304, "HIT"),
        ("GET", &[("Range", "bytes=0-9"), ("If-Range", "\"a\"")], 206, "HIT"),
        ("HEAD", &[], 200, "MISS"),
        ("GET", &[("Range", "bytes=0-9"), ("If-Range", "\"b\"")], 200, "MISS"),
        ("GET", &[("If-None-Match", "\"a\"")], 304, "MISS"),
    ];
    for (method, fields, status, verdict) in rows {
        let origin = Origin::respond({
            let body = body.clone();
            move |asked| {
                let mut bytes = serve(asked, &body, &[LONG, TAG]);
                if asked.method == "HEAD" {
                    let head = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
                    bytes.truncate(head + 4);
                }
                bytes
            }
        });
        let proxy = Setup::over(&origin).start();
        range(&proxy, "bytes=0-99");
        let response = proxy.ask(method, "/api/x", fields);
        assert_eq!((response.status, response.cache()), (status, verdict), "{method} {fields:?}");
        assert!(response.status != 200 || method == "HEAD" || response.body == body);
    }
}

#[test]
fn stale_part_is_confirmed_and_stands_in_for_errors_within_its_bytes() {
    let body = bytes(LARGE);
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = Arc::clone(&fails);
    let origin = Origin::respond({
        let body = body.clone();
        move |asked| match failing.load(Ordering::SeqCst) {
            0 => serve(asked, &body, &[("Cache-Control", "max-age=0"), TAG]),
            _ => answer(503, &[], "down"),
        }
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    range(&proxy, "bytes=0-99");
    for _ in 0..2 {
        let confirmed = range(&proxy, "bytes=10-19");
        assert_part(&confirmed, "REVALIDATED", "bytes 10-19/5242880", &body[10..20]);
        assert_eq!(origin.last().field("If-None-Match"), Some("\"a\""));
    }
    fails.store(1, Ordering::SeqCst);
    for _ in 0..3 {
        let stale = range(&proxy, "bytes=10-19");
        assert_part(&stale, "STALE", "bytes 10-19/5242880", &body[10..20]);
    }
    for fields in [&[][..], &[("Range", "bytes=99-100")]] {
        let error = proxy.ask("GET", "/api/x", fields);
        assert_eq!((error.status, error.text()), (503, "down"), "{fields:?}");
    }
}

/// A range or condition is honoured also where nothing is stored, and no more is asked for than
/// needed of what is large.
#[test]
fn ranges_and_conditions_of_what_is_not_stored_are_honoured() {
    for length in [10, LARGE] {
        let body = bytes(length);
        let origin = honest(body.clone(), &[("Cache-Control", "no-store"), TAG]);
        let proxy = Setup::over(&origin).start();
        for _ in 0..2 {
            let part = range(&proxy, "bytes=2-4");
            let named = format!("bytes 2-4/{length}");
            assert_eq!((part.status, part.field("Content-Range")), (206, Some(named.as_str())));
            assert_eq!(part.body, [2, 3, 4]);
            assert_ne!(part.cache(), "HIT");
        }
        let origin = honest(body.clone(), &[("Cache-Control", "no-store"), TAG]);
        let proxy = Setup::over(&origin).start();
        if length == 10 {
            let same = proxy.ask("GET", "/api/x", &[("If-None-Match", "\"a\"")]);
            assert_eq!((same.status, same.body.len()), (304, 0));
        }
    }
}

/// What is stored must be what its Content-Range says, and must have arrived.
#[test]
fn unusable_parts_are_passed_on_and_not_kept() {
    const MULTI: (&str, &str) = ("Content-Type", "multipart/byteranges; boundary=b");
    let rows: [Lines<'static>; 6] = [
        &[LONG, TAG, ("Content-Range", "bytes 0-5/10")],
        &[LONG, TAG, ("Content-Range", "bytes 4-2/10")],
        &[LONG, TAG, ("Content-Range", "lines 0-4/10")],
        &[LONG, TAG],
        &[LONG, TAG, MULTI],
        &[("Cache-Control", "no-store"), TAG, ("Content-Range", "bytes 0-4/10")],
    ];
    for fields in rows {
        let origin = Origin::fixed(answer(206, fields, "01234"));
        let proxy = Setup::over(&origin).start();
        for _ in 0..2 {
            let part = range(&proxy, "bytes=0-4");
            assert_eq!((part.status, part.text()), (206, "01234"), "{fields:?}");
            assert_ne!(part.cache(), "HIT", "{fields:?}");
        }
    }
}

#[test]
fn part_that_was_cut_short_is_not_kept() {
    for bytes in [100_usize, 1_000_000] {
        let turn = AtomicUsize::new(0);
        let origin = Origin::script(move |connection| {
            while let Some(asked) = connection.request() {
                if asked.field("Range").is_none() {
                    // Too large to be fetched for a range.
                    connection.send(answer(200, &[LONG, TAG], self::bytes(LARGE)));
                    continue;
                }
                turn.fetch_add(1, Ordering::SeqCst);
                let head = "HTTP/1.1 206 Partial\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n";
                let range = format!("bytes 0-{}/{LARGE}", bytes - 1);
                connection.send(format!(
                    "{head}Content-Range: {range}\r\nContent-Length: {bytes}\r\n\r\nhalf"
                ));
                connection.close();
            }
        });
        let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
        for _ in 0..2 {
            let mut client = proxy.connect();
            let wanted = format!("bytes=0-{}", bytes - 1);
            client.send(request("GET", "/api/x", &[("Range", &wanted)], ""));
            if let Ok(response) = client.try_read("GET") {
                assert_eq!(response.status, 502, "{response:?}");
            }
        }
        assert!(origin.requests().iter().filter(|it| it.field("Range").is_some()).count() >= 2);
    }
}

/// An incomplete 200 is never taken for the whole, nor for a part.
#[test]
fn whole_that_was_cut_short_is_asked_for_again() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            if turn.fetch_add(1, Ordering::SeqCst) == 0 {
                let head = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n";
                connection.send(format!("{head}Content-Length: 10\r\n\r\n01234"));
                connection.close();
            } else {
                connection.send(answer(200, &[LONG, TAG], "0123456789"));
            }
        }
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/x", &[], ""));
    if let Ok(response) = client.try_read("GET") {
        assert_eq!(response.status, 502, "{response:?}");
    }
    assert_eq!(range(&proxy, "bytes=0-1").text(), "01");
    assert_eq!(origin.last().field("Range"), None);
    assert_eq!(proxy.get("/api/x").text(), "0123456789");
}

/// RFC 9110 section 12.5.3: a part can't be decoded for those who don't take its coding.
#[test]
fn coded_part_is_for_those_who_take_its_coding() {
    const GZIP: (&str, &str) = ("Content-Encoding", "gzip");
    let origin = Origin::respond(|asked| {
        let coded = asked.field("Accept-Encoding") == Some("gzip");
        let body = if coded { bytes(LARGE) } else { vec![b'p'; LARGE] };
        let fields: Lines<'_> =
            if coded { &[LONG, ("ETag", "\"z\""), GZIP] } else { &[LONG, ("ETag", "\"p\"")] };
        serve(asked, &body, fields)
    });
    let proxy = Setup::over(&origin).start();
    let ask = |coding: &str| {
        proxy.ask("GET", "/api/x", &[("Range", "bytes=0-9"), ("Accept-Encoding", coding)])
    };
    let coded = ask("gzip");
    assert_eq!((coded.status, coded.field("Content-Encoding")), (206, Some("gzip")));
    assert_eq!(ask("gzip, br").cache(), "HIT");
    let plain = ask("identity");
    assert_eq!((plain.cache(), plain.field("Content-Encoding")), ("MISS", None));
    assert_eq!(plain.text(), "pppppppppp");
    // The origin is not asked for codings that the store can't tell apart.
    assert_eq!(ask("br").text(), "pppppppppp");
    assert_eq!(origin.last().field("Accept-Encoding"), Some("identity"));
}

#[test]
fn parts_of_variants_are_kept_apart() {
    let origin = Origin::respond(|asked| {
        let shape = asked.field("Shape").unwrap_or("none").as_bytes()[0];
        let tag = format!("\"{}\"", char::from(shape));
        serve(asked, &vec![shape; LARGE], &[LONG, ("ETag", &tag), ("Vary", "Shape")])
    });
    let proxy = Setup::over(&origin).start();
    let ask = |shape: &str| proxy.ask("GET", "/api/x", &[("Range", "bytes=0-4"), ("Shape", shape)]);
    for verdict in ["MISS", "HIT"] {
        for shape in ["round", "square"] {
            let part = ask(shape);
            let text = shape[..1].repeat(5);
            assert_eq!((part.status, part.cache(), part.text()), (206, verdict, text.as_str()));
        }
    }
}

#[test]
fn explanation_tells_of_parts() {
    let origin = honest(bytes(LARGE), &[LONG, TAG]);
    let proxy = Setup::over(&origin).start();
    range(&proxy, "bytes=0-99");
    let count = origin.count();
    let rows = [
        ("path=/x", "complete", json!("partial")),
        ("path=/x&header=Range:bytes=0-9", "serve", json!(null)),
        ("path=/x&header=Range:bytes=0-100", "fetch_alone", json!("partial")),
        ("path=/x&header=Cache-Control:only-if-cached", "refuse", json!("only_if_cached")),
        ("path=/x&method=HEAD", "fetch_alone", json!("partial")),
    ];
    for (query, action, reason) in rows {
        let said = proxy.get(&format!("/cache/explain?{query}")).json();
        assert_eq!(
            (&said["action"], &said["reason"]),
            (&json!(action), &reason),
            "{query}: {said}"
        );
        assert_eq!(said["stored"]["content_range"], "bytes 0-99/5242880");
    }
    assert_eq!(origin.count(), count);
}
