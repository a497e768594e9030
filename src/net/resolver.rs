//! Names to addresses by `getaddrinfo`, so that nsswitch and hosts files work, without ever
//! blocking a core.
//!
//! ```text
//!  core --- snapshot (arc-swap): fresh? ----> answer, one hash look-up
//!    |  not fresh
//!    +--- bounded channel --> resolver thread --- job --> look-up threads (getaddrinfo)
//!                             owns `Table`    <- result -
//!                             wakes the core  --- new snapshot
//! ```
//!
//! The `Table` is pure: which answer a request gets, when a look-up is due, what is forgotten. A
//! name that is in use is looked up again before it expires, so that a request waits for DNS only
//! when a name is new or was idle. While look-ups fail, or take longer than 200 ms, the last
//! addresses stay usable for five minutes; a failure is remembered for a second, so that a dead DNS
//! server is not asked by every request. Many requests for one name share one look-up.

mod reply;
mod table;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded, select};

use crate::base::Mono;
use crate::net::clock;
use crate::net::resolver::reply::Reply;
use crate::net::resolver::table::{Job, Table};

/// Threads that may hang in `getaddrinfo` at the same time: more names than that are rarely slow
/// together, and each costs a stack.
const LOOKUP_THREADS: usize = 4;
/// Requests that may wait for the resolver thread. Full: [`ResolveError::Busy`].
const REQUESTS_MAX: usize = 1024;

/// How long answers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an answer is fresh (default 10 s).
    pub ttl: Duration,
    /// How long a failure is remembered (default 1 s).
    pub failure_ttl: Duration,
    /// How old addresses may become while look-ups fail or stall (default 5 min).
    pub stale_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(10),
            failure_ttl: Duration::from_secs(1),
            stale_max: Duration::from_secs(300),
        }
    }
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// Not a host name.
    InvalidName,
    /// The look-up failed, with the system's words for the log.
    Failed(Arc<str>),
    /// Too many look-ups are waiting, or the resolver has stopped.
    Busy,
}

impl ResolveError {
    /// The word for logs and metric labels.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::InvalidName => "resolve_invalid_name",
            Self::Failed(_) => "resolve_failed",
            Self::Busy => "resolve_busy",
        }
    }
}

impl std::fmt::Display for ResolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(words) => write!(f, "{}: {words}", self.as_str()),
            _ => f.write_str(self.as_str()),
        }
    }
}

impl std::error::Error for ResolveError {}

type Answer = Result<Arc<[IpAddr]>, ResolveError>;
type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
type Snapshot = HashMap<Arc<str>, Arc<Cached>>;

/// The resolver's handle: shared by all cores, cheap to clone. Its threads end with the last one.
#[derive(Clone, Debug)]
pub struct Resolver {
    requests: Sender<Request>,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

#[derive(Debug)]
struct Request {
    host: Arc<str>,
    reply: Reply,
}

/// The addresses of one name as the cores see them.
#[derive(Debug)]
struct Cached {
    addresses: Arc<[IpAddr]>,
    fresh_until: Mono,
    /// Nanoseconds; written by cores, read by the resolver thread to tell names in use.
    used_at: Arc<AtomicU64>,
}

impl Resolver {
    /// Starts the resolver's threads.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(settings: Settings) -> io::Result<Self> {
        Self::start_with(settings, system_lookup)
    }

    /// As [`Resolver::start`], with another source of addresses, for tests.
    ///
    /// # Errors
    /// As [`Resolver::start`].
    pub fn start_with<F>(settings: Settings, lookup: F) -> io::Result<Self>
    where
        F: Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    {
        let (requests, incoming) = bounded(REQUESTS_MAX);
        // One job a name at most is under way, and the table bounds the names.
        let (jobs, to_do) = bounded::<Job>(table::NAMES_MAX);
        let (done, results) = bounded(table::NAMES_MAX);
        let lookup: Arc<Lookup> = Arc::new(lookup);
        for number in 0..LOOKUP_THREADS {
            let (to_do, done, lookup) = (to_do.clone(), done.clone(), lookup.clone());
            let thread = thread::Builder::new().name(format!("lookup-{number}"));
            thread.spawn(move || look_up_all(&to_do, &done, &*lookup))?;
        }
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::new()));
        let published = snapshot.clone();
        let thread = thread::Builder::new().name("resolver".to_owned());
        thread.spawn(move || {
            let table = Table::new(settings);
            Server { incoming, jobs, results, published, table }.run();
        })?;
        Ok(Self { requests, snapshot })
    }

    /// The addresses of `host`, in the order the system prefers. An address literal (IPv6 also in
    /// brackets) is answered at once. May be dropped at any time.
    ///
    /// Costs a hash look-up and one allocation while the name is fresh.
    ///
    /// # Errors
    /// See [`ResolveError`]. There is no time limit here: the caller has the deadline.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Arc<[SocketAddr]>, ResolveError> {
        if let Some(ip) = literal(host) {
            return Ok(Arc::new([SocketAddr::new(ip, port)]));
        }
        let host = canonical(host)?;
        let addresses = match self.fresh(&host, clock::mono()) {
            Some(addresses) => addresses,
            None => {
                let (reply, answer) = reply::channel();
                let request = Request { host, reply };
                self.requests.try_send(request).map_err(|_| ResolveError::Busy)?;
                answer.await?
            }
        };
        Ok(addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    /// The addresses of `host` as far as they are known without waiting; `None` for an address
    /// literal, which does not move, and when nothing fresh is known. Keeps the name in use: a
    /// pool that asks now and then follows an origin that moves.
    #[must_use]
    pub fn known(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        if literal(host).is_some() {
            return None;
        }
        self.fresh(&canonical(host).ok()?, clock::mono())
    }

    fn fresh(&self, host: &str, now: Mono) -> Option<Arc<[IpAddr]>> {
        let snapshot = self.snapshot.load();
        let cached = snapshot.get(host)?;
        cached.used_at.fetch_max(now.as_nanos(), Ordering::Relaxed);
        (now < cached.fresh_until).then(|| cached.addresses.clone())
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

/// The one spelling of a name: lower case. Refuses what `getaddrinfo` could misread.
fn canonical(host: &str) -> Result<Arc<str>, ResolveError> {
    // RFC 1035 section 2.3.4: at most 255 octets.
    let valid = !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it));
    if !valid {
        return Err(ResolveError::InvalidName);
    }
    Ok(host.to_ascii_lowercase().into())
}

fn system_lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|it| it.ip()).collect())
}

fn look_up_all(to_do: &Receiver<Job>, done: &Sender<(Arc<str>, Answer)>, lookup: &Lookup) {
    for Job(host) in to_do {
        let answer = match lookup(&host) {
            Ok(addresses) if addresses.is_empty() => Err(ResolveError::Failed("no address".into())),
            Ok(mut addresses) => {
                let mut seen = std::collections::HashSet::new();
                addresses.retain(|ip| seen.insert(*ip));
                Ok(addresses.into())
            }
            Err(error) => Err(ResolveError::Failed(error.to_string().into())),
        };
        if done.send((host, answer)).is_err() {
            return;
        }
    }
}

/// The resolver thread: brings requests, results and time to the table, and its decisions out.
struct Server {
    incoming: Receiver<Request>,
    jobs: Sender<Job>,
    results: Receiver<(Arc<str>, Answer)>,
    published: Arc<ArcSwap<Snapshot>>,
    table: Table,
}

impl Server {
    fn run(mut self) {
        loop {
            let now = clock::mono();
            self.table.on_time(now);
            for job in self.table.next_jobs(now) {
                self.dispatch(job);
            }
            let wait = self.table.next_wake(now).since(now);
            select! {
                recv(self.incoming) -> request => {
                    let Ok(request) = request else { return };
                    let now = clock::mono();
                    if let Some(job) = self.table.on_request(request.host, request.reply, now) {
                        self.dispatch(job);
                    }
                }
                recv(self.results) -> result => {
                    let Ok((host, answer)) = result else { return };
                    self.table.on_answer(&host, answer, clock::mono());
                    self.published.store(Arc::new(self.table.snapshot()));
                }
                default(wait) => {}
            }
        }
    }

    fn dispatch(&mut self, job: Job) {
        if let Err(error) = self.jobs.try_send(job) {
            let Job(host) = error.into_inner();
            self.table.on_answer(&host, Err(ResolveError::Busy), clock::mono());
        }
    }
}

#[cfg(test)]
mod tests;
