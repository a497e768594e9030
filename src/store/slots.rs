//! Where the answers to a core's commands go: a slot for each command in flight.

use std::task::Waker;
use std::time::Instant;

use crate::store::fault::Unavailable;
use crate::store::mailbox::Answer;

/// Commands in flight of one core, the abandoned ones included.
const SLOTS_MAX: usize = 16_384;

/// The commands of one core that wait for their answers.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots that wait with a limit.
    pub(crate) lookups: usize,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// The waker is there from the first poll on; a look-up waits until some instant.
    Waiting(Option<Waker>, Option<Instant>),
    Ready(Answer),
    /// The time is over; the answer is still to come.
    Late,
    /// The future is gone, the answer is still to come.
    Abandoned,
}

impl Slots {
    pub(crate) fn reserve(&mut self, until: Option<Instant>) -> Option<u32> {
        let token = match self.free.pop() {
            Some(token) => token,
            None if self.slots.len() >= SLOTS_MAX => return None,
            None => {
                self.slots.push(Slot::Free);
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        *self.slot(token)? = Slot::Waiting(None, until);
        self.lookups += usize::from(until.is_some());
        Some(token)
    }

    fn slot(&mut self, token: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(token).ok()?)
    }

    /// Replaces what is in a slot, and returns it.
    fn replace(&mut self, token: u32, new: Slot) -> Slot {
        let Some(slot) = self.slot(token) else { return Slot::Free };
        let old = std::mem::replace(slot, new);
        if let Slot::Waiting(_, Some(_)) = &old {
            self.lookups -= 1;
        }
        old
    }

    /// Nothing was sent, and nothing will come.
    pub(crate) fn free(&mut self, token: u32) {
        let old = self.replace(token, Slot::Free);
        debug_assert!(!matches!(old, Slot::Free), "freed twice");
        self.free.push(token);
    }

    /// Puts an answer into its slot and returns who waits for it.
    pub(crate) fn fill(&mut self, token: u32, answer: Answer) -> Option<Waker> {
        match self.slot(token)? {
            Slot::Waiting(..) => match self.replace(token, Slot::Ready(answer)) {
                Slot::Waiting(waker, _) => waker,
                _ => None,
            },
            // Woken already: it finds the answer after all.
            slot @ Slot::Late => {
                *slot = Slot::Ready(answer);
                None
            }
            Slot::Abandoned => {
                self.free(token);
                None
            }
            Slot::Free | Slot::Ready(_) => {
                debug_assert!(false, "answered twice");
                None
            }
        }
    }

    /// Gives up the look-ups whose time is over, and returns who waits for them. `now` is asked
    /// only where some wait; then this is a pass over all.
    pub(crate) fn take_late(&mut self, now: impl FnOnce() -> Instant) -> Vec<Waker> {
        if self.lookups == 0 {
            return Vec::new();
        }
        let (now, mut wakers) = (now(), Vec::new());
        for slot in &mut self.slots {
            if let Slot::Waiting(waker, Some(until)) = slot
                && *until <= now
            {
                wakers.extend(waker.take());
                *slot = Slot::Late;
                self.lookups -= 1;
            }
        }
        wakers
    }

    /// Takes the answer and frees the slot, or leaves the waker there.
    pub(crate) fn poll(&mut self, token: u32, waker: &Waker) -> Option<Answer> {
        match self.slot(token)? {
            Slot::Ready(_) => {
                let taken = self.replace(token, Slot::Free);
                self.free.push(token);
                match taken {
                    Slot::Ready(answer) => Some(answer),
                    _ => None,
                }
            }
            Slot::Waiting(known, _) => {
                if !known.as_ref().is_some_and(|it| it.will_wake(waker)) {
                    *known = Some(waker.clone());
                }
                None
            }
            slot @ Slot::Late => {
                *slot = Slot::Abandoned;
                Some(Answer::Unavailable(Unavailable::Timeout))
            }
            Slot::Free | Slot::Abandoned => {
                debug_assert!(false, "polled a slot that is not the caller's");
                None
            }
        }
    }

    pub(crate) fn abandon(&mut self, token: u32) {
        match self.slot(token) {
            Some(Slot::Ready(_)) => self.free(token),
            Some(_) => drop(self.replace(token, Slot::Abandoned)),
            None => {}
        }
    }
}
