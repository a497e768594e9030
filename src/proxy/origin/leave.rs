//! Leave to ask an upstream: its pace and pauses, then its breaker; and what the answer means for
//! those who ask next.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{Mono, Wall};
use crate::breaker::{self, Cause, Change, Pause, Turn, pause};
use crate::http::{Fields, ResponseHead};
use crate::metrics::{CoreCells, Counter};
use crate::net::mono;
use crate::proxy::core::Core;
use crate::proxy::error::Fault;
use crate::proxy::origin::state::UpstreamState;
use crate::proxy::plan::Upstream;

/// Leave to ask. Dropped without a report, it counts as cancelled.
pub struct Leave {
    /// The breaker's; `None` once reported, or without a breaker.
    permit: Option<breaker::Permit>,
    cells: Arc<CoreCells>,
    /// What the head of the answer says of the upstream; reported when the answer's end is known.
    verdict: Verdict,
}

#[derive(Clone, Copy)]
enum Verdict {
    Success,
    /// A 5xx, and when its `Retry-After` says to come again.
    Failure(Option<Duration>),
}

/// How long a request may wait for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: something stale can be served at once.
    None,
    /// As long as its client may.
    Some,
}

/// Obtains leave, waiting for the upstream's pace or a short pause if need be.
///
/// # Errors
/// [`Fault::Paused`] and [`Fault::CircuitOpen`], both with the time to come again.
pub async fn obtain(
    core: &Rc<Core>,
    upstream: &Upstream,
    patience: Patience,
) -> Result<Leave, Fault> {
    let state = core.shared.upstream(upstream);
    let span = match patience {
        Patience::None => Duration::ZERO,
        Patience::Some => TURN_WAIT_MAX.min(upstream.request_timeout),
    };
    let now = mono();
    match state.pacer.turn(span, now) {
        Turn::Now => enter(core, state, now),
        Turn::Wait(wait) => {
            // Boxed: a timer is large, and hardly ever needed here.
            Box::pin(wait_for_turn(core, state, wait)).await?;
            enter(core, state, mono())
        }
        Turn::Refused { retry_after } => Err(paused(core, retry_after)),
    }
}

async fn wait_for_turn(core: &Core, state: &UpstreamState, wait: Duration) -> Result<(), Fault> {
    let Some(_waiting) = state.wait() else { return Err(paused(core, wait)) };
    monoio::time::sleep(wait).await;
    Ok(())
}

fn paused(core: &Core, retry_after: Duration) -> Fault {
    core.cells.inc(Counter::UpstreamPausedRequests);
    Fault::Paused(whole_secs(retry_after))
}

fn enter(core: &Core, state: &UpstreamState, now: Mono) -> Result<Leave, Fault> {
    let cells = Arc::clone(&core.cells);
    if !core.plan().settings.client.circuit_breaker_enabled {
        return Ok(Leave { permit: None, cells, verdict: Verdict::Success });
    }
    match state.breaker.enter(now) {
        Ok(permit) => {
            note(permit.change());
            Ok(Leave { permit: Some(permit), cells, verdict: Verdict::Success })
        }
        Err(refused) => {
            core.cells.inc(Counter::BreakerRefused);
            Err(Fault::CircuitOpen(whole_secs(refused.retry_after)))
        }
    }
}

impl Leave {
    /// Whether the outcome decides if the breaker closes: such a request is not sent twice.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(breaker::Permit::is_probe)
    }

    /// The head of the answer is there. 5xx are the upstream's failures, 4xx are not; a pause that
    /// it asks for begins now. `request` are the fields of the client's request, `now` is when the
    /// head came.
    pub fn on_head(
        &mut self,
        core: &Core,
        upstream: &Upstream,
        request: &Fields,
        head: &ResponseHead,
        now: Wall,
    ) {
        if head.status >= 500 {
            self.verdict = Verdict::Failure(pause::retry_after(&head.fields, now));
        }
        let Some(pause) = pause::asked_for(head, now) else { return };
        if is_for_all(&pause, upstream, request) {
            core.cells.inc(Counter::UpstreamPauses);
            core.shared.upstream(upstream).pacer.pause(pause.span, mono());
        }
    }

    /// The answer is complete: the verdict of its head counts.
    pub fn complete(self) {
        match self.verdict {
            Verdict::Success => self.succeeded(),
            Verdict::Failure(retry_after) => self.fail(retry_after),
        }
    }

    /// The upstream did its part, whatever became of the answer.
    pub fn succeeded(mut self) {
        note(self.permit.take().and_then(breaker::Permit::on_success));
    }

    /// It did not.
    pub fn failed(self) {
        self.fail(None);
    }

    fn fail(mut self, retry_after: Option<Duration>) {
        let change = self.permit.take().and_then(|it| it.on_failure(retry_after, mono()));
        if change == Some(Change::Opened) {
            self.cells.inc(Counter::BreakerOpened);
        }
        note(change);
    }
}

/// Whether a pause concerns every request: the upstream as a whole can't, or it counts the requests
/// of one client, which is us. A quota of a client whose own credentials go along is that client's.
fn is_for_all(pause: &Pause, upstream: &Upstream, request: &Fields) -> bool {
    let has_key = upstream.api_key.is_none() && request.contains("X-API-Key");
    let of_client = has_key || request.contains("Authorization") || request.contains("Cookie");
    pause.cause == Cause::Unavailable || !of_client
}

fn note(change: Option<Change>) {
    match change {
        Some(Change::Opened) => tracing::warn!(change = "opened", "circuit breaker"),
        Some(change) => tracing::info!(change = change.as_str(), "circuit breaker"),
        None => {}
    }
}

fn whole_secs(span: Duration) -> u32 {
    let secs = span.as_millis().div_ceil(1_000);
    u32::try_from(secs).unwrap_or(u32::MAX).max(1)
}

/// A turn that is further away is refused with its time, not waited for.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
