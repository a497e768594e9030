//! Heads between the `h2` crate's types and the daemon's.

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Response, StatusCode, request};

use crate::http::Fields;
use crate::http1::{Line, Pseudo};
use crate::proxy::downstream::{Length, Reply};

/// A request's head, as the parts that are judged borrow it.
pub(super) struct Head {
    parts: request::Parts,
    /// Several `cookie` lines as one (RFC 9113 section 8.2.3).
    cookie: Option<Vec<u8>>,
}

impl Head {
    pub(super) fn new(parts: request::Parts) -> Self {
        let mut crumbs = parts.headers.get_all(COOKIE).iter();
        let cookie = match (crumbs.next(), crumbs.next()) {
            (Some(first), Some(second)) => {
                let mut joined = first.as_bytes().to_vec();
                for crumb in std::iter::once(second).chain(crumbs) {
                    joined.extend_from_slice(b"; ");
                    joined.extend_from_slice(crumb.as_bytes());
                }
                Some(joined)
            }
            (Some(_), None) | (None, _) => None,
        };
        Self { parts, cookie }
    }

    /// The pseudo-fields. `scheme` is that of the connection, which stands for one that `h2` has
    /// checked and dropped: it keeps none beside a Host field.
    pub(super) fn pseudo(&self, scheme: &'static str, is_whole: bool) -> Pseudo<'_> {
        let request::Parts { method, uri, .. } = &self.parts;
        let path = uri.path_and_query().map(|it| it.as_str().as_bytes());
        let authority = uri.authority().map(|it| it.as_str().as_bytes());
        let stated = uri.scheme_str().or(path.map(|_| scheme));
        let scheme = stated.map(str::as_bytes);
        Pseudo { method: method.as_str().as_bytes(), scheme, authority, path, is_whole }
    }

    /// The fields in their order, cookies as one.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut is_joined = false;
        self.parts.headers.iter().filter_map(move |(name, value)| {
            let mut value = value.as_bytes();
            if let Some(cookie) = self.cookie.as_deref().filter(|_| name == COOKIE) {
                if std::mem::replace(&mut is_joined, true) {
                    return None;
                }
                value = cookie;
            }
            Some(Line { name: name.as_str().as_bytes(), value })
        })
    }
}

/// An answer's head.
pub(super) fn response(reply: &Reply) -> Response<()> {
    let mut response = head(reply.status, &reply.fields);
    if let Length::Known(length) | Length::BodylessOf(length) = reply.length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

/// A head with these fields.
pub(super) fn head(status: u16, fields: &Fields) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.reserve(FIELDS_USUAL);
    for field in fields.iter() {
        // Both were checked by a stricter parser; nothing is left out.
        let (name, value) =
            (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value));
        debug_assert!(name.is_ok() && value.is_ok());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    response
}

const COOKIE: HeaderName = http::header::COOKIE;
/// Fields of an answer of usual size, ours among them.
const FIELDS_USUAL: usize = 24;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head_of(request: http::request::Builder) -> Head {
        Head::new(request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn rfc9113_8_2_3_cookie_crumbs_become_one_line_in_their_place() {
        let head = head_of(
            Request::builder()
                .header("a", "1")
                .header("cookie", "b=2")
                .header("cookie", "c=3")
                .header("d", "4")
                .header("cookie", "e=5"),
        );
        let lines: Vec<_> = head.lines().map(|it| (it.name.to_vec(), it.value.to_vec())).collect();
        let expected = [("a", "1"), ("cookie", "b=2; c=3; e=5"), ("d", "4")];
        assert_eq!(lines, expected.map(|(name, value)| (name.into(), value.into())));
        let one = head_of(Request::builder().header("cookie", "b=2"));
        assert_eq!(one.lines().map(|it| it.value.to_vec()).collect::<Vec<_>>(), [b"b=2"]);
    }

    #[test]
    fn pseudo_fields_are_those_of_the_uri() {
        let head = head_of(Request::builder().method("PUT").uri("https://a.example:1/p?q"));
        let pseudo = head.pseudo("http", true);
        assert_eq!(pseudo.method, b"PUT");
        assert_eq!(pseudo.scheme, Some(&b"https"[..]));
        assert_eq!(pseudo.authority, Some(&b"a.example:1"[..]));
        assert_eq!(pseudo.path, Some(&b"/p?q"[..]));
        let bare = head_of(Request::builder().uri("/p"));
        assert_eq!(bare.pseudo("http", true).scheme, Some(&b"http"[..]));
        let connect = head_of(Request::builder().method("CONNECT").uri("a.example:443"));
        let pseudo = connect.pseudo("https", false);
        assert_eq!((pseudo.scheme, pseudo.path), (None, None));
    }

    #[test]
    fn an_answers_fields_and_length_are_kept() {
        let mut fields = Fields::new();
        fields.push("X-One", "1");
        fields.push("x-one", b"\xe4");
        let reply = |length| response(&Reply { status: 418, fields: fields.clone(), length });
        let known = reply(Length::Known(3));
        assert_eq!(known.status().as_u16(), 418);
        let ones: Vec<_> =
            known.headers().get_all("x-one").iter().map(|it| it.as_bytes()).collect();
        assert_eq!(ones, [&b"1"[..], b"\xe4"]);
        assert_eq!(known.headers()["content-length"], "3");
        assert_eq!(reply(Length::BodylessOf(7)).headers()["content-length"], "7");
        assert!(!reply(Length::Unknown).headers().contains_key("content-length"));
    }
}
