//! What `/cache/explain` says is what then happens: for each case it is asked first, then the
//! request is made, and both are compared.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::client::request;
use support::ranges::{LARGE, bytes, serve};
use support::{Gate, Origin, Proxy, Response, Setup, answer, eventually};

type Lines<'a> = &'a [(&'a str, &'a str)];

/// The fields of requests made before, the request, and what is to become of it.
type Case<'a> = (Vec<Vec<(&'a str, &'a str)>>, (&'a str, Vec<(&'a str, &'a str)>), &'a str);
/// One request.
type Ask<'a> = (&'a str, &'a str, Lines<'a>, &'a str);

const fn get<'a>(target: &'a str, fields: Lines<'a>) -> Ask<'a> {
    ("GET", target, fields, "")
}

fn encoded(text: &str) -> String {
    let plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~".contains(&it);
    let escape = |it: u8| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") };
    text.bytes().map(escape).collect()
}

fn explained(proxy: &Proxy, (method, target, fields, body): Ask<'_>) -> Value {
    let mut query = format!("method={method}&path={}", encoded(target));
    for (name, value) in fields {
        query.push_str(&format!("&header={}", encoded(&format!("{name}: {value}"))));
    }
    if !body.is_empty() {
        query.push_str(&format!("&body={}", encoded(body)));
    }
    let response = proxy.get(&format!("/cache/explain?{query}"));
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

fn ask(proxy: &Proxy, (method, target, fields, body): Ask<'_>) -> Response {
    let mut client = proxy.connect();
    client.send(request(method, target, fields, body));
    client.read(method)
}

/// What happened, in the words of `action`, as far as client and origin can tell.
fn happened(response: &Response, seen: &[support::Request]) -> &'static str {
    let refused = response.fields.all("Content-Type").any(|it| it == "application/problem+json");
    match response.cache() {
        _ if refused && seen.is_empty() => "refuse",
        "HIT" => "serve",
        "STALE" if seen.is_empty() => "serve_stale",
        "BYPASS" => "pass",
        _ => match seen.first() {
            Some(asked) if asked.field("If-Range").is_some() => "complete",
            Some(asked) if asked.field("If-None-Match").is_some() => "validate",
            Some(_) => "fetch",
            None => "nothing",
        },
    }
}

/// Explains, asks, compares. `fetch_alone` is `fetch` to those outside, and a response that is to
/// be refreshed is served stale.
#[track_caller]
fn compare(proxy: &Proxy, origin: &Origin, asked: Ask<'_>, action: &str) {
    let before = origin.count();
    let said = explained(proxy, asked);
    assert_eq!(said["action"], action, "{asked:?}: {said}");
    assert_eq!(origin.count(), before, "the origin was asked for an explanation");
    let response = ask(proxy, asked);
    let seen = &origin.requests()[before..];
    let outside = match action {
        "fetch_alone" if response.cache() == "BYPASS" => "pass",
        "fetch_alone" => "fetch",
        "serve_stale_and_refresh" => "serve_stale",
        other => other,
    };
    let happened = match happened(&response, seen) {
        // The refresh may have come meanwhile.
        _ if action == "serve_stale_and_refresh" && response.cache() == "STALE" => "serve_stale",
        other => other,
    };
    assert_eq!(happened, outside, "{asked:?}: {said} {response:?}");
    if action == "serve_stale_and_refresh" {
        eventually("it is refreshed", || origin.count() > before);
    }
    // It begins alike: name, hit or fwd; the rest is known afterwards only.
    if let Some(start) = said["cache_status"].as_str() {
        let actual = response.fields.all("Cache-Status").last().unwrap().to_owned();
        let mut parts = start.split("; ");
        let both = (parts.next(), parts.next());
        let mut parts = actual.split("; ");
        assert_eq!(both, (parts.next(), parts.next()), "{asked:?}: {start} but {actual}");
    }
}

const HOUR: &str = "Cache-Control: max-age=3600;;ETag: \"a\"";
const OLD: &str = "Cache-Control: max-age=0;;ETag: \"a\"";

#[test]
fn what_is_said_of_a_request_is_what_then_happens() {
    let cc = |value| ("Cache-Control", value);
    let hour = ("Say", HOUR);
    let old = ("Say", OLD);
    let soft = ("Say", "Cache-Control: max-age=0, stale-while-revalidate=60");
    let never = ("Say", "Cache-Control: no-store");
    let varies = ("Say", "Cache-Control: max-age=3600;;Vary: Shape");
    let bare = ("Say", "Cache-Control: max-age=0");
    let round = ("Shape", "round");
    let bearer = ("Authorization", "Bearer x");
    // What was asked before, the case, and its action.
    let cases: Vec<Case<'_>> = vec![
        (vec![], ("GET", vec![hour]), "fetch"),
        (vec![], ("HEAD", vec![hour]), "fetch_alone"),
        (vec![], ("GET", vec![hour, bearer]), "fetch_alone"),
        (vec![], ("PUT", vec![hour]), "pass"),
        (vec![], ("GET", vec![hour, cc("no-store")]), "pass"),
        (vec![], ("GET", vec![hour, ("If-Match", "\"a\"")]), "pass"),
        (vec![], ("GET", vec![hour, cc("only-if-cached")]), "refuse"),
        (vec![], ("PUT", vec![hour, cc("only-if-cached")]), "refuse"),
        (vec![vec![hour]], ("GET", vec![hour]), "serve"),
        (vec![vec![hour]], ("HEAD", vec![hour]), "serve"),
        (vec![vec![hour]], ("GET", vec![hour, cc("only-if-cached")]), "serve"),
        (vec![vec![hour]], ("GET", vec![hour, ("Range", "bytes=0-1")]), "serve"),
        (vec![vec![hour]], ("GET", vec![hour, ("If-None-Match", "\"a\"")]), "serve"),
        (vec![vec![hour]], ("GET", vec![hour, bearer]), "fetch_alone"),
        (vec![vec![hour]], ("GET", vec![hour, cc("no-cache")]), "validate"),
        (vec![vec![hour]], ("GET", vec![hour, cc("max-age=0")]), "validate"),
        (vec![vec![hour]], ("GET", vec![hour, cc("min-fresh=7200")]), "validate"),
        (vec![vec![hour]], ("GET", vec![hour, ("Pragma", "no-cache")]), "validate"),
        (vec![vec![old]], ("GET", vec![old]), "validate"),
        (vec![vec![old]], ("GET", vec![old, cc("max-stale")]), "serve_stale"),
        (vec![vec![old]], ("GET", vec![old, cc("only-if-cached")]), "refuse"),
        (vec![vec![bare]], ("GET", vec![bare]), "fetch"),
        (vec![vec![soft]], ("GET", vec![soft]), "serve_stale_and_refresh"),
        (vec![vec![never]], ("GET", vec![never]), "fetch_alone"),
        (vec![vec![varies, round]], ("GET", vec![varies, round]), "serve"),
        (vec![vec![varies, round]], ("GET", vec![varies, ("Shape", "square")]), "fetch"),
        (vec![vec![varies, round]], ("GET", vec![varies, cc("only-if-cached")]), "refuse"),
    ];
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).with("cache.ttl", 0).start();
    for (number, (before, (method, fields), action)) in cases.iter().enumerate() {
        let target = format!("/api/case/{number}");
        for fields in before {
            ask(&proxy, get(&target, fields));
        }
        compare(&proxy, &origin, (method, &target, &fields[..], ""), action);
    }
}

/// Both tiers, each by itself, and neither.
#[test]
fn explanation_tells_where_it_is_stored() {
    let origin = Origin::obedient();
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    let asked = get("/api/x", &[("Say", HOUR)]);
    assert_eq!(explained(&proxy, asked)["stored"], Value::Null);
    ask(&proxy, asked);
    eventually("both tiers have it", || {
        let said = explained(&proxy, asked);
        (&said["stored"]["l1"], &said["stored"]["l2"]) == (&json!(true), &json!(true))
    });
    let said = explained(&proxy, asked);
    assert_eq!(said["key"], "GET 0 /x");
    assert_eq!(
        (&said["stored"]["lifetime"], &said["stored"]["status"]),
        (&json!(3600), &json!(200))
    );
    assert_eq!(said["stored"]["lifetime_source"], "max_age");
    assert_eq!(said["stored"]["validator"], true);
    proxy.stop();

    let proxy = setup.start();
    let said = explained(&proxy, asked);
    assert_eq!((&said["stored"]["l1"], &said["stored"]["l2"]), (&json!(false), &json!(true)));
    compare(&proxy, &origin, asked, "serve");
    proxy.clear();
    compare(&proxy, &origin, asked, "fetch");
    drop(proxy);

    let proxy = setup.with("cache.backend", "none").start();
    ask(&proxy, asked);
    let said = explained(&proxy, asked);
    assert_eq!((&said["stored"]["l1"], &said["stored"]["l2"]), (&json!(true), &json!(false)));
}

/// RFC 9111 section 4.1.
#[test]
fn explanation_names_the_fields_that_choose() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let say = ("Say", "Cache-Control: max-age=60;;Vary: Shape, Colour");
    let fields = [say, ("Shape", "round")];
    let asked = get("/api/x?a=1", &fields);
    ask(&proxy, asked);
    let said = explained(&proxy, asked);
    assert_eq!(said["vary"], json!(["colour,shape"]));
    assert!(said["key"].as_str().unwrap().starts_with("GET 0 /x?a=1 variant="), "{said}");
    compare(&proxy, &origin, asked, "serve");
}

#[test]
fn explanation_knows_fetches_under_way_and_failures_of_late() {
    let (gate, fails) = (Gate::default(), Arc::new(AtomicBool::new(false)));
    let (held, failing) = (gate.clone(), Arc::clone(&fails));
    let origin = Origin::respond(move |asked| {
        if asked.target == "/slow" {
            held.pass();
        }
        match failing.load(Ordering::SeqCst) {
            true => answer(503, &[], "down"),
            false => answer(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")], "up"),
        }
    });
    let proxy = Setup::over(&origin).start();
    let slow = get("/api/slow", &[]);
    let mut first = proxy.connect();
    first.send(request("GET", "/api/slow", &[], ""));
    origin.await_requests(1);
    let said = explained(&proxy, slow);
    assert_eq!(
        (&said["action"], &said["cache_status"]),
        (&json!("follow"), &json!("apiproxyd; fwd=uri-miss; collapsed"))
    );
    gate.open();
    assert_eq!(first.read("GET").text(), "up");

    let asked = get("/api/x", &[]);
    ask(&proxy, asked);
    fails.store(true, Ordering::SeqCst);
    compare(&proxy, &origin, asked, "validate");
    compare(&proxy, &origin, asked, "serve_stale");
}

/// An upstream that must not be asked now: its breaker is open, or it asked for a pause.
#[test]
fn explanation_knows_that_the_upstream_is_not_to_be_asked() {
    for (failure, word) in [(&[][..], "circuit_open"), (&[("Retry-After", "60")], "paused")] {
        let origin = Origin::respond(move |asked| match asked.target.as_str() {
            "/down" => answer(503, failure, "down"),
            "/strict" => {
                let fields = [("Cache-Control", "max-age=0, must-revalidate"), ("ETag", "\"a\"")];
                answer(200, &fields, "up")
            }
            _ => answer(200, &[("Cache-Control", "max-age=0")], "up"),
        });
        let proxy = Setup::over(&origin)
            .with("client.circuit_breaker_threshold", 1)
            .with("client.circuit_breaker_enabled", word == "circuit_open")
            .with("offline_endpoints", json!(["/offline/*"]))
            .start();
        for target in ["/api/x", "/api/strict"] {
            compare(&proxy, &origin, get(target, &[]), "fetch");
        }
        proxy.get("/api/down");
        let reload = [("Cache-Control", "no-cache")];
        let put = ("PUT", "/api/x", &[][..], "");
        for (asked, action, reason) in [
            (get("/api/x", &[]), "serve_stale", "stale_if_error"),
            (("HEAD", "/api/x", &[][..], ""), "serve_stale", "stale_if_error"),
            (get("/api/x", &[("Cache-Control", "no-store")]), "refuse", word),
            (get("/api/x", &reload), "refuse", "request_no_cache"),
            (get("/api/strict", &[]), "refuse", "stale_forbidden"),
            (get("/api/new", &[]), "refuse", word),
            (get("/api/offline/new", &[]), "refuse", "offline_not_cached"),
            (put, "refuse", word),
        ] {
            assert_eq!(explained(&proxy, asked)["reason"], reason, "{asked:?}");
            compare(&proxy, &origin, asked, action);
            let response = ask(&proxy, asked);
            let status = response.field("Cache-Status").unwrap();
            assert!(status.ends_with(&format!("detail={reason}")), "{asked:?}: {status}");
        }
    }
}

#[test]
fn explanation_does_not_follow_where_nothing_is_shared() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[("Cache-Control", "max-age=60")], "up")
    });
    let proxy = Setup::over(&origin).with("client.deduplication_enabled", false).start();
    let mut first = proxy.connect();
    first.send(request("GET", "/api/x", &[], ""));
    origin.await_requests(1);
    let said = explained(&proxy, get("/api/x", &[]));
    assert_eq!(
        (&said["action"], &said["cache_status"]),
        (&json!("fetch_alone"), &json!("apiproxyd; fwd=uri-miss"))
    );
    let mut second = proxy.connect();
    second.send(request("GET", "/api/x", &[], ""));
    origin.await_requests(2);
    gate.open();
    assert_eq!((first.read("GET").cache(), second.read("GET").cache()), ("MISS", "MISS"));
}

/// What the gate and the check of bodies say before anything is looked up.
#[test]
fn what_a_request_lacks_is_explained() {
    let origin = Origin::obedient();
    let setup = Setup::over(&origin).with("cache.methods", json!(["GET", "POST"]));
    let proxy = setup.start();
    let (json, text) = (("Content-Type", "application/json"), ("Content-Type", "text/plain"));
    let say = ("Say", HOUR);
    for (method, fields, body, action, reason) in [
        ("POST", vec![say, text], "hi", "refuse", json!("unsupported_media_type")),
        ("PUT", vec![say], "{}", "refuse", json!("unsupported_media_type")),
        ("POST", vec![say, json], "{\"a\":", "refuse", json!("bad_request")),
        ("POST", vec![say, json], "{\"a\":1}", "fetch", Value::Null),
        (
            "POST",
            vec![say, json, ("Content-Language", "de")],
            "{}",
            "pass",
            "body_not_canonical".into(),
        ),
        ("POST", vec![say, json, ("If-None-Match", "\"a\"")], "{}", "pass", "precondition".into()),
        (
            "GET",
            vec![say, ("X-API-Key", "a"), ("X-API-Key", "b")],
            "",
            "refuse",
            json!("bad_request"),
        ),
    ] {
        let asked = (method, "/api/x", &fields[..], body);
        assert_eq!(explained(&proxy, asked)["reason"], reason, "{asked:?}");
        compare(&proxy, &origin, asked, action);
    }
    // An empty body is none, whether it is described or not.
    let empty = ("POST", "/api/empty", &[say, json][..], "");
    compare(&proxy, &origin, empty, "fetch");
    compare(&proxy, &origin, empty, "serve");
    let query = format!(
        "header={}&header={}",
        encoded(&format!("Say: {HOUR}")),
        encoded("Content-Type: application/json")
    );
    let said = proxy.get(&format!("/cache/explain?method=POST&path=/empty&{query}&body="));
    assert_eq!(said.json()["action"], "serve");

    let proxy = setup.with("security.client_api_keys", json!(["a-key-of-some-length"])).start();
    compare(&proxy, &origin, get("/api/k", &[say]), "refuse");
    assert_eq!(explained(&proxy, get("/api/k", &[say]))["reason"], "unauthorized");
    compare(&proxy, &origin, get("/api/k", &[say, ("X-API-Key", "wrong")]), "refuse");
    compare(&proxy, &origin, get("/api/k", &[say, ("X-API-Key", "a-key-of-some-length")]), "fetch");
}

#[test]
fn explanation_of_parts_is_what_then_happens() {
    const TAGGED: Lines<'static> = &[("Cache-Control", "max-age=600"), ("ETag", "\"a\"")];
    let origin = Origin::respond(|asked| serve(asked, &bytes(LARGE), TAGGED));
    let rows: [(Lines<'_>, &str); 4] = [
        (&[("Range", "bytes=10-19")], "serve"),
        (&[("Range", "bytes=10-100")], "fetch_alone"),
        (&[], "complete"),
        (&[("Cache-Control", "only-if-cached")], "refuse"),
    ];
    for (fields, action) in rows {
        let proxy = Setup::over(&origin).start();
        proxy.ask("GET", "/api/x", &[("Range", "bytes=0-99")]);
        compare(&proxy, &origin, get("/api/x", fields), action);
    }
}

#[test]
fn bodies_are_explained_by_their_digest() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).with("cache.methods", json!(["GET", "POST"])).start();
    let fields = [("Say", HOUR), ("Content-Type", "application/json")];
    let post = |body| ("POST", "/api/x", &fields[..], body);
    compare(&proxy, &origin, post("{\"a\":1,\"b\":2}"), "fetch");
    compare(&proxy, &origin, post("{ \"b\": 2, \"a\": 1 }"), "serve");
    compare(&proxy, &origin, post("{\"a\":1}"), "fetch");
    compare(&proxy, &origin, post("{\"a\":1,\"a\":1}"), "pass");
    let said = explained(&proxy, post("{\"a\":1}"));
    assert!(said["key"].as_str().unwrap().starts_with("POST 0 /x body="), "{said}");
}

#[test]
fn what_is_refused_at_the_gate_is_explained_so() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).with("whitelisted_endpoints", json!(["/v1/*"])).start();
    compare(&proxy, &origin, get("/api/v2/x", &[]), "refuse");
    let said = explained(&proxy, get("/api/v2/x", &[]));
    assert_eq!((&said["reason"], &said["key"]), (&json!("endpoint_not_allowed"), &Value::Null));
    for query in ["", "?method=GET", "?path=", "?path=/v1/x&header=a", "?path=/%zz", "?what=1"] {
        let response = proxy.get(&format!("/cache/explain{query}"));
        assert_eq!((response.status, response.problem().as_str()), (400, "bad_request"), "{query}");
    }
}

/// The command asks the running daemon.
#[test]
fn command_prints_what_the_endpoint_says() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let asked = get("/api/x?a=1", &[("Say", HOUR)]);
    ask(&proxy, asked);
    let run = |args: &[&str]| {
        let port = format!("server.port={}", proxy.addr().port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_apiproxyd"));
        command.arg("explain").args(args).args(["--set", &port]);
        let entry = format!("entry_point={}", origin.url());
        command.args(["--set", &entry, "--set", "security.block_private_ips=false"]);
        let output = command.env("HOME", "/nonexistent").output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let said = run(&["/x?a=1", "--header", &format!("Say: {HOUR}")]);
    assert_eq!((&said["action"], &said["key"]), (&json!("serve"), &json!("GET 0 /x?a=1")));
    let said = run(&["/x", "--method", "DELETE"]);
    assert_eq!((&said["action"], &said["reason"]), (&json!("pass"), &json!("method_not_cached")));
    let json = "Content-Type: application/json";
    let post = ["/x", "--method", "POST", "--header", json, "--body", "{\"a\":1}"];
    let set = ["--set", "cache.methods=[\"POST\"]"];
    // What is cached is the daemon's to say, whatever this configuration says.
    assert_eq!(run(&[&post[..], &set].concat())["action"], "pass");
    assert_eq!(origin.count(), 1);
}
