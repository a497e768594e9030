//! The deadlines of one core's connections, without a timer for each.
//!
//! A connection notes in two cells what it is doing and until when; with each tick of the core
//! ([`ticks`]) all of them are looked at, and what is overdue is ended. A request thus pays two
//! stores instead of a timer's insertion and removal, and 10,000 idle connections cost one scan of
//! a small vector every quarter second.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};

use crate::net::{Stream, ticks};

/// What a connection is waiting for on its receiving side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests, a read with a buffer under way: the fastest, for a short while.
    Fresh,
    /// Between requests, without a buffer.
    Parked,
    /// The rest of a request's head.
    Head,
    /// More of a request's body.
    Body,
    /// Nothing: an exchange runs, its own deadlines hold.
    Quiet,
}

/// How a connection has used its last wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Its first request has not come yet.
    New,
    /// Its next request did not come soon, or there has been none.
    Slow,
    /// Its next request came within a tick.
    Busy,
}

/// A connection as its watcher sees it.
pub struct Watched {
    /// The socket.
    pub stream: Stream,
    phase: Cell<Phase>,
    /// Of the phase, in ticks of the watch.
    deadline: Cell<u64>,
    /// Of the write under way, in ticks; apart from the phase, since both sides may be busy.
    write_deadline: Cell<u64>,
    /// Bytes sent when the current write was last seen to make progress.
    sent_mark: Cell<u64>,
    expired: Cell<bool>,
    canceller: RefCell<Canceller>,
}

/// All connections of a core.
pub struct Watch {
    watched: RefCell<Vec<Option<Rc<Watched>>>>,
    free: RefCell<Vec<usize>>,
    draining: Cell<bool>,
    /// Connections in [`Phase::Fresh`]: each holds a buffer.
    fresh: Cell<usize>,
    ticks: Ticks,
}

/// The spans in ticks, divided once: a phase is entered several times for each request.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    fresh: u64,
    parked: u64,
    read: u64,
    write: u64,
}

/// How long each phase may last.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// `server.read_timeout`.
    pub read: Duration,
    /// `server.write_timeout`.
    pub write: Duration,
    /// `server.idle_timeout`.
    pub idle: Duration,
}

/// A connection's place in the watch; leaves it when dropped.
pub struct Place {
    watch: Rc<Watch>,
    index: usize,
    watched: Rc<Watched>,
}

impl Watch {
    /// An empty watch.
    #[must_use]
    pub fn new(spans: Spans) -> Rc<Self> {
        Rc::new(Self {
            watched: RefCell::default(),
            free: RefCell::default(),
            draining: Cell::new(false),
            fresh: Cell::new(0),
            ticks: Ticks {
                fresh: ticks::of(FRESH_SPAN.min(spans.idle)),
                // The fresh span has passed by then.
                parked: ticks::of(spans.idle.saturating_sub(FRESH_SPAN)),
                read: ticks::of(spans.read),
                write: ticks::of(spans.write),
            },
        })
    }

    /// Puts a connection under watch.
    #[must_use]
    pub fn enter(self: &Rc<Self>, stream: Stream) -> Place {
        let watched = Rc::new(Watched {
            stream,
            phase: Cell::new(Phase::Quiet),
            deadline: Cell::new(u64::MAX),
            write_deadline: Cell::new(u64::MAX),
            sent_mark: Cell::new(0),
            expired: Cell::new(false),
            canceller: RefCell::new(Canceller::new()),
        });
        let mut all = self.watched.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => index,
            None => {
                all.push(None);
                all.len() - 1
            }
        };
        all[index] = Some(Rc::clone(&watched));
        Place { watch: Rc::clone(self), index, watched }
    }

    /// Connections under watch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watched.borrow().len() - self.free.borrow().len()
    }

    /// Whether no connection is under watch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the process is going down: answers say `Connection: close`.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether so many connections hold a buffer while they wait that the next one should park at
    /// once: what idle connections cost must not depend on how many had a request lately.
    #[must_use]
    pub fn is_crowded_for(&self, pace: Pace) -> bool {
        let max = match pace {
            Pace::Busy => FRESH_BUSY_MAX,
            Pace::New | Pace::Slow => FRESH_MAX,
        };
        self.fresh.get() >= max
    }

    /// Starts to drain: what waits between requests is closed now, the rest after its answer.
    pub fn drain(&self) {
        self.draining.set(true);
        for watched in self.watched.borrow().iter().flatten() {
            if matches!(watched.phase.get(), Phase::Fresh | Phase::Parked) {
                watched.expired.set(true);
                watched.wake();
            }
        }
    }

    /// Ends every connection at once.
    pub fn abort(&self) {
        for watched in self.watched.borrow().iter().flatten() {
            watched.stream.shutdown_both();
        }
    }

    /// Ends what is overdue. To be called with each tick of the core.
    pub fn on_tick(&self) {
        let now = ticks::now();
        for watched in self.watched.borrow().iter().flatten() {
            if watched.deadline.get() <= now {
                watched.on_deadline();
            }
            if watched.write_deadline.get() <= now {
                watched.on_write_deadline(now, self);
            }
        }
    }
}

impl AsRef<Stream> for Watched {
    fn as_ref(&self) -> &Stream {
        &self.stream
    }
}

impl Watched {
    /// Whether a deadline ended the last operation.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// For a read that the watch may cancel.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.canceller.borrow().handle()
    }

    fn on_deadline(&self) {
        self.deadline.set(u64::MAX);
        match self.phase.get() {
            // Gives its buffer back and parks: not an end.
            Phase::Fresh => self.cancel(),
            Phase::Parked | Phase::Head | Phase::Body => {
                self.expired.set(true);
                self.wake();
            }
            Phase::Quiet => {}
        }
    }

    fn on_write_deadline(&self, now: u64, watch: &Watch) {
        let sent = self.stream.bytes_sent();
        if sent > self.sent_mark.replace(sent) {
            self.write_deadline.set(now.saturating_add(watch.ticks.write));
        } else {
            self.write_deadline.set(u64::MAX);
            self.expired.set(true);
            self.stream.shutdown_both();
        }
    }

    /// Lets go of what earlier reads needed to be cancellable; none may be under way.
    pub fn forget_reads(&self) {
        self.canceller.replace(Canceller::new());
    }

    /// Ends the read under way, if there is one, with `ECANCELED`; loses nothing.
    pub fn cancel_read(&self) {
        self.cancel();
    }

    fn wake(&self) {
        if self.phase.get() == Phase::Parked {
            self.stream.shutdown_both();
        } else {
            self.cancel();
        }
    }

    fn cancel(&self) {
        let canceller = self.canceller.take();
        self.canceller.replace(canceller.cancel());
    }
}

impl Place {
    /// The connection.
    #[must_use]
    pub const fn watched(&self) -> &Rc<Watched> {
        &self.watched
    }

    /// The watch it is in.
    #[must_use]
    pub const fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// Notes what begins now; the phase's time starts.
    pub fn enter(&self, phase: Phase) {
        let ticks = &self.watch.ticks;
        let span = match phase {
            Phase::Fresh => ticks.fresh,
            Phase::Parked => ticks.parked,
            Phase::Head | Phase::Body => ticks.read,
            Phase::Quiet => u64::MAX,
        };
        let deadline = ticks::now().saturating_add(span);
        self.count(self.watched.phase.replace(phase), phase);
        self.watched.deadline.set(deadline);
    }

    fn count(&self, before: Phase, after: Phase) {
        let fresh = &self.watch.fresh;
        match (before, after) {
            (Phase::Fresh, Phase::Fresh) => {}
            (Phase::Fresh, _) => fresh.set(fresh.get() - 1),
            (_, Phase::Fresh) => fresh.set(fresh.get() + 1),
            _ => {}
        }
    }

    /// Begins anew after a deadline that was answered.
    pub fn renew(&self, phase: Phase) {
        self.watched.expired.set(false);
        self.enter(phase);
    }

    /// Notes that a write begins.
    pub fn write_begins(&self) {
        self.watched.sent_mark.set(self.watched.stream.bytes_sent());
        let deadline = ticks::now().saturating_add(self.watch.ticks.write);
        self.watched.write_deadline.set(deadline);
    }

    /// Notes that it has ended.
    pub fn write_ended(&self) {
        self.watched.write_deadline.set(u64::MAX);
    }

    /// Notes what goes on, without starting its time anew (the rest of a head).
    pub fn stay(&self, phase: Phase) {
        if self.watched.phase.get() != phase {
            self.enter(phase);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count(self.watched.phase.get(), Phase::Quiet);
        self.watch.watched.borrow_mut()[self.index] = None;
        self.watch.free.borrow_mut().push(self.index);
    }
}

/// Connections of a core that may wait with a buffer at the same time: half a MiB of buffers.
const FRESH_MAX: usize = 128;
/// The same for those that were soon back last time: 20 MiB of buffers and state for connections
/// that use it. Beyond it, a request costs one more operation.
const FRESH_BUSY_MAX: usize = 4096;

/// How long a connection keeps its buffer after an answer, waiting for the next request.
const FRESH_SPAN: Duration = Duration::from_millis(1_000);
