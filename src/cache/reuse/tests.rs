use super::*;
use crate::cache::Forward;
use crate::cache::facts::LifetimeSource;
use crate::cache::sample::{AT_ONCE, NOW, get, get_with, head, secs};

fn stored(cache_control: &str) -> Facts {
    let head = head(200, &[("Cache-Control", cache_control)]);
    Facts::of(&head, AT_ONCE, &Settings::default())
}

fn after(seconds: u64) -> Wall {
    NOW.plus(secs(seconds))
}

/// What becomes of a request with `wanted` for what was stored with `stated`, so many seconds on.
fn decided(stated: &str, wanted: &str, seconds: u64) -> Reuse {
    let request = if wanted.is_empty() { get(&[]) } else { get_with(wanted) };
    reuse(&request, &stored(stated), &Settings::default(), after(seconds))
}

/// RFC 9111 sections 4, 4.2, 5.2.2.4.
#[test]
fn a_response_is_used_while_fresh_and_validated_after() {
    for (stated, seconds, expected) in [
        ("max-age=10", 0, Reuse::Fresh),
        ("max-age=10", 9, Reuse::Fresh),
        ("max-age=10", 10, Reuse::Validate(Reason::Stale)),
        ("max-age=0", 0, Reuse::Validate(Reason::Stale)),
        ("max-age=10, no-cache", 0, Reuse::Validate(Reason::NoCache)),
        ("max-age=10, no-cache=\"x\"", 0, Reuse::Fresh),
        ("max-age=10, must-revalidate", 9, Reuse::Fresh),
        ("max-age=99999999999", 1 << 30, Reuse::Fresh),
    ] {
        assert_eq!(decided(stated, "", seconds), expected, "{stated} after {seconds}");
    }
}

/// RFC 9111 section 5.2.1.
#[test]
fn request_directives_are_honoured() {
    use Reason::{MaxStale, OnlyIfCached, RequestMaxAge, RequestMinFresh, RequestNoCache, Stale};
    for (stated, wanted, seconds, expected) in [
        ("max-age=100", "max-age=0", 0, Reuse::Validate(RequestMaxAge)),
        ("max-age=100", "max-age=5", 5, Reuse::Fresh),
        ("max-age=100", "max-age=5", 6, Reuse::Validate(RequestMaxAge)),
        ("max-age=100", "max-age=x", 6, Reuse::Validate(RequestMaxAge)),
        ("max-age=100", "min-fresh=50", 50, Reuse::Fresh),
        ("max-age=100", "min-fresh=50", 51, Reuse::Validate(RequestMinFresh)),
        ("max-age=100", "no-cache", 0, Reuse::Validate(RequestNoCache)),
        ("max-age=100", "no-store", 0, Reuse::Bypass(Reason::RequestNoStore)),
        ("max-age=100", "only-if-cached", 0, Reuse::Fresh),
        ("max-age=100", "only-if-cached", 100, Reuse::Refuse(OnlyIfCached)),
        ("max-age=100", "only-if-cached, no-cache", 0, Reuse::Refuse(OnlyIfCached)),
        ("max-age=100", "only-if-cached, max-stale=9", 105, Reuse::Stale(MaxStale)),
        ("max-age=100", "max-stale=10", 110, Reuse::Stale(MaxStale)),
        ("max-age=100", "max-stale=10", 111, Reuse::Validate(Stale)),
        ("max-age=100", "max-stale", 9_999, Reuse::Stale(MaxStale)),
        ("max-age=100", "max-stale=x", 100, Reuse::Validate(Stale)),
        ("max-age=100", "max-stale=0", 100, Reuse::Validate(Stale)),
        ("max-age=100", "max-stale, max-age=105", 105, Reuse::Stale(MaxStale)),
        ("max-age=100", "max-stale, max-age=105", 106, Reuse::Validate(Stale)),
        ("max-age=100", "max-stale, min-fresh=1", 105, Reuse::Validate(Stale)),
        ("max-age=100, no-cache", "max-stale", 0, Reuse::Validate(Reason::NoCache)),
    ] {
        assert_eq!(decided(stated, wanted, seconds), expected, "{stated} / {wanted} / {seconds}");
    }
}

/// RFC 9111 section 4.2.4.
#[test]
fn nothing_lets_a_response_be_stale_that_says_it_must_not() {
    for directive in ["must-revalidate", "proxy-revalidate", "s-maxage=2"] {
        let stated =
            format!("max-age=2, stale-while-revalidate=99, stale-if-error=99, {directive}");
        assert_eq!(decided(&stated, "max-stale", 3), Reuse::Validate(Reason::Stale), "{stated}");
        for offline in [false, true] {
            let settings = Settings { offline, ..Settings::default() };
            let facts = stored(&stated);
            let stale = stale_on_error(&get_with("max-stale"), &facts, &settings, after(3));
            assert_eq!(stale, Err(Reason::StaleForbidden), "{stated}");
        }
    }
}

/// RFC 5861 section 3.
#[test]
fn stale_while_revalidate_has_a_window() {
    let stated = "max-age=10, stale-while-revalidate=5";
    assert_eq!(decided(stated, "", 10), Reuse::StaleWhileRevalidate);
    assert_eq!(decided(stated, "", 14), Reuse::StaleWhileRevalidate);
    assert_eq!(decided(stated, "", 15), Reuse::Validate(Reason::Stale));
    // Who limits age wants nothing stale (RFC 9111 section 5.2.1.1).
    assert_eq!(decided(stated, "max-age=60", 12), Reuse::Validate(Reason::Stale));
    assert_eq!(decided(stated, "min-fresh=1", 12), Reuse::Validate(Reason::Stale));
    let settings = Settings { stale_while_revalidate: secs(3), ..Settings::default() };
    let plain = reuse(&get(&[]), &stored("max-age=10"), &settings, after(12));
    assert_eq!(plain, Reuse::StaleWhileRevalidate);
    let own = stored("max-age=10, stale-while-revalidate=0");
    assert_eq!(reuse(&get(&[]), &own, &settings, after(12)), Reuse::Validate(Reason::Stale));
}

/// RFC 8246 section 2.
#[test]
fn a_reload_of_what_is_immutable_is_served_while_fresh() {
    let stated = "max-age=10, immutable";
    assert_eq!(decided(stated, "max-age=0", 5), Reuse::Fresh);
    assert_eq!(decided(stated, "no-cache", 5), Reuse::Validate(Reason::RequestNoCache));
    assert_eq!(decided(stated, "max-age=0", 10), Reuse::Validate(Reason::Stale));
}

/// RFC 9211 section 2.2: `request` is for a fresh response that the request does not allow.
#[test]
fn what_is_stale_is_forwarded_as_stale_whatever_the_request_wants() {
    let stated = "max-age=10, stale-while-revalidate=60";
    for wanted in ["no-cache", "max-age=0", "max-age=5", "min-fresh=99"] {
        for (seconds, forward) in [(9, Forward::Request), (10, Forward::Stale)] {
            let Reuse::Validate(reason) = decided(stated, wanted, seconds) else {
                panic!("{wanted} after {seconds}");
            };
            assert_eq!(reason.forward(), Some(forward), "{wanted} after {seconds}");
        }
    }
}

#[test]
fn a_clock_set_back_asks_the_origin() {
    let facts = stored("max-age=1000");
    let before = NOW.minus(secs(61));
    let decided = reuse(&get(&[]), &facts, &Settings::default(), before);
    assert_eq!(decided, Reuse::Validate(Reason::ClockSkew));
    let stale = stale_on_error(&get(&[]), &facts, &Settings::default(), before);
    assert_eq!(stale, Err(Reason::ClockSkew));
}

/// RFC 5861 section 4, RFC 9111 sections 4.2.4 and 4.3.3.
#[test]
fn a_stale_response_stands_in_for_an_error_within_its_window() {
    use Reason::{MaxStale, RequestNoCache, StaleIfError, StaleTooOld};
    let settings = Settings { stale_if_error: secs(100), ..Settings::default() };
    for (stated, wanted, seconds, expected) in [
        ("max-age=10", "", 11, Ok(StaleIfError)),
        ("max-age=10", "", 109, Ok(StaleIfError)),
        ("max-age=10", "", 110, Err(StaleTooOld)),
        ("max-age=10, stale-if-error=5", "", 14, Ok(StaleIfError)),
        ("max-age=10, stale-if-error=5", "", 15, Err(StaleTooOld)),
        ("max-age=10, stale-if-error=500", "", 500, Ok(StaleIfError)),
        // A request can ask for less, not for more.
        ("max-age=10", "stale-if-error=5", 15, Err(StaleTooOld)),
        ("max-age=10", "stale-if-error=500", 110, Err(StaleTooOld)),
        ("max-age=10", "max-stale=500", 400, Ok(MaxStale)),
        ("max-age=10", "max-age=0", 11, Ok(StaleIfError)),
        ("max-age=10", "no-cache", 5, Err(RequestNoCache)),
        ("max-age=10", "no-store", 5, Err(Reason::RequestNoStore)),
        ("max-age=10, no-cache", "", 5, Err(Reason::NoCache)),
        // Not stale at all: the request only wanted it younger.
        ("max-age=10, must-revalidate", "max-age=1", 5, Ok(StaleIfError)),
    ] {
        let request = if wanted.is_empty() { get(&[]) } else { get_with(wanted) };
        let judged = stale_on_error(&request, &stored(stated), &settings, after(seconds));
        assert_eq!(judged, expected, "{stated} / {wanted} / {seconds}");
    }
}

#[test]
fn an_offline_endpoint_serves_without_limit() {
    let settings = Settings { offline: true, ..Settings::default() };
    let facts = stored("max-age=10, stale-if-error=0");
    let ages = after(1 << 33);
    assert_eq!(stale_on_error(&get(&[]), &facts, &settings, ages), Ok(Reason::Offline));
    assert_eq!(stale_on_error(&get_with("no-cache"), &facts, &settings, ages), Ok(Reason::Offline));
    let decided = reuse(&get(&[]), &facts, &settings, ages);
    assert_eq!(decided, Reuse::Validate(Reason::Stale), "the origin is asked while it answers");
}

#[test]
fn a_stored_server_error_is_never_served_stale() {
    let head = head(503, &[("Cache-Control", "max-age=10, stale-while-revalidate=99")]);
    let facts = Facts::of(&head, AT_ONCE, &Settings::default());
    assert_eq!(facts.lifetime_source, LifetimeSource::MaxAge);
    assert_eq!(reuse(&get(&[]), &facts, &Settings::default(), after(5)), Reuse::Fresh);
    let decided = reuse(&get_with("max-stale"), &facts, &Settings::default(), after(11));
    assert_eq!(decided, Reuse::Validate(Reason::Stale));
    let stale = stale_on_error(&get(&[]), &facts, &Settings::default(), after(11));
    assert_eq!(stale, Err(Reason::StaleForbidden));
}

/// RFC 5861 section 4.
#[test]
fn four_statuses_are_errors_that_a_stale_response_may_replace() {
    let errors: Vec<u16> = (100..=999).filter(|status| is_error(*status)).collect();
    assert_eq!(errors, [500, 502, 503, 504]);
}

/// The fast path's one question agrees with the whole policy.
#[test]
fn a_plain_request_is_served_exactly_when_reuse_says_fresh() {
    for stated in ["max-age=10", "max-age=10, no-cache", "max-age=0", "s-maxage=5", "no-store"] {
        for seconds in 0..20 {
            let facts = stored(stated);
            let fresh = decided(stated, "", seconds) == Reuse::Fresh;
            assert_eq!(facts.serves_plain_request(after(seconds)), fresh, "{stated} {seconds}");
        }
    }
}
