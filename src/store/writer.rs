//! The writer thread: group commits, purges, the janitor's sweeps and upkeep.
//!
//! A group is what is queued or comes within 10 ms, at most 100 rows and 8 MiB, in one transaction;
//! purges that stand one behind the other are one too. Sweeps go step by
//! step between groups. A purge that fails is *owed*: nothing is written past it until it is done,
//! so that no row that it should have removed can come back, and the storage thread goes on hiding
//! what it selects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use hashbrown::HashSet;

use crate::base::Wall;
use crate::store::backend::{Backend, GROUP_ROWS_MAX, Step, Upkeep, Writer, Written};
use crate::store::clock;
use crate::store::fault::Fault;
use crate::store::mailbox::{Answer, Reply};
use crate::store::owed::Owed;
use crate::store::retry::Lazy;
use crate::store::row::{Purge, Row};
use crate::store::shared::{Epoch, OnRemotePurge, Shared, Ticket, WriteOp};
use crate::store::stats::{Op, Usage};

/// Bytes after which a group is closed: a larger one blocks the file for longer and saves nothing.
const GROUP_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long a group waits for more rows, which are found meanwhile as queued ones are. A commit
/// writes a page for each index that it touches: at 1,000 puts a second this makes it a third.
const LINGER: Duration = Duration::from_millis(10);
/// Purges in one commit.
const GROUP_PURGES_MAX: usize = 64;
/// How often upkeep runs: bounds the delay of purges of other instances.
const UPKEEP_EVERY: Duration = Duration::from_millis(200);
/// How often the gauges of rows and bytes are refreshed.
const USAGE_EVERY: Duration = Duration::from_secs(10);
/// How often it is tried whether puts work again, and with how much at most.
const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_BYTES_MAX: u64 = 256 * 1024;
/// Times a group is put again because other instances purged meanwhile.
const BEHIND_MAX: usize = 5;

/// The writer thread's state.
pub(crate) struct WriterThread {
    shared: Arc<Shared>,
    ops: Receiver<WriteOp>,
    /// Taken from the channel while a group was collected, to be done next.
    next: Option<WriteOp>,
    backend: Arc<dyn Backend>,
    writer: Lazy<Box<dyn Writer>>,
    on_remote: Option<OnRemotePurge>,
    sweeps: VecDeque<Sweep>,
    owed: Owed,
    /// Purges of other instances that may concern puts still in the channel.
    masks: Vec<(u64, Purge)>,
    /// The last operation that was written or given up.
    finished: u64,
    upkeep_due: Instant,
    usage_due: Instant,
    more_upkeep: bool,
    /// Bytes of the largest group that was not written since puts fail.
    refused_bytes: u64,
    probe_due: Instant,
}

struct Sweep {
    now: Wall,
    reply: Reply,
    rows: u64,
}

struct Put {
    row: Arc<Row>,
    seq: u64,
    /// Until it is written or given up.
    _ticket: Ticket,
}

/// A group in the making.
#[derive(Default)]
struct Group {
    puts: Vec<Put>,
    bytes: u64,
}

/// A purge and who waits for it.
struct Order {
    purge: Purge,
    seq: u64,
    reply: Reply,
}

impl Order {
    /// Whether both may be done in one call.
    fn goes_with(&self, other: &Self) -> bool {
        let alone = |it: &Purge| it.selection.is_everything();
        self.purge.effect == other.purge.effect && !alone(&self.purge) && !alone(&other.purge)
    }

    fn into_op(self) -> WriteOp {
        WriteOp::Purge { purge: self.purge, seq: self.seq, reply: self.reply }
    }
}

impl WriterThread {
    pub(crate) fn new(
        shared: Arc<Shared>,
        ops: Receiver<WriteOp>,
        backend: Arc<dyn Backend>,
        on_remote: Option<OnRemotePurge>,
    ) -> Self {
        let now = Instant::now();
        Self {
            owed: Owed::new(Arc::clone(&shared)),
            shared,
            ops,
            next: None,
            backend,
            writer: Lazy::new(),
            on_remote,
            sweeps: VecDeque::new(),
            masks: Vec::new(),
            finished: 0,
            upkeep_due: now,
            usage_due: now,
            more_upkeep: false,
            refused_bytes: 0,
            probe_due: now,
        }
    }

    /// Runs until the storage thread has ended and everything that it sent is done.
    pub(crate) fn run(mut self) {
        loop {
            self.background();
            let wait = if self.busy() { Duration::ZERO } else { self.until_upkeep() };
            let op = match self.next.take() {
                Some(op) => Ok(op),
                None => self.ops.recv_timeout(wait),
            };
            match op {
                Ok(op) => self.on_op(op),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.publish();
        }
        // Once more, with or without back-off: the last chance of what is owed.
        self.pay();
        self.publish();
        self.owed.on_end();
    }

    fn busy(&self) -> bool {
        self.more_upkeep || !self.sweeps.is_empty()
    }

    fn until_upkeep(&self) -> Duration {
        self.upkeep_due.saturating_duration_since(Instant::now())
    }

    fn on_op(&mut self, op: WriteOp) {
        match op {
            WriteOp::Put { row, epoch, seq, ticket } => {
                let mut group = Group::default();
                self.add(&mut group, Put { row, seq, _ticket: ticket }, epoch);
                self.fill(&mut group);
                self.put(group.puts);
            }
            WriteOp::Purge { purge, seq, reply } => {
                self.purge_with_followers(Order { purge, seq, reply });
            }
            WriteOp::Sweep { now, reply } => self.sweeps.push_back(Sweep { now, reply, rows: 0 }),
            WriteOp::Usage { reply } => match self.usage() {
                Ok(usage) => reply.send(Answer::Usage(usage)),
                Err(fault) => reply.send(Answer::Unavailable(fault.reason)),
            },
            WriteOp::Flush { reply } => {
                self.publish();
                reply.send(Answer::Done(0));
            }
        }
    }

    /// Completes a group with what is in the channel or comes soon, up to the next other operation.
    fn fill(&mut self, group: &mut Group) {
        let until = Instant::now() + LINGER;
        while group.puts.len() < GROUP_ROWS_MAX && group.bytes < GROUP_BYTES_MAX {
            let left = until.saturating_duration_since(Instant::now());
            match self.ops.recv_timeout(left) {
                Ok(WriteOp::Put { row, epoch, seq, ticket }) => {
                    self.add(group, Put { row, seq, _ticket: ticket }, epoch);
                }
                Ok(other) => {
                    self.next = Some(other);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn add(&mut self, group: &mut Group, put: Put, epoch: Epoch) {
        self.finished = put.seq;
        if epoch < self.shared.epoch() || self.is_masked(&put.row, put.seq) {
            self.shared.stats.puts_overtaken.fetch_add(1, Ordering::Relaxed);
            return;
        }
        group.bytes += put.row.size_bytes();
        group.puts.push(put);
    }

    fn is_masked(&self, row: &Row, seq: u64) -> bool {
        self.masks.iter().any(|(upto, it)| seq <= *upto && it.selects(&row.digest, &row.path))
    }

    fn put(&mut self, mut group: Vec<Put>) {
        keep_last(&mut group);
        if !self.owed.is_empty() {
            return self.on_puts_failed(group.len());
        }
        for _ in 0..BEHIND_MAX {
            if group.is_empty() {
                return;
            }
            let rows: Vec<Arc<Row>> = group.iter().map(|it| Arc::clone(&it.row)).collect();
            let put = self.counted(Op::Put, |writer| {
                let written = writer.put(&rows)?;
                Ok((written, if written == Written::All { rows.len() } else { 0 }))
            });
            let bytes = rows.iter().map(|it| it.size_bytes()).sum();
            match put {
                Ok(Written::All) => return self.on_written(bytes),
                Ok(Written::Behind) => {
                    self.upkeep();
                    let before = group.len();
                    group.retain(|it| !self.is_masked(&it.row, it.seq));
                    let gone = u64::try_from(before - group.len()).unwrap_or(0);
                    self.shared.stats.puts_overtaken.fetch_add(gone, Ordering::Relaxed);
                }
                Err(_) => {
                    self.refused_bytes = self.refused_bytes.max(bytes);
                    break;
                }
            }
        }
        self.on_puts_failed(group.len());
    }

    fn on_puts_failed(&self, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(0);
        self.shared.stats.puts_failed.fetch_add(rows, Ordering::Relaxed);
    }

    /// Collects the purges that follow at once: one commit, which has to reach the disk, for all.
    fn purge_with_followers(&mut self, first: Order) {
        let mut orders = vec![first];
        while orders.len() < GROUP_PURGES_MAX && self.next.is_none() {
            match self.ops.try_recv() {
                Ok(WriteOp::Purge { purge, seq, reply }) => {
                    let order = Order { purge, seq, reply };
                    if orders.first().is_some_and(|it| order.goes_with(it)) {
                        orders.push(order);
                    } else {
                        self.next = Some(order.into_op());
                    }
                }
                Ok(other) => self.next = Some(other),
                Err(_) => break,
            }
        }
        self.purge(orders);
    }

    fn purge(&mut self, orders: Vec<Order>) {
        self.finished = orders.last().map_or(self.finished, |it| it.seq);
        let purges: Vec<Purge> = orders.iter().map(|it| it.purge.clone()).collect();
        // A clear does what is owed too, and may be possible where that is not.
        let first = if purges == [Purge::CLEAR] { self.owed.give_way() } else { None };
        let done = match self.owed.is_empty() {
            true => self.purge_all_steps(&purges),
            false => Err(self.owed.fault()),
        };
        match done {
            Ok(rows) => {
                self.publish();
                for (order, rows) in orders.into_iter().zip(rows) {
                    order.reply.send(Answer::Done(rows));
                }
            }
            Err(fault) => {
                for Order { purge, seq, .. } in &orders {
                    self.owed.owe(purge.clone(), first.unwrap_or(*seq), &fault);
                }
                self.publish();
                for order in orders {
                    order.reply.send(Answer::Unavailable(fault.reason));
                }
            }
        }
    }

    /// Rows concerned, by purge.
    fn purge_all_steps(&mut self, purges: &[Purge]) -> Result<Vec<u64>, Fault> {
        let now = clock::wall();
        let mut rows = vec![0; purges.len()];
        let mut steps = 0;
        loop {
            // Each purge counts once, with the first step.
            let items = if steps == 0 { purges.len() } else { 0 };
            let purged = self.counted(Op::Purge, |it| Ok((it.purge(purges, now)?, items)))?;
            rows.iter_mut().zip(purged.rows).for_each(|(sum, part)| *sum += part);
            if rows.iter().any(|it| *it > 0) {
                self.on_written(0);
            }
            if !purged.more {
                return Ok(rows);
            }
            steps += 1;
        }
    }

    /// Applies owed purges until one fails again.
    fn pay(&mut self) {
        while let Some(purge) = self.owed.first() {
            match self.purge_all_steps(&[purge]) {
                Ok(_) => self.owed.on_paid(),
                Err(fault) => return self.owed.on_failed(&fault),
            }
        }
    }

    /// Tells the storage thread what is finished: of the purges none at or after an owed one.
    fn publish(&self) {
        let done = self.owed.done_upto(self.finished);
        self.shared.puts_finished.store(self.finished, Ordering::Release);
        self.shared.purges.on_done(done, !self.owed.is_empty());
        if !self.shared.purges.are_untaken() {
            self.shared.note.settle(done);
        }
    }

    fn background(&mut self) {
        if self.owed.is_due() {
            self.pay();
            self.publish();
        }
        let now = Instant::now();
        if self.more_upkeep || now >= self.upkeep_due {
            self.upkeep();
        }
        if now >= self.usage_due {
            self.usage_due = now + USAGE_EVERY;
            drop(self.usage());
            if self.shared.note.inherit() {
                // Of an instance that has ended since this one began.
                self.shared.lose_purge();
            }
        }
        if let Some(mut sweep) = self.sweeps.pop_front() {
            match self.sweep_step(sweep.now) {
                Ok(step) if step.more => {
                    sweep.rows += step.rows;
                    self.sweeps.push_front(sweep);
                }
                Ok(step) => sweep.reply.send(Answer::Done(sweep.rows + step.rows)),
                Err(fault) => sweep.reply.send(Answer::Unavailable(fault.reason)),
            }
        }
    }

    fn sweep_step(&mut self, now: Wall) -> Result<Step, Fault> {
        let step = self.counted(Op::Sweep, |writer| {
            let step = writer.sweep(now)?;
            Ok((step, usize::try_from(step.rows).unwrap_or(usize::MAX)))
        })?;
        self.shared.stats.rows_swept.fetch_add(step.rows, Ordering::Relaxed);
        Ok(step)
    }

    fn upkeep(&mut self) {
        self.upkeep_due = Instant::now() + UPKEEP_EVERY;
        let result = self.call(|writer| writer.upkeep());
        if result.is_ok() {
            self.probe();
        }
        let Upkeep { more, remote } = result.unwrap_or_default();
        self.more_upkeep = more;
        self.on_remote(remote);
    }

    /// Other instances purged: what was put here before they did must not be stored.
    fn on_remote(&mut self, purges: Vec<Purge>) {
        self.masks.retain(|(upto, _)| *upto > self.finished);
        for purge in purges {
            self.shared.stats.remote_purges.fetch_add(1, Ordering::Relaxed);
            if purge == Purge::CLEAR {
                self.shared.epoch.fetch_add(1, Ordering::AcqRel);
            }
            let upto = self.shared.issued.load(Ordering::Acquire);
            self.masks.push((upto, purge.clone()));
            self.shared.remote.push((upto, purge.clone()));
            if let Some(on_remote) = &self.on_remote {
                on_remote(&purge);
            }
        }
    }

    fn usage(&mut self) -> Result<Usage, Fault> {
        let usage = self.call(|writer| writer.usage())?;
        self.shared.stats.rows.store(usage.rows, Ordering::Relaxed);
        self.shared.stats.bytes.store(usage.bytes, Ordering::Relaxed);
        Ok(usage)
    }

    /// Calls the backend, and notes if it does not work. That it does, only a write can tell.
    fn call<T>(&mut self, f: impl FnOnce(&mut dyn Writer) -> Result<T, Fault>) -> Result<T, Fault> {
        let (backend, stats) = (&self.backend, &self.shared.stats);
        let result = self.writer.call(stats, || backend.writer(), |writer| f(&mut **writer));
        if let Err(fault) = &result {
            stats.on_state(Op::Put, Some(fault));
        }
        result
    }

    /// Calls the backend, and counts the call with its time and the items that `f` tells.
    fn counted<T>(
        &mut self,
        op: Op,
        f: impl FnOnce(&mut dyn Writer) -> Result<(T, usize), Fault>,
    ) -> Result<T, Fault> {
        let started = Instant::now();
        let result = self.call(f);
        let items = result.as_ref().map_or(0, |it| it.1);
        self.shared.stats.on_call(op, items, started.elapsed(), result.is_err());
        result.map(|it| it.0)
    }

    /// So many bytes were written. On a full disk a little more may find room where more did not.
    fn on_written(&mut self, bytes: u64) {
        if bytes >= self.refused_bytes {
            self.refused_bytes = 0;
            self.shared.stats.on_state(Op::Put, None);
        }
    }

    /// Finds out whether puts work again, where nothing else does.
    fn probe(&mut self) {
        let now = Instant::now();
        let fails = self.shared.stats.writes_unavailable().is_some();
        if !fails || !self.owed.is_empty() || now < self.probe_due {
            return;
        }
        let bytes = self.refused_bytes.min(PROBE_BYTES_MAX);
        let size = usize::try_from(bytes).unwrap_or(0);
        if self.call(|writer| writer.probe(size)).is_ok() {
            self.on_written(u64::MAX);
        }
        self.probe_due = Instant::now() + PROBE_EVERY;
    }
}

/// Of several puts of one row only the last counts.
fn keep_last(group: &mut Vec<Put>) {
    let mut seen = HashSet::with_capacity(group.len());
    group.reverse();
    group.retain(|it| seen.insert(it.row.digest));
    group.reverse();
}
