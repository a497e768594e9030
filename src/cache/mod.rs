//! The cache: keys, stored responses, the first tier and the rules of RFC 9111.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod encode;
pub mod entry;
pub mod facts;
pub mod json;
pub mod key;
pub mod ledger;
mod packed;
pub mod record;
pub mod shard;
pub mod vary;

pub use entry::Entry;
pub use key::{Key, KeyWriter};
pub use ledger::Ledger;
pub use shard::Shard;
