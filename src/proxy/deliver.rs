//! From an entry, or an answer still arriving, to the client: coding, conditions and ranges
//! (`cut`), and the fields that tell what the cache did.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::entry::varying_on_coding;
use crate::cache::{CacheStatus, Entry, Marks, Outcome, Reason};
use crate::http::range::{ContentRange, Span};
use crate::http::{Fields, Method, ResponseHead, Version};
use crate::net::wall;
use crate::proxy::answer;
use crate::proxy::coding::coded;
use crate::proxy::core::Core;
use crate::proxy::cut::{Held, cut};
use crate::proxy::downstream::{Downstream, Gone, Length, Reply};
use crate::proxy::early::Early;
use crate::proxy::error::Fault;
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
    let (request, received) = (&inquiry.task.head, entry.facts().response_time);
    let mut answer = cut(request, head, body, Held::of(entry), received, now);
    let age = entry.facts().age(now);
    // RFC 9111 section 5.1: Age says that the origin did not make or confirm it for this request.
    if !is_first_hand(&status) || age.as_secs() > 0 {
        answer.head.fields.extend_with(|out| answer::push_age(age, out));
    }
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

/// An answer that is still arriving, for one who reads it.
pub struct Arriving<'i> {
    /// The answer.
    pub incoming: &'i Incoming,
    /// The place in its body.
    pub reader: Reader,
    /// Fields for this client alone.
    pub own: Fields,
    /// How old it is, where that is not for the origin alone to say.
    pub age: Option<Duration>,
    /// What is said of it.
    pub status: CacheStatus,
}

/// Sends an answer while it arrives: all of it, or what the request may have early that wants
/// no more.
pub async fn incoming(
    core: &Core,
    inquiry: &Inquiry,
    arriving: Arriving<'_>,
    early: Early,
    client: &impl Downstream,
) {
    let Arriving { incoming, reader, own, age, status } = arriving;
    let task = &inquiry.task;
    let mut head = incoming.head.clone();
    if is_negotiated(core.plan(), incoming)
        && let Some(varying) = varying_on_coding(&head.fields)
    {
        head.fields = varying;
    }
    head.fields.extend(&own);
    if let Some(age) = age.filter(|it| it.as_secs() > 0) {
        head.fields.remove("Age");
        head.fields.extend_with(|out| answer::push_age(age, out));
    }
    note(&mut head.fields, &status);
    let told = result_of(&status);
    let (length, span) = match early {
        Early::NotModified => {
            let (request, now) = (&task.head, wall());
            let answer = cut(request, head, Bytes::new(), Held::Whole, incoming.received, now);
            drop(reader);
            return whole(core, task, answer, told, client).await;
        }
        Early::Run { span, complete } => {
            head.status = 206;
            let range = ContentRange::Part { span, complete: Some(complete) };
            head.fields.replace("Content-Range", range.to_string());
            (Length::Known(span.len()), Some(span))
        }
        Early::All | Early::Nothing => {
            (incoming.length.map_or(Length::Unknown, Length::Known), None)
        }
    };
    let (code, mut fields) = (head.status, head.fields);
    answer::push_own(core.plan(), &mut fields, &task.id, &task.standings);
    let sent = match client.start(Reply { status: code, fields, length }).await {
        // Boxed: most answers are whole.
        Ok(()) => Box::pin(pump(reader, span, client)).await,
        Err(Gone) => Sent::left(0),
    };
    record::answered(core, task, code, told, sent);
}

/// Takes all of an answer that is not stored, and sends what of it the client wants.
///
/// # Errors
/// [`Fault::Truncated`]: nothing was sent.
pub async fn incoming_cut(
    core: &Core,
    inquiry: &Inquiry,
    arriving: Arriving<'_>,
    client: &impl Downstream,
) -> Result<(), Fault> {
    let Arriving { incoming, mut reader, own, age: _, status } = arriving;
    let mut body = Vec::new();
    loop {
        match race(reader.next(), client.gone()).await {
            First::Left(Piece::Chunk(chunk)) => body.extend_from_slice(&chunk),
            First::Left(Piece::End) => break,
            First::Left(Piece::Truncated) => return Err(Fault::Truncated),
            First::Right(()) => {
                record::left(core, &inquiry.task);
                return Ok(());
            }
        }
    }
    drop(reader);
    let mut head = incoming.head.clone();
    head.fields.extend(&own);
    let now = wall();
    let mut answer = cut(&inquiry.task.head, head, body.into(), Held::Whole, now, now);
    note(&mut answer.head.fields, &status);
    whole(core, &inquiry.task, answer, result_of(&status), client).await;
    Ok(())
}

/// Whether what is being stored will be sent in another coding too.
fn is_negotiated(plan: &Plan, incoming: &Incoming) -> bool {
    let fits = incoming.length.is_none_or(|it| plan.compressed_lengths().contains(&it));
    let marks = Marks::of(&incoming.head.fields);
    incoming.reason.is_none() && (marks.gzip || marks.compressible && fits)
}

/// Sends a body as it comes, or one run of it.
async fn pump(mut reader: Reader, span: Option<Span>, client: &impl Downstream) -> Sent {
    let (mut bytes, mut at) = (0, 0);
    let mut gone = pin!(client.gone());
    loop {
        // A client that leaves while nothing arrives is noticed here, one that leaves while
        // something does by the write that fails.
        let piece = match race(reader.next(), gone.as_mut()).await {
            First::Left(piece) => piece,
            First::Right(()) => return Sent::left(bytes),
        };
        match piece {
            Piece::Chunk(mut chunk) => {
                if let Some(span) = span {
                    let from = at;
                    at += chunk.len() as u64;
                    chunk = within(&chunk, from, span);
                }
                bytes += chunk.len() as u64;
                if !chunk.is_empty() && client.chunk(chunk).await.is_err() {
                    return Sent::left(bytes);
                }
                if span.is_some_and(|it| at > it.last) {
                    return finish(bytes, client).await;
                }
            }
            Piece::End => return finish(bytes, client).await,
            Piece::Truncated => {
                client.cut();
                return Sent::cut(bytes);
            }
        }
    }
}

async fn finish(bytes: u64, client: &impl Downstream) -> Sent {
    match client.finish().await {
        Ok(()) => Sent::whole(bytes),
        Err(Gone) => Sent::left(bytes),
    }
}

/// What of a chunk, whose first byte is that at offset `from`, lies within a span.
fn within(chunk: &Bytes, from: u64, span: Span) -> Bytes {
    let bytes = chunk.len() as u64;
    let first = span.first.saturating_sub(from).min(bytes);
    let end = (span.last + 1).saturating_sub(from).min(bytes).max(first);
    // Neither is larger than the chunk.
    chunk.slice(first as usize..end as usize)
}

/// Adds Cache-Status, X-Cache and, for an offline answer, X-Offline.
pub fn note(fields: &mut Fields, status: &CacheStatus) {
    // Of another cache's it would be a second one, which nobody reads; in Cache-Status each has its
    // place.
    fields.remove("X-Cache");
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

/// Whether the origin answered, or confirmed, this very request.
const fn is_first_hand(status: &CacheStatus) -> bool {
    let asked = matches!(status.outcome, Outcome::Forwarded(_) | Outcome::Revalidated(_));
    asked && !status.collapsed
}

/// How an answer counts.
#[must_use]
pub fn result_of(status: &CacheStatus) -> Told {
    status.into()
}
