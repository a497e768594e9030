//! What a client gets when the origin can't answer: something stale if that is allowed, else an
//! error that says what happened and when to try again.
//!
//! Boxed throughout: every exchange has a place for this and few come here.

use std::sync::Arc;

use crate::base::Wall;
use crate::cache::{CacheStatus, Entry, Facts, Forward, Outcome, Reason, stale_on_error};
use crate::http::{Fields, ResponseHead, Version};
use crate::metrics::Counter;
use crate::net::wall;
use crate::proxy::core::Core;
use crate::proxy::cut;
use crate::proxy::deliver::{self, Whole};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{Fault, Problem, Refusal};
use crate::proxy::inquiry::Inquiry;
use crate::proxy::record::Told;
use crate::proxy::request::Task;

/// Sends the stale entry in place of an error; `said` is the status that the origin has answered
/// with, if it was asked and has.
///
/// # Errors
/// Why the policy does not allow it; then nothing was sent.
pub async fn stale(
    core: &Core,
    inquiry: &Inquiry,
    entry: &Arc<Entry>,
    said: Option<u16>,
    client: &impl Downstream,
) -> Result<(), Reason> {
    let now = wall();
    let reason = substitutes(inquiry, entry, now)?;
    let status = told(&entry.facts(), reason, said, now);
    Box::pin(deliver::entry(core, inquiry, entry, status, client)).await;
    Ok(())
}

/// What is said of a response that stands in for an error.
fn told(facts: &Facts, reason: Reason, fwd_status: Option<u16>, now: Wall) -> CacheStatus {
    let ttl = facts.ttl(now);
    if facts.is_fresh(now) {
        // The request wanted more than a fresh one, and that could not be had.
        let outcome = Outcome::StaleForError(Forward::Request);
        return CacheStatus { ttl: Some(ttl), fwd_status, ..CacheStatus::new(outcome) };
    }
    match fwd_status {
        None => CacheStatus::stale(ttl, reason),
        Some(_) => {
            let outcome = Outcome::StaleForError(Forward::Stale);
            let detail = Some(reason);
            CacheStatus { ttl: Some(ttl), detail, fwd_status, ..CacheStatus::new(outcome) }
        }
    }
}

/// Whether an entry may stand in for an error; what is said of it then.
///
/// # Errors
/// Why it may not.
pub fn substitutes(inquiry: &Inquiry, entry: &Entry, now: Wall) -> Result<Reason, Reason> {
    if !cut::answers(inquiry, entry, now) {
        return Err(cut::lack(entry));
    }
    stale_on_error(&inquiry.facts, &entry.facts(), &inquiry.policy, now)
}

/// Sends the error that a fault of the origin becomes; `unused` is why what is stored could not
/// stand in for it, `status` why the origin was asked.
pub async fn fault(
    core: &Core,
    inquiry: &Inquiry,
    fault: Fault,
    unused: Option<Reason>,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let unreachable = !matches!(fault, Fault::NotAllowed | Fault::TooLarge | Fault::Internal);
    let fault = if inquiry.policy.offline && unreachable { Fault::OfflineNotCached } else { fault };
    let Some(reason) = unused else {
        return fail(core, &inquiry.task, fault, status, client).await;
    };
    let (cache_status, told) = (status.failed(reason.as_str()), Told::error(reason.as_str()));
    send(core, &inquiry.task, fault.problem(), Some(&cache_status), told, client).await;
}

/// Sends the error that a fault becomes, for a request that the cache has nothing for.
pub async fn fail(
    core: &Core,
    task: &Task,
    fault: Fault,
    status: CacheStatus,
    client: &impl Downstream,
) {
    tracing::debug!(fault = fault.as_str(), id = task.id.as_str(), "no answer from the upstream");
    let detail = match fault {
        Fault::Truncated => Reason::Incomplete.as_str(),
        other => other.as_str(),
    };
    let (cache_status, told) = (status.failed(detail), Told::error(detail));
    send(core, task, fault.problem(), Some(&cache_status), told, client).await;
}

/// Sends the answer to a request that is refused.
pub async fn refuse(core: &Core, task: &Task, refusal: Refusal, client: &impl Downstream) {
    let problem = refusal.problem();
    core.cells.on_routed_refusal(problem.status);
    match refusal {
        Refusal::OnlyIfCached => {
            let detail = Reason::OnlyIfCached.as_str();
            let cache_status = CacheStatus::new(Outcome::Local).failed(detail);
            let told = Told::error(detail);
            return send(core, task, problem, Some(&cache_status), told, client).await;
        }
        Refusal::BadBody(word) | Refusal::TrailersTooLarge(word) => count_bad_body(core, word),
        Refusal::Slow => count_bad_body(core, "timeout"),
        _ => {}
    }
    send(core, task, problem, None, Told::refused(refusal.as_str()), client).await;
}

/// What came after a sound head was not.
fn count_bad_body(core: &Core, word: &str) {
    core.cells.inc(Counter::H1Refused);
    core.cells.on_head_refusal(word);
}

async fn send(
    core: &Core,
    task: &Task,
    problem: Problem,
    cache_status: Option<&[u8]>,
    told: Told,
    client: &impl Downstream,
) {
    let mut fields = Fields::new();
    fields.push("Date", crate::http::date::write_http_date(wall()));
    fields.extend(&problem.fields());
    if let Some(cache_status) = cache_status {
        fields.push("X-Cache", "MISS");
        fields.push("Cache-Status", cache_status);
    }
    let body = problem.to_json(task.id.as_str());
    let head = ResponseHead { status: problem.status, version: Version::Http11, fields };
    let length = Some(body.len() as u64);
    let answer = Whole { head, body: body.into(), length };
    Box::pin(deliver::whole(core, task, answer, told, client)).await;
}
