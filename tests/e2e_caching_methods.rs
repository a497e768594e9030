//! Methods other than GET: nothing but GET and HEAD is made conditional, one POST of a client is
//! one at the origin, a HEAD renews what GET stored.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::client::request;
use support::{Origin, Proxy, Request, Response, Setup, answer, assert_cached, eventually};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");
const TAG: (&str, &str) = ("ETag", "\"a\"");

/// A daemon that caches POST.
fn posting(origin: &Origin) -> Proxy {
    Setup::over(origin).with("cache.methods", json!(["GET", "HEAD", "POST"])).start()
}

fn post(proxy: &Proxy, target: &str, fields: &[(&str, &str)]) -> Response {
    let mut client = proxy.connect();
    client.send(request("POST", target, &[fields, &[JSON]].concat(), "{}"));
    client.read("POST")
}

/// An answer as a HEAD gets it.
fn without_body(asked: &Request, mut answer: Vec<u8>) -> Vec<u8> {
    if asked.method == "HEAD" {
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        answer.truncate(end);
    }
    answer
}

/// RFC 9110 section 13.1.2: an origin fails a POST whose If-None-Match matches.
#[test]
fn stale_post_is_asked_for_without_conditions() {
    const MODIFIED: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let turn = AtomicUsize::new(0);
    let origin = Origin::respond(move |asked| {
        let conditions = ["If-None-Match", "If-Modified-Since"];
        if conditions.iter().any(|name| asked.field(name).is_some()) {
            return answer(412, &[TAG], "failed");
        }
        let number = turn.fetch_add(1, Ordering::SeqCst);
        let lifetime = if number == 0 { "max-age=0" } else { "max-age=60" };
        let fields = [("Cache-Control", lifetime), TAG, MODIFIED];
        answer(200, &fields, format!("answer {number}"))
    });
    let proxy = posting(&origin);
    assert_cached(&post(&proxy, "/api/x", &[]), "MISS", "answer 0");
    assert_cached(&post(&proxy, "/api/x", &[]), "MISS", "answer 1");
    assert_cached(&post(&proxy, "/api/x", &[]), "HIT", "answer 1");
}

/// A 304 to what was asked without conditions is no answer, whatever is stored.
#[test]
fn unasked_confirmation_of_a_post_is_an_error() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::respond(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200, &[("Cache-Control", "max-age=0, must-revalidate"), TAG], "old"),
        _ => answer(304, &[MINUTE, TAG], ""),
    });
    let proxy = posting(&origin);
    post(&proxy, "/api/x", &[]);
    let response = post(&proxy, "/api/x", &[]);
    assert_eq!(response.status, 502, "{response:?}");
    assert_eq!(origin.count(), 2);
}

/// RFC 5861 section 3, RFC 9111 section 4.3.5: a HEAD that finds something stale has it renewed by
/// a GET, and keeps no GET from it.
#[test]
fn head_has_what_is_stale_renewed() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::respond(move |asked| {
        let number = turn.fetch_add(1, Ordering::SeqCst);
        let lifetime =
            if number == 0 { "max-age=0, stale-while-revalidate=600" } else { "max-age=600" };
        let answer = answer(200, &[("Cache-Control", lifetime)], format!("answer {number}"));
        without_body(asked, answer)
    });
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/x");
    let fields = [("Range", "bytes=0-1"), ("If-None-Match", "\"mine\""), ("Own", "x")];
    let head = proxy.ask("HEAD", "/api/x", &fields);
    assert_eq!((head.status, head.cache()), (200, "STALE"));
    origin.await_requests(2);
    let asked = origin.last();
    assert_eq!(asked.method, "GET");
    let found = ["Range", "If-None-Match", "Own"].map(|name| asked.field(name));
    assert_eq!(found, [None, None, Some("x")]);
    eventually("it is renewed", || proxy.get("/api/x").cache() == "HIT");
    assert_cached(&proxy.get("/api/x"), "HIT", "answer 1");
    assert_eq!(origin.count(), 2);
}

/// RFC 9110 section 9.2.2: whatever the answer is like, a POST goes out once.
#[test]
fn one_post_of_a_client_is_one_at_the_origin() {
    const PLAIN: (&str, &str) = ("Accept-Encoding", "gzip;q=0");
    const ZIPPED: (&str, &str) = ("Content-Encoding", "gzip");
    const UNKEPT: (&str, &str) = ("Cache-Control", "no-store");
    const RANGE: (&str, &str) = ("Range", "bytes=0-0");
    type Lines = &'static [(&'static str, &'static str)];
    let rows: [((&str, &str), Lines, usize); 4] = [
        (RANGE, &[UNKEPT], 100_000),
        (RANGE, &[MINUTE], 5 << 20),
        (PLAIN, &[UNKEPT, ZIPPED], 100_000),
        (RANGE, &[MINUTE, ZIPPED], 100),
    ];
    for (field, fields, bytes) in rows {
        let origin = Origin::respond(move |_| answer(200, fields, vec![b'x'; bytes]));
        let proxy = posting(&origin);
        let response = post(&proxy, "/api/x", &[field]);
        assert_eq!((response.status, response.body.len()), (200, bytes), "{field:?} {fields:?}");
        assert_eq!(origin.count(), 1, "{field:?} {fields:?}");
        assert_eq!(origin.last().field("Range"), None);
    }
}

/// What was to be decoded, and turned out too large to be kept, goes on as it came.
#[test]
fn post_whose_answer_outgrows_the_memory_goes_out_once() {
    let origin = Origin::script(|connection| {
        while connection.request().is_some() {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Encoding: gzip\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            connection.send(head);
            for _ in 0..64 {
                connection.send([b"1000\r\n", &[b'x'; 4096][..], b"\r\n"].concat());
            }
            connection.send("0\r\n\r\n");
        }
    });
    let setup = Setup::over(&origin).with("cache.methods", json!(["GET", "POST"]));
    let setup = setup.with("cache.backend", "none").with("cache.memory_cache_max_object", 65_536);
    let proxy = setup.start();
    let response = post(&proxy, "/api/x", &[("Accept-Encoding", "gzip;q=0")]);
    assert_eq!((response.status, response.body.len()), (200, 64 * 4096));
    assert_eq!(response.field("Content-Encoding"), Some("gzip"));
    assert_eq!(origin.count(), 1);
}

/// RFC 9111 section 4.4, on a route that caches POST: (the answer, what is left of `/x` and `/y`).
#[test]
fn post_that_is_cached_invalidates_unless_it_only_reads() {
    const SHARED: (&str, &str) = ("Cache-Control", "s-maxage=60");
    const UNKEPT: (&str, &str) = ("Cache-Control", "no-store");
    type Lines = &'static [(&'static str, &'static str)];
    let rows: [(u16, Lines, &str, &str); 12] = [
        (200, &[MINUTE], "HIT", "HIT"),
        (200, &[SHARED], "HIT", "HIT"),
        (200, &[UNKEPT], "MISS", "HIT"),
        (200, &[], "MISS", "HIT"),
        (201, &[MINUTE], "MISS", "HIT"),
        (204, &[], "MISS", "HIT"),
        (200, &[MINUTE, ("Location", "/y")], "MISS", "MISS"),
        (200, &[MINUTE, ("Content-Location", "/y")], "MISS", "MISS"),
        (201, &[("Location", "/y")], "MISS", "MISS"),
        (303, &[("Location", "/y")], "MISS", "MISS"),
        (404, &[], "HIT", "HIT"),
        (500, &[], "HIT", "HIT"),
    ];
    let ways: [&[(&str, &str)]; 3] = [&[], &[("Authorization", "x")], &[UNKEPT]];
    for (status, fields, x, y) in rows {
        for way in ways {
            let origin = Origin::respond(move |asked| match asked.method.as_str() {
                "GET" => answer(200, &[MINUTE], "got"),
                _ => answer(status, fields, if status == 204 { "" } else { "done" }),
            });
            let proxy = posting(&origin);
            proxy.get("/api/x");
            proxy.get("/api/y");
            assert_eq!(post(&proxy, "/api/x", way).status, status);
            // What is for one client alone is not known to read only.
            let own = way.iter().any(|it| it.0 == "Authorization") && !fields.contains(&SHARED);
            let x = if own && status == 200 { "MISS" } else { x };
            let found = (proxy.get("/api/x"), proxy.get("/api/y"));
            assert_eq!((found.0.cache(), found.1.cache()), (x, y), "{status} {fields:?} {way:?}");
            assert_eq!(origin.requests().iter().filter(|it| it.method == "POST").count(), 1);
        }
    }
}
