//! An origin server of plain threads. A script plays one connection, byte by byte, plain or inside
//! TLS; it may answer, stall at a [`Gate`](super::Gate), stop in the middle, close or reset.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;
use super::message::{Reader, Request};

/// An origin on a port of its own. Dropping it closes every connection and joins its threads;
/// a script that panicked fails the test there.
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

type Script = dyn Fn(&mut Connection) + Send + Sync;

#[derive(Default)]
struct Shared {
    tls: Option<Arc<ServerConfig>>,
    requests: Mutex<Vec<Request>>,
    arrived: Condvar,
    accepted: AtomicUsize,
    open: AtomicUsize,
    ending: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    panics: Mutex<Vec<String>>,
}

impl Origin {
    /// Answers every request with what `reply` makes of it; keeps connections open.
    pub fn respond(reply: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::script(move |connection| {
            while let Some(request) = connection.request() {
                if !connection.send(reply(&request)) {
                    return;
                }
            }
        })
    }

    /// Answers every request with the same bytes.
    pub fn fixed(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Self::respond(move |_| reply.clone())
    }

    /// Answers that differ each time (`answer 0`, `answer 1`, ...) and say how they may be kept.
    pub fn counting(cache_control: &'static str) -> Self {
        let turn = AtomicUsize::new(0);
        Self::respond(move |_| {
            let body = format!("answer {}", turn.fetch_add(1, Ordering::SeqCst));
            answer(200, &[("Cache-Control", cache_control)], body)
        })
    }

    /// Says with its answer's fields what a request's `Say` field holds, `;;` between them, and
    /// with a body that counts its requests (`answer 0`, ...). `Say-Status` sets the status. A
    /// condition that `Say` matches by its ETag gets a 304.
    pub fn obedient() -> Self {
        let turn = AtomicUsize::new(0);
        Self::respond(move |asked| {
            let body = format!("answer {}", turn.fetch_add(1, Ordering::SeqCst));
            let said = asked.field("Say").unwrap_or_default().to_owned();
            let fields: Vec<(&str, &str)> =
                said.split(";;").filter_map(|it| it.split_once(": ")).collect();
            let tag = fields.iter().find(|it| it.0 == "ETag").map(|it| it.1);
            let status = match asked.field("Say-Status") {
                Some(status) => status.parse().unwrap(),
                None if tag.is_some() && asked.field("If-None-Match") == tag => 304,
                None => 200,
            };
            answer(status, &fields, if status == 304 { "" } else { &body })
        })
    }

    /// Plays `script` on every connection, each on a thread of its own.
    pub fn script(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        Self::script_at(([127, 0, 0, 1], 0).into(), script)
    }

    /// The same at an address of this machine.
    pub fn script_at(
        addr: SocketAddr,
        script: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::listen(addr, None, Arc::new(script))
    }

    /// The same inside TLS.
    pub fn secure(
        tls: Arc<ServerConfig>,
        script: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::secure_at(0, tls, script)
    }

    /// The same on a port that another origin has left.
    pub fn secure_at(
        port: u16,
        tls: Arc<ServerConfig>,
        script: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::listen(([127, 0, 0, 1], port).into(), Some(tls), Arc::new(script))
    }

    fn listen(addr: SocketAddr, tls: Option<Arc<ServerConfig>>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { tls, ..Shared::default() });
        let ours = shared.clone();
        let acceptor = std::thread::spawn(move || accept(&listener, &script, &ours));
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to write into `entry_point`: the address, or `localhost` where there is a certificate.
    pub fn url(&self) -> String {
        match self.shared.tls {
            None => format!("http://{}", self.addr),
            Some(_) => format!("https://localhost:{}", self.addr.port()),
        }
    }

    /// All requests so far, in the order they were complete.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// The last request; panics when there was none.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("the origin saw no request")
    }

    /// How many connections have come.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open, as far as their scripts have noticed.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have come.
    #[track_caller]
    pub fn await_requests(&self, count: usize) {
        let requests = self.shared.requests.lock().unwrap();
        let waited =
            self.shared.arrived.wait_timeout_while(requests, PATIENCE, |it| it.len() < count);
        let seen = waited.unwrap().0.len();
        assert!(seen >= count, "{seen} of {count} requests came");
    }

    /// Closes all its connections; new ones are accepted.
    pub fn disconnect(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.disconnect();
        TcpStream::connect(self.addr).ok();
        let joined = self.acceptor.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(joined, Some(Ok(()))), "the origin's acceptor panicked");
            let panics = self.shared.panics.lock().unwrap();
            assert!(panics.is_empty(), "the origin's script: {}", panics.join("; "));
        }
    }
}

fn accept(listener: &TcpListener, script: &Arc<Script>, shared: &Arc<Shared>) {
    let mut players = Vec::new();
    for stream in listener.incoming() {
        if shared.ending.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        stream.set_nodelay(true).unwrap();
        shared.streams.lock().unwrap().push(stream.try_clone().unwrap());
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let (script, shared) = (script.clone(), shared.clone());
        players.push(std::thread::spawn(move || {
            let stream = Some(Wire::of(stream, shared.tls.clone()));
            let mut connection =
                Connection { number, stream, buf: Vec::new(), shared: shared.clone() };
            let played = catch_unwind(AssertUnwindSafe(|| script(&mut connection)));
            connection.close();
            shared.open.fetch_sub(1, Ordering::SeqCst);
            if let Err(panic) = played {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.unwrap_or_else(|| "panicked".to_owned());
                shared.panics.lock().unwrap().push(text);
            }
        }));
    }
    // Connections that came in while it was ending are closed too.
    for stream in shared.streams.lock().unwrap().drain(..) {
        stream.shutdown(Shutdown::Both).ok();
    }
    for player in players {
        player.join().ok();
    }
}

/// One connection as its script sees it.
pub struct Connection {
    /// Counted from 0.
    pub number: usize,
    /// `None` once closed.
    stream: Option<Wire>,
    buf: Vec<u8>,
    shared: Arc<Shared>,
}

impl Connection {
    /// The next request, recorded; `None` when the daemon closed instead, in whatever way.
    pub fn request(&mut self) -> Option<Request> {
        let stream = self.stream.as_mut()?;
        let mut request = Reader { from: stream, buf: &mut self.buf }.request().ok().flatten()?;
        request.connection = self.number;
        self.shared.requests.lock().unwrap().push(request.clone());
        self.shared.arrived.notify_all();
        Some(request)
    }

    /// Reads a request's head and leaves its body, for a script that reads that by itself or never;
    /// not recorded. `None` when the daemon closed instead.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buf.windows(4).position(|it| it == b"\r\n\r\n") {
                let head = self.buf.drain(..at + 4).collect();
                return Some(String::from_utf8(head).expect("a head of ASCII"));
            }
            self.more()?;
        }
    }

    /// Takes exactly `bytes` of what comes; `None` when the daemon closed before.
    pub fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.buf.len() < bytes {
            self.more()?;
        }
        Some(self.buf.drain(..bytes).collect())
    }

    fn more(&mut self) -> Option<()> {
        let mut part = [0; 64 * 1024];
        let bytes = self.stream.as_mut()?.read(&mut part).ok().filter(|it| *it > 0)?;
        self.buf.extend_from_slice(&part[..bytes]);
        Some(())
    }

    /// Sends bytes; false when the daemon no longer takes any.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent =
            |stream: &mut Wire| stream.write_all(bytes.as_ref()).and_then(|()| stream.flush());
        self.stream.as_mut().is_some_and(|stream| sent(stream).is_ok())
    }

    /// Waits until the daemon closes its side, reading nothing meaningful.
    #[track_caller]
    pub fn await_close(&mut self) {
        let Some(stream) = self.stream.as_mut() else { return };
        stream.tcp().set_read_timeout(Some(PATIENCE)).unwrap();
        let mut part = [0; 1024];
        loop {
            match stream.read(&mut part) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the daemon did not close")
                }
                Err(_) => return,
            }
        }
    }

    /// Waits until the daemon hangs up, without taking what it has sent before.
    pub fn await_hang_up(&mut self) {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let Some(stream) = self.stream.as_ref() else { return };
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        epoll.add(stream.tcp(), EpollEvent::new(EpollFlags::EPOLLRDHUP, 0)).unwrap();
        let patience = u16::try_from(PATIENCE.as_millis()).unwrap();
        epoll.wait(&mut [EpollEvent::empty()], patience).unwrap();
    }

    /// Reads and says nothing, not even a handshake, until the daemon closes.
    #[track_caller]
    pub fn sleep_until_closed(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.stream = Some(Wire::Plain(stream.into_tcp()));
        }
        self.await_close();
    }

    /// Closes in order: what was sent arrives.
    pub fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.say_goodbye();
            stream.tcp().shutdown(Shutdown::Both).ok();
        }
    }

    /// Closes the socket without the end of TLS.
    pub fn cut(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.tcp().shutdown(Shutdown::Both).ok();
        }
    }

    /// Brings the handshake to its end; `false` when the daemon does not.
    pub fn shake_hands(&mut self) -> bool {
        let Some(Wire::Secure(tls)) = &mut self.stream else { return false };
        while tls.conn.is_handshaking() {
            if tls.conn.complete_io(&mut tls.sock).is_err() {
                return false;
            }
        }
        true
    }

    /// The name that the daemon asked for (SNI), after the handshake.
    pub fn server_name(&self) -> Option<String> {
        self.tls()?.server_name().map(str::to_owned)
    }

    /// The protocol agreed on (ALPN), after the handshake.
    pub fn protocol(&self) -> Option<String> {
        self.tls()?.alpn_protocol().map(|it| String::from_utf8_lossy(it).into_owned())
    }

    /// Whether the handshake was shortened by an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.tls().is_some_and(|it| it.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    fn tls(&self) -> Option<&ServerConnection> {
        match &self.stream {
            Some(Wire::Secure(tls)) => Some(&tls.conn),
            Some(Wire::Plain(_)) | None => None,
        }
    }

    /// Closes with a reset.
    pub fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            let stream = stream.into_tcp();
            // The clone kept for `disconnect` would keep the socket open.
            let peer = stream.peer_addr().ok();
            self.shared.streams.lock().unwrap().retain(|it| it.peer_addr().ok() != peer);
            reset(stream);
        }
    }
}

/// What a connection's bytes go through.
enum Wire {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn of(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(tls) => {
                let connection = ServerConnection::new(tls).unwrap();
                Self::Secure(Box::new(StreamOwned::new(connection, stream)))
            }
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(tls) => &tls.sock,
        }
    }

    fn into_tcp(self) -> TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(tls) => tls.sock,
        }
    }

    fn say_goodbye(&mut self) {
        if let Self::Secure(tls) = self {
            tls.conn.send_close_notify();
            tls.flush().ok();
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Secure(tls) => tls.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(tls) => tls.flush(),
        }
    }
}

/// Closes a connection with a reset.
pub fn reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// A response's bytes: Date and Content-Length, the given fields, a body.
pub fn answer(status: u16, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        text.push_str(&format!("Date: {date}\r\n"));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !matches!(status, 204 | 304) {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
