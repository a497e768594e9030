//! What of a request makes its primary key: one place for the hit path, the slow path, purges and
//! explanations.

use std::borrow::Cow;

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
