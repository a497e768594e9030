//! What is known of each name and what to do next. Pure: requests, answers and the time come in,
//! replies and look-up jobs go out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::Mono;
use crate::net::resolver::reply::Reply;
use crate::net::resolver::{Answer, Cached, ResolveError, Settings, Snapshot};

/// Names known at a time. An installation has a handful; the least recently used makes room.
pub(super) const NAMES_MAX: usize = 1024;
/// Requests that may wait for look-ups, over all names. More are refused as busy.
const WAITERS_MAX: usize = 16_384;
/// A name counts as in use for this many lifetimes after a request, and is kept fresh.
const USE_LIFETIMES: u32 = 6;
/// The longest sleep of the resolver thread when nothing is due.
const WAKE_MAX: Duration = Duration::from_secs(60);

/// Look this name up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job(pub(super) Arc<str>);

#[derive(Debug)]
pub(super) struct Table {
    settings: Settings,
    names: HashMap<Arc<str>, Name>,
    /// The sum of all `Name::waiters`.
    waiting: usize,
}

#[derive(Debug)]
struct Name {
    known: Option<Known>,
    /// The last look-up failed: until then its error (or the old addresses) is the answer.
    failed: Option<(ResolveError, Mono)>,
    /// Exactly one job is out for this name.
    in_flight: bool,
    /// Not empty only while `in_flight`.
    waiters: Vec<Reply>,
    used_at: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Known {
    addresses: Arc<[IpAddr]>,
    at: Mono,
}

impl Table {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, names: HashMap::new(), waiting: 0 }
    }

    /// Answers at once, or keeps `reply` until the look-up that is under way or begins now ends.
    pub(super) fn on_request(&mut self, host: Arc<str>, reply: Reply, now: Mono) -> Option<Job> {
        if !self.names.contains_key(&host) && !self.make_room() {
            reply.send(Err(ResolveError::Busy));
            return None;
        }
        let name = self.names.entry(host.clone()).or_insert_with(Name::new);
        name.used_at.fetch_max(now.as_nanos(), Ordering::Relaxed);
        if let Some(answer) = name.answer(&self.settings, now) {
            reply.send(answer);
            return None;
        }
        if self.waiting >= WAITERS_MAX {
            reply.send(Err(ResolveError::Busy));
            return None;
        }
        name.waiters.push(reply);
        self.waiting += 1;
        name.start(host)
    }

    /// A look-up has ended: remembers what it said and answers all who waited for it.
    pub(super) fn on_answer(&mut self, host: &str, answer: Answer, now: Mono) {
        let Some(name) = self.names.get_mut(host) else { return };
        debug_assert!(name.in_flight, "an answer nobody asked for");
        name.in_flight = false;
        match answer {
            Ok(addresses) => {
                name.known = Some(Known { addresses, at: now });
                name.failed = None;
            }
            Err(error) => name.failed = Some((error, now.plus(self.settings.failure_ttl))),
        }
        let waiters = std::mem::take(&mut name.waiters);
        debug_assert!(self.waiting >= waiters.len());
        self.waiting -= waiters.len();
        let answer = name.usable(&self.settings, now);
        for reply in waiters {
            reply.send(answer.clone());
        }
    }

    /// Look-ups that are due to keep names in use fresh. Forgets names that are neither in use
    /// nor of any use.
    pub(super) fn next_jobs(&mut self, now: Mono) -> Vec<Job> {
        let settings = self.settings;
        self.names.retain(|_, name| name.in_flight || name.is_worth_keeping(&settings, now));
        let due = |name: &Name| name.refresh_at(&settings).is_some_and(|at| at <= now);
        let due = self.names.iter_mut().filter(|(_, name)| due(name));
        due.filter_map(|(host, name)| name.start(host.clone())).collect()
    }

    /// When [`Table::next_jobs`] is to be called at the latest.
    pub(super) fn next_wake(&self, now: Mono) -> Mono {
        let due = self.names.values().filter_map(|name| name.refresh_at(&self.settings));
        due.min().unwrap_or(Mono::from_nanos(u64::MAX)).min(now.plus(WAKE_MAX))
    }

    /// What the cores may use without asking.
    pub(super) fn snapshot(&self) -> Snapshot {
        let cached = self.names.iter().filter_map(|(host, name)| {
            let known = name.known.as_ref()?;
            let cached = Cached {
                addresses: known.addresses.clone(),
                fresh_until: known.at.plus(self.settings.ttl),
                used_at: name.used_at.clone(),
            };
            Some((host.clone(), Arc::new(cached)))
        });
        cached.collect()
    }

    fn make_room(&mut self) -> bool {
        if self.names.len() < NAMES_MAX {
            return true;
        }
        let idle = self.names.iter().filter(|(_, name)| !name.in_flight);
        let oldest = idle.min_by_key(|(_, name)| name.used_at()).map(|(host, _)| host.clone());
        oldest.is_some_and(|host| self.names.remove(&host).is_some())
    }
}

impl Name {
    fn new() -> Self {
        let used_at = Arc::new(AtomicU64::new(0));
        Self { known: None, failed: None, in_flight: false, waiters: Vec::new(), used_at }
    }

    /// The answer that needs no look-up.
    fn answer(&self, settings: &Settings, now: Mono) -> Option<Answer> {
        let fresh = self.known.as_ref().filter(|known| now < known.at.plus(settings.ttl));
        if let Some(known) = fresh {
            return Some(Ok(known.addresses.clone()));
        }
        let failed = self.failed.as_ref().is_some_and(|(_, until)| now < *until);
        failed.then(|| self.usable(settings, now))
    }

    /// What there is after a look-up: its addresses, or older ones within the bound, or its error.
    fn usable(&self, settings: &Settings, now: Mono) -> Answer {
        let known = self.known.as_ref().filter(|known| now < known.at.plus(settings.stale_max));
        match (known, &self.failed) {
            (Some(known), _) => Ok(known.addresses.clone()),
            (None, Some((error, _))) => Err(error.clone()),
            (None, None) => Err(ResolveError::Busy),
        }
    }

    fn start(&mut self, host: Arc<str>) -> Option<Job> {
        let idle = !std::mem::replace(&mut self.in_flight, true);
        idle.then_some(Job(host))
    }

    /// When a name in use is to be looked up again: in the last quarter of its lifetime, or when
    /// the memory of a failure ends.
    fn refresh_at(&self, settings: &Settings) -> Option<Mono> {
        if self.in_flight {
            return None;
        }
        let known = self.known.as_ref()?;
        let mut at = known.at.plus(settings.ttl / 4 * 3);
        if let Some((_, until)) = &self.failed {
            at = at.max(*until);
        }
        let used_until = self.used_at().plus(settings.ttl * USE_LIFETIMES);
        (at < used_until).then_some(at)
    }

    fn is_worth_keeping(&self, settings: &Settings, now: Mono) -> bool {
        let known = self.known.as_ref().is_some_and(|it| now < it.at.plus(settings.stale_max));
        known || self.failed.as_ref().is_some_and(|(_, until)| now < *until)
    }

    fn used_at(&self) -> Mono {
        Mono::from_nanos(self.used_at.load(Ordering::Relaxed))
    }
}
