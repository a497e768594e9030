//! Endpoint patterns: the allowlist and the offline list.
//!
//! | pattern   | matches                                   | does not match            |
//! |-----------|-------------------------------------------|---------------------------|
//! | `/v1/a`   | `/v1/a`                                   | `/v1/a/`, `/v1/a/x`       |
//! | `/v1/a/*` | `/v1/a/`, `/v1/a/x`, `/v1/a/x/y`          | `/v1/a`, `/v1/ab`         |
//! | `/v1/a*`  | `/v1/a`, `/v1/a/`, `/v1/a/x`              | `/v1/ab`                  |
//! | `/*`, `*` | every path                                |                           |
//!
//! A `*` stands at the end only and always at the border of a segment: the third form, which
//! older files use, never reaches into a segment. Patterns are compared with normalised paths byte
//! for byte, so that one which no normalised path can equal is a fault instead of a silent gap.

use std::fmt;

/// One parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Starts with `/`; for [`Reach::Below`] it ends with `/`, for [`Reach::AtAndBelow`] it does
    /// not.
    path: Box<[u8]>,
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Exact,
    Below,
    AtAndBelow,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The first fault, whose text says what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        if text == "*" {
            return Ok(Self { path: b"/".as_slice().into(), reach: Reach::Below });
        }
        let (path, starred) = match text.strip_suffix('*') {
            Some(path) => (path, true),
            None => (text, false),
        };
        check_path(path)?;
        let reach = match (starred, path.ends_with('/')) {
            (false, _) => Reach::Exact,
            (true, true) => Reach::Below,
            (true, false) => Reach::AtAndBelow,
        };
        Ok(Self { path: path.as_bytes().into(), reach })
    }

    /// Whether the normalised `path` is meant by this pattern.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        match self.reach {
            Reach::Exact => path == &*self.path,
            Reach::Below => path.starts_with(&self.path),
            Reach::AtAndBelow => path
                .strip_prefix(&*self.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")),
        }
    }
}

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFault {
    /// It does not begin with `/`.
    NoLeadingSlash,
    /// A `*` stands before the end.
    StarInside,
    /// It holds `?` or `#`: patterns are about paths.
    QueryOrFragment,
    /// It holds a `.` or `..` segment, which normalisation removes.
    DotSegment,
    /// It holds a byte that a path must write as `%XX`.
    NotUrlText,
    /// It holds a `%` that is not followed by two upper-case hexadecimal digits, or encodes a
    /// byte that normalisation decodes.
    Encoding,
}

impl PatternFault {
    /// The word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoLeadingSlash => "no_leading_slash",
            Self::StarInside => "star_inside",
            Self::QueryOrFragment => "query_or_fragment",
            Self::DotSegment => "dot_segment",
            Self::NotUrlText => "not_url_text",
            Self::Encoding => "encoding",
        }
    }
}

impl fmt::Display for PatternFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoLeadingSlash => "a pattern starts with `/`, for example `/v1/users/*`",
            Self::StarInside => "`*` may only be the last character, for example `/v1/*`",
            Self::QueryOrFragment => "a pattern is a path: leave out `?` and `#` and what follows",
            Self::DotSegment => "write the path without `.` and `..` segments",
            Self::NotUrlText => "write this byte percent-encoded, as it is in a URL",
            Self::Encoding => {
                "`%` needs two upper-case hexadecimal digits; letters, digits and `-._~` are \
                 written plainly"
            }
        })
    }
}

impl std::error::Error for PatternFault {}

/// Whether `path` is one that a normalised request path can equal.
pub(crate) fn check_path(path: &str) -> Result<(), PatternFault> {
    if !path.starts_with('/') {
        return Err(PatternFault::NoLeadingSlash);
    }
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' => return Err(PatternFault::StarInside),
            b'?' | b'#' => return Err(PatternFault::QueryOrFragment),
            b'%' => {
                let decoded =
                    bytes.next().and_then(hex_value).zip(bytes.next().and_then(hex_value));
                match decoded {
                    Some((high, low)) if !is_unreserved(high << 4 | low) => {}
                    _ => return Err(PatternFault::Encoding),
                }
            }
            _ if is_path_byte(byte) => {}
            _ => return Err(PatternFault::NotUrlText),
        }
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(PatternFault::DotSegment);
    }
    Ok(())
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `pchar` and `/` without `%` and `*` (RFC 3986 section 3.3).
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()+,;=:@".contains(&byte)
}

/// Many patterns, asked at once.
///
/// Cost of a look-up: two binary searches over sorted text, no allocation; one comparison where a
/// pattern allows everything. An empty set matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternSet {
    /// Some pattern is `/*`.
    everything: bool,
    /// Sorted, without doubles.
    exact: Vec<Box<[u8]>>,
    /// Sorted; each ends with `/`; none is a prefix of another. Hence the only one that can be a
    /// prefix of a path is the greatest that is not greater than the path.
    below: Vec<Box<[u8]>>,
}

impl PatternSet {
    /// The set that matches every path: what an absent allowlist means.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, exact: Vec::new(), below: vec![b"/".as_slice().into()] }
    }

    /// The set of these patterns.
    #[must_use]
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let mut set = Self::default();
        for pattern in patterns {
            match pattern.reach {
                Reach::Exact => set.exact.push(pattern.path),
                Reach::Below => set.below.push(pattern.path),
                Reach::AtAndBelow => {
                    let mut below = pattern.path.to_vec();
                    below.push(b'/');
                    set.exact.push(pattern.path);
                    set.below.push(below.into());
                }
            }
        }
        set.exact.sort_unstable();
        set.exact.dedup();
        set.below.sort_unstable();
        // In sorted order a prefix comes right before what it covers.
        set.below.dedup_by(|later, kept| later.starts_with(kept));
        set.everything = set.below.first().is_some_and(|shortest| **shortest == *b"/");
        debug_assert!(set.below.iter().all(|prefix| prefix.ends_with(b"/")));
        set
    }

    /// Whether some pattern matches the normalised `path`.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.everything {
            return true;
        }
        let after = self.below.partition_point(|prefix| **prefix <= *path);
        let candidate = after.checked_sub(1).and_then(|at| self.below.get(at));
        candidate.is_some_and(|prefix| path.starts_with(prefix))
            || self.exact.binary_search_by(|it| (**it).cmp(path)).is_ok()
    }

    /// Whether no path matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.exact.is_empty() && self.below.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(patterns.iter().map(|it| Pattern::parse(it).unwrap()))
    }

    #[test]
    fn a_star_matches_at_the_border_of_a_segment_only() {
        let rows: &[(&str, &str, bool)] = &[
            ("/v1/a", "/v1/a", true),
            ("/v1/a", "/v1/a/", false),
            ("/v1/a", "/v1/a/x", false),
            ("/v1/a", "/v1/A", false),
            ("/v1/a/", "/v1/a", false),
            ("/v1/a/", "/v1/a/", true),
            ("/v1/a/*", "/v1/a/", true),
            ("/v1/a/*", "/v1/a/x", true),
            ("/v1/a/*", "/v1/a/x/y", true),
            ("/v1/a/*", "/v1/a//", true),
            ("/v1/a/*", "/v1/a", false),
            ("/v1/a/*", "/v1/ab", false),
            ("/v1/a/*", "/v1/ab/c", false),
            ("/v1/a/*", "/v1/a%2Fx", false),
            ("/v1/a*", "/v1/a", true),
            ("/v1/a*", "/v1/a/x", true),
            ("/v1/a*", "/v1/ab", false),
            ("/*", "/", true),
            ("/*", "/anything/at/all", true),
            ("*", "/", true),
            ("/", "/", true),
            ("/", "/x", false),
            ("/a%20b/*", "/a%20b/c", true),
        ];
        for &(pattern, path, expected) in rows {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(path.as_bytes()), expected, "{pattern} {path}");
            assert_eq!(set(&[pattern]).matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_could_never_match_is_a_fault() {
        let rows: &[(&str, PatternFault)] = &[
            ("", PatternFault::NoLeadingSlash),
            ("v1/a", PatternFault::NoLeadingSlash),
            ("**", PatternFault::NoLeadingSlash),
            ("https://a/b", PatternFault::NoLeadingSlash),
            ("/v1/*/x", PatternFault::StarInside),
            ("/v1/**", PatternFault::StarInside),
            ("/v1?x=1", PatternFault::QueryOrFragment),
            ("/v1#x", PatternFault::QueryOrFragment),
            ("/v1/../x", PatternFault::DotSegment),
            ("/v1/./*", PatternFault::DotSegment),
            ("/..", PatternFault::DotSegment),
            ("/v1/a b", PatternFault::NotUrlText),
            ("/v1/\u{e9}", PatternFault::NotUrlText),
            ("/v1\\a", PatternFault::NotUrlText),
            ("/v1/\0", PatternFault::NotUrlText),
            ("/v1/%", PatternFault::Encoding),
            ("/v1/%4", PatternFault::Encoding),
            ("/v1/%zz", PatternFault::Encoding),
            ("/v1/%7E", PatternFault::Encoding),
            ("/v1/%e2", PatternFault::Encoding),
        ];
        for &(text, fault) in rows {
            assert_eq!(Pattern::parse(text), Err(fault), "{text}");
            assert!(!fault.to_string().is_empty() && !fault.as_str().is_empty());
        }
    }

    #[test]
    fn an_empty_set_allows_nothing_and_the_default_everything() {
        assert!(!set(&[]).matches(b"/"));
        assert!(set(&[]).is_empty());
        assert!(PatternSet::everything().matches(b"/x"));
        assert!(set(&["/a", "/*", "/b/*"]).matches(b"/zzz"));
        assert_eq!(PatternSet::everything(), set(&["/*"]));
    }

    proptest! {
        #[test]
        fn a_set_matches_what_one_of_its_patterns_matches(
            patterns in prop::collection::vec("(/[ab]{0,2}){1,3}\\*?", 0..8),
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let parsed: Vec<_> = patterns.iter().map(|it| Pattern::parse(it).unwrap()).collect();
            let expected = parsed.iter().any(|it| it.matches(path.as_bytes()));
            prop_assert_eq!(PatternSet::new(parsed).matches(path.as_bytes()), expected);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = Pattern::parse(&text);
        }
    }
}
