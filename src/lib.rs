//! apiproxyd: a caching API proxy, thread per core on io_uring.
//!
//! The map of the modules, the path of a request and the glossary are in `ARCHITECTURE.md`.
//! Modules are listed lowest layer first; each imports lower layers only (`tests/tidy.rs`).

#![deny(unsafe_code)]
#![warn(missing_docs)]
// The pure folders deny these two again: see `clippy.toml`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod base;

pub mod http;

pub mod breaker;
pub mod cache;
pub mod http1;
pub mod limit;
pub mod route;
pub mod ssrf;

pub mod metrics;

pub mod config;

pub mod logs;
pub mod net;
pub mod store;

pub mod proxy;

pub mod admin;

pub mod server;

pub mod cli;
