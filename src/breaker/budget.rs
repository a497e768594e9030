//! How many retries an upstream's requests may cause: a share of them.
//!
//! Each request earns a share of a retry, each retry spends a whole one. What was not spent is kept
//! up to `RESERVE_MAX` retries, so that an outage multiplies the upstream's load by one plus the
//! share and no more.

use std::sync::atomic::{AtomicU32, Ordering};

/// The budget of one upstream, shared by all cores.
#[derive(Debug)]
pub struct Budget {
    /// What a request earns, in thousandths of a retry.
    share: u32,
    /// What there is, in thousandths of a retry.
    saved: AtomicU32,
}

impl Budget {
    /// `share`: retries as a share of requests, 0 to 1 (`client.retry_budget`, default 0.2); 0
    /// allows none. Starts with one retry, so that the first requests need not fail.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    pub fn new(share: f64) -> Self {
        let share = (share.clamp(0.0, 1.0) * f64::from(RETRY)).round() as u32;
        Self { share, saved: AtomicU32::new(if share == 0 { 0 } else { RETRY }) }
    }

    /// A request goes out, for the first time. Writes nothing while the reserve is full.
    pub fn on_request(&self) {
        let earned = |saved: u32| {
            (saved < RESERVE_MAX * RETRY).then(|| (saved + self.share).min(RESERVE_MAX * RETRY))
        };
        let order = Ordering::Relaxed;
        // An error says that the reserve is full.
        let _ = self.saved.fetch_update(order, order, earned);
    }

    /// Takes a retry; `false` when there is none left.
    #[must_use]
    pub fn try_spend(&self) -> bool {
        let order = Ordering::Relaxed;
        self.saved.fetch_update(order, order, |saved| saved.checked_sub(RETRY)).is_ok()
    }
}

/// One retry, in thousandths.
const RETRY: u32 = 1_000;
/// Retries that a quiet time saves up: a moment's hiccup, not an outage.
const RESERVE_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_multiplies_the_load_by_one_plus_the_share() {
        let budget = Budget::new(0.2);
        let spent = (0..1_000).filter(|_| {
            budget.on_request();
            budget.try_spend()
        });
        assert_eq!(spent.count(), 201, "the share, and the one there was at the start");
    }

    #[test]
    fn a_quiet_time_saves_up_ten_retries() {
        let budget = Budget::new(0.2);
        (0..1_000).for_each(|_| budget.on_request());
        assert_eq!((0..100).filter(|_| budget.try_spend()).count(), 10);
    }

    #[test]
    fn without_a_share_nothing_is_retried() {
        let budget = Budget::new(0.0);
        (0..100).for_each(|_| budget.on_request());
        assert!(!budget.try_spend());
    }
}
