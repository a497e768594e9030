//! The threads against a backend that fails, panics and stalls on demand.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc;
use std::sync::{Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::base::Wall;
use crate::store::backend::{Purged, Reader, Step, Upkeep, Writer, Written};
use crate::store::fault::{Dropped, Fault, Unavailable};
use crate::store::row::{Digest, Purge, Row, Selection};
use crate::store::stats::{Op, Usage};
use crate::store::{Effect, GetOutcome};

mod purges;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the backend is to do at the next calls, and what it holds.
#[derive(Default)]
struct Script {
    rows: Mutex<HashMap<Digest, Row>>,
    read_panics: AtomicBool,
    write_panics: AtomicBool,
    write_fails: AtomicBool,
    /// Puts and probes fail, what writes little or nothing does not.
    puts_fail: AtomicBool,
    upkeeps: AtomicU64,
    /// Other purges fail.
    only_clears: AtomicBool,
    read_times_out: AtomicBool,
    /// Reads begun.
    reads: AtomicU64,
    /// Reads wait while this is held.
    read_gate: Gate,
    write_gate: Gate,
    blocks: bool,
    groups: Mutex<Vec<usize>>,
    /// Purges in each call.
    purges: Mutex<Vec<usize>>,
    opened: AtomicU64,
}

#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn shut(&self) {
        *self.0.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.0.lock().unwrap() = false;
        self.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.lock().unwrap();
        drop(self.1.wait_while(shut, |shut| *shut).unwrap());
    }
}

struct Fake(Arc<Script>);

impl Backend for Fake {
    fn reader(&self, _index: usize) -> Result<Box<dyn Reader>, Fault> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Fault> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }

    fn readers(&self) -> usize {
        2
    }

    fn blocks(&self) -> bool {
        self.0.blocks
    }
}

impl Reader for Fake {
    fn read(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        self.0.read_gate.pass();
        if self.0.read_times_out.load(Ordering::SeqCst) {
            return Err(Fault::new(Unavailable::Timeout, "as ordered"));
        }
        assert!(!self.0.read_panics.swap(false, Ordering::SeqCst), "as ordered");
        let rows = self.0.rows.lock().unwrap();
        Ok(digests.iter().map(|it| rows.get(it).cloned()).collect())
    }
}

impl Fake {
    fn write(&self) -> Result<(), Fault> {
        self.0.write_gate.pass();
        assert!(!self.0.write_panics.swap(false, Ordering::SeqCst), "as ordered");
        if self.0.write_fails.load(Ordering::SeqCst) {
            return Err(Fault::new(Unavailable::DiskFull, "as ordered"));
        }
        Ok(())
    }
}

impl Writer for Fake {
    fn put(&mut self, rows: &[Arc<Row>]) -> Result<Written, Fault> {
        self.write()?;
        if self.0.puts_fail.load(Ordering::SeqCst) {
            return Err(Fault::new(Unavailable::DiskFull, "as ordered"));
        }
        if !rows.is_empty() {
            self.0.groups.lock().unwrap().push(rows.len());
        }
        let mut stored = self.0.rows.lock().unwrap();
        stored.extend(rows.iter().map(|it| (it.digest, Row::clone(it))));
        Ok(Written::All)
    }

    fn purge(&mut self, purges: &[Purge], _now: Wall) -> Result<Purged, Fault> {
        self.write()?;
        if self.0.only_clears.load(Ordering::SeqCst) && purges != [Purge::CLEAR] {
            return Err(Fault::new(Unavailable::DiskFull, "as ordered"));
        }
        self.0.purges.lock().unwrap().push(purges.len());
        let mut rows = self.0.rows.lock().unwrap();
        for purge in purges {
            rows.retain(|digest, row| !purge.selects(digest, &row.path));
        }
        Ok(Purged { rows: vec![0; purges.len()], more: false })
    }

    fn sweep(&mut self, _now: Wall) -> Result<Step, Fault> {
        self.write()?;
        Ok(Step { rows: 0, more: false })
    }

    fn probe(&mut self, _bytes: usize) -> Result<(), Fault> {
        self.put(&[]).map(|_| ())
    }

    fn upkeep(&mut self) -> Result<Upkeep, Fault> {
        self.0.upkeeps.fetch_add(1, Ordering::SeqCst);
        if self.0.write_fails.load(Ordering::SeqCst) {
            return Err(Fault::new(Unavailable::DiskFull, "as ordered"));
        }
        Ok(Upkeep::default())
    }

    fn usage(&mut self) -> Result<Usage, Fault> {
        Ok(Usage::default())
    }
}

struct Desk {
    script: Arc<Script>,
    handle: StoreHandle,
    client: Client,
}

struct Bell(mpsc::Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.send(()).ok();
    }
}

impl Desk {
    fn new(settings: &Settings, blocks: bool) -> Self {
        let script = Arc::new(Script { blocks, ..Script::default() });
        let shared = Arc::new(Shared::new(settings));
        let backend = Arc::new(Fake(Arc::clone(&script)));
        let handle = StoreHandle::start(settings, shared, backend, None).unwrap();
        Self { script, client: handle.client(), handle }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let (bell, woken) = mpsc::channel();
        let waker = Waker::from(Arc::new(Bell(bell)));
        let mut cx = Context::from_waker(&waker);
        let (mut future, mut drain) = (pin!(future), pin!(self.client.drain()));
        loop {
            assert!(drain.as_mut().poll(&mut cx).is_pending());
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            woken.recv_timeout(PATIENCE).expect("nobody wakes the client");
        }
    }

    fn get(&self, name: u8) -> GetOutcome {
        self.wait(self.client.get([name; 16]))
    }

    fn put(&self, name: u8) -> Result<(), Dropped> {
        self.client.put(row(name, 10), self.client.epoch())
    }

    fn count(&self, counter: fn(&StoreStats) -> &AtomicU64) -> u64 {
        counter(self.handle.stats()).load(Ordering::Relaxed)
    }
}

fn row(name: u8, body_bytes: usize) -> Row {
    Row {
        digest: [name; 16],
        path: format!("/{name}").into(),
        meta: bytes::Bytes::new(),
        body: vec![name; body_bytes].into(),
        stored_at: Wall::EPOCH,
        keep_until: Wall::FOREVER,
        expired_at: None,
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("never came true: {what}");
}

#[test]
fn a_panic_while_reading_costs_one_answer() {
    for blocks in [false, true] {
        let desk = Desk::new(&Settings::default(), blocks);
        desk.put(1).unwrap();
        desk.wait(desk.client.flush()).unwrap();
        assert!(matches!(desk.get(1), GetOutcome::Hit(_)));
        desk.script.read_panics.store(true, Ordering::SeqCst);
        let found = desk.get(1);
        assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Bug)), "{found:?}");
        eventually("it reads again", || matches!(desk.get(1), GetOutcome::Hit(_)));
        assert_eq!(desk.count(|it| &it.panics), 1);
        assert_eq!(desk.count(|it| &it.reopened), 1);
    }
}

#[test]
fn a_panic_while_writing_costs_one_group() {
    let desk = Desk::new(&Settings::default(), false);
    desk.script.write_panics.store(true, Ordering::SeqCst);
    desk.put(1).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    assert!(matches!(desk.get(1), GetOutcome::Miss));
    desk.put(2).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    assert!(matches!(desk.get(2), GetOutcome::Hit(_)));
    assert_eq!(desk.count(|it| &it.panics), 1);
    assert_eq!(desk.count(|it| &it.puts_failed), 1);
}

#[test]
fn puts_wait_in_groups_behind_a_slow_write_and_are_found_meanwhile() {
    let desk = Desk::new(&Settings::default(), false);
    desk.script.write_gate.shut();
    for name in 0..250 {
        desk.put(name).unwrap();
    }
    assert!((0..250).all(|name| matches!(desk.get(name), GetOutcome::Hit(_))));
    assert!(desk.script.rows.lock().unwrap().is_empty());
    desk.script.write_gate.open();
    desk.wait(desk.client.flush()).unwrap();
    let groups = desk.script.groups.lock().unwrap();
    assert_eq!(groups.iter().sum::<usize>(), 250);
    assert!(groups.iter().all(|it| *it <= 100), "{groups:?}");
    assert!(groups.len() <= 5, "{groups:?}");
}

#[test]
fn a_full_put_queue_sheds_and_recovers() {
    let settings = Settings { queue_depth: 8, queue_bytes_max: 10_000, ..Settings::default() };
    let desk = Desk::new(&settings, false);
    desk.script.write_gate.shut();
    for name in 0..8 {
        assert_eq!(desk.put(name), Ok(()));
    }
    assert_eq!(desk.put(8), Err(Dropped::QueueFull));
    assert_eq!(desk.count(|it| &it.puts_shed), 1);
    desk.script.write_gate.open();
    desk.wait(desk.client.flush()).unwrap();
    eventually("there is room", || desk.put(9).is_ok());
}

#[test]
fn bytes_bound_the_put_queue_but_one_large_row_passes() {
    let settings = Settings { queue_bytes_max: 10_000, ..Settings::default() };
    let desk = Desk::new(&settings, false);
    desk.script.write_gate.shut();
    let epoch = desk.client.epoch();
    assert_eq!(desk.client.put(row(1, 1 << 20), epoch), Ok(()));
    assert_eq!(desk.client.put(row(2, 1), epoch), Err(Dropped::QueueFull));
    desk.script.write_gate.open();
    eventually("there is room", || desk.client.put(row(2, 1), epoch).is_ok());
    desk.wait(desk.client.flush()).unwrap();
    assert!(matches!(desk.get(2), GetOutcome::Hit(_)));
}

#[test]
fn a_full_lookup_queue_sheds_at_once() {
    let settings = Settings { queue_depth: 4, ..Settings::default() };
    let desk = Desk::new(&settings, false);
    desk.script.read_gate.shut();
    let lookups: Vec<_> = (0..100).map(|name| desk.client.get([name; 16])).collect();
    let shed = desk.count(|it| &it.gets_shed);
    assert!((80..100).contains(&shed), "{shed}");
    desk.script.read_gate.open();
    let mut unavailable = 0;
    desk.wait(async {
        for lookup in lookups {
            match lookup.await {
                GetOutcome::Miss => {}
                GetOutcome::Unavailable(Unavailable::QueueFull) => unavailable += 1,
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(unavailable, shed);
}

#[test]
fn a_hung_reader_does_not_hold_its_lookups() {
    let statement_timeout = Duration::from_millis(50);
    let desk = Desk::new(&Settings { statement_timeout, ..Settings::default() }, true);
    desk.script.read_gate.shut();
    for name in 0..5 {
        let found = desk.get(name);
        assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Timeout)), "{found:?}");
    }
    desk.script.read_gate.open();
    eventually("it reads again", || matches!(desk.get(1), GetOutcome::Miss));
}

fn purge_of(name: u32) -> Purge {
    let selection = Selection::Path(format!("/{name}").into());
    Purge { selection, effect: Effect::Remove }
}

#[test]
fn counters_tell_calls_and_what_they_did() {
    let desk = Desk::new(&Settings::default(), false);
    let counts = |op| {
        let stats = desk.handle.stats().op(op);
        [&stats.calls, &stats.items, &stats.errors].map(|it| it.load(Ordering::Relaxed))
    };
    desk.script.write_gate.shut();
    desk.put(0).unwrap();
    eventually("the writer is held up", || desk.handle.queue_depth() == 0);
    (1..6).for_each(|name| desk.put(name).unwrap());
    desk.script.write_gate.open();
    desk.wait(desk.client.flush()).unwrap();
    assert_eq!(counts(Op::Put)[1..], [6, 0]);
    assert!(counts(Op::Put)[0] <= 2, "{:?}", counts(Op::Put));
    assert!(matches!(desk.get(1), GetOutcome::Hit(_)) && matches!(desk.get(99), GetOutcome::Miss));
    assert_eq!(counts(Op::Get), [2, 2, 0]);
    assert_eq!((desk.count(|it| &it.hits), desk.count(|it| &it.misses)), (1, 1));
    desk.wait(desk.client.purge(purge_of(1))).unwrap();
    assert_eq!(counts(Op::Purge), [1, 1, 0]);
    desk.script.write_fails.store(true, Ordering::SeqCst);
    desk.put(7).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    assert_eq!((counts(Op::Put)[1..].to_vec(), desk.count(|it| &it.puts_failed)), (vec![6, 1], 1));
    assert!(desk.wait(desk.client.sweep(Wall::FOREVER)).is_err());
    assert_eq!(counts(Op::Sweep), [1, 0, 1]);
    assert!(desk.handle.stats().op(Op::Put).nanos.load(Ordering::Relaxed) > 0);
    desk.script.write_fails.store(false, Ordering::SeqCst);
}

#[test]
fn what_is_queued_is_written_when_the_last_handle_is_dropped() {
    let Desk { script, handle, client } = Desk::new(&Settings::default(), true);
    script.write_gate.shut();
    for name in 0..100 {
        client.put(row(name, 10), client.epoch()).unwrap();
    }
    drop((handle, client));
    script.write_gate.open();
    eventually("all is written", || script.rows.lock().unwrap().len() == 100);
    eventually("the threads have ended", || Arc::strong_count(&script) == 1);
}

#[test]
fn a_shutdown_does_not_outlast_its_deadline() {
    let desk = Desk::new(&Settings::default(), false);
    desk.script.write_gate.shut();
    desk.put(1).unwrap();
    assert_eq!(desk.handle.shutdown(Duration::from_millis(20)), Shutdown::DeadlinePassed);
    desk.script.write_gate.open();
    assert_eq!(desk.handle.shutdown(PATIENCE), Shutdown::Flushed);
    assert_eq!(desk.script.rows.lock().unwrap().len(), 1);
}

#[test]
fn a_thread_that_hangs_holds_no_lookup() {
    let desk = Desk::new(&Settings::default(), false);
    desk.script.read_gate.shut();
    let started = Instant::now();
    let found = desk.get(1);
    assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Timeout)), "{found:?}");
    assert!((1_000..5_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    // In time it is known, and no look-up waits at all.
    eventually("nobody is asked", || {
        let mut lookup = pin!(desk.client.get([2; 16]));
        let answer = lookup.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        matches!(answer, Poll::Ready(GetOutcome::Unavailable(Unavailable::Timeout)))
    });
    desk.script.rows.lock().unwrap().insert([3; 16], row(3, 10));
    desk.script.read_gate.open();
    // The late answer goes nowhere.
    eventually("it reads again", || matches!(desk.get(3), GetOutcome::Hit(_)));
    assert!(matches!(desk.get(1), GetOutcome::Miss));
}

#[test]
fn after_a_time_out_no_lookup_waits_until_one_is_answered() {
    let desk = Desk::new(&Settings::default(), true);
    let timeout = Fault::new(Unavailable::Timeout, "as ordered");
    desk.script.read_times_out.store(true, Ordering::SeqCst);
    assert!(matches!(desk.get(1), GetOutcome::Unavailable(Unavailable::Timeout)));
    // Whoever finds out whether it is over hangs; look-ups do not.
    desk.script.read_gate.shut();
    let reads = desk.script.reads.load(Ordering::SeqCst);
    let before = Instant::now();
    for _ in 0..100 {
        let found = desk.get(1);
        assert!(matches!(found, GetOutcome::Unavailable(Unavailable::Timeout)), "{found:?}");
    }
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert!(desk.script.reads.load(Ordering::SeqCst) <= reads + 1);
    assert_eq!(desk.handle.stats().reads_unavailable(), Some(timeout.reason));
    desk.script.read_times_out.store(false, Ordering::SeqCst);
    desk.script.read_gate.open();
    eventually("it reads again", || matches!(desk.get(1), GetOutcome::Miss));
    assert_eq!(desk.handle.stats().reads_unavailable(), None);
}

#[test]
fn only_what_writes_says_that_writes_work() {
    let desk = Desk::new(&Settings::default(), false);
    let state = || desk.handle.stats().writes_unavailable();
    desk.script.puts_fail.store(true, Ordering::SeqCst);
    desk.put(1).unwrap();
    desk.wait(desk.client.flush()).unwrap();
    let upkeeps = desk.script.upkeeps.load(Ordering::SeqCst);
    // Upkeep, questions, and purges and sweeps that find nothing.
    while desk.script.upkeeps.load(Ordering::SeqCst) < upkeeps + 5 {
        assert_eq!(state(), Some(Unavailable::DiskFull));
        desk.wait(desk.client.usage()).unwrap();
        desk.wait(desk.client.sweep(Wall::FOREVER)).unwrap();
        let nothing = Purge { selection: Selection::Path("/9".into()), effect: Effect::Remove };
        desk.wait(desk.client.purge(nothing)).unwrap();
    }
    desk.script.puts_fail.store(false, Ordering::SeqCst);
    eventually("it is tried without a put", || state().is_none());
}

#[test]
fn the_backend_none_answers_without_threads() {
    let settings = Settings { backend: settings::Backend::None, ..Settings::default() };
    let handle = StoreHandle::open(&settings).unwrap();
    let script = Arc::default();
    let desk = Desk { script, client: handle.client(), handle };
    desk.put(1).unwrap();
    assert!(matches!(desk.get(1), GetOutcome::Miss));
    assert_eq!(desk.wait(desk.client.clear()), Ok(0));
    assert_eq!(desk.handle.stats().unavailable(), None);
    assert_eq!(desk.handle.shutdown(Duration::ZERO), Shutdown::Flushed);
}
