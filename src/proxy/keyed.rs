//! What of a request makes its primary key: one place for the hit path, the slow path, purges and
//! explanations.

use std::borrow::Cow;

use crate::cache::key::{BodyDigest, Class, KeyWriter, digest};
use crate::http::target::{normalise_path, sorted_query};
use crate::proxy::plan::{Plan, Upstream};

/// The parts.
#[derive(Clone, Copy)]
pub struct Keyed<'a> {
    /// The methods that share the response.
    pub class: Class,
    /// The path under the API prefix.
    pub path: &'a [u8],
    /// What follows `?`.
    pub query: Option<&'a [u8]>,
    /// The client's X-API-Key. Part of the key unless the daemon is the upstream's one client.
    pub api_key: Option<&'a [u8]>,
    /// The digest of the body, where it has one.
    pub body: Option<&'a BodyDigest>,
}

impl Keyed<'_> {
    /// Builds the key into `key`. Allocates only to sort a query.
    pub fn write(&self, plan: &Plan, upstream: &Upstream, key: &mut Vec<u8>) {
        let query = keyed_query(plan, upstream, self.query);
        let query = query.as_deref();
        let mut writer = KeyWriter::new(key, self.class, upstream.origin, self.path, query);
        if let Some(api_key) = self.api_key.filter(|_| upstream.api_key.is_none()) {
            writer = writer.credential(&digest(api_key));
        }
        if let Some(body) = self.body {
            writer = writer.body(body);
        }
        let _ = writer.finish();
    }
}

/// The query as it stands in the key: sorted or left out, where the settings say so.
pub fn keyed_query<'q>(
    plan: &Plan,
    upstream: &Upstream,
    query: Option<&'q [u8]>,
) -> Option<Cow<'q, [u8]>> {
    let query = query.filter(|_| !upstream.ignore_query)?;
    Some(if plan.sort_query { sorted_query(query) } else { Cow::Borrowed(query) })
}

/// The path under which the cache knows what Location or Content-Location of an upstream's answer
/// names, in the spelling that keys have: without the base path that the origin puts before it, or
/// without what a client does, the API prefix and that of a route which the upstream doesn't see.
/// `None` for what no request could have asked for.
#[must_use]
pub fn referenced_path(plan: &Plan, upstream: &Upstream, path: &str) -> Option<String> {
    let normal = normalise_path(path.as_bytes(), plan.slashes).ok()?;
    let base = upstream.target.base_path().as_bytes();
    let of_the_origin = normal.strip_prefix(base).filter(|_| !base.is_empty());
    if let Some(inner) = of_the_origin.filter(|it| it.starts_with(b"/")) {
        return text(inner);
    }
    if plan.prefix.as_str().is_empty() {
        return routed(plan, upstream, &normal);
    }
    match plan.prefix.strip(&normal) {
        Some(public) => routed(plan, upstream, public),
        // As the origin would write it.
        None => text(&normal),
    }
}

/// A path that clients use, as the upstream sees it; one that leads to another upstream unchanged.
fn routed(plan: &Plan, upstream: &Upstream, path: &[u8]) -> Option<String> {
    let found = plan.settings.table.resolve(path);
    let own = found.filter(|it| it.route.upstream.0 == upstream.origin);
    text(own.map_or(path, |it| it.path))
}

fn text(path: &[u8]) -> Option<String> {
    String::from_utf8(path.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};

    const CONFIG: &str = r#"{
        "entry_point": "http://one.example/",
        "routes": [
            {"prefix": "/s", "strip_prefix": true, "entry_point": "http://one.example/base"},
            {"prefix": "/p", "strip_prefix": true},
            {"prefix": "/k", "entry_point": "http://two.example/base"}
        ]}"#;

    fn plan(prefix: &str) -> Plan {
        let config =
            CONFIG.replacen('{', &format!("{{\"server\": {{\"api_prefix\": \"{prefix}\"}},"), 1);
        let sources = Sources {
            text: Some(&config),
            environment: &|_| None,
            read_file: &|_| Err("no file".to_owned()),
            home: Some(std::path::Path::new("/home/u")),
            overrides: &[],
        };
        Plan::new(config::parse(&sources).unwrap().settings)
    }

    fn under(plan: &Plan, public: &str) -> u16 {
        plan.settings.table.resolve(public.as_bytes()).unwrap().route.overrides
    }

    /// RFC 9111 section 4.4: Location names the same thing, whoever wrote it.
    #[test]
    fn a_reference_is_known_in_the_origins_and_in_the_clients_form() {
        let plan = plan("/api");
        for (route, path, expected) in [
            // Stripped, before a base path.
            ("/s/x", "/base/new", Some("/new")),
            ("/s/x", "/api/s/new", Some("/new")),
            ("/s/x", "/new", Some("/new")),
            ("/s/x", "/api/s/a/../new", Some("/new")),
            // Stripped, without one.
            ("/p/x", "/api/p/new", Some("/new")),
            ("/p/x", "/new", Some("/new")),
            ("/x", "/api/p/new", Some("/new")),
            // Not stripped.
            ("/k/x", "/base/k/new", Some("/k/new")),
            ("/k/x", "/api/k/new", Some("/k/new")),
            ("/x", "/api/new", Some("/new")),
            ("/x", "/new", Some("/new")),
            // Another upstream's, and no path at all.
            ("/x", "/api/k/new", Some("/k/new")),
            ("/s/x", "/based/new", Some("/based/new")),
            ("/s/x", "/%zz", None),
        ] {
            let upstream = plan.upstream(under(&plan, route));
            let found = referenced_path(&plan, upstream, path);
            assert_eq!(found.as_deref(), expected, "{path} in an answer for {route}");
        }
    }

    #[test]
    fn without_an_api_prefix_the_route_is_taken_off_too() {
        let plan = plan("");
        for (route, path, expected) in [
            ("/s/x", "/s/new", "/new"),
            ("/s/x", "/base/new", "/new"),
            ("/p/x", "/p/new", "/new"),
            ("/p/x", "/new", "/new"),
            ("/x", "/new", "/new"),
        ] {
            let upstream = plan.upstream(under(&plan, route));
            let found = referenced_path(&plan, upstream, path);
            assert_eq!(found.as_deref(), Some(expected), "{path} in an answer for {route}");
        }
    }
}
