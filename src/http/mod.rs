//! HTTP messages and the semantics of their fields (RFC 9110), whatever version carries them.
//!
//! Called by every layer above. Pure: no I/O, no clock. Says nothing about the wire (`http1`) and
//! nothing about caching (`cache`).
//!
//! A file for each subject, lowest first: `fields`, `method`, `message`; `list` (the syntax that
//! fields share) and `date`; `etag`, `media`, `accept`, `hop`, `status`; `conditional` and `range`
//! (sections 13 and 14); `json` (bodies, RFC 8259); `target` and `authority` (what a request asks
//! for, in one spelling); `untrusted` (what of a request's fields is nobody's to write).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod accept;
pub mod authority;
pub mod conditional;
pub mod date;
pub mod etag;
pub mod fields;
pub mod hop;
pub mod json;
pub mod list;
pub mod media;
pub mod message;
pub mod method;
pub mod range;
pub mod status;
pub mod target;
pub mod trace;
pub mod untrusted;

pub use authority::Authority;
pub use date::{parse_http_date, write_http_date};
pub use etag::EntityTag;
pub use fields::{Field, Fields};
pub use media::MediaType;
pub use message::{RequestHead, ResponseHead, Version};
pub use method::Method;
