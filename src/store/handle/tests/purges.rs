//! Purges: one behind the other, too many, and those that the backend does not do.

use super::*;

/// A body that tells how many of its kind there are.
struct Counted(Arc<AtomicU64>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        b"body"
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn rows_given_up_while_a_purge_is_owed_take_no_memory() {
    let desk = Desk::new(&Settings::default(), false);
    desk.script.write_fails.store(true, Ordering::SeqCst);
    assert!(desk.wait(desk.client.purge(purge_of(0))).is_err());
    let alive = Arc::new(AtomicU64::new(0));
    for name in 1..=250 {
        alive.fetch_add(1, Ordering::SeqCst);
        let body = bytes::Bytes::from_owner(Counted(Arc::clone(&alive)));
        let row = Row { body, ..row(name, 0) };
        desk.client.put(row, desk.client.epoch()).unwrap();
    }
    desk.wait(desk.client.flush()).unwrap();
    assert_eq!(desk.count(|it| &it.puts_failed), 250);
    eventually("they are forgotten", || alive.load(Ordering::SeqCst) == 0);
    assert!(matches!(desk.get(1), GetOutcome::Miss));
    assert!(desk.script.rows.lock().unwrap().is_empty());
}

#[test]
fn a_purge_that_failed_hides_its_rows_and_is_done_later() {
    let desk = Desk::new(&Settings::default(), false);
    for name in 0..3 {
        desk.put(name).unwrap();
    }
    desk.wait(desk.client.flush()).unwrap();
    desk.script.write_fails.store(true, Ordering::SeqCst);
    let purge =
        |path: &str| Purge { selection: Selection::Path(path.into()), effect: Effect::Remove };
    assert_eq!(desk.wait(desk.client.purge(purge("/1"))), Err(Unavailable::DiskFull));
    assert_eq!(desk.wait(desk.client.purge(purge("/2"))), Err(Unavailable::DiskFull));
    assert_eq!(desk.script.rows.lock().unwrap().len(), 3);
    assert!(matches!(desk.get(0), GetOutcome::Hit(_)));
    assert!(matches!(desk.get(1), GetOutcome::Miss));
    assert!(matches!(desk.get(2), GetOutcome::Miss));
    // Other questions are answered meanwhile.
    assert!(desk.wait(desk.client.usage()).is_ok());
    desk.script.write_fails.store(false, Ordering::SeqCst);
    eventually("it is done", || desk.script.rows.lock().unwrap().len() == 1);
    desk.put(1).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    assert!(matches!(desk.get(1), GetOutcome::Hit(_)));
}

#[test]
fn a_purge_that_finds_no_room_becomes_one_of_everything() {
    let desk = Desk::new(&Settings::default(), false);
    desk.put(250).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    desk.script.read_gate.shut();
    let held = desk.client.get([1; 16]);
    eventually("the thread is held up", || desk.handle.queue_depth() == 0);
    let mut cx = Context::from_waker(Waker::noop());
    let mut refused = 0;
    let mut waiting = Vec::new();
    for name in 1000..2000 {
        let mut purge = Box::pin(desk.client.purge(purge_of(name)));
        match purge.as_mut().poll(&mut cx) {
            Poll::Ready(result) => {
                assert_eq!(result, Err(Unavailable::QueueFull));
                refused += 1;
            }
            Poll::Pending => waiting.push(purge),
        }
    }
    assert!(refused > 0);
    desk.script.read_gate.open();
    drop(held);
    eventually("all is gone", || desk.script.rows.lock().unwrap().is_empty());
    assert!(matches!(desk.get(250), GetOutcome::Miss));
}

#[test]
fn many_owed_purges_become_one_of_everything() {
    let desk = Desk::new(&Settings::default(), false);
    desk.put(255).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    desk.script.write_fails.store(true, Ordering::SeqCst);
    for name in 0..70 {
        let selection = Selection::Path(format!("/{name}").into());
        let purge = Purge { selection, effect: Effect::Remove };
        assert!(desk.wait(desk.client.purge(purge)).is_err());
    }
    desk.script.write_fails.store(false, Ordering::SeqCst);
    eventually("all is gone", || desk.script.rows.lock().unwrap().is_empty());
}

#[test]
fn purges_that_stand_one_behind_the_other_are_one_commit() {
    let desk = Desk::new(&Settings::default(), false);
    desk.script.write_gate.shut();
    desk.put(1).unwrap();
    let purges = (0..20).map(|name| desk.client.purge(purge_of(name)));
    let mut purges: Vec<_> = purges.map(Box::pin).collect();
    let mut cx = Context::from_waker(Waker::noop());
    for purge in &mut purges {
        assert!(purge.as_mut().poll(&mut cx).is_pending());
    }
    eventually("all is queued", || desk.handle.queue_depth() == 0);
    desk.script.write_gate.open();
    desk.wait(async {
        for purge in purges {
            assert_eq!(purge.await, Ok(0));
        }
    });
    assert_eq!(*desk.script.purges.lock().unwrap(), [20]);
    assert!(matches!(desk.get(1), GetOutcome::Miss));
}

/// A store whose notes are in a folder.
fn noting(folder: &tempfile::TempDir) -> Desk {
    let path = folder.path().join("cache.db");
    Desk::new(&Settings { path, ..Settings::default() }, false)
}

fn notes(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn an_owed_purge_is_noted_before_it_is_told_and_until_it_is_paid() {
    let folder = tempfile::tempdir().unwrap();
    let desk = noting(&folder);
    desk.wait(desk.client.purge(purge_of(0))).unwrap();
    assert_eq!(notes(&folder), 0);
    desk.script.write_fails.store(true, Ordering::SeqCst);
    assert!(desk.wait(desk.client.purge(purge_of(0))).is_err());
    assert_eq!(notes(&folder), 1);
    desk.script.write_fails.store(false, Ordering::SeqCst);
    eventually("it is paid", || notes(&folder) == 0);
    desk.wait(desk.client.purge(purge_of(0))).unwrap();
    assert_eq!(notes(&folder), 0);
}

#[test]
fn a_purge_that_hangs_is_noted_and_so_is_one_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let desk = noting(&folder);
    desk.script.write_gate.shut();
    let mut cx = Context::from_waker(Waker::noop());
    let mut first = Box::pin(desk.client.purge(purge_of(0)));
    assert!(first.as_mut().poll(&mut cx).is_pending());
    eventually("it is noted", || notes(&folder) == 1);
    assert_eq!(desk.handle.shutdown(Duration::ZERO), Shutdown::DeadlinePassed);
    assert_eq!(notes(&folder), 1);
    desk.script.write_gate.open();
    assert_eq!(desk.wait(first), Ok(0));
}

#[test]
fn behind_an_owed_purge_the_next_is_answered_at_once() {
    let desk = Desk::new(&Settings::default(), false);
    desk.script.write_fails.store(true, Ordering::SeqCst);
    assert!(desk.wait(desk.client.purge(purge_of(0))).is_err());
    // The writer tries it again, and hangs: nobody need wait for that.
    desk.script.write_gate.shut();
    for name in 1..5 {
        let refused = desk.wait(desk.client.purge(purge_of(name)));
        assert_eq!(refused, Err(Unavailable::DiskFull));
    }
    desk.script.write_fails.store(false, Ordering::SeqCst);
    desk.script.write_gate.open();
    eventually("all are done", || desk.script.purges.lock().unwrap().len() == 5);
    assert_eq!(desk.wait(desk.client.purge(purge_of(0))), Ok(0));
}

#[test]
fn a_purge_that_cannot_be_noted_becomes_one_of_everything() {
    let folder = tempfile::tempdir().unwrap();
    let desk = noting(&folder);
    desk.put(9).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    drop(folder);
    desk.script.write_fails.store(true, Ordering::SeqCst);
    assert!(desk.wait(desk.client.purge(purge_of(0))).is_err());
    desk.script.write_fails.store(false, Ordering::SeqCst);
    eventually("all is gone", || desk.script.rows.lock().unwrap().is_empty());
}

#[test]
fn a_clear_takes_the_place_of_what_is_owed() {
    let folder = tempfile::tempdir().unwrap();
    let desk = noting(&folder);
    desk.script.only_clears.store(true, Ordering::SeqCst);
    for name in 0..3 {
        assert!(desk.wait(desk.client.purge(purge_of(name))).is_err());
    }
    assert_eq!(desk.wait(desk.client.clear()), Ok(0));
    eventually("it is paid", || notes(&folder) == 0);
    assert_eq!(*desk.script.purges.lock().unwrap(), [1], "nothing else was done");
    assert!(desk.wait(desk.client.purge(purge_of(0))).is_err(), "it is tried");
}
