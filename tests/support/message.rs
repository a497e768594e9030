//! HTTP/1.1 messages, parsed strictly and slowly. What it does not understand is an error.

use std::io::{self, Read};

use serde_json::Value;

/// A request as the origin received it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    /// Request line and fields as they came, with the empty line.
    pub head: Vec<u8>,
    /// The connection it came on, counted from 0.
    pub connection: usize,
}

impl Request {
    /// The only value of a field, or `None`; panics when there are several.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.only(name)
    }
}

/// A response as the client received it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub reason: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Interim responses that came before it.
    pub interim: Vec<(u16, Fields)>,
}

impl Response {
    /// The only value of a field, or `None`; panics when there are several.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.only(name)
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("body is not UTF-8")
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// `X-Cache`, or the empty string.
    #[track_caller]
    pub fn cache(&self) -> &str {
        self.field("X-Cache").unwrap_or_default()
    }

    /// The `code` of an error, after checking that the answer has the shape of all errors
    /// (RFC 9457).
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(self.field("Content-Type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert!(problem["title"].is_string(), "{problem}");
        problem["code"].as_str().unwrap_or_else(|| panic!("no code in {problem}")).to_owned()
    }

    /// Seconds of `Age`.
    #[track_caller]
    pub fn age(&self) -> Option<u64> {
        self.field("Age").map(|text| text.parse().expect("Age is not a number"))
    }
}

/// Fields in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// All values of a field, whatever the case of its name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = |it: &&(String, String)| it.0.eq_ignore_ascii_case(name);
        let values: Vec<&str> = self.0.iter().filter(named).map(|it| it.1.as_str()).collect();
        values.into_iter()
    }

    /// The only value of a field; panics when there are several.
    #[track_caller]
    pub fn only(&self, name: &str) -> Option<&str> {
        let mut all = self.all(name);
        let first = all.next();
        assert_eq!(all.next(), None, "a second {name}");
        first
    }
}

/// Why a message could not be read.
#[derive(Debug)]
pub enum Unreadable {
    /// The peer closed (or reset) before the first byte.
    Closed,
    /// The peer closed or reset in the middle; what had come of the body.
    Cut(Box<Response>),
    /// Nothing came in time.
    Late,
    /// Against the grammar.
    Malformed(String),
}

/// Bytes read from a connection, with what is already here.
pub struct Reader<'a, R> {
    pub from: &'a mut R,
    pub buf: &'a mut Vec<u8>,
}

impl<R: Read> Reader<'_, R> {
    /// Reads a request; `None` when the peer closed before its first byte.
    pub fn request(&mut self) -> Result<Option<Request>, Unreadable> {
        let head = match self.head() {
            Ok(head) => head,
            Err(Unreadable::Closed) => return Ok(None),
            Err(other) => return Err(other),
        };
        let (line, fields) = parse_head(&head)?;
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, version] = words[..] else { return malformed("request line", &line) };
        let mut response = Response::default();
        match framing(&fields)? {
            Framing::Chunked => self.chunked(&mut response)?,
            Framing::Length(bytes) => self.exactly(bytes, &mut response)?,
            Framing::UntilClose => {}
        }
        Ok(Some(Request {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            fields,
            body: response.body,
            head,
            connection: 0,
        }))
    }

    /// Reads a final response to a request of `method`, with the interim ones before it.
    pub fn response(&mut self, method: &str) -> Result<Response, Unreadable> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.response_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push((response.status, response.fields));
                continue;
            }
            response.interim = interim;
            let bodiless = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
            if bodiless {
                return Ok(response);
            }
            match framing(&response.fields)? {
                Framing::Chunked => self.chunked(&mut response)?,
                Framing::Length(bytes) => self.exactly(bytes, &mut response)?,
                Framing::UntilClose => self.until_close(&mut response)?,
            }
            return Ok(response);
        }
    }

    fn response_head(&mut self) -> Result<Response, Unreadable> {
        let head = self.head()?;
        let (line, fields) = parse_head(&head)?;
        let Some((version, rest)) = line.split_once(' ') else {
            return malformed("status line", &line);
        };
        let Some((status, reason)) = rest.split_once(' ') else {
            return malformed("status line", &line);
        };
        if version != "HTTP/1.1" || status.len() != 3 {
            return malformed("status line", &line);
        }
        let Ok(status) = status.parse() else { return malformed("status", &line) };
        let (version, reason) = (version.to_owned(), reason.to_owned());
        Ok(Response { version, status, reason, fields, ..Response::default() })
    }

    /// Takes a head, its empty line included, out of the buffer.
    fn head(&mut self) -> Result<Vec<u8>, Unreadable> {
        loop {
            if let Some(at) = find(self.buf, b"\r\n\r\n") {
                return Ok(self.buf.drain(..at + 4).collect());
            }
            if self.more()? == 0 {
                let nothing = self.buf.is_empty();
                return Err(if nothing { Unreadable::Closed } else { cut(Response::default()) });
            }
        }
    }

    fn line(&mut self, so_far: &Response) -> Result<String, Unreadable> {
        loop {
            if let Some(at) = find(self.buf, b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.more()? == 0 {
                return Err(cut(so_far.clone()));
            }
        }
    }

    fn exactly(&mut self, bytes: usize, into: &mut Response) -> Result<(), Unreadable> {
        while self.buf.len() < bytes {
            if self.more()? == 0 {
                into.body.append(self.buf);
                return Err(cut(std::mem::take(into)));
            }
        }
        into.body.extend(self.buf.drain(..bytes));
        Ok(())
    }

    fn until_close(&mut self, into: &mut Response) -> Result<(), Unreadable> {
        while self.more()? > 0 {}
        into.body.append(self.buf);
        Ok(())
    }

    fn chunked(&mut self, into: &mut Response) -> Result<(), Unreadable> {
        loop {
            let line = self.line(into)?;
            let size = line.split(';').next().unwrap_or_default();
            let hexadecimal = !size.is_empty() && size.bytes().all(|it| it.is_ascii_hexdigit());
            if !hexadecimal || size.len() > 8 {
                return malformed("chunk size", &line);
            }
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            self.exactly(size, into)?;
            if !self.line(into)?.is_empty() {
                return malformed("end of chunk", &line);
            }
        }
        loop {
            let line = self.line(into)?;
            if line.is_empty() {
                return Ok(());
            }
            into.trailers.0.push(parse_field(&line)?);
        }
    }

    /// Reads what there is; 0 at the end. A reset counts as an end: the caller sees it cut.
    fn more(&mut self) -> Result<usize, Unreadable> {
        let mut part = [0; 16 * 1024];
        loop {
            return match self.from.read(&mut part) {
                Ok(bytes) => {
                    self.buf.extend_from_slice(&part[..bytes]);
                    Ok(bytes)
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(Unreadable::Late),
                    _ => Ok(0),
                },
            };
        }
    }
}

enum Framing {
    Chunked,
    Length(usize),
    UntilClose,
}

/// RFC 9112 section 6.3, the doubtful cases refused.
fn framing(fields: &Fields) -> Result<Framing, Unreadable> {
    let codings: Vec<&str> = fields.all("Transfer-Encoding").collect();
    let lengths: Vec<&str> = fields.all("Content-Length").collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok(Framing::UntilClose),
        (["chunked"], []) => Ok(Framing::Chunked),
        ([], [length]) if length.bytes().all(|it| it.is_ascii_digit()) => match length.parse() {
            Ok(bytes) => Ok(Framing::Length(bytes)),
            Err(_) => malformed("Content-Length", length),
        },
        _ => malformed("framing", &format!("{codings:?} {lengths:?}")),
    }
}

fn parse_head(head: &[u8]) -> Result<(String, Fields), Unreadable> {
    let text = String::from_utf8_lossy(&head[..head.len() - 4]).into_owned();
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return malformed("bare CR, LF or NUL", &text);
    }
    let fields: Result<Vec<_>, _> = lines.map(parse_field).collect();
    Ok((first, Fields(fields?)))
}

fn parse_field(line: &str) -> Result<(String, String), Unreadable> {
    let Some((name, value)) = line.split_once(':') else { return malformed("field", line) };
    let token = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
    if name.is_empty() || !name.bytes().all(token) {
        return malformed("field name", line);
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|it| it == needle)
}

fn cut(response: Response) -> Unreadable {
    Unreadable::Cut(Box::new(response))
}

fn malformed<T>(what: &str, text: &str) -> Result<T, Unreadable> {
    Err(Unreadable::Malformed(format!("{what}: {text:?}")))
}
