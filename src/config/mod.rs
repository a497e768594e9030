//! Configuration: from JSON text, environment and command line to validated [`Settings`].
//!
//! Called by `cli` at start and by the janitor on a reload; everything above reads the result.
//! Parse, do not validate: what comes out is typed and checked as a whole, so that nobody asks
//! again. All faults are found in one pass, each with its path and a remedy.
//!
//! One table is the schema ([`rows`]): name, type, default, range, unit, meaning and memory cost
//! stand once, in `settings.rs`, as rows of the `group!` macro. The structs, the reading, the
//! example file, `config show` and the table of the README all come from it.
//!
//! Layers, strongest first: command line, environment, file (a `*_file` secret counts as part
//! of it), older names in the file, defaults.
//!
//! Never touches a file, the environment or the network itself: [`Sources`] carries closures.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod checks;
pub mod cores;
mod decode;
pub mod dsn;
mod fault;
mod headers;
mod keys;
mod legacy;
mod nearest;
pub mod node;
mod reader;
pub mod render;
mod resolved;
pub mod row;
mod secret;
mod settings;
mod words;

#[cfg(test)]
mod tests;

pub use cores::Cores;
pub use fault::{Fault, Faults, Note, Place};
pub use headers::{HeaderSetting, SecurityHeaders};
pub use keys::{ClientKey, ClientKeys};
pub use node::Node;
pub use reader::{Origin, Override, Shown, Sources};
pub use resolved::{RoutePolicy, Settings, UpstreamSettings};
pub use row::Row;
pub use secret::Secret;
pub use settings::{Cache, Client, Endpoints, Log, RouteSettings, Security, Server, rows};
pub use words::{AccessLog, Backend, Driver, LogFormat, LogLevel};

use reader::Reader;
use settings::Groups;

/// What a successful [`parse`] gives.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The validated settings.
    pub settings: Settings,
    /// What an operator should know though nothing is wrong: unknown or older names, switches
    /// that turn a protection off.
    pub notes: Vec<Note>,
    /// Every field with its effective value and where that came from, in the schema's order.
    pub shown: Vec<Shown>,
}

/// Reads and checks a configuration.
///
/// # Errors
///
/// All faults at once, and the notes made on the way. A syntax error of the JSON text is the
/// only fault then, since nothing after it can be trusted.
pub fn parse(sources: &Sources<'_>) -> Result<Parsed, Faults> {
    let mut reader = Reader::open(sources)?;
    let groups = Groups::read(&mut reader);
    let settings = Settings::resolve(groups, &mut reader);
    checks::check(&settings, &mut reader, sources);
    let (faults, notes, shown) = reader.close();
    if faults.is_empty() {
        Ok(Parsed { settings, notes, shown })
    } else {
        Err(Faults { faults, notes })
    }
}
