//! HTTP/2 for clients: what a request gets, whatever it is, is what it would get over HTTP/1.1.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::collections::BTreeSet;
use std::sync::mpsc::channel;

use serde_json::{Value, json};
use support::{
    Gate, Http2, Metrics, Origin, Proxy, Response, Setup, Windows, answer, assert_cached,
    eventually, tls,
};

/// Fields of a request.
type Lines = &'static [(&'static str, &'static str)];

const JSON: (&str, &str) = ("content-type", "application/json");

fn connect(proxy: &Proxy) -> Http2 {
    Http2::connect(proxy.addr())
}

/// An origin with one of each kind.
fn varied() -> Origin {
    Origin::respond(|asked| {
        let path = asked.target.split('?').next().unwrap();
        let keep = ("Cache-Control", "max-age=600");
        match path {
            "/keep" => answer(200, &[keep, ("ETag", "\"one\""), ("X-Two", "1")], "0123456789"),
            "/pass" => answer(
                200,
                &[
                    ("Cache-Control", "no-store"),
                    ("Connection", "X-Hop"),
                    ("X-Hop", "1"),
                    ("Keep-Alive", "timeout=5"),
                ],
                "passed",
            ),
            "/chunks" => b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\
                Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
                .to_vec(),
            "/empty" => answer(204, &[keep], ""),
            "/failing" => answer(503, &[("Retry-After", "1")], "not now"),
            _ => answer(404, &[keep], "nothing"),
        }
    })
}

/// What does not depend on the protocol or the moment.
fn essence(answer: &Response) -> (u16, BTreeSet<(String, String)>, Vec<u8>) {
    let varying = ["date", "x-request-id", "age", "connection", "transfer-encoding"];
    let fields = answer.fields.0.iter().map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let value = match value.split_once("ttl=") {
            Some((before, _)) if name == "cache-status" => format!("{before}ttl"),
            _ => value.clone(),
        };
        (name, value)
    });
    let fields = fields.filter(|it| !varying.contains(&it.0.as_str())).collect();
    let mut body = answer.body.clone();
    // The id of a request stands in the body of its error.
    if answer.field("Content-Type") == Some("application/problem+json") {
        let mut problem = answer.json();
        problem["instance"] = Value::Null;
        problem["request_id"] = Value::Null;
        body = problem.to_string().into_bytes();
    }
    (answer.status, fields, body)
}

#[test]
fn each_answer_is_that_of_http1() {
    let origin = varied();
    let proxy = Setup::over(&origin).start();
    let mut one = proxy.connect();
    let two = connect(&proxy);
    let cases: [(&str, &str, Lines, u16, &str); 21] = [
        ("GET", "/api/keep", &[], 200, "MISS"),
        ("GET", "/api/keep", &[], 200, "HIT"),
        ("HEAD", "/api/keep", &[], 200, "HIT"),
        ("GET", "/api/keep", &[("if-none-match", "\"one\"")], 304, "HIT"),
        ("GET", "/api/keep", &[("range", "bytes=2-4")], 206, "HIT"),
        ("HEAD", "/api/keep", &[("range", "bytes=2-4")], 200, "HIT"),
        ("GET", "/api/keep", &[("range", "bytes=20-")], 416, "HIT"),
        ("GET", "/api/keep", &[("if-match", "\"two\"")], 200, "BYPASS"),
        ("GET", "/api/keep", &[("cache-control", "no-cache")], 200, "MISS"),
        ("GET", "/api/other", &[("cache-control", "only-if-cached")], 504, "MISS"),
        ("GET", "/api/pass", &[], 200, "MISS"),
        ("HEAD", "/api/pass", &[], 200, "MISS"),
        ("GET", "/api/chunks", &[], 200, "MISS"),
        ("GET", "/api/empty", &[], 204, "MISS"),
        ("GET", "/api/empty", &[], 204, "HIT"),
        ("GET", "/api/nothing", &[], 404, "MISS"),
        ("GET", "/api/failing", &[], 503, "MISS"),
        ("GET", "/nowhere", &[], 404, ""),
        ("DELETE", "/health", &[], 405, ""),
        ("BREW", "/api/keep", &[], 501, ""),
        ("GET", "/api/%00", &[], 400, ""),
    ];
    for (method, target, fields, status, cache) in cases {
        let over_one = one.ask(method, &format!("{target}?v=1"), fields);
        let over_two = two.ask(method, &format!("{target}?v=2"), fields, b"");
        assert_eq!(over_one.status, status, "{method} {target} {fields:?}: {over_one:?}");
        assert_eq!(essence(&over_one), essence(&over_two), "{method} {target} {fields:?}");
        // RFC 9110 section 8.6.
        assert!(status != 204 || over_two.field("Content-Length").is_none(), "{over_two:?}");
        if !cache.is_empty() {
            assert_eq!(over_two.cache(), cache, "{method} {target} {fields:?}");
        }
        assert_eq!(over_two.version, "HTTP/2.0");
        if over_one.field("Connection") == Some("close") {
            one = proxy.connect();
        }
    }
    assert!(!two.has_ended());
}

#[test]
fn a_body_reaches_the_origin_with_a_stated_length_or_without() {
    let origin = Origin::respond(|asked| answer(200, &[], asked.body.len().to_string()));
    let setup = Setup::over(&origin).with("security.max_request_body_size", 4_000_000);
    let proxy = setup.with("security.require_json_body", false).start();
    let client = connect(&proxy);
    // Larger than the windows of the stream and of the connection.
    let large: Vec<u8> = (0..3_000_000).map(|it: u32| (it % 251) as u8).collect();
    for body in [&large[..], &large[..1], b""] {
        for length in [Some(body.len().to_string()), None] {
            let fields: Vec<_> = length.iter().map(|it| ("content-length", it.as_str())).collect();
            let answer = client.ask("POST", "/api/x", &fields, body);
            assert_eq!((answer.status, answer.text()), (200, &*body.len().to_string()));
            assert!(origin.last().body == body, "another body, length {length:?}");
        }
    }
    // Its end comes in a frame of its own, with nothing in it.
    let mut stream = client.begin("POST", "/api/x", &[]);
    stream.end();
    assert_eq!(stream.answer().text(), "0");
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let setup = Setup::over(&origin).with("security.max_request_body_size", 100_000);
    let proxy = setup.with("security.require_json_body", false).start();
    let client = connect(&proxy);
    let stated = client.begin("POST", "/api/x", &[("content-length", "100001")]).answer();
    assert_eq!((stated.status, &*stated.problem()), (413, "content_too_large"));
    let mut stream = client.begin("POST", "/api/x", &[]);
    // The rest need not be taken.
    let _ = stream.try_send(&[b'x'; 300_000]);
    let unstated = stream.answer();
    assert_eq!((unstated.status, &*unstated.problem()), (413, "content_too_large"));
    let just = client.ask("POST", "/api/x", &[], &[b'x'; 100_000]);
    assert_eq!(just.status, 200, "the connection lives on");
    assert!(origin.requests().iter().all(|it| it.body.len() <= 100_000));
}

#[test]
fn a_body_that_must_be_json_is() {
    let origin = Origin::fixed(answer(200, &[], "x"));
    let proxy = Setup::over(&origin).with("security.require_json_body", true).start();
    let client = connect(&proxy);
    let rows: [(Lines, &[u8], u16); 4] = [
        (&[("content-type", "text/plain")], b"{}", 415),
        (&[], b"{}", 415),
        (&[JSON], b"{\"a\":", 400),
        (&[JSON], b"{\"a\":1}", 200),
    ];
    for (fields, body, status) in rows {
        let answer = client.ask("POST", "/api/x", fields, body);
        assert_eq!(answer.status, status, "{answer:?}");
        if status != 200 {
            answer.problem();
        }
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(origin.last().body, b"{\"a\":1}");
}

#[test]
fn an_origin_that_cannot_be_reached_is_a_problem_in_json() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = Setup::at(&format!("http://127.0.0.1:{port}")).start();
    let answer = connect(&proxy).get("/api/x");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.problem(), proxy.get("/api/x").problem());
}

#[test]
fn the_daemons_own_endpoints_answer() {
    let origin = Origin::counting("max-age=600");
    let proxy = Setup::over(&origin).start();
    let client = connect(&proxy);
    assert_eq!(client.get("/health").json()["status"], proxy.get("/health").json()["status"]);
    assert_cached(&client.get("/api/x"), "MISS", "answer 0");
    assert_cached(&client.get("/api/x"), "HIT", "answer 0");
    eventually("it is stored", || client.get("/cache/stats").json()["entries"] == 1);
    assert_eq!(client.ask("POST", "/cache/clear", &[], b"").status, 200);
    assert_cached(&client.get("/api/x"), "MISS", "answer 1");
    let page = Metrics::parse(client.get("/metrics").text());
    assert_eq!(page.value("apiproxyd_http2_connections_total"), 1.0);
}

#[test]
fn the_access_log_says_http2() {
    let origin = varied();
    let setup = Setup::over(&origin);
    let path = setup.home().join("access.log");
    let setup = setup.with("log.access", "all").with("log.format", "json");
    let setup = setup.with("log.access_path", path.to_str().unwrap());
    let proxy = setup.start();
    let client = connect(&proxy);
    for target in ["/api/keep?a=1", "/api/keep?a=1", "/api/pass", "/nowhere"] {
        client.get(target);
    }
    let mismatch = client.ask("GET", "/api/x", &[("host", "other.test")], b"");
    assert_eq!(mismatch.status, 400);
    client.ask("POST", "/api/pass", &[JSON], b"{}");
    drop(client);
    proxy.stop();
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let seen =
        |it: &Value| json!([it["protocol"], it["status"], it["cache"], it["detail"], it["bytes"]]);
    let seen: Vec<_> = lines.iter().map(seen).collect();
    let problem = |it: usize| lines[it]["bytes"].clone();
    assert_eq!(
        seen,
        [
            json!(["HTTP/2", 200, "miss", null, 10]),
            json!(["HTTP/2", 200, "hit", null, 10]),
            json!(["HTTP/2", 200, "miss", "no_store", 6]),
            json!(["HTTP/2", 404, "none", "not_found", problem(3)]),
            json!([null, 400, "none", "authority_mismatch", problem(4)]),
            json!(["HTTP/2", 200, "bypass", "method_not_cached", 6]),
        ]
    );
    assert_eq!(
        (&lines[0]["host"], &lines[0]["target"]),
        (&json!("proxy.test"), &json!("/api/keep?a=1"))
    );
    assert_eq!(lines[0]["scheme"], "http");
}

/// RFC 9113 section 8.2.3.
#[test]
fn cookies_in_several_fields_reach_the_origin_as_one() {
    let origin = varied();
    let proxy = Setup::over(&origin).start();
    let crumbs = [("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3")];
    assert_eq!(connect(&proxy).ask("GET", "/api/pass", &crumbs, b"").status, 200);
    assert_eq!(origin.last().field("Cookie"), Some("a=1; b=2; c=3"));
    assert_eq!(origin.last().field("X-Between"), Some("1"));
}

#[test]
fn host_may_stand_beside_the_authority_where_both_agree() {
    let origin = varied();
    let proxy = Setup::over(&origin).start();
    let client = connect(&proxy);
    for host in ["proxy.test", "PROXY.test", "proxy.test:80"] {
        let answer = client.ask("GET", "/api/pass", &[("host", host)], b"");
        assert_eq!(answer.status, 200, "{host}");
    }
    let before = origin.count();
    for host in ["other.test", "proxy.test:81", "proxy.test, other.test"] {
        let answer = client.ask("GET", "/api/pass", &[("host", host)], b"");
        assert_eq!((answer.status, &*answer.problem()), (400, "bad_request"), "{host}");
    }
    assert_eq!(origin.count(), before);
}

#[test]
fn interim_answers_arrive_before_the_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
            held.pass();
            connection.send(answer(200, &[("Cache-Control", "no-store")], "late"));
        }
    });
    let proxy = Setup::over(&origin).start();
    let client = connect(&proxy);
    let mut stream = client.begin_get("/api/x");
    let (status, fields) = stream.interim().expect("no interim answer");
    assert_eq!((status, fields.only("link")), (103, Some("</style.css>")));
    gate.open();
    assert_eq!(stream.answer().text(), "late");
}

/// RFC 9110 section 10.1.1.
#[test]
fn the_body_is_asked_for_when_it_is_wanted() {
    let origin = Origin::respond(|asked| answer(200, &[], &asked.body));
    let proxy = Setup::over(&origin).with("security.max_request_body_size", 100).start();
    let client = connect(&proxy);
    let expect = ("expect", "100-continue");
    let mut stream = client.begin("POST", "/api/x", &[JSON, expect]);
    assert_eq!(stream.interim().map(|it| it.0), Some(100));
    stream.send(b"[1]").end();
    assert_eq!(stream.answer().text(), "[1]");
    assert_eq!(origin.last().field("Expect"), None);
    let mut refused = client.begin("POST", "/api/x", &[JSON, expect, ("content-length", "101")]);
    let refused = refused.answer();
    assert_eq!((refused.status, refused.interim.len()), (413, 0));
    let unknown = client.ask("POST", "/api/x", &[JSON, ("expect", "more")], b"");
    assert_eq!(unknown.status, 417);
}

/// RFC 9113 section 8.1: they end the body, and are not needed.
#[test]
fn trailers_of_a_request_are_taken() {
    let origin = Origin::respond(|asked| answer(200, &[], &asked.body));
    let proxy = Setup::over(&origin).start();
    let client = connect(&proxy);
    let mut stream = client.begin("POST", "/api/x", &[JSON, ("te", "trailers")]);
    stream.send(b"[1,2]").end_with("x-checksum", "7");
    let answer = stream.answer();
    assert_eq!((answer.status, answer.text()), (200, "[1,2]"));
    assert_eq!(origin.last().field("X-Checksum"), None);
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn a_hundred_streams_for_one_thing_become_one_request() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[("Cache-Control", "max-age=60")], vec![b'x'; 100_000])
    });
    let proxy = Setup::over(&origin).start();
    // All streams share the connection's window, and are read one after the other.
    let windows = Windows { connection_bytes: Some(1 << 24), ..Windows::default() };
    let client = Http2::narrow(proxy.addr(), windows);
    let mut streams: Vec<_> = (0..100).map(|_| client.begin_get("/api/x")).collect();
    let waiting = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("all wait", || waiting() >= 100.0);
    gate.open();
    for stream in &mut streams {
        let answer = stream.answer();
        assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn events_arrive_as_the_origin_sends_them() {
    let (next, wanted) = channel::<()>();
    let wanted = std::sync::Mutex::new(wanted);
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            connection.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
            );
            let wanted = wanted.lock().unwrap();
            for number in 0.. {
                if wanted.recv().is_err() {
                    break;
                }
                connection.send(format!("9\r\ndata: {number:02}\n\r\n"));
            }
            connection.send("0\r\n\r\n");
        }
    });
    let proxy = Setup::over(&origin).start();
    let client = connect(&proxy);
    let mut stream = client.begin_get("/api/events");
    // The head without any body, then each event before the next is asked for.
    let head = stream.head().unwrap();
    assert_eq!(head.field("Content-Type"), Some("text/event-stream"));
    for number in 0..20 {
        next.send(()).unwrap();
        let piece = stream.piece().unwrap().expect("the end");
        assert_eq!(piece, format!("data: {number:02}\n"));
    }
    drop(next);
    assert_eq!(stream.piece().unwrap(), None);
}

#[test]
fn a_tls_connection_agrees_on_http2() {
    let origin = Origin::counting("max-age=600");
    let made = tls::make();
    let proxy = made.shown_by(Setup::over(&origin)).start();
    let client = Http2::secure(proxy.addr(), &made);
    assert_cached(&client.get("/api/x"), "MISS", "answer 0");
    assert_cached(&client.get("/api/x"), "HIT", "answer 0");
    let large =
        client.ask("POST", "/api/x", &[JSON], format!("[{}1]", "1,".repeat(400_000)).as_bytes());
    assert_eq!(large.status, 200);
    let protocol = |alpn: &[&str]| {
        let stream = std::net::TcpStream::connect(proxy.addr()).unwrap();
        made.offering(stream, alpn).unwrap().protocol()
    };
    assert_eq!(protocol(&["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(protocol(&["http/1.1", "h2"]).as_deref(), Some("h2"), "ours is the choice");
    let mut one = made.connect(proxy.addr()).unwrap();
    assert_eq!(one.ask("GET", "/api/x", &[]).status, 200, "HTTP/1.1 over the same port");
}

#[test]
fn where_it_is_switched_off_nobody_is_offered_it() {
    let origin = Origin::counting("max-age=600");
    let made = tls::make();
    let setup = Setup::over(&origin).with("server.enable_http2", false);
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(support::frames::PREFACE);
    let refused = client.read("GET");
    assert_eq!((refused.status, &*refused.problem()), (505, "version_not_supported"));
    client.expect_close();
    let proxy = made.shown_by(setup).start();
    let stream = std::net::TcpStream::connect(proxy.addr()).unwrap();
    let mut secure = made.offering(stream, &["h2", "http/1.1"]).unwrap();
    assert_eq!(secure.protocol().as_deref(), Some("http/1.1"));
    assert_eq!(secure.ask("GET", "/api/x", &[]).status, 200);
}
