//! Random requests of all kinds against an origin whose answers are a function of target, selected
//! request fields and version: every answer must be one that the origin gave for that selection,
//! whole, within its freshness or marked stale, and no older than the last change that was
//! confirmed.
//!
//! A seed chooses resources, requests, outages and purges (the threads' order is their own).
//! `TRUTH_SEED` and `TRUTH_SECS` set them for longer runs by hand.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::client::{Client, request};
use support::{Connection, Metrics, Origin, Proxy, Request, Response, Setup, answer};

const CLIENTS: u64 = 10;
const RESOURCES: u64 = 20;
/// About the length of a line.
const LINE: usize = 1_000;

/// A small generator (xorshift64*).
struct Dice(u64);

impl Dice {
    fn of(seed: impl Display) -> Self {
        let text = format!("{seed}");
        Self(text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3) | 1
        }))
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// What is always so of a resource.
#[derive(Clone, Copy, Debug)]
struct Resource {
    control: &'static str,
    vary: &'static [&'static str],
    tag: &'static str,
    bytes: usize,
    chunked: bool,
}

impl Resource {
    fn of(number: u64, seed: u64) -> Self {
        let mut dice = Dice::of(format_args!("{seed} resource {number}"));
        let large = number % 10 == 9;
        Self {
            control: match large {
                true => dice.pick(&["max-age=2", "max-age=60", "public, max-age=3"]),
                false => dice.pick(&CONTROLS),
            },
            vary: dice.pick(&[&[], &[], &["One"], &["One", "Two"]]),
            tag: if large { "\"" } else { dice.pick(&["\"", "\"", "W/\"", ""]) },
            bytes: if large { 5_000_000 } else { dice.pick(&[0, 300, 3_000, 70_000, 300_000]) },
            chunked: !large && dice.one_in(3),
        }
    }

    /// Seconds for which an answer is fresh.
    fn lifetime(&self) -> u64 {
        let stated = |name| self.control.split(", ").find_map(|it| it.strip_prefix(name));
        stated("s-maxage=").or(stated("max-age=")).map_or(0, |it| it.parse().unwrap())
    }

    /// What of a request chooses the answer.
    fn selection(&self, field: impl Fn(&str) -> Option<String>) -> String {
        let value = |name: &&str| field(name).unwrap_or_else(|| "none".to_owned());
        self.vary.iter().map(value).collect::<Vec<_>>().join(",")
    }

    /// The one right body, in lines that have their number: a line out of place shows. Its length
    /// tells versions apart, so that no HEAD takes one for another.
    fn body(&self, target: &str, version: u64, selection: &str) -> Vec<u8> {
        let text = format!("{target} v{version} {selection}|");
        let length = text.len() + self.bytes + usize::try_from(version).unwrap();
        let line = text.repeat(LINE / text.len());
        let mut body = Vec::with_capacity(length + LINE);
        for number in (0..).take_while(|it| it * line.len() < length) {
            body.extend(format!("{number}").bytes());
            body.extend_from_slice(line.as_bytes());
        }
        body.truncate(length);
        body
    }

    fn etag(&self, target: &str, version: u64, selection: &str) -> Option<String> {
        let tag = || format!("{}{target}.{version}.{selection}\"", self.tag);
        (!self.tag.is_empty()).then(tag)
    }
}

const CONTROLS: [&str; 12] = [
    "max-age=1",
    "max-age=2",
    "max-age=60",
    "max-age=60, public",
    "max-age=0",
    "max-age=1, stale-while-revalidate=2",
    "max-age=2, must-revalidate",
    "s-maxage=1, max-age=60",
    "max-age=1, stale-if-error=0",
    "no-cache",
    "no-store",
    "private, max-age=60",
];

/// What origin and clients share.
struct World {
    seed: u64,
    /// Of each target; missing: the first.
    versions: Mutex<HashMap<String, u64>>,
    /// Of each target: the last one that a client was told of.
    confirmed: Mutex<HashMap<String, u64>>,
    /// The last ones that were told.
    tags: Mutex<HashMap<String, String>>,
    down: AtomicBool,
    over: AtomicBool,
    luck: AtomicU64,
    /// How often what happened.
    seen: Mutex<BTreeMap<String, u64>>,
}

impl World {
    fn resource(&self, target: &str) -> Resource {
        let number = target.trim_start_matches("/r").split('?').next().unwrap();
        Resource::of(number.parse().unwrap(), self.seed)
    }

    fn play(&self, connection: &mut Connection) {
        while let Some(asked) = connection.request() {
            let mut dice =
                Dice::of(format_args!("luck {}", self.luck.fetch_add(1, Ordering::SeqCst)));
            if self.down.load(Ordering::SeqCst) {
                if dice.one_in(2) {
                    return connection.reset();
                }
                connection.send(answer(503, &[("Down", "1")], "down"));
                continue;
            }
            if !self.reply(connection, &asked, &mut dice) {
                return;
            }
        }
    }

    /// Answers; whether the connection can go on.
    fn reply(&self, connection: &mut Connection, asked: &Request, dice: &mut Dice) -> bool {
        let (resource, target) = (self.resource(&asked.target), &asked.target);
        let version = {
            let mut versions = self.versions.lock().unwrap();
            let version = versions.entry(target.clone()).or_insert(1);
            *version += u64::from(!matches!(&*asked.method, "GET" | "HEAD"));
            *version
        };
        let number = version.to_string();
        if !matches!(&*asked.method, "GET" | "HEAD") {
            return connection.send(answer(204, &[("Version", &number)], ""));
        }
        let selection = resource.selection(|name| asked.field(name).map(str::to_owned));
        let (body, tag) = (
            resource.body(target, version, &selection),
            resource.etag(target, version, &selection),
        );
        let names = resource.vary.join(", ");
        let mut fields = vec![("Cache-Control", resource.control), ("Version", &number)];
        fields.extend(tag.as_deref().map(|it| ("ETag", it)));
        fields.extend((!names.is_empty()).then_some(("Vary", names.as_str())));
        if tag.is_some() && asked.field("If-None-Match") == tag.as_deref() {
            return connection.send(answer(304, &fields, ""));
        }
        let holds = asked.field("If-Range").is_none_or(|it| Some(it) == tag.as_deref());
        let span = asked.field("Range").filter(|_| holds && asked.method == "GET");
        let span = span.and_then(|it| span_of(it, body.len()));
        let told = span.map(|(first, last)| format!("bytes {first}-{last}/{}", body.len()));
        fields.extend(told.as_deref().map(|it| ("Content-Range", it)));
        let (status, sent) = match span {
            Some((first, last)) => (206, &body[first..=last]),
            None => (200, &body[..]),
        };
        let mut bytes = answer(status, &fields, sent);
        let head = bytes.len() - sent.len();
        if asked.method == "HEAD" {
            bytes.truncate(head);
        } else if dice.one_in(40) {
            // It ends early.
            connection.send(&bytes[..head + sent.len() / 2]);
            connection.close();
            return false;
        } else if resource.chunked {
            let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
            let length = format!("Content-Length: {}", sent.len());
            bytes = text.replace(&length, "Transfer-Encoding: chunked").into_bytes();
            for chunk in sent.chunks(20_000) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        }
        connection.send(bytes)
    }

    fn floor(&self, target: &str) -> u64 {
        self.confirmed.lock().unwrap().get(target).copied().unwrap_or(1)
    }
}

/// One range of bytes, where it is one and lies within the body.
fn span_of(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first, last) {
        ("", count) => (length.saturating_sub(count.parse().ok()?), length - 1),
        (first, "") => (first.parse().ok()?, length - 1),
        (first, last) => (first.parse().ok()?, last.parse().ok()?),
    };
    (first <= last && first < length).then_some((first, last.min(length - 1)))
}

/// A client's request.
#[derive(Debug)]
struct Asking {
    method: &'static str,
    target: String,
    fields: Vec<(&'static str, String)>,
}

impl Asking {
    fn roll(dice: &mut Dice, world: &World) -> Self {
        let number = dice.roll(RESOURCES).min(dice.roll(RESOURCES));
        let target = format!("/r{number}{}", dice.pick(&["", "", "?a"]));
        let method = match dice.roll(100) {
            0..5 => dice.pick(&["PUT", "DELETE"]),
            5..12 => "HEAD",
            _ => "GET",
        };
        let mut fields = Vec::new();
        let mut add = |name, value: &str| fields.push((name, value.to_owned()));
        if dice.one_in(2) {
            add("One", dice.pick(&["1", "2"]));
        }
        if dice.one_in(2) {
            add("Two", dice.pick(&["x", "y"]));
        }
        if dice.one_in(8) {
            add("Cache-Control", dice.pick(&REQUESTS));
        }
        if dice.one_in(10) {
            add("Authorization", dice.pick(&["Bearer a", "Bearer b"]));
        }
        let tag = world.tags.lock().unwrap().get(&tagged(&target, &fields)).cloned();
        if let Some(tag) = tag.filter(|_| matches!(method, "GET" | "HEAD") && dice.one_in(4)) {
            fields.push(("If-None-Match", tag));
        }
        let large = Resource::of(number, world.seed).bytes > 1_000_000;
        if method == "GET" && (dice.one_in(6) || (large && !dice.one_in(12))) {
            let first = dice.roll(8) * 500_000;
            let last = first + dice.pick(&[9, 499_999, 1_500_000]);
            let short = dice.pick(&["bytes=0-9", "bytes=5-", "bytes=-7"]).to_owned();
            fields.push(("Range", if large { format!("bytes={first}-{last}") } else { short }));
        }
        Self { method, target, fields }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut fields: Vec<_> = self.fields.iter().map(|it| (it.0, it.1.as_str())).collect();
        let body = if self.method == "PUT" { "{}" } else { "" };
        fields.extend((self.method == "PUT").then_some(("Content-Type", "application/json")));
        request(self.method, &format!("/api{}", self.target), &fields, body)
    }
}

/// What a tag was told for.
fn tagged(target: &str, fields: &[(&str, String)]) -> String {
    let chosen = fields.iter().filter(|it| matches!(it.0, "One" | "Two"));
    chosen.fold(target.to_owned(), |key, it| format!("{key} {}={}", it.0, it.1))
}

const REQUESTS: [&str; 7] = [
    "no-cache",
    "max-age=0",
    "min-fresh=1",
    "max-stale",
    "max-stale=1",
    "no-store",
    "only-if-cached",
];

/// One client: asks until it is over.
fn ask_on(world: &World, proxy: &Proxy, number: u64) {
    let mut dice = Dice::of(format_args!("{} client {number}", world.seed));
    let mut client = proxy.connect();
    while !world.over.load(Ordering::SeqCst) {
        let asking = Asking::roll(&mut dice, world);
        let floor = world.floor(&asking.target);
        client = match exchange(client, &asking, dice.one_in(50)) {
            Ok((client, response)) => {
                check(world, &asking, floor, &response);
                if let Some(tag) = response.field("ETag") {
                    let chosen = tagged(&asking.target, &asking.fields);
                    world.tags.lock().unwrap().insert(chosen, tag.to_owned());
                }
                client
            }
            Err(()) => proxy.connect(),
        };
    }
}

/// An answer, and the connection if it goes on.
fn exchange(mut client: Client, asking: &Asking, leaves: bool) -> Result<(Client, Response), ()> {
    client.try_send(asking.bytes()).map_err(drop)?;
    if leaves {
        return Err(());
    }
    let response = client.try_read(asking.method).map_err(drop)?;
    Ok((client, response))
}

fn check(world: &World, asking: &Asking, floor: u64, response: &Response) {
    let resource = world.resource(&asking.target);
    let told = |what: &str| format!("{what}: {resource:?} {asking:?} {:?}", response.fields);
    let kind = format!("{} {} {}", asking.method, response.cache(), response.status);
    *world.seen.lock().unwrap().entry(kind).or_default() += 1;
    let Some(version) = response.field("Version").map(|it| it.parse::<u64>().unwrap()) else {
        let expected = matches!(response.status, 416 | 502 | 503 | 504);
        return assert!(expected, "{}", told("no answer of the origin's"));
    };
    if !matches!(asking.method, "GET" | "HEAD") {
        assert_eq!(response.status, 204);
        let mut confirmed = world.confirmed.lock().unwrap();
        let last = confirmed.entry(asking.target.clone()).or_default();
        *last = version.max(*last);
        return;
    }
    assert!(version >= floor, "{}", told("older than a change that was confirmed"));
    check_freshness(&resource, asking, response);
    let selection = resource.selection(|name| asking.field(name).map(str::to_owned));
    let body = resource.body(&asking.target, version, &selection);
    match (asking.method, response.status) {
        ("HEAD", 200) => {
            let length = response.field("Content-Length").map(|it| it.parse().unwrap());
            assert!(length.is_none_or(|it: usize| it == body.len()), "{}", told("another length"));
        }
        (_, 304) => {
            let same = asking.field("If-None-Match") == response.field("ETag");
            assert!(same, "{}", told("confirms what the client has not"));
        }
        (_, 200) => assert!(response.body == body, "{}", told("another body")),
        (_, 206) => {
            let span = span_of(asking.field("Range").expect("nobody asked for it"), body.len());
            let (first, last) = span.unwrap();
            let range = format!("bytes {first}-{last}/{}", body.len());
            assert_eq!(response.field("Content-Range"), Some(&*range), "{}", told("another part"));
            assert!(response.body == body[first..=last], "{}", told("other bytes of the part"));
        }
        _ => panic!("{}", told("unexpected")),
    }
}

fn check_freshness(resource: &Resource, asking: &Asking, response: &Response) {
    let told = || format!("{resource:?} {asking:?} {:?}", response.fields);
    let stored = matches!(response.cache(), "HIT" | "STALE" | "REVALIDATED");
    let forbidden = ["no-store", "private"].iter().any(|it| resource.control.contains(it));
    assert!(!(stored && forbidden), "{}", told());
    let status = response.field("Cache-Status").unwrap();
    let ttl = status.split("ttl=").nth(1).map(|it| it.split(';').next().unwrap());
    let ttl = ttl.map(|it| it.parse::<i64>().unwrap());
    match response.cache() {
        "HIT" => {
            let wants = asking.field("Cache-Control").unwrap_or_default();
            // In place of an error the request gets less than it wants, and is told so.
            let instead = status.contains("; fwd=request");
            let wants_more = matches!(wants, "no-cache" | "max-age=0");
            assert!((!wants_more || instead) && wants != "no-store", "{}", told());
            assert!(response.age().unwrap() <= resource.lifetime(), "{}", told());
            assert!(resource.lifetime() > 0 && ttl.unwrap() >= 0, "{}", told());
        }
        "STALE" if ttl.is_some_and(|it| it < 0) => {
            let strict = ["must-revalidate", "s-maxage", "no-cache"];
            assert!(!strict.iter().any(|it| resource.control.contains(it)), "{}", told());
        }
        _ => {}
    }
}

/// Outages and purges, until the time is over.
fn disturb(world: &World, proxy: &Proxy, span: Duration) {
    let mut dice = Dice::of(format_args!("{} weather", world.seed));
    let start = Instant::now();
    while start.elapsed() < span {
        std::thread::sleep(Duration::from_millis(100 + dice.roll(500)));
        world.down.store(dice.one_in(4), Ordering::SeqCst);
        let number = dice.roll(RESOURCES);
        let (method, target) = match dice.roll(4) {
            0 => ("POST", "/cache/clear".to_owned()),
            1 => ("DELETE", format!("/cache/entries?path=/r{number}")),
            2 => ("DELETE", "/cache/entries?prefix=/r1".to_owned()),
            _ => ("POST", format!("/cache/expire?path=/r{number}")),
        };
        assert_eq!(proxy.ask(method, &target, &[]).status, 200);
    }
    world.over.store(true, Ordering::SeqCst);
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |it| it.parse().unwrap())
}

/// Ends the others' run also where one panics.
struct Ending<'w>(&'w World);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

fn every_answer_is_true(change: fn(Setup) -> Setup) {
    let (seed, secs) = (number_of("TRUTH_SEED", 1), number_of("TRUTH_SECS", 4));
    println!("TRUTH_SEED={seed}");
    let world = Arc::new(World {
        seed,
        versions: Mutex::default(),
        confirmed: Mutex::default(),
        tags: Mutex::default(),
        down: AtomicBool::default(),
        over: AtomicBool::default(),
        luck: AtomicU64::default(),
        seen: Mutex::default(),
    });
    let playing = Arc::clone(&world);
    let origin = Origin::script(move |connection| playing.play(connection));
    let setup = Setup::over(&origin)
        .with("cache.ttl", 0)
        .with("cache.stale_if_error", 5)
        .with("client.circuit_breaker_enabled", false);
    let proxy = change(setup).start();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (world, proxy) = (&*world, &proxy);
            scope.spawn(move || {
                let _ending = Ending(world);
                ask_on(world, proxy, number);
            });
        }
        disturb(&world, &proxy, Duration::from_secs(secs));
    });
    assert_eq!(Metrics::of(&proxy).value("apiproxyd_panics_total"), 0.0);
    let seen = world.seen.lock().unwrap().clone();
    println!("{seen:?}, {} requests at the origin", origin.count());
    for kind in ["GET HIT 200", "GET HIT 206", "GET HIT 304", "GET MISS 200", "HEAD HIT 200"] {
        assert!(seen.get(kind).is_some_and(|it| *it > 2), "{kind} is seldom: {seen:?}");
    }
}

#[test]
fn every_answer_is_true_with_both_tiers() {
    every_answer_is_true(|setup| setup);
}

#[test]
fn every_answer_is_true_where_memory_is_short() {
    every_answer_is_true(|setup| {
        setup.with("cache.memory_cache_size", 5).with("cache.memory_cache_max_bytes", 3_000_000)
    });
}

#[test]
fn every_answer_is_true_in_memory_alone() {
    every_answer_is_true(|setup| setup.with("cache.backend", "none"));
}
