//! What faulty origins were asked and what they said, so that every answer can be judged.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::message::Response;

/// The book of all origins of a run.
#[derive(Default)]
pub struct Book {
    /// Requests that came whole, those refused included.
    seen: AtomicUsize,
    /// Requests that were refused unseen, which may be repeated freely.
    refused: AtomicUsize,
    /// What each version was given out for.
    issued: Mutex<Vec<String>>,
    /// How often each act was done.
    acts: Mutex<HashMap<String, usize>>,
    /// What should not have come.
    complaints: Mutex<Vec<String>>,
}

/// A right answer. No two are alike: each has a version of its own.
pub struct Right {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Book {
    /// A request came: notes it, also as an act where it is one.
    pub fn on_request(&self, method: &str, target: &str) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        if method == "POST" {
            *self.acts.lock().unwrap().entry(target.to_owned()).or_default() += 1;
        }
    }

    /// A request came and is refused unseen.
    pub fn on_refused(&self) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    /// Something came that never should.
    pub fn complain(&self, what: String) {
        self.complaints.lock().unwrap().push(what);
    }

    /// The right answer to a request, new unless `tag` is what it had last time.
    pub fn answer(&self, target: &str, tag: Option<&str>, status: u16) -> Right {
        let version_of = |tag: &str| tag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok();
        if let Some(version) = tag.and_then(version_of) {
            if self.is_issued(version, target) {
                return Right { status: 304, fields: fields(target, version), body: Vec::new() };
            }
            self.complain(format!("{target} was asked for with {tag:?}"));
        }
        let version = {
            let mut issued = self.issued.lock().unwrap();
            issued.push(target.to_owned());
            issued.len() - 1
        };
        let mut fields = fields(target, version);
        if status != 200 {
            fields.retain(|it| it.0 == "Version");
        }
        Right { status, fields, body: body_of(target, version) }
    }

    /// Whether an answer that looks whole is one that was given for this target and no other.
    pub fn judge(&self, method: &str, target: &str, response: &Response) -> Result<(), String> {
        let version = response.field("Version").ok_or("no version")?;
        let version = version.parse().map_err(|_| format!("version {version}"))?;
        if !self.is_issued(version, target) {
            return Err(format!("version {version} is of something else"));
        }
        let tag = format!("\"v{version}\"");
        if response.status == 200 && response.field("ETag") != Some(&tag) {
            return Err(format!("{:?} beside version {version}", response.field("ETag")));
        }
        if method != "HEAD" && response.body != body_of(target, version) {
            let start = String::from_utf8_lossy(&response.body[..response.body.len().min(60)]);
            return Err(format!("{} bytes of {start:?}", response.body.len()));
        }
        Ok(())
    }

    fn is_issued(&self, version: usize, target: &str) -> bool {
        self.issued.lock().unwrap().get(version).is_some_and(|it| it == target)
    }

    /// How many requests came.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// How many of them were refused unseen.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Acts done more than once, and what should not have come.
    pub fn complaints(&self) -> Vec<String> {
        let acts = self.acts.lock().unwrap();
        let twice = acts.iter().filter(|it| *it.1 > 1).map(|it| format!("{} times {}", it.1, it.0));
        twice.chain(self.complaints.lock().unwrap().iter().cloned()).collect()
    }
}

fn fields(target: &str, version: usize) -> Vec<(&'static str, String)> {
    let word = target.split('/').nth(2).unwrap_or_default();
    let lifetime = match word {
        "keep" => "max-age=60",
        "brief" => "max-age=1",
        "renew" => "max-age=0",
        "soft" => "max-age=0, stale-while-revalidate=5",
        _ => "no-store",
    };
    let (tag, version) = (format!("\"v{version}\""), version.to_string());
    vec![("Version", version), ("ETag", tag), ("Cache-Control", lifetime.to_owned())]
}

/// The one right body of a target in a version: it begins with both and has a length of its own.
fn body_of(target: &str, version: usize) -> Vec<u8> {
    let sum = target.bytes().fold(7_usize, |sum, byte| sum * 31 % 100_003 + usize::from(byte));
    let length = match sum % 5 {
        0 | 1 => 10,
        2 => 3_000,
        3 => 70_000,
        _ => 300_000,
    };
    let text = format!("{target} v{version} ");
    let length = text.len() + length + sum % 100;
    let mut body = text.repeat(length / text.len() + 1).into_bytes();
    body.truncate(length);
    body
}
