//! An origin that speaks HTTP/2 over TLS as a good library does: many streams at the same time,
//! with flow control, interim answers, trailers, and a graceful end.
//!
//! One thread with an event loop of its own; each stream is played by a future that the test gives.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::server::{self, Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;

/// The origin. Dropping it ends its thread and with it every connection.
pub struct Multiplexing {
    addr: SocketAddr,
    shared: Arc<Shared>,
    orders: broadcast::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    GoAway,
    Abort,
    End,
}

/// How it is set up; `None` is the library's own.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    pub streams: Option<u32>,
    pub window_bytes: Option<u32>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    arrived: Condvar,
    accepted: AtomicUsize,
    resumed: AtomicUsize,
    open: AtomicUsize,
    streams: AtomicUsize,
    streams_most: AtomicUsize,
}

/// A request's head as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authority: String,
    pub fields: HeaderMap,
    /// The connection it came on, counted from 0.
    pub connection: usize,
}

impl Seen {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|it| it.to_str().unwrap())
    }
}

type Player = Rc<dyn Fn(Exchange) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Opened once, for futures; [`super::Gate`] is its like for threads.
#[derive(Clone)]
pub struct Latch(Arc<watch::Sender<bool>>);

impl Latch {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

impl Multiplexing {
    /// Plays every stream with `play`.
    pub fn start<F>(
        tls: Arc<ServerConfig>,
        limits: Limits,
        play: impl Fn(Exchange) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (orders, _) = broadcast::channel(16);
        let (ours, told) = (shared.clone(), orders.clone());
        let thread = std::thread::spawn(move || {
            let play: Player = Rc::new(move |exchange| Box::pin(play(exchange)));
            let serving = serve(listener, tls, limits, play, ours, told);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.unwrap(), serving);
        });
        Self { addr, shared, orders, thread: Some(thread) }
    }

    /// What to write into `entry_point`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.addr.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// How many connections have come.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many handshakes were shortened by an earlier session.
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// The most streams that were open at the same time.
    pub fn streams_most(&self) -> usize {
        self.shared.streams_most.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have come.
    #[track_caller]
    pub fn await_requests(&self, count: usize) {
        let seen = self.shared.seen.lock().unwrap();
        let waited = self.shared.arrived.wait_timeout_while(seen, PATIENCE, |it| it.len() < count);
        let seen = waited.unwrap().0.len();
        assert!(seen >= count, "{seen} of {count} requests came");
    }

    /// Tells on every connection that it takes no more streams; those that run may end.
    pub fn go_away(&self) {
        self.orders.send(Order::GoAway).ok();
    }

    /// Ends every connection with an error.
    pub fn abort(&self) {
        self.orders.send(Order::Abort).ok();
    }
}

impl Drop for Multiplexing {
    fn drop(&mut self) {
        self.orders.send(Order::End).ok();
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(joined, Some(Ok(()))), "the origin panicked");
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    play: Player,
    shared: Arc<Shared>,
    orders: broadcast::Sender<Order>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let acceptor = TlsAcceptor::from(tls);
    let mut told = orders.subscribe();
    loop {
        let tcp = match either(listener.accept(), told.recv()).await {
            Either::Left(Ok((tcp, _))) => tcp,
            Either::Right(Ok(Order::End) | Err(_)) => return,
            Either::Left(Err(_)) | Either::Right(Ok(_)) => continue,
        };
        tcp.set_nodelay(true).unwrap();
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let connection = Connection {
            number,
            limits,
            play: play.clone(),
            shared: shared.clone(),
            told: orders.subscribe(),
        };
        tokio::task::spawn_local(connection.run(acceptor.clone(), tcp));
    }
}

struct Connection {
    number: usize,
    limits: Limits,
    play: Player,
    shared: Arc<Shared>,
    told: broadcast::Receiver<Order>,
}

impl Connection {
    async fn run(mut self, acceptor: TlsAcceptor, tcp: TcpStream) {
        let Ok(tls) = acceptor.accept(tcp).await else { return };
        if tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.shared.resumed.fetch_add(1, Ordering::SeqCst);
        }
        let mut builder = Builder::new();
        if let Some(streams) = self.limits.streams {
            builder.max_concurrent_streams(streams);
        }
        if let Some(bytes) = self.limits.window_bytes {
            builder.initial_window_size(bytes);
        }
        let Ok(mut connection) = builder.handshake::<_, Bytes>(tls).await else { return };
        let _open = Counted::new(&self.shared, |it| &it.open);
        loop {
            match either(connection.accept(), self.told.recv()).await {
                Either::Left(Some(Ok((request, respond)))) => self.begin(request, respond),
                Either::Left(None | Some(Err(_))) => return,
                Either::Right(Ok(Order::GoAway)) => connection.graceful_shutdown(),
                Either::Right(Ok(Order::Abort)) => {
                    connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
                }
                Either::Right(Ok(Order::End) | Err(_)) => return,
            }
        }
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("", |it| it.as_str()).to_owned();
        let authority = head.uri.authority().map_or("", |it| it.as_str()).to_owned();
        let method = head.method.as_str().to_owned();
        let (fields, connection) = (head.headers, self.number);
        let seen = Seen { method, target, authority, fields, connection };
        let exchange = Exchange { seen: seen.clone(), body, respond };
        let counted = Counted::new(&self.shared, |it| &it.streams);
        let most = self.shared.streams.load(Ordering::SeqCst);
        self.shared.streams_most.fetch_max(most, Ordering::SeqCst);
        self.shared.seen.lock().unwrap().push(seen);
        self.shared.arrived.notify_all();
        let playing = (self.play)(exchange);
        tokio::task::spawn_local(async move {
            let _counted = counted;
            playing.await;
        });
    }
}

pub enum Either<A, B> {
    Left(A),
    Right(B),
}

/// Whichever comes first; the other is dropped.
pub async fn either<A, B>(
    left: impl Future<Output = A>,
    right: impl Future<Output = B>,
) -> Either<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|cx| {
        if let Poll::Ready(value) = left.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(value));
        }
        right.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

/// One of something for as long as it lives.
struct Counted(Arc<Shared>, fn(&Shared) -> &AtomicUsize);

impl Counted {
    fn new(shared: &Arc<Shared>, of: fn(&Shared) -> &AtomicUsize) -> Self {
        of(shared).fetch_add(1, Ordering::SeqCst);
        Self(shared.clone(), of)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

/// One request and its answer.
pub struct Exchange {
    pub seen: Seen,
    body: RecvStream,
    respond: server::SendResponse<Bytes>,
}

impl Exchange {
    /// The request's path and query.
    pub fn target(&self) -> &str {
        &self.seen.target
    }

    /// The next piece of the request's body; `None` at its end or when the daemon gave it up.
    pub async fn piece(&mut self) -> Option<Bytes> {
        let piece = self.body.data().await?.ok()?;
        self.body.flow_control().release_capacity(piece.len()).unwrap();
        Some(piece)
    }

    /// All of the request's body.
    pub async fn body(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await {
            whole.extend_from_slice(&piece);
        }
        whole
    }

    /// An interim answer.
    pub fn interim(&mut self, status: u16, fields: &[(&str, &str)]) {
        self.respond.send_informational(head(status, fields)).unwrap();
    }

    /// A whole answer.
    pub fn answer(mut self, status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) {
        let body = body.into();
        // The daemon may have given the stream up.
        let Ok(mut stream) = self.respond.send_response(head(status, fields), body.is_empty())
        else {
            return;
        };
        if !body.is_empty() {
            stream.send_data(body, true).ok();
        }
    }

    /// An answer's head; its body follows through what is returned.
    pub fn start(&mut self, status: u16, fields: &[(&str, &str)]) -> Option<Sending> {
        self.respond.send_response(head(status, fields), false).ok().map(Sending)
    }

    /// Ends the stream with an error.
    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Waits until the daemon gives the stream up.
    pub async fn given_up(&mut self) {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.ok();
    }
}

fn head(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, HeaderValue::from_str(value).unwrap());
    }
    response.body(()).unwrap()
}

/// A body on its way.
pub struct Sending(SendStream<Bytes>);

impl Sending {
    /// What is sent through this.
    pub fn of(stream: SendStream<Bytes>) -> Self {
        Self(stream)
    }

    /// Sends as much as the daemon has room for, waiting for some; how much, or `None` when it
    /// gave up.
    pub async fn some(&mut self, bytes: &Bytes) -> Option<usize> {
        self.0.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| self.0.poll_capacity(cx)).await?.ok()?;
        let part = bytes.slice(..room.min(bytes.len()));
        let sent = part.len();
        self.0.send_data(part, false).ok()?;
        Some(sent)
    }

    /// Sends all of it, as there is room; `None` when the daemon gave up.
    pub async fn all(&mut self, mut bytes: Bytes) -> Option<()> {
        while !bytes.is_empty() {
            let sent = self.some(&bytes).await?;
            bytes = bytes.slice(sent..);
        }
        Some(())
    }

    /// Ends the body.
    pub fn end(mut self) {
        self.0.send_data(Bytes::new(), true).ok();
    }

    /// Ends the body with trailers.
    pub fn end_with(mut self, name: &'static str, value: &'static str) {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, HeaderValue::from_static(value));
        self.0.send_trailers(trailers).ok();
    }

    /// Ends the stream with an error.
    pub fn reset(mut self, reason: Reason) {
        self.0.send_reset(reason);
    }

    /// Waits until the daemon gives the stream up.
    pub async fn given_up(&mut self) {
        poll_fn(|cx| self.0.poll_reset(cx)).await.ok();
    }
}
