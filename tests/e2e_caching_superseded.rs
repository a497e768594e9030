//! What is stored and holds no longer, what is given in place of an error, and conditions on their
//! way to the origin.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::ranges::honest;
use support::{Origin, Setup, answer, assert_cached, eventually};

type Lines = &'static [(&'static str, &'static str)];

const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");
const UNKEPT: (&str, &str) = ("Cache-Control", "no-store");
const TAG: (&str, &str) = ("ETag", "\"a\"");

/// "old" with these fields, then one other answer, then errors for ever.
fn old_then(fields: Lines, status: u16, then: Lines) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::respond(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200, fields, "old"),
        1 => answer(status, then, if status == 204 { "" } else { "new" }),
        _ => answer(503, &[], "down"),
    })
}

/// (the answer, whether it says that the old one holds no longer).
const DEFINITE: [(u16, Lines, bool); 11] = [
    (200, &[UNKEPT], true),
    (200, &[("Cache-Control", "private")], true),
    (200, &[MINUTE, ("Vary", "*")], true),
    (204, &[UNKEPT], true),
    (302, &[("Location", "/y")], true),
    (301, &[UNKEPT, ("Location", "/y")], true),
    (404, &[], true),
    (410, &[], true),
    (403, &[], false),
    (429, &[], false),
    (500, &[], false),
];

/// A reload that brings a definite answer leaves nothing old behind.
#[test]
fn reload_removes_what_holds_no_longer() {
    for (status, then, definite) in DEFINITE {
        let origin = old_then(&[MINUTE], status, then);
        let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
        proxy.get("/api/x");
        proxy.ask("GET", "/api/x", &[("Cache-Control", "no-cache")]);
        let response = proxy.get("/api/x");
        assert_eq!(response.text() != "old", definite, "{status} {then:?}: {response:?}");
    }
}

/// Nor does a validation in the foreground: not even in place of an error.
#[test]
fn validation_removes_what_holds_no_longer() {
    for (status, then, definite) in DEFINITE {
        let stale: Lines = &[("Cache-Control", "max-age=0, stale-if-error=600")];
        let origin = old_then(stale, status, then);
        let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
        proxy.get("/api/x");
        proxy.get("/api/x");
        let response = proxy.get("/api/x");
        assert_eq!(response.text() != "old", definite, "{status} {then:?}: {response:?}");
    }
}

/// Nor does one in the background.
#[test]
fn refresh_removes_what_holds_no_longer() {
    for (status, then, definite) in DEFINITE {
        let stale: Lines = &[("Cache-Control", "max-age=0, stale-while-revalidate=600")];
        let origin = old_then(stale, status, then);
        let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
        proxy.get("/api/x");
        assert_cached(&proxy.get("/api/x"), "STALE", "old");
        origin.await_requests(2);
        if definite {
            eventually("the old one is gone", || proxy.get("/api/x").text() != "old");
        }
        for _ in 0..5 {
            let response = proxy.get("/api/x");
            assert_eq!(response.text() != "old", definite, "{status} {then:?}: {response:?}");
        }
    }
}

/// What one client may not share leaves what all may have.
#[test]
fn answer_for_one_client_removes_nothing() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::respond(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200, &[("Cache-Control", "public, max-age=60")], "old"),
        _ => answer(200, &[MINUTE], "mine"),
    });
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/x");
    let fields = [("Authorization", "x"), ("Cache-Control", "no-cache")];
    assert_eq!(proxy.ask("GET", "/api/x", &fields).text(), "mine");
    assert_cached(&proxy.get("/api/x"), "HIT", "old");
}

/// RFC 9211 section 2.2: what is fresh is not called stale for standing in for an error.
#[test]
fn fresh_answer_in_place_of_an_error_is_told_as_fresh() {
    for (offline, unreachable) in [(false, false), (false, true), (true, false), (true, true)] {
        let turn = AtomicUsize::new(0);
        let origin = Origin::script(move |connection| {
            while connection.request().is_some() {
                match turn.fetch_add(1, Ordering::SeqCst) {
                    0 => assert!(connection.send(answer(200, &[MINUTE], "good"))),
                    _ if unreachable => return connection.reset(),
                    _ => assert!(connection.send(answer(503, &[], "bad"))),
                }
            }
        });
        let setup = Setup::over(&origin).with("client.circuit_breaker_enabled", false);
        let endpoints = if offline { json!(["/x"]) } else { json!([]) };
        let proxy = setup.with("offline_endpoints", endpoints).start();
        proxy.get("/api/x");
        let response = proxy.ask("GET", "/api/x", &[("Cache-Control", "max-age=0")]);
        assert_cached(&response, "HIT", "good");
        let status = response.field("Cache-Status").unwrap();
        let told = if unreachable { "" } else { "; fwd-status=503" };
        let start = format!("apiproxyd; fwd=request{told}; ttl=");
        assert!(status.starts_with(&start) && !status.contains("detail"), "{status}");
        assert_eq!(response.field("X-Offline"), None);
        assert!(response.age().is_some());
    }
}

/// The condition of a client whose answers can't be stored is the origin's to judge.
#[test]
fn conditions_of_requests_that_go_alone_reach_the_origin() {
    let body = vec![b'x'; 300_000];
    let origin = honest(body, &[UNKEPT, TAG]);
    let proxy = Setup::over(&origin).start();
    let matching = ("If-None-Match", "\"a\"");
    assert_eq!(proxy.get("/api/x").body.len(), 300_000);
    for (fields, status) in [
        (vec![matching], 304),
        (vec![matching, ("Authorization", "x")], 304),
        (vec![("If-None-Match", "\"b\"")], 200),
        (vec![("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")], 200),
    ] {
        let response = proxy.ask("GET", "/api/x", &fields);
        assert_eq!(response.status, status, "{fields:?}");
        assert_eq!(response.field("ETag"), Some("\"a\""));
        let asked = origin.last();
        for name in ["If-None-Match", "If-Modified-Since"] {
            let sent = fields.iter().find(|it| it.0 == name).map(|it| it.1);
            assert_eq!(asked.field(name), sent, "{fields:?}");
        }
    }
    assert_eq!(origin.count(), 5);
}

/// Where it is the first to ask, the head of the answer is enough.
#[test]
fn condition_of_the_first_request_is_judged_by_the_head() {
    let origin = Origin::respond(|_| answer(200, &[UNKEPT, TAG], vec![b'x'; 300_000]));
    let proxy = Setup::over(&origin).start();
    let response = proxy.ask("GET", "/api/x", &[("If-None-Match", "\"a\"")]);
    assert_eq!((response.status, origin.count()), (304, 1));
}
