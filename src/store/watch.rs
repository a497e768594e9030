//! The watching thread: it sees to it that nobody waits for another storage thread that hangs.
//!
//! A disk that does not answer holds a thread in a system call, and with it everything that waits
//! for that thread. This one does nothing that can hang: several times a second it wakes cores
//! whose look-ups wait, which give up the late ones (`client.rs`), and has purges noted that take
//! long (`note.rs`), by a thread for that alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::store::handle::spawn;
use crate::store::shared::Shared;

/// How often it looks: the most by which a look-up is given up late.
const TICK: Duration = Duration::from_millis(250);
/// A purge that is not done by then is noted as owed: before whoever waits for it gives up.
const NOTE_AFTER: Duration = Duration::from_secs(1);
/// After a note that could not be made.
const NOTE_PAUSE: Duration = Duration::from_secs(60);

/// The thread's state.
pub(crate) struct Watch {
    /// Not kept alive: its end is that of the handles and the other threads.
    shared: Weak<Shared>,
    /// Disconnected when the last handle is gone.
    handles: Receiver<()>,
    /// The oldest purge that is not done, as far as it is known, and since when.
    oldest: Option<(u64, Instant)>,
    noting: Arc<AtomicBool>,
    note_due: Instant,
}

impl Watch {
    pub(crate) fn new(shared: &Arc<Shared>, handles: Receiver<()>) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            handles,
            oldest: None,
            noting: Arc::default(),
            note_due: Instant::now(),
        }
    }

    pub(crate) fn run(mut self) {
        while self.handles.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let Some(shared) = self.shared.upgrade() else { return };
            shared.wake_waiting();
            self.note_late_purge(&shared);
        }
    }

    fn note_late_purge(&mut self, shared: &Arc<Shared>) {
        let now = Instant::now();
        // Whatever is done moves one of them.
        let progress = shared.purges.taken().wrapping_add(shared.purges.done());
        if !shared.purges.may_be_owed() {
            self.oldest = None;
        } else if self.oldest.is_none_or(|(then, _)| then != progress) {
            self.oldest = Some((progress, now));
        }
        let late = self.oldest.is_some_and(|(_, since)| now.duration_since(since) > NOTE_AFTER);
        if !late || now < self.note_due || self.noting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (ours, noting) = (Arc::clone(shared), Arc::clone(&self.noting));
        let spawned = spawn("store-note", move || {
            // All that were ordered by now: those behind it wait as long.
            if let Err(error) = ours.note.make(ours.purges.issued()) {
                tracing::error!(%error, "a purge that takes long can't be noted");
                std::thread::sleep(NOTE_PAUSE);
            }
            noting.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            self.noting.store(false, Ordering::Release);
            self.note_due = now + NOTE_PAUSE;
        }
    }
}
