//! The example API: a small HTTP/1.1 server on plain threads, for the demo alone.
//!
//! It ends with the process. Every answer takes [`DELAY`], so that a cache is worth having.
//!
//! | endpoint | shows |
//! |---|---|
//! | `GET /v1/weather?city=` | `max-age=60` |
//! | `GET /v1/time` | `no-store` |
//! | `GET /v1/quote` | `max-age=5` with an ETag and 304 |
//! | `GET /v1/status/{code}` | any status |
//! | `POST /v1/echo` | a body |

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::http1::{BodyLength, BodyReader, Limits, Name, Slots, parse_request};

/// Starts the API on a free loopback port.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("demo-api".to_owned()).spawn(move || accept(&listener))?;
    Ok(address)
}

fn accept(listener: &TcpListener) {
    let serving = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, say: don't spin.
            thread::sleep(DELAY);
            continue;
        };
        if serving.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            serving.fetch_sub(1, Ordering::Relaxed);
            continue; // Dropped, hence closed.
        }
        let counter = Served(Arc::clone(&serving));
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        // On failure the closure, and with it stream and counter, is dropped.
        let _ = builder.spawn(move || {
            let _counter = counter;
            // A client that goes away in the middle is its own affair.
            let _ = serve(&stream);
        });
    }
}

struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        thread::sleep(DELAY);
        let answer = answer(&request);
        let mut out = stream;
        out.write_all(&answer.bytes(&request))?;
        if request.close {
            break;
        }
    }
    Ok(())
}

/// Every answer takes this long.
const DELAY: Duration = Duration::from_millis(200);
/// Longer than the proxy keeps an idle connection (90 s): the proxy closes first.
const IDLE: Duration = Duration::from_secs(120);
/// More than the proxy opens to one host by default (100).
const CONNECTIONS_MAX: usize = 128;
const STACK_BYTES: usize = 256 * 1024;
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: usize = 1024 * 1024;

struct Request {
    method: String,
    path: String,
    query: String,
    if_none_match: String,
    close: bool,
    body: Vec<u8>,
}

/// The next request; `None` at the end of the connection.
fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut limited = reader.by_ref().take(HEAD_BYTES_MAX);
    while !head.ends_with(b"\r\n\r\n") {
        if limited.read_until(b'\n', &mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(malformed()) };
        }
    }
    let (mut request, body) = read_head(&head)?;
    request.body = read_body(reader, body)?;
    Ok(Some(request))
}

fn read_head(head: &[u8]) -> io::Result<(Request, BodyLength)> {
    let mut slots = Slots::new();
    let parsed = parse_request(head, &Limits::default(), &mut slots);
    let Ok(Some(parsed)) = parsed else { return Err(malformed()) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let request = Request {
        method: parsed.method.to_string(),
        path: text(parsed.target.path().unwrap_or(b"/")),
        query: text(parsed.target.query().unwrap_or_default()),
        if_none_match: text(parsed.value(Name::IfNoneMatch).unwrap_or_default()),
        close: !parsed.persistent,
        body: Vec::new(),
    };
    Ok((request, parsed.body))
}

fn read_body(reader: &mut BufReader<&TcpStream>, length: BodyLength) -> io::Result<Vec<u8>> {
    let mut decoder = BodyReader::for_request(length, &Limits::default());
    let mut body = Vec::new();
    while !decoder.is_done() {
        let bytes = reader.fill_buf()?;
        let step = decoder.on_bytes(bytes).map_err(|_| malformed())?;
        let data = bytes.get(step.data).unwrap_or_default();
        if bytes.is_empty() || body.len() + data.len() > BODY_BYTES_MAX {
            return Err(malformed());
        }
        body.extend_from_slice(data);
        reader.consume(step.consumed);
    }
    Ok(body)
}

fn malformed() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

struct Answer {
    status: u16,
    /// Complete lines.
    fields: &'static str,
    body: Value,
}

fn answer(request: &Request) -> Answer {
    let allowed = match request.path.as_str() {
        "/v1/echo" => "POST",
        _ => "GET, HEAD",
    };
    if !allowed.split(", ").any(|it| it == request.method) {
        let fields = if allowed == "POST" { "Allow: POST\r\n" } else { "Allow: GET, HEAD\r\n" };
        return Answer { status: 405, fields, body: json!({ "error": "method not allowed" }) };
    }
    match request.path.as_str() {
        "/" => Answer {
            status: 200,
            fields: "Cache-Control: max-age=60\r\n",
            body: json!({ "endpoints": [
                "/v1/weather?city=Oslo", "/v1/time", "/v1/quote", "/v1/status/503", "/v1/echo"
            ] }),
        },
        "/v1/weather" => Answer {
            status: 200,
            fields: "Cache-Control: max-age=60\r\n",
            body: weather(&request.query),
        },
        "/v1/time" => Answer { status: 200, fields: "Cache-Control: no-store\r\n", body: time() },
        "/v1/quote" => quote(request),
        "/v1/echo" => Answer {
            status: 200,
            fields: "Cache-Control: no-store\r\n",
            body: json!({ "you_sent": String::from_utf8_lossy(&request.body) }),
        },
        path => match path.strip_prefix("/v1/status/").map(str::parse) {
            Some(Ok(status @ 200..=599)) => {
                Answer { status, fields: "", body: json!({ "status": status }) }
            }
            _ => Answer { status: 404, fields: "", body: json!({ "error": "not found" }) },
        },
    }
}

/// The same for a city in every run: what changes should be the cache's doing.
fn weather(query: &str) -> Value {
    let city = query.split('&').find_map(|it| it.strip_prefix("city=")).unwrap_or("Oslo");
    let city = decoded(city);
    let sum = city.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(byte));
    let sky = ["clear", "cloudy", "rain", "snow"];
    let sky = sky.get(usize::try_from(sum % 4).unwrap_or(0)).copied().unwrap_or("clear");
    json!({ "city": city, "temperature_celsius": sum % 35, "sky": sky })
}

/// Percent-decoding, with `+` for a space; what is malformed stays as it is.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let escaped = hex.and_then(|it| u8::from_str_radix(it, 16).ok());
        rest = match (byte, escaped) {
            (b'%', Some(escaped)) => {
                out.push(escaped);
                after.get(2..).unwrap_or_default()
            }
            (b'+', _) => {
                out.push(b' ');
                after
            }
            (byte, _) => {
                out.push(*byte);
                after
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn time() -> Value {
    let now = SystemTime::now();
    let millis = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis());
    let millis = u64::try_from(millis).unwrap_or(0);
    json!({ "now": httpdate::fmt_http_date(now), "unix_millis": millis })
}

fn quote(request: &Request) -> Answer {
    let fields = "Cache-Control: max-age=5\r\nETag: \"quote-1\"\r\n";
    let same = request.if_none_match.split(',').any(|it| {
        let it = it.trim();
        it == "*" || it.strip_prefix("W/").unwrap_or(it) == "\"quote-1\""
    });
    let status = if same { 304 } else { 200 };
    let body = json!({ "quote": "There are only two hard things: cache invalidation and names." });
    Answer { status, fields, body }
}

impl Answer {
    fn bytes(&self, request: &Request) -> Vec<u8> {
        let Self { status, fields, body } = self;
        let body = format!("{body}\n");
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut out = format!("HTTP/1.1 {status} {}\r\nDate: {date}\r\n{fields}", reason(*status));
        if request.close {
            out.push_str("Connection: close\r\n");
        }
        // RFC 9110 section 6.4.1: neither has content.
        if matches!(status, 204 | 304) {
            out.push_str("\r\n");
            return out.into_bytes();
        }
        out.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        if request.method != "HEAD" {
            out.push_str(&body);
        }
        out.into_bytes()
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        404 => "Not Found",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Demo",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `request` and reads to the end of the connection.
    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(IDLE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn endpoints_show_what_they_are_for() {
        let address = start().unwrap();
        let quote = "If-None-Match: W/\"quote-1\"\r\n";
        let table = [
            ("GET /v1/weather?city=S%C3%A3o+Paulo", "", "200 OK", "\"city\":\"S\u{e3}o Paulo\""),
            ("GET /v1/weather", "", "200 OK", "Cache-Control: max-age=60\r\n"),
            ("GET /v1/time", "", "200 OK", "Cache-Control: no-store\r\n"),
            ("GET /v1/quote", "", "200 OK", "ETag: \"quote-1\"\r\n"),
            ("GET /v1/quote", quote, "304 Not", "max-age=5\r\n"),
            ("GET /v1/status/503", "", "503 ", "{\"status\":503}"),
            ("GET /v1/status/999", "", "404 ", "not found"),
            ("POST /v1/time", "", "405 ", "Allow: GET, HEAD\r\n"),
            ("GET /v1/echo", "", "405 ", "Allow: POST\r\n"),
        ];
        let asked = table.map(|(line, fields, ..)| {
            let request =
                format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
            thread::spawn(move || ask(address, &request))
        });
        for ((line, _, status, part), answer) in table.iter().zip(asked) {
            let answer = answer.join().unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
            assert!(answer.contains(part), "{line}: {answer}");
        }
    }

    #[test]
    fn bodies_are_read_in_both_framings_on_one_connection() {
        let address = start().unwrap();
        let post = "POST /v1/echo HTTP/1.1\r\nHost: x\r\n";
        let request = format!(
            "{post}Content-Length: 5\r\n\r\nfirst{post}Transfer-Encoding: chunked\r\n\r\n\
             3\r\nsec\r\n3;x=y\r\nond\r\n0\r\nTrailer: x\r\n\r\n\
             HEAD /v1/weather HTTP/1.0\r\n\r\n"
        );
        let answer = ask(address, &request);
        assert!(answer.contains("{\"you_sent\":\"first\"}"), "{answer}");
        assert!(answer.contains("{\"you_sent\":\"second\"}"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn malformed_requests_end_the_connection() {
        let address = start().unwrap();
        for request in [
            "GARBAGE\r\n\r\n",
            "POST /v1/echo HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST /v1/echo HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            "POST /v1/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert_eq!(ask(address, request), "", "{request}");
        }
    }
}
