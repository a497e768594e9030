//! A connection of HTTP/1.1 on which things go wrong.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::book::Right;
use super::{Player, Resets, within};
use crate::support::message::{Reader, Request, Unreadable};

/// Answers until the connection ends, for whatever reason.
pub(super) async fn play(player: Player, stream: impl Resets) {
    let mut line = Line { player, stream, buf: Vec::new() };
    while let Some(request) = line.next().await {
        if !matches!(line.answer(&request).await, Ok(After::Open)) {
            return;
        }
    }
}

struct Line<S> {
    player: Player,
    stream: S,
    buf: Vec<u8>,
}

/// What becomes of the connection.
enum After {
    Open,
    Closed,
}

/// What goes wrong before an answer, or with it.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Reset,
    Close,
    Stall,
    Garbage,
    Malformed,
    HeadCut,
    BodyCut,
    BodyReset,
    TooShort,
    TooMuch,
    BadChunk,
    Drip,
    Error,
    Later,
    CloseAfter,
}

const ALL: [Wrong; 15] = [
    Wrong::Reset,
    Wrong::Close,
    Wrong::Stall,
    Wrong::Garbage,
    Wrong::Malformed,
    Wrong::HeadCut,
    Wrong::BodyCut,
    Wrong::BodyReset,
    Wrong::TooShort,
    Wrong::TooMuch,
    Wrong::BadChunk,
    Wrong::Drip,
    Wrong::Error,
    Wrong::Later,
    Wrong::CloseAfter,
];

/// Heads that no client may take.
const MALFORMED: [&str; 8] = [
    "HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nwrong",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nwrong",
    "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nwrong",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nwrong",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nwrong",
    "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 5\r\n\r\nwrong",
    "HTTP/3.9 200 OK\r\nContent-Length: 5\r\n\r\nwrong",
    "wrong\r\n\r\n",
];

impl<S: Resets> Line<S> {
    /// The next request; `None` when the connection is over, also because we had enough of it.
    async fn next(&mut self) -> Option<Request> {
        let strikes = self.player.moods.strikes(60, &mut self.player.dice);
        let patience = if strikes { self.player.dice.millis(150) } else { Duration::from_secs(60) };
        let request = within(patience, self.request()).await.ok()??;
        self.player.book.on_request(&request.method, &request.target);
        Some(request)
    }

    async fn request(&mut self) -> Option<Request> {
        loop {
            let mut rest = self.buf.clone();
            match (Reader { from: &mut io::empty(), buf: &mut rest }).request() {
                Ok(Some(request)) => {
                    self.buf = rest;
                    return Some(request);
                }
                Ok(None) | Err(Unreadable::Closed | Unreadable::Cut(_) | Unreadable::Late) => {}
                Err(Unreadable::Malformed(what)) => {
                    self.player.book.complain(what);
                    return None;
                }
            }
            if self.stream.read_buf(&mut self.buf).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn answer(&mut self, request: &Request) -> io::Result<After> {
        let wrong = self.player.moods.strikes(100, &mut self.player.dice);
        let wrong = wrong.then(|| self.player.dice.pick(&ALL));
        let status = match wrong {
            Some(Wrong::Error) => self.player.dice.pick(&[500, 502, 503]),
            Some(Wrong::Later) => self.player.dice.pick(&[429, 503]),
            _ => 200,
        };
        let tag = request.field("If-None-Match").filter(|_| status == 200);
        let right = self.player.book.answer(&request.target, tag, status);
        let is_head = request.method == "HEAD";
        match wrong {
            None => self.say_right(right, is_head).await,
            Some(wrong) => self.say_wrong(wrong, right, is_head).await,
        }
    }

    /// Whole, in one framing or another.
    async fn say_right(&mut self, right: Right, is_head: bool) -> io::Result<After> {
        let bodiless = is_head || right.status == 304;
        if self.player.dice.happens(50) {
            self.say(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").await?;
        }
        match self.player.dice.roll(8) {
            0 if !bodiless => {
                self.say(head(&right, "Connection: close").as_bytes()).await?;
                self.say(&right.body).await?;
                self.stream.shutdown().await?;
                return Ok(After::Closed);
            }
            1..4 if !bodiless => {
                self.say(head(&right, "Transfer-Encoding: chunked").as_bytes()).await?;
                let (first, rest) = right.body.split_at(self.player.dice.place(right.body.len()));
                for part in [first, rest].into_iter().filter(|it| !it.is_empty()) {
                    self.say(&chunk(part)).await?;
                }
                self.say(b"0\r\n\r\n").await?;
            }
            _ => self.say(&whole(&right, is_head)).await?,
        }
        Ok(After::Open)
    }

    async fn say_wrong(&mut self, wrong: Wrong, right: Right, head: bool) -> io::Result<After> {
        let bytes = whole(&right, head);
        let start = bytes.len() - if head { 0 } else { right.body.len() };
        let body_cut = start + self.player.dice.place(bytes.len() - start);
        let bodiless = bytes.len() == start;
        match wrong {
            Wrong::Reset => self.stream.reset_on_close(),
            Wrong::Stall => {
                sleep(self.player.dice.millis(3_000)).await;
                self.say(&bytes).await?;
                return Ok(After::Open);
            }
            Wrong::Garbage => {
                let garbage = self.player.garbage();
                self.say(&garbage).await?;
            }
            Wrong::Malformed => {
                let malformed = self.player.dice.pick(&MALFORMED);
                self.say(malformed.as_bytes()).await?;
            }
            Wrong::HeadCut => {
                let cut = self.player.dice.place(start);
                self.say(&bytes[..cut]).await?;
            }
            Wrong::BodyCut if !bodiless => self.say(&bytes[..body_cut]).await?,
            Wrong::BodyReset if !bodiless => {
                self.say(&bytes[..body_cut]).await?;
                self.stream.reset_on_close();
            }
            Wrong::TooShort if !bodiless => self.say_too_short(&right).await?,
            // Together: what comes later than the next request, nobody can tell from its answer.
            Wrong::TooMuch => {
                let unasked = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
                self.say(&[&bytes[..], unasked].concat()).await?;
                return Ok(After::Open);
            }
            Wrong::BadChunk if !bodiless => self.say_bad_chunk(&right).await?,
            Wrong::Drip => {
                self.drip(&bytes, start).await?;
                return Ok(After::Open);
            }
            Wrong::Error | Wrong::Later => {
                self.say(&bytes).await?;
                return Ok(After::Open);
            }
            Wrong::CloseAfter => self.say(&bytes).await?,
            Wrong::Close
            | Wrong::BodyCut
            | Wrong::BodyReset
            | Wrong::TooShort
            | Wrong::BadChunk => {}
        }
        Ok(After::Closed)
    }

    /// Says a greater length than it has.
    async fn say_too_short(&mut self, right: &Right) -> io::Result<()> {
        let more = 1 + self.player.dice.place(10_000);
        let length = format!("Content-Length: {}", right.body.len() + more);
        self.say(head(right, &length).as_bytes()).await?;
        self.say(&right.body).await
    }

    async fn say_bad_chunk(&mut self, right: &Right) -> io::Result<()> {
        self.say(head(right, "Transfer-Encoding: chunked").as_bytes()).await?;
        self.say(&chunk(&right.body)).await?;
        let bad =
            ["0x5\r\nwrong\r\n", "-1\r\n", "5\r\nwrongly\r\n", "ffffffffffffffffff\r\n", "5;"];
        let bad = self.player.dice.pick(&bad);
        self.say(bad.as_bytes()).await
    }

    /// The head byte by byte, the body in pieces; seconds at most.
    async fn drip(&mut self, bytes: &[u8], start: usize) -> io::Result<()> {
        let most = self.player.dice.pick(&[1, 3, 15]);
        for byte in &bytes[..start] {
            self.say(&[*byte]).await?;
            sleep(self.player.dice.millis(most)).await;
        }
        for part in bytes[start..].chunks((bytes.len() - start).div_ceil(60).max(1)) {
            self.say(part).await?;
            sleep(self.player.dice.millis(30)).await;
        }
        Ok(())
    }

    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// With another field, which says how long it is.
fn head(right: &Right, framing: &str) -> String {
    let mut text = format!("HTTP/1.1 {} Scripted\r\n{framing}\r\n", right.status);
    if right.status == 429 || (right.status == 503 && right.body.len().is_multiple_of(2)) {
        text.push_str("Retry-After: 1\r\n");
    }
    for (name, value) in &right.fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

fn whole(right: &Right, is_head: bool) -> Vec<u8> {
    let length = match right.status {
        304 => "Cache-Tag: x".to_owned(),
        _ => format!("Content-Length: {}", right.body.len()),
    };
    let mut bytes = head(right, &length).into_bytes();
    if !is_head {
        bytes.extend_from_slice(&right.body);
    }
    bytes
}

fn chunk(part: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", part.len()).into_bytes();
    bytes.extend_from_slice(part);
    bytes.extend_from_slice(b"\r\n");
    bytes
}
