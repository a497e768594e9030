//! The syntax that field values share (RFC 9110 section 5.6): lists, tokens, quoted strings,
//! parameters, and the delta-seconds of RFC 9111.
//!
//! Everything borrows from the value; only unquoting a string with escapes allocates. Each scan is
//! linear in the value, also for hostile ones.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use crate::http::fields::{Fields, is_token_byte};

/// The members of one list value (`#rule`, RFC 9110 section 5.6.1): split at commas outside quoted
/// strings, without surrounding white space, empty ones dropped.
///
/// A quote that nothing closes quotes nothing, so that a broken argument cannot hide the directives
/// behind it. Not for entity tags: these know no escapes, see `etag`.
#[must_use]
pub const fn members(value: &[u8]) -> Members<'_> {
    Members { pieces: Pieces { rest: Some(value), separator: b',', quoting: true } }
}

/// The members of all fields of that name, in order (RFC 9110 section 5.3).
pub fn field_members<'a>(
    fields: &'a Fields,
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    fields.all(name).flat_map(members)
}

/// The iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    pieces: Pieces<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.pieces.by_ref().map(trim).find(|member| !member.is_empty())
    }
}

/// Cuts a member into what stands before its first `;` and its parameters.
#[must_use]
pub fn split_parameters(member: &[u8]) -> (&[u8], Parameters<'_>) {
    let mut pieces = Pieces { rest: Some(member), separator: b';', quoting: true };
    let head = trim(pieces.next().unwrap_or_default());
    (head, Parameters { pieces })
}

/// The parameters in text that begins with or follows a `;` (RFC 9110 section 5.6.6).
///
/// Empty ones, and those whose name is no token, are left out.
#[must_use]
pub const fn parameters(text: &[u8]) -> Parameters<'_> {
    Parameters { pieces: Pieces { rest: Some(text), separator: b';', quoting: true } }
}

/// The iterator of [`parameters`].
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    pieces: Pieces<'a>,
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Parameter<'a>;

    fn next(&mut self) -> Option<Parameter<'a>> {
        let mut named = self.pieces.by_ref().map(|piece| {
            let (name, value) = name_and_value(piece);
            Parameter { name, value }
        });
        named.find(|parameter| is_token(parameter.name))
    }
}

/// One `name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// A token; compare it without regard to case.
    pub name: &'a [u8],
    /// What follows the `=`, as written; `None` without `=`.
    pub value: Option<&'a [u8]>,
}

impl<'a> Parameter<'a> {
    /// Whether the name is `name`, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value without its quotes; `None` when there is none or it is neither token nor string.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, [u8]>> {
        token_or_quoted(self.value?)
    }
}

/// Cuts `name=value` at the first `=`; surrounding white space goes (RFC 9110 section 5.6.3).
#[must_use]
pub fn name_and_value(member: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(at) = memchr(b'=', member) else { return (trim(member), None) };
    let (name, rest) = member.split_at(at);
    (trim(name), rest.get(1..).map(trim))
}

/// Whether `text` is a token (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// `text` if it is a token.
#[must_use]
pub fn token(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok().filter(|_| is_token(text))
}

/// The content of a quoted string (RFC 9110 section 5.6.4), borrowed when it has no escapes.
///
/// `None` unless `text` is one quoted string from its first to its last byte.
#[must_use]
pub fn unquote(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.iter().any(|byte| !is_string_byte(*byte)) {
        return None;
    }
    if memchr2(b'"', b'\\', inner).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    let mut content = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        content.push(match byte {
            b'"' => return None,
            b'\\' => *bytes.next()?,
            byte => *byte,
        });
    }
    Some(Cow::Owned(content))
}

/// The content of a token or a quoted string, which mean the same (RFC 9110 section 5.6.6).
#[must_use]
pub fn token_or_quoted(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if is_token(text) { Some(Cow::Borrowed(text)) } else { unquote(text) }
}

/// Reads delta-seconds (RFC 9111 section 1.2.2): digits and nothing else.
///
/// A number too large to hold is [`u32::MAX`], 136 years: very long, as the RFC wants it. `None`
/// for the empty text, signs, decimals and quotes; a caller that takes quotes unquotes first.
#[must_use]
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    let number = decimal(text)?;
    Some(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Reads `1*DIGIT`; what does not fit is [`u64::MAX`]. `None` for anything but digits.
#[must_use]
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// Without spaces and tabs at both ends (OWS, RFC 9110 section 5.6.3).
#[must_use]
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Text cut at a separator outside quoted strings.
#[derive(Clone, Debug)]
struct Pieces<'a> {
    /// `None` once the last piece is out.
    rest: Option<&'a [u8]>,
    separator: u8,
    /// Whether a quote may still be closed. Once one is not, no later one is either: reading on
    /// from a later quote pairs the backslashes alike. So the search for an end fails only once.
    quoting: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.take()?;
        let mut from = 0;
        while let Some(found) = text.get(from..).and_then(|tail| self.next_stop(tail)) {
            let at = from + found;
            if text.get(at) == Some(&self.separator) {
                self.rest = text.get(at + 1..);
                return text.get(..at);
            }
            // A quote: behind its end, or only behind itself.
            from = at + 1;
            match text.get(from..).and_then(string_end) {
                Some(end) => from += end + 1,
                None => self.quoting = false,
            }
        }
        Some(text)
    }
}

impl Pieces<'_> {
    fn next_stop(&self, text: &[u8]) -> Option<usize> {
        if self.quoting {
            memchr2(self.separator, b'"', text)
        } else {
            memchr(self.separator, text)
        }
    }
}

/// Where the quote stands that ends the string whose opening quote is just before `text`.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        from = at + 2;
    }
}

/// `qdtext` and what may follow a backslash, together.
const fn is_string_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(value: &str) -> Vec<&str> {
        members(value.as_bytes()).map(|member| std::str::from_utf8(member).unwrap()).collect()
    }

    #[test]
    fn lists_split_at_commas_outside_strings() {
        let rows: &[(&str, &[&str])] = &[
            ("", &[]),
            (" , ,\t,", &[]),
            ("a", &["a"]),
            ("a,b", &["a", "b"]),
            (" a ,\tb\t, , c", &["a", "b", "c"]),
            ("a=\"x, y\", b", &["a=\"x, y\"", "b"]),
            (r#"a="x\", y", b"#, &[r#"a="x\", y""#, "b"]),
            (r#"a="x\\", y"#, &[r#"a="x\\""#, "y"]),
            ("\"\",a", &["\"\"", "a"]),
            // An unclosed quote hides nothing.
            ("a=\"x, no-store", &["a=\"x", "no-store"]),
            (r#"a="x\", no-store, "b\""#, &[r#"a="x\", no-store, "b\""#]),
            (r#"a="x\", no-store"#, &[r#"a="x\""#, "no-store"]),
            ("a=\"x\"\", b", &["a=\"x\"\"", "b"]),
            ("\\,a", &["\\", "a"]),
        ];
        for (value, expected) in rows {
            assert_eq!(split(value), *expected, "{value}");
        }
    }

    #[test]
    fn repeated_fields_are_one_list() {
        let mut fields = Fields::new();
        fields.push("Vary", "a, ,b");
        fields.push("Other", "x");
        fields.push("vary", "c");
        let all: Vec<_> = field_members(&fields, "Vary").collect();
        assert_eq!(all, [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_string_is_unquoted_only_when_it_is_whole() {
        let rows: &[(&str, Option<&str>)] = &[
            ("\"\"", Some("")),
            ("\"a b\"", Some("a b")),
            (r#""a\"b""#, Some("a\"b")),
            (r#""a\\""#, Some("a\\")),
            (r#""\a""#, Some("a")),
            ("\"", None),
            ("", None),
            ("a", None),
            ("\"a", None),
            ("a\"", None),
            ("\"a\"b\"", None),
            (r#""a\""#, None),
            ("\"a\"b", None),
            ("\"\u{1}\"", None),
            ("\"\u{7f}\"", None),
        ];
        for (text, expected) in rows {
            assert_eq!(unquote(text.as_bytes()).as_deref(), expected.map(str::as_bytes), "{text}");
        }
        assert!(matches!(unquote(b"\"plain\""), Some(Cow::Borrowed(b"plain"))));
        assert_eq!(token_or_quoted(b"t").as_deref(), Some(&b"t"[..]));
        assert_eq!(token_or_quoted(b"t t"), None);
    }

    #[test]
    fn parameters_are_named_values() {
        let (head, parameters) =
            split_parameters(br#" text/html ;a=1; B="x;y" ;; c ; d e=1;=2; f = 3"#);
        assert_eq!(head, b"text/html");
        let found: Vec<_> = parameters.collect();
        let names: Vec<_> = found.iter().map(|it| it.name).collect();
        assert_eq!(names, [&b"a"[..], b"B", b"c", b"f"]);
        assert_eq!(found[1].text().as_deref(), Some(&b"x;y"[..]));
        assert!(found[1].is("b"));
        assert_eq!((found[2].value, found[2].text()), (None, None));
        assert_eq!(found[3].value, Some(&b"3"[..]));
        assert_eq!(super::parameters(b";q=0").next().unwrap().value, Some(&b"0"[..]));
    }

    #[test]
    fn delta_seconds_are_digits_and_saturate() {
        let rows = [
            ("0", Some(0)),
            ("10", Some(10)),
            ("007", Some(7)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", Some(u32::MAX)),
            ("99999999999999999999999999", Some(u32::MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1 ", None),
            ("\"1\"", None),
            ("1s", None),
            ("\u{661}", None),
        ];
        for (text, expected) in rows {
            assert_eq!(delta_seconds(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn tokens_are_visible_ascii_without_delimiters() {
        assert_eq!(token(b"max-age"), Some("max-age"));
        for text in ["", "a b", "a=b", "a\u{e9}", "\"a\"", "a,"] {
            assert_eq!(token(text.as_bytes()), None, "{text}");
        }
    }

    /// Character by character, with the end of a string looked up afresh for each quote.
    fn slow_members(value: &[u8]) -> Vec<Vec<u8>> {
        let closes = |from: usize| {
            let mut at = from;
            while at < value.len() {
                match value[at] {
                    b'"' => return Some(at),
                    b'\\' => at += 2,
                    _ => at += 1,
                }
            }
            None
        };
        let (mut out, mut piece, mut at) = (Vec::new(), Vec::new(), 0);
        while at < value.len() {
            match value[at] {
                b',' => out.push(std::mem::take(&mut piece)),
                b'"' => {
                    let end = closes(at + 1).unwrap_or(at);
                    piece.extend_from_slice(&value[at..=end]);
                    at = end;
                }
                byte => piece.push(byte),
            }
            at += 1;
        }
        out.push(piece);
        let trimmed = out.iter().map(|piece| piece.trim_ascii().to_vec());
        trimmed.filter(|piece| !piece.is_empty()).collect()
    }

    proptest! {
        #[test]
        fn members_agree_with_a_slow_reading(value in r#"[ab",\\ \t=]{0,24}"#) {
            let fast: Vec<Vec<u8>> = members(value.as_bytes()).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(fast, slow_members(value.as_bytes()));
        }

        #[test]
        fn any_content_survives_quoting(content in "[ -~\t]{0,20}") {
            let mut text = vec![b'"'];
            for byte in content.bytes() {
                if matches!(byte, b'"' | b'\\') {
                    text.push(b'\\');
                }
                text.push(byte);
            }
            text.push(b'"');
            let unquoted = unquote(&text);
            prop_assert_eq!(unquoted.as_deref(), Some(content.as_bytes()));
            prop_assert_eq!(members(&text).collect::<Vec<_>>(), [&text[..]]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..60)) {
            for member in members(&value) {
                let (_, parameters) = split_parameters(member);
                for parameter in parameters {
                    let _ = parameter.text();
                }
            }
            let _ = (delta_seconds(&value), unquote(&value), token(&value));
        }
    }
}
