//! Statistics and metrics: exact under load, complete, bounded.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::client::request;
use support::{Connection, Gate, Metrics, Origin, Proxy, Response, Setup, answer, eventually};

/// Answers as the path says how.
fn origin() -> Origin {
    Origin::respond(|request| {
        let body = "b".repeat(request.target.len() * 7);
        let control = match request.target.split('/').nth(1) {
            Some("keep") => "max-age=600",
            Some("old") => "max-age=0, stale-while-revalidate=600",
            Some("check") => "no-cache",
            _ => "no-store",
        };
        if control == "no-cache" && request.field("If-None-Match").is_some() {
            return answer(304, &[("Cache-Control", control), ("ETag", "\"1\"")], "");
        }
        let status = if request.target.contains("gone") { 404 } else { 200 };
        answer(status, &[("Cache-Control", control), ("ETag", "\"1\"")], body)
    })
}

/// What a load generator saw.
#[derive(Default)]
struct Seen {
    /// Answers by X-Cache, or `none`.
    cache: BTreeMap<String, u64>,
    /// Answers by method, status class and X-Cache in lower case.
    series: BTreeMap<(String, char, String), u64>,
    collapsed: u64,
    saved_bytes: u64,
    body_bytes: u64,
    answers: u64,
}

impl Seen {
    fn note(&mut self, method: &str, response: &Response) {
        let cache = match response.cache() {
            "" => "none".to_owned(),
            cache => cache.to_ascii_lowercase(),
        };
        let status = response.field("Cache-Status").unwrap_or_default();
        self.collapsed += u64::from(status.contains("collapsed"));
        if matches!(cache.as_str(), "hit" | "stale" | "revalidated") {
            self.saved_bytes += response.body.len() as u64;
        }
        self.body_bytes += response.body.len() as u64;
        self.answers += 1;
        let class = response.status.to_string().chars().next().unwrap();
        *self.series.entry((method.to_owned(), class, cache.clone())).or_default() += 1;
        *self.cache.entry(cache).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        for (key, count) in other.cache {
            *self.cache.entry(key).or_default() += count;
        }
        for (key, count) in other.series {
            *self.series.entry(key).or_default() += count;
        }
        self.collapsed += other.collapsed;
        self.saved_bytes += other.saved_bytes;
        self.body_bytes += other.body_bytes;
        self.answers += other.answers;
    }

    fn of(&self, cache: &str) -> u64 {
        self.cache.get(cache).copied().unwrap_or_default()
    }
}

/// One client's share of the load: all methods and results, single and pipelined.
fn load(proxy: &Proxy, seed: u64) -> Seen {
    let mut seen = Seen::default();
    let mut client = proxy.connect();
    let mut dice = seed * 2 + 1;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    for _ in 0..300 {
        let number = roll(20);
        let (method, target) = match roll(10) {
            0 => ("GET", format!("/api/pass/{number}")),
            1 => ("GET", format!("/api/old/{number}")),
            2 => ("GET", format!("/api/check/{number}")),
            3 => ("HEAD", format!("/api/keep/{number}")),
            4 => ("DELETE", format!("/api/other/{number}")),
            5 => ("GET", format!("/api/keep/gone/{number}")),
            6 => ("GET", "/nowhere".to_owned()),
            _ => ("GET", format!("/api/keep/{number}")),
        };
        let depth = if roll(4) == 0 { 8 } else { 1 };
        client.send(request(method, &target, &[], "").repeat(depth));
        for _ in 0..depth {
            seen.note(method, &client.read(method));
        }
    }
    seen
}

#[test]
fn statistics_are_exactly_what_the_clients_saw() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let (mut seen, done) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            // Looked at all the while: nothing is lost, and nothing runs backwards.
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let now = proxy.stats()["hits"].as_u64().unwrap();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        let proxy = &proxy;
        let clients: Vec<_> = (0..8).map(|seed| scope.spawn(move || load(proxy, seed))).collect();
        for client in clients {
            seen.add(client.join().unwrap());
        }
        done.store(true, Ordering::Release);
        watcher.join().unwrap();
    });
    for result in ["hit", "miss", "stale", "revalidated", "bypass", "none"] {
        assert!(seen.of(result) > 0, "the load has no {result}: {:?}", seen.cache);
    }
    // An answer is counted when its last byte is on its way: the last ones may be read before.
    let result = |stats: &Value, name: &str| stats["results"][name].as_u64().unwrap();
    let same = |stats: &Value| {
        ["hit", "miss", "stale", "revalidated", "bypass"]
            .iter()
            .all(|it| result(stats, it) == seen.of(it))
    };
    eventually("the statistics are those of the clients", || same(&proxy.stats()));
    let stats = proxy.stats();
    let hits = seen.of("hit") + seen.of("stale") + seen.of("revalidated");
    assert_eq!((&stats["hits"], &stats["misses"]), (&json!(hits), &json!(seen.of("miss"))));
    let rate = stats["hit_rate"].as_f64().unwrap();
    assert!((rate - hits as f64 / (hits + seen.of("miss")) as f64).abs() < 1e-9);
    assert_eq!(stats["stale_served"], seen.of("stale"));
    assert_eq!(stats["bytes_saved"], seen.saved_bytes);
    assert_eq!(stats["coalesced"], seen.collapsed, "{stats:#}");
    // And the metrics, series by series.
    let metrics = Metrics::of(&proxy);
    for ((method, class, cache), count) in &seen.series {
        if cache == "none" {
            continue; // Operators' requests are among these.
        }
        let labels = format!("method=\"{method}\",status_class=\"{class}xx\",cache=\"{cache}\"");
        let series = format!("apiproxyd_requests_total{{{labels}}}");
        assert_eq!(metrics.value(&series), *count as f64, "{series}");
    }
    assert_eq!(
        metrics.sum("apiproxyd_requests_total", &["4xx", "\"none\""]),
        seen.of("none") as f64
    );
    assert_eq!(metrics.value("apiproxyd_coalesced_requests_total"), seen.collapsed as f64);
    let timed = metrics.sum("apiproxyd_request_duration_seconds_count", &[]);
    let all = metrics.sum("apiproxyd_requests_total", &[]);
    assert_eq!((timed, all), (metrics.value("apiproxyd_response_size_bytes_count"), timed));
    assert_eq!(metrics.value("apiproxyd_requests_in_flight"), 0.0);
    // Entries are entries, hits in memory are hits in memory.
    let l1 = &stats["l1"];
    assert!(l1["entries"].as_u64().unwrap() > 0 && l1["size_bytes"].as_u64().unwrap() > 0);
    assert!(l1["hits"].as_u64().unwrap() >= seen.of("hit") * 9 / 10, "{stats:#}");
}

#[test]
fn requests_that_share_a_fetch_are_counted_as_such() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[("Cache-Control", "max-age=600")], "x")
    });
    let proxy = Setup::over(&origin).start();
    let mut clients = support::load::connect_all(proxy.addr(), 12);
    support::load::send_all(&mut clients, &request("GET", "/api/x", &[], ""));
    let waiting = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
    eventually("all wait", || waiting() == 12.0);
    gate.open();
    let shared = clients
        .iter_mut()
        .map(|it| it.read("GET"))
        .filter(|it| it.field("Cache-Status").unwrap().contains("collapsed"));
    let shared = shared.count();
    assert_eq!((shared, origin.count()), (11, 1));
    eventually("they are counted", || proxy.stats()["coalesced"] == 11);
    assert_eq!(proxy.stats()["misses"], 12);
    assert_eq!(waiting(), 0.0);
}

#[test]
fn counters_survive_a_purge_and_entries_a_restart() {
    let origin = origin();
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    for _ in 0..2 {
        for number in 0..10 {
            proxy.get(&format!("/api/keep/{number}"));
        }
    }
    let before = proxy.stats();
    assert_eq!((&before["hits"], &before["misses"]), (&json!(10), &json!(10)));
    proxy.clear();
    let after = proxy.stats();
    assert_eq!((&after["hits"], &after["misses"]), (&json!(10), &json!(10)));
    assert_eq!(
        (&after["l1"]["entries"], &after["bytes_saved"]),
        (&json!(0), &before["bytes_saved"])
    );
    proxy.get("/api/keep/1");
    proxy.stop();
    let proxy = setup.start();
    eventually("the rows are counted", || proxy.stats()["entries"] == 1);
    assert_eq!((&proxy.stats()["hits"], &proxy.stats()["misses"]), (&json!(0), &json!(0)));
    assert_eq!(proxy.get("/api/keep/1").cache(), "HIT");
    let stats = proxy.stats();
    assert_eq!((&stats["l2"]["hits"], &stats["l2"]["backend"]), (&json!(1), &json!("sqlite")));
}

/// Series, and the least that they show after what the test does.
const AT_LEAST: [(&str, f64); 23] = [
    ("apiproxyd_connections_accepted_total", 8.0),
    ("apiproxyd_connections_closed_total", 6.0),
    ("apiproxyd_client_received_bytes_total", 500.0),
    ("apiproxyd_client_sent_bytes_total", 1_000.0),
    ("apiproxyd_http1_refused_total", 1.0),
    ("apiproxyd_http1_refusal_reasons_total{reason=\"space_before_first_field\"}", 1.0),
    ("apiproxyd_refusals_total{status=\"400\"}", 2.0),
    ("apiproxyd_l1_lookups_total{result=\"hit\"}", 1.0),
    ("apiproxyd_l1_lookups_total{result=\"miss\"}", 3.0),
    ("apiproxyd_l1_insertions_total", 1.0),
    ("apiproxyd_l2_lookups_total{result=\"miss\"}", 3.0),
    ("apiproxyd_stale_served_total", 1.0),
    ("apiproxyd_background_refreshes_total", 1.0),
    ("apiproxyd_uncacheable_responses_total", 1.0),
    ("apiproxyd_purges_total", 1.0),
    ("apiproxyd_upstream_requests_total", 4.0),
    ("apiproxyd_upstream_connections_opened_total", 2.0),
    ("apiproxyd_upstream_failures_total{reason=\"truncated\"}", 1.0),
    ("apiproxyd_cores", 2.0),
    ("apiproxyd_l1_limit_bytes", 1.0),
    ("apiproxyd_cache_saved_bytes_total", 1.0),
    ("apiproxyd_store_up{side=\"reads\"}", 1.0),
    ("apiproxyd_store_calls_total{op=\"get\"}", 1.0),
];

/// Drives everything that is counted at least once.
#[test]
fn what_happens_is_counted_where_the_table_says() {
    let broken = Origin::script(|connection: &mut Connection| {
        if connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort");
        }
    });
    let origin = origin();
    let proxy = Setup::over(&origin)
        .with("routes", json!([{"prefix": "/broken", "entry_point": broken.url()}]))
        .start();
    let start = Metrics::of(&proxy);
    // On one connection, which stays on its core: another core would find it through the hub.
    let mut client = proxy.connect();
    for target in ["/api/keep/1", "/api/keep/1", "/api/old/1", "/api/old/1", "/api/pass/1"] {
        client.get(target);
    }
    drop(client);
    let mut cut = proxy.connect();
    cut.send_request("GET", "/api/broken/x", &[], "");
    cut.try_read("GET").ok();
    let mut bad = proxy.connect();
    bad.send("GET /api/x HTTP/1.1\r\n folded\r\n\r\n");
    bad.read("GET");
    proxy.get("/api/x%2fy");
    proxy.clear();
    let received =
        format!("apiproxyd_upstream_received_bytes_total{{upstream=\"{}\"}}", origin.url());
    for (name, least) in AT_LEAST.iter().copied().chain([(received.as_str(), 100.0)]) {
        eventually(name, || Metrics::of(&proxy).value(name) >= least);
    }
    let now = Metrics::of(&proxy);
    let connections = |state: &str| {
        now.sum("apiproxyd_upstream_connections", &[&origin.url(), &format!("state=\"{state}\"")])
    };
    assert_eq!(connections("active"), 0.0);
    assert!(connections("idle") >= 1.0);
    // Each connection counts on one core, and is gone from it when it has ended.
    let accepted = now.value("apiproxyd_connections_accepted_total");
    assert!(accepted > start.value("apiproxyd_connections_accepted_total"));
    eventually("connections have ended", || {
        Metrics::of(&proxy).sum("apiproxyd_core_connections", &[]) <= 3.0
    });
    for core in 0..2 {
        let lag = now.value(&format!("apiproxyd_event_loop_lag_seconds{{core=\"{core}\"}}"));
        assert!((0.0..30.0).contains(&lag), "{lag}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(now.value(&format!("apiproxyd_build_info{{version=\"{version}\"}}")), 1.0);
}

/// No label has a value that a client chose.
#[test]
fn odd_methods_paths_and_keys_make_no_series() {
    let origin = origin();
    let proxy = Setup::over(&origin).with("security.allow_unknown_methods", true).start();
    proxy.get("/api/keep/1");
    let before = Metrics::of(&proxy);
    let mut client = proxy.connect();
    for number in 0..300 {
        let fields =
            [("X-API-Key", format!("key-{number}")), ("User-Agent", format!("a-{number}"))];
        let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
        client.ask(&format!("M{number}"), &format!("/api/{number}"), &fields);
        client.ask("GET", &format!("/nowhere/{number}"), &fields);
    }
    for number in 0..100 {
        let mut odd = proxy.connect();
        odd.send(format!("GET /api/x HTTP/1.1\r\nHost: h{number}\r\nX{number} : y\r\n\r\n"));
        odd.read("GET");
    }
    let after = Metrics::of(&proxy);
    assert_eq!(after.len(), before.len());
    assert_eq!(after.sum("apiproxyd_requests_total", &["method=\"other\"", "2xx"]), 300.0);
    let page = proxy.get("/metrics").text().to_owned();
    let page: String = page.lines().filter(|it| !it.starts_with('#')).collect();
    for text in ["M7", "nowhere", "key-", "a-1", "h99"] {
        assert!(!page.contains(text), "{text}");
    }
}

#[test]
fn two_upstreams_of_one_url_are_told_apart() {
    let origin = origin();
    let proxy = Setup::over(&origin)
        .with("routes", json!([{"prefix": "/x", "api_key": "another-key"}]))
        .start();
    let page = proxy.get("/metrics").text().to_owned();
    let second = format!("apiproxyd_upstream_permits{{upstream=\"{}#2\"}} 100", origin.url());
    assert!(page.contains(&second), "{page}");
    let mut lines: Vec<&str> = page.lines().filter(|it| !it.starts_with('#')).collect();
    let all = lines.len();
    lines.sort_unstable_by_key(|it| it.rsplit_once(' ').unwrap().0);
    lines.dedup_by_key(|it| it.rsplit_once(' ').unwrap().0.to_owned());
    assert_eq!(lines.len(), all, "a series twice");
}

/// Scrapes beyond what the thread for them takes are refused, and no core waits.
#[test]
fn many_scrapes_at_once_are_answered_or_refused() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let mut clients = support::load::connect_all(proxy.addr(), 200);
    support::load::send_all(&mut clients, &request("GET", "/metrics", &[], ""));
    let statuses: Vec<u16> = clients.iter_mut().map(|it| it.read("GET").status).collect();
    assert!(statuses.iter().all(|it| matches!(it, 200 | 503)), "{statuses:?}");
    assert!(statuses.contains(&200));
    assert_eq!(proxy.get("/metrics").status, 200);
}
