//! HTTP/2 by hand: frames in and out of a connection, for origins and clients that do what no
//! library would (RFC 9113 section 4.1).
//!
//! Requests are not decoded: a script knows what it is asked by the order of the streams. Of
//! answers the status is.

use super::client::Client;
use super::origin::Connection;

/// What frames go through, on either side.
pub trait Wire {
    /// Takes exactly `bytes` of what comes; `None` when the daemon closed before.
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>>;
    /// Sends bytes; false when the daemon no longer takes any.
    fn send(&mut self, bytes: Vec<u8>) -> bool;
}

impl Wire for Connection {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        Connection::take(self, bytes)
    }

    fn send(&mut self, bytes: Vec<u8>) -> bool {
        Connection::send(self, bytes)
    }
}

impl Wire for Client {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        Client::take(self, bytes)
    }

    fn send(&mut self, bytes: Vec<u8>) -> bool {
        self.try_send(bytes).is_ok()
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Also ACK, of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Identifiers of settings.
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;

/// What a client begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's preface, with settings of its own.
pub fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    [PREFACE, &self::settings(settings)].concat()
}

/// Takes the daemon's preface and sends ours. `false` when the daemon closed instead.
pub fn begin(connection: &mut Connection, settings: &[(u16, u32)]) -> bool {
    let preface = connection.take(PREFACE.len());
    preface.as_deref() == Some(PREFACE) && connection.send(self::settings(settings))
}

/// The next frame that says something: settings and pings are answered here, and window updates
/// passed over. `None` when the daemon closed.
pub fn next(connection: &mut impl Wire) -> Option<Frame> {
    loop {
        let frame = read(connection)?;
        match (frame.kind, frame.flags & END_STREAM) {
            (SETTINGS, 0) => {
                connection.send(write(SETTINGS, END_STREAM, 0, &[]));
            }
            (PING, 0) => {
                connection.send(write(PING, END_STREAM, 0, &frame.payload));
            }
            (SETTINGS | PING | WINDOW_UPDATE, _) => {}
            _ => return Some(frame),
        }
    }
}

/// The stream of the next request that has come to its end. `None` when the daemon closed.
pub fn request(connection: &mut Connection) -> Option<u32> {
    loop {
        let frame = next(connection)?;
        if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
            return Some(frame.stream);
        }
    }
}

/// Reads one frame, whatever it is.
pub fn read(connection: &mut impl Wire) -> Option<Frame> {
    let head = connection.take(9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    let payload = connection.take(length)?;
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// A frame's bytes.
pub fn write(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// SETTINGS.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let one = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    write(SETTINGS, 0, 0, &settings.iter().flat_map(one).collect::<Vec<u8>>())
}

/// HEADERS with a status and fields.
pub fn head(stream: u32, flags: u8, status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let status = status.to_string();
    lines(stream, flags, &[&[(":status", status.as_str())], fields].concat())
}

/// HEADERS with a request for `proxy.test` and fields behind it.
pub fn ask(stream: u32, flags: u8, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo =
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "proxy.test")];
    lines(stream, flags, &[&pseudo, fields].concat())
}

/// HEADERS with just these lines.
pub fn lines(stream: u32, flags: u8, lines: &[(&str, &str)]) -> Vec<u8> {
    write(HEADERS, flags | END_HEADERS, stream, &block(lines))
}

/// Lines as literals that no table remembers (RFC 7541 section 6.2.2).
pub fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    lines.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// One line as a literal.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name.as_ref(), value.as_ref()] {
        integer(text.len(), &mut bytes);
        bytes.extend(text);
    }
    bytes
}

/// The length of a text, with 7 bits in its first byte (RFC 7541 section 5.1).
fn integer(value: usize, into: &mut Vec<u8>) {
    if value < 127 {
        return into.push(value as u8);
    }
    into.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        into.push(128 | (rest % 128) as u8);
        rest /= 128;
    }
    into.push(rest as u8);
}

/// The status of an answer's head: what its block begins with. Only for the first of its kind on a
/// connection, since the dynamic table is not kept.
#[track_caller]
pub fn status(head: &Frame) -> u16 {
    assert_eq!(head.kind, HEADERS, "{head:?}");
    // RFC 7541 appendix A.
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match head.payload[..] {
        [index @ 0x88..=0x8e, ..] => STATIC[usize::from(index - 0x88)],
        [0x48 | 0x08 | 0x18, length, ref text @ ..] if length & 0x80 != 0 => {
            huffman_digits(&text[..usize::from(length & 0x7f)])
        }
        [0x48 | 0x08 | 0x18, 3, ref text @ ..] => {
            std::str::from_utf8(&text[..3]).unwrap().parse().unwrap()
        }
        _ => panic!("no status of its own: {head:?}"),
    }
}

/// Three digits in the code of RFC 7541 appendix B.
fn huffman_digits(text: &[u8]) -> u16 {
    let bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let (mut value, mut code, mut length, mut digits) = (0, 0, 0, 0);
    for bit in bits {
        (code, length) = (code << 1 | bit, length + 1);
        let digit = match (length, code) {
            (5, 0..=2) => code,
            (6, 0x19..=0x1f) => code - 0x19 + 3,
            _ => continue,
        };
        (value, code, length, digits) = (value * 10 + digit, 0, 0, digits + 1);
        if digits == 3 {
            return value;
        }
    }
    panic!("no three digits: {text:?}")
}

/// DATA.
pub fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    write(DATA, flags, stream, bytes)
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, bytes: u32) -> Vec<u8> {
    write(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    write(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// GOAWAY: no stream above `last` was looked at.
pub fn go_away(last: u32, code: u32) -> Vec<u8> {
    write(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A whole answer.
pub fn answer(stream: u32, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    [head(stream, 0, 200, fields), data(stream, END_STREAM, body.as_bytes())].concat()
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    #[track_caller]
    pub fn code(&self) -> u32 {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => panic!("no error: {self:?}"),
        };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// Whether it ends its stream in good order.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0
    }
}
