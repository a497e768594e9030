//! Everything that must be in place before the first connection: checked, opened, bound.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rustls::ServerConfig;

use crate::base::Seed;
use crate::cache::Ledger;
use crate::config::{AccessLog, Backend, Cores, LogFormat, Settings};
use crate::limit::Limiter;
use crate::logs::{self, Target, Writer};
use crate::metrics::CoreCells;
use crate::net::{Errands, Resolver, listen, resolver, runtime, tls};
use crate::proxy::coding::Encoder;
use crate::proxy::helper::{CHORES_MAX, Helper};
use crate::proxy::hub::Hub;
use crate::proxy::inbox::Inbox;
use crate::proxy::origin::UpstreamState;
use crate::proxy::{Plan, Shared, purge};
use crate::route::Scheme;
use crate::server::certificate::Certificate;
use crate::server::clerk;
use crate::store::{self, StoreHandle};

/// Why the daemon did not start. One line.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is to be changed: exit code 64.
    Config(String),
    /// The machine is: exit code 70.
    Machine(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(line) | Self::Machine(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for StartError {}

/// What is in place.
pub struct Started {
    /// For all cores.
    pub shared: Arc<Shared>,
    /// A listener for each core.
    pub listeners: Mutex<Vec<TcpListener>>,
    /// Where they listen.
    pub address: SocketAddr,
    /// The CPU of each core; `None`: not pinned.
    pub cpus: Vec<Option<usize>>,
    /// The certificate; `None` without TLS.
    pub certificate: Option<Arc<Certificate>>,
}

/// Checks, opens and binds, in the order in which a fault costs least.
pub fn start(settings: Settings) -> Result<Started, StartError> {
    let certificate = certificate(&settings)?;
    let client_tls = client_tls(&settings)?;
    refuse_unreachable(&settings)?;
    let cpus = cpus(&settings.server.cores)?;
    let count = NonZeroUsize::new(cpus.len()).unwrap_or(NonZeroUsize::MIN);
    let wanted = wanted_address(&settings)?;
    let listeners = listen::bind(wanted, count)
        .map_err(|error| StartError::Machine(format!("cannot listen on {error}")))?;
    // The store's threads start before there is anything to purge from.
    let memory: Arc<OnceLock<Weak<Shared>>> = Arc::default();
    let store = open_store(&settings, Arc::clone(&memory))?;
    let settings_of_resolver =
        resolver::Settings { ttl: settings.client.resolve_ttl, ..resolver::Settings::default() };
    let access = open_access_log(&settings)?;
    let (errands, arrivals) = Errands::channel();
    clerk::start(arrivals, certificate.clone())
        .map_err(|error| StartError::Machine(format!("cannot start a thread: {error}")))?;
    let resolver = Resolver::start(settings_of_resolver)
        .map_err(|error| StartError::Machine(format!("cannot start the resolver: {error}")))?;
    let seed = Seed::random();
    let (helper, encoder) = helpers(cpus.len())
        .map_err(|error| StartError::Machine(format!("cannot start a helper: {error}")))?;
    let shared = Shared {
        hub: Hub::new(seed.clone()),
        seed,
        helper,
        encoder,
        ledger: Arc::new(Ledger::new(settings.cache.memory_cache_max_bytes)),
        limiter: Limiter::default(),
        upstreams: UpstreamState::all(&settings),
        inboxes: cpus.iter().map(|_| Inbox::new()).collect(),
        cells: cpus.iter().map(|_| Arc::new(CoreCells::new())).collect(),
        store,
        resolver,
        tls: client_tls,
        started: crate::net::mono(),
        journal: crate::proxy::journal::Journal::new(),
        access,
        errands,
        draining: AtomicBool::new(false),
        driver: OnceLock::new(),
        plan: Plan::new(settings),
    };
    let shared = Arc::new(shared);
    let _ = memory.set(Arc::downgrade(&shared));
    Ok(Started {
        shared,
        address: listeners.address,
        listeners: Mutex::new(listeners.sockets),
        cpus,
        certificate,
    })
}

impl Started {
    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The listener of one core.
    pub fn listener(&self) -> Option<TcpListener> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Opens the access log by its name again and reads the certificate again.
    pub fn reload(&self) {
        if let Some(access) = &self.shared.access {
            access.writer.reopen();
        }
        match &self.certificate {
            Some(certificate) => certificate.reload(),
            None => tracing::info!("no certificate to reload"),
        }
    }

    /// The tiers, for people.
    #[must_use]
    pub fn tiers(&self) -> String {
        let cache = &self.shared.plan.settings.cache;
        let memory = cache.memory_cache_enabled.then(|| {
            let mib = cache.memory_cache_max_bytes >> 20;
            format!("memory ({} entries a core, {mib} MiB)", cache.memory_cache_size)
        });
        let disk = match cache.backend {
            Backend::None => None,
            Backend::Sqlite => Some(format!("sqlite ({})", cache.path.display())),
            Backend::Postgres => Some("postgres".to_owned()),
        };
        let tiers: Vec<String> = [memory, disk].into_iter().flatten().collect();
        let fault = self.shared.store.as_ref().and_then(|it| it.stats().unavailable());
        let state =
            fault.map_or_else(String::new, |it| format!("; unavailable now: {}", it.as_str()));
        if tiers.is_empty() { "none".to_owned() } else { tiers.join(" + ") + &state }
    }

    /// The protections, for people.
    #[must_use]
    pub fn protections(&self) -> String {
        let settings = &self.shared.plan.settings;
        let (security, client) = (&settings.security, &settings.client);
        let (ip, key) = (security.rate_limit_per_ip, security.rate_limit_per_key);
        let ip = settings.address_quota.map(|_| format!("{ip}/min per address"));
        let key = settings.key_quota.map(|_| format!("{key}/min per key"));
        let limit = match (ip, key) {
            (None, None) => "no rate limit".to_owned(),
            (Some(one), None) | (None, Some(one)) => format!("rate limit {one}"),
            (Some(ip), Some(key)) => format!("rate limit {ip}, {key}"),
        };
        let private = match (security.ssrf_protection_enabled, security.block_private_ips) {
            (false, _) => "no SSRF guard",
            (true, false) => "SSRF guard (private upstreams allowed)",
            (true, true) => "SSRF guard",
        };
        let breaker = if client.circuit_breaker_enabled { "circuit breaker" } else { "no breaker" };
        format!("{limit}, {private}, {breaker}")
    }
}

fn certificate(settings: &Settings) -> Result<Option<Arc<Certificate>>, StartError> {
    let server = &settings.server;
    if !server.tls_enabled {
        return Ok(None);
    }
    let files = [server.tls_cert_file.clone(), server.tls_key_file.clone()];
    let settings = settings.clone();
    let build = Box::new(move || server_config(&settings));
    let certificate = Certificate::load(files, build).map_err(StartError::Config)?;
    Ok(Some(Arc::new(certificate)))
}

/// Starts the thread that writes the access log, where there is one.
fn open_access_log(settings: &Settings) -> Result<Option<Arc<logs::Setup>>, StartError> {
    let log = &settings.log;
    if log.access == AccessLog::Off {
        return Ok(None);
    }
    let target = if log.access_path.as_os_str().is_empty() {
        Target::Stderr
    } else {
        Target::File(log.access_path.clone())
    };
    let writer = Writer::start("access-log", target).map_err(|error| {
        StartError::Machine(format!("log.access_path: {}: {error}", log.access_path.display()))
    })?;
    Ok(Some(Arc::new(logs::Setup {
        which: log.access,
        every: log.access_sample,
        form: match log.format {
            LogFormat::Text => logs::Form::Text,
            LogFormat::Json => logs::Form::Json,
        },
        masks: logs::Masks::new(&log.access_mask),
        writer,
    })))
}

fn server_config(settings: &Settings) -> Result<ServerConfig, String> {
    let server = &settings.server;
    let alpn: &[&[u8]] =
        if server.enable_http2 { &[tls::HTTP2, tls::HTTP1] } else { &[tls::HTTP1] };
    tls::server_config(&server.tls_cert_file, &server.tls_key_file, alpn)
        .map_err(|error| error.to_string())
}

fn client_tls(settings: &Settings) -> Result<Option<Arc<rustls::ClientConfig>>, StartError> {
    let ca_file = Some(&*settings.client.ca_file).filter(|it| !it.as_os_str().is_empty());
    let needed = settings.upstreams.iter().any(|it| it.upstream.scheme() == Scheme::Https);
    let alpn: &[&[u8]] =
        if settings.client.http2 { &[tls::HTTP2, tls::HTTP1] } else { &[tls::HTTP1] };
    match tls::client_config(ca_file, alpn) {
        Ok(config) => Ok(Some(Arc::new(config))),
        Err(error) if needed || ca_file.is_some() => Err(StartError::Config(error.to_string())),
        Err(_) => Ok(None),
    }
}

/// A start that would refuse every request says so at once.
fn refuse_unreachable(settings: &Settings) -> Result<(), StartError> {
    for upstream in &settings.upstreams {
        let target = &upstream.upstream;
        let (scheme, host, port) = (target.scheme().as_str(), target.host(), target.port());
        if let Err(refusal) = settings.ssrf.check_url(scheme, host, port) {
            return Err(refused(target, &refusal.to_string()));
        }
        let Some(addresses) = look_up(host, port) else {
            tracing::warn!(upstream = %target, "the upstream's name can't be resolved now");
            continue;
        };
        let refusals: Vec<_> =
            addresses.iter().filter_map(|it| settings.ssrf.check_address(*it).err()).collect();
        if refusals.len() == addresses.len()
            && let Some(refusal) = refusals.first()
        {
            return Err(refused(target, &refusal.to_string()));
        }
    }
    Ok(())
}

fn refused(target: &crate::route::Upstream, why: &str) -> StartError {
    StartError::Config(format!(
        "every request to {target} would be refused: {why}; \
         allow it with --allow-private-upstream or security.block_private_ips = false"
    ))
}

/// The host's addresses, asked for on a thread that is left behind when it takes too long.
fn look_up(host: &str, port: u16) -> Option<HashSet<IpAddr>> {
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    std::thread::spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        let addresses = found.map(|it| it.map(|address| address.ip()).collect::<HashSet<_>>());
        let _ = sender.send(addresses);
    });
    let addresses = receiver.recv_timeout(LOOK_UP_SPAN).ok()?.ok()?;
    (!addresses.is_empty()).then_some(addresses)
}

fn cpus(cores: &Cores) -> Result<Vec<Option<usize>>, StartError> {
    let allowed = runtime::allowed_cpus()
        .map_err(|error| StartError::Machine(format!("cannot read the CPU mask: {error}")))?;
    match cores {
        Cores::Auto => Ok(allowed.into_iter().map(Some).collect()),
        // More cores than CPUs: the scheduler has better ideas than a pin.
        Cores::Count(count) => Ok((0..*count).map(|at| allowed.get(at).copied()).collect()),
        Cores::List(list) => match list.iter().find(|cpu| !allowed.contains(cpu)) {
            None => Ok(list.iter().copied().map(Some).collect()),
            Some(cpu) => Err(StartError::Config(format!(
                "server.cores: CPU {cpu} is not one this process may run on"
            ))),
        },
    }
}

fn wanted_address(settings: &Settings) -> Result<SocketAddr, StartError> {
    let server = &settings.server;
    if let Some(ip) = server.ip() {
        return Ok(SocketAddr::new(ip, server.port));
    }
    let found = (server.host.as_str(), server.port).to_socket_addrs();
    found.ok().and_then(|mut it| it.next()).ok_or_else(|| {
        StartError::Config(format!("server.host: {:?} is no address of this machine", server.host))
    })
}

/// Opens the second tier; what other instances purge there is forgotten in `memory` too.
fn open_store(
    settings: &Settings,
    memory: Arc<OnceLock<Weak<Shared>>>,
) -> Result<Option<StoreHandle>, StartError> {
    let cache = &settings.cache;
    let backend = match cache.backend {
        Backend::None => return Ok(None),
        Backend::Sqlite => store::Backend::Sqlite,
        Backend::Postgres => store::Backend::Postgres,
    };
    let settings = store::Settings {
        backend,
        path: cache.path.clone(),
        dsn: cache.postgres_dsn.expose().to_owned(),
        max_open_conns: cache.max_open_conns,
        max_idle_conns: cache.max_idle_conns,
        conn_max_lifetime: cache.conn_max_lifetime,
        conn_max_idle_time: cache.conn_max_idle_time,
        max_disk_bytes: cache.max_disk_bytes,
        queue_depth: cache.queue_depth,
        ..store::Settings::default()
    };
    let on_remote = move |purge: &store::Purge| {
        if let Some(shared) = memory.get().and_then(Weak::upgrade) {
            purge::remote(&shared, purge);
        }
    };
    let opened = StoreHandle::open_with(&settings, Some(Box::new(on_remote)));
    opened.map(Some).map_err(|error| match error {
        store::StartError::Dsn { .. } => StartError::Config(error.to_string()),
        store::StartError::Thread { .. } => StartError::Machine(error.to_string()),
    })
}

fn helpers(cores: usize) -> std::io::Result<(Helper, Encoder)> {
    Ok((Helper::start("helper", 1, CHORES_MAX)?, Encoder::start(cores)?))
}

/// A name server that does not answer must not hold up the start for longer.
const LOOK_UP_SPAN: Duration = Duration::from_secs(3);
