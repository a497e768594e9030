//! Media types (RFC 9110 section 8.3.1), and what this daemon wants to know of one.

use std::borrow::Cow;

use crate::http::list::{Parameters, is_token, split_parameters};

/// A media type, borrowed from the field that holds it. Names compare without regard to case.
#[derive(Clone, Debug)]
pub struct MediaType<'a> {
    /// The top-level type: `text` of `text/html`. A token.
    pub kind: &'a [u8],
    /// The subtype: `html` of `text/html`. A token.
    pub subtype: &'a [u8],
    parameters: Parameters<'a>,
}

impl<'a> MediaType<'a> {
    /// Reads the value of a Content-Type field, or a member of an Accept field.
    ///
    /// `None` unless it begins with `token/token`; parameters that are malformed are left out.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (name, parameters) = split_parameters(value);
        let slash = memchr::memchr(b'/', name)?;
        let (kind, subtype) = (name.get(..slash)?, name.get(slash + 1..)?);
        let valid = is_token(kind) && is_token(subtype);
        valid.then_some(Self { kind, subtype, parameters })
    }

    /// Whether it is `kind/subtype`, whatever the parameters.
    #[must_use]
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind.as_bytes())
            && self.subtype.eq_ignore_ascii_case(subtype.as_bytes())
    }

    /// The parameters in order.
    #[must_use]
    pub fn parameters(&self) -> Parameters<'a> {
        self.parameters.clone()
    }

    /// The content of the first parameter of that name, without quotes.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.parameters().find(|parameter| parameter.is(name))?.text()
    }

    /// Whether the content is JSON: `application/json`, or any type with the suffix `+json`
    /// (RFC 6839 section 3.1).
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.is("application", "json") || self.has_suffix(b"+json")
    }

    /// Whether gzip is likely to pay: text and the usual structured formats, but nothing that is
    /// compressed in itself. Not `text/event-stream`, whose events must not wait in a compressor.
    #[must_use]
    pub fn is_compressible(&self) -> bool {
        if self.kind.eq_ignore_ascii_case(b"text") {
            return !self.subtype.eq_ignore_ascii_case(b"event-stream");
        }
        let listed = COMPRESSIBLE.iter().any(|(kind, subtype)| self.is(kind, subtype));
        listed || [&b"+json"[..], b"+xml", b"+text", b"+yaml"].iter().any(|it| self.has_suffix(it))
    }

    fn has_suffix(&self, suffix: &[u8]) -> bool {
        let start = self.subtype.len().checked_sub(suffix.len()).filter(|start| *start > 0);
        let end = start.and_then(|start| self.subtype.get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    }
}

/// Besides `text/*` and the structured suffixes.
const COMPRESSIBLE: [(&str, &str); 22] = [
    ("application", "json"),
    ("application", "javascript"),
    ("application", "xml"),
    ("application", "wasm"),
    ("application", "x-ndjson"),
    ("application", "jsonl"),
    ("application", "json-seq"),
    ("application", "yaml"),
    ("application", "x-yaml"),
    ("application", "toml"),
    ("application", "graphql"),
    ("application", "sql"),
    ("application", "ecmascript"),
    ("application", "x-javascript"),
    ("application", "x-www-form-urlencoded"),
    ("application", "rtf"),
    ("application", "vnd.ms-fontobject"),
    ("font", "ttf"),
    ("font", "otf"),
    ("image", "bmp"),
    ("image", "x-icon"),
    ("image", "vnd.microsoft.icon"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_media_type_is_two_tokens_and_parameters() {
        let media = MediaType::parse(br#" Text/HTML ; Charset="utf-8";a=b; c"#).unwrap();
        assert!(media.is("text", "html"));
        assert_eq!(media.parameter("charset").as_deref(), Some(&b"utf-8"[..]));
        assert_eq!(media.parameter("A").as_deref(), Some(&b"b"[..]));
        assert_eq!((media.parameter("c"), media.parameter("d")), (None, None));
        assert_eq!(media.parameters().count(), 3);
        for value in
            ["", "text", "text/", "/html", "a/b/c", "te xt/html", "text /html", "a/b c", "a/b, c/d"]
        {
            assert!(MediaType::parse(value.as_bytes()).is_none(), "{value}");
        }
    }

    #[test]
    fn json_and_what_compresses_are_told_by_type() {
        // (value, JSON, compressible)
        let rows = [
            ("application/json", true, true),
            ("Application/JSON; charset=utf-8", true, true),
            ("application/problem+json", true, true),
            ("application/vnd.api+JSON;v=1", true, true),
            ("application/+json", false, false),
            ("application/jsonp", false, false),
            ("application/json-patch", false, false),
            ("text/json", false, true),
            ("text/plain", false, true),
            ("text/html; charset=x", false, true),
            ("text/event-stream", false, false),
            ("TEXT/Event-Stream; charset=utf-8", false, false),
            ("image/svg+xml", false, true),
            ("image/png", false, false),
            ("image/jpeg", false, false),
            ("video/mp4", false, false),
            ("application/xml", false, true),
            ("application/atom+xml", false, true),
            ("application/javascript", false, true),
            ("application/wasm", false, true),
            ("application/zip", false, false),
            ("application/gzip", false, false),
            ("application/octet-stream", false, false),
            ("font/woff2", false, false),
            ("multipart/byteranges; boundary=x", false, false),
        ];
        for (value, json, compressible) in rows {
            let media = MediaType::parse(value.as_bytes()).unwrap();
            assert_eq!((media.is_json(), media.is_compressible()), (json, compressible), "{value}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(media) = MediaType::parse(&value) {
                let _ = (media.is_json(), media.is_compressible(), media.parameter("q"));
            }
        }

        #[test]
        fn every_pair_of_tokens_is_a_type(kind in "[a-z]{1,8}", subtype in "[a-z.+-]{1,8}") {
            let value = format!("{kind}/{subtype};q=1");
            prop_assert!(MediaType::parse(value.as_bytes()).unwrap().is(&kind, &subtype));
        }
    }
}
