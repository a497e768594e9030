//! Errors of every kind, and what every answer carries.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use serde_json::json;
use support::tls;
use support::{Connection, Gate, Origin, Proxy, Response, Setup, answer};

/// As configured by default, in clear text.
const SECURITY: [(&str, &str); 5] = [
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-XSS-Protection", "1; mode=block"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Content-Security-Policy", "default-src 'self'"),
];

/// Each field once, and the id.
#[track_caller]
fn assert_carries(what: &str, response: &Response, hsts: Option<&str>) {
    for (name, value) in SECURITY {
        assert_eq!(response.field(name), Some(value), "{what}: {response:?}");
    }
    assert_eq!(response.field("Strict-Transport-Security"), hsts, "{what}: {response:?}");
    assert!(response.field("X-Request-Id").is_some_and(|it| !it.is_empty()), "{what}");
    let text = String::from_utf8_lossy(&response.body).to_ascii_lowercase();
    assert!(!text.contains("<html") && !text.contains("<!doctype"), "{what}: {text}");
    let kind = response.field("Content-Type").unwrap_or_default();
    assert!(!kind.contains("html"), "{what}: {kind}");
}

/// A problem document, of that status and code, that names nothing of the inside.
#[track_caller]
fn assert_problem(what: &str, response: &Response, status: u16, code: &str) {
    assert_carries(what, response, None);
    assert_eq!((response.status, response.problem().as_str()), (status, code), "{what}");
    let problem = response.json();
    assert_eq!(problem["request_id"].as_str(), response.field("X-Request-Id"), "{what}");
    assert_eq!(problem["type"], "about:blank", "{what}");
    let text = response.text();
    for inside in
        ["127.0.0.1", "localhost", "/tmp", "sqlite", "rustls", "monoio", "os error", ".rs"]
    {
        assert!(!text.contains(inside), "{what} names {inside}: {text}");
    }
    assert_eq!(response.field("Cache-Control"), Some("no-store"), "{what}");
    let waits = matches!(status, 429 | 503);
    assert_eq!(response.field("Retry-After").is_some(), waits, "{what}: {response:?}");
}

/// An origin that fails in the way that the path says.
fn failing() -> Origin {
    let never = Gate::default();
    Origin::script(move |connection: &mut Connection| {
        while let Some(request) = connection.request() {
            let sent = match request.target.split('/').nth(1).unwrap_or_default() {
                "broken" => connection.send("this is no HTTP\r\n\r\n"),
                "large" => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
                "slow" => {
                    // The daemon gives up and closes.
                    connection.await_close();
                    return;
                }
                "reset" => {
                    connection.reset();
                    return;
                }
                _ => connection.send(answer(200, &[("Cache-Control", "max-age=60")], "fine")),
            };
            if !sent {
                never.open();
                return;
            }
        }
    })
}

/// A daemon with small limits and short times, where errors are soon to be had.
fn strict(origin: &Origin) -> Proxy {
    Setup::over(origin)
        .with("routes", json!([{"prefix": "/dead", "entry_point": "http://127.0.0.1:9"}]))
        .with("client.request_timeout", 1)
        .with("client.circuit_breaker_enabled", false)
        .with("server.read_timeout", 1)
        .with("security.max_response_body_size", 1_000)
        .with("security.max_request_body_size", 1_000)
        .with("security.admin_token", "operator")
        .start()
}

#[test]
fn what_is_refused_and_what_fails_is_a_problem() {
    let origin = failing();
    let proxy = strict(&origin);
    for (method, target, status, code) in [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("TRACE", "/api/x", 405, "method_not_allowed"),
        ("BREW", "/api/x", 501, "method_not_implemented"),
        ("POST", "/cache/clear", 401, "unauthorized"),
        ("GET", "/api/a%2fb", 400, "bad_request"),
        ("GET", "/api/broken", 502, "upstream_invalid"),
        ("GET", "/api/large", 502, "upstream_too_large"),
        ("GET", "/api/reset", 502, "upstream_unreachable"),
        ("GET", "/api/dead/x", 502, "upstream_unreachable"),
        ("GET", "/api/slow", 504, "upstream_timeout"),
    ] {
        let what = format!("{method} {target}");
        assert_problem(&what, &proxy.ask(method, target, &[]), status, code);
    }
    let only = [("Cache-Control", "only-if-cached")];
    assert_problem("cached", &proxy.ask("GET", "/api/new", &only), 504, "only_if_cached");
    let twice = [("X-API-Key", "a"), ("X-API-Key", "b")];
    assert_problem("two keys", &proxy.ask("GET", "/api/x", &twice), 400, "bad_request");
}

/// Method, fields and what follows the head; status and code.
type Bad = (&'static str, &'static str, &'static str, u16, &'static str);

const JSON: &str = "Content-Type: application/json\r\n";

const BAD: [Bad; 11] = [
    ("GET", "Content-Length: 1\r\nContent-Length: 2\r\n", "", 400, "bad_request"),
    ("GET", "Host: again\r\n", "", 400, "bad_request"),
    ("GET", "X : y\r\n", "", 400, "bad_request"),
    ("POST", "Expect: more\r\nContent-Length: 1\r\n", "", 417, "expectation_failed"),
    ("POST", "Transfer-Encoding: gzip, chunked\r\n", "", 501, "not_implemented"),
    ("POST", "Content-Length: 9999\r\n", "", 413, "content_too_large"),
    ("POST", "Content-Length: 1\r\n", "x", 415, "unsupported_media_type"),
    ("POST", "JSON Content-Length: 1\r\n", "x", 400, "bad_request"),
    ("POST", "JSON Content-Length: 9\r\n", "{", 408, "request_timeout"),
    ("POST", "JSON Transfer-Encoding: chunked\r\n", "zz\r\n", 400, "bad_request"),
    ("POST", "JSON Transfer-Encoding: chunked\r\n", "5\r\n{", 408, "request_timeout"),
];

#[test]
fn a_message_that_breaks_the_rules_is_answered_with_a_problem() {
    let origin = failing();
    let proxy = strict(&origin);
    let ask = |what: &str, bytes: &str, status: u16, code: &str| {
        let mut client = proxy.connect();
        client.try_send(bytes).ok();
        assert_problem(what, &client.read("GET"), status, code);
    };
    for (method, fields, rest, status, code) in BAD {
        let fields = fields.replace("JSON ", JSON);
        let bytes = format!("{method} /api/x HTTP/1.1\r\nHost: h\r\n{fields}\r\n{rest}");
        ask(&bytes, &bytes, status, code);
    }
    ask("no HTTP", "hello\r\n\r\n", 400, "bad_request");
    ask("no host", "GET /api/x HTTP/1.1\r\n\r\n", 400, "bad_request");
    ask("version", "GET /api/x HTTP/3.0\r\nHost: h\r\n\r\n", 505, "version_not_supported");
    ask("slow head", "GET /api/x HTTP/1.1\r\nHost:", 408, "request_timeout");
    let long = format!("GET /api/{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(9_000));
    ask("long target", &long, 414, "target_too_long");
    let long = format!("GET /api/x HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    ask("long head", &long, 431, "head_too_large");
    let many = format!("GET /api/x HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(200));
    ask("many fields", &many, 431, "head_too_large");
}

#[test]
fn errors_of_the_guards_are_problems_likewise() {
    let origin = failing();
    let limited = Setup::over(&origin)
        .with("security.rate_limit_enabled", true)
        .with("security.rate_limit_burst", 1)
        .with("security.client_api_keys", json!(["k"]))
        .with("whitelisted_endpoints", json!(["/x", "/slow"]))
        .start();
    let key = [("X-API-Key", "k")];
    assert_problem("list", &limited.ask("GET", "/api/y", &key), 403, "endpoint_not_allowed");
    assert_problem("key", &limited.get("/api/x"), 401, "unauthorized");
    assert_problem("limit", &limited.ask("GET", "/api/x", &key), 429, "rate_limited");

    let broken = Setup::over(&origin)
        .with("client.circuit_breaker_threshold", 1)
        .with("offline_endpoints", json!(["/offline"]))
        .with("routes", json!([{"prefix": "/offline", "entry_point": "http://127.0.0.1:9"}]))
        .start();
    assert_eq!(broken.get("/api/reset").status, 502);
    assert_problem("breaker", &broken.get("/api/x"), 503, "circuit_open");
    assert_problem("offline", &broken.get("/api/offline"), 503, "offline_not_cached");
}

#[test]
fn a_name_that_cannot_be_resolved_is_a_problem() {
    let proxy = Setup::at("http://upstream.invalid").start();
    assert_problem("unresolved", &proxy.get("/api/y"), 502, "upstream_unreachable");
}

#[test]
fn answers_of_every_kind_carry_the_fields_once() {
    let origin = Origin::respond(|request| {
        let fields: &[(&str, &str)] = match request.target.as_str() {
            "/own" => &[("Cache-Control", "max-age=60"), ("x-frame-options", "SAMEORIGIN")],
            "/pass" => &[("Cache-Control", "no-store")],
            _ => &[("Cache-Control", "max-age=60"), ("ETag", "\"1\"")],
        };
        answer(200, fields, "0123456789")
    });
    let proxy = Setup::over(&origin).start();
    for (method, target, fields, status) in [
        ("GET", "/api/x", &[][..], 200),
        ("GET", "/api/x", &[], 200),
        ("HEAD", "/api/x", &[], 200),
        ("GET", "/api/x", &[("If-None-Match", "\"1\"")], 304),
        ("GET", "/api/x", &[("Range", "bytes=0-3")], 206),
        ("GET", "/api/x", &[("Range", "bytes=99-")], 416),
        ("GET", "/api/x", &[("Cache-Control", "no-cache")], 200),
        ("GET", "/api/pass", &[], 200),
        ("DELETE", "/api/pass", &[], 200),
        ("OPTIONS", "/api/x", &[("Max-Forwards", "0")], 204),
        ("GET", "/health", &[], 200),
        ("GET", "/livez", &[], 200),
        ("GET", "/readyz", &[], 200),
        ("GET", "/metrics", &[], 200),
        ("GET", "/cache/stats", &[], 200),
        ("GET", "/cache/explain?path=/x", &[], 200),
        ("POST", "/cache/expire?path=/x", &[], 200),
        ("DELETE", "/cache/entries?path=/x", &[], 200),
        ("POST", "/cache/clear", &[], 200),
        ("HEAD", "/health", &[], 200),
    ] {
        let response = proxy.ask(method, target, fields);
        assert_eq!(response.status, status, "{method} {target} {fields:?}");
        assert_carries(&format!("{method} {target} {fields:?}"), &response, None);
    }
    let mut star = proxy.connect();
    star.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_carries("OPTIONS *", &star.read("OPTIONS"), None);
    // What the origin says itself is not said twice, nor otherwise; stored or not.
    for _ in 0..2 {
        let own = proxy.get("/api/own");
        assert_eq!(own.field("X-Frame-Options"), Some("SAMEORIGIN"), "{own:?}");
        assert_eq!(own.field("X-Content-Type-Options"), Some("nosniff"));
    }
}

#[test]
fn fields_are_as_configured_and_an_empty_one_is_dropped() {
    let origin = failing();
    let headers = json!({"X-Frame-Options": "", "Referrer-Policy": "no-referrer", "X-More": "a b"});
    let proxy = Setup::over(&origin).with("security.headers", headers).start();
    for target in ["/api/x", "/api/x", "/nowhere", "/health"] {
        let response = proxy.get(target);
        assert_eq!(response.field("X-Frame-Options"), None, "{target}");
        assert_eq!(response.field("Referrer-Policy"), Some("no-referrer"), "{target}");
        assert_eq!(response.field("X-More"), Some("a b"), "{target}");
        assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"), "{target}");
    }
}

#[test]
fn transport_security_is_promised_over_tls_only() {
    let origin = failing();
    let made = tls::make();
    let proxy = made.shown_by(Setup::over(&origin)).start();
    let mut secure = made.connect(proxy.addr()).unwrap();
    let hsts = Some("max-age=31536000; includeSubDomains");
    for target in ["/api/x", "/api/x", "/nowhere", "/health", "/metrics"] {
        assert_carries(target, &secure.ask("GET", target, &[]), hsts);
    }
}

/// What a client writes and the daemon repeats can't become a field, a message or markup.
#[test]
fn echoed_values_split_nothing() {
    let origin = failing();
    let proxy = Setup::over(&origin).start();
    let evil = [
        "a\r\nX-Injected: 1",
        "a\nX-Injected: 1",
        "a\rX-Injected: 1",
        "a\0b",
        "<script>alert(1)</script>",
        "a%0d%0aX-Injected:%201",
    ];
    for value in evil {
        for field in ["X-Request-Id", "X-API-Key", "Origin", "Host", "Range", "traceparent"] {
            let mut client = proxy.connect();
            let host = if field == "Host" { "" } else { "Host: h\r\n" };
            client.send(format!("GET /api/x HTTP/1.1\r\n{host}{field}: {value}\r\n\r\n"));
            let response = client.read("GET");
            assert_eq!(response.field("X-Injected"), None, "{field}: {value:?}");
            let text = format!("{response:?}");
            assert!(!text.contains("<script>"), "{field}: {text}");
        }
        let mut client = proxy.connect();
        client.send(format!("GET /api/nowhere/{value} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let response = client.read("GET");
        assert_eq!(response.field("X-Injected"), None);
        assert!(!format!("{response:?}").contains("<script>"), "{response:?}");
        let mut client = proxy.connect();
        client.send(format!("GET /{value} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(!format!("{:?}", client.read("GET")).contains("<script>"));
    }
}
