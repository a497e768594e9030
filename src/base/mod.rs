//! What every layer needs and the standard library lacks: instants, a seeded hash, numbers.
//!
//! Everybody calls this folder; it calls nobody, does no I/O and never reads a clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod hash;
pub mod numbers;
pub mod time;

pub use hash::Seed;
pub use numbers::Numbers;
pub use time::{Mono, Wall};
