//! The operator's endpoints.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use support::{Origin, Setup, answer};

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
