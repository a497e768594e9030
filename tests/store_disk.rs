//! A disk that is full: what the store does without, and how it finds room again.

#[path = "support/store.rs"]
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use apiproxyd::store::{Effect, Purge, Selection, Settings, StoreHandle, Unavailable};
use support::{Desk, eventually, row, sized_row};

fn works(desk: &Desk) {
    desk.put(row(4_000_000, "/works"));
    desk.flush();
    assert_eq!(desk.find(4_000_000), Some(row(4_000_000, "/works")));
    assert_eq!(desk.handle.stats().unavailable(), None);
}

/// A file system of its own, of 4 MiB. Needs the right to mount; without it there is none.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(folder: &Path) -> Option<Self> {
        let path = folder.join("disk");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&path).stderr(Stdio::null());
        mount.status().is_ok_and(|it| it.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Puts more than there is room for. Whether that is known now.
fn is_full(desk: &Desk) -> bool {
    for name in 2..200 {
        desk.put(sized_row(name, "/a", 50_000));
    }
    desk.flush();
    desk.handle.stats().writes_unavailable() == Some(Unavailable::DiskFull)
}

#[test]
fn a_full_disk_drops_puts_and_serves_lookups() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(folder.path()) else {
        eprintln!("not allowed to mount: nothing was tested");
        return;
    };
    let settings = Settings { path: disk.0.join("cache.db"), ..Settings::default() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    desk.put(row(1, "/a"));
    desk.flush();
    let filler = disk.0.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    eventually("it is known", || is_full(&desk));
    assert!(desk.handle.stats().puts_failed.load(Ordering::Relaxed) > 0);
    assert_eq!(desk.find(1), Some(row(1, "/a")));
    drop(file);
    fs::remove_file(&filler).unwrap();
    eventually("room is noticed", || desk.handle.stats().unavailable().is_none());
    works(&desk);
    desk.end();
    drop(disk);
}

#[test]
fn a_full_disk_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(folder.path()) else {
        eprintln!("not allowed to mount: nothing was tested");
        return;
    };
    let settings = Settings { path: disk.0.join("cache.db"), ..Settings::default() };
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    desk.put(row(1, "/a"));
    desk.flush();
    eventually("it is known", || is_full(&desk));
    // The last byte too, in the log as well: not even one changed row finds room.
    let mut file = fs::File::create(disk.0.join("filler")).unwrap();
    let expiry = Purge { selection: Selection::All, effect: Effect::Expire };
    eventually("there is no room", || {
        while file.write_all(&[0; 4096]).is_ok() {}
        desk.wait(desk.client.purge(expiry.clone())) == Err(Unavailable::DiskFull)
    });
    let number = || fs::metadata(&settings.path).unwrap().ino();
    let before = number();
    assert!(desk.wait(desk.client.clear()).unwrap() > 0);
    assert_ne!(number(), before, "the file was replaced");
    assert_eq!(desk.find(1), None);
    works(&desk);
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 1);
    desk.end();
    let desk = Desk::new(StoreHandle::open(&settings).unwrap());
    assert_eq!(desk.find(1), None);
    works(&desk);
    desk.end();
    drop(disk);
}
