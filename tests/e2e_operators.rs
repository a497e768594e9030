//! What operators may write, and who may pass for one.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use serde_json::json;
use support::client::request;
use support::{Origin, Proxy, Response, Setup, answer};

fn keeping() -> Origin {
    Origin::fixed(answer(200, &[("Cache-Control", "max-age=600"), ("ETag", "\"1\"")], "x"))
}

/// Fills the cache with these paths.
fn fill(proxy: &Proxy, paths: &[&str]) {
    for path in paths {
        proxy.get(&format!("/api{path}"));
        assert_eq!(proxy.get(&format!("/api{path}")).cache(), "HIT", "{path}");
    }
}

/// As programs encode a value, and as a person pastes it from a log.
#[test]
fn a_purge_finds_its_path_however_it_is_encoded() {
    let origin = keeping();
    let proxy = Setup::over(&origin).start();
    for (stored, written) in [
        (&["/v1/item:1"][..], "/v1/item:1"),
        (&["/v1/item:1"], "%2Fv1%2Fitem%3A1"),
        (&["/v1/item:1"], "/api/v1/item%3a1"),
        (&["/v1/item:1"], "%2Fapi%2Fv1%2Fitem%3A1"),
        (&["/v1/a&b", "/v1/a%26b"], "/v1/a%26b"),
        (&["/v1/a%26b"], "/v1/a%2526b"),
        (&["/v1/a%20b"], "/v1/a%2520b"),
        (&["/v1/a%20b"], "/v1/a%20b"),
        (&["/v1/a%20b"], "%2Fv1%2Fa%20b"),
        (&["/v1/it's", "/v1/it%27s"], "/v1/it%27s"),
        (&["/v1/caf%C3%A9"], "%2Fv1%2Fcaf%C3%A9"),
        (&["/v1/caf%C3%A9"], "%2Fv1%2Fcaf%25C3%25A9"),
        (&["/v1/a+b"], "/v1/a+b"),
        (&["/v1/a+b"], "%2Fv1%2Fa%2Bb"),
    ] {
        fill(&proxy, stored);
        fill(&proxy, &["/v1/other"]);
        let purged = proxy.ask("DELETE", &format!("/cache/entries?path={written}"), &[]);
        assert_eq!(purged.status, 200, "{purged:?}");
        assert_eq!(purged.json()["entries"], stored.len(), "{written}: {purged:?}");
        for path in stored {
            assert_eq!(proxy.get(&format!("/api{path}")).cache(), "MISS", "{path} by {written}");
        }
        assert_eq!(proxy.get("/api/v1/other").cache(), "HIT", "{written}");
        proxy.ask("POST", "/cache/clear", &[]);
    }
    for bad in ["v1/x", "%76", "/v1/100%", "/v1/%zz", "/v1/x?q=1", "%2Fv1%2Fx%3Fq", ""] {
        let refused = proxy.ask("DELETE", &format!("/cache/entries?path={bad}"), &[]);
        assert_eq!(refused.status, 400, "{bad}: {refused:?}");
    }
}

#[test]
fn a_subtree_and_an_expiry_read_their_paths_likewise() {
    let origin = keeping();
    let proxy = Setup::over(&origin).start();
    for written in ["/v1/a%26b/", "%2Fv1%2Fa%26b%2F", "%2Fv1%2Fa%2526b%2F"] {
        let plain = written == "%2Fv1%2Fa%26b%2F";
        let path = if plain { "/v1/a&b/1" } else { "/v1/a%26b/1" };
        fill(&proxy, &[path]);
        let purged = proxy.ask("DELETE", &format!("/cache/entries?prefix={written}"), &[]);
        assert_eq!(purged.json()["entries"], 1, "{written}: {purged:?}");
        assert_eq!(proxy.get(&format!("/api{path}")).cache(), "MISS", "{written}");
    }
    for written in ["/v1/it%27s", "%2Fv1%2Fit's"] {
        fill(&proxy, &["/v1/it's"]);
        let expired = proxy.ask("POST", &format!("/cache/expire?path={written}"), &[]);
        assert_eq!(expired.json()["entries"], 1, "{written}: {expired:?}");
        let next = proxy.get("/api/v1/it's");
        assert!(next.field("Cache-Status").unwrap().contains("fwd=stale"), "{next:?}");
    }
}

/// The reading that something is stored for is the one that is meant.
#[test]
fn an_explanation_reads_its_path_likewise() {
    let origin = keeping();
    let proxy = Setup::over(&origin).start();
    fill(&proxy, &["/v1/a%26b", "/v1/a%20b", "/v1/q?x=1"]);
    for (written, path) in [
        ("/v1/a%26b", "/v1/a%26b"),
        ("/v1/a%2526b", "/v1/a%26b"),
        ("/v1/a%20b", "/v1/a%20b"),
        ("%2Fapi%2Fv1%2Fa%2520b", "/v1/a%20b"),
        ("/v1/q%3Fx=1", "/v1/q"),
    ] {
        let explained = proxy.get(&format!("/cache/explain?path={written}")).json();
        assert_eq!(explained["request"]["path"], path, "{written}: {explained}");
        assert_eq!(explained["action"], "serve", "{written}: {explained}");
    }
    // Of what is not stored, the decoded one.
    let explained = proxy.get("/cache/explain?path=/v1/new%26").json();
    assert_eq!(explained["request"]["path"], "/v1/new&", "{explained}");
    assert_eq!(proxy.get("/cache/explain?path=v1").status, 400);
}

#[test]
fn a_token_in_the_query_may_be_percent_encoded() {
    let origin = keeping();
    let setup = Setup::over(&origin).with("security.metrics_auth_enabled", true);
    let proxy = setup.with("security.metrics_auth_token", "a+b/c=").start();
    for (query, status) in [
        ("token=a+b/c=", 200),
        ("token=a%2Bb%2Fc%3D", 200),
        ("token=a%2bb/c=", 200),
        ("x=1&token=a+b/c=", 200),
        ("token=a%252Bb%252Fc%253D", 401),
        ("token=a b/c=", 400),
        ("token=a%20b/c=", 401),
        ("token=", 401),
        ("token", 401),
        ("", 401),
    ] {
        let mut client = proxy.connect();
        client.send(request("GET", &format!("/metrics?{query}"), &[], ""));
        assert_eq!(client.read("GET").status, status, "{query}");
    }
    let bearer = [("Authorization", "Bearer a+b/c=")];
    assert_eq!(proxy.ask("GET", "/metrics", &bearer).status, 200);
}

fn with(proxy: &Proxy, target: &str, token: &str) -> Response {
    let method = if target == "/cache/clear" { "POST" } else { "GET" };
    proxy.ask(method, target, &[("Authorization", &format!("Bearer {token}"))])
}

#[test]
fn wrong_tokens_use_up_a_quota_and_then_even_the_right_one_is_not_looked_at() {
    let origin = keeping();
    let setup = Setup::over(&origin)
        .with("security.rate_limit_enabled", true)
        .with("security.rate_limit_per_ip", 1)
        .with("security.rate_limit_burst", 5)
        .with("security.metrics_auth_enabled", true)
        .with("security.metrics_auth_token", "scraper")
        .with("security.admin_token", "operator");
    for (target, right) in [("/cache/clear", "operator"), ("/metrics", "scraper")] {
        let proxy = setup.start();
        // Right ones cost nothing, nor does asking without one.
        for _ in 0..20 {
            assert_eq!(with(&proxy, target, right).status, 200);
            let method = if target == "/metrics" { "GET" } else { "POST" };
            assert_eq!(proxy.ask(method, target, &[]).status, 401);
        }
        for guess in 0..5 {
            let refused = with(&proxy, target, &format!("guess {guess}"));
            assert_eq!(refused.status, 401, "{refused:?}");
        }
        for token in ["guess 5", right] {
            let refused = with(&proxy, target, token);
            assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
            assert!(refused.field("Retry-After").is_some() && refused.field("RateLimit").is_some());
        }
        // They cost the address what a guessed key does.
        assert_eq!(proxy.get("/api/x").status, 429);
    }
}

/// Whoever asks much of the API may still operate: his tokens are right.
#[test]
fn a_busy_address_keeps_its_operator() {
    let origin = keeping();
    let proxy = Setup::over(&origin)
        .with("security.rate_limit_enabled", true)
        .with("security.rate_limit_per_ip", 1)
        .with("security.rate_limit_burst", 3)
        .with("security.admin_token", "operator")
        .start();
    for status in [200, 200, 200, 429] {
        assert_eq!(proxy.get("/api/x").status, status);
    }
    assert_eq!(with(&proxy, "/cache/clear", "operator").status, 200);
    // But its guesses are counted all the same: else they could hide among these refusals.
    for _ in 0..3 {
        assert_eq!(with(&proxy, "/cache/clear", "guess").status, 429);
    }
    assert_eq!(with(&proxy, "/cache/clear", "operator").status, 429);
}

/// A page that is open on this machine is not its operator.
#[test]
fn what_a_browser_sends_for_other_pages_is_no_operators() {
    let origin = keeping();
    let proxy = Setup::over(&origin).start();
    let own = format!("http://{}", proxy.addr());
    let clear = |fields: &[(&str, &str)]| {
        let host = proxy.addr().to_string();
        let lines: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut client = proxy.connect();
        client.send(format!(
            "POST /cache/clear HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 0\r\n\r\n"
        ));
        client.read("POST")
    };
    for fields in [
        &[][..],
        &[("Origin", own.as_str())],
        &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")],
        &[("Sec-Fetch-Site", "none")],
    ] {
        assert_eq!(clear(fields).status, 200, "{fields:?}");
    }
    for fields in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Origin", &own), ("Sec-Fetch-Site", "cross-site")],
    ] {
        let refused = clear(fields);
        assert_eq!((refused.status, refused.problem().as_str()), (403, "forbidden"), "{fields:?}");
    }
    // With a token nothing of that matters: no page has it.
    let guarded = Setup::over(&origin).with("security.admin_token", "t").start();
    let fields = [("Authorization", "Bearer t"), ("Origin", "https://console.example")];
    assert_eq!(guarded.ask("POST", "/cache/clear", &fields).status, 200);
}

#[test]
fn a_client_behind_a_trusted_proxy_on_this_machine_is_no_operator() {
    let origin = keeping();
    let proxy =
        Setup::over(&origin).with("security.trusted_proxies", json!(["127.0.0.0/8"])).start();
    for (said, status) in [
        (None, 200),
        (Some("127.0.0.1"), 200),
        (Some("::1"), 200),
        (Some("192.0.2.7"), 403),
        (Some("127.0.0.1, 192.0.2.7"), 403),
        (Some("unknown"), 403),
        (Some(""), 403),
    ] {
        let fields: Vec<_> = said.map(|it| ("X-Forwarded-For", it)).into_iter().collect();
        assert_eq!(proxy.ask("POST", "/cache/clear", &fields).status, status, "{said:?}");
    }
    let hidden = [("Forwarded", "for=_hidden")];
    assert_eq!(proxy.ask("POST", "/cache/clear", &hidden).status, 403);
    // One whose word does not count: its client may be anywhere.
    let untrusting = Setup::over(&origin).start();
    let said = [("X-Forwarded-For", "127.0.0.1")];
    assert_eq!(untrusting.ask("POST", "/cache/clear", &said).status, 403);
    assert_eq!(untrusting.ask("POST", "/cache/clear", &[]).status, 200);
}
