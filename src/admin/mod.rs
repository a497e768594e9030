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
mod query;
mod reply;
mod who;

use std::rc::Rc;

use crate::http::Method;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Refusal;
use crate::proxy::{Core, Task, rescue};

use reply::Answered;
use who::{Denied, Who};

/// An operator endpoint.
struct Endpoint {
    path: &'static str,
    method: Method,
    who: Who,
    run: Run,
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
pub async fn handle(core: &Rc<Core>, mut task: Task, client: &impl Downstream) {
    let answered = match admitted(core, &task) {
        Ok(run) => answer(core, &task, run).await,
        Err(Denied { refusal, standings }) => {
            task.standings = standings;
            Err(refusal)
        }
    };
    match answered {
        Ok(answered) => reply::send(core, &task, answered, client).await,
        Err(refusal) => rescue::refuse(core, &task, refusal, client).await,
    }
}

fn admitted(core: &Core, task: &Task) -> Result<Run, Denied> {
    let path = task.head.path.as_str();
    let endpoint = ENDPOINTS.iter().find(|it| it.path == path).ok_or(Refusal::NotFound)?;
    if !endpoint.takes(&task.head.method) {
        return Err(Refusal::MethodNotAllowed(endpoint.allow()).into());
    }
    endpoint.who.admits(core, task)?;
    Ok(endpoint.run)
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
