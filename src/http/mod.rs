//! HTTP messages and the semantics of their fields (RFC 9110), whatever version carries them.
//!
//! Called by every layer above. Pure: no I/O, no clock. Says nothing about the wire (`http1`) and
//! nothing about caching (`cache`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod fields;
pub mod message;
pub mod method;

pub use fields::{Field, Fields};
pub use message::{RequestHead, ResponseHead, Version};
pub use method::Method;
