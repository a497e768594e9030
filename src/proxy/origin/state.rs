//! What all cores share about one upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::breaker::{Breaker, Budget, Pacer};
use crate::config::{Settings, UpstreamSettings};
use crate::http::Version;
use crate::proxy::origin::permits::{IdleEverywhere, Permits};
use crate::route::Scheme;

/// The bounds and the memory of one upstream's behaviour. Atomics and an arc-swap: nothing waits.
pub struct UpstreamState {
    /// Stops asking an upstream that fails.
    pub breaker: Arc<Breaker>,
    /// Bounds its connections.
    pub permits: Arc<Permits>,
    /// Its pace, and the pauses that it asked for.
    pub pacer: Pacer,
    /// Bounds what is sent once more.
    pub retries: Budget,
    /// It is asked for HTTP/2 when a connection is made.
    pub http2: bool,
    /// Requests that wait for their turn.
    pub waiting: AtomicUsize,
    /// Its last answer was of HTTP/1.0.
    is_http10: AtomicBool,
}

impl UpstreamState {
    /// One for each upstream of the settings, in their order.
    #[must_use]
    pub fn all(settings: &Settings) -> Box<[Self]> {
        let client = &settings.client;
        let everywhere = IdleEverywhere::new(client.max_idle_conns);
        let of = |upstream: &UpstreamSettings| Self {
            http2: client.http2 && upstream.upstream.scheme() == Scheme::Https,
            breaker: Arc::new(Breaker::new(settings.breaker)),
            permits: Permits::new(
                client.max_conns_per_host,
                client.max_idle_conns_per_host,
                Arc::clone(&everywhere),
            ),
            pacer: Pacer::new(client.pace()),
            retries: Budget::new(client.retry_budget),
            waiting: AtomicUsize::new(0),
            is_http10: AtomicBool::new(false),
        };
        settings.upstreams.iter().map(of).collect()
    }

    /// An answer of this version has come.
    pub fn note_version(&self, version: Version) {
        let is_http10 = version == Version::Http10;
        if self.is_http10.load(Ordering::Relaxed) != is_http10 {
            self.is_http10.store(is_http10, Ordering::Relaxed);
        }
    }

    /// Whether it is known to read no chunks (RFC 9112 section 6.1): it is sent a length.
    pub fn wants_length(&self) -> bool {
        self.is_http10.load(Ordering::Relaxed)
    }

    /// A place among those who wait for their turn, left when dropped; `None` when too many do.
    pub fn wait(&self) -> Option<Waiting<'_>> {
        let waiting = Waiting(self);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        (before < WAITING_MAX).then_some(waiting)
    }
}

/// One request that waits for its turn.
pub struct Waiting<'s>(&'s UpstreamState);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Requests that may wait for one upstream's pace or pause to end.
const WAITING_MAX: usize = 4096;
