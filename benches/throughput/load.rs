//! The load generator: connections that each keep a number of requests in flight.
//!
//! One thread, one monoio runtime. The size of an answer is learnt from its head once and then
//! only checked, so that the client stays cheaper than the server; an answer whose head differs
//! (another digit in `Age`) is parsed again.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use apiproxyd::net::runtime::{Driver, ENTRIES_DEFAULT, Runtime};
use memchr::memmem;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use crate::report::Histogram;

/// One run.
pub struct Load {
    pub addr: SocketAddr,
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// Expected of every answer.
    pub body_bytes: usize,
    /// Ends after this time ...
    pub span: Duration,
    /// ... or when this many requests have been sent.
    pub requests_max: u64,
    /// Number of the first request.
    pub first: u64,
    pub driver: Driver,
}

/// What a run saw.
#[derive(Default)]
pub struct Outcome {
    pub requests: u64,
    pub elapsed: Duration,
    pub latency: Histogram,
    /// Over all bodies, whatever their order.
    pub checksum: u64,
}

/// Appends the bytes of a request, from its number.
type Request = dyn Fn(u64, &mut Vec<u8>);

struct Progress {
    next: u64,
    end: u64,
    deadline: Instant,
    outcome: Outcome,
}

impl Load {
    /// Runs it; `request` appends the bytes of a request, from its number.
    pub fn run(&self, request: impl Fn(u64, &mut Vec<u8>) + 'static) -> Outcome {
        let mut runtime = Runtime::build(self.driver, ENTRIES_DEFAULT).unwrap();
        runtime.block_on(async {
            let streams = self.connect().await;
            let start = Instant::now();
            let progress = Rc::new(RefCell::new(Progress {
                next: self.first,
                end: self.first.saturating_add(self.requests_max),
                deadline: start + self.span,
                outcome: Outcome::default(),
            }));
            let request: Rc<Request> = Rc::new(request);
            let connections = streams.into_iter().map(|stream| Connection {
                stream,
                depth: self.depth,
                reader: Reader::new(self.body_bytes),
                progress: Rc::clone(&progress),
                request: Rc::clone(&request),
            });
            let tasks: Vec<_> = connections.map(|it| monoio::spawn(it.run())).collect();
            for task in tasks {
                task.await;
            }
            let mut outcome = std::mem::take(&mut progress.borrow_mut().outcome);
            outcome.elapsed = start.elapsed();
            outcome
        })
    }

    async fn connect(&self) -> Vec<TcpStream> {
        let mut streams = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let stream = TcpStream::connect_addr(self.addr).await.expect("connection refused");
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        streams
    }
}

struct Connection {
    stream: TcpStream,
    depth: usize,
    reader: Reader,
    progress: Rc<RefCell<Progress>>,
    request: Rc<Request>,
}

impl Connection {
    async fn run(mut self) {
        let mut output = Vec::new();
        loop {
            let sent = Instant::now();
            let batch = self.progress.borrow_mut().batch(self.depth, sent);
            if batch.is_empty() {
                return;
            }
            output.clear();
            for number in batch.clone() {
                (self.request)(number, &mut output);
            }
            let (written, full) = self.stream.write_all(output).await;
            written.expect("the server takes no more");
            output = full;
            let mut left = batch.end - batch.start;
            loop {
                let before = left;
                let mut sum = 0_u64;
                while let Some(part) = self.reader.next(left) {
                    (left, sum) = (left - 1, sum.wrapping_add(part));
                }
                if left < before {
                    let took = sent.elapsed();
                    self.progress.borrow_mut().count(before - left, took, sum);
                }
                if left == 0 {
                    break;
                }
                self.reader.fill(&mut self.stream).await;
            }
        }
    }
}

impl Progress {
    /// The next requests' numbers; empty when it is over.
    fn batch(&mut self, depth: usize, now: Instant) -> std::ops::Range<u64> {
        let start = self.next;
        if now < self.deadline {
            self.next = self.end.min(start.saturating_add(depth as u64));
        }
        start..self.next
    }

    fn count(&mut self, answers: u64, took: Duration, sum: u64) {
        self.outcome.requests += answers;
        self.outcome.latency.add(took, answers);
        self.outcome.checksum = self.outcome.checksum.wrapping_add(sum);
    }
}

/// Cuts what arrives into answers.
struct Reader {
    buf: Vec<u8>,
    /// Bytes of `buf` that are used up.
    start: usize,
    body_bytes: usize,
    /// Of the last answer.
    head_bytes: usize,
}

impl Reader {
    fn new(body_bytes: usize) -> Self {
        let buf = Vec::with_capacity((4 * body_bytes).max(64 * 1024));
        Self { buf, start: 0, body_bytes, head_bytes: 0 }
    }

    /// A number from the next answer's body, if all of it is here and one is awaited.
    fn next(&mut self, awaited: u64) -> Option<u64> {
        let rest = &self.buf[self.start..];
        if awaited == 0 || rest.is_empty() {
            return None;
        }
        let as_before = |bytes: usize| {
            bytes > 0
                && rest.get(bytes - 4..bytes + 8).is_some_and(|it| it == b"\r\n\r\n{\"pad\":\"")
        };
        if !as_before(self.head_bytes) {
            self.head_bytes = memmem::find(rest, b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&rest[..self.head_bytes]);
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let length = format!("\r\ncontent-length: {}\r\n", self.body_bytes);
            assert!(head.to_ascii_lowercase().contains(&length), "{head}");
        }
        let body = rest.get(self.head_bytes..self.head_bytes + self.body_bytes)?;
        let sum = body.len() as u64 + u64::from(body[body.len() / 2]);
        self.start += self.head_bytes + self.body_bytes;
        Some(sum)
    }

    async fn fill(&mut self, stream: &mut TcpStream) {
        let mut buf = std::mem::take(&mut self.buf);
        buf.drain(..std::mem::take(&mut self.start));
        let filled = buf.len();
        buf.reserve(16 * 1024);
        let (read, room) = stream.read(buf.slice_mut(filled..)).await;
        self.buf = room.into_inner();
        assert!(matches!(read, Ok(1..)), "the server closed: {read:?}");
    }
}

/// The bytes of a GET.
pub fn request(addr: SocketAddr, target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: throughput/1\r\nAccept: */*\r\n\r\n"
    )
    .into_bytes()
}

/// One request on a connection of its own: the whole answer.
pub fn once(addr: SocketAddr, target: &str) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&request(addr, target)).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(head) = memmem::find(&answer, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            let length = text.split_once("\r\ncontent-length: ").expect("no length").1;
            let length: usize = length.split('\r').next().unwrap().parse().unwrap();
            if answer.len() >= head + 4 + length {
                return answer;
            }
        }
        let bytes = stream.read(&mut part).unwrap();
        assert!(bytes > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..bytes]);
    }
}
