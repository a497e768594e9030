//! A second HTTP/1.1 parser, slow and plain, for the tests to compare the fast one with.
//!
//! Written from the grammar, on purpose unlike the fast one: it looks for the end of the whole head
//! first, cuts it at CRLF into owned lines and collects them. It knows no limits.

use std::collections::HashMap;

use crate::http1::{BodyLength, Limits, Request, Slots, parse_request};

/// What two parsers can be compared by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    method: String,
    /// Scheme, authority, path, query: whatever the form has.
    target: [Option<Vec<u8>>; 4],
    later_than_1_0: bool,
    authority: Vec<u8>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: BodyLength,
    persistent: bool,
    expects_continue: bool,
    head_len: usize,
}

/// What a parser says about a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Unfinished,
    Refused,
    Accepted(Box<Summary>),
}

impl Verdict {
    /// What the fast parser says.
    pub(super) fn of_fast(buf: &[u8]) -> Self {
        let mut slots = Slots::new();
        match parse_request(buf, &Limits::default(), &mut slots) {
            Ok(None) => Self::Unfinished,
            Err(_) => Self::Refused,
            Ok(Some(request)) => Self::Accepted(Box::new(summarise(&request))),
        }
    }

    /// What the reference says. It refuses finished heads only.
    pub(super) fn of_reference(buf: &[u8]) -> Self {
        let mut at = 0;
        for _ in 0..2 {
            at += if buf[at..].starts_with(b"\r\n") { 2 } else { 0 };
        }
        let Some(end) = find(&buf[at..], b"\r\n\r\n") else { return Self::Unfinished };
        let head_len = at + end + 4;
        match accept(&buf[at..at + end], head_len) {
            Some(summary) => Self::Accepted(Box::new(summary)),
            None => Self::Refused,
        }
    }
}

fn summarise(request: &Request<'_, '_>) -> Summary {
    use crate::http1::{Scheme, Target};
    let own = |bytes: &[u8]| Some(bytes.to_vec());
    let target = match request.target {
        Target::Origin { path, query } => [None, None, own(path), query.and_then(own)],
        Target::Absolute { scheme, authority, path, query } => {
            let scheme = if scheme == Scheme::Http { b"http".as_slice() } else { b"https" };
            [own(scheme), own(authority), own(path), query.and_then(own)]
        }
        Target::Authority(authority) => [None, own(authority), None, None],
        Target::Asterisk => [None, None, None, None],
    };
    let line = |it: &crate::http1::Line<'_>| (it.name.to_vec(), it.value.to_vec());
    Summary {
        method: request.method.to_string(),
        target,
        later_than_1_0: request.version != crate::http::Version::Http10,
        authority: request.authority.to_vec(),
        fields: request.fields.iter().map(line).collect(),
        body: request.body,
        persistent: request.persistent,
        expects_continue: request.expects_continue,
        head_len: request.head_len,
    }
}

/// The lines of a head without its last CRLF CRLF.
fn accept(head: &[u8], head_len: usize) -> Option<Summary> {
    let lines = cut(head, b"\r\n");
    if lines.iter().flatten().any(|b| matches!(b, b'\r' | b'\n')) {
        return None;
    }
    let parts: Vec<_> = lines.first()?.split(|b| *b == b' ').collect();
    let [method, target, version] = parts.as_slice() else { return None };
    let method = String::from_utf8(method.to_vec()).ok()?;
    if method.is_empty() || method.len() > 64 || !method.bytes().all(is_tchar) {
        return None;
    }
    let version = std::str::from_utf8(version).ok()?.strip_prefix("HTTP/1.")?;
    let minor: u8 = version.parse().ok().filter(|_| version.len() == 1)?;
    if target.iter().any(|b| !b.is_ascii_graphic() || *b == b'#') {
        return None;
    }
    let mut fields = Vec::new();
    let mut by_name: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (line[..colon].to_vec(), trim(&line[colon + 1..]));
        let control = |b: &u8| (*b < 0x20 && *b != b'\t') || *b == 0x7f;
        if name.is_empty() || !name.iter().all(|b| is_tchar(*b)) || value.iter().any(control) {
            return None;
        }
        let lower = String::from_utf8(name.to_ascii_lowercase()).ok()?;
        by_name.entry(lower).or_default().push(value.clone());
        fields.push((name, value));
    }
    if fields.len() > 100 {
        return None;
    }
    let all = |name: &str| by_name.get(name).cloned().unwrap_or_default();
    let (target, named) = read_target(&method, std::str::from_utf8(target).ok()?)?;
    let authority = read_host(&all("host"), minor, named)?;
    let body = read_framing(&all("content-length"), &all("transfer-encoding"), minor)?;
    let expectations = all("expect");
    let waits = minor > 0 && !expectations.is_empty();
    if waits && expectations.iter().any(|it| !it.eq_ignore_ascii_case(b"100-continue")) {
        return None;
    }
    let options = all("connection").join(&b","[..]).to_ascii_lowercase();
    let options: Vec<_> = options.split(|b| *b == b',').map(trim).collect();
    let asks = |option: &str| options.iter().any(|it| it == option.as_bytes());
    Some(Summary {
        method,
        target,
        later_than_1_0: minor > 0,
        authority,
        fields,
        body,
        persistent: !asks("close") && (minor > 0 || asks("keep-alive")),
        expects_continue: waits && body != BodyLength::None && body != BodyLength::Length(0),
        head_len,
    })
}

type Parts = [Option<Vec<u8>>; 4];
/// Authority as written, default port.
type Named = Option<(String, &'static str)>;

fn read_target(method: &str, text: &str) -> Option<(Parts, Named)> {
    let own = |text: &str| Some(text.as_bytes().to_vec());
    if method == "CONNECT" {
        let (_, port) = split_host(text)?;
        return (!port.is_empty())
            .then(|| ([None, own(text), None, None], Some((text.to_owned(), "443"))));
    }
    if text == "*" {
        return (method == "OPTIONS").then_some(([None, None, None, None], None));
    }
    let (before, query) = match text.split_once('?') {
        Some((before, query)) => (before, own(query)),
        None => (text, None),
    };
    if text.starts_with('/') {
        return Some(([None, None, own(before), query], None));
    }
    let (scheme, rest) = before.split_once("://")?;
    let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => ("http", "80"),
        "https" => ("https", "443"),
        _ => return None,
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    split_host(authority)?;
    let named = Some((authority.to_owned(), port));
    if path.is_empty() && query.is_none() && method == "OPTIONS" {
        return Some(([None, None, None, None], named));
    }
    let path = if path.is_empty() { "/" } else { path };
    Some(([own(scheme), own(authority), own(path), query], named))
}

fn read_host(hosts: &[Vec<u8>], minor: u8, named: Named) -> Option<Vec<u8>> {
    let host = match hosts {
        [] if minor == 0 => None,
        [host] => Some(String::from_utf8(host.clone()).ok()?),
        _ => return None,
    };
    if let Some(host) = &host {
        let (name, port) = split_host(host)?;
        if let Some((authority, default)) = &named {
            let or_default =
                |port: String| if port.is_empty() { (*default).to_owned() } else { port };
            let (other, other_port) = split_host(authority)?;
            if name != other || or_default(port) != or_default(other_port) {
                return None;
            }
        }
    }
    let text = named.map(|it| it.0).or(host).unwrap_or_default();
    Some(text.into_bytes())
}

fn read_framing(lengths: &[Vec<u8>], codings: &[Vec<u8>], minor: u8) -> Option<BodyLength> {
    match (lengths, codings) {
        ([], []) => Some(BodyLength::None),
        ([length], []) => {
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(length).ok()?.parse().ok()?;
            digits.then_some(BodyLength::Length(number))
        }
        ([], [coding]) if minor > 0 && coding.eq_ignore_ascii_case(b"chunked") => {
            Some(BodyLength::Chunked)
        }
        _ => None,
    }
}

/// Host in lower case and port without leading zeros, "" for none.
fn split_host(text: &str) -> Option<(String, String)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, port) = inner.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{address}]"), port)
        }
        None => {
            let at = text.find(':').unwrap_or(text.len());
            let (host, port) = text.split_at(at);
            let mut chars = host.chars();
            while let Some(c) = chars.next() {
                let hex = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
                let fine = match c {
                    '%' => hex(chars.next()) && hex(chars.next()),
                    c => c.is_ascii_alphanumeric() || "-._~!$&'()*+;=".contains(c),
                };
                if !fine {
                    return None;
                }
            }
            (host.to_owned(), port)
        }
    };
    let digits = match port.strip_prefix(':') {
        None if port.is_empty() => "",
        None => return None,
        Some(digits) => digits,
    };
    let number = digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 5;
    let small = digits.is_empty() || digits.parse::<u16>().is_ok();
    let port = digits.parse::<u16>().map_or(String::new(), |it| it.to_string());
    (!host.is_empty() && number && small).then(|| (host.to_ascii_lowercase(), port))
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte)
}

fn trim(text: &[u8]) -> Vec<u8> {
    let visible = |b: &u8| *b != b' ' && *b != b'\t';
    match (text.iter().position(visible), text.iter().rposition(visible)) {
        (Some(from), Some(to)) => text[from..=to].to_vec(),
        _ => Vec::new(),
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn cut(text: &[u8], at: &[u8]) -> Vec<Vec<u8>> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = find(rest, at) {
        lines.push(rest[..end].to_vec());
        rest = &rest[end + at.len()..];
    }
    lines.push(rest.to_vec());
    lines
}

mod connection;
mod tests;
