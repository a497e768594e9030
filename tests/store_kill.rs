//! `kill -9` in mid-write: whole rows are left, and every promise that was printed is kept.
//!
//! `STORE_KILLS` sets how often each backend's writer is killed.

#[path = "support/postgres.rs"]
mod cluster;
#[path = "support/store.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use apiproxyd::store::{Backend, GetOutcome, Row, Settings, StoreHandle};
use support::{Desk, digest, eventually, sized_row};

const CHILD: &str = "STORE_TEST_CHILD";
const ROWS: u32 = 97;

fn postgres_settings(dsn: String) -> Settings {
    Settings { backend: Backend::Postgres, dsn, ..Settings::default() }
}

fn open(settings: &Settings) -> Desk {
    let desk = Desk::new(StoreHandle::open(settings).unwrap());
    eventually("the store is available", || {
        let found = desk.get(digest(u32::MAX));
        !matches!(found, GetOutcome::Unavailable(_)) && desk.wait(desk.client.usage()).is_ok()
    });
    desk
}

/// Different in every round, so that a mixture would show.
fn row_of(name: u32, round: u32) -> Row {
    sized_row(name, &format!("/{round}"), 500 + 37 * (round as usize % 600))
}

/// Not a test of its own: what the killed process runs. It prints what it has been promised.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let settings = match place.strip_prefix("sqlite ") {
        Some(path) => Settings { path: path.into(), ..Settings::default() },
        None => postgres_settings(place),
    };
    let desk = open(&settings);
    let mut out = std::io::stdout().lock();
    for round in 0_u32.. {
        for name in 0..ROWS {
            desk.put(row_of(name, round));
        }
        desk.flush();
        writeln!(out, "flushed {round}").unwrap();
        if round % 5 == 4 {
            desk.wait(desk.client.clear()).unwrap();
            writeln!(out, "cleared {round}").unwrap();
        }
    }
}

#[test]
fn a_killed_writer_keeps_its_promises_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.db");
    let settings = Settings { path: path.clone(), ..Settings::default() };
    kill_repeatedly(&format!("sqlite {}", path.display()), &settings);
}

#[test]
fn a_killed_writer_keeps_its_promises_on_postgres() {
    let Some(database) = cluster::database() else { return };
    kill_repeatedly(&database.dsn(), &postgres_settings(database.dsn()));
}

fn kill_repeatedly(place: &str, settings: &Settings) {
    let kills: u32 = std::env::var("STORE_KILLS").map_or(15, |it| it.parse().unwrap());
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut promised = Vec::new();
        for line in lines {
            if line.starts_with("flushed ") || line.starts_with("cleared ") {
                promised.push(line);
                // It goes on meanwhile: the kill falls somewhere in the next round.
                if promised.len() as u32 == 1 + kill % 13 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let desk = open(settings);
        check(&desk, promised.last().unwrap(), kill);
        desk.wait(desk.client.clear()).unwrap();
        desk.end();
    }
}

fn check(desk: &Desk, last: &str, kill: u32) {
    let (what, round) = last.split_once(' ').unwrap();
    let round: u32 = round.parse().unwrap();
    for name in 0..ROWS {
        let Some(found) = desk.find(name) else {
            // The clear of this very round may have been done and not been printed yet.
            let clearing = what == "cleared" || round % 5 == 4;
            assert!(clearing, "kill {kill}: row {name} is lost after {last}");
            continue;
        };
        let of: u32 = found.path[1..].parse().unwrap();
        assert_eq!(found, row_of(name, of), "kill {kill}: row {name} after {last}");
        let oldest = if what == "cleared" { round + 1 } else { round };
        assert!(of >= oldest, "kill {kill}: row {name} of round {of} after {last}");
    }
    assert_eq!(desk.handle.stats().files_moved_aside.load(Ordering::Relaxed), 0, "kill {kill}");
    assert_eq!(desk.handle.stats().rows_damaged.load(Ordering::Relaxed), 0, "kill {kill}");
}
