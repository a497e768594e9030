//! The second tier: rows on SQLite or PostgreSQL, behind threads of their own.
//!
//! Opened by `server`, used by every core's `proxy` and by `admin` through a [`Client`]. Stores
//! rows; knows nothing of HTTP, freshness or keys. No core ever blocks on it: commands go through
//! bounded queues, and a full queue sheds. Nothing that happens to the backend fails a client's
//! request: a look-up is `Unavailable`, a put is dropped, both are counted.
//!
//! ```text
//! StoreHandle   opens, shuts down; Send + Sync
//! Client        a core's futures            client.rs, slots.rs, mailbox.rs
//! storage.rs    thread: batches             pending.rs: what is queued stays visible
//! reads.rs      look-ups, inline or pooled  retry.rs: connections that come and go
//! writer.rs     thread: group commits     owed.rs, note.rs: purges that could not be done yet
//! watch.rs      thread: nobody waits for a thread that hangs
//! backend.rs    what a backend must do      memory.rs, sqlite/, postgres/
//! ```
//!
//! Three promises, each with its reason:
//! * A put is found by every look-up sent after it, although it is written later.
//! * A purge that was answered hides everything stored before it, for every later look-up, also
//!   after a crash; one that is still owed then, by forgetting everything.
//! * A row comes back as it was put (a checksum tells) or not at all.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![deny(clippy::await_holding_refcell_ref)]

mod backend;
mod client;
mod clock;
mod fault;
mod handle;
mod mailbox;
mod memory;
mod note;
mod owed;
mod pending;
mod postgres;
mod progress;
mod reads;
mod retry;
mod row;
mod settings;
mod shared;
mod slots;
mod slow;
mod sqlite;
mod stats;
mod storage;
mod watch;
mod writer;

pub use client::{Client, GetOutcome, Lookup};
pub use fault::{Dropped, StartError, Unavailable};
pub use handle::{Shutdown, StoreHandle};
pub use row::{Digest, Effect, Purge, Row, Selection};
pub use settings::{Backend, Settings};
pub use shared::{Epoch, OnRemotePurge};
pub use stats::{Op, OpStats, StoreStats, Usage};
