//! Invalidation by unsafe methods (RFC 9111 section 4.4), and the one response to POST that
//! fills the cache for GET (RFC 9110 section 9.3.3).

use crate::cache::control::ResponseControl;
use crate::http::{Fields, Method, ResponseHead};

/// Whether this answer makes what is stored for the target invalid: an unsafe method, a non-error
/// status (RFC 9111 section 4.4). Unknown methods are unsafe.
#[must_use]
pub const fn invalidates(method: &Method, status: u16) -> bool {
    !method.is_safe() && status >= 200 && status < 400
}

/// What a request was for, as far as references in its response are resolved against it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The names of the origin: the upstream's authority, and what the client called it.
    pub authorities: &'a [&'a str],
    /// The normalised path.
    pub path: &'a str,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
}

/// A path and query of the same origin, raw: the caller normalises them as it does a request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Starts with `/`; dot segments not yet removed.
    pub path: String,
    /// The query, without its `?`.
    pub query: Option<String>,
}

/// What else is invalid now: Location and Content-Location, where they are of the same origin
/// (RFC 9111 section 4.4: others must not be touched). Relative ones are resolved (RFC 3986
/// section 5.2, except for dot segments).
#[must_use]
pub fn invalidation_targets(target: &Target<'_>, head: &ResponseHead) -> Vec<Reference> {
    let mut found = Vec::new();
    for name in ["Location", "Content-Location"] {
        let reference = head.fields.get(name).and_then(|value| resolve(target, value));
        if let Some(reference) = reference.filter(|reference| !found.contains(reference)) {
            found.push(reference);
        }
    }
    found
}

/// Whether the response to this POST is what a GET of its target would now get: it says so by a
/// Content-Location equal to the target, and states how long (RFC 9110 section 9.3.3). It may then
/// be stored for GET, if `storable(&request.as_get(), ..)`.
#[must_use]
pub fn fills_get(method: &Method, target: &Target<'_>, head: &ResponseHead) -> bool {
    *method == Method::Post
        && head.status == 200
        && states_lifetime(&head.fields)
        && head.fields.get("Content-Location").and_then(|value| resolve(target, value)).is_some_and(
            |reference| reference.path == target.path && reference.query.as_deref() == target.query,
        )
}

fn states_lifetime(fields: &Fields) -> bool {
    let control = ResponseControl::parse(fields);
    let expires = !control.targeted && fields.contains("Expires");
    control.s_maxage.is_some() || control.max_age.is_some() || expires
}

/// Resolves a URI reference against the target; `None` if it is of another origin or no URI.
fn resolve(target: &Target<'_>, value: &[u8]) -> Option<Reference> {
    let text = std::str::from_utf8(value).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let text = text.split('#').next().unwrap_or_default();
    let local = match scheme(text) {
        Some((scheme, rest)) => {
            let rest = rest.strip_prefix("//").filter(|_| is_http(scheme))?;
            of_authority(target, rest)?
        }
        None => match text.strip_prefix("//") {
            Some(rest) => of_authority(target, rest)?,
            None => text,
        },
    };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (local, None),
    };
    let absolute = scheme(text).is_some() || text.starts_with("//");
    Some(match path {
        // Section 5.2.2: an absolute URI without path means the root.
        "" if absolute => Reference { path: "/".to_owned(), query },
        "" => {
            let query = query.or_else(|| target.query.map(str::to_owned));
            Reference { path: target.path.to_owned(), query }
        }
        path if path.starts_with('/') => Reference { path: path.to_owned(), query },
        path => {
            let base = target.path.rsplit_once('/').map_or("", |(base, _)| base);
            Reference { path: format!("{base}/{path}"), query }
        }
    })
}

/// The scheme of an absolute URI, and what follows its colon (RFC 3986 section 3.1).
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let first = scheme.bytes().next()?.is_ascii_alphabetic();
    let valid =
        scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    (first && valid).then_some((scheme, rest))
}

/// The daemon may end TLS in front of a plain origin, or the other way, so that both schemes of
/// a name are one origin here.
fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// What follows the authority, if it is one of the origin's.
fn of_authority<'t>(target: &Target<'_>, text: &'t str) -> Option<&'t str> {
    let end = text.find(['/', '?']).unwrap_or(text.len());
    let (authority, rest) = text.split_at_checked(end)?;
    let bare = without_default_port(authority);
    let same = |known: &&str| without_default_port(known).eq_ignore_ascii_case(bare);
    target.authorities.iter().any(same).then_some(rest)
}

fn without_default_port(authority: &str) -> &str {
    let bare = authority.strip_suffix(":80").or_else(|| authority.strip_suffix(":443"));
    bare.unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Version;

    const TARGET: Target<'_> = Target {
        authorities: &["api.example", "localhost:9002"],
        path: "/v1/items/7",
        query: Some("a=1"),
    };

    fn head(status: u16, lines: &[(&str, &str)]) -> ResponseHead {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name, value);
        }
        ResponseHead { status, version: Version::Http11, fields }
    }

    /// RFC 9111 section 4.4, RFC 9110 section 9.2.1.
    #[test]
    fn an_unsafe_method_invalidates_unless_it_failed() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            for (status, expected) in
                [(200, true), (204, true), (303, true), (399, true), (400, false), (500, false)]
            {
                assert_eq!(invalidates(&method, status), expected, "{method} {status}");
            }
        }
        for method in [Method::Get, Method::Head, Method::Options, Method::Trace, Method::Query] {
            assert!(!invalidates(&method, 200), "{method}");
        }
    }

    /// RFC 9111 section 4.4, RFC 3986 section 5.2.
    #[test]
    fn references_of_the_same_origin_are_found() {
        let cases: &[(&str, Option<(&str, Option<&str>)>)] = &[
            ("/v1/items", Some(("/v1/items", None))),
            ("/v1/items?b=2#top", Some(("/v1/items", Some("b=2")))),
            ("8", Some(("/v1/items/8", None))),
            ("../other?x", Some(("/v1/items/../other", Some("x")))),
            ("", Some(("/v1/items/7", Some("a=1")))),
            ("?c=3", Some(("/v1/items/7", Some("c=3")))),
            ("https://api.example/x", Some(("/x", None))),
            ("HTTP://API.Example:443/x?y", Some(("/x", Some("y")))),
            ("http://localhost:9002", Some(("/", None))),
            ("https://api.example?q", Some(("/", Some("q")))),
            ("//api.example/x", Some(("/x", None))),
            ("a/b:c", Some(("/v1/items/a/b:c", None))),
            // Another origin, or none.
            ("https://other.example/x", None),
            ("https://api.example:8443/x", None),
            ("https://api.example.evil/x", None),
            ("https://user@api.example/x", None),
            ("//other.example/x", None),
            ("ftp://api.example/x", None),
            ("mailto:a@api.example", None),
            ("/with space", None),
        ];
        for (value, expected) in cases {
            let found = invalidation_targets(&TARGET, &head(201, &[("Location", value)]));
            let found = found.first().map(|r| (r.path.as_str(), r.query.as_deref()));
            assert_eq!(found, *expected, "{value:?}");
        }
    }

    #[test]
    fn location_and_content_location_count_both() {
        let both = head(201, &[("Location", "/a"), ("Content-Location", "/b")]);
        assert_eq!(invalidation_targets(&TARGET, &both).len(), 2);
        let same = head(201, &[("Location", "/a"), ("Content-Location", "/a")]);
        assert_eq!(invalidation_targets(&TARGET, &same).len(), 1);
        assert!(invalidation_targets(&TARGET, &head(200, &[])).is_empty());
    }

    /// RFC 9110 section 9.3.3.
    #[test]
    fn a_post_fills_get_only_when_it_says_so_and_for_how_long() {
        const HERE: (&str, &str) = ("Content-Location", "/v1/items/7?a=1");
        let long = ("Cache-Control", "max-age=60");
        let post = Method::Post;
        assert!(fills_get(&post, &TARGET, &head(200, &[HERE, long])));
        assert!(fills_get(&post, &TARGET, &head(200, &[("Content-Location", ""), long])));
        assert!(!fills_get(&Method::Put, &TARGET, &head(200, &[HERE, long])));
        assert!(!fills_get(&post, &TARGET, &head(201, &[HERE, long])));
        assert!(!fills_get(&post, &TARGET, &head(200, &[HERE])));
        assert!(!fills_get(&post, &TARGET, &head(200, &[long])));
        assert!(!fills_get(&post, &TARGET, &head(200, &[("Content-Location", "8"), long])));
    }
}
