//! Looking up: L1, hub, L2, in this order, until something answers or somebody must ask the origin.
//!
//! Each round either answers or learns something (an index of variants, an entry that won't do);
//! the number of rounds is bounded.

use std::rc::Rc;
use std::sync::Arc;

use crate::cache::{CacheStatus, Entry, Key, Kind, Reason};
use crate::metrics::Counter;
use crate::net::{mono, wall};
use crate::proxy::alone::Alone;
use crate::proxy::core::Core;
use crate::proxy::deliver;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{Fault, Refusal};
use crate::proxy::fetch::Fetch;
use crate::proxy::fill::{self, Ground};
use crate::proxy::follow::{self, Followed, Watcher};
use crate::proxy::hub::{Join, Lead};
use crate::proxy::inquiry::Inquiry;
use crate::proxy::judge::{Verdict, forwarded, judge, may_share};
use crate::proxy::rescue;
use crate::proxy::variant;
use crate::store::GetOutcome;

/// Answers a request that the cache may answer.
pub async fn serve(core: &Rc<Core>, inquiry: Rc<Inquiry>, client: &impl Downstream) {
    let mut search = Search { core: Rc::clone(core), inquiry, index: None, unfit: None };
    for _ in 0..ROUNDS_MAX {
        match search.round(client).await {
            Round::Answered => return,
            Round::Again => {}
            Round::Alone(status) => return search.alone(status, client).await,
        }
    }
    // Others keep changing what is stored faster than this request can use it.
    let status = search.status(Shared::No);
    search.alone(status, client).await;
}

struct Search {
    core: Rc<Core>,
    inquiry: Rc<Inquiry>,
    /// The index of variants under the primary key.
    index: Option<Arc<Entry>>,
    /// What is stored and won't do as it is, and why.
    unfit: Option<(Arc<Entry>, Reason)>,
}

enum Round {
    Answered,
    Again,
    /// Ask the origin for this request alone.
    Alone(CacheStatus),
}

/// Whether a fetch was started for this request or for another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    Yes,
    No,
}

impl Search {
    async fn round(&mut self, client: &impl Downstream) -> Round {
        let core = Rc::clone(&self.core);
        core.drain_inbox();
        let local = self.local();
        if local.is_none() {
            core.cells.inc(Counter::L1Misses);
        }
        if let Some(entry) = local
            && let Some(round) = self.judge(&entry, None, client).await
        {
            return round;
        }
        let key = self.key();
        if !may_share(&self.inquiry, self.unfit.is_some()) {
            return self.unshared(&key, client).await;
        }
        let unfit = self.unfit.as_ref().map(|it| &it.0);
        match core.shared.hub.join(key.hash(), key.bytes(), unfit, mono()) {
            Join::Live(entry) => self.found(entry, client).await,
            Join::Follow(flight) if core.plan().coalescing => {
                let watcher = Watcher { flight, leader: false, expected: Some(key) };
                self.follow(watcher, client).await
            }
            Join::Follow(_) => self.forward(Round::Alone(self.status(Shared::No)), client).await,
            Join::Solo => {
                let status = CacheStatus::forwarded(Reason::MarkedUncacheable);
                self.forward(Round::Alone(status), client).await
            }
            Join::Later => self.later(client).await,
            Join::Lead(lead) => self.lead(&key, lead, client).await,
        }
    }

    /// What this core's part of L1 has for the request.
    fn local(&mut self) -> Option<Arc<Entry>> {
        let core = &self.core;
        let mut shard = core.shard.borrow_mut();
        let primary = &self.inquiry.primary;
        let found = shard.get(primary.hash(), primary.bytes()).cloned();
        if let Some(entry) = found {
            if matches!(entry.kind(), Kind::Content) {
                return self.unless_unfit(entry);
            }
            self.index = Some(entry);
        }
        let index = self.index.as_ref()?;
        for key in variant::keys(&core.shared.seed, &self.inquiry, index) {
            if let Some(entry) = shard.get(key.hash(), key.bytes()).cloned() {
                return self.unless_unfit(entry);
            }
        }
        None
    }

    fn unless_unfit(&self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let known = self.unfit.as_ref().is_some_and(|it| Arc::ptr_eq(&it.0, &entry));
        (!known).then_some(entry)
    }

    /// The key to ask others for: the newest variant's, where there are variants.
    fn key(&self) -> Key {
        if let Some((unfit, _)) = &self.unfit {
            return unfit.key().clone();
        }
        let index = self.index.as_ref();
        let keys = index.map(|it| variant::keys(&self.core.shared.seed, &self.inquiry, it));
        keys.and_then(|it| it.into_iter().next()).unwrap_or_else(|| self.inquiry.primary.clone())
    }

    /// Answers with an entry if the policy allows; `None` when the origin must be asked, and the
    /// entry is noted as unfit. `from` is the flight or tier it came from, if not this core's L1.
    async fn judge(
        &mut self,
        entry: &Arc<Entry>,
        from: Option<Counter>,
        client: &impl Downstream,
    ) -> Option<Round> {
        let inquiry = Rc::clone(&self.inquiry);
        let status = match judge(&inquiry, &entry.facts(), wall()) {
            Verdict::Serve(status) => status,
            Verdict::ServeAndRefresh(status) => {
                self.refresh(entry);
                status
            }
            Verdict::Ask(reason) => {
                self.unfit = Some((Arc::clone(entry), reason));
                return None;
            }
            Verdict::Alone(status) => return Some(Round::Alone(status)),
            Verdict::Refuse => {
                rescue::refuse(&self.core, &inquiry.task, Refusal::OnlyIfCached, client).await;
                return Some(Round::Answered);
            }
        };
        self.core.cells.inc(from.unwrap_or(Counter::L1Hits));
        deliver::entry(&self.core, &inquiry, entry, status, client).await;
        Some(Round::Answered)
    }

    /// Renews an entry in the background, once however many ask.
    fn refresh(&self, entry: &Arc<Entry>) {
        let (key, core) = (entry.key(), &self.core);
        let joined = core.shared.hub.join(key.hash(), key.bytes(), Some(entry), mono());
        if let Join::Lead(lead) = joined {
            core.cells.inc(Counter::BackgroundRefreshes);
            self.fetch(Some(Arc::clone(entry))).spawn(lead);
        }
    }

    fn fetch(&self, base: Option<Arc<Entry>>) -> Fetch {
        let ground = Ground::new(&self.core, self.index.clone());
        let inquiry = Rc::clone(&self.inquiry);
        Fetch { core: Rc::clone(&self.core), inquiry, base, ground }
    }

    /// An entry from another core or the second tier: an index is one step, a response the answer.
    async fn found(&mut self, entry: Arc<Entry>, client: &impl Downstream) -> Round {
        self.core.promote(&entry);
        if let Kind::VaryIndex(_) = entry.kind() {
            self.index = Some(entry);
            return Round::Again;
        }
        let answered = self.judge(&entry, Some(Counter::HubHits), client).await;
        answered.unwrap_or(Round::Again)
    }

    /// Answers from any tier, or asks the origin for this client alone.
    async fn unshared(&mut self, key: &Key, client: &impl Downstream) -> Round {
        let live = self.core.shared.hub.live(key.hash(), key.bytes());
        if let Some(entry) = live.and_then(|it| self.unless_unfit(it)) {
            return self.found(entry, client).await;
        }
        let ground = Ground::new(&self.core, None);
        if self.unfit.is_none()
            && let Some(entry) = self.second_tier(key).await
        {
            return self.found_stored(entry, &ground, client).await;
        }
        self.forward(Round::Alone(self.status(Shared::No)), client).await
    }

    async fn found_stored(
        &mut self,
        entry: Arc<Entry>,
        ground: &Ground,
        client: &impl Downstream,
    ) -> Round {
        let published = fill::announce(&self.core, &self.inquiry, ground, &entry);
        self.core.show(&entry, published);
        if let Kind::VaryIndex(_) = entry.kind() {
            self.index = Some(entry);
            return Round::Again;
        }
        self.judge(&entry, Some(Counter::L2Hits), client).await.unwrap_or(Round::Again)
    }

    /// The origin failed lately: the stale entry without another attempt, if it may.
    async fn later(&mut self, client: &impl Downstream) -> Round {
        let Some((stale, _)) = self.unfit.clone() else { return Round::Again };
        // The origin is not asked this time: no status of its can be told.
        if rescue::stale(&self.core, &self.inquiry, &stale, Fault::Dial, client).await.is_ok() {
            return Round::Answered;
        }
        self.forward(Round::Alone(self.status(Shared::No)), client).await
    }

    async fn lead(&mut self, key: &Key, lead: Lead<Entry>, client: &impl Downstream) -> Round {
        let mut ground = Ground::new(&self.core, self.index.clone());
        if self.unfit.is_none()
            && let Some(entry) = self.second_tier(key).await
        {
            if let Kind::VaryIndex(_) = entry.kind() {
                fill::promote_stored(&self.core, &self.inquiry, lead, &ground, &entry);
                self.index = Some(entry);
                return Round::Again;
            }
            let Verdict::Ask(reason) = judge(&self.inquiry, &entry.facts(), wall()) else {
                fill::promote_stored(&self.core, &self.inquiry, lead, &ground, &entry);
                let judged = self.judge(&entry, Some(Counter::L2Hits), client).await;
                return judged.unwrap_or(Round::Again);
            };
            self.core.cells.inc(Counter::L2Hits);
            // Shown, so that the next round asks the hub with it: it may know that the origin
            // failed lately and is not to be asked for this again yet.
            fill::promote_stored(&self.core, &self.inquiry, lead, &ground, &entry);
            self.unfit = Some((entry, reason));
            return Round::Again;
        }
        if self.inquiry.facts.control.only_if_cached {
            return self.forward(Round::Again, client).await;
        }
        ground.index.clone_from(&self.index);
        let base = self.unfit.as_ref().map(|it| Arc::clone(&it.0));
        let flight = Arc::clone(lead.flight());
        let inquiry = Rc::clone(&self.inquiry);
        Fetch { core: Rc::clone(&self.core), inquiry, base, ground }.spawn(lead);
        self.follow(Watcher { flight, leader: true, expected: None }, client).await
    }

    async fn second_tier(&self, key: &Key) -> Option<Arc<Entry>> {
        let store = self.core.store.as_ref()?;
        let journal = &self.core.shared.journal;
        let (mark, primary) = (journal.mark(), self.inquiry.primary.bytes());
        match store.get(key.digest(&self.inquiry.upstream(&self.core).name())).await {
            GetOutcome::Hit(row) if journal.spared(mark, primary) => {
                let expired = row.expired_at;
                let entry = fill::read(&self.core, row, key)?;
                Some(Arc::new(fill::expire(&self.core, entry, expired)))
            }
            // What is not known counts as a miss; the store counts what it shed.
            GetOutcome::Hit(_) | GetOutcome::Miss | GetOutcome::Unavailable(_) => {
                self.core.cells.inc(Counter::L2Misses);
                None
            }
        }
    }

    async fn follow(&mut self, watcher: Watcher, client: &impl Downstream) -> Round {
        let status = self.status(if watcher.leader { Shared::No } else { Shared::Yes });
        let followed = follow::follow(&self.core, &self.inquiry, watcher, status, client).await;
        match followed {
            Followed::Answered => Round::Answered,
            Followed::Again => Round::Again,
            Followed::Alone(status) => Round::Alone(status),
            Followed::Failed(fault, stale) => {
                let stale = stale.or_else(|| self.unfit.as_ref().map(|it| Arc::clone(&it.0)));
                let mut unused = None;
                if let Some(stale) = stale {
                    match rescue::stale(&self.core, &self.inquiry, &stale, fault, client).await {
                        Ok(()) => return Round::Answered,
                        Err(reason) => unused = Some(reason),
                    }
                }
                // The origin's own error is what this client must get; and the part it asked for
                // may be small where the whole is too large.
                let part = fault == Fault::TooLarge && self.inquiry.facts.range;
                if part || matches!(fault, Fault::Status(_)) {
                    return Round::Alone(self.status(Shared::No));
                }
                rescue::fault(&self.core, &self.inquiry, fault, unused, client).await;
                Round::Answered
            }
        }
    }

    /// Goes on to the origin, unless the request forbids it.
    async fn forward(&self, round: Round, client: &impl Downstream) -> Round {
        if self.inquiry.facts.forward().is_ok() {
            return round;
        }
        rescue::refuse(&self.core, &self.inquiry.task, Refusal::OnlyIfCached, client).await;
        Round::Answered
    }

    /// What will be said of an answer from the origin.
    fn status(&self, shared: Shared) -> CacheStatus {
        let unfit = self.unfit.as_ref().map(|it| it.1);
        let status = forwarded(unfit, self.index.is_some());
        CacheStatus { collapsed: shared == Shared::Yes, ..status }
    }

    async fn alone(self, status: CacheStatus, client: &impl Downstream) {
        let Self { core, inquiry, index, unfit } = self;
        let stored = unfit.map(|it| it.0);
        Alone { inquiry: &inquiry, index, stored, status }.run(&core, client).await;
    }
}

/// Enough for an index, a variant, a newer entry of another core, and a purge in between.
const ROUNDS_MAX: usize = 8;
