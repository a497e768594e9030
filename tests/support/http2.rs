//! A client that speaks HTTP/2 as a good library does: many streams at the same time, flow control,
//! interim answers, trailers. Its event loop has a thread of its own; a test only waits.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::task::Poll;
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::message::{Fields, Response};
use super::structured::check_cache_status;
use super::tls::Made;

/// How the client is set up; `None` is the library's own.
#[derive(Clone, Copy, Default)]
pub struct Windows {
    /// What the daemon may send of one answer before it is taken.
    pub stream_bytes: Option<u32>,
    pub connection_bytes: Option<u32>,
}

/// One connection. Dropping it closes it.
pub struct Http2 {
    handle: Handle,
    send: SendRequest<Bytes>,
    ended: watch::Receiver<Option<Ended>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// After a GOAWAY without an error, or closed between frames.
    Clean,
    /// With this.
    Error(String),
}

impl Http2 {
    /// Without TLS, with prior knowledge (RFC 9113 section 3.3).
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::narrow(addr, Windows::default())
    }

    /// The same with windows of its own.
    #[track_caller]
    pub fn narrow(addr: SocketAddr, windows: Windows) -> Self {
        Self::start(windows, async move {
            let tcp = TcpStream::connect(addr).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            tcp
        })
    }

    /// Over TLS, by ALPN (RFC 9113 section 3.2), trusting this certificate and no other.
    #[track_caller]
    pub fn secure(addr: SocketAddr, trusted: &Made) -> Self {
        let tls = TlsConnector::from(trusted.client(&["h2", "http/1.1"]));
        Self::start(Windows::default(), async move {
            let tcp = TcpStream::connect(addr).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = tls.connect(name, tcp).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            stream
        })
    }

    #[track_caller]
    fn start<S>(windows: Windows, open: impl Future<Output = S> + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(stopped).ok();
        });
        let (ending, ended) = watch::channel(None);
        let send = wait(&handle, async move {
            let (send, connection) = windows.builder().handshake(open.await).await.unwrap();
            tokio::spawn(run(connection, ending));
            send
        });
        Self { handle, send, ended, stop: Some(stop), thread: Some(thread) }
    }

    /// A request and its answer.
    #[track_caller]
    pub fn ask(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        if body.is_empty() {
            return self.try_begin(method, target, fields, Body::None).expect("no stream").answer();
        }
        let mut stream = self.begin(method, target, fields);
        stream.send(body).end();
        stream.answer()
    }

    /// A GET and its answer.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.ask("GET", target, &[], b"")
    }

    /// A GET whose answer is awaited later.
    #[track_caller]
    pub fn begin_get(&self, target: &str) -> Stream {
        self.try_begin("GET", target, &[], Body::None).expect("no stream")
    }

    /// A request's head; its body is sent through what is returned.
    #[track_caller]
    pub fn begin(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Stream {
        self.try_begin(method, target, fields, Body::Follows).expect("no stream")
    }

    /// The same where the connection may be over.
    #[track_caller]
    pub fn try_begin(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: Body,
    ) -> Result<Stream, h2::Error> {
        let mut request = Request::builder().method(method);
        request = request.uri(format!("http://proxy.test{target}"));
        for (name, value) in fields {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        let request = request.body(()).unwrap();
        let send = self.send.clone();
        let (response, sending) = wait(&self.handle, async move {
            let mut send = send.ready().await?;
            send.send_request(request, body == Body::None)
        })?;
        Ok(Stream {
            handle: self.handle.clone(),
            response: Some(response),
            sending,
            receiving: None,
        })
    }

    /// Waits until the daemon has ended the connection; how.
    #[track_caller]
    pub fn await_end(&self) -> Ended {
        let mut ended = self.ended.clone();
        wait(&self.handle, async move {
            let ended = ended.wait_for(Option::is_some).await.unwrap();
            ended.clone().unwrap()
        })
    }

    /// Whether the connection is over.
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        drop(self.stop.take());
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(joined, Some(Ok(()))), "the client panicked");
        }
    }
}

/// Whether a body follows a head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    Follows,
}

impl Windows {
    fn builder(self) -> Builder {
        let mut builder = Builder::new();
        if let Some(bytes) = self.stream_bytes {
            builder.initial_window_size(bytes);
        }
        if let Some(bytes) = self.connection_bytes {
            builder.initial_connection_window_size(bytes);
        }
        builder
    }
}

async fn run<S>(connection: Connection<S, Bytes>, ending: watch::Sender<Option<Ended>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ended = match connection.await {
        Ok(()) => Ended::Clean,
        Err(error) => Ended::Error(error.to_string()),
    };
    ending.send_replace(Some(ended));
}

/// Waits for something on the client's event loop, not for ever.
#[track_caller]
fn wait<T>(handle: &Handle, future: impl Future<Output = T>) -> T {
    let waited = handle.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    waited.expect("nothing happened")
}

/// One request and its answer. Dropping it gives it up.
pub struct Stream {
    handle: Handle,
    /// Until the head of the answer is here.
    response: Option<ResponseFuture>,
    sending: SendStream<Bytes>,
    receiving: Option<RecvStream>,
}

impl Stream {
    /// Sends a part of the body as the daemon takes it.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.try_send(bytes).expect("the daemon gave the stream up");
        self
    }

    /// The same; `None` when the daemon gave the stream up.
    #[track_caller]
    pub fn try_send(&mut self, bytes: &[u8]) -> Option<()> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        wait(&self.handle, async {
            while !bytes.is_empty() {
                self.sending.reserve_capacity(bytes.len());
                let room = poll_fn(|cx| self.sending.poll_capacity(cx)).await?.ok()?;
                let part = bytes.split_to(room.min(bytes.len()));
                self.sending.send_data(part, false).ok()?;
            }
            Some(())
        })
    }

    /// Ends the body.
    pub fn end(&mut self) {
        // Where the daemon has given the stream up, the answer says why.
        self.sending.send_data(Bytes::new(), true).ok();
    }

    /// Ends the body with trailers.
    pub fn end_with(&mut self, name: &'static str, value: &'static str) {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, HeaderValue::from_static(value));
        self.sending.send_trailers(trailers).unwrap();
    }

    /// Ends the stream with an error.
    pub fn reset(mut self, reason: Reason) {
        self.sending.send_reset(reason);
    }

    /// The next interim answer; `None` when the answer itself came.
    #[track_caller]
    pub fn interim(&mut self) -> Option<(u16, Fields)> {
        let response = self.response.as_mut().expect("the answer is here");
        let interim = wait(&self.handle, poll_fn(|cx| response.poll_informational(cx)));
        interim.map(|it| it.unwrap()).map(|it| (it.status().as_u16(), fields(it.headers())))
    }

    /// The head of the answer, interim ones before it.
    #[track_caller]
    pub fn head(&mut self) -> Result<Response, h2::Error> {
        let mut response = self.response.take().expect("the answer is here");
        let (head, interim) = wait(&self.handle, async {
            let mut interim = Vec::new();
            let head = poll_fn(|cx| {
                while let Poll::Ready(Some(it)) = response.poll_informational(cx) {
                    let it = it?;
                    interim.push((it.status().as_u16(), fields(it.headers())));
                }
                std::pin::Pin::new(&mut response).poll(cx)
            });
            let head = head.await?;
            Ok::<_, h2::Error>((head, interim))
        })?;
        let (head, body) = head.into_parts();
        self.receiving = Some(body);
        let answer = Response {
            version: format!("{:?}", head.version),
            status: head.status.as_u16(),
            fields: fields(&head.headers),
            interim,
            ..Response::default()
        };
        for name in ["Connection", "Transfer-Encoding", "Keep-Alive", "Upgrade"] {
            assert_eq!(answer.field(name), None, "RFC 9113 section 8.2.2");
        }
        check_cache_status(&answer);
        Ok(answer)
    }

    /// The next piece of the body, which is taken; `None` at its end. Empty ones are none.
    #[track_caller]
    pub fn piece(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let receiving = self.receiving.as_mut().expect("no head");
        let piece = wait(&self.handle, async {
            loop {
                match receiving.data().await.transpose()? {
                    Some(piece) if piece.is_empty() => {}
                    piece => return Ok::<_, h2::Error>(piece),
                }
            }
        })?;
        if let Some(piece) = &piece {
            receiving.flow_control().release_capacity(piece.len()).unwrap();
        }
        Ok(piece)
    }

    /// The rest of the body and the trailers behind it.
    #[track_caller]
    pub fn rest(&mut self, answer: &mut Response) -> Result<(), h2::Error> {
        while let Some(piece) = self.piece()? {
            answer.body.extend_from_slice(&piece);
        }
        let receiving = self.receiving.as_mut().expect("no head");
        if let Some(trailers) = wait(&self.handle, receiving.trailers())? {
            answer.trailers = fields(&trailers);
        }
        Ok(())
    }

    /// All of the answer.
    #[track_caller]
    pub fn try_answer(&mut self) -> Result<Response, h2::Error> {
        let mut answer = self.head()?;
        self.rest(&mut answer)?;
        Ok(answer)
    }

    /// All of the answer, which there must be.
    #[track_caller]
    pub fn answer(&mut self) -> Response {
        self.try_answer().unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The code that the daemon ends the stream with, in whatever state it is.
    #[track_caller]
    pub fn await_reset(&mut self) -> Reason {
        wait(&self.handle, poll_fn(|cx| self.sending.poll_reset(cx))).unwrap()
    }
}

/// Fields as they came; what is not UTF-8 is replaced.
fn fields(headers: &HeaderMap) -> Fields {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Fields(headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect())
}
