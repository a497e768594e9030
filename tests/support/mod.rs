//! What the end-to-end tests share: the real daemon, an origin scripted byte by byte, and a raw
//! client that believes nothing.
//!
//! | file | subject |
//! |---|---|
//! | `proxy` | starts the binary over a configuration, watches its process, ends it |
//! | `origin` | an origin server of plain threads, with TLS or without: answers, stalls, resets |
//! | `client` | a client on one connection, reading answers strictly |
//! | `message` | heads, fields and bodies, parsed by code that shares nothing with the daemon's |
//! | `ranges` | an origin that honours ranges, and a look at what comes of them |
//! | `structured` | structured fields and Cache-Status, to the letter |
//! | `multiplex` | an origin that speaks HTTP/2, on an event loop |
//! | `faulty` | an origin that fails in every way, by dice, over HTTP/1.1, TLS and HTTP/2 |
//! | `dice` | chance that can be played again |
//! | `http2` | a client that speaks HTTP/2, on an event loop |
//! | `frames` | HTTP/2 by hand, for origins and clients that break its rules |
//! | `probe` | a daemon that is sent HTTP/2 by hand, and what comes of it |
//! | `hosts` | a hosts file of a daemon's own |
//! | `tls` | a client over TLS, and certificates |
//! | `metrics` | what `/metrics` says, by series |
//! | `load` | the same request over many connections at the same moment |
//!
//! Nothing here sleeps for luck: a test waits for a condition ([`eventually`], [`Gate`]) and fails
//! when it has not come true within [`PATIENCE`]. `APIPROXYD_TEST_DRIVER` (`io_uring`, `epoll`)
//! chooses the event loop, so that the whole suite runs on either.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unused_imports, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub mod client;
pub mod dice;
pub mod faulty;
pub mod frames;
pub mod hosts;
pub mod http2;
pub mod load;
pub mod message;
pub mod metrics;
pub mod multiplex;
pub mod origin;
pub mod probe;
pub mod proxy;
pub mod ranges;
pub mod structured;
pub mod tls;

pub use client::{Client, Fault};
pub use dice::Dice;
pub use faulty::Faulty;
pub use hosts::Hosts;
pub use http2::{Http2, Windows};
pub use message::{Request, Response};
pub use metrics::Metrics;
pub use multiplex::{Latch, Limits, Multiplexing};
pub use origin::{Connection, Origin, answer};
pub use proxy::{Proxy, Refused, Setup};
pub use tls::Authority;

/// Long enough for a busy machine, short enough to notice a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition that another thread or process brings about.
///
/// # Panics
/// When it has not come true within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes room for so many descriptors in this process and the daemons it starts.
///
/// # Panics
/// When the machine does not grant them.
#[track_caller]
pub fn raise_descriptors(count: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= count, "{hard} descriptors at most, {count} are needed");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(count), hard).unwrap();
}

/// Asserts what the cache did (`X-Cache`) and which body came.
///
/// # Panics
/// When it was otherwise.
#[track_caller]
pub fn assert_cached(response: &Response, verdict: &str, body: &str) {
    assert_eq!((response.cache(), response.text()), (verdict, body), "{response:?}");
}

/// Holds threads until it is opened; stays open from then on.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; panics after [`PATIENCE`].
    #[track_caller]
    pub fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(shut, PATIENCE, |open| !*open).unwrap();
        let open = *waited.0;
        drop(waited);
        assert!(open, "nobody opened the gate");
    }
}
