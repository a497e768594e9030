//! `/health` and `/readyz`: from memory, in microseconds.

use std::time::Duration;

use serde_json::json;

use crate::admin::reply::Answered;
use crate::breaker::Position;
use crate::proxy::Core;

/// How the daemon is; 503 when something it needs is away.
pub fn health(core: &Core) -> Answered {
    let shared = &core.shared;
    let now = crate::net::mono();
    let database = database(core);
    let breakers: Vec<_> = shared.breakers.iter().map(|it| it.status(now).position).collect();
    let worst = breakers.iter().map(|it| word(*it)).max_by_key(|it| rank(it)).unwrap_or("ok");
    let degraded = worst == "circuit_open" || !matches!(database, "ok" | "off");
    let upstreams: Vec<_> = shared
        .plan
        .settings
        .upstreams
        .iter()
        .zip(&breakers)
        .zip(&shared.permits)
        .map(|((upstream, position), permits)| {
            json!({
                "upstream": upstream.upstream.to_string(),
                "breaker": word(*position),
                "connections": permits.open(),
                "idle": permits.idle(),
                "waiting": permits.waiting(),
            })
        })
        .collect();
    let body = json!({
        "status": if degraded { "degraded" } else { "ok" },
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": now.since(shared.started).as_secs(),
        "database": database,
        "components": {
            "upstream_client": worst,
            "rate_limiter": "ok",
        },
        "cores": shared.cells.len(),
        "driver": shared.driver.get().copied().unwrap_or("starting"),
        "upstreams": upstreams,
    });
    Answered::json(if degraded { 503 } else { 200 }, &body)
}

/// Whether to send requests here: an open breaker is no reason not to, stale answers are served.
pub fn ready(core: &Core) -> Answered {
    let _ = core;
    Answered::text(200, "ok\n")
}

fn database(core: &Core) -> &'static str {
    let Some(store) = &core.shared.store else { return "off" };
    let stats = store.stats();
    if stats.age_of_heartbeat() > HEARTBEAT_AGE_MAX {
        return "hanging";
    }
    stats.unavailable().map_or("ok", |it| it.as_str())
}

const fn word(position: Position) -> &'static str {
    match position {
        Position::Closed => "ok",
        Position::HalfOpen => "half_open",
        Position::Open => "circuit_open",
    }
}

fn rank(word: &str) -> u8 {
    match word {
        "ok" => 0,
        "half_open" => 1,
        _ => 2,
    }
}

/// The storage thread goes round once a second; after that long it hangs in a system call.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(5);
