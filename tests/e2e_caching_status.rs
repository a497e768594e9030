//! What an answer says of its way through the cache: Cache-Status (RFC 9211), X-Cache, Age. That
//! every Cache-Status of every test is well-formed is held by the client that reads it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::time::Duration;

use support::structured::{Item, Member, list};
use support::{Gate, Metrics, Origin, Response, Setup, answer, eventually};

fn own(response: &Response) -> Member {
    let last = response.fields.all("Cache-Status").last().unwrap().to_owned();
    list(&last).pop().unwrap()
}

#[track_caller]
fn says(response: &Response, parameters: &[(&str, Item)]) {
    let own = own(response);
    for (name, value) in parameters {
        assert_eq!(own.parameter(name), Some(value), "{name}: {own:?}");
    }
}

fn token(word: &str) -> Item {
    Item::Token(word.to_owned())
}

const YES: Item = Item::Boolean(true);

/// RFC 9211 section 2.
#[test]
fn each_parameter_says_what_happened() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let ask = |say: &str, more: &[(&str, &str)]| {
        let fields = [&[("Say", say)], more].concat();
        proxy.ask("GET", "/api/x", &fields)
    };
    let hour = "Cache-Control: max-age=3600;;ETag: \"a\";;Vary: Foo";
    let miss = ask(hour, &[]);
    says(&miss, &[("fwd", token("uri-miss")), ("fwd-status", Item::Integer(200)), ("stored", YES)]);
    let hit = ask(hour, &[]);
    says(&hit, &[("hit", YES)]);
    let Some(Item::Integer(ttl)) = own(&hit).parameter("ttl").cloned() else { panic!("{hit:?}") };
    assert!((3_500..=3_600).contains(&ttl), "{ttl}");
    says(&ask(hour, &[("Foo", "1")]), &[("fwd", token("vary-miss")), ("stored", YES)]);
    let reload = ask(hour, &[("Cache-Control", "no-cache")]);
    says(&reload, &[("fwd", token("request")), ("fwd-status", Item::Integer(304))]);
    let refused = ask("Cache-Control: no-store", &[("Foo", "2")]);
    says(&refused, &[("fwd", token("vary-miss")), ("detail", token("no_store"))]);
    assert_eq!(own(&refused).parameter("stored"), None);
    let other = proxy.ask("DELETE", "/api/y", &[]);
    says(&other, &[("fwd", token("method")), ("detail", token("method_not_cached"))]);
}

#[test]
fn shared_fetch_is_told_as_collapsed_and_never_as_stored_twice() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::respond(move |_| {
        held.pass();
        answer(200, &[("Cache-Control", "max-age=60")], "one")
    });
    let proxy = Setup::over(&origin).start();
    std::thread::scope(|scope| {
        let ask = || proxy.get("/api/x");
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        origin.await_requests(1);
        let waiting = || Metrics::of(&proxy).value("apiproxyd_requests_in_flight");
        eventually("all wait", || waiting() == 8.0);
        gate.open();
        let answers: Vec<_> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        let of =
            |name: &str| answers.iter().filter(|it| own(it).parameter(name) == Some(&YES)).count();
        assert_eq!((of("stored"), of("collapsed")), (1, 7));
        assert!(answers.iter().all(|it| it.cache() == "MISS" && it.text() == "one"));
    });
    assert_eq!(origin.count(), 1);
}

/// RFC 9211 section 2: behind what the caches before it said. X-Cache has no order: ours alone.
#[test]
fn own_member_stands_behind_those_of_other_caches() {
    let fields = [
        ("Cache-Control", "max-age=60"),
        ("Cache-Status", "Edge; hit; ttl=5, \"Next Cache\"; fwd=uri-miss"),
        ("X-Cache", "Hit from edge"),
    ];
    let origin = Origin::fixed(answer(200, &fields, "x"));
    let proxy = Setup::over(&origin).start();
    for verdict in ["MISS", "HIT"] {
        let response = proxy.get("/api/x");
        assert_eq!(response.cache(), verdict);
        let lines: Vec<_> = response.fields.all("Cache-Status").collect();
        let members = list(&lines.join(", "));
        let names: Vec<_> = members.into_iter().map(|it| it.item).collect();
        let expected = [token("Edge"), Item::Text("Next Cache".into()), token("apiproxyd")];
        assert_eq!(names, expected);
    }
}

/// RFC 9111 sections 4 and 5.1: on what comes from the store, as old as it is; what the origin made
/// or confirmed for this request has none, unless it came with one.
#[test]
fn age_is_on_what_comes_from_the_store() {
    let origin = Origin::obedient();
    let proxy = Setup::over(&origin).start();
    let ask = |say: &str, more: &[(&str, &str)]| {
        proxy.ask("GET", "/api/x", &[&[("Say", say)], more].concat())
    };
    let plain = "Cache-Control: max-age=60;;ETag: \"a\"";
    assert_eq!(ask(plain, &[]).age(), None, "made for this request");
    assert!(ask(plain, &[]).age().is_some());
    assert_eq!(ask(plain, &[("Cache-Control", "no-cache")]).age(), None, "confirmed for it");
    let not_modified = ask(plain, &[("If-None-Match", "\"a\"")]);
    assert!(not_modified.status == 304 && not_modified.age().is_some());

    let old = "Cache-Control: max-age=600;;Age: 100";
    let reload = [("Cache-Control", "no-cache")];
    assert!((100..110).contains(&ask(old, &reload).age().unwrap()), "it came with one");
    assert!((100..110).contains(&ask(old, &[]).age().unwrap()));
}

/// RFC 9111 section 4.2.3: the time that the origin took counts, and the age only grows.
#[test]
fn age_counts_the_way_to_the_origin_and_only_grows() {
    let origin = Origin::respond(|_| {
        std::thread::sleep(Duration::from_millis(1_100));
        answer(200, &[("Cache-Control", "max-age=60"), ("Age", "5")], "x")
    });
    let proxy = Setup::over(&origin).start();
    proxy.get("/api/x");
    let first = proxy.get("/api/x").age().unwrap();
    assert!(first >= 6, "{first}");
    let mut last = first;
    eventually("a second has passed", || {
        let age = proxy.get("/api/x").age().unwrap();
        assert!(age >= last, "{age} after {last}");
        last = age;
        age > first
    });
}
