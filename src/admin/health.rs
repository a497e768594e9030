//! `/health`: from memory, in microseconds.

use crate::admin::gathered::extras;
use crate::admin::reply::Answered;
use crate::metrics::HealthReport;
use crate::metrics::health::Limiting;
use crate::proxy::Core;

/// How the daemon is; 503 when something it needs is away.
pub fn health(core: &Core) -> Answered {
    let cores = core.shared.cells.len();
    let security = &core.plan().settings.security;
    let limiting = if security.rate_limit_enabled { Limiting::Enabled } else { Limiting::Disabled };
    // A core that dies takes the process along: whoever answers has all of them.
    let report = HealthReport::new(&extras(core), cores, cores, limiting);
    match serde_json::to_value(&report) {
        Ok(value) => Answered::json(report.http_status(), &value),
        Err(_) => Answered::text(500, "the report could not be written\n"),
    }
}
