//! An origin that honours ranges and conditions, and a look at what comes of them.

use super::message::{Request, Response};
use super::origin::{Origin, answer};
use super::proxy::Proxy;

type Lines<'a> = &'a [(&'a str, &'a str)];

/// Larger than what is fetched whole for a range.
pub const LARGE: usize = 5 * 1024 * 1024;

/// A body that tells its places apart.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|it| (it % 251) as u8).collect()
}

/// `first-last` of a Range field for a body of `length` bytes.
fn span(range: &str, length: usize) -> (usize, usize) {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    match (first, last) {
        ("", count) => (length - count.parse::<usize>().unwrap(), length - 1),
        (first, "") => (first.parse().unwrap(), length - 1),
        (first, last) => (first.parse().unwrap(), last.parse::<usize>().unwrap().min(length - 1)),
    }
}

/// An honest answer with these fields: the range that is asked for, unless If-Range names another
/// tag; 304 to the tag.
pub fn serve(asked: &Request, body: &[u8], fields: Lines<'_>) -> Vec<u8> {
    let tag = fields.iter().find(|it| it.0 == "ETag").map(|it| it.1);
    if tag.is_some() && asked.field("If-None-Match") == tag {
        return answer(304, fields, "");
    }
    let holds = asked.field("If-Range").is_none_or(|it| Some(it) == tag);
    let Some(range) = asked.field("Range").filter(|_| holds) else {
        return answer(200, fields, body);
    };
    let (first, last) = span(range, body.len());
    let content_range = format!("bytes {first}-{last}/{}", body.len());
    let fields = [fields, &[("Content-Range", content_range.as_str())]].concat();
    answer(206, &fields, &body[first..=last])
}

/// An origin of one body.
pub fn honest(body: Vec<u8>, fields: Lines<'static>) -> Origin {
    Origin::respond(move |asked| serve(asked, &body, fields))
}

/// A GET of `/api/x` for a range.
pub fn range(proxy: &Proxy, range: &str) -> Response {
    proxy.ask("GET", "/api/x", &[("Range", range)])
}

/// Asserts that it is a 206 with this part.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn assert_part(response: &Response, verdict: &str, content_range: &str, body: &[u8]) {
    assert_eq!((response.status, response.cache()), (206, verdict), "{:?}", response.fields);
    assert_eq!(response.field("Content-Range"), Some(content_range));
    assert!(response.body == body, "other bytes for {content_range}");
}

/// The value of Cache-Status; panics when there is none.
#[track_caller]
pub fn cache_status(response: &Response) -> &str {
    response.field("Cache-Status").unwrap()
}
