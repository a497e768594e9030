//! An origin that fails in every way an origin can, by dice, and keeps a book of what it was asked
//! and what it said. Over plain HTTP/1.1, over TLS, and with HTTP/2.
//!
//! One thread with an event loop of its own, so that a connection that drips for seconds costs
//! nothing. What goes wrong before a request stands here, what goes wrong with an answer in
//! `http1` and `http2`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::dice::Dice;
use super::multiplex::{Either, either};

pub mod book;
mod http1;
mod http2;

pub use book::{Book, Right};

/// What an origin speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/1.1, without TLS unless there is a certificate.
    Http1,
    /// HTTP/2 over TLS.
    Http2,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    /// Nothing.
    Calm,
    /// One exchange in ten.
    Usual,
    /// One in two.
    Storm,
    /// Everything: no connection lives, none that comes is served.
    Down,
}

/// The origin. Dropping it ends its thread and with it every connection.
pub struct Faulty {
    addr: SocketAddr,
    scheme: &'static str,
    mood: Arc<AtomicU8>,
    ending: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Faulty {
    /// Starts to misbehave.
    pub fn start(
        speech: Speech,
        tls: Option<Arc<ServerConfig>>,
        book: Arc<Book>,
        dice: Dice,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mood = Arc::new(AtomicU8::new(Mood::Usual as u8));
        let (ending, ended) = watch::channel(false);
        let moods = Moods(mood.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let acceptor = tls.map(TlsAcceptor::from);
            let player = Player { speech, book, moods, dice };
            let serving = player.serve(listener, acceptor, ended);
            LocalSet::new().block_on(&runtime.unwrap(), serving);
        });
        Self { addr, scheme, mood, ending, thread: Some(thread) }
    }

    /// What to write into `entry_point`.
    pub fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.addr.port())
    }

    /// From now on nothing goes wrong any more.
    pub fn calm(&self) {
        self.mood.store(Mood::Calm as u8, Ordering::SeqCst);
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.ending.send_replace(true);
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(joined, Some(Ok(()))), "the origin panicked");
        }
    }
}

#[derive(Clone)]
struct Moods(Arc<AtomicU8>);

impl Moods {
    fn now(&self) -> Mood {
        let moods = [Mood::Calm, Mood::Usual, Mood::Storm, Mood::Down];
        moods[usize::from(self.0.load(Ordering::SeqCst))]
    }

    /// Whether something goes wrong now that does so `times` in a thousand usually.
    fn strikes(&self, times: u64, dice: &mut Dice) -> bool {
        match self.now() {
            Mood::Calm => false,
            Mood::Usual => dice.happens(times),
            Mood::Storm => dice.happens(times * 5),
            Mood::Down => true,
        }
    }

    /// Goes through the moods for ever, until it is told to be calm.
    async fn swing(self, mut dice: Dice) {
        loop {
            let (next, least, spread) = match dice.roll(6) {
                0 => (Mood::Down, 100, 1_200),
                1 | 2 => (Mood::Storm, 300, 700),
                _ => (Mood::Usual, 500, 2_500),
            };
            // Calm is for good.
            let order = Ordering::SeqCst;
            let swung = self
                .0
                .fetch_update(order, order, |it| (it != Mood::Calm as u8).then_some(next as u8));
            if swung.is_err() {
                return;
            }
            sleep(Duration::from_millis(least) + dice.millis(spread)).await;
        }
    }
}

/// Plays connections.
#[derive(Clone)]
struct Player {
    speech: Speech,
    book: Arc<Book>,
    moods: Moods,
    dice: Dice,
}

impl Player {
    async fn serve(
        mut self,
        listener: std::net::TcpListener,
        acceptor: Option<TlsAcceptor>,
        mut ended: watch::Receiver<bool>,
    ) {
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::task::spawn_local(self.moods.clone().swing(self.dice.split()));
        loop {
            let tcp = match either(listener.accept(), ended.changed()).await {
                Either::Left(Ok((tcp, _))) => tcp,
                Either::Left(Err(_)) => continue,
                Either::Right(_) => return,
            };
            tcp.set_nodelay(true).unwrap();
            let dice = self.dice.split();
            let player = Self { dice, ..self.clone() };
            tokio::task::spawn_local(player.play(tcp, acceptor.clone()));
        }
    }

    async fn play(mut self, mut tcp: TcpStream, acceptor: Option<TlsAcceptor>) {
        if self.moods.strikes(30, &mut self.dice) {
            return self.spoil(&mut tcp).await;
        }
        let Some(acceptor) = acceptor else { return http1::play(self, tcp).await };
        let Ok(tls) = acceptor.accept(tcp).await else { return };
        match self.speech {
            Speech::Http1 => http1::play(self, tls).await,
            Speech::Http2 => http2::play(self, tls).await,
        }
    }

    /// Ends a connection that was only just accepted.
    async fn spoil(&mut self, tcp: &mut TcpStream) {
        match self.dice.roll(5) {
            0 => {}
            1 => tcp.reset_on_close(),
            2 => sleep(self.dice.millis(500)).await,
            3 => {
                sleep(self.dice.millis(500)).await;
                tcp.reset_on_close();
            }
            _ => {
                tcp.write_all(&self.garbage()).await.ok();
            }
        }
    }

    /// Bytes that mean nothing.
    fn garbage(&mut self) -> Vec<u8> {
        (0..=self.dice.roll(300)).map(|_| u8::try_from(self.dice.roll(256)).unwrap()).collect()
    }
}

/// A connection that can be reset, inside TLS or not.
trait Resets: AsyncRead + AsyncWrite + Unpin {
    /// When it is dropped, it is reset.
    fn reset_on_close(&self);
}

impl Resets for TcpStream {
    fn reset_on_close(&self) {
        socket2::SockRef::from(self).set_linger(Some(Duration::ZERO)).ok();
    }
}

impl Resets for TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

/// At most for `span`.
async fn within<T>(span: Duration, what: impl Future<Output = T>) -> io::Result<T> {
    tokio::time::timeout(span, what).await.map_err(|_| io::ErrorKind::TimedOut.into())
}
