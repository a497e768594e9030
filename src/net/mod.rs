//! Sockets, TLS, names and the runtime: everything that waits for the network.
//!
//! `server` accepts through it, `proxy` reaches origins through it. It moves bytes and says what
//! went wrong; it knows no HTTP, decides no policy (the caller passes the address check in) and
//! never blocks a core: name look-ups run on threads of their own.
//!
//! | file | subject |
//! |---|---|
//! | `runtime` | the core's event loop: io_uring, or epoll where that is refused |
//! | `boundary` | where a panic ends |
//! | `clock` | the two clocks that pure code is given as `now` |
//! | `errands` | what a core hands to another thread |
//! | `ticks` | coarse deadlines, one timer for a whole core |
//! | `resolver` | names to addresses, on threads of its own |
//! | `connect` | dialling one of several addresses |
//! | `listen` | listening sockets, one for each core |
//! | `tcp` | one TCP connection: a reader and a writer at the same time |
//! | `tls` | TLS over it, on rustls |
//! | `stream` | a connection of either kind, what the HTTP drivers use |
//! | `duplex` | the same behind the traits of `h2`, with writes gathered |

pub mod boundary;
pub mod clock;
pub mod connect;
pub mod duplex;
pub mod errands;
pub mod listen;
pub mod resolver;
pub mod runtime;
pub mod stream;
pub mod tcp;
pub mod ticks;
pub mod tls;

pub use boundary::{Guarded, Panicked, guarded};
pub use clock::{mono, wall};
pub use connect::{ConnectError, Dial, connect};
pub use errands::Errands;
pub use resolver::{ResolveError, Resolver};
pub use stream::Stream;
pub use tcp::{Peek, Tcp, is_canceled};
pub use tls::TlsStream;
