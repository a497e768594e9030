//! The parameters of operators' requests: split, decoded, and read as the paths of clients.
//!
//! A path may come as a program encodes a value (`%2Fv1%2Fa%2520b`), or as a person pastes it from
//! a log (`/v1/a%20b`). Where these are two paths, both are meant: to purge one too many costs a
//! fetch, to purge one too few leaves what is wrong in place.

use crate::http::target::normalise_path;
use crate::proxy::{Core, Task};

/// Names and values as they were written, without empty pieces.
pub fn parameters(task: &Task) -> impl Iterator<Item = (&str, &str)> {
    let query = task.head.query.as_deref().unwrap_or_default();
    let pieces = query.split('&').filter(|it| !it.is_empty());
    pieces.map(|it| it.split_once('=').unwrap_or((it, "")))
}

/// Percent-decoding (RFC 3986 section 2.1), a plus sign being one; `None` for an escape that is
/// none.
pub fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    Some(out)
}

/// The targets that a value may stand for, the more likely one first: decoded once, and as it is.
pub fn readings(value: &str) -> Vec<Vec<u8>> {
    let raw = value.as_bytes().to_vec();
    let mut readings: Vec<_> = decoded(value).map(|it| escaped(&it)).into_iter().collect();
    if readings.first() != Some(&raw) {
        readings.push(raw);
    }
    readings
}

/// A path in the spelling that keys have, without the API prefix; `None` for what no request has.
pub fn normal_path(core: &Core, path: &[u8]) -> Option<String> {
    let plan = core.plan();
    let normal = normalise_path(path, plan.slashes).ok()?;
    let prefixed = !plan.prefix.as_str().is_empty();
    let inner = if prefixed { plan.prefix.strip(&normal) } else { None };
    String::from_utf8(inner.unwrap_or(&normal).to_vec()).ok()
}

/// What a client makes of a path that it is given in plain: spaces and what is beyond ASCII are
/// escaped.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' | 0x80.. => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            plain => out.push(*plain),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_decoded_and_as_it_is() {
        let rows: &[(&str, &[&str])] = &[
            ("/v1/item:1", &["/v1/item:1"]),
            ("%2Fv1%2Fitem%3A1", &["/v1/item:1", "%2Fv1%2Fitem%3A1"]),
            ("/v1/a%26b", &["/v1/a&b", "/v1/a%26b"]),
            ("/v1/a%2520b", &["/v1/a%20b", "/v1/a%2520b"]),
            ("/v1/a%20b", &["/v1/a%20b"]),
            ("/v1/caf%C3%A9", &["/v1/caf%C3%A9"]),
            ("/v1/caf%c3%a9", &["/v1/caf%C3%A9", "/v1/caf%c3%a9"]),
            ("/v1/a+b", &["/v1/a+b"]),
            ("/v1/100%", &["/v1/100%"]),
        ];
        for (value, expected) in rows {
            let readings: Vec<_> =
                readings(value).into_iter().map(|it| String::from_utf8(it).unwrap()).collect();
            assert_eq!(readings, *expected, "{value}");
        }
    }
}
