//! Targeted Cache-Control fields (RFC 9213): what the origin says to this kind of cache alone.
//!
//! Each is a dictionary of structured fields (RFC 8941 section 3.2). One that does not parse, is
//! empty, or gives a known directive a value of the wrong type is treated as absent (RFC 9213
//! section 2.1); the first that remains replaces Cache-Control and Expires (section 2.2).

use std::borrow::Cow;
use std::time::Duration;

use crate::cache::control::ResponseControl;
use crate::http::Fields;

/// The target list (RFC 9213 section 2.2), most specific first.
pub const TARGETED_FIELDS: [&str; 2] = ["Apiproxyd-Cache-Control", "CDN-Cache-Control"];

/// The directives of the first targeted field that is valid and not empty.
#[must_use]
pub fn parse(fields: &Fields) -> Option<ResponseControl> {
    TARGETED_FIELDS.iter().find_map(|name| {
        let value = fields.combined(name)?;
        control(&dictionary(&value)?)
    })
}

fn control(members: &[Member<'_>]) -> Option<ResponseControl> {
    let mut control = ResponseControl { targeted: true, ..ResponseControl::default() };
    // Of a repeated key the last counts (RFC 8941 section 4.2.2), in this syntax.
    for (place, member) in members.iter().enumerate() {
        let again = members.iter().skip(place + 1).any(|later| later.key == member.key);
        if !again {
            apply(&mut control, member)?;
        }
    }
    (!members.is_empty()).then_some(control)
}

/// `None` when a known directive has a value of the wrong type.
fn apply(control: &mut ResponseControl, member: &Member<'_>) -> Option<()> {
    match member.key {
        b"max-age" => control.max_age = Some(member.value.seconds()?),
        b"s-maxage" => control.s_maxage = Some(member.value.seconds()?),
        b"stale-while-revalidate" => {
            control.stale_while_revalidate = Some(member.value.seconds()?);
        }
        b"stale-if-error" => control.stale_if_error = Some(member.value.seconds()?),
        b"no-cache" => control.no_cache |= !member.value.names(control)?,
        b"private" => control.private |= !member.value.names(control)?,
        b"no-store" => control.no_store = member.value.flag()?,
        b"public" => control.public = member.value.flag()?,
        b"must-revalidate" => control.must_revalidate = member.value.flag()?,
        b"proxy-revalidate" => control.proxy_revalidate = member.value.flag()?,
        b"must-understand" => control.must_understand = member.value.flag()?,
        b"immutable" => control.immutable = member.value.flag()?,
        _ => {}
    }
    Some(())
}

#[derive(Debug, PartialEq, Eq)]
struct Member<'a> {
    key: &'a [u8],
    value: Value<'a>,
}

/// A member's value, as far as directives use it.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Integer(i64),
    Boolean(bool),
    Text(Cow<'a, [u8]>),
    /// Decimals, tokens, byte sequences, inner lists: valid, and no directive's type.
    Other,
}

impl Value<'_> {
    fn seconds(&self) -> Option<Duration> {
        let Self::Integer(number) = self else { return None };
        u64::try_from(*number).ok().map(Duration::from_secs)
    }

    /// A directive without value is Boolean true; false is a value it can't have.
    fn flag(&self) -> Option<bool> {
        (*self == Self::Boolean(true)).then_some(true)
    }

    /// Withholds the listed fields; says whether there were any, so that the rest may be used.
    fn names(&self, control: &mut ResponseControl) -> Option<bool> {
        match self {
            Self::Boolean(true) => Some(false),
            Self::Text(names) => Some(control.withhold(names)),
            _ => None,
        }
    }
}

/// Parses a dictionary (RFC 8941 section 4.2.2); `None` on any departure from its grammar.
fn dictionary(value: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut input = Input { rest: value };
    let mut members = Vec::new();
    input.skip(b" ");
    while !input.rest.is_empty() {
        let key = input.key()?;
        let value = if input.take(b'=') { input.member_value()? } else { Value::Boolean(true) };
        input.parameters()?;
        members.push(Member { key, value });
        input.skip(b" \t");
        if input.rest.is_empty() {
            break;
        }
        if !input.take(b',') {
            return None;
        }
        input.skip(b" \t");
        if input.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

/// What is left to parse of a structured field.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Consumes `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let Some(rest) = self.rest.strip_prefix(&[byte]) else { return false };
        self.rest = rest;
        true
    }

    fn skip(&mut self, bytes: &[u8]) {
        self.take_while(|byte| bytes.contains(&byte));
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !accept(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// RFC 8941 section 4.2.3.3.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.peek().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
        Some(self.take_while(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        }))
    }

    fn member_value(&mut self) -> Option<Value<'a>> {
        if self.take(b'(') { self.inner_list() } else { self.bare_item() }
    }

    /// RFC 8941 section 4.2.1.2, behind the opening parenthesis.
    fn inner_list(&mut self) -> Option<Value<'a>> {
        loop {
            self.skip(b" ");
            if self.take(b')') {
                return Some(Value::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    /// RFC 8941 section 4.2.3.2; what parameters say is ignored (RFC 9213 section 2.1).
    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip(b" ");
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// RFC 8941 section 4.2.3.1.
    fn bare_item(&mut self) -> Option<Value<'a>> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                self.take_while(|byte| {
                    crate::http::fields::is_token_byte(byte) || matches!(byte, b':' | b'/')
                });
                Some(Value::Other)
            }
            b':' => {
                self.take(b':');
                self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                self.take(b':').then_some(Value::Other)
            }
            b'?' => {
                self.take(b'?');
                let truth = self.take(b'1');
                (truth || self.take(b'0')).then_some(Value::Boolean(truth))
            }
            _ => None,
        }
    }

    /// RFC 8941 section 4.2.4: at most 15 digits, decimals at most 12 before and 3 behind the dot.
    fn number(&mut self) -> Option<Value<'a>> {
        let negative = self.take(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if self.take(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            let valid = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
            return valid.then_some(Value::Other);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        let number = whole.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
        Some(Value::Integer(if negative { -number } else { number }))
    }

    /// RFC 8941 section 4.2.5.
    fn string(&mut self) -> Option<Value<'a>> {
        self.take(b'"');
        let start = self.rest;
        let mut text = Cow::Borrowed(self.take_while(is_plain));
        debug_assert!(start.starts_with(&text));
        while !self.take(b'"') {
            if !self.take(b'\\') {
                return None;
            }
            let escaped = self.peek().filter(|byte| matches!(byte, b'"' | b'\\'))?;
            self.take(escaped);
            let text = text.to_mut();
            text.push(escaped);
            text.extend_from_slice(self.take_while(is_plain));
        }
        Some(Value::Text(text))
    }
}

/// A character of a structured string that stands for itself.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[(&str, &str)]) -> ResponseControl {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name, value);
        }
        ResponseControl::parse(&fields)
    }

    /// The targeted `max-age` of CDN-Cache-Control; `None` when the field is ignored.
    fn max_age(value: &str) -> Option<u64> {
        let control = of(&[("CDN-Cache-Control", value)]);
        control.targeted.then(|| control.max_age.unwrap_or_default().as_secs())
    }

    /// RFC 9213 section 2.1, RFC 8941 section 4.2.2.
    #[test]
    fn a_targeted_field_is_a_dictionary_or_it_is_absent() {
        for (value, expected) in [
            ("max-age=3600", Some(3600)),
            ("foobar, max-age=3600", Some(3600)),
            ("max-age=3600;ext=\"a,b\", x=(1 \"2\" t;q=1.5);p, y=:YQ==:, z=?0", Some(3600)),
            ("a=1.25, max-age=7", Some(7)),
            ("max-age=2147483648", Some(2_147_483_648)),
            ("max-age=99999999999", Some(99_999_999_999)),
            ("max-age=1, max-age=2", Some(2)),
            ("no-store", Some(0)),
            ("ext=\"a\\\"b\"", Some(0)),
            // Not a dictionary.
            ("", None),
            ("max-age=10000, &&&&&", None),
            ("max-age =100", None),
            ("max-age= 100", None),
            ("MaX-aGe=3600", None),
            ("max-age=1,", None),
            ("max-age=1 b", None),
            ("a=\"open", None),
            ("a=\"bad\\n\"", None),
            ("a=(1 2", None),
            ("a=(1,2)", None),
            ("a=:YQ", None),
            ("a=?2", None),
            ("a=1.", None),
            ("a=1.2345", None),
            ("a=-", None),
            ("a=1234567890123456", None),
            ("a;B", None),
            // A value of the wrong type.
            ("max-age=\"10000\"", None),
            ("max-age=-1", None),
            ("max-age=1.5", None),
            ("max-age", None),
            ("max-age=ten", None),
            ("no-store=1", None),
            ("no-store=?0", None),
            ("no-cache=(a)", None),
        ] {
            assert_eq!(max_age(value), expected, "{value}");
        }
    }

    /// RFC 9213 section 2.2.
    #[test]
    fn the_most_specific_valid_field_replaces_cache_control() {
        let cache_control = ("Cache-Control", "no-store, max-age=1");
        let cdn = ("CDN-Cache-Control", "max-age=2");
        let own = ("Apiproxyd-Cache-Control", "max-age=3");
        let control = of(&[cache_control, cdn]);
        assert!(!control.no_store);
        assert_eq!(control.max_age, Some(Duration::from_secs(2)));
        assert_eq!(of(&[cache_control, cdn, own]).max_age, Some(Duration::from_secs(3)));
        let broken = ("CDN-Cache-Control", "max-age=10000, &&&&&");
        assert!(of(&[cache_control, broken]).no_store);
        let split = [("CDN-Cache-Control", "private"), ("CDN-Cache-Control", "max-age=9")];
        let control = of(&split);
        assert!(control.private && control.max_age.is_some());
    }

    #[test]
    fn a_targeted_field_can_withhold_fields() {
        let control = of(&[("CDN-Cache-Control", "no-cache=\"a, b\", max-age=5")]);
        assert!(!control.no_cache && control.withholds(b"A") && control.withholds(b"b"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(value in "[ -~\t]{0,40}") {
            let _ = dictionary(value.as_bytes());
        }

        #[test]
        fn a_written_dictionary_reads_back(
            entries in proptest::collection::vec(("[a-z*][a-z0-9_.*-]{0,6}", 0_i64..1_000_000), 1..5)
        ) {
            let text: Vec<String> = entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let text = text.join(" ,\t");
            let members = dictionary(text.as_bytes()).unwrap();
            prop_assert_eq!(members.len(), entries.len());
            for (member, (key, value)) in members.iter().zip(&entries) {
                prop_assert_eq!(member.key, key.as_bytes());
                prop_assert_eq!(&member.value, &Value::Integer(*value));
            }
        }
    }
}
