//! What may be stored, and which fields of it (RFC 9111 section 3).

use crate::cache::control::ResponseControl;
use crate::cache::facts::{Exchange, Facts, LifetimeSource};
use crate::cache::freshness;
use crate::cache::part::Part;
use crate::cache::reason::Reason;
use crate::cache::request::RequestFacts;
use crate::cache::settings::Settings;
use crate::cache::vary::Vary;
use crate::http::{Field, Fields, Method, ResponseHead, hop, status, write_http_date};

/// Whether the response may be stored (RFC 9111 section 3). A caller must still see it complete
/// (section 3.3); of a 206 it stores the part that [`Part::of`] finds.
///
/// # Errors
/// The first reason that speaks against it.
pub fn storable(
    request: &RequestFacts,
    head: &ResponseHead,
    exchange: Exchange,
    settings: &Settings,
) -> Result<Facts, Reason> {
    // A HEAD response has no content to store: it only updates (section 4.3.5).
    if request.method == Method::Head || !settings.methods.contains(&request.method) {
        return Err(Reason::MethodNotCached);
    }
    if head.status == 206 && (!request.range || Part::of(head).is_none()) {
        return Err(Reason::PartUnusable);
    }
    let control = ResponseControl::parse(&head.fields);
    let facts = Facts::with_control(head, &control, exchange, settings);
    judge(request, head, &control, &facts, settings)?;
    Ok(facts)
}

/// The rules that also hold for what a 304 or HEAD has made of a stored response.
pub(crate) fn judge(
    request: &RequestFacts,
    head: &ResponseHead,
    control: &ResponseControl,
    facts: &Facts,
    settings: &Settings,
) -> Result<(), Reason> {
    if request.control.no_store {
        return Err(Reason::RequestNoStore); // Section 5.2.1.5.
    }
    judge_status(head.status, control)?;
    if control.private {
        return Err(Reason::Private); // Section 5.2.2.7.
    }
    if request.authorization && !control.shares_authorized() {
        return Err(Reason::Authorization); // Section 3.5.
    }
    if !control.allows_storing() && sets_cookie(&head.fields, control) {
        return Err(Reason::SetCookie); // Section 7.3.
    }
    let stated = facts.lifetime_source.is_explicit();
    if request.method == Method::Post && !stated && facts.lifetime_source != LifetimeSource::Forced
    {
        return Err(Reason::NoFreshness); // RFC 9110 section 9.3.3: no heuristic for POST.
    }
    match Vary::of(&head.fields) {
        Vary::Any => return Err(Reason::VaryAny), // Section 4.1.
        Vary::TooWide => return Err(Reason::VaryTooWide),
        Vary::None | Vary::On(_) => {}
    }
    judge_use(control, facts, settings)
}

/// The status, together with the two directives that go by it (sections 3 and 5.2.2.3).
const fn judge_status(status: u16, control: &ResponseControl) -> Result<(), Reason> {
    if !status::is_final(status) || is_for_one_request(status) {
        return Err(Reason::Status);
    }
    if control.must_understand {
        // Where it is understood, no-store beside it does not count.
        return if is_understood(status) { Ok(()) } else { Err(Reason::StatusNotUnderstood) };
    }
    if control.no_store { Err(Reason::NoStore) } else { Ok(()) }
}

/// Whether storing brings anything: a lifetime, a validator, or leave to serve it stale.
fn judge_use(control: &ResponseControl, facts: &Facts, settings: &Settings) -> Result<(), Reason> {
    let success = facts.status < 400;
    if facts.lifetime_source == LifetimeSource::None {
        // Section 3: without an explicit lifetime or public, the status itself must allow it.
        let allowed = status::heuristically_cacheable(facts.status) || control.public;
        if !(allowed && success) {
            return Err(Reason::NoFreshness);
        }
    }
    let fresh = facts.lifetime > facts.initial_age;
    if facts.has_validator && (fresh || success) {
        return Ok(());
    }
    if facts.no_cache {
        return Err(Reason::NoValidator);
    }
    let error = facts.stale_if_error.unwrap_or(settings.stale_if_error);
    let refresh = facts.stale_while_revalidate.unwrap_or(settings.stale_while_revalidate);
    let leave = settings.offline || !error.is_zero() || !refresh.is_zero();
    let served_stale = success && !facts.stale_forbidden && leave;
    if fresh || served_stale { Ok(()) } else { Err(Reason::NoValidator) }
}

/// Statuses that answer one request or one connection, or whose RFC forbids storing them. Stored,
/// they would answer others for whom they are wrong.
const fn is_for_one_request(status: u16) -> bool {
    matches!(
        status,
        // Conditional and range requests: RFC 9110 sections 15.4.5, 15.5.13, 15.5.17.
        304 | 412 | 416
        // Credentials: sections 15.5.2, 15.5.8; RFC 6585 section 6.
        | 401 | 407 | 511
        // The connection or the request as sent: sections 15.5.9, 15.5.18, 15.5.20, 15.5.22;
        // RFC 8470; RFC 6585 sections 3 to 5.
        | 408 | 417 | 421 | 425 | 426 | 428 | 429 | 431
    )
}

/// Whether the caching requirements of the status are known (section 3): the registered ones.
const fn is_understood(status: u16) -> bool {
    !status::reason_phrase(status).is_empty()
}

fn sets_cookie(fields: &Fields, control: &ResponseControl) -> bool {
    let mut names = fields.iter().map(|field| field.name);
    names.any(|name| is_set_cookie(name) && !control.withholds(name))
}

pub(crate) fn is_set_cookie(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Set-Cookie") || name.eq_ignore_ascii_case(b"Set-Cookie2")
}

/// The fields that go into the store (RFC 9111 section 3.1): without the hop-by-hop ones, those
/// that `no-cache="..."` and `private="..."` list, Age, which the facts hold, and those that each
/// answer gets anew ([`WRITTEN_ANEW`]). Date is added where it is missing or invalid (RFC 9110
/// section 6.6.1). Content-Length is the caller's.
#[must_use]
pub fn stored_fields(head: &ResponseHead, exchange: Exchange) -> Fields {
    let control = ResponseControl::parse(&head.fields);
    let mut fields = head.fields.clone();
    hop::strip_hop_by_hop(&mut fields);
    strip_for_store(&mut fields, &control, exchange);
    fields
}

/// The fields of a response that are for the client it answers and nobody else: those that
/// `no-cache="..."` and `private="..."` list (RFC 9111 sections 5.2.2.4 and 5.2.2.7).
#[must_use]
pub fn own_fields(head: &ResponseHead) -> Fields {
    let control = ResponseControl::parse(&head.fields);
    let mut fields = head.fields.clone();
    hop::strip_hop_by_hop(&mut fields);
    fields.retain(|field| control.withholds(field.name));
    fields
}

/// Response fields that the daemon writes itself, for each answer: who asked for a stored one must
/// not be told to those that get it later, and an origin's own word would be a second one.
pub const WRITTEN_ANEW: [&str; 2] = ["X-Request-Id", "X-Offline"];

/// What [`stored_fields`] does beside the hop-by-hop fields.
pub(crate) fn strip_for_store(fields: &mut Fields, control: &ResponseControl, exchange: Exchange) {
    let ours = |field: &Field<'_>| WRITTEN_ANEW.iter().any(|name| field.is(name));
    fields.retain(|field| !field.is("Age") && !ours(&field) && !control.withholds(field.name));
    let now = exchange.responded;
    if freshness::instant(fields, "Date", now).is_none() {
        fields.replace("Date", write_http_date(now));
    }
}

#[cfg(test)]
mod tests;
