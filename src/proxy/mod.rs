//! One exchange: from a request's bytes to its answer's.
//!
//! Called by the connection drivers of `server`. Decides by asking the pure modules, moves bytes
//! through `net`, keeps through `store`. Knows no operator endpoints and accepts no connections.
//!
//! | step | file | may answer | next |
//! |---|---|---|---|
//! | parse, gate, L1 | `hit` (`gate`) | a fresh hit, a malformed message | a `Task` |
//! | take the body | `exchange` (`body`) | 4xx | look up, or pass |
//! | look up | `serve` (`judge`, `hub`, `variant`) | fresh, stale, 504 | lead, follow, pass |
//! | lead a fetch | `fetch` (`ask`, `origin`, `arrive`) | | fill |
//! | fill the cache | `fill` (`keeping`, `variant`) | | deliver |
//! | follow a fetch | `follow` (`flight`, `growing`, `early`) | | deliver, rescue, pass |
//! | ask alone | `alone` (`ask`, `effects`, `fill`) | the origin's answer | |
//! | pass | `pass` (`upload`, `ask`, `effects`) | the origin's answer | |
//! | refuse what is no request | `unreadable` | 4xx, 5xx | |
//! | rescue | `rescue` (`error`) | stale, problem+json | |
//! | deliver | `deliver` (`coding`, `cut`, `answer`) | the entry: 200, 206, 304, 416 | |
//! | count, log | `record` | | |
//!
//! `explain` says what would become of a request, by the same decisions. `core` holds all state of
//! a core, `inbox` carries messages between cores, `purge` makes keys disappear from all of them,
//! `journal` knows what disappeared lately, `helper` does what would hold up a core.

mod alone;
mod answer;
mod arrive;
mod ask;
pub mod bodies;
mod body;
pub mod coding;
pub mod core;
mod cut;
pub mod deliver;
pub mod downstream;
mod early;
mod effects;
pub mod error;
mod exchange;
pub mod explain;
mod fetch;
mod fill;
pub mod flight;
mod follow;
pub mod gate;
pub mod growing;
pub mod helper;
pub mod hit;
pub mod hub;
pub mod inbox;
mod inquiry;
pub mod journal;
mod judge;
mod keeping;
pub mod keyed;
mod keyring;
pub mod origin;
mod pass;
pub mod plan;
pub mod purge;
mod race;
mod record;
pub mod request;
pub mod rescue;
mod serve;
pub mod unreadable;
mod upload;
mod variant;

pub use core::{Core, Moment, Shared};
pub use exchange::exchange;
pub use hit::Step;
pub use plan::Plan;
pub use request::{Destination, Peer, Task};
pub use rescue::refuse;
