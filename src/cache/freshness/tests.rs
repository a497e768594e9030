use super::*;
use crate::cache::sample::{AT_ONCE, DATE, Lines, NOW, date as at, fields, head, secs};

fn facts(lines: Lines<'_>) -> Facts {
    Facts::of(&head(200, lines), AT_ONCE, &Settings::default())
}

#[test]
fn the_sample_date_is_the_sample_instant() {
    assert_eq!(at(0), DATE);
}

/// RFC 9111 section 4.2.1, RFC 9213 section 2.2.
#[test]
fn the_strongest_statement_makes_the_lifetime() {
    let later = at(90);
    let past = at(-90);
    let day = 86_400;
    let cases: [(Lines<'_>, u64, LifetimeSource); 17] = [
        (&[("Cache-Control", "max-age=5")], 5, LifetimeSource::MaxAge),
        (&[("Cache-Control", "max-age=5, s-maxage=7")], 7, LifetimeSource::SMaxage),
        (&[("Cache-Control", "s-maxage=0, max-age=5")], 0, LifetimeSource::SMaxage),
        (&[("Cache-Control", "s-maxage=x, max-age=5")], 0, LifetimeSource::SMaxage),
        (&[("Cache-Control", "max-age=5"), ("Expires", &later)], 5, LifetimeSource::MaxAge),
        (&[("Cache-Control", "max-age=5"), ("Expires", "0")], 5, LifetimeSource::MaxAge),
        (&[("Cache-Control", "max-age=0"), ("Expires", &later)], 0, LifetimeSource::MaxAge),
        (&[("Expires", &later), ("Date", DATE)], 90, LifetimeSource::Expires),
        (&[("Expires", &later)], 90, LifetimeSource::Expires),
        (&[("Expires", &later), ("Date", "foo")], 90, LifetimeSource::Expires),
        (&[("Expires", &past), ("Date", DATE)], 0, LifetimeSource::Expires),
        (&[("Expires", DATE), ("Date", DATE)], 0, LifetimeSource::Expires),
        (&[("Expires", "never"), ("Expires", &later)], 0, LifetimeSource::Expires),
        (&[("Cache-Control", "private=\"x\"")], day, LifetimeSource::Heuristic),
        (
            &[("CDN-Cache-Control", "max-age=3"), ("Cache-Control", "s-maxage=9")],
            3,
            LifetimeSource::Targeted,
        ),
        (
            &[("CDN-Cache-Control", "max-age=3, s-maxage=4"), ("Expires", "0")],
            4,
            LifetimeSource::Targeted,
        ),
        (&[("CDN-Cache-Control", "public"), ("Expires", &later)], day, LifetimeSource::Heuristic),
    ];
    for (lines, lifetime, source) in cases {
        let facts = facts(lines);
        assert_eq!((facts.lifetime, facts.lifetime_source), (secs(lifetime), source), "{lines:?}");
    }
}

/// RFC 9111 section 5.3, RFC 9110 section 5.6.7: what is no date has expired.
#[test]
fn expires_is_read_in_three_forms_and_no_other() {
    for (value, fresh) in [
        ("Thu, 18 Aug 2050 02:01:18 GMT", true),
        ("Thursday, 18-Aug-50 02:01:18 GMT", true),
        ("Thu Aug 18 02:01:18 2050", true),
        ("THU, 18 AUG 2050 02:01:18 gMT", true),
        ("Tue, 19 Jan 2038 14:14:08 GMT", true),
        ("Sun, 21 Nov 2286 04:46:39 GMT", true),
        ("0", false),
        ("-1", false),
        ("", false),
        ("Thu, 18 Aug 2050 02:01:18 UTC", false),
        ("Thu, 18 Aug 2050 02:01:18 AEST", false),
        ("Thu, 18 Aug 50 02:01:18 GMT", false),
        ("Thu 18 Aug 2050 02:01:18 GMT", false),
        ("Thu, 18  Aug  2050 02:01:18 GMT", false),
        ("Thu, 18-Aug-2050 02:01:18 GMT", false),
        ("Thu, 18 Aug 2050 02.01.18 GMT", false),
        ("Thu, 18 Aug 2050 2:01:18 GMT", false),
    ] {
        let facts = facts(&[("Expires", value), ("Date", DATE)]);
        assert_eq!(facts.is_fresh(NOW), fresh, "{value}");
    }
}

/// RFC 9111 section 5.1.
#[test]
fn the_first_age_counts_and_no_number_is_no_age() {
    let old = u64::from(u32::MAX);
    let cases: [(&[&str], u64); 14] = [
        (&["30"], 30),
        (&["030"], 30),
        (&["7200, 0"], 7200),
        (&["0, 7200"], 0),
        (&["7200", "0"], 7200),
        (&["0", "7200"], 0),
        (&["2147483648"], 2_147_483_648),
        (&["99999999999999999999"], old),
        (&["abc"], 0),
        (&["-7200"], 0),
        (&["7200.0"], 0),
        (&["7200;foo=bar"], 0),
        (&["\"7200\""], 0),
        (&[""], 0),
    ];
    for (values, expected) in cases {
        let lines: Vec<_> = values.iter().map(|value| ("Age", *value)).collect();
        assert_eq!(age_value(&fields(&lines)), secs(expected), "{values:?}");
    }
}

/// RFC 9111 section 4.2.3.
#[test]
fn initial_age_is_the_larger_of_clock_and_field_with_the_time_upstream() {
    let exchange = |millis| Exchange { requested: NOW, responded: NOW.plus(millis) };
    let cases = [
        // (seconds of Date, Age, milliseconds upstream, initial age in milliseconds)
        (0, "0", 0, 0),
        (-7200, "0", 0, 7_200_000),
        (-10, "25", 0, 25_000),
        (10, "15", 0, 15_000),
        (0, "30", 5_500, 35_500),
        (0, "x", 5_500, 5_500),
        (-100, "30", 5_000, 105_000),
        // A clock ahead of ours makes nobody younger than zero.
        (500, "0", 0, 0),
        // Fractions of our second are not the origin's age.
        (0, "0", 999, 999),
    ];
    for (date, age, upstream, expected) in cases {
        let date = at(date);
        let head = head(200, &[("Date", &date), ("Age", age)]);
        let exchange = exchange(Duration::from_millis(upstream));
        let facts = Facts::of(&head, exchange, &Settings::default());
        assert_eq!(facts.initial_age, Duration::from_millis(expected), "{date} {age} {upstream}");
    }
    let late = Wall::from_millis(NOW.as_millis() + 999);
    let fields = fields(&[("Date", DATE)]);
    let exchange = Exchange { requested: late, responded: late };
    assert_eq!(initial_age(&fields, NOW, exchange), Duration::ZERO);
}

/// RFC 9110 section 6.6.1.
#[test]
fn a_missing_or_invalid_date_is_the_time_of_arrival() {
    assert_eq!(date(&fields(&[]), NOW), NOW);
    assert_eq!(date(&fields(&[("Date", "foo")]), NOW), NOW);
    let late = at(60);
    assert_eq!(date(&fields(&[("Date", &late)]), NOW), NOW.plus(secs(60)));
}

/// RFC 9111 section 4.2.2, RFC 9110 section 15.1.
#[test]
fn a_made_up_lifetime_is_only_for_statuses_that_allow_it_or_public() {
    let settings = Settings { negative_ttl: secs(20), ttl: secs(100), ..Settings::default() };
    for status in (200..600).chain([999]) {
        let plain = Facts::of(&head(status, &[]), AT_ONCE, &settings);
        let expected = match status {
            200 | 203 | 204 | 206 | 300 | 301 | 308 => secs(100),
            404 | 410 => secs(20),
            _ => Duration::ZERO,
        };
        assert_eq!(plain.lifetime, expected, "{status}");
        let public = head(status, &[("Cache-Control", "public")]);
        let expected = if status < 400 { secs(100) } else { expected };
        assert_eq!(Facts::of(&public, AT_ONCE, &settings).lifetime, expected, "{status}");
    }
}

/// RFC 9111 section 4.2.2.
#[test]
fn last_modified_yields_a_share_where_the_settings_yield_nothing() {
    let off = Settings { ttl: Duration::ZERO, ..Settings::default() };
    let lifetime = |status: u16, modified: i64, settings: &Settings| {
        let modified = at(modified);
        let head = head(status, &[("Date", DATE), ("Last-Modified", &modified)]);
        Facts::of(&head, AT_ONCE, settings).lifetime
    };
    assert_eq!(lifetime(200, -1_000, &off), secs(100));
    assert_eq!(lifetime(404, -1_000, &off), secs(100));
    assert_eq!(lifetime(501, -1_000, &Settings::default()), secs(100));
    assert_eq!(lifetime(403, -1_000, &off), Duration::ZERO);
    assert_eq!(lifetime(200, -100_000_000, &off), DAY);
    assert_eq!(lifetime(200, 1_000, &off), Duration::ZERO);
    assert_eq!(
        lifetime(200, -1_000, &Settings { last_modified_percent: 0, ..off }),
        Duration::ZERO
    );
    assert_eq!(lifetime(200, -1_000, &Settings::default()), DAY);
    assert_eq!(Facts::of(&head(200, &[]), AT_ONCE, &off).lifetime_source, LifetimeSource::None);
}

#[test]
fn a_forced_lifetime_replaces_what_the_origin_states_for_a_success() {
    let settings = Settings { force_ttl: Some(secs(9)), ..Settings::default() };
    let of = |status, value| {
        let facts = Facts::of(&head(status, &[("Cache-Control", value)]), AT_ONCE, &settings);
        (facts.lifetime, facts.lifetime_source)
    };
    assert_eq!(of(200, "max-age=0"), (secs(9), LifetimeSource::Forced));
    assert_eq!(of(301, "s-maxage=100"), (secs(9), LifetimeSource::Forced));
    assert_eq!(of(404, "max-age=1"), (secs(1), LifetimeSource::MaxAge));
    assert_eq!(of(500, "max-age=1"), (secs(1), LifetimeSource::MaxAge));
}

#[test]
fn a_forced_lifetime_counts_from_reception_however_old_the_response_is() {
    let settings = Settings { force_ttl: Some(secs(9)), ..Settings::default() };
    let old = at(-1_000_000);
    let cases: [(Lines<'_>, u64); 3] = [
        (&[], 0),
        (&[("Age", "100"), ("Cache-Control", "max-age=50")], 100),
        (&[("Date", &old)], 1_000_000),
    ];
    for (lines, age) in cases {
        let facts = Facts::of(&head(200, lines), AT_ONCE, &settings);
        // The age that is told stays true.
        assert_eq!(facts.age(NOW), secs(age), "{lines:?}");
        assert_eq!(facts.ttl(NOW), 9, "{lines:?}");
        assert!(facts.is_fresh(NOW.plus(secs(8))) && !facts.is_fresh(NOW.plus(secs(9))));
    }
}

#[test]
fn a_validator_must_parse() {
    for (lines, expected) in [
        (&[("ETag", "\"a\"")] as Lines<'_>, true),
        (&[("ETag", "W/\"a\"")], true),
        (&[("Last-Modified", DATE)], true),
        (&[("ETag", "a")], false),
        (&[("Last-Modified", "yesterday")], false),
        (&[], false),
    ] {
        assert_eq!(facts(lines).has_validator, expected, "{lines:?}");
    }
}
