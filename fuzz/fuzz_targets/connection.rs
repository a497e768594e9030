//! A whole connection: bytes in, messages out, in two ways of cutting the bytes.
//!
//! What a smuggled request is: the second of two messages for one reader, body of the first for
//! another. So the messages found must not depend on how the bytes arrived.
#![no_main]

use apiproxyd::http1::{BodyReader, Limits, Slots, parse_request, worth_parsing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    assert_eq!(serve(bytes, usize::from(piece)), serve(bytes, bytes.len()));
});

/// What a connection did, in order.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Head(Vec<u8>),
    Body(Vec<u8>),
    End,
    Refused(&'static str),
}

fn serve(bytes: &[u8], piece: usize) -> Vec<Event> {
    let limits = Limits { head_bytes_max: 2_048, fields_max: 20, ..Limits::default() };
    let (mut events, mut buffer, mut seen) = (Vec::new(), Vec::new(), 0);
    let mut body: Option<(BodyReader, bool)> = None;
    for piece in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            if let Some((reader, persistent)) = &mut body {
                match reader.on_bytes(&buffer) {
                    Err(fault) => {
                        events.push(Event::Refused(fault.as_str()));
                        return events;
                    }
                    Ok(step) => {
                        append(&mut events, &buffer[step.data]);
                        buffer.drain(..step.consumed);
                        if step.done {
                            events.push(Event::End);
                            if !*persistent {
                                return events;
                            }
                            (body, seen) = (None, 0);
                        } else if buffer.is_empty() {
                            break;
                        }
                    }
                }
            }
            if buffer.is_empty() || body.is_none() && !worth_parsing(&buffer, seen) {
                break;
            }
            if body.is_some() {
                continue;
            }
            let mut slots = Slots::new();
            match parse_request(&buffer, &limits, &mut slots) {
                Err(fault) => {
                    events.push(Event::Refused(fault.as_str()));
                    return events;
                }
                Ok(None) => {
                    seen = buffer.len();
                    break;
                }
                Ok(Some(request)) => {
                    let (head_len, persistent) = (request.head_len, request.persistent);
                    body = Some((BodyReader::for_request(request.body, &limits), persistent));
                    events.push(Event::Head(buffer[..head_len].to_vec()));
                    buffer.drain(..head_len);
                }
            }
        }
    }
    events
}

/// Data of one body is one event, however it came.
fn append(events: &mut Vec<Event>, data: &[u8]) {
    match events.last_mut() {
        _ if data.is_empty() => {}
        Some(Event::Body(body)) => body.extend_from_slice(data),
        _ => events.push(Event::Body(data.to_vec())),
    }
}
