//! An outage costs the origin one attempt for each key and interval, wherever the stale entry is
//! and whoever asks; offline endpoints fill while the upstream is up and live from the cache when
//! it is not.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::client::request;
use support::{Gate, Metrics, Origin, Proxy, Setup, answer, assert_cached, eventually, load};

type Lines<'a> = &'a [(&'a str, &'a str)];

/// The entry is only in the second tier: `/cache/expire` has dropped it from memory and marked the
/// row. Four requests used to be four attempts, since the look-up went on to the origin without
/// asking the hub whether it had failed lately.
#[test]
fn stale_entry_of_the_second_tier_is_served_without_an_attempt_for_each_request() {
    let origin = Origin::respond(|request| match request.field("if-none-match") {
        None => answer(200, &[("Cache-Control", "max-age=60"), ("ETag", "\"a\"")], "kept"),
        Some(_) => answer(503, &[], "down"),
    });
    let proxy = Setup::over(&origin).start();
    assert_eq!(proxy.get("/api/v1/x").text(), "kept");
    assert_eq!(proxy.ask("POST", "/cache/expire?path=/v1/x", &[]).status, 200);
    for _ in 0..4 {
        let response = proxy.get("/api/v1/x");
        assert_eq!((response.status, response.text()), (200, "kept"));
        assert_eq!(response.cache(), "STALE");
    }
    assert_eq!(origin.count(), 2, "one to fill, one that failed");
}

/// An origin that is good until it is told to fail, and in which way.
struct Fickle {
    origin: Origin,
    fails: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    Error,
    Reset,
}

impl Fickle {
    fn new(fields: Lines<'static>, failure: Failure) -> Self {
        let fails = Arc::new(AtomicUsize::new(0));
        let failing = Arc::clone(&fails);
        // A connection each: on one that was kept the daemon asks once more when it is reset, since
        // the origin may only have closed it.
        let origin = Origin::script(move |connection| {
            let Some(asked) = connection.request() else { return };
            let closing = [fields, &[("Connection", "close")]].concat();
            let mut bytes = match (failing.load(Ordering::SeqCst), failure) {
                (0, _) => answer(200, &closing, "good"),
                (_, Failure::Error) => answer(503, &[("Connection", "close")], "bad"),
                (_, Failure::Reset) => return connection.reset(),
            };
            if asked.method == "HEAD" {
                bytes.truncate(bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4);
            }
            connection.send(bytes);
        });
        Self { origin, fails }
    }

    fn fail(&self) {
        self.fails.store(1, Ordering::SeqCst);
    }

    fn recover(&self) {
        self.fails.store(0, Ordering::SeqCst);
    }

    fn setup(&self) -> Setup {
        Setup::over(&self.origin).with("client.circuit_breaker_enabled", false)
    }
}

/// How many attempts `secs` seconds of outage may cost: after 0, 1, 3, 7, 15 ... seconds.
fn attempts_within(span: Duration) -> usize {
    (0..).take_while(|it| (1_u64 << it) - 1 <= span.as_secs()).count()
}

/// Asks a hundred times on connections that all cores get, and returns what that cost the origin.
#[track_caller]
fn hammer(proxy: &Proxy, fickle: &Fickle, method: &str, fields: Lines<'_>) {
    let (before, start) = (fickle.origin.count(), Instant::now());
    for number in 0..100 {
        let response = proxy.ask(method, "/api/x", fields);
        assert_eq!((response.status, response.cache()), (200, "STALE"), "{number}: {response:?}");
    }
    let (cost, most) = (fickle.origin.count() - before, attempts_within(start.elapsed()));
    let made = &fickle.origin.requests()[before..];
    let made: Vec<_> = made.iter().map(|it| (&it.method, it.connection)).collect();
    assert!(cost <= most, "{most} attempts are allowed for {method} {fields:?}: {made:?}");
    assert!(cost >= 1, "nobody found out that the origin is away");
}

#[test]
fn outage_costs_one_attempt_an_interval_whoever_asks_and_wherever_the_entry_is() {
    const STALE: Lines<'static> = &[("Cache-Control", "max-age=0, public"), ("ETag", "\"a\"")];
    let tiers: [fn(Setup) -> Setup; 3] = [
        |setup| setup,
        |setup| setup.with("cache.backend", "none"),
        |setup| setup.with("cache.memory_cache_enabled", false),
    ];
    let asks: [(&str, Lines<'_>); 3] =
        [("GET", &[]), ("HEAD", &[]), ("GET", &[("Authorization", "Bearer x")])];
    for failure in [Failure::Error, Failure::Reset] {
        for tier in tiers {
            for (method, fields) in asks {
                let fickle = Fickle::new(STALE, failure);
                let proxy = tier(fickle.setup()).start();
                assert_cached(&proxy.get("/api/x"), "MISS", "good");
                eventually("it is stored", || {
                    let said = proxy.get("/cache/explain?path=/x").json();
                    said["action"] == "validate"
                });
                fickle.fail();
                hammer(&proxy, &fickle, method, fields);
            }
        }
    }
}

#[test]
fn outage_costs_one_attempt_an_interval_however_many_ask_at_once() {
    for failure in [Failure::Error, Failure::Reset] {
        let fickle = Fickle::new(&[("Cache-Control", "max-age=0")], failure);
        let proxy = fickle.setup().start();
        assert_cached(&proxy.get("/api/x"), "MISS", "good");
        fickle.fail();
        let (before, start) = (fickle.origin.count(), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        assert_cached(&proxy.get("/api/x"), "STALE", "good");
                    }
                });
            }
        });
        let (cost, most) = (fickle.origin.count() - before, attempts_within(start.elapsed()));
        assert!((1..=most).contains(&cost), "{cost} attempts, {most} are allowed");
    }
}

/// What is renewed in the background waits too, also where nothing stale may replace an error.
#[test]
fn refreshes_that_fail_wait_for_the_next_attempt() {
    const SOFT: Lines<'static> =
        &[("Cache-Control", "max-age=0, stale-while-revalidate=60, stale-if-error=0")];
    for failure in [Failure::Error, Failure::Reset] {
        let fickle = Fickle::new(SOFT, failure);
        let proxy = fickle.setup().start();
        assert_cached(&proxy.get("/api/x"), "MISS", "good");
        fickle.fail();
        hammer(&proxy, &fickle, "GET", &[]);
    }
}

/// Nothing is gained by waiting, and those who come next need not go one by one.
#[test]
fn failure_that_nothing_stale_may_hide_lets_the_next_requests_share_a_fetch() {
    const FORBIDDEN: Lines<'static> =
        &[("Cache-Control", "max-age=0, must-revalidate"), ("ETag", "\"a\"")];
    let (gate, turn) = (Gate::default(), AtomicUsize::new(0));
    let held = gate.clone();
    let origin = Origin::respond(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200, FORBIDDEN, "old"),
        1 => answer(503, &[], ""),
        _ => {
            held.pass();
            answer(200, &[("Cache-Control", "max-age=60")], "new")
        }
    });
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/x"), "MISS", "old");
    assert_eq!(proxy.ask("HEAD", "/api/x", &[]).status, 503);
    let mut clients = load::connect_all(proxy.addr(), 8);
    load::send_all(&mut clients, &request("GET", "/api/x", &[], ""));
    let waiting = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("all are on their way", || waiting() == 8.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read("GET").text(), "new");
    }
    assert_eq!(origin.count(), 3);
}

/// When the time is over for which a stale answer may stand in, those who ask share the attempts
/// until one succeeds, whatever the back-off says.
#[test]
fn requests_behind_the_stale_limit_share_an_attempt() {
    const KEPT: Lines<'static> = &[("Cache-Control", "max-age=0, stale-if-error=3")];
    let (gate, turn) = (Gate::default(), AtomicUsize::new(0));
    let held = gate.clone();
    let origin = Origin::respond(move |asked| {
        if asked.target == "/x" && turn.fetch_add(1, Ordering::SeqCst) == 0 {
            return answer(200, KEPT, "old");
        }
        if asked.target == "/x" && asked.field("Say").is_some() {
            held.pass();
        }
        answer(503, &[], "away")
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    assert_cached(&proxy.get("/api/x"), "MISS", "old");
    // Two attempts fail, after which the next one is due in two seconds.
    eventually("the second attempt", || {
        proxy.get("/api/x");
        origin.count() == 3
    });
    eventually("the limit has passed", || proxy.get("/api/x").status == 503);
    let before = origin.count();
    let mut clients = load::connect_all(proxy.addr(), 100);
    load::send_all(&mut clients, &request("GET", "/api/x", &[("Say", "wait")], ""));
    let waiting = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("all are on their way", || waiting() == 100.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 503);
    }
    assert_eq!(origin.count() - before, 1);
}

#[test]
fn origin_that_is_back_is_found_out_after_the_interval() {
    let fickle = Fickle::new(&[("Cache-Control", "max-age=0")], Failure::Error);
    let proxy = fickle.setup().start();
    proxy.get("/api/x");
    fickle.fail();
    assert_eq!(proxy.get("/api/x").cache(), "STALE");
    fickle.recover();
    eventually("the origin is asked again", || proxy.get("/api/x").cache() == "MISS");
}

/// RFC 5861 section 3: one refresh, whatever the number of requests and cores.
#[test]
fn stale_entry_is_refreshed_once_by_all_cores() {
    let (gate, turn) = (Gate::default(), AtomicUsize::new(0));
    let held = gate.clone();
    let origin = Origin::respond(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200, &[("Cache-Control", "max-age=0, stale-while-revalidate=60")], "old"),
        _ => {
            held.pass();
            answer(200, &[("Cache-Control", "max-age=60")], "new")
        }
    });
    let proxy = Setup::over(&origin).start();
    assert_cached(&proxy.get("/api/x"), "MISS", "old");
    for _ in 0..40 {
        let stale = proxy.get("/api/x");
        assert_cached(&stale, "STALE", "old");
        let status = stale.field("Cache-Status").unwrap();
        assert!(status.ends_with("detail=stale_while_revalidate"), "{status}");
    }
    gate.open();
    eventually("the new one is served", || proxy.get("/api/x").text() == "new");
    assert_eq!(origin.count(), 2);
}

/// Offline endpoints: filled while the upstream is up, kept without limit, live from the cache when
/// it is away, also after a restart; what was never filled is a 503 of its own.
#[test]
fn offline_endpoint_fills_while_up_and_lives_from_the_cache_when_not() {
    for failure in [Failure::Error, Failure::Reset] {
        let fickle = Fickle::new(&[("Cache-Control", "max-age=0")], failure);
        let setup = fickle.setup().with("offline_endpoints", json!(["/x", "/deep/*"]));
        let setup = setup.with("cache.stale_if_error", 0);
        let proxy = setup.start();
        for target in ["/api/x", "/api/deep/1", "/api/other"] {
            let filled = proxy.get(target);
            assert_cached(&filled, "MISS", "good");
            assert_eq!(filled.field("X-Offline"), None);
        }
        fickle.fail();
        for _ in 0..3 {
            for target in ["/api/x", "/api/deep/1"] {
                let stale = proxy.get(target);
                assert_cached(&stale, "STALE", "good");
                assert_eq!(stale.field("X-Offline"), Some("true"));
                let status = stale.field("Cache-Status").unwrap();
                assert!(status.ends_with("detail=offline"), "{status}");
            }
        }
        assert!(proxy.get("/api/other").status >= 500);
        let never = proxy.get("/api/deep/never");
        match failure {
            // The origin's own word, where it said one.
            Failure::Error => assert_eq!((never.status, never.text()), (503, "bad")),
            Failure::Reset => {
                assert_eq!((never.status, never.problem().as_str()), (503, "offline_not_cached"));
            }
        }
        proxy.stop();

        let proxy = setup.start();
        let stale = proxy.get("/api/deep/1");
        assert_cached(&stale, "STALE", "good");
        assert_eq!(stale.field("X-Offline"), Some("true"));
        fickle.recover();
        eventually("it fills again", || proxy.get("/api/deep/1").cache() == "MISS");
    }
}

/// `must-revalidate` and its like hold for offline endpoints too (RFC 9111 section 5.2.2.2).
#[test]
fn offline_endpoint_serves_nothing_stale_that_the_origin_forbids() {
    let fickle = Fickle::new(&[("Cache-Control", "max-age=0, must-revalidate")], Failure::Reset);
    let proxy = fickle.setup().with("offline_endpoints", json!(["/x"])).start();
    assert_cached(&proxy.get("/api/x"), "MISS", "good");
    fickle.fail();
    assert_eq!(proxy.get("/api/x").status, 503);
}
