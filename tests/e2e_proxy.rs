//! What passes through: target, method, fields and body on the way to the origin, status, fields
//! and body on the way back, errors.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::net::TcpListener;

use support::client::request;
use support::{Gate, Origin, Setup, answer, eventually};

#[test]
fn prefix_is_stripped_and_query_kept() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    let rows = [
        ("/api/v1/x", "/v1/x"),
        ("/api/v1/x?a=1&b=2", "/v1/x?a=1&b=2"),
        ("/api/v1/x?b=2&a=1", "/v1/x?b=2&a=1"),
        ("/api/v1/x?", "/v1/x?"),
        ("/api/", "/"),
        ("/api/a%20b", "/a%20b"),
    ];
    for (asked, seen) in rows {
        assert_eq!(client.get(asked).status, 200, "{asked}");
        assert_eq!(origin.last().target, seen, "{asked}");
    }
    assert_eq!(origin.count(), rows.len(), "each target has an answer of its own");
}

#[test]
fn empty_prefix_serves_the_origin_from_the_root() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).with("server.api_prefix", "").start();
    assert_eq!(proxy.get("/v1/x?a=1").status, 200);
    assert_eq!(origin.last().target, "/v1/x?a=1");
}

#[test]
fn base_path_of_the_entry_point_stays_in_front() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::at(&format!("{}/base", origin.url())).start();
    assert_eq!(proxy.get("/api/v1/x").status, 200);
    assert_eq!(origin.last().target, "/base/v1/x");
}

#[test]
fn statuses_pass_unchanged() {
    let origin = Origin::respond(|request| {
        let status = request.target.trim_start_matches('/').parse().unwrap();
        answer(status, &[("Cache-Control", "no-store")], "")
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    let mut client = proxy.connect();
    let rows = [200, 201, 202, 204, 301, 302, 400, 401, 403, 404, 409, 418, 422, 500, 503, 599];
    for status in rows {
        assert_eq!(client.get(&format!("/api/{status}")).status, status);
    }
}

#[test]
fn fields_and_body_of_the_origin_reach_the_client() {
    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let fields = [
        ("Content-Type", "application/octet-stream"),
        ("Cache-Control", "no-store"),
        ("ETag", "\"v1\""),
        ("X-Twice", "one"),
        ("X-Twice", "two"),
        ("Link", "</a>; rel=next"),
    ];
    let origin = Origin::fixed(answer(200, &fields, &body));
    let proxy = Setup::over(&origin).start();
    let response = proxy.get("/api/v1/x");
    assert_eq!(response.body, body);
    for (name, value) in fields.iter().filter(|it| it.0 != "X-Twice") {
        assert_eq!(response.field(name), Some(*value), "{name}");
    }
    let twice: Vec<&str> = response.fields.all("X-Twice").collect();
    assert_eq!(twice.join(", "), "one, two");
}

/// RFC 9110 section 7.6.1.
#[test]
fn hop_by_hop_fields_end_here_in_both_directions() {
    let hop = [
        ("Connection", "X-Named, keep-alive"),
        ("X-Named", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Other", "1"),
    ];
    let origin = Origin::fixed(answer(200, &hop, "x"));
    let proxy = Setup::over(&origin).start();
    let response =
        proxy.ask("GET", "/api/v1/x", &[hop[0], hop[1], hop[2], hop[3], hop[4], ("TE", "gzip")]);
    let seen = origin.last();
    for name in ["X-Named", "Keep-Alive", "Proxy-Connection"] {
        assert_eq!(seen.field(name), None, "to the origin: {name}");
        assert_eq!(response.field(name), None, "to the client: {name}");
    }
    assert_eq!(seen.field("TE"), None);
    assert_eq!(seen.field("X-Other"), Some("1"));
    assert_eq!(response.field("X-Other"), Some("1"));
}

#[test]
fn origin_is_asked_under_its_own_name() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/v1/x");
    let seen = origin.last();
    assert_eq!(seen.field("Host"), Some(origin.addr().to_string().as_str()));
    assert_eq!(seen.version, "HTTP/1.1");
    assert!(seen.field("Via").is_some_and(|via| via.starts_with("1.1 ")), "{seen:?}");
}

#[test]
fn post_is_forwarded_with_its_body_each_time() {
    let origin =
        Origin::respond(|request| answer(200, &[("Cache-Control", "max-age=60")], &request.body));
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    for turn in 1..=3 {
        let response = client.post("/api/v1/x", r#"{"a":1}"#);
        assert_eq!((response.status, response.text()), (200, r#"{"a":1}"#));
        assert_ne!(response.cache(), "HIT");
        assert_eq!(origin.count(), turn);
    }
    let seen = origin.last();
    assert_eq!((seen.method.as_str(), &seen.body[..]), ("POST", &br#"{"a":1}"#[..]));
}

/// RFC 9112 section 7.1.
#[test]
fn chunked_request_body_arrives_whole() {
    let origin = Origin::respond(|request| answer(200, &[], &request.body));
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.send("POST /api/v1/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    client.send("Transfer-Encoding: chunked\r\n\r\n6\r\n{\"a\":1\r\n1\r\n}\r\n0\r\n\r\n");
    assert_eq!(client.read("POST").text(), r#"{"a":1}"#);
    assert_eq!(origin.last().body, br#"{"a":1}"#);
}

#[test]
fn other_methods_are_forwarded() {
    let origin = Origin::respond(|request| {
        let body = if request.method == "HEAD" { "" } else { "x" };
        answer(200, &[("X-Method", &request.method)], body)
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    for method in ["HEAD", "DELETE", "OPTIONS"] {
        let response = client.ask(method, "/api/v1/x", &[]);
        assert_eq!((response.status, response.field("X-Method")), (200, Some(method)));
    }
    for method in ["PUT", "PATCH"] {
        client.send_request(method, "/api/v1/x", &[("Content-Type", "application/json")], "{}");
        assert_eq!(client.read(method).field("X-Method"), Some(method));
    }
}

#[test]
fn chunked_and_close_delimited_answers_arrive_whole() {
    let origin = Origin::script(|connection| {
        let Some(request) = connection.request() else { return };
        connection.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n");
        if request.target == "/chunked" {
            connection.send("Transfer-Encoding: chunked\r\n\r\n");
            connection.send("4\r\nwhol\r\n2;x=y\r\ne \r\n4\r\nbody\r\n0\r\nX-Trailer: 1\r\n\r\n");
        } else {
            connection.send("Connection: close\r\n\r\nwhole body");
        }
    });
    let proxy = Setup::over(&origin).start();
    for target in ["/api/chunked", "/api/close"] {
        let response = proxy.get(target);
        assert_eq!((response.status, response.text()), (200, "whole body"), "{target}");
    }
}

#[test]
fn body_streams_before_its_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        if connection.request().is_none() {
            return;
        }
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        held.pass();
        connection.send("5\r\n-last\r\n0\r\n\r\n");
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/v1/x", &[], ""));
    client.await_text("first");
    gate.open();
    assert_eq!(client.read("GET").text(), "first-last");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::respond(|request| answer(200, &[], &request.target));
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    let batch: Vec<u8> =
        (0..20).flat_map(|it| request("GET", &format!("/api/{}", it % 5), &[], "")).collect();
    client.send(batch);
    for number in 0..20 {
        assert_eq!(client.read("GET").text(), format!("/{}", number % 5));
    }
}

#[test]
fn answer_carries_a_request_id_and_the_security_headers() {
    let origin = Origin::fixed(answer(200, &[("X-Frame-Options", "SAMEORIGIN")], "x"));
    let proxy = Setup::over(&origin).start();
    for target in ["/api/v1/x", "/api/v1/x", "/health", "/nowhere"] {
        let response = proxy.get(target);
        assert!(response.field("X-Request-Id").is_some(), "{target}: {response:?}");
        assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"), "{target}");
        assert_eq!(response.field("Strict-Transport-Security"), None, "{target}: no TLS here");
        let framing = if target.starts_with("/api") { "SAMEORIGIN" } else { "DENY" };
        assert_eq!(response.field("X-Frame-Options"), Some(framing), "{target}: not doubled");
    }
}

#[test]
fn own_api_key_is_sent_and_the_clients_is_not() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let proxy = Setup::over(&origin).with("api_key", "ours").start();
    proxy.ask("GET", "/api/v1/x", &[("X-API-Key", "theirs")]);
    let seen = origin.last();
    assert_eq!(seen.field("X-API-Key"), Some("ours"));
    assert!(!String::from_utf8_lossy(&seen.head).contains("theirs"), "{seen:?}");
    let again = proxy.ask("GET", "/api/v1/x", &[("X-API-Key", "another")]);
    assert_eq!(again.cache(), "HIT", "one client of the origin, one cache");
}

#[test]
fn refused_requests_never_reach_the_origin() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).with("whitelisted_endpoints", vec!["/v1/*"]).start();
    let json = [("Content-Type", "application/json")];
    let rows = [
        ("GET", "/api/v2/x", &[][..], "", 403, "endpoint_not_allowed"),
        ("GET", "/nowhere", &[], "", 404, "not_found"),
        (
            "POST",
            "/api/v1/x",
            &[("Content-Type", "text/plain")],
            "x",
            415,
            "unsupported_media_type",
        ),
        ("POST", "/api/v1/x", &json, "{\"a\":", 400, "bad_request"),
        ("GET", "/api/v1/../v2/x", &[], "", 403, "endpoint_not_allowed"),
    ];
    for (method, target, fields, body, status, code) in rows {
        let mut client = proxy.connect();
        client.send_request(method, target, fields, body);
        let response = client.read(method);
        assert_eq!((response.status, response.problem().as_str()), (status, code), "{target}");
        assert!(response.field("X-Request-Id").is_some());
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn body_over_the_limit_is_refused_before_it_is_read() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).with("security.max_request_body_size", 100).start();
    let mut client = proxy.connect();
    client.send("POST /api/v1/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    client.send("Content-Length: 101\r\n\r\n");
    let response = client.read("POST");
    assert_eq!((response.status, response.problem().as_str()), (413, "content_too_large"));
    assert_eq!(origin.count(), 0);
}

#[test]
fn unreachable_origin_is_a_502() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Setup::at(&format!("http://{port}")).start();
    let response = proxy.get("/api/v1/x");
    assert_eq!((response.status, response.problem().as_str()), (502, "upstream_unreachable"));
    assert!(!response.text().contains(&port.to_string()), "{}", response.text());
}

#[test]
fn broken_answer_is_a_502() {
    let rows = [
        "",
        "HTTP/1.1 20",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
    ];
    let origin = Origin::script(move |connection| {
        let Some(request) = connection.request() else { return };
        let row: usize = request.target.trim_start_matches('/').parse().unwrap();
        connection.send(rows[row]);
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    for (number, row) in rows.iter().enumerate() {
        let response = proxy.get(&format!("/api/{number}"));
        assert_eq!(response.status, 502, "{row:?}: {response:?}");
        let code = response.problem();
        assert!(matches!(code.as_str(), "upstream_invalid" | "upstream_unreachable"), "{code}");
    }
}

#[test]
fn slow_origin_is_a_504() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        if connection.request().is_some() {
            held.pass();
        }
    });
    let proxy = Setup::over(&origin).with("client.request_timeout", 1).start();
    let response = proxy.get("/api/v1/x");
    assert_eq!((response.status, response.problem().as_str()), (504, "upstream_timeout"));
    gate.open();
}

#[test]
fn truncated_answer_cuts_the_client_and_is_not_stored() {
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
    let origin = Origin::script(move |connection| {
        let Some(request) = connection.request() else { return };
        connection.send(head);
        match request.target.as_str() {
            "/length" => connection.send("Content-Length: 100\r\n\r\nonly a part"),
            "/reset" => {
                connection.send("Content-Length: 100\r\n\r\nonly a part");
                connection.reset();
                true
            }
            _ => connection.send("Transfer-Encoding: chunked\r\n\r\n20\r\nonly a part"),
        };
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    for target in ["/api/length", "/api/reset", "/api/chunked"] {
        let before = origin.count();
        for turn in 1..=3 {
            let mut client = proxy.connect();
            client.send(request("GET", target, &[], ""));
            match client.try_read("GET") {
                Err(support::Fault::Cut(part)) => assert!(part.body.len() < 100),
                // The head had not been sent yet when the origin failed.
                Ok(response) => assert_eq!(response.status, 502, "{target}: {response:?}"),
                Err(other) => panic!("{target}: {other:?}"),
            }
            assert!(origin.count() >= before + turn, "{target}: served from the cache");
        }
    }
}

/// A pooled connection that died before any byte of an answer is replaced ("The path of a request"
/// in ARCHITECTURE.md, step 7).
#[test]
fn connection_that_died_in_the_pool_is_replaced_without_an_error() {
    let origin = Origin::script(|connection| {
        // One answer a connection, closed without a word.
        if connection.request().is_some() {
            connection.send(answer(200, &[("Cache-Control", "no-store")], "x"));
        }
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    for number in 0..30 {
        assert_eq!(client.get(&format!("/api/{number}")).status, 200, "request {number}");
    }
    assert_eq!(origin.count(), 30);
}

#[test]
fn connections_to_the_origin_are_reused() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "no-store")], "x"));
    let proxy = Setup::over(&origin).with("server.cores", 1).start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        client.get("/api/v1/x");
    }
    assert_eq!((origin.count(), origin.connections()), (20, 1));
}

/// Burst 10 means 10, on any number of connections and cores ("Who a client is" in the README).
#[test]
fn rate_limit_admits_exactly_the_burst() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let setup = Setup::over(&origin)
        .with("security.rate_limit_enabled", true)
        .with("security.rate_limit_per_ip", 1)
        .with("security.rate_limit_burst", 10);
    let proxy = setup.start();
    let mut clients = support::load::connect_all(proxy.addr(), 500);
    let four = request("GET", "/api/v1/x", &[], "").repeat(4);
    support::load::send_all(&mut clients, &four);
    let mut admitted = 0;
    for number in 0..2000 {
        let response = clients[number / 4].read("GET");
        if response.status == 200 {
            admitted += 1;
            continue;
        }
        assert_eq!((response.status, response.problem().as_str()), (429, "rate_limited"));
        let wait: u64 = response.field("Retry-After").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(admitted, 10);
}

#[test]
fn open_breaker_spares_the_origin() {
    let origin = Origin::fixed(answer(500, &[], "x"));
    let proxy = Setup::over(&origin).with("client.circuit_breaker_threshold", 3).start();
    for number in 0..3 {
        assert_eq!(proxy.get(&format!("/api/{number}")).status, 500);
    }
    let response = proxy.get("/api/4");
    assert_eq!((response.status, response.problem().as_str()), (503, "circuit_open"));
    assert!(response.field("Retry-After").is_some());
    assert_eq!(origin.count(), 3);
    eventually("health names the open breaker", || proxy.get("/health").text().contains("open"));
}
