//! `/health` and `/readyz`: from memory, in microseconds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::admin::gathered::extras;
use crate::admin::reply::Answered;
use crate::metrics::{CoreCells, HealthReport};
use crate::net::mono;
use crate::proxy::Core;

/// How the daemon is; 503 when something it needs is away.
pub fn health(core: &Core) -> Answered {
    let cells = &core.shared.cells;
    let now = mono();
    let lives = |it: &&CoreCells| now.since(it.last_tick()) < TICK_AGE_MAX;
    let alive = cells.iter().map(|it| &**it).filter(lives).count();
    let report = HealthReport::new(&extras(&core.shared), cells.len(), alive);
    Answered::json(report.http_status(), &report)
}

/// Whether requests may be sent here: 503 from the order to stop on, so that a load balancer turns
/// elsewhere while what is under way is finished. An open breaker is no reason to: stale answers
/// are served here.
pub fn ready(core: &Core) -> Answered {
    if core.shared.draining.load(Ordering::Acquire) {
        Answered::text(503, "draining\n")
    } else {
        Answered::text(200, "ok\n")
    }
}

/// A core goes round four times a second. Past this it hangs: it answers none of its clients.
const TICK_AGE_MAX: Duration = Duration::from_secs(5);
