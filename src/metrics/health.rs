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
    /// `ok`: it has no other state, switched on or off.
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

impl HealthReport {
    /// Judges by what the shell has gathered.
    #[must_use]
    pub fn new(extras: &Extras, total: usize, alive: usize) -> Self {
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
                rate_limiter: "ok",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn extras(breakers: &[Position], store: Option<StoreExtras>) -> Extras {
        let upstream = |breaker: &Position| UpstreamExtras {
            name: "https://a.example".into(),
            breaker: *breaker,
            failures: 2,
            permits_taken: 0,
            permits: 1,
            idle: 0,
            waiting: 0,
            received_bytes: 0,
        };
        Extras {
            version: "0.1.0",
            driver: "epoll",
            uptime: Duration::from_millis(61_900),
            upstreams: breakers.iter().map(upstream).collect(),
            store,
            ..Extras::default()
        }
    }

    fn report(extras: &Extras) -> HealthReport {
        HealthReport::new(extras, 4, 4)
    }

    #[test]
    fn the_report_has_the_promised_shape() {
        let extras = extras(&[Position::Closed], Some(StoreExtras::default()));
        let expected = serde_json::json!({
            "status": "ok",
            "version": "0.1.0",
            "uptime": 61,
            "database": "ok",
            "components": {"upstream_client": "ok", "rate_limiter": "ok"},
            "upstreams": [{"name": "https://a.example", "state": "ok", "failures": 2}],
            "cores": {"total": 4, "alive": 4, "driver": "epoll"},
        });
        assert_eq!(serde_json::to_value(report(&extras)).unwrap(), expected);
        assert_eq!(report(&extras).http_status(), 200);
    }

    #[test]
    fn a_store_that_fails_or_hangs_degrades() {
        let age = |heartbeat_age| StoreExtras { heartbeat_age, ..StoreExtras::default() };
        let reads = StoreExtras { reads_unavailable: Some("down"), ..StoreExtras::default() };
        let writes = StoreExtras { writes_unavailable: Some("full"), ..StoreExtras::default() };
        let rows = [
            (Some(age(HEARTBEAT_AGE_MAX)), "ok", 200),
            (Some(age(HEARTBEAT_AGE_MAX + Duration::from_millis(1))), "not_responding", 503),
            (Some(reads), "down", 503),
            (Some(writes), "full", 503),
            (None, "none", 200),
        ];
        for (store, database, status) in rows {
            let report = report(&extras(&[], store));
            assert_eq!((report.database, report.http_status()), (database, status));
            assert_eq!(report.status == "ok", status == 200);
        }
    }

    #[test]
    fn the_worst_breaker_is_shown_and_does_not_degrade() {
        use Position::{Closed, HalfOpen, Open};
        let rows: [(&[Position], &str); 5] = [
            (&[], "ok"),
            (&[Closed, Closed], "ok"),
            (&[Closed, HalfOpen], "half_open"),
            (&[HalfOpen, Open, Closed], "circuit_open"),
            (&[Open], "circuit_open"),
        ];
        for (breakers, expected) in rows {
            let report = report(&extras(breakers, None));
            assert_eq!(report.components.upstream_client, expected, "{breakers:?}");
            assert_eq!(report.http_status(), 200);
        }
    }

    #[test]
    fn a_core_that_does_not_come_round_degrades() {
        let report = HealthReport::new(&extras(&[], None), 4, 3);
        assert_eq!((report.status, report.http_status()), ("degraded", 503));
        assert_eq!((report.cores.alive, report.components.rate_limiter), (3, "ok"));
    }
}
