//! Rate limits: who a client is, and how much it may ask.
//!
//! `proxy` and `server` call this folder; `config` builds its quotas. Pure: the time is an
//! argument, no I/O. It counts nothing for metrics and writes no response.
//!
//! * [`Limiter`]: GCRA in a fixed table of cells, shared by all cores, lock-free (`limiter.rs`; the
//!   protocol that keeps one identity in one cell is in `bucket.rs`, the arithmetic in `cell.rs`);
//! * [`identity`]: what is limited: the client's address, found behind trusted proxies, or its key;
//! * [`proxy_protocol`]: another way in which a trusted proxy states the client's address;
//! * [`fields`]: what the client is told: `RateLimit`, `RateLimit-Policy`, `Retry-After`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod bucket;
mod cell;
pub mod fields;
pub mod identity;
pub mod limiter;
pub mod proxy_protocol;
pub mod quota;

pub use identity::{Kind, TrustedProxies};
pub use limiter::{Ask, Both, Limiter, Standing, Verdict};
pub use quota::{Quota, QuotaFault};
