//! What the daemon counts: the table of metrics, a core's cells, the texts that operators read.
//!
//! ```text
//!   core 0: CoreCells --.
//!   core 1: CoreCells ---+-- Snapshot --+-- exposition   /metrics
//!   core n: CoreCells --'               +-- summary      /cache/stats
//!              shell: Extras -----------+-- health       /health
//! ```
//!
//! `proxy` and `server` count, `admin` renders. Each core writes its own cells and nobody else's:
//! counting is a plain load, add and store; a scrape reads and sums them without disturbing
//! anybody. Pure: no clock, no I/O.
//!
//! No label value ever comes from a client: methods, statuses and reasons are mapped to fixed lists
//! (`labels`), and what is on no list becomes `other`. Upstream names come from the configuration.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod cells;
pub mod exposition;
pub mod extras;
pub mod health;
pub mod labels;
pub mod snapshot;
pub mod summary;
pub mod table;

pub use cells::CoreCells;
pub use exposition::{Format, render};
pub use extras::{Extras, OpExtras, StoreExtras, UpstreamExtras};
pub use health::HealthReport;
pub use labels::CacheResult;
pub use snapshot::Snapshot;
pub use summary::CacheSummary;
pub use table::{Counter, Gauge};
