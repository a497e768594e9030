//! `apiproxyd run`: from settings to the running server.

use std::process::ExitCode;

use crate::cli::failure;
use crate::config::{Settings, render};

/// Serves until told to stop.
pub fn run(settings: Settings) -> ExitCode {
    failure(format!("not wired: {}", render::summary(&settings)))
}
