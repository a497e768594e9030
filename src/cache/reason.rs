//! The one list of reasons: why an answer did not come fresh from the store, or was not stored.
//!
//! Its word is the `detail` of Cache-Status, the label of the metrics and the field of the log.
//! README documents each; a test reaches each.

use crate::cache::status::Forward;

/// Why something was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The route does not cache this method (RFC 9110 section 9.2.3).
    MethodNotCached,
    /// The request carries a precondition that only the origin can judge: If-Match,
    /// If-Unmodified-Since, or any on a POST (RFC 9110 section 13.1).
    Precondition,
    /// The request's content has no canonical form beyond doubt, so there is no key for it.
    BodyNotCanonical,
    /// An earlier response for this key could not be stored; requests for it go straight through.
    MarkedUncacheable,
    /// The request says `no-store` (RFC 9111 section 5.2.1.5).
    RequestNoStore,
    /// The request says `no-cache`, or `Pragma: no-cache` without Cache-Control
    /// (RFC 9111 sections 5.2.1.4 and 5.4).
    RequestNoCache,
    /// The stored response is older than the request's `max-age` (RFC 9111 section 5.2.1.1).
    RequestMaxAge,
    /// The stored response will not stay fresh for the request's `min-fresh`
    /// (RFC 9111 section 5.2.1.3).
    RequestMinFresh,
    /// The request says `only-if-cached` and nothing stored will do (RFC 9111 section 5.2.1.7).
    OnlyIfCached,
    /// The stored response has outlived its freshness (RFC 9111 section 4.2).
    Stale,
    /// The response says `no-cache`: never used without asking (RFC 9111 section 5.2.2.4).
    NoCache,
    /// The stored response comes from the future: the clock was set back, its age is unknown.
    ClockSkew,
    /// The response says `no-store` (RFC 9111 section 5.2.2.5).
    NoStore,
    /// The response says `private` (RFC 9111 section 5.2.2.7).
    Private,
    /// The request had Authorization and the response does not allow sharing
    /// (RFC 9111 section 3.5).
    Authorization,
    /// The response sets a cookie and no directive allows sharing it (RFC 9111 section 7.3).
    SetCookie,
    /// The response says `Vary: *` (RFC 9111 section 4.1).
    VaryAny,
    /// The response varies on more fields than are kept track of.
    VaryTooWide,
    /// Only a part is stored, and not all of what the request asks for (RFC 9111 section 3.3).
    Partial,
    /// What is stored is in a coding that the client can't read, and `no-transform` forbids to make
    /// another (RFC 9111 section 5.2.2.6).
    ContentCoding,
    /// A 206 that is not one part whose Content-Range fits it, or that nobody asked for
    /// (RFC 9111 section 3.3).
    PartUnusable,
    /// A status that belongs to one request or connection, e.g. 401, 304, 412, 416, 429.
    Status,
    /// The response says `must-understand` and its status is not understood
    /// (RFC 9111 section 5.2.2.3).
    StatusNotUnderstood,
    /// Neither the origin nor the settings give a lifetime, and the status has none by itself
    /// (RFC 9111 section 3).
    NoFreshness,
    /// Stale on arrival, without a validator and without leave to serve it stale: of no use.
    NoValidator,
    /// Larger than what is stored.
    ResponseTooLarge,
    /// Bodies that are arriving have all the memory that they may have.
    NoRoom,
    /// The origin's response ended early (RFC 9111 section 3.3).
    Incomplete,
    /// The key was purged while the response was on its way.
    Purged,
    /// `stale-while-revalidate`: answered stale, refreshed meanwhile (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// `stale-if-error`: answered stale in place of an error (RFC 5861 section 4).
    StaleIfError,
    /// The request's `max-stale` allows it (RFC 9111 section 5.2.1.2).
    MaxStale,
    /// An offline endpoint whose origin can't be reached.
    Offline,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage` forbid a stale answer
    /// (RFC 9111 section 4.2.4).
    StaleForbidden,
    /// Staler than `stale-if-error` allows.
    StaleTooOld,
}

impl Reason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 35] = [
        Self::MethodNotCached,
        Self::Precondition,
        Self::BodyNotCanonical,
        Self::MarkedUncacheable,
        Self::RequestNoStore,
        Self::RequestNoCache,
        Self::RequestMaxAge,
        Self::RequestMinFresh,
        Self::OnlyIfCached,
        Self::Stale,
        Self::NoCache,
        Self::ClockSkew,
        Self::NoStore,
        Self::Private,
        Self::Authorization,
        Self::SetCookie,
        Self::VaryAny,
        Self::VaryTooWide,
        Self::Partial,
        Self::ContentCoding,
        Self::PartUnusable,
        Self::Status,
        Self::StatusNotUnderstood,
        Self::NoFreshness,
        Self::NoValidator,
        Self::ResponseTooLarge,
        Self::NoRoom,
        Self::Incomplete,
        Self::Purged,
        Self::StaleWhileRevalidate,
        Self::StaleIfError,
        Self::MaxStale,
        Self::Offline,
        Self::StaleForbidden,
        Self::StaleTooOld,
    ];

    /// The reason's word, in snake case: a token of RFC 9110 and of structured fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MethodNotCached => "method_not_cached",
            Self::Precondition => "precondition",
            Self::BodyNotCanonical => "body_not_canonical",
            Self::MarkedUncacheable => "marked_uncacheable",
            Self::RequestNoStore => "request_no_store",
            Self::RequestNoCache => "request_no_cache",
            Self::RequestMaxAge => "request_max_age",
            Self::RequestMinFresh => "request_min_fresh",
            Self::OnlyIfCached => "only_if_cached",
            Self::Stale => "stale",
            Self::NoCache => "no_cache",
            Self::ClockSkew => "clock_skew",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set_cookie",
            Self::VaryAny => "vary_any",
            Self::VaryTooWide => "vary_too_wide",
            Self::Partial => "partial",
            Self::ContentCoding => "content_coding",
            Self::PartUnusable => "part_unusable",
            Self::Status => "status",
            Self::StatusNotUnderstood => "status_not_understood",
            Self::NoFreshness => "no_freshness",
            Self::NoValidator => "no_validator",
            Self::ResponseTooLarge => "response_too_large",
            Self::NoRoom => "no_room",
            Self::Incomplete => "incomplete",
            Self::Purged => "purged",
            Self::StaleWhileRevalidate => "stale_while_revalidate",
            Self::StaleIfError => "stale_if_error",
            Self::MaxStale => "max_stale",
            Self::Offline => "offline",
            Self::StaleForbidden => "stale_forbidden",
            Self::StaleTooOld => "stale_too_old",
        }
    }

    /// The `fwd` value (RFC 9211 section 2.2) of a request that went to the origin for this
    /// reason; `None` for reasons that are no cause of forwarding (why it was not stored, why
    /// stale was allowed).
    #[must_use]
    pub const fn forward(self) -> Option<Forward> {
        match self {
            Self::MethodNotCached => Some(Forward::Method),
            Self::Precondition
            | Self::BodyNotCanonical
            | Self::MarkedUncacheable
            | Self::RequestNoStore => Some(Forward::Bypass),
            Self::RequestNoCache | Self::RequestMaxAge | Self::RequestMinFresh => {
                Some(Forward::Request)
            }
            Self::Stale | Self::NoCache | Self::ClockSkew => Some(Forward::Stale),
            Self::Partial => Some(Forward::Partial),
            Self::ContentCoding => Some(Forward::VaryMiss),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_once_in_the_list_and_has_its_own_word() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{reason:?}");
            let word = reason.as_str();
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
            let uses = Reason::ALL.iter().filter(|other| other.as_str() == word).count();
            assert_eq!(uses, 1, "{word}");
        }
    }
}
