//! Validation and what later messages do to a stored response: 304 and HEAD (RFC 9111 sections
//! 4.3.3 to 4.3.5), unsafe methods (section 4.4), and which fields are stored at all (section 3.1).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::client::request;
use support::{Origin, Proxy, Request, Response, Setup, answer, assert_cached, eventually};

type Lines<'a> = &'a [(&'a str, &'a str)];

const STALE: (&str, &str) = ("Cache-Control", "max-age=0");
const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");
const TAG: (&str, &str) = ("ETag", "\"a\"");

/// An origin that plays these answers in order, the last one for ever.
fn turns(answers: Vec<Vec<u8>>) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::respond(move |asked| {
        let at = turn.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        without_body(asked, answers[at].clone())
    })
}

/// As the answer to a HEAD.
fn without_body(asked: &Request, mut bytes: Vec<u8>) -> Vec<u8> {
    if asked.method == "HEAD" {
        bytes.truncate(bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4);
    }
    bytes
}

fn send(proxy: &Proxy, method: &str, target: &str) -> Response {
    let mut client = proxy.connect();
    let body = if matches!(method, "PUT" | "POST" | "PATCH") { "{}" } else { "" };
    client.send(request(method, target, &[("Content-Type", "application/json")], body));
    client.read(method)
}

/// RFC 9111 section 4.3.1: both validators, as they were received; none that can't be one.
#[test]
fn validation_is_asked_for_with_every_stored_validator() {
    const OLD: &str = "Sunday, 06-Nov-94 08:49:37 GMT";
    let modified = ("Last-Modified", OLD);
    let rows: [(Lines<'_>, Option<&str>, Option<&str>); 6] = [
        (&[TAG, modified], Some("\"a\""), Some(OLD)),
        (&[("ETag", "W/\"a\"")], Some("W/\"a\""), None),
        (&[modified], None, Some(OLD)),
        (&[("ETag", "unquoted"), modified], None, Some(OLD)),
        (&[TAG, ("Last-Modified", "yesterday")], Some("\"a\""), None),
        (&[("ETag", "unquoted")], None, None),
    ];
    for (validators, tag, date) in rows {
        let fields = [&[STALE], validators].concat();
        let origin = turns(vec![answer(200, &fields, "body"), answer(200, &[MINUTE], "new")]);
        let proxy = Setup::over(&origin).start();
        let own =
            [("If-None-Match", "\"mine\""), ("If-Modified-Since", "Mon, 06 Nov 1995 08:49:37 GMT")];
        proxy.ask("GET", "/api/x", &own);
        assert_eq!(origin.last().field("If-None-Match"), None, "a fill asks for the whole");
        proxy.ask("GET", "/api/x", &own);
        let asked = origin.last();
        let found = (asked.field("If-None-Match"), asked.field("If-Modified-Since"));
        assert_eq!(found, (tag, date), "{validators:?}");
    }
}

/// RFC 9111 section 3.2: which fields of a 304 replace stored ones.
#[test]
fn confirmation_updates_each_field_but_those_of_the_content() {
    let rows = [
        ("Test-Header", "one", "two", true),
        ("Content-Foo", "one", "two", true),
        ("Content-Location", "/one", "/two", true),
        ("Content-Security-Policy", "default-src 'self'", "default-src 'none'", true),
        ("Expires", "Sun, 06 Nov 2044 08:49:37 GMT", "Mon, 06 Nov 2045 08:49:37 GMT", true),
        ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 06 Nov 1995 08:49:37 GMT", true),
        ("X-Frame-Options", "deny", "sameorigin", true),
        ("Set-Cookie", "a=b", "a=c", true),
        ("Content-Type", "text/plain", "text/html", false),
        ("Content-Encoding", "one", "two", false),
        ("Content-Range", "one", "two", false),
    ];
    for (name, one, two, updated) in rows {
        let origin = turns(vec![
            answer(200, &[STALE, TAG, (name, one), ("Kept", "1")], "body"),
            answer(304, &[MINUTE, TAG, (name, two), ("New", "1")], ""),
        ]);
        let proxy = Setup::over(&origin).start();
        assert_eq!(proxy.get("/api/x").field(name), Some(one));
        for verdict in ["REVALIDATED", "HIT"] {
            let response = proxy.get("/api/x");
            assert_cached(&response, verdict, "body");
            let expected = if updated { two } else { one };
            assert_eq!(response.field(name), Some(expected), "{name} {verdict}");
            assert_eq!((response.field("Kept"), response.field("New")), (Some("1"), Some("1")));
            assert_eq!(response.field("Content-Length"), Some("4"));
        }
        assert_eq!(origin.count(), 2);
    }
}

/// RFC 9111 section 4.3.4: a 304 about something else updates nothing and is no answer.
#[test]
fn confirmation_of_another_response_is_asked_again_in_full() {
    const MODIFIED: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    const LATER: (&str, &str) = ("Last-Modified", "Mon, 06 Nov 1995 08:49:37 GMT");
    let rows: [(Lines<'_>, Lines<'_>, bool); 7] = [
        (&[TAG], &[("ETag", "\"b\"")], false),
        (&[TAG], &[TAG], true),
        (&[TAG], &[], true),
        (&[("ETag", "W/\"a\"")], &[("ETag", "W/\"a\"")], true),
        (&[TAG], &[("ETag", "W/\"b\"")], false),
        (&[MODIFIED], &[LATER], false),
        (&[MODIFIED], &[MODIFIED], true),
    ];
    for (stored, told, same) in rows {
        let first = [&[STALE], stored].concat();
        let second = [&[MINUTE], told].concat();
        let origin = turns(vec![
            answer(200, &first, "old"),
            answer(304, &second, ""),
            answer(200, &[MINUTE, ("ETag", "\"c\"")], "new"),
        ]);
        let proxy = Setup::over(&origin).start();
        proxy.get("/api/x");
        let response = proxy.get("/api/x");
        let expected = if same { ("REVALIDATED", "old", 2) } else { ("MISS", "new", 3) };
        let found = (response.cache(), response.text(), origin.count());
        assert_eq!(found, expected, "{stored:?} {told:?}");
        if !same {
            let asked = origin.last();
            assert_eq!(
                (asked.field("If-None-Match"), asked.field("If-Modified-Since")),
                (None, None)
            );
        }
    }
}

/// A client's own condition while what is stored must be confirmed: the origin is asked with the
/// stored validators, and the client told what results.
#[test]
fn conditions_of_clients_are_judged_after_the_confirmation() {
    let rows: [(&str, u16, u16); 6] = [
        // The client's tag, the origin's answer, the client's.
        ("\"a\"", 304, 304),
        ("W/\"a\"", 304, 304),
        ("\"b\"", 304, 200),
        ("\"a\"", 200, 200),
        ("\"b\"", 200, 304),
        ("*", 200, 304),
    ];
    for (tag, status, expected) in rows {
        let second = match status {
            304 => answer(304, &[MINUTE, TAG], ""),
            _ => answer(200, &[MINUTE, ("ETag", "\"b\"")], "new"),
        };
        let origin = turns(vec![answer(200, &[STALE, TAG], "old"), second]);
        let proxy = Setup::over(&origin).start();
        proxy.get("/api/x");
        let response = proxy.ask("GET", "/api/x", &[("If-None-Match", tag)]);
        assert_eq!(response.status, expected, "{tag} {status}");
        assert_eq!(origin.last().field("If-None-Match"), Some("\"a\""));
        for name in ["ETag", "Cache-Control", "Date"] {
            assert!(response.field(name).is_some(), "{name} of {response:?}");
        }
        let body = if status == 304 { "old" } else { "new" };
        assert_cached(&proxy.get("/api/x"), "HIT", body);
    }
}

/// RFC 9111 section 3.1, RFC 9110 section 7.6.1.
#[test]
fn fields_of_the_connection_are_not_stored_and_all_others_are() {
    let gone = [
        ("Connection", "close, Named, Other-Named"),
        ("Named", "1"),
        ("Other-named", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy-Authorization", "x"),
        ("TE", "trailers"),
        ("Trailer", "X-Trailer"),
        ("Upgrade", "x"),
    ];
    let stays = [
        ("X-Test", "1"),
        ("Server", "origin"),
        ("Content-MD5", "x"),
        ("Content-Language", "en"),
        ("Link", "</a>"),
        ("Warning", "199 - x"),
        ("Clear-Site-Data", "\"cache\""),
        ("Set-Cookie", "a=b"),
        ("X-Empty", ""),
    ];
    let fields = [&[MINUTE], &gone[..], &stays[..]].concat();
    let origin = Origin::script(move |connection| {
        if connection.request().is_some() {
            connection.send(answer(200, &fields, "body"));
        }
    });
    let proxy = Setup::over(&origin).start();
    for verdict in ["MISS", "HIT"] {
        let response = proxy.get("/api/x");
        assert_cached(&response, verdict, "body");
        for (name, _) in gone {
            assert_eq!(response.field(name), None, "{name} {verdict}");
        }
        for (name, value) in stays {
            assert_eq!(response.field(name), Some(value), "{name} {verdict}");
        }
    }
}

/// RFC 9110 section 6.5.1: trailers are not merged into the fields, stored or not.
#[test]
fn trailers_are_not_merged() {
    let origin = Origin::script(|connection| {
        while connection.request().is_some() {
            connection.send(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTrailer: X-Late, Cache-Control\r\n\
                 Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Late: 1\r\n\
                 Cache-Control: no-store\r\nETag: \"late\"\r\n\r\n",
            );
        }
    });
    let proxy = Setup::over(&origin).start();
    for verdict in ["MISS", "HIT"] {
        let response = proxy.get("/api/x");
        assert_cached(&response, verdict, "body");
        assert_eq!((response.field("X-Late"), response.field("ETag")), (None, None));
        assert_eq!(response.field("Cache-Control"), Some("max-age=60"));
    }
    assert_eq!(origin.count(), 1);
}

/// RFC 9111 section 4.4: (method, status, whether the stored response goes).
#[test]
fn success_of_unsafe_methods_invalidates_in_every_tier() {
    let mut rows = Vec::new();
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
        for (status, gone) in [
            (200, true),
            (204, true),
            (301, true),
            (303, true),
            (400, false),
            (404, false),
            (500, false),
        ] {
            rows.push((method, status, gone));
        }
    }
    rows.extend([("OPTIONS", 200, false), ("GET", 200, false), ("HEAD", 200, false)]);
    let wanted = Mutex::new(200_u16);
    let wanted: &'static Mutex<u16> = Box::leak(Box::new(wanted));
    let origin = Origin::respond(move |asked| {
        let status = match asked.method.as_str() {
            "GET" | "HEAD" => 200,
            _ => *wanted.lock().unwrap(),
        };
        without_body(asked, answer(status, &[("Cache-Control", "max-age=600")], "body"))
    });
    let setup = Setup::over(&origin).with("security.allow_unknown_methods", true);
    let setup = setup.with("client.circuit_breaker_enabled", false);
    let proxy = setup.start();
    for (number, (method, status, _)) in rows.iter().enumerate() {
        let target = format!("/api/{number}");
        assert_eq!(proxy.get(&target).cache(), "MISS");
        *wanted.lock().unwrap() = *status;
        send(&proxy, method, &target);
    }
    for (number, (method, status, gone)) in rows.iter().enumerate() {
        let said = proxy.get(&format!("/cache/explain?path=/{number}")).json();
        assert_eq!(said["stored"].is_null(), *gone, "{method} {status}: {said}");
    }
    // Nor does it come back.
    proxy.stop();
    let proxy = setup.start();
    for (number, (method, status, gone)) in rows.iter().enumerate() {
        let verdict = proxy.get(&format!("/api/{number}")).cache().to_owned();
        assert_eq!(verdict == "MISS", *gone, "{method} {status} after a restart");
    }
}

/// RFC 9111 section 4.4: what else is named, if it is of the same origin.
#[test]
fn location_and_content_location_of_the_same_origin_are_invalidated() {
    let rows = [
        ("Location", "/a", true),
        ("Content-Location", "/a", true),
        ("Location", "a", true),
        ("Location", "./sub/../a", true),
        ("Location", "http://ORIGIN/a", true),
        ("Location", "//ORIGIN/a", true),
        ("Location", "/%61", true),
        ("Location", "/a#fragment", true),
        ("Location", "/a?b", false),
        ("Location", "/A", false),
        ("Location", "http://elsewhere.example/a", false),
        ("Location", "//elsewhere.example/a", false),
        ("Content-Location", "http://ORIGIN.example/a", false),
        ("Link", "/a", false),
    ];
    for (name, value, gone) in rows {
        let origin = Origin::respond(move |asked| match asked.method.as_str() {
            "GET" => answer(200, &[MINUTE], "got"),
            _ => {
                let value = value.replace("ORIGIN", asked.field("Host").unwrap());
                answer(201, &[(name, &value)], "")
            }
        });
        let proxy = Setup::over(&origin).start();
        proxy.get("/api/a");
        send(&proxy, "PUT", "/api/b");
        assert_eq!(proxy.get("/api/a").cache() == "MISS", gone, "{name}: {value}");
    }
}

/// RFC 9110 section 9.3.2, RFC 9111 section 4.3.5.
#[test]
fn head_is_answered_from_get_stores_nothing_and_renews() {
    let origin = Origin::respond(|asked| {
        without_body(asked, answer(200, &[MINUTE, TAG, ("Method", &asked.method)], "body"))
    });
    let proxy = Setup::over(&origin).start();
    for _ in 0..2 {
        let head = proxy.ask("HEAD", "/api/x", &[]);
        assert_eq!((head.cache(), head.field("Content-Length")), ("MISS", Some("4")));
    }
    assert_cached(&proxy.get("/api/x"), "MISS", "body");
    let head = proxy.ask("HEAD", "/api/x", &[("Range", "bytes=0-1")]);
    assert_eq!((head.status, head.cache(), head.field("Content-Length")), (200, "HIT", Some("4")));
    assert_eq!(head.field("Method"), Some("GET"));
    let same = proxy.ask("HEAD", "/api/x", &[("If-None-Match", "\"a\"")]);
    assert_eq!((same.status, same.cache()), (304, "HIT"));
    // A reload by HEAD renews what is stored.
    proxy.ask("HEAD", "/api/x", &[("Cache-Control", "no-cache")]);
    let hit = proxy.get("/api/x");
    assert_cached(&hit, "HIT", "body");
    assert_eq!(hit.field("Method"), Some("HEAD"));
}

/// What a HEAD says of the stored response: (its fields, its status, what a GET gets then).
#[test]
fn head_that_contradicts_what_is_stored_removes_it() {
    let rows: [(u16, Lines<'static>, &str); 7] = [
        (200, &[MINUTE, TAG], "HIT"),
        (200, &[MINUTE, ("ETag", "\"b\"")], "MISS"),
        (200, &[MINUTE, ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")], "MISS"),
        (200, &[("Cache-Control", "no-store"), TAG], "MISS"),
        (410, &[], "MISS"),
        (404, &[], "MISS"),
        (403, &[], "HIT"),
    ];
    for (status, fields, verdict) in rows {
        let origin = Origin::respond(move |asked| match asked.method.as_str() {
            "HEAD" => without_body(asked, answer(status, fields, "body")),
            _ => answer(200, &[MINUTE, TAG], "body"),
        });
        let proxy = Setup::over(&origin).start();
        proxy.get("/api/x");
        proxy.ask("HEAD", "/api/x", &[("Cache-Control", "no-cache")]);
        assert_eq!(proxy.get("/api/x").cache(), verdict, "{status} {fields:?}");
    }
}

/// Bodies that have no canonical form go past the cache, whatever is wrong with them.
#[test]
fn bodies_without_a_canonical_form_go_past_the_cache() {
    let origin = Origin::counting("max-age=60");
    let setup = Setup::over(&origin).with("cache.methods", json!(["GET", "POST"]));
    let proxy = setup.with("security.require_json_body", false).start();
    let deep = format!("{}1{}", "[".repeat(600), "]".repeat(600));
    let bodies: [&[u8]; 7] = [
        b"{\"a\":1,\"a\":2}",
        b"{\"a\":1,\"\\u0061\":2}",
        b"\"\xff\"",
        b"\"\\ud800\"",
        b"{\"a\":1",
        b"1e999",
        deep.as_bytes(),
    ];
    for body in bodies {
        for _ in 0..2 {
            let mut client = proxy.connect();
            let json = "Host: x\r\nContent-Type: application/json";
            client.send(format!(
                "POST /api/x HTTP/1.1\r\n{json}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ));
            client.send(body);
            let response = client.read("POST");
            let status = response.field("Cache-Status").unwrap();
            assert!(status.ends_with("detail=body_not_canonical"), "{status}");
            assert_eq!(response.cache(), "BYPASS");
        }
    }
    eventually("the origin has seen each", || origin.count() == 14);
}
