//! The storage thread: drains the queue in batches, answers look-ups, feeds the writer.
//!
//! ```text
//!  cores --data----> +---------+ --WriteOp--> writer ----> backend
//!  cores --control-> | storage | <--written number--
//!  cores <--mailbox- +---------+ --batch----> reads.rs --> backend
//! ```
//!
//! It never waits for the writer: a checkpoint or a slow disk must not stall a look-up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use crossbeam::select;

use crate::store::clock;
use crate::store::fault::Unavailable;
use crate::store::mailbox::{Answer, Burst, Reply};
use crate::store::pending::Pending;
use crate::store::reads::Reads;
use crate::store::row::{Digest, Purge, Row};
use crate::store::shared::{Command, Control, Shared, WriteOp};

/// Commands taken from the queue before look-ups are answered: bounds the wait of the first.
const BATCH_MAX: usize = 256;
/// At least so often the thread goes round, for its heartbeat and idle connections.
const TICK: Duration = Duration::from_millis(250);

/// The storage thread's state.
pub(crate) struct Storage {
    shared: Arc<Shared>,
    data: Receiver<Command>,
    control: Receiver<Control>,
    writer: Sender<WriteOp>,
    pending: Pending,
    reads: Reads,
    /// Puts of this batch; handed on after its look-ups are answered.
    outgoing: Vec<WriteOp>,
}

impl Storage {
    pub(crate) fn new(
        shared: Arc<Shared>,
        data: Receiver<Command>,
        control: Receiver<Control>,
        writer: Sender<WriteOp>,
        reads: Reads,
    ) -> Self {
        let pending = Pending::default();
        Self { shared, data, control, writer, pending, reads, outgoing: Vec::new() }
    }

    /// Runs until [`Control::Stop`] or until nobody can send any more.
    pub(crate) fn run(mut self) {
        self.reads.idle();
        loop {
            self.shared.stats.beat();
            self.make_up_for_lost_purge();
            let (first, control) = match self.wait() {
                Woken::Data(command) => (Some(command), None),
                Woken::Control(control) => (None, Some(control)),
                Woken::Idle => {
                    self.on_idle();
                    continue;
                }
                Woken::Closed => break,
            };
            // All that was sent before the order stands in the data queue by now.
            let limit = if control.is_some() { usize::MAX } else { BATCH_MAX };
            self.batch(first, limit);
            match control {
                Some(Control::Stop) => break,
                Some(control) => {
                    let is_purge = matches!(control, Control::Purge { .. });
                    self.order(control);
                    if is_purge {
                        self.shared.purges.on_taken();
                    }
                }
                None => {}
            }
        }
        self.close();
    }

    fn wait(&self) -> Woken {
        select! {
            recv(self.control) -> control => control.map_or(Woken::Closed, Woken::Control),
            recv(self.data) -> command => command.map_or(Woken::Closed, Woken::Data),
            default(TICK) => Woken::Idle,
        }
    }

    /// Takes what is queued at this moment, at most `limit` commands, and answers its look-ups.
    fn batch(&mut self, first: Option<Command>, limit: usize) {
        let queued = self.data.len();
        self.catch_up();
        let mut burst = Burst::default();
        let mut asked = Vec::new();
        if let Some(command) = first {
            self.take(command, &mut burst, &mut asked);
        }
        let mut left = queued.min(limit);
        while left > 0 {
            let Ok(command) = self.data.try_recv() else { break };
            self.take(command, &mut burst, &mut asked);
            left -= 1;
            if asked.len() >= BATCH_MAX {
                self.reads.answer(&mut asked, self.pending.masks(), &mut burst);
            }
        }
        self.reads.answer(&mut asked, self.pending.masks(), &mut burst);
        drop(burst);
        self.hand_on();
    }

    fn hand_on(&mut self) {
        for op in self.outgoing.drain(..) {
            // The writer outlives this thread unless it was killed by a second panic.
            drop(self.writer.send(op));
        }
    }

    /// Learns what the writer has done since.
    fn catch_up(&mut self) {
        self.pending.on_puts_finished(self.shared.puts_finished.load(Ordering::Acquire));
        self.pending.on_purges_done(self.shared.purges.done());
        while let Some((upto, purge)) = self.shared.remote.pop() {
            self.pending.on_remote_purge(&purge, upto, clock::wall());
        }
    }

    fn take(&mut self, command: Command, burst: &mut Burst, asked: &mut Vec<(Digest, Reply)>) {
        match command {
            Command::Get { digest, reply } => {
                if let Some(row) = self.pending.row(&digest, self.shared.epoch()) {
                    self.shared.stats.hits.fetch_add(1, Ordering::Relaxed);
                    burst.send(reply, Answer::Hit(Row::clone(row)));
                } else {
                    asked.push((digest, reply));
                }
            }
            Command::Put { row, epoch, ticket } => {
                if epoch < self.shared.epoch() {
                    self.shared.stats.puts_overtaken.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                let seq = self.issue();
                self.pending.on_put(Arc::clone(&row), epoch, seq);
                self.outgoing.push(WriteOp::Put { row, epoch, seq, ticket });
            }
        }
    }

    fn order(&mut self, control: Control) {
        let op = match control {
            Control::Purge { purge, reply } => {
                let seq = self.issue();
                self.shared.purges.on_issued(seq);
                self.pending.on_purge(purge.clone(), seq, clock::wall());
                let reply = self.reply_if_owed(&purge, reply);
                WriteOp::Purge { purge, seq, reply }
            }
            Control::Sweep { now, reply } => WriteOp::Sweep { now, reply },
            Control::Usage { reply } => WriteOp::Usage { reply },
            Control::Flush { reply } => WriteOp::Flush { reply },
            Control::Stop => return,
        };
        self.outgoing.push(op);
        self.hand_on();
    }

    /// Behind purges that are owed, one is owed too: nobody waits for the writer to say so, which
    /// may be trying the first of them at this moment. A clear takes the place of them all.
    fn reply_if_owed(&self, purge: &Purge, reply: Reply) -> Reply {
        if *purge == Purge::CLEAR || !self.shared.purges.are_owed() {
            return reply;
        }
        reply.send(Answer::Unavailable(self.shared.why_owed()));
        Reply::nobody()
    }

    fn make_up_for_lost_purge(&mut self) {
        if self.shared.purges.take_lost() {
            tracing::warn!("purges were lost: everything stored is purged in their place");
            self.batch(None, usize::MAX);
            self.order(Control::Purge { purge: Purge::CLEAR, reply: Reply::nobody() });
            self.shared.note.adopt(self.shared.purges.issued());
        }
    }

    fn issue(&self) -> u64 {
        self.shared.issued.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn on_idle(&mut self) {
        self.catch_up();
        self.reads.idle();
    }

    /// Hands on what was queued before the end; what comes later is refused.
    fn close(&mut self) {
        self.batch(None, usize::MAX);
        let mut burst = Burst::default();
        loop {
            match self.control.try_recv() {
                Ok(
                    Control::Purge { reply, .. }
                    | Control::Sweep { reply, .. }
                    | Control::Usage { reply }
                    | Control::Flush { reply },
                ) => burst.send(reply, Answer::Unavailable(Unavailable::Closed)),
                Ok(Control::Stop) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }
}

enum Woken {
    Data(Command),
    Control(Control),
    Idle,
    Closed,
}
