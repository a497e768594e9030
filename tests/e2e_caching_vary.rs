//! Variants (RFC 9111 section 4.1): which request fields choose, how long their lists live, and
//! which of several responses that match is used, on every core and in every tier.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;
use support::{Origin, Proxy, Setup, answer, assert_cached, eventually};

type Lines<'a> = &'a [(&'a str, &'a str)];

/// Asks for `/api/x`, with what the origin is to say, and the request's own fields.
fn ask(proxy: &Proxy, say: &str, fields: Lines<'_>) -> (String, String) {
    let mut all = vec![("Say", say)];
    all.extend_from_slice(fields);
    let response = proxy.ask("GET", "/api/x", &all);
    (response.cache().to_owned(), response.text().to_owned())
}

fn said(verdict: &str, body: &str) -> (String, String) {
    (verdict.to_owned(), body.to_owned())
}

fn date(offset_secs: i64) -> String {
    let span = Duration::from_secs(offset_secs.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if offset_secs < 0 { now - span } else { now + span })
}

/// How the daemon can hold what it stores: memory and second tier, memory alone, second tier alone.
fn tiers(origin: &Origin) -> [Setup; 3] {
    [
        Setup::over(origin),
        Setup::over(origin).with("cache.backend", "none"),
        Setup::over(origin).with("cache.memory_cache_enabled", false),
    ]
}

/// Without memory a row is found once it is written.
fn settle(proxy: &Proxy, say: &str, fields: Lines<'_>) {
    eventually("it is stored", || ask(proxy, say, fields).0 == "HIT");
}

const FOO: &str = "Cache-Control: max-age=600;;Vary: Foo";
const FOO_BAR: &str = "Cache-Control: max-age=600;;Vary: Foo, Bar";

#[test]
fn variants_outlive_a_change_of_the_list_on_every_core_and_tier() {
    for at in 0..3 {
        let origin = Origin::obedient();
        let proxy = tiers(&origin)[at].start();
        let (one, two) = (("Foo", "1"), ("Foo", "2"));
        assert_eq!(ask(&proxy, FOO, &[one]), said("MISS", "answer 0"));
        assert_eq!(ask(&proxy, FOO_BAR, &[two, ("Bar", "a")]), said("MISS", "answer 1"));
        settle(&proxy, FOO, &[one]);
        settle(&proxy, FOO, &[two, ("Bar", "a")]);
        let stored = origin.count();
        for _ in 0..20 {
            assert_eq!(ask(&proxy, FOO, &[one]), said("HIT", "answer 0"));
            assert_eq!(ask(&proxy, FOO, &[one, ("Bar", "z")]), said("HIT", "answer 0"));
            assert_eq!(ask(&proxy, FOO, &[two, ("Bar", "a")]), said("HIT", "answer 1"));
        }
        assert_eq!(origin.count(), stored);
        // No list has this one.
        assert_eq!(ask(&proxy, FOO, &[two, ("Bar", "b")]).0, "MISS");
    }
}

#[test]
fn variants_of_every_list_survive_a_restart() {
    let origin = Origin::obedient();
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    assert_eq!(ask(&proxy, FOO, &[("Foo", "1")]), said("MISS", "answer 0"));
    assert_eq!(ask(&proxy, FOO_BAR, &[("Foo", "2")]), said("MISS", "answer 1"));
    let three = "Cache-Control: max-age=600;;Vary: Baz";
    assert_eq!(ask(&proxy, three, &[("Foo", "3"), ("Baz", "q")]), said("MISS", "answer 2"));
    proxy.stop();
    let proxy = setup.start();
    assert_eq!(ask(&proxy, FOO, &[("Foo", "1")]), said("HIT", "answer 0"));
    assert_eq!(ask(&proxy, FOO, &[("Foo", "2")]), said("HIT", "answer 1"));
    assert_eq!(ask(&proxy, FOO, &[("Baz", "q")]), said("HIT", "answer 2"));
    assert_eq!(origin.count(), 3);
}

/// RFC 9111 section 4: of several that match, the one with the latest Date.
#[test]
fn of_two_that_match_the_later_date_is_used() {
    let renewed = [("Foo", "1"), ("Bar", "a"), ("Cache-Control", "no-cache")];
    for (offset, used) in [(60, "answer 1"), (-60, "answer 0")] {
        for at in 0..3 {
            let origin = Origin::obedient();
            let proxy = tiers(&origin)[at].start();
            assert_eq!(ask(&proxy, FOO, &[("Foo", "1")]), said("MISS", "answer 0"));
            settle(&proxy, FOO, &[("Foo", "1")]);
            let second = format!("{FOO_BAR};;Date: {}", date(offset));
            assert_eq!(ask(&proxy, &second, &renewed), said("MISS", "answer 1"));
            eventually("both are stored", || {
                ask(&proxy, FOO, &[("Foo", "1"), ("Bar", "a")]) == said("HIT", used)
            });
            for _ in 0..20 {
                let both = ask(&proxy, FOO, &[("Foo", "1"), ("Bar", "a")]);
                assert_eq!(both, said("HIT", used), "Date {offset}");
                let only = ask(&proxy, FOO, &[("Foo", "1"), ("Bar", "b")]);
                assert_eq!(only, said("HIT", "answer 0"), "Date {offset}");
            }
        }
    }
}

/// A 304 may say that more fields choose than it was thought.
#[test]
fn confirmation_with_another_list_moves_the_response() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let first = "Cache-Control: max-age=0;;ETag: \"a\";;Vary: Foo";
    assert_eq!(ask(&proxy, first, &[("Foo", "1")]), said("MISS", "answer 0"));
    let wider = "Cache-Control: max-age=600;;ETag: \"a\";;Vary: Foo, Bar";
    let bar = [("Foo", "1"), ("Bar", "a")];
    assert_eq!(ask(&proxy, wider, &bar), said("REVALIDATED", "answer 0"));
    for _ in 0..10 {
        assert_eq!(ask(&proxy, wider, &bar), said("HIT", "answer 0"));
    }
    assert_eq!(ask(&proxy, wider, &[("Foo", "1"), ("Bar", "b")]).0, "MISS");
}

/// RFC 9110 section 12.5.5: names in any case, on any number of lines, in any order; absent is
/// not empty; what is missing from both requests agrees.
#[test]
fn lists_are_compared_by_meaning() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let lists = ["Vary: Foo, BAR", "Vary: bar;;Vary: foo", "Vary: ,foo ,, bar,foo"];
    for (number, list) in lists.iter().enumerate() {
        let foo = number.to_string();
        let say = format!("Cache-Control: max-age=600;;{list}");
        assert_eq!(ask(&proxy, &say, &[("Foo", &foo)]).0, "MISS", "{list}");
        assert_eq!(ask(&proxy, &say, &[("foo", &foo)]).0, "HIT", "{list}");
        assert_eq!(ask(&proxy, &say, &[("Foo", &foo), ("Bar", "")]).0, "MISS", "{list}");
        assert_eq!(ask(&proxy, &say, &[("Foo", &foo), ("Bar", "")]).0, "HIT", "{list}");
    }
}

/// A star anywhere, repeated or beside names, is never used again.
#[test]
fn vary_star_matches_no_request() {
    for list in ["*", "*, *", "Foo, *", "*;;Vary: Foo", "Foo;;Vary: *", " , *"] {
        let origin = Origin::obedient();
        let proxy = Setup::over(&origin).start();
        let say = format!("Cache-Control: max-age=600;;Vary: {list}");
        for _ in 0..3 {
            assert_ne!(ask(&proxy, &say, &[]).0, "HIT", "{list}");
        }
        assert_eq!(origin.count(), 3, "{list}");
    }
}

/// A resource that stops varying, and one that begins to.
#[test]
fn response_without_a_list_answers_all_until_one_with_a_list_comes() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let plain = "Cache-Control: max-age=600";
    assert_eq!(ask(&proxy, FOO, &[("Foo", "1")]), said("MISS", "answer 0"));
    assert_eq!(ask(&proxy, plain, &[("Foo", "2")]), said("MISS", "answer 1"));
    for foo in ["1", "2", "3"] {
        assert_eq!(ask(&proxy, plain, &[("Foo", foo)]), said("HIT", "answer 1"));
    }
    let renew = [("Foo", "1"), ("Cache-Control", "no-cache")];
    assert_eq!(ask(&proxy, FOO, &renew), said("MISS", "answer 2"));
    assert_eq!(ask(&proxy, FOO, &[("Foo", "1")]), said("HIT", "answer 2"));
    assert_eq!(ask(&proxy, FOO, &[("Foo", "2")]).0, "MISS");
}

/// What a purge makes stale comes back from the second tier marked, lists and variants alike. The
/// list came back as a response without a body, which stood in for errors.
#[test]
fn expired_variant_stands_in_for_a_failing_origin() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let origin = Origin::respond(move |asked| {
        if failing.load(Ordering::SeqCst) {
            return answer(503, &[], "down");
        }
        let fields = [("Cache-Control", "max-age=600"), ("Vary", "Foo")];
        answer(200, &fields, format!("variant {}", asked.field("Foo").unwrap_or("none")))
    });
    let proxy = Setup::over(&origin).with("client.circuit_breaker_enabled", false).start();
    for foo in ["1", "2"] {
        assert_eq!(proxy.ask("GET", "/api/x", &[("Foo", foo)]).cache(), "MISS");
    }
    assert_eq!(proxy.ask("POST", "/cache/expire?path=/x", &[]).status, 200);
    fails.store(true, Ordering::SeqCst);
    for foo in ["1", "2", "1"] {
        let stale = proxy.ask("GET", "/api/x", &[("Foo", foo)]);
        assert_cached(&stale, "STALE", &format!("variant {foo}"));
    }
    assert_eq!(proxy.ask("GET", "/api/x", &[("Foo", "3")]).status, 503);
}

/// What the origin never saw can't have chosen; what is written for each request is for it alone.
#[test]
fn fields_that_the_daemon_writes_or_drops_do_not_choose() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let say = |names: &str| format!("Cache-Control: max-age=600;;Vary: {names}");
    for (name, value) in [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("Via", "1.1 a"),
        ("X-Request-Id", "b"),
    ] {
        for fields in [&[][..], &[(name, value)], &[(name, value)]] {
            assert_ne!(ask(&proxy, &say(name), fields).0, "HIT", "{name} {fields:?}");
        }
        let status = proxy.ask("GET", "/api/x", &[("Say", &say(name))]);
        let status = status.field("Cache-Status").unwrap();
        assert!(status.ends_with("marked_uncacheable"), "{name}: {status}");
        proxy.clear();
    }
    for name in ["X-Real-IP", "Forwarded", "X-Forwarded-Host", "X-Original-URL"] {
        let (verdict, body) = ask(&proxy, &say(name), &[(name, "mine")]);
        assert_eq!(verdict, "MISS", "{name}");
        assert_eq!(origin.last().field(name), None);
        for fields in [&[][..], &[(name, "yours")]] {
            assert_eq!(ask(&proxy, &say(name), fields), said("HIT", &body), "{name}");
        }
        proxy.clear();
    }
}

/// RFC 9110 section 7.6.1: what Connection names ends here, so that the origin chose without it.
#[test]
fn a_field_that_ends_here_does_not_choose() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let poison = [("Foo", "1"), ("Connection", "Foo")];
    assert_eq!(ask(&proxy, FOO, &poison), said("MISS", "answer 0"));
    assert_eq!(origin.last().field("Foo"), None);
    assert_eq!(ask(&proxy, FOO, &[("Foo", "1")]), said("MISS", "answer 1"));
    assert_eq!(ask(&proxy, FOO, &[]), said("HIT", "answer 0"));
}

/// What a trusted proxy says of its clients' scheme reaches the origin: it is that request's alone.
#[test]
fn clients_of_a_trusted_proxy_do_not_share_by_scheme() {
    let origin = Origin::respond(|asked| {
        let fields = [("Cache-Control", "max-age=600"), ("Vary", "X-Forwarded-Proto")];
        answer(200, &fields, asked.field("X-Forwarded-Proto").unwrap())
    });
    let proxy = Setup::over(&origin).with("security.trusted_proxies", json!(["127.0.0.1"])).start();
    for scheme in ["https", "http", "https", "http"] {
        let response = proxy.ask("GET", "/api/x", &[("X-Forwarded-Proto", scheme)]);
        assert_eq!(response.text(), scheme);
    }
}
