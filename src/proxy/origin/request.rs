//! The request as the origin gets it: which of the client's fields go on, which are ours.

use crate::base::Wall;
use crate::cache::{conditional_request, range_request};
use crate::http::range::Range;
use crate::http::{Fields, Method, RequestHead, hop};
use crate::proxy::plan::Upstream;

/// A request on its way to the origin.
pub struct Outgoing<'a> {
    /// What the client sent; its path and query are those under the API prefix.
    pub head: &'a RequestHead,
    /// Where it goes.
    pub upstream: &'a Upstream,
    /// What goes before the body.
    pub body: OutgoingBody,
    /// The address the client has, after trusted proxies.
    pub client: std::net::IpAddr,
    /// `https` when the client's connection is TLS.
    pub scheme: &'static str,
    /// This exchange's id.
    pub request_id: &'a str,
    /// What becomes of the fields that a cache answers itself.
    pub purpose: Purpose<'a>,
    /// The clock, for dates with two-digit years.
    pub now: Wall,
}

/// The framing of the request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutgoingBody {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked, for the client sent it so.
    Chunked,
}

/// What the answer is wanted for.
#[derive(Clone, Copy)]
pub enum Purpose<'a> {
    /// This client alone: its conditions, ranges and codings go on.
    Pass,
    /// This client, by itself: as it asks, in a coding that the cache can keep.
    Part {
        /// In gzip, if the origin has it; else uncoded.
        gzip: bool,
    },
    /// The cache: the one range that a stored part lacks, or the whole if that has changed
    /// (RFC 9110 section 13.1.5).
    Complete {
        /// The part's fields, with the strong validator that the rest must have too.
        stored: &'a Fields,
        /// What it lacks.
        missing: Range,
        /// Whether the part is in gzip.
        gzip: bool,
    },
    /// The cache: the whole.
    Fill {
        /// What is stored already: its validators make the request conditional.
        stored: Option<&'a Fields>,
        /// In gzip, if the origin has it; else uncoded. The cache makes the other one itself.
        gzip: bool,
    },
}

/// The head as HTTP/1.1 text.
#[must_use]
pub fn request_head(out: &Outgoing<'_>) -> Vec<u8> {
    let mut fields = out.head.fields.clone();
    hop::strip_hop_by_hop(&mut fields);
    fields.retain(|field| !DROPPED.iter().any(|name| field.is(name)));
    if out.head.method == Method::Options {
        count_down(&mut fields);
    }
    if let Some(key) = &out.upstream.api_key {
        fields.replace("X-API-Key", key.expose());
    }
    let coding = |gzip| if gzip { "gzip" } else { "identity" };
    match out.purpose {
        Purpose::Pass => {}
        Purpose::Part { gzip } => fields.replace("Accept-Encoding", coding(gzip)),
        Purpose::Complete { stored, missing, gzip } => {
            fields.retain(|field| !OF_THE_CACHE.iter().any(|name| field.is(name)));
            fields.push("Accept-Encoding", coding(gzip));
            range_request(&mut fields, stored, missing, out.now);
        }
        Purpose::Fill { stored, gzip } => {
            fields.retain(|field| !OF_THE_CACHE.iter().any(|name| field.is(name)));
            fields.push("Accept-Encoding", coding(gzip));
            if let Some(stored) = stored {
                conditional_request(&mut fields, stored, out.now);
            }
        }
    }
    write_head(out, &fields)
}

/// RFC 9110 section 7.6.2; zero was answered here.
fn count_down(fields: &mut Fields) {
    let left = fields.single("Max-Forwards").and_then(crate::http::list::decimal);
    if let Some(left) = left {
        fields.replace("Max-Forwards", left.saturating_sub(1).to_string());
    }
}

fn write_head(out: &Outgoing<'_>, fields: &Fields) -> Vec<u8> {
    let mut text = Vec::with_capacity(fields.as_wire().len() + 512);
    text.extend_from_slice(out.head.method.as_str().as_bytes());
    text.push(b' ');
    out.upstream.push_target(&out.head.path, out.head.query.as_deref(), &mut text);
    text.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    text.extend_from_slice(out.upstream.target.authority().as_bytes());
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(fields.as_wire());
    let mut own = Fields::with_capacity(256);
    own.push("X-Forwarded-For", out.client.to_string());
    own.push("X-Forwarded-Proto", out.scheme);
    // Behind those of the hops before (RFC 9110 section 7.6.3).
    own.push("Via", via(out.head.version));
    own.push("X-Request-Id", out.request_id);
    match out.body {
        OutgoingBody::None => {}
        OutgoingBody::Length(length) => own.push("Content-Length", length.to_string()),
        OutgoingBody::Chunked => own.push("Transfer-Encoding", "chunked"),
    }
    text.extend_from_slice(own.as_wire());
    text.extend_from_slice(b"\r\n");
    text
}

/// The Via member for what came by this version (RFC 9110 section 7.6.3).
#[must_use]
pub const fn via(version: crate::http::Version) -> &'static str {
    match version {
        crate::http::Version::Http10 => "1.0 apiproxyd",
        crate::http::Version::Http11 => "1.1 apiproxyd",
        crate::http::Version::Http2 => "2.0 apiproxyd",
    }
}

/// Never passed on: written anew, or able to change the answer without being in the key.
const DROPPED: &[&str] = &[
    "Host",
    "Content-Length",
    "Expect",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Real-IP",
    "X-Request-Id",
    "X-Original-URL",
    "X-Original-Host",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X-Host",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
];

/// What the cache answers itself, from the whole.
const OF_THE_CACHE: &[&str] = &[
    "If-None-Match",
    "If-Modified-Since",
    "If-Range",
    "Range",
    "Accept-Encoding",
    "Cache-Control",
    "Pragma",
];
