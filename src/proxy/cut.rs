//! What of a representation a request gets: nothing where it has it already (304), the ranges that
//! it asks for (206, 416), or all of it (RFC 9110 sections 13, 14 and 15).

use bytes::Bytes;

use crate::base::Wall;
use crate::cache::{Entry, Kind, Part, Reason};
use crate::http::conditional::{Precondition, Validators, evaluate, wanted_ranges};
use crate::http::range::{ContentRange, Multipart, Resolved, Span, resolve};
use crate::http::{Fields, Method, RequestHead, ResponseHead, status};
use crate::proxy::coding::is_fixed;
use crate::proxy::deliver::Whole;
use crate::proxy::inquiry::Inquiry;

/// How much of the representation is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Part),
}

impl Held {
    /// What an entry holds.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        match entry.kind() {
            Kind::Part(part) => Self::Part(part),
            Kind::Content | Kind::VaryIndex(_) => Self::Whole,
        }
    }
}

/// Whether an entry can answer the request at all: in a coding that the client takes, or that may
/// be changed into one; a part only if it has every byte that is asked for (RFC 9111 section 3.3),
/// and as it is.
#[must_use]
pub fn answers(inquiry: &Inquiry, entry: &Entry, now: Wall) -> bool {
    let readable = !entry.marks().gzip || inquiry.codings.gzip.is_acceptable();
    let Held::Part(part) = Held::of(entry) else { return readable || !is_fixed(inquiry, entry) };
    let request = &inquiry.task.head;
    let received = entry.facts().response_time;
    let validators = Validators::of_fields(entry.status(), entry.fields(), received);
    let wanted = wanted_ranges(&request.method, &request.fields, &validators, now);
    readable && wanted.is_some_and(|it| part.resolve(&it).is_some())
}

/// Why an entry can't answer the request at all.
#[must_use]
pub fn lack(entry: &Entry) -> Reason {
    match Held::of(entry) {
        Held::Whole => Reason::ContentCoding,
        Held::Part(_) => Reason::Partial,
    }
}

/// Applies the request's conditions and ranges to what is held, which was received at `received`.
///
/// A part that lacks what is asked for goes out as it is: it is then the origin's own answer to
/// this request, and says itself which bytes it has (RFC 9110 section 15.3.7).
pub fn cut(
    request: &RequestHead,
    mut head: ResponseHead,
    body: Bytes,
    held: Held,
    received: Wall,
    now: Wall,
) -> Whole {
    let validators = Validators::of(&head, received);
    match evaluate(&request.method, &request.fields, &validators, now) {
        Precondition::NotModified => {
            head.status = 304;
            drop_fields(&mut head.fields, NOT_IN_304);
            return Whole { head, body: Bytes::new(), length: None };
        }
        Precondition::Failed | Precondition::Proceed => {}
    }
    let wanted = wanted_ranges(&request.method, &request.fields, &validators, now);
    let length = body.len() as u64;
    match held {
        Held::Whole if head.status == 200 => {
            let resolved = wanted.map_or(Resolved::Whole, |it| resolve(&it, length));
            partial(head, body, 0, Some(length), &resolved)
        }
        Held::Whole => {
            let length = status::body_allowed(head.status, &Method::Get).then_some(length);
            Whole { head, body, length }
        }
        Held::Part(part) => {
            let resolved = wanted.and_then(|it| part.resolve(&it));
            let resolved = resolved.unwrap_or(Resolved::One(part.span));
            partial(head, body, part.span.first, part.complete, &resolved)
        }
    }
}

/// Cuts ranges out of `body`, whose first byte is that at offset `from` of the representation.
fn partial(
    mut head: ResponseHead,
    body: Bytes,
    from: u64,
    complete: Option<u64>,
    resolved: &Resolved,
) -> Whole {
    if *resolved != Resolved::Whole {
        drop_fields(&mut head.fields, OF_THE_CONTENT);
    }
    let body = match resolved {
        Resolved::Whole => body,
        Resolved::One(span) => {
            head.status = 206;
            let range = ContentRange::Part { span: *span, complete };
            head.fields.replace("Content-Range", range.to_string());
            slice(&body, span.from(from))
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
            // What is held has all that was resolved.
            let written = parts.write_body(&body, from, &mut text);
            debug_assert!(written, "{spans:?} from {from} of {} bytes", body.len());
            head.status = 206;
            head.fields.replace("Content-Type", parts.media_type());
            text.into()
        }
        Resolved::Unsatisfiable => {
            head.status = 416;
            let range = ContentRange::Unsatisfied { complete: complete.unwrap_or_default() };
            head.fields.replace("Content-Range", range.to_string());
            drop_fields(&mut head.fields, &["Content-Type", "Content-Encoding", "Repr-Digest"]);
            Bytes::new()
        }
    };
    let length = Some(body.len() as u64);
    Whole { head, body, length }
}

fn drop_fields(fields: &mut Fields, names: &[&str]) {
    fields.retain(|field| !names.iter().any(|name| field.is(name)));
}

fn slice(body: &Bytes, span: Option<Span>) -> Bytes {
    let bounds = span.map(|it| (usize::try_from(it.first), usize::try_from(it.last)));
    match bounds {
        Some((Ok(first), Ok(last))) if last < body.len() => body.slice(first..=last),
        _ => Bytes::new(),
    }
}

/// A boundary that the body can't contain by accident, the same for the same body.
fn boundary(body: &[u8]) -> String {
    let digest = crate::cache::key::digest(body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("apiproxyd-{hex}")
}

/// Describes a body, which a 304 has not (RFC 9110 section 15.4.5).
const NOT_IN_304: &[&str] = &[
    "Content-Digest",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Range",
    "Content-Type",
    "Transfer-Encoding",
];

/// Digests of the very bytes of a message's content, which those of a range of it are not (RFC 9530
/// section 2, RFC 1864). `Digest` is of the whole representation as `Repr-Digest` is (RFC 3230
/// section 4.2), but was widely sent for the content; nothing is missed without it.
const OF_THE_CONTENT: &[&str] = &["Content-Digest", "Content-MD5", "Digest"];
