//! The operator's endpoints.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::client::request;
use support::{Gate, Origin, Setup, answer, eventually};

#[test]
fn health_is_ok_and_says_what_runs() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    let health = proxy.get("/health");
    assert_eq!((health.status, health.field("Content-Type")), (200, Some("application/json")));
    let health = health.json();
    assert_eq!(health["status"], "ok", "{health}");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["database"], "ok", "{health}");
    assert_eq!(health["components"]["upstream_client"], "ok", "{health}");
    assert!(health["uptime"].is_number() || health["uptime"].is_string(), "{health}");
    assert_eq!(origin.count(), 0, "health never asks the origin");
}

#[test]
fn health_has_the_promised_members_in_their_order() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).with("security.rate_limit_enabled", true).start();
    let health = proxy.get("/health");
    let text = health.text();
    let names = ["\"status\":\"ok\"", "\"version\":\"", "\"uptime\":", "\"database\":\"ok\""];
    let places: Vec<usize> = names.iter().map(|it| text.find(it).unwrap_or(usize::MAX)).collect();
    assert!(places.is_sorted() && places[3] < text.len(), "{text}");
    let health = health.json();
    let components = serde_json::json!({"upstream_client": "ok", "rate_limiter": "ok"});
    assert_eq!(health["components"], components);
    assert_eq!(health["cores"]["total"], 2);
    assert_eq!(health["cores"]["alive"], 2);
    assert_eq!(health["upstreams"][0]["name"], origin.url().as_str());
    assert_eq!(health["upstreams"][0]["state"], "ok");
}

/// The storage thread's heartbeat and last results tell; the database is not asked.
#[test]
fn health_never_waits_for_the_database() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    let database = rusqlite::Connection::open(setup.home().join("cache.db")).unwrap();
    // Nobody else can write, and whoever tries waits.
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    proxy.get("/api/v1/x");
    let start = Instant::now();
    let mut client = proxy.connect();
    for _ in 0..200 {
        let health = client.get("/health");
        assert!(matches!(health.status, 200 | 503), "{health:?}");
    }
    // A look-up in a locked database takes seconds, each.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    database.execute_batch("ROLLBACK").unwrap();
    eventually("it is well again", || proxy.get("/health").status == 200);
}

#[test]
fn health_is_503_and_degraded_while_the_second_tier_is_away() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let dsn = "postgres://nobody@127.0.0.1:9/none?connect_timeout=1";
    let setup = Setup::over(&origin).with("cache.backend", "postgres");
    let proxy = setup.with("cache.postgres_dsn", dsn).start();
    eventually("it is degraded", || proxy.get("/health").status == 503);
    let health = proxy.get("/health").json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert_ne!(health["database"], "ok", "{health}");
    // It serves all the same, and says so to whoever decides where requests go.
    assert_eq!(proxy.get("/api/v1/x").status, 200);
    assert_eq!((proxy.get("/readyz").status, proxy.get("/livez").status), (200, 200));
}

#[test]
fn health_shows_the_breaker_of_each_upstream() {
    let dead = "http://127.0.0.1:9";
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin)
        .with("routes", serde_json::json!([{"prefix": "/dead", "entry_point": dead}]))
        .with("client.circuit_breaker_threshold", 1)
        .start();
    assert_eq!(proxy.get("/api/dead/x").status, 502);
    let health = proxy.get("/health");
    // The daemon does what it is for: stale answers would go as well if it were taken away.
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!(health["components"]["upstream_client"], "circuit_open", "{health}");
    let states = health["upstreams"].as_array().unwrap().iter();
    let states: Vec<_> =
        states.map(|it| (it["name"].as_str().unwrap(), it["state"].as_str().unwrap())).collect();
    assert_eq!(states, [(origin.url().as_str(), "ok"), (dead, "circuit_open")]);
    let series = format!("apiproxyd_breaker_state{{upstream=\"{dead}\",state=\"open\"}}");
    assert_eq!(support::Metrics::of(&proxy).value(&series), 1.0);
}

/// Told on connections that are there; new ones are not accepted any more.
#[test]
fn readiness_ends_with_the_order_to_stop() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[], "x")
    });
    let mut proxy = Setup::over(&origin).start();
    assert_eq!(proxy.get("/readyz").text(), "ok\n");
    // One exchange under way, and a request of which half has come.
    let mut busy = proxy.connect();
    busy.send(request("GET", "/api/x", &[], ""));
    origin.await_requests(1);
    let ready = request("GET", "/readyz", &[], "");
    let (first, rest) = ready.split_at(20);
    let mut asking = proxy.connect();
    asking.send(first);
    // Another answer on the core of each shows that what was sent before has been read.
    for _ in 0..20 {
        proxy.get("/livez");
    }
    let address = proxy.addr();
    proxy.signal(Signal::SIGTERM);
    eventually("the port is given up", || std::net::TcpStream::connect(address).is_err());
    asking.send(rest);
    let ready = asking.read("GET");
    assert_eq!((ready.status, ready.text()), (503, "draining\n"));
    drop(asking);
    gate.open();
    assert_eq!(busy.read("GET").status, 200);
    drop(busy);
    assert_eq!(proxy.await_exit(), Some(0), "{}", proxy.stderr());
}

#[test]
fn statistics_have_the_promised_numbers() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    let stats = proxy.stats();
    for name in ["entries", "size_bytes", "hit_rate", "hits", "misses"] {
        assert!(stats[name].is_number(), "{name} in {stats}");
    }
}

#[test]
fn clear_answers_with_json_and_makes_the_next_request_a_miss() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let proxy = Setup::over(&origin).start();
    for verdict in ["MISS", "HIT"] {
        assert_eq!(proxy.get("/api/v1/x").cache(), verdict);
    }
    let cleared = proxy.ask("POST", "/cache/clear", &[]);
    assert_eq!((cleared.status, cleared.field("Content-Type")), (200, Some("application/json")));
    cleared.json();
    for verdict in ["MISS", "HIT"] {
        assert_eq!(proxy.get("/api/v1/x").cache(), verdict);
    }
}

#[test]
fn metrics_are_served_in_both_formats() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/v1/x");
    let classic = proxy.get("/metrics");
    assert_eq!(classic.status, 200, "{classic:?}");
    assert!(classic.field("Content-Type").unwrap().starts_with("text/plain"), "{classic:?}");
    assert!(classic.text().contains("# TYPE apiproxyd_"), "{}", classic.text());
    let open = proxy.ask("GET", "/metrics", &[("Accept", "application/openmetrics-text")]);
    assert!(open.field("Content-Type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"), "{}", open.text());
}

#[test]
fn metrics_token_is_asked_for_where_one_is_set() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let setup = Setup::over(&origin).with("security.metrics_auth_enabled", true);
    let proxy = setup.with("security.metrics_auth_token", "letmein").start();
    let rows = [
        ("/metrics", &[][..], 401),
        ("/metrics", &[("Authorization", "Bearer wrong")], 401),
        ("/metrics?token=wrong", &[], 401),
        ("/metrics", &[("Authorization", "Bearer letmein")], 200),
        ("/metrics?token=letmein", &[], 200),
    ];
    for (target, fields, status) in rows {
        assert_eq!(proxy.ask("GET", target, fields).status, status, "{target} {fields:?}");
    }
    assert!(!proxy.stderr().contains("letmein"));
}

#[test]
fn admin_token_guards_the_clear_where_one_is_set() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let proxy = Setup::over(&origin).with("security.admin_token", "letmein").start();
    proxy.get("/api/v1/x");
    for fields in [&[][..], &[("Authorization", "Bearer wrong")]] {
        let refused = proxy.ask("POST", "/cache/clear", fields);
        assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthorized"));
        assert_eq!(proxy.get("/api/v1/x").cache(), "HIT");
    }
    let fields = [("Authorization", "Bearer letmein")];
    assert_eq!(proxy.ask("POST", "/cache/clear", &fields).status, 200);
    assert_eq!(proxy.get("/api/v1/x").cache(), "MISS");
}

#[test]
fn unknown_paths_and_methods_are_refused_as_problems() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    let rows = [
        ("GET", "/", 404, "not_found", None),
        ("GET", "/apix/v1", 404, "not_found", None),
        ("GET", "/health/x", 404, "not_found", None),
        ("GET", "/cache", 404, "not_found", None),
        ("POST", "/health", 405, "method_not_allowed", Some("GET")),
        ("DELETE", "/cache/stats", 405, "method_not_allowed", Some("GET")),
        ("GET", "/cache/clear", 405, "method_not_allowed", Some("POST")),
        ("PUT", "/metrics", 405, "method_not_allowed", Some("GET")),
    ];
    for (method, target, status, code, allow) in rows {
        let response = proxy.ask(method, target, &[]);
        assert_eq!((response.status, response.problem().as_str()), (status, code), "{target}");
        if let Some(allow) = allow {
            let allowed = response.field("Allow").unwrap();
            assert!(allowed.split(", ").any(|it| it == allow), "{method} {target}: {allowed}");
        }
    }
    assert_eq!(origin.count(), 0);
}

/// RFC 9110 section 9.3.2.
#[test]
fn head_of_an_endpoint_has_the_fields_and_no_body() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    let head = client.ask("HEAD", "/health", &[]);
    assert_eq!((head.status, head.field("Content-Type")), (200, Some("application/json")));
    assert_eq!(client.get("/health").status, 200, "the connection is still in step");
}
