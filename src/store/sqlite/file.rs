//! The cache file as a file: its folder, mode, lock, and how it is moved aside.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::store::clock;
use crate::store::fault::{Fault, Unavailable};
use crate::store::note;
use crate::store::sqlite::Place;

/// The first bytes of every SQLite 3 file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Files beside the database that belong to it.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
const MODE_FILE: u32 = 0o600;
const MODE_FOLDER: u32 = 0o700;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), number: meta.ino() }
    }
}

/// A database and the files that belong to it.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) database: Inode,
    companions: [Option<Inode>; COMPANIONS.len()],
}

impl Place {
    /// Makes the folder, takes the lock, and sees to it that a file is there that SQLite can open.
    pub(crate) fn prepare(&self) -> Result<(), Fault> {
        if let Some(folder) = self.path.parent().filter(|it| !it.as_os_str().is_empty()) {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(MODE_FOLDER);
            builder.create(folder).map_err(|err| io_fault("create folder", &err))?;
        }
        self.take_lock()?;
        if self.is_damaged() {
            self.move_aside("damaged")?;
            self.damaged.store(0, Ordering::Release);
        }
        match header(&self.path)? {
            Header::Absent => {}
            Header::Empty | Header::Sqlite => return self.tighten(),
            Header::Other => self.move_aside("damaged")?,
        }
        // A log without its database would be replayed into the new one.
        for companion in COMPANIONS {
            drop(fs::remove_file(suffixed(&self.path, companion)));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(MODE_FILE);
        options.open(&self.path).map_err(|err| io_fault("create", &err))?;
        Ok(())
    }

    /// Removes the database and what belongs to it. Durable when this returns.
    pub(crate) fn remove(&self) -> Result<(), Fault> {
        fs::remove_file(&self.path).map_err(|err| io_fault("remove", &err))?;
        for companion in COMPANIONS {
            drop(fs::remove_file(suffixed(&self.path, companion)));
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        note::sync(folder).map_err(|err| io_fault("sync folder", &err))
    }

    /// Keeps what is there under another name, for whoever wants to look at it.
    pub(crate) fn move_aside(&self, why: &str) -> Result<(), Fault> {
        let seconds = clock::wall().as_secs();
        let mut target = suffixed(&self.path, &format!(".{why}-{seconds}"));
        for copy in 1..100 {
            if !target.exists() {
                break;
            }
            target = suffixed(&self.path, &format!(".{why}-{seconds}-{copy}"));
        }
        match fs::rename(&self.path, &target) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(io_fault("move aside", &err)),
        }
        for companion in COMPANIONS {
            drop(fs::rename(suffixed(&self.path, companion), suffixed(&target, companion)));
        }
        self.shared.stats.files_moved_aside.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            path = %self.path.display(),
            moved_to = %target.display(),
            why,
            "cache file moved aside; a new one is started"
        );
        Ok(())
    }

    /// The files that the path and its companions name at present, and the size of the first.
    pub(crate) fn look(&self) -> Result<(Files, u64), Fault> {
        let meta = fs::metadata(&self.path).map_err(|err| io_fault("stat", &err))?;
        let companions = COMPANIONS.map(|it| {
            let meta = fs::metadata(suffixed(&self.path, it)).ok();
            meta.map(|it| Inode::of(&it))
        });
        Ok((Files { database: Inode::of(&meta), companions }, meta.len()))
    }

    /// Removes what is left of `files`, whose database is gone: another database that was put in
    /// its place must not be given our log.
    pub(crate) fn remove_companions(&self, files: &Files) {
        for (suffix, ours) in COMPANIONS.into_iter().zip(files.companions) {
            let path = suffixed(&self.path, suffix);
            let there = fs::metadata(&path).ok().map(|it| Inode::of(&it));
            if there.is_some() && there == ours {
                drop(fs::remove_file(path));
            }
        }
    }

    /// One process a file: ids and counters are the writer's alone. The lock is on a file beside
    /// it, since SQLite's own locks are released whenever the database is closed.
    fn take_lock(&self) -> Result<(), Fault> {
        let path = suffixed(&self.path, ".lock");
        let mut held = self.lock();
        if let (Some(file), Ok(there)) = (&*held, fs::metadata(&path)) {
            let ours = file.metadata().map_err(|err| io_fault("stat lock", &err))?;
            if Inode::of(&ours) == Inode::of(&there) {
                return Ok(());
            }
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE_FILE);
        let file = options.open(&path).map_err(|err| io_fault("create lock", &err))?;
        match file.try_lock() {
            Ok(()) => *held = Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Fault::new(Unavailable::Locked, "another process uses the cache file"));
            }
            Err(TryLockError::Error(err)) => return Err(io_fault("lock", &err)),
        }
        Ok(())
    }

    /// A cache holds what clients were sent: nobody else's to read.
    fn tighten(&self) -> Result<(), Fault> {
        let meta = fs::metadata(&self.path).map_err(|err| io_fault("stat", &err))?;
        if meta.mode() & 0o077 == 0 {
            return Ok(());
        }
        fs::set_permissions(&self.path, Permissions::from_mode(MODE_FILE))
            .map_err(|err| io_fault("set mode", &err))
    }
}

enum Header {
    Absent,
    Empty,
    Sqlite,
    Other,
}

fn header(path: &Path) -> Result<Header, Fault> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Header::Absent),
        Err(err) => return Err(io_fault("stat", &err)),
    };
    if !meta.is_file() {
        return Err(Fault::new(Unavailable::Io, "not a regular file"));
    }
    let file = File::open(path).map_err(|err| io_fault("open", &err))?;
    let mut start = Vec::with_capacity(MAGIC.len());
    let wanted = u64::try_from(MAGIC.len()).unwrap_or(0);
    file.take(wanted).read_to_end(&mut start).map_err(|err| io_fault("read", &err))?;
    Ok(match start.as_slice() {
        [] => Header::Empty,
        it if it == MAGIC => Header::Sqlite,
        _ => Header::Other,
    })
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn io_fault(what: &str, err: &std::io::Error) -> Fault {
    let reason = match err.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Unavailable::DiskFull,
        _ => Unavailable::Io,
    };
    Fault::new(reason, format_args!("{what}: {err}"))
}
