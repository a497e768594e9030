//! All state of one core, and what all cores share.
//!
//! [`Core`] lives on its thread and is never locked; [`Shared`] is touched only where a core can't
//! answer alone: the limiter (atomics), the hub (misses only), breakers, inboxes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::base::{Mono, Numbers, Seed, Wall};
use crate::cache::{Entry, Ledger, Shard};
use crate::limit::Limiter;
use crate::logs::{self, Access};
use crate::metrics::{CoreCells, Counter, Gauge};
use crate::net::{Errands, Resolver};
use crate::proxy::coding::Encoder;
use crate::proxy::helper::Helper;
use crate::proxy::hub::{Hub, Published};
use crate::proxy::inbox::{Acks, CoreMessage, Inbox};
use crate::proxy::journal::Journal;
use crate::proxy::origin::{Opening, Pool, UpstreamState};
use crate::proxy::plan::{Plan, Upstream};
use crate::store;

/// What all cores share.
pub struct Shared {
    /// The settings.
    pub plan: Plan,
    /// The seed of every hash.
    pub seed: Seed,
    /// Live entries and flights.
    pub hub: Arc<Hub<Entry>>,
    /// Bytes in memory.
    pub ledger: Arc<Ledger>,
    /// Who may ask how often.
    pub limiter: Limiter,
    /// By upstream.
    pub upstreams: Box<[UpstreamState]>,
    /// By core.
    pub inboxes: Box<[Inbox]>,
    /// By core.
    pub cells: Box<[Arc<CoreCells>]>,
    /// The second tier; `None` when it is off.
    pub store: Option<store::StoreHandle>,
    /// Names of upstreams.
    pub resolver: Resolver,
    /// TLS towards upstreams.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// When the process started.
    pub started: Mono,
    /// What was purged: what was looked up before must not be shown after.
    pub journal: Journal,
    /// For what would hold up a core.
    pub helper: Helper,
    /// For bodies whose other coding would.
    pub encoder: Encoder,
    /// The access log; `None` when it is off.
    pub access: Option<Arc<logs::Setup>>,
    /// What the cores must not wait for is done there.
    pub errands: Errands,
    /// Whether the process is going down.
    pub draining: AtomicBool,
    /// The driver the cores run on, for health.
    pub driver: std::sync::OnceLock<&'static str>,
}

impl Shared {
    /// What the cores share about an upstream.
    #[must_use]
    pub fn upstream(&self, upstream: &Upstream) -> &UpstreamState {
        &self.upstreams[usize::from(upstream.origin)]
    }
}

/// All state of one core.
pub struct Core {
    /// Its number.
    pub index: usize,
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Its part of L1.
    pub shard: RefCell<Shard>,
    /// Its access to L2.
    pub store: Option<Rc<store::Client>>,
    /// Its idle connections, by upstream.
    pub pools: Box<[Pool]>,
    /// Its counters.
    pub cells: Arc<CoreCells>,
    /// Its access log; `None` when it is off.
    pub access: Option<Access>,
    /// Where keys are built.
    pub key: RefCell<Vec<u8>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    ids: Numbers,
}

/// The two clocks, read once for a batch of requests.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For ages and lifetimes.
    pub wall: Wall,
    /// For rates and durations.
    pub mono: Mono,
}

impl Moment {
    /// Reads the clocks.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: crate::net::wall(), mono: crate::net::mono() }
    }
}

impl Core {
    /// A core's state. Call it on the core's thread, in its runtime.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let settings = &shared.plan.settings;
        let entries = if shared.plan.memory_cache { settings.cache.memory_cache_size } else { 0 };
        let entries = u32::try_from(entries).unwrap_or(u32::MAX - 1);
        let idle_timeout = settings.client.idle_conn_timeout;
        let pool = |it: &UpstreamState| {
            let opening = it.http2.then(Opening::default);
            Pool::new(index, Arc::clone(&it.permits), idle_timeout, opening)
        };
        Rc::new(Self {
            index,
            shard: RefCell::new(Shard::new(entries, Arc::clone(&shared.ledger))),
            store: shared.store.as_ref().map(|it| Rc::new(it.client())),
            pools: shared.upstreams.iter().map(pool).collect(),
            cells: Arc::clone(&shared.cells[index]),
            access: shared
                .access
                .as_ref()
                .map(|setup| Access::new(Arc::clone(setup), shared.seed.hash(&[index as u8]))),
            key: RefCell::default(),
            buffers: RefCell::default(),
            ids: Numbers::new(shared.seed.hash(&index.to_be_bytes())),
            shared,
        })
    }

    /// Its idle connections to an upstream.
    #[must_use]
    pub fn pool(&self, upstream: &Upstream) -> &Pool {
        &self.pools[usize::from(upstream.origin)]
    }

    /// The settings.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Does what other cores asked for. One atomic load when that is nothing.
    #[inline]
    pub fn drain_inbox(&self) {
        let inbox = &self.shared.inboxes[self.index];
        if inbox.is_pending() {
            inbox.drain(|message| self.on_message(message));
        }
    }

    fn on_message(&self, message: CoreMessage) {
        match message {
            CoreMessage::Drop { hash, key } => {
                self.shard.borrow_mut().remove(hash, &key);
            }
            CoreMessage::DropAll(entries) => {
                let mut shard = self.shard.borrow_mut();
                for key in entries.iter().map(|it| it.key()) {
                    shard.remove(key.hash(), key.bytes());
                }
            }
            CoreMessage::Clear => {
                let cleared = self.shard.borrow_mut().clear();
                self.shared.helper.discard(cleared);
            }
            CoreMessage::Shed => self.shed(),
            CoreMessage::YieldIdle(origin) => self.pools[usize::from(origin)].yield_idle(),
        }
    }

    /// Drops some of the oldest entries while the process is above its limit.
    fn shed(&self) {
        let evicted = self.shard.borrow_mut().shed(SHED_ENTRIES);
        self.cells.add(Counter::L1Evictions, evicted as u64);
    }

    /// Puts an entry into this core's part of L1, where it may be.
    pub fn promote(&self, entry: &Arc<Entry>) {
        if !self.holds(entry.body().len() as u64) {
            return;
        }
        let inserted = self.shard.borrow_mut().insert(Arc::clone(entry));
        self.cells.add(Counter::L1Evictions, inserted.evicted as u64);
        self.cells.add(Counter::L1Insertions, u64::from(inserted.kept));
        if inserted.bytes_over > 0 {
            // Others hold what is too much.
            for (index, inbox) in self.shared.inboxes.iter().enumerate() {
                if index != self.index {
                    inbox.ask_to_shed();
                }
            }
        }
    }

    /// Whether some tier takes a body of that length.
    #[must_use]
    pub fn takes(&self, bytes: u64) -> bool {
        self.store.is_some() || self.holds(bytes)
    }

    /// Whether memory takes a body of that length.
    #[must_use]
    pub fn holds(&self, bytes: u64) -> bool {
        let plan = self.plan();
        plan.memory_cache && bytes <= plan.memory_object_bytes_max
    }

    /// Makes an entry visible on this core and, where older ones are, gone from the others.
    pub fn show(&self, entry: &Arc<Entry>, published: Published) {
        match published {
            Published::Doomed => {}
            Published::New => self.promote(entry),
            Published::Replaced => {
                let hash = entry.key().hash();
                let key: Arc<[u8]> = entry.key().bytes().into();
                self.tell_others(&CoreMessage::Drop { hash, key });
                self.promote(entry);
            }
        }
    }

    /// Tells every other core, without waiting.
    pub fn tell_others(&self, message: &CoreMessage) {
        for (index, inbox) in self.shared.inboxes.iter().enumerate() {
            if index != self.index {
                inbox.send(message.clone(), None);
            }
        }
    }

    /// Tells every core, and waits until all have done it.
    pub async fn tell_all(&self, message: CoreMessage) {
        let acks = Acks::new();
        for inbox in &self.shared.inboxes {
            inbox.send(message.clone(), Some(acks.ack()));
        }
        self.drain_inbox();
        acks.all().await;
    }

    /// A buffer for reading, from the pool.
    #[must_use]
    pub fn buffer(&self) -> Vec<u8> {
        let pooled = self.buffers.borrow_mut().pop();
        pooled.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Whether the pool takes a buffer of that size.
    #[must_use]
    pub const fn takes_back(&self, buffer: &Vec<u8>) -> bool {
        buffer.capacity() >= BUFFER_BYTES && buffer.capacity() <= BUFFER_BYTES * 2
    }

    /// Gives a buffer back.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if self.takes_back(&buffer) && buffers.len() < BUFFERS_MAX {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// A number for the next request id, or for what else must not repeat: no two of a core are
    /// equal, and those of two cores begin at places that chance has chosen among 2^64. No secret.
    pub fn next_id(&self) -> u64 {
        self.ids.next()
    }

    /// Does what must be done now and then: closes idle connections, follows the inbox, keeps
    /// memory within its limits. A little at a time: clients are served in between.
    pub async fn housekeeping(self: Rc<Self>) {
        let mut sweep = Sweep::new(&self);
        loop {
            let inbox = &self.shared.inboxes[self.index];
            let more = sweep.cursor.is_some() || self.must_shed();
            let span = if more { TURN_SPAN } else { HOUSEKEEPING_SPAN };
            let _ = monoio::time::timeout(span, inbox.wait()).await;
            self.drain_inbox();
            self.sweep_pools();
            sweep.go_on(&self);
            self.shed();
            self.cells.set(Gauge::L1Entries, self.shard.borrow().len() as u64);
        }
    }

    fn must_shed(&self) -> bool {
        self.shared.ledger.bytes_over() > 0 && !self.shard.borrow().is_empty()
    }

    /// Closes idle connections that are of no use. Asks for the names of those that are, so that an
    /// origin that moves is followed.
    fn sweep_pools(&self) {
        for (pool, upstream) in self.pools.iter().zip(&self.plan().settings.upstreams) {
            let host = upstream.upstream.host();
            pool.sweep(self.shared.resolver.known(host));
            pool.yield_idle();
        }
    }
}

/// The removal of what is too old to be of use from a core's part of L1: a pass through all of it
/// every `cache.cleanup_interval`, in small steps.
struct Sweep {
    /// Where the pass under way goes on.
    cursor: Option<crate::cache::Cursor>,
    due: Mono,
}

impl Sweep {
    fn new(core: &Core) -> Self {
        Self { cursor: None, due: next_sweep(core) }
    }

    fn go_on(&mut self, core: &Core) {
        if self.cursor.is_none() && crate::net::mono() >= self.due {
            self.cursor = Some(crate::cache::Cursor::default());
            self.due = next_sweep(core);
        }
        let Some(cursor) = self.cursor else { return };
        let (now, plan) = (crate::net::wall(), core.plan());
        let mut shard = core.shard.borrow_mut();
        let too_old = |entry: &Entry| plan.keep_until(entry.key(), &entry.facts()) <= now;
        self.cursor = shard.sweep(cursor, SWEEP_ENTRIES, too_old).next;
    }
}

fn next_sweep(core: &Core) -> Mono {
    crate::net::mono().plus(core.plan().settings.cache.cleanup_interval)
}

/// Room for a head of usual size, or a pipeline of short ones: what a slow client costs.
const BUFFER_BYTES: usize = 4 * 1024;
/// Idle buffers a core keeps: 1 MiB.
const BUFFERS_MAX: usize = 256;
const HOUSEKEEPING_SPAN: Duration = Duration::from_millis(500);
/// Between two steps of work that is not done: a core gives it at most a twentieth of its time.
const TURN_SPAN: Duration = Duration::from_millis(2);
/// Entries looked at in a step: some 25 us where they are spread over memory.
const SWEEP_ENTRIES: usize = 256;
/// Entries dropped in a step: some 0.1 ms.
const SHED_ENTRIES: usize = 512;
