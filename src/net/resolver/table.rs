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
/// A look-up that takes longer is not waited for where older addresses are known: most take a few
/// milliseconds, and a name server that hangs is tried for 5 s and more.
const STALL: Duration = Duration::from_millis(200);
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
    /// Since when exactly one job is out for this name.
    in_flight: Option<Mono>,
    /// Not empty only while one is.
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
        name.start(host, now)
    }

    /// A look-up has ended: remembers what it said and answers all who waited for it.
    pub(super) fn on_answer(&mut self, host: &str, answer: Answer, now: Mono) {
        let Some(name) = self.names.get_mut(host) else { return };
        debug_assert!(name.in_flight.is_some(), "an answer nobody asked for");
        name.in_flight = None;
        match answer {
            Ok(addresses) => {
                name.known = Some(Known { addresses, at: now });
                name.failed = None;
            }
            Err(error) => name.failed = Some((error, now.plus(self.settings.failure_ttl))),
        }
        self.waiting -= name.answer_all(&self.settings, now);
    }

    /// Answers who has waited for a look-up that stalls, where older addresses are known.
    pub(super) fn on_time(&mut self, now: Mono) {
        for name in self.names.values_mut() {
            let due = name.gives_up_at(&self.settings).is_some_and(|at| at <= now);
            // They may have become too old while they were waited for.
            if due && name.is_stalled(&self.settings, now) {
                self.waiting -= name.answer_all(&self.settings, now);
            }
        }
    }

    /// Look-ups that are due to keep names in use fresh. Forgets names that are neither in use
    /// nor of any use.
    pub(super) fn next_jobs(&mut self, now: Mono) -> Vec<Job> {
        let settings = self.settings;
        self.names
            .retain(|_, name| name.in_flight.is_some() || name.is_worth_keeping(&settings, now));
        let due = |name: &Name| name.refresh_at(&settings).is_some_and(|at| at <= now);
        let due = self.names.iter_mut().filter(|(_, name)| due(name));
        due.filter_map(|(host, name)| name.start(host.clone(), now)).collect()
    }

    /// When [`Table::next_jobs`] is to be called at the latest.
    pub(super) fn next_wake(&self, now: Mono) -> Mono {
        let settings = &self.settings;
        let due = self.names.values().filter_map(|name| match name.in_flight {
            Some(_) => name.gives_up_at(settings),
            None => name.refresh_at(settings),
        });
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
        let idle = self.names.iter().filter(|(_, name)| name.in_flight.is_none());
        let oldest = idle.min_by_key(|(_, name)| name.used_at()).map(|(host, _)| host.clone());
        oldest.is_some_and(|host| self.names.remove(&host).is_some())
    }
}

impl Name {
    fn new() -> Self {
        let used_at = Arc::new(AtomicU64::new(0));
        Self { known: None, failed: None, in_flight: None, waiters: Vec::new(), used_at }
    }

    /// The answer that needs no look-up.
    fn answer(&self, settings: &Settings, now: Mono) -> Option<Answer> {
        let fresh = self.known.as_ref().filter(|known| now < known.at.plus(settings.ttl));
        if let Some(known) = fresh {
            return Some(Ok(known.addresses.clone()));
        }
        let failed = self.failed.as_ref().is_some_and(|(_, until)| now < *until);
        (failed || self.is_stalled(settings, now)).then(|| self.usable(settings, now))
    }

    /// Whether a look-up takes long, and older addresses serve meanwhile.
    fn is_stalled(&self, settings: &Settings, now: Mono) -> bool {
        let known = self.known.as_ref().is_some_and(|it| now < it.at.plus(settings.stale_max));
        known && self.in_flight.is_some_and(|since| since.plus(STALL) <= now)
    }

    /// When whoever waits is to be answered with older addresses.
    fn gives_up_at(&self, settings: &Settings) -> Option<Mono> {
        let (since, known) = (self.in_flight?, self.known.as_ref()?);
        let at = since.plus(STALL);
        (!self.waiters.is_empty() && at < known.at.plus(settings.stale_max)).then_some(at)
    }

    /// Answers all who wait, and tells how many those were.
    fn answer_all(&mut self, settings: &Settings, now: Mono) -> usize {
        let waiters = std::mem::take(&mut self.waiters);
        let count = waiters.len();
        let answer = self.usable(settings, now);
        for reply in waiters {
            reply.send(answer.clone());
        }
        count
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

    fn start(&mut self, host: Arc<str>, now: Mono) -> Option<Job> {
        if self.in_flight.is_some() {
            return None;
        }
        self.in_flight = Some(now);
        Some(Job(host))
    }

    /// When a name in use is to be looked up again: in the last quarter of its lifetime, or when
    /// the memory of a failure ends.
    fn refresh_at(&self, settings: &Settings) -> Option<Mono> {
        if self.in_flight.is_some() {
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
