//! A seeded simulation: random origins, clients and clocks against the policy, with the smallest
//! cache around it that can work.
//!
//! The origin knows what it meant (`origin::Truth`), not only what it wrote, so that the judge
//! never asks the code under test. Each answer from the store is judged (`judge`): was it allowed
//! to be stored, is it fresh or may it be stale, is it the right variant, is it this client's, does
//! its age only grow. A seed replays a run; `SIMULATION_SEEDS` sets how many are played.

mod judge;
mod origin;

use std::collections::HashMap;

use crate::base::Wall;
use crate::cache::facts::{Exchange, Facts};
use crate::cache::reason::Reason;
use crate::cache::request::RequestFacts;
use crate::cache::reuse::{Reuse, reuse, stale_on_error};
use crate::cache::sample::{NOW, secs};
use crate::cache::settings::Settings;
use crate::cache::simulation::judge::{How, Judge};
use crate::cache::simulation::origin::{Answer, Client, Origin, Random, Truth};
use crate::cache::storable::{storable, stored_fields};
use crate::cache::update::{HeadUpdate, Keep, head_update, update};
use crate::cache::validate::{conditional_request, selects, unconditional_request};
use crate::cache::vary::{AcceptEncoding, Vary, VarySpec, secondary_key_of};
use crate::cache::{invalidates, reuse::is_error};
use crate::http::{Fields, Method};

/// A stored response, with what its origin meant by it.
#[derive(Clone)]
struct Stored {
    fields: Fields,
    facts: Facts,
    truth: Truth,
}

/// The cache around the policy: the lists seen for each URI, one response for each key.
struct World {
    random: Random,
    now: Wall,
    settings: Settings,
    origin: Origin,
    /// No list is one too: every request agrees in it.
    specs: HashMap<usize, Vec<Option<VarySpec>>>,
    stored: HashMap<(usize, Vec<u8>), Stored>,
    judge: Judge,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let settings = Settings {
            ttl: secs(random.pick(&[0, 30, 300])),
            negative_ttl: secs(random.pick(&[0, 10])),
            stale_if_error: secs(random.pick(&[0, 60])),
            stale_while_revalidate: secs(random.pick(&[0, 20])),
            offline: random.one_in(4),
            ..Settings::default()
        };
        Self {
            random,
            now: NOW,
            settings,
            origin: Origin::default(),
            specs: HashMap::new(),
            stored: HashMap::new(),
            judge: Judge::default(),
        }
    }

    fn step(&mut self) {
        self.now = self.now.plus(std::time::Duration::from_millis(self.random.below(20_000)));
        if self.random.one_in(80) {
            // Somebody sets the clock back.
            self.now = self.now.minus(secs(self.random.below(300)));
            self.judge.clock_set_back();
        }
        if self.random.one_in(10) {
            self.origin.up = !self.origin.up || self.random.one_in(2);
        }
        let client = Client::random(&mut self.random);
        if self.random.one_in(12) {
            self.unsafe_request(client.uri);
        } else if self.random.one_in(12) {
            self.head(&client);
        } else {
            self.get(&client);
        }
    }

    /// RFC 9111 section 4.4.
    fn unsafe_request(&mut self, uri: usize) {
        let status = self.random.pick(&[200, 204, 303, 404, 500]);
        if invalidates(&Method::Post, status) {
            self.stored.retain(|(stored, _), _| *stored != uri);
            self.judge.invalidated(uri, self.origin.responses);
        }
        if status < 400 {
            self.origin.change(uri);
            self.judge.must_be_newer(uri, self.origin.responses);
        }
    }

    /// RFC 9111 section 4.3.5: a HEAD that goes to the origin.
    fn head(&mut self, client: &Client) {
        let request = RequestFacts::parse(&Method::Head, &client.fields);
        let Some(stored) = self.selected(client).filter(|_| !request.control.no_store) else {
            return;
        };
        let (answer, exchange) = self.ask(client, &client.fields.clone());
        let Some(answer) = answer else { return };
        let (status, fields, head) = (stored.truth.status, &stored.fields, &answer.head);
        let told = head_update(status, fields, None, head, exchange);
        self.judge.head_told(&stored.truth, &answer.truth, told);
        match told {
            HeadUpdate::Ignore => {}
            HeadUpdate::Invalidate => self.remove(client.uri, &stored),
            HeadUpdate::Update => {
                self.apply(client, &request.as_get(), &stored, &answer, exchange);
            }
        }
    }

    fn get(&mut self, client: &Client) {
        let request = RequestFacts::parse(&Method::Get, &client.fields);
        if let Err(reason) = request.lookup(&self.settings) {
            self.judge.counts.bypassed += 1;
            assert_eq!(reason, Reason::RequestNoStore);
            return;
        }
        let Some(stored) = self.selected(client) else {
            return match request.forward() {
                Ok(()) => {
                    self.judge.may_ask(client);
                    self.fetch(client, &request);
                }
                Err(_) => self.judge.counts.refused += 1,
            };
        };
        match reuse(&request, &stored.facts, &self.settings, self.now) {
            Reuse::Fresh => self.serve(client, &stored, How::Fresh),
            Reuse::Stale(_) => self.serve(client, &stored, How::MaxStale),
            Reuse::StaleWhileRevalidate => {
                self.serve(client, &stored, How::WhileRevalidate);
                self.validate(client, &request, &stored, None);
            }
            Reuse::Validate(_) => {
                self.judge.may_ask(client);
                self.validate(client, &request, &stored, Some(()));
            }
            Reuse::Refuse(reason) => {
                assert_eq!(reason, Reason::OnlyIfCached);
                self.judge.counts.refused += 1;
            }
            Reuse::Bypass(reason) => panic!("looked up in spite of {reason:?}"),
        }
    }

    /// Asks the origin about what is stored; `client_waits` is none for a background refresh.
    fn validate(
        &mut self,
        client: &Client,
        request: &RequestFacts,
        stored: &Stored,
        client_waits: Option<()>,
    ) {
        let mut fields = client.fields.clone();
        conditional_request(&mut fields, &stored.fields, self.now);
        let (answer, exchange) = self.ask(client, &fields);
        match answer {
            Some(answer) if answer.head.status == 304 => {
                if selects(&stored.fields, &answer.head, self.now) {
                    self.apply_304(client, request, stored, &answer, exchange);
                } else {
                    assert!(!answer.about(stored), "a 304 about the stored response was refused");
                    self.judge.counts.other_variant += 1;
                    self.fetch(client, request);
                }
            }
            Some(answer) if !is_error(answer.head.status) => {
                self.store(client, request, &answer, exchange);
            }
            _ if client_waits.is_some() => self.fail(client, request, stored),
            _ => {}
        }
    }

    fn apply_304(
        &mut self,
        client: &Client,
        request: &RequestFacts,
        stored: &Stored,
        answer: &Answer,
        exchange: Exchange,
    ) {
        assert!(answer.about(stored), "a 304 about another response was taken for this one");
        self.apply(client, request, stored, answer, exchange);
    }

    /// Updates what is stored from a head that is about it.
    fn apply(
        &mut self,
        client: &Client,
        request: &RequestFacts,
        stored: &Stored,
        answer: &Answer,
        exchange: Exchange,
    ) {
        let (status, fields) = (stored.truth.status, &stored.fields);
        let updated = update(request, status, fields, &answer.head, exchange, &self.settings);
        self.judge.counts.updated += 1;
        match updated.keep {
            Keep::Replace => {
                let truth = stored.truth.updated_by(answer.truth.clone());
                let renewed = Stored { fields: updated.fields, facts: updated.facts, truth };
                // Its new Vary may be another list: then it moves.
                self.remove(client.uri, stored);
                self.insert(client, renewed);
            }
            Keep::Leave(_) => {}
            Keep::Remove(reason) => {
                let cookie = reason == Reason::SetCookie && answer.truth.set_cookie;
                assert!(!cookie, "a new cookie is for its client alone");
                self.remove(client.uri, stored);
            }
        }
    }

    /// The origin failed: 4.2.4 and 4.3.3.
    fn fail(&mut self, client: &Client, request: &RequestFacts, stored: &Stored) {
        if stale_on_error(request, &stored.facts, &self.settings, self.now).is_ok() {
            self.serve(client, stored, How::OnError);
        } else {
            self.judge.counts.failed += 1;
        }
    }

    fn fetch(&mut self, client: &Client, request: &RequestFacts) {
        let mut fields = client.fields.clone();
        unconditional_request(&mut fields);
        let (answer, exchange) = self.ask(client, &fields);
        if let Some(answer) = answer {
            assert_ne!(answer.head.status, 304, "an unconditional request got a 304");
            self.store(client, request, &answer, exchange);
        }
    }

    fn ask(&mut self, client: &Client, fields: &Fields) -> (Option<Answer>, Exchange) {
        let requested = self.now;
        self.now = self.now.plus(std::time::Duration::from_millis(self.random.below(3_000)));
        let exchange = Exchange { requested, responded: self.now };
        (self.origin.answer(client, fields, exchange, &mut self.random), exchange)
    }

    fn store(
        &mut self,
        client: &Client,
        request: &RequestFacts,
        answer: &Answer,
        exchange: Exchange,
    ) {
        match storable(request, &answer.head, exchange, &self.settings) {
            Ok(facts) => {
                self.judge.counts.stored += 1;
                let fields = stored_fields(&answer.head, exchange);
                self.insert(client, Stored { fields, facts, truth: answer.truth.clone() });
            }
            Err(reason) => {
                self.judge.not_stored(reason);
            }
        }
    }

    fn insert(&mut self, client: &Client, stored: Stored) {
        let spec = match Vary::of(&stored.fields) {
            Vary::None => None,
            Vary::On(spec) => Some(spec),
            other => panic!("stored in spite of {other:?}"),
        };
        let key = key(client, spec.as_ref());
        let specs = self.specs.entry(client.uri).or_default();
        if !specs.contains(&spec) {
            specs.push(spec);
        }
        self.stored.insert(key, stored);
    }

    fn remove(&mut self, uri: usize, stored: &Stored) {
        self.stored.retain(|(of, _), it| *of != uri || it.truth.id != stored.truth.id);
    }

    /// The newest of what matches the request (RFC 9111 section 4).
    fn selected(&self, client: &Client) -> Option<Stored> {
        let specs = self.specs.get(&client.uri)?;
        let found = specs.iter().filter_map(|it| self.stored.get(&key(client, it.as_ref())));
        found
            .reduce(|best, it| if it.facts.is_newer_than(&best.facts) { it } else { best })
            .cloned()
    }

    fn serve(&mut self, client: &Client, stored: &Stored, how: How) {
        let others = self.stored.iter().filter(|((uri, _), _)| *uri == client.uri);
        self.judge.newest(client, stored, others.map(|(_, it)| &it.truth));
        self.judge.served(client, stored, how, &self.settings, self.now);
    }
}

fn key(client: &Client, spec: Option<&VarySpec>) -> (usize, Vec<u8>) {
    let mut key = Vec::new();
    if let Some(spec) = spec {
        key.extend_from_slice(spec.as_str().as_bytes());
        key.push(b'\n');
        secondary_key_of(spec, AcceptEncoding::Selects, &client.fields, &mut key);
    }
    (client.uri, key)
}

fn run(seed: u64, steps: usize) -> judge::Counts {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.judge.counts
}

#[test]
fn no_answer_breaks_a_rule_whatever_origin_client_and_clock_do() {
    let mut total = judge::Counts::default();
    let seeds = std::env::var("SIMULATION_SEEDS").map_or(200, |it| it.parse().unwrap());
    for seed in 0..seeds {
        let counts = std::panic::catch_unwind(|| run(seed, 400));
        total.add(&counts.unwrap_or_else(|_| panic!("replay with run({seed}, 400)")));
    }
    // A world in which little happens proves little.
    total.assert_everything_happened();
}

#[test]
fn a_seed_replays_its_run() {
    assert_eq!(run(7, 300), run(7, 300));
}
