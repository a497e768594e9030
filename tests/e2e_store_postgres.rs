//! PostgreSQL under the daemon: two instances that share it, and a database that is away.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

#[path = "support/postgres.rs"]
mod cluster;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluster::Database;
use nix::sys::signal::Signal;
use postgres::fallible_iterator::FallibleIterator;
use support::{Origin, Proxy, Setup, answer, assert_cached, eventually};

/// Answers that differ each time, and 204 to what is not a GET.
fn origin() -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::respond(move |request| {
        if request.method != "GET" {
            return answer(204, &[], "");
        }
        let body = format!("answer {}", turn.fetch_add(1, Ordering::SeqCst));
        answer(200, &[("Cache-Control", "max-age=600")], body)
    })
}

fn setup(origin: &Origin, database: &Database) -> Setup {
    let setup = Setup::over(origin).with("cache.backend", "postgres");
    setup.with("cache.postgres_dsn", database.dsn())
}

fn start(setup: &Setup) -> Proxy {
    let proxy = setup.start();
    await_health(&proxy, "ok");
    proxy
}

#[track_caller]
fn await_health(proxy: &Proxy, database: &str) {
    let status = if database == "ok" { 200 } else { 503 };
    let expected = (status, database.to_owned());
    eventually(database, || {
        let response = proxy.get("/health");
        let word = response.json()["database"].as_str().unwrap().to_owned();
        (response.status, word) == expected
    });
}

/// Waits until what was put is in the database.
#[track_caller]
fn await_written(proxy: &Proxy) {
    eventually("it is written", || {
        proxy.get("/metrics").text().contains("\napiproxyd_store_put_queue_rows 0\n")
    });
}

#[track_caller]
fn serves(proxy: &Proxy) {
    for key in 0..20 {
        let response = proxy.get(&format!("/api/served/{key}"));
        assert_eq!(response.status, 200, "{response:?}");
    }
}

#[test]
fn what_one_instance_fetched_is_a_hit_for_the_other() {
    let Some(database) = cluster::database() else { return };
    let origin = origin();
    let (one, two) = (start(&setup(&origin, &database)), start(&setup(&origin, &database)));
    assert_cached(&one.get("/api/v1/x?a=1"), "MISS", "answer 0");
    await_written(&one);
    assert_cached(&two.get("/api/v1/x?a=1"), "HIT", "answer 0");
    assert_eq!(origin.count(), 1);
}

/// Both instances have the answer in memory; the second forgets it when the first is told to.
#[test]
fn a_purge_on_one_instance_is_seen_by_the_other_within_a_second() {
    let Some(database) = cluster::database() else { return };
    let origin = origin();
    let (one, two) = (start(&setup(&origin, &database)), start(&setup(&origin, &database)));
    let json = ("Content-Type", "application/json");
    let orders = [
        ("POST", "/cache/clear"),
        ("DELETE", "/cache/entries?path=/v1/x"),
        ("DELETE", "/cache/entries?prefix=/v1/"),
        ("POST", "/cache/expire?path=/v1/x"),
        ("PUT", "/api/v1/x?a=1"),
    ];
    for (method, target) in orders {
        let before = one.get("/api/v1/x?a=1").text().to_owned();
        await_written(&one);
        for _ in 0..4 {
            assert_cached(&two.get("/api/v1/x?a=1"), "HIT", &before);
        }
        let mut client = one.connect();
        match method {
            "PUT" => client.send_request(method, target, &[json], "{}"),
            _ => client.send_request(method, target, &[], ""),
        };
        let response = client.read(method);
        assert!(matches!(response.status, 200 | 204), "{response:?}");
        let answered = Instant::now();
        let is_old = |proxy: &Proxy| proxy.get("/api/v1/x?a=1").text() == before;
        assert!(!is_old(&one), "{method} {target}");
        let mut waited = Duration::ZERO;
        while is_old(&two) {
            waited = answered.elapsed();
            assert!(waited < Duration::from_secs(1), "{method} {target}: not seen by the other");
        }
        println!("{method} {target}: seen after {waited:?}");
    }
}

#[test]
fn a_purge_notifies_once_and_a_write_not_at_all() {
    let Some(database) = cluster::database() else { return };
    let origin = origin();
    let proxy = start(&setup(&origin, &database));
    let mut other = database.connect();
    other.batch_execute("LISTEN apiproxyd_purges_v1").unwrap();
    for key in 0..100 {
        proxy.get(&format!("/api/v1/{key}?q=1"));
    }
    await_written(&proxy);
    for (method, target) in [
        ("DELETE", "/cache/entries?path=/v1/3"),
        ("DELETE", "/cache/entries?prefix=/v1/4"),
        ("POST", "/cache/expire?path=/v1/5"),
        ("POST", "/cache/clear"),
    ] {
        assert_eq!(proxy.ask(method, target, &[]).status, 200);
    }
    database.connect().batch_execute("NOTIFY apiproxyd_purges_v1, 'end'").unwrap();
    let mut notifications = other.notifications();
    let mut received = notifications.blocking_iter();
    let mut count = 0;
    while received.next().unwrap().unwrap().payload() != "end" {
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn a_database_that_is_down_at_start_is_used_when_it_comes() {
    let Some(database) = cluster::own_cluster() else { return };
    database.cluster.stop("fast");
    let origin = origin();
    let setup = setup(&origin, &database);
    let proxy = setup.start();
    serves(&proxy);
    await_health(&proxy, "disconnected");
    serves(&proxy);
    database.cluster.resume();
    await_health(&proxy, "ok");
    assert_eq!(proxy.get("/api/v1/later").cache(), "MISS");
    proxy.stop();
    let proxy = start(&setup);
    assert_eq!(proxy.get("/api/v1/later").cache(), "HIT");
}

#[test]
fn a_database_that_restarts_hangs_and_comes_back_fails_nobody() {
    let Some(database) = cluster::own_cluster() else { return };
    let origin = origin();
    let proxy = start(&setup(&origin, &database).with("cache.memory_cache_size", 3));
    serves(&proxy);
    for mode in ["fast", "immediate"] {
        database.cluster.stop(mode);
        serves(&proxy);
        await_health(&proxy, "disconnected");
        serves(&proxy);
        database.cluster.resume();
        await_health(&proxy, "ok");
        serves(&proxy);
    }
    database.cluster.signal(Signal::SIGSTOP);
    // The first look-ups wait for the time-out, the others not.
    serves(&proxy);
    let degraded = proxy.get("/health");
    assert_eq!(degraded.status, 503, "{degraded:?}");
    assert_eq!(degraded.json()["status"], "degraded");
    database.cluster.signal(Signal::SIGCONT);
    await_health(&proxy, "ok");
    serves(&proxy);
}

/// A client that changed something has not asked about the cache: he doesn't wait for a database
/// that hangs, and what he changed is not served any more.
#[test]
fn an_unsafe_request_does_not_wait_for_a_database_that_hangs() {
    let Some(database) = cluster::own_cluster() else { return };
    let origin = origin();
    let proxy = start(&setup(&origin, &database));
    assert_cached(&proxy.get("/api/v1/changed"), "MISS", "answer 0");
    await_written(&proxy);
    database.cluster.signal(Signal::SIGSTOP);
    let asked = Instant::now();
    assert_eq!(proxy.ask("PUT", "/api/v1/changed", &[]).status, 204);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(proxy.get("/api/v1/changed").text(), "answer 1");
    database.cluster.signal(Signal::SIGCONT);
    await_health(&proxy, "ok");
    assert_ne!(proxy.get("/api/v1/changed").text(), "answer 0");
}
