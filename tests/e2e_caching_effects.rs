//! What one exchange means for others: updates, invalidation, fields for one client, refreshes in
//! the background, bodies in the key.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::client::request;
use support::{Origin, Proxy, Response, Setup, answer, eventually};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");

/// Answers count up, each with these fields.
fn counting(fields: &'static [(&'static str, &'static str)]) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::respond(move |_| {
        answer(200, fields, format!("answer {}", turn.fetch_add(1, Ordering::SeqCst)))
    })
}

fn send(proxy: &Proxy, method: &str, target: &str, content_type: &str, body: &str) -> Response {
    let mut client = proxy.connect();
    client.send(request(method, target, &[("Content-Type", content_type)], body));
    client.read(method)
}

#[track_caller]
fn assert_cached(response: &Response, verdict: &str, body: &str) {
    assert_eq!((response.cache(), response.text()), (verdict, body), "{response:?}");
}

/// RFC 9111 sections 5.2.2.4 and 5.2.2.7: what `private` and `no-cache` list reaches the client
/// whose request brought it, and nobody else.
#[test]
fn listed_fields_are_for_the_first_client_alone() {
    for directive in ["private=\"Own\", max-age=60", "max-age=60, no-cache=\"own, x\""] {
        let origin = Origin::fixed(answer(
            200,
            &[("Cache-Control", directive), ("Own", "secret"), ("Shared", "yes")],
            "body",
        ));
        let proxy = Setup::over(&origin).start();
        let first = proxy.get("/api/x");
        assert_eq!((first.field("Own"), first.field("Shared")), (Some("secret"), Some("yes")));
        let second = proxy.get("/api/x");
        assert_cached(&second, "HIT", "body");
        assert_eq!((second.field("Own"), second.field("Shared")), (None, Some("yes")));
    }
}

/// RFC 9111 section 4.3.4.
#[test]
fn confirmation_updates_what_is_stored_except_the_fields_of_its_content() {
    let origin = Origin::respond(|asked| match asked.field("If-None-Match") {
        None => answer(
            200,
            &[("Cache-Control", "max-age=0"), ("ETag", "\"a\""), ("Kept", "1"), ("New", "1"), JSON],
            "[]",
        ),
        Some(_) => {
            let html = ("Content-Type", "text/html");
            answer(304, &[MINUTE, ("ETag", "\"a\""), ("New", "2"), html], "")
        }
    });
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/x"), "MISS", "[]");
    assert_cached(&proxy.get("/api/x"), "REVALIDATED", "[]");
    let hit = proxy.get("/api/x");
    assert_cached(&hit, "HIT", "[]");
    assert_eq!((hit.field("Kept"), hit.field("New")), (Some("1"), Some("2")));
    assert_eq!(hit.field("Content-Type"), Some("application/json"));
    assert_eq!(origin.count(), 2);
}

/// RFC 9111 section 4.3.5.
#[test]
fn head_of_the_same_representation_renews_it_and_of_another_one_removes_it() {
    for (tag, kept) in [("\"a\"", true), ("\"b\"", false)] {
        let origin = Origin::respond(move |asked| match asked.method.as_str() {
            "HEAD" => {
                let mut head = answer(200, &[MINUTE, ("ETag", tag), ("New", "2")], "body");
                head.truncate(head.len() - 4);
                head
            }
            _ => answer(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")], "body"),
        });
        let proxy = Setup::over(&origin).start();
        proxy.get("/api/x");
        proxy.ask("HEAD", "/api/x", &[]);
        let after = proxy.get("/api/x");
        assert_eq!(after.cache() == "HIT", kept, "{tag}: {after:?}");
        assert_eq!(after.field("New"), kept.then_some("2"), "{tag}");
    }
}

/// RFC 9110 section 9.3.3: in each form that Content-Location can name the target in, with an
/// explicit lifetime.
#[test]
fn post_that_says_what_its_target_now_is_fills_get() {
    let rows = [
        ("/x", "max-age=60", "HIT"),
        ("x", "max-age=60", "HIT"),
        ("", "s-maxage=60", "HIT"),
        ("http://ORIGIN/x", "max-age=60", "HIT"),
        ("//ORIGIN/x", "max-age=60", "HIT"),
        ("/y", "max-age=60", "MISS"),
        ("/x?a=1", "max-age=60", "MISS"),
        ("http://elsewhere.example/x", "max-age=60", "MISS"),
        ("/x", "public", "MISS"),
        ("/x", "max-age=60, no-store", "MISS"),
    ];
    for (location, cache_control, verdict) in rows {
        let origin = Origin::respond(move |asked| match asked.method.as_str() {
            "POST" => {
                let location = location.replace("ORIGIN", asked.field("Host").unwrap());
                let fields = [("Cache-Control", cache_control), ("Content-Location", &location)];
                answer(200, &fields, "made")
            }
            _ => answer(200, &[MINUTE], "got"),
        });
        let proxy = Setup::over(&origin).start();
        let made = send(&proxy, "POST", "/api/x", "application/json", "{}");
        assert_cached(&made, "BYPASS", "made");
        let got = proxy.get("/api/x");
        assert_eq!(got.cache(), verdict, "{location} {cache_control}");
        assert_eq!(got.text(), if verdict == "HIT" { "made" } else { "got" });
    }
}

/// Purges of other keys don't keep it from being stored.
#[test]
fn posts_fill_get_while_others_invalidate() {
    let origin = Origin::respond(|asked| match asked.method.as_str() {
        "POST" => answer(200, &[MINUTE, ("Content-Location", &asked.target)], "made"),
        _ => answer(200, &[MINUTE], "got"),
    });
    let proxy = Setup::over(&origin).start();
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let proxy = &proxy;
            scope.spawn(move || {
                for number in 0..10 {
                    let target = format!("/api/{writer}/{number}");
                    send(proxy, "POST", &target, "application/json", "{}");
                    assert_cached(&proxy.get(&target), "HIT", "made");
                }
            });
        }
    });
}

/// RFC 9111 section 4.4: the target, Location and Content-Location of the same origin, on every
/// core, before the answer; nothing of another origin; nothing when it failed.
#[test]
fn success_of_an_unsafe_method_removes_what_it_names() {
    let origin = Origin::respond(|asked| match asked.method.as_str() {
        "GET" => answer(200, &[MINUTE], "got"),
        _ => {
            let status = if asked.target.ends_with("failed") { 500 } else { 201 };
            let foreign = ("Content-Location", "http://elsewhere.example/other");
            answer(status, &[("Location", "/made/../new?a=1"), foreign], "")
        }
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    let rows = [
        ("/api/x", "MISS"),
        ("/api/new?a=1", "MISS"),
        ("/api/new", "HIT"),
        ("/api/other", "HIT"),
        ("/api/failed", "HIT"),
    ];
    for (target, _) in rows {
        proxy.get(target);
    }
    send(&proxy, "PUT", "/api/failed", "application/json", "{}");
    send(&proxy, "PUT", "/api/x", "application/json", "{}");
    for (target, verdict) in rows {
        assert_eq!(proxy.get(target).cache(), verdict, "{target}");
    }
}

/// RFC 9110 section 15.2: interim answers go on and are not stored.
#[test]
fn interim_answers_reach_the_client_and_not_the_cache() {
    let origin = Origin::respond(|_| {
        let mut bytes = b"HTTP/1.1 102 Processing\r\n\r\n".to_vec();
        bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        bytes.extend_from_slice(&answer(200, &[MINUTE], "body"));
        bytes
    });
    let proxy = Setup::over(&origin).start();
    let miss = proxy.get("/api/x");
    let statuses: Vec<_> = miss.interim.iter().map(|it| it.0).collect();
    assert_eq!(statuses, [102, 103]);
    assert_eq!(miss.interim[1].1.only("Link"), Some("</a>"));
    assert_eq!(miss.field("Link"), None);
    let hit = proxy.get("/api/x");
    assert_cached(&hit, "HIT", "body");
    assert!(hit.interim.is_empty() && hit.field("Link").is_none());
}

/// RFC 5861 section 3.
#[test]
fn stale_answer_is_given_at_once_and_renewed_in_the_background() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::respond(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200, &[("Cache-Control", "max-age=0, stale-while-revalidate=60")], "old"),
        _ => answer(200, &[MINUTE], "new"),
    });
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/x"), "MISS", "old");
    assert_cached(&proxy.get("/api/x"), "STALE", "old");
    eventually("the refreshed answer is served", || proxy.get("/api/x").text() == "new");
    assert_eq!(origin.count(), 2);
}

/// RFC 5861 section 4, and the back-off that spares a failing origin.
#[test]
fn outage_costs_the_origin_one_attempt_for_many_requests() {
    let failing = Arc::new(AtomicUsize::new(0));
    let fails = Arc::clone(&failing);
    let origin = Origin::respond(move |_| match fails.load(Ordering::SeqCst) {
        0 => answer(200, &[("Cache-Control", "max-age=0")], "good"),
        _ => answer(503, &[], "bad"),
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    proxy.get("/api/x");
    failing.store(1, Ordering::SeqCst);
    let mut client = proxy.connect();
    for _ in 0..50 {
        assert_cached(&client.get("/api/x"), "STALE", "good");
    }
    // One each second at first; fifty requests on one connection take far less than ten.
    assert!(origin.count() <= 1 + 10, "{} attempts", origin.count());
}

/// Members in any order and white space make no difference; everything else does.
#[test]
fn bodies_are_part_of_the_key_in_canonical_form() {
    for method in ["POST", "QUERY"] {
        let origin = counting(&[MINUTE]);
        let proxy = Setup::over(&origin).with("cache.methods", json!(["GET", method])).start();
        let json = "application/json";
        let rows = [
            (json, "{\"a\":1,\"b\":[1,2]}", "MISS", "answer 0"),
            (json, "{ \"b\" : [1, 2],\n\"a\" : 1 }", "HIT", "answer 0"),
            (json, "{\"a\":1.0,\"b\":[1,2]}", "MISS", "answer 1"),
            (json, "{\"a\":1,\"b\":[2,1]}", "MISS", "answer 2"),
            ("application/vnd.a+json", "{\"a\":1,\"b\":[1,2]}", "MISS", "answer 3"),
            (json, "{\"a\":1,\"a\":1}", "BYPASS", "answer 4"),
            (json, "{\"a\":1,\"b\":[1,2]}", "HIT", "answer 0"),
        ];
        for (content_type, body, verdict, text) in rows {
            let response = send(&proxy, method, "/api/x", content_type, body);
            assert_eq!((response.cache(), response.text()), (verdict, text), "{method} {body}");
        }
        assert_eq!(proxy.get("/api/x").cache(), "MISS", "{method} and GET share no answer");
    }
}
