//! The settings groups: one row a field. See [`row`](super::row) for what a row says.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache::Methods;
use crate::config::cores::Cores;
use crate::config::headers::{self, SecurityHeaders};
use crate::config::keys::ClientKeys;
use crate::config::reader::Reader;
use crate::config::row::{
    Row, bytes, choice, cores, flag, group, headers as header_row, keys, list, objects, path,
    seconds, secret, share, text, text_or_empty, timeout, whole,
};
use crate::config::secret::Secret;
use crate::config::words::{AccessLog, Backend, Driver, LogFormat, LogLevel};
use crate::limit::TrustedProxies;
use crate::route::{ApiPrefix, PatternSet};
use crate::ssrf::HostPattern;

/// The groups as they stand in the file, each field of its type and within its range.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Groups {
    pub(super) server: Server,
    pub(super) endpoints: Endpoints,
    pub(super) routes: Vec<RouteSettings>,
    pub(super) cache: Cache,
    pub(super) security: Security,
    pub(super) client: Client,
    pub(super) log: Log,
}

impl Groups {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            server: Server::read(reader),
            endpoints: Endpoints::read(reader),
            routes: reader.each(&ROUTES, RouteSettings::read),
            cache: Cache::read(reader),
            security: Security::read(reader),
            client: Client::read(reader),
            log: Log::read(reader),
        }
    }
}

/// The schema: every field, in the order of the example file; members of routes last.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    Server::ROWS
        .iter()
        .chain(Endpoints::ROWS)
        .chain(std::iter::once(&ROUTES))
        .chain(Cache::ROWS)
        .chain(Security::ROWS)
        .chain(Client::ROWS)
        .chain(Log::ROWS)
        .chain(RouteSettings::ROWS)
}

group! {
    /// The listening side.
    Server "server." {
        host: String = text("127.0.0.1"),
            "Address to listen on; \"0.0.0.0\" or \"::\" for all.";
        port: u16 = whole(9002, 0, 65_535), "Port; 0 takes any free one, printed at start.";
        read_timeout: Duration = timeout(15),
            "For a whole request head, and between two reads of a body.";
        write_timeout: Duration = timeout(15), "Between two steps forward of a response write.";
        idle_timeout: Duration = timeout(60), "For the next request on a kept connection.";
        tls_enabled: bool = flag(false), "Serve TLS 1.2 and 1.3 instead of plain text.";
        tls_cert_file: PathBuf = path(""),
            "Certificate chain, PEM; read again when it changes and on SIGHUP.";
        tls_key_file: PathBuf = path(""), "Private key of the certificate, PEM.";
        enable_http2: bool = flag(true),
            "HTTP/2: by ALPN with TLS, with prior knowledge without.";
        cores: Cores = cores().memory("a thread and an L1 index each"),
            "Cores that serve: \"auto\", a number, or a list such as \"0-3,6\" to pin to.";
        api_prefix: ApiPrefix = text_or_empty("/api"),
            "Path prefix that is proxied, stripped before the upstream; \"\" for everything.";
        driver: Driver = choice("auto", Driver::WORDS), "What waits for the sockets.";
        max_connections: usize = whole(65_536, 1, 16_777_216)
            .memory("about 1 KiB for an idle one"),
            "Connections of the process; past it, accept waits.";
        max_header_count: usize = whole(100, 1, 128), "Fields in a request head, else 431.";
        shutdown_timeout: Duration = seconds(30, 0),
            "How long a stop waits for exchanges under way.";
    }
}

group! {
    /// The default upstream and which of its endpoints are served.
    Endpoints "" {
        entry_point: String = text("https://api.apiproxy.app"),
            "URL of the upstream: http or https, host, optional port and base path.";
        api_key: Secret = secret(),
            "Sent upstream as X-API-Key; clients' own keys then stay here.";
        api_key_file: PathBuf = path(""), "File to read `api_key` from.";
        offline_endpoints: PatternSet = list(&[]),
            "Paths kept without limit and served stale when the upstream is away.";
        whitelisted_endpoints: PatternSet = list(&["/*"]),
            "Paths that are served: exact, or with a trailing *; [] allows nothing.";
    }
}

const ROUTES: Row = objects().at("routes", "Further upstreams and overrides by path prefix.");

group! {
    /// What holds for one path prefix. A field that is `None` inherits the general one.
    RouteSettings "routes[]." {
        prefix: String = text_or_empty(""),
            "Path prefix, after `server.api_prefix`; ends at a segment border.";
        entry_point: Option<String> = text("").optional(), "Upstream URL of this route.";
        api_key: Option<Secret> = secret().optional(),
            "X-API-Key of this upstream; with an own entry_point none is inherited.";
        api_key_file: PathBuf = path(""), "File to read this `api_key` from.";
        ttl: Option<Duration> = seconds(0, 0).optional(), "Instead of `cache.ttl`.";
        force_ttl: Option<Duration> = seconds(0, 0).optional(),
            "Lifetime of successes from reception on, whatever lifetime the origin states; \
             no-store, private and no-cache still hold.";
        methods: Option<Methods> = list(&[]).optional(), "Instead of `cache.methods`.";
        strip_prefix: bool = flag(false), "Leave the prefix out of the path sent upstream.";
        ignore_query: bool = flag(false), "Leave the query string out of the cache key.";
        stale_if_error: Option<Duration> = seconds(0, 0).optional(),
            "Instead of `cache.stale_if_error`.";
        request_timeout: Option<Duration> = timeout(0).optional(),
            "Instead of `client.request_timeout`.";
    }
}

group! {
    /// Both cache tiers.
    Cache "cache." {
        backend: Backend = choice("sqlite", Backend::WORDS), "The second tier.";
        path: PathBuf = path("~/.apiproxy/cache.db"), "The SQLite file; ~ is the home directory.";
        postgres_dsn: Secret = secret(), "PostgreSQL connection string.";
        postgres_dsn_file: PathBuf = path(""), "File to read `postgres_dsn` from.";
        ttl: Duration = seconds(86_400, 0), "Heuristic lifetime, where the origin states none.";
        memory_cache_enabled: bool = flag(true), "The first tier, in memory.";
        memory_cache_size: usize = whole(1_000, 0, 100_000_000)
            .memory("28 bytes an entry and core; 250 once, beside the entry's bytes"),
            "Entries in each core's index.";
        memory_cache_max_bytes: u64 = bytes(268_435_456, 0).memory("itself"),
            "Heads and bodies in memory, for the process.";
        memory_cache_max_object: u64 = bytes(4_194_304, 0),
            "Larger responses live in the second tier only.";
        max_open_conns: usize = whole(25, 0, 1_000).zero_is_no_limit(),
            "Connections to PostgreSQL; SQLite has one that writes and one that reads.";
        max_idle_conns: usize = whole(5, 0, 1_000), "Database connections kept when idle.";
        conn_max_lifetime: Duration = timeout(300), "Age at which a connection is replaced.";
        conn_max_idle_time: Duration = timeout(60), "Idleness at which a connection is closed.";
        cleanup_interval: Duration = timeout(3_600), "Between two removals of expired entries.";
        max_disk_bytes: u64 = bytes(0, 0).zero_is_no_limit(),
            "Cap of the second tier; the oldest entries go first.";
        stale_if_error: Duration = seconds(86_400, 0),
            "How long past its freshness an answer may replace an error.";
        stale_while_revalidate: Duration = seconds(0, 0),
            "How long past its freshness an answer is served while it is renewed.";
        negative_ttl: Duration = seconds(0, 0),
            "Lifetime of 404 and 410 without explicit freshness; with 0 only Last-Modified gives \
             them one.";
        methods: Methods = list(&["GET", "HEAD"]),
            "Methods that are cached; add POST or QUERY to cache by body, POST with explicit \
             freshness only.";
        last_modified_percent: u8 = whole(10, 0, 100).unit("%"),
            "With ttl 0: lifetime as a share of the time since Last-Modified; 0 stores none.";
        sort_query: bool = flag(false),
            "Sort the query by name in the cache key; of one name the order stays.";
        compression_level: u32 = whole(6, 1, 12), "gzip level, 1 fastest.";
        compression_min_size: u64 = bytes(1_024, 0), "Least size that is compressed.";
        queue_depth: usize = whole(4_096, 1, 1_048_576).memory("the queued responses"),
            "Storage requests that may wait; past it, look-ups miss and writes are dropped.";
    }
}

group! {
    /// Limits and guards.
    Security "security." {
        rate_limit_enabled: bool = flag(true), "Limit the rate of requests.";
        rate_limit_per_ip: u32 = whole(60, 0, PER_MINUTE_MAX).zero_is_no_limit()
            .unit("per minute"),
            "Requests of one address (IPv6: one /64).";
        rate_limit_per_key: u32 = whole(300, 0, PER_MINUTE_MAX).zero_is_no_limit()
            .unit("per minute"),
            "Requests of one API key.";
        rate_limit_burst: u32 = whole(10, 1, BURST_MAX), "Requests at once before the rate holds.";
        max_request_body_size: u64 = bytes(10_485_760, 0).zero_is_no_limit(),
            "Larger request bodies get 413.";
        max_request_body_memory: u64 = bytes(134_217_728, 0).zero_is_no_limit().memory("itself"),
            "Request bodies held at once (JSON that is checked, cached POST); past it 503.";
        max_response_body_size: u64 = bytes(52_428_800, 0).zero_is_no_limit(),
            "Larger upstream bodies get 502.";
        max_header_bytes: usize = whole(65_536, 1_024, 16_777_216).unit("bytes")
            .memory("for each head that is being read, at most"),
            "Larger request heads get 431.";
        ssrf_protection_enabled: bool = flag(true), "Check every upstream host and address.";
        allowed_upstream_hosts: Option<Vec<HostPattern>> = list(&[]).optional(),
            "Hosts that may be connected to; null = those of entry_point and routes.";
        block_private_ips: bool = flag(true),
            "Refuse upstreams on private, loopback and other special addresses.";
        metrics_auth_enabled: bool = flag(false), "Ask for the token at /metrics.";
        metrics_auth_token: Secret = secret(), "Token of /metrics: Bearer, or ?token=.";
        metrics_auth_token_file: PathBuf = path(""), "File to read `metrics_auth_token` from.";
        admin_token: Secret = secret(),
            "Token of /cache/clear and purges; \"\" = loopback peers only.";
        admin_token_file: PathBuf = path(""), "File to read `admin_token` from.";
        client_api_keys: ClientKeys = keys(),
            "Keys of clients, one is needed when set: \"key\", \"sha256:HEX\" or an object.";
        client_api_keys_file: PathBuf = path(""),
            "File to read `client_api_keys` from, one a line.";
        require_json_body: bool = flag(true),
            "POST, PUT, PATCH: another Content-Type gets 415, malformed JSON 400.";
        trusted_proxies: TrustedProxies = list(&[]),
            "Networks (CIDR) whose X-Forwarded-For, Forwarded and PROXY headers are believed.";
        proxy_protocol: bool = flag(false),
            "Expect a PROXY header, version 1 or 2, on every connection.";
        allow_encoded_slash: bool = flag(false), "Pass %2F in paths instead of answering 400.";
        allow_unknown_methods: bool = flag(false), "Pass unknown methods instead of 501.";
        headers: SecurityHeaders = header_row(headers::PRESET),
            "Response fields set where the origin set none; \"\" drops one.";
    }
}

group! {
    /// Behaviour towards the upstreams.
    Client "client." {
        request_timeout: Duration = timeout(30),
            "Whole exchange; for streamed bodies to the end of the head.";
        dial_timeout: Duration = timeout(10), "Connect and TLS handshake.";
        keep_alive: Duration = whole(30, 0, 32_767).zero_is_no_limit().unit("s"),
            "TCP keep-alive probes.";
        max_idle_conns: usize = whole(100, 0, CONNS_MAX).zero_is_no_limit(),
            "Idle connections kept, for the process.";
        max_idle_conns_per_host: usize = whole(10, 0, CONNS_MAX), "The same for one host.";
        max_conns_per_host: usize = whole(100, 0, CONNS_MAX).zero_is_no_limit(),
            "Connections to one host, for the process; past it, requests wait.";
        idle_conn_timeout: Duration = timeout(90), "Idleness at which a connection is closed.";
        circuit_breaker_enabled: bool = flag(true), "Stop asking an upstream that fails.";
        circuit_breaker_threshold: u32 = whole(5, 1, 1_000_000), "Failures that open it.";
        circuit_breaker_timeout: Duration = seconds(60, 1), "How long it stays open.";
        circuit_breaker_half_open: u32 = whole(3, 1, 10_000), "Probes that decide.";
        deduplication_enabled: bool = flag(true), "One fetch for concurrent equal requests.";
        http2: bool = flag(true), "HTTP/2 to https upstreams, by ALPN.";
        ca_file: PathBuf = path(""), "Further trust anchors, PEM.";
        retry_budget: f64 = share(0.2), "Retries as a share of requests.";
        resolve_ttl: Duration = seconds(10, 0), "How long a resolved name is used.";
        requests_per_second: u32 = whole(0, 0, CONNS_MAX).zero_is_no_limit().unit("per second"),
            "Pace of requests to one upstream.";
    }
}

group! {
    /// What is logged.
    Log "log." {
        level: LogLevel = choice("info", LogLevel::WORDS), "Least severe level.";
        format: LogFormat = choice("text", LogFormat::WORDS), "One line of text or of JSON.";
        access: AccessLog = choice("off", AccessLog::WORDS), "Which requests get a line.";
        access_sample: u32 = whole(100, 1, 1_000_000), "With \"sampled\": one line in so many.";
        access_path: PathBuf = path(""),
            "File of the access log, opened again on SIGHUP; \"\" = standard error.";
        access_mask: Vec<String> = list(&[]),
            "Query parameters whose values are masked, beside those known to be credentials.";
    }
}

/// A million a second: the greatest rate, and what "no limit" is read as.
pub(super) const PER_MINUTE_MAX: u64 = 60_000_000;
/// More requests at once than any client needs.
pub(super) const BURST_MAX: u64 = 1_000_000;
/// More connections than a process can have descriptors; also what "no limit" is read as.
const CONNS_MAX: u64 = 1_000_000;

impl Server {
    /// `host` as an address; `None` for a name. Brackets around IPv6 were removed.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl Client {
    /// Requests a second to one upstream; `None` for no limit.
    #[must_use]
    pub fn pace(&self) -> Option<u32> {
        Some(self.requests_per_second).filter(|it| u64::from(*it) < CONNS_MAX)
    }
}
