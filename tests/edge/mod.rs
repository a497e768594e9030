//! What the HTTP/1.1 suites share: the daemon in front of an origin that records everything, and
//! tables of raw bytes. A table runs to its end and then reports every row that failed.

#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::support::{Client, Fault, Origin, Proxy, Request, Response, Setup, answer};

/// The daemon in front of an origin.
pub struct Edge {
    pub proxy: Proxy,
    pub origin: Origin,
}

impl Edge {
    /// In front of an origin whose answers can't be stored; any body passes.
    pub fn plain() -> Self {
        Self::with(|setup| setup)
    }

    /// As [`Edge::plain`], configured further.
    pub fn with(configure: impl FnOnce(Setup) -> Setup) -> Self {
        Self::over(Origin::respond(uncacheable), configure)
    }

    /// In front of a scripted origin.
    pub fn over(origin: Origin, configure: impl FnOnce(Setup) -> Setup) -> Self {
        let setup = Setup::over(&origin)
            .with("security.require_json_body", false)
            .with("client.circuit_breaker_enabled", false);
        let proxy = configure(setup).start();
        Self { proxy, origin }
    }

    /// Sends bytes on a connection of their own.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Client {
        let mut client = self.proxy.connect();
        // What is refused early may be answered before all of it is sent.
        client.try_send(bytes).ok();
        client
    }

    /// The request that the origin got since it had seen `before`.
    #[track_caller]
    pub fn forwarded(&self, before: usize) -> Request {
        let mut all = self.origin.requests().split_off(before);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

fn uncacheable(request: &Request) -> Vec<u8> {
    answer(200, &[("Cache-Control", "no-store")], format!("{} {}", request.method, request.target))
}

/// Follows every vector that must be refused: were the end of the refused message guessed, this
/// would be taken for the next request.
pub const SMUGGLED: &str = "GET /api/smuggled HTTP/1.1\r\nHost: proxy.test\r\n\r\n";

/// What a vector's rows say when they failed.
#[derive(Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Notes a row's failure.
    pub fn note(&mut self, row: &str, result: Result<(), String>) {
        if let Err(why) = result {
            self.0.push(format!("{row}: {why}"));
        }
    }

    /// Fails the test when any row failed.
    #[track_caller]
    pub fn assert_none(self) {
        assert!(self.0.is_empty(), "{} rows failed:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// Fails with a text unless a condition holds.
pub fn must(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}

/// Each row (rule, bytes, status) is answered with that status, the connection is closed after
/// it, and the origin sees no request, neither this one nor one hidden behind it.
#[track_caller]
pub fn assert_refused<B: AsRef<[u8]>>(edge: &Edge, rows: &[(&str, B, u16)]) {
    let mut failures = Failures::default();
    for (rule, bytes, status) in rows {
        failures.note(rule, refused(edge, bytes.as_ref(), *status));
    }
    failures.assert_none();
    assert_eq!(edge.proxy.get("/api/alive").status, 200);
}

fn refused(edge: &Edge, bytes: &[u8], status: u16) -> Result<(), String> {
    let before = edge.origin.count();
    let mut client = edge.send([bytes, SMUGGLED.as_bytes()].concat());
    let answer = read(&mut client, "GET")?;
    must(answer.status == status, || format!("{} instead of {status}", answer.status))?;
    let kind = answer.field("Content-Type");
    must(kind == Some("application/problem+json"), || format!("a body of {kind:?}"))?;
    must(answer.json()["status"] == status, || answer.text().to_owned())?;
    let connection = answer.field("Connection");
    must(connection == Some("close"), || format!("Connection: {connection:?}"))?;
    closed(&mut client)?;
    let seen = edge.origin.requests().split_off(before);
    must(seen.is_empty(), || format!("the origin got {seen:?}"))
}

/// Each row (rule, bytes, start of what the origin gets, its body) is forwarded once, as this.
#[track_caller]
pub fn assert_forwarded<B: AsRef<[u8]>>(edge: &Edge, rows: &[(&str, B, &str, &str)]) {
    let mut failures = Failures::default();
    for (rule, bytes, line, body) in rows {
        failures.note(rule, forwarded(edge, bytes.as_ref(), line, body));
    }
    failures.assert_none();
}

fn forwarded(edge: &Edge, bytes: &[u8], line: &str, body: &str) -> Result<(), String> {
    let before = edge.origin.count();
    let mut client = edge.send(bytes);
    let method = line.split(' ').next().unwrap();
    let answer = read(&mut client, method)?;
    must(answer.status == 200, || format!("{} {}", answer.status, answer.text()))?;
    let seen = edge.origin.requests().split_off(before);
    must(seen.len() == 1, || format!("the origin got {seen:?}"))?;
    let got = format!("{} {}", seen[0].method, seen[0].target);
    must(got == line, || format!("the origin got {got:?}"))?;
    must(seen[0].version == "HTTP/1.1", || seen[0].version.clone())?;
    let host = seen[0].field("Host");
    must(host == Some(edge.origin.addr().to_string().as_str()), || format!("Host: {host:?}"))?;
    let text = String::from_utf8_lossy(&seen[0].body);
    must(text == body, || format!("with the body {text:?}"))
}

/// The next answer, or what is wrong with it.
pub fn read(client: &mut Client, method: &str) -> Result<Response, String> {
    client.try_read(method).map_err(|fault| match fault {
        Fault::Closed => "closed without an answer".to_owned(),
        other => format!("{other:?}"),
    })
}

/// The connection ends in order, without another byte.
pub fn closed(client: &mut Client) -> Result<(), String> {
    match client.try_read("GET") {
        Err(Fault::Closed) => Ok(()),
        Err(other) => Err(format!("not closed: {other:?}")),
        Ok(answer) => Err(format!("another answer: {}", answer.status)),
    }
}

/// A head with Host.
pub fn head(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: proxy.test\r\n{fields}\r\n")
}

/// A POST whose framing and body are the row's.
pub fn post(fields: &str, body: &str) -> String {
    format!("POST /api/x HTTP/1.1\r\nHost: proxy.test\r\n{fields}\r\n{body}")
}

/// What an origin does after the bytes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
    Reset,
}

/// An origin that answers `/r/N` with the bytes of row N and then does what the row says, and
/// everything else with a plain answer.
pub fn raw_origin(rows: Vec<(Vec<u8>, Then)>) -> Origin {
    Origin::script(move |connection| {
        while let Some(request) = connection.request() {
            let path = request.target.split('?').next().unwrap_or_default();
            let number = path.strip_prefix("/r/").and_then(|it| it.parse::<usize>().ok());
            let Some((bytes, then)) = number.map(|it| &rows[it]) else {
                connection.send(uncacheable(&request));
                continue;
            };
            connection.send(bytes);
            match then {
                Then::Keep => {}
                Then::Close => return,
                Then::Reset => return connection.reset(),
            }
        }
    })
}
