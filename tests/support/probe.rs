//! A daemon that is sent HTTP/2 frame by frame, and what comes of it.

use super::client::Client;
use super::frames;
use super::{Origin, Proxy, Setup, answer};

/// A daemon, its origin, and the means to see that it is unharmed.
pub struct Edge {
    pub proxy: Proxy,
    pub origin: Origin,
}

/// What a malformed request gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Got {
    /// An answer of this status, whole.
    Status(u16),
    /// The stream's end with this error.
    Reset(u32),
    /// The connection's end with this error.
    GoAway(u32),
    /// The connection's end without a word.
    Closed,
}

use Got::{GoAway, Reset, Status};

impl Edge {
    /// As most tests want it.
    pub fn new() -> Self {
        Self::with(|setup| setup)
    }

    /// With settings of its own.
    pub fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let origin = Origin::respond(|asked| {
            answer(200, &[("Cache-Control", "no-store")], format!("seen {}", asked.target))
        });
        let setup = Setup::over(&origin).with("security.require_json_body", false);
        Self { proxy: change(setup).start(), origin }
    }

    /// A connection whose preface is exchanged.
    #[track_caller]
    pub fn connect(&self) -> Client {
        let mut client = self.proxy.connect();
        client.send(frames::preface(&[]));
        client
    }

    /// What comes of these bytes on a connection of their own.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Got {
        let mut client = self.connect();
        client.send(bytes);
        got(&mut client)
    }

    /// What comes of a request with just these lines.
    #[track_caller]
    pub fn lines(&self, lines: &[(&str, &str)]) -> Got {
        self.send(frames::lines(1, frames::END_STREAM, lines))
    }

    /// Asserts that other connections are served and the origin saw nothing else.
    #[track_caller]
    pub fn assert_unharmed(&self) {
        let seen: Vec<_> = self.origin.requests().into_iter().map(|it| it.target).collect();
        assert!(seen.is_empty(), "the origin saw {seen:?}");
        let mut client = self.connect();
        client.send(frames::ask(1, frames::END_STREAM, "GET", "/api/fine", &[]));
        assert_eq!(got(&mut client), Status(200));
        assert_eq!(self.proxy.get("/health").status, 200);
    }
}

/// How stream 1, or the connection, ends.
#[track_caller]
pub fn got(client: &mut Client) -> Got {
    let mut status = None;
    loop {
        let Some(frame) = frames::next(client) else { return Got::Closed };
        match frame.kind {
            frames::GOAWAY => return GoAway(frame.code()),
            frames::RST_STREAM if status.is_none() => return Reset(frame.code()),
            frames::HEADERS => status = Some(frames::status(&frame)),
            _ => {}
        }
        if frame.ends_stream() {
            return Status(status.expect("no head"));
        }
    }
}

/// What every request has.
pub const METHOD: (&str, &str) = (":method", "GET");
pub const SCHEME: (&str, &str) = (":scheme", "http");
pub const PATH: (&str, &str) = (":path", "/api/x");
pub const AUTHORITY: (&str, &str) = (":authority", "proxy.test");
/// What a malformed request gets of the framing layer.
pub const PROTOCOL: Got = Reset(frames::PROTOCOL_ERROR);

/// A request's lines with more behind them.
pub fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[METHOD, SCHEME, PATH, AUTHORITY], more].concat()
}
