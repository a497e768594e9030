//! What can happen to the cache file, seen from outside: no client's request fails of it, `/health`
//! and `/metrics` tell it, the log has a line for it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use support::{Origin, Proxy, Setup, answer, eventually};

const KEYS: usize = 30;

/// Every path has its own body, of 40 KB.
fn origin() -> Origin {
    Origin::respond(|request| {
        let fields = [("Cache-Control", "max-age=600")];
        answer(200, &fields, request.target.repeat(20_000 / request.target.len()))
    })
}

/// Asks for everything twice, on connections of their own.
#[track_caller]
fn serves(proxy: &Proxy) {
    for turn in 0..2 {
        for key in 0..KEYS {
            let response = proxy.get(&format!("/api/v1/{key}"));
            assert_eq!(response.status, 200, "{response:?}");
            let path = format!("/v1/{key}");
            assert!(response.text() == path.repeat(20_000 / path.len()), "turn {turn}: {path}");
        }
    }
}

fn health(proxy: &Proxy) -> (u16, String) {
    let response = proxy.get("/health");
    (response.status, response.json()["database"].as_str().unwrap().to_owned())
}

#[track_caller]
fn await_health(proxy: &Proxy, database: &str) {
    let status = if database == "ok" { 200 } else { 503 };
    eventually(database, || health(proxy) == (status, database.to_owned()));
}

/// The value of a metric's series.
fn metric(proxy: &Proxy, series: &str) -> u64 {
    let text = proxy.get("/metrics").text().to_owned();
    let line = text.lines().find_map(|it| it.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series}: {text}")).parse().unwrap()
}

fn repairs(proxy: &Proxy, kind: &str) -> u64 {
    metric(proxy, &format!("apiproxyd_store_repairs_total{{kind=\"{kind}\"}}"))
}

fn up(proxy: &Proxy, side: &str) -> u64 {
    metric(proxy, &format!("apiproxyd_store_up{{side=\"{side}\"}}"))
}

#[track_caller]
fn logged(proxy: &Proxy, words: &[&str]) {
    eventually("the log says it", || {
        let log = proxy.stderr();
        log.lines().any(|line| words.iter().all(|it| line.contains(it)))
    });
}

#[track_caller]
fn is_away(proxy: &Proxy, reason: &str) {
    serves(proxy);
    await_health(proxy, reason);
    serves(proxy);
    assert_eq!(up(proxy, "writes"), 0);
    logged(proxy, &["WARN", "store is unavailable", &format!("reason=\"{reason}\"")]);
}

/// The file of a setup that a daemon has written and left.
fn left_behind(setup: &Setup) -> PathBuf {
    let proxy = setup.start();
    serves(&proxy);
    proxy.stop();
    let path = setup.home().join("cache.db");
    // A part may be left in the log: write it back.
    let file = Connection::open(&path).unwrap();
    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    path
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let origin = origin();
    let setup = Setup::over(&origin);
    let path = left_behind(&setup);
    fs::write(&path, "this is no database").unwrap();
    let proxy = setup.start();
    await_health(&proxy, "ok");
    serves(&proxy);
    assert_eq!(repairs(&proxy, "moved_aside"), 1);
    logged(&proxy, &["ERROR", "cache file moved aside", ".damaged-"]);
}

/// Pages that look-ups need, overwritten while the daemon runs and keeps little in memory.
#[test]
fn damage_while_running_is_mended_while_running() {
    let origin = origin();
    let setup = Setup::over(&origin).with("cache.memory_cache_size", 1);
    let path = left_behind(&setup);
    let bytes = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The first pages, which are read at start, stay whole.
    file.write_all_at(&vec![0xff; bytes as usize - 8 * 8192], 8 * 8192).unwrap();
    let proxy = setup.start();
    eventually("it is mended", || {
        serves(&proxy);
        repairs(&proxy, "moved_aside") == 1
    });
    await_health(&proxy, "ok");
    serves(&proxy);
    logged(&proxy, &["ERROR", "cache file moved aside", ".damaged-"]);
}

#[test]
fn another_programs_database_is_left_alone() {
    let origin = origin();
    let setup = Setup::over(&origin);
    let path = setup.home().join("cache.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE accounts (id); INSERT INTO accounts VALUES (1)").unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    let proxy = setup.start();
    eventually("it is printed", || proxy.stdout().contains("unavailable now: foreign"));
    is_away(&proxy, "foreign");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(&path).unwrap();
    await_health(&proxy, "ok");
    serves(&proxy);
    logged(&proxy, &["INFO", "store is available"]);
}

#[test]
fn a_file_of_another_format_is_emptied() {
    let origin = origin();
    let setup = Setup::over(&origin);
    let path = left_behind(&setup);
    let file = Connection::open(&path).unwrap();
    file.execute_batch("PRAGMA user_version = 77").unwrap();
    drop(file);
    let proxy = setup.start();
    await_health(&proxy, "ok");
    let before = origin.count();
    serves(&proxy);
    assert_eq!(origin.count(), before + KEYS, "nothing of the other format was used");
    assert_eq!(repairs(&proxy, "emptied"), 1);
    logged(&proxy, &["WARN", "cache file of another format"]);
}

/// A file system of its own; `None` without the right to mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(path).stderr(Stdio::null());
        mount.status().is_ok_and(|it| it.success()).then(|| Self(path.to_owned()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_done_without() {
    let origin = origin();
    let setup = Setup::over(&origin);
    // A file where the folder should be: nobody may write there, whoever he is.
    let blocked = setup.home().join("blocked");
    fs::write(&blocked, "").unwrap();
    let setup = setup.with("cache.path", blocked.join("cache.db").to_str().unwrap());
    let proxy = setup.start();
    eventually("it is printed", || proxy.stdout().contains("unavailable now: io"));
    is_away(&proxy, "io");
    fs::remove_file(&blocked).unwrap();
    await_health(&proxy, "ok");
    serves(&proxy);
}

#[test]
fn a_disk_mounted_read_only_is_done_without() {
    let origin = origin();
    let setup = Setup::over(&origin);
    let Some(disk) = Disk::mount(&setup.home().join("disk"), "ro,size=32m") else {
        eprintln!("not allowed to mount: a blocked folder is tested in its place");
        return;
    };
    let setup = setup.with("cache.path", disk.0.join("sub/cache.db").to_str().unwrap());
    let proxy = setup.start();
    is_away(&proxy, "io");
    disk.remount("rw");
    await_health(&proxy, "ok");
    serves(&proxy);
    proxy.stop();
}

#[test]
fn a_full_disk_is_done_without_and_noticed_when_it_has_room() {
    let origin = origin();
    let setup = Setup::over(&origin).with("cache.memory_cache_size", 5);
    let Some(disk) = Disk::mount(&setup.home().join("disk"), "size=4m") else {
        eprintln!("not allowed to mount: a quota is tested in its place, in store_sqlite");
        return;
    };
    let setup = setup.with("cache.path", disk.0.join("cache.db").to_str().unwrap());
    let proxy = setup.start();
    await_health(&proxy, "ok");
    let filler = disk.0.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    is_away(&proxy, "disk_full");
    assert!(metric(&proxy, "apiproxyd_store_puts_dropped_total{reason=\"failed\"}") > 0);
    drop(file);
    fs::remove_file(&filler).unwrap();
    await_health(&proxy, "ok");
    serves(&proxy);
    proxy.stop();
}

#[test]
fn a_file_held_by_another_daemon_is_taken_over_when_that_ends() {
    let origin = origin();
    let setup = Setup::over(&origin);
    let first = setup.start();
    serves(&first);
    let second = setup.start();
    is_away(&second, "locked");
    serves(&first);
    assert_eq!(health(&first), (200, "ok".to_owned()));
    first.stop();
    await_health(&second, "ok");
    serves(&second);
}

#[test]
fn a_file_locked_by_another_program_still_answers() {
    let origin = origin();
    let setup = Setup::over(&origin).with("cache.memory_cache_size", 1);
    let proxy = setup.start();
    serves(&proxy);
    eventually("the rows are written", || metric(&proxy, "apiproxyd_store_put_queue_rows") == 0);
    let other = Connection::open(setup.home().join("cache.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = origin.count();
    serves(&proxy);
    assert_eq!(origin.count(), before, "look-ups go on");
    proxy.get("/api/v1/new");
    await_health(&proxy, "locked");
    assert_eq!((up(&proxy, "reads"), up(&proxy, "writes")), (1, 0));
    other.execute_batch("ROLLBACK").unwrap();
    await_health(&proxy, "ok");
    serves(&proxy);
}

#[test]
fn a_file_removed_while_running_is_made_anew() {
    let origin = origin();
    let setup = Setup::over(&origin).with("cache.memory_cache_size", 1);
    let proxy = setup.start();
    serves(&proxy);
    let path = setup.home().join("cache.db");
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
    }
    eventually("it is there again", || {
        serves(&proxy);
        path.exists()
    });
    await_health(&proxy, "ok");
    assert!(repairs(&proxy, "reopened") > 0);
    logged(&proxy, &["WARN", "the cache file was removed or replaced"]);
    serves(&proxy);
    proxy.stop();
    let before = origin.count();
    let proxy = setup.start();
    serves(&proxy);
    assert!(origin.count() < before + KEYS, "what was stored anew is found");
}
