//! Entity tags (RFC 9110 section 8.8.3) and the lists of them in If-None-Match and If-Match.
//!
//! An opaque tag has no escapes: a backslash is one of its characters, and so is a comma. Hence a
//! scanner of its own rather than `list::members`. Members that are no entity tag are skipped: they
//! match nothing, and those beside them still count.

use memchr::memchr;

use crate::http::fields::Fields;
use crate::http::list::trim;

/// An entity tag, borrowed from the field that holds it.
///
/// Not comparable by `==` on purpose: there are two comparisons, and picking the wrong one serves
/// parts of different representations as one.
#[derive(Clone, Copy, Debug)]
pub struct EntityTag<'a> {
    /// Whether it is marked `W/`: equivalent, but perhaps not equal byte by byte.
    pub weak: bool,
    /// What stands between the quotes; may be empty.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads one entity tag and nothing beside it; `None` for unquoted ones and `w/`.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::take(text)?;
        rest.is_empty().then_some(tag)
    }

    /// Equal and both strong (RFC 9110 section 8.8.3.2): the same bytes.
    #[must_use]
    pub fn strong_eq(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Equal, weak or not (RFC 9110 section 8.8.3.2): good enough instead of each other.
    #[must_use]
    pub fn weak_eq(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Appends the tag as it stands in a field.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.weak { b"W/\"" } else { b"\"" });
        out.extend_from_slice(self.opaque);
        out.push(b'"');
    }

    /// The tag at the start of `text`, and what follows it.
    fn take(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let (opaque, rest) = inner.split_at_checked(memchr(b'"', inner)?)?;
        let valid = opaque.iter().all(|byte| is_tag_byte(*byte));
        valid.then_some((Self { weak, opaque }, rest.get(1..)?))
    }
}

/// `*`, or entity tags: the value of If-None-Match or If-Match over all its lines.
#[derive(Clone, Debug)]
pub enum EntityTagList<'a, L> {
    /// `*`: whatever representation there is. Only when it stands alone.
    Any,
    /// The valid tags, in order; none at all if every member was malformed.
    Tags(EntityTags<'a, L>),
}

impl<'a, L: Iterator<Item = &'a [u8]> + Clone> EntityTagList<'a, L> {
    /// Reads the lines of one field; `None` when there is no line.
    #[must_use]
    pub fn from_lines(lines: L) -> Option<Self> {
        let mut ahead = lines.clone();
        let first = ahead.next()?;
        if trim(first) == b"*" && ahead.next().is_none() {
            return Some(Self::Any);
        }
        Some(Self::Tags(EntityTags { lines, rest: b"" }))
    }

    /// Whether the list holds a tag weakly equal to that of the stored representation, or is `*`
    /// (which also matches a representation without tag; RFC 9110 section 13.1.2).
    #[must_use]
    pub fn matches_weakly(self, stored: Option<&EntityTag<'_>>) -> bool {
        match (self, stored) {
            (Self::Any, _) => true,
            (Self::Tags(mut tags), Some(stored)) => tags.any(|tag| tag.weak_eq(stored)),
            (Self::Tags(_), None) => false,
        }
    }
}

/// The valid entity tags of a field, in order.
#[derive(Clone, Debug)]
pub struct EntityTags<'a, L> {
    lines: L,
    /// What is left of the current line.
    rest: &'a [u8],
}

impl<'a, L: Iterator<Item = &'a [u8]>> Iterator for EntityTags<'a, L> {
    type Item = EntityTag<'a>;

    fn next(&mut self) -> Option<EntityTag<'a>> {
        loop {
            while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
                self.rest = rest;
            }
            if self.rest.is_empty() {
                self.rest = self.lines.next()?;
                continue;
            }
            if let Some((tag, rest)) = EntityTag::take(self.rest) {
                let rest = trim(rest);
                if matches!(rest, [] | [b',', ..]) {
                    self.rest = rest;
                    return Some(tag);
                }
            }
            let comma = memchr(b',', self.rest);
            self.rest = comma.and_then(|at| self.rest.get(at..)).unwrap_or_default();
        }
    }
}

/// Whether the request's If-None-Match names the stored tag (weak comparison) or is `*`; false
/// when the field is absent.
#[must_use]
pub fn if_none_match_matches(request: &Fields, stored: Option<&EntityTag<'_>>) -> bool {
    if_none_match_lines_match(request.all("If-None-Match"), stored)
}

/// As [`if_none_match_matches`], for a caller that holds the field's lines but no [`Fields`].
#[must_use]
pub fn if_none_match_lines_match<'a>(
    lines: impl Iterator<Item = &'a [u8]> + Clone,
    stored: Option<&EntityTag<'_>>,
) -> bool {
    EntityTagList::from_lines(lines).is_some_and(|list| list.matches_weakly(stored))
}

/// `etagc`
const fn is_tag_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(text: &str) -> Option<(bool, &str)> {
        let tag = EntityTag::parse(text.as_bytes())?;
        Some((tag.weak, std::str::from_utf8(tag.opaque).unwrap()))
    }

    #[test]
    fn a_tag_is_quoted_and_perhaps_weak() {
        let rows = [
            ("\"a\"", Some((false, "a"))),
            ("W/\"a\"", Some((true, "a"))),
            ("\"\"", Some((false, ""))),
            ("\"a,b\"", Some((false, "a,b"))),
            // No escapes (section 8.8.3): the backslash is part of the tag.
            ("\"a\\\"", Some((false, "a\\"))),
            ("\"\u{e9}\"", Some((false, "\u{e9}"))),
            ("w/\"a\"", None),
            ("W/a", None),
            ("W/ \"a\"", None),
            ("a", None),
            ("", None),
            ("*", None),
            ("\"", None),
            ("\"a", None),
            ("a\"", None),
            ("\"a\"b", None),
            ("\"a\" ", None),
            ("\"a b\"", None),
            ("\"a\u{7f}\"", None),
            ("\"a\", \"b\"", None),
        ];
        for (text, expected) in rows {
            assert_eq!(tag(text), expected, "{text}");
        }
    }

    #[test]
    fn comparison_follows_the_table_of_section_8_8_3_2() {
        // (one, other, strong, weak)
        let rows = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
            ("\"1\"", "\"2\"", false, false),
            ("\"a\"", "\"A\"", false, false),
        ];
        for (one, other, strong, weak) in rows {
            let a = EntityTag::parse(one.as_bytes()).unwrap();
            let b = EntityTag::parse(other.as_bytes()).unwrap();
            assert_eq!((a.strong_eq(&b), a.weak_eq(&b)), (strong, weak), "{one} {other}");
            assert_eq!((b.strong_eq(&a), b.weak_eq(&a)), (strong, weak), "{other} {one}");
        }
    }

    fn matches(lines: &[&str], stored: Option<&str>) -> bool {
        let mut fields = Fields::new();
        for line in lines {
            fields.push("if-none-match", line);
        }
        let stored = stored.map(|text| EntityTag::parse(text.as_bytes()).unwrap());
        if_none_match_matches(&fields, stored.as_ref())
    }

    #[test]
    fn if_none_match_compares_weakly_over_all_lines() {
        let stored = Some("\"b\"");
        let rows: &[(&[&str], bool)] = &[
            (&[], false),
            (&[""], false),
            (&["*"], true),
            (&["\"b\""], true),
            (&["W/\"b\""], true),
            (&["\"a\", \"b\""], true),
            (&["\"a\",\"b\",\"c\""], true),
            (&[" ,, \"a\" ,\t, \"b\" ,"], true),
            (&["\"a\"", "\"b\""], true),
            (&["\"a\"", "\"c\""], false),
            // Malformed members match nothing, and hide nothing.
            (&["b"], false),
            (&["b, \"b\""], true),
            (&["\"a\"x, \"b\""], true),
            (&["\"b\"x"], false),
            (&["w/\"b\""], false),
            (&["\"b"], false),
            (&["\"a, \"b\""], true),
            (&["\"a\" \"b\""], false),
            // A star is no member of a list.
            (&["*, \"a\""], false),
            (&["\"a\", *"], false),
            (&["*", "*"], false),
            (&["\"*\""], false),
            (&["\"a,b\""], false),
        ];
        for (lines, expected) in rows {
            assert_eq!(matches(lines, stored), *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_representation_without_tag_matches_the_star_only() {
        assert!(matches(&["*"], None));
        assert!(!matches(&["\"\""], None));
        assert!(matches(&["\"\""], Some("\"\"")));
    }

    proptest! {
        #[test]
        fn written_tags_read_back(weak in any::<bool>(), opaque in "[!#-~]{0,12}") {
            let mut text = Vec::new();
            EntityTag { weak, opaque: opaque.as_bytes() }.write_to(&mut text);
            let read = EntityTag::parse(&text).unwrap();
            prop_assert_eq!((read.weak, read.opaque), (weak, opaque.as_bytes()));
        }

        #[test]
        fn every_member_of_a_valid_list_matches(
            tags in prop::collection::vec("(W/)?\"[!#-~]{0,5}\"", 1..6),
            separator in "[ \t]{0,2},[ ,]{0,2}", lines in 1_usize..4,
        ) {
            let mut fields = Fields::new();
            for chunk in tags.chunks(tags.len().div_ceil(lines)) {
                fields.push("If-None-Match", chunk.join(&separator));
            }
            for tag in &tags {
                let stored = EntityTag::parse(tag.as_bytes()).unwrap();
                prop_assert!(if_none_match_matches(&fields, Some(&stored)));
            }
            let other = EntityTag { weak: false, opaque: b"longer than any" };
            prop_assert!(!if_none_match_matches(&fields, Some(&other)));
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_loop(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..4),
            tagged in r#"[W/",* a]{0,20}"#,
        ) {
            let lines = lines.iter().map(Vec::as_slice).chain([tagged.as_bytes()]);
            let bytes: usize = lines.clone().map(<[u8]>::len).sum();
            if let Some(EntityTagList::Tags(tags)) = EntityTagList::from_lines(lines) {
                prop_assert!(tags.count() <= bytes);
            }
        }
    }
}
