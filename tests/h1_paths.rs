//! One spelling of a path for allowlist, key and origin (RFC 9110 section 4.2.3, RFC 3986).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::{Edge, Failures, assert_forwarded, head, must, read};
use support::{Origin, answer};

fn line(target: &str) -> String {
    head(&format!("GET {target} HTTP/1.1"), "")
}

#[test]
fn rfc3986_6_2_2_paths_reach_the_origin_in_one_spelling() {
    let edge = Edge::plain();
    let rows = [
        ("3986-6.2.2.2 unreserved letters", "/api/%61%62", "/ab"),
        ("3986-6.2.2.2 unreserved marks", "/api/%2D%2e%5F%7e", "/-._~"),
        ("3986-6.2.2.1 digits in upper case", "/api/a%3ab%c3%a9", "/a%3Ab%C3%A9"),
        ("3986-6.2.2.3 a dot", "/api/a/./b", "/a/b"),
        ("3986-6.2.2.3 two dots", "/api/a/../b", "/b"),
        ("3986-6.2.2.3 two dots at the end", "/api/a/b/..", "/a/"),
        ("3986-6.2.2.3 encoded dots", "/api/a/%2e%2E/b", "/b"),
        ("3986-6.2.2.3 three dots are a name", "/api/.../b", "/.../b"),
        ("3986-6.2.2.3 a dot in a name", "/api/a.b/.c", "/a.b/.c"),
        ("3986-3.3 reserved characters stay", "/api/a:b@c!$&'()*+,;=", "/a:b@c!$&'()*+,;="),
        ("3986-2.2 their escapes stay too", "/api/a%3Bb%26", "/a%3Bb%26"),
        ("3986-3.3 an empty segment stays", "/api/a//b", "/a//b"),
        ("3986-2.1 an encoded space", "/api/a%20b", "/a%20b"),
        ("3986-3.4 the query stays as it is", "/api/x?a=%61/../b&c=%2f", "/x?a=%61/../b&c=%2f"),
        ("9112-3.2.2 in an absolute target", "http://proxy.test/api/%61/../b", "/b"),
        ("3986-6.2.2.3 through the prefix", "/x/../api/b", "/b"),
    ];
    let rows: Vec<_> =
        rows.iter().map(|(rule, sent, seen)| (*rule, line(sent), format!("GET {seen}"))).collect();
    let rows: Vec<_> = rows.iter().map(|(rule, sent, seen)| (*rule, sent, &**seen, "")).collect();
    assert_forwarded(&edge, &rows);
}

#[test]
fn paths_that_servers_read_in_different_ways_are_refused() {
    let edge = Edge::plain();
    let rows = [
        ("3986-2.2 an encoded slash", "/api/a%2fb"),
        ("3986-2.2 an encoded slash in capitals", "/api/a%2Fb"),
        ("3986-3.3 a backslash", "/api/a\\b"),
        ("3986-3.3 an encoded backslash", "/api/a%5cb"),
        ("3986-2.1 encoded NUL", "/api/a%00b"),
        ("3986-2.1 an encoded line end", "/api/a%0d%0aX:%201"),
        ("3986-2.1 encoded DEL", "/api/a%7f"),
        ("3986-2.1 an escape cut short", "/api/a%4"),
        ("3986-2.1 an escape of no digits", "/api/a%zz"),
        ("3986-2.1 a percent sign alone", "/api/100%"),
        ("3986-5.2.4 dots with a parameter", "/api/a/..;x/b"),
        ("3986-5.2.4 dots beside an encoded slash", "/api/a/..%2fb"),
    ];
    let mut failures = Failures::default();
    for (rule, target) in rows {
        let mut client = edge.send(line(target));
        let check = read(&mut client, "GET").and_then(|answer| {
            must(answer.status == 400, || format!("{}", answer.status))?;
            must(answer.problem() == "bad_request", || answer.problem())
        });
        failures.note(rule, check);
    }
    failures.assert_none();
    assert_eq!(edge.origin.connections(), 0);
}

#[test]
fn dots_cannot_leave_the_prefix_nor_the_list_of_endpoints() {
    let edge =
        Edge::with(|setup| setup.with("whitelisted_endpoints", serde_json::json!(["/open/*"])));
    let rows = [
        ("3986-5.2.4 above the list", "/api/open/../shut", 403),
        ("3986-5.2.4 above the list, encoded", "/api/open/%2e%2e/shut", 403),
        ("3986-5.2.4 above the list, half encoded", "/api/open/.%2e/shut", 403),
        ("3986-5.2.4 above the prefix", "/api/../secret", 404),
        ("3986-5.2.4 above the root", "/api/../../../secret", 404),
        ("3986-6.2.2.2 an encoded name on the list", "/api/%6fpen/x", 200),
        ("3986-6.2.2.1 paths differ by case", "/api/OPEN/x", 403),
    ];
    let mut failures = Failures::default();
    for (rule, target, status) in rows {
        let check = read(&mut edge.send(line(target)), "GET").and_then(|answer| {
            must(answer.status == status, || format!("{} instead of {status}", answer.status))
        });
        failures.note(rule, check);
    }
    failures.assert_none();
    assert!(edge.origin.requests().iter().all(|it| it.target == "/open/x"));
}

#[test]
fn an_encoded_slash_passes_where_it_is_allowed() {
    let edge = Edge::with(|setup| setup.with("security.allow_encoded_slash", true));
    let rows = [("3986-2.2 as it is, in capitals", line("/api/a%2fb"), "GET /a%2Fb", "")];
    assert_forwarded(&edge, &rows);
    assert_eq!(edge.proxy.get("/api/a/..%2fb").status, 400);
}

#[test]
fn every_spelling_of_a_path_is_one_entry() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let edge = Edge::over(origin, |setup| setup);
    assert_eq!(edge.proxy.get("/api/abc/d").cache(), "MISS");
    let mut client = edge.proxy.connect();
    for target in
        ["/api/abc/d", "/api/%61bc/d", "/api/./abc/x/../d", "http://proxy.test/api/abc/%64"]
    {
        assert_eq!(client.get(target).cache(), "HIT", "{target}");
    }
    assert_eq!(edge.origin.count(), 1);
}
