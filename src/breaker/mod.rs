//! What keeps load away from an upstream in trouble: the circuit breaker, the pacer with the pauses
//! that the upstream asks for, and the budget of retries.
//!
//! `proxy` asks them before every request to an upstream and reports how it went; `config` builds
//! the settings. Pure: the time is an argument, no I/O. One of each per upstream, shared by all
//! cores. What counts as a failure is the caller's to say: transport errors, time-outs and 5xx do,
//! 4xx and clients that leave do not.
//!
//! ```text
//!              threshold failures in a row                 timeout, or Retry-After, is over
//!   +--------+ ---------------------------> +------+ ----------------------> +-----------+
//!   | closed |                              | open |                         | half-open |
//!   +--------+ <------------------+         +------+ <---------------------- +-----------+
//!                                 |                     one probe fails        |
//!                                 +--------------------------------------------+
//!                                            `half_open` probes succeed
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod budget;
pub mod pacer;
pub mod pause;
pub mod shared;
pub mod state;

pub use budget::Budget;
pub use pacer::{Pacer, Turn};
pub use pause::{Cause, Pause};
pub use shared::{Admission, Breaker, Permit, Refused, Status};
pub use state::{Change, Position, Settings, Token};
