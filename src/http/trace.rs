//! W3C Trace Context, as far as a hop that records no spans of its own is concerned: what is valid
//! goes on unchanged, what is not ends here.
//!
//! ```text
//! traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//!              version  trace-id (32)     parent-id (16)     flags
//! ```
//!
//! None is made where the client sent none: an id that nobody has recorded a span for would only
//! lead to nothing. The request id is what names such a request.

use crate::http::fields::{Field, Fields};

/// The trace-id of a valid `traceparent`, 32 hexadecimal digits. `values` are those of all its
/// field lines: where there is not exactly one, none is valid (section 3.2.1: it is a singleton).
#[must_use]
pub fn trace_id<'f>(mut values: impl Iterator<Item = &'f [u8]>) -> Option<&'f [u8]> {
    let only = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse(only)
}

/// Removes `traceparent` and `tracestate` unless the former is valid: whoever can't read it must
/// not pass on the latter either (section 4.3).
pub fn drop_invalid(fields: &mut Fields) {
    let named = |field: &Field<'_>| field.is(TRACEPARENT) || field.is(TRACESTATE);
    if fields.iter().any(|it| named(&it)) && trace_id(fields.all(TRACEPARENT)).is_none() {
        fields.retain(|field| !named(&field));
    }
}

/// Section 3.2.2. Versions after 00 may have more behind another hyphen; ff is no version.
fn parse(value: &[u8]) -> Option<&[u8]> {
    let (version, rest) = member(value, 2)?;
    let (trace_id, rest) = member(rest.strip_prefix(b"-")?, 32)?;
    let (parent_id, rest) = member(rest.strip_prefix(b"-")?, 16)?;
    let (_flags, rest) = member(rest.strip_prefix(b"-")?, 2)?;
    let ends = rest.is_empty() || version != b"00" && rest.starts_with(b"-");
    let zero = |id: &[u8]| id.iter().all(|digit| *digit == b'0');
    (ends && version != b"ff" && !zero(trace_id) && !zero(parent_id)).then_some(trace_id)
}

/// So many lower-case hexadecimal digits, and what follows them.
fn member(text: &[u8], digits: usize) -> Option<(&[u8], &[u8])> {
    let (member, rest) = text.split_at_checked(digits)?;
    let hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    member.iter().all(hex).then_some((member, rest))
}

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";

    fn of(value: &str) -> Option<&[u8]> {
        trace_id(std::iter::once(value.as_bytes()))
    }

    #[test]
    fn a_valid_parent_gives_its_trace() {
        for value in [
            format!("00-{ID}-b7ad6b7169203331-01"),
            format!("00-{ID}-b7ad6b7169203331-ff"),
            format!("01-{ID}-b7ad6b7169203331-00"),
            format!("cc-{ID}-b7ad6b7169203331-00-what-the-future-brings"),
        ] {
            assert_eq!(of(&value), Some(ID.as_bytes()), "{value}");
        }
    }

    #[test]
    fn anything_else_is_no_parent() {
        for value in [
            String::new(),
            "00".to_owned(),
            format!("ff-{ID}-b7ad6b7169203331-01"),
            format!("00-{ID}-b7ad6b7169203331-01-more"),
            format!("00-{ID}-b7ad6b7169203331-01x"),
            format!("cc-{ID}-b7ad6b7169203331-00.x"),
            format!("00-{ID}-b7ad6b7169203331"),
            format!("00-{ID}-b7ad6b7169203331-"),
            format!("00-{ID}-b7ad6b716920333-01"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{}-b7ad6b7169203331-01", ID.to_uppercase()),
            format!("00_{ID}_b7ad6b7169203331_01"),
            format!("0-{ID}-b7ad6b7169203331-01"),
            format!("00-{ID}-b7ad6b7169203331-0g"),
        ] {
            assert_eq!(of(&value), None, "{value}");
        }
        let twice = format!("00-{ID}-b7ad6b7169203331-01");
        assert_eq!(trace_id([twice.as_bytes(), twice.as_bytes()].into_iter()), None);
    }

    #[test]
    fn only_a_valid_parent_and_its_state_go_on() {
        let valid = format!("00-{ID}-b7ad6b7169203331-01");
        let rows: &[(&[(&str, &str)], usize)] = &[
            (&[("Accept", "x")], 1),
            (&[("Traceparent", &valid), ("tracestate", "a=1"), ("tracestate", "b=2")], 3),
            (&[("Traceparent", "junk"), ("Tracestate", "a=1")], 0),
            (&[("tracestate", "a=1"), ("Accept", "x")], 1),
            (&[("traceparent", &valid), ("traceparent", &valid), ("tracestate", "a=1")], 0),
        ];
        for (given, left) in rows {
            let mut fields = Fields::new();
            given.iter().for_each(|(name, value)| fields.push(name, value));
            drop_invalid(&mut fields);
            assert_eq!(fields.iter().count(), *left, "{given:?}");
        }
    }
}
