//! A database that lets look-ups time out is not asked by the next ones.
//!
//! A miss must not cost a time-out each, for as long as a table is locked or a server overloaded.
//! After the first look-up that timed out all are answered at once; a reader without work asks for
//! nothing, one at a time and with back-off, until that is answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::store::fault::Fault;
use crate::store::retry::Retry;

/// What the readers of a pool know of it together.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    is_slow: AtomicBool,
    probing: Mutex<Probing>,
}

#[derive(Debug, Default)]
struct Probing {
    retry: Retry,
    under_way: bool,
}

impl Slow {
    /// Whether look-ups are answered without the database.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Acquire)
    }

    /// A look-up has timed out.
    pub(crate) fn on_late(&self, fault: &Fault) {
        let mut probing = self.lock();
        // Those that were under way with the first one say nothing new.
        if !self.is_slow.swap(true, Ordering::AcqRel) {
            probing.retry.on_fault(fault, Instant::now());
        }
    }

    /// A look-up was answered.
    pub(crate) fn on_answer(&self) {
        if self.is_slow() {
            let mut probing = self.lock();
            probing.retry.on_success();
            self.is_slow.store(false, Ordering::Release);
        }
    }

    /// Whether the caller is to ask now, and then to call [`Slow::on_probe`].
    pub(crate) fn begins_probe(&self) -> bool {
        let mut probing = self.lock();
        let due = !probing.under_way && probing.retry.check(Instant::now()).is_ok();
        probing.under_way |= due;
        due
    }

    /// How it went.
    pub(crate) fn on_probe(&self, fault: Option<&Fault>) {
        let mut probing = self.lock();
        probing.under_way = false;
        match fault {
            Some(fault) => probing.retry.on_fault(fault, Instant::now()),
            None => {
                probing.retry.on_success();
                self.is_slow.store(false, Ordering::Release);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Probing> {
        self.probing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fault::Unavailable;

    #[test]
    fn one_asks_at_a_time_until_there_is_an_answer() {
        let (slow, fault) = (Slow::default(), Fault::new(Unavailable::Timeout, "x"));
        assert!(!slow.is_slow());
        slow.on_late(&fault);
        assert!(slow.is_slow());
        assert!(!slow.begins_probe(), "not at once");
        while !slow.begins_probe() {
            std::thread::yield_now();
        }
        assert!(!slow.begins_probe(), "one at a time");
        slow.on_probe(Some(&fault));
        assert!(slow.is_slow() && !slow.begins_probe());
        while !slow.begins_probe() {
            std::thread::yield_now();
        }
        slow.on_probe(None);
        assert!(!slow.is_slow());
    }
}
