//! The note that purges are owed: a file beside the cache, for whoever comes after this process.
//!
//! A purge that the backend could not do yet is done by this process, later. If the process ends
//! before, however it ends, the rows are still there and nobody knows. So a file is made before
//! anybody is told that a purge is pending, and removed when all is paid. Who finds one at the
//! start forgets everything: the cache may be lost, never wrong.
//!
//! Each process makes a file of its own and holds a lock on it, so that several may use a folder:
//! a note whose lock can be had is of a process that has ended. The file is empty: making it needs
//! no room on a full disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Notes of processes that use one folder; more find no name.
const NAMES_MAX: usize = 16;
const MODE_FILE: u32 = 0o600;

/// One store's note.
#[derive(Debug, Default)]
pub(crate) struct Note {
    /// Where notes are kept; none where nothing can be noted.
    path: Option<PathBuf>,
    held: Mutex<Held>,
    /// Whether `held` has any, to be asked often.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    own: Vec<Paper>,
    /// They stand for purges up to this number.
    upto: u64,
    /// Of processes that have ended.
    inherited: Vec<Paper>,
}

/// A file, locked as long as this lives.
#[derive(Debug)]
struct Paper {
    path: PathBuf,
    _lock: File,
}

impl Note {
    /// Beside the cache of this path.
    pub(crate) fn beside(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..Self::default() }
    }

    /// Notes that purges up to this number may be owed. Durable when this returns; costs nothing
    /// more while there is a note.
    pub(crate) fn make(&self, upto: u64) -> io::Result<()> {
        let Some(base) = &self.path else { return Ok(()) };
        let mut held = self.lock();
        held.upto = held.upto.max(upto);
        if held.own.is_empty() {
            held.own.push(make(base)?);
            self.any.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether purges up to some number are noted as owed.
    pub(crate) fn is_made(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// All purges up to this number are done: removes a note that stands for no other.
    pub(crate) fn settle(&self, done: u64) {
        if !self.is_made() {
            return;
        }
        let mut held = self.lock();
        if held.upto <= done {
            held.own.drain(..).for_each(Paper::remove);
            self.any.store(!held.inherited.is_empty(), Ordering::Release);
        }
    }

    /// Takes over the notes of processes that have ended. Whether there are any: everything is to
    /// be forgotten.
    pub(crate) fn inherit(&self) -> bool {
        let Some(base) = &self.path else { return false };
        let mut held = self.lock();
        held.inherited.extend((0..NAMES_MAX).filter_map(|it| take(numbered(base, it))));
        let any = !held.inherited.is_empty();
        self.any.fetch_or(any, Ordering::AcqRel);
        any
    }

    /// What was inherited will be done with the purge of this number.
    pub(crate) fn adopt(&self, upto: u64) {
        let mut held = self.lock();
        let Held { own, inherited, .. } = &mut *held;
        if !inherited.is_empty() {
            own.append(inherited);
            held.upto = held.upto.max(upto);
        }
    }

    /// What was inherited is done.
    pub(crate) fn honour(&self) {
        let mut held = self.lock();
        held.inherited.drain(..).for_each(Paper::remove);
        self.any.store(!held.own.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Paper {
    fn remove(self) {
        // What stays is found at the next start: too much is forgotten then, not too little.
        drop(fs::remove_file(&self.path));
    }
}

fn make(base: &Path) -> io::Result<Paper> {
    for number in 0..NAMES_MAX {
        let path = numbered(base, number);
        let mut options = OpenOptions::new();
        // Never one that is there: it may be of a process that has ended, and unread.
        match options.write(true).create_new(true).mode(MODE_FILE).open(&path) {
            Ok(file) => {
                // In vain only if somebody takes it for an old one at this moment, and forgets all.
                drop(file.try_lock());
                file.sync_all()?;
                if let Some(folder) = path.parent() {
                    sync(folder)?;
                }
                return Ok(Paper { path, _lock: file });
            }
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// What was done to the names in a folder is durable when this returns.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// The note of this path, unless it is held by whoever made it, or gone.
fn take(path: PathBuf) -> Option<Paper> {
    let file = File::open(&path).ok()?;
    file.try_lock().ok()?;
    let named = file.metadata().is_ok_and(|it| it.is_file() && it.nlink() > 0);
    named.then_some(Paper { path, _lock: file })
}

fn numbered(base: &Path, number: usize) -> PathBuf {
    let mut name = OsString::from(base);
    name.push(".owed");
    if number > 0 {
        name.push(format!("-{number}"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_found_by_the_next_process_and_removed_when_paid() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("cache.db");
        let files = || fs::read_dir(folder.path()).unwrap().count();
        let (first, second) = (Note::beside(&base), Note::beside(&base));
        first.make(7).unwrap();
        first.make(9).unwrap();
        assert_eq!(files(), 1);
        assert!(!second.inherit(), "its process lives");
        second.make(3).unwrap();
        assert_eq!(files(), 2);
        second.settle(3);
        first.settle(8);
        assert_eq!(files(), 1, "up to nine is owed");
        drop(first);
        assert!(second.inherit());
        assert!(second.is_made());
        second.settle(u64::MAX);
        assert_eq!(files(), 1, "not its own");
        second.adopt(20);
        second.settle(19);
        assert_eq!(files(), 1);
        second.settle(20);
        assert_eq!(files(), 0);
        assert!(!second.is_made());
    }

    #[test]
    fn a_note_of_one_who_has_ended_is_not_taken_for_ones_own() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("cache.db");
        let (first, second) = (Note::beside(&base), Note::beside(&base));
        first.make(1).unwrap();
        drop(first);
        second.make(1).unwrap();
        second.settle(1);
        assert!(second.inherit());
        second.honour();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_noted_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Note::beside(&folder.path().join("none/cache.db")).make(1).is_err());
        assert!(Note::default().make(1).is_ok(), "nowhere to note it");
    }
}
