//! The daemon's own log: what `tracing` is told, at and above `log.level`, as text or JSON.
//!
//! Lines go to standard error through a thread of their own ([`Writer`]): a terminal that is held
//! or a pipe that nobody reads must not stop a core. Control bytes within a line are escaped, so
//! that no text that found its way into one can forge another.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat, LogLevel};
use crate::logs::escape;
use crate::logs::writer::{Target, Writer};

/// Makes a sink for each line.
#[derive(Clone, Debug)]
pub struct Events(Arc<Writer>);

/// One line on its way.
pub struct Event<'w> {
    writer: &'w Writer,
    bytes: Vec<u8>,
}

/// `tracing` has one subscriber for the process, and so this has one writer.
static WRITER: OnceLock<Arc<Writer>> = OnceLock::new();

/// Installs the daemon's log; `RUST_LOG`, where set, is stronger than the level configured. That
/// level is for what the daemon itself says: of the libraries under it only warnings are logged,
/// for some of them (h2) note every frame. A second start in one process keeps the first one's log.
///
/// # Errors
/// No thread could be started.
pub fn install(settings: &Log) -> io::Result<()> {
    let writer = Writer::start("log", Target::Stderr)?;
    let writer = WRITER.get_or_init(|| writer);
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(directives(settings.level)));
    let events = Events(Arc::clone(writer));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(events);
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

/// The filter for a level.
fn directives(level: LogLevel) -> String {
    let others = match level {
        LogLevel::Error => LogLevel::Error,
        _ => LogLevel::Warn,
    };
    format!("{},{}={}", others.as_str(), env!("CARGO_PKG_NAME"), level.as_str())
}

/// Waits until the lines so far are written, a second at most. Before the process ends.
pub fn flush_events() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_SPAN);
    }
}

/// Lines of the daemon's log that were dropped.
#[must_use]
pub fn dropped() -> u64 {
    WRITER.get().map_or(0, |it| it.dropped())
}

impl<'w> MakeWriter<'w> for Events {
    type Writer = Event<'w>;

    fn make_writer(&'w self) -> Event<'w> {
        Event { writer: &self.0, bytes: Vec::new() }
    }
}

impl io::Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            drop(self.writer.offer(one_line(bytes), 1));
        }
    }
}

/// The line with every control byte but its end escaped.
fn one_line(bytes: Vec<u8>) -> Vec<u8> {
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if !text.iter().any(u8::is_ascii_control) {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for byte in text {
        if byte.is_ascii_control() {
            escape::quoted(&[*byte], &mut out);
        } else {
            out.push(*byte);
        }
    }
    out.push(b'\n');
    out
}

const FLUSH_SPAN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_one_line_whatever_is_in_it() {
        let rows: &[(&[u8], &[u8])] = &[
            (b"plain\n", b"plain\n"),
            (b"a\nINFO forged\n", b"a\\x0aINFO forged\n"),
            (b"\x1b[31mred\r\n", b"\\x1b[31mred\\x0d\n"),
            ("é \\\" stays\n".as_bytes(), "é \\\" stays\n".as_bytes()),
            (b"no end\t", b"no end\\x09\n"),
        ];
        for (given, expected) in rows {
            assert_eq!(one_line(given.to_vec()), *expected);
        }
    }
}
