//! Which protocol an upstream speaks to this core, and the one dialling that finds out.
//!
//! While it is not known, or HTTP/2 has no connection, one request dials and the others wait for
//! what it finds: a burst on a cold core opens one connection that all share, not one each. A
//! failure is told to all who waited for that attempt; whoever comes later tries anew.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::proxy::error::Fault;
use crate::proxy::origin::multiplexed::Multiplexed;

/// What a core knows of an upstream's protocol.
#[derive(Default)]
pub struct Opening {
    /// The origin did not choose HTTP/2 when it was last asked.
    is_http1: Cell<bool>,
    shared: RefCell<Option<Rc<Multiplexed>>>,
    attempt: RefCell<Option<Rc<Attempt>>>,
}

/// One dialling that others wait for.
#[derive(Default)]
struct Attempt {
    outcome: Cell<Option<Result<(), Fault>>>,
    waiting: RefCell<Vec<Waker>>,
}

/// How a request gets at its connection.
pub enum Way<'o> {
    /// On the connection that there is.
    Shared(Rc<Multiplexed>),
    /// Each on one of its own.
    Http1,
    /// It dials, for all who wait.
    Dial(Dialling<'o>),
    /// Somebody dials: wait, then ask again.
    Wait(Waiting),
}

/// The duty to dial. Dropped without a word, it tells that it was given up.
pub struct Dialling<'o> {
    opening: &'o Opening,
    attempt: Rc<Attempt>,
}

/// Waits for somebody else's dialling.
pub struct Waiting(Rc<Attempt>);

impl Opening {
    /// How to get at a connection.
    pub fn way(&self) -> Way<'_> {
        if let Some(shared) = self.shared() {
            return Way::Shared(shared);
        }
        if self.is_http1.get() {
            return Way::Http1;
        }
        let mut attempt = self.attempt.borrow_mut();
        match &*attempt {
            Some(attempt) => Way::Wait(Waiting(Rc::clone(attempt))),
            None => {
                let begun = Rc::<Attempt>::default();
                *attempt = Some(Rc::clone(&begun));
                Way::Dial(Dialling { opening: self, attempt: begun })
            }
        }
    }

    /// The connection that takes streams, if there is one.
    #[must_use]
    pub fn shared(&self) -> Option<Rc<Multiplexed>> {
        self.shared.borrow().as_ref().filter(|it| it.is_open()).cloned()
    }

    /// Lets go of a connection that takes no more streams, or of which `unwanted` says so. Its
    /// streams go on.
    pub fn let_go(&self, unwanted: impl Fn(&Multiplexed) -> bool) {
        let mut shared = self.shared.borrow_mut();
        if let Some(known) = shared.take_if(|it| !it.is_open() || unwanted(it)) {
            known.retire();
        }
    }

    /// A connection that speaks HTTP/2: from now on exchanges share it.
    pub fn adopt(&self, shared: &Rc<Multiplexed>) {
        self.is_http1.set(false);
        *self.shared.borrow_mut() = Some(Rc::clone(shared));
    }

    /// The origin chose HTTP/1.1. Should a later connection find HTTP/2, it is adopted.
    pub fn settle_for_http1(&self) {
        self.is_http1.set(true);
    }
}

impl Dialling<'_> {
    /// It is known now.
    pub fn succeeded(self) {
        self.end(Ok(()));
    }

    /// It failed.
    pub fn failed(self, fault: Fault) {
        self.end(Err(fault));
    }

    fn end(&self, outcome: Result<(), Fault>) {
        if self.attempt.outcome.get().is_some() {
            return;
        }
        self.attempt.outcome.set(Some(outcome));
        *self.opening.attempt.borrow_mut() = None;
        let waiting = std::mem::take(&mut *self.attempt.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        // Its client left, or its time was over: the next one dials.
        self.end(Ok(()));
    }
}

impl Waiting {
    /// Waits until the dialling has ended.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn ended(self) -> Result<(), Fault> {
        poll_fn(|cx| match self.0.outcome.get() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                let mut waiting = self.0.waiting.borrow_mut();
                if !waiting.iter().any(|it| it.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::Context;

    use super::*;

    fn now<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_dials_and_the_others_wait_for_what_it_finds() {
        let opening = Opening::default();
        let Way::Dial(dialling) = opening.way() else { panic!("nobody dials yet") };
        let Way::Wait(waiting) = opening.way() else { panic!("somebody dials") };
        let mut ended = pin!(waiting.ended());
        assert_eq!(now(&mut ended), None);
        opening.settle_for_http1();
        dialling.succeeded();
        assert_eq!(now(&mut ended), Some(Ok(())));
        assert!(matches!(opening.way(), Way::Http1));
    }

    #[test]
    fn failure_is_told_to_those_who_waited_and_not_to_the_next() {
        let opening = Opening::default();
        let Way::Dial(dialling) = opening.way() else { panic!("nobody dials yet") };
        let Way::Wait(waiting) = opening.way() else { panic!("somebody dials") };
        dialling.failed(Fault::Dial);
        let mut ended = pin!(waiting.ended());
        assert_eq!(now(&mut ended), Some(Err(Fault::Dial)));
        assert!(matches!(opening.way(), Way::Dial(_)));
    }

    #[test]
    fn dialling_that_is_given_up_leaves_the_next_to_try() {
        let opening = Opening::default();
        let Way::Dial(dialling) = opening.way() else { panic!("nobody dials yet") };
        let Way::Wait(waiting) = opening.way() else { panic!("somebody dials") };
        drop(dialling);
        let mut ended = pin!(waiting.ended());
        assert_eq!(now(&mut ended), Some(Ok(())));
        assert!(matches!(opening.way(), Way::Dial(_)));
    }
}
