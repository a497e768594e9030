//! Samples of one family on their way to prometheus-client.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry;

use crate::metrics::exposition::samples::{Histogram, Value};
use crate::metrics::table::{Kind, Row, Unit};

/// Writes the samples of one family. The family's head goes before its first sample, so that one
/// without any leaves no trace.
pub(super) struct Sink<'e, 'd> {
    row: Row,
    state: State<'e, 'd>,
}

enum State<'e, 'd> {
    Unopened(&'e mut DescriptorEncoder<'d>),
    Open(MetricEncoder<'e>),
    /// Only while it changes.
    Moving,
}

impl<'e, 'd> Sink<'e, 'd> {
    pub(super) fn new(row: Row, encoder: &'e mut DescriptorEncoder<'d>) -> Self {
        Self { row, state: State::Unopened(encoder) }
    }

    /// One sample, with the values of the row's labels in their order.
    pub(super) fn put(&mut self, labels: &[&str], value: Value) -> fmt::Result {
        let row = self.row;
        let labels = pairs(row, labels);
        let metric = self.open()?;
        if row.kind == Kind::Info {
            return metric.encode_info(&labels);
        }
        if labels.is_empty() {
            return number(metric, row.kind, value);
        }
        let labels = labels.as_slice();
        number(&mut metric.encode_family(&labels)?, row.kind, value)
    }

    /// One histogram, labelled likewise.
    pub(super) fn put_histogram(&mut self, labels: &[&str], it: &Histogram) -> fmt::Result {
        let row = self.row;
        debug_assert_eq!(row.kind, Kind::Histogram);
        let count = it.buckets.iter().fold(0, |sum: u64, (_, n)| sum.wrapping_add(*n));
        let labels = pairs(row, labels);
        let metric = self.open()?;
        if labels.is_empty() {
            return metric.encode_histogram::<NoLabelSet>(it.sum, count, &it.buckets, None);
        }
        let labels = labels.as_slice();
        let mut member = metric.encode_family(&labels)?;
        member.encode_histogram::<NoLabelSet>(it.sum, count, &it.buckets, None)
    }

    fn open(&mut self) -> Result<&mut MetricEncoder<'e>, fmt::Error> {
        self.state = match std::mem::replace(&mut self.state, State::Moving) {
            State::Unopened(encoder) => {
                let (unit, kind) = (unit(self.row.unit), metric_type(self.row.kind));
                let name = stem(self.row);
                State::Open(encoder.encode_descriptor(name, self.row.help, unit, kind)?)
            }
            state => state,
        };
        match &mut self.state {
            State::Open(metric) => Ok(metric),
            State::Unopened(_) | State::Moving => Err(fmt::Error),
        }
    }
}

fn number(metric: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(n)) => metric.encode_counter::<NoLabelSet, _, u64>(&n, None),
        (Kind::Counter, Value::Real(x)) => metric.encode_counter::<NoLabelSet, _, u64>(&x, None),
        (_, Value::Count(n)) => metric.encode_gauge(&n),
        (_, Value::Real(x)) => metric.encode_gauge(&x),
    }
}

fn pairs<'a>(row: Row, values: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    debug_assert_eq!(row.labels.len(), values.len(), "{}", row.name);
    row.labels.iter().copied().zip(values.iter().copied()).collect()
}

/// The name without what the encoder puts behind it: unit, then `_total` or `_info`.
pub(super) fn stem(row: Row) -> &'static str {
    let kind = match row.kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    let unit = match row.unit {
        Unit::Count => "",
        Unit::Seconds => "_seconds",
        Unit::Bytes => "_bytes",
    };
    let name = row.name.strip_suffix(kind).unwrap_or(row.name);
    name.strip_suffix(unit).unwrap_or(name)
}

fn unit(unit: Unit) -> Option<&'static registry::Unit> {
    static SECONDS: registry::Unit = registry::Unit::Seconds;
    static BYTES: registry::Unit = registry::Unit::Bytes;
    match unit {
        Unit::Count => None,
        Unit::Seconds => Some(&SECONDS),
        Unit::Bytes => Some(&BYTES),
    }
}

const fn metric_type(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    }
}
