//! Vary: which request fields select among stored responses, and the key they make (RFC 9111
//! section 4.1).
//!
//! A stored response matches when the key of the request at hand equals the key of the request that
//! it answered. Values are normalised as section 4.1 allows: lines combined, white space around
//! commas dropped; Accept-Language also by case and order, which have no meaning there (RFC 9110
//! section 12.5.4).
//!
//! What counts is the request as the origin saw it. Of the fields that the daemon keeps to itself
//! (`http::untrusted`, those of the connection) or writes alike for every request to an upstream,
//! no value can have chosen anything: they select nothing. Those that it writes for each request
//! alone make a response that is for that request alone, as `*` does.
//!
//! Key layout, for each name in order: the name, then `LF` if the field is absent, else `:`, the
//! value, `LF`. Neither a name nor a value can hold an LF, so that different fields never make the
//! same key.

use std::borrow::Cow;

use memchr::memchr;

use crate::http::hop::is_hop_by_hop;
use crate::http::untrusted::{dashed, is_untrusted};
use crate::http::{Fields, list};

/// What Vary says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// Every request gets this response.
    None,
    /// `*`: no request can be told to match.
    Any,
    /// More names than are kept track of.
    TooWide,
    /// Requests match that agree in these fields.
    On(VarySpec),
}

impl Vary {
    /// Reads all Vary fields. `*` anywhere in them is `*` (RFC 9110 section 12.5.5).
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let mut names: Vec<&[u8]> = Vec::new();
        for member in list::field_members(fields, "Vary") {
            // What is no field name can't be compared either.
            if member == b"*" || !list::is_token(member) {
                return Self::Any;
            }
            match Sent::of(member) {
                Sent::AsItCame => names.push(member),
                Sent::Alike => {}
                Sent::OfItsOwn => return Self::Any,
            }
        }
        if names.is_empty() {
            return Self::None;
        }
        match VarySpec::from_names(&names) {
            Some(spec) => Self::On(spec),
            None => Self::TooWide,
        }
    }
}

/// What the origin gets of a request field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// What the client sent.
    AsItCame,
    /// The same for every request of the key, whatever the client sent.
    Alike,
    /// What is known here of this request, its connection and the proxies before.
    OfItsOwn,
}

impl Sent {
    fn of(name: &[u8]) -> Self {
        // As an origin reads it that takes `_` for `-`.
        let name = dashed(name);
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        if OF_EACH_REQUEST.iter().any(is) {
            Self::OfItsOwn
        } else if OF_THE_UPSTREAM.iter().any(is) || is_untrusted(&name) || is_hop_by_hop(&name) {
            Self::Alike
        } else {
            Self::AsItCame
        }
    }
}

/// A set of field names: lower case, sorted, each once, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VarySpec {
    /// The names, joined by commas.
    names: Box<str>,
}

impl VarySpec {
    /// The set of these names; `None` if it is empty, too wide, or a name is no token.
    #[must_use]
    pub fn from_names(names: &[&[u8]]) -> Option<Self> {
        let mut lower = Vec::with_capacity(names.len());
        for name in names {
            lower.push(list::token(name)?.to_ascii_lowercase());
        }
        lower.sort_unstable();
        lower.dedup();
        let within = (1..=NAMES_MAX).contains(&lower.len());
        within.then(|| Self { names: lower.join(",").into_boxed_str() })
    }

    /// Reads [`VarySpec::as_str`] back; `None` for any other text, and for names by which nothing
    /// is told apart any more.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let names: Vec<&[u8]> = text.as_bytes().split(|byte| *byte == b',').collect();
        let kept = names.iter().all(|name| Sent::of(name) == Sent::AsItCame);
        Self::from_names(&names).filter(|spec| kept && spec.as_str() == text)
    }

    /// The names joined by commas: the form that is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.names
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.split(',')
    }

    /// The set without a name; `None` if nothing is left.
    #[must_use]
    pub fn without(&self, name: &str) -> Option<Self> {
        let names: Vec<&[u8]> =
            self.names().filter(|own| *own != name).map(str::as_bytes).collect();
        Self::from_names(&names)
    }
}

/// What Accept-Encoding in Vary means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptEncoding {
    /// It selects like any other field.
    Selects,
    /// The daemon asks the origin always alike and encodes for each client itself, so that it
    /// selects nothing.
    Negotiated,
}

/// Appends the key that the request's fields make under `spec`. `combined` gives a field's value
/// over all its lines (as [`Fields::combined`]), borrowed where it can; `None` when it is absent.
///
/// Allocates nothing unless a value must be reordered.
pub fn secondary_key<'v>(
    spec: &VarySpec,
    encoding: AcceptEncoding,
    combined: impl Fn(&str) -> Option<Cow<'v, [u8]>>,
    out: &mut Vec<u8>,
) {
    for name in spec.names() {
        if name == "accept-encoding" && encoding == AcceptEncoding::Negotiated {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        if let Some(value) = combined(name) {
            out.push(b':');
            if name == "accept-language" {
                write_languages(&value, out);
            } else {
                write_folded(&value, out);
            }
        }
        out.push(b'\n');
    }
}

/// As [`secondary_key`], for a request that is at hand as [`Fields`].
pub fn secondary_key_of(
    spec: &VarySpec,
    encoding: AcceptEncoding,
    request: &Fields,
    out: &mut Vec<u8>,
) {
    secondary_key(spec, encoding, |name| request.combined(name), out);
}

/// A value without white space at its ends and around commas, quoted strings as they are.
fn write_folded(value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(memchr(b'\n', value).is_none(), "a parsed value holds no LF");
    if memchr(b',', value).is_none() {
        out.extend_from_slice(list::trim(value));
        return;
    }
    // Empty members stay: an unknown field need not be a list.
    let mut quoted = false;
    let mut escaped = false;
    let pieces = value.split(|byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == b',' && !quoted
    });
    for (place, piece) in pieces.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(list::trim(piece));
    }
}

/// Accept-Language in one order and case: by weight, then by range.
fn write_languages(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut ranges: Vec<(u16, Vec<u8>)> = Vec::new();
    for member in list::members(value) {
        let (range, mut parameters) = list::split_parameters(member);
        let weight = match (parameters.next(), parameters.next()) {
            (None, _) => Some(1_000),
            (Some(q), None) if q.is("q") => q.value.and_then(weight_of),
            _ => None,
        };
        let Some(weight) = weight else {
            // Not understood: compare it as it is.
            out.truncate(start);
            return write_folded(value, out);
        };
        ranges.push((weight, range.to_ascii_lowercase()));
    }
    ranges.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    ranges.dedup();
    for (weight, range) in ranges {
        out.extend_from_slice(&range);
        out.push(b'=');
        out.extend_from_slice(itoa::Buffer::new().format(weight).as_bytes());
        out.push(b',');
    }
}

/// A qvalue in thousandths (RFC 9110 section 12.4.2).
fn weight_of(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let digits = list::decimal(fraction).or(fraction.is_empty().then_some(0))?;
    let scale = 10_u64.pow(3 - u32::try_from(fraction.len()).ok()?);
    let thousandths = u16::try_from(digits * scale).ok()?;
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1_000),
        _ => None,
    }
}

/// Written for each request: the client's address and scheme, its way here, its id.
const OF_EACH_REQUEST: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "via", "x-request-id"];
/// Written for the upstream, or for the content, which is in the key.
const OF_THE_UPSTREAM: [&str; 3] = ["host", "content-length", "expect"];
/// More selecting fields than any real origin names; bounds the key's length.
const NAMES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::sample::fields;
    use crate::http::untrusted::UNTRUSTED;

    fn spec(names: &[&str]) -> VarySpec {
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        VarySpec::from_names(&names).unwrap()
    }

    fn key(names: &[&str], request: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        secondary_key_of(&spec(names), AcceptEncoding::Selects, &fields(request), &mut out);
        out
    }

    /// RFC 9110 section 12.5.5, RFC 9111 section 4.1.
    #[test]
    fn a_star_anywhere_matches_nothing() {
        let cases: &[&[&str]] =
            &[&["*"], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, Foo"], &["Foo, *"]];
        for values in cases {
            let lines: Vec<_> = values.iter().map(|value| ("Vary", *value)).collect();
            assert_eq!(Vary::of(&fields(&lines)), Vary::Any, "{values:?}");
        }
        assert_eq!(Vary::of(&fields(&[("Vary", "not a name")])), Vary::Any);
        assert_eq!(Vary::of(&fields(&[("Vary", "")])), Vary::None);
        assert_eq!(Vary::of(&fields(&[])), Vary::None);
    }

    #[test]
    fn names_are_a_set() {
        let vary = Vary::of(&fields(&[("Vary", "Foo, bar"), ("vary", "FOO")]));
        let Vary::On(on) = vary else { panic!("{vary:?}") };
        assert_eq!(on.as_str(), "bar,foo");
        assert_eq!(VarySpec::parse("bar,foo"), Some(on));
        for text in ["", "foo,bar", "foo,foo", "Foo", "a,,b", "a b"] {
            assert_eq!(VarySpec::parse(text), None, "{text}");
        }
        let wide: Vec<String> = (0..=NAMES_MAX).map(|n| format!("x{n}")).collect();
        assert_eq!(Vary::of(&fields(&[("Vary", &wide.join(","))])), Vary::TooWide);
    }

    /// A client's own field must not choose where the origin never saw it.
    #[test]
    fn what_the_daemon_writes_or_drops_is_not_keyed_by_what_the_client_sent() {
        let of = |value: &str| Vary::of(&fields(&[("Vary", value)]));
        for name in
            ["X-Forwarded-For", "X-Forwarded-Proto", "x_forwarded_for", "x-request-id", "Foo, VIA"]
        {
            assert_eq!(of(name), Vary::Any, "{name}");
        }
        let alike = ["Host", "Expect", "Content-Length", "Connection", "TE", "Upgrade"];
        let dropped = ["X-Forwarded-Host", "X-Original-URL", "x_real_ip", "X-SSL-Client-Verify"];
        let listed = UNTRUSTED.iter().copied().filter(|it| *it != "X-Request-Id");
        for name in listed.chain(dropped).chain(alike) {
            assert_eq!(of(name), Vary::None, "{name}");
            assert_eq!(of(&format!("{name}, foo")), Vary::On(spec(&["foo"])), "{name}");
            // Nor are rows by such a list of any use.
            assert_eq!(VarySpec::parse(&name.to_ascii_lowercase()), None, "{name}");
        }
        assert_eq!(VarySpec::parse("foo,x-forwarded-for"), None);
    }

    #[test]
    fn a_name_can_be_taken_out_of_the_set() {
        let both = spec(&["a", "b"]);
        assert_eq!(both.without("a"), Some(spec(&["b"])));
        assert_eq!(both.without("c"), Some(both.clone()));
        assert_eq!(spec(&["a"]).without("a"), None);
    }

    /// RFC 9111 section 4.1: pairs of requests that must, and must not, match.
    #[test]
    fn requests_match_when_all_selecting_fields_do() {
        type Request = &'static [(&'static str, &'static str)];
        let cases: &[(&[&str], Request, Request, bool)] = &[
            (&["foo"], &[("Foo", "1")], &[("foo", "1"), ("Other", "2")], true),
            (&["foo"], &[("Foo", "1")], &[("Foo", "2")], false),
            (&["foo"], &[("Foo", "a")], &[("Foo", "A")], false),
            // Absent matches only absent, not empty.
            (&["foo"], &[], &[("Foo", "1")], false),
            (&["foo"], &[], &[("Foo", "")], false),
            (&["foo", "bar", "baz"], &[("Foo", "1")], &[("Foo", "1")], true),
            (&["foo", "bar"], &[("Foo", "1"), ("Bar", "2")], &[("Bar", "2"), ("Foo", "1")], true),
            (&["foo", "bar"], &[("Foo", "1")], &[("Bar", "1")], false),
            // Lines combine, white space around commas does not count.
            (&["foo"], &[("Foo", "1, 2")], &[("Foo", "1"), ("Foo", "2")], true),
            (&["foo"], &[("Foo", "1,2")], &[("Foo", " 1 ,\t2 ")], true),
            (&["foo"], &[("Foo", "1, 2")], &[("Foo", "2, 1")], false),
            (&["foo"], &[("Foo", "a b")], &[("Foo", "ab")], false),
            (&["foo"], &[("Foo", "\"a, b\"")], &[("Foo", "\"a,b\"")], false),
            (&["foo"], &[("Foo", "\"a\\\", b\"")], &[("Foo", "\"a\\\",b\"")], false),
            (&["foo"], &[("Foo", "1,2")], &[("Foo", "12")], false),
            // Accept-Language by meaning.
            (
                &["accept-language"],
                &[("Accept-Language", "en, de")],
                &[("Accept-Language", "dE ,   eN")],
                true,
            ),
            (
                &["accept-language"],
                &[("Accept-Language", "en, de;q=0.5")],
                &[("Accept-Language", "de; q=0.50, en;q=1")],
                true,
            ),
            (
                &["accept-language"],
                &[("Accept-Language", "en;q=0.5, de")],
                &[("Accept-Language", "en, de;q=0.5")],
                false,
            ),
            (
                &["accept-language"],
                &[("Accept-Language", "en;q=x")],
                &[("Accept-Language", "en")],
                false,
            ),
        ];
        for (names, one, other, expected) in cases {
            assert_eq!(key(names, one) == key(names, other), *expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn accept_encoding_selects_nothing_where_the_daemon_encodes_itself() {
        let spec = spec(&["accept-encoding", "foo"]);
        let mut out = Vec::new();
        let request = fields(&[("Accept-Encoding", "gzip"), ("Foo", "1")]);
        secondary_key_of(&spec, AcceptEncoding::Negotiated, &request, &mut out);
        assert_eq!(out, b"foo:1\n");
        secondary_key_of(&spec, AcceptEncoding::Selects, &request, &mut out);
        assert_eq!(out, b"foo:1\naccept-encoding:gzip\nfoo:1\n");
    }

    #[test]
    fn weights_are_read_strictly() {
        for (text, expected) in [
            ("1", Some(1_000)),
            ("1.0", Some(1_000)),
            ("1.", Some(1_000)),
            ("0", Some(0)),
            ("0.5", Some(500)),
            ("0.05", Some(50)),
            ("0.123", Some(123)),
            ("1.5", None),
            ("0.1234", None),
            ("2", None),
            ("", None),
            ("0.x", None),
        ] {
            assert_eq!(weight_of(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        /// Requests share a key only if they agree in each selecting field.
        #[test]
        fn different_values_make_different_keys(
            one in proptest::option::of("[a-c:=.]{0,6}"),
            two in proptest::option::of("[a-c:=.]{0,6}"),
            three in proptest::option::of("[a-c:=.]{0,6}"),
            four in proptest::option::of("[a-c:=.]{0,6}"),
        ) {
            let request = |foo: &Option<String>, bar: &Option<String>| {
                let mut fields = Fields::new();
                for (name, value) in [("foo", foo), ("bar", bar)] {
                    if let Some(value) = value {
                        fields.push(name, value);
                    }
                }
                let mut out = Vec::new();
                let spec = spec(&["foo", "bar"]);
                secondary_key_of(&spec, AcceptEncoding::Selects, &fields, &mut out);
                out
            };
            let same = (&one, &two) == (&three, &four);
            prop_assert_eq!(request(&one, &two) == request(&three, &four), same);
        }

        #[test]
        fn no_value_makes_the_normaliser_panic(value in "[ -~\t]{0,30}") {
            let mut out = Vec::new();
            write_folded(value.as_bytes(), &mut out);
            write_languages(value.as_bytes(), &mut out);
        }
    }
}
