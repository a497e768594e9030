//! The report of `/health`.
//!
//! Put together from memory, never by asking a database: the store's heartbeat and the result of
//! its last calls tell how it is.

use std::time::Duration;

use serde::Serialize;

use crate::breaker::Position;
use crate::metrics::extras::{Extras, StoreExtras, UpstreamExtras};

/// How the daemon is. Serialised as is.
///
/// Degraded, answered with 503, while the store is down or a core is dead. An open breaker is
/// shown and does not degrade: the upstream is in trouble, the daemon does what it is for, and to
/// take it out of service would take the stale answers away too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// `ok` or `degraded`.
    pub status: &'static str,
    /// The version of the daemon.
    pub version: &'static str,
    /// Whole seconds since the start of the process.
    pub uptime: u64,
    /// `ok`, `none` without a store, or the word for what is wrong with it.
    pub database: &'static str,
    /// Its parts, each in one word.
    pub components: Components,
    /// The upstreams, in the order of the configuration.
    pub upstreams: Vec<UpstreamHealth>,
    /// The cores.
    pub cores: Cores,
}

/// The parts of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Components {
    /// `ok`, or the worst breaker of all upstreams: `circuit_open`, `half_open`.
    pub upstream_client: &'static str,
    /// `ok`, or `disabled`: it has no other state.
    pub rate_limiter: &'static str,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamHealth {
    /// What the configuration calls it.
    pub name: Box<str>,
    /// Its breaker: `ok`, `circuit_open`, `half_open`.
    pub state: &'static str,
    /// Failures in a row.
    pub failures: u32,
}

/// The threads that serve clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// How many were started.
    pub total: usize,
    /// How many have come round lately.
    pub alive: usize,
    /// What they run on.
    pub driver: &'static str,
}

/// Whether clients are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limiting {
    /// `security.rate_limit_enabled`.
    Enabled,
    /// Not.
    Disabled,
}

impl HealthReport {
    /// Judges by what the shell has gathered.
    #[must_use]
    pub fn new(extras: &Extras, total: usize, alive: usize, limiting: Limiting) -> Self {
        debug_assert!(alive <= total);
        let database = extras.store.as_ref().map_or("none", database);
        let sound = matches!(database, "ok" | "none") && alive >= total;
        let worst = extras.upstreams.iter().map(|it| it.breaker).max_by_key(|it| badness(*it));
        Self {
            status: if sound { "ok" } else { "degraded" },
            version: extras.version,
            uptime: extras.uptime.as_secs(),
            database,
            components: Components {
                upstream_client: worst.map_or("ok", breaker),
                rate_limiter: match limiting {
                    Limiting::Enabled => "ok",
                    Limiting::Disabled => "disabled",
                },
            },
            upstreams: extras.upstreams.iter().map(UpstreamHealth::new).collect(),
            cores: Cores { total, alive, driver: extras.driver },
        }
    }

    /// 200, or 503 when degraded.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if self.status == "ok" { 200 } else { 503 }
    }
}

impl UpstreamHealth {
    fn new(upstream: &UpstreamExtras) -> Self {
        Self {
            name: upstream.name.clone(),
            state: breaker(upstream.breaker),
            failures: upstream.failures,
        }
    }
}

/// The word for a breaker.
const fn breaker(position: Position) -> &'static str {
    match position {
        Position::Closed => "ok",
        Position::Open => "circuit_open",
        Position::HalfOpen => "half_open",
    }
}

const fn badness(position: Position) -> u8 {
    match position {
        Position::Closed => 0,
        Position::HalfOpen => 1,
        Position::Open => 2,
    }
}

fn database(store: &StoreExtras) -> &'static str {
    let hung = (store.heartbeat_age > HEARTBEAT_AGE_MAX).then_some("not_responding");
    store.unavailable().or(hung).unwrap_or("ok")
}

/// The storage thread goes round every second; a checkpoint or a large file may hold it up for some
/// more. Past this it hangs.
pub const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(10);
