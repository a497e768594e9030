//! Overrides of routes, each by itself, and which route holds for a path.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::client::request;
use support::{Origin, Proxy, Response, Setup, answer, assert_cached};

/// An origin whose answer says what its first path segment is named after.
fn origin() -> Origin {
    Origin::respond(|asked| {
        let cache_control = match asked.target.split(['/', '?']).nth(1) {
            Some("silent") => "x",
            Some("brief") => "max-age=0",
            Some("long") => "max-age=600",
            Some("secret") => "private, max-age=600",
            Some("never") => "no-store",
            _ => "max-age=60",
        };
        answer(200, &[("Cache-Control", cache_control)], &asked.target)
    })
}

/// A daemon with these routes to the same origin.
fn with_routes(origin: &Origin, routes: &[Value]) -> Proxy {
    let of = |route: &Value| {
        let mut route = route.clone();
        route["entry_point"] = json!(origin.url());
        route
    };
    let routes: Vec<Value> = routes.iter().map(of).collect();
    Setup::over(origin).with("routes", routes).with("cache.stale_if_error", 0).start()
}

/// Whether the second of two requests is answered from the cache.
fn keeps(proxy: &Proxy, target: &str) -> bool {
    proxy.get(target);
    proxy.get(target).cache() == "HIT"
}

fn send(proxy: &Proxy, method: &str, target: &str, body: &str) -> Response {
    let mut client = proxy.connect();
    client.send(request(method, target, &[("Content-Type", "application/json")], body));
    client.read(method)
}

/// `ttl` is the lifetime where the origin states none; its own word comes first.
#[test]
fn ttl_holds_where_the_origin_is_silent() {
    let origin = origin();
    let proxy = with_routes(
        &origin,
        &[
            json!({"prefix": "/silent/none", "ttl": 0}),
            json!({"prefix": "/long", "ttl": 0}),
            json!({"prefix": "/brief", "ttl": 600}),
        ],
    );
    assert!(keeps(&proxy, "/api/silent/x"), "cache.ttl");
    assert!(!keeps(&proxy, "/api/silent/none/x"));
    assert!(keeps(&proxy, "/api/long/x"));
    assert!(!keeps(&proxy, "/api/brief/x"));
}

/// `force_ttl` is the lifetime whatever the origin says; what must not be stored is not.
#[test]
fn forced_ttl_holds_against_the_origin_but_lifts_no_ban() {
    let origin = origin();
    let forced = |prefix: &str, secs: u64| json!({"prefix": prefix, "force_ttl": secs});
    let routes =
        [forced("/brief", 600), forced("/secret", 600), forced("/never", 600), forced("/long", 0)];
    let proxy = with_routes(&origin, &routes);
    for (target, kept) in [
        ("/api/brief/x", true),
        ("/api/secret/x", false),
        ("/api/never/x", false),
        ("/api/long/x", false),
    ] {
        assert_eq!(keeps(&proxy, target), kept, "{target}");
    }
    let said = proxy.get("/cache/explain?path=/brief/x").json();
    assert_eq!(said["stored"]["lifetime_source"], "forced");
}

/// It counts from reception, however old the answer is when it comes.
#[test]
fn forced_ttl_counts_from_reception() {
    let old = "Mon, 01 Jan 2024 00:00:00 GMT";
    let origin = Origin::respond(move |asked| {
        let fields: &[(&str, &str)] = match asked.target.as_str() {
            "/aged" => &[("Age", "100"), ("Cache-Control", "max-age=50")],
            "/dated" => &[("Date", old)],
            _ => &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")],
        };
        answer(200, fields, "x")
    });
    let proxy = with_routes(&origin, &[json!({"prefix": "/", "force_ttl": 600})]);
    for (target, age) in [("/api/aged", 100), ("/api/dated", 50_000_000)] {
        proxy.get(target);
        let hit = proxy.get(target);
        assert_eq!(hit.cache(), "HIT", "{target}");
        assert!(hit.age().unwrap() >= age, "the age that is told is the true one: {target}");
        let status = hit.field("Cache-Status").unwrap();
        assert!(status.contains("ttl=599") || status.contains("ttl=600"), "{target}: {status}");
    }
    assert!(!keeps(&proxy, "/api/unused"), "no-cache still holds");
}

#[test]
fn methods_are_those_of_the_route() {
    let origin = origin();
    let routes = [
        json!({"prefix": "/search", "methods": ["POST", "QUERY"]}),
        json!({"prefix": "/plain", "methods": []}),
    ];
    let proxy = with_routes(&origin, &routes);
    for method in ["POST", "QUERY"] {
        assert_eq!(send(&proxy, method, "/api/search/x", "{\"a\":1}").cache(), "MISS");
        assert_eq!(send(&proxy, method, "/api/search/x", "{ \"a\": 1 }").cache(), "HIT");
        assert_eq!(send(&proxy, method, "/api/search/x", "{\"a\":2}").cache(), "MISS");
    }
    assert_eq!(send(&proxy, "POST", "/api/x", "{}").cache(), "BYPASS");
    assert_eq!(send(&proxy, "POST", "/api/x", "{}").cache(), "BYPASS");
    for target in ["/api/search/x", "/api/plain/x"] {
        for _ in 0..2 {
            assert_eq!(proxy.get(target).cache(), "BYPASS", "{target}");
        }
    }
    assert!(keeps(&proxy, "/api/x"));
}

/// `ignore_query` leaves it out of the key, not out of the request; unsafe methods invalidate
/// whatever their query is.
#[test]
fn ignored_query_is_sent_and_not_looked_at() {
    let origin = origin();
    let proxy = with_routes(&origin, &[json!({"prefix": "/one", "ignore_query": true})]);
    assert_cached(&proxy.get("/api/one?a=1"), "MISS", "/one?a=1");
    assert_cached(&proxy.get("/api/one?a=2"), "HIT", "/one?a=1");
    assert_cached(&proxy.get("/api/one"), "HIT", "/one?a=1");
    send(&proxy, "PUT", "/api/one?b=3", "{}");
    assert_cached(&proxy.get("/api/one?a=4"), "MISS", "/one?a=4");
    proxy.get("/api/two?a=1");
    assert_cached(&proxy.get("/api/two?a=2"), "MISS", "/two?a=2");
}

#[test]
fn stale_answers_stand_in_for_errors_where_the_route_allows_it() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let origin = Origin::respond(move |asked| {
        if failing.load(Ordering::SeqCst) {
            return answer(503, &[], "down");
        }
        answer(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")], &asked.target)
    });
    let routes = json!([{"prefix": "/soft", "entry_point": origin.url(), "stale_if_error": 600},
                        {"prefix": "/hard", "entry_point": origin.url(), "stale_if_error": 0}]);
    let setup = Setup::over(&origin).with("routes", routes).with("cache.stale_if_error", 600);
    let proxy = setup.with("client.circuit_breaker_enabled", false).start();
    for target in ["/api/soft/x", "/api/hard/x", "/api/x"] {
        proxy.get(target);
    }
    fails.store(true, Ordering::SeqCst);
    assert_cached(&proxy.get("/api/soft/x"), "STALE", "/soft/x");
    assert_cached(&proxy.get("/api/x"), "STALE", "/x");
    let hard = proxy.get("/api/hard/x");
    assert_eq!((hard.status, hard.text()), (503, "down"));
}

/// The longest prefix wins, whatever the order in the file, and ends at a segment's border.
#[test]
fn longest_prefix_wins_in_any_order() {
    let origin = origin();
    let mut routes = [
        json!({"prefix": "/silent", "ttl": 0}),
        json!({"prefix": "/silent/deep", "ttl": 600}),
        json!({"prefix": "/silent/deep/down", "ttl": 0}),
    ];
    for _ in 0..2 {
        let proxy = with_routes(&origin, &routes);
        for (target, kept) in [
            ("/api/silent", false),
            ("/api/silent/x", false),
            ("/api/silent/deep", true),
            ("/api/silent/deep/x", true),
            ("/api/silent/deeper/x", false),
            ("/api/silent/deep/down/x", false),
        ] {
            assert_eq!(keeps(&proxy, target), kept, "{target}");
        }
        routes.reverse();
    }
}

/// RFC 9111 section 4.4: a client follows Location as it stands, and so it is a path of the route's
/// clients, not of its upstream.
#[test]
fn location_under_a_stripped_prefix_invalidates_what_clients_know_by_it() {
    let origin = Origin::respond(|asked| match asked.method.as_str() {
        "POST" => answer(201, &[("Location", "/api/s/new"), ("X-Request-Id", "theirs")], ""),
        _ => answer(200, &[("Cache-Control", "max-age=600")], &asked.target),
    });
    let route = json!([{ "prefix": "/s", "entry_point": origin.url(), "strip_prefix": true }]);
    let proxy = Setup::over(&origin).with("routes", route).start();
    for verdict in ["MISS", "HIT"] {
        assert_eq!(proxy.get("/api/s/new").cache(), verdict);
    }
    let made = proxy.connect().post("/api/s/items", "{}");
    assert_eq!(made.status, 201);
    // Nor is there an id but the daemon's own.
    assert_eq!(made.fields.all("X-Request-Id").count(), 1, "{made:?}");
    assert_ne!(made.field("X-Request-Id"), Some("theirs"));
    assert_eq!(proxy.get("/api/s/new").cache(), "MISS");
}
