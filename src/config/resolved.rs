//! The settings as the layers above use them: routes inherited and numbered, upstreams parsed.

use std::time::Duration;

use crate::breaker;
use crate::cache;
use crate::config::node::quoted;
use crate::config::reader::Reader;
use crate::config::secret::Secret;
use crate::config::settings::{
    Cache, Client, Endpoints, Groups, Log, PER_MINUTE_MAX, RouteSettings, Security, Server,
};
use crate::limit::Quota;
use crate::route::{RouteFault, Routes, RoutesBuilder, Strip, Upstream, UpstreamFault, UpstreamId};

use crate::ssrf::{self, HostPattern};

/// A validated configuration. Immutable; a reload builds another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The listening side.
    pub server: Server,
    /// The default upstream as configured, and which endpoints are served.
    pub endpoints: Endpoints,
    /// Routes as configured, in the order of the file.
    pub routes: Vec<RouteSettings>,
    /// Both cache tiers.
    pub cache: Cache,
    /// Limits and guards.
    pub security: Security,
    /// Behaviour towards the upstreams.
    pub client: Client,
    /// What is logged.
    pub log: Log,
    /// Every upstream, at the index that [`UpstreamId`] names; the first is `entry_point`'s.
    /// Routes with the same URL and key share one.
    pub upstreams: Vec<UpstreamSettings>,
    /// Who answers for a path. `overrides` of its routes is an index into `policies`.
    pub table: Routes,
    /// What holds for a path: the first for paths without a route of their own, the others for
    /// `routes` in their order. Nothing is left to inherit.
    pub policies: Vec<RoutePolicy>,
    /// Limit of one address; `None` for none.
    pub address_quota: Option<Quota>,
    /// Limit of one API key that has no quota of its own; `None` for none.
    pub key_quota: Option<Quota>,
    /// For every upstream.
    pub breaker: breaker::Settings,
    /// For every connection to an upstream. Without `allowed_upstream_hosts` the hosts are those
    /// of `upstreams`.
    pub ssrf: ssrf::Policy,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Where it is.
    pub upstream: Upstream,
    /// X-API-Key for it; empty where the clients' own keys are passed on.
    pub api_key: Secret,
}

/// What one route or the general settings say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePolicy {
    /// For the cache policy. `offline` is false: whether a path is an offline endpoint is asked
    /// of `endpoints.offline_endpoints`.
    pub cache: cache::Settings,
    /// Leave the query string out of the key.
    pub ignore_query: bool,
    /// For a whole exchange with the upstream.
    pub request_timeout: Duration,
}

impl Settings {
    /// Inherits, numbers and parses. Faults go to the reader; what is built then is never used.
    pub(super) fn resolve(mut groups: Groups, reader: &mut Reader<'_>) -> Self {
        let general = RoutePolicy::general(&groups);
        let mut upstreams = Vec::new();
        let mut table = RoutesBuilder::new();
        let mut policies = vec![general];
        let key = groups.endpoints.api_key.clone();
        let first = parse_upstream(&groups.endpoints.entry_point, "entry_point", reader)
            .map(|upstream| add_upstream(&mut upstreams, upstream, key))
            .unwrap_or_default();
        let mut root = false;
        for (index, route) in groups.routes.iter().enumerate() {
            let id = route_upstream(index, route, &groups, &mut upstreams, reader).unwrap_or(first);
            let overrides = u16::try_from(policies.len()).unwrap_or(u16::MAX);
            policies.push(general.overridden(route));
            let strip = if route.strip_prefix { Strip::Prefix } else { Strip::Keep };
            root |= route.prefix.trim_end_matches('/').is_empty();
            add_route(&mut table, index, route, (id, overrides, strip), reader);
        }
        if groups.routes.len() >= ROUTES_MAX {
            let what = format!("more than {} routes", ROUTES_MAX - 1);
            reader.fault("routes", what, "put routes with common settings under one prefix");
        }
        // A route for "/" covers all that no other does: it stands in the place of the general one.
        if !root && table.add("", first, 0, Strip::Keep).is_err() {
            debug_assert!(false, "a second route covers everything");
        }
        let (address_quota, key_quota) = quotas(&mut groups.security, reader);
        let breaker = breaker::Settings {
            enabled: groups.client.circuit_breaker_enabled,
            threshold: groups.client.circuit_breaker_threshold,
            timeout: groups.client.circuit_breaker_timeout,
            half_open: groups.client.circuit_breaker_half_open,
        };
        Self {
            ssrf: ssrf_policy(&groups.security, &upstreams),
            server: groups.server,
            endpoints: groups.endpoints,
            routes: groups.routes,
            cache: groups.cache,
            security: groups.security,
            client: groups.client,
            log: groups.log,
            upstreams,
            table: table.build(),
            policies,
            address_quota,
            key_quota,
            breaker,
        }
    }

    /// What holds for a resolved route: `overrides` of [`route::Route`](crate::route::Route).
    #[must_use]
    pub fn policy(&self, overrides: u16) -> Option<&RoutePolicy> {
        self.policies.get(usize::from(overrides))
    }

    /// The upstream with this number.
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> Option<&UpstreamSettings> {
        self.upstreams.get(usize::from(id.0))
    }
}

/// Indices are 16 bits wide; nobody writes more by hand, and a look-up stays short.
const ROUTES_MAX: usize = 10_000;

impl RoutePolicy {
    fn general(groups: &Groups) -> Self {
        let cache = &groups.cache;
        Self {
            cache: cache::Settings {
                ttl: cache.ttl,
                negative_ttl: cache.negative_ttl,
                force_ttl: None,
                stale_if_error: cache.stale_if_error,
                stale_while_revalidate: cache.stale_while_revalidate,
                last_modified_percent: cache.last_modified_percent,
                offline: false,
                methods: cache.methods,
            },
            ignore_query: false,
            request_timeout: groups.client.request_timeout,
        }
    }

    fn overridden(&self, route: &RouteSettings) -> Self {
        let general = self.cache;
        Self {
            cache: cache::Settings {
                ttl: route.ttl.unwrap_or(general.ttl),
                force_ttl: route.force_ttl,
                stale_if_error: route.stale_if_error.unwrap_or(general.stale_if_error),
                methods: route.methods.unwrap_or(general.methods),
                ..general
            },
            ignore_query: route.ignore_query,
            request_timeout: route.request_timeout.unwrap_or(self.request_timeout),
        }
    }
}

/// The quotas of addresses and keys; gives each client's key its own where it has one.
fn quotas(security: &mut Security, reader: &mut Reader<'_>) -> (Option<Quota>, Option<Quota>) {
    if !security.rate_limit_enabled {
        return (None, None);
    }
    let burst = security.rate_limit_burst;
    let mut quota = |per_minute: u32, burst: u32, path: &str| {
        if u64::from(per_minute) >= PER_MINUTE_MAX {
            return None;
        }
        Quota::new(per_minute, burst)
            .inspect_err(|fault| {
                let what = format!("{per_minute} per minute and a burst of {burst} do not go");
                reader.fault(path, what, fault.to_string());
            })
            .ok()
    };
    let address = quota(security.rate_limit_per_ip, burst, "security.rate_limit_per_ip");
    let general = quota(security.rate_limit_per_key, burst, "security.rate_limit_per_key");
    for key in &mut security.client_api_keys.0 {
        let per_minute = key.per_minute.unwrap_or(security.rate_limit_per_key);
        key.quota = match (key.per_minute, key.burst) {
            (None, None) => general,
            (_, own) => quota(per_minute, own.unwrap_or(burst), "security.client_api_keys"),
        };
    }
    (address, general)
}

fn ssrf_policy(security: &Security, upstreams: &[UpstreamSettings]) -> ssrf::Policy {
    let own = || {
        // A host that was parsed as part of a URL is a pattern too: a test holds that.
        upstreams.iter().filter_map(|it| HostPattern::parse(it.upstream.host()).ok()).collect()
    };
    ssrf::Policy {
        enabled: security.ssrf_protection_enabled,
        block_private: security.block_private_ips,
        allowed_hosts: Some(security.allowed_upstream_hosts.clone().unwrap_or_else(own)),
    }
}

/// The upstream of a route that has a URL or a key of its own.
fn route_upstream(
    index: usize,
    route: &RouteSettings,
    groups: &Groups,
    upstreams: &mut Vec<UpstreamSettings>,
    reader: &mut Reader<'_>,
) -> Option<UpstreamId> {
    let path = format!("routes[{index}].entry_point");
    let key = route.api_key.clone();
    let (url, key) = match (&route.entry_point, key) {
        // A key is for one party: another host never gets the general one.
        (Some(url), key) => (url, key.unwrap_or_default()),
        // Already reported there if it can't be parsed.
        (None, Some(key)) => {
            let general = Upstream::parse(&groups.endpoints.entry_point).ok()?;
            return Some(add_upstream(upstreams, general, key));
        }
        (None, None) => return None,
    };
    parse_upstream(url, &path, reader).map(|upstream| add_upstream(upstreams, upstream, key))
}

fn parse_upstream(url: &str, path: &str, reader: &mut Reader<'_>) -> Option<Upstream> {
    if !reader.is_sound(path) {
        return None;
    }
    match Upstream::parse(url) {
        Ok(upstream) => Some(upstream),
        Err(fault) => {
            let what = match fault {
                // It holds a password.
                UpstreamFault::UserInfo => "the URL has credentials in it".to_owned(),
                _ => format!("{} is no URL of an upstream", quoted(url)),
            };
            let at = reader.written_at(path);
            reader.fault(&at, what, fault.to_string());
            None
        }
    }
}

fn add_upstream(
    upstreams: &mut Vec<UpstreamSettings>,
    upstream: Upstream,
    api_key: Secret,
) -> UpstreamId {
    let new = UpstreamSettings { upstream, api_key };
    let at = upstreams.iter().position(|it| *it == new).unwrap_or_else(|| {
        upstreams.push(new);
        upstreams.len() - 1
    });
    UpstreamId(u16::try_from(at).unwrap_or(u16::MAX))
}

fn add_route(
    table: &mut RoutesBuilder,
    index: usize,
    route: &RouteSettings,
    (id, overrides, strip): (UpstreamId, u16, Strip),
    reader: &mut Reader<'_>,
) {
    let path = format!("routes[{index}].prefix");
    if !reader.is_sound(&path) || !reader.is_sound(&format!("routes[{index}]")) {
        return;
    }
    if route.prefix.is_empty() {
        reader.fault(&path, "a route needs a prefix", "write for example \"/v1/users\"");
    } else if let Err(fault) = table.add(&route.prefix, id, overrides, strip) {
        let what = match fault {
            RouteFault::Duplicate => format!("{} twice", quoted(&route.prefix)),
            RouteFault::Prefix(_) => format!("{} is no prefix", quoted(&route.prefix)),
        };
        reader.fault(&path, what, fault.to_string());
    }
}
