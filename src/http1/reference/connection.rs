//! A whole connection: bytes in, messages out, however the bytes are cut.
//!
//! What a smuggled request is: the second of two messages for one reader, body of the first for
//! another. So the messages found must not depend on how the bytes arrived.

use proptest::prelude::*;
use proptest::sample::select;

use crate::http1::{BodyReader, Limits, Slots, parse_request, worth_parsing};

/// What clients send one after the other on one connection, good and bad.
const PARTS: &[&str] = &[
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "PUT /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\nT: u\r\n\r\n",
    "GET /e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "\r\n",
    "0\r\n\r\n",
    "G",
    "GET /g HTTP/1.1\nHost: a\n\n",
    "POST /h HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n",
    "POST /i HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
];

#[test]
fn pipelined_messages_are_told_apart() {
    let wire = [PARTS[0], PARTS[1], PARTS[2], PARTS[3], PARTS[4], PARTS[5], PARTS[0]].concat();
    let events = serve(wire.as_bytes(), 7);
    let ends = events.iter().filter(|it| **it == Event::End).count();
    assert_eq!(ends, 6, "nothing is read after `close`");
    let bodies: Vec<_> = events.iter().filter(|it| matches!(it, Event::Body(_))).collect();
    let body = |text: &str| Event::Body(text.into());
    assert_eq!(bodies, [&body("hello"), &body("abc"), &body("a")]);
}

#[test]
fn nothing_is_read_after_a_refused_message() {
    let wire = [PARTS[0], PARTS[11], "0\r\n\r\n", PARTS[0]].concat();
    let events = serve(wire.as_bytes(), 3);
    assert_eq!(events.len(), 3);
    assert_eq!(events[2], Event::Refused("length_and_coding"));
}

proptest! {
    #[test]
    fn a_connection_gives_the_same_messages_however_it_is_cut(
        parts in prop::collection::vec(select(PARTS), 1..6),
        piece in 1..40_usize,
        broken in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut wire = parts.concat().into_bytes();
        if let Some((at, byte)) = broken {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        prop_assert_eq!(serve(&wire, piece), serve(&wire, wire.len()));
    }
}

/// What a connection did, in order.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Head(Vec<u8>),
    Body(Vec<u8>),
    End,
    Refused(&'static str),
}

fn serve(bytes: &[u8], piece: usize) -> Vec<Event> {
    let mut connection = Connection::default();
    for piece in bytes.chunks(piece.max(1)) {
        connection.buffer.extend_from_slice(piece);
        while !connection.closed && connection.advance(false) {}
    }
    // What `worth_parsing` put off.
    while !connection.closed && connection.advance(true) {}
    connection.events
}

#[derive(Default)]
struct Connection {
    buffer: Vec<u8>,
    /// Bytes of the buffer that the last unfinished parse saw.
    seen: usize,
    /// The body being read and whether the connection outlives it.
    body: Option<(BodyReader, bool)>,
    events: Vec<Event>,
    closed: bool,
}

impl Connection {
    /// Takes one step; false when that needs more bytes.
    fn advance(&mut self, at_end: bool) -> bool {
        match self.body.take() {
            Some(body) => self.read_body(body),
            None => self.read_head(at_end),
        }
    }

    fn read_head(&mut self, at_end: bool) -> bool {
        let limits = Limits { head_bytes_max: 2_048, fields_max: 20, ..Limits::default() };
        if self.buffer.is_empty() || !(at_end || worth_parsing(&self.buffer, self.seen)) {
            return false;
        }
        let parsed = parse_request(&self.buffer, &limits, &mut Slots::new())
            .map(|request| request.map(|it| (it.head_len, it.persistent, it.body)));
        match parsed {
            Err(fault) => self.close(Event::Refused(fault.as_str())),
            Ok(None) => {
                self.seen = self.buffer.len();
                return false;
            }
            Ok(Some((head_len, persistent, body))) => {
                self.body = Some((BodyReader::for_request(body, &limits), persistent));
                self.events.push(Event::Head(self.buffer[..head_len].to_vec()));
                self.buffer.drain(..head_len);
            }
        }
        true
    }

    fn read_body(&mut self, (mut reader, persistent): (BodyReader, bool)) -> bool {
        let step = match reader.on_bytes(&self.buffer) {
            Ok(step) => step,
            Err(fault) => {
                self.close(Event::Refused(fault.as_str()));
                return true;
            }
        };
        let data = &self.buffer[step.data];
        match self.events.last_mut() {
            _ if data.is_empty() => {}
            // The data of one body is one event, however it came.
            Some(Event::Body(body)) => body.extend_from_slice(data),
            _ => self.events.push(Event::Body(data.to_vec())),
        }
        self.buffer.drain(..step.consumed);
        if !step.done {
            self.body = Some((reader, persistent));
            return !self.buffer.is_empty();
        }
        self.seen = 0;
        self.events.push(Event::End);
        self.closed = !persistent;
        true
    }

    fn close(&mut self, event: Event) {
        self.events.push(event);
        self.closed = true;
    }
}
