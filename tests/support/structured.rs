//! Lists of structured fields (RFC 8941 section 3.1), parsed to the letter, and Cache-Status (RFC
//! 9211) checked against its registry. Shares nothing with the daemon's code.

use super::message::Response;

/// A bare item (RFC 8941 section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Integer(i64),
    Token(String),
    Text(String),
    Boolean(bool),
}

/// A member of a list, with its parameters in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub item: Item,
    pub parameters: Vec<(String, Item)>,
}

impl Member {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&Item> {
        self.parameters.iter().find(|it| it.0 == name).map(|it| &it.1)
    }
}

/// Parses a list of items.
///
/// # Panics
/// At the first departure from the grammar, and at types that Cache-Status has no use for.
#[track_caller]
pub fn list(value: &str) -> Vec<Member> {
    let mut rest = Rest(value);
    let mut members = vec![rest.member()];
    loop {
        rest.skip(" \t");
        if rest.0.is_empty() {
            return members;
        }
        assert!(rest.take(','), "no comma before {:?} in {value:?}", rest.0);
        rest.skip(" \t");
        members.push(rest.member());
    }
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self, of: &str) {
        self.0 = self.0.trim_start_matches(|it| of.contains(it));
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn run(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|it| !of(it)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        run
    }

    #[track_caller]
    fn member(&mut self) -> Member {
        let item = self.item();
        let mut parameters: Vec<(String, Item)> = Vec::new();
        while self.take(';') {
            self.skip(" ");
            let key = self
                .run(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || "_-.*".contains(it));
            let lead = key.starts_with(|it: char| it.is_ascii_lowercase() || it == '*');
            assert!(lead, "no key before {:?}", self.0);
            assert!(parameters.iter().all(|it| it.0 != key), "{key} twice");
            let value = if self.take('=') { self.item() } else { Item::Boolean(true) };
            parameters.push((key.to_owned(), value));
        }
        Member { item, parameters }
    }

    #[track_caller]
    fn item(&mut self) -> Item {
        let token = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(it);
        match self.0.chars().next() {
            Some('-' | '0'..='9') => {
                let sign = if self.take('-') { -1 } else { 1 };
                let digits = self.run(|it| it.is_ascii_digit());
                assert!((1..=15).contains(&digits.len()) && !self.0.starts_with('.'), "{digits}");
                Item::Integer(sign * digits.parse::<i64>().unwrap())
            }
            Some('"') => {
                self.take('"');
                let text = self.run(|it| matches!(it, ' '..='~') && !"\"\\".contains(it));
                assert!(self.take('"'), "a string that does not end, or with escapes: {text:?}");
                Item::Text(text.to_owned())
            }
            Some('?') => {
                self.take('?');
                let truth = self.take('1');
                assert!(truth || self.take('0'), "no boolean: {:?}", self.0);
                Item::Boolean(truth)
            }
            Some(first) if first.is_ascii_alphabetic() || first == '*' => {
                Item::Token(self.run(token).to_owned())
            }
            _ => panic!("no item at {:?}", self.0),
        }
    }
}

/// Checks the last member of Cache-Status, the daemon's own, where there is one; and that X-Cache
/// says the same.
///
/// # Panics
/// When it is not what RFC 9211 section 2 allows.
#[track_caller]
pub fn check_cache_status(response: &Response) {
    let values: Vec<&str> = response.fields.all("Cache-Status").collect();
    let x_cache = response.fields.only("X-Cache");
    let Some(last) = values.last() else {
        assert_eq!(x_cache, None, "X-Cache without Cache-Status");
        return;
    };
    let members = list(last);
    let own = members.last().unwrap();
    assert_eq!(own.item, Item::Token("apiproxyd".into()), "{last}");
    for (name, value) in &own.parameters {
        let valid = match (name.as_str(), value) {
            ("hit" | "stored" | "collapsed", Item::Boolean(true)) => true,
            ("fwd", Item::Token(word)) => FORWARD.contains(&word.as_str()),
            ("fwd-status", Item::Integer(status)) => (100..=999).contains(status),
            ("ttl", Item::Integer(_)) => true,
            ("detail", Item::Token(word)) => {
                word.bytes().all(|it| it.is_ascii_lowercase() || it == b'_')
            }
            _ => false,
        };
        assert!(valid, "{name} in {last}");
    }
    let has = |name| own.parameter(name).is_some();
    // Section 2.2: "hit" and "fwd" exclude each other; the others speak of a forwarded request.
    assert!(!(has("hit") && has("fwd")), "{last}");
    assert!(!has("fwd-status") || has("fwd"), "{last}");
    assert!(!has("stored") || has("fwd"), "{last}");
    assert!(!has("collapsed") || has("fwd"), "{last}");
    assert!(!has("hit") || has("ttl"), "a hit without ttl: {last}");
    let stale = matches!(own.parameter("ttl"), Some(Item::Integer(ttl)) if *ttl < 0);
    let word = x_cache.expect("Cache-Status without X-Cache");
    match word {
        // A fresh response is also what a request gets that asked for more in vain.
        "HIT" => {
            let more = own.parameter("fwd") == Some(&Item::Token("request".into()));
            assert!((has("hit") || more && has("ttl")) && !has("detail"), "{word}: {last}");
        }
        "STALE" => assert!(has("detail") && has("ttl"), "{word}: {last}"),
        "REVALIDATED" => {
            assert_eq!(own.parameter("fwd-status"), Some(&Item::Integer(304)), "{last}");
        }
        "MISS" => assert!(!has("hit"), "{word}: {last}"),
        "BYPASS" => {
            let bypass = [Item::Token("bypass".into()), Item::Token("method".into())];
            assert!(own.parameter("fwd").is_some_and(|it| bypass.contains(it)), "{last}");
        }
        other => panic!("X-Cache: {other}"),
    }
    assert!(!stale || word == "STALE", "a stale answer called {word}: {last}");
}

/// RFC 9211 section 2.2.
const FORWARD: [&str; 8] =
    ["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"];
