//! What an operator can set of the policy, for each route.

use std::time::Duration;

use crate::http::Method;

/// The policy's settings for one route. Built by `config`, read by every function of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Heuristic lifetime of a success (RFC 9111 section 4.2.2), when the origin states none.
    /// Default one day. Zero: see `last_modified_percent`.
    pub ttl: Duration,
    /// The same for 404 and 410. Default zero: `ttl` does not apply to them, nor to any other
    /// error; see `last_modified_percent`.
    pub negative_ttl: Duration,
    /// Replaces every lifetime the origin states for a success, counted from reception: an Age or
    /// an old Date don't shorten it. Does not lift `no-store`,
    /// `private`, `no-cache` or the rules for Authorization and Set-Cookie. Default none.
    pub force_ttl: Option<Duration>,
    /// How long past its lifetime a response may stand in for an error, when the origin states
    /// nothing (RFC 5861 section 4). Default one day.
    pub stale_if_error: Duration,
    /// How long past its lifetime a response may be served while it is refreshed, when the
    /// origin states nothing (RFC 5861 section 3). Default zero.
    pub stale_while_revalidate: Duration,
    /// Where `ttl` (or `negative_ttl`) is zero, and of other errors that may be kept heuristically
    /// (405, 414, 501): the share of the time since Last-Modified that is
    /// taken as the heuristic lifetime, in percent, at most a day (RFC 9111 section 4.2.2 names a
    /// tenth). Default 10; zero for none.
    pub last_modified_percent: u8,
    /// The path is an offline endpoint: what is stored stays without limit and answers whenever
    /// the origin can't, except where the origin forbids stale answers. Default false.
    pub offline: bool,
    /// Methods whose responses are looked up and stored. Default GET and HEAD.
    pub methods: Methods,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: DAY,
            negative_ttl: Duration::ZERO,
            force_ttl: None,
            stale_if_error: DAY,
            stale_while_revalidate: Duration::ZERO,
            last_modified_percent: 10,
            offline: false,
            methods: Methods::default(),
        }
    }
}

/// The set of cacheable methods. POST and QUERY are keyed by a digest of their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    /// GET.
    pub get: bool,
    /// HEAD, answered from a stored GET; its own responses only update.
    pub head: bool,
    /// POST; off by default.
    pub post: bool,
    /// QUERY; off by default.
    pub query: bool,
}

impl Default for Methods {
    fn default() -> Self {
        Self { get: true, head: true, post: false, query: false }
    }
}

impl Methods {
    /// Whether requests of this method may be answered from the store.
    #[must_use]
    pub const fn contains(self, method: &Method) -> bool {
        match method {
            Method::Get => self.get,
            Method::Head => self.head,
            Method::Post => self.post,
            Method::Query => self.query,
            _ => false,
        }
    }
}

/// The default of `ttl` and `stale_if_error`, and the bound of what Last-Modified may yield.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_get_and_head_are_cached_by_default() {
        let methods = Methods::default();
        assert!(methods.contains(&Method::Get) && methods.contains(&Method::Head));
        for method in [Method::Post, Method::Query, Method::Put, Method::Extension("get".into())] {
            assert!(!methods.contains(&method), "{method}");
        }
        let with_post = Methods { post: true, ..methods };
        assert!(with_post.contains(&Method::Post) && !with_post.contains(&Method::Query));
    }
}
