//! The daemon as a client of origins.
//!
//! Called by the fetches of `proxy`. Decides nothing about caching.
//!
//! | file | subject |
//! |---|---|
//! | `state` | what all cores share about one upstream |
//! | `leave` | whether it may be asked now: pace, pauses, breaker |
//! | `pool` | idle connections of a core, bounds for the process, the queue |
//! | `dial` | a new connection: name, guard, TCP, TLS |
//! | `opening` | which protocol it speaks, found out once for all who wait |
//! | `connection` | one exchange, whichever protocol carries it |
//! | `http1` | one HTTP/1.1 exchange at a time on a connection |
//! | `http2` | one HTTP/2 connection for many exchanges |
//! | `request` | which of the client's fields go on |

mod connection;
mod dial;
mod echo;
mod http1;
mod http2;
mod leave;
mod opening;
mod pool;
mod request;
mod state;

pub use connection::{AtHand, Connection, Head, Sender};
pub use dial::connect;
pub use echo::drop_key;
pub use http1::Expected;
pub use leave::{Leave, Patience, obtain};
pub use opening::Opening;
pub use pool::{Permits, Pool, Reuse};
pub use request::{Outgoing, OutgoingBody, OutgoingHead, Purpose, via};
pub use state::UpstreamState;
