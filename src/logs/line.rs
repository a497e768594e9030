//! One request as one line.
//!
//! ```text
//! {"time":"2026-11-23T15:48:27.123Z","client":"192.0.2.1","method":"GET","target":"/api/x",...}
//! time=2026-11-23T15:48:27.123Z client=192.0.2.1 method=GET target=/api/x protocol=HTTP/1.1 ...
//! ```
//!
//! The same members in both forms, in the same order; one that has nothing to say is left out. All
//! text from outside is escaped (`escape`), queries are masked (`mask`), long texts are cut. About
//! half a microsecond, no allocation beyond the growth of the caller's buffer.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::Wall;
use crate::http::Version;
use crate::logs::mask::Masks;
use crate::logs::{escape, stamp};

/// What is told of a request once it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When it ended.
    pub at: Wall,
    /// From its head to its end.
    pub took: Duration,
    /// Who asked: the address that is limited.
    pub client: IpAddr,
    /// The other end of the connection, if that is another one.
    pub peer: Option<IpAddr>,
    /// The name of the key that it was admitted with.
    pub key: Option<&'a str>,
    /// What was asked; `None` for what was no HTTP.
    pub heard: Option<Heard<'a>>,
    /// The status of the answer; 499 when the client left before any.
    pub status: u16,
    /// Bytes of body sent.
    pub bytes: u64,
    /// What the cache had to do with it.
    pub cache: &'static str,
    /// Why, in one word.
    pub detail: Option<&'static str>,
    /// How long the upstream took to the head of its answer, where this request asked it.
    pub upstream: Option<Duration>,
    /// How the answer ended.
    pub end: End,
    /// The request's id.
    pub request_id: &'a str,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as the client wrote it.
    pub path: &'a [u8],
    /// What followed its `?`; `None` where that is not to be logged.
    pub query: Option<&'a [u8]>,
    /// The host that was asked for.
    pub host: &'a [u8],
    /// The protocol's version.
    pub version: Version,
    /// `https`, or `http`.
    pub scheme: &'static str,
    /// User-Agent.
    pub agent: Option<&'a [u8]>,
    /// The trace it belongs to (W3C Trace Context).
    pub trace: Option<&'a [u8]>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Whole.
    Complete,
    /// The client left, or took nothing for too long.
    ClientLeft,
    /// It was cut, for the upstream's part ended early.
    Cut,
}

/// How lines are written: `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `name=value`, quoted where needed.
    Text,
    /// One JSON object.
    Json,
}

impl End {
    /// The word for it; none for what is usual.
    const fn word(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::ClientLeft => Some("client_left"),
            Self::Cut => Some("cut"),
        }
    }
}

impl Line<'_> {
    /// Every member that a line may have, in the order of the line.
    pub const MEMBERS: &'static [&'static str] = &[
        "time",
        "client",
        "peer",
        "key",
        "method",
        "target",
        "host",
        "scheme",
        "protocol",
        "status",
        "bytes",
        "duration_us",
        "cache",
        "detail",
        "upstream_us",
        "end",
        "request_id",
        "trace_id",
        "user_agent",
    ];

    /// Appends the line and its end.
    pub fn write(&self, form: Form, masks: &Masks, out: &mut Vec<u8>) {
        let mut members = Members { form, out, first: true };
        members.begin();
        members.open("time", Shape::Bare);
        stamp::push(self.at, members.out);
        members.close(Shape::Bare);
        members.address("client", self.client);
        if let Some(peer) = self.peer {
            members.address("peer", peer);
        }
        members.text("key", self.key.map(str::as_bytes));
        if let Some(heard) = &self.heard {
            members.text("method", Some(heard.method.as_bytes()));
            members.target(heard, masks);
            members
                .text("host", Some(cut(heard.host, AGENT_BYTES_MAX)).filter(|it| !it.is_empty()));
            members.text("scheme", Some(heard.scheme.as_bytes()));
            members.text("protocol", Some(protocol(heard.version).as_bytes()));
        }
        members.number("status", self.status.into());
        members.number("bytes", self.bytes);
        members.number("duration_us", micros(self.took));
        members.text("cache", Some(self.cache.as_bytes()));
        members.text("detail", self.detail.map(str::as_bytes));
        if let Some(upstream) = self.upstream {
            members.number("upstream_us", micros(upstream));
        }
        members.text("end", self.end.word().map(str::as_bytes));
        members.text("request_id", Some(self.request_id.as_bytes()));
        let heard = self.heard.as_ref();
        members.text("trace_id", heard.and_then(|it| it.trace));
        members
            .text("user_agent", heard.and_then(|it| it.agent).map(|it| cut(it, AGENT_BYTES_MAX)));
        members.end();
    }
}

/// Whether a value needs quotes in the text form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// It has nothing that would need them.
    Bare,
    Quoted,
}

struct Members<'o> {
    form: Form,
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn begin(&mut self) {
        if self.form == Form::Json {
            self.out.push(b'{');
        }
    }

    fn end(self) {
        self.out.extend_from_slice(if self.form == Form::Json { b"}\n" } else { b"\n" });
    }

    fn name(&mut self, name: &'static str) {
        let separator = if self.form == Form::Json { b',' } else { b' ' };
        if !std::mem::take(&mut self.first) {
            self.out.push(separator);
        }
        match self.form {
            Form::Json => {
                self.out.push(b'"');
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Form::Text => {
                self.out.extend_from_slice(name.as_bytes());
                self.out.push(b'=');
            }
        }
    }

    fn open(&mut self, name: &'static str, shape: Shape) {
        self.name(name);
        self.close(shape);
    }

    /// The quote at either end of a text.
    fn close(&mut self, shape: Shape) {
        if self.form == Form::Json || shape == Shape::Quoted {
            self.out.push(b'"');
        }
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn address(&mut self, name: &'static str, address: IpAddr) {
        self.open(name, Shape::Bare);
        // Writing to a `Vec` can't fail.
        let _ = write!(self.out, "{address}");
        self.close(Shape::Bare);
    }

    fn text(&mut self, name: &'static str, text: Option<&[u8]>) {
        let Some(text) = text else { return };
        let shape = if escape::is_plain(text) { Shape::Bare } else { Shape::Quoted };
        self.open(name, shape);
        self.escaped(text);
        self.close(shape);
    }

    fn escaped(&mut self, text: &[u8]) {
        match self.form {
            Form::Json => escape::json(text, self.out),
            Form::Text => escape::quoted(text, self.out),
        }
    }

    /// Path and query, the latter masked. Cut only after masking: half a name can't be known.
    fn target(&mut self, heard: &Heard<'_>, masks: &Masks) {
        let query = heard.query.unwrap_or_default();
        let plain = escape::is_plain(heard.path) && heard.query.is_none();
        let shape = if plain { Shape::Bare } else { Shape::Quoted };
        self.open("target", shape);
        let mut left = TARGET_BYTES_MAX;
        let mut put = |it: &mut Self, piece: &[u8]| {
            let shown = piece.get(..left).unwrap_or(piece);
            it.escaped(shown);
            if shown.len() < piece.len() && left > 0 {
                it.escaped(CUT);
            }
            left -= shown.len();
        };
        put(self, heard.path);
        if heard.query.is_some() {
            put(self, b"?");
            masks.write(query, |piece| put(self, piece));
        }
        self.close(shape);
    }
}

/// The beginning of a text. Without a mark, as targets have one: README says how long it is.
fn cut(text: &[u8], bytes_max: usize) -> &[u8] {
    text.get(..bytes_max).unwrap_or(text)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    }
}

/// Targets may have 8 KiB, which escapes could make 48: a line stays below 16 KiB.
const TARGET_BYTES_MAX: usize = 2_048;
/// Hosts and user agents, likewise.
const AGENT_BYTES_MAX: usize = 256;
const CUT: &[u8] = b"...";

#[cfg(test)]
mod tests {
    use super::*;

    fn heard() -> Heard<'static> {
        Heard {
            method: "GET",
            path: b"/api/v1/x",
            query: Some(b"city=Oslo&token=abc"),
            host: b"proxy.test",
            version: Version::Http11,
            scheme: "http",
            agent: Some(b"curl/8.0"),
            trace: Some(b"0af7651916cd43dd8448eb211c80319c"),
        }
    }

    fn line(heard: Option<Heard<'static>>) -> Line<'static> {
        Line {
            at: Wall::from_millis(1_795_448_907_123),
            took: Duration::from_micros(1_234),
            client: IpAddr::from([192, 0, 2, 1]),
            peer: None,
            key: None,
            heard,
            status: 200,
            bytes: 16,
            cache: "hit",
            detail: None,
            upstream: None,
            end: End::Complete,
            request_id: "c49f909e13d92a55",
        }
    }

    fn text(line: &Line<'_>, form: Form) -> String {
        let mut out = Vec::new();
        line.write(form, &Masks::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_json_with_these_members() {
        let expected = concat!(
            r#"{"time":"2026-11-23T15:48:27.123Z","client":"192.0.2.1","method":"GET","#,
            r#""target":"/api/v1/x?city=Oslo&token=***","host":"proxy.test","scheme":"http","#,
            r#""protocol":"HTTP/1.1","status":200,"bytes":16,"duration_us":1234,"cache":"hit","#,
            r#""request_id":"c49f909e13d92a55","trace_id":"0af7651916cd43dd8448eb211c80319c","#,
            r#""user_agent":"curl/8.0"}"#,
            "\n"
        );
        assert_eq!(text(&line(Some(heard())), Form::Json), expected);
    }

    #[test]
    fn a_line_is_text_with_the_same_members() {
        let expected = concat!(
            "time=2026-11-23T15:48:27.123Z client=192.0.2.1 method=GET ",
            "target=\"/api/v1/x?city=Oslo&token=***\" host=proxy.test scheme=http ",
            "protocol=HTTP/1.1 status=200 bytes=16 duration_us=1234 cache=hit ",
            "request_id=c49f909e13d92a55 trace_id=0af7651916cd43dd8448eb211c80319c ",
            "user_agent=curl/8.0\n"
        );
        assert_eq!(text(&line(Some(heard())), Form::Text), expected);
    }

    #[test]
    fn what_has_something_to_say_is_said() {
        let line = Line {
            peer: Some(IpAddr::from([10, 0, 0, 1])),
            key: Some("acme"),
            cache: "miss",
            detail: Some("no_store"),
            upstream: Some(Duration::from_millis(5)),
            end: End::Cut,
            ..line(None)
        };
        let json: serde_json::Value = serde_json::from_str(&text(&line, Form::Json)).unwrap();
        let rows = [
            ("peer", serde_json::json!("10.0.0.1")),
            ("key", "acme".into()),
            ("detail", "no_store".into()),
            ("upstream_us", 5_000.into()),
            ("end", "cut".into()),
            ("method", serde_json::Value::Null),
        ];
        for (name, expected) in rows {
            assert_eq!(json[name], expected, "{name}");
        }
    }

    #[test]
    fn members_stand_in_the_order_of_their_list() {
        let line = Line {
            peer: Some(IpAddr::from([10, 0, 0, 1])),
            key: Some("acme"),
            detail: Some("no_store"),
            upstream: Some(Duration::ZERO),
            end: End::ClientLeft,
            ..line(Some(heard()))
        };
        let text = text(&line, Form::Json);
        let places: Vec<usize> =
            Line::MEMBERS.iter().map(|it| text.find(&format!("\"{it}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Line::MEMBERS.len());
    }

    #[test]
    fn no_text_from_outside_ends_the_line_or_adds_a_member() {
        let evil: &[u8] = b"x\r\n{\"status\":500}\" status=500 \x1b[2J\\\xff";
        let heard =
            Heard { path: evil, query: Some(evil), host: evil, agent: Some(evil), ..heard() };
        let line = Line { heard: Some(heard), ..line(None) };
        for form in [Form::Json, Form::Text] {
            let text = text(&line, form);
            assert!(text.bytes().all(|it| (b' '..=b'~').contains(&it) || it == b'\n'), "{text}");
            assert_eq!(text.matches('\n').count(), 1, "{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&text(&line, Form::Json)).unwrap();
        assert_eq!(json["status"], 200);
        assert_eq!(json.as_object().unwrap().len(), 14);
    }

    #[test]
    fn long_texts_are_cut() {
        static LONG: [u8; 8_000] = [b'"'; 8_000];
        let heard =
            Heard { path: &LONG, query: Some(&LONG), agent: Some(&LONG), host: &LONG, ..heard() };
        for form in [Form::Json, Form::Text] {
            let text = text(&Line { heard: Some(heard), ..line(None) }, form);
            assert!(text.len() < 16 * 1024, "{}", text.len());
            assert_eq!(text.matches("...").count(), 1);
        }
    }
}
