//! HTTP/2 frames that break the protocol's rules, and floods of such that don't: the connection
//! gets the answer that RFC 9113 has for it, and others are served.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use support::frames::{self, END_HEADERS, END_STREAM};
use support::probe::Got::{self, GoAway, Reset, Status};
use support::probe::{Edge, PROTOCOL, got, with};
use support::{Origin, Setup};

#[test]
fn rfc9113_10_5_1_a_header_list_that_is_too_large_is_refused() {
    let edge = Edge::new();
    let long = "x".repeat(4_000);
    let many: Vec<(String, String)> = (0..100).map(|it| (format!("a{it}"), long.clone())).collect();
    let block = |count: usize| {
        let lines: Vec<_> = many[..count].iter().map(|it| (it.0.as_str(), it.1.as_str())).collect();
        frames::block(&with(&lines))
    };
    // In frames of at most 16 KiB.
    let split = |block: &[u8]| {
        let pieces: Vec<_> = block.chunks(16_000).collect();
        let last = pieces.len() - 1;
        let frames = pieces.iter().enumerate().map(|(number, piece)| {
            let kind = if number == 0 { frames::HEADERS } else { frames::CONTINUATION };
            let end = if number == last { END_HEADERS } else { 0 };
            frames::write(kind, if number == 0 { end | END_STREAM } else { end }, 1, piece)
        });
        frames.flatten().collect::<Vec<u8>>()
    };
    for count in [17, 20, 40, 100] {
        let got = edge.send(split(&block(count)));
        let refused = matches!(got, Status(431) | PROTOCOL | GoAway(_));
        assert!(refused, "{count}: {got:?}");
    }
    let fields: Vec<_> = (0..300).map(|_| ("a", "")).collect();
    assert_eq!(edge.lines(&with(&fields)), Status(431), "too many");
    edge.assert_unharmed();
    assert_eq!(edge.send(split(&block(3))), Status(200));
}

/// The connection's answer to frames that have no place in it.
#[test]
fn rfc9113_5_1_frames_on_streams_that_do_not_take_them_end_the_connection() {
    let edge = Edge::new();
    let ask = |stream| frames::ask(stream, END_STREAM, "GET", "/health", &[]);
    let protocol = GoAway(frames::PROTOCOL_ERROR);
    let rows = [
        ("DATA on an idle stream", frames::data(1, END_STREAM, b"x")),
        ("RST_STREAM on an idle stream", frames::reset(1, frames::CANCEL)),
        ("WINDOW_UPDATE on an idle stream", frames::window(1, 10)),
        ("a stream of even number", ask(2)),
        ("stream 0", ask(0)),
        ("DATA on stream 0", frames::data(0, 0, b"x")),
        ("CONTINUATION alone", frames::write(frames::CONTINUATION, END_HEADERS, 1, &[])),
        ("PUSH_PROMISE", frames::write(frames::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("padding beyond the frame", frames::write(frames::DATA, frames::PADDED, 1, &[9])),
        ("SETTINGS on a stream", frames::write(frames::SETTINGS, 0, 1, &[])),
        ("PING on a stream", frames::write(frames::PING, 0, 1, &[0; 8])),
        ("GOAWAY on a stream", frames::write(frames::GOAWAY, 0, 1, &[0; 8])),
        ("HEADERS inside a head", [frames::write(frames::HEADERS, 0, 1, &[]), ask(3)].concat()),
        (
            "PING inside a head",
            [frames::write(frames::HEADERS, 0, 1, &[]), frames::write(frames::PING, 0, 0, &[0; 8])]
                .concat(),
        ),
    ];
    for (what, bytes) in rows {
        assert_eq!(edge.send(bytes), protocol, "{what}");
    }
    let mut client = edge.connect();
    client.send(ask(5));
    assert_eq!(got(&mut client), Status(200));
    client.send(ask(3));
    assert_eq!(got(&mut client), protocol, "a number that has passed");
    edge.assert_unharmed();
}

#[test]
fn rfc9113_4_2_and_4_3_broken_frames_end_the_connection() {
    let edge = Edge::new();
    let rows = [
        ("SETTINGS of 5 bytes", frames::write(frames::SETTINGS, 0, 0, &[0; 5])),
        ("an acknowledgement with a load", frames::write(frames::SETTINGS, END_STREAM, 0, &[0; 6])),
        ("PING of 7 bytes", frames::write(frames::PING, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE of 3 bytes", frames::write(frames::WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("a frame too long", frames::write(frames::DATA, 0, 1, &[0; 16_385])),
    ];
    for (what, bytes) in rows {
        let got = edge.send(bytes);
        // The framing layer has the other code for some.
        let ended =
            GoAway(frames::FRAME_SIZE_ERROR) == got || GoAway(frames::PROTOCOL_ERROR) == got;
        assert!(ended, "{what}: {got:?}");
    }
    // RFC 7541: an index that there is not, an integer without an end, a table beyond its size.
    for block in [&[0xff, 0xff, 0xff, 0x7f][..], &[0xff; 20], &[0x80], &[0x3f, 0xff, 0xff, 0x7f]] {
        let got = edge.send(frames::write(frames::HEADERS, END_HEADERS | END_STREAM, 1, block));
        let ended =
            GoAway(frames::COMPRESSION_ERROR) == got || GoAway(frames::PROTOCOL_ERROR) == got;
        assert!(ended, "{block:?}: {got:?}");
    }
    edge.assert_unharmed();
}

#[test]
fn rfc9113_6_5_2_settings_have_their_bounds() {
    let edge = Edge::new();
    let rows = [
        ((frames::ENABLE_PUSH, 2), frames::PROTOCOL_ERROR),
        // The RFC has FLOW_CONTROL_ERROR for this one; the framing layer does not tell them apart.
        ((frames::INITIAL_WINDOW_SIZE, 1 << 31), frames::PROTOCOL_ERROR),
        ((frames::MAX_FRAME_SIZE, 16_383), frames::PROTOCOL_ERROR),
        ((frames::MAX_FRAME_SIZE, 1 << 24), frames::PROTOCOL_ERROR),
    ];
    for (setting, code) in rows {
        assert_eq!(edge.send(frames::settings(&[setting])), GoAway(code), "{setting:?}");
    }
    edge.assert_unharmed();
    let unknown =
        [frames::settings(&[(0xfefe, 7)]), frames::ask(1, END_STREAM, "GET", "/health", &[])];
    assert_eq!(edge.send(unknown.concat()), Status(200));
}

#[test]
fn rfc9113_6_9_windows_are_kept() {
    let edge = Edge::new();
    let zero = frames::window(0, 0);
    assert_eq!(edge.send(zero), GoAway(frames::PROTOCOL_ERROR));
    let most = frames::window(0, (1 << 31) - 1);
    assert_eq!(edge.send(most), GoAway(frames::FLOW_CONTROL_ERROR));
    let open = |gate: &str| frames::ask(1, 0, "POST", gate, &[]);
    let got = edge.send([open("/api/x"), frames::window(1, 0)].concat());
    // RFC 9113 section 5.4.2: an error of a stream may be taken for one of the connection.
    assert_eq!(got, GoAway(frames::PROTOCOL_ERROR));
    let got = edge.send([open("/api/x"), frames::window(1, (1 << 31) - 1)].concat());
    assert_eq!(got, Reset(frames::FLOW_CONTROL_ERROR));
    edge.assert_unharmed();
}

/// Nobody takes it, so that no room is given back; the rest of what was sent is not kept.
#[test]
fn rfc9113_6_9_1_data_beyond_the_window_is_an_error() {
    let origin = Origin::script(|connection| {
        connection.head();
        connection.await_hang_up();
    });
    let proxy = Setup::over(&origin).with("security.require_json_body", false).start();
    let before = proxy.rss_bytes();
    let mut client = proxy.connect();
    client.send(frames::preface(&[]));
    client.send(frames::ask(1, 0, "POST", "/api/x", &[]));
    let piece = frames::data(1, 0, &[b'x'; 16_384]);
    let sent = (0..4_000).take_while(|_| client.try_send(&piece).is_ok()).count();
    let ended = got(&mut client);
    let code = frames::FLOW_CONTROL_ERROR;
    assert!(ended == Reset(code) || ended == GoAway(code), "{ended:?} after {sent}");
    let grown = proxy.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for {sent} frames");
    assert_eq!(proxy.get("/health").status, 200);
}

#[test]
fn rfc9113_5_5_what_is_unknown_is_ignored() {
    let edge = Edge::new();
    let mut client = edge.connect();
    for kind in [10, 0x42, 0xff] {
        client.send(frames::write(kind, 0xff, 0, b"whatever"));
        client.send(frames::write(kind, 0xff, 7, b"whatever"));
    }
    client.send(frames::write(frames::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]));
    client.send(frames::ask(1, END_STREAM | 0x40, "GET", "/api/x", &[]));
    assert_eq!(got(&mut client), Status(200));
}

#[test]
fn rfc9113_6_7_a_ping_is_answered() {
    let edge = Edge::new();
    let mut client = edge.connect();
    client.send(frames::write(frames::PING, 0, 0, b"12345678"));
    let pong = loop {
        let frame = frames::read(&mut client).expect("closed");
        if frame.kind == frames::PING {
            break frame;
        }
    };
    assert_eq!((pong.flags, &pong.payload[..]), (END_STREAM, &b"12345678"[..]));
}

/// RFC 9113 section 3.4.
#[test]
fn rfc9113_3_4_a_preface_that_goes_wrong_ends_the_connection() {
    let edge = Edge::new();
    let mut client = edge.proxy.connect();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n");
    client.send(frames::ask(1, END_STREAM, "GET", "/api/x", &[]));
    let got = got(&mut client);
    assert!(matches!(got, Got::Closed | GoAway(frames::PROTOCOL_ERROR)), "{got:?}");
    edge.assert_unharmed();
}
