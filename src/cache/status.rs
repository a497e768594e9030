//! What the cache did, told to the client: Cache-Status (RFC 9211) and X-Cache.

use crate::cache::reason::Reason;

/// Why a request went to the origin (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache does not handle this request.
    Bypass,
    /// Its method has to be forwarded.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Something is, but no variant for this request.
    VaryMiss,
    /// Nothing that would do is stored; which of the two is not known.
    Miss,
    /// A fresh response is stored and the request's directives don't allow it.
    Request,
    /// What is stored is stale, or must always be validated.
    Stale,
    /// Only a part is stored.
    Partial,
}

impl Forward {
    /// The token that RFC 9211 section 2.2 registers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// How the answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the store, fresh; the origin was not asked.
    Hit,
    /// From the store, stale; the origin was not asked, or could not be reached.
    StaleHit,
    /// From the origin.
    Forwarded(Forward),
    /// From the store, after the origin confirmed it.
    Revalidated(Forward),
    /// From the store, since the origin could not be had or answered with an error: stale, or with
    /// [`Forward::Request`] fresh, where the request asked for more.
    StaleForError(Forward),
    /// Made here: neither the store nor the origin had a part in it.
    Local,
}

/// One member of Cache-Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// How the answer came about.
    pub outcome: Outcome,
    /// Freshness left in seconds, negative when stale (RFC 9211 section 2.4).
    pub ttl: Option<i64>,
    /// The status the origin answered with (section 2.3).
    pub fwd_status: Option<u16>,
    /// The origin's response was stored (section 2.5).
    pub stored: bool,
    /// The request shared the fetch of another (section 2.6).
    pub collapsed: bool,
    /// Why, in the daemon's own word (section 2.8).
    pub detail: Option<Reason>,
}

impl CacheStatus {
    /// A status that says no more than the outcome.
    #[must_use]
    pub const fn new(outcome: Outcome) -> Self {
        Self { outcome, ttl: None, fwd_status: None, stored: false, collapsed: false, detail: None }
    }

    /// A fresh hit.
    #[must_use]
    pub const fn hit(ttl: i64) -> Self {
        Self { ttl: Some(ttl), ..Self::new(Outcome::Hit) }
    }

    /// A stale answer that the origin had no part in, and what allowed it.
    #[must_use]
    pub const fn stale(ttl: i64, why: Reason) -> Self {
        Self { ttl: Some(ttl), detail: Some(why), ..Self::new(Outcome::StaleHit) }
    }

    /// A request that went to the origin for this reason; [`Forward::Miss`] for reasons that are
    /// no cause of forwarding.
    #[must_use]
    pub fn forwarded(why: Reason) -> Self {
        let forward = why.forward().unwrap_or(Forward::Miss);
        Self { detail: Some(why), ..Self::new(Outcome::Forwarded(forward)) }
    }

    /// A request for which nothing was stored.
    #[must_use]
    pub const fn missed(forward: Forward) -> Self {
        Self::new(Outcome::Forwarded(forward))
    }

    /// The stored response was confirmed by a 304; `why` is the reason for asking.
    #[must_use]
    pub fn revalidated(why: Reason) -> Self {
        let forward = why.forward().unwrap_or(Forward::Stale);
        Self {
            fwd_status: Some(304),
            detail: Some(why),
            ..Self::new(Outcome::Revalidated(forward))
        }
    }

    /// The same, for an answer that was not stored; `why` becomes the detail. What went straight
    /// through for an earlier answer's sake goes on saying so.
    #[must_use]
    pub fn unstored(self, why: Reason) -> Self {
        let known = self.detail.filter(|it| *it == Reason::MarkedUncacheable);
        Self { stored: false, detail: known.or(Some(why)), ..self }
    }

    /// Appends the field's value, such as `apiproxyd; hit; ttl=376`. No allocation where the
    /// buffer has room for [`CACHE_STATUS_BYTES_MAX`].
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(CACHE_NAME.as_bytes());
        match self.outcome {
            Outcome::Hit | Outcome::StaleHit => out.extend_from_slice(b"; hit"),
            Outcome::Forwarded(forward)
            | Outcome::Revalidated(forward)
            | Outcome::StaleForError(forward) => {
                out.extend_from_slice(b"; fwd=");
                out.extend_from_slice(forward.as_str().as_bytes());
            }
            Outcome::Local => {}
        }
        if let Some(status) = self.fwd_status {
            out.extend_from_slice(b"; fwd-status=");
            out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        }
        if let Some(ttl) = self.ttl {
            // A structured integer has at most 15 digits.
            let ttl = ttl.clamp(-999_999_999_999_999, 999_999_999_999_999);
            out.extend_from_slice(b"; ttl=");
            out.extend_from_slice(itoa::Buffer::new().format(ttl).as_bytes());
        }
        if self.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(detail) = self.detail {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(detail.as_str().as_bytes());
        }
    }

    /// The field's value for an answer that could not be had: why it was asked for, and what then
    /// happened (`detail`, a token).
    #[must_use]
    pub fn failed(&self, detail: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(CACHE_STATUS_BYTES_MAX);
        Self { detail: None, stored: false, ..*self }.write(&mut out);
        out.extend_from_slice(b"; detail=");
        out.extend_from_slice(detail.as_bytes());
        out
    }

    /// The word of X-Cache, which is also the metrics' label.
    #[must_use]
    pub const fn x_cache(&self) -> &'static str {
        match self.outcome {
            Outcome::Hit | Outcome::StaleForError(Forward::Request) => "HIT",
            Outcome::StaleHit | Outcome::StaleForError(_) => "STALE",
            Outcome::Revalidated(_) => "REVALIDATED",
            Outcome::Forwarded(Forward::Bypass | Forward::Method) | Outcome::Local => "BYPASS",
            Outcome::Forwarded(_) => "MISS",
        }
    }
}

/// The name of this cache in the list (RFC 9211 section 2).
pub const CACHE_NAME: &str = "apiproxyd";

/// No value that [`CacheStatus::write`] appends is longer.
pub const CACHE_STATUS_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: &CacheStatus) -> String {
        let mut out = Vec::new();
        status.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// RFC 9211 section 2.
    #[test]
    fn each_outcome_is_written_as_registered() {
        let stored = CacheStatus {
            fwd_status: Some(200),
            ttl: Some(60),
            stored: true,
            collapsed: true,
            ..CacheStatus::missed(Forward::UriMiss)
        };
        let error = CacheStatus {
            fwd_status: Some(503),
            ttl: Some(-9),
            detail: Some(Reason::StaleIfError),
            ..CacheStatus::new(Outcome::StaleForError(Forward::Stale))
        };
        let refused =
            CacheStatus { detail: Some(Reason::OnlyIfCached), ..CacheStatus::new(Outcome::Local) };
        let cases = [
            (CacheStatus::hit(376), "apiproxyd; hit; ttl=376", "HIT"),
            (
                CacheStatus::stale(-412, Reason::StaleWhileRevalidate),
                "apiproxyd; hit; ttl=-412; detail=stale_while_revalidate",
                "STALE",
            ),
            (stored, "apiproxyd; fwd=uri-miss; fwd-status=200; ttl=60; stored; collapsed", "MISS"),
            (CacheStatus::missed(Forward::VaryMiss), "apiproxyd; fwd=vary-miss", "MISS"),
            (
                CacheStatus::forwarded(Reason::RequestNoStore),
                "apiproxyd; fwd=bypass; detail=request_no_store",
                "BYPASS",
            ),
            (
                CacheStatus::forwarded(Reason::MethodNotCached),
                "apiproxyd; fwd=method; detail=method_not_cached",
                "BYPASS",
            ),
            (
                CacheStatus::forwarded(Reason::RequestMaxAge),
                "apiproxyd; fwd=request; detail=request_max_age",
                "MISS",
            ),
            (
                CacheStatus::revalidated(Reason::Stale),
                "apiproxyd; fwd=stale; fwd-status=304; detail=stale",
                "REVALIDATED",
            ),
            (error, "apiproxyd; fwd=stale; fwd-status=503; ttl=-9; detail=stale_if_error", "STALE"),
            (refused, "apiproxyd; detail=only_if_cached", "BYPASS"),
        ];
        for (status, value, word) in cases {
            assert_eq!(text(&status), value);
            assert_eq!(status.x_cache(), word, "{value}");
        }
    }

    #[test]
    fn a_failure_is_told_with_the_reason_for_asking() {
        let failed = CacheStatus::forwarded(Reason::Stale).failed("dial");
        assert_eq!(failed, b"apiproxyd; fwd=stale; detail=dial");
        let shared = CacheStatus { collapsed: true, ..CacheStatus::missed(Forward::UriMiss) };
        assert_eq!(shared.failed("timeout"), b"apiproxyd; fwd=uri-miss; collapsed; detail=timeout");
    }

    #[test]
    fn the_longest_value_stays_below_its_bound() {
        for detail in Reason::ALL {
            let status = CacheStatus {
                ttl: Some(i64::MIN),
                fwd_status: Some(u16::MAX),
                stored: true,
                collapsed: true,
                detail: Some(detail),
                ..CacheStatus::missed(Forward::VaryMiss)
            };
            let text = text(&status);
            assert!(text.len() <= CACHE_STATUS_BYTES_MAX, "{text}");
            assert!(text.contains("ttl=-999999999999999;"));
        }
    }
}
