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
//! | `connection` | one HTTP/1.1 exchange on a connection |
//! | `request` | which of the client's fields go on |

mod connection;
mod dial;
mod leave;
mod pool;
mod request;
mod state;

pub use connection::{Answer, AtHand, Body, Connection, Head, Sender};
pub use dial::dial;
pub use leave::{Leave, Patience, obtain};
pub use pool::{Permit, Permits, Place, Pool, Reuse};
pub use request::{Outgoing, OutgoingBody, Purpose, request_head, via};
pub use state::UpstreamState;
