//! An outage that lasts: an hour's worth of it, with lifetimes of a second. What was seen before is
//! served as if nothing were, and the origin is left alone.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Connection, Origin, Proxy, Setup, answer, assert_cached, eventually};

const KEYS: usize = 20;
const CLIENTS: usize = 16;
const OUTAGE: Duration = Duration::from_secs(10);

/// An origin that can be switched off; off, it answers 503, resets, hangs up or says nothing.
struct Switched {
    origin: Origin,
    off: Arc<AtomicBool>,
}

impl Switched {
    /// On, it answers with the target and these fields, by the target's start.
    fn new(fields: &'static [(&'static str, &'static [(&'static str, &'static str)])]) -> Self {
        let off = Arc::new(AtomicBool::new(false));
        let (is_off, turn) = (off.clone(), AtomicUsize::new(0));
        let origin = Origin::script(move |connection| {
            while let Some(request) = connection.request() {
                if is_off.load(Ordering::SeqCst) {
                    return fail(connection, turn.fetch_add(1, Ordering::SeqCst));
                }
                let of = |it: &&(&str, _)| request.target.starts_with(it.0);
                let fields = fields.iter().find(of).map_or(&[][..], |it| it.1);
                connection.send(answer(200, fields, &request.target));
            }
        });
        Self { origin, off }
    }

    fn switch_off(&self) {
        self.off.store(true, Ordering::SeqCst);
    }
}

fn fail(connection: &mut Connection, turn: usize) {
    match turn % 4 {
        0 => _ = connection.send(answer(503, &[("Connection", "close")], "down")),
        1 => connection.reset(),
        2 => connection.close(),
        _ => connection.await_close(),
    }
}

/// How many attempts an outage so long may cost each key: after 0, 1, 3, 7, 15 ... seconds.
fn attempts_within(span: Duration) -> usize {
    (0..).take_while(|it| (1_u64 << it) - 1 <= span.as_secs()).count()
}

/// Asks for every key again and again until the time is over; how many answers came.
fn load(proxy: &Proxy, until: Instant) -> usize {
    let answers = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let answers = &answers;
            scope.spawn(move || {
                let mut client = proxy.connect();
                for turn in number.. {
                    if Instant::now() >= until {
                        return;
                    }
                    let target = format!("/key/{}", turn % KEYS);
                    let response = client.get(&format!("/api{target}"));
                    assert_eq!((response.status, response.text()), (200, &*target));
                    answers.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
        }
    });
    answers.into_inner()
}

/// Without a breaker, which would spare the origin still more.
#[test]
fn outage_under_load_shows_no_error_and_costs_an_attempt_for_each_key_and_step() {
    let switched = Switched::new(&[("/key", &[("Cache-Control", "max-age=1")])]);
    let proxy = Setup::over(&switched.origin)
        .with("client.circuit_breaker_enabled", false)
        .with("client.request_timeout", 1)
        .with("client.retry_budget", 0)
        .start();
    load(&proxy, Instant::now() + Duration::from_millis(500));
    switched.switch_off();
    let (before, started) = (switched.origin.count(), Instant::now());
    let answers = load(&proxy, started + OUTAGE);
    let most = attempts_within(started.elapsed());
    let mut attempts = HashMap::<String, usize>::new();
    for request in switched.origin.requests().drain(before..) {
        *attempts.entry(request.target).or_default() += 1;
    }
    assert!(attempts.values().all(|it| *it <= most), "{most} are allowed: {attempts:?}");
    assert!(attempts.len() == KEYS, "each key was tried: {attempts:?}");
    assert!(answers > KEYS * 50, "{answers} answers are no load");
}

/// With one, the whole outage costs what opens it, and one probe each time it half-opens.
#[test]
fn outage_with_a_breaker_costs_its_threshold_and_its_probes() {
    let switched = Switched::new(&[("/key", &[("Cache-Control", "max-age=1")])]);
    let proxy = Setup::over(&switched.origin)
        .with("client.circuit_breaker_threshold", 3)
        .with("client.circuit_breaker_timeout", 3)
        .with("client.circuit_breaker_half_open", 1)
        .with("client.request_timeout", 1)
        .with("client.retry_budget", 0)
        .start();
    load(&proxy, Instant::now() + Duration::from_millis(500));
    switched.switch_off();
    let (before, started) = (switched.origin.count(), Instant::now());
    load(&proxy, started + OUTAGE);
    let cost = switched.origin.count() - before;
    // Those that were under way when it opened had left already: at most one for each client.
    let openings = usize::try_from(started.elapsed().as_secs()).unwrap() / 3 + 1;
    assert!((3..=CLIENTS + openings).contains(&cost), "{cost} requests, {openings} openings");
    // Back again, it is found out.
    switched.off.store(false, Ordering::SeqCst);
    eventually("fresh answers come", || proxy.get("/api/key/0").cache() == "MISS");
}

/// What a request gets while the origin is away: what is fresh, what is stale and may be served,
/// what an offline endpoint keeps, else an error that says when to try again.
#[test]
fn order_of_degradation() {
    let switched = Switched::new(&[
        ("/fresh", &[("Cache-Control", "max-age=600")]),
        ("/stale", &[("Cache-Control", "max-age=0, stale-if-error=600")]),
        ("/offline", &[("Cache-Control", "max-age=0")]),
        ("/old", &[("Cache-Control", "max-age=0")]),
        ("/strict", &[("Cache-Control", "max-age=0, must-revalidate"), ("ETag", "\"a\"")]),
    ]);
    let proxy = Setup::over(&switched.origin)
        .with("cache.stale_if_error", 0)
        .with("offline_endpoints", json!(["/offline"]))
        .with("client.circuit_breaker_threshold", 8)
        .with("client.request_timeout", 1)
        .with("client.retry_budget", 0)
        .start();
    let targets = ["/fresh", "/stale", "/offline", "/old", "/strict"];
    for target in targets {
        assert_cached(&proxy.get(&format!("/api{target}")), "MISS", target);
    }
    switched.switch_off();
    // While it is tried, and then with the breaker open.
    for is_open in [false, true] {
        assert_cached(&proxy.get("/api/fresh"), "HIT", "/fresh");
        let stale = proxy.get("/api/stale");
        assert_cached(&stale, "STALE", "/stale");
        assert!(stale.age().is_some() && stale.field("X-Offline").is_none(), "{stale:?}");
        let offline = proxy.get("/api/offline");
        assert_cached(&offline, "STALE", "/offline");
        assert_eq!(offline.field("X-Offline"), Some("true"));
        for target in ["/api/old", "/api/strict", "/api/never"] {
            let error = proxy.get(target);
            if is_open {
                assert_eq!((error.status, error.problem().as_str()), (503, "circuit_open"));
                let wait: u64 = error.field("Retry-After").unwrap().parse().unwrap();
                assert!((1..=60).contains(&wait), "{wait}");
            } else {
                assert!(matches!(error.status, 502..=504), "{error:?}");
                assert_ne!(error.text(), target.trim_start_matches("/api"));
            }
        }
        for number in 0..8 {
            assert!(proxy.get(&format!("/api/fail/{number}")).status >= 500);
        }
    }
}
