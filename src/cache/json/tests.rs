//! The canonical form against a slow reference, and each rule by name.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

pub(super) fn json(text: impl AsRef<[u8]>) -> Result<BodyDigest, NotCanonical> {
    digest_body(b"application/json", text.as_ref())
}

/// A JSON value with its numbers as they are spelt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Literal(&'static str),
    Number(String),
    String(String),
    Array(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

/// Chooses how a value is written; two styles of one value must not differ in digest.
pub(super) struct Style {
    choices: Vec<u8>,
    at: usize,
}

impl Style {
    fn choose(&mut self, among: usize) -> usize {
        self.at += 1;
        usize::from(self.choices[self.at % self.choices.len()]).wrapping_add(self.at / 7) % among
    }

    fn space(&mut self, out: &mut String) {
        out.push_str(["", "", "", " ", "\n", "\t\r\n ", "  "][self.choose(7)]);
    }

    pub(super) fn write(&mut self, value: &Value, out: &mut String) {
        self.space(out);
        match value {
            Value::Literal(word) => out.push_str(word),
            Value::Number(spelling) => out.push_str(spelling),
            Value::String(text) => self.string(text, out),
            Value::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    self.write(item, out);
                }
                self.space(out);
                out.push(']');
            }
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                for at in (1..members.len()).rev() {
                    members.swap(at, self.choose(at + 1));
                }
                out.push('{');
                for (at, (name, value)) in members.into_iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    self.space(out);
                    self.string(name, out);
                    self.space(out);
                    out.push(':');
                    self.write(value, out);
                }
                self.space(out);
                out.push('}');
            }
        }
        self.space(out);
    }

    fn string(&mut self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            let must = c < ' ' || c == '"' || c == '\\';
            match self.choose(3) {
                0 if !must => out.push(c),
                1 if "\"\\/".contains(c) => out.extend(['\\', c]),
                1 if "\n\t".contains(c) => out.push_str(if c == '\n' { "\\n" } else { "\\t" }),
                1 if !must => out.push(c),
                2 => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    out.push_str(&format!("\\u{unit:04X}"));
                }),
                _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    out.push_str(&format!("\\u{unit:04x}"));
                }),
            }
        }
        out.push('"');
    }
}

fn number() -> impl Strategy<Value = String> {
    // Neighbours in value and in spelling, so that equal and unequal pairs both come often.
    prop_oneof![
        proptest::sample::select(NUMBERS).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        (0..999u32, 0..999u32, -20..20i32).prop_map(|(a, b, e)| format!("{a}.{b}e{e}")),
    ]
}

pub(super) const NUMBERS: &[&str] =
    &["0", "-0", "0.0", "1", "1.0", "1e0", "1E0", "1e+0", "10e-1", "-1", "12"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        proptest::sample::select(&["null", "true", "false"][..]).prop_map(Value::Literal),
        number().prop_map(Value::Number),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::btree_map(text(), inner, 0..5).prop_map(Value::Object),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => proptest::string::string_regex("[ab]{0,2}").unwrap(),
        1 => proptest::collection::vec(
            proptest::sample::select(ODD_CHARS),
            0..6,
        )
        .prop_map(String::from_iter),
    ]
}

pub(super) const ODD_CHARS: &[char] =
    &['a', '"', '\\', '/', '\n', '\u{1}', 'é', '\u{ffff}', '😀', ','];

/// A small change somewhere in the value; where it finds nothing to change, none.
pub(super) fn change(value: &mut Value, choices: &mut Style) {
    match value {
        Value::Literal(word) => *word = if *word == "null" { "true" } else { "null" },
        Value::Number(spelling) => match choices.choose(3) {
            0 => *spelling = format!("1{}", spelling.trim_start_matches('-')),
            1 => *value = Value::String(spelling.clone()),
            _ if spelling.contains(['.', 'e', 'E']) => spelling.push('0'),
            _ => spelling.push_str(".0"),
        },
        Value::String(text) => match choices.choose(3) {
            0 => text.push('a'),
            1 => *value = Value::Array(vec![value.clone()]),
            _ => text.insert(0, '\u{0}'),
        },
        Value::Array(items) => match choices.choose(3) {
            0 => items.reverse(),
            1 => items.push(Value::Literal("null")),
            _ => {
                let among = items.len().max(1);
                if let Some(item) = items.get_mut(choices.choose(among)) {
                    change(item, choices);
                }
            }
        },
        Value::Object(members) => {
            let among = members.len().max(1);
            let name = members.keys().nth(choices.choose(among)).cloned();
            match (choices.choose(3), name) {
                (0, Some(name)) => drop(members.remove(&name)),
                (1, Some(name)) => {
                    let moved = members.remove(&name).unwrap();
                    members.insert(format!("{name}a"), moved);
                }
                (_, Some(name)) => change(members.get_mut(&name).unwrap(), choices),
                (_, None) => drop(members.insert(String::new(), Value::Literal("null"))),
            }
        }
    }
}

pub(super) fn style(choices: &[u8]) -> Style {
    Style { choices: choices.to_vec(), at: 0 }
}

fn written(value: &Value, choices: &[u8]) -> String {
    let mut out = String::new();
    style(choices).write(value, &mut out);
    out
}

/// 20,000 cases unless `PROPTEST_CASES` asks for more; `million` has the many.
fn cases() -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    Config { cases: asked.unwrap_or(20_000), ..Config::default() }
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..24)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn digests_are_equal_just_when_the_values_are(
        value in value(), one in choices(), other in choices(), changes in choices(),
    ) {
        let first = written(&value, &one);
        let second = written(&value, &other);
        let digest = json(&first);
        prop_assert!(digest.is_ok(), "{first} {digest:?}");
        prop_assert_eq!(digest, json(&second), "{} against {}", &first, &second);

        let mut changed = value.clone();
        change(&mut changed, &mut style(&changes));
        let third = written(&changed, &other);
        prop_assert_eq!(json(&third) == digest, changed == value, "{} against {}", &first, &third);
    }
}

proptest! {
    #[test]
    fn unrelated_values_agree_just_when_equal(a in value(), b in value(), c in choices()) {
        prop_assert_eq!(json(written(&a, &c)) == json(written(&b, &c)), a == b);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = json(bytes);
    }

    #[test]
    fn near_json_is_accepted_just_when_a_slow_reader_accepts_it(
        text in proptest::string::string_regex(NEAR_JSON).unwrap(),
    ) {
        let slow = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        match json(&text) {
            Ok(_) => prop_assert!(slow, "{text}"),
            Err(NotCanonical::Malformed) => prop_assert!(!slow, "{text}"),
            Err(_) => {}
        }
    }
}

const NEAR_JSON: &str = r#"[\[\]{}:,"0-9.eE+\-\\u nultrfas\x01]{0,14}"#;

#[test]
fn order_of_members_and_white_space_do_not_matter() {
    assert_eq!(json(r#"{"a":1,"b":[2,{}]}"#), json(" { \"b\" : [ 2 , { } ] ,\r\n\t\"a\" : 1 } "));
    assert_eq!(json(r#"{"a\/":"\u0041\ud83d\ude00"}"#), json(r#"{"\u0061/":"A😀"}"#));
}

#[test]
fn everything_else_matters() {
    let texts = [
        "1",
        "1.0",
        "1e0",
        "1E0",
        "-1",
        "10",
        "\"1\"",
        "[1]",
        "[[1]]",
        "[]",
        "{}",
        "null",
        "true",
        "false",
        "\"\"",
        "[[1],2]",
        "[[1,2]]",
        "[\"asb\"]",
        "[{\"a\":1},2]",
        "[1,2]",
        "[2,1]",
        "[12]",
        "{\"a\":1}",
        "{\"a\":2}",
        "{\"A\":1}",
        "{\"a\":{\"b\":1}}",
        "{\"a\":{},\"b\":1}",
        "[\"a\",\"b\"]",
        "[\"ab\"]",
        "[\"a,b\"]",
        "\"a\"",
        "\"a \"",
        "\"\\u0000\"",
        "-0",
        "0",
    ];
    for (at, one) in texts.iter().enumerate() {
        assert!(json(one).is_ok(), "{one}");
        for other in &texts[..at] {
            assert_ne!(json(one), json(other), "{one} {other}");
        }
    }
}

#[test]
fn doubtful_bodies_are_refused_with_the_reason() {
    let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let cases: Vec<(Vec<u8>, NotCanonical)> = vec![
        (br#"{"a":1,"a":1}"#.to_vec(), NotCanonical::DuplicateMember),
        (br#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#.to_vec(), NotCanonical::DuplicateMember),
        (b"\"\xff\"".to_vec(), NotCanonical::InvalidUnicode),
        (br#""\ud800""#.to_vec(), NotCanonical::InvalidUnicode),
        (br#""\ud800\u0041""#.to_vec(), NotCanonical::InvalidUnicode),
        (br#""\udc00""#.to_vec(), NotCanonical::InvalidUnicode),
        (nested(DEPTH_MAX + 1).into_bytes(), NotCanonical::TooDeep),
        ("[".repeat(100_000).into_bytes(), NotCanonical::TooDeep),
        (vec![b' '; JSON_BYTES_MAX + 1], NotCanonical::TooLarge),
        (b"1e999".to_vec(), NotCanonical::Doubtful),
    ];
    for (text, reason) in cases {
        assert_eq!(json(&text), Err(reason), "{}", text.escape_ascii());
    }
    assert!(json(nested(DEPTH_MAX)).is_ok());
}

#[test]
fn what_is_not_json_by_the_letter_is_malformed() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "{1:2}",
        "[1 2]",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "-",
        "--1",
        "0x1",
        "NaN",
        "nul",
        "nulll",
        "True",
        "'a'",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u+123\"",
        "\"\n\"",
        "\"\t\"",
        "1 1",
        "[1]]",
        "\u{feff}1",
        "//\n1",
        "\u{a0}1",
        "{\"a\":}",
        "[,1]",
        "{,}",
        "[1",
        "\"\\",
    ] {
        assert_eq!(json(text), Err(NotCanonical::Malformed), "{text:?}");
    }
}

#[test]
fn other_types_are_compared_byte_by_byte() {
    let plain = |text: &str| digest_body(b"text/plain", text.as_bytes()).unwrap();
    assert_ne!(plain("[1]"), plain("[1] "));
    assert_ne!(plain("[1]"), json("[1]").unwrap());
    assert_eq!(digest_body(b"", b"\xff{"), digest_body(b"", b"\xff{"));
    assert_ne!(digest_body(b"a", b"b"), digest_body(b"", b"ab"));
    assert_ne!(digest_nothing(b"a"), digest_nothing(b""));
    assert_ne!(digest_nothing(b"a"), digest_body(b"a", b"").unwrap());
}

#[test]
fn json_types_are_known_by_essence_and_suffix() {
    for yes in ["application/json", "Application/JSON; charset=utf-8", "application/ld+json ;x"] {
        assert!(is_json(yes.as_bytes()), "{yes}");
    }
    for no in ["", "json", "text/json", "application/jsonp", "application/x; y=+json"] {
        assert!(!is_json(no.as_bytes()), "{no}");
    }
}

#[test]
fn reasons_have_words_of_their_own() {
    let words: std::collections::BTreeSet<_> =
        NotCanonical::ALL.into_iter().map(NotCanonical::as_str).collect();
    assert_eq!(words.len(), NotCanonical::ALL.len());
}
