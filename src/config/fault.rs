//! What is wrong with a configuration, and what is merely worth saying.

use std::error::Error;
use std::fmt::{self, Write as _};

/// Where in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A JSON path such as `cache.ttl` or `routes[2].prefix`; `(file)` for the whole.
    Path(String),
    /// A position in the text, both from 1, for what is not JSON.
    Position {
        /// Line.
        line: usize,
        /// Column, in bytes.
        column: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => one_line(path, f),
            Self::Position { line, column } => write!(f, "line {line}, column {column}"),
        }
    }
}

/// One fault: the daemon does not start with it. Prints as one line without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What is wrong, with what was found.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

impl Fault {
    /// A fault of the field at `path`.
    pub fn at(path: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { place: Place::Path(path.into()), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.remedy)
    }
}

/// Something to say about a configuration that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// JSON path.
    pub path: String,
    /// What an operator should know.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        one_line(&self.path, f)?;
        f.write_str(": ")?;
        one_line(&self.text, f)
    }
}

/// A name out of the file, control characters escaped: it must not forge a line of its own.
fn one_line(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    text.chars().try_for_each(|it| {
        if it.is_control() { write!(f, "{}", it.escape_default()) } else { f.write_char(it) }
    })
}

/// All faults of a configuration (at least one), with the notes made on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// In the order of the schema, cross checks last.
    pub faults: Vec<Fault>,
    /// As in [`Parsed`](super::Parsed).
    pub notes: Vec<Note>,
}

impl Faults {
    pub(super) fn one(fault: Fault) -> Self {
        Self { faults: vec![fault], notes: Vec::new() }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{fault}")?;
        }
        Ok(())
    }
}

impl Error for Faults {}
