//! Rate limits seen from outside: exact across cores and connections, for addresses and keys.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::time::Instant;

use serde_json::json;
use support::client::request;
use support::load::{connect_all, send_all};
use support::{Metrics, Origin, Proxy, Response, Setup, answer};

fn origin() -> Origin {
    Origin::fixed(answer(200, &[("Cache-Control", "max-age=600")], "x"))
}

/// Limits on; `per_ip`, `per_key` a minute, 0 for none.
fn limited(origin: &Origin, per_ip: u32, per_key: u32, burst: u32) -> Setup {
    Setup::over(origin)
        .with("security.rate_limit_enabled", true)
        .with("security.rate_limit_per_ip", per_ip)
        .with("security.rate_limit_per_key", per_key)
        .with("security.rate_limit_burst", burst)
}

fn ask(proxy: &Proxy, fields: &[(&str, &str)]) -> Response {
    proxy.ask("GET", "/api/v1/x", fields)
}

/// How many of `count` requests are admitted, one after the other.
fn admitted(proxy: &Proxy, count: usize, fields: &[(&str, &str)]) -> usize {
    (0..count).filter(|_| ask(proxy, fields).status == 200).count()
}

/// `r` and `t` of the policy's member in RateLimit.
#[track_caller]
fn remaining(response: &Response, policy: &str) -> (u32, u64) {
    let value = response.field("RateLimit").unwrap_or_else(|| panic!("{response:?}"));
    let member = value.split(", ").find(|it| it.starts_with(&format!("\"{policy}\"")));
    let member = member.unwrap_or_else(|| panic!("no {policy} in {value}"));
    let parameter = |name: &str| {
        let of = member.split(';').find_map(|it| it.strip_prefix(name));
        of.unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
    };
    (parameter("r=").parse().unwrap(), parameter("t=").parse().unwrap())
}

#[test]
fn two_thousand_simultaneous_first_requests_are_admitted_exactly_the_burst() {
    let origin = origin();
    let proxy = limited(&origin, 60, 0, 10).start();
    // Four requests on each of 500 connections, all written before any answer is read.
    let one = request("GET", "/api/v1/x", &[], "");
    let mut clients = connect_all(proxy.addr(), 500);
    let start = Instant::now();
    send_all(&mut clients, &one.repeat(4));
    let mut counts = [0_u32; 2];
    for client in &mut clients {
        for _ in 0..4 {
            match client.read("GET").status {
                200 => counts[0] += 1,
                429 => counts[1] += 1,
                other => panic!("{other}"),
            }
        }
    }
    // One comes back each second; the clock ran from before the first byte.
    let refilled = u32::try_from(start.elapsed().as_secs()).unwrap();
    assert_eq!(counts[0] + counts[1], 2_000);
    assert!((10..=10 + refilled).contains(&counts[0]), "{counts:?} in {:?}", start.elapsed());
    let metrics = Metrics::of(&proxy);
    let of =
        |name: &str| metrics.value(&format!("apiproxyd_rate_limit_{name}_total{{kind=\"ip\"}}"));
    assert_eq!([of("admitted"), of("rejected")], counts.map(f64::from));
}

#[test]
fn an_answer_says_what_is_left_and_a_refusal_when_to_come_back() {
    let origin = origin();
    let proxy = limited(&origin, 6, 60, 3).start();
    let key = [("X-API-Key", "one")];
    let mut client = proxy.connect();
    for left in (0..3).rev() {
        let response = client.ask("GET", "/api/v1/x", &key);
        assert_eq!(response.status, 200);
        let policy = r#""ip";q=6;w=60, "key";q=60;w=60"#;
        assert_eq!(response.field("RateLimit-Policy"), Some(policy));
        assert_eq!(remaining(&response, "ip").0, left);
        assert_eq!(response.field("Retry-After"), None);
    }
    let refused = client.ask("GET", "/api/v1/x", &key);
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
    assert_eq!(refused.field("RateLimit-Policy"), Some(r#""ip";q=6;w=60, "key";q=60;w=60"#));
    let wait: u64 = refused.field("Retry-After").unwrap().parse().unwrap();
    // Six a minute: the next one in ten seconds, less what has passed.
    assert!((1..=10).contains(&wait), "{refused:?}");
    assert_eq!(remaining(&refused, "ip"), (0, wait));
    assert!(remaining(&refused, "key").1 <= 3, "{refused:?}");
    assert_eq!(refused.field("Cache-Control"), Some("no-store"));
    assert_eq!(client.get("/health").status, 200, "the connection lives on, operators may ask");
}

#[test]
fn a_refusal_by_one_takes_nothing_from_the_other() {
    let origin = origin();
    let keys = json!([
        {"key": "tight", "name": "tight", "per_minute": 1, "burst": 2},
        {"key": "wide", "name": "wide", "per_minute": 1, "burst": 50},
    ]);
    // Nothing worth counting comes back while the test runs.
    let proxy = limited(&origin, 1, 60, 6)
        .with("security.client_api_keys", keys)
        .with("security.trusted_proxies", json!(["127.0.0.0/8"]))
        .start();
    let from = |key: &'static str, ip: &'static str| [("X-API-Key", key), ("X-Forwarded-For", ip)];
    // The key refuses: the address keeps what it had.
    assert_eq!(admitted(&proxy, 20, &from("tight", "192.0.2.1")), 2);
    let refused = ask(&proxy, &from("tight", "192.0.2.1"));
    assert_eq!((remaining(&refused, "key").0, remaining(&refused, "ip").0), (0, 4));
    assert_eq!(admitted(&proxy, 20, &from("wide", "192.0.2.1")), 4);
    // The address refuses: the key keeps what it had.
    let refused = ask(&proxy, &from("wide", "192.0.2.1"));
    assert_eq!((remaining(&refused, "ip").0, remaining(&refused, "key").0), (0, 46));
    assert_eq!(admitted(&proxy, 20, &from("wide", "192.0.2.2")), 6);
    let first = ask(&proxy, &from("wide", "192.0.2.3"));
    assert_eq!(remaining(&first, "key").0, 46 - 6 - 1);
}

#[test]
fn keys_have_their_own_limits_and_overrides() {
    let origin = origin();
    let keys = json!(["plain", {"key": "more", "name": "more", "per_minute": 1, "burst": 9}]);
    let proxy = limited(&origin, 0, 1, 3).with("security.client_api_keys", keys).start();
    assert_eq!(admitted(&proxy, 20, &[("X-API-Key", "plain")]), 3);
    assert_eq!(admitted(&proxy, 20, &[("X-API-Key", "more")]), 9);
    let metrics = Metrics::of(&proxy);
    assert_eq!(metrics.value("apiproxyd_rate_limit_admitted_total{kind=\"key\"}"), 12.0);
    assert_eq!(metrics.value("apiproxyd_rate_limit_rejected_total{kind=\"key\"}"), 28.0);
    assert_eq!(metrics.value("apiproxyd_rate_limit_rejected_total{kind=\"ip\"}"), 0.0);
}

#[test]
fn an_ipv6_network_of_64_bits_is_one_address() {
    let origin = origin();
    let trusted = json!(["127.0.0.0/8"]);
    let proxy = limited(&origin, 1, 0, 4).with("security.trusted_proxies", trusted).start();
    let mut count = 0;
    for host in 0..20 {
        let address = format!("2001:db8:1:2:{host:x}::{host:x}");
        count += admitted(&proxy, 1, &[("X-Forwarded-For", &address)]);
    }
    assert_eq!(count, 4);
    assert_eq!(admitted(&proxy, 20, &[("X-Forwarded-For", "2001:db8:1:3::1")]), 4);
}

/// Keys must not be guessed faster than an address may ask, nor by way of many of them.
#[test]
fn a_guessed_key_costs_its_senders_address() {
    let origin = origin();
    let proxy =
        limited(&origin, 1, 0, 5).with("security.client_api_keys", json!(["right"])).start();
    for guess in 0..5 {
        let refused = ask(&proxy, &[("X-API-Key", &format!("guess {guess}"))]);
        assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthorized"));
        assert_eq!(remaining(&refused, "ip").0, 4 - guess);
    }
    for key in ["guess 6", "right"] {
        let refused = ask(&proxy, &[("X-API-Key", key)]);
        assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
    }
    assert_eq!(origin.count(), 0);
}

/// What the daemon itself answers, and what is refused before the limiter, costs nothing.
#[test]
fn only_what_goes_to_an_upstream_or_guesses_counts() {
    let origin = origin();
    let allowed = json!(["/v1/*"]);
    let proxy = limited(&origin, 1, 0, 2).with("whitelisted_endpoints", allowed).start();
    for _ in 0..10 {
        assert_eq!(proxy.get("/health").status, 200);
        assert_eq!(proxy.get("/cache/stats").status, 200);
        assert_eq!(proxy.get("/api/v2/x").status, 403);
        assert_eq!(proxy.get("/nowhere").status, 404);
    }
    assert_eq!(admitted(&proxy, 5, &[]), 2);
}
