//! Owned message heads: what the slow path carries around.

use crate::http::fields::Fields;
use crate::http::method::Method;

/// The version of HTTP that a message came in; later 1.x count as 1.1 (RFC 9110 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// No chunked coding, closed after the answer unless asked otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// A request's head after parsing and normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The normalised path; starts with `/`.
    pub path: String,
    /// What follows `?`, without it; `None` when there is no `?`.
    pub query: Option<String>,
    /// The authority the client asked for: of the absolute-form target, else the Host field.
    pub authority: String,
    /// The version the client spoke.
    pub version: Version,
    /// The fields as received.
    pub fields: Fields,
}

/// A final response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 200 to 999.
    pub status: u16,
    /// The version the origin spoke.
    pub version: Version,
    /// The fields as received.
    pub fields: Fields,
}
