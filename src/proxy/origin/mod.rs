//! The daemon as a client of origins.
//!
//! Called by the fetches of `proxy`. Decides nothing about caching.
//!
//! | file | subject |
//! |---|---|
//! | `state` | what all cores share about one upstream |
//! | `leave` | whether it may be asked now: pace, pauses, breaker |
//! | `permits` | the bounds on connections that hold for the process, and who waits for one |
//! | `pool` | the connections of a core: idle ones, the shared one |
//! | `dial` | a new connection: name, guard, TCP, TLS |
//! | `opening` | which protocol it speaks, found out once for all who wait |
//! | `connection` | one exchange, whichever protocol carries it |
//! | `http1` | one HTTP/1.1 exchange at a time on a connection |
//! | `multiplexed` | one HTTP/2 connection for many exchanges |
//! | `http2` | one exchange on it |
//! | `request` | which of the client's fields go on |

mod connection;
mod dial;
mod echo;
mod http1;
mod http2;
mod leave;
mod multiplexed;
mod opening;
mod permits;
mod pool;
mod request;
mod state;

pub use connection::{AtHand, Connection, Handling, Head, Sender};
pub use dial::connect;
pub use echo::drop_key;
pub use http1::Expected;
pub use leave::{Leave, Patience, TURN_WAIT_MAX, may_repeat, may_repeat_free, obtain};
pub use opening::Opening;
pub use permits::Permits;
pub use pool::{Pool, Reuse};
pub use request::{Outgoing, OutgoingBody, OutgoingHead, Purpose, via};
pub use state::UpstreamState;
