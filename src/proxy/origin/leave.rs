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
            Box::pin(wait_for_turn(core, state, wait, now.plus(span))).await?;
            enter(core, state, mono())
        }
        Turn::Refused { retry_after } => Err(paused(core, retry_after)),
    }
}

/// Waits, at most until `until`. A pause that begins meanwhile holds too.
async fn wait_for_turn(
    core: &Core,
    state: &UpstreamState,
    mut wait: Duration,
    until: Mono,
) -> Result<(), Fault> {
    let Some(_waiting) = state.wait() else { return Err(paused(core, wait)) };
    loop {
        monoio::time::sleep(wait).await;
        let now = mono();
        match state.pacer.paused_for(now) {
            None => return Ok(()),
            Some(more) if now.plus(more) <= until => wait = more,
            Some(more) => return Err(paused(core, more)),
        }
    }
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
            note(&cells, permit.change());
            Ok(Leave { permit: Some(permit), cells, verdict: Verdict::Success })
        }
        Err(refused) => {
            core.cells.inc(Counter::BreakerRefused);
            Err(Fault::CircuitOpen(whole_secs(refused.retry_after)))
        }
    }
}

/// Whether a request may go out once more: within the retries of its upstream, and only where it
/// need not wait for its turn.
#[must_use]
pub fn may_repeat(state: &UpstreamState) -> bool {
    state.retries.try_spend() && may_repeat_free(state)
}

/// The same for a request that the upstream has not looked at: to repeat it is no load.
#[must_use]
pub fn may_repeat_free(state: &UpstreamState) -> bool {
    state.pacer.turn(Duration::ZERO, mono()) == Turn::Now
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
    ///
    /// A probe is decided by this alone: it must not keep the others out for as long as its body
    /// lasts, which for a stream of events is for ever.
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
        if self.is_probe() {
            self.report();
        }
        let Some(pause) = pause::asked_for(head, now) else { return };
        if is_for_all(&pause, upstream, request) {
            core.cells.inc(Counter::UpstreamPauses);
            core.shared.upstream(upstream).pacer.pause(pause.span, mono());
        }
    }

    /// The answer is complete: the verdict of its head counts.
    pub fn complete(mut self) {
        self.report();
    }

    /// The upstream did its part, whatever became of the answer.
    pub fn succeeded(mut self) {
        self.verdict = Verdict::Success;
        self.report();
    }

    /// It did not.
    pub fn failed(mut self) {
        self.verdict = Verdict::Failure(None);
        self.report();
    }

    fn report(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let change = match self.verdict {
            Verdict::Success => permit.on_success(),
            Verdict::Failure(retry_after) => permit.on_failure(retry_after, mono()),
        };
        note(&self.cells, change);
    }
}

/// Whether a pause concerns every request: the upstream as a whole can't, or it counts the requests
/// of one client, which is us. A quota of a client whose own credentials go along is that client's.
fn is_for_all(pause: &Pause, upstream: &Upstream, request: &Fields) -> bool {
    let has_key = upstream.api_key.is_none() && request.contains("X-API-Key");
    let of_client = has_key || request.contains("Authorization") || request.contains("Cookie");
    pause.cause == Cause::Unavailable || !of_client
}

fn note(cells: &CoreCells, change: Option<Change>) {
    let Some(change) = change else { return };
    match change {
        Change::Opened => tracing::warn!(change = change.as_str(), "circuit breaker"),
        Change::HalfOpened | Change::Closed => {
            tracing::info!(change = change.as_str(), "circuit breaker");
        }
    }
    cells.inc(match change {
        Change::Opened => Counter::BreakerOpened,
        Change::HalfOpened => Counter::BreakerHalfOpened,
        Change::Closed => Counter::BreakerClosed,
    });
}

fn whole_secs(span: Duration) -> u32 {
    let secs = span.as_millis().div_ceil(1_000);
    u32::try_from(secs).unwrap_or(u32::MAX).max(1)
}

/// A turn that is further away is refused with its time, not waited for.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
