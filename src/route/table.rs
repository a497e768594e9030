//! The route table: which upstream answers for a path.

use std::fmt;

use crate::route::prefix::{ApiPrefix, PrefixFault, strip};
use crate::route::upstream::UpstreamId;

/// What happens to a route's prefix on the way to its upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strip {
    /// The upstream sees the whole path. The default.
    #[default]
    Keep,
    /// The upstream sees what follows the prefix.
    Prefix,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Empty for the whole tree; else starts with `/` and does not end with it.
    prefix: Box<[u8]>,
    /// Who answers.
    pub upstream: UpstreamId,
    /// The index of this route's overrides (lifetimes, methods) in the caller's list.
    pub overrides: u16,
    /// What happens to the prefix.
    pub strip: Strip,
}

impl Route {
    /// The prefix without a final `/`; empty for the route that covers everything.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }
}

/// What [`Routes::resolve`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'r, 'p> {
    /// The route.
    pub route: &'r Route,
    /// The path for the upstream, before its base path is put in front.
    pub path: &'p [u8],
}

/// All routes; the longest prefix that ends at the border of a segment wins.
///
/// Cost of a look-up: no allocation; one comparison where there is one route, else a binary search
/// for each segment of the path that is not longer than the longest prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Sorted by prefix, without doubles.
    routes: Vec<Route>,
    prefix_bytes_max: usize,
}

impl Routes {
    /// The table in which one upstream answers for everything.
    #[must_use]
    pub fn single(upstream: UpstreamId, overrides: u16) -> Self {
        let route = Route { prefix: Box::default(), upstream, overrides, strip: Strip::Keep };
        Self { routes: vec![route], prefix_bytes_max: 0 }
    }

    /// Finds the route of a normalised path (API prefix already removed).
    #[must_use]
    pub fn resolve<'r, 'p>(&'r self, path: &'p [u8]) -> Option<Resolved<'r, 'p>> {
        let mut head = path.get(..self.prefix_bytes_max).unwrap_or(path);
        // A prefix may end where `head` was cut only if the path has a border there.
        if !matches!(path.get(head.len()), None | Some(b'/')) {
            head = parent(head);
        }
        loop {
            if let Ok(at) = self.routes.binary_search_by(|route| (*route.prefix).cmp(head)) {
                let route = self.routes.get(at)?;
                return Some(Resolved { route, path: route.upstream_path(path)? });
            }
            if head.is_empty() {
                return None;
            }
            head = parent(head);
        }
    }

    /// The routes in the order of their prefixes.
    #[must_use]
    pub fn as_slice(&self) -> &[Route] {
        &self.routes
    }
}

impl Route {
    fn upstream_path<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        match self.strip {
            Strip::Keep => Some(path),
            Strip::Prefix => strip(&self.prefix, path),
        }
    }
}

/// What stands before the last `/`.
fn parent(path: &[u8]) -> &[u8] {
    let border = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..border).unwrap_or_default()
}

/// Collects routes, refusing doubles.
#[derive(Clone, Debug, Default)]
pub struct RoutesBuilder {
    routes: Vec<Route>,
}

impl RoutesBuilder {
    /// No routes yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Adds a route. `prefix` is `/` or `""` for the one that covers what no other does.
    ///
    /// # Errors
    /// A prefix that is no plain path, or that another route already has.
    pub fn add(
        &mut self,
        prefix: &str,
        upstream: UpstreamId,
        overrides: u16,
        strip: Strip,
    ) -> Result<(), RouteFault> {
        let parsed = ApiPrefix::parse(prefix).map_err(RouteFault::Prefix)?;
        let prefix: Box<[u8]> = parsed.as_str().as_bytes().into();
        if self.routes.iter().any(|route| route.prefix == prefix) {
            return Err(RouteFault::Duplicate);
        }
        self.routes.push(Route { prefix, upstream, overrides, strip });
        Ok(())
    }

    /// The table.
    #[must_use]
    pub fn build(mut self) -> Routes {
        self.routes.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
        let prefix_bytes_max = self.routes.iter().map(|it| it.prefix.len()).max().unwrap_or(0);
        Routes { routes: self.routes, prefix_bytes_max }
    }
}

/// Why a route is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteFault {
    /// The prefix is no plain path.
    Prefix(PrefixFault),
    /// Another route has the same prefix (a final `/` makes no difference).
    Duplicate,
}

impl RouteFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prefix(fault) => fault.as_str(),
            Self::Duplicate => "duplicate_prefix",
        }
    }
}

impl fmt::Display for RouteFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(fault) => fault.fmt(out),
            Self::Duplicate => out.write_str("another route has this prefix: remove one of them"),
        }
    }
}

impl std::error::Error for RouteFault {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(prefixes: &[&str]) -> Routes {
        let mut builder = RoutesBuilder::new();
        for (index, prefix) in prefixes.iter().enumerate() {
            let index = u16::try_from(index).unwrap();
            builder.add(prefix, UpstreamId(index), index, Strip::Keep).unwrap();
        }
        builder.build()
    }

    fn upstream(routes: &Routes, path: &str) -> Option<u16> {
        routes.resolve(path.as_bytes()).map(|it| it.route.upstream.0)
    }

    #[test]
    fn the_longest_prefix_on_a_segment_border_wins() {
        let routes = table(&["/", "/v1", "/v1/users", "/v1/users/admin", "/v2/"]);
        let rows: &[(&str, u16)] = &[
            ("/", 0),
            ("/v", 0),
            ("/v10", 0),
            ("/v1", 1),
            ("/v1/", 1),
            ("/v1/usersx", 1),
            ("/v1/users", 2),
            ("/v1/users/", 2),
            ("/v1/users/7", 2),
            ("/v1/users/administrator", 2),
            ("/v1/users/admin", 3),
            ("/v1/users/admin/keys/that/are/longer/than/every/prefix", 3),
            ("/v2", 4),
            ("/v2/x", 4),
        ];
        for &(path, expected) in rows {
            assert_eq!(upstream(&routes, path), Some(expected), "{path}");
        }
    }

    #[test]
    fn without_a_route_for_the_rest_other_paths_resolve_to_nothing() {
        let routes = table(&["/v1"]);
        assert_eq!(upstream(&routes, "/v2"), None);
        assert_eq!(upstream(&routes, "/"), None);
        assert_eq!(upstream(&Routes::default(), "/"), None);
        assert_eq!(upstream(&Routes::single(UpstreamId(9), 0), "/any"), Some(9));
    }

    #[test]
    fn the_prefix_is_kept_unless_the_route_strips_it() {
        let mut builder = RoutesBuilder::new();
        builder.add("/keep", UpstreamId(0), 0, Strip::Keep).unwrap();
        builder.add("/strip", UpstreamId(1), 0, Strip::Prefix).unwrap();
        let routes = builder.build();
        let rows: &[(&str, &str)] = &[
            ("/keep/x", "/keep/x"),
            ("/keep", "/keep"),
            ("/strip/x", "/x"),
            ("/strip/", "/"),
            ("/strip", "/"),
        ];
        for &(path, expected) in rows {
            let found = routes.resolve(path.as_bytes()).unwrap();
            assert_eq!(found.path, expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn two_routes_with_one_prefix_are_a_fault() {
        let mut builder = RoutesBuilder::new();
        builder.add("/a", UpstreamId(0), 0, Strip::Keep).unwrap();
        let again = builder.add("/a/", UpstreamId(1), 0, Strip::Keep);
        assert_eq!(again, Err(RouteFault::Duplicate));
        let star = builder.add("/b/*", UpstreamId(1), 0, Strip::Keep);
        assert!(matches!(star, Err(RouteFault::Prefix(_))));
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_scan_of_all_routes(
            prefixes in prop::collection::btree_set("(/[ab]{1,2}){0,3}", 0..6),
            path in "(/[ab]{0,2}){1,5}",
        ) {
            let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            let expected = (0..prefixes.len())
                .filter(|at| {
                    let rest = path.strip_prefix(prefixes[*at]);
                    rest.is_some_and(|it| it.is_empty() || it.starts_with('/'))
                })
                .max_by_key(|at| prefixes[*at].len());
            let found = upstream(&table(&prefixes), &path).map(usize::from);
            prop_assert_eq!(found, expected);
        }
    }
}
