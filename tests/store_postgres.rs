//! PostgreSQL going away, coming back, hanging and filling up; and several instances sharing it.

#[path = "support/postgres.rs"]
mod cluster;
#[path = "support/on_postgres.rs"]
mod on_postgres;
#[path = "support/store.rs"]
mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use apiproxyd::store::{GetOutcome, Settings, StartError, StoreHandle, Unavailable};
use cluster::Database;
use nix::sys::signal::Signal;
use on_postgres::{open, ready, settings, start, works};
use support::{Desk, digest, eventually, row, sized_row};

fn unavailable(desk: &Desk) -> Option<Unavailable> {
    match desk.get(digest(1)) {
        GetOutcome::Unavailable(reason) => Some(reason),
        GetOutcome::Hit(_) | GetOutcome::Miss => None,
    }
}

#[test]
fn a_database_that_is_down_at_start_is_used_when_it_comes() {
    let Some(database) = cluster::own_cluster() else { return };
    database.cluster.stop("fast");
    let desk = start(&settings(database.dsn()));
    eventually("it is known", || unavailable(&desk) == Some(Unavailable::Disconnected));
    desk.put(row(1, "/a"));
    desk.flush();
    assert_eq!(desk.handle.stats().puts_failed.load(Ordering::Relaxed), 1);
    eventually("health says so", || {
        desk.handle.stats().unavailable() == Some(Unavailable::Disconnected)
    });
    database.cluster.resume();
    works(&desk);
    desk.end();
}

#[test]
fn a_database_that_restarts_is_used_again() {
    let Some(database) = cluster::own_cluster() else { return };
    let desk = open(&database);
    desk.put(row(1, "/a"));
    desk.flush();
    for mode in ["fast", "immediate"] {
        works(&desk);
        database.cluster.stop(mode);
        eventually("it is known", || unavailable(&desk).is_some());
        assert_eq!(desk.wait(desk.client.clear()), Err(Unavailable::Disconnected));
        database.cluster.resume();
        works(&desk);
        // The clear that failed was owed.
        assert_eq!(desk.find(1), None, "{mode}");
        desk.put(row(1, "/a"));
        desk.flush();
    }
    desk.end();
}

#[test]
fn a_database_that_hangs_keeps_nobody_waiting() {
    let Some(database) = cluster::own_cluster() else { return };
    let desk = open(&database);
    works(&desk);
    database.cluster.signal(Signal::SIGSTOP);
    // More than there are readers: those that no reader takes are answered too.
    let lookups: Vec<_> = (0..500).map(|name| desk.client.get(digest(name))).collect();
    desk.wait(async {
        for lookup in lookups {
            let found = lookup.await;
            assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Timeout)), "{found:?}");
        }
    });
    assert!(desk.handle.stats().unavailable().is_some());
    database.cluster.signal(Signal::SIGCONT);
    works(&desk);
    desk.end();
}

#[test]
fn a_connection_ended_by_the_server_is_not_noticed_by_lookups() {
    let Some(database) = cluster::database() else { return };
    let desk = open(&database);
    desk.put(row(1, "/a"));
    desk.flush();
    let mut other = database.connect();
    for _ in 0..5 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'apiproxyd' AND datname = current_database()";
        let ended: i64 = other.query_one(end, &[]).unwrap().get(0);
        assert!(ended >= 1);
        for _ in 0..20 {
            assert_eq!(desk.find(1), Some(row(1, "/a")));
        }
        ready(&desk);
    }
    works(&desk);
    desk.end();
}

#[test]
fn a_refused_login_is_no_fault_of_the_start() {
    let Some(database) = cluster::database() else { return };
    for dsn in [
        database.dsn().replace("user=apiproxyd", "user=nobody_knows"),
        database.dsn().replace(&database.name, "no_such_database"),
    ] {
        let desk = start(&settings(dsn));
        eventually("it is known", || unavailable(&desk) == Some(Unavailable::Refused));
        desk.end();
    }
}

#[test]
fn a_bad_connection_string_is_a_fault_of_the_configuration() {
    for dsn in
        ["", "nonsense", "host=h sslmode=sometimes", "host=h sslmode=verify-full sslrootcert=/no"]
    {
        let refused = StoreHandle::open(&settings(dsn.to_owned()));
        assert!(matches!(refused, Err(StartError::Dsn { .. })), "{dsn}: {refused:?}");
    }
}

#[test]
fn instances_that_start_at_once_make_the_tables_once() {
    let Some(database) = cluster::database() else { return };
    std::thread::scope(|scope| {
        for name in 0..6 {
            let database = &database;
            scope.spawn(move || {
                let desk = open(database);
                desk.put(row(name, "/a"));
                desk.flush();
                assert_eq!(desk.find(name), Some(row(name, "/a")));
                desk.end();
            });
        }
    });
    let desk = open(&database);
    assert!((0..6).all(|name| desk.find(name).is_some()));
    desk.end();
}

#[test]
fn tables_dropped_while_running_are_made_anew() {
    let Some(database) = cluster::database() else { return };
    let desk = open(&database);
    desk.put(row(1, "/a"));
    desk.flush();
    let drop_all = "DROP TABLE apiproxyd_entries_v1, apiproxyd_state_v1, apiproxyd_purges_v1";
    database.connect().batch_execute(drop_all).unwrap();
    eventually("the row is gone", || matches!(desk.get(digest(1)), GetOutcome::Miss));
    works(&desk);
    desk.end();
}

#[test]
fn the_number_of_connections_is_kept() {
    let Some(database) = cluster::database() else { return };
    let mut other = database.connect();
    let mut count = move || -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity
            WHERE application_name = 'apiproxyd' AND datname = current_database()";
        other.query_one(count, &[]).unwrap().get(0)
    };
    let ask = |desk: &Desk| {
        let lookups: Vec<_> = (0..200).map(|name| desk.client.get(digest(name))).collect();
        desk.wait(async {
            for lookup in lookups {
                assert!(matches!(lookup.await, GetOutcome::Miss));
            }
        });
    };
    let few = Settings { max_open_conns: 2, ..settings(database.dsn()) };
    let desk = start(&few);
    ready(&desk);
    for _ in 0..20 {
        ask(&desk);
        assert_eq!(count(), 2);
    }
    desk.end();
    eventually("all are closed", || count() == 0);

    let any = Settings { max_open_conns: 0, ..settings(database.dsn()) };
    let desk = start(&any);
    ready(&desk);
    eventually("four read, one writes", || count() == 5);
    desk.end();
    eventually("all are closed", || count() == 0);

    let one = Settings { max_open_conns: 1, ..settings(database.dsn()) };
    let desk = start(&one);
    works(&desk);
    desk.put(sized_row(500, "/large", 1_000_000));
    desk.flush();
    assert_eq!(desk.find(500), Some(sized_row(500, "/large", 1_000_000)));
    for _ in 0..20 {
        ask(&desk);
        assert_eq!(count(), 1);
    }
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'apiproxyd' AND datname = current_database()";
    database.connect().query_one(end, &[]).unwrap();
    works(&desk);
    assert_eq!(count(), 1);
    desk.end();
    eventually("it is closed", || count() == 0);

    let idle = Settings { max_idle_conns: 1, ..settings(database.dsn()) };
    let desk = start(&idle);
    ready(&desk);
    eventually("one reads, one writes", || count() == 2);
    ask(&desk);
    desk.end();

    let short = Settings { conn_max_idle_time: Duration::from_secs(1), ..settings(database.dsn()) };
    let desk = start(&short);
    ready(&desk);
    eventually("only the writer's is left", || count() == 1);
    ask(&desk);
    desk.end();
}

#[test]
fn connections_are_replaced_for_their_age() {
    let Some(database) = cluster::database() else { return };
    let lifetime = Duration::from_millis(300);
    let desk = start(&Settings { conn_max_lifetime: lifetime, ..settings(database.dsn()) });
    ready(&desk);
    let mut other = database.connect();
    let pids = "SELECT array_agg(pid) FROM pg_stat_activity
        WHERE application_name = 'apiproxyd' AND datname = current_database()";
    let before: Vec<i32> = other.query_one(pids, &[]).unwrap().get(0);
    let mut round = 0;
    eventually("all connections are new", || {
        round += 1;
        desk.put(row(round, "/a"));
        assert_eq!(desk.find(round), Some(row(round, "/a")));
        let lookups: Vec<_> = (0..50).map(|_| desk.client.get(digest(round))).collect();
        desk.wait(async {
            for lookup in lookups {
                assert!(matches!(lookup.await, GetOutcome::Hit(_)));
            }
        });
        let now: Vec<i32> = other.query_one(pids, &[]).unwrap().get(0);
        now.iter().all(|pid| !before.contains(pid))
    });
    assert_eq!(desk.handle.stats().puts_failed.load(Ordering::Relaxed), 0);
    desk.end();
}

#[test]
fn a_damaged_row_is_a_miss() {
    let Some(database) = cluster::database() else { return };
    let desk = open(&database);
    desk.put(row(1, "/a"));
    desk.put(row(2, "/a"));
    desk.flush();
    let damage = "UPDATE apiproxyd_entries_v1 SET meta = 'x' WHERE digest = $1";
    assert_eq!(database.connect().execute(damage, &[&&digest(1)[..]]).unwrap(), 1);
    assert_eq!(desk.find(1), None);
    assert_eq!(desk.find(2), Some(row(2, "/a")));
    assert_eq!(desk.handle.stats().rows_damaged.load(Ordering::Relaxed), 1);
    desk.end();
}

#[test]
fn cleared_rows_are_removed_in_the_background() {
    let Some(database) = cluster::database() else { return };
    let desk = open(&database);
    for name in 0..3500 {
        desk.put(row(name, "/a"));
    }
    desk.flush();
    desk.wait(desk.client.clear()).unwrap();
    desk.put(row(1, "/a"));
    desk.flush();
    let mut other = database.connect();
    eventually("only the new row is left", || {
        let count = "SELECT count(*) FROM apiproxyd_entries_v1";
        other.query_one(count, &[]).unwrap().get::<_, i64>(0) == 1
    });
    assert_eq!(desk.find(1), Some(row(1, "/a")));
    desk.end();
}

#[test]
fn a_full_disk_drops_puts_and_serves_lookups() {
    let Some(database) = cluster::own_cluster() else { return };
    let Some(disk) = database.cluster.small_disk() else {
        eprintln!("not allowed to mount: nothing was tested");
        return;
    };
    let mut other = database.connect();
    let space = format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display());
    other.batch_execute(&space).unwrap();
    other.batch_execute("CREATE DATABASE small TABLESPACE small").unwrap();
    let desk = start(&settings(database.dsn().replace(&database.name, "small")));
    works(&desk);
    desk.put(row(1, "/a"));
    desk.flush();
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    eventually("it is known", || {
        (2..100).for_each(|name| desk.put(sized_row(name, "/a", 50_000)));
        desk.flush();
        desk.handle.stats().writes_unavailable() == Some(Unavailable::DiskFull)
    });
    assert_eq!(desk.find(1), Some(row(1, "/a")));
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    works(&desk);
    desk.end();
}

/// Certificates made by the `openssl` tool; none without it.
fn with_tls(database: &Database) -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let openssl = |args: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        openssl.status().is_ok_and(|it| it.success())
    };
    let (key, cert, request) = (path("server.key"), path("server.crt"), path("server.csr"));
    let (ca_key, ca) = (path("ca.key"), path("ca.crt"));
    let extensions = path("ext");
    std::fs::write(&extensions, "subjectAltName=DNS:db.test").unwrap();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let made = openssl(
        &[
            &["req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", &ca_key, "-out", &ca],
            &curve[..],
        ]
        .concat(),
    ) && openssl(
        &[&["req", "-subj", "/CN=db.test", "-keyout", &key, "-out", &request], &curve[..]].concat(),
    ) && openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-out",
        &cert,
        "-CAcreateserial",
        "-extfile",
        &extensions,
    ]);
    if !made {
        eprintln!("the openssl tool is missing: nothing was tested");
        return None;
    }
    for name in ["server.key", "server.crt"] {
        let target = database.cluster.data().join(name);
        std::fs::copy(folder.path().join(name), &target).unwrap();
        database.cluster.give(&target);
    }
    let mut client = database.connect();
    client.batch_execute("ALTER SYSTEM SET ssl = on").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    drop(client);
    Some((folder, ca.into()))
}

#[test]
fn tls_is_as_strict_as_sslmode_asks() {
    let Some(database) = cluster::own_cluster() else { return };
    let Some((folder, ca)) = with_tls(&database) else { return };
    let ca = ca.to_str().unwrap();
    // A root that did not sign the server's certificate.
    let stranger = folder.path().join("server.crt");
    let stranger = stranger.to_str().unwrap();
    let named = database.tcp_dsn().replace("host=127.0.0.1", "host=db.test hostaddr=127.0.0.1");
    let unnamed = database.tcp_dsn();
    let mut other = database.connect();
    eventually("the server offers TLS", || {
        let on: String = other.query_one("SHOW ssl", &[]).unwrap().get(0);
        on == "on"
    });
    for (dsn, options, encrypted) in [
        (&unnamed, "sslmode=disable".to_owned(), Some(false)),
        (&unnamed, "sslmode=prefer".to_owned(), Some(true)),
        (&unnamed, "sslmode=require".to_owned(), Some(true)),
        (&unnamed, format!("sslmode=verify-ca sslrootcert={ca}"), Some(true)),
        (&unnamed, format!("sslmode=require sslrootcert={stranger}"), None),
        (&unnamed, format!("sslmode=verify-ca sslrootcert={stranger}"), None),
        (&unnamed, format!("sslmode=verify-full sslrootcert={ca}"), None),
        (&named, format!("sslmode=verify-full sslrootcert={ca}"), Some(true)),
        (&named, format!("sslmode=verify-full sslrootcert={stranger}"), None),
    ] {
        let desk = start(&settings(format!("{dsn} {options}")));
        let Some(encrypted) = encrypted else {
            eventually(&options, || unavailable(&desk) == Some(Unavailable::Disconnected));
            desk.end();
            continue;
        };
        works(&desk);
        let count = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl
            JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'apiproxyd' AND datname = current_database()";
        let row = other.query_one(count, &[]).unwrap();
        let (ssl, all): (i64, i64) = (row.get(0), row.get(1));
        assert!(all >= 2, "{options}");
        assert_eq!(ssl, if encrypted { all } else { 0 }, "{options}");
        desk.end();
    }
}

#[test]
fn a_session_that_is_read_only_is_replaced() {
    let Some(database) = cluster::database() else { return };
    works(&open(&database));
    let name = &database.name;
    let read_only = |on: &str| {
        let mut other = database.connect();
        other.batch_execute("SET default_transaction_read_only = off").unwrap();
        let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
        other.batch_execute(&sql).unwrap();
    };
    read_only("on");
    let desk = start(&settings(database.dsn()));
    eventually("a put fails", || {
        desk.put(row(1, "/a"));
        desk.flush();
        desk.handle.stats().puts_failed.load(Ordering::Relaxed) > 0
    });
    assert_eq!(desk.handle.stats().writes_unavailable(), Some(Unavailable::Disconnected));
    read_only("off");
    works(&desk);
    desk.end();
}
