//! What is let through to an origin: types, well-formedness, sizes, targets, fields, endpoints.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use apiproxyd::http::untrusted::{UNTRUSTED, UNTRUSTED_PREFIXES};
use serde_json::{Value, json};
use support::{Connection, Fault, Gate, Origin, Proxy, Response, Setup, answer};

fn origin() -> Origin {
    Origin::fixed(answer(200, &[("Cache-Control", "no-store")], "x"))
}

fn send(proxy: &Proxy, method: &str, kind: Option<&str>, body: &str) -> Response {
    let mut client = proxy.connect();
    let fields: Vec<(&str, &str)> = kind.map(|it| ("Content-Type", it)).into_iter().collect();
    client.send_request(method, "/api/x", &fields, body);
    client.read(method)
}

#[test]
fn a_body_that_is_not_declared_as_json_is_refused() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let taken = [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/problem+json",
        "application/vnd.api+json",
    ];
    let refused = [
        None,
        Some(""),
        Some("text/plain"),
        Some("text/json-not"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/jsonx"),
        Some("application/json, text/plain"),
    ];
    for method in ["POST", "PUT", "PATCH"] {
        for kind in taken {
            assert_eq!(send(&proxy, method, Some(kind), "{}").status, 200, "{method} {kind}");
        }
        for kind in refused {
            let response = send(&proxy, method, kind, "{}");
            let problem = (response.status, response.problem());
            assert_eq!(problem, (415, "unsupported_media_type".to_owned()), "{method} {kind:?}");
        }
        // Without a body there is nothing to declare.
        assert_eq!(send(&proxy, method, None, "").status, 200, "{method}");
    }
    assert_eq!(origin.count(), 3 * (taken.len() + 1));
    // Other methods carry what they like; and so do all where it is switched off.
    assert_eq!(send(&proxy, "DELETE", Some("text/plain"), "x").status, 200);
    let open = Setup::over(&origin).with("security.require_json_body", false).start();
    assert_eq!(send(&open, "POST", Some("text/plain"), "no json").status, 200);
}

/// However a body is framed: one of no bytes is none, and needs no type.
#[test]
fn a_body_that_turns_out_to_be_empty_is_none() {
    let origin = origin();
    let proxy = Setup::over(&origin).with("cache.methods", json!(["GET", "POST"])).start();
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/json\r\n"] {
        for framing in ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
        {
            let before = origin.count();
            let mut client = proxy.connect();
            client.send(format!("POST /api/x HTTP/1.1\r\nHost: h\r\n{kind}{framing}"));
            let response = client.read("POST");
            assert_eq!(response.status, 200, "{kind}{framing}: {response:?}");
            assert!(!response.field("Cache-Status").unwrap().contains("canonical"), "{response:?}");
            assert_eq!((origin.count(), origin.last().body.len()), (before + 1, 0));
            assert_eq!(client.get("/api/x").status, 200, "the connection is still in step");
        }
    }
    // Whoever announces a body by Expect is told before he sends it.
    let mut client = proxy.connect();
    client.send(
        "POST /api/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.read("POST").status, 415);
    let mut client = proxy.connect();
    client.send("POST /api/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    assert_eq!(client.read("POST").status, 415);
}

#[test]
fn json_in_a_content_coding_is_refused_with_what_is_taken() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let post = |coding: &str| {
        let fields = [("Content-Type", "application/json"), ("Content-Encoding", coding)];
        let mut client = proxy.connect();
        client.send_request("POST", "/api/x", &fields, "{}");
        client.read("POST")
    };
    for coding in ["gzip", "identity, gzip", "br"] {
        let refused = post(coding);
        let problem = (refused.status, refused.problem());
        assert_eq!(problem, (415, "unsupported_media_type".to_owned()), "{coding}");
        assert_eq!(refused.field("Accept-Encoding"), Some("identity"), "{coding}");
    }
    assert_eq!(post("identity").status, 200);
    assert_eq!(origin.count(), 1);
    // A wrong type says nothing of codings.
    let refused = send(&proxy, "POST", Some("text/plain"), "x");
    assert_eq!((refused.status, refused.field("Accept-Encoding")), (415, None));
}

#[test]
fn malformed_json_is_refused_with_its_position_and_without_its_content() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let before = origin.count();
    for (body, place) in [
        ("{\"a\":", 5),
        ("{\"secret\":hunter2}", 10),
        ("[1,2,]", 5),
        ("hunter2", 0),
        ("{\"a\":1}hunter2", 7),
        ("{\"a\":\"\u{1}\"}", 6),
        ("[1 hunter2]", 3),
        (&format!("[{}hunter2]", "1,".repeat(100_000)), 200_001),
    ] {
        let response = send(&proxy, "POST", Some("application/json"), body);
        assert_eq!(
            (response.status, response.problem().as_str()),
            (400, "bad_request"),
            "{body:?}"
        );
        let offset = response.json()["offset"].as_u64().unwrap();
        assert_eq!(offset, place, "{body:.40}");
        assert!(!response.text().contains("hunter2"), "{}", response.text());
    }
    assert_eq!(origin.count(), before);
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    for body in ["{}", "[]", "\"x\"", "1", "null", " {\"a\": [1, 2.5e3, \"\\u00e9\"]} ", &deep] {
        assert_eq!(send(&proxy, "POST", Some("application/json"), body).status, 200, "{body}");
        assert_eq!(origin.last().body, body.as_bytes(), "passed on as it came");
    }
}

/// However deep, however long: no text takes the daemon along, and the grammar decides.
#[test]
fn hostile_json_is_answered() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let bodies = [
        ("[".repeat(1_000_000), 400),
        ("{\"a\":".repeat(300_000), 400),
        (format!("{}1{}", "[".repeat(500_000), "]".repeat(499_999)), 400),
        (format!("{}1{}", "[".repeat(500_000), "]".repeat(500_000)), 200),
        (format!("[{}1]", "1,".repeat(1_000_000)), 200),
        (format!("{{{}\"z\":1}}", "\"a\":1,".repeat(200_000)), 200),
        (format!("\"{}\"", "\\u0041".repeat(300_000)), 200),
        ("9".repeat(1_000_000), 200),
        ("\u{0}".repeat(100_000), 400),
    ];
    for (body, expected) in bodies {
        let response = send(&proxy, "POST", Some("application/json"), &body);
        assert_eq!(response.status, expected, "{}: {response:?}", &body[..8]);
    }
    assert_eq!(proxy.get("/health").status, 200);
}

/// What values a reader could hold is the origin's affair.
#[test]
fn json_that_few_can_hold_is_passed_on() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let (digits, deep) = ("1".repeat(401), "[".repeat(2_000) + &"]".repeat(2_000));
    for body in [
        "{\"wei\":123456789012345678901234567890}",
        "[18446744073709551616]",
        "[1e400]",
        "[\"\\ud800\"]",
        &digits,
        &deep,
    ] {
        let response = send(&proxy, "POST", Some("application/json"), body);
        assert_eq!(response.status, 200, "{body:.40}: {response:?}");
        assert_eq!(origin.last().body, body.as_bytes(), "passed on as it came");
    }
}

/// Ten million bytes of structure: a reader that builds values takes 28 times as much.
#[test]
fn a_large_body_of_json_takes_little_more_than_its_own_memory() {
    let origin = origin();
    let proxy = Setup::over(&origin).with("server.cores", 1).start();
    let body = format!("[{}0]", "0,".repeat(5_000_000));
    send(&proxy, "POST", Some("application/json"), "[]");
    let before = proxy.rss_peak_bytes();
    let response = send(&proxy, "POST", Some("application/json"), &body);
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(origin.last().body.len(), body.len());
    let grown = proxy.rss_peak_bytes() - before;
    assert!(grown < 4 * body.len() as u64, "{grown} bytes more");
}

#[test]
fn a_request_body_over_the_limit_is_refused_however_it_is_framed() {
    let origin = origin();
    let proxy = Setup::over(&origin).with("security.max_request_body_size", 1_000).start();
    // By its length, before a byte of it: nothing else is sent, and an answer comes.
    let mut stated = proxy.connect();
    stated.send(
        "POST /api/x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
         Content-Length: 1001\r\n\r\n",
    );
    let refused = stated.read("POST");
    assert_eq!((refused.status, refused.problem().as_str()), (413, "content_too_large"));
    // In chunks, whose sum nobody knows before.
    for method in ["POST", "DELETE"] {
        let mut chunked = proxy.connect();
        let head =
            format!("{method} /api/x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n");
        chunked.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
        for _ in 0..3 {
            chunked.try_send(format!("190\r\n{}\r\n", "1".repeat(400))).ok();
        }
        let refused = chunked.read(method);
        assert_eq!((refused.status, refused.problem().as_str()), (413, "content_too_large"));
    }
    // What just fits passes.
    let body = format!("\"{}\"", "x".repeat(998));
    assert_eq!(send(&proxy, "POST", Some("application/json"), &body).status, 200);
}

#[test]
fn a_response_over_the_limit_is_a_502_with_or_without_its_length() {
    let late = [Gate::default(), Gate::default()];
    let held = late.clone();
    let origin = Origin::script(move |connection: &mut Connection| {
        while let Some(request) = connection.request() {
            let control = if request.target.contains("keep") { "max-age=60" } else { "no-store" };
            let head = format!("HTTP/1.1 200 OK\r\nCache-Control: {control}\r\n");
            let body = "x".repeat(5_000);
            if request.target.ends_with("length") {
                connection.send(format!("{head}Content-Length: 5000\r\n\r\n{body}"));
            } else if request.target.ends_with("chunked") {
                connection.send(format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n1388\r\n{body}\r\n0\r\n\r\n"
                ));
            } else if request.target.ends_with("close") {
                connection.send(format!("{head}Connection: close\r\n\r\n{body}"));
                return;
            } else {
                connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"));
                held[usize::from(control == "no-store")].pass();
                connection.send(format!("1388\r\n{body}\r\n0\r\n\r\n"));
            }
        }
    });
    let proxy = Setup::over(&origin)
        .with("security.max_response_body_size", 1_000)
        .with("client.circuit_breaker_enabled", false)
        .start();
    for (path, late) in ["keep", "pass"].iter().zip(&late) {
        for framing in ["length", "chunked", "close"] {
            for _ in 0..2 {
                let response = proxy.get(&format!("/api/{path}/{framing}"));
                let problem = (response.status, response.problem());
                assert_eq!(problem, (502, "upstream_too_large".to_owned()), "{path} {framing}");
            }
        }
        // Where some of it has gone out already, it is cut, and nothing is stored.
        let mut client = proxy.connect();
        client.send_request("GET", &format!("/api/{path}/late"), &[], "");
        client.await_text("first");
        late.open();
        assert!(matches!(client.try_read("GET"), Err(Fault::Cut(_))));
    }
    assert_eq!(proxy.stats()["l1"]["entries"], 0);
}

#[test]
fn fields_that_only_a_proxy_may_write_never_reach_the_origin() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let ours = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id"];
    let listed = UNTRUSTED.iter().chain(&ours).map(|it| (*it).to_owned());
    let prefixed = UNTRUSTED_PREFIXES.iter().map(|it| format!("{it}Anything"));
    for name in listed.chain(prefixed) {
        // CGI and its heirs make one variable of both.
        for spelling in [name.to_uppercase(), name.to_lowercase(), name.replace('-', "_")] {
            let fields = [(spelling.as_str(), "forged"), ("X-Kept", "yes"), ("X_Kept_Too", "yes")];
            let response = proxy.ask("GET", "/api/x", &fields);
            assert_eq!(response.status, 200, "{spelling}");
            let seen = origin.last();
            let head = String::from_utf8_lossy(&seen.head).into_owned();
            // The request id is the client's own to choose; it is written anew all the same.
            let chosen = spelling.eq_ignore_ascii_case("X-Request-Id");
            assert!(!head.contains("forged") || chosen, "{spelling}: {head}");
            let there = seen.fields.all(&spelling).count();
            let is_ours = ours.iter().any(|it| it.eq_ignore_ascii_case(&spelling));
            assert_eq!(there, usize::from(is_ours), "{spelling}: {head}");
            assert_eq!(
                (seen.field("X-Kept"), seen.field("X_Kept_Too")),
                (Some("yes"), Some("yes"))
            );
        }
    }
}

/// A key under another spelling was not checked and is not in the cache key; conditions and
/// codings under one would spoil what is stored.
#[test]
fn no_field_slips_past_its_check_with_an_underscore() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    for key in [None, Some("upstream")] {
        let mut setup = Setup::over(&origin);
        if let Some(key) = key {
            setup = setup.with("api_key", key);
        }
        let proxy = setup.start();
        let fields = [
            ("X_API_Key", "forged"),
            ("x-api_key", "forged"),
            ("If_None_Match", "\"forged\""),
            ("Accept_Encoding", "forged"),
            ("Content_Length", "7"),
            ("Transfer_Encoding", "forged"),
            ("Proxy_Connection", "forged"),
        ];
        assert_eq!(proxy.ask("GET", "/api/x", &fields).status, 200);
        let seen = origin.last();
        let head = String::from_utf8_lossy(&seen.head).into_owned();
        assert!(!head.contains("forged") && !head.contains('_'), "{head}");
        assert_eq!(seen.field("X-API-Key"), key);
        // The right spelling is the client's key, and goes on where there is no other.
        proxy.ask("GET", "/api/y", &[("X-API-Key", "client")]);
        assert_eq!(origin.last().field("X-API-Key"), key.or(Some("client")));
    }
}

/// A target has one spelling for the allowlist, the key and the origin.
#[test]
fn endpoints_are_allowed_by_whole_segments_of_the_normal_path() {
    let origin = origin();
    let allowed = json!(["/v1/a/*", "/v1/b", "/v1/c*", "/v1/caf%C3%A9"]);
    let proxy = Setup::over(&origin).with("whitelisted_endpoints", allowed).start();
    let rows = [
        ("/v1/a/", 200),
        ("/v1/a/x", 200),
        ("/v1/a/x/y?z=1", 200),
        ("/v1/a", 403),
        ("/v1/ab", 403),
        ("/v1/abc/x", 403),
        ("/v1/b", 200),
        ("/v1/b?x=1", 200),
        ("/v1/b/", 403),
        ("/v1/b/x", 403),
        ("/v1/bb", 403),
        ("/v1/c", 200),
        ("/v1/c/x", 200),
        ("/v1/cd", 403),
        ("/v1/caf%c3%a9", 200),
        ("/V1/b", 403),
        // However it is spelt, what counts is where it leads.
        ("/v1/%61/x", 200),
        ("/v1/%61b", 403),
        ("/v1/a/../secret", 403),
        ("/v1/a/%2e%2e/secret", 403),
        ("/v1/a/%2E./secret", 403),
        ("/v1/x/../a/y", 200),
        ("/v1/./b", 200),
        ("/v1/a/x/../../b", 200),
        ("/v1/a/x/../../../../../v1/b", 404),
        ("/v1/a/..%2fsecret", 400),
        ("/v1/a%2fx", 400),
        ("/v1//a/x", 403),
        ("/secret", 403),
        ("", 403),
    ];
    for (path, status) in rows {
        let before = origin.count();
        let response = proxy.get(&format!("/api{path}"));
        assert_eq!(response.status, status, "{path}");
        assert_eq!(origin.count() - before, usize::from(status == 200), "{path}");
        if status == 200 {
            let target = origin.last().target;
            assert!(!target.contains("..") && !target.contains("%2"), "{path} became {target}");
        }
    }
    let nothing = Setup::over(&origin).with("whitelisted_endpoints", json!([])).start();
    let refused = nothing.get("/api/v1/b");
    assert_eq!((refused.status, refused.problem().as_str()), (403, "endpoint_not_allowed"));
}

#[test]
fn targets_with_bytes_that_no_url_has_are_refused() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    for target in [
        "/api/%00",
        "/api/a%0d%0ab",
        "/api/%7f",
        "/api/%zz",
        "/api/%",
        "/api/a%1",
        "/api/a\\b",
        "/api/x?\u{e9}",
        "/api/..",
        "/api/../health",
        "/api/%2e%2e/health",
    ] {
        let mut client = proxy.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let response = client.read("GET");
        assert!(response.status < 500, "{target}: {response:?}");
        if let Value::Object(problem) = response.json() {
            assert!(problem.contains_key("code") || problem.contains_key("database"), "{target}");
        }
    }
    assert_eq!(origin.count(), 0);
}
