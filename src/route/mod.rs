//! Where a request goes: the API prefix, the allowlist, the routes, the upstreams.
//!
//! `config` builds these values, `proxy` asks them for every request. All of it works on the
//! normalised path (RFC 3986 section 6.2.2), so that allowlist, cache key and upstream see one
//! spelling. Pure: no I/O, no clock; a look-up allocates nothing. Never decides whether an address
//! may be connected to (`ssrf`).
//!
//! ```text
//! /api/users/7 --ApiPrefix--> /users/7 --PatternSet--> allowed? --Routes--> upstream, path
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod pattern;
pub mod prefix;
pub mod table;
pub mod upstream;

pub use pattern::{Pattern, PatternFault, PatternSet};
pub use prefix::{ApiPrefix, PrefixFault};
pub use table::{Resolved, Route, RouteFault, Routes, RoutesBuilder, Strip};
pub use upstream::{Scheme, Upstream, UpstreamFault, UpstreamId};
