//! What is stored and for how long, as a suspicious reader of the RFCs would try it: each row is
//! what the origin says and whether the next request is answered from the store.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::time::{Duration, SystemTime};

use support::{Origin, Proxy, Setup, answer};

type Lines<'a> = &'a [(&'a str, &'a str)];

/// An origin that says what it is told, and a daemon with no lifetime of its own.
fn strict() -> (Origin, Proxy) {
    let origin = Origin::obedient();
    let setup = Setup::over(&origin).with("cache.ttl", 0).with("cache.stale_if_error", 0);
    let proxy = setup.with("client.circuit_breaker_enabled", false).start();
    (origin, proxy)
}

fn date(offset_secs: i64) -> String {
    let span = Duration::from_secs(offset_secs.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if offset_secs < 0 { now - span } else { now + span })
}

/// Whether an answer with these fields, to a request with `first`, answers the next one, with
/// `next`.
fn kept(proxy: &Proxy, at: &str, say: &str, first: Lines<'_>, next: Lines<'_>) -> bool {
    let target = format!("/api/{at}");
    let miss = proxy.ask("GET", &target, &[&[("Say", say)], first].concat());
    assert_ne!(miss.cache(), "HIT", "{say}");
    let again = proxy.ask("GET", &target, &[&[("Say", say)], next].concat());
    assert_eq!(again.cache() == "HIT", again.body == miss.body && again.status != 304, "{again:?}");
    again.cache() == "HIT"
}

/// Each row alone, on a path of its own.
#[track_caller]
fn check(rows: &[(&str, String, bool)]) {
    let (_origin, proxy) = strict();
    for (number, (section, say, expected)) in rows.iter().enumerate() {
        let found = kept(&proxy, &number.to_string(), say, &[], &[]);
        assert_eq!(found, *expected, "{section}: {say}");
    }
}

fn cc(section: &'static str, value: &str, expected: bool) -> (&'static str, String, bool) {
    (section, format!("Cache-Control: {value}"), expected)
}

/// RFC 9111 sections 1.2.2, 4.2.1, 5.2.
#[test]
fn directives_in_every_spelling() {
    check(&[
        cc("plain", "max-age=60", true),
        cc("case", "MAX-AGE=60", true),
        cc("quoted", "max-age=\"60\"", true),
        cc("single quotes are no quotes", "max-age='60'", false),
        cc("space before", "max-age =60", false),
        cc("space behind", "max-age= 60", false),
        cc("leading zeros", "max-age=0060", true),
        cc("plus", "max-age=+60", false),
        cc("minus", "max-age=-60", false),
        cc("decimal", "max-age=60.0", false),
        cc("hexadecimal", "max-age=0x60", false),
        cc("exponent", "max-age=6e1", false),
        cc("trailing letter", "max-age=60s", false),
        cc("leading letter", "max-age=s60", false),
        cc("empty", "max-age=", false),
        cc("empty string", "max-age=\"\"", false),
        cc("no argument", "max-age", false),
        cc("2^31", "max-age=2147483648", true),
        cc("2^63", "max-age=9223372036854775808", true),
        cc("2^64", "max-age=18446744073709551616", true),
        cc("hundred digits", &format!("max-age={}", "9".repeat(100)), true),
        cc("first of two", "max-age=60, max-age=0", true),
        cc("first of two", "max-age=0, max-age=60", false),
        cc("first of two is broken", "max-age=x, max-age=60", false),
        ("two lines", "Cache-Control: max-age=60;;Cache-Control: max-age=0".into(), true),
        ("two lines", "Cache-Control: max-age=0;;Cache-Control: max-age=60".into(), false),
        cc("empty members", ",, ,max-age=60,,", true),
        cc("tabs", "\tmax-age=60\t,\tx", true),
        cc("unknown before", "x=y, max-age=60", true),
        cc("unknown with a comma in quotes", "x=\"a, max-age=0\", max-age=60", true),
        cc("hidden in a string", "x=\"max-age=60\"", false),
        cc("a quote that never ends", "x=\"y, max-age=60", true),
        cc("escapes", "x=\"a\\\", no-store, \\\"b\", max-age=60", true),
        cc("name as a suffix", "my-max-age=60", false),
        cc("name as a prefix", "max-age-x=60", false),
        cc("semicolons are no commas", "public; max-age=60", false),
        cc("restriction with an argument", "no-store=x, max-age=60", false),
        cc("restriction in odd case", "max-age=60, nO-StOrE", false),
        cc("restriction on a line of its own", "max-age=60;;Cache-Control: no-store", false),
        cc("restriction in a string", "x=\"no-store\", max-age=60", true),
        cc("restriction as part of a name", "no-storex, max-age=60", true),
        ("none", "Pragma: no-cache;;Cache-Control: max-age=60".into(), true),
    ]);
}

/// RFC 9111 sections 5.2.2 and 5.3: which of them counts.
#[test]
fn precedence_of_lifetimes() {
    let (past, future) = (date(-600), date(600));
    let both = |cache_control: &str, expires: &str| {
        format!("Cache-Control: {cache_control};;Expires: {expires}")
    };
    check(&[
        ("s-maxage before max-age", "Cache-Control: max-age=0, s-maxage=60".into(), true),
        ("s-maxage before max-age", "Cache-Control: s-maxage=0, max-age=60".into(), false),
        ("s-maxage broken is stale", "Cache-Control: s-maxage=x, max-age=60".into(), false),
        ("max-age before Expires", both("max-age=60", &past), true),
        ("max-age before Expires", both("max-age=0", &future), false),
        ("s-maxage before Expires", both("s-maxage=60", "0"), true),
        ("max-age broken does not give way", both("max-age=x", &future), false),
        ("Expires beside others", both("public", &future), true),
        ("Expires alone", format!("Expires: {future}"), true),
        ("Expires before Date", format!("Expires: {past}"), false),
        ("Expires equal to Date", format!("Expires: {future};;Date: {future}"), false),
        ("Expires less Date", format!("Date: {future};;Expires: {}", date(900)), true),
        ("Expires after an old Date", format!("Date: {past};;Expires: {}", date(-300)), false),
        ("first Expires", format!("Expires: {future};;Expires: {past}"), true),
        ("first Expires", format!("Expires: {past};;Expires: {future}"), false),
    ]);
}

/// RFC 9110 section 5.6.7, RFC 9111 section 5.3: three forms, and nothing else.
#[test]
fn expires_is_a_date_in_one_of_three_forms() {
    let row = |value: &str, expected| ("5.3", format!("Expires: {value}"), expected);
    check(&[
        row("Sun, 06 Nov 2044 08:49:37 GMT", true),
        row("Sunday, 06-Nov-44 08:49:37 GMT", true),
        row("Sun Nov  6 08:49:37 2044", true),
        row("Sun, 06 Nov 1994 08:49:37 GMT", false),
        row("Sunday, 06-Nov-94 08:49:37 GMT", false),
        row("Sun Nov  6 08:49:37 1994", false),
        row("sun, 06 nov 2044 08:49:37 gmt", true),
        row("0", false),
        row("-1", false),
        row("4102444800", false),
        row("never", false),
        row("Sun, 06 Nov 2044 08:49:37", false),
        row("Sun, 06 Nov 2044 08:49:37 UTC", false),
        row("Sun, 06 Nov 2044 08:49:37 +0000", false),
        row("Sun, 06 Nov 2044 08:49:37 EST", false),
        row("Sun, 6 Nov 2044 08:49:37 GMT", false),
        row("Sun, 06 Nov 44 08:49:37 GMT", false),
        row("Sun,  06 Nov 2044 08:49:37 GMT", false),
        row("Sun 06 Nov 2044 08:49:37 GMT", false),
        row("06 Nov 2044 08:49:37 GMT", false),
        row("Sun, 06-Nov-2044 08:49:37 GMT", false),
        row("Sun, 06 Nov 2044 8:49:37 GMT", false),
        row("Sun, 06 Nov 2044 08.49.37 GMT", false),
        row("Sun, 06 Nov 2044 08:49 GMT", false),
        row("Sun, 31 Feb 2044 08:49:37 GMT", false),
        row("Sun, 06 Nov 2044 25:49:37 GMT", false),
        row("2044-11-06T08:49:37Z", false),
        row("Sun, 06 Nov 2044 08:49:37 GMT, Sun, 06 Nov 2044 08:49:37 GMT", false),
    ]);
}

/// RFC 9111 sections 4.2.3 and 5.1.
#[test]
fn age_of_what_arrives() {
    let minute = |rest: &str| format!("Cache-Control: max-age=60;;{rest}");
    check(&[
        ("younger", minute("Age: 30"), true),
        ("older", minute("Age: 61"), false),
        ("as old", minute("Age: 60"), false),
        ("overflow", minute("Age: 99999999999999999999"), false),
        ("first member of a list", minute("Age: 0, 100"), true),
        ("first member of a list", minute("Age: 100, 0"), false),
        ("first of two lines", minute("Age: 0;;Age: 100"), true),
        ("first of two lines", minute("Age: 100;;Age: 0"), false),
        ("negative is ignored", minute("Age: -100"), true),
        ("decimal is ignored", minute("Age: 100.5"), true),
        ("letters are ignored", minute("Age: old"), true),
        ("quotes are ignored", minute("Age: \"100\""), true),
        ("a parameter is ignored", minute("Age: 100;a=b"), true),
        ("by the clock", minute(&format!("Date: {}", date(-90))), false),
        ("by the clock", minute(&format!("Date: {}", date(-30))), true),
        ("from the future", minute(&format!("Date: {}", date(90))), true),
        ("clock and Age", minute(&format!("Age: 70;;Date: {}", date(0))), false),
        ("no Date that can be read", minute("Date: yesterday"), true),
    ]);
}

/// RFC 9111 sections 3, 5.2.2.3 and 7.3.
#[test]
fn bans_and_permissions() {
    let modified = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    check(&[
        cc("private", "private, max-age=60", false),
        cc("private for some fields", "private=\"A, B\", max-age=60", true),
        cc("private for a field, unquoted", "private=A, max-age=60", true),
        cc("private for nothing", "private=\"\", max-age=60", false),
        cc("no-cache", "no-cache, max-age=60", false),
        cc("no-cache for some fields", "no-cache=\"A\", max-age=60", true),
        cc("no-store beats public", "public, no-store, max-age=60", false),
        cc("must-understand", "must-understand, no-store, max-age=60", true),
        cc(
            "must-understand with an argument is none",
            "must-understand=1, no-store, max-age=60",
            false,
        ),
        ("a cookie with a lifetime", "Set-Cookie: a=b;;Cache-Control: max-age=60".into(), true),
        ("a cookie with s-maxage", "Set-Cookie: a=b;;Cache-Control: s-maxage=60".into(), true),
        ("a cookie without leave", format!("Set-Cookie: a=b;;{modified}"), false),
        ("a cookie with Expires", format!("Set-Cookie: a=b;;Expires: {}", date(60)), false),
        (
            "a private cookie",
            format!("Set-Cookie: a=b;;Cache-Control: private=\"set-cookie\";;{modified}"),
            true,
        ),
        ("heuristic", modified.into(), true),
        ("heuristic, in the future", format!("Last-Modified: {}", date(60)), false),
        ("heuristic, no date", "Last-Modified: yesterday".into(), false),
        ("nothing at all", "X: y".into(), false),
    ]);
}

/// RFC 9111 section 3.5: (what the origin says, the requests' Authorization, kept).
#[test]
fn authorization_needs_leave_to_be_shared() {
    let (_origin, proxy) = strict();
    let bearer: Lines<'_> = &[("Authorization", "Bearer a")];
    let other: Lines<'_> = &[("Authorization", "Bearer b")];
    for (number, (say, shared)) in [
        ("max-age=60", false),
        ("max-age=60, public", true),
        ("s-maxage=60", true),
        ("max-age=60, must-revalidate", true),
        ("max-age=60, proxy-revalidate", false),
        ("max-age=60, PUBLIC", true),
        ("max-age=60, public=x", false),
        ("max-age=60, private=\"a\"", false),
    ]
    .into_iter()
    .enumerate()
    {
        let say = format!("Cache-Control: {say}");
        for (part, (first, next)) in
            [(bearer, bearer), (bearer, other), (bearer, &[][..]), (&[][..], bearer)]
                .into_iter()
                .enumerate()
        {
            let found = kept(&proxy, &format!("{number}-{part}"), &say, first, next);
            assert_eq!(found, shared, "{say}: {first:?} then {next:?}");
        }
    }
}

/// RFC 9110 section 15.1, RFC 9111 sections 3 and 4.2.2: (heuristically, with `public`, with an
/// explicit lifetime). Of errors `cache.ttl` does not speak, Last-Modified does.
#[test]
fn each_status_has_its_rules() {
    let (_origin, proxy) = strict();
    let modified = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let public = format!("Cache-Control: public;;{modified}");
    let mut rows = Vec::new();
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        rows.push((status, true, true, true));
    }
    for status in [201, 202, 207, 226, 299, 302, 303, 307] {
        rows.push((status, false, true, true));
    }
    for status in [400, 402, 403, 406, 409, 413, 415, 422, 451, 499] {
        rows.push((status, false, true, true));
    }
    for status in [500, 502, 503, 504, 505, 599, 600, 999] {
        rows.push((status, false, true, true));
    }
    // About one request or one connection.
    for status in [401, 407, 408, 412, 416, 417, 421, 425, 426, 428, 429, 431, 511] {
        rows.push((status, false, false, false));
    }
    for (status, heuristic, with_public, explicit) in rows {
        let code = status.to_string();
        let fields: Lines<'_> = &[("Say-Status", &code)];
        for (number, (say, expected)) in
            [(modified, heuristic), (&public, with_public), ("Cache-Control: max-age=60", explicit)]
                .into_iter()
                .enumerate()
        {
            let found = kept(&proxy, &format!("{status}-{number}"), say, fields, fields);
            assert_eq!(found, expected, "{status}: {say}");
        }
    }
}

/// RFC 9213: the targeted field replaces Cache-Control and Expires, if it is valid and not empty.
#[test]
fn targeted_fields_come_first_where_they_are_valid() {
    let own = |value: &str, cc: &str| format!("CDN-Cache-Control: {value};;Cache-Control: {cc}");
    let best = "Apiproxyd-Cache-Control: max-age=60;;CDN-Cache-Control: no-store";
    check(&[
        ("alone", "CDN-Cache-Control: max-age=60".into(), true),
        ("before a ban", own("max-age=60", "no-store"), true),
        ("before private", own("max-age=60", "private"), true),
        ("as a ban", own("no-store", "max-age=60"), false),
        ("as private", own("private", "max-age=60"), false),
        ("before Expires", format!("CDN-Cache-Control: max-age=0;;Expires: {}", date(60)), false),
        ("silent on the lifetime", own("x", "max-age=60"), false),
        ("parameters", own("max-age=60;a=b;c", "no-store"), true),
        ("an inner list", own("x=(a b), max-age=60", "no-store"), true),
        ("last of two keys", own("max-age=0, max-age=60", "no-store"), true),
        (
            "two lines",
            "CDN-Cache-Control: x;;CDN-Cache-Control: max-age=60;;Cache-Control: no-store".into(),
            true,
        ),
        ("empty", own("", "max-age=60"), true),
        ("upper case is no key", own("Max-Age=60", "no-store"), false),
        ("a string is no number", own("max-age=\"60\"", "no-store"), false),
        ("a decimal is no number of seconds", own("max-age=60.0", "no-store"), false),
        ("negative", own("max-age=-1", "max-age=60"), true),
        ("a comma too many", own("max-age=60,", "no-store"), false),
        ("no dictionary", own("max-age=60 public", "no-store"), false),
        ("space around the sign", own("max-age = 60", "no-store"), false),
        ("sixteen digits", own("max-age=1000000000000000", "no-store"), false),
        ("the daemon's own field first", best.into(), true),
    ]);
}

/// Nothing is said to be stored where nothing can be.
#[test]
fn what_no_tier_takes_is_not_called_stored() {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=600")], vec![b'x'; 3_000]));
    for (name, value) in [
        ("memory_cache_enabled", serde_json::json!(false)),
        ("memory_cache_size", serde_json::json!(0)),
        ("memory_cache_max_bytes", serde_json::json!(1_000)),
        ("memory_cache_max_object", serde_json::json!(0)),
    ] {
        let setup = Setup::over(&origin).with("cache.backend", "none");
        let proxy = setup.with(&format!("cache.{name}"), value).start();
        for turn in 0..3 {
            let response = proxy.get(&format!("/api/{name}/{turn}"));
            let status = response.field("Cache-Status").unwrap();
            assert!(status.ends_with("detail=response_too_large"), "{name}: {status}");
        }
    }
}

/// README: "Lifetime of 404 and 410 without explicit freshness".
#[test]
fn negative_ttl_is_for_404_and_410_alone() {
    let origin = Origin::obedient();
    let setup = Setup::over(&origin).with("cache.negative_ttl", 600);
    let proxy = setup.with("client.circuit_breaker_enabled", false).start();
    let modified = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    for status in ["400", "403", "404", "405", "410", "414", "500", "501", "503"] {
        for (number, say) in ["X: 1", modified].into_iter().enumerate() {
            let fields: Lines<'_> = &[("Say-Status", status)];
            let found = kept(&proxy, &format!("{status}-{number}"), say, fields, fields);
            let by_change = say == modified && matches!(status, "405" | "414" | "501");
            let expected = matches!(status, "404" | "410") || by_change;
            assert_eq!(found, expected, "{status}: {say}");
        }
    }
}
