//! Purges that the second tier could not do: the cache may be lost, never wrong.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

#[path = "support/postgres.rs"]
mod cluster;
mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use support::{Origin, Proxy, Setup, answer, eventually};

/// Answers with its version, which may be kept for ten minutes.
fn origin(version: &Arc<AtomicU64>) -> Origin {
    let version = Arc::clone(version);
    Origin::respond(move |_| {
        let body = format!("version {}", version.load(Ordering::SeqCst));
        answer(200, &[("Cache-Control", "max-age=600")], body)
    })
}

fn notes(setup: &Setup) -> Vec<PathBuf> {
    let files = fs::read_dir(setup.home()).unwrap().map(|it| it.unwrap().path());
    files.filter(|it| it.to_str().unwrap().contains(".owed")).collect()
}

/// Stores two answers and waits until they are written.
fn fill(proxy: &Proxy) {
    for path in ["/api/a", "/api/b"] {
        assert_eq!(proxy.get(path).text(), "version 1");
    }
    eventually("the rows are written", || {
        let text = proxy.get("/metrics").text().to_owned();
        text.lines().any(|it| it == "apiproxyd_store_put_queue_rows 0")
    });
}

/// One is changed, one is purged, while the second tier can't do it.
fn change(proxy: &Proxy, version: &AtomicU64) {
    version.store(2, Ordering::SeqCst);
    assert_eq!(proxy.ask("DELETE", "/api/a", &[]).status, 200);
    let purged = proxy.ask("DELETE", "/cache/entries?path=/b", &[]);
    assert_eq!(purged.status, 503, "{purged:?}");
}

/// After a restart nothing is found of what was purged, and the debt is paid.
fn is_forgotten(setup: &Setup) {
    let proxy = setup.start();
    for path in ["/api/a", "/api/b"] {
        eventually("it serves", || proxy.get("/health").status == 200);
        assert_eq!(proxy.get(path).text(), "version 2", "{path}");
    }
    eventually("it is paid", || notes(setup).is_empty());
    proxy.stop();
}

#[test]
fn what_sqlite_owes_is_known_to_the_next_process() {
    for killed in [true, false] {
        let version = Arc::new(AtomicU64::new(1));
        let origin = origin(&version);
        let setup = Setup::over(&origin).with("server.shutdown_timeout", 1);
        let proxy = setup.start();
        fill(&proxy);
        assert_eq!(notes(&setup).len(), 0);
        let other = Connection::open(setup.home().join("cache.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        change(&proxy, &version);
        assert_eq!(notes(&setup).len(), 1);
        if killed {
            proxy.kill();
        } else {
            proxy.stop();
        }
        assert_eq!(notes(&setup).len(), 1, "killed: {killed}");
        other.execute_batch("ROLLBACK").unwrap();
        drop(other);
        is_forgotten(&setup);
    }
}

#[test]
fn what_postgres_owes_is_known_to_the_next_process() {
    let Some(database) = cluster::own_cluster() else { return };
    let version = Arc::new(AtomicU64::new(1));
    let origin = origin(&version);
    let setup = Setup::over(&origin)
        .with("cache.backend", "postgres")
        .with("cache.postgres_dsn", database.dsn());
    let proxy = setup.start();
    eventually("the database is there", || proxy.get("/health").status == 200);
    fill(&proxy);
    database.cluster.stop("fast");
    change(&proxy, &version);
    assert_eq!(notes(&setup).len(), 1);
    proxy.kill();
    database.cluster.resume();
    is_forgotten(&setup);
}
