//! A connection that is opened when needed, and opened again, not too often, when it failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::store::fault::{Fault, Unavailable};
use crate::store::stats::StoreStats;

/// A reader or a writer that may be closed. The panic boundary of the storage threads.
#[derive(Debug)]
pub(crate) struct Lazy<T> {
    open: Option<T>,
    retry: Retry,
}

impl<T> Lazy<T> {
    /// Nothing is opened before the first call.
    pub(crate) fn new() -> Self {
        Self { open: None, retry: Retry::default() }
    }

    /// The fault that closed it, or that opening it met with; none while it is open or untried.
    pub(crate) fn known_fault(&self) -> Option<Fault> {
        if self.open.is_some() {
            return None;
        }
        self.retry.failed.as_ref().map(|it| it.fault.clone())
    }

    /// Lets the next call try at once.
    pub(crate) fn forgive(&mut self) {
        self.retry.failed = None;
    }

    /// Opens if need be, unless that failed a moment ago, and calls `f`. A fault that breaks the
    /// connection, or a panic, closes it.
    pub(crate) fn call<R>(
        &mut self,
        stats: &StoreStats,
        open: impl FnOnce() -> Result<T, Fault>,
        f: impl FnOnce(&mut T) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        if self.open.is_none() {
            self.retry.check(Instant::now())?;
        }
        let slot = &mut self.open;
        let caught = catch_unwind(AssertUnwindSafe(|| match slot {
            Some(it) => f(it),
            None => f(slot.insert(open()?)),
        }));
        let result = caught.unwrap_or_else(|_| {
            stats.panics.fetch_add(1, Ordering::Relaxed);
            Err(Fault::new(Unavailable::Bug, "panic in a storage thread"))
        });
        match &result {
            Ok(_) => self.retry.on_success(),
            Err(fault) => {
                if fault.breaks_connection() && self.open.take().is_some() {
                    stats.reopened.fetch_add(1, Ordering::Relaxed);
                }
                self.retry.on_fault(fault, Instant::now());
            }
        }
        result
    }
}

/// The first wait; each further failure doubles it.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// A database that is back is noticed within about this time.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Exponential back-off that remembers the last fault, so that attempts in between fail at once.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    fault: Fault,
    wait: Duration,
    until: Instant,
}

impl Retry {
    /// Fails with the last fault while it is too early to try again.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Fault> {
        match &self.failed {
            Some(failed) if now < failed.until => Err(failed.fault.clone()),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn on_success(&mut self) {
        self.failed = None;
    }

    pub(crate) fn on_fault(&mut self, fault: &Fault, now: Instant) {
        let wait = match &self.failed {
            Some(failed) => (failed.wait * 2).clamp(WAIT_MIN, WAIT_MAX),
            // A damaged file has been replaced when it is opened again: nothing to wait for.
            None if fault.reason.heals_on_open() => Duration::ZERO,
            None => WAIT_MIN,
        };
        self.failed = Some(Failed { fault: fault.clone(), wait, until: now + wait });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fault::Unavailable;

    #[test]
    fn waits_double_up_to_a_second() {
        let start = Instant::now();
        let mut retry = Retry::default();
        let fault = Fault::new(Unavailable::Disconnected, "x");
        let mut now = start;
        for millis in [50, 100, 200, 400, 800, 1000, 1000] {
            assert!(retry.check(now).is_ok());
            retry.on_fault(&fault, now);
            now += Duration::from_millis(millis - 1);
            assert!(retry.check(now).is_err(), "{millis}");
            now += Duration::from_millis(1);
        }
        retry.on_success();
        assert!(retry.check(start).is_ok());
    }

    #[test]
    fn a_damaged_file_is_replaced_at_once_but_not_for_ever() {
        let now = Instant::now();
        let mut retry = Retry::default();
        let fault = Fault::new(Unavailable::Damaged, "x");
        retry.on_fault(&fault, now);
        assert!(retry.check(now).is_ok());
        retry.on_fault(&fault, now);
        assert!(retry.check(now).is_err());
    }
}
