//! The decisions that come before the cache, for the hit path and the slow path alike: where a
//! request goes, whether its sender may, and how often.
//!
//! The order matters. The endpoint list comes first: it is the same for everybody, so that what is
//! served to nobody takes nothing from a quota. The key comes before the limiter so that unknown
//! keys can't fill it, and all of it before the cache: a revoked key gets nothing, stored or not. A
//! request with an unknown key costs its sender's address one of its quota all the same, so that
//! keys can't be guessed faster than an address may ask.

use std::net::IpAddr;

use crate::base::Mono;
use crate::http::Method;
use crate::limit::{Ask, Both, Kind, Quota, Standing, Verdict, fields};
use crate::metrics::Counter;
use crate::proxy::core::Core;
use crate::proxy::error::Refusal;
use crate::proxy::plan::{Plan, Upstream};

/// What the gate looks at.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The normalised path.
    pub path: &'a [u8],
    /// X-API-Key.
    pub key: Option<&'a [u8]>,
    /// The address that counts.
    pub client: IpAddr,
}

/// Where a request's identities stand, as far as they are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// The address.
    pub address: Option<Standing>,
    /// The key, and its quota's numbers.
    pub key: Option<(Standing, Quota)>,
}

/// What it says.
pub enum Gate<'p> {
    /// Ask this upstream.
    Proxy {
        /// The upstream.
        upstream: &'p Upstream,
        /// The path for it.
        path: &'p [u8],
        /// Who asks.
        sender: Sender,
    },
    /// An operator endpoint.
    Admin,
    /// No.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Where the sender stands with the limiter, if that was asked.
        standings: Standings,
    },
}

/// Who was let through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender {
    /// The number of its key, where keys are asked for.
    pub key: Option<u16>,
    /// Where it stands with the limiter.
    pub standings: Standings,
}

impl From<Refusal> for Gate<'_> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal, standings: Standings::default() }
    }
}

/// Judges a request; takes one from its sender's quota when it goes to an upstream.
pub fn check<'p>(core: &'p Core, asked: Asked<'p>, now: Mono) -> Gate<'p> {
    let plan = core.plan();
    if is_admin(asked.path) {
        return Gate::Admin;
    }
    let Some(path) = plan.prefix.strip(asked.path) else {
        return Refusal::NotFound.into();
    };
    let (upstream, path) = match route(plan, asked.method, path) {
        Ok(routed) => routed,
        Err(refusal) => return refusal.into(),
    };
    let known = known_key(plan, asked.key);
    let quota = known.map_or(None, |known| known.quota);
    match (admit(core, asked, quota, now), known) {
        (Ok(standings), Ok(known)) => {
            Gate::Proxy { upstream, path, sender: Sender { key: known.number, standings } }
        }
        (Ok(standings), Err(refusal)) | (Err((refusal, standings)), _) => {
            Gate::Refused { refusal, standings }
        }
    }
}

/// Where a request goes by its method and the path under the API prefix, whoever sends it.
///
/// # Errors
/// Why it goes nowhere.
pub fn route<'p>(
    plan: &'p Plan,
    method: &Method,
    path: &'p [u8],
) -> Result<(&'p Upstream, &'p [u8]), Refusal> {
    method_allowed(method, plan)?;
    if !plan.allowed.matches(path) {
        return Err(Refusal::EndpointNotAllowed);
    }
    let resolved = plan.settings.table.resolve(path).ok_or(Refusal::NotFound)?;
    Ok((plan.upstream(resolved.route.overrides), resolved.path))
}

/// Whether a path belongs to the operator endpoints, wherever the API is mounted.
#[must_use]
pub fn is_admin(path: &[u8]) -> bool {
    match path {
        b"/health" | b"/livez" | b"/readyz" | b"/metrics" | b"*" => true,
        _ => path.starts_with(b"/cache/"),
    }
}

fn method_allowed(method: &Method, plan: &Plan) -> Result<(), Refusal> {
    match method {
        Method::Connect | Method::Trace => Err(Refusal::MethodNotAllowed(METHODS)),
        Method::Extension(_) if !plan.unknown_methods => Err(Refusal::MethodUnknown),
        _ => Ok(()),
    }
}

/// A key that may ask.
#[derive(Clone, Copy)]
struct Known<'p> {
    number: Option<u16>,
    quota: Option<&'p Quota>,
}

/// The key's quota: its own where keys are asked for, else the general one.
fn known_key<'p>(plan: &'p Plan, key: Option<&[u8]>) -> Result<Known<'p>, Refusal> {
    if plan.keys.is_empty() {
        return Ok(Known { number: None, quota: plan.settings.key_quota.as_ref() });
    }
    let number = key.and_then(|it| plan.keys.find(it)).ok_or(Refusal::Unauthorized)?;
    let quota = plan.keys.key(number).and_then(|it| it.quota.as_ref());
    Ok(Known { number: Some(number), quota })
}

/// Whether a request with this X-API-Key may ask, however often.
///
/// # Errors
/// Why it may not.
pub fn key_allowed(plan: &Plan, key: Option<&[u8]>) -> Result<(), Refusal> {
    known_key(plan, key).map(drop)
}

/// Takes one from the quotas of address and key, or from neither.
fn admit(
    core: &Core,
    asked: Asked<'_>,
    per_key: Option<&Quota>,
    now: Mono,
) -> Result<Standings, (Refusal, Standings)> {
    let shared = &core.shared;
    let address = shared.plan.settings.address_quota.as_ref().map(|quota| Ask {
        kind: Kind::Address,
        hash: Kind::hash_address(&shared.seed, asked.client),
        quota,
    });
    let key = per_key.zip(asked.key).map(|(quota, key)| Ask {
        kind: Kind::Key,
        hash: Kind::hash_key(&shared.seed, key),
        quota,
    });
    let verdict = match (&address, &key) {
        (None, None) => return Ok(Standings::default()),
        (Some(only), None) | (None, Some(only)) => {
            match shared.limiter.check(only.hash, only.quota, now) {
                Verdict::Admitted(standing) => Ok((standing, standing)),
                Verdict::Rejected { retry_after } => Err((only.kind, retry_after)),
            }
        }
        (Some(address), Some(key)) => match shared.limiter.check_both(*address, *key, now) {
            Both::Admitted { first, second } => Ok((first, second)),
            Both::Rejected { by, retry_after } => Err((by, retry_after)),
        },
    };
    match verdict {
        Ok((first, second)) => {
            if address.is_some() {
                core.cells.inc(Counter::LimiterAdmitted);
            }
            if key.is_some() {
                core.cells.inc(Counter::LimiterAdmittedKey);
            }
            Ok(Standings {
                address: address.map(|_| first),
                key: key.map(|it| (second, *it.quota)),
            })
        }
        Err((kind, retry_after)) => {
            core.cells.inc(match kind {
                Kind::Address => Counter::LimiterRejectedIp,
                Kind::Key => Counter::LimiterRejectedKey,
            });
            let secs = fields::retry_seconds(retry_after);
            let refusal = Refusal::RateLimited(u32::try_from(secs).unwrap_or(u32::MAX));
            let standing = |it: &Ask<'_>| shared.limiter.standing(it.hash, it.quota, now);
            let standings = Standings {
                address: address.as_ref().map(standing),
                key: key.as_ref().map(|it| (standing(it), *it.quota)),
            };
            Err((refusal, standings))
        }
    }
}

/// What a proxied path takes.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY";
