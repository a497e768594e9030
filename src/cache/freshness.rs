//! Age and lifetime of a response: the arithmetic of RFC 9111 section 4.2.
//!
//! Instants that come from fields have whole seconds, so that differences with them are taken in
//! whole seconds too; otherwise a response would be up to a second old on arrival.

use std::time::Duration;

use crate::base::Wall;
use crate::cache::control::ResponseControl;
use crate::cache::facts::{Exchange, Facts, LifetimeSource};
use crate::cache::settings::{DAY, Settings};
use crate::http::{EntityTag, Fields, ResponseHead, list, parse_http_date, status};

impl Facts {
    /// The facts of a response, storable or not: also what is passed through has an age.
    #[must_use]
    pub fn of(head: &ResponseHead, exchange: Exchange, settings: &Settings) -> Self {
        Self::with_control(head, &ResponseControl::parse(&head.fields), exchange, settings)
    }

    /// As [`Facts::of`], for a caller that has parsed the directives.
    pub(crate) fn with_control(
        head: &ResponseHead,
        control: &ResponseControl,
        exchange: Exchange,
        settings: &Settings,
    ) -> Self {
        let now = exchange.responded;
        let fields = &head.fields;
        let date = date(fields, now);
        let initial_age = initial_age(fields, date, exchange);
        let (lifetime, lifetime_source) = match forced(head.status, initial_age, settings) {
            Some(forced) => (forced, LifetimeSource::Forced),
            None => lifetime(head, control, date, now, settings),
        };
        Self {
            response_time: now,
            date,
            initial_age,
            lifetime,
            stale_while_revalidate: control.stale_while_revalidate,
            stale_if_error: control.stale_if_error,
            status: head.status,
            lifetime_source,
            stale_forbidden: control.forbids_stale(),
            no_cache: control.no_cache,
            immutable: control.immutable,
            has_validator: has_validator(fields, now),
            shareable: control.shares_authorized(),
        }
    }
}

/// The response's Date; the time of its arrival where it is missing or invalid (RFC 9110
/// section 6.6.1). `now` also places the years of the RFC 850 form.
#[must_use]
pub fn date(fields: &Fields, now: Wall) -> Wall {
    instant(fields, "Date", now).unwrap_or(now)
}

/// `corrected_initial_age` (RFC 9111 section 4.2.3): the larger of what the clocks say and what
/// Age says, the time spent upstream included.
#[must_use]
pub fn initial_age(fields: &Fields, date: Wall, exchange: Exchange) -> Duration {
    let apparent_age = whole_seconds(exchange.responded).since(date);
    let response_delay = exchange.responded.since(exchange.requested);
    let corrected_age_value = age_value(fields).saturating_add(response_delay);
    apparent_age.max(corrected_age_value)
}

/// `age_value`: the first member of the first Age field; zero where that is no number (RFC 9111
/// section 5.1).
#[must_use]
pub fn age_value(fields: &Fields) -> Duration {
    let seconds = fields.get("Age").and_then(|value| {
        let first = value.split(|byte| *byte == b',').next()?;
        list::delta_seconds(list::trim(first))
    });
    Duration::from_secs(u64::from(seconds.unwrap_or(0)))
}

/// The operator's `force_ttl`, which counts from reception: how old the origin or a cache before it
/// says that the response is makes it no shorter.
fn forced(status: u16, initial_age: Duration, settings: &Settings) -> Option<Duration> {
    let forced = settings.force_ttl.filter(|_| is_cacheable_success(status))?;
    Some(forced.saturating_add(initial_age))
}

/// `freshness_lifetime` (RFC 9111 section 4.2.1) and where it comes from.
fn lifetime(
    head: &ResponseHead,
    control: &ResponseControl,
    date: Wall,
    now: Wall,
    settings: &Settings,
) -> (Duration, LifetimeSource) {
    if let Some((lifetime, source)) = explicit(&head.fields, control, date, now) {
        return (lifetime, source);
    }
    match heuristic(head, control, date, now, settings) {
        Some(lifetime) => (lifetime, LifetimeSource::Heuristic),
        None => (Duration::ZERO, LifetimeSource::None),
    }
}

/// What the origin states: `s-maxage` before `max-age` before Expires (section 4.2.1).
fn explicit(
    fields: &Fields,
    control: &ResponseControl,
    date: Wall,
    now: Wall,
) -> Option<(Duration, LifetimeSource)> {
    if control.targeted {
        // RFC 9213 section 2.2: Expires does not count beside a targeted field.
        let lifetime = control.s_maxage.or(control.max_age)?;
        return Some((lifetime, LifetimeSource::Targeted));
    }
    if let Some(lifetime) = control.s_maxage {
        return Some((lifetime, LifetimeSource::SMaxage));
    }
    if let Some(lifetime) = control.max_age {
        return Some((lifetime, LifetimeSource::MaxAge));
    }
    // Of several the first counts; what is no date has expired (section 5.3).
    let expires = fields.get("Expires")?;
    let expires = parse_http_date(expires, now).unwrap_or(Wall::EPOCH);
    Some((expires.since(whole_seconds(date)), LifetimeSource::Expires))
}

/// A lifetime where the origin states none (section 4.2.2): the operator's, otherwise a share of
/// the time since Last-Modified. Only for statuses that allow it, or with `public` (section 3). Of
/// errors the operator speaks of 404 and 410 alone.
fn heuristic(
    head: &ResponseHead,
    control: &ResponseControl,
    date: Wall,
    now: Wall,
    settings: &Settings,
) -> Option<Duration> {
    if !status::heuristically_cacheable(head.status) && !control.public {
        return None;
    }
    let configured = match head.status {
        404 | 410 => settings.negative_ttl,
        400.. => Duration::ZERO,
        _ => settings.ttl,
    };
    if !configured.is_zero() {
        return Some(configured);
    }
    let modified = instant(&head.fields, "Last-Modified", now)?;
    let share =
        date.since(modified).saturating_mul(u32::from(settings.last_modified_percent)) / 100;
    (!share.is_zero()).then_some(share.min(DAY))
}

/// Whether `force_ttl` speaks of this status: a success that may be kept heuristically.
const fn is_cacheable_success(status: u16) -> bool {
    status < 400 && status::heuristically_cacheable(status)
}

/// Whether there is something to validate with: an entity tag or a date that parse.
pub(crate) fn has_validator(fields: &Fields, now: Wall) -> bool {
    let tag = fields.get("ETag").and_then(EntityTag::parse);
    tag.is_some() || instant(fields, "Last-Modified", now).is_some()
}

/// The date in the first field of that name.
pub(crate) fn instant(fields: &Fields, name: &str, now: Wall) -> Option<Wall> {
    parse_http_date(fields.get(name)?, now)
}

const fn whole_seconds(instant: Wall) -> Wall {
    Wall::from_secs(instant.as_secs())
}

#[cfg(test)]
mod tests;
