//! What operators ask the daemon itself: health, statistics, purges, metrics.
//!
//! Called by the connection drivers for requests that the gate found to be for the daemon. One
//! table says which path takes which method, who may, and who answers; a new endpoint is a row
//! here, a file beside this one and its tests. Nothing here asks the database anything to say how
//! it is: the storage thread's heartbeat tells.

mod cache;
mod explain;
mod gathered;
mod health;
mod metrics;
mod reply;

use std::rc::Rc;

use crate::http::Method;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Refusal;
use crate::proxy::{Core, Task, rescue};

use reply::Answered;

/// An operator endpoint.
struct Endpoint {
    path: &'static str,
    method: Method,
    who: Who,
    run: Run,
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Everybody.
    Anyone,
    /// With `security.admin_token`; without one set, loopback peers.
    Operator,
    /// With `security.metrics_auth_token`, where that is enabled.
    Scraper,
}

#[derive(Clone, Copy)]
enum Run {
    Health,
    Live,
    Ready,
    Metrics,
    Stats,
    Clear,
    Remove,
    Expire,
    Explain,
    Options,
}

const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("/health", Method::Get, Who::Anyone, Run::Health),
    Endpoint::new("/livez", Method::Get, Who::Anyone, Run::Live),
    Endpoint::new("/readyz", Method::Get, Who::Anyone, Run::Ready),
    Endpoint::new("/metrics", Method::Get, Who::Scraper, Run::Metrics),
    Endpoint::new("/cache/stats", Method::Get, Who::Anyone, Run::Stats),
    Endpoint::new("/cache/explain", Method::Get, Who::Operator, Run::Explain),
    Endpoint::new("/cache/clear", Method::Post, Who::Operator, Run::Clear),
    Endpoint::new("/cache/entries", Method::Delete, Who::Operator, Run::Remove),
    Endpoint::new("/cache/expire", Method::Post, Who::Operator, Run::Expire),
    Endpoint::new("*", Method::Options, Who::Anyone, Run::Options),
];

impl Endpoint {
    const fn new(path: &'static str, method: Method, who: Who, run: Run) -> Self {
        Self { path, method, who, run }
    }

    /// HEAD is GET without the body.
    fn takes(&self, method: &Method) -> bool {
        self.method == *method || self.method == Method::Get && *method == Method::Head
    }

    /// The value of Allow.
    const fn allow(&self) -> &'static str {
        match self.method {
            Method::Get => "GET, HEAD",
            Method::Post => "POST",
            Method::Delete => "DELETE",
            _ => "OPTIONS",
        }
    }
}

/// Answers a request for the daemon itself.
pub async fn handle(core: &Rc<Core>, task: Task, client: &impl Downstream) {
    let answered = match admitted(core, &task) {
        Ok(run) => answer(core, &task, run).await,
        Err(refusal) => Err(refusal),
    };
    match answered {
        Ok(answered) => reply::send(core, &task, answered, client).await,
        Err(refusal) => rescue::refuse(core, &task, refusal, client).await,
    }
}

fn admitted(core: &Core, task: &Task) -> Result<Run, Refusal> {
    let path = task.head.path.as_str();
    let endpoint = ENDPOINTS.iter().find(|it| it.path == path).ok_or(Refusal::NotFound)?;
    if !endpoint.takes(&task.head.method) {
        return Err(Refusal::MethodNotAllowed(endpoint.allow()));
    }
    let security = &core.plan().settings.security;
    match endpoint.who {
        Who::Anyone => {}
        Who::Operator if security.admin_token.is_empty() => {
            if !task.peer.is_local() {
                return Err(Refusal::Forbidden);
            }
        }
        Who::Operator => check_token(task, security.admin_token.expose(), None)?,
        Who::Scraper if security.metrics_auth_enabled => {
            let token = security.metrics_auth_token.expose();
            check_token(task, token, task.head.query.as_deref())?;
        }
        Who::Scraper => {}
    }
    Ok(endpoint.run)
}

/// Compares in constant time; the token may also come as `?token=` where a query is given.
fn check_token(task: &Task, token: &str, query: Option<&str>) -> Result<(), Refusal> {
    let bearer = task.head.fields.single("Authorization").and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
    });
    let in_query = query.and_then(|it| it.split('&').find_map(|part| part.strip_prefix("token=")));
    let given = bearer.or(in_query.map(str::as_bytes)).unwrap_or_default();
    let equal = aws_lc_rs::constant_time::verify_slices_are_equal(given, token.as_bytes()).is_ok();
    if equal && !token.is_empty() { Ok(()) } else { Err(Refusal::TokenNeeded) }
}

async fn answer(core: &Rc<Core>, task: &Task, run: Run) -> Result<Answered, Refusal> {
    match run {
        Run::Health => Ok(health::health(core)),
        Run::Live => Ok(Answered::text(200, "ok\n")),
        Run::Ready => Ok(health::ready(core)),
        Run::Metrics => metrics::metrics(core, task).await,
        Run::Stats => Ok(cache::stats(core)),
        Run::Clear => cache::clear(core).await,
        Run::Remove => cache::remove(core, task).await,
        Run::Expire => cache::expire(core, task).await,
        Run::Explain => explain::explain(core, task).await,
        Run::Options => Ok(Answered::options()),
    }
}
