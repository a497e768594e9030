//! What of a request makes its primary key: one place for the hit path, the slow path, purges and
//! explanations.

use crate::cache::key::{BodyDigest, Class, KeyWriter, digest};
use crate::http::target::sorted_query;
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
        let query = self.query.filter(|_| !upstream.ignore_query);
        let sorted = query.filter(|_| plan.sort_query).map(sorted_query);
        let query = sorted.as_deref().or(query);
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
