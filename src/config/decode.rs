//! From a JSON value to a field's type, with what is wrong and what to write instead.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::Methods;
use crate::config::cores::Cores;
use crate::config::node::{Node, quoted};
use crate::config::row::{LARGE, Row, Shape, Zero};
use crate::config::secret::Secret;
use crate::config::words::{AccessLog, Backend, Driver, LogFormat, LogLevel};
use crate::http::Method;
use crate::limit::TrustedProxies;
use crate::route::{ApiPrefix, Pattern, PatternSet};
use crate::ssrf::HostPattern;

/// A type that a field may have.
pub(super) trait Decode: Sized {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong>;

    /// With all that is wrong, for types of which several parts may be.
    fn decode_all(node: &Node, scope: &Scope<'_>) -> Result<Self, Vec<Wrong>> {
        Self::decode(node, scope).map_err(|wrong| vec![wrong])
    }
}

/// What decoding needs beside the value.
pub(super) struct Scope<'a> {
    pub(super) row: &'a Row,
    pub(super) home: Option<&'a Path>,
}

/// The two halves of a fault.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl Scope<'_> {
    /// The fault of a value of another type or out of range.
    pub(super) fn mismatch(&self, node: &Node) -> Wrong {
        let row = self.row;
        let found = if row.is_secret() { node.found_type().to_owned() } else { node.found() };
        let expected = self.expected();
        Wrong::new(format!("expected {expected}, found {found}"), self.remedy(node))
    }

    fn expected(&self) -> String {
        let row = self.row;
        match row.shape {
            Shape::Flag => "true or false".to_owned(),
            Shape::Whole { min, max, .. } => {
                let of = match row.unit {
                    "" => String::new(),
                    "s" => " of seconds".to_owned(),
                    "bytes" => " of bytes".to_owned(),
                    unit => format!(" ({unit})"),
                };
                if max >= LARGE {
                    format!("a whole number{of}, at least {min}")
                } else {
                    format!("a whole number{of} from {min} to {max}")
                }
            }
            Shape::Share => "a number from 0 to 1".to_owned(),
            Shape::Text | Shape::TextOrEmpty | Shape::Path | Shape::Secret => "a string".to_owned(),
            Shape::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Shape::List => "a list of strings".to_owned(),
            Shape::Cores => "\"auto\", a number, or a list such as \"0-3,6\"".to_owned(),
            Shape::Headers => "an object of strings".to_owned(),
            Shape::Keys => "a list of keys".to_owned(),
            Shape::Objects => "a list of objects".to_owned(),
        }
    }

    fn remedy(&self, node: &Node) -> String {
        let bare = match (self.row.shape, node) {
            (Shape::Flag, Node::Text(text)) => {
                Some(text.as_str()).filter(|it| matches!(*it, "true" | "false"))
            }
            (Shape::Whole { .. }, Node::Text(text)) => {
                Some(text.as_str()).filter(|it| it.parse::<u64>().is_ok())
            }
            _ => None,
        };
        match (self.row.shape, node) {
            _ if bare.is_some() => {
                format!("write {} without quotes", bare.unwrap_or_default())
            }
            (Shape::Whole { min, max, .. }, Node::Real(number)) if number.fract() != 0.0 => {
                let near = number.round().clamp(min as f64, max as f64);
                format!("round it: {near}")
            }
            (Shape::Whole { max, .. }, Node::Whole(number)) if *number > max => {
                format!("write at most {max}")
            }
            (Shape::Whole { min, .. }, Node::Whole(_) | Node::Real(_)) => {
                format!("write at least {min}")
            }
            (Shape::List | Shape::Keys, Node::Text(_)) => "put [ ] around it".to_owned(),
            (Shape::Text | Shape::TextOrEmpty | Shape::Path | Shape::Secret, Node::Whole(_)) => {
                "put double quotes around it".to_owned()
            }
            _ => match self.row.preset.node() {
                Node::Null => "leave it out to inherit".to_owned(),
                preset => format!("write for example {preset}, the default"),
            },
        }
    }
}

/// `~` and `~/...` with the home directory put in; anything else, or without a home, unchanged.
pub(super) fn expanded(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(text),
    }
}

fn whole(node: &Node, scope: &Scope<'_>) -> Result<u64, Wrong> {
    match (node, scope.row.shape) {
        (Node::Whole(0), Shape::Whole { max, zero: Zero::NoLimit, .. }) => Ok(max),
        (Node::Whole(number), Shape::Whole { min, max, .. }) if (min..=max).contains(number) => {
            Ok(*number)
        }
        _ => Err(scope.mismatch(node)),
    }
}

macro_rules! decode_whole {
    ($($type:ty),*) => {$(
        impl Decode for $type {
            fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
                // Rows of this type end their range within it: a test holds that.
                Self::try_from(whole(node, scope)?).map_err(|_| scope.mismatch(node))
            }
        }
    )*};
}

decode_whole!(u64, u32, u16, u8, usize);

impl Decode for Duration {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        whole(node, scope).map(Self::from_secs)
    }
}

impl Decode for bool {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        match node {
            Node::Flag(flag) => Ok(*flag),
            _ => Err(scope.mismatch(node)),
        }
    }
}

impl Decode for f64 {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        match node {
            Node::Whole(0) => Ok(0.0),
            Node::Whole(1) => Ok(1.0),
            Node::Real(number) if (0.0..=1.0).contains(number) => Ok(*number),
            _ => Err(scope.mismatch(node)),
        }
    }
}

impl Decode for String {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        match node {
            Node::Text(text) => Ok(text.clone()),
            _ => Err(scope.mismatch(node)),
        }
    }
}

impl Decode for Secret {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        String::decode(node, scope).map(Self::new)
    }
}

impl Decode for PathBuf {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let text = String::decode(node, scope)?;
        if text.contains('\0') {
            return Err(Wrong::new("a file name has no NUL", "remove it"));
        }
        if text.starts_with('~') && text.len() > 1 && !text.starts_with("~/") {
            let what = format!("{} names another user's home", quoted(&text));
            return Err(Wrong::new(what, "write the whole path"));
        }
        Ok(expanded(&text, scope.home))
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        match node {
            Node::Null => Ok(None),
            node => T::decode(node, scope).map(Some),
        }
    }
}

impl Decode for Vec<String> {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let Node::List(items) = node else { return Err(scope.mismatch(node)) };
        items
            .iter()
            .enumerate()
            .map(|(index, item)| match item {
                Node::Text(text) => Ok(text.clone()),
                other => {
                    let what = format!("item {index}: expected a string, found {}", other.found());
                    Err(Wrong::new(what, "put double quotes around it, or remove it"))
                }
            })
            .collect()
    }
}

impl Decode for Methods {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let mut methods = Self { get: false, head: false, post: false, query: false };
        for text in Vec::<String>::decode(node, scope)? {
            match Method::from_bytes(text.as_bytes()) {
                Some(Method::Get) => methods.get = true,
                Some(Method::Head) => methods.head = true,
                Some(Method::Post) => methods.post = true,
                Some(Method::Query) => methods.query = true,
                _ => {
                    let what = format!("{} is not a method that can be cached", quoted(&text));
                    let remedy = "write some of \"GET\", \"HEAD\", \"POST\", \"QUERY\"";
                    return Err(Wrong::new(what, remedy));
                }
            }
        }
        Ok(methods)
    }
}

impl Decode for TrustedProxies {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let texts = Vec::<String>::decode(node, scope)?;
        Self::parse(&texts).map_err(|(index, fault)| {
            let found = texts.get(index).map(|it| quoted(it)).unwrap_or_default();
            Wrong::new(format!("item {index}: {found} is no network"), fault.to_string())
        })
    }
}

impl Decode for Vec<HostPattern> {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let texts = Vec::<String>::decode(node, scope)?;
        let pattern = |text: &String| {
            HostPattern::parse(text).map_err(|fault| {
                let what = format!("{} is no host", quoted(text));
                Wrong::new(what, format!("{fault} (no scheme, port or path)"))
            })
        };
        texts.iter().map(pattern).collect()
    }
}

impl Decode for Cores {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let read = match node {
            Node::Whole(count) => Self::count(*count),
            Node::Text(text) => Self::parse(text),
            _ => return Err(scope.mismatch(node)),
        };
        read.map_err(|what| Wrong::new(what, "write \"auto\", 4 or \"0-3,6\""))
    }
}

impl Decode for ApiPrefix {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let text = String::decode(node, scope)?;
        Self::parse(&text).map_err(|fault| {
            Wrong::new(format!("{} is no prefix", quoted(&text)), fault.to_string())
        })
    }
}

impl Decode for PatternSet {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let mut patterns = Vec::new();
        for text in Vec::<String>::decode(node, scope)? {
            patterns.push(Pattern::parse(&text).map_err(|fault| {
                Wrong::new(format!("{} is no pattern", quoted(&text)), fault.to_string())
            })?);
        }
        Ok(Self::new(patterns))
    }
}

macro_rules! decode_word {
    ($($type:ty),*) => {$(
        impl Decode for $type {
            fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
                let word = match node {
                    Node::Text(text) => Self::from_word(text),
                    _ => None,
                };
                word.ok_or_else(|| scope.mismatch(node))
            }
        }
    )*};
}

decode_word!(Driver, Backend, LogLevel, LogFormat, AccessLog);
