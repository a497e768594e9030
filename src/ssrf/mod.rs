//! Which hosts and addresses the daemon may connect to: the guard against server-side request
//! forgery.
//!
//! `config` checks entry points with it, `net` every address that a name resolves to, right before
//! it connects to exactly that address. Pure: it resolves nothing and connects to nothing.
//!
//! ```text
//! URL --Policy::check_url--> scheme, host on the list, address written as a number?
//!      name --resolver--> addresses --Policy::check_address--> each by itself, at every connect
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod class;
pub mod host;
pub mod policy;

pub use class::{Class, Reach, classify};
pub use host::{Host, HostFault, HostPattern};
pub use policy::{Policy, Refusal};
