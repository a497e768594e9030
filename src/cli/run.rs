//! `apiproxyd run`: from settings to the running server.

use std::process::ExitCode;

use crate::cli::{failure, usage};
use crate::config::Settings;
use crate::logs;
use crate::server::{self, StartError};

/// Serves until told to stop.
pub fn run(settings: Settings) -> ExitCode {
    run_then(settings, |_| {})
}

/// Serves until told to stop; `on_ready` gets the address once it serves.
pub fn run_then(settings: Settings, on_ready: impl FnOnce(&str)) -> ExitCode {
    server::hold_signals();
    if let Err(error) = logs::install(&settings.log) {
        return failure(format!("cannot start the log: {error}"));
    }
    let ran = server::run(settings, on_ready);
    logs::flush_events();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ StartError::Config(_)) => usage(error),
        Err(error @ StartError::Machine(_)) => failure(error),
    }
}
