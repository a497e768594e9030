//! Log lines on their way out: the access log and the daemon's own.
//!
//! ```text
//!  core: Line -> Access (a batch of bytes) --.                        .--> file or stderr
//!                                             +--> Writer (a thread) --+
//!  any thread: tracing -> Events ------------'                        '--> dropped, counted
//! ```
//!
//! `proxy` notes requests, `server` starts and reopens, `cli` installs the daemon's own log. A core
//! never waits for a disk or a pipe: it formats a line into a buffer of its own and hands full
//! buffers to a thread through a bounded queue. When that is full, lines are dropped and counted.
//! A line never has a body, a secret that this program knows, or a byte that could end it.
//!
//! | file | subject |
//! |---|---|
//! | `line` | one request as JSON or as `name=value` text (pure) |
//! | `escape`, `mask`, `stamp` | what keeps a line one line, credentials out of it, and its time |
//! | `access` | which requests get a line; the batch of a core |
//! | `events` | the daemon's own log |
//! | `writer` | the thread |

mod access;
mod escape;
mod events;
mod line;
mod mask;
mod stamp;
mod writer;

pub use access::{Access, Setup};
pub use events::{dropped as events_dropped, flush_events, install};
pub use line::{End, Form, Heard, Line};
pub use mask::Masks;
pub use writer::{Target, Writer};
