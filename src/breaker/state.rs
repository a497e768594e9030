//! The state machine of a breaker: values in, values out.
//!
//! "In a row" means: between two failures that count no success was reported. A steady mix of both
//! never opens the breaker, whatever their share; an upstream that fails always does so soon.
//!
//! Each opening, half-opening and closing begins a new generation. A token remembers the one it was
//! given in, and a report for an earlier generation changes nothing: an answer that was under way
//! while the breaker opened neither closes it nor opens it again.

use std::time::Duration;

use crate::base::Mono;

/// How a breaker behaves. Defaults: on, 5 failures, 60 s, 3 probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Off: everything passes and nothing is counted.
    pub enabled: bool,
    /// Failures in a row that open it; 0 counts as 1.
    pub threshold: u32,
    /// How long it stays open, unless `Retry-After` asks for longer.
    pub timeout: Duration,
    /// Probes that a half-open breaker lets through, all of which must succeed; 0 counts as 1.
    pub half_open: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, threshold: 5, timeout: Duration::from_secs(60), half_open: 3 }
    }
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open,
    /// Some probes pass, all else is refused.
    HalfOpen,
}

impl Position {
    /// `closed`, `open`, `half_open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A change that a call brought about; for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Closed or half-open became open.
    Opened,
    /// Open became half-open.
    HalfOpened,
    /// Half-open became closed.
    Closed,
}

impl Change {
    /// `opened`, `half_opened`, `closed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::HalfOpened => "half_opened",
            Self::Closed => "closed",
        }
    }
}

/// The right to send one request, to be reported exactly once.
///
/// Not to be lost: a probe that is never reported keeps its place for ever. [`super::Permit`]
/// sees to that.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "a token must be reported: on_success, on_failure or on_cancel"]
pub struct Token {
    generation: u64,
    change: Option<Change>,
}

impl Token {
    /// The change that admitting this request made: the first probe half-opens the breaker.
    #[must_use]
    pub const fn change(&self) -> Option<Change> {
        self.change
    }
}

/// A breaker's state. Immutable: every event makes a new one, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Grows with every change of phase.
    generation: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// `failures` in a row so far, fewer than the threshold.
    Closed { failures: u32 },
    /// Nothing passes before `until`.
    Open { until: Mono },
    /// `in_flight + succeeded` never exceeds the permitted probes.
    HalfOpen { in_flight: u32, succeeded: u32 },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// What a state says to a request.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Decision {
    /// Send it; the state stays.
    Pass(Token),
    /// Send it, if this state can be put in place.
    Probe(Token, State),
    /// Don't, for this long.
    Refuse(Duration),
}

impl State {
    /// May a request be sent?
    pub(super) fn decide(&self, settings: &Settings, now: Mono) -> Decision {
        match self.phase {
            Phase::Closed { .. } => {
                Decision::Pass(Token { generation: self.generation, change: None })
            }
            Phase::Open { until } if now < until => Decision::Refuse(until.since(now)),
            Phase::Open { .. } => {
                let next = self.next(Phase::HalfOpen { in_flight: 1, succeeded: 0 });
                let change = Some(Change::HalfOpened);
                Decision::Probe(Token { generation: next.generation, change }, next)
            }
            Phase::HalfOpen { in_flight, succeeded }
                if in_flight + succeeded < settings.probes() =>
            {
                let phase = Phase::HalfOpen { in_flight: in_flight + 1, succeeded };
                let token = Token { generation: self.generation, change: None };
                Decision::Probe(token, Self { phase, ..*self })
            }
            Phase::HalfOpen { .. } => Decision::Refuse(PROBE_WAIT),
        }
    }

    /// The state after a success; `None` when nothing changes.
    pub(super) fn after_success(&self, token: &Token, settings: &Settings) -> Option<Self> {
        if token.generation != self.generation {
            return None;
        }
        match self.phase {
            Phase::Closed { failures: 0 } | Phase::Open { .. } => None,
            Phase::Closed { .. } => Some(Self { phase: Phase::default(), ..*self }),
            Phase::HalfOpen { in_flight, succeeded } => {
                debug_assert!(in_flight > 0, "a probe was reported twice");
                let succeeded = succeeded + 1;
                if succeeded >= settings.probes() {
                    return Some(self.next(Phase::default()));
                }
                let in_flight = in_flight.saturating_sub(1);
                Some(Self { phase: Phase::HalfOpen { in_flight, succeeded }, ..*self })
            }
        }
    }

    /// The state after a failure; `None` when nothing changes.
    ///
    /// `retry_after` is what the upstream asked for in a 503 (RFC 9110 section 10.2.3).
    pub(super) fn after_failure(
        &self,
        token: &Token,
        retry_after: Option<Duration>,
        settings: &Settings,
        now: Mono,
    ) -> Option<Self> {
        if token.generation != self.generation {
            return None;
        }
        let asked = retry_after.unwrap_or_default().min(OPEN_MAX);
        let until = now.plus(settings.timeout.max(asked));
        match self.phase {
            Phase::Closed { failures } if failures + 1 < settings.threshold => {
                Some(Self { phase: Phase::Closed { failures: failures + 1 }, ..*self })
            }
            Phase::Closed { .. } | Phase::HalfOpen { .. } => Some(self.next(Phase::Open { until })),
            Phase::Open { .. } => None,
        }
    }

    /// The state after a request that ended without saying anything about the upstream; `None`
    /// when nothing changes.
    pub(super) fn after_cancel(&self, token: &Token) -> Option<Self> {
        match self.phase {
            Phase::HalfOpen { in_flight, succeeded } if token.generation == self.generation => {
                debug_assert!(in_flight > 0, "a probe was reported twice");
                let in_flight = in_flight.saturating_sub(1);
                Some(Self { phase: Phase::HalfOpen { in_flight, succeeded }, ..*self })
            }
            Phase::Closed { .. } | Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// Where it stands.
    pub(super) const fn position(&self) -> Position {
        match self.phase {
            Phase::Closed { .. } => Position::Closed,
            Phase::Open { .. } => Position::Open,
            Phase::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// Failures in a row; 0 unless closed.
    pub(super) const fn failures(&self) -> u32 {
        match self.phase {
            Phase::Closed { failures } => failures,
            Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        }
    }

    /// How the step from `before` to this is called.
    pub(super) fn change_from(&self, before: &Self) -> Option<Change> {
        if self.generation == before.generation {
            return None;
        }
        Some(match self.phase {
            Phase::Closed { .. } => Change::Closed,
            Phase::Open { .. } => Change::Opened,
            Phase::HalfOpen { .. } => Change::HalfOpened,
        })
    }

    fn next(&self, phase: Phase) -> Self {
        Self { generation: self.generation + 1, phase }
    }
}

impl Settings {
    fn probes(&self) -> u32 {
        self.half_open.max(1)
    }
}

/// A `Retry-After` beyond an hour counts as an hour: one wrong answer must not close an upstream
/// for a day.
pub const OPEN_MAX: Duration = Duration::from_secs(3_600);

/// How long a request that finds all probes taken is told to wait: the probes' own answers decide,
/// and those are not known.
const PROBE_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
