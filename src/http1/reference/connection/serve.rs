//! A connection without sockets, for the tests and for the fuzz target, which takes this file in.

use super::{BodyReader, Limits, Slots, parse_request, worth_parsing};

/// What a connection did, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Head(Vec<u8>),
    Body(Vec<u8>),
    End,
    Refused(&'static str),
}

pub fn serve(bytes: &[u8], piece: usize) -> Vec<Event> {
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
