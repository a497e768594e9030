//! The API prefix (`server.api_prefix`): what the daemon puts before the upstream's paths.

use crate::route::pattern::{PatternFault, check_path};

/// The prefix under which upstream paths are served; default `/api`, `""` for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPrefix {
    /// Empty, or starts with `/` and does not end with it.
    text: Box<str>,
}

impl ApiPrefix {
    /// Parses `/api`, `/api/` (the same) or `""` and `/` (no prefix).
    ///
    /// # Errors
    /// What is wrong with it as a path.
    pub fn parse(text: &str) -> Result<Self, PrefixFault> {
        let trimmed = text.trim_end_matches('/');
        if !trimmed.is_empty() {
            check_path(trimmed).map_err(PrefixFault)?;
        }
        Ok(Self { text: trimmed.into() })
    }

    /// The path for the upstream; `None` when `path` is not under the prefix.
    ///
    /// `/api` and `/api/` become `/`, `/api/x` becomes `/x`, `/apix` is not under `/api`.
    #[must_use]
    pub fn strip<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        strip(self.text.as_bytes(), path)
    }

    /// The prefix without a final `/`; empty for none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Default for ApiPrefix {
    fn default() -> Self {
        Self { text: "/api".into() }
    }
}

/// Why a prefix is refused: the same rules as for patterns, and no `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixFault(
    /// What is wrong with the path.
    pub PatternFault,
);

impl PrefixFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0.as_str()
    }
}

impl std::fmt::Display for PrefixFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            PatternFault::StarInside => {
                out.write_str("a prefix has no `*`: it covers all below it")
            }
            PatternFault::NoLeadingSlash => out.write_str("a prefix starts with `/`, as in `/v1`"),
            fault => fault.fmt(out),
        }
    }
}

impl std::error::Error for PrefixFault {}

/// Removes `prefix` (without final `/`) where it ends at the border of a segment.
pub(super) fn strip<'p>(prefix: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(prefix)? {
        [] => Some(b"/"),
        rest @ [b'/', ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_ends_at_the_border_of_a_segment() {
        let rows: &[(&str, &str, Option<&str>)] = &[
            ("/api", "/api", Some("/")),
            ("/api", "/api/", Some("/")),
            ("/api", "/api/v1/x", Some("/v1/x")),
            ("/api", "/api//x", Some("//x")),
            ("/api", "/apix", None),
            ("/api", "/ap", None),
            ("/api", "/API/x", None),
            ("/api", "/", None),
            ("/api/", "/api/x", Some("/x")),
            ("/a/b", "/a/b/c", Some("/c")),
            ("", "/x", Some("/x")),
            ("/", "/x", Some("/x")),
            ("", "/", Some("/")),
        ];
        for &(prefix, path, expected) in rows {
            let parsed = ApiPrefix::parse(prefix).unwrap();
            let expected = expected.map(str::as_bytes);
            assert_eq!(parsed.strip(path.as_bytes()), expected, "{prefix} {path}");
        }
        assert_eq!(ApiPrefix::default(), ApiPrefix::parse("/api").unwrap());
    }

    #[test]
    fn a_prefix_that_is_no_plain_path_is_a_fault() {
        for text in ["api", "/api/*", "/a/../b", "/a?b", "/a b"] {
            let fault = ApiPrefix::parse(text).unwrap_err();
            assert!(!fault.to_string().is_empty(), "{text}");
        }
    }
}
