//! What a scrape shows besides the cells: numbers that the shell gathers from what cores share.

use std::time::Duration;

use crate::breaker::Position;

/// Gathered by the shell for one scrape, `/cache/stats` or `/health`.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The version of the daemon, such as `0.1.0`.
    pub version: &'static str,
    /// The driver of the cores: `io_uring` or `epoll`.
    pub driver: &'static str,
    /// Time since the start of the process.
    pub uptime: Duration,
    /// Entries in memory, each counted once, however many cores hold it.
    pub l1_entries: u64,
    /// Bytes they take.
    pub l1_bytes: u64,
    /// The limit of `l1_bytes`.
    pub l1_bytes_max: u64,
    /// Bytes of request bodies that are held whole.
    pub request_body_bytes: u64,
    /// Lines that the access log dropped.
    pub access_log_dropped: u64,
    /// Lines that the daemon's own log dropped.
    pub log_dropped: u64,
    /// In the order of the configuration. Their names are label values: they come from the
    /// configuration, so that their number is bounded; two alike would be one series twice.
    pub upstreams: Vec<UpstreamExtras>,
    /// `None` without a second tier.
    pub store: Option<StoreExtras>,
}

/// One upstream.
#[derive(Clone, Debug)]
pub struct UpstreamExtras {
    /// What the configuration calls it. Without credentials.
    pub name: Box<str>,
    /// Where its circuit breaker stands.
    pub breaker: Position,
    /// Failures in a row.
    pub failures: u32,
    /// Places for connections that are taken.
    pub permits_taken: u64,
    /// Places for connections.
    pub permits: u64,
    /// Of the places taken, those of idle connections.
    pub idle: u64,
    /// Requests that wait for a place.
    pub waiting: u64,
    /// Bytes of bodies read from it.
    pub received_bytes: u64,
}

/// The second tier.
#[derive(Clone, Debug, Default)]
pub struct StoreExtras {
    /// `sqlite` or `postgres`.
    pub backend: &'static str,
    /// Why look-ups fail at present: a word; `None` while they work.
    pub reads_unavailable: Option<&'static str>,
    /// Why writes fail at present: a word; `None` while they work.
    pub writes_unavailable: Option<&'static str>,
    /// Time since the storage thread last went round.
    pub heartbeat_age: Duration,
    /// Commands that wait for the storage thread.
    pub queue_depth: u64,
    /// Rows that wait to be written.
    pub put_queue_rows: u64,
    /// Bytes of these rows.
    pub put_queue_bytes: u64,
    /// By kind of work. Each kind once.
    pub ops: Vec<OpExtras>,
    /// Look-ups shed because the queue was full.
    pub lookups_shed: u64,
    /// Look-ups that the backend could not answer.
    pub lookups_unavailable: u64,
    /// Rows dropped because the queue was full.
    pub puts_shed: u64,
    /// Rows dropped because a purge overtook them.
    pub puts_overtaken: u64,
    /// Rows dropped because the backend could not write them.
    pub puts_failed: u64,
    /// Rows removed because their time had passed.
    pub rows_expired: u64,
    /// Rows removed to keep the size limit.
    pub rows_evicted: u64,
    /// Rows removed since they failed their checksum.
    pub rows_damaged: u64,
    /// Files of another format emptied.
    pub files_emptied: u64,
    /// Damaged files moved aside.
    pub files_moved_aside: u64,
    /// Times the backend was opened again after a fault.
    pub reopened: u64,
    /// Purges received from other instances.
    pub remote_purges: u64,
    /// Panics caught in the storage threads.
    pub panics: u64,
    /// Rows, as last counted.
    pub rows: u64,
    /// Bytes they take, as last measured.
    pub bytes: u64,
}

impl StoreExtras {
    /// Why the store is degraded; `None` while reads and writes work.
    #[must_use]
    pub fn unavailable(&self) -> Option<&'static str> {
        self.reads_unavailable.or(self.writes_unavailable)
    }
}

/// One kind of work of the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpExtras {
    /// Its word: `get`, `put`, ...
    pub op: &'static str,
    /// Calls of the backend.
    pub calls: u64,
    /// Look-ups or rows in these calls.
    pub items: u64,
    /// Time spent in these calls.
    pub busy: Duration,
    /// Calls that failed.
    pub errors: u64,
}
