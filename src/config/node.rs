//! A JSON value that keeps what `serde_json::Value` forgets: repeated members and their order.
//!
//! The grammar is `serde_json`'s (RFC 8259, nesting bounded at 128); only the tree is ours.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::config::fault::{Fault, Place};

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Node {
    /// `null`; counts as "not given" everywhere in a configuration.
    #[default]
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number that is not negative.
    Whole(u64),
    /// Any other number.
    Real(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Node>),
    /// An object; a repeated name stays repeated, the last one wins.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads JSON text; a leading byte order mark is skipped.
    ///
    /// # Errors
    ///
    /// The first syntax error with its line, column and a remedy.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let whole = error.to_string();
            let what = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(what, _)| what);
            Fault {
                place: Place::Position { line, column },
                what: format!("not valid JSON: {what}"),
                remedy: remedy(what).to_owned(),
            }
        })
    }

    /// What this is, for a fault: `the string "15"`, `a list`. Texts are quoted, escaped and cut.
    #[must_use]
    pub fn found(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Text(text) => format!("the string {}", quoted(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }

    /// The same without any content, for fields whose content is secret.
    #[must_use]
    pub const fn found_type(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag(_) => "true or false",
            Self::Whole(_) | Self::Real(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// A text as JSON string, cut to a length that fits on a line.
#[must_use]
pub fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(TEXT_CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}

/// Enough to recognise a value by.
const TEXT_CHARS_MAX: usize = 60;

fn remedy(what: &str) -> &'static str {
    if what.contains("trailing comma") {
        "remove the comma after the last member"
    } else if what.contains("key must be a string") {
        "put the name in double quotes (JSON has no comments)"
    } else if what.contains("EOF") {
        "the text ends too early: close every brace, or write {} for all defaults"
    } else if what.contains("trailing characters") {
        "remove what follows the closing brace"
    } else if what.contains("recursion") {
        "nothing in a configuration nests that deep"
    } else if what.contains("expected `,`") {
        "put a comma between members"
    } else if what.contains("control character") {
        "a string must end on its own line; write \\n for a line break"
    } else {
        "mend the text there (JSON has no comments and no single quotes)"
    }
}

/// JSON text on one line.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(&json_text(text)),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let gap = if index == 0 { "" } else { ", " };
                    write!(f, "{gap}{item}")?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (name, value)) in members.iter().enumerate() {
                    let gap = if index == 0 { "" } else { ", " };
                    write!(f, "{gap}{}: {value}", json_text(name))?;
                }
                f.write_str("}")
            }
        }
    }
}

pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        // A negative one is in no field's range: it is only ever printed.
        Ok(u64::try_from(number).map_or(Node::Real(number as f64), Node::Whole))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        if members.len() > MEMBERS_MAX {
            return Err(A::Error::custom("too many members in one object"));
        }
        Ok(Node::Object(members))
    }
}

/// Far more than there are fields; keeps the search for repeats short on a hostile file.
const MEMBERS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repeated_members_and_their_order_survive() {
        let node = Node::parse(r#"{"b":1,"a":-2,"b":[true,null,"x"]}"#).unwrap();
        assert_eq!(node.to_string(), r#"{"b": 1, "a": -2, "b": [true, null, "x"]}"#);
    }

    #[test]
    fn a_syntax_error_names_line_column_and_remedy() {
        let table = [
            ("{\n  \"a\": 1,\n}", 3, 1, "remove the comma"),
            ("{\n  // note\n}", 2, 3, "double quotes"),
            ("", 1, 0, "write {}"),
            ("{\"a\":1} x", 1, 9, "closing brace"),
            ("{\"a\":1 \"b\":2}", 1, 8, "put a comma"),
            ("{'a':1}", 1, 2, "double quotes"),
            ("{\"a\":\"x\ny\"}", 2, 0, "end on its own line"),
        ];
        for (text, line, column, remedy) in table {
            let fault = Node::parse(text).unwrap_err();
            assert_eq!(fault.place, Place::Position { line, column }, "{text:?}: {fault}");
            assert!(fault.remedy.contains(remedy), "{text:?}: {fault}");
            assert!(!fault.to_string().contains('\n'), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(Node::parse(&deep).is_err());
    }

    #[test]
    fn a_long_or_hostile_text_is_cut_and_escaped() {
        let found = Node::Text(format!("\u{1b}[31m\n{}", "x".repeat(500))).found();
        assert!(found.len() < 100 && !found.contains('\n') && !found.contains('\u{1b}'), "{found}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = Node::parse(&text);
        }

        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"0-9a-c.eE \-]{0,30}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(Node::parse(&text).is_ok(), theirs.is_ok());
        }
    }
}
