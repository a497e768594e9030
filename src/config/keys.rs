//! The keys that clients may present.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

use crate::config::decode::{Decode, Scope, Wrong};
use crate::config::node::Node;
use crate::config::settings::{BURST_MAX, PER_MINUTE_MAX};
use crate::limit::Quota;

/// One client's key. The key itself is not kept: what a client sends is hashed and compared.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// Name for logs and the statistics; `key-N` (from 1) where none is given.
    pub name: String,
    /// SHA-256 of the key; compare in constant time.
    pub digest: [u8; 32],
    /// Instead of `security.rate_limit_per_key`; past its range where there is no limit.
    pub per_minute: Option<u32>,
    /// Instead of `security.rate_limit_burst`.
    pub burst: Option<u32>,
    /// What comes of both and the general limits; `None` for no limit.
    pub quota: Option<Quota>,
}

/// Digests of short keys can be guessed: they are not printed either.
impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey")
            .field("name", &self.name)
            .field("per_minute", &self.per_minute)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

/// All clients' keys; none means that no key is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientKeys(pub Vec<ClientKey>);

impl ClientKeys {
    /// Whether no key is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Decode for ClientKeys {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        Self::decode_all(node, scope).map_err(|mut wrongs| wrongs.swap_remove(0))
    }

    fn decode_all(node: &Node, scope: &Scope<'_>) -> Result<Self, Vec<Wrong>> {
        let Node::List(items) = node else { return Err(vec![scope.mismatch(node)]) };
        if items.len() > KEYS_MAX {
            return Err(vec![Wrong::new(format!("more than {KEYS_MAX} keys"), "remove some")]);
        }
        let (mut keys, mut wrongs) = (Vec::<ClientKey>::new(), Vec::new());
        let (mut digests, mut names) = (HashSet::new(), HashSet::new());
        for (index, item) in items.iter().enumerate() {
            let mut wrong = |what: &str, remedy: &str| {
                wrongs.push(Wrong::new(format!("item {index}: {what}"), remedy));
            };
            match client_key(index, item) {
                Ok(key) if !digests.insert(key.digest) => wrong("a key twice", "remove one"),
                Ok(key) if !names.insert(key.name.clone()) => {
                    wrong("a name twice", "give each key its own name");
                }
                Ok(key) => keys.push(key),
                Err(Wrong { what, remedy }) => wrong(&what, &remedy),
            }
        }
        if wrongs.is_empty() { Ok(Self(keys)) } else { Err(wrongs) }
    }
}

fn client_key(index: usize, item: &Node) -> Result<ClientKey, Wrong> {
    let name = format!("key-{}", index + 1);
    let mut key = ClientKey { name, digest: [0; 32], per_minute: None, burst: None, quota: None };
    let mut text = None;
    match item {
        Node::Text(only) => text = Some(only),
        Node::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("key", Node::Text(value)) => text = Some(value),
                    ("name", Node::Text(value)) => key.name = checked_name(value)?,
                    ("per_minute", value) => {
                        let per_minute = number(name, value, 0..=PER_MINUTE_MAX)?;
                        // Zero is no limit, as in the general field.
                        key.per_minute = Some(if per_minute == 0 { u32::MAX } else { per_minute });
                    }
                    ("burst", value) => key.burst = Some(number(name, value, 1..=BURST_MAX)?),
                    ("key" | "name", value) => {
                        let found = value.found_type();
                        let what = format!("expected a string as {name}, found {found}");
                        return Err(Wrong::new(what, "put double quotes around it"));
                    }
                    _ => return Err(Wrong::new("a member that is not known", MEMBERS)),
                }
            }
        }
        other => {
            let what = format!("expected a string or an object, found {}", other.found_type());
            return Err(Wrong::new(what, MEMBERS));
        }
    }
    let text = text.ok_or_else(|| Wrong::new("no key in it", MEMBERS))?;
    key.digest = digest(text)?;
    Ok(key)
}

/// Keys are numbered with 16 bits.
const KEYS_MAX: usize = 65_535;

const MEMBERS: &str =
    "write \"KEY\" or {\"key\": ..., \"name\": ..., \"per_minute\": ..., \"burst\": ...}";

fn checked_name(name: &str) -> Result<String, Wrong> {
    let sound = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.@".contains(&it));
    if sound {
        Ok(name.to_owned())
    } else {
        let what = format!("a name is 1 to {NAME_BYTES_MAX} letters, digits or -_.@");
        Err(Wrong::new(what, "write such a name"))
    }
}

/// Names stand in log lines and labels.
const NAME_BYTES_MAX: usize = 64;

/// A whole number in the range of the general field.
fn number(name: &str, node: &Node, range: RangeInclusive<u64>) -> Result<u32, Wrong> {
    let number = match node {
        Node::Whole(number) if range.contains(number) => u32::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        let (min, max) = range.into_inner();
        let what = format!("expected {name} as a whole number from {min} to {max}");
        Wrong::new(what, "write such a number or leave it out")
    })
}

fn digest(text: &str) -> Result<[u8; 32], Wrong> {
    if let Some(hex) = text.strip_prefix("sha256:") {
        return unhex(hex).ok_or_else(|| {
            Wrong::new(
                "not 64 hexadecimal digits after sha256:",
                "write `printf %s KEY | sha256sum`'s",
            )
        });
    }
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_graphic()) {
        let what = "a key is printable ASCII without spaces, not empty";
        return Err(Wrong::new(what, "write such a key or remove it"));
    }
    Ok(Sha256::digest(text.as_bytes()).into())
}

fn unhex(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        let nibble = |it: &u8| char::from(*it).to_digit(16).and_then(|it| u8::try_from(it).ok());
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(digest)
}

/// A list of keys from a secret's text: an environment variable's, or a file's with `#` comments.
pub(super) fn listed(text: &str, gap: char) -> Node {
    let keys = text.split(gap).map(str::trim);
    let comment = |it: &str| gap == '\n' && it.starts_with('#');
    let keys = keys.filter(|it| !it.is_empty() && !comment(it));
    Node::List(keys.map(|it| Node::Text(it.to_owned())).collect())
}
