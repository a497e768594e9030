//! The request as the origin gets it: which of the client's fields go on, which are ours.

use std::net::IpAddr;

use crate::base::Wall;
use crate::cache::{conditional_request, range_request};
use crate::http::fields::Field;
use crate::http::range::Range;
use crate::http::untrusted::{dashed, is_untrusted};
use crate::http::{Fields, Method, RequestHead, hop, trace};
use crate::proxy::error::Fault;
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
    pub client: IpAddr,
    /// `https` where the client's connection is TLS, by what is known or was said by who may.
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

/// A head that is ready to be sent.
pub struct OutgoingHead<'a> {
    head: &'a RequestHead,
    upstream: &'a Upstream,
    /// The framing of what follows.
    pub body: OutgoingBody,
    /// Without Host and, for chunks, without Transfer-Encoding: those are for HTTP/1.1.
    fields: Fields,
}

impl<'a> Outgoing<'a> {
    /// The head of this request.
    #[must_use]
    pub fn head(&self) -> OutgoingHead<'a> {
        let (head, upstream, body) = (self.head, self.upstream, self.body);
        OutgoingHead { head, upstream, body, fields: request_fields(self) }
    }
}

impl OutgoingHead<'_> {
    /// As HTTP/1.1 text.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        let fields = self.fields.as_wire();
        let mut text = Vec::with_capacity(fields.len() + self.head.path.len() + OWN_BYTES);
        text.extend_from_slice(self.head.method.as_str().as_bytes());
        text.push(b' ');
        self.push_target(&mut text);
        text.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        text.extend_from_slice(self.upstream.target.authority().as_bytes());
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(fields);
        if self.body == OutgoingBody::Chunked {
            text.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text
    }

    /// As a request of the `h2` crate.
    ///
    /// # Errors
    /// [`Fault::Internal`]: what was let through before is no HTTP for that crate.
    pub fn to_http2(&self) -> Result<::http::Request<()>, Fault> {
        let mut target = Vec::new();
        self.push_target(&mut target);
        let uri = ::http::Uri::builder()
            .scheme(self.upstream.target.scheme().as_str())
            .authority(self.upstream.target.authority())
            .path_and_query(target)
            .build();
        let mut request = ::http::Request::new(());
        *request.uri_mut() = uri.map_err(|_| Fault::Internal)?;
        *request.version_mut() = ::http::Version::HTTP_2;
        let method = ::http::Method::from_bytes(self.head.method.as_str().as_bytes());
        *request.method_mut() = method.map_err(|_| Fault::Internal)?;
        for field in self.fields.iter() {
            let name = ::http::HeaderName::from_bytes(field.name).map_err(|_| Fault::Internal)?;
            let value = ::http::HeaderValue::from_bytes(field.value);
            request.headers_mut().append(name, value.map_err(|_| Fault::Internal)?);
        }
        Ok(request)
    }

    fn push_target(&self, text: &mut Vec<u8>) {
        self.upstream.push_target(&self.head.path, self.head.query.as_deref(), text);
    }
}

/// The fields that go on, and ours.
fn request_fields(out: &Outgoing<'_>) -> Fields {
    let ending = hop::Ending::of(&out.head.fields);
    let of_the_cache: &[&str] = match out.purpose {
        Purpose::Pass => &[],
        Purpose::Part { .. } => &["Accept-Encoding"],
        Purpose::Fill { .. } | Purpose::Complete { .. } => OF_THE_CACHE,
    };
    let has_key = out.upstream.api_key.is_some();
    let goes_on = |field: &Field<'_>| {
        // As an origin reads it that takes `_` for `-`.
        let name = dashed(field.name);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // One by another spelling was neither checked nor is it in the cache key.
        let is_key = is("X-API-Key") && (has_key || !field.is("X-API-Key"));
        let dropped = |names: &[&str]| names.iter().any(|it| is(it));
        !is_key
            && !dropped(WRITTEN_ANEW)
            && !dropped(of_the_cache)
            && !is_untrusted(&name)
            && !ending.has(&name)
    };
    let mut fields = Fields::with_capacity(out.head.fields.as_wire().len() + OWN_BYTES);
    for field in out.head.fields.iter().filter(goes_on) {
        fields.push(field.name, field.value);
    }
    trace::drop_invalid(&mut fields);
    if out.head.method == Method::Options {
        count_down(&mut fields);
    }
    if let Some(key) = &out.upstream.api_key {
        fields.push("X-API-Key", key.expose());
    }
    let coding = |gzip| if gzip { "gzip" } else { "identity" };
    match out.purpose {
        Purpose::Pass => {}
        Purpose::Part { gzip } => fields.push("Accept-Encoding", coding(gzip)),
        Purpose::Complete { stored, missing, gzip } => {
            fields.push("Accept-Encoding", coding(gzip));
            range_request(&mut fields, stored, missing, out.now);
        }
        Purpose::Fill { stored, gzip } => {
            fields.push("Accept-Encoding", coding(gzip));
            if let Some(stored) = stored {
                conditional_request(&mut fields, stored, out.now);
            }
        }
    }
    push_own(out, &mut fields);
    fields
}

/// RFC 9110 section 7.6.2; zero was answered here.
fn count_down(fields: &mut Fields) {
    let left = fields.single("Max-Forwards").and_then(crate::http::list::decimal);
    if let Some(left) = left {
        fields.replace("Max-Forwards", left.saturating_sub(1).to_string());
    }
}

fn push_own(out: &Outgoing<'_>, fields: &mut Fields) {
    fields.extend_with(|text| {
        text.extend_from_slice(b"X-Forwarded-For: ");
        push_address(out.client, text);
        text.extend_from_slice(b"\r\n");
    });
    fields.push("X-Forwarded-Proto", out.scheme);
    // Behind those of the hops before (RFC 9110 section 7.6.3).
    fields.push("Via", via(out.head.version));
    fields.push("X-Request-Id", out.request_id);
    if let OutgoingBody::Length(length) = out.body {
        fields.push("Content-Length", length.to_string());
    }
}

/// Appends an address as text, IPv4 without the formatter's detours.
fn push_address(address: IpAddr, text: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                text.extend_from_slice(if at == 0 { b"" } else { b"." });
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(address) => text.extend_from_slice(address.to_string().as_bytes()),
    }
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

/// Of this hop; beside them go those that no client may write (`http::untrusted`).
const WRITTEN_ANEW: &[&str] = &["Host", "Content-Length", "Expect"];

/// Room for what we add to a head.
const OWN_BYTES: usize = 320;

/// What the cache answers itself, from the whole. The directives of Cache-Control and Pragma are
/// for every cache on the way (RFC 9111 section 5.2); of those who share a fetch, the one that
/// began it sends its own.
const OF_THE_CACHE: &[&str] =
    &["If-None-Match", "If-Modified-Since", "If-Range", "Range", "Accept-Encoding"];
