//! Keys and tokens: who sees which, and that nobody else ever does.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::fs;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};
use support::{Metrics, Origin, Proxy, Setup, answer, assert_cached, eventually};

/// Answers with the key it was asked with.
fn telling_origin() -> Origin {
    Origin::respond(|request| {
        let key = request.field("X-API-Key").unwrap_or("none").to_owned();
        answer(200, &[("Cache-Control", "max-age=600")], format!("for {key}"))
    })
}

fn with_key(proxy: &Proxy, target: &str, key: &str) -> support::Response {
    proxy.ask("GET", target, &[("X-API-Key", key)])
}

#[test]
fn with_an_own_key_no_clients_key_reaches_the_origin_and_all_share_the_cache() {
    let origin = telling_origin();
    let proxy = Setup::over(&origin).with("api_key", "own-key-0001").start();
    let body = "for own-key-0001";
    assert_cached(&with_key(&proxy, "/api/x", "clients-1"), "MISS", body);
    assert_cached(&with_key(&proxy, "/api/x", "clients-2"), "HIT", body);
    assert_cached(&proxy.get("/api/x"), "HIT", body);
    proxy.ask("DELETE", "/api/x", &[("X-API-Key", "clients-3")]);
    let mut upload = proxy.connect();
    upload.send_request(
        "POST",
        "/api/x",
        &[("X-API-Key", "clients-4"), ("Content-Type", "application/json")],
        "{}",
    );
    assert_eq!(upload.read("POST").status, 200);
    for seen in origin.requests() {
        assert_eq!(seen.field("X-API-Key"), Some("own-key-0001"), "{seen:?}");
        let head = String::from_utf8_lossy(&seen.head).into_owned();
        assert!(!head.contains("clients-"), "{head}");
    }
}

/// No client ever reads what another's key paid for.
#[test]
fn without_an_own_key_each_clients_key_has_entries_of_its_own() {
    let origin = telling_origin();
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    for (key, verdict) in [("a", "MISS"), ("b", "MISS"), ("a", "HIT"), ("b", "HIT")] {
        assert_cached(&with_key(&proxy, "/api/x", key), verdict, &format!("for {key}"));
    }
    assert_cached(&proxy.get("/api/x"), "MISS", "for none");
    assert_eq!(origin.count(), 3);
    // From the second tier likewise.
    proxy.stop();
    let proxy = setup.start();
    assert_cached(&with_key(&proxy, "/api/x", "b"), "HIT", "for b");
    assert_cached(&with_key(&proxy, "/api/x", "c"), "MISS", "for c");
}

#[test]
fn a_route_to_another_host_never_gets_the_general_key() {
    let (general, other) = (telling_origin(), telling_origin());
    let proxy = Setup::over(&general)
        .with("api_key", "own-key-0001")
        .with("routes", json!([{"prefix": "/other", "entry_point": other.url()}]))
        .start();
    assert_cached(&proxy.get("/api/x"), "MISS", "for own-key-0001");
    assert_cached(&with_key(&proxy, "/api/other/x", "clients"), "MISS", "for clients");
    assert_cached(&proxy.get("/api/other/x"), "MISS", "for none");
}

#[test]
fn a_key_that_the_origin_sends_back_in_a_field_ends_here() {
    let origin = Origin::respond(|request| {
        let key = request.field("X-API-Key").unwrap().to_owned();
        let location = format!("/next?key={key}");
        let debug = format!("headers: {{x-api-key: {key}}}");
        let fields = [
            ("Cache-Control", if request.target == "/keep" { "max-age=600" } else { "no-store" }),
            ("X-API-Key", key.as_str()),
            ("X-Debug", debug.as_str()),
            ("Location", location.as_str()),
            ("X-Kept", "yes"),
        ];
        let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: </{key}>\r\n\r\n").into_bytes();
        [hints, answer(302, &fields, "body")].concat()
    });
    let proxy = Setup::over(&origin).with("api_key", "own-key-0001").start();
    for target in ["/api/keep", "/api/keep", "/api/pass"] {
        let response = proxy.get(target);
        assert_eq!((response.status, response.field("X-Kept")), (302, Some("yes")));
        assert!(!format!("{response:?}").contains("own-key"), "{response:?}");
    }
    let mut upload = proxy.connect();
    upload.send_request("PUT", "/api/x", &[("Content-Type", "application/json")], "{}");
    assert!(!format!("{:?}", upload.read("PUT")).contains("own-key"));
}

#[test]
fn keys_may_be_given_as_digests_and_a_revoked_one_gets_nothing() {
    let origin = Origin::counting("max-age=600");
    let digest: String =
        Sha256::digest("hashed").iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = json!(["plain", format!("sha256:{digest}")]);
    let setup = Setup::over(&origin).with("api_key", "own-key-0001");
    let proxy = setup.with("security.client_api_keys", keys).start();
    assert_cached(&with_key(&proxy, "/api/x", "plain"), "MISS", "answer 0");
    assert_cached(&with_key(&proxy, "/api/x", "hashed"), "HIT", "answer 0");
    // The digest is no key; of two keys none is certain.
    let twice = [("X-API-Key", "plain"), ("X-API-Key", "other")];
    let fields: [&[(&str, &str)]; 6] = [
        &[],
        &[("X-API-Key", "")],
        &[("X-API-Key", "revoked")],
        &[("X-API-Key", "Plain")],
        &[("X-API-Key", &digest)],
        &[("Authorization", "Bearer plain")],
    ];
    for fields in fields {
        // Stored, and not shown to them; not stored, and not fetched for them.
        for target in ["/api/x", "/api/y"] {
            let refused = proxy.ask("GET", target, fields);
            assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthorized"));
            assert_eq!(refused.field("WWW-Authenticate"), Some("ApiKey"));
            assert!(!format!("{refused:?}").contains("answer 0"));
        }
    }
    let refused = proxy.ask("GET", "/api/x", &twice);
    assert_eq!((refused.status, refused.problem().as_str()), (400, "bad_request"));
    assert_eq!(origin.count(), 1);
}

const SECRETS: [&str; 7] = [
    "S3CR3T-own-key",
    "S3CR3T-operator",
    "S3CR3T-scraper",
    "S3CR3T-client-1",
    "S3CR3T-client-2",
    "S3CR3T-route",
    "S3CR3T-postgres",
];

/// Looks for every secret in a text, however it may be written there.
#[track_caller]
fn assert_silent(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows {secret}: {text}");
        let hex: String = Sha256::digest(secret).iter().map(|it| format!("{it:02x}")).collect();
        assert!(!text.contains(&hex[..24]), "{what} shows the digest of {secret}: {text}");
    }
}

/// Everything that this program prints, answers, logs or tells the system, searched for every
/// secret it was given.
#[test]
fn no_secret_is_ever_told() {
    let origin = Origin::respond(|request| {
        let control = if request.target.contains("keep") { "max-age=600" } else { "no-store" };
        answer(200, &[("Cache-Control", control)], "x")
    });
    let setup = Setup::over(&origin);
    let access = setup.home().join("access.log");
    let dead =
        json!([{"prefix": "/dead", "entry_point": "http://127.0.0.1:9", "api_key": SECRETS[5]}]);
    let setup = setup
        .with("api_key", SECRETS[0])
        .with("security.admin_token", SECRETS[1])
        .with("security.metrics_auth_enabled", true)
        .with("security.metrics_auth_token", SECRETS[2])
        .with("security.client_api_keys", json!([SECRETS[3], {"key": SECRETS[4], "name": "two"}]))
        .with("cache.postgres_dsn", format!("postgres://u:{}@127.0.0.1:9/db", SECRETS[6]))
        .with("routes", dead)
        .with("log.level", "trace")
        .with("log.access", "all")
        .with("log.access_path", access.to_str().unwrap());
    let proxy = setup.start();
    let operator = format!("Bearer {}", SECRETS[1]);
    let scraper = format!("Bearer {}", SECRETS[2]);
    let mut said = Vec::new();
    let mut note = |what: &str, response: support::Response| said.push((what.to_owned(), response));
    for key in [SECRETS[3], SECRETS[4], "wrong"] {
        for target in
            ["/api/keep", "/api/keep", "/api/pass", "/api/dead/x", "/api/x%2Fy", "/nowhere"]
        {
            note(target, with_key(&proxy, target, key));
        }
        let own = proxy.ask("GET", "/api/x", &[("X-API-Key", key), ("Authorization", &operator)]);
        note("with another's token", own);
    }
    let explain = format!("/cache/explain?path=/keep&header=X-API-Key:{}", SECRETS[3]);
    for (target, method, token) in [
        ("/health", "GET", ""),
        ("/cache/stats", "GET", ""),
        ("/metrics", "GET", scraper.as_str()),
        ("/metrics", "GET", operator.as_str()),
        ("/metrics?token=S3CR3T-scraper", "GET", ""),
        (explain.as_str(), "GET", operator.as_str()),
        (explain.as_str(), "GET", scraper.as_str()),
        ("/cache/clear", "POST", operator.as_str()),
        ("/cache/clear", "POST", scraper.as_str()),
    ] {
        note(target, proxy.ask(method, target, &[("Authorization", token)]));
    }
    for (what, response) in said {
        // What the client sent itself is not repeated to it either.
        assert_silent(&what, &format!("{response:?}"));
    }
    let process = format!("/proc/{}", proxy.pid());
    for file in ["cmdline", "comm", "status"] {
        let text = fs::read(format!("{process}/{file}")).unwrap();
        assert_silent(file, &String::from_utf8_lossy(&text));
    }
    eventually("the access log", || fs::read_to_string(&access).unwrap().lines().count() >= 30);
    let (log, home) = (proxy.stderr(), setup.home().to_owned());
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "nothing was logged: {log}");
    assert_silent("stdout", &proxy.stdout());
    proxy.stop();
    assert_silent("the log", &log);
    assert_silent("the access log", &fs::read_to_string(&access).unwrap());
    // The second tier is keyed by digests of another kind; clear text is in neither file.
    for file in ["cache.db", "cache.db-wal"] {
        let bytes = fs::read(home.join(file)).unwrap_or_default();
        assert_silent(file, &String::from_utf8_lossy(&bytes));
    }
}

/// The commands that read the configuration, and a start that fails for each secret's sake.
#[test]
fn no_command_prints_a_secret() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("c.json");
    let config = |extra: serde_json::Value| {
        let mut config = json!({
            "api_key": SECRETS[0],
            "security": {
                "admin_token": SECRETS[1],
                "metrics_auth_token": SECRETS[2],
                "client_api_keys": [SECRETS[3], {"key": SECRETS[4], "name": "two"}],
            },
            "routes": [{"prefix": "/x", "api_key": SECRETS[5]}],
            "cache": {"postgres_dsn": format!("postgres://u:{}@127.0.0.1:9/db", SECRETS[6])},
        });
        for (name, value) in extra.as_object().unwrap() {
            config[name] = value.clone();
        }
        fs::write(&file, config.to_string()).unwrap();
    };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apiproxyd"));
        command.args(arguments).arg("--config").arg(&file).env_clear().env("HOME", home.path());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_silent(&format!("{arguments:?}"), &text);
        (output.status.code(), text)
    };
    config(json!({}));
    for arguments in [&["check"][..], &["config", "show"], &["config", "show", "--json"]] {
        let (code, text) = run(arguments);
        assert_eq!(code, Some(0), "{text}");
    }
    // Secrets that are of the wrong type, out of place, or of no use.
    let faults = [
        json!({"api_key": [SECRETS[0]]}),
        json!({"api_key": format!("{}\n", SECRETS[0])}),
        json!({"security": {"client_api_keys": [SECRETS[3], SECRETS[3]]}}),
        json!({"security": {"client_api_keys": {"key": SECRETS[3]}}}),
        json!({"security": {"client_api_keys": [{"key": SECRETS[3], "rate": 1}]}}),
        json!({"security": {"admin_token": {"token": SECRETS[1]}}}),
        json!({"cache": {"backend": "postgres", "postgres_dsn": format!("p:/{}", SECRETS[6])}}),
        json!({"entry_point": format!("https://u:{}@api.example.com", SECRETS[0])}),
    ];
    for fault in faults {
        config(fault.clone());
        for arguments in [&["check"][..], &["run"], &["config", "show"]] {
            let (code, text) = run(arguments);
            assert_eq!(code, Some(64), "{fault} {text}");
        }
    }
}

/// Errors of the database driver name the connection string's parts.
#[test]
fn a_database_that_is_away_is_reported_without_its_password() {
    let origin = telling_origin();
    let dsn = format!("postgres://u:{}@127.0.0.1:9/db?connect_timeout=1", SECRETS[6]);
    let proxy = Setup::over(&origin)
        .with("cache.backend", "postgres")
        .with("cache.postgres_dsn", dsn)
        .with("log.level", "trace")
        .start();
    eventually("it is reported", || proxy.get("/health").status == 503);
    assert_silent("health", proxy.get("/health").text());
    assert_silent("statistics", proxy.get("/cache/stats").text());
    assert_silent("the log", &proxy.stderr());
    assert_silent("stdout", &proxy.stdout());
}

#[test]
fn tokens_are_compared_whole() {
    let origin = telling_origin();
    let proxy = Setup::over(&origin)
        .with("security.admin_token", "operator-token")
        .with("security.metrics_auth_enabled", true)
        .with("security.metrics_auth_token", "scraper-token")
        .start();
    for token in
        ["", "operator", "operator-toke", "operator-tokenX", "OPERATOR-TOKEN", "scraper-token"]
    {
        for scheme in ["Bearer ", "bearer ", "Basic ", ""] {
            let value = format!("{scheme}{token}");
            let refused = proxy.ask("POST", "/cache/clear", &[("Authorization", &value)]);
            assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthorized"));
            assert_eq!(refused.field("WWW-Authenticate"), Some("Bearer"));
        }
    }
    for value in ["Bearer operator-token", "bearer operator-token"] {
        let done = proxy.ask("POST", "/cache/clear", &[("Authorization", value)]);
        assert_eq!(done.status, 200);
    }
    // The operator's token may come in a field only: queries end up in logs and histories.
    assert_eq!(proxy.ask("POST", "/cache/clear?token=operator-token", &[]).status, 401);
    assert_eq!(proxy.get("/metrics?token=scraper-token").status, 200);
    assert_eq!(proxy.get("/metrics?token=scraper-toke").status, 401);
    let scraped = proxy.ask("GET", "/metrics", &[("Authorization", "Bearer scraper-token")]);
    let refused = Metrics::parse(scraped.text()).value("apiproxyd_refusals_total{status=\"401\"}");
    assert_eq!(refused, 26.0);
}
