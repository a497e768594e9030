//! An origin says when it wants to be asked again, or a pace is set for it: both are kept, stale
//! answers go out meanwhile, and who can't wait is told the true time.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::client::request;
use support::{Metrics, Origin, Proxy, Response, Setup, answer, assert_cached, load};

type Fields = &'static [(&'static str, &'static str)];

const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

/// Asks for a pause with the answer to `/pause`; `/stored` may be stored for no time.
fn pausing(status: u16, fields: Fields) -> Origin {
    Origin::respond(move |request| match request.target.as_str() {
        "/pause" => answer(status, fields, "pause"),
        "/stored" => answer(200, &[("Cache-Control", "max-age=0")], "stored"),
        _ => answer(200, &[NO_STORE], "x"),
    })
}

fn without_breaker(origin: &Origin) -> Setup {
    Setup::over(origin).with("client.circuit_breaker_enabled", false)
}

#[track_caller]
fn assert_paused(response: &Response, waits: std::ops::RangeInclusive<u64>) {
    assert_eq!((response.status, response.problem().as_str()), (503, "upstream_paused"));
    let wait: u64 = response.field("Retry-After").unwrap().parse().unwrap();
    assert!(waits.contains(&wait), "{wait}");
}

fn counter(proxy: &Proxy, name: &str) -> f64 {
    Metrics::of(proxy).value(&format!("apiproxyd_upstream_{name}_total"))
}

#[test]
fn origin_that_asks_for_a_pause_gets_it() {
    let rows: [(u16, Fields, std::ops::RangeInclusive<u64>); 6] = [
        (429, &[("Retry-After", "60")], 50..=60),
        (503, &[("Retry-After", "60")], 50..=60),
        (429, &[("RateLimit", "\"minute\";r=0;t=60")], 50..=60),
        (200, &[NO_STORE, ("RateLimit", "\"minute\";r=0;t=60")], 50..=60),
        (200, &[NO_STORE, ("RateLimit-Remaining", "0"), ("RateLimit-Reset", "60")], 50..=60),
        // Nobody is left alone for more than an hour.
        (429, &[("Retry-After", "999999")], 3_590..=3_600),
    ];
    for (status, fields, waits) in rows {
        let origin = pausing(status, fields);
        let proxy = without_breaker(&origin).start();
        assert_cached(&proxy.get("/api/stored"), "MISS", "stored");
        let answered = proxy.get("/api/pause");
        assert_eq!((answered.status, answered.text()), (status, "pause"));
        let before = origin.count();
        for number in 0..20 {
            assert_paused(&proxy.get(&format!("/api/{number}")), waits.clone());
            assert_cached(&proxy.get("/api/stored"), "STALE", "stored");
        }
        assert_eq!(origin.count(), before, "{fields:?}");
        assert_eq!(counter(&proxy, "pauses"), 1.0);
        assert!(counter(&proxy, "paused_requests") >= 20.0);
    }
}

#[test]
fn what_is_no_request_for_a_pause_makes_none() {
    let rows: [(u16, Fields); 5] = [
        (429, &[]),
        (503, &[("Retry-After", "soon")]),
        (404, &[("Retry-After", "60")]),
        (200, &[NO_STORE, ("RateLimit", "\"minute\";r=1;t=60")]),
        (200, &[NO_STORE, ("RateLimit-Remaining", "3"), ("RateLimit-Reset", "60")]),
    ];
    for (status, fields) in rows {
        let origin = pausing(status, fields);
        let proxy = without_breaker(&origin).start();
        assert_eq!(proxy.get("/api/pause").status, status);
        assert_eq!(proxy.get("/api/x").status, 200, "{fields:?}");
    }
}

/// The quota of a client's own credentials is that client's.
#[test]
fn client_that_has_used_up_its_quota_pauses_nobody_else() {
    let origin = pausing(429, &[("Retry-After", "60")]);
    let proxy = without_breaker(&origin).start();
    for own in [("Authorization", "Bearer x"), ("X-API-Key", "x"), ("Cookie", "x=y")] {
        assert_eq!(proxy.ask("GET", "/api/pause", &[own]).status, 429);
        assert_eq!(proxy.get("/api/x").status, 200, "{own:?}");
    }
}

/// Whoever comes during a short pause waits for its end, on any core, and is served.
#[test]
fn short_pause_is_waited_for() {
    let (arrivals, turn) = (std::sync::Arc::new(Mutex::new(Vec::new())), AtomicUsize::new(0));
    let noted = arrivals.clone();
    let origin = Origin::respond(move |_| {
        noted.lock().unwrap().push(Instant::now());
        match turn.fetch_add(1, Ordering::SeqCst) {
            0 => answer(429, &[("Retry-After", "2")], "pause"),
            _ => answer(200, &[NO_STORE], "x"),
        }
    });
    let proxy = without_breaker(&origin).start();
    assert_eq!(proxy.get("/api/pause").status, 429);
    let mut clients = load::connect_all(proxy.addr(), 60);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/{number}"), &[], ""));
    }
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    let arrivals = arrivals.lock().unwrap();
    let pause = arrivals[1..].iter().min().unwrap().duration_since(arrivals[0]);
    assert!(pause >= Duration::from_millis(1_950), "{pause:?}");
    assert_eq!(arrivals.len(), 61);
}

/// Ten a second on all cores together. What can't leave within five seconds is told when it could.
#[test]
fn pace_is_kept_and_who_can_not_wait_is_told() {
    let arrivals = std::sync::Arc::new(Mutex::new(Vec::new()));
    let noted = arrivals.clone();
    let origin = Origin::respond(move |_| {
        noted.lock().unwrap().push(Instant::now());
        answer(200, &[NO_STORE], "x")
    });
    let proxy = without_breaker(&origin).with("client.requests_per_second", 10).start();
    let mut clients = load::connect_all(proxy.addr(), 120);
    let started = Instant::now();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/api/{number}"), &[], ""));
    }
    let answers: Vec<Response> = clients.iter_mut().map(|it| it.read("GET")).collect();
    let served = answers.iter().filter(|it| it.status == 200).count();
    answers.iter().filter(|it| it.status != 200).for_each(|it| assert_paused(it, 5..=7));
    let mut arrivals = arrivals.lock().unwrap();
    arrivals.sort();
    assert_eq!(arrivals.len(), served);
    // Slots lie a tenth of a second apart, however late somebody makes use of his.
    for (number, arrival) in arrivals.iter().enumerate() {
        let slot = Duration::from_millis(100) * u32::try_from(number).unwrap();
        let (since, slack) = (arrival.duration_since(started), Duration::from_millis(20));
        assert!(since + slack >= slot, "number {number} after {since:?}");
    }
    assert!((45..=60).contains(&served), "{served} of 120");
    assert!(counter(&proxy, "paused_requests") >= (120 - served) as f64);
}
