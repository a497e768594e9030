//! Two threads, thousands of keys, and everything that can go wrong, at random from a seed: at the
//! end every follower has an answer and nothing is left in the hub.
//!
//! `STRESS_SEEDS` sets how many seeds are played.
//!
//! A follower is polled only when it was woken, so that a wake-up that is lost shows.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;

use super::tests::{Item, NOW, item};
use super::*;
use crate::http::{Fields, ResponseHead, Version};
use crate::proxy::flight::{Incoming, Stage};
use crate::proxy::growing::{Complete, Growing, Keep, Piece, Reader};

const KEYS: u64 = 3_000;
const TURNS: usize = 40_000;
/// Fetches and followers that a thread has under way.
const UNDER_WAY: usize = 64;
/// Entries that a thread holds, as its shard would.
const HELD: usize = 500;

/// A small generator (xorshift64*), so that a failing run can be played again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

type Waiting = Pin<Box<dyn Future<Output = ()>>>;

struct Follower {
    future: Waiting,
    flag: Arc<Flag>,
}

impl Follower {
    /// Polls it if it was woken; whether it is done.
    fn poll(&mut self) -> bool {
        if !self.flag.0.swap(false, Ordering::SeqCst) {
            return false;
        }
        let waker = Waker::from(Arc::clone(&self.flag));
        self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }
}

/// A fetch under way.
struct Fetch {
    lead: Lead<Item>,
    key: Vec<u8>,
    body: Option<Arc<Growing>>,
}

/// What the threads count together.
#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    cancelled: AtomicUsize,
    panics: AtomicUsize,
}

struct Player<'h> {
    hub: &'h Arc<Hub<Item>>,
    counts: Arc<Counts>,
    dice: Dice,
    fetches: Vec<Fetch>,
    followers: Vec<Follower>,
    held: Vec<Arc<Item>>,
    now: Mono,
}

impl Player<'_> {
    fn turn(&mut self) {
        self.now = self.now.plus(Duration::from_millis(self.dice.roll(3)));
        if self.fetches.len() >= UNDER_WAY || self.dice.roll(4) == 0 {
            self.end_a_fetch();
        }
        if self.followers.len() >= UNDER_WAY && self.dice.roll(2) == 0 {
            // A client that leaves.
            let at = self.dice.roll(self.followers.len() as u64) as usize;
            drop(self.followers.swap_remove(at));
            self.counts.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        let answered = &self.counts.answered;
        self.followers.retain_mut(|it| {
            let done = it.poll();
            answered.fetch_add(usize::from(done), Ordering::Relaxed);
            !done
        });
        match self.dice.roll(400) {
            0 => drop(self.hub.clear()),
            1..20 => self.purge(),
            20..30 => self.announce(),
            _ => self.ask(),
        }
    }

    fn key(&mut self) -> (u64, Vec<u8>) {
        // Some keys are asked for much more than others.
        let spread = if self.dice.roll(2) == 0 { KEYS } else { 20 };
        let key = self.dice.roll(spread).to_be_bytes().to_vec();
        (self.hub.seed.hash(&key), key)
    }

    fn ask(&mut self) {
        let (hash, key) = self.key();
        let unfit = self.held.last().filter(|it| it.key == key).cloned();
        match self.hub.join(hash, &key, unfit.as_ref(), self.now) {
            Join::Live(entry) => {
                assert_eq!(entry.key, key);
                self.hold(entry);
            }
            Join::Follow(flight) => self.follow(flight, key),
            Join::Lead(lead) => self.fetches.push(Fetch { lead, key, body: None }),
            Join::Solo | Join::Later => {}
        }
    }

    fn follow(&mut self, flight: Arc<Flight<Item>>, key: Vec<u8>) {
        let future = Box::pin(async move {
            match flight.stage(&mut 0).await {
                Stage::Hint(_) => panic!("nobody hints"),
                Stage::Streaming(incoming) => {
                    if let Some(reader) = incoming.body.reader() {
                        read(reader, &key).await;
                    }
                }
                Stage::Landed(Outcome::Entry(entry, _)) => assert_eq!(entry.key, key),
                Stage::Landed(Outcome::Private | Outcome::Failed(..)) => {}
            }
        });
        let flag = Arc::<Flag>::default();
        flag.0.store(true, Ordering::SeqCst);
        self.followers.push(Follower { future, flag });
    }

    /// Moves a fetch on, or ends it in one of the ways in which they end.
    fn end_a_fetch(&mut self) {
        if self.fetches.is_empty() {
            return;
        }
        let at = self.dice.roll(self.fetches.len() as u64) as usize;
        let Fetch { lead, key, body } = self.fetches.swap_remove(at);
        match (body, self.dice.roll(8)) {
            (None, 0 | 1) => {
                let body = Growing::new(Keep::All);
                lead.flight().stream(Arc::new(incoming(&body)));
                body.push(Bytes::copy_from_slice(&key));
                self.fetches.push(Fetch { lead, key, body: Some(body) });
            }
            (Some(body), 0 | 1) => {
                body.finish(Complete::CutShort);
                lead.fail(Fault::Truncated, None, self.now);
            }
            (body, outcome) => {
                if let Some(body) = body {
                    body.push(Bytes::copy_from_slice(&key));
                    body.finish(Complete::Whole);
                }
                self.end(lead, &key, outcome);
            }
        }
    }

    fn end(&mut self, lead: Lead<Item>, key: &[u8], outcome: u64) {
        let entry = item(key, 0);
        match outcome {
            0 | 1 => lead.fail(Fault::Dial, None, self.now),
            2 => lead.fail(Fault::Timeout, Some(entry), self.now),
            3 => {
                lead.detach(self.now.plus(Duration::from_millis(5)));
                lead.private();
            }
            4 => drop(lead),
            5 => {
                self.counts.panics.fetch_add(1, Ordering::Relaxed);
                let fetch = AssertUnwindSafe(move || {
                    let _lead = lead;
                    std::panic::resume_unwind(Box::new("on purpose"));
                });
                assert!(catch_unwind(fetch).is_err());
            }
            _ => {
                if lead.publish(&entry, &entry, How::Fetched) != Published::Doomed {
                    self.hold(entry);
                }
            }
        }
    }

    fn announce(&mut self) {
        let (hash, key) = self.key();
        let entry = item(&key, 1);
        let spared = self.dice.roll(4) > 0;
        let published = self.hub.announce(hash, &entry, self.now, || spared);
        assert_eq!(published == Published::Doomed, !spared);
        self.hold(entry);
    }

    fn purge(&mut self) {
        let (hash, key) = self.key();
        let mut walk = self.hub.walk(&Reach::Key { hash, key: &key });
        while let Some(found) = self.hub.forget(&mut walk, &|it| it == key) {
            assert!(found.iter().all(|it| it.key == key));
        }
    }

    fn hold(&mut self, entry: Arc<Item>) {
        if self.held.len() == HELD {
            let at = self.dice.roll(HELD as u64) as usize;
            self.held.swap_remove(at);
        }
        self.held.push(entry);
    }

    fn play(mut self) -> Vec<Follower> {
        for _ in 0..TURNS {
            self.turn();
        }
        while let Some(Fetch { lead, key, body }) = self.fetches.pop() {
            if let Some(body) = body {
                body.finish(Complete::CutShort);
            }
            let outcome = self.dice.roll(8);
            self.end(lead, &key, outcome);
        }
        self.followers
    }
}

/// Reads a growing body: pieces of the key, whole or cut.
async fn read(mut reader: Reader, key: &[u8]) {
    let mut pieces = 0;
    loop {
        match reader.next().await {
            Piece::Chunk(chunk) => {
                assert_eq!(chunk, key);
                pieces += 1;
            }
            Piece::End => {
                assert_eq!(pieces, 2, "ended before it was whole");
                return;
            }
            Piece::Truncated => return,
        }
    }
}

fn incoming(body: &Arc<Growing>) -> Incoming {
    let head = ResponseHead { status: 200, version: Version::Http11, fields: Fields::new() };
    let (length, gzip, shared, reason, facts) = (None, false, true, None, None);
    let received = crate::base::Wall::EPOCH;
    Incoming { head, length, gzip, shared, reason, facts, received, body: Arc::clone(body) }
}

/// A follower's future stays in its thread; its end is awaited there too.
fn await_all(mut followers: Vec<Follower>, counts: &Counts) {
    let start = std::time::Instant::now();
    while !followers.is_empty() {
        let before = followers.len();
        followers.retain_mut(|it| !it.poll());
        counts.answered.fetch_add(before - followers.len(), Ordering::Relaxed);
        let patient = start.elapsed() < Duration::from_secs(60);
        assert!(patient, "{} followers were never woken", followers.len());
        std::thread::yield_now();
    }
}

#[test]
fn every_follower_is_answered_and_nothing_is_left() {
    let seeds = std::env::var("STRESS_SEEDS").map_or(3, |it| it.parse().unwrap());
    for seed in 1..=seeds {
        let hub = Hub::new(Seed::fixed(seed));
        let counts = Arc::<Counts>::default();
        std::thread::scope(|scope| {
            for thread in 1..=2 {
                let (hub, counts) = (&hub, Arc::clone(&counts));
                scope.spawn(move || {
                    let player = Player {
                        hub,
                        counts: Arc::clone(&counts),
                        dice: Dice(seed * 2 + thread),
                        fetches: Vec::new(),
                        followers: Vec::new(),
                        held: Vec::new(),
                        now: NOW,
                    };
                    await_all(player.play(), &counts);
                });
            }
        });
        hub.sweep(NOW.plus(Duration::from_secs(3_600)));
        assert_eq!(hub.len(), 0, "seed {seed}");
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        assert!(of(&counts.answered) > 1_000, "only {} followers", of(&counts.answered));
        assert!(of(&counts.cancelled) > 100 && of(&counts.panics) > 100);
    }
}
