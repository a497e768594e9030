//! What every backend that outlives the process must do: keep what it promised, and work in parts.

#[path = "support/postgres.rs"]
mod cluster;
#[macro_use]
#[path = "support/conformance.rs"]
mod conformance;
#[path = "support/store.rs"]
mod support;

use std::future::Future;
use std::sync::atomic::Ordering;

use apiproxyd::base::Wall;
use apiproxyd::store::{Effect, GetOutcome, Purge, Row, Selection};
use conformance::{Place, postgres, sqlite};
use support::{digest, row};

conformance!([
    rows_survive_a_restart,
    a_clear_survives_a_restart,
    purges_and_expiries_survive_a_restart,
    a_sweep_lets_others_in_between,
    a_purge_of_several_selections_is_one,
]: sqlite(sqlite), postgres(postgres));

fn purge(selection: Selection, effect: Effect) -> Purge {
    Purge { selection, effect }
}

fn rows_survive_a_restart(place: &Place) {
    let desk = place.open();
    for name in 0..300 {
        desk.put(row(name, "/a"));
    }
    desk.end();
    let desk = place.open();
    assert!((0..300).all(|name| desk.find(name) == Some(row(name, "/a"))));
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 300);
    desk.end();
}

fn a_clear_survives_a_restart(place: &Place) {
    let desk = place.open();
    for name in 0..2000 {
        desk.put(row(name, "/a"));
    }
    desk.wait(desk.client.clear()).unwrap();
    desk.put(row(7, "/a"));
    desk.end();
    let desk = place.open();
    assert!((0..2000).all(|name| desk.find(name).is_some() == (name == 7)));
    desk.end();
}

fn purges_and_expiries_survive_a_restart(place: &Place) {
    let desk = place.open();
    for (name, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
        desk.put(row(name, path));
    }
    for (path, effect) in [("/a", Effect::Remove), ("/b", Effect::Expire)] {
        let order = purge(Selection::Path(path.into()), effect);
        assert_eq!(desk.wait(desk.client.purge(order)), Ok(1));
    }
    desk.end();
    let desk = place.open();
    assert_eq!(desk.find(1), None);
    assert!(desk.find(2).unwrap().expired_at.is_some());
    assert_eq!(desk.find(3).unwrap().expired_at, None);
    desk.wait(desk.client.purge(purge(Selection::All, Effect::Expire))).unwrap();
    desk.end();
    let desk = place.open();
    assert!(desk.find(3).unwrap().expired_at.is_some());
    desk.put(row(3, "/c"));
    assert_eq!(desk.find(3).unwrap().expired_at, None);
    desk.end();
}

/// Look-ups and writes that come while many rows are swept are done before the sweep is.
fn a_sweep_lets_others_in_between(place: &Place) {
    const ROWS: u32 = 12_000;
    let desk = place.open();
    for name in 0..ROWS {
        if desk.client.put(ended(name), desk.client.epoch()).is_err() {
            desk.flush();
            desk.put(ended(name));
        }
    }
    desk.flush();
    let swept = || desk.handle.stats().rows_swept.load(Ordering::Relaxed);
    let count = desk.wait(async {
        let mut sweep = std::pin::pin!(desk.client.sweep(Wall::from_secs(100)));
        std::future::poll_fn(|cx| {
            assert!(sweep.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        for name in ROWS..ROWS + 5 {
            desk.put(row(name, "/a"));
            desk.client.flush().await.unwrap();
            assert!(matches!(desk.client.get(digest(name)).await, GetOutcome::Hit(_)));
        }
        assert!(swept() < u64::from(ROWS), "the sweep was done first");
        sweep.await
    });
    assert_eq!((count, swept()), (Ok(u64::from(ROWS)), u64::from(ROWS)));
    assert_eq!(desk.wait(desk.client.usage()).unwrap().rows, 5);
    desk.end();
}

fn ended(name: u32) -> Row {
    Row { keep_until: Wall::from_secs(100), ..row(name, "/ended") }
}

fn a_purge_of_several_selections_is_one(place: &Place) {
    let desk = place.open();
    let paths = ["/a", "/a?x", "/a?y", "/a/b", "/b", "/c"];
    for (name, path) in (0..).zip(paths) {
        desk.put(row(name, path));
    }
    let any = |parts: &[Selection]| Selection::AnyOf(parts.into());
    let family = any(&[Selection::Path("/a".into()), Selection::Prefix("/a?".into())]);
    assert_eq!(desk.wait(desk.client.purge(purge(family.clone(), Effect::Expire))), Ok(3));
    assert!((0..6).all(|name| desk.find(name).unwrap().expired_at.is_some() == (name < 3)));
    assert_eq!(desk.wait(desk.client.purge(purge(family, Effect::Remove))), Ok(3));
    let digests = any(&[Selection::Digests([digest(4)].into()), any(&[])]);
    assert_eq!(desk.wait(desk.client.purge(purge(digests, Effect::Remove))), Ok(1));
    assert!((0..6).all(|name| desk.find(name).is_some() == (name == 3 || name == 5)));
    let all = any(&[Selection::Path("/x".into()), Selection::All]);
    assert_eq!(desk.wait(desk.client.purge(purge(all, Effect::Remove))), Ok(2));
    assert!((0..6).all(|name| desk.find(name).is_none()));
    desk.end();
}
