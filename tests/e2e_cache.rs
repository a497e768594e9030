//! What is kept and what is not, seen from outside.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use support::{Origin, Setup, answer, assert_cached, eventually};

#[test]
fn second_request_is_a_hit_with_age_and_reason() {
    let origin = Origin::counting("max-age=60");
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    let miss = client.get("/api/v1/x");
    assert_cached(&miss, "MISS", "answer 0");
    let status = miss.field("Cache-Status").unwrap();
    assert!(status.starts_with("apiproxyd; fwd=") && status.contains("stored"), "{status}");

    let hit = client.get("/api/v1/x");
    assert_cached(&hit, "HIT", "answer 0");
    assert!(hit.age().is_some_and(|age| age <= 30), "{hit:?}");
    let status = hit.field("Cache-Status").unwrap();
    assert!(status.starts_with("apiproxyd; hit"), "{status}");
    assert!(status.contains("ttl="), "{status}");
    assert_eq!(origin.count(), 1);
    assert_eq!(hit.field("Cache-Control"), Some("max-age=60"));
    assert_eq!(hit.field("Content-Length"), Some("8"));
    assert!(hit.field("Date").is_some());
}

#[test]
fn hit_is_the_same_on_every_connection_and_core() {
    let origin = Origin::counting("max-age=60");
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "answer 0");
    for _ in 0..40 {
        assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 0");
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn query_is_part_of_the_key() {
    let origin = Origin::counting("max-age=60");
    let proxy = Setup::over(&origin).start();
    let targets = ["/api/x", "/api/x?", "/api/x?a=1", "/api/x?a=2", "/api/x?a=1&b=2", "/api/y"];
    for (number, target) in targets.iter().enumerate() {
        assert_cached(&proxy.get(target), "MISS", &format!("answer {number}"));
    }
    for (number, target) in targets.iter().enumerate() {
        assert_cached(&proxy.get(target), "HIT", &format!("answer {number}"));
    }
}

/// Each row: what the origin says, and that nothing of it may be kept.
#[test]
fn what_must_not_be_stored_is_asked_for_each_time() {
    let rows: [(&str, &str, &str); 6] = [
        ("RFC 9111 5.2.2.5", "Cache-Control", "no-store"),
        ("RFC 9111 5.2.2.7", "Cache-Control", "private, max-age=60"),
        ("RFC 9111 5.2", "Cache-Control", "max-age=60, No-Store"),
        ("RFC 9111 4.1", "Vary", "*"),
        ("set_cookie", "Set-Cookie", "a=b"),
        ("RFC 9111 5.3", "Expires", "0"),
    ];
    let origin = Origin::respond(move |request| {
        let row: usize = request.target.trim_start_matches('/').parse().unwrap();
        answer(200, &[(rows[row].1, rows[row].2)], "x")
    });
    let proxy = Setup::over(&origin).start();
    for (number, row) in rows.iter().enumerate() {
        let before = origin.count();
        for turn in 1..=3 {
            let response = proxy.get(&format!("/api/{number}"));
            assert_eq!(response.status, 200);
            assert_ne!(response.cache(), "HIT", "{row:?}");
            assert_eq!(origin.count(), before + turn, "{row:?}");
        }
    }
}

/// RFC 9111 section 4.1.
#[test]
fn variants_are_kept_apart() {
    let origin = Origin::respond(|request| {
        let language = request.field("Accept-Language").unwrap_or("none").to_owned();
        let fields = [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")];
        answer(200, &fields, format!("in {language}"))
    });
    let proxy = Setup::over(&origin).start();
    for verdict in ["MISS", "HIT"] {
        for language in ["de", "fr"] {
            let response = proxy.ask("GET", "/api/v1/x", &[("Accept-Language", language)]);
            assert_cached(&response, verdict, &format!("in {language}"));
        }
        assert_cached(&proxy.get("/api/v1/x"), verdict, "in none");
    }
    assert_eq!(origin.count(), 3);
}

#[test]
fn different_credentials_never_share_an_answer() {
    let origin = Origin::respond(|request| {
        let key = request.field("X-API-Key").unwrap_or("none").to_owned();
        answer(200, &[("Cache-Control", "max-age=60")], format!("paid by {key}"))
    });
    let proxy = Setup::over(&origin).start();
    for verdict in ["MISS", "HIT"] {
        for key in ["alice", "bob"] {
            let response = proxy.ask("GET", "/api/v1/x", &[("X-API-Key", key)]);
            assert_cached(&response, verdict, &format!("paid by {key}"));
        }
        assert_cached(&proxy.get("/api/v1/x"), verdict, "paid by none");
    }
    assert_eq!(origin.count(), 3);
}

/// RFC 9111 section 3.5.
#[test]
fn answer_to_authorized_request_is_shared_only_where_the_origin_says_so() {
    let rows = [("max-age=60", 2), ("max-age=60, public", 1), ("s-maxage=60", 1)];
    for (cache_control, expected) in rows {
        let origin = Origin::counting(cache_control);
        let proxy = Setup::over(&origin).start();
        for _ in 0..2 {
            proxy.ask("GET", "/api/v1/x", &[("Authorization", "Bearer a")]);
        }
        assert_eq!(origin.count(), expected, "{cache_control}");
    }
}

/// RFC 9110 section 9.3.2.
#[test]
fn head_is_answered_from_a_stored_get() {
    let origin = Origin::counting("max-age=60");
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.get("/api/v1/x");
    let head = client.ask("HEAD", "/api/v1/x", &[]);
    assert_cached(&head, "HIT", "");
    assert_eq!(head.field("Content-Length"), Some("8"));
    assert_cached(&client.get("/api/v1/x"), "HIT", "answer 0");
    assert_eq!(origin.count(), 1);
}

/// RFC 9110 section 13.1.2.
#[test]
fn matching_validator_is_answered_with_304_from_the_cache() {
    let fields = [("Cache-Control", "max-age=60"), ("ETag", "\"v1\"")];
    let origin = Origin::fixed(answer(200, &fields, "x"));
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/v1/x");
    let response = proxy.ask("GET", "/api/v1/x", &[("If-None-Match", "\"v1\"")]);
    assert_eq!((response.status, response.field("ETag")), (304, Some("\"v1\"")));
    let other = proxy.ask("GET", "/api/v1/x", &[("If-None-Match", "\"v2\"")]);
    assert_cached(&other, "HIT", "x");
    assert_eq!(origin.count(), 1);
}

/// RFC 9111 section 4.3.
#[test]
fn stale_answer_is_revalidated_with_its_validator() {
    let origin = Origin::respond(|request| {
        let fields = [("Cache-Control", "max-age=0"), ("ETag", "\"v1\"")];
        match request.field("If-None-Match") {
            Some("\"v1\"") => answer(304, &fields, ""),
            _ => answer(200, &fields, "body"),
        }
    });
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "body");
    for _ in 0..3 {
        let response = proxy.get("/api/v1/x");
        assert_eq!(response.status, 200);
        assert_cached(&response, "REVALIDATED", "body");
    }
    let conditional =
        origin.requests().iter().filter(|it| it.field("If-None-Match").is_some()).count();
    assert_eq!((origin.count(), conditional), (4, 3));
}

/// RFC 9111 section 4.4.
#[test]
fn unsafe_method_invalidates_before_it_is_answered() {
    let origin = Origin::counting("max-age=60");
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "answer 0");
    assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 0");
    proxy.ask("DELETE", "/api/v1/x", &[]);
    for connection in 0..10 {
        assert_eq!(proxy.get("/api/v1/x").text(), "answer 2", "connection {connection}");
    }
}

#[test]
fn stale_answer_stands_in_for_a_failing_origin() {
    let failing = Arc::new(AtomicUsize::new(0));
    let fails = failing.clone();
    let origin = Origin::respond(move |_| match fails.load(Ordering::SeqCst) {
        0 => answer(200, &[("Cache-Control", "max-age=0")], "good"),
        _ => answer(500, &[], "bad"),
    });
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "good");
    failing.store(1, Ordering::SeqCst);
    let response = proxy.get("/api/v1/x");
    assert_eq!(response.status, 200);
    assert_cached(&response, "STALE", "good");
}

#[test]
fn heuristic_lifetime_applies_where_the_origin_is_silent() {
    let origin = Origin::respond(|request| {
        let status = request.target.trim_start_matches('/').parse().unwrap();
        answer(status, &[], "x")
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    for (status, kept) in [(200, true), (203, true), (201, false), (404, false), (500, false)] {
        let target = format!("/api/{status}");
        proxy.get(&target);
        assert_eq!(proxy.get(&target).cache() == "HIT", kept, "{status}");
    }
}

/// RFC 9110 section 12.5.3: who does not accept a coding does not get it.
#[test]
fn compressed_body_is_inflated_for_clients_that_do_not_accept_it() {
    let text = "a body that compresses well ".repeat(200);
    let body = text.clone();
    let fields = [("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")];
    let origin = Origin::respond(move |_| answer(200, &fields, &body));
    let proxy = Setup::over(&origin).start();
    let gzip = [("Accept-Encoding", "gzip")];
    for turn in 0..3 {
        let plain = proxy.ask("GET", "/api/v1/x", &[("Accept-Encoding", "identity")]);
        assert_eq!(plain.field("Content-Encoding"), None, "turn {turn}");
        assert_eq!(plain.text(), text);
        let packed = proxy.ask("GET", "/api/v1/x", &gzip);
        if packed.field("Content-Encoding") == Some("gzip") {
            assert_eq!(inflate(&packed.body), text.as_bytes());
        } else {
            assert_eq!(packed.text(), text);
        }
    }
    let packed = proxy.ask("GET", "/api/v1/x", &gzip);
    assert_eq!(packed.field("Content-Encoding"), Some("gzip"), "a hit that accepts gzip gets it");
    assert!(packed.fields.all("Vary").any(|it| it.to_lowercase().contains("accept-encoding")));
    assert_eq!(origin.count(), 1);
}

#[test]
fn statistics_count_what_happened() {
    let origin = Origin::counting("max-age=60");
    let proxy = Setup::over(&origin).start();
    for _ in 0..4 {
        proxy.get("/api/v1/x");
    }
    proxy.get("/api/v1/y");
    eventually("3 hits and 2 misses", || {
        let stats = proxy.stats();
        (&stats["hits"], &stats["misses"]) == (&Value::from(3), &Value::from(2))
    });
}

fn inflate(gzip: &[u8]) -> Vec<u8> {
    let mut plain = vec![0; 1 << 20];
    let bytes = libdeflater::Decompressor::new().gzip_decompress(gzip, &mut plain).unwrap();
    plain.truncate(bytes);
    plain
}
