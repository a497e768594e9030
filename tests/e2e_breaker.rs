//! The circuit breaker of each upstream, from outside: what opens it and what does not, how many
//! try whether the upstream is back, and that other upstreams don't notice.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::client::request;
use support::{Client, Gate, Metrics, Origin, Proxy, Response, Setup, answer, eventually, load};

const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// An origin that answers with what it is told. `/held` waits for the gate first.
struct Told {
    origin: Origin,
    status: Arc<AtomicUsize>,
    gate: Gate,
}

impl Told {
    fn new(status: usize) -> Self {
        let (status, gate) = (Arc::new(AtomicUsize::new(status)), Gate::default());
        let (told, held) = (status.clone(), gate.clone());
        let origin = Origin::respond(move |request| {
            if request.target.starts_with("/held") {
                held.pass();
            }
            let status = u16::try_from(told.load(Ordering::SeqCst)).unwrap();
            answer(status, &[NO_STORE], "x")
        });
        Self { origin, status, gate }
    }

    fn says(&self, status: usize) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// In front of it: so many failures open, for two seconds, so many probes close.
    fn setup(&self, threshold: u32, half_open: u32) -> Setup {
        Setup::over(&self.origin)
            .with("client.circuit_breaker_threshold", threshold)
            .with("client.circuit_breaker_timeout", 2)
            .with("client.circuit_breaker_half_open", half_open)
    }
}

/// What `/metrics` and `/health` say of the only breaker: they must agree.
#[track_caller]
fn position(proxy: &Proxy) -> &'static str {
    let (metrics, health) = (Metrics::of(proxy), proxy.get("/health"));
    assert_eq!(health.status, 200, "the daemon is well, whatever its upstreams are");
    let states = [("closed", "ok"), ("open", "circuit_open"), ("half_open", "half_open")];
    let is =
        |state: &str| metrics.sum("apiproxyd_breaker_state", &[&format!("\"{state}\"")]) == 1.0;
    let mut now = states.iter().filter(|it| is(it.0));
    let (state, word) = now.next().expect("no state");
    assert!(now.next().is_none(), "two states");
    let health = health.json();
    assert_eq!(health["upstreams"][0]["state"], *word, "{health}");
    assert_eq!(health["components"]["upstream_client"], *word, "{health}");
    state
}

/// Openings, half-openings, closings.
#[track_caller]
fn changes(proxy: &Proxy) -> [f64; 3] {
    let metrics = Metrics::of(proxy);
    ["opened", "half_opened", "closed"].map(|change| {
        metrics.value(&format!("apiproxyd_breaker_changes_total{{change=\"{change}\"}}"))
    })
}

#[track_caller]
fn assert_refused(response: &Response, waits: std::ops::RangeInclusive<u64>) {
    assert_eq!((response.status, response.problem().as_str()), (503, "circuit_open"));
    let wait: u64 = response.field("Retry-After").unwrap().parse().unwrap();
    assert!(waits.contains(&wait), "{wait}");
}

/// Waits until the time of an open breaker is over, without asking anything.
fn sit_out(proxy: &Proxy, opened: Instant) {
    assert_eq!(position(proxy), "open");
    std::thread::sleep(Duration::from_millis(2_050).saturating_sub(opened.elapsed()));
}

#[test]
fn each_change_is_counted_and_shown_and_so_is_each_refusal() {
    let told = Told::new(500);
    let proxy = told.setup(3, 2).start();
    assert_eq!((position(&proxy), changes(&proxy)), ("closed", [0.0; 3]));
    for number in 1..=2 {
        assert_eq!(proxy.get(&format!("/api/{number}")).status, 500);
        let failures = Metrics::of(&proxy).sum("apiproxyd_breaker_consecutive_failures", &[]);
        assert_eq!((position(&proxy), failures), ("closed", f64::from(number)));
    }
    proxy.get("/api/3");
    let opened = Instant::now();
    assert_eq!((position(&proxy), changes(&proxy)), ("open", [1.0, 0.0, 0.0]));
    for number in 0..5 {
        assert_refused(&proxy.get(&format!("/api/refused/{number}")), 1..=2);
    }
    assert_eq!(Metrics::of(&proxy).value("apiproxyd_breaker_refused_total"), 5.0);
    assert_eq!(told.origin.count(), 3);
    // A probe that fails opens it again.
    sit_out(&proxy, opened);
    assert_eq!(proxy.get("/api/4").status, 500);
    let opened = Instant::now();
    assert_eq!((position(&proxy), changes(&proxy)), ("open", [2.0, 1.0, 0.0]));
    // One that succeeds is not enough, two are.
    told.says(200);
    sit_out(&proxy, opened);
    assert_eq!(proxy.get("/api/5").status, 200);
    assert_eq!((position(&proxy), changes(&proxy)), ("half_open", [2.0, 2.0, 0.0]));
    assert_eq!(proxy.get("/api/6").status, 200);
    assert_eq!((position(&proxy), changes(&proxy)), ("closed", [2.0, 2.0, 1.0]));
    assert_eq!(told.origin.count(), 6);
}

/// 200 clients on both cores at the moment when it half-opens: three may try.
#[test]
fn half_open_breaker_lets_exactly_its_probes_through_on_all_cores() {
    let told = Told::new(500);
    let proxy = told.setup(1, 3).start();
    proxy.get("/api/x");
    let opened = Instant::now();
    let mut clients = load::connect_all(proxy.addr(), 200);
    told.says(200);
    sit_out(&proxy, opened);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/held/{number}"), &[], ""));
    }
    told.origin.await_requests(4);
    let refused = || Metrics::of(&proxy).value("apiproxyd_breaker_refused_total");
    eventually("all others are refused", || refused() == 197.0);
    assert_eq!((position(&proxy), told.origin.count()), ("half_open", 4));
    told.gate.open();
    let answers: Vec<Response> = clients.iter_mut().map(|it| it.read("GET")).collect();
    let (served, others): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.status == 200);
    assert_eq!(served.len(), 3);
    others.into_iter().for_each(|it| assert_refused(it, 1..=1));
    assert_eq!((position(&proxy), changes(&proxy)), ("closed", [1.0; 3]));
    let metrics = Metrics::of(&proxy);
    let of_core = |core: &str| metrics.sum("apiproxyd_core_requests_total", &[core]);
    assert!(of_core("\"0\"") > 20.0 && of_core("\"1\"") > 20.0, "both cores had a part in it");
}

#[test]
fn probe_whose_client_leaves_gives_its_place_back() {
    let told = Told::new(500);
    let proxy = told.setup(1, 1).start();
    proxy.get("/api/x");
    told.says(200);
    sit_out(&proxy, Instant::now());
    let mut probe = proxy.connect();
    probe.send_request("POST", "/api/held", &JSON, "{}");
    told.origin.await_requests(2);
    assert_refused(&proxy.get("/api/y"), 1..=1);
    probe.reset();
    eventually("another may try", || proxy.get("/api/z").status == 200);
    assert_eq!((position(&proxy), changes(&proxy)), ("closed", [1.0; 3]));
    told.gate.open();
}

#[test]
fn what_clients_do_wrong_is_no_failure_of_the_origin() {
    let told = Told::new(404);
    let proxy = told.setup(1, 1).start();
    for status in [400, 404, 408, 429, 499] {
        told.says(status);
        assert_eq!(usize::from(proxy.get(&format!("/api/{status}")).status), status);
    }
    // Nor that they leave while it is asked.
    let before = told.origin.count();
    let mut clients = load::connect_all(proxy.addr(), 20);
    for client in &mut clients {
        client.send_request("POST", "/api/held", &JSON, "{}");
    }
    told.origin.await_requests(before + 20);
    clients.into_iter().for_each(Client::reset);
    let in_flight = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("all are given up", || in_flight() == 0.0);
    let failures = Metrics::of(&proxy).sum("apiproxyd_breaker_consecutive_failures", &[]);
    assert_eq!((position(&proxy), changes(&proxy), failures), ("closed", [0.0; 3], 0.0));
    told.gate.open();
}

/// Transport errors, answers that break the rules and time-outs, each alone.
#[test]
fn what_the_origin_does_wrong_is() {
    type Play = fn(&mut support::Connection);
    let plays: [(Play, u16); 4] = [
        (|it| it.reset(), 502),
        (|it| it.close(), 502),
        (|it| _ = it.send("nonsense\r\n\r\n"), 502),
        (|it| it.await_close(), 504),
    ];
    for (play, status) in plays {
        let origin = Origin::script(move |connection| {
            if connection.request().is_some() {
                play(connection);
            }
        });
        let proxy = Setup::over(&origin)
            .with("client.circuit_breaker_threshold", 2)
            .with("client.request_timeout", 1)
            .start();
        for number in 0..2 {
            let failed = proxy.connect().post(&format!("/api/{number}"), "{}");
            assert_eq!(failed.status, status);
        }
        assert_eq!((position(&proxy), changes(&proxy)), ("open", [1.0, 0.0, 0.0]));
        assert_refused(&proxy.get("/api/x"), 55..=60);
    }
}

/// An origin that says when it will be back is not asked before, however short the breaker's own
/// time is.
#[test]
fn retry_after_of_a_503_lengthens_the_time() {
    let origin = Origin::fixed(answer(503, &[("Retry-After", "30")], "later"));
    let proxy = Setup::over(&origin)
        .with("client.circuit_breaker_threshold", 1)
        .with("client.circuit_breaker_timeout", 1)
        .start();
    assert_eq!(proxy.get("/api/x").text(), "later");
    sit_out(&proxy, Instant::now());
    let refused = proxy.get("/api/y");
    assert_eq!(refused.status, 503);
    let wait: u64 = refused.field("Retry-After").unwrap().parse().unwrap();
    assert!((25..=29).contains(&wait), "{wait}");
    assert_eq!((position(&proxy), changes(&proxy)), ("open", [1.0, 0.0, 0.0]));
    assert_eq!(origin.count(), 1);
}

/// One upstream fails, and one takes everything and says nothing; a third does not notice.
#[test]
fn upstreams_of_routes_are_isolated_from_each_other() {
    let (well, bad, gate) = (Told::new(200), Told::new(500), Gate::default());
    let held = gate.clone();
    let silent = Origin::respond(move |_| {
        held.pass();
        answer(200, &[NO_STORE], "x")
    });
    let routes = json!([
        { "prefix": "/bad", "entry_point": bad.origin.url() },
        { "prefix": "/bad/but/well", "entry_point": well.origin.url() },
        { "prefix": "/silent", "entry_point": silent.url() },
    ]);
    let setup = well.setup(2, 1).with("routes", routes).with("client.max_conns_per_host", 4);
    let proxy = setup.with("client.circuit_breaker_timeout", 60).start();
    let mut waiting = load::connect_all(proxy.addr(), 50);
    for client in &mut waiting {
        client.send_request("POST", "/api/silent", &JSON, "{}");
    }
    silent.await_requests(4);
    proxy.get("/api/bad/1");
    proxy.get("/api/bad/2");
    assert_refused(&proxy.get("/api/bad/3"), 55..=60);
    let started = Instant::now();
    for number in 0..50 {
        for prefix in ["", "/bad/but/well"] {
            assert_eq!(proxy.get(&format!("/api{prefix}/{number}")).status, 200);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((bad.origin.count(), silent.count()), (2, 4));
    let health = proxy.get("/health").json();
    let states = health["upstreams"].as_array().unwrap().iter().map(|it| it["state"].clone());
    assert_eq!(states.filter(|it| it == "circuit_open").count(), 1, "{health}");
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.read("POST").status, 200);
    }
}
