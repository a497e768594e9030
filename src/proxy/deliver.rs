//! From an entry, or an answer still arriving, to the client: coding, conditions, ranges, and the
//! fields that tell what the cache did.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::Wall;
use crate::cache::entry::varying_on_coding;
use crate::cache::{CacheStatus, Entry, Marks, Reason};
use crate::http::conditional::{Precondition, Validators, evaluate, if_range_holds};
use crate::http::range::{ContentRange, Multipart, Ranges, Resolved, Span, resolve};
use crate::http::{Fields, Method, ResponseHead, Version};
use crate::net::wall;
use crate::proxy::answer;
use crate::proxy::coding::coded;
use crate::proxy::core::Core;
use crate::proxy::downstream::{Downstream, Gone, Length, Reply};
use crate::proxy::flight::Incoming;
use crate::proxy::growing::{Piece, Reader};
use crate::proxy::inquiry::Inquiry;
use crate::proxy::plan::Plan;
use crate::proxy::race::{First, race};
use crate::proxy::record::{self, Sent, Told};
use crate::proxy::request::Task;

/// Sends an entry as this request wants it.
pub async fn entry(
    core: &Core,
    inquiry: &Inquiry,
    entry: &Arc<Entry>,
    status: CacheStatus,
    client: &impl Downstream,
) {
    entry_with(core, inquiry, entry, &Fields::new(), status, client).await;
}

/// Sends an entry to the client whose request brought it, with the fields that are its alone.
pub async fn entry_with(
    core: &Core,
    inquiry: &Inquiry,
    entry: &Arc<Entry>,
    own: &Fields,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let (mut fields, body) = coded(core, inquiry, entry).await;
    let now = wall();
    fields.extend(own);
    let head = ResponseHead { status: entry.status(), version: Version::Http11, fields };
    let mut answer = conditioned(inquiry, head, body, entry.facts().response_time, now);
    let age = entry.facts().age(now);
    answer.head.fields.extend_with(|out| answer::push_age(age, out));
    note(&mut answer.head.fields, &status);
    whole(core, &inquiry.task, answer, result_of(&status), client).await;
}

/// A whole answer.
pub struct Whole {
    /// Its head, without Content-Length.
    pub head: ResponseHead,
    /// Its body.
    pub body: Bytes,
    /// What its Content-Length says where that differs from the body sent (HEAD); `None` for
    /// statuses that have none.
    pub length: Option<u64>,
}

/// Sends a whole answer with the fields every answer has.
pub async fn whole(
    core: &Core,
    task: &Task,
    answer: Whole,
    told: impl Into<Told>,
    client: &impl Downstream,
) {
    let Whole { head, body, length } = answer;
    let ResponseHead { status, mut fields, .. } = head;
    fields.remove("Content-Length");
    answer::push_own(core.plan(), &mut fields, &task.id, &task.standings);
    let bodyless = task.head.method == Method::Head || status == 304 || status == 204;
    let length = match length {
        None => Length::Bodyless,
        Some(length) if bodyless => Length::BodylessOf(length),
        Some(length) => Length::Known(length),
    };
    let body = if bodyless { Bytes::new() } else { body };
    let bytes = body.len() as u64;
    let sent = match client.whole(Reply { status, fields, length }, body).await {
        Ok(()) => Sent::whole(bytes),
        Err(Gone) => Sent::left(bytes),
    };
    record::answered(core, task, status, told.into(), sent);
}

/// Sends an answer while it arrives, with the fields that are this client's alone.
pub async fn incoming(
    core: &Core,
    inquiry: &Inquiry,
    incoming: &Incoming,
    reader: Reader,
    own: &Fields,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let task = &inquiry.task;
    let mut fields = incoming.head.fields.clone();
    if is_negotiated(core.plan(), incoming)
        && let Some(varying) = varying_on_coding(&fields)
    {
        fields = varying;
    }
    fields.extend(own);
    note(&mut fields, &status);
    answer::push_own(core.plan(), &mut fields, &task.id, &task.standings);
    let length = incoming.length.map_or(Length::Unknown, Length::Known);
    let reply = Reply { status: incoming.head.status, fields, length };
    let sent = match client.start(reply).await {
        // Boxed: most answers are whole.
        Ok(()) => Box::pin(pump(reader, client)).await,
        Err(Gone) => Sent::left(0),
    };
    record::answered(core, task, incoming.head.status, result_of(&status), sent);
}

/// Whether what is being stored will be sent in another coding too.
fn is_negotiated(plan: &Plan, incoming: &Incoming) -> bool {
    let fits = incoming.length.is_none_or(|it| plan.compressed_lengths().contains(&it));
    let marks = Marks::of(&incoming.head.fields);
    incoming.reason.is_none() && (marks.gzip || marks.compressible && fits)
}

async fn pump(mut reader: Reader, client: &impl Downstream) -> Sent {
    let mut bytes = 0;
    let mut gone = pin!(client.gone());
    loop {
        // A client that leaves while nothing arrives is noticed here, one that leaves while
        // something does by the write that fails.
        let piece = match race(reader.next(), gone.as_mut()).await {
            First::Left(piece) => piece,
            First::Right(()) => return Sent::left(bytes),
        };
        match piece {
            Piece::Chunk(chunk) => {
                bytes += chunk.len() as u64;
                if client.chunk(chunk).await.is_err() {
                    return Sent::left(bytes);
                }
            }
            Piece::End => {
                return match client.finish().await {
                    Ok(()) => Sent::whole(bytes),
                    Err(Gone) => Sent::left(bytes),
                };
            }
            Piece::Truncated => {
                client.cut();
                return Sent::cut(bytes);
            }
        }
    }
}

/// Applies the request's conditions and ranges to a whole response (RFC 9110 sections 13 and 14).
pub fn conditioned(
    inquiry: &Inquiry,
    mut head: ResponseHead,
    body: Bytes,
    received: Wall,
    now: Wall,
) -> Whole {
    let request = &inquiry.task.head;
    let length = body.len() as u64;
    let validators = Validators::of(&head, received);
    match evaluate(&request.method, &request.fields, &validators, now) {
        Precondition::NotModified => {
            head.status = 304;
            head.fields.retain(|field| !NOT_IN_304.iter().any(|name| field.is(name)));
            return Whole { head, body: Bytes::new(), length: None };
        }
        Precondition::Failed | Precondition::Proceed => {}
    }
    let ranged = inquiry.facts.range && request.method == Method::Get && head.status == 200;
    if ranged && if_range_holds(&request.fields, &validators, now) {
        let ranges = request.fields.single("Range").and_then(Ranges::parse);
        let resolved = ranges.map_or(Resolved::Whole, |it| resolve(&it, length));
        return partial(head, body, &resolved);
    }
    let length = crate::http::status::body_allowed(head.status, &Method::Get).then_some(length);
    Whole { head, body, length }
}

fn partial(mut head: ResponseHead, body: Bytes, resolved: &Resolved) -> Whole {
    let complete = body.len() as u64;
    let body = match resolved {
        Resolved::Whole => body,
        Resolved::One(span) => {
            head.status = 206;
            let range = ContentRange::Part { span: *span, complete: Some(complete) };
            head.fields.replace("Content-Range", range.to_string());
            slice(&body, *span)
        }
        Resolved::Many(spans) => {
            let content_type = head.fields.get("Content-Type").map(<[u8]>::to_vec);
            let boundary = boundary(&body);
            let parts = Multipart {
                boundary: &boundary,
                content_type: content_type.as_deref(),
                complete,
                spans,
            };
            let mut text = Vec::new();
            if parts.write_body(&body, &mut text) {
                head.status = 206;
                head.fields.replace("Content-Type", parts.media_type());
                text.into()
            } else {
                body
            }
        }
        Resolved::Unsatisfiable => {
            head.status = 416;
            let range = ContentRange::Unsatisfied { complete };
            head.fields.replace("Content-Range", range.to_string());
            head.fields.remove("Content-Type");
            head.fields.remove("Content-Encoding");
            Bytes::new()
        }
    };
    let length = Some(body.len() as u64);
    Whole { head, body, length }
}

fn slice(body: &Bytes, span: Span) -> Bytes {
    let (first, last) = (usize::try_from(span.first), usize::try_from(span.last));
    match (first, last) {
        (Ok(first), Ok(last)) if last < body.len() => body.slice(first..=last),
        _ => Bytes::new(),
    }
}

/// A boundary that the body can't contain by accident, the same for the same body.
fn boundary(body: &[u8]) -> String {
    let digest = crate::cache::key::digest(body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("apiproxyd-{hex}")
}

/// Adds Cache-Status, X-Cache and, for an offline answer, X-Offline.
pub fn note(fields: &mut Fields, status: &CacheStatus) {
    fields.extend_with(|out| {
        out.extend_from_slice(b"X-Cache: ");
        out.extend_from_slice(status.x_cache().as_bytes());
        out.extend_from_slice(b"\r\nCache-Status: ");
        status.write(out);
        out.extend_from_slice(b"\r\n");
    });
    if status.detail == Some(Reason::Offline) {
        fields.push("X-Offline", "true");
    }
}

/// How an answer counts.
#[must_use]
pub fn result_of(status: &CacheStatus) -> Told {
    status.into()
}

/// Describes a body, which a 304 has not (RFC 9110 section 15.4.5).
const NOT_IN_304: &[&str] = &[
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Range",
    "Content-Type",
    "Transfer-Encoding",
];
