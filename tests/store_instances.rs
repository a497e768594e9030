//! Several instances that share a PostgreSQL database: rows, purges, and what must not come back.

#[path = "support/postgres.rs"]
mod cluster;
#[path = "support/on_postgres.rs"]
mod on_postgres;
#[path = "support/store.rs"]
mod support;

use std::sync::{Arc, Mutex};

use apiproxyd::store::{Dropped, Effect, Purge, Selection, StoreHandle};
use on_postgres::{open, ready, settings, works};
use postgres::fallible_iterator::FallibleIterator;
use support::{Desk, digest, eventually, row, sized_row};

fn purge(selection: Selection, effect: Effect) -> Purge {
    Purge { selection, effect }
}

#[test]
fn what_one_instance_stores_another_finds() {
    let Some(database) = cluster::database() else { return };
    let (one, two) = (open(&database), open(&database));
    one.put(row(1, "/a"));
    one.flush();
    assert_eq!(two.find(1), Some(row(1, "/a")));
    two.put(sized_row(1, "/b", 7));
    two.flush();
    assert_eq!(one.find(1), Some(sized_row(1, "/b", 7)));
    one.end();
    two.end();
}

#[test]
fn a_purge_is_told_to_other_instances_once_and_not_to_oneself() {
    let Some(database) = cluster::database() else { return };
    let told = [Arc::<Mutex<Vec<Purge>>>::default(), Arc::default()];
    let [one, two] = [0, 1].map(|index: usize| {
        let told = Arc::clone(&told[index]);
        let on_remote = Box::new(move |it: &Purge| told.lock().unwrap().push(it.clone()));
        let handle = StoreHandle::open_with(&settings(database.dsn()), Some(on_remote)).unwrap();
        let desk = Desk::new(handle);
        ready(&desk);
        desk
    });
    let orders = [
        purge(Selection::Path("/a".into()), Effect::Remove),
        purge(Selection::Prefix("/b".into()), Effect::Expire),
        purge(Selection::Digests([digest(1), digest(2)].into()), Effect::Remove),
        Purge::CLEAR,
        purge(Selection::All, Effect::Expire),
    ];
    for order in &orders {
        one.wait(one.client.purge(order.clone())).unwrap();
    }
    eventually("two is told", || *told[1].lock().unwrap() == orders);
    two.wait(two.client.clear()).unwrap();
    eventually("one is told", || *told[0].lock().unwrap() == [Purge::CLEAR]);
    // Neither a put nor a restart of the listener tells anything again.
    works(&one);
    works(&two);
    assert_eq!(told[1].lock().unwrap().len(), orders.len());
    assert_eq!(told[0].lock().unwrap().len(), 1);
    one.end();
    two.end();
}

#[test]
fn a_row_fetched_before_a_remote_clear_is_not_stored() {
    let Some(database) = cluster::database() else { return };
    let (one, two) = (open(&database), open(&database));
    works(&two);
    let epoch = two.client.epoch();
    one.wait(one.client.clear()).unwrap();
    // Two may know of it by now or not: in either case the row must not stay.
    let put = two.client.put(row(1, "/a"), epoch);
    assert!(matches!(put, Ok(()) | Err(Dropped::Cleared)), "{put:?}");
    two.flush();
    assert_eq!(two.find(1), None);
    assert_eq!(one.find(1), None);
    assert_ne!(two.client.epoch(), epoch);
    one.end();
    two.end();
}

#[test]
fn puts_queued_before_a_remote_purge_are_dropped_if_it_selects_them() {
    let Some(database) = cluster::database() else { return };
    let (one, two) = (open(&database), open(&database));
    for round in 0..20 {
        for name in 0..50 {
            two.put(row(name, if name % 2 == 0 { "/a" } else { "/b" }));
        }
        one.wait(one.client.purge(purge(Selection::Path("/a".into()), Effect::Remove))).unwrap();
        two.flush();
        for name in 0..50 {
            assert!(name % 2 == 0 || two.find(name).is_some(), "{round}: {name} was not purged");
        }
        // Written before the purge and removed by it, or dropped after it; or put after it was
        // known. Never found by one and not by the other.
        for name in 0..50 {
            assert_eq!(two.find(name), one.find(name), "{round}: {name}");
        }
    }
    one.end();
    two.end();
}

#[test]
fn one_notification_is_sent_for_a_purge_and_none_for_a_put() {
    let Some(database) = cluster::database() else { return };
    let desk = open(&database);
    let mut other = database.connect();
    other.batch_execute("LISTEN apiproxyd_purges_v1").unwrap();
    for name in 0..300 {
        desk.put(row(name, "/a"));
    }
    desk.flush();
    for _ in 0..3 {
        desk.wait(desk.client.purge(purge(Selection::Prefix("/a".into()), Effect::Remove)))
            .unwrap();
    }
    // A notification of our own marks the end.
    database.connect().batch_execute("NOTIFY apiproxyd_purges_v1, 'end'").unwrap();
    let mut notifications = other.notifications();
    let mut received = notifications.blocking_iter();
    let mut count = 0;
    while received.next().unwrap().unwrap().payload() != "end" {
        count += 1;
    }
    assert_eq!(count, 3);
    desk.end();
}

#[test]
fn an_instance_that_was_cut_off_learns_what_it_missed() {
    let Some(database) = cluster::database() else { return };
    let told = Arc::<Mutex<Vec<Purge>>>::default();
    let heard = Arc::clone(&told);
    let on_remote = Box::new(move |it: &Purge| heard.lock().unwrap().push(it.clone()));
    let one = open(&database);
    let two = StoreHandle::open_with(&settings(database.dsn()), Some(on_remote)).unwrap();
    let two = Desk::new(two);
    ready(&two);
    // Its listening connection ends; the purge may come before it listens again.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'apiproxyd' AND datname = current_database()";
    database.connect().query_one(end, &[]).unwrap();
    let order = purge(Selection::Path("/a".into()), Effect::Remove);
    eventually("one purges", || one.wait(one.client.purge(order.clone())).is_ok());
    eventually("two is told", || told.lock().unwrap().contains(&order));
    one.end();
    two.end();
}

#[test]
fn an_instance_that_comes_late_takes_what_it_missed_for_a_clear() {
    let Some(database) = cluster::database() else { return };
    let told = Arc::<Mutex<Vec<Purge>>>::default();
    let heard = Arc::clone(&told);
    let on_remote = Box::new(move |it: &Purge| heard.lock().unwrap().push(it.clone()));
    let one = open(&database);
    // Nobody of that name: it serves without the database, and keeps answers in memory.
    let late = settings(database.dsn().replace("user=apiproxyd", "user=late"));
    let two = Desk::new(StoreHandle::open_with(&late, Some(on_remote)).unwrap());
    eventually("two knows", || two.handle.stats().writes_unavailable().is_some());
    one.wait(one.client.purge(purge(Selection::Path("/a".into()), Effect::Remove))).unwrap();
    database.connect().batch_execute("CREATE ROLE late LOGIN SUPERUSER").unwrap();
    ready(&two);
    eventually("two is told", || *told.lock().unwrap() == [Purge::CLEAR]);
    // From now on it is told what it is.
    let order = purge(Selection::Path("/b".into()), Effect::Remove);
    one.wait(one.client.purge(order.clone())).unwrap();
    eventually("two is told again", || *told.lock().unwrap() == [Purge::CLEAR, order.clone()]);
    works(&two);
    one.end();
    two.end();
}
