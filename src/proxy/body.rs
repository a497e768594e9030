//! A request's body, as far as it must be whole before the request goes on.

use bytes::Bytes;

use crate::http::{Method, media};
use crate::http1::BodyLength;
use crate::proxy::core::Core;
use crate::proxy::downstream::{BodyEnd, Downstream};
use crate::proxy::error::Refusal;
use crate::proxy::request::Task;

/// What there is of a body.
pub enum RequestBody {
    /// Nothing.
    None,
    /// All of it.
    Whole(Bytes),
    /// It is read as it goes out.
    Streamed,
}

/// Reads a body that is part of the key or must be JSON; leaves any other to be streamed.
pub async fn take(
    core: &Core,
    task: &Task,
    in_key: bool,
    client: &impl Downstream,
) -> Result<RequestBody, BodyEnd> {
    if let BodyLength::Length(length) = task.framing.body
        && length > core.plan().request_body_bytes_max
    {
        return Err(BodyEnd::Refused(Refusal::BodyTooLarge));
    }
    if !task.has_body() {
        return Ok(RequestBody::None);
    }
    let json = must_be_json(core, task);
    if json && !is_json(task) {
        return Err(BodyEnd::Refused(Refusal::NotJson));
    }
    if !json && !in_key {
        return Ok(RequestBody::Streamed);
    }
    let whole = whole(task, client).await?;
    if json {
        check_json(&whole)?;
    }
    Ok(RequestBody::Whole(whole.into()))
}

fn must_be_json(core: &Core, task: &Task) -> bool {
    let sends = matches!(task.head.method, Method::Post | Method::Put | Method::Patch);
    core.plan().json_only && sends
}

fn is_json(task: &Task) -> bool {
    let value = task.head.fields.single("Content-Type");
    value.and_then(media::MediaType::parse).is_some_and(|it| it.is_json())
}

async fn whole(task: &Task, client: &impl Downstream) -> Result<Vec<u8>, BodyEnd> {
    // A stated length is room to reserve only as far as bytes have to come for it soon.
    let room = match task.framing.body {
        BodyLength::Length(length) => length.min(BODY_ROOM_BYTES),
        BodyLength::None | BodyLength::Chunked => 0,
    };
    let mut whole = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
    while let Some(chunk) = client.body().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn check_json(body: &[u8]) -> Result<(), BodyEnd> {
    // simd-json works in place.
    let mut copy = body.to_vec();
    match simd_json::to_tape(&mut copy) {
        Ok(_) => Ok(()),
        Err(error) => {
            let at = fault_at(body).unwrap_or_else(|| error.index());
            Err(BodyEnd::Refused(Refusal::BadJson(at)))
        }
    }
}

/// Where it stops being JSON (the byte there, or the one before it), by a parser that goes byte by
/// byte: the fast one looks at many at once and can't always tell. Only for texts that are refused.
fn fault_at(body: &[u8]) -> Option<usize> {
    let fault = serde_json::from_slice::<serde::de::IgnoredAny>(body).err()?;
    // Both count from one; the column in bytes.
    let before: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(fault.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    Some((before + fault.column().saturating_sub(1)).min(body.len()))
}

/// Reserved at once for a body of stated length.
const BODY_ROOM_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_of_a_fault_is_where_it_is_seen() {
        let rows: &[(&str, usize)] = &[
            ("x", 0),
            ("{\"a\":", 4),
            ("[1,2,]", 5),
            ("{\"a\":1}x", 7),
            ("{\"a\":\"\u{1}\"}", 5),
            ("{\n\"a\": tru}", 10),
            ("[\n1,\n2,\n\u{e9}]", 8),
            ("", 0),
        ];
        for (text, expected) in rows {
            assert!(check_json(text.as_bytes()).is_err(), "{text:?}");
            assert_eq!(fault_at(text.as_bytes()), Some(*expected), "{text:?}");
        }
        assert!(check_json(b"{\"a\":[1,2.5e3,\"\\u00e9\"]}").is_ok());
    }
}
