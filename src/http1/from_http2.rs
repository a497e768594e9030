//! A request head that came over HTTP/2 (RFC 9113 section 8.3): the same model, judged by the same
//! rules, so that no later step can tell the two apart.
//!
//! The framing layer has decoded it. Nothing of what that layer is expected to refuse is relied
//! on: what has no meaning here is refused again.

use crate::http::fields::is_token_byte;
use crate::http::{Method, Version};
use crate::http1::authority::Authority;
use crate::http1::fault::{FieldFault, RequestFault};
use crate::http1::framing::parse_content_length;
use crate::http1::known::{Mask, Name, Noting};
use crate::http1::request::{is_same_authority, judge_expectation};
use crate::http1::scan::is_value_byte;
use crate::http1::target::{Scheme, Target};
use crate::http1::{BodyLength, FIELDS_MAX, Limits, Line, METHOD_BYTES_MAX, Request, Slots};

/// The pseudo-fields of a request, and what the framing says of its body.
#[derive(Clone, Copy, Debug)]
pub struct Pseudo<'b> {
    /// `:method`
    pub method: &'b [u8],
    /// `:scheme`; `None` for CONNECT.
    pub scheme: Option<&'b [u8]>,
    /// `:authority`
    pub authority: Option<&'b [u8]>,
    /// `:path`; `None` for CONNECT.
    pub path: Option<&'b [u8]>,
    /// The stream ended with its head: no body follows.
    pub is_whole: bool,
}

/// Judges a head. `lines` are its fields without the pseudo-fields; several `cookie` lines are to
/// be joined before (RFC 9113 section 8.2.3). A body without a stated length counts as
/// [`BodyLength::Chunked`].
///
/// # Errors
/// What is wrong with it. Unlike in HTTP/1.1, only this one request is without a meaning.
pub fn judge_http2<'h, 'b>(
    pseudo: Pseudo<'b>,
    lines: impl Iterator<Item = Line<'b>>,
    limits: &Limits,
    slots: &'h mut Slots<'b>,
) -> Result<Request<'h, 'b>, RequestFault> {
    let method = judge_method(pseudo.method)?;
    let target = judge_target(&method, &pseudo, limits)?;
    let taken = pseudo.method.len() + pseudo.path.map_or(0, <[u8]>::len);
    let (fields, known) = {
        let Slots { lines: fields, first } = slots;
        fields.clear();
        let mut noting = Noting::new(first);
        let mut bytes = taken;
        for line in lines {
            bytes += line.name.len() + line.value.len() + LINE_EXTRA_BYTES;
            judge_line(&line, limits)?;
            if bytes > limits.head_bytes_max {
                return Err(RequestFault::HeadTooLarge);
            }
            if fields.len() >= limits.fields_max.min(FIELDS_MAX) {
                return Err(RequestFault::Field(FieldFault::TooMany));
            }
            if let Some(name) = Name::of(line.name) {
                noting.note(name, fields.len());
            }
            fields.push(line);
        }
        (&*fields, noting.finish())
    };
    // RFC 9113 section 8.2.2: TE alone may stand there, and only for trailers.
    let trailers = |value: &[u8]| value.eq_ignore_ascii_case(b"trailers");
    if known.any(CONNECTION_FIELDS) || !known.values(Name::Te, fields).all(trailers) {
        return Err(RequestFault::ConnectionField);
    }
    if known.repeated(Name::Host) {
        return Err(RequestFault::RepeatedHost);
    }
    let authority = judge_authority(&method, &pseudo, known.value(Name::Host, fields))?;
    if known.repeated(Name::ContentLength) {
        return Err(RequestFault::RepeatedContentLength);
    }
    let body = judge_body(known.value(Name::ContentLength, fields), pseudo.is_whole)?;
    let expects = known.has(Name::Expect) && judge_expectation(&known, fields, Version::Http2)?;
    let has_body = !matches!(body, BodyLength::None | BodyLength::Length(0));
    Ok(Request {
        method,
        target,
        version: Version::Http2,
        authority,
        fields,
        known,
        body,
        persistent: true,
        expects_continue: expects && has_body,
        head_len: 0,
    })
}

fn judge_method(text: &[u8]) -> Result<Method, RequestFault> {
    if text.len() > METHOD_BYTES_MAX {
        return Err(RequestFault::MethodTooLong);
    }
    Method::from_bytes(text).ok_or(RequestFault::BadMethod)
}

/// RFC 9113 sections 8.3.1 and 8.5.
fn judge_target<'b>(
    method: &Method,
    pseudo: &Pseudo<'b>,
    limits: &Limits,
) -> Result<Target<'b>, RequestFault> {
    if *method == Method::Connect {
        let named = pseudo.authority.filter(|_| pseudo.path.is_none() && pseudo.scheme.is_none());
        let named = named.filter(|it| Authority::parse(it).is_some_and(|it| it.has_port()));
        return named.map(Target::Authority).ok_or(RequestFault::BadTargetForm);
    }
    let path = pseudo.path.ok_or(RequestFault::BadTargetForm)?;
    if path.len() > limits.target_bytes_max {
        return Err(RequestFault::TargetTooLong);
    }
    if path.contains(&b'#') {
        return Err(RequestFault::FragmentInTarget);
    }
    if !path.iter().all(u8::is_ascii_graphic) {
        return Err(RequestFault::BadTargetByte);
    }
    match path {
        [b'/', ..] => {
            let mut parts = path.splitn(2, |byte| *byte == b'?');
            let (path, query) = (parts.next().unwrap_or(path), parts.next());
            Ok(Target::Origin { path, query })
        }
        b"*" if *method == Method::Options => Ok(Target::Asterisk),
        _ => Err(RequestFault::BadTargetForm),
    }
}

/// What the client asked for: `:authority`, else Host; where both stand, they agree.
fn judge_authority<'b>(
    method: &Method,
    pseudo: &Pseudo<'b>,
    host: Option<&'b [u8]>,
) -> Result<&'b [u8], RequestFault> {
    let scheme = match pseudo.scheme {
        Some(it) if it.eq_ignore_ascii_case(b"https") => Scheme::Https,
        Some(it) if it.eq_ignore_ascii_case(b"http") => Scheme::Http,
        None if *method == Method::Connect => Scheme::Https,
        Some(_) | None => return Err(RequestFault::BadScheme),
    };
    if host.is_some_and(|it| !Authority::is_valid(it)) {
        return Err(RequestFault::BadHost);
    }
    match (pseudo.authority, host) {
        (Some(named), _) if !Authority::is_valid(named) => Err(RequestFault::BadTargetAuthority),
        (Some(named), Some(host)) if !is_same_authority(named, host, scheme) => {
            Err(RequestFault::AuthorityMismatch)
        }
        (Some(named), _) => Ok(named),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(RequestFault::MissingHost),
    }
}

/// RFC 9113 section 8.1.1: a stated length that the frames don't keep makes a request malformed.
fn judge_body(length: Option<&[u8]>, is_whole: bool) -> Result<BodyLength, RequestFault> {
    let Some(length) = length else {
        return Ok(if is_whole { BodyLength::None } else { BodyLength::Chunked });
    };
    let length = parse_content_length(length).ok_or(RequestFault::BadContentLength)?;
    if is_whole && length > 0 {
        return Err(RequestFault::BadContentLength);
    }
    Ok(BodyLength::Length(length))
}

/// RFC 9113 section 8.2.1.
fn judge_line(line: &Line<'_>, limits: &Limits) -> Result<(), RequestFault> {
    let fault = if line.name.is_empty() {
        FieldFault::EmptyName
    } else if !line.name.iter().all(|it| is_token_byte(*it) && !it.is_ascii_uppercase()) {
        FieldFault::BadName
    } else if !line.value.iter().all(|it| is_value_byte(*it))
        || line.value.trim_ascii().len() != line.value.len()
    {
        FieldFault::BadValue
    } else if line.name.len() + line.value.len() + LINE_EXTRA_BYTES > limits.field_bytes_max {
        FieldFault::TooLarge
    } else {
        return Ok(());
    };
    Err(RequestFault::Field(fault))
}

/// What a line has in HTTP/1.1 beside its name and value, so that both are measured alike.
const LINE_EXTRA_BYTES: usize = 4;
/// RFC 9113 section 8.2.2.
const CONNECTION_FIELDS: Mask = Mask::of(&[
    Name::Connection,
    Name::TransferEncoding,
    Name::Upgrade,
    Name::KeepAlive,
    Name::ProxyConnection,
]);

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Pseudo<'_> = Pseudo {
        method: b"GET",
        scheme: Some(b"https"),
        authority: Some(b"a.example"),
        path: Some(b"/p?q"),
        is_whole: true,
    };

    type Lines<'a> = &'a [(&'a str, &'a str)];

    /// What is seen of a request, or the word of its fault.
    fn judge(pseudo: Pseudo<'_>, fields: &[(&str, &str)]) -> Result<String, &'static str> {
        let limits = Limits { target_bytes_max: 100, fields_max: 3, ..Limits::default() };
        let limits = Limits { field_bytes_max: 60, head_bytes_max: 130, ..limits };
        let line = |it: &(&'static str, &'static str)| Line {
            name: it.0.as_bytes(),
            value: it.1.as_bytes(),
        };
        let fields: Vec<_> = fields.iter().map(|it| line(&(leak(it.0), leak(it.1)))).collect();
        let mut slots = Slots::new();
        let judged = judge_http2(pseudo, fields.into_iter(), &limits, &mut slots);
        judged.map_err(RequestFault::as_str).map(|it| {
            let authority = String::from_utf8_lossy(it.authority);
            format!(
                "{:?} {:?} {authority} {:?} {}",
                it.method,
                it.target.path(),
                it.body,
                it.expects_continue
            )
        })
    }

    fn leak(text: &str) -> &'static str {
        Box::leak(text.to_owned().into_boxed_str())
    }

    fn seen(
        method: &str,
        path: Option<&str>,
        authority: &str,
        body: &str,
    ) -> Result<String, &'static str> {
        Ok(format!("{method} {:?} {authority} {body}", path.map(str::as_bytes)))
    }

    #[test]
    fn rfc9113_8_3_1_pseudo_fields_become_the_request() {
        let judged = judge(PLAIN, &[("accept", "*/*")]);
        assert_eq!(judged, seen("Get", Some("/p"), "a.example", "None false"));
        let from_host = Pseudo { authority: None, ..PLAIN };
        let judged = judge(from_host, &[("host", "b:1")]);
        assert_eq!(judged, seen("Get", Some("/p"), "b:1", "None false"));
        let options = Pseudo { method: b"OPTIONS", path: Some(b"*"), ..PLAIN };
        assert_eq!(judge(options, &[]), seen("Options", None, "a.example", "None false"));
    }

    #[test]
    fn rfc9113_8_1_1_body_is_as_long_as_the_frames_and_the_field_say() {
        let post = Pseudo { method: b"POST", is_whole: false, ..PLAIN };
        let length = |value| ("content-length", value);
        let cases: &[(bool, Lines<'_>, &str)] = &[
            (false, &[], "Chunked"),
            (false, &[length("5")], "Length(5)"),
            (true, &[length("0")], "Length(0)"),
            (true, &[length("5")], "bad_content_length"),
            (false, &[length("+5")], "bad_content_length"),
            (false, &[length("5"), length("5")], "repeated_content_length"),
        ];
        for (is_whole, fields, expected) in cases {
            let judged = judge(Pseudo { is_whole: *is_whole, ..post }, fields);
            let seen = judged.as_deref().unwrap_or_else(|fault| fault);
            let expected = match expected.ends_with("length") {
                true => (*expected).to_owned(),
                false => format!("Post Some({:?}) a.example {expected} false", b"/p"),
            };
            assert_eq!(seen, expected, "{is_whole} {fields:?}");
        }
        let judged = judge(post, &[("expect", "100-Continue")]);
        assert_eq!(judged, seen("Post", Some("/p"), "a.example", "Chunked true"));
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let with = |change: fn(&mut Pseudo<'static>)| {
            let mut pseudo = PLAIN;
            change(&mut pseudo);
            judge(pseudo, &[]).unwrap_err()
        };
        assert_eq!(with(|it| it.method = b"G T"), "bad_method");
        assert_eq!(with(|it| it.method = &[b'M'; METHOD_BYTES_MAX + 1]), "method_too_long");
        assert_eq!(with(|it| it.scheme = Some(b"ftp")), "bad_scheme");
        assert_eq!(with(|it| it.scheme = None), "bad_scheme");
        assert_eq!(with(|it| it.path = None), "bad_target_form");
        assert_eq!(with(|it| it.path = Some(b"")), "bad_target_form");
        assert_eq!(with(|it| it.path = Some(b"*")), "bad_target_form");
        assert_eq!(with(|it| it.path = Some(b"http://b/")), "bad_target_form");
        assert_eq!(with(|it| it.path = Some(b"/a#b")), "fragment_in_target");
        assert_eq!(with(|it| it.path = Some(b"/a b")), "bad_target_byte");
        assert_eq!(with(|it| it.path = Some("/\u{e4}".as_bytes())), "bad_target_byte");
        assert_eq!(with(|it| it.path = Some(&[b'/'; 101])), "target_too_long");
        assert_eq!(with(|it| it.authority = None), "missing_host");
        assert_eq!(with(|it| it.authority = Some(b"")), "bad_target_authority");
        assert_eq!(with(|it| it.authority = Some(b"me@a.example")), "bad_target_authority");
        assert_eq!(with(|it| it.method = b"CONNECT"), "bad_target_form");
    }

    #[test]
    fn fields_are_refused_as_in_http11() {
        let long = "v".repeat(60);
        let most = "v".repeat(50);
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("connection", "x")], "connection_field"),
            (&[("transfer-encoding", "chunked")], "connection_field"),
            (&[("upgrade", "x")], "connection_field"),
            (&[("keep-alive", "1")], "connection_field"),
            (&[("proxy-connection", "x")], "connection_field"),
            (&[("te", "gzip")], "connection_field"),
            (&[("host", "b.example")], "authority_mismatch"),
            (&[("host", "a.example"), ("host", "a.example")], "repeated_host"),
            (&[("host", "a b")], "bad_host"),
            (&[("", "v")], "empty_field_name"),
            (&[("Upper", "v")], "bad_field_name"),
            (&[("a b", "v")], "bad_field_name"),
            (&[("a", "v\r\nb: c")], "bad_field_value"),
            (&[("a", " v")], "bad_field_value"),
            (&[("expect", "more")], "unknown_expectation"),
            (&[("a", &long)], "field_too_large"),
            (&[("a", &most), ("b", &most), ("c", &most)], "head_too_large"),
            (&[("a", ""), ("a", ""), ("a", ""), ("a", "")], "too_many_fields"),
        ];
        for (fields, fault) in cases {
            assert_eq!(judge(PLAIN, fields).unwrap_err(), *fault, "{fields:?}");
        }
        assert!(judge(PLAIN, &[("te", "trailers"), ("host", "A.example:443")]).is_ok());
    }

    #[test]
    fn rfc9113_8_5_connect_names_an_authority_alone() {
        let connect = Pseudo {
            method: b"CONNECT",
            scheme: None,
            path: None,
            authority: Some(b"b:443"),
            ..PLAIN
        };
        assert_eq!(judge(connect, &[]), seen("Connect", None, "b:443", "None false"));
        let portless = Pseudo { authority: Some(b"b"), ..connect };
        assert_eq!(judge(portless, &[]).unwrap_err(), "bad_target_form");
    }
}
