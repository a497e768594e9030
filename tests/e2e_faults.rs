//! Hundreds of clients in front of three origins that fail in every way by dice: slow at every
//! byte, resetting, lying about lengths, away for a while, dropping what they accepted, answering
//! garbage, closing idle connections at random; over HTTP/1.1, over TLS, and with HTTP/2.
//!
//! What must hold in any order: every request gets one whole and right answer, a clean error, or a
//! connection cut before the answer's end; nothing leaks; the origins' load is bounded; and when
//! the faults end, all is well within seconds.
//!
//! `APIPROXYD_FAULTS_SEED` and `APIPROXYD_FAULTS_SECONDS` make it another run, or a long one.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod faults;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use faults::{Crowd, Tally};
use serde_json::json;
use support::faulty::{Book, Speech};
use support::{Authority, Dice, Faulty, Metrics, Proxy, Setup, eventually};

const CLIENTS: usize = 300;
const ORIGINS: [&str; 3] = ["plain", "tls", "h2"];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |it| it.parse().expect("a number"))
}

struct Run {
    proxy: Proxy,
    book: Arc<Book>,
    origins: [Faulty; 3],
    /// Descriptors of the daemon before anything was asked.
    fds: usize,
}

impl Run {
    fn start(dice: &mut Dice) -> Self {
        let authority = Authority::new();
        let tls = |alpn: &[&str]| Some(authority.issue(&["localhost"]).server(alpn));
        let book = Arc::new(Book::default());
        let mut origin = |speech, tls| Faulty::start(speech, tls, book.clone(), dice.split());
        let origins = [
            origin(Speech::Http1, None),
            origin(Speech::Http1, tls(&["http/1.1"])),
            origin(Speech::Http2, tls(&["h2"])),
        ];
        let [plain, secure, multi] = &origins;
        let setup = Setup::at(&plain.url());
        let ca = authority.write(setup.home());
        let routes = json!([
            { "prefix": "/tls", "entry_point": secure.url() },
            { "prefix": "/h2", "entry_point": multi.url() },
        ]);
        let client = json!({
            "ca_file": ca, "request_timeout": 2, "dial_timeout": 1, "idle_conn_timeout": 1,
            "max_conns_per_host": 24, "max_idle_conns_per_host": 8, "circuit_breaker_timeout": 1,
        });
        let setup = setup.with("routes", routes).with("client", client);
        let proxy = setup.with("cache.memory_cache_size", 50).start();
        assert_eq!(proxy.get("/health").status, 200);
        let fds = proxy.fd_count();
        Self { proxy, book, origins, fds }
    }

    /// Once nothing goes wrong any more, everything is answered, and soon.
    fn assert_recovers(&self) {
        self.origins.iter().for_each(Faulty::calm);
        let started = Instant::now();
        let mut turn = 0..;
        for origin in ORIGINS {
            eventually("twenty in a row are answered", || {
                (0..20).all(|_| {
                    let target = format!("/{origin}/pass/after-{}", turn.next().unwrap());
                    let response = self.proxy.get(&format!("/api{target}"));
                    let well = response.status == 200;
                    assert!(!well || self.book.judge("GET", &target, &response).is_ok());
                    well
                })
            });
        }
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
        let closed = || Metrics::of(&self.proxy).sum("apiproxyd_breaker_state", &["\"closed\""]);
        eventually("the breakers are closed", || closed() == 3.0);
    }

    /// Nothing is left of what was asked.
    fn assert_nothing_leaks(&self) {
        let left = || {
            let metrics = Metrics::of(&self.proxy);
            let gauges = [
                "requests_in_flight",
                "upstream_permits_taken",
                "upstream_connections",
                "upstream_waiting_requests",
            ];
            gauges.map(|it| (it, metrics.sum(&format!("apiproxyd_{it}"), &[])))
        };
        let started = Instant::now();
        while left().iter().any(|it| it.1 != 0.0) {
            if started.elapsed() > support::PATIENCE {
                let page = self.proxy.get("/metrics");
                let stay = |it: &&str| it.starts_with("apiproxyd_upstream_") && !it.ends_with(" 0");
                let lines: Vec<&str> = page.text().lines().filter(stay).collect();
                panic!("left over: {:?}, {lines:#?}, {:?}", left(), self.proxy.sockets());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.proxy.await_fds(self.fds);
        let metrics = Metrics::of(&self.proxy);
        assert_eq!(metrics.sum("apiproxyd_panics_total", &[]), 0.0);
        assert_eq!(metrics.sum("apiproxyd_store_panics_total", &[]), 0.0);
    }

    /// What may be repeated is a share of what was asked.
    fn assert_load_is_bounded(&self, tally: &Tally) {
        let metrics = Metrics::of(&self.proxy);
        let refreshes = metrics.value("apiproxyd_background_refreshes_total");
        let seen = self.book.seen() as f64;
        let most = tally.asked as f64 * 1.2 + refreshes + self.book.refused() as f64;
        let retries = metrics.value("apiproxyd_upstream_retries_total");
        println!("the origins saw {seen} of {most} allowed, {retries} of them repeated");
        assert!(seen <= most, "{seen} of {most}");
        // Each upstream may begin with one repetition that is not earned.
        let first = metrics.value("apiproxyd_upstream_requests_total") - retries;
        let most = first * 0.2 + 3.0 + self.book.refused() as f64;
        assert!(retries <= most, "{retries} of {most}");
    }
}

#[test]
fn whatever_origins_do_every_request_gets_a_right_answer_or_a_clean_error() {
    support::raise_descriptors(4_000);
    let seed = setting("APIPROXYD_FAULTS_SEED", 6);
    let seconds = setting("APIPROXYD_FAULTS_SECONDS", 15);
    println!("APIPROXYD_FAULTS_SEED={seed} APIPROXYD_FAULTS_SECONDS={seconds}");
    let mut dice = Dice::new(seed);
    let mut run = Run::start(&mut dice);
    let crowd = Crowd {
        addr: run.proxy.addr(),
        book: run.book.clone(),
        clients: CLIENTS,
        span: Duration::from_secs(seconds),
        dice,
    };
    let tally = crowd.run();
    let complaints = [&tally.complaints[..], &run.book.complaints()].concat();
    println!("{} asked, {:?}, slowest {:?}", tally.asked, tally.outcomes, tally.slowest);
    assert!(run.proxy.lives(), "{}", run.proxy.stderr());
    let abandoned = Metrics::of(&run.proxy).value("apiproxyd_requests_abandoned_total");
    println!("{abandoned} were abandoned as the daemon sees it");
    let shown = &complaints[..complaints.len().min(10)];
    assert!(complaints.is_empty(), "{} of them: {shown:#?}", complaints.len());
    run.assert_recovers();
    run.assert_load_is_bounded(&tally);
    run.assert_nothing_leaks();
    // A run in which hardly anything was answered, or hardly anything failed, shows nothing.
    let whole = tally.of("200");
    assert!(whole * 3 > tally.asked, "only {whole} of {} were answered", tally.asked);
    assert!(tally.of("cut") > 0 && tally.of("upstream_invalid") > 0, "{:?}", tally.outcomes);
}
