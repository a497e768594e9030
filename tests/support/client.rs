//! A client on one connection: sends what the test says, reads strictly.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::message::{Reader, Response, Unreadable};
use super::structured::check_cache_status;

/// Why there is no answer.
pub type Fault = Unreadable;

/// One connection to the daemon. Every read has [`PATIENCE`] as its deadline.
pub struct Client {
    stream: TcpStream,
    /// Read and not yet taken: the start of a later answer.
    buf: Vec<u8>,
}

impl Client {
    /// Opens a connection.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}")))
    }

    /// Opens a connection on which hardly anything fits that is not read.
    #[track_caller]
    pub fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&addr.into()).unwrap_or_else(|error| panic!("{addr}: {error}"));
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buf: Vec::new() }
    }

    /// The socket itself, for another protocol to go on with.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.buf.is_empty());
        self.stream
    }

    /// Its address, as the daemon sees it.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Another deadline for reads.
    pub fn patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the daemon took no more bytes");
        self
    }

    /// Sends texts one after the other, each in a write of its own.
    #[track_caller]
    pub fn send_all(&mut self, texts: &[&str]) {
        for text in texts {
            self.send(text);
        }
    }

    /// Sends bytes as they are, where a refusal is to be expected.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a part of the bytes, as much as one write takes; `None` when there was no room for
    /// `patience`.
    #[track_caller]
    pub fn try_send_part(&mut self, bytes: &[u8], patience: Duration) -> Option<usize> {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let sent = self.stream.write(bytes);
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        match sent {
            Ok(sent) => Some(sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("the daemon took no more bytes: {error}"),
        }
    }

    /// Sends a request with Host, the given fields and, for a body, its length.
    #[track_caller]
    pub fn send_request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) {
        self.send(request(method, target, fields, body));
    }

    /// A request and its answer; the connection stays open.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        self.send_request(method, target, fields, "");
        self.read(method)
    }

    /// A GET and its answer; the connection stays open.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.ask("GET", target, &[])
    }

    /// A request of JSON and its answer; the connection stays open.
    #[track_caller]
    pub fn post(&mut self, target: &str, body: &str) -> Response {
        self.send_request("POST", target, &[("Content-Type", "application/json")], body);
        self.read("POST")
    }

    /// The next answer, which must be whole and well-formed.
    #[track_caller]
    pub fn read(&mut self, method: &str) -> Response {
        self.try_read(method).unwrap_or_else(|fault| panic!("no answer to {method}: {fault:?}"))
    }

    /// The next answer, or why there is none. What it says of the cache must be well-formed.
    #[track_caller]
    pub fn try_read(&mut self, method: &str) -> Result<Response, Fault> {
        let answer = Reader { from: &mut self.stream, buf: &mut self.buf }.response(method)?;
        check_cache_status(&answer);
        Ok(answer)
    }

    /// Whether nothing has come yet that was not taken.
    pub fn is_silent(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.buf.is_empty() && peeked.is_err_and(|it| it.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads until at least `bytes` are here, whatever they are, and leaves them here.
    #[track_caller]
    pub fn await_bytes(&mut self, bytes: usize) -> &[u8] {
        let mut part = [0; 4096];
        while self.buf.len() < bytes {
            let more = self.stream.read(&mut part).expect("nothing came");
            assert!(more > 0, "closed after {:?}", String::from_utf8_lossy(&self.buf));
            self.buf.extend_from_slice(&part[..more]);
        }
        &self.buf
    }

    /// Reads until text has come, and leaves everything here.
    #[track_caller]
    pub fn await_text(&mut self, text: &str) -> &[u8] {
        let mut bytes = text.len();
        while !self.await_bytes(bytes).windows(text.len()).any(|it| it == text.as_bytes()) {
            bytes = self.buf.len() + 1;
        }
        &self.buf
    }

    /// Takes exactly `bytes` of what comes; `None` when the daemon closed before.
    #[track_caller]
    pub fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let mut part = [0; 16 * 1024];
        while self.buf.len() < bytes {
            match self.stream.read(&mut part) {
                Ok(0) => return None,
                Ok(more) => self.buf.extend_from_slice(&part[..more]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("nothing came"),
                Err(_) => return None,
            }
        }
        Some(self.buf.drain(..bytes).collect())
    }

    /// Everything up to the close; a reset ends it too.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut part = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return std::mem::take(&mut self.buf),
                Ok(more) => self.buf.extend_from_slice(&part[..more]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("not closed after {:?}", String::from_utf8_lossy(&self.buf))
                }
                Err(_) => return std::mem::take(&mut self.buf),
            }
        }
    }

    /// Asserts that the daemon closes and sends nothing more.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "before the close: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Ends the sending side only.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Closes with a reset.
    pub fn reset(self) {
        super::origin::reset(self.stream);
    }
}

/// A request's bytes: Host, the given fields and, for a body, its length.
pub fn request(method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: proxy.test\r\n");
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}
