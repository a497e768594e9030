//! `apiproxyd run`: from settings to the running server.

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::cli::{failure, usage};
use crate::config::{Log, LogFormat, Settings};
use crate::server::{self, StartError};

/// Serves until told to stop.
pub fn run(settings: Settings) -> ExitCode {
    run_then(settings, |_| {})
}

/// Serves until told to stop; `on_ready` gets the address once it serves.
pub fn run_then(settings: Settings, on_ready: impl FnOnce(&str)) -> ExitCode {
    log(&settings.log);
    match server::run(settings, on_ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ StartError::Config(_)) => usage(error),
        Err(error @ StartError::Machine(_)) => failure(error),
    }
}

/// Logs go to stderr; `RUST_LOG`, where set, is stronger than the configuration.
fn log(settings: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(settings.level.as_str()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process keeps the first one's log.
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
