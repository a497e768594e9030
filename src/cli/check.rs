//! `apiproxyd check`.

use std::process::ExitCode;

use crate::cli::load::{LoadError, Loader};
use crate::cli::{EXIT_USAGE, print, usage};
use crate::config::render;

/// Prints `ok: ...`, or one line for each fault; notes in either case.
pub(super) fn check(loader: &Loader) -> ExitCode {
    let name = loader.name();
    match loader.load() {
        Ok(parsed) => {
            for note in &parsed.notes {
                eprintln!("{name}: note: {note}");
            }
            let from = match loader.file() {
                Some(_) => String::new(),
                None => " (no file: defaults)".to_owned(),
            };
            print(&format!("ok{from}: {}\n", render::summary(&parsed.settings)));
            ExitCode::SUCCESS
        }
        Err(LoadError::Faulty { faults, .. }) => {
            for fault in &faults.faults {
                eprintln!("{name}: {fault}");
            }
            for note in &faults.notes {
                eprintln!("{name}: note: {note}");
            }
            ExitCode::from(EXIT_USAGE)
        }
        Err(error @ LoadError::Unreadable { .. }) => usage(error),
    }
}
