//! Memory, the second tier, restarts and clears, seen from outside.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use support::client::request;
use support::{Gate, Origin, Proxy, Setup, answer, assert_cached, eventually};

#[test]
fn entry_survives_a_restart_in_the_second_tier() {
    let origin = Origin::counting("max-age=600");
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    assert_cached(&proxy.get("/api/v1/x?a=1"), "MISS", "answer 0");
    proxy.stop();

    let proxy = setup.start();
    let hit = proxy.get("/api/v1/x?a=1");
    assert_cached(&hit, "HIT", "answer 0");
    assert!(hit.age().is_some());
    assert_eq!(origin.count(), 1);
}

#[test]
fn entry_is_read_from_the_second_tier_when_memory_is_off() {
    let origin = Origin::counting("max-age=600");
    let proxy = Setup::over(&origin).with("cache.memory_cache_enabled", false).start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "answer 0");
    for _ in 0..5 {
        assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 0");
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn cleared_entry_is_gone_from_every_core_and_tier_also_after_a_restart() {
    let origin = Origin::counting("max-age=600");
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    proxy.get("/api/v1/x");
    proxy.get("/api/v1/y");
    for _ in 0..10 {
        assert_eq!(proxy.get("/api/v1/x").cache(), "HIT");
    }
    proxy.clear();
    for connection in 0..10 {
        let response = proxy.get("/api/v1/x");
        assert_eq!(response.text(), "answer 2", "connection {connection}");
    }
    // Nobody asked for y in between: only a row left in the second tier could answer.
    proxy.stop();
    let proxy = setup.start();
    assert_cached(&proxy.get("/api/v1/y"), "MISS", "answer 3");
    assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 2");
}

#[test]
fn clear_is_durable_even_when_the_process_is_killed() {
    let origin = Origin::counting("max-age=600");
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    proxy.get("/api/v1/x");
    proxy.clear();
    proxy.kill();
    let proxy = setup.start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "answer 1");
}

/// A fetch in flight when its key is purged is delivered but not stored ("Coherence and the order
/// of a purge" in ARCHITECTURE.md).
#[test]
fn fetch_that_a_clear_overtakes_is_not_stored() {
    let gate = Gate::default();
    let (held, turn) = (gate.clone(), AtomicUsize::new(0));
    let origin = Origin::respond(move |_| {
        held.pass();
        let body = format!("answer {}", turn.fetch_add(1, Ordering::SeqCst));
        answer(200, &[("Cache-Control", "max-age=600")], body)
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/v1/x", &[], ""));
    origin.await_requests(1);
    proxy.clear();
    gate.open();
    assert_eq!(client.read("GET").text(), "answer 0");
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "answer 1");
}

/// The value of a metric's series.
fn metric(proxy: &Proxy, series: &str) -> u64 {
    let text = proxy.get("/metrics").text().to_owned();
    let line = text.lines().find_map(|it| it.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series}: {text}")).parse().unwrap()
}

#[test]
fn entry_of_the_second_tier_is_one_of_the_first_from_then_on() {
    let origin = Origin::counting("max-age=600");
    let setup = Setup::over(&origin).with("server.cores", 1);
    let proxy = setup.start();
    proxy.get("/api/v1/x");
    proxy.stop();
    let proxy = setup.start();
    let hits = |proxy: &Proxy| {
        ["l1", "l2"]
            .map(|tier| metric(proxy, &format!("apiproxyd_{tier}_lookups_total{{result=\"hit\"}}")))
    };
    assert_eq!(hits(&proxy), [0, 0]);
    assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 0");
    assert_eq!(hits(&proxy), [0, 1]);
    assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 0");
    assert_eq!(hits(&proxy), [1, 1]);
    assert_eq!(origin.count(), 1);
}

/// Nothing of these is of use any more a second after they came: they leave both tiers by
/// themselves. What a route or an offline endpoint keeps for longer stays.
#[test]
fn expired_entries_leave_both_tiers_at_the_cleanup_interval() {
    let origin =
        Origin::respond(|request| answer(200, &[("Cache-Control", "max-age=1")], &request.target));
    let setup = Setup::over(&origin)
        .with("cache.cleanup_interval", 1)
        .with("cache.stale_if_error", 0)
        .with("offline_endpoints", vec!["/offline/*"])
        .with("routes", serde_json::json!([{"prefix": "/kept", "stale_if_error": 600}]));
    let proxy = setup.start();
    let kept = ["/api/offline/1", "/api/offline/2", "/api/kept/1"];
    for target in kept {
        proxy.get(target);
    }
    // On a busy machine some are a second old on arrival, and not stored at all.
    let answers = (0..500).map(|number| proxy.get(&format!("/api/v1/{number}")));
    let stored = answers.filter(|it| it.field("Cache-Status").unwrap().contains("stored")).count();
    assert!(stored > 0);
    eventually("only what is kept is in memory", || {
        metric(&proxy, "apiproxyd_l1_distinct_entries") == kept.len() as u64
    });
    let swept = "apiproxyd_store_rows_removed_total{reason=\"expired\"}";
    eventually("the rows are gone", || metric(&proxy, swept) == stored as u64);
    drop(origin);
    let offline = proxy.get("/api/offline/1");
    assert_eq!((offline.cache(), offline.text()), ("STALE", "/offline/1"), "{offline:?}");
    let kept = proxy.get("/api/kept/1");
    assert_eq!((kept.cache(), kept.text()), ("STALE", "/kept/1"), "{kept:?}");
}

#[test]
fn a_cleanup_interval_of_zero_never_cleans() {
    let origin = Origin::counting("max-age=600");
    let proxy = Setup::over(&origin).with("cache.cleanup_interval", 0).start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "answer 0");
    assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 0");
}

#[test]
fn memory_alone_works_without_a_second_tier() {
    let origin = Origin::counting("max-age=60");
    let setup = Setup::over(&origin).with("cache.backend", "none");
    let proxy = setup.start();
    assert_cached(&proxy.get("/api/v1/x"), "MISS", "answer 0");
    assert_cached(&proxy.get("/api/v1/x"), "HIT", "answer 0");
    assert!(!setup.home().join("cache.db").exists());
}

#[test]
fn least_recently_used_entry_leaves_memory_but_not_the_second_tier() {
    let origin = Origin::respond(|request| {
        answer(200, &[("Cache-Control", "max-age=600")], &request.target)
    });
    let setup = Setup::over(&origin).with("cache.memory_cache_size", 10);
    let proxy = setup.with("server.cores", 1).start();
    let mut client = proxy.connect();
    for number in 0..100 {
        client.get(&format!("/api/{number}"));
    }
    for number in 0..100 {
        let response = client.get(&format!("/api/{number}"));
        assert_cached(&response, "HIT", &format!("/{number}"));
    }
    assert_eq!(origin.count(), 100);
}

#[test]
fn large_body_is_kept_whole_in_the_second_tier() {
    let body: Vec<u8> = (0_u32..3_000_000).map(|it| (it % 251) as u8).collect();
    let fields = [("Cache-Control", "max-age=600"), ("Content-Type", "application/octet-stream")];
    let origin = Origin::fixed(answer(200, &fields, &body));
    let setup = Setup::over(&origin).with("cache.memory_cache_max_object", 100_000);
    let proxy = setup.start();
    for _ in 0..3 {
        assert!(proxy.get("/api/v1/x").body == body, "another body");
    }
    eventually("the row is written", || proxy.get("/api/v1/x").cache() == "HIT");
    let before = origin.count();
    assert!(proxy.get("/api/v1/x").body == body, "another body from the second tier");
    assert_eq!(origin.count(), before);
}
