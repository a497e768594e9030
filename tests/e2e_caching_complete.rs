//! Parts of responses become longer ones, and the whole (RFC 9111 section 3.4, RFC 9110 section
//! 15.3.7.3): only under one strong validator, and whatever the origin answers.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use support::ranges::{LARGE, assert_part, bytes, cache_status, honest, range, serve};
use support::{Origin, Setup, answer};

type Lines<'a> = &'a [(&'a str, &'a str)];

const LONG: (&str, &str) = ("Cache-Control", "max-age=600");
const TAG: (&str, &str) = ("ETag", "\"a\"");

/// An origin that gives the same part whatever is asked, and the whole from the second request on.
fn odd(part: &'static [u8], fields: Lines<'static>, then: Vec<u8>) -> Origin {
    let turn = AtomicUsize::new(0);
    Origin::respond(move |asked| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => answer(206, fields, part),
        _ => serve(asked, &then, &fields[..fields.len() - 1]),
    })
}

/// RFC 9111 section 3.4.
#[test]
fn parts_that_touch_are_joined() {
    let body = bytes(LARGE);
    let origin = honest(body.clone(), &[LONG, TAG]);
    let proxy = Setup::over(&origin).start();
    range(&proxy, "bytes=100-199");
    range(&proxy, "bytes=200-299");
    range(&proxy, "bytes=50-149");
    let count = origin.count();
    let across = range(&proxy, "bytes=50-299");
    assert_part(&across, "HIT", "bytes 50-299/5242880", &body[50..300]);
    assert_eq!(origin.count(), count);
    // With a gap the newer one is kept.
    range(&proxy, "bytes=1000-1099");
    assert_eq!(range(&proxy, "bytes=1000-1099").cache(), "HIT");
    assert_eq!(range(&proxy, "bytes=100-199").cache(), "MISS");
}

#[test]
fn part_is_completed_by_the_range_that_it_lacks() {
    let body = bytes(LARGE);
    let rows = [
        ("bytes=0-2999999", Some("bytes=3000000-")),
        ("bytes=3000000-", Some("bytes=0-2999999")),
        ("bytes=-100", Some("bytes=0-5242779")),
        ("bytes=100-199", None),
    ];
    for (part, asked) in rows {
        let origin = honest(body.clone(), &[LONG, TAG]);
        let proxy = Setup::over(&origin).with("cache.memory_cache_max_object", 16 << 20).start();
        assert_eq!(range(&proxy, part).status, 206);
        let whole = proxy.get("/api/x");
        assert_eq!((whole.status, whole.cache()), (200, "MISS"), "{part}");
        let answered = if asked.is_some() { 206 } else { 200 };
        let told = format!("apiproxyd; fwd=partial; fwd-status={answered};");
        assert!(cache_status(&whole).starts_with(&told), "{part}: {}", cache_status(&whole));
        assert!(whole.body == body, "other bytes after {part}");
        assert_eq!(whole.field("Content-Range"), None);
        assert_eq!(origin.last().field("Range"), asked, "{part}");
        assert_eq!(origin.last().field("If-Range"), asked.map(|_| "\"a\""), "{part}");
        let count = origin.count();
        let hit = proxy.get("/api/x");
        assert_eq!((hit.status, hit.cache()), (200, "HIT"), "{part}");
        assert!(hit.body == body, "other bytes from the store after {part}");
        assert_part(&range(&proxy, "bytes=1-2"), "HIT", "bytes 1-2/5242880", &body[1..3]);
        assert_eq!(origin.count(), count);
    }
}

/// The whole may also come about by ranges alone.
#[test]
fn last_part_makes_it_whole() {
    let origin =
        odd(b"01234", &[LONG, TAG, ("Content-Range", "bytes 0-4/10")], b"0123456789".into());
    let proxy = Setup::over(&origin).start();
    assert_part(&range(&proxy, "bytes=0-4"), "MISS", "bytes 0-4/10", b"01234");
    // It is short: all that is missing is asked for, and what is wanted cut out of the whole.
    let rest = range(&proxy, "bytes=7-8");
    assert_part(&rest, "MISS", "bytes 7-8/10", b"78");
    assert_eq!(origin.last().field("Range"), Some("bytes=5-"));
    let hit = proxy.get("/api/x");
    assert_eq!((hit.status, hit.cache(), hit.text()), (200, "HIT", "0123456789"));
    assert_eq!(origin.count(), 2);
}

/// Without a strong validator nobody knows whether the rest belongs to it.
#[test]
fn part_without_a_strong_validator_is_used_and_never_completed() {
    let weak: Lines<'static> = &[LONG, ("ETag", "W/\"a\"")];
    let undated: Lines<'static> =
        &[LONG, ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Date", "x")];
    for fields in [&[LONG][..], weak, undated] {
        let body = bytes(LARGE);
        let origin = honest(body.clone(), fields);
        let proxy = Setup::over(&origin).start();
        range(&proxy, "bytes=0-99");
        assert_eq!(range(&proxy, "bytes=0-99").cache(), "HIT", "{fields:?}");
        range(&proxy, "bytes=100-199");
        assert_eq!(range(&proxy, "bytes=100-199").cache(), "HIT", "{fields:?}");
        assert_eq!(range(&proxy, "bytes=99-100").cache(), "MISS", "{fields:?}");
        let whole = proxy.get("/api/x");
        assert!(whole.status == 200 && whole.body == body, "{fields:?}");
        assert_eq!(origin.last().field("Range"), None, "{fields:?}");
    }
}

#[test]
fn part_of_another_version_is_never_combined() {
    let versions = Arc::new(Mutex::new((bytes(LARGE), "\"a\"")));
    let now = Arc::clone(&versions);
    let origin = Origin::respond(move |asked| {
        let (body, tag) = now.lock().unwrap().clone();
        serve(asked, &body, &[LONG, ("ETag", tag)])
    });
    let proxy = Setup::over(&origin).start();
    range(&proxy, "bytes=0-99");
    let newer: Vec<u8> = bytes(LARGE).into_iter().map(|it| 255 - it).collect();
    *versions.lock().unwrap() = (newer.clone(), "\"b\"");
    // What is stored is fresh; what touches it is of another version, and takes its place.
    assert_eq!(range(&proxy, "bytes=0-99").cache(), "HIT");
    let next = range(&proxy, "bytes=100-199");
    assert_part(&next, "MISS", "bytes 100-199/5242880", &newer[100..200]);
    let both = range(&proxy, "bytes=0-199");
    assert_part(&both, "MISS", "bytes 0-199/5242880", &newer[..200]);
    // And the rest of a part of an older version is the whole.
    let third: Vec<u8> = newer.iter().map(|it| it ^ 1).collect();
    *versions.lock().unwrap() = (third.clone(), "\"c\"");
    let whole = proxy.get("/api/x");
    assert!(whole.status == 200 && whole.body == third);
    assert_eq!(origin.last().field("If-Range"), Some("\"b\""));
}

/// Origins that answer the question for the rest in some other way than the RFC says.
#[test]
fn wrong_answer_to_the_question_for_the_rest_leads_to_the_whole() {
    let part: Lines<'static> = &[LONG, TAG, ("Content-Range", "bytes 0-4/10")];
    let wrong: [(u16, Lines<'static>, &str); 6] = [
        (206, &[LONG, ("ETag", "\"b\""), ("Content-Range", "bytes 5-9/10")], "XXXXX"),
        (206, &[LONG, ("Content-Range", "bytes 5-9/10")], "XXXXX"),
        (206, &[LONG, TAG, ("Content-Range", "bytes 6-9/10")], "XXXX"),
        (206, &[LONG, TAG, ("Content-Range", "bytes 5-9/11")], "XXXXX"),
        (416, &[("Content-Range", "bytes */5")], ""),
        (304, &[TAG], ""),
    ];
    for (status, fields, text) in wrong {
        let turn = AtomicUsize::new(0);
        let origin = Origin::respond(move |_| match turn.fetch_add(1, Ordering::SeqCst) {
            0 => answer(206, part, "01234"),
            1 => answer(status, fields, text),
            _ => answer(200, &[LONG, TAG], "0123456789"),
        });
        let proxy = Setup::over(&origin).start();
        range(&proxy, "bytes=0-4");
        let whole = proxy.get("/api/x");
        assert_eq!((whole.status, whole.text()), (200, "0123456789"), "{status} {fields:?}");
        assert_eq!(origin.last().field("Range"), None);
        assert_eq!(proxy.get("/api/x").cache(), "HIT");
        assert_eq!(origin.count(), 3);
    }
}

#[test]
fn many_ranges_at_once_leave_one_right_part() {
    let body = bytes(LARGE);
    let origin = honest(body.clone(), &[LONG, TAG]);
    let proxy = Setup::over(&origin).start();
    std::thread::scope(|scope| {
        for reader in 0..6_usize {
            let (proxy, body) = (&proxy, &body);
            scope.spawn(move || {
                let mut client = proxy.connect();
                for number in 0..20_usize {
                    let first = (number * 7 + reader * 3) % 40 * 1_000;
                    let last = first + 1_999;
                    let wanted = format!("bytes={first}-{last}");
                    let part = client.ask("GET", "/api/x", &[("Range", &wanted)]);
                    assert_eq!(part.status, 206, "{part:?}");
                    let named = format!("bytes {first}-{last}/5242880");
                    assert_eq!(part.field("Content-Range"), Some(named.as_str()));
                    assert!(part.body == body[first..=last], "other bytes for {wanted}");
                }
            });
        }
    });
    let whole = proxy.get("/api/x");
    assert!(whole.status == 200 && whole.body == body);
}

/// A part that grows bit by bit is not written over and over again: a row has half of it or more.
#[test]
fn grown_part_survives_a_restart_in_half_or_more() {
    let body = bytes(LARGE);
    let origin = honest(body.clone(), &[LONG, TAG]);
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    for number in 0..20 {
        let first = number * 1_000;
        range(&proxy, &format!("bytes={first}-{}", first + 999));
    }
    let all = range(&proxy, "bytes=0-19999");
    assert_part(&all, "HIT", "bytes 0-19999/5242880", &body[..20_000]);
    proxy.stop();
    let proxy = setup.start();
    let half = range(&proxy, "bytes=0-9999");
    assert_part(&half, "HIT", "bytes 0-9999/5242880", &body[..10_000]);
}

/// A whole that is known to be out of date gives way to a part of the newer version.
#[test]
fn part_of_a_newer_version_replaces_an_older_whole() {
    let versions = Arc::new(Mutex::new((bytes(LARGE), "\"a\"")));
    let now = Arc::clone(&versions);
    let origin = Origin::respond(move |asked| {
        let (body, tag) = now.lock().unwrap().clone();
        serve(asked, &body, &[LONG, ("ETag", tag)])
    });
    let proxy = Setup::over(&origin).with("cache.memory_cache_max_object", 16 << 20).start();
    assert_eq!(proxy.get("/api/x").cache(), "MISS");
    assert_eq!(range(&proxy, "bytes=0-9").cache(), "HIT");
    let newer: Vec<u8> = bytes(LARGE).into_iter().map(|it| 255 - it).collect();
    *versions.lock().unwrap() = (newer.clone(), "\"b\"");
    let reload = [("Range", "bytes=0-9"), ("Cache-Control", "no-cache")];
    let part = proxy.ask("GET", "/api/x", &reload);
    assert_part(&part, "MISS", "bytes 0-9/5242880", &newer[..10]);
    assert_part(&range(&proxy, "bytes=0-9"), "HIT", "bytes 0-9/5242880", &newer[..10]);
    let whole = proxy.get("/api/x");
    assert!(whole.status == 200 && whole.body == newer);
}
