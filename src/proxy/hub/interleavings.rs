//! All orders of the steps in which a purge and what goes on beside it can happen.
//!
//! A step is what happens under one lock or in one thread without a wait; between two steps of one
//! thread any other may take its own. Journal, hub, shards and inboxes are the real ones; the
//! second tier and the origin are a number each: the version of the resource. What must hold in
//! every order: once the purge has been answered, no core, nor the hub, nor the second tier has the
//! version from before.

use std::time::Duration;

use super::*;
use crate::base::Wall;
use crate::cache::{Facts, Key, Ledger, LifetimeSource, Shard};
use crate::http::Fields;
use crate::proxy::inbox::{CoreMessage, Inbox};
use crate::proxy::journal::{Journal, Mark};

const KEY: &[u8] = b"k";
const NOW: Mono = Mono::from_nanos(1_000_000_000);
const OLD: u8 = 1;
const NEW: u8 = 2;

/// Everything that the threads share, and what each core has.
struct World {
    seed: Seed,
    ledger: Arc<Ledger>,
    hub: Arc<Hub<Entry>>,
    journal: Journal,
    cores: [Core; 2],
    second_tier: Option<u8>,
    origin: u8,
    /// An order that can't be: a thread waits for another that is not ready.
    impossible: bool,
}

struct Core {
    shard: Shard,
    inbox: Inbox,
    /// Within a stretch that it goes through without a wait, and so without looking at its inbox.
    busy: bool,
}

impl World {
    fn new(second_tier: Option<u8>) -> Self {
        let seed = Seed::fixed(1);
        let ledger = Arc::new(Ledger::new(u64::MAX));
        let core = || {
            let shard = Shard::new(8, Arc::clone(&ledger));
            Core { shard, inbox: Inbox::of_size(16), busy: false }
        };
        Self {
            hub: Hub::new(seed.clone()),
            journal: Journal::new(),
            cores: [core(), core()],
            seed,
            ledger,
            second_tier,
            origin: OLD,
            impossible: false,
        }
    }

    fn hash(&self) -> u64 {
        self.seed.hash(KEY)
    }

    fn entry(&self, version: u8) -> Arc<Entry> {
        let facts = Facts {
            response_time: Wall::EPOCH,
            date: Wall::EPOCH,
            initial_age: Duration::ZERO,
            lifetime: Duration::ZERO,
            stale_while_revalidate: None,
            stale_if_error: None,
            status: 200,
            lifetime_source: LifetimeSource::None,
            stale_forbidden: false,
            no_cache: false,
            immutable: false,
            has_validator: false,
            shareable: false,
        };
        let (key, body) = (Key::new(KEY, &self.seed), vec![version].into());
        Arc::new(Entry::new(key, facts, &Fields::new(), body, &self.ledger))
    }

    fn drain(&mut self, core: usize) {
        let Core { shard, inbox, .. } = &mut self.cores[core];
        inbox.drain(|message| match message {
            CoreMessage::Drop { hash, key } => drop(shard.remove(hash, &key)),
            CoreMessage::DropAll(entries) => {
                for key in entries.iter().map(|it| it.key()) {
                    shard.remove(key.hash(), key.bytes());
                }
            }
            CoreMessage::Clear => drop(shard.clear()),
            CoreMessage::Shed | CoreMessage::YieldIdle(_) => {}
        });
    }

    fn show(&mut self, core: usize, entry: &Arc<Entry>, published: Published) {
        if published == Published::Doomed {
            return;
        }
        if published == Published::Replaced {
            let message = CoreMessage::Drop { hash: entry.key().hash(), key: KEY.into() };
            self.cores[1 - core].inbox.send(message, None);
        }
        let _ = self.cores[core].shard.insert(Arc::clone(entry));
    }

    /// Has the hub forget the key and tells the cores; whether something was found.
    fn forget(&mut self) -> bool {
        let mut walk = self.hub.walk(&Reach::Key { hash: self.hash(), key: KEY });
        let mut all = Vec::new();
        while let Some(found) = self.hub.forget(&mut walk, &|key| key == KEY) {
            all.extend(found);
        }
        let found = !all.is_empty();
        let entries: Arc<[Arc<Entry>]> = all.into();
        for core in &self.cores {
            core.inbox.send(CoreMessage::DropAll(Arc::clone(&entries)), None);
        }
        found
    }

    /// A core looks at its inbox before it looks anything up, and is in no other stretch.
    fn look_at_inbox(&mut self, core: usize) {
        self.impossible |= self.cores[core].busy;
        self.drain(core);
    }

    /// Every core that holds the key holds what the hub shows.
    fn check_agreement(&mut self) {
        let (hash, live) = (self.hash(), self.hub.live(self.hash(), KEY));
        for core in 0..2 {
            self.drain(core);
            if let Some(held) = self.cores[core].shard.get(hash, KEY) {
                let shown = live.as_ref().is_some_and(|it| Arc::ptr_eq(it, held));
                assert!(shown, "core {core} holds another entry than the hub shows");
            }
        }
    }

    /// Waits until every core has looked at its inbox.
    fn await_cores(&mut self) {
        self.impossible |= self.cores.iter().any(|it| it.busy);
        (0..2).for_each(|core| self.drain(core));
    }

    /// What must hold once the purge has been answered and everybody is done.
    fn check(&mut self) {
        let is_new = |version: Option<u8>| version != Some(OLD);
        let (hash, live) = (self.hash(), self.hub.live(self.hash(), KEY));
        assert!(is_new(live.map(|it| it.body()[0])), "the hub shows what was purged");
        assert!(is_new(self.second_tier), "the second tier has what was purged");
        for core in 0..2 {
            self.drain(core);
            let held = self.cores[core].shard.get(hash, KEY).map(|it| it.body()[0]);
            assert!(is_new(held), "core {core} serves what was purged");
        }
        self.cores.iter_mut().for_each(|it| drop(it.shard.clear()));
        self.hub.sweep(NOW);
        assert!(self.hub.is_empty(), "something is left");
        assert_eq!(self.ledger.entries(), 0);
    }
}

/// A thread that takes a fixed number of steps.
trait Thread {
    fn steps(&self) -> usize;
    fn step(&mut self, number: usize, world: &mut World);
}

/// What a request has in hand between its steps.
#[derive(Default)]
struct Hand {
    lead: Option<Lead<Entry>>,
    mark: Option<Mark>,
    brought: Option<Arc<Entry>>,
    /// From the second tier: not to be put there again.
    stored: bool,
    published: Option<Published>,
}

/// A request on a core that leads: the second tier, else the origin. Then shown without a wait.
struct Leader(usize, Hand);

impl Thread for Leader {
    fn steps(&self) -> usize {
        6
    }

    fn step(&mut self, number: usize, world: &mut World) {
        let Self(core, hand) = self;
        match number {
            0 => {
                world.look_at_inbox(*core);
                let (hash, mark) = (world.hash(), world.journal.mark());
                if world.cores[*core].shard.get(hash, KEY).is_none()
                    && let Join::Lead(lead) = world.hub.join(hash, KEY, None, NOW)
                {
                    (hand.lead, hand.mark) = (Some(lead), Some(mark));
                }
            }
            1 => hand.read(world),
            2 => hand.fetch(world),
            3 => {
                world.look_at_inbox(*core);
                let spared = hand.mark.is_some_and(|it| world.journal.spared(it, KEY));
                if let (false, Some(brought)) = (spared, &hand.brought)
                    && let Some(lead) = hand.lead.take()
                {
                    lead.answer(brought, How::Fetched);
                }
                world.cores[*core].busy = hand.lead.is_some();
            }
            4 => {
                if let (Some(lead), Some(brought)) = (hand.lead.take(), &hand.brought) {
                    hand.published = Some(lead.publish(brought, brought, How::Fetched));
                }
            }
            _ => hand.show(*core, world),
        }
    }
}

/// A request on a core that goes alone, and whose answer proves storable.
struct Solo(usize, Hand);

impl Thread for Solo {
    fn steps(&self) -> usize {
        5
    }

    fn step(&mut self, number: usize, world: &mut World) {
        let Self(core, hand) = self;
        match number {
            0 => {
                world.look_at_inbox(*core);
                hand.mark = Some(world.journal.mark());
            }
            1 => hand.read(world),
            2 => hand.fetch(world),
            3 => {
                world.look_at_inbox(*core);
                let (Some(mark), Some(brought)) = (hand.mark, &hand.brought) else { return };
                let journal = &world.journal;
                let spared = || journal.spared(mark, KEY);
                hand.published = Some(world.hub.announce(world.hash(), brought, NOW, spared));
                world.cores[*core].busy = true;
            }
            _ => hand.show(*core, world),
        }
    }
}

/// A request on a core that takes what another core holds.
struct Reader(usize, Hand);

impl Thread for Reader {
    fn steps(&self) -> usize {
        2
    }

    fn step(&mut self, number: usize, world: &mut World) {
        let Self(core, hand) = self;
        if number == 0 {
            world.look_at_inbox(*core);
            hand.brought = world.hub.live(world.hash(), KEY);
            world.cores[*core].busy = hand.brought.is_some();
        } else {
            (hand.stored, hand.published) = (true, Some(Published::New));
            hand.show(*core, world);
        }
    }
}

/// A request on a core that takes from the second tier without a lead, as those do that gather
/// variants or go alone. Its stretch begins with the answer, without a look at the inbox.
struct Offerer(usize, Hand);

impl Thread for Offerer {
    fn steps(&self) -> usize {
        4
    }

    fn step(&mut self, number: usize, world: &mut World) {
        let Self(core, hand) = self;
        match number {
            0 => {
                world.look_at_inbox(*core);
                hand.mark = Some(world.journal.mark());
            }
            1 => hand.read(world),
            2 => {
                world.impossible |= world.cores[*core].busy;
                let (Some(mark), Some(brought)) = (hand.mark, hand.brought.take()) else { return };
                let journal = &world.journal;
                let spared = || journal.spared(mark, KEY);
                hand.brought = match world.hub.offer(world.hash(), &brought, NOW, spared) {
                    Offered::Shown => Some(brought),
                    Offered::Known(live) => Some(live),
                    Offered::Doomed => None,
                };
                hand.published = Some(Published::New);
                world.cores[*core].busy = true;
            }
            _ => hand.show(*core, world),
        }
    }
}

impl Hand {
    fn read(&mut self, world: &World) {
        self.brought = world.second_tier.map(|version| world.entry(version));
        self.stored = self.brought.is_some();
    }

    fn fetch(&mut self, world: &World) {
        self.brought.get_or_insert_with(|| world.entry(world.origin));
    }

    /// Into this core's shard, to the other core, into the second tier: the end of a stretch.
    fn show(&mut self, core: usize, world: &mut World) {
        if let (Some(brought), Some(published)) = (self.brought.take(), self.published.take()) {
            world.show(core, &brought, published);
            if published != Published::Doomed && !self.stored {
                world.second_tier = Some(brought.body()[0]);
            }
        }
        world.cores[core].busy = false;
    }
}

/// A change at the origin and the purge that follows it, in a thread of its own.
#[derive(Default)]
struct Purger {
    found: bool,
}

impl Thread for Purger {
    fn steps(&self) -> usize {
        8
    }

    fn step(&mut self, number: usize, world: &mut World) {
        match number {
            0 => world.origin = NEW,
            1 | 5 => world.journal.record(Arc::new(|key| key == KEY)),
            2 | 6 => self.found = world.forget(),
            3 => world.await_cores(),
            4 => world.second_tier = None,
            _ if self.found => world.await_cores(),
            _ => {}
        }
    }
}

/// Runs every order of the threads' steps; how many were possible.
fn every_order(second_tier: Option<u8>, threads: &dyn Fn() -> Vec<Box<dyn Thread>>) -> usize {
    let steps: Vec<usize> = threads().iter().map(|it| it.steps()).collect();
    let (mut order, mut possible) = (Vec::new(), 0);
    orders(&steps, &mut vec![0; steps.len()], &mut order, &mut |order| {
        let mut world = World::new(second_tier);
        let mut threads = threads();
        let mut taken = vec![0; threads.len()];
        for thread in order {
            threads[*thread].step(taken[*thread], &mut world);
            taken[*thread] += 1;
            if world.impossible {
                return;
            }
        }
        drop(threads);
        possible += 1;
        world.check();
    });
    possible
}

fn orders(
    steps: &[usize],
    taken: &mut Vec<usize>,
    order: &mut Vec<usize>,
    run: &mut dyn FnMut(&[usize]),
) {
    let mut ended = true;
    for thread in 0..steps.len() {
        if taken[thread] < steps[thread] {
            ended = false;
            taken[thread] += 1;
            order.push(thread);
            orders(steps, taken, order, run);
            order.pop();
            taken[thread] -= 1;
        }
    }
    if ended {
        run(order);
    }
}

fn leader(core: usize) -> Box<dyn Thread> {
    Box::new(Leader(core, Hand::default()))
}

fn solo(core: usize) -> Box<dyn Thread> {
    Box::new(Solo(core, Hand::default()))
}

fn reader(core: usize) -> Box<dyn Thread> {
    Box::new(Reader(core, Hand::default()))
}

fn offerer(core: usize) -> Box<dyn Thread> {
    Box::new(Offerer(core, Hand { stored: true, ..Hand::default() }))
}

fn purger() -> Box<dyn Thread> {
    Box::<Purger>::default()
}

#[test]
fn no_order_of_a_fetch_and_a_purge_keeps_what_was_purged() {
    for second_tier in [None, Some(OLD)] {
        let threads = [leader as fn(usize) -> Box<dyn Thread>, solo];
        for thread in threads {
            let possible = every_order(second_tier, &|| vec![thread(0), purger()]);
            assert!(possible > 500, "{possible} orders");
        }
    }
}

#[test]
fn no_order_of_a_reader_a_fetch_and_a_purge_keeps_what_was_purged() {
    for second_tier in [None, Some(OLD)] {
        let possible = every_order(second_tier, &|| vec![reader(1), solo(0), purger()]);
        assert!(possible > 10_000, "{possible} orders");
    }
}

#[test]
fn no_order_of_an_offer_from_the_second_tier_and_a_purge_keeps_what_was_purged() {
    let possible = every_order(Some(OLD), &|| vec![offerer(0), purger()]);
    assert!(possible > 100, "{possible} orders");
    let possible = every_order(Some(OLD), &|| vec![offerer(1), reader(0), purger()]);
    assert!(possible > 5_000, "{possible} orders");
}

#[test]
fn no_order_of_two_fetches_leaves_an_older_entry_beside_a_newer_one() {
    let threads: [&dyn Fn() -> Vec<Box<dyn Thread>>; 6] = [
        &|| vec![leader(0), leader(1)],
        &|| vec![leader(0), solo(1)],
        &|| vec![solo(0), solo(1), reader(1)],
        &|| vec![offerer(0), solo(1), reader(0)],
        &|| vec![offerer(0), leader(1)],
        &|| vec![offerer(0), offerer(1), reader(0)],
    ];
    for threads in threads {
        // Without a purge the version stays what it was: only that nothing is left over is checked.
        let steps: Vec<usize> = threads().iter().map(|it| it.steps()).collect();
        let mut order = Vec::new();
        orders(&steps, &mut vec![0; steps.len()], &mut order, &mut |order| {
            let mut world = World::new(None);
            world.origin = NEW;
            let (mut threads, mut taken) = (threads(), vec![0; steps.len()]);
            for thread in order {
                threads[*thread].step(taken[*thread], &mut world);
                taken[*thread] += 1;
            }
            drop(threads);
            if !world.impossible {
                world.check_agreement();
                world.check();
            }
        });
    }
}
