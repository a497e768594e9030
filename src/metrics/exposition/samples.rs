//! The samples of the families that are more than a cell each.

use std::fmt;
use std::time::Duration;

use crate::breaker::Position;
use crate::metrics::cells::{DURATION_BOUNDS, RESULTS, size_bound};
use crate::metrics::exposition::Page;
use crate::metrics::exposition::sink::Sink;
use crate::metrics::extras::{OpExtras, StoreExtras, UpstreamExtras};
use crate::metrics::labels::{
    CacheResult, HEAD_REFUSALS, METHODS, OTHER, REFUSAL_STATUSES, STATUS_CLASSES, UPSTREAM_FAILURES,
};
use crate::metrics::snapshot::{CoreFigures, Snapshot, total};
use crate::metrics::table::{Derived, Shared, Stored};

/// The number of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// A whole number.
    Count(u64),
    /// Any other, such as seconds.
    Real(f64),
}

impl Value {
    fn seconds(span: Duration) -> Self {
        Self::Real(span.as_secs_f64())
    }
}

/// A histogram: the sum of what was observed, and upper bounds with the number in each bucket.
pub(super) struct Histogram {
    pub(super) sum: f64,
    pub(super) buckets: Vec<(f64, u64)>,
}

type Put<'s, 'e, 'd> = &'s mut Sink<'e, 'd>;

pub(super) fn derived(metric: Derived, all: &Snapshot, sink: Put<'_, '_, '_>) -> fmt::Result {
    match metric {
        Derived::Requests => requests(all, sink),
        Derived::RequestDuration => durations(all, sink),
        Derived::ResponseSize => sizes(all, sink),
        Derived::SavedBytes => sink.put(&[], Value::Count(all.saved_bytes())),
        Derived::Refusals => {
            let others = std::iter::once(OTHER.to_owned());
            let statuses = REFUSAL_STATUSES.iter().map(u16::to_string).chain(others);
            for (status, n) in statuses.zip(all.refusals) {
                sink.put(&[&status], Value::Count(n))?;
            }
            Ok(())
        }
        Derived::HeadRefusals => words(&HEAD_REFUSALS, &all.head_refusals, sink),
        Derived::UpstreamFailures => words(&UPSTREAM_FAILURES, &all.upstream_failures, sink),
        Derived::CoreRequests => each_core(all, sink, |core| Value::Count(core.requests)),
        Derived::CoreConnections => each_core(all, sink, |core| Value::Count(core.connections)),
        Derived::LoopLag => {
            each_core(all, sink, |core| Value::seconds(Duration::from_nanos(core.loop_lag_nanos)))
        }
    }
}

pub(super) fn shared(metric: Shared, page: &Page, sink: Put<'_, '_, '_>) -> fmt::Result {
    let extras = &page.extras;
    let upstreams = extras.upstreams.as_slice();
    match metric {
        Shared::BuildInfo => sink.put(&[extras.version], Value::Count(1)),
        Shared::RuntimeInfo => {
            let store = extras.store.as_ref().map_or("none", |store| store.backend);
            sink.put(&[extras.driver, store], Value::Count(1))
        }
        Shared::Uptime => sink.put(&[], Value::seconds(extras.uptime)),
        Shared::Cores => {
            let cores = u64::try_from(page.snapshot.cores.len()).unwrap_or(u64::MAX);
            sink.put(&[], Value::Count(cores))
        }
        Shared::L1Distinct => sink.put(&[], Value::Count(extras.l1_entries)),
        Shared::L1Bytes => sink.put(&[], Value::Count(extras.l1_bytes)),
        Shared::L1Limit => sink.put(&[], Value::Count(extras.l1_bytes_max)),
        Shared::RequestBodyBytes => sink.put(&[], Value::Count(extras.request_body_bytes)),
        Shared::AccessLogDropped => sink.put(&[], Value::Count(extras.access_log_dropped)),
        Shared::BreakerState => {
            for upstream in upstreams {
                for state in [Position::Closed, Position::Open, Position::HalfOpen] {
                    let is = u64::from(state == upstream.breaker);
                    sink.put(&[&upstream.name, state.as_str()], Value::Count(is))?;
                }
            }
            Ok(())
        }
        Shared::BreakerFailures => each_upstream(upstreams, sink, |it| u64::from(it.failures)),
        Shared::LogDropped => sink.put(&[], Value::Count(extras.log_dropped)),
        Shared::Permits => each_upstream(upstreams, sink, |it| it.permits_taken),
        Shared::PermitsMax => each_upstream(upstreams, sink, |it| it.permits),
        Shared::UpstreamConnections => {
            for it in upstreams {
                // Read one after the other: a connection may have come to rest in between.
                let active = it.permits_taken.saturating_sub(it.idle);
                sink.put(&[&it.name, "active"], Value::Count(active))?;
                sink.put(&[&it.name, "idle"], Value::Count(it.idle))?;
            }
            Ok(())
        }
        Shared::UpstreamWaiting => each_upstream(upstreams, sink, |it| it.waiting),
        Shared::UpstreamReceived => each_upstream(upstreams, sink, |it| it.received_bytes),
    }
}

pub(super) fn stored(metric: Stored, store: &StoreExtras, sink: Put<'_, '_, '_>) -> fmt::Result {
    let count = Value::Count;
    match metric {
        Stored::Up => {
            sink.put(&["reads"], count(u64::from(store.reads_unavailable.is_none())))?;
            sink.put(&["writes"], count(u64::from(store.writes_unavailable.is_none())))
        }
        Stored::Heartbeat => sink.put(&[], Value::seconds(store.heartbeat_age)),
        Stored::Queue => sink.put(&[], count(store.queue_depth)),
        Stored::PutRows => sink.put(&[], count(store.put_queue_rows)),
        Stored::PutBytes => sink.put(&[], count(store.put_queue_bytes)),
        Stored::Calls => each_op(store, sink, |op| Value::Count(op.calls)),
        Stored::Items => each_op(store, sink, |op| Value::Count(op.items)),
        Stored::Busy => each_op(store, sink, |op| Value::seconds(op.busy)),
        Stored::Errors => each_op(store, sink, |op| Value::Count(op.errors)),
        Stored::Unanswered => {
            sink.put(&["queue_full"], count(store.lookups_shed))?;
            sink.put(&["unavailable"], count(store.lookups_unavailable))
        }
        Stored::PutsDropped => {
            sink.put(&["queue_full"], count(store.puts_shed))?;
            sink.put(&["overtaken"], count(store.puts_overtaken))?;
            sink.put(&["failed"], count(store.puts_failed))
        }
        Stored::Removed => {
            sink.put(&["expired"], count(store.rows_expired))?;
            sink.put(&["size_limit"], count(store.rows_evicted))?;
            sink.put(&["damaged"], count(store.rows_damaged))
        }
        Stored::Repairs => {
            sink.put(&["emptied"], count(store.files_emptied))?;
            sink.put(&["moved_aside"], count(store.files_moved_aside))?;
            sink.put(&["reopened"], count(store.reopened))
        }
        Stored::RemotePurges => sink.put(&[], count(store.remote_purges)),
        Stored::Panics => sink.put(&[], count(store.panics)),
        Stored::Rows => sink.put(&[], count(store.rows)),
        Stored::Bytes => sink.put(&[], count(store.bytes)),
    }
}

/// All combinations, seen or not: a series that appears with its first error hides that error from
/// `rate`. Only interim statuses wait to be seen, since no answer has one.
fn requests(all: &Snapshot, sink: Put<'_, '_, '_>) -> fmt::Result {
    let groups =
        METHODS.iter().flat_map(|method| STATUS_CLASSES.iter().map(move |it| (method, it)));
    for ((method, class), cells) in groups.zip(all.requests.chunks(RESULTS)) {
        if *class == "1xx" && total(cells) == 0 {
            continue;
        }
        for (result, n) in CacheResult::ALL.iter().zip(cells) {
            sink.put(&[method, class, result.as_str()], Value::Count(*n))?;
        }
    }
    Ok(())
}

fn durations(all: &Snapshot, sink: Put<'_, '_, '_>) -> fmt::Result {
    let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
    let cells = all.durations.iter().zip(all.duration_nanos);
    for (result, (counts, nanos)) in CacheResult::ALL.iter().zip(cells) {
        let bounds = DURATION_BOUNDS.iter().map(|bound| seconds(*bound));
        let buckets = bounds.chain(std::iter::once(f64::INFINITY)).zip(counts.iter().copied());
        let histogram = Histogram { sum: seconds(nanos), buckets: buckets.collect() };
        sink.put_histogram(&[result.as_str()], &histogram)?;
    }
    Ok(())
}

fn sizes(all: &Snapshot, sink: Put<'_, '_, '_>) -> fmt::Result {
    let bucket = |(index, n): (usize, &u64)| (size_bound(index).map_or(f64::INFINITY, real), *n);
    let buckets = all.sizes.iter().enumerate().map(bucket).collect();
    sink.put_histogram(&[], &Histogram { sum: real(total(&all.body_bytes)), buckets })
}

fn words(words: &[&str], counts: &[u64], sink: Put<'_, '_, '_>) -> fmt::Result {
    for (word, n) in words.iter().zip(counts) {
        sink.put(&[word], Value::Count(*n))?;
    }
    Ok(())
}

fn each_core(
    all: &Snapshot,
    sink: Put<'_, '_, '_>,
    value: impl Fn(&CoreFigures) -> Value,
) -> fmt::Result {
    for (number, core) in all.cores.iter().enumerate() {
        sink.put(&[&number.to_string()], value(core))?;
    }
    Ok(())
}

fn each_upstream(
    upstreams: &[UpstreamExtras],
    sink: Put<'_, '_, '_>,
    value: impl Fn(&UpstreamExtras) -> u64,
) -> fmt::Result {
    for upstream in upstreams {
        sink.put(&[&upstream.name], Value::Count(value(upstream)))?;
    }
    Ok(())
}

fn each_op(
    store: &StoreExtras,
    sink: Put<'_, '_, '_>,
    value: impl Fn(&OpExtras) -> Value,
) -> fmt::Result {
    for op in &store.ops {
        sink.put(&[op.op], value(op))?;
    }
    Ok(())
}

/// Bytes as a float, exact up to 2^53.
#[allow(clippy::cast_precision_loss)] // Floats are what the format has.
fn real(n: u64) -> f64 {
    n as f64
}
