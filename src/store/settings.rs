//! What the configuration says about the store.

use std::path::PathBuf;
use std::time::Duration;

/// Which backend holds the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Nothing is stored: every look-up is a miss, no thread is started.
    None,
    /// In this process's memory, without a limit: the reference that the others are tested against.
    Memory,
    /// An embedded SQLite file at [`Settings::path`]. The default.
    Sqlite,
    /// A PostgreSQL database at [`Settings::dsn`], which several instances may share.
    Postgres,
}

impl Backend {
    /// Its name in the configuration and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Settings of the store; a change needs a restart.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Default: SQLite.
    pub backend: Backend,
    /// SQLite's file, `~` already expanded. Its folder is created with mode 0700.
    pub path: PathBuf,
    /// PostgreSQL's connection string, URL or key=value. May hold a password: never logged.
    pub dsn: String,
    /// Connections open at once. Default 25. SQLite uses two; PostgreSQL uses what measurement
    /// showed to be best, at most this number; with one, look-ups wait while it writes. Zero: no
    /// limit.
    pub max_open_conns: usize,
    /// Connections kept while idle. Default 5.
    pub max_idle_conns: usize,
    /// Age at which a connection is replaced; zero: never. Default 300 s.
    pub conn_max_lifetime: Duration,
    /// Idle time after which a connection is closed; zero: never. Default 60 s.
    pub conn_max_idle_time: Duration,
    /// SQLite's size on disk, in bytes, kept by removing the oldest rows; 0: no limit. Default 0.
    pub max_disk_bytes: u64,
    /// SQLite: pages of 8 KiB that the file may have, as a full disk would have it; 0: no limit.
    /// Default 0. Not in the configuration: a quota for tests.
    pub pages_max: u32,
    /// Look-ups and puts that may be waiting, each. Past it they are shed. Default 4096.
    pub queue_depth: usize,
    /// Bytes of rows that may be waiting to be written. Past it puts are shed. Default 64 MiB.
    pub queue_bytes_max: u64,
    /// PostgreSQL: time to make a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// PostgreSQL: time for one statement, and for a look-up to be answered. Default 2 s.
    pub statement_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: Backend::Sqlite,
            path: PathBuf::new(),
            dsn: String::new(),
            max_open_conns: 25,
            max_idle_conns: 5,
            conn_max_lifetime: Duration::from_secs(300),
            conn_max_idle_time: Duration::from_secs(60),
            max_disk_bytes: 0,
            pages_max: 0,
            queue_depth: 4096,
            queue_bytes_max: 64 * 1024 * 1024,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(2),
        }
    }
}

/// Leaves the connection string out: it may hold a password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("backend", &self.backend)
            .field("path", &self.path)
            .field("max_disk_bytes", &self.max_disk_bytes)
            .field("queue_depth", &self.queue_depth)
            .finish_non_exhaustive()
    }
}
