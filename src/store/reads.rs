//! How look-ups reach the backend: in the storage thread itself, or in a pool of threads.
//!
//! An embedded database answers in microseconds, less than a hop to another thread costs. A
//! database server keeps its caller waiting, so that several threads ask it, each with a batch of
//! whatever is queued when it is free. One that hangs, hangs alone: its look-ups are answered
//! `Unavailable` when their time is over, and it is passed over until it comes back. One time-out
//! speaks for all (`slow.rs`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::store::backend::{Backend, Reader};
use crate::store::fault::{Fault, StartError, Unavailable};
use crate::store::handle::spawn;
use crate::store::mailbox::{Answer, Burst, Reply};
use crate::store::pending::Masks;
use crate::store::retry::Lazy;
use crate::store::row::{Digest, Row};
use crate::store::settings::Settings;
use crate::store::shared::Shared;
use crate::store::slow::Slow;
use crate::store::stats::Op;

/// The reading side of the storage thread.
pub(crate) enum Reads {
    Inline(Asker),
    Pool(Pool),
}

impl Reads {
    /// Starts the pool if the backend wants one.
    pub(crate) fn start(
        settings: &Settings,
        shared: &Arc<Shared>,
        backend: &Arc<dyn Backend>,
        alive: &Sender<()>,
    ) -> Result<Self, StartError> {
        if !backend.blocks() {
            return Ok(Self::Inline(Asker::new(Arc::clone(shared), Arc::clone(backend), 0)));
        }
        Pool::start(settings, shared, backend, alive).map(Self::Pool)
    }

    /// Answers these look-ups, or has them answered.
    pub(crate) fn answer(
        &mut self,
        asked: &mut Vec<(Digest, Reply)>,
        masks: &Masks,
        burst: &mut Burst,
    ) {
        if asked.is_empty() {
            return;
        }
        match self {
            Self::Inline(asker) => {
                let digests: Vec<Digest> = asked.iter().map(|(digest, _)| *digest).collect();
                let mut waiting = asked.drain(..).map(|(_, reply)| (reply, masks.clone()));
                let mut rest = digests.as_slice();
                while !rest.is_empty() {
                    let rows = asker.ask(rest);
                    let answered = rows.as_ref().map_or(rest.len(), Vec::len);
                    respond(&asker.shared, rows, waiting.by_ref().take(answered), burst);
                    rest = rest.get(answered..).unwrap_or_default();
                    asker.shared.stats.beat();
                    if !rest.is_empty() {
                        // What is large is handed over before more is read.
                        drop(std::mem::take(burst));
                    }
                }
            }
            Self::Pool(pool) => pool.pass_on(asked, masks, burst),
        }
    }

    /// Called several times a second.
    pub(crate) fn idle(&mut self) {
        match self {
            Self::Inline(asker) => asker.idle(),
            Self::Pool(pool) => pool.look(),
        }
    }
}

fn respond(
    shared: &Shared,
    rows: Result<Vec<Option<Row>>, Fault>,
    waiting: impl Iterator<Item = (Reply, Masks)>,
    burst: &mut Burst,
) {
    let stats = &shared.stats;
    match rows {
        Ok(rows) => {
            for ((reply, masks), row) in waiting.zip(rows) {
                let row = row.and_then(|it| masks.apply(it));
                let counter = if row.is_some() { &stats.hits } else { &stats.misses };
                counter.fetch_add(1, Ordering::Relaxed);
                burst.send(reply, row.map_or(Answer::Miss, Answer::Hit));
            }
        }
        Err(fault) => waiting.for_each(|(reply, _)| refuse(shared, reply, fault.reason, burst)),
    }
}

fn refuse(shared: &Shared, reply: Reply, reason: Unavailable, burst: &mut Burst) {
    shared.stats.gets_unavailable.fetch_add(1, Ordering::Relaxed);
    burst.send(reply, Answer::Unavailable(reason));
}

/// One reader with its connection.
pub(crate) struct Asker {
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    reader: Lazy<Box<dyn Reader>>,
    index: usize,
}

impl Asker {
    fn new(shared: Arc<Shared>, backend: Arc<dyn Backend>, index: usize) -> Self {
        Self { shared, backend, reader: Lazy::new(), index }
    }

    fn ask(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        let started = Instant::now();
        let rows = self.call(|reader| reader.read(digests));
        let stats = &self.shared.stats;
        let answered = rows.as_ref().map_or(0, Vec::len);
        stats.on_call(Op::Get, answered, started.elapsed(), rows.is_err());
        stats.on_state(Op::Get, rows.as_ref().err());
        debug_assert!(rows.as_ref().is_ok_and(|it| it.len() <= digests.len()) || rows.is_err());
        match rows {
            Ok(rows) if rows.is_empty() => {
                Err(Fault::new(Unavailable::Bug, "a read that does not go on"))
            }
            other => other,
        }
    }

    /// Opens early, and while reads fail tries them also when nobody asks.
    fn idle(&mut self) {
        let idle = self.call(|reader| reader.idle());
        self.shared.stats.on_state(Op::Get, idle.err().as_ref());
    }

    fn call<T>(&mut self, f: impl FnOnce(&mut dyn Reader) -> Result<T, Fault>) -> Result<T, Fault> {
        let (backend, index) = (&self.backend, self.index);
        self.reader.call(&self.shared.stats, || backend.reader(index), |reader| f(&mut **reader))
    }
}

/// Look-ups in one statement.
const BATCH_MAX: usize = 128;
/// How often a reader without work looks after its connection.
const IDLE_EVERY: Duration = Duration::from_secs(1);
/// How long a reader without a connection leaves the work to the others before it tries again.
const UNFIT_PAUSE: Duration = Duration::from_millis(50);

/// A look-up on its way to whichever reader is free.
struct Errand {
    digest: Digest,
    reply: Reply,
    masks: Masks,
}

/// Reading threads, fed by one queue.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    errands: Sender<Errand>,
    /// The other end, to answer what no reader will take.
    stranded: Receiver<Errand>,
    desks: Vec<Arc<Desk>>,
    slow: Arc<Slow>,
    /// After this time a look-up is answered without the database.
    patience: Duration,
}

/// What a reader is doing, where the storage thread can see it.
#[derive(Default)]
struct Desk(Mutex<Option<InHand>>);

struct InHand {
    since: Instant,
    /// Empty once they were answered over the reader's head.
    waiting: Vec<(Reply, Masks)>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Option<InHand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn start(
        settings: &Settings,
        shared: &Arc<Shared>,
        backend: &Arc<dyn Backend>,
        alive: &Sender<()>,
    ) -> Result<Self, StartError> {
        let (errands, stranded) = bounded(settings.queue_depth.max(1));
        let (fit, slow) = (Fit::default(), Arc::<Slow>::default());
        let mut desks = Vec::new();
        for index in 0..backend.readers() {
            let desk = Arc::new(Desk::default());
            let worker = Worker {
                asker: Asker::new(Arc::clone(shared), Arc::clone(backend), index),
                errands: stranded.clone(),
                desk: Arc::clone(&desk),
                fit: Arc::clone(&fit),
                slow: Arc::clone(&slow),
                is_fit: false,
            };
            let alive = alive.clone();
            spawn(&format!("store-reader-{index}"), move || {
                worker.run();
                drop(alive);
            })?;
            desks.push(desk);
        }
        // A little more than the server's own limit, which gives the better reason.
        let patience = settings.statement_timeout + settings.statement_timeout / 4;
        Ok(Self { shared: Arc::clone(shared), errands, stranded, desks, slow, patience })
    }

    fn pass_on(&self, asked: &mut Vec<(Digest, Reply)>, masks: &Masks, burst: &mut Burst) {
        let hung = self.slow.is_slow() || self.hung();
        for (digest, reply) in asked.drain(..) {
            if hung {
                refuse(&self.shared, reply, Unavailable::Timeout, burst);
                continue;
            }
            match self.errands.try_send(Errand { digest, reply, masks: masks.clone() }) {
                Ok(()) => {}
                Err(TrySendError::Full(errand)) => {
                    refuse(&self.shared, errand.reply, Unavailable::QueueFull, burst);
                }
                Err(TrySendError::Disconnected(errand)) => {
                    refuse(&self.shared, errand.reply, Unavailable::Closed, burst);
                }
            }
        }
    }

    /// Answers what has waited for too long.
    fn look(&self) {
        let mut burst = Burst::default();
        for desk in &self.desks {
            let late = match &mut *desk.lock() {
                Some(it) if it.since.elapsed() > self.patience => std::mem::take(&mut it.waiting),
                Some(_) | None => continue,
            };
            if late.is_empty() {
                continue;
            }
            let fault = Fault::new(Unavailable::Timeout, "no answer to a look-up");
            self.shared.stats.on_state(Op::Get, Some(&fault));
            self.slow.on_late(&fault);
            respond(&self.shared, Err(fault), late.into_iter(), &mut burst);
        }
        while self.hung() {
            let Ok(errand) = self.stranded.try_recv() else { break };
            refuse(&self.shared, errand.reply, Unavailable::Timeout, &mut burst);
        }
    }

    /// Whether no reader can be expected to take anything.
    fn hung(&self) -> bool {
        self.desks
            .iter()
            .all(|desk| desk.lock().as_ref().is_some_and(|it| it.since.elapsed() > self.patience))
    }
}

/// Readers whose connection works, or has not been tried.
type Fit = Arc<AtomicUsize>;

/// A reader of the pool, in its thread.
struct Worker {
    asker: Asker,
    errands: Receiver<Errand>,
    desk: Arc<Desk>,
    fit: Fit,
    slow: Arc<Slow>,
    is_fit: bool,
}

impl Worker {
    fn run(mut self) {
        self.look_after();
        while let Some(first) = self.next() {
            let Some(first) = first else {
                self.look_after();
                continue;
            };
            let mut digests = vec![first.digest];
            let mut waiting = vec![(first.reply, first.masks)];
            for errand in self.errands.try_iter().take(BATCH_MAX - 1) {
                digests.push(errand.digest);
                waiting.push((errand.reply, errand.masks));
            }
            self.answer(&digests, waiting);
        }
    }

    /// The next errand; none inside when it is time to look after the connection, none outside at
    /// the end.
    fn next(&self) -> Option<Option<Errand>> {
        if !self.is_fit && self.fit.load(Ordering::Acquire) > 0 {
            // Others will do it better.
            thread::sleep(UNFIT_PAUSE);
            return Some(None);
        }
        let wait = if self.is_fit && !self.slow.is_slow() { IDLE_EVERY } else { UNFIT_PAUSE };
        match self.errands.recv_timeout(wait) {
            Ok(errand) => Some(Some(errand)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn answer(&mut self, digests: &[Digest], waiting: Vec<(Reply, Masks)>) {
        let shared = Arc::clone(&self.asker.shared);
        if self.slow.is_slow() {
            let fault = Fault::new(Unavailable::Timeout, "look-ups time out at present");
            respond(&shared, Err(fault), waiting.into_iter(), &mut Burst::default());
            self.look_after();
            return;
        }
        if let Some(fault) = self.asker.reader.known_fault() {
            if self.fit.load(Ordering::Acquire) == 0 {
                // Nobody waits for a database that is known to be away.
                respond(&shared, Err(fault), waiting.into_iter(), &mut Burst::default());
                self.look_after();
                return;
            }
            // Another reader has reached it in the meantime.
            self.asker.reader.forgive();
        }
        let (mut waiting, mut rest) = (waiting, digests);
        // Empty before its time when it was answered over this reader's head.
        while !waiting.is_empty() {
            *self.desk.lock() = Some(InHand { since: Instant::now(), waiting });
            let rows = self.asker.ask(rest);
            self.note();
            match &rows {
                Ok(_) => self.slow.on_answer(),
                Err(fault) if fault.reason == Unavailable::Timeout => self.slow.on_late(fault),
                Err(_) => {}
            }
            waiting = self.desk.lock().take().map(|it| it.waiting).unwrap_or_default();
            let answered = rows.as_ref().map_or(rest.len(), Vec::len).min(waiting.len());
            respond(&shared, rows, waiting.drain(..answered), &mut Burst::default());
            rest = rest.get(answered..).unwrap_or_default();
        }
    }

    /// Looks after the connection, which may take as long as connecting takes; or, while look-ups
    /// time out, finds out whether they still do.
    fn look_after(&mut self) {
        let probes = self.slow.is_slow();
        if probes && !self.slow.begins_probe() {
            return;
        }
        *self.desk.lock() = Some(InHand { since: Instant::now(), waiting: Vec::new() });
        let result = self.asker.call(|reader| match probes {
            true => reader.read(&[]).map(|_| ()),
            false => reader.idle(),
        });
        *self.desk.lock() = None;
        self.note();
        if probes {
            self.slow.on_probe(result.as_ref().err());
        }
        if result.is_ok() || self.fit.load(Ordering::Acquire) == 0 {
            self.asker.shared.stats.on_state(Op::Get, result.err().as_ref());
        }
    }

    /// Counts itself among the fit, or no longer.
    fn note(&mut self) {
        let is_fit = self.asker.reader.known_fault().is_none();
        match (self.is_fit, is_fit) {
            (false, true) => self.fit.fetch_add(1, Ordering::AcqRel),
            (true, false) => self.fit.fetch_sub(1, Ordering::AcqRel),
            (true, true) | (false, false) => return,
        };
        self.is_fit = is_fit;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.is_fit {
            self.fit.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
