//! Stale answers (RFC 9111 section 4.2.4, RFC 5861): which failures they stand in for, for how
//! long, and what forbids them.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use support::{Origin, Proxy, Setup, answer, assert_cached, eventually};

type Lines<'a> = &'a [(&'a str, &'a str)];

/// What the origin does once it has answered the first request well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Status(u16),
    Close,
    Reset,
    /// Half a head.
    Garbage,
    /// Half a body.
    Cut,
    Silence,
}

/// Answers once with `cache_control`, then fails.
fn failing(cache_control: &'static str, failure: Failure) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::script(move |connection| {
        while connection.request().is_some() {
            if turn.fetch_add(1, Ordering::SeqCst) == 0 {
                let fields = [("Cache-Control", cache_control), ("Connection", "close")];
                connection.send(answer(200, &fields, "good"));
                return;
            }
            match failure {
                Failure::Status(status) => drop(connection.send(answer(status, &[], "bad"))),
                Failure::Close => return,
                Failure::Reset => return connection.reset(),
                Failure::Garbage => {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Le");
                    return;
                }
                Failure::Cut => {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                    return;
                }
                Failure::Silence => connection.await_close(),
            }
        }
    })
}

fn over(origin: &Origin) -> Proxy {
    let setup = Setup::over(origin).with("client.circuit_breaker_enabled", false);
    setup.with("client.request_timeout", 1).start()
}

/// RFC 5861 section 4.
#[test]
fn stale_answers_stand_in_for_every_kind_of_failure() {
    let failures = [
        Failure::Status(500),
        Failure::Status(502),
        Failure::Status(503),
        Failure::Status(504),
        Failure::Close,
        Failure::Reset,
        Failure::Garbage,
        Failure::Silence,
    ];
    for failure in failures {
        for cache_control in ["max-age=0", "max-age=0, stale-if-error=60"] {
            let origin = failing(cache_control, failure);
            let proxy = over(&origin);
            assert_cached(&proxy.get("/api/x"), "MISS", "good");
            let stale = proxy.get("/api/x");
            assert_eq!(
                (stale.status, stale.cache(), stale.text()),
                (200, "STALE", "good"),
                "{failure:?}"
            );
            assert!(stale.age().is_some());
        }
    }
}

/// What is no failure of the origin's is its answer; an answer that is cut short is one, and no
/// half of it is given out as the whole.
#[test]
fn answers_that_are_no_failures_are_given_as_they_are() {
    for (failure, expected) in
        [(Failure::Status(404), 404), (Failure::Status(501), 501), (Failure::Status(429), 429)]
    {
        let origin = failing("max-age=0", failure);
        let proxy = over(&origin);
        proxy.get("/api/x");
        let response = proxy.get("/api/x");
        assert_eq!((response.status, response.text()), (expected, "bad"), "{failure:?}");
    }
    let origin = failing("max-age=0", Failure::Cut);
    let proxy = over(&origin);
    proxy.get("/api/x");
    let mut client = proxy.connect();
    client.send_request("GET", "/api/x", &[], "");
    if let Ok(response) = client.try_read("GET") {
        assert!(response.text() == "good" || response.status == 502, "{response:?}");
    }
}

/// RFC 9111 sections 4.2.4, 5.2.2.2, 5.2.2.8 and 5.2.2.10.
#[test]
fn nothing_stale_is_given_that_the_origin_forbids() {
    let forbidding = [
        "max-age=0, must-revalidate, stale-if-error=60",
        "max-age=0, proxy-revalidate, stale-if-error=60",
        "s-maxage=0, stale-if-error=60",
        "max-age=60, no-cache",
        "max-age=0, stale-while-revalidate=60, must-revalidate",
    ];
    for cache_control in forbidding {
        for failure in [Failure::Status(503), Failure::Close] {
            // A validator, so that it is stored all the same.
            let origin = failing_tagged(cache_control, failure);
            let proxy = over(&origin);
            assert_cached(&proxy.get("/api/x"), "MISS", "good");
            for fields in [&[][..], &[("Cache-Control", "max-stale")]] {
                let before = origin.count();
                let response = proxy.ask("GET", "/api/x", fields);
                assert!(response.status >= 502, "{cache_control}: {response:?}");
                assert!(origin.count() > before, "{cache_control}: it was not asked");
            }
        }
    }
}

fn failing_tagged(cache_control: &'static str, failure: Failure) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::script(move |connection| {
        while connection.request().is_some() {
            if turn.fetch_add(1, Ordering::SeqCst) == 0 {
                let fields = [("Cache-Control", cache_control), ("ETag", "\"a\"")];
                connection.send(answer(200, &fields, "good"));
                continue;
            }
            match failure {
                Failure::Status(status) => drop(connection.send(answer(status, &[], "bad"))),
                _ => return,
            }
        }
    })
}

/// RFC 9111 section 5.2.1.2: (what is stored, the request's max-stale, whether it will do).
#[test]
fn max_stale_takes_what_is_stale_enough() {
    let rows = [
        ("max-age=0", "max-stale", "STALE"),
        ("max-age=0", "max-stale=60", "STALE"),
        ("max-age=0", "max-stale=x", "REVALIDATED"),
        ("max-age=1;;Age: 100", "max-stale=60", "REVALIDATED"),
        ("max-age=1;;Age: 100", "max-stale=200", "STALE"),
        ("max-age=0", "max-stale, no-cache", "REVALIDATED"),
        ("max-age=0", "max-stale, max-age=0", "REVALIDATED"),
        ("max-age=0, must-revalidate", "max-stale", "REVALIDATED"),
        ("s-maxage=0", "max-stale", "REVALIDATED"),
    ];
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    for (number, (stored, wanted, verdict)) in rows.into_iter().enumerate() {
        let target = format!("/api/{number}");
        let say = format!("Cache-Control: {stored};;ETag: \"a\"");
        proxy.ask("GET", &target, &[("Say", &say)]);
        let response = proxy.ask("GET", &target, &[("Say", &say), ("Cache-Control", wanted)]);
        assert_eq!(response.cache(), verdict, "{stored} / {wanted}: {response:?}");
    }
}

/// With the breaker open nobody is asked, and what is stored answers at once.
#[test]
fn open_breaker_serves_stale_without_asking() {
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = Arc::clone(&fails);
    let origin = Origin::respond(move |_| match failing.load(Ordering::SeqCst) {
        0 => answer(200, &[("Cache-Control", "max-age=0")], "good"),
        _ => answer(500, &[], "bad"),
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_threshold", 1).start();
    for target in ["/api/a", "/api/b"] {
        assert_cached(&proxy.get(target), "MISS", "good");
    }
    fails.store(1, Ordering::SeqCst);
    assert_cached(&proxy.get("/api/a"), "STALE", "good");
    let before = origin.count();
    for _ in 0..10 {
        assert_cached(&proxy.get("/api/b"), "STALE", "good");
    }
    assert_eq!(origin.count(), before);
    let refused = proxy.get("/api/c");
    assert_eq!((refused.status, refused.problem().as_str()), (503, "circuit_open"));
    assert_eq!(refused.field("Cache-Status"), Some("apiproxyd; fwd=uri-miss; detail=circuit_open"));
}

/// Nobody waits for what a renewal in the background brings. Where that can't be stored and is
/// large, it used to wait for ever for somebody to read it, on a connection that nobody else got.
#[test]
fn renewal_that_can_not_be_stored_holds_no_connection() {
    let rows: [(u16, &str); 3] = [(200, "no-store"), (200, "private"), (429, "max-age=0")];
    for (status, cache_control) in rows {
        let turn = AtomicUsize::new(0);
        let origin = Origin::respond(move |request| {
            if request.target == "/other" {
                return answer(200, &[("Cache-Control", "no-store")], "other");
            }
            match turn.fetch_add(1, Ordering::SeqCst) {
                0 => answer(200, &[("Cache-Control", "max-age=0, stale-while-revalidate=60")], "x"),
                _ => answer(status, &[("Cache-Control", cache_control)], vec![b'x'; 1 << 20]),
            }
        });
        let proxy = Setup::over(&origin)
            .with("client.max_conns_per_host", 1)
            .with("client.request_timeout", 2)
            .start();
        assert_cached(&proxy.get("/api/x"), "MISS", "x");
        assert_cached(&proxy.get("/api/x"), "STALE", "x");
        origin.await_requests(2);
        assert_cached(&proxy.get("/api/other"), "MISS", "other");
    }
}

/// A stale answer while it is renewed comes at once, however slow the origin is.
#[test]
fn nobody_waits_for_a_refresh() {
    let gate = support::Gate::default();
    let (held, turn) = (gate.clone(), AtomicUsize::new(0));
    let origin = Origin::respond(move |_| {
        if turn.fetch_add(1, Ordering::SeqCst) > 0 {
            held.pass();
        }
        answer(200, &[("Cache-Control", "max-age=0, stale-while-revalidate=60")], "good")
    });
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/x");
    let start = Instant::now();
    assert_cached(&proxy.get("/api/x"), "STALE", "good");
    assert!(start.elapsed() < support::PATIENCE, "it waited for the origin");
    origin.await_requests(2);
    gate.open();
}

/// `negative_ttl` is the lifetime of 404 and 410; `ttl` never is that of an error.
#[test]
fn errors_are_kept_as_long_as_the_configuration_says() {
    let origin = Origin::obedient();
    for (negative_ttl, kept) in [(0, false), (60, true)] {
        let setup = Setup::over(&origin).with("cache.negative_ttl", negative_ttl);
        let proxy = setup.with("client.circuit_breaker_enabled", false).start();
        for status in ["404", "410"] {
            let fields: Lines<'_> = &[("Say-Status", status)];
            let target = format!("/api/{status}");
            proxy.ask("GET", &target, fields);
            let again = proxy.ask("GET", &target, fields);
            assert_eq!(again.cache() == "HIT", kept, "{status} with {negative_ttl}");
        }
        for status in ["405", "414", "501", "500", "503", "403"] {
            let fields: Lines<'_> = &[("Say-Status", status)];
            let target = format!("/api/{status}");
            proxy.ask("GET", &target, fields);
            assert_ne!(proxy.ask("GET", &target, fields).cache(), "HIT", "{status}");
        }
    }
}

/// The refreshed answer replaces the stale one on every core.
#[test]
fn refreshed_answer_is_everybodys() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::respond(move |asked| {
        let body = format!("answer {}", turn.fetch_add(1, Ordering::SeqCst));
        let first = asked.field("If-None-Match").is_none() && body == "answer 0";
        let cc = if first { "max-age=0, stale-while-revalidate=60" } else { "max-age=60" };
        answer(200, &[("Cache-Control", cc), ("ETag", &format!("\"{body}\""))], &body)
    });
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/x");
    eventually("it is renewed", || proxy.get("/api/x").text() == "answer 1");
    for _ in 0..20 {
        assert_cached(&proxy.get("/api/x"), "HIT", "answer 1");
    }
    assert_eq!(origin.count(), 2);
}
