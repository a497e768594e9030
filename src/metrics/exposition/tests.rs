use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::breaker::Position;
use crate::http::Method;
use crate::metrics::extras::{OpExtras, StoreExtras, UpstreamExtras};
use crate::metrics::labels::CacheResult;
use crate::metrics::table::{Counter, Kind, Row, Unit, rows};

/// What a scraper reads.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// Name, kind and help in the order of the text.
    heads: Vec<(String, String, String)>,
    pub(super) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(super) struct Sample {
    /// The family it stands under.
    family: usize,
    pub(super) name: String,
    /// As written between the braces.
    pub(super) labels: Vec<(String, String)>,
    value: f64,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Families {
    /// Reads either format, strictly: a head before each family's samples, nothing unknown.
    pub(super) fn parse(text: &str) -> Self {
        let mut all = Self::default();
        assert!(text.ends_with('\n'));
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
                let kind = kind.strip_prefix(name).unwrap().trim();
                all.heads.push((name.to_owned(), kind.to_owned(), help.to_owned()));
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').unwrap();
                assert_eq!(all.heads.last().unwrap().0, name);
                assert!(name.ends_with(&format!("_{unit}")), "{name} {unit}");
            } else if line == "# EOF" {
                assert!(lines.peek().is_none());
            } else {
                all.samples.push(Sample::parse(line, all.heads.len() - 1));
            }
        }
        all
    }

    fn value(&self, name: &str, labels: Labels<'_>) -> f64 {
        let same = |sample: &&Sample| {
            sample.name == name
                && sample.labels.len() == labels.len()
                && labels.iter().all(|(key, value)| sample.label(key) == Some(value))
        };
        let found: Vec<&Sample> = self.samples.iter().filter(same).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0].value
    }
}

impl Sample {
    fn parse(line: &str, family: usize) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        Self {
            family,
            name: name.to_owned(),
            labels: Self::labels(labels),
            value: value.parse().unwrap(),
        }
    }

    /// `key="value"` with commas between, and `\\`, `\"`, `\n` in values.
    fn labels(text: &str) -> Vec<(String, String)> {
        let mut labels = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (key, value) = rest.split_once("=\"").unwrap();
            let mut content = String::new();
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next().unwrap().1 {
                        'n' => content.push('\n'),
                        other => content.push(other),
                    },
                    (_, other) => content.push(other),
                }
            };
            labels.push((key.to_owned(), content));
            rest = &value[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        labels
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

pub(super) fn extras() -> Extras {
    let upstream = |name: &str, breaker| UpstreamExtras {
        name: name.into(),
        breaker,
        failures: 3,
        permits_taken: 7,
        permits: 100,
        idle: 5,
        waiting: 4,
        received_bytes: 9_000,
    };
    let op =
        |op| OpExtras { op, calls: 2, items: 9, busy: Duration::from_millis(1_500), errors: 1 };
    Extras {
        version: "0.1.0",
        driver: "io_uring",
        uptime: Duration::from_millis(12_500),
        l1_entries: 4,
        l1_bytes: 4_096,
        l1_bytes_max: 1 << 28,
        request_body_bytes: 65_536,
        access_log_dropped: 6,
        log_dropped: 2,
        upstreams: vec![
            upstream("https://a.example", Position::Closed),
            upstream("https://b.example", Position::HalfOpen),
        ],
        store: Some(StoreExtras {
            backend: "sqlite",
            writes_unavailable: Some("full"),
            ops: ["get", "put", "purge", "sweep"].map(op).to_vec(),
            rows: 10,
            ..StoreExtras::default()
        }),
    }
}

/// Two cores with something in every kind of cell.
pub(super) fn cores() -> Vec<Arc<CoreCells>> {
    let cores = [CoreCells::new(), CoreCells::new()];
    for core in &cores {
        for counter in Counter::ALL {
            core.inc(*counter);
        }
        core.on_hit(&Method::Get, 200, CacheResult::Hit, 100);
        for (n, result) in (1..).zip(CacheResult::ALL) {
            let took = Duration::from_micros(40 * 3_u64.pow(n));
            core.on_response(&Method::Post, 404, result, took, 1_000 * u64::from(n));
        }
        core.on_refusal(431);
        core.on_head_refusal("obs_fold");
        core.on_upstream_failure("tls");
        core.on_loop_lag(Duration::from_millis(2));
    }
    cores.map(Arc::new).to_vec()
}

fn both() -> [(Format, String); 2] {
    [Format::OpenMetrics, Format::Classic].map(|it| (it, render(&cores(), extras(), it)))
}

/// Sample name -> row, histograms under each of their three names.
fn sample_names() -> BTreeMap<String, Row> {
    let mut names = BTreeMap::new();
    for row in rows() {
        let suffixes: &[&str] = match row.kind {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        for suffix in suffixes {
            let earlier = names.insert(format!("{}{suffix}", row.name), row);
            assert!(earlier.is_none(), "{}{suffix} stands twice", row.name);
        }
    }
    names
}

#[test]
fn names_and_helps_follow_the_conventions() {
    for row in rows() {
        let name = row.name;
        assert!(name.starts_with("apiproxyd_"), "{name}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(name.bytes().all(plain) && !name.contains("__"), "{name}");
        assert_eq!(name.ends_with("_total"), row.kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_info"), row.kind == Kind::Info, "{name}");
        for reserved in ["_sum", "_count", "_bucket", "_created"] {
            assert!(!name.ends_with(reserved), "{name}");
        }
        for word in name.split('_') {
            let kinds = ["counter", "gauge", "histogram", "summary", "ms", "millis", "kb", "ns"];
            assert!(!kinds.contains(&word), "{name}");
        }
        let stem = name.strip_suffix("_total").unwrap_or(name);
        assert_eq!(stem.ends_with("_seconds"), row.unit == Unit::Seconds, "{name}");
        assert_eq!(stem.ends_with("_bytes"), row.unit == Unit::Bytes, "{name}");
        assert!(row.help.ends_with('.') && !row.help.contains(['\n', '\\', '"']), "{name}");
        assert!(!row.help.contains("  "), "{name}");
        for label in row.labels {
            assert!(label.bytes().all(plain) && *label != "le" && *label != "quantile", "{name}");
        }
    }
}

#[test]
fn a_scrape_shows_every_row_of_the_table_and_nothing_else() {
    let names = sample_names();
    for (format, text) in both() {
        let families = Families::parse(&text);
        let shown: BTreeSet<&str> = families.samples.iter().map(|it| it.name.as_str()).collect();
        let known: BTreeSet<&str> = names.keys().map(String::as_str).collect();
        assert_eq!(shown, known, "{format:?}");
        for sample in &families.samples {
            let keys = sample.labels.iter().map(|(key, _)| key.as_str());
            let keys: BTreeSet<&str> = keys.filter(|key| *key != "le").collect();
            let row: BTreeSet<&str> = names[&sample.name].labels.iter().copied().collect();
            assert_eq!(keys, row, "{}", sample.name);
        }
    }
}

#[test]
fn heads_stand_once_with_the_type_that_each_format_knows() {
    for (format, text) in both() {
        let families = Families::parse(&text);
        let mut seen = BTreeSet::new();
        for (name, kind, help) in &families.heads {
            assert!(seen.insert(name.clone()), "{name} stands twice");
            assert!(!help.is_empty());
            let row = rows().find(|row| match format {
                Format::Classic => row.name == name,
                Format::OpenMetrics => match row.kind {
                    Kind::Counter => row.name.strip_suffix("_total") == Some(name),
                    Kind::Info => row.name.strip_suffix("_info") == Some(name),
                    Kind::Gauge | Kind::Histogram => row.name == name,
                },
            });
            let row = row.unwrap_or_else(|| panic!("{name} is in no row"));
            let expected = match (row.kind, format) {
                (Kind::Counter, _) => "counter",
                (Kind::Histogram, _) => "histogram",
                (Kind::Info, Format::OpenMetrics) => "info",
                (Kind::Info, Format::Classic) | (Kind::Gauge, _) => "gauge",
            };
            assert_eq!((kind.as_str(), help.as_str()), (expected, row.help), "{name}");
        }
        for sample in &families.samples {
            let head = &families.heads[sample.family].0;
            assert!(sample.name.starts_with(head.as_str()), "{} under {head}", sample.name);
        }
    }
}

#[test]
fn no_series_stands_twice() {
    for (format, text) in both() {
        let mut seen = BTreeSet::new();
        for sample in Families::parse(&text).samples {
            let mut labels = sample.labels.clone();
            labels.sort();
            assert!(seen.insert((sample.name.clone(), labels)), "{format:?} {}", sample.name);
        }
    }
}

#[test]
fn both_formats_tell_the_same_numbers() {
    let [(_, open), (_, classic)] = both();
    let samples = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(&open), samples(&classic));
    assert!(open.ends_with("# EOF\n"));
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
}

#[test]
fn buckets_are_cumulative_and_end_with_all() {
    for (_, text) in both() {
        let families = Families::parse(&text);
        let mut series: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in families.samples.iter().filter(|it| it.name.ends_with("_bucket")) {
            let bound = match sample.label("le").unwrap() {
                "+Inf" => f64::INFINITY,
                text => text.parse().unwrap(),
            };
            let key = (sample.name.clone(), sample.label("cache").map(str::to_owned));
            series.entry(key).or_default().push((bound, sample.value));
        }
        assert_eq!(series.len(), CacheResult::ALL.len() + 1);
        for ((name, result), buckets) in series {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {result:?}");
            let (bound, all) = *buckets.last().unwrap();
            assert!(bound.is_infinite());
            let base = name.strip_suffix("_bucket").unwrap();
            let labels: Vec<(&str, &str)> =
                result.iter().map(|it| ("cache", it.as_str())).collect();
            assert_eq!(families.value(&format!("{base}_count"), &labels), all);
        }
    }
}

#[test]
fn numbers_of_all_cores_are_added_up() {
    let families = Families::parse(&render(&cores(), extras(), Format::Classic));
    let rows: &[(&str, Labels<'_>, f64)] = &[
        (
            "apiproxyd_requests_total",
            &[("method", "GET"), ("status_class", "2xx"), ("cache", "hit")],
            2.0,
        ),
        (
            "apiproxyd_requests_total",
            &[("method", "other"), ("status_class", "4xx"), ("cache", "none")],
            2.0,
        ),
        ("apiproxyd_l1_lookups_total", &[("result", "hit")], 2.0),
        ("apiproxyd_request_duration_seconds_count", &[("cache", "hit")], 4.0),
        // 40 us * 3 each, from two cores
        ("apiproxyd_request_duration_seconds_sum", &[("cache", "hit")], 0.000_24),
        ("apiproxyd_response_size_bytes_sum", &[], 2.0 * 28_100.0),
        ("apiproxyd_cache_saved_bytes_total", &[], 2.0 * (100.0 + 1_000.0 + 3_000.0 + 4_000.0)),
        ("apiproxyd_refusals_total", &[("status", "431")], 2.0),
        ("apiproxyd_http1_refusal_reasons_total", &[("reason", "obs_fold")], 2.0),
        ("apiproxyd_upstream_failures_total", &[("reason", "tls")], 2.0),
        ("apiproxyd_core_requests_total", &[("core", "1")], 9.0),
        ("apiproxyd_core_connections", &[("core", "0")], 0.0),
        ("apiproxyd_event_loop_lag_seconds", &[("core", "1")], 0.002),
        ("apiproxyd_build_info", &[("version", "0.1.0")], 1.0),
        ("apiproxyd_runtime_info", &[("driver", "io_uring"), ("store", "sqlite")], 1.0),
        ("apiproxyd_uptime_seconds", &[], 12.5),
        ("apiproxyd_cores", &[], 2.0),
        (
            "apiproxyd_breaker_state",
            &[("upstream", "https://b.example"), ("state", "half_open")],
            1.0,
        ),
        ("apiproxyd_breaker_state", &[("upstream", "https://b.example"), ("state", "closed")], 0.0),
        ("apiproxyd_upstream_permits", &[("upstream", "https://a.example")], 100.0),
        (
            "apiproxyd_upstream_connections",
            &[("upstream", "https://a.example"), ("state", "active")],
            2.0,
        ),
        (
            "apiproxyd_upstream_connections",
            &[("upstream", "https://a.example"), ("state", "idle")],
            5.0,
        ),
        ("apiproxyd_upstream_waiting_requests", &[("upstream", "https://b.example")], 4.0),
        ("apiproxyd_upstream_received_bytes_total", &[("upstream", "https://b.example")], 9_000.0),
        ("apiproxyd_access_log_dropped_total", &[], 6.0),
        ("apiproxyd_log_dropped_total", &[], 2.0),
        ("apiproxyd_store_up", &[("side", "reads")], 1.0),
        ("apiproxyd_store_up", &[("side", "writes")], 0.0),
        ("apiproxyd_store_busy_seconds_total", &[("op", "put")], 1.5),
        ("apiproxyd_store_rows", &[], 10.0),
    ];
    for (name, labels, expected) in rows {
        assert_eq!(families.value(name, labels), *expected, "{name} {labels:?}");
    }
}

#[test]
fn without_store_and_upstreams_their_families_are_absent() {
    let text = render(&cores(), Extras::default(), Format::OpenMetrics);
    let families = Families::parse(&text);
    assert!(!text.contains("apiproxyd_store_") && !text.contains("apiproxyd_breaker_state"));
    assert_eq!(families.value("apiproxyd_runtime_info", &[("driver", ""), ("store", "none")]), 1.0);
}

#[test]
fn odd_requests_make_no_new_series() {
    let cells = Arc::new(CoreCells::new());
    let before = Families::parse(&render(&[Arc::clone(&cells)], extras(), Format::Classic));
    for n in 0..500_u16 {
        let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
        cells.on_response(&method, 200 + n * 2, CacheResult::Miss, Duration::ZERO, n.into());
        cells.on_refusal(200 + n * 3);
        cells.on_head_refusal(&format!("reason{n}"));
        cells.on_upstream_failure("GET /secret");
    }
    let after = Families::parse(&render(&[cells], extras(), Format::Classic));
    assert_eq!(after.samples.len(), before.samples.len());
}

#[test]
fn a_strange_upstream_name_stays_inside_its_label() {
    let mut extras = extras();
    let name = "a\"} 1\napiproxyd_evil 1\n\\";
    extras.upstreams[0].name = name.into();
    let families = Families::parse(&render(&cores(), extras, Format::Classic));
    assert_eq!(families.value("apiproxyd_upstream_permits", &[("upstream", name)]), 100.0);
}

#[test]
fn a_full_page_for_64_cores_stays_small() {
    let cores: Vec<Arc<CoreCells>> = (0..32).flat_map(|_| cores()).collect();
    let text = render(&cores, extras(), Format::OpenMetrics);
    assert!(text.len() <= TEXT_BYTES, "{} bytes", text.len());
    let families = Families::parse(&text);
    assert!(families.samples.len() < 1_000, "{} series", families.samples.len());
}

#[test]
fn the_format_is_what_the_scraper_asks_for() {
    let open = Format::OpenMetrics;
    let classic = Format::Classic;
    let rows: &[(&str, Format)] = &[
        // Prometheus 2.42
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
             version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            open,
        ),
        // Prometheus 3
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            open,
        ),
        ("application/openmetrics-text", open),
        ("APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"", open),
        ("application/openmetrics-text;version=1.0.0;q=0.4, text/plain;q=0.5", classic),
        ("application/openmetrics-text;version=1.0.0;q=0", classic),
        ("application/openmetrics-text;version=1.0.0;q=x", classic),
        ("application/openmetrics-text;version=2.0.0", classic),
        ("text/plain;version=0.0.4", classic),
        ("*/*", classic),
        ("text/html,application/xhtml+xml,*/*;q=0.8", classic),
        ("application/json", classic),
        ("", classic),
        (";;;,,,\"", classic),
    ];
    for (accept, expected) in rows {
        assert_eq!(Format::negotiate(Some(accept.as_bytes())), *expected, "{accept}");
    }
    assert_eq!(Format::negotiate(None), classic);
    assert!(open.content_type().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(classic.content_type().starts_with("text/plain; version=0.0.4"));
}
