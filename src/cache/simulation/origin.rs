//! The random origin and its clients.

use std::time::Duration;

use crate::base::Wall;
use crate::cache::facts::Exchange;
use crate::cache::simulation::Stored;
use crate::http::{Fields, ResponseHead, Version, write_http_date};

/// SplitMix64: small, seeded, good enough to vary things.
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn maybe<T>(&mut self, n: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(n).then(|| make(self))
    }
}

/// A request, and what its sender meant.
pub(super) struct Client {
    pub uri: usize,
    pub fields: Fields,
    /// Canonical values of the selecting fields; none is absent.
    pub foo: Option<&'static str>,
    pub bar: Option<&'static str>,
    pub authorized: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u64>,
    pub max_stale: Option<u64>,
    pub min_fresh: Option<u64>,
}

impl Client {
    pub fn random(random: &mut Random) -> Self {
        let (foo, foo_text) = random.pick(&[
            (None, ""),
            (Some("1"), "1"),
            (Some("1,2"), "1, 2"),
            (Some("1,2"), " 1 ,2"),
            (Some("12"), "12"),
        ]);
        let (bar, bar_text) = random.pick(&[(None, ""), (Some("x"), "x"), (Some(""), "")]);
        let mut client = Self {
            uri: usize::try_from(random.below(3)).unwrap(),
            fields: Fields::new(),
            foo,
            bar,
            authorized: random.one_in(5),
            no_cache: random.one_in(20),
            only_if_cached: random.one_in(20),
            max_age: random.maybe(10, |random| random.below(40)),
            max_stale: random.maybe(5, |random| random.below(60)),
            min_fresh: random.maybe(15, |random| random.below(20)),
        };
        let fields = &mut client.fields;
        for (value, name, text) in [(foo, "Foo", foo_text), (bar, "bar", bar_text)] {
            if value.is_some() {
                fields.push(name, text);
            }
        }
        if client.authorized {
            fields.push("Authorization", "Basic x");
        }
        let mut directives = Vec::new();
        if random.one_in(30) {
            directives.push("no-store".to_owned());
        }
        for (set, word) in
            [(client.no_cache, "no-cache"), (client.only_if_cached, "ONLY-if-cached")]
        {
            directives.extend(set.then(|| word.to_owned()));
        }
        for (value, word) in [
            (client.max_age, "max-age"),
            (client.max_stale, "max-stale"),
            (client.min_fresh, "min-fresh"),
        ] {
            directives.extend(value.map(|value| spelt(word, value, random)));
        }
        write_directives(&mut client.fields, directives, random);
        client
    }
}

/// What the origin meant by a response, and under which circumstances it was received.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    /// Of the content: kept by updates.
    pub id: u64,
    pub status: u16,
    pub etag: Option<u64>,
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    pub expires: Option<Wall>,
    /// The time of arrival where it is not told.
    pub date: Wall,
    pub told_date: bool,
    pub no_store: bool,
    pub private: bool,
    pub no_cache: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
    pub set_cookie: bool,
    /// Last-Modified.
    pub modified: Option<Wall>,
    pub vary_foo: bool,
    pub vary_bar: bool,
    pub vary_any: bool,
    pub age: u64,
    pub exchange: Exchange,
    /// Of the request that it answered.
    pub foo: Option<&'static str>,
    pub bar: Option<&'static str>,
    pub authorized: bool,
}

impl Truth {
    fn random(id: u64, client: &Client, exchange: Exchange, random: &mut Random) -> Self {
        let skew = Duration::from_secs(random.below(30));
        let responded = Wall::from_secs(exchange.responded.as_secs());
        let told_date = !random.one_in(6);
        let date = if told_date && random.one_in(6) {
            responded.plus(skew)
        } else if told_date && random.one_in(6) {
            responded.minus(skew)
        } else {
            responded
        };
        Self {
            id,
            status: random.pick(&[200, 200, 200, 200, 200, 404, 302, 503, 206]),
            etag: None,
            max_age: random.maybe(2, |random| random.pick(&[0, 5, 30, 120])),
            s_maxage: random.maybe(6, |random| random.pick(&[0, 10, 60])),
            expires: random.maybe(4, |random| date.plus(Duration::from_secs(random.below(90)))),
            date,
            told_date,
            no_store: random.one_in(12),
            private: random.one_in(12),
            no_cache: random.one_in(12),
            public: random.one_in(5),
            must_revalidate: random.one_in(8),
            stale_while_revalidate: random.maybe(4, |random| random.below(40)),
            stale_if_error: random.maybe(4, |random| random.below(40)),
            set_cookie: random.one_in(8),
            // Beside a Date that is told, so that the time between them is in whole seconds.
            modified: random
                .maybe(2, |random| date.minus(Duration::from_secs(random.below(900))))
                .filter(|_| told_date),
            vary_foo: random.one_in(2),
            vary_bar: random.one_in(4),
            vary_any: random.one_in(20),
            age: if random.one_in(5) { random.below(20) } else { 0 },
            exchange,
            foo: client.foo,
            bar: client.bar,
            authorized: client.authorized,
        }
    }

    fn head(&self, random: &mut Random) -> ResponseHead {
        let mut fields = Fields::new();
        let mut directives = Vec::new();
        for (set, word) in [
            (self.no_store, "no-store"),
            (self.private, "PRIVATE"),
            (self.no_cache, "no-cache"),
            (self.public, "Public"),
            (self.must_revalidate, "must-revalidate"),
        ] {
            directives.extend(set.then(|| word.to_owned()));
        }
        for (value, word) in [
            (self.max_age, "max-age"),
            (self.s_maxage, "s-maxage"),
            (self.stale_while_revalidate, "stale-while-revalidate"),
            (self.stale_if_error, "stale-if-error"),
        ] {
            directives.extend(value.map(|value| spelt(word, value, random)));
        }
        // Present in each head, so that an update replaces the directives as a whole.
        directives.push(random.pick(&["x", "x=\"max-age=9, public\"", "community=\"UCI\""]).into());
        write_directives(&mut fields, directives, random);
        if self.told_date {
            fields.push("Date", write_http_date(self.date));
        }
        if let Some(modified) = self.modified {
            fields.push("Last-Modified", write_http_date(modified));
        }
        if let Some(expires) = self.expires {
            fields.push("Expires", write_http_date(expires));
        }
        if self.age > 0 || random.one_in(3) {
            fields.push("Age", self.age.to_string());
        }
        if let Some(etag) = self.etag {
            fields.push("ETag", format!("\"{etag}\""));
        }
        if self.set_cookie {
            fields.push("Set-Cookie", format!("id={}", self.id));
        }
        // Present in each head too.
        let any = self.vary_any.then_some("*");
        let foo = self.vary_foo.then_some("FOO");
        let bar = self.vary_bar.then_some("bar");
        let names: Vec<&str> = [foo, any, bar].into_iter().flatten().collect();
        fields.push("Vary", names.join(random.pick(&[",", " , "])));
        ResponseHead { status: self.status, version: Version::Http11, fields }
    }

    /// What is meant after a 304 or a HEAD's answer with `newer`: everything it says, and the old
    /// ETag, Expires and Last-Modified where it has none (RFC 9111 section 3.2).
    pub fn updated_by(&self, newer: Self) -> Self {
        Self {
            id: self.id,
            status: self.status,
            etag: newer.etag.or(self.etag),
            expires: newer.expires.or(self.expires),
            modified: newer.modified.or(self.modified),
            // A new cookie takes the old one's place, and is kept only where it may be shared.
            set_cookie: if newer.set_cookie { newer.shares_cookie() } else { self.set_cookie },
            ..newer
        }
    }

    /// Whether the request agrees with the one that was answered in every field that chooses.
    pub fn matches(&self, client: &Client) -> bool {
        let foo = !self.vary_foo || self.foo == client.foo;
        let bar = !self.vary_bar || self.bar == client.bar;
        foo && bar
    }

    /// Whether sharing a cookie is allowed in so many words.
    pub fn shares_cookie(&self) -> bool {
        self.public || self.max_age.is_some() || self.s_maxage.is_some()
    }
}

/// A response with its meaning.
pub(super) struct Answer {
    pub head: ResponseHead,
    pub truth: Truth,
    /// For a 304: the content that it is about.
    version: u64,
}

impl Answer {
    /// Whether a 304 is about this stored response.
    pub fn about(&self, stored: &Stored) -> bool {
        stored.truth.etag == Some(self.version)
    }
}

/// Three resources, each with a version that is its entity tag.
#[derive(Default)]
pub(super) struct Origin {
    pub up: bool,
    /// How many contents were made; the next one's number.
    pub responses: u64,
    versions: [u64; 3],
}

impl Origin {
    pub fn change(&mut self, uri: usize) {
        self.versions[uri] += 1;
    }

    /// None when it can't be reached.
    pub fn answer(
        &mut self,
        client: &Client,
        fields: &Fields,
        exchange: Exchange,
        random: &mut Random,
    ) -> Option<Answer> {
        if !self.up {
            return None;
        }
        if random.one_in(15) {
            self.change(client.uri);
        }
        self.responses += 1;
        let mut truth = Truth::random(self.responses, client, exchange, random);
        let mut version = self.versions[client.uri];
        let asked = fields.get("If-None-Match").map(<[u8]>::to_vec);
        let unchanged = asked == Some(format!("\"{version}\"").into_bytes());
        // A broken origin now and then confirms something else.
        let confused = asked.is_some() && random.one_in(15);
        if unchanged || confused {
            version += u64::from(confused) * 1_000;
            truth.etag = Some(version);
            truth.status = 304;
        } else {
            truth.etag = (truth.status == 200 && random.one_in(2)).then_some(version);
        }
        let head = truth.head(random);
        Some(Answer { head, truth, version })
    }
}

/// A directive with a number, in one of its spellings.
fn spelt(word: &str, value: u64, random: &mut Random) -> String {
    match random.below(4) {
        0 => format!("{}={value}", word.to_uppercase()),
        1 => format!("{word}=\"{value}\""),
        2 => format!("{word}=00{value}"),
        _ => format!("{word}={value}"),
    }
}

/// Writes the directives in random order on one or more lines.
fn write_directives(fields: &mut Fields, mut directives: Vec<String>, random: &mut Random) {
    let mut line = String::new();
    while !directives.is_empty() {
        let at = usize::try_from(random.below(directives.len() as u64)).unwrap();
        if !line.is_empty() {
            line.push_str(random.pick(&[",", ", ", " ,, "]));
        }
        line.push_str(&directives.swap_remove(at));
        if random.one_in(4) || directives.is_empty() {
            fields.push("Cache-Control", &line);
            line.clear();
        }
    }
}
