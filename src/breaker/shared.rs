//! A breaker that all cores share: the state in an `ArcSwap`, replaced by compare-and-swap.
//!
//! Cost: while closed and without failures, admitting and reporting a success are one load each and
//! write nothing. Only failures, and what follows them, allocate a new state.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::base::Mono;
use crate::breaker::state::{Change, Decision, Position, Settings, State, Token};

/// The breaker of one upstream.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: ArcSwap<State>,
}

/// The answer to a request that wants to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Send it.
    Pass(Token),
    /// Send it: its outcome decides whether the breaker closes.
    Probe(Token),
    /// Don't.
    Refused(Refused),
}

/// A request was refused because the breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When to ask again.
    pub retry_after: Duration,
}

/// What a breaker shows to `/health` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it stands. It stays open past its time until a request comes to probe.
    pub position: Position,
    /// Failures in a row; 0 unless closed.
    pub failures: u32,
    /// When the next request is let through; `None` if one would be now.
    pub retry_after: Option<Duration>,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: ArcSwap::from_pointee(State::default()) }
    }

    /// May a request be sent? Across all cores a half-open breaker passes exactly its probes.
    pub fn admit(&self, now: Mono) -> Admission {
        loop {
            let seen = self.state.load();
            match seen.decide(&self.settings, now) {
                Decision::Pass(token) => return Admission::Pass(token),
                Decision::Refuse(retry_after) => {
                    return Admission::Refused(Refused { retry_after });
                }
                Decision::Probe(token, next) => {
                    let before = self.state.compare_and_swap(&*seen, Arc::new(next));
                    if Arc::ptr_eq(&before, &seen) {
                        return Admission::Probe(token);
                    }
                }
            }
        }
    }

    /// The upstream answered the request, with anything that is no failure.
    pub fn on_success(&self, token: Token) -> Option<Change> {
        self.report(|state| state.after_success(&token, &self.settings))
    }

    /// The upstream failed; `retry_after` is what its 503 asked for.
    pub fn on_failure(
        &self,
        token: Token,
        retry_after: Option<Duration>,
        now: Mono,
    ) -> Option<Change> {
        self.report(|state| state.after_failure(&token, retry_after, &self.settings, now))
    }

    /// The request ended without saying anything about the upstream: its client left. A probe's
    /// place is free again.
    pub fn on_cancel(&self, token: Token) {
        let change = self.report(|state| state.after_cancel(&token));
        debug_assert!(change.is_none());
    }

    /// [`Breaker::admit`] with a guard that cannot be lost.
    ///
    /// # Errors
    /// When to ask again.
    pub fn enter(self: &Arc<Self>, now: Mono) -> Result<Permit, Refused> {
        match self.admit(now) {
            Admission::Pass(token) => Ok(Permit::new(self, token, Role::Ordinary)),
            Admission::Probe(token) => Ok(Permit::new(self, token, Role::Probe)),
            Admission::Refused(refused) => Err(refused),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self, now: Mono) -> Status {
        let state = self.state.load();
        // The token is of no use to anybody: nothing was put in place.
        let retry_after = match state.decide(&self.settings, now) {
            Decision::Refuse(retry_after) => Some(retry_after),
            Decision::Pass(_) | Decision::Probe(..) => None,
        };
        Status { position: state.position(), failures: state.failures(), retry_after }
    }

    fn report(&self, after: impl Fn(&State) -> Option<State>) -> Option<Change> {
        if !self.settings.enabled {
            return None;
        }
        loop {
            let seen = self.state.load();
            let next = after(&seen)?;
            let before = self.state.compare_and_swap(&*seen, Arc::new(next));
            if Arc::ptr_eq(&before, &seen) {
                return next.change_from(&seen);
            }
        }
    }
}

/// A token that reports itself as cancelled when it is dropped without a report.
#[derive(Debug)]
#[must_use = "dropped at once, it counts as cancelled"]
pub struct Permit {
    breaker: Arc<Breaker>,
    /// `None` once reported.
    token: Option<Token>,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ordinary,
    Probe,
}

impl Permit {
    fn new(breaker: &Arc<Breaker>, token: Token, role: Role) -> Self {
        Self { breaker: Arc::clone(breaker), token: Some(token), role }
    }

    /// Whether the outcome decides if the breaker closes; a probe should not be retried elsewhere.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.role == Role::Probe
    }

    /// The change that admitting this request made.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        self.token.as_ref().and_then(Token::change)
    }

    /// See [`Breaker::on_success`].
    pub fn on_success(mut self) -> Option<Change> {
        self.breaker.on_success(self.token.take()?)
    }

    /// See [`Breaker::on_failure`].
    pub fn on_failure(mut self, retry_after: Option<Duration>, now: Mono) -> Option<Change> {
        self.breaker.on_failure(self.token.take()?, retry_after, now)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.breaker.on_cancel(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::START.plus(SECOND * u32::try_from(seconds).unwrap())
    }

    fn open(breaker: &Arc<Breaker>) {
        while let Ok(permit) = breaker.enter(at(0)) {
            permit.on_failure(None, at(0));
        }
        assert_eq!(breaker.status(at(0)).position, Position::Open);
    }

    #[test]
    fn a_disabled_breaker_passes_everything() {
        let settings = Settings { enabled: false, threshold: 1, ..Settings::default() };
        let breaker = Arc::new(Breaker::new(settings));
        for _ in 0..100 {
            let permit = breaker.enter(at(0)).unwrap();
            assert!(!permit.is_probe());
            assert_eq!(permit.on_failure(None, at(0)), None);
        }
    }

    #[test]
    fn a_dropped_probe_gives_its_place_back() {
        let breaker = Arc::new(Breaker::new(Settings { half_open: 1, ..Settings::default() }));
        open(&breaker);
        let probe = breaker.enter(at(60)).unwrap();
        assert!(probe.is_probe());
        assert_eq!(probe.change(), Some(Change::HalfOpened));
        assert_eq!(breaker.enter(at(60)).unwrap_err().retry_after, SECOND);
        drop(probe);
        let again = breaker.enter(at(60)).unwrap();
        assert_eq!(again.change(), None);
        assert_eq!(again.on_success(), Some(Change::Closed));
    }

    #[test]
    fn a_status_says_when_the_next_request_passes() {
        let breaker = Arc::new(Breaker::new(Settings::default()));
        let closed = Status { position: Position::Closed, failures: 0, retry_after: None };
        assert_eq!(breaker.status(at(0)), closed);
        breaker.enter(at(0)).unwrap().on_failure(None, at(0));
        assert_eq!(breaker.status(at(0)).failures, 1);
        open(&breaker);
        assert_eq!(breaker.status(at(1)).retry_after, Some(SECOND * 59));
        let passed = Status { position: Position::Open, failures: 0, retry_after: None };
        assert_eq!(breaker.status(at(60)), passed);
    }

    #[test]
    fn threads_together_get_exactly_the_probes() {
        for round in 0..200 {
            let half_open = round % 4 + 1;
            let breaker = Arc::new(Breaker::new(Settings { half_open, ..Settings::default() }));
            open(&breaker);
            let probes = AtomicU32::new(0);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..4 {
                            // Never reported: the place stays taken.
                            if let Admission::Probe(_) = breaker.admit(at(60)) {
                                probes.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            assert_eq!(probes.into_inner(), half_open);
        }
    }

    #[test]
    fn threads_that_cancel_leave_all_places_free() {
        let breaker = Arc::new(Breaker::new(Settings::default()));
        open(&breaker);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        drop(breaker.enter(at(60)));
                    }
                });
            }
        });
        let permits: Vec<_> = (0..4).map(|_| breaker.enter(at(60))).collect();
        assert_eq!(permits.iter().filter(|it| it.is_ok()).count(), 3);
    }
}
