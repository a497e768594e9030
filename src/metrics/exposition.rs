//! The text of `/metrics`: OpenMetrics 1.0, or the classic Prometheus format 0.0.4.
//!
//! prometheus-client writes OpenMetrics from a collector that walks the table; the classic text is
//! the same one with its few differences put in, so that the two cannot disagree. About 1 ms for
//! 64 cores in an unoptimised build, on the thread of the caller.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::http::accept::Quality;
use crate::http::list::members;
use crate::http::media::MediaType;
use crate::metrics::cells::CoreCells;
use crate::metrics::extras::Extras;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::table::{COUNTERS, Derived, GAUGES, Shared, Stored};

#[cfg(test)]
mod deploy;
mod samples;
mod sink;
#[cfg(test)]
mod tests;

use samples::Value;
use sink::Sink;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Classic,
}

impl Format {
    /// Which format to answer with, from the value of Accept (RFC 9110 section 12.5.1).
    ///
    /// OpenMetrics for those who name it in a version we write and don't prefer plain text; the
    /// classic text for all others, also where Accept allows neither: better than 406.
    #[must_use]
    pub fn negotiate(accept: Option<&[u8]>) -> Self {
        let (mut open, mut plain) = (Quality::NONE, Quality::NONE);
        let ranges = accept.into_iter().flat_map(members).filter_map(MediaType::parse);
        for range in ranges {
            let quality = match range.parameter("q") {
                None => Quality::FULL,
                Some(text) => Quality::parse(&text).unwrap_or(Quality::NONE),
            };
            let version = range.parameter("version");
            let in_version = |ours: &[u8]| version.as_deref().is_none_or(|it| it == ours);
            if range.is("application", "openmetrics-text") && in_version(b"1.0.0") {
                open = open.max(quality);
            } else if range.is("text", "plain") && in_version(b"0.0.4") {
                plain = plain.max(quality);
            }
        }
        if open.is_acceptable() && open >= plain { Self::OpenMetrics } else { Self::Classic }
    }

    /// The value of Content-Type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes everything the cores have counted, and the extras.
#[must_use]
pub fn render(cores: &[Arc<CoreCells>], extras: Extras, format: Format) -> String {
    let page = Page { snapshot: Snapshot::of(cores), extras };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut text = String::with_capacity(TEXT_BYTES);
    let written = text::encode(&mut text, &registry);
    // A String takes everything. Were it not so, the text would lack its end and be refused.
    debug_assert!(written.is_ok());
    match format {
        Format::OpenMetrics => text,
        Format::Classic => classic(&text),
    }
}

/// What the registry encodes: it lives for one scrape.
#[derive(Debug)]
struct Page {
    snapshot: Snapshot,
    extras: Extras,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in COUNTERS {
            let mut sink = Sink::new(family.row, &mut encoder);
            for (counter, label) in family.cells {
                sink.put(&label_values(label), Value::Count(self.snapshot.counter(*counter)))?;
            }
        }
        for family in GAUGES {
            let mut sink = Sink::new(family.row, &mut encoder);
            for (gauge, label) in family.cells {
                sink.put(&label_values(label), Value::Count(self.snapshot.gauge(*gauge)))?;
            }
        }
        for derived in Derived::ALL {
            let mut sink = Sink::new(derived.row(), &mut encoder);
            samples::derived(*derived, &self.snapshot, &mut sink)?;
        }
        for shared in Shared::ALL {
            let mut sink = Sink::new(shared.row(), &mut encoder);
            samples::shared(*shared, self, &mut sink)?;
        }
        for (stored, store) in Stored::ALL.iter().zip(self.extras.store.iter().cycle()) {
            let mut sink = Sink::new(stored.row(), &mut encoder);
            samples::stored(*stored, store, &mut sink)?;
        }
        Ok(())
    }
}

/// A cell's label value as a list: none where the family has no label.
fn label_values<'a>(value: &'a &'static str) -> Vec<&'a str> {
    if value.is_empty() { Vec::new() } else { vec![value] }
}

/// The same text in the classic format. It differs in the comments only: types and helps are named
/// as the samples are, there are no info metrics, units and end.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + CLASSIC_BYTES);
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Written once the type is known, which the next line tells.
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            for part in ["# HELP ", name, suffix, " ", help, "\n"] {
                text.push_str(part);
            }
            for part in ["# TYPE ", name, suffix, " ", kind, "\n"] {
                text.push_str(part);
            }
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Room for the usual text, so that it is not moved while it grows.
const TEXT_BYTES: usize = 64 << 10;
/// What the longer names of counters add.
const CLASSIC_BYTES: usize = 2 << 10;
