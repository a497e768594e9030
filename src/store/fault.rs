//! What can go wrong, as reasons.

use std::fmt;

/// Why the store could not answer. Never fails a client's request: the caller goes on as if the
/// row were absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// Too many commands are waiting; this one was shed.
    QueueFull,
    /// The backend is not open yet.
    Starting,
    /// Another process holds the file.
    Locked,
    /// The disk, the quota or the tablespace is full.
    DiskFull,
    /// The file or the disk failed.
    Io,
    /// The file is damaged; it is being replaced.
    Damaged,
    /// The file or the schema is somebody else's.
    Foreign,
    /// The database cannot be reached, or ended the connection.
    Disconnected,
    /// The database did not answer in time.
    Timeout,
    /// The database refused the statement.
    Refused,
    /// The store has been shut down.
    Closed,
    /// A panic was caught; the command was lost.
    Bug,
}

impl Unavailable {
    /// All reasons, for tables of metrics.
    pub const ALL: [Self; 12] = [
        Self::QueueFull,
        Self::Starting,
        Self::Locked,
        Self::DiskFull,
        Self::Io,
        Self::Damaged,
        Self::Foreign,
        Self::Disconnected,
        Self::Timeout,
        Self::Refused,
        Self::Closed,
        Self::Bug,
    ];

    /// Whether opening the backend again is the cure.
    pub(crate) const fn heals_on_open(self) -> bool {
        matches!(self, Self::Damaged | Self::Bug)
    }

    /// The reason's word in logs, labels and `Cache-Status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Starting => "starting",
            Self::Locked => "locked",
            Self::DiskFull => "disk_full",
            Self::Io => "io",
            Self::Damaged => "damaged",
            Self::Foreign => "foreign",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Bug => "bug",
        }
    }
}

/// Why a put was not taken. The row stays what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Too many rows, or too many bytes of rows, are waiting to be written.
    QueueFull,
    /// A clear came after the row's epoch was taken.
    Cleared,
    /// The store has been shut down.
    Closed,
}

impl Dropped {
    /// The reason's word in logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Cleared => "cleared",
            Self::Closed => "closed",
        }
    }
}

/// A backend's failure: the reason, and what the library said, for the log.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) reason: Unavailable,
    pub(crate) detail: String,
}

impl Fault {
    /// Whether the connection is of no use any more and must be opened again.
    pub(crate) const fn breaks_connection(&self) -> bool {
        match self.reason {
            Unavailable::Starting
            | Unavailable::Io
            | Unavailable::Damaged
            | Unavailable::Foreign
            | Unavailable::Disconnected
            | Unavailable::Closed
            | Unavailable::Bug => true,
            Unavailable::QueueFull
            | Unavailable::Locked
            | Unavailable::DiskFull
            | Unavailable::Timeout
            | Unavailable::Refused => false,
        }
    }

    pub(crate) fn new(reason: Unavailable, detail: impl fmt::Display) -> Self {
        Self { reason, detail: detail.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

/// Why the store must not be started. What is wrong with a database or a file is not here, at the
/// start as little as later: the daemon serves without its second tier, says so, and comes back by
/// itself.
#[derive(Debug)]
pub enum StartError {
    /// The connection string cannot be understood, or asks for what is not supported.
    Dsn {
        /// What is wrong, without the string itself.
        detail: String,
    },
    /// A thread could not be started.
    Thread {
        /// What the system said.
        detail: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dsn { detail } => write!(f, "cache.postgres_dsn: {detail}"),
            Self::Thread { detail } => write!(f, "cannot start the storage thread: {detail}"),
        }
    }
}

impl std::error::Error for StartError {}
