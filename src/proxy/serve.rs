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
use crate::proxy::cut::Held;
use crate::proxy::deliver;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{Fault, Refusal};
use crate::proxy::fetch::{Fetch, Why};
use crate::proxy::fill::{self, Ground};
use crate::proxy::follow::{self, Followed, Watcher};
use crate::proxy::hub::{Join, Lead, Offered, Traffic};
use crate::proxy::inquiry::Inquiry;
use crate::proxy::judge::{Verdict, forwarded, judge, may_share};
use crate::proxy::rescue;
use crate::proxy::variant::{self, is_newer};
use crate::store::GetOutcome;

/// Answers a request that the cache may answer.
pub async fn serve(core: &Rc<Core>, inquiry: Rc<Inquiry>, client: &impl Downstream) {
    let core = Rc::clone(core);
    let mut search = Search { core, inquiry, index: None, gathered: false, unfit: None };
    for _ in 0..ROUNDS_MAX {
        match search.round(client).await {
            Round::Answered => return,
            Round::Again => {}
            Round::Alone(status) => return search.alone(status, client).await,
        }
    }
    // Others keep changing what is stored faster than this request can use it.
    let status = search.status(Collapsed::No);
    search.alone(status, client).await;
}

struct Search {
    core: Rc<Core>,
    inquiry: Rc<Inquiry>,
    /// The index of variants under the primary key.
    index: Option<Arc<Entry>>,
    /// The other tiers were asked for what stands under each of its lists.
    gathered: bool,
    /// What is stored and won't do as it is, and why.
    unfit: Option<(Arc<Entry>, Reason)>,
}

/// What this core has.
#[derive(Default)]
struct Local {
    /// Responses that match, in no order.
    found: Vec<Tiered>,
    /// Keys under which the other tiers may have newer ones.
    missing: Vec<Key>,
}

/// An entry, and what counts the tier it came from.
type Tiered = (Arc<Entry>, Counter);

enum Round {
    Answered,
    Again,
    /// Ask the origin for this request alone.
    Alone(CacheStatus),
}

/// Whether a fetch was started for this request or for another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collapsed {
    Yes,
    No,
}

impl Search {
    async fn round(&mut self, client: &impl Downstream) -> Round {
        let core = Rc::clone(&self.core);
        core.drain_inbox();
        let Local { mut found, missing } = self.local();
        if !missing.is_empty() {
            match self.gather(&missing).await {
                Some(gathered) => found.extend(gathered),
                None => return Round::Again,
            }
        }
        let newest = |best: Tiered, it: Tiered| if is_newer(&it.0, &best.0) { it } else { best };
        let fit = found.into_iter().reduce(newest).filter(|it| !self.is_settled(&it.0));
        match fit {
            None => core.cells.inc(Counter::L1Misses),
            Some((entry, tier)) => {
                if let Some(round) = self.judge(&entry, tier, client).await {
                    return round;
                }
            }
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
            Join::Follow(_) => self.forward(Round::Alone(self.status(Collapsed::No)), client).await,
            Join::Solo => {
                let status = CacheStatus::forwarded(Reason::MarkedUncacheable);
                self.forward(Round::Alone(status), client).await
            }
            Join::Later => self.later(&key, client).await,
            Join::Lead(lead) => self.lead(&key, lead, client).await,
        }
    }

    /// What this core's part of L1 has for the request.
    fn local(&mut self) -> Local {
        let core = &self.core;
        let mut shard = core.shard.borrow_mut();
        let primary = &self.inquiry.primary;
        let mut local = Local::default();
        if let Some(entry) = shard.get(primary.hash(), primary.bytes()).cloned() {
            if !matches!(entry.kind(), Kind::VaryIndex(_)) {
                local.found.push((entry, Counter::L1Hits));
                return local;
            }
            self.index = Some(entry);
        }
        let Some(index) = &self.index else { return local };
        let keys = variant::keys(&core.shared.seed, &self.inquiry, index);
        let gathers = keys.len() > 1 && !self.gathered;
        for key in keys {
            match shard.get(key.hash(), key.bytes()).cloned() {
                Some(entry) => local.found.push((entry, Counter::L1Hits)),
                None if gathers => local.missing.push(key),
                None => {}
            }
        }
        local
    }

    /// What the other tiers have under these keys: where an index has several lists, the newest
    /// response may be anywhere. `None`: some of it was purged meanwhile.
    async fn gather(&mut self, keys: &[Key]) -> Option<Vec<Tiered>> {
        let core = Rc::clone(&self.core);
        let ground = Ground::new(&core, None);
        let mut found = Vec::new();
        for key in keys {
            if let Some(entry) = core.shared.hub.live(key.hash(), key.bytes()) {
                core.promote(&entry);
                found.push((entry, Counter::HubHits));
            } else if let Some(entry) = self.second_tier(key).await {
                found.push((self.show_stored(entry, &ground), Counter::L2Hits));
            }
        }
        self.gathered = true;
        ground.spares(&core, &self.inquiry.primary).then_some(found)
    }

    /// Whether it is known that an entry won't do: itself, or a newer one that it must not stand
    /// in for (RFC 9111 section 4).
    fn is_settled(&self, entry: &Arc<Entry>) -> bool {
        self.unfit.as_ref().is_some_and(|(unfit, _)| {
            Arc::ptr_eq(unfit, entry) || (unfit.key() != entry.key() && !is_newer(entry, unfit))
        })
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
    /// entry is noted as unfit. `tier` counts where it came from.
    async fn judge(
        &mut self,
        entry: &Arc<Entry>,
        tier: Counter,
        client: &impl Downstream,
    ) -> Option<Round> {
        let inquiry = Rc::clone(&self.inquiry);
        let status = match judge(&inquiry, entry, wall()) {
            Verdict::Serve(status) => status,
            Verdict::ServeAndRefresh(status) => {
                self.refresh(entry);
                status
            }
            Verdict::Ask(reason) => {
                self.unfit = Some((Arc::clone(entry), reason));
                return None;
            }
            Verdict::Alone(status) => {
                if let Held::Part(_) = Held::of(entry) {
                    // What comes may be put to it.
                    self.unfit = Some((Arc::clone(entry), Reason::Partial));
                }
                return Some(Round::Alone(status));
            }
            Verdict::Refuse => {
                rescue::refuse(&self.core, &inquiry.task, Refusal::OnlyIfCached, client).await;
                return Some(Round::Answered);
            }
        };
        self.core.cells.inc(tier);
        deliver::entry(&self.core, &inquiry, entry, status, client).await;
        Some(Round::Answered)
    }

    /// Renews an entry in the background, once however many ask.
    fn refresh(&self, entry: &Arc<Entry>) {
        let (key, core) = (entry.key(), &self.core);
        let joined = core.shared.hub.join(key.hash(), key.bytes(), Some(entry), mono());
        if let Join::Lead(lead) = joined {
            core.cells.inc(Counter::BackgroundRefreshes);
            let ground = Ground::new(core, self.index.clone());
            let (core, inquiry) = (Rc::clone(core), Rc::new(self.inquiry.renewing(entry)));
            let base = Some(Arc::clone(entry));
            Fetch { core, inquiry, base, ground, why: Why::Refresh }.spawn(lead);
        }
    }

    /// An entry from another core or the second tier: an index is one step, a response the answer.
    async fn found(&mut self, entry: Arc<Entry>, client: &impl Downstream) -> Round {
        self.core.promote(&entry);
        if let Kind::VaryIndex(_) = entry.kind() {
            self.index = Some(entry);
            return Round::Again;
        }
        let answered = self.judge(&entry, Counter::HubHits, client).await;
        answered.unwrap_or(Round::Again)
    }

    /// Answers from any tier, or asks the origin for this client alone.
    async fn unshared(&mut self, key: &Key, client: &impl Downstream) -> Round {
        let live = self.core.shared.hub.live(key.hash(), key.bytes());
        if let Some(entry) = live.filter(|it| !self.is_settled(it)) {
            return self.found(entry, client).await;
        }
        if self.unfit.is_none() {
            let ground = Ground::new(&self.core, None);
            if let Some(entry) = self.second_tier(key).await {
                return self.found_stored(entry, &ground, client).await;
            }
        } else if self.core.shared.hub.peek(key.hash(), key.bytes(), mono()) == Traffic::Waiting {
            return self.later(key, client).await;
        }
        self.forward(Round::Alone(self.status(Collapsed::No)), client).await
    }

    async fn found_stored(
        &mut self,
        entry: Arc<Entry>,
        ground: &Ground,
        client: &impl Downstream,
    ) -> Round {
        let entry = self.show_stored(entry, ground);
        if let Kind::VaryIndex(_) = entry.kind() {
            self.index = Some(entry);
            return Round::Again;
        }
        self.judge(&entry, Counter::L2Hits, client).await.unwrap_or(Round::Again)
    }

    /// Makes an entry of the second tier visible to all cores, unless another core has shown one
    /// meanwhile; the one that is visible now. One whose key was purged since `ground` is returned
    /// for this request and shown to nobody.
    fn show_stored(&self, entry: Arc<Entry>, ground: &Ground) -> Arc<Entry> {
        let hub = &self.core.shared.hub;
        let spared = || ground.spares(&self.core, &self.inquiry.primary);
        let shown = match hub.offer(entry.key().hash(), &entry, mono(), spared) {
            Offered::Shown => entry,
            Offered::Known(live) => live,
            Offered::Doomed => return entry,
        };
        self.core.promote(&shown);
        shown
    }

    /// The origin failed lately: the stale entry without another attempt, if it may.
    async fn later(&mut self, key: &Key, client: &impl Downstream) -> Round {
        let Some((stale, _)) = self.unfit.clone() else { return Round::Again };
        // The origin is not asked this time.
        if rescue::stale(&self.core, &self.inquiry, &stale, None, client).await.is_ok() {
            return Round::Answered;
        }
        // Together with all others for whom it won't do.
        self.core.shared.hub.press(key.hash(), key.bytes());
        self.forward(Round::Again, client).await
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
            let Verdict::Ask(reason) = judge(&self.inquiry, &entry, wall()) else {
                fill::promote_stored(&self.core, &self.inquiry, lead, &ground, &entry);
                let judged = self.judge(&entry, Counter::L2Hits, client).await;
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
        let core = Rc::clone(&self.core);
        Fetch { core, inquiry, base, ground, why: Why::Asked }.spawn(lead);
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
        let leader = watcher.leader;
        let status = self.status(if leader { Collapsed::No } else { Collapsed::Yes });
        let followed = follow::follow(&self.core, &self.inquiry, watcher, status, client).await;
        match followed {
            Followed::Answered => Round::Answered,
            Followed::Again => Round::Again,
            // Who follows may have said `only-if-cached`.
            Followed::Alone(status) => self.forward(Round::Alone(status), client).await,
            Followed::Failed(fault, stale) => {
                let stale = stale.or_else(|| self.unfit.as_ref().map(|it| Arc::clone(&it.0)));
                let mut unused = None;
                if let Some(stale) = stale {
                    let (core, inquiry, said) = (&self.core, &self.inquiry, fault.said());
                    match rescue::stale(core, inquiry, &stale, said, client).await {
                        Ok(()) => return Round::Answered,
                        Err(reason) => unused = Some(reason),
                    }
                }
                // The origin's own error is what this client must get; and the part it asked for
                // may be small where the whole is too large.
                let part = fault == Fault::TooLarge && self.inquiry.wants_range();
                // Nor is it asked twice for what one request may do only once (RFC 9110 section
                // 9.2.2).
                let asked = leader && !self.inquiry.task.head.method.is_safe();
                if !asked && (part || matches!(fault, Fault::Status(_))) {
                    return Round::Alone(self.status(Collapsed::No));
                }
                rescue::fault(&self.core, &self.inquiry, fault, unused, status, client).await;
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
    fn status(&self, collapsed: Collapsed) -> CacheStatus {
        let unfit = self.unfit.as_ref().map(|it| it.1);
        let status = forwarded(unfit, self.index.is_some());
        CacheStatus { collapsed: collapsed == Collapsed::Yes, ..status }
    }

    async fn alone(self, status: CacheStatus, client: &impl Downstream) {
        let Self { core, inquiry, index, unfit, .. } = self;
        let stored = unfit.map(|it| it.0);
        Alone { inquiry: &inquiry, index, stored, status }.run(&core, client).await;
    }
}

/// Enough for an index, a variant, a newer entry of another core, and a purge in between.
const ROUNDS_MAX: usize = 8;
