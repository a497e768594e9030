//! A whole connection: bytes in, messages out, however the bytes are cut.
//!
//! What a smuggled request is: the second of two messages for one reader, body of the first for
//! another. So the messages found must not depend on how the bytes arrived.

use proptest::prelude::*;
use proptest::sample::select;

use crate::http1::{BodyReader, Limits, Slots, parse_request, worth_parsing};

mod serve;

use serve::{Event, serve};

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
