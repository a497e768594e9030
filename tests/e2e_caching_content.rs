//! Methods that are cached by their content: what tells two requests apart, and what goes to the
//! origin because nothing stored can answer it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use serde_json::json;
use support::client::request;
use support::{Origin, Proxy, Response, Setup};

type Lines<'a> = &'a [(&'a str, &'a str)];

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TEXT: (&str, &str) = ("Content-Type", "text/plain");
const KEPT: (&str, &str) = ("Say", "Cache-Control: max-age=600;;ETag: \"a\"");

fn by_content(origin: &Origin) -> Proxy {
    Setup::over(origin)
        .with("cache.methods", json!(["GET", "HEAD", "POST", "QUERY"]))
        .with("security.require_json_body", false)
        .start()
}

fn send(proxy: &Proxy, method: &str, fields: Lines<'_>, body: &str) -> Response {
    let mut client = proxy.connect();
    client.send(request(method, "/api/x", fields, body));
    client.read(method)
}

/// Whether the second of two equal requests is answered from the cache.
fn keeps(proxy: &Proxy, method: &str, fields: Lines<'_>, body: &str) -> bool {
    send(proxy, method, fields, body);
    send(proxy, method, fields, body).cache() == "HIT"
}

/// RFC 9110 sections 8.3 to 8.5: the same bytes of another type, coding or language ask for another
/// thing.
#[test]
fn content_is_told_apart_by_all_that_says_how_to_read_it() {
    for method in ["POST", "QUERY"] {
        let origin = Origin::obedient();
        let proxy = by_content(&origin);
        assert!(keeps(&proxy, method, &[KEPT, TEXT], "hello"));
        for more in [
            ("Content-Encoding", "gzip"),
            ("Content-Encoding", "x-rot13"),
            ("Content-Language", "de"),
            ("Content-Type", "application/json"),
        ] {
            let response = send(&proxy, method, &[KEPT, TEXT, more], "hello");
            let status = response.field("Cache-Status").unwrap();
            assert!(status.ends_with("detail=body_not_canonical"), "{method} {more:?}: {status}");
            assert!(origin.last().fields.all(more.0).any(|it| it == more.1), "{more:?}");
        }
        assert_eq!(send(&proxy, method, &[KEPT, TEXT], "hello").text(), "answer 0");
    }
}

#[test]
fn requests_without_content_are_told_apart_by_its_type() {
    for method in ["POST", "QUERY"] {
        let origin = Origin::obedient();
        let proxy = by_content(&origin);
        let mut seen = Vec::new();
        for fields in [&[KEPT][..], &[KEPT, JSON], &[KEPT, TEXT]] {
            assert!(keeps(&proxy, method, fields, ""), "{method} {fields:?}");
            seen.push(send(&proxy, method, fields, "").text().to_owned());
        }
        assert_eq!(seen, ["answer 0", "answer 1", "answer 2"], "{method}");
    }
}

/// RFC 9110 section 13.1: conditions of a POST are about the state before it acts.
#[test]
fn a_post_with_conditions_goes_to_the_origin_with_them() {
    let origin = Origin::obedient();
    let proxy = by_content(&origin);
    assert!(keeps(&proxy, "POST", &[KEPT, JSON], "{}"));
    for (name, value) in [
        ("If-None-Match", "\"b\""),
        ("If-Match", "\"a\""),
        ("If-Modified-Since", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ("If-Unmodified-Since", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ("If-Range", "\"a\""),
    ] {
        let before = origin.count();
        let response = send(&proxy, "POST", &[KEPT, JSON, (name, value)], "{}");
        assert_eq!(response.cache(), "BYPASS", "{name}");
        assert!(response.field("Cache-Status").unwrap().contains("detail=precondition"), "{name}");
        assert_eq!(origin.count(), before + 1, "{name}");
        assert_eq!(origin.last().field(name), Some(value));
    }
    assert_eq!(send(&proxy, "QUERY", &[KEPT, JSON], "{}").cache(), "MISS");
    let same = send(&proxy, "QUERY", &[KEPT, JSON, ("If-None-Match", "\"a\"")], "{}");
    assert_eq!((same.status, same.cache()), (304, "HIT"), "a QUERY reads as a GET does");
}

/// RFC 9110 section 9.3.3.
#[test]
fn a_post_is_kept_only_where_the_origin_says_how_long() {
    let origin = Origin::obedient();
    let proxy = by_content(&origin);
    for say in ["X: 1", "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT", "Cache-Control: public"] {
        for _ in 0..2 {
            assert!(!keeps(&proxy, "POST", &[("Say", say), JSON], "{\"a\":1}"), "{say}");
        }
    }
    assert!(keeps(&proxy, "POST", &[KEPT, JSON], "{\"a\":2}"));
}

/// Of one name many take the last.
#[test]
fn a_sorted_query_keeps_the_order_of_equal_names() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).with("cache.sort_query", true).start();
    let ask = |query: &str| proxy.ask("GET", &format!("/api/x?{query}"), &[KEPT]);
    for (query, verdict, body) in [
        ("a=2&a=1", "MISS", "answer 0"),
        ("a=1&a=2", "MISS", "answer 1"),
        ("b=1&a=1&a=2", "MISS", "answer 2"),
        ("a=1&b=1&a=2", "HIT", "answer 2"),
        ("a=2&b=1&a=1", "MISS", "answer 3"),
    ] {
        support::assert_cached(&ask(query), verdict, body);
    }
}
