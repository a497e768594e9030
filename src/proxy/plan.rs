//! The settings as the request path wants them: parsed, indexed, joined. Built once at start.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Wall;
use crate::cache;
use crate::cache::entry::OVERHEAD_BYTES;
use crate::config::{self, RoutePolicy, Secret, Settings};
use crate::http::target::Slashes;
use crate::http1;
use crate::limit::TrustedProxies;
use crate::proxy::bodies::Bodies;
use crate::proxy::keyring::Keyring;
use crate::route::{ApiPrefix, PatternSet, Strip};

/// What every core reads on the way of a request. Immutable, but for what `request_bodies` counts.
pub struct Plan {
    /// Stripped before the upstream.
    pub prefix: ApiPrefix,
    /// By the number of a route's overrides.
    pub upstreams: Box<[Upstream]>,
    /// Endpoints that are served.
    pub allowed: PatternSet,
    /// Endpoints that answer from the store when the upstream is away.
    pub offline: PatternSet,
    /// Of a request's head.
    pub request_limits: http1::Limits,
    /// Of an answer's head.
    pub response_limits: http1::Limits,
    /// What becomes of `%2F` in paths.
    pub slashes: Slashes,
    /// 413 beyond.
    pub request_body_bytes_max: u64,
    /// The account of request bodies that are held at once; 503 beyond its limit.
    pub request_bodies: Arc<Bodies>,
    /// 502 beyond.
    pub response_body_bytes_max: u64,
    /// Larger responses live in L2 only, or are not stored.
    pub memory_object_bytes_max: u64,
    /// Smaller bodies are not compressed.
    pub compression_bytes_min: u64,
    /// gzip, 1 to 12.
    pub compression_level: u32,
    /// POST, PUT and PATCH carry JSON.
    pub json_only: bool,
    /// Unknown methods pass.
    pub unknown_methods: bool,
    /// The query is sorted in the key.
    pub sort_query: bool,
    /// Whether there is an L1.
    pub memory_cache: bool,
    /// Concurrent equal requests share a fetch.
    pub coalescing: bool,
    /// The fields that every answer carries.
    pub marks: OwnFields,
    /// Proxies whose word about the client's address is believed.
    pub trusted_proxies: TrustedProxies,
    /// The keys of clients.
    pub keys: Keyring,
    /// The settings as validated: routes, quotas, the guard, and what is read seldom.
    pub settings: Settings,
}

/// An upstream with what holds for the requests of one route.
pub struct Upstream {
    /// The number of the route's overrides.
    pub index: u16,
    /// The number of the upstream: routes to the same one share pool, breaker and entries.
    pub origin: u16,
    /// Where it is.
    pub target: crate::route::Upstream,
    /// Sent as X-API-Key; clients' own keys then stay here.
    pub api_key: Option<Secret>,
    /// For the exchange, to the end of the head for streamed bodies.
    pub request_timeout: Duration,
    /// The cache policy's settings.
    pub policy: cache::Settings,
    /// The query is not in the key.
    pub ignore_query: bool,
}

/// The configured fields of every answer, as text.
pub struct OwnFields {
    /// Name and line (with CRLF) of each.
    lines: Vec<(String, Vec<u8>)>,
    /// All lines.
    block: Vec<u8>,
}

impl Plan {
    /// Joins validated settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let security = &settings.security;
        let limits = |head_bytes_max: usize, fields_max: usize| http1::Limits {
            head_bytes_max,
            target_bytes_max: TARGET_BYTES_MAX.min(head_bytes_max),
            fields_max: fields_max.min(http1::FIELDS_MAX),
            field_bytes_max: head_bytes_max,
            ..http1::Limits::default()
        };
        let endpoints = &settings.endpoints;
        Self {
            prefix: settings.server.api_prefix.clone(),
            upstreams: upstreams(&settings),
            allowed: endpoints.whitelisted_endpoints.clone(),
            offline: endpoints.offline_endpoints.clone(),
            request_limits: limits(security.max_header_bytes, settings.server.max_header_count),
            response_limits: limits(RESPONSE_HEAD_BYTES_MAX, http1::FIELDS_MAX),
            slashes: if security.allow_encoded_slash { Slashes::Allow } else { Slashes::Refuse },
            request_body_bytes_max: security.max_request_body_size,
            request_bodies: Bodies::new(security.max_request_body_memory),
            response_body_bytes_max: security.max_response_body_size,
            // What all entries may have together bounds each.
            memory_object_bytes_max: settings
                .cache
                .memory_cache_max_object
                .min(settings.cache.memory_cache_max_bytes.saturating_sub(OVERHEAD_BYTES as u64)),
            compression_bytes_min: settings.cache.compression_min_size,
            compression_level: settings.cache.compression_level,
            json_only: security.require_json_body,
            unknown_methods: security.allow_unknown_methods,
            sort_query: settings.cache.sort_query,
            memory_cache: settings.cache.memory_cache_enabled
                && settings.cache.memory_cache_size > 0,
            coalescing: settings.client.deduplication_enabled,
            marks: OwnFields::new(&security.headers, settings.server.tls_enabled),
            trusted_proxies: security.trusted_proxies.clone(),
            keys: Keyring::new(&security.client_api_keys),
            settings,
        }
    }

    /// The upstream of that number.
    #[must_use]
    pub fn upstream(&self, index: u16) -> &Upstream {
        &self.upstreams[usize::from(index)]
    }

    /// The policy for a path of an upstream.
    #[must_use]
    pub fn policy(&self, upstream: &Upstream, path: &[u8]) -> cache::Settings {
        cache::Settings { offline: self.offline.matches(path), ..upstream.policy }
    }

    /// Lengths of bodies that are worth to compress.
    #[must_use]
    pub const fn compressed_lengths(&self) -> RangeInclusive<u64> {
        self.compression_bytes_min..=self.memory_object_bytes_max
    }

    /// How long what is stored under a key is of use to any route that could find it.
    #[must_use]
    pub fn keep_until(&self, key: &cache::Key, facts: &cache::Facts) -> Wall {
        let Some(parts) = key.parts() else { return Wall::EPOCH };
        let table = &self.settings.table;
        let routes = table.as_slice().iter().filter(|it| it.upstream.0 == parts.upstream);
        // The path as a request of this route would have it.
        let routes = routes.filter(|route| {
            let asked = match route.strip {
                Strip::Keep => Cow::Borrowed(parts.path),
                Strip::Prefix => Cow::Owned([route.prefix(), parts.path].concat()),
            };
            let found = table.resolve(&asked);
            found.is_some_and(|it| it.route.prefix() == route.prefix())
        });
        let kept = routes.map(|it| {
            let upstream = self.upstream(it.overrides);
            facts.keep_until(&self.policy(upstream, parts.path))
        });
        kept.max().unwrap_or(Wall::EPOCH)
    }
}

impl OwnFields {
    fn new(headers: &config::SecurityHeaders, tls: bool) -> Self {
        let wanted = headers.0.iter().filter(|it| tls || !it.tls_only);
        let lines: Vec<_> = wanted
            .map(|it| (it.name.clone(), format!("{}: {}\r\n", it.name, it.value).into_bytes()))
            .collect();
        let block = lines.iter().flat_map(|(_, line)| line.iter().copied()).collect();
        Self { lines, block }
    }

    /// Whether an origin's answer has one of them itself.
    #[must_use]
    pub fn overlap(&self, fields: &crate::http::Fields) -> bool {
        self.lines.iter().any(|(name, _)| fields.contains(name))
    }

    /// All lines, for an answer that has none of them itself.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Appends the lines that `fields` doesn't have itself.
    pub fn push_missing(&self, fields: &crate::http::Fields, out: &mut Vec<u8>) {
        for (name, line) in &self.lines {
            if !fields.contains(name) {
                out.extend_from_slice(line);
            }
        }
    }
}

impl Upstream {
    /// What names it beyond this configuration: scheme, authority and base path.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.target.to_string().into_bytes()
    }

    /// Appends the request target: base path, path and query.
    pub fn push_target(&self, path: &str, query: Option<&str>, out: &mut Vec<u8>) {
        self.target.push_path(path.as_bytes(), out);
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }
}

fn upstreams(settings: &Settings) -> Box<[Upstream]> {
    let of = |(index, policy): (usize, &RoutePolicy)| {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        let route = settings.table.as_slice().iter().find(|it| it.overrides == index);
        let origin = route.map(|it| it.upstream).unwrap_or_default();
        let upstream = settings.upstream(origin).or(settings.upstreams.first())?;
        Some(Upstream {
            index,
            origin: origin.0,
            target: upstream.upstream.clone(),
            api_key: Some(&upstream.api_key).filter(|it| !it.is_empty()).cloned(),
            request_timeout: policy.request_timeout,
            policy: policy.cache,
            ignore_query: policy.ignore_query,
        })
    };
    settings.policies.iter().enumerate().filter_map(of).collect()
}

/// A longer request target gets 414: what nginx and Apache take by default.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// A longer response head gets 502.
const RESPONSE_HEAD_BYTES_MAX: usize = 128 * 1024;
