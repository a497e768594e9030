//! HTTP/2 by hand: frames in and out of a scripted connection, for origins that do what no library
//! would (RFC 9113 section 4.1).
//!
//! Requests are not decoded: a script knows what it is asked by the order of the streams.

use super::origin::Connection;

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
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

/// Also ACK, of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

/// Identifiers of settings.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Takes the daemon's preface and sends ours. `false` when the daemon closed instead.
pub fn begin(connection: &mut Connection, settings: &[(u16, u32)]) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let preface = connection.take(PREFACE.len());
    preface.as_deref() == Some(PREFACE) && connection.send(self::settings(settings))
}

/// The next frame that says something: settings and pings are answered here, and window updates
/// passed over. `None` when the daemon closed.
pub fn next(connection: &mut Connection) -> Option<Frame> {
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
pub fn read(connection: &mut Connection) -> Option<Frame> {
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

/// HEADERS with a status and fields, as literals that no table remembers (RFC 7541 section 6.2.2).
pub fn head(stream: u32, flags: u8, status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = literal(":status", &status.to_string());
    for (name, value) in fields {
        block.extend(literal(name, value));
    }
    write(HEADERS, flags | END_HEADERS, stream, &block)
}

/// One field as a literal.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "longer texts need a longer length");
        bytes.push(text.len() as u8);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// DATA.
pub fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    write(DATA, flags, stream, bytes)
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
