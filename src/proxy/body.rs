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
        Err(error) => Err(BodyEnd::Refused(Refusal::BadJson(error.index()))),
    }
}

/// Reserved at once for a body of stated length.
const BODY_ROOM_BYTES: u64 = 64 * 1024;
