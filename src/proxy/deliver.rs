//! From an entry, or an answer still arriving, to the client: coding, conditions and ranges
//! (`cut`), and the fields that tell what the cache did.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{CacheStatus, Encoded, Entry, OtherCoding, Outcome, Reason, encode};
use crate::http::{Fields, Method, ResponseHead, Version};
use crate::net::wall;
use crate::proxy::answer;
use crate::proxy::core::Core;
use crate::proxy::cut::{Held, cut};
use crate::proxy::downstream::{Downstream, Gone, Length, Reply};
use crate::proxy::error::Fault;
use crate::proxy::flight::Incoming;
use crate::proxy::growing::Piece;
use crate::proxy::inquiry::Inquiry;
use crate::proxy::race::{First, race};
use crate::proxy::record::{self, Sent, Told};
use crate::proxy::request::Task;

/// Sends an entry as this request wants it.
pub async fn entry(
    core: &Core,
    inquiry: &Inquiry,
    entry: &Entry,
    status: CacheStatus,
    client: &impl Downstream,
) {
    entry_with(core, inquiry, entry, &Fields::new(), status, client).await;
}

/// Sends an entry to the client whose request brought it, with the fields that are its alone.
pub async fn entry_with(
    core: &Core,
    inquiry: &Inquiry,
    entry: &Entry,
    own: &Fields,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let now = wall();
    let (mut fields, body) = coded(core, inquiry, entry);
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

/// Sends an answer while it arrives, with the fields that are this client's alone.
pub async fn incoming(
    core: &Core,
    inquiry: &Inquiry,
    incoming: &Arc<Incoming>,
    own: &Fields,
    status: CacheStatus,
    client: &impl Downstream,
) {
    let task = &inquiry.task;
    let mut fields = incoming.head.fields.clone();
    fields.extend(own);
    note(&mut fields, &status);
    answer::push_own(core.plan(), &mut fields, &task.id, &task.standings);
    let length = incoming.length.map_or(Length::Unknown, Length::Known);
    let reply = Reply { status: incoming.head.status, fields, length };
    let reader = Reader(incoming);
    let sent = match client.start(reply).await {
        // Boxed: most answers are whole.
        Ok(()) => Box::pin(pump(&reader, client)).await,
        Err(Gone) => Sent::left(0),
    };
    drop(reader);
    record::answered(core, task, incoming.head.status, result_of(&status), sent);
}

/// Takes all of an answer that is not stored, and sends what of it the client wants.
///
/// # Errors
/// [`Fault::Truncated`]: nothing was sent.
pub async fn incoming_cut(
    core: &Core,
    inquiry: &Inquiry,
    incoming: &Arc<Incoming>,
    own: &Fields,
    status: CacheStatus,
    client: &impl Downstream,
) -> Result<(), Fault> {
    let reader = Reader(incoming);
    let (mut cursor, mut body) = (0, Vec::new());
    loop {
        match race(incoming.body.next(&mut cursor), client.gone()).await {
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
    head.fields.extend(own);
    let now = wall();
    let mut answer = cut(&inquiry.task.head, head, body.into(), Held::Whole, now, now);
    note(&mut answer.head.fields, &status);
    whole(core, &inquiry.task, answer, result_of(&status), client).await;
    Ok(())
}

async fn pump(reader: &Reader<'_>, client: &impl Downstream) -> Sent {
    let (mut cursor, mut bytes) = (0, 0);
    let mut gone = pin!(client.gone());
    loop {
        // A client that leaves while nothing arrives is noticed here, one that leaves while
        // something does by the write that fails.
        let piece = match race(reader.0.body.next(&mut cursor), gone.as_mut()).await {
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

/// Tells a passing body's writer when its reader leaves, however it leaves.
struct Reader<'i>(&'i Incoming);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if !self.0.shared {
            self.0.body.abandon();
        }
    }
}

/// The stored response, or its other coding where the client wants that.
fn coded(core: &Core, inquiry: &Inquiry, entry: &Entry) -> (Fields, Bytes) {
    let marks = entry.marks();
    let plan = core.plan();
    let large = entry.body().len() as u64 >= plan.compression_bytes_min;
    let wants_other = if marks.gzip {
        !inquiry.codings.gzip.is_acceptable()
    } else {
        // A range is of the form that is stored, whose strong validator it can name.
        marks.compressible && large && !inquiry.facts.range && inquiry.codings.prefers_gzip()
    };
    let stored = || (entry.fields().clone(), entry.body().clone());
    if !wants_other {
        return stored();
    }
    let other = match entry.other_coding() {
        OtherCoding::NotMade => entry.keep_other_coding(other_coding(core, entry)),
        known => known,
    };
    match other {
        OtherCoding::Made(other) => (other.fields.clone(), other.body.clone()),
        OtherCoding::NotMade | OtherCoding::Useless => stored(),
    }
}

/// Makes the other coding with a head of its own: another ETag, so that no validator names two
/// different byte sequences (RFC 9110 section 8.8.3.3).
fn other_coding(core: &Core, entry: &Entry) -> Option<Encoded> {
    let plan = core.plan();
    let mut fields = entry.fields().clone();
    fields.remove("Content-Encoding");
    let body: Bytes = if entry.marks().gzip {
        let max = usize::try_from(plan.response_body_bytes_max).unwrap_or(usize::MAX);
        encode::gunzip(entry.body(), max).ok()?.into()
    } else {
        let level = u8::try_from(plan.compression_level).ok().and_then(encode::Level::new)?;
        fields.push("Content-Encoding", "gzip");
        encode::gzip(entry.body(), level)?.into()
    };
    fields.remove("Content-Length");
    fields.push("Content-Length", body.len().to_string());
    fields.remove("Accept-Ranges");
    weaken(&mut fields);
    let varies = crate::http::list::field_members(&fields, "Vary")
        .any(|it| it.eq_ignore_ascii_case(b"accept-encoding"));
    if !varies {
        fields.push("Vary", "Accept-Encoding");
    }
    Some(Encoded { fields, body })
}

/// A strong validator names one byte sequence; the same in another coding is only equivalent.
fn weaken(fields: &mut Fields) {
    let strong = fields.single("ETag").filter(|it| it.starts_with(b"\"")).map(<[u8]>::to_vec);
    if let Some(tag) = strong {
        fields.remove("ETag");
        fields.push("ETag", [b"W/", &*tag].concat());
    }
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
