//! The conformance suite of the store: every backend must pass all of it.

#[path = "support/postgres.rs"]
mod cluster;
#[macro_use]
#[path = "support/conformance.rs"]
mod conformance;
#[path = "support/store.rs"]
mod support;

use std::sync::atomic::Ordering;

use apiproxyd::base::Wall;
use apiproxyd::store::{Dropped, Effect, GetOutcome, Purge, Row, Selection, Shutdown, Unavailable};
use conformance::{Place, memory, postgres, sqlite};
use support::{Desk, digest, row, sized_row};

conformance!([
    a_row_comes_back_as_it_was_put,
    an_unknown_digest_is_a_miss,
    a_queued_put_is_found,
    a_written_put_is_found,
    a_put_replaces_the_row,
    the_last_of_many_puts_of_one_row_wins,
    empty_and_large_rows_survive,
    a_batch_of_lookups_is_answered_each,
    a_path_purge_takes_all_its_rows_and_no_other,
    a_prefix_purge_compares_bytes,
    a_digest_purge_takes_the_listed_rows,
    a_purge_of_many_rows_is_complete,
    a_purge_includes_queued_puts,
    a_clear_takes_everything,
    a_row_put_after_a_clear_stays,
    a_row_fetched_before_a_clear_is_dropped,
    an_expired_row_is_found_and_marked,
    expiring_everything_spares_later_rows,
    a_new_put_is_not_expired,
    a_sweep_removes_rows_whose_time_has_passed,
    usage_counts_rows,
    instants_at_the_ends_of_time_survive,
    commands_after_shutdown_are_refused,
    several_cores_are_answered,
    dropped_lookups_do_no_harm,
]: memory(memory), sqlite(sqlite), postgres(postgres));

fn purge(selection: Selection, effect: Effect) -> Purge {
    Purge { selection, effect }
}

fn a_row_comes_back_as_it_was_put(place: &Place) {
    let desk = place.open();
    let sent = row(1, "0/a?b=c");
    desk.put(sent.clone());
    desk.flush();
    assert_eq!(desk.find(1), Some(sent));
    desk.end();
}

fn an_unknown_digest_is_a_miss(place: &Place) {
    let desk = place.open();
    desk.put(row(1, "/a"));
    assert_eq!(desk.find(2), None);
    desk.flush();
    assert_eq!(desk.find(2), None);
    assert!(desk.handle.stats().misses.load(Ordering::Relaxed) >= 2);
    desk.end();
}

fn a_queued_put_is_found(place: &Place) {
    let desk = place.open();
    for name in 0..500 {
        desk.put(row(name, "/a"));
        assert_eq!(desk.find(name), Some(row(name, "/a")), "{name}");
    }
    desk.end();
}

fn a_written_put_is_found(place: &Place) {
    let desk = place.open();
    for name in 0..500 {
        desk.put(row(name, "/a"));
    }
    desk.flush();
    for name in 0..500 {
        assert_eq!(desk.find(name), Some(row(name, "/a")), "{name}");
    }
    assert_eq!(desk.handle.stats().put_queue_rows.load(Ordering::Relaxed), 0);
    assert_eq!(desk.handle.stats().put_queue_bytes.load(Ordering::Relaxed), 0);
    desk.end();
}

fn a_put_replaces_the_row(place: &Place) {
    let desk = place.open();
    desk.put(row(1, "/old"));
    desk.flush();
    let new = sized_row(1, "/new", 3);
    desk.put(new.clone());
    assert_eq!(desk.find(1), Some(new.clone()));
    desk.flush();
    assert_eq!(desk.find(1), Some(new));
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 1);
    desk.end();
}

fn the_last_of_many_puts_of_one_row_wins(place: &Place) {
    let desk = place.open();
    for size in 0..300 {
        desk.put(sized_row(1, "/a", size));
    }
    assert_eq!(desk.find(1).unwrap().body.len(), 299);
    desk.flush();
    assert_eq!(desk.find(1).unwrap().body.len(), 299);
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 1);
    desk.end();
}

fn empty_and_large_rows_survive(place: &Place) {
    let desk = place.open();
    let mut empty = sized_row(1, "", 0);
    empty.meta = Vec::new().into();
    let large = sized_row(2, &"/p".repeat(10_000), 20 << 20);
    for sent in [&empty, &large] {
        desk.put(sent.clone());
    }
    desk.flush();
    assert_eq!(desk.find(1), Some(empty));
    assert!(desk.find(2) == Some(large), "large row differs");
    desk.end();
}

fn a_batch_of_lookups_is_answered_each(place: &Place) {
    let desk = place.open();
    for name in (0..1000).step_by(2) {
        desk.put(row(name, "/a"));
    }
    desk.flush();
    let lookups: Vec<_> = (0..1000).map(|name| desk.client.get(digest(name))).collect();
    desk.wait(async {
        for (name, lookup) in (0..1000).zip(lookups) {
            match lookup.await {
                GetOutcome::Hit(found) => assert_eq!(found, row(name, "/a")),
                GetOutcome::Miss => assert_eq!(name % 2, 1),
                GetOutcome::Unavailable(it) => panic!("{name}: {it:?}"),
            }
        }
    });
    desk.end();
}

fn a_path_purge_takes_all_its_rows_and_no_other(place: &Place) {
    let desk = place.open();
    for (name, path) in [(1, "/a"), (2, "/a"), (3, "/a?x"), (4, "/A"), (5, "/a/b")] {
        desk.put(row(name, path));
    }
    desk.flush();
    let order = purge(Selection::Path("/a".into()), Effect::Remove);
    assert_eq!(desk.wait(desk.client.purge(order)), Ok(2));
    let left: Vec<u32> = (1..=5).filter(|name| desk.find(*name).is_some()).collect();
    assert_eq!(left, [3, 4, 5]);
    desk.end();
}

fn a_prefix_purge_compares_bytes(place: &Place) {
    let desk = place.open();
    let paths = ["0/a", "0/a/b", "0/a%", "0/aé", "0/a\u{10ffff}", "0/b", "0/A", "1/a", "0/", "0/%"];
    for (name, path) in (0..).zip(paths) {
        desk.put(row(name, path));
    }
    desk.flush();
    let order = purge(Selection::Prefix("0/a".into()), Effect::Remove);
    assert_eq!(desk.wait(desk.client.purge(order)), Ok(5));
    for (name, path) in (0..).zip(paths) {
        assert_eq!(desk.find(name).is_some(), !path.starts_with("0/a"), "{path}");
    }
    desk.end();
}

fn a_digest_purge_takes_the_listed_rows(place: &Place) {
    let desk = place.open();
    for name in 0..10 {
        desk.put(row(name, "/a"));
    }
    let listed = [digest(3), digest(5), digest(77)];
    let order = purge(Selection::Digests(listed.into()), Effect::Remove);
    assert_eq!(desk.wait(desk.client.purge(order)), Ok(2));
    let left: Vec<u32> = (0..10).filter(|name| desk.find(*name).is_some()).collect();
    assert_eq!(left, [0, 1, 2, 4, 6, 7, 8, 9]);
    desk.end();
}

fn a_purge_of_many_rows_is_complete(place: &Place) {
    let desk = place.open();
    for name in 0..1500 {
        desk.put(row(name, if name % 3 == 0 { "/b" } else { "/a" }));
    }
    desk.flush();
    let order = purge(Selection::Prefix("/a".into()), Effect::Remove);
    assert_eq!(desk.wait(desk.client.purge(order)), Ok(1000));
    assert!((0..1500).all(|name| desk.find(name).is_some() == (name % 3 == 0)));
    let order = purge(Selection::Path("/b".into()), Effect::Expire);
    assert_eq!(desk.wait(desk.client.purge(order)), Ok(500));
    assert!((0..1500).step_by(3).all(|name| desk.find(name).unwrap().expired_at.is_some()));
    desk.end();
}

fn a_purge_includes_queued_puts(place: &Place) {
    let desk = place.open();
    for name in 0..100 {
        desk.put(row(name, "/a"));
    }
    let order = purge(Selection::Path("/a".into()), Effect::Remove);
    assert_eq!(desk.wait(desk.client.purge(order)), Ok(100));
    assert!((0..100).all(|name| desk.find(name).is_none()));
    desk.end();
}

fn a_clear_takes_everything(place: &Place) {
    let desk = place.open();
    for name in 0..300 {
        desk.put(row(name, "/a"));
    }
    desk.flush();
    assert_eq!(desk.wait(desk.client.clear()), Ok(300));
    assert!((0..300).all(|name| desk.find(name).is_none()));
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 0);
    desk.end();
}

fn a_row_put_after_a_clear_stays(place: &Place) {
    let desk = place.open();
    desk.put(row(1, "/a"));
    desk.wait(desk.client.clear()).unwrap();
    desk.put(row(1, "/a"));
    desk.put(row(2, "/a"));
    desk.flush();
    assert!(desk.find(1).is_some() && desk.find(2).is_some());
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 2);
    desk.end();
}

fn a_row_fetched_before_a_clear_is_dropped(place: &Place) {
    let desk = place.open();
    let epoch = desk.client.epoch();
    desk.wait(desk.client.clear()).unwrap();
    assert_eq!(desk.client.put(row(1, "/a"), epoch), Err(Dropped::Cleared));
    desk.flush();
    assert_eq!(desk.find(1), None);
    assert_eq!(desk.handle.stats().puts_overtaken.load(Ordering::Relaxed), 1);
    desk.end();
}

fn an_expired_row_is_found_and_marked(place: &Place) {
    let desk = place.open();
    desk.put(row(1, "/a"));
    desk.put(row(2, "/b"));
    desk.flush();
    let order = purge(Selection::Path("/a".into()), Effect::Expire);
    assert_eq!(desk.wait(desk.client.purge(order)), Ok(1));
    let found = desk.find(1).unwrap();
    assert!(found.expired_at.is_some());
    assert_eq!(found.body, row(1, "/a").body);
    assert_eq!(desk.find(2).unwrap().expired_at, None);
    desk.end();
}

fn expiring_everything_spares_later_rows(place: &Place) {
    let desk = place.open();
    desk.put(row(1, "/a"));
    desk.flush();
    desk.put(row(2, "/a"));
    assert_eq!(desk.wait(desk.client.purge(purge(Selection::All, Effect::Expire))), Ok(2));
    desk.put(row(3, "/a"));
    desk.flush();
    assert!(desk.find(1).unwrap().expired_at.is_some());
    assert!(desk.find(2).unwrap().expired_at.is_some());
    assert_eq!(desk.find(3).unwrap().expired_at, None);
    desk.end();
}

fn a_new_put_is_not_expired(place: &Place) {
    let desk = place.open();
    desk.put(row(1, "/a"));
    for order in
        [Selection::All, Selection::Path("/a".into()), Selection::Digests([digest(1)].into())]
    {
        desk.wait(desk.client.purge(purge(order, Effect::Expire))).unwrap();
        assert!(desk.find(1).unwrap().expired_at.is_some());
        let mut renewed = row(1, "/a");
        renewed.expired_at = Some(Wall::EPOCH);
        desk.put(renewed);
        assert_eq!(desk.find(1).unwrap().expired_at, None);
        desk.flush();
        assert_eq!(desk.find(1).unwrap().expired_at, None);
    }
    desk.end();
}

fn a_sweep_removes_rows_whose_time_has_passed(place: &Place) {
    let desk = place.open();
    for name in 0..900 {
        let keep_until = match name % 3 {
            0 => Wall::from_secs(100),
            1 => Wall::from_secs(101),
            _ => Wall::FOREVER,
        };
        desk.put(Row { keep_until, ..row(name, "/a") });
    }
    assert_eq!(desk.wait(desk.client.sweep(Wall::from_secs(100))), Ok(300));
    assert!((0..900).all(|name| desk.find(name).is_some() == (name % 3 != 0)));
    assert_eq!(desk.wait(desk.client.sweep(Wall::FOREVER)), Ok(300));
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 300);
    assert_eq!(desk.handle.stats().rows_swept.load(Ordering::Relaxed), 600);
    desk.end();
}

fn usage_counts_rows(place: &Place) {
    let desk = place.open();
    for name in 0..50 {
        desk.put(sized_row(name, "/a", 10_000));
    }
    desk.flush();
    let usage = desk.wait(desk.client.usage()).unwrap();
    assert_eq!(usage.rows, 50);
    assert!(usage.bytes >= 500_000, "{usage:?}");
    assert_eq!(desk.handle.stats().rows.load(Ordering::Relaxed), 50);
    desk.end();
}

fn instants_at_the_ends_of_time_survive(place: &Place) {
    let desk = place.open();
    for (name, at) in [(1, Wall::EPOCH), (2, Wall::from_millis(1)), (3, Wall::FOREVER)] {
        let sent = Row { stored_at: at, keep_until: at, ..row(name, "/a") };
        desk.put(sent.clone());
        desk.flush();
        assert_eq!(desk.find(name), Some(sent));
    }
    desk.end();
}

fn commands_after_shutdown_are_refused(place: &Place) {
    let desk = place.open();
    let Desk { handle, client } = desk;
    assert_eq!(handle.shutdown(support::PATIENCE), Shutdown::Flushed);
    assert_eq!(client.put(row(1, "/a"), client.epoch()), Err(Dropped::Closed));
    assert_eq!(support::block_on(&client, client.clear()), Err(Unavailable::Closed));
    let found = support::block_on(&client, client.get(digest(1)));
    assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Closed)));
    assert_eq!(handle.shutdown(support::PATIENCE), Shutdown::Flushed);
}

fn several_cores_are_answered(place: &Place) {
    let desk = place.open();
    std::thread::scope(|scope| {
        for core in 0..4_u32 {
            let handle = desk.handle.clone();
            scope.spawn(move || {
                let desk = Desk::new(handle);
                for name in (core * 1000)..(core * 1000 + 250) {
                    desk.put(row(name, "/a"));
                    assert_eq!(desk.find(name), Some(row(name, "/a")));
                    assert_eq!(desk.find(name + 500), None);
                }
            });
        }
    });
    desk.flush();
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 1000);
    desk.end();
}

fn dropped_lookups_do_no_harm(place: &Place) {
    let desk = place.open();
    desk.put(row(1, "/a"));
    desk.flush();
    // More than there are slots: without reuse of the dropped ones the last would be refused.
    for _ in 0..40 {
        for _ in 0..1000 {
            drop(desk.client.get(digest(2)));
        }
        assert_eq!(desk.find(1), Some(row(1, "/a")));
    }
    desk.end();
}
