//! The access log: who gets a line, what stands in it, what never does, and where it goes.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::client::request;
use support::{Connection, Gate, Metrics, Origin, Proxy, Setup, answer, eventually};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A setup that logs every request as JSON into a file.
fn logging(origin: &Origin) -> (Setup, PathBuf) {
    let setup = Setup::over(origin);
    let path = setup.home().join("access.log");
    let setup = setup
        .with("log.access", "all")
        .with("log.format", "json")
        .with("log.access_path", path.to_str().unwrap());
    (setup, path)
}

fn origin() -> Origin {
    Origin::respond(|request| {
        let control = if request.target.contains("keep") { "max-age=600" } else { "no-store" };
        answer(200, &[("Cache-Control", control)], "0123456789")
    })
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|it| serde_json::from_str(it).unwrap_or_else(|_| panic!("{it}"))).collect()
}

/// Waits for so many lines.
#[track_caller]
fn await_lines(path: &PathBuf, count: usize) -> Vec<Value> {
    eventually("the lines", || lines(path).len() >= count);
    let lines = lines(path);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[test]
fn every_request_gets_a_line_that_says_what_became_of_it() {
    let origin = origin();
    let (setup, path) = logging(&origin);
    let setup = setup.with("whitelisted_endpoints", json!(["/*"]));
    let proxy =
        setup.with("security.client_api_keys", json!([{"key": "k1", "name": "acme"}])).start();
    let mut client = proxy.connect();
    let key = ("X-API-Key", "k1");
    let agent = ("User-Agent", "tests/1.0 (\"quoted\")");
    let fields = [key, agent, ("traceparent", TRACE), ("X-Request-Id", "mine-1")];
    client.ask("GET", "/api/keep?city=Oslo", &fields);
    client.ask("GET", "/api/keep?city=Oslo", &fields);
    client.ask("HEAD", "/api/keep?city=Oslo", &[key]);
    client.ask("GET", "/api/pass", &[key]);
    client.ask("GET", "/api/pass", &[]);
    client.ask("GET", "/health", &[]);
    client.ask("GET", "/nowhere", &[]);
    client.send("GET /api/x HTTP/1.1\r\nHost : x\r\n\r\n");
    assert_eq!(client.read("GET").status, 400);
    let lines = await_lines(&path, 8);
    let rows = [
        ("GET", 200, 10, "miss", Value::Null),
        ("GET", 200, 10, "hit", Value::Null),
        ("HEAD", 200, 0, "hit", Value::Null),
        ("GET", 200, 10, "miss", "no_store".into()),
        ("GET", 401, 0, "none", "unauthorized".into()),
        ("GET", 200, 0, "none", Value::Null),
        ("GET", 404, 0, "none", "not_found".into()),
        ("", 400, 0, "none", "space_before_colon".into()),
    ];
    for (line, (method, status, bytes, cache, detail)) in lines.iter().zip(rows) {
        assert_eq!(line["status"], status, "{line:#}");
        assert_eq!(line["method"].as_str().unwrap_or_default(), method, "{line:#}");
        assert_eq!((&line["cache"], &line["detail"]), (&json!(cache), &detail), "{line:#}");
        assert_eq!(line["client"], "127.0.0.1", "{line:#}");
        if bytes > 0 {
            assert_eq!(line["bytes"], bytes, "{line:#}");
        }
        let time = line["time"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 24, "{line:#}");
        assert!(line["duration_us"].is_u64(), "{line:#}");
        assert!(!line["request_id"].as_str().unwrap().is_empty(), "{line:#}");
        assert_eq!(line["upstream_us"].is_u64(), cache == "miss", "{line:#}");
        let named = matches!(line["cache"].as_str(), Some("hit" | "miss"));
        assert_eq!(line["key"].as_str(), named.then_some("acme"), "{line:#}");
    }
    for line in &lines[..2] {
        assert_eq!(line["target"], "/api/keep?city=Oslo");
        assert_eq!(line["user_agent"], "tests/1.0 (\"quoted\")");
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((&line["request_id"], &line["scheme"]), (&json!("mine-1"), &json!("http")));
        assert_eq!((&line["protocol"], &line["host"]), (&json!("HTTP/1.1"), &json!("proxy.test")));
    }
}

#[test]
fn off_logs_nothing_errors_log_server_errors_and_samples_are_some() {
    let origin = Origin::respond(|request| {
        let status = if request.target.contains("bad") { 502 } else { 200 };
        answer(status, &[("Cache-Control", "no-store")], "x")
    });
    let run = |which: &str| {
        let (setup, path) = logging(&origin);
        let setup = setup.with("log.access", which).with("log.access_sample", 4);
        let proxy = setup.start();
        let mut client = proxy.connect();
        for number in 0..400 {
            client.get(if number % 2 == 0 { "/api/good" } else { "/api/bad" });
        }
        drop(client);
        // What was noted is written by the end.
        proxy.stop();
        lines(&path)
    };
    assert_eq!(run("off").len(), 0);
    assert_eq!(run("all").len(), 400);
    let errors = run("errors");
    assert_eq!(errors.len(), 200);
    assert!(errors.iter().all(|it| it["status"] == 502));
    // One in four: 400 draws lie within six deviations of 100.
    let sampled = run("sampled").len();
    assert!((48..=152).contains(&sampled), "{sampled}");
}

#[test]
fn text_is_written_to_standard_error_where_no_file_is_named() {
    let origin = origin();
    let proxy = Setup::over(&origin).with("log.access", "all").start();
    proxy.ask("GET", "/api/keep?a=1", &[("User-Agent", "a b")]);
    let line = |text: String| {
        text.lines().any(|it| {
            it.starts_with("time=20")
                && it.contains(" client=127.0.0.1 method=GET target=\"/api/keep?a=1\" ")
                && it.contains(" status=200 bytes=10 duration_us=")
                && it.ends_with(" user_agent=\"a b\"")
        })
    };
    eventually("the line", || line(proxy.stderr()));
}

/// Whatever a client writes, a line stays one line and its members stay what they are.
#[test]
fn no_client_can_forge_a_line() {
    let origin = origin();
    let evil = "x\" status=500 \\ {\"a\":1} \u{1b}[2J";
    for form in ["json", "text"] {
        let (setup, path) = logging(&origin);
        let proxy = setup.with("log.format", form).start();
        let mut client = proxy.connect();
        let mut bytes = b"GET /api/a\"b\\c?q=\"%0d%0aforged HTTP/1.1\r\nHost: h\r\n".to_vec();
        bytes.extend(b"User-Agent: x\" \\ forged=1 \x80\xff\r\nX-Request-Id: a\" b\r\n");
        bytes.extend(b"traceparent: \"forged\"\r\n\r\n");
        client.send(&bytes);
        let status = client.read("GET").status;
        // Control bytes in a field are no HTTP.
        let mut other = proxy.connect();
        other.send(format!("GET /api/x HTTP/1.1\r\nHost: h\r\nUser-Agent: {evil}\r\n\r\n"));
        assert_eq!(other.read("GET").status, 400);
        eventually("both lines", || {
            fs::read(&path).unwrap_or_default().iter().filter(|it| **it == b'\n').count() == 2
        });
        let text = fs::read(&path).unwrap();
        assert!(text.iter().all(|it| (b' '..=b'~').contains(it) || *it == b'\n'), "{text:?}");
        if form == "json" {
            // Each core hands its lines over by itself: their order is that of neither connection.
            let lines = lines(&path);
            let line = lines.iter().find(|it| it["user_agent"].is_string()).unwrap();
            assert_eq!(line["status"], status, "{line:#}");
            assert_eq!(line["user_agent"], "x\" \\ forged=1 \u{80}\u{ff}", "{line:#}");
            assert_eq!(line["trace_id"], Value::Null);
            assert_eq!(line["request_id"].as_str().unwrap().len(), 16, "{line:#}");
        }
    }
}

#[test]
fn credentials_in_queries_are_masked_and_bodies_never_logged() {
    let origin = origin();
    let (setup, path) = logging(&origin);
    let setup = setup.with("log.access_mask", json!(["tenant"]));
    let setup = setup.with("security.admin_token", "OPERATOR9");
    let proxy = setup
        .with("security.metrics_auth_enabled", true)
        .with("security.metrics_auth_token", "SCRAPER9")
        .start();
    let mut client = proxy.connect();
    client.get("/api/keep?a=1&Access_Token=SECRET9&%74oken=SECRET9;key=SECRET9&tenant=SECRET9");
    client.ask(
        "GET",
        "/api/keep?b=2",
        &[("Authorization", "Bearer SECRET9"), ("Cookie", "SECRET9")],
    );
    client.post("/api/post", "{\"password\":\"SECRET9\"}");
    client.get("/metrics?token=SCRAPER9");
    client.get("/metrics?x=SCRAPER9");
    let operator = ("Authorization", "Bearer OPERATOR9");
    client.ask(
        "GET",
        "/cache/explain?path=/x%3Ftoken%3DSECRET9&header=X-API-Key:SECRET9",
        &[operator],
    );
    let lines = await_lines(&path, 6);
    let text = fs::read_to_string(&path).unwrap();
    for secret in ["SECRET9", "SCRAPER9", "OPERATOR9", "password"] {
        assert!(!text.contains(secret), "{text}");
    }
    let expected = "/api/keep?a=1&Access_Token=***&%74oken=***;key=***&tenant=***";
    assert_eq!(lines[0]["target"], expected);
    assert_eq!(lines[1]["target"], "/api/keep?b=2");
    assert_eq!(
        (&lines[3]["target"], &lines[4]["target"]),
        (&json!("/metrics"), &json!("/metrics"))
    );
    assert_eq!(lines[5]["target"], "/cache/explain");
}

#[test]
fn a_rotated_file_is_opened_again_on_sighup() {
    let origin = origin();
    let (setup, path) = logging(&origin);
    let proxy = setup.start();
    proxy.get("/api/one");
    await_lines(&path, 1);
    let old = path.with_extension("1");
    fs::rename(&path, &old).unwrap();
    proxy.get("/api/two");
    await_lines(&old, 2);
    proxy.signal(Signal::SIGHUP);
    eventually("the new file", || {
        proxy.get("/api/three");
        path.exists()
    });
    eventually("a line in it", || !lines(&path).is_empty());
    let before = lines(&old).len();
    proxy.get("/api/four");
    eventually("the last line", || lines(&path).iter().any(|it| it["target"] == "/api/four"));
    assert_eq!(lines(&old).len(), before, "nothing more goes to the old one");
}

#[test]
fn a_file_that_cannot_be_opened_is_refused_at_the_start() {
    let origin = origin();
    let setup = Setup::over(&origin).with("log.access", "all");
    let refused = setup.with("log.access_path", "/dev/null/access.log").refused();
    assert_eq!(refused.code, Some(70), "{refused:?}");
    assert!(refused.stderr.contains("log.access_path"), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
}

/// A full disk: lines are lost, counted and reported once; requests are answered.
#[test]
fn a_log_that_cannot_be_written_is_reported_and_stops_nobody() {
    let origin = origin();
    let (setup, _) = logging(&origin);
    let proxy = setup.with("log.access_path", "/dev/full").start();
    let dropped = || Metrics::of(&proxy).value("apiproxyd_access_log_dropped_total");
    for _ in 0..5 {
        assert_eq!(proxy.get("/api/keep").status, 200);
        let before = dropped();
        eventually("it is counted", || dropped() > before);
    }
    assert_eq!(proxy.stderr().matches("/dev/full can't be written").count(), 1);
}

/// A reader that stands still: lines are dropped and counted, and nobody waits.
#[test]
fn a_log_that_is_not_read_stops_nobody() {
    let origin = origin();
    let (setup, _) = logging(&origin);
    let path = setup.home().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Open for both, so that neither open waits, and never read.
    let held = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let setup = setup.with("log.access_path", path.to_str().unwrap());
    let mut proxy = setup.with("server.shutdown_timeout", 1).start();
    let mut client = proxy.connect();
    client.get("/api/keep");
    let long = format!("/api/keep?{}", "x".repeat(1_900));
    let batch = request("GET", &long, &[], "").repeat(100);
    let dropped = |proxy: &Proxy| Metrics::of(proxy).value("apiproxyd_access_log_dropped_total");
    let mut sent = 0.0;
    while dropped(&proxy) == 0.0 {
        assert!(sent < 100_000.0, "never full");
        client.send(&batch);
        for _ in 0..100 {
            assert_eq!(client.read("GET").status, 200);
        }
        sent += 100.0;
    }
    assert!(dropped(&proxy) <= sent + 100.0);
    proxy.signal(Signal::SIGTERM);
    drop(client);
    drop(held);
    assert_eq!(proxy.await_exit(), Some(0), "{}", proxy.stderr());
}

#[test]
fn a_client_that_leaves_and_an_answer_that_is_cut_are_told_apart() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection: &mut Connection| {
        let Some(request) = connection.request() else { return };
        if request.target.contains("wait") {
            held.pass();
        } else {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            connection.send([b'x'; 50_000]);
        }
    });
    let (setup, path) = logging(&origin);
    let proxy = setup.start();
    let mut cut = proxy.connect();
    cut.send_request("GET", "/api/cut", &[], "");
    assert!(cut.try_read("GET").is_err());
    let line = &await_lines(&path, 1)[0];
    assert_eq!((&line["status"], &line["end"]), (&json!(200), &json!("cut")), "{line:#}");
    let mut leaver = proxy.connect();
    leaver.send_request("POST", "/api/wait", &[("Content-Type", "application/json")], "{}");
    origin.await_requests(2);
    leaver.reset();
    let line = &await_lines(&path, 2)[1];
    assert_eq!((&line["status"], &line["end"]), (&json!(499), &json!("client_left")), "{line:#}");
    gate.open();
    assert_eq!(Metrics::of(&proxy).value("apiproxyd_requests_abandoned_total"), 1.0);
}

#[test]
fn a_valid_trace_and_the_request_id_go_on_and_others_end_here() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    const STATE: (&str, &str) = ("tracestate", "vendor=1");
    type Sent = &'static [(&'static str, &'static str)];
    let rows: [(Sent, Option<&str>, Option<&str>); 6] = [
        (&[("traceparent", TRACE), STATE], Some(TRACE), Some("vendor=1")),
        (&[("Traceparent", TRACE)], Some(TRACE), None),
        (&[("traceparent", "junk"), STATE], None, None),
        (&[("traceparent", TRACE), ("traceparent", TRACE), STATE], None, None),
        (&[STATE], None, None),
        (&[], None, None),
    ];
    // To the origin on behalf of the cache, and past it.
    for target in ["/api/keep", "/api/pass"] {
        for (number, (fields, parent, state)) in rows.iter().enumerate() {
            proxy.ask("GET", &format!("{target}?{number}"), fields);
            let seen = origin.last();
            assert_eq!((seen.field("traceparent"), seen.field("tracestate")), (*parent, *state));
        }
    }
    let mine = proxy.ask("GET", "/api/pass", &[("X-Request-Id", "abc-1.2")]);
    assert_eq!(mine.field("X-Request-Id"), Some("abc-1.2"));
    assert_eq!(origin.last().field("X-Request-Id"), Some("abc-1.2"));
    for bad in ["a b", "a\"b", "<script>", &"x".repeat(65)] {
        let made = proxy.ask("GET", "/api/pass", &[("X-Request-Id", bad)]);
        let id = made.field("X-Request-Id").unwrap().to_owned();
        assert!(id.len() == 16 && id.bytes().all(|it| it.is_ascii_hexdigit()), "{id}");
        assert_eq!(origin.last().field("X-Request-Id"), Some(id.as_str()));
    }
}
