//! Updating a stored response from the head of a later one: a 304 (RFC 9111 section 4.3.4) or the
//! answer to a HEAD (section 4.3.5), both by the rules of section 3.2.

use crate::cache::control::ResponseControl;
use crate::cache::facts::{Exchange, Facts};
use crate::cache::reason::Reason;
use crate::cache::request::RequestFacts;
use crate::cache::settings::Settings;
use crate::cache::storable::{is_set_cookie, judge, strip_for_store};
use crate::cache::validate;
use crate::http::{Fields, ResponseHead, accept, hop, list, write_http_date};

/// What became of a stored response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The stored response's fields from now on.
    pub fields: Fields,
    /// Fields of the newer head that are for this client only: a cookie that may not be shared,
    /// fields that `no-cache="..."` or `private="..."` list.
    pub own: Fields,
    /// The facts from now on.
    pub facts: Facts,
    /// What this means for the store. Fields and facts answer this request in any case.
    pub keep: Keep,
}

/// What an update means for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Put the new fields and facts in the place of the old ones.
    Replace,
    /// Leave the stored response as it was: what is new belongs to this request alone.
    Leave(Reason),
    /// Remove the stored response: by its new fields it may not be stored.
    Remove(Reason),
}

/// Updates the stored response (its status, its fields) from the head of a 304 that
/// [`validate::selects`] it, or of a HEAD response (RFC 9111 section 3.2).
#[must_use]
pub fn update(
    request: &RequestFacts,
    status: u16,
    stored: &Fields,
    newer: &ResponseHead,
    exchange: Exchange,
    settings: &Settings,
) -> Updated {
    let received = received_fields(newer);
    let mut merged = stored.clone();
    merged.retain(|field| !received.iter().any(|new| new.name.eq_ignore_ascii_case(field.name)));
    merged.extend(&received);
    // Without a Date of its own the newer head was made when it arrived (RFC 9110 section 6.6.1).
    if !received.contains("Date") {
        merged.replace("Date", write_http_date(exchange.responded));
    }
    let control = ResponseControl::parse(&merged);
    let own = take_own(&mut merged, &received, &control);

    // Age is not kept as a field, but counts where the newer head has one.
    let mut head = ResponseHead { status, version: newer.version, fields: merged };
    if let Some(age) = newer.fields.get("Age") {
        head.fields.push("Age", age);
    }
    let facts = Facts::with_control(&head, &control, exchange, settings);
    let keep = match judge(request, &head, &control, &facts, settings) {
        Ok(()) => Keep::Replace,
        Err(reason @ (Reason::Authorization | Reason::RequestNoStore)) => Keep::Leave(reason),
        Err(reason) => Keep::Remove(reason),
    };
    let mut fields = head.fields;
    strip_for_store(&mut fields, &control, exchange);
    Updated { fields, own, facts, keep }
}

/// The fields of the newer head that replace stored ones (section 3.2).
fn received_fields(newer: &ResponseHead) -> Fields {
    let mut received = newer.fields.clone();
    hop::strip_hop_by_hop(&mut received);
    received.retain(|field| !NOT_UPDATED.iter().any(|name| field.is(name)));
    received
}

/// Takes out of `merged` what the newer head brought for this client only.
fn take_own(merged: &mut Fields, received: &Fields, control: &ResponseControl) -> Fields {
    let shared_cookie = control.allows_storing();
    let is_own = |name: &[u8]| control.withholds(name) || (!shared_cookie && is_set_cookie(name));
    let mut own = received.clone();
    own.retain(|field| is_own(field.name));
    if !own.is_empty() {
        merged.retain(|field| !is_own(field.name));
    }
    own
}

/// What a HEAD response means for the stored GET response (RFC 9111 section 4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadUpdate {
    /// It describes the stored response: [`update`] it.
    Update,
    /// It describes another: the stored one is out of date.
    Invalidate,
    /// It says nothing about it.
    Ignore,
}

/// What a HEAD response means for a stored response of `stored_status` (206 for a part), whose
/// representation has `stored_bytes` as the origin sent it, if that is known (RFC 9111 section
/// 4.3.5).
#[must_use]
pub fn head_update(
    stored_status: u16,
    stored: &Fields,
    stored_bytes: Option<u64>,
    head: &ResponseHead,
    exchange: Exchange,
) -> HeadUpdate {
    match head.status {
        200 if matches!(stored_status, 200 | 206) => {}
        // Gone, says the origin: the section speaks of 200 only, but serving on would be wrong.
        404 | 410 if stored_status < 400 => return HeadUpdate::Invalidate,
        _ => return HeadUpdate::Ignore,
    }
    let coding = |fields: &Fields| {
        let coding = fields.get("Content-Encoding").map(<[u8]>::to_ascii_lowercase);
        coding.map(|it| if accept::is_gzip(&it) { b"gzip".to_vec() } else { it })
    };
    if coding(stored) != coding(&head.fields) {
        // Another encoding of it, whose length and tag are its own.
        return HeadUpdate::Ignore;
    }
    let length = head.fields.get("Content-Length").map(list::decimal);
    let same_length = length.is_none_or(|length| stored_bytes.is_none() || length == stored_bytes);
    let same_validators = validate::selects(stored, head, exchange.responded)
        && same_date(stored, head, "Last-Modified");
    if same_length && same_validators { HeadUpdate::Update } else { HeadUpdate::Invalidate }
}

/// Whether a field that the head has agrees with the stored one.
fn same_date(stored: &Fields, head: &ResponseHead, name: &str) -> bool {
    head.fields.get(name).is_none_or(|value| stored.get(name) == Some(value))
}

/// Fields that describe the stored content, which a head without content can't change (section
/// 3.2: Content-Length must not be updated, the others may be left out, since what is stored was
/// already decoded, measured, digested and cut by them), and Age, which the facts hold.
const NOT_UPDATED: [&str; 7] = [
    "Content-Length",
    "Content-Encoding",
    "Content-Type",
    "Content-Range",
    "Content-Digest",
    "Content-MD5",
    "Age",
];

#[cfg(test)]
mod tests;
