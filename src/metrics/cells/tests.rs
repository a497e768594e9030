use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::metrics::labels::OTHER;
use crate::metrics::snapshot::Snapshot;

fn snapshot(cells: CoreCells) -> Snapshot {
    Snapshot::of(&[Arc::new(cells)])
}

fn requests(all: &Snapshot, method: &str, class: &str, result: CacheResult) -> u64 {
    let method = METHODS.iter().position(|it| *it == method).unwrap();
    let class = STATUS_CLASSES.iter().position(|it| *it == class).unwrap();
    all.requests[(method * STATUS_CLASSES.len() + class) * RESULTS + result as usize]
}

#[test]
fn cells_of_two_cores_share_no_cache_line() {
    assert_eq!(align_of::<CoreCells>(), 128);
    assert_eq!(size_of::<CoreCells>() % 128, 0);
    assert!(size_of::<CoreCells>() < 8 << 10, "{}", size_of::<CoreCells>());
}

#[test]
fn a_hit_counts_its_request_bytes_size_and_the_lowest_duration() {
    let cells = CoreCells::new();
    cells.on_hit(&Method::Get, 200, CacheResult::Hit, 1_000);
    cells.on_hit(&Method::Get, 304, CacheResult::Hit, 0);
    let all = snapshot(cells);
    assert_eq!(requests(&all, "GET", "2xx", CacheResult::Hit), 1);
    assert_eq!(requests(&all, "GET", "3xx", CacheResult::Hit), 1);
    assert_eq!((all.requests_total(), all.requests(CacheResult::Hit)), (2, 2));
    assert_eq!(all.body_bytes[CacheResult::Hit as usize], 1_000);
    assert_eq!((all.sizes[0], all.sizes[1]), (1, 1));
    assert_eq!(all.durations[CacheResult::Hit as usize][0], 2);
    assert_eq!(all.duration_nanos[CacheResult::Hit as usize], 0);
}

#[test]
fn a_response_counts_its_duration_under_its_own_result() {
    let cells = CoreCells::new();
    let took = Duration::from_micros(2_500);
    cells.on_response(&Method::Post, 502, CacheResult::Error, took, 300);
    let all = snapshot(cells);
    assert_eq!(requests(&all, "POST", "5xx", CacheResult::Error), 1);
    // 2.5 ms is the bound of the sixth bucket, and bounds are inclusive.
    assert_eq!(all.durations[CacheResult::Error as usize][5], 1);
    assert_eq!(all.duration_nanos[CacheResult::Error as usize], 2_500_000);
    assert_eq!(all.saved_bytes(), 0);
}

#[test]
fn only_bodies_from_the_cache_save_bytes() {
    let cells = CoreCells::new();
    for (place, result) in CacheResult::ALL.into_iter().enumerate() {
        cells.on_response(&Method::Get, 200, result, Duration::ZERO, 10_u64.pow(place as u32));
    }
    // hit, stale, revalidated
    assert_eq!(snapshot(cells).saved_bytes(), 1 + 100 + 1_000);
}

#[test]
fn a_refusal_is_a_request_of_no_known_method() {
    let cells = CoreCells::new();
    for status in [429, 429, 400, 418] {
        cells.on_refusal(status);
    }
    let all = snapshot(cells);
    assert_eq!(requests(&all, OTHER, "4xx", CacheResult::None), 4);
    let of = |status: u16| REFUSAL_STATUSES.iter().position(|it| *it == status).unwrap();
    assert_eq!((all.refusals[of(429)], all.refusals[of(400)]), (2, 1));
    assert_eq!(all.refusals.last(), Some(&1));
    assert_eq!(all.sizes.iter().sum::<u64>(), 0);
}

#[test]
fn reasons_count_by_their_word() {
    let cells = CoreCells::new();
    cells.on_upstream_failure("resolve");
    cells.on_upstream_failure("no such word");
    cells.on_head_refusal("obs_fold");
    cells.on_head_refusal("GET / HTTP/1.1");
    let all = snapshot(cells);
    assert_eq!((all.upstream_failures[0], all.upstream_failures.last()), (1, Some(&1)));
    assert_eq!(all.head_refusals.last(), Some(&1));
    assert_eq!(all.head_refusals.iter().sum::<u64>(), 2);
}

#[test]
fn every_counter_and_gauge_has_a_cell_of_its_own() {
    let cells = CoreCells::new();
    for (n, counter) in (1..).zip(Counter::ALL) {
        cells.add(*counter, n);
        cells.inc(*counter);
    }
    for (n, gauge) in (1..).zip(Gauge::ALL) {
        cells.set(*gauge, n);
    }
    let all = Snapshot::of(&[&cells, &cells]);
    for (n, counter) in (1..).zip(Counter::ALL) {
        assert_eq!(cells.value(*counter), n + 1, "{counter:?}");
        assert_eq!(all.counter(*counter), 2 * (n + 1), "{counter:?}");
    }
    for (n, gauge) in (1..).zip(Gauge::ALL) {
        assert_eq!(all.gauge(*gauge), 2 * n, "{gauge:?}");
    }
}

#[test]
fn gauges_rise_and_fall() {
    let cells = CoreCells::new();
    cells.raise(Gauge::RequestsInFlight);
    cells.raise(Gauge::RequestsInFlight);
    cells.lower(Gauge::RequestsInFlight);
    assert_eq!(snapshot(cells).gauge(Gauge::RequestsInFlight), 1);
}

#[test]
fn open_connections_are_those_accepted_and_not_closed() {
    let (first, second) = (CoreCells::new(), CoreCells::new());
    first.add(Counter::ConnectionsAccepted, 5);
    first.add(Counter::ConnectionsClosed, 2);
    second.inc(Counter::ConnectionsAccepted);
    let all = Snapshot::of(&[&first, &second]);
    let each: Vec<u64> = all.cores.iter().map(|core| core.connections).collect();
    assert_eq!((each, all.connections()), (vec![3, 1], 4));
}

#[test]
fn the_worst_lag_fades() {
    let cells = CoreCells::new();
    let lag = |cells: &CoreCells| Duration::from_nanos(cells.loop_lag_nanos.value());
    cells.on_loop_lag(Duration::from_millis(80));
    assert_eq!(lag(&cells), Duration::from_millis(80));
    cells.on_loop_lag(Duration::ZERO);
    assert_eq!(lag(&cells), Duration::from_millis(70));
    for _ in 0..200 {
        cells.on_loop_lag(Duration::from_micros(3));
    }
    assert_eq!(lag(&cells), Duration::from_micros(3));
}

#[test]
#[allow(clippy::disallowed_methods)] // Two threads are what it is about.
fn a_reader_sees_numbers_grow_and_never_an_invented_one() {
    let cells = Arc::new(CoreCells::new());
    let done = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let (cells, done) = (Arc::clone(&cells), Arc::clone(&done));
        move || {
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let seen = Snapshot::of(&[&*cells]).requests(CacheResult::Hit);
                assert!(seen >= last, "{seen} after {last}");
                last = seen;
            }
            Snapshot::of(&[&*cells]).requests(CacheResult::Hit)
        }
    });
    for _ in 0..100_000 {
        cells.on_hit(&Method::Get, 200, CacheResult::Hit, 1);
    }
    done.store(true, Ordering::Release);
    assert_eq!(reader.join().unwrap(), 100_000);
}

#[test]
fn sizes_fall_into_the_bucket_of_the_first_bound_at_or_above() {
    let rows = [
        (0, 0),
        (1, 0),
        (256, 0),
        (257, 1),
        (1_024, 1),
        (1_025, 2),
        (4_096, 2),
        (64 << 20, 9),
        ((64 << 20) + 1, 10),
        (u64::MAX, 10),
    ];
    for (bytes, bucket) in rows {
        assert_eq!(size_bucket(bytes), bucket, "{bytes}");
    }
    assert_eq!(size_bound(0), Some(256));
    assert_eq!(size_bound(9), Some(64 << 20));
    assert_eq!(size_bound(10), None);
}

#[test]
fn duration_bounds_reach_from_50_us_to_30_s() {
    assert_eq!(DURATION_BOUNDS.first(), Some(&50_000));
    assert_eq!(DURATION_BOUNDS.last(), Some(&30_000_000_000));
    assert!(DURATION_BOUNDS.is_sorted_by(|a, b| a < b));
    assert_eq!(duration_bucket(u64::MAX), DURATION_BUCKETS - 1);
}

proptest! {
    #[test]
    fn buckets_agree_with_a_search(shift in 0_u32..64, low in any::<u64>()) {
        let n = low >> shift;
        let size = (0..SIZE_BUCKETS).find(|it| size_bound(*it).is_none_or(|bound| n <= bound));
        prop_assert_eq!(Some(size_bucket(n)), size);
        let slow = DURATION_BOUNDS.iter().position(|bound| n <= *bound);
        prop_assert_eq!(duration_bucket(n), slow.unwrap_or(DURATION_BOUNDS.len()));
    }

    #[test]
    fn every_request_counts_exactly_once(
        events in proptest::collection::vec(
            (0_usize..12, 0_u16..1_000, 0_usize..7, any::<u32>(), 0_usize..3),
            0..60,
        ),
    ) {
        let names = [
            "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY", "CONNECT", "TRACE",
            "PURGE", "get",
        ];
        let cells = CoreCells::new();
        let (mut bodies, mut answers) = (0, 0);
        for (method, status, result, bytes, core) in &events {
            let method = Method::from_bytes(names[*method].as_bytes()).unwrap();
            let (result, bytes) = (CacheResult::ALL[*result], u64::from(*bytes));
            match core {
                0 => cells.on_hit(&method, *status, result, bytes),
                1 => {
                    let took = Duration::from_nanos(bytes);
                    cells.on_response(&method, *status, result, took, bytes);
                }
                _ => cells.on_refusal(*status),
            }
            if *core < 2 {
                bodies += bytes;
                answers += 1;
            }
        }
        let all = snapshot(cells);
        prop_assert_eq!(all.requests_total(), events.len() as u64);
        let by_result: u64 = CacheResult::ALL.into_iter().map(|it| all.requests(it)).sum();
        prop_assert_eq!(by_result, all.requests_total());
        prop_assert_eq!(all.cores[0].requests, all.requests_total());
        prop_assert_eq!(all.sizes.iter().sum::<u64>(), answers);
        prop_assert_eq!(all.durations.iter().flatten().sum::<u64>(), answers);
        prop_assert_eq!(all.body_bytes.iter().sum::<u64>(), bodies);
    }
}
