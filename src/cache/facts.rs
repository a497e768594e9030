//! The policy facts of a stored response: stand-in until the policy's own are merged.

use std::time::Duration;

use crate::base::Wall;

/// What the policy knows of a stored response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// 200 to 599.
    pub status: u16,
    /// When the response came.
    pub response_time: Wall,
    /// Its `Date`.
    pub date: Wall,
    /// Age at `response_time` (RFC 9111 section 4.2.3).
    pub corrected_initial_age: Duration,
    /// How long it is fresh.
    pub lifetime: Duration,
    /// No stale answer (RFC 9111 section 5.2.2.2).
    pub must_revalidate: bool,
    /// Always validated (RFC 9111 section 5.2.2.4).
    pub no_cache: bool,
    /// RFC 5861 section 3.
    pub stale_while_revalidate: Option<Duration>,
    /// RFC 5861 section 4.
    pub stale_if_error: Option<Duration>,
}
