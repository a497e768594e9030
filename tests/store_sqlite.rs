//! What happens to the cache file, and what the store makes of it.

#[path = "support/store.rs"]
mod support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use apiproxyd::store::{GetOutcome, Settings, StoreHandle, Unavailable};
use rusqlite::Connection;
use support::{Desk, digest, eventually, row, sized_row};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("cache.db")
    }

    fn settings(&self) -> Settings {
        Settings { path: self.path(), ..Settings::default() }
    }

    fn open(&self) -> Desk {
        Desk::new(StoreHandle::open(&self.settings()).unwrap())
    }

    /// Files beside the database whose names hold this word.
    fn named(&self, word: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        let files = files.map(|it| it.unwrap().path());
        files.filter(|it| it.to_str().unwrap().contains(word)).collect()
    }
}

fn stat(desk: &Desk, counter: fn(&apiproxyd::store::StoreStats) -> u64) -> u64 {
    counter(desk.handle.stats())
}

fn moved_aside(desk: &Desk) -> u64 {
    stat(desk, |it| it.files_moved_aside.load(Ordering::Relaxed))
}

fn works(desk: &Desk) {
    desk.put(row(4_000_000, "/works"));
    desk.flush();
    assert_eq!(desk.find(4_000_000), Some(row(4_000_000, "/works")));
    assert_eq!(desk.handle.stats().unavailable(), None);
}

#[test]
fn only_the_owner_may_read_the_files() {
    let place = Place::new();
    let path = place.folder.path().join("new/folder/cache.db");
    let settings = Settings { path: path.clone(), ..Settings::default() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    works(&desk);
    let mode = |it: &Path| fs::metadata(it).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert!(files.len() >= 4, "database, log, index of the log, lock: {files:?}");
    for file in files {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
    desk.end();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    assert_eq!(mode(&path), 0o600);
    desk.end();
}

#[test]
fn a_file_that_is_no_database_is_moved_aside() {
    let place = Place::new();
    fs::write(place.path(), "this is no database").unwrap();
    let desk = place.open();
    works(&desk);
    assert_eq!(moved_aside(&desk), 1);
    let kept = place.named(".damaged-");
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), "this is no database");
    desk.end();
}

#[test]
fn a_file_damaged_in_its_index_is_moved_aside_at_start() {
    let place = Place::new();
    let desk = place.open();
    (0..500).for_each(|name| desk.put(row(name, "/a")));
    desk.end();
    let file = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.write_all_at(&vec![0xff; bytes as usize - 8192], 8192).unwrap();
    let desk = place.open();
    assert_eq!(desk.find(1), None);
    works(&desk);
    assert_eq!(moved_aside(&desk), 1);
    desk.end();
}

#[test]
fn damage_that_a_lookup_finds_is_mended_while_running() {
    let place = Place::new();
    let desk = place.open();
    (0..500).for_each(|name| desk.put(row(name, "/MARK")));
    desk.end();
    // Pages with rows in the middle: what is read at start, the first and the last, stays whole.
    let path = place.path();
    let mut bytes = fs::read(&path).unwrap();
    let is_row = |it: &[u8]| it == b"/MARK\0\0\0";
    let pages = bytes
        .chunks_mut(8192)
        .filter(|it| it[0] == 0x0d && it.windows(8).filter(|it| is_row(it)).count() > 3);
    for page in pages.skip(2) {
        page[..4000].fill(0xff);
    }
    fs::write(&path, &bytes).unwrap();
    let desk = place.open();
    assert_eq!(moved_aside(&desk), 0);
    let found = desk.get(digest(200));
    assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Damaged)), "{found:?}");
    eventually("the damaged file is replaced", || moved_aside(&desk) == 1);
    eventually("a look-up is a plain miss", || matches!(desk.get(digest(200)), GetOutcome::Miss));
    works(&desk);
    desk.end();
}

#[test]
fn a_row_that_differs_from_its_checksum_is_a_miss() {
    let place = Place::new();
    let desk = place.open();
    desk.put(row(1, "/a"));
    desk.put(row(2, "/a"));
    desk.end();
    let conn = Connection::open(place.path()).unwrap();
    let changed = conn
        .execute("UPDATE entries SET body = zeroblob(100) WHERE digest = ?1", [digest(1)])
        .unwrap();
    assert_eq!(changed, 1);
    drop(conn);
    let desk = place.open();
    assert_eq!(desk.find(1), None);
    assert_eq!(desk.find(2), Some(row(2, "/a")));
    assert_eq!(stat(&desk, |it| it.rows_damaged.load(Ordering::Relaxed)), 1);
    desk.end();
}

#[test]
fn another_programs_database_is_left_alone() {
    let place = Place::new();
    let conn = Connection::open(place.path()).unwrap();
    conn.execute_batch("CREATE TABLE accounts (id); INSERT INTO accounts VALUES (1)").unwrap();
    drop(conn);
    let before = fs::read(place.path()).unwrap();
    let desk = place.open();
    assert_eq!(desk.handle.stats().writes_unavailable(), Some(Unavailable::Foreign));
    desk.put(row(1, "/a"));
    desk.flush();
    assert!(matches!(desk.get(digest(1)), GetOutcome::Unavailable(_)));
    assert_eq!(fs::read(place.path()).unwrap(), before);
    // It goes: a new file takes its place.
    fs::remove_file(place.path()).unwrap();
    eventually("it works", || desk.handle.stats().unavailable().is_none());
    works(&desk);
    desk.end();
}

#[test]
fn the_predecessors_cache_is_moved_aside() {
    let place = Place::new();
    let conn = Connection::open(place.path()).unwrap();
    let table =
        "CREATE TABLE cache_entries (key TEXT PRIMARY KEY, value BLOB, expires_at TIMESTAMP)";
    conn.execute_batch(table).unwrap();
    drop(conn);
    let desk = place.open();
    works(&desk);
    let kept = place.named(".legacy-");
    assert_eq!(kept.len(), 1);
    let conn = Connection::open(&kept[0]).unwrap();
    conn.execute_batch("SELECT key, value FROM cache_entries").unwrap();
    desk.end();
}

#[test]
fn a_file_of_another_format_version_is_emptied() {
    let place = Place::new();
    let desk = place.open();
    desk.put(row(1, "/a"));
    desk.end();
    let conn = Connection::open(place.path()).unwrap();
    conn.execute_batch("PRAGMA user_version = 77; ALTER TABLE entries DROP COLUMN stored_at")
        .unwrap();
    drop(conn);
    let desk = place.open();
    assert_eq!(desk.find(1), None);
    works(&desk);
    assert_eq!(stat(&desk, |it| it.files_emptied.load(Ordering::Relaxed)), 1);
    assert!(place.named(".damaged-").is_empty());
    desk.end();
}

#[test]
fn a_file_in_use_is_unavailable_until_it_is_free() {
    let place = Place::new();
    let first = place.open();
    works(&first);
    let second = place.open();
    assert!(matches!(second.get(digest(1)), GetOutcome::Unavailable(_)));
    eventually("the reason is known", || {
        second.handle.stats().writes_unavailable() == Some(Unavailable::Locked)
    });
    assert_eq!(second.wait(second.client.clear()), Err(Unavailable::Locked));
    works(&first);
    first.end();
    eventually("the second takes over", || second.handle.stats().unavailable().is_none());
    // The clear that failed was owed, and has been applied by now.
    eventually("nothing is left", || matches!(second.get(digest(4_000_000)), GetOutcome::Miss));
    works(&second);
    second.end();
}

#[test]
fn lookups_go_on_while_another_program_locks_the_file() {
    let place = Place::new();
    let desk = place.open();
    desk.put(row(1, "/a"));
    desk.flush();
    let conn = Connection::open(place.path()).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    desk.put(row(2, "/a"));
    assert_eq!(desk.find(1), Some(row(1, "/a")));
    assert_eq!(desk.find(2), Some(row(2, "/a")), "queued rows are found");
    desk.flush();
    assert_eq!(stat(&desk, |it| it.puts_failed.load(Ordering::Relaxed)), 1);
    assert_eq!(desk.find(2), None);
    conn.execute_batch("ROLLBACK").unwrap();
    eventually("writes work again", || desk.handle.stats().unavailable().is_none());
    works(&desk);
    desk.end();
}

#[test]
fn a_file_removed_while_running_is_made_anew() {
    let place = Place::new();
    let desk = place.open();
    works(&desk);
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", place.path().display())).unwrap();
    }
    eventually("the file is there again", || place.path().exists());
    eventually("look-ups see the new file", || {
        matches!(desk.get(digest(4_000_000)), GetOutcome::Miss)
    });
    works(&desk);
    desk.end();
    let desk = place.open();
    assert!(desk.find(4_000_000).is_some(), "it was written to the new file");
    desk.end();
}

#[test]
fn a_folder_removed_while_running_is_made_anew() {
    let place = Place::new();
    let folder = place.folder.path().join("sub");
    let path = folder.join("cache.db");
    let settings = Settings { path: path.clone(), ..Settings::default() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    works(&desk);
    fs::remove_dir_all(&folder).unwrap();
    eventually("the file is there again", || path.exists());
    eventually("it works again", || matches!(desk.get(digest(4_000_000)), GetOutcome::Miss));
    works(&desk);
    desk.end();
}

#[test]
fn another_database_put_in_place_is_left_alone() {
    let place = Place::new();
    let desk = place.open();
    works(&desk);
    let other = place.folder.path().join("other.db");
    let conn = Connection::open(&other).unwrap();
    conn.execute_batch("CREATE TABLE accounts (id)").unwrap();
    drop(conn);
    let before = fs::read(&other).unwrap();
    fs::rename(&other, place.path()).unwrap();
    eventually("it is noticed", || {
        desk.handle.stats().writes_unavailable() == Some(Unavailable::Foreign)
    });
    desk.put(row(1, "/a"));
    desk.flush();
    assert_eq!(fs::read(place.path()).unwrap(), before);
    assert_eq!(desk.handle.shutdown(support::PATIENCE), apiproxyd::store::Shutdown::Flushed);
    assert_eq!(fs::read(place.path()).unwrap(), before);
}

#[test]
fn an_unwritable_path_is_tried_again() {
    let place = Place::new();
    let blocked = place.folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    for path in [
        place.folder.path().to_path_buf(),
        PathBuf::from("/proc/no/such/cache.db"),
        blocked.join("cache.db"),
    ] {
        let settings = Settings { path: path.clone(), ..Settings::default() };
        let desk = Desk::new(StoreHandle::open(&settings).unwrap());
        assert_eq!(desk.handle.stats().writes_unavailable(), Some(Unavailable::Io), "{path:?}");
        desk.put(row(1, "/a"));
        desk.flush();
        assert!(matches!(desk.get(digest(1)), GetOutcome::Unavailable(_)));
        if path.starts_with(&blocked) {
            fs::remove_file(&blocked).unwrap();
            eventually("it works", || desk.handle.stats().unavailable().is_none());
            works(&desk);
        }
        desk.end();
    }
}

#[test]
fn the_size_limit_is_kept_by_removing_the_oldest_rows() {
    const LIMIT: u64 = 8 << 20;
    let place = Place::new();
    let settings = Settings { max_disk_bytes: LIMIT, ..place.settings() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    let mut peak = 0;
    for name in 0..6000 {
        desk.put(sized_row(name, "/a", if name % 50 == 0 { 100_000 } else { 2_000 }));
        if name % 100 == 99 {
            desk.flush();
            let files = ["", "-wal"].map(|it| format!("{}{it}", place.path().display()));
            peak = peak.max(files.iter().map(|it| fs::metadata(it).unwrap().len()).sum());
        }
    }
    assert!(peak <= LIMIT, "{peak} bytes on disk");
    assert!(peak > LIMIT / 2, "{peak} bytes: the limit is hardly used");
    assert!(desk.find(5999).is_some() && desk.find(5900).is_some());
    assert!((0..100).all(|name| desk.find(name).is_none()));
    // Too large to be worth the others.
    desk.put(sized_row(6000, "/a", 7 << 20));
    desk.flush();
    assert_eq!(desk.find(6000), None);
    assert!(desk.find(5999).is_some());
    let evicted = stat(&desk, |it| it.rows_evicted.load(Ordering::Relaxed));
    let rows = desk.wait(desk.client.usage()).unwrap().rows;
    assert_eq!(evicted + rows, 6000);
    desk.end();
}

#[test]
fn a_lowered_limit_shrinks_the_file() {
    let place = Place::new();
    let desk = place.open();
    for name in 0..3000 {
        desk.put(sized_row(name, "/a", 8_000));
        if name % 1000 == 0 {
            desk.flush();
        }
    }
    desk.end();
    assert!(fs::metadata(place.path()).unwrap().len() > 20 << 20);
    let settings = Settings { max_disk_bytes: 4 << 20, ..place.settings() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    eventually("the file is below the limit", || {
        fs::metadata(place.path()).unwrap().len() <= 4 << 20
    });
    assert_eq!(desk.find(2999), Some(sized_row(2999, "/a", 8_000)));
    desk.end();
}

#[test]
fn a_clear_gives_the_space_back() {
    let place = Place::new();
    let desk = place.open();
    for name in 0..3000 {
        desk.put(sized_row(name, "/a", 8_000));
        if name % 1000 == 0 {
            desk.flush();
        }
    }
    desk.wait(desk.client.clear()).unwrap();
    desk.put(row(1, "/a"));
    eventually("the space is free", || desk.wait(desk.client.usage()).unwrap().bytes < 1 << 20);
    eventually("the file is small", || fs::metadata(place.path()).unwrap().len() < 12 << 20);
    assert_eq!(desk.find(1), Some(row(1, "/a")));
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 1);
    desk.end();
}

#[test]
fn a_quota_drops_puts_and_serves_lookups() {
    let place = Place::new();
    let settings = Settings { pages_max: 100, ..place.settings() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    desk.put(row(1, "/a"));
    desk.flush();
    eventually("it is full", || {
        (2..200).for_each(|name| desk.put(sized_row(name, "/a", 50_000)));
        desk.flush();
        desk.handle.stats().writes_unavailable() == Some(Unavailable::DiskFull)
    });
    assert!(stat(&desk, |it| it.puts_failed.load(Ordering::Relaxed)) > 0);
    assert_eq!(desk.find(1), Some(row(1, "/a")));
    desk.end();
    let desk = place.open();
    works(&desk);
    assert_eq!(desk.find(1), Some(row(1, "/a")));
    desk.end();
}
