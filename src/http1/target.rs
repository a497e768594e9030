//! The four forms of a request target (RFC 9112 section 3.2).

use memchr::memchr;

use crate::http::Method;
use crate::http1::authority::Authority;
use crate::http1::fault::RequestFault;

/// A request target as the client wrote it: nothing is decoded, no dot segment removed.
///
/// All bytes are visible ASCII without `#`. Characters that RFC 3986 wants encoded (`|`, `{`, `"`,
/// `\` and the like) pass here; the route decides about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'b> {
    /// RFC 9112 section 3.2.1.
    Origin {
        /// Starts with `/`.
        path: &'b [u8],
        /// What follows the first `?`.
        query: Option<&'b [u8]>,
    },
    /// RFC 9112 section 3.2.2.
    Absolute {
        /// `http` or `https`; no other scheme is accepted.
        scheme: Scheme,
        /// A valid `host [":" port]` without user information.
        authority: &'b [u8],
        /// Starts with `/`; `/` when the target has no path.
        path: &'b [u8],
        /// What follows the first `?`.
        query: Option<&'b [u8]>,
    },
    /// RFC 9112 section 3.2.3: `host ":" port`, for CONNECT and only for it.
    Authority(&'b [u8]),
    /// RFC 9112 section 3.2.4: for OPTIONS and only for it. Also an absolute-form target of OPTIONS
    /// with neither path nor query, which means the same.
    Asterisk,
}

/// The scheme of an absolute-form target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The port of an authority that names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl<'b> Target<'b> {
    /// The path, where the form has one.
    #[must_use]
    pub const fn path(&self) -> Option<&'b [u8]> {
        match self {
            Self::Origin { path, .. } | Self::Absolute { path, .. } => Some(path),
            Self::Authority(_) | Self::Asterisk => None,
        }
    }

    /// What follows the first `?`, where the form can have it.
    #[must_use]
    pub const fn query(&self) -> Option<&'b [u8]> {
        match self {
            Self::Origin { query, .. } | Self::Absolute { query, .. } => *query,
            Self::Authority(_) | Self::Asterisk => None,
        }
    }
}

/// A target and the authority that it names, if any.
pub(super) struct Parsed<'b> {
    pub(super) target: Target<'b>,
    /// Valid.
    pub(super) authority: Option<(&'b [u8], Scheme)>,
}

/// Reads a target of visible ASCII bytes without `#` that is not in origin-form.
pub(super) fn parse_target<'b>(
    method: &Method,
    text: &'b [u8],
) -> Result<Parsed<'b>, RequestFault> {
    debug_assert!(text.iter().all(|b| b.is_ascii_graphic() && *b != b'#'));
    if *method == Method::Connect {
        let named = Authority::parse(text).filter(Authority::has_port);
        named.ok_or(RequestFault::BadTargetForm)?;
        let authority = Some((text, Scheme::Https));
        return Ok(Parsed { target: Target::Authority(text), authority });
    }
    match text {
        b"*" if *method == Method::Options => {
            Ok(Parsed { target: Target::Asterisk, authority: None })
        }
        _ => parse_absolute(method, text),
    }
}

fn parse_absolute<'b>(method: &Method, text: &'b [u8]) -> Result<Parsed<'b>, RequestFault> {
    let colon = memchr(b':', text).ok_or(RequestFault::BadTargetForm)?;
    let (scheme, rest) = text.split_at_checked(colon).ok_or(RequestFault::BadTargetForm)?;
    let rest = rest.strip_prefix(b"://").ok_or(RequestFault::BadTargetForm)?;
    let scheme = if scheme.eq_ignore_ascii_case(b"http") {
        Scheme::Http
    } else if scheme.eq_ignore_ascii_case(b"https") {
        Scheme::Https
    } else {
        return Err(RequestFault::BadScheme);
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).ok_or(RequestFault::BadTargetForm)?;
    if !Authority::is_valid(authority) {
        return Err(RequestFault::BadTargetAuthority);
    }
    let named = Some((authority, scheme));
    if rest.is_empty() && *method == Method::Options {
        return Ok(Parsed { target: Target::Asterisk, authority: named });
    }
    let (path, query) = split_query(rest);
    let path = if path.is_empty() { b"/" } else { path };
    Ok(Parsed { target: Target::Absolute { scheme, authority, path, query }, authority: named })
}

/// Path and query.
#[inline]
pub(super) fn split_query(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'?', text).and_then(|at| text.split_at_checked(at)) {
        Some((path, query)) => (path, query.get(1..)),
        None => (text, None),
    }
}
