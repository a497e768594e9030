//! The origin: `/keep/BYTES/...` may be kept for a day, `/pass/BYTES/...` not at all.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::SystemTime;

use apiproxyd::net::runtime::{Driver, ENTRIES_DEFAULT, Runtime};
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

/// Runs on a thread of its own until the process ends.
pub struct Origin {
    addr: SocketAddr,
}

impl Origin {
    /// Starts it on the CPUs of the caller.
    pub fn start(driver: Driver) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut runtime = Runtime::build(driver, ENTRIES_DEFAULT).unwrap();
            runtime.block_on(accept(listener));
        });
        Self { addr }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn accept(listener: TcpListener) {
    let listener = monoio::net::TcpListener::from_std(listener).unwrap();
    let answers = Rc::new(Answers::default());
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        drop(monoio::spawn(connection(stream, Rc::clone(&answers))));
    }
}

async fn connection(mut stream: TcpStream, answers: Rc<Answers>) {
    let mut input = Vec::with_capacity(16 * 1024);
    loop {
        let start = input.len();
        let (read, room) = stream.read(input.slice_mut(start..)).await;
        input = room.into_inner();
        if !matches!(read, Ok(1..)) {
            return;
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(used)) = request.parse(&input) else { continue };
        let answer = answers.to(request.path.unwrap_or_default());
        input.drain(..used);
        if stream.write_all(answer).await.0.is_err() {
            return;
        }
    }
}

/// Canned answers by their first two path segments.
#[derive(Default)]
struct Answers(std::cell::RefCell<HashMap<String, bytes::Bytes>>);

impl Answers {
    fn to(&self, path: &str) -> bytes::Bytes {
        let mut segments = path.split('/').skip(1);
        let (kind, bytes) = (segments.next().unwrap_or(""), segments.next().unwrap_or(""));
        let mut answers = self.0.borrow_mut();
        let key = &path[..path.len().min(kind.len() + bytes.len() + 2)];
        if let Some(answer) = answers.get(key) {
            return answer.clone();
        }
        let made = answer(kind, bytes.parse().unwrap_or(0));
        answers.insert(key.to_owned(), made.clone());
        made
    }
}

fn answer(kind: &str, bytes: usize) -> bytes::Bytes {
    let lifetime = if kind == "keep" { "max-age=86400" } else { "no-store" };
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut text = format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\n\
         Cache-Control: {lifetime}\r\nETag: \"{bytes}\"\r\nContent-Length: {bytes}\r\n\r\n"
    );
    let (open, close) = ("{\"pad\":\"", "\"}");
    text.push_str(open);
    text.extend((open.len() + close.len()..bytes).map(|it| char::from(b'a' + (it % 26) as u8)));
    text.push_str(close);
    text.into()
}
