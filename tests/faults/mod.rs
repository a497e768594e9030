//! Hundreds of clients on one thread, each on a connection of its own, that ask, wait, leave and
//! judge what they get.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::request;
use crate::support::faulty::Book;
use crate::support::message::Reader;
use crate::support::structured::check_cache_status;
use crate::support::{Dice, Fault, PATIENCE, Response};

/// What came of a run.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were sent, at least in part.
    pub asked: usize,
    /// By what became of them: `200`, an error's code, `cut`, `left`.
    pub outcomes: BTreeMap<String, usize>,
    /// What must not have happened.
    pub complaints: Vec<String>,
    /// The longest that somebody waited for the end of an answer.
    pub slowest: Duration,
}

impl Tally {
    /// How often this was the outcome.
    pub fn of(&self, outcome: &str) -> usize {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }
}

/// Who asks.
pub struct Crowd {
    pub addr: SocketAddr,
    pub book: Arc<Book>,
    pub clients: usize,
    pub span: Duration,
    pub dice: Dice,
}

impl Crowd {
    /// Asks until the time is over, and until everybody has his last answer.
    pub fn run(mut self) -> Tally {
        let tally = Rc::new(RefCell::new(Tally::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let until = Instant::now() + self.span;
            let clients: Vec<_> = (0..self.clients)
                .map(|_| Asker {
                    addr: self.addr,
                    book: self.book.clone(),
                    tally: tally.clone(),
                    dice: self.dice.split(),
                    line: None,
                    last: String::new(),
                })
                .map(|asker| tokio::task::spawn_local(asker.run(until)))
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        });
        Rc::into_inner(tally).unwrap().into_inner()
    }
}

struct Asker {
    addr: SocketAddr,
    book: Arc<Book>,
    tally: Rc<RefCell<Tally>>,
    dice: Dice,
    /// What was read and not yet taken stands beside the connection.
    line: Option<(TcpStream, Vec<u8>)>,
    /// What was asked last and what came of it.
    last: String,
}

impl Asker {
    async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            sleep(self.dice.millis(400)).await;
            let (method, target) = self.choose();
            self.tally.borrow_mut().asked += 1;
            let outcome = self.turn(method, &target).await.unwrap_or_else(|wrong| {
                let complaint = format!("{method} {target}: {wrong}, behind {}", self.last);
                self.tally.borrow_mut().complaints.push(complaint);
                self.line = None;
                "wrong".to_owned()
            });
            self.last = format!("{method} {target}: {outcome}");
            *self.tally.borrow_mut().outcomes.entry(outcome).or_default() += 1;
        }
    }

    fn choose(&mut self) -> (&'static str, String) {
        let origin = self.dice.pick(&["plain", "tls", "h2"]);
        let kind = self.dice.pick(&["keep", "brief", "renew", "soft", "pass", "act"]);
        match (kind, self.dice.roll(8)) {
            // No two acts are alike.
            ("act", _) => {
                let (one, other) = (self.dice.roll(1 << 31), self.dice.roll(1 << 31));
                ("POST", format!("/{origin}/act/{one:x}-{other:x}"))
            }
            (_, 0) => ("HEAD", format!("/{origin}/{kind}/{}", self.dice.roll(KEYS))),
            // Never asked for before.
            (_, 1) => ("GET", format!("/{origin}/{kind}/{:x}", self.dice.roll(1 << 31))),
            _ => ("GET", format!("/{origin}/{kind}/{}", self.dice.roll(KEYS))),
        }
    }

    /// One request; what became of it, or what is wrong.
    async fn turn(&mut self, method: &str, target: &str) -> Result<String, String> {
        let text = request(method, &format!("/api{target}"), JSON, body(method));
        let (mut stream, mut buf) = match self.line.take() {
            Some(line) => line,
            None => (self.connect().await?, Vec::new()),
        };
        let leaves = self.dice.roll(40);
        let sent = if leaves == 0 { self.dice.place(text.len()) } else { text.len() };
        if let Err(error) = stream.write_all(&text[..sent]).await {
            return Err(format!("not taken: {error}"));
        }
        match leaves {
            0 | 1 => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return Ok("left".to_owned());
            }
            2 => return Ok("left".to_owned()),
            3 => {
                // At some time of the exchange, with or without some bytes of the answer.
                timeout(self.dice.millis(300), stream.read_buf(&mut buf)).await.ok();
                return Ok("left".to_owned());
            }
            _ => {}
        }
        let begun = Instant::now();
        let answer = read(&mut stream, &mut buf, method).await;
        let mut tally = self.tally.borrow_mut();
        tally.slowest = tally.slowest.max(begun.elapsed());
        drop(tally);
        let response = match answer {
            Ok(response) => response,
            Err(Fault::Cut(part)) if part.status != 0 => return Ok("cut".to_owned()),
            Err(fault) => return Err(format!("{fault:?} after {:?}", begun.elapsed())),
        };
        if response.field("Connection") != Some("close") {
            self.line = Some((stream, buf));
        }
        self.judge(method, target, &response)
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(self.addr).await.map_err(|it| it.to_string())?;
        stream.set_nodelay(true).unwrap();
        Ok(stream)
    }

    fn judge(&self, method: &str, target: &str, response: &Response) -> Result<String, String> {
        check_cache_status(response);
        if response.field("Content-Type") != Some("application/problem+json") {
            self.book.judge(method, target, response)?;
            return Ok(response.status.to_string());
        }
        if method == "HEAD" {
            let sound = matches!(response.status, 502..=504);
            return if sound {
                Ok("error to HEAD".to_owned())
            } else {
                Err(format!("{response:?}"))
            };
        }
        let code = response.problem();
        let known = [
            (502, "upstream_unreachable"),
            (502, "upstream_invalid"),
            (503, "upstream_busy"),
            (503, "upstream_paused"),
            (503, "circuit_open"),
            (504, "upstream_timeout"),
        ];
        let sound = known.contains(&(response.status, &code));
        if sound { Ok(code) } else { Err(format!("{response:?}")) }
    }
}

/// The next answer, or why there is none.
async fn read(stream: &mut TcpStream, buf: &mut Vec<u8>, method: &str) -> Result<Response, Fault> {
    while !is_whole(buf, method) {
        match timeout(PATIENCE, stream.read_buf(buf)).await {
            Err(_) => return Err(Fault::Late),
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {}
        }
    }
    Reader { from: &mut io::empty(), buf }.response(method)
}

/// Whether an answer has come to its end: a look that costs little, before it is read strictly.
fn is_whole(buf: &[u8], method: &str) -> bool {
    let mut rest = buf;
    loop {
        let Some(at) = rest.windows(4).position(|it| it == b"\r\n\r\n") else { return false };
        let (head, body) = rest.split_at(at + 4);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        if head.starts_with("http/1.1 1") {
            rest = body;
            continue;
        }
        let status = head.split(' ').nth(1);
        if method == "HEAD" || matches!(status, Some("204" | "304")) {
            return true;
        }
        let length = head.split("\r\ncontent-length: ").nth(1);
        return match length.and_then(|it| it.split('\r').next()?.parse::<usize>().ok()) {
            Some(length) => body.len() >= length,
            // No body has an empty line in it.
            None => body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n",
        };
    }
}

fn body(method: &str) -> &'static str {
    if method == "POST" { "{\"do\":true}" } else { "" }
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
/// Few, so that they are shared and renewed.
const KEYS: u64 = 12;
