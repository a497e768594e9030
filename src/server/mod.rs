//! Threads, sockets, signals: from validated settings to a serving process, and down again.
//!
//! ```text
//! main thread   binds, opens, starts the cores, waits for signals
//! clerk         errands of the cores, looks at the certificate's files
//! core threads  accept, serve (watch.rs: deadlines; h1, h2: the drivers), drain
//! ```
//!
//! Called by `cli`. Nothing is half-started: a listener, a store or a certificate that fails ends
//! the start before the first connection is accepted. A core that dies takes the process along,
//! with a line that says so: a thread short, the kernel would go on handing it connections.

mod accept;
mod certificate;
mod clerk;
mod core_thread;
mod h1;
mod h2;
mod janitor;
mod proxy_header;
mod start;
mod watch;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::config::Settings;
use crate::store::Shutdown;

pub use start::StartError;

use core_thread::Cores;
use start::Started;

/// Serves until a TERM or INT signal, then drains.
///
/// `on_ready` is told the address once everything is in place.
///
/// # Errors
/// Why it could not start; nothing is left running that matters.
pub fn run(settings: Settings, on_ready: impl FnOnce(&str)) -> Result<(), StartError> {
    let signals = block_signals();
    let started = start::start(settings)?;
    let cores = Cores::start(&started)?;
    print_start(&started, &cores);
    on_ready(&started.url());
    wait(&signals, &started);
    stop(&signals, &started, cores);
    Ok(())
}

/// Keeps TERM, INT and HUP for [`run`]. All threads inherit that: a signal is taken where it is
/// waited for, nowhere else. So this comes before any thread is started; a thread without it would
/// take a signal in its stead, and end the process.
pub fn hold_signals() {
    let _ = block_signals();
}

fn block_signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Blocking valid signals in the calling thread can't fail.
    let _ = signals.thread_block();
    signals
}

/// Waits for TERM or INT; HUP reads the certificate and opens the access log again.
fn wait(signals: &SigSet, started: &Started) {
    loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => started.reload(),
            Ok(_) => return,
            Err(_) => {}
        }
    }
}

fn stop(signals: &SigSet, started: &Started, cores: Cores) {
    let span = started.shared.plan.settings.server.shutdown_timeout;
    tracing::info!(seconds = span.as_secs(), "draining");
    started.shared.draining.store(true, Ordering::Release);
    let until = Instant::now() + span;
    cores.drain(span);
    // A second signal is an order to stop now.
    let hurry = signals.thread_unblock();
    debug_assert!(hurry.is_ok());
    cores.join(until);
    let left = until.saturating_duration_since(Instant::now()).max(FLUSH_SPAN_MIN);
    if let Some(store) = &started.shared.store
        && store.shutdown(left) == Shutdown::DeadlinePassed
    {
        tracing::warn!("the storage queue was not flushed in time");
    }
    if let Some(access) = &started.shared.access {
        access.writer.flush(FLUSH_SPAN_MIN);
    }
    tracing::info!("stopped");
}

/// The first line is for programs, the others for people.
fn print_start(started: &Started, cores: &Cores) {
    let plan = &started.shared.plan;
    let settings = &plan.settings;
    let mut out = std::io::stdout().lock();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(out, "apiproxyd {version} listening on {}", started.url());
    let _ = writeln!(out, "  cores       {}", cores.len());
    let _ = writeln!(out, "  driver      {}", cores.driver());
    let prefix = settings.server.api_prefix.as_str();
    for route in settings.table.as_slice() {
        let Some(upstream) = settings.upstream(route.upstream) else { continue };
        let path = String::from_utf8_lossy(route.prefix());
        let _ = writeln!(out, "  upstream    {prefix}{path}/* -> {}", upstream.upstream);
    }
    let _ = writeln!(out, "  cache       {}", started.tiers());
    let _ = writeln!(out, "  protection  {}", started.protections());
    let _ = out.flush();
}

/// The storage queue gets that long even when the cores have used up the drain.
const FLUSH_SPAN_MIN: Duration = Duration::from_secs(2);

/// What a core needs of the start.
type SharedState = Arc<crate::proxy::Shared>;
