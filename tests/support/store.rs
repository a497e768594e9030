//! What the tests of the store share: an executor for one client, rows, and waiting.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use apiproxyd::base::Wall;
use apiproxyd::store::{Client, Digest, GetOutcome, Row, StoreHandle};

/// Long enough for any machine, short enough to notice a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.send(()).ok();
    }
}

/// Runs a future and its client's drain in this thread; panics when it makes no progress.
pub fn block_on<T>(client: &Client, future: impl Future<Output = T>) -> T {
    let (bell, woken): (_, Receiver<()>) = channel();
    let waker = Waker::from(Arc::new(Bell(bell)));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut drain = pin!(client.drain());
    loop {
        assert!(drain.as_mut().poll(&mut cx).is_pending());
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        woken.recv_timeout(PATIENCE).expect("nobody wakes the client");
    }
}

/// A store and one client, for tests that use one thread.
pub struct Desk {
    pub handle: StoreHandle,
    pub client: Client,
}

impl Desk {
    pub fn new(handle: StoreHandle) -> Self {
        Self { client: handle.client(), handle }
    }

    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        block_on(&self.client, future)
    }

    pub fn get(&self, digest: Digest) -> GetOutcome {
        self.wait(self.client.get(digest))
    }

    pub fn find(&self, name: u32) -> Option<Row> {
        match self.get(digest(name)) {
            GetOutcome::Hit(row) => Some(row),
            GetOutcome::Miss => None,
            GetOutcome::Unavailable(reason) => panic!("unavailable: {}", reason.as_str()),
        }
    }

    pub fn put(&self, row: Row) {
        self.client.put(row, self.client.epoch()).unwrap();
    }

    pub fn flush(&self) {
        self.wait(self.client.flush()).unwrap();
    }

    /// Ends the store in good order.
    pub fn end(self) {
        assert_eq!(self.handle.shutdown(PATIENCE), apiproxyd::store::Shutdown::Flushed);
    }
}

pub fn digest(name: u32) -> Digest {
    let mut digest = [0; 16];
    digest[..4].copy_from_slice(&name.to_be_bytes());
    digest
}

/// A row that tells from its body whether it is whole.
pub fn row(name: u32, path: &str) -> Row {
    sized_row(name, path, 100)
}

pub fn sized_row(name: u32, path: &str, body_bytes: usize) -> Row {
    let body: Vec<u8> = (0..body_bytes).map(|it| (it as u32 ^ name) as u8).collect();
    Row {
        digest: digest(name),
        path: path.into(),
        meta: name.to_be_bytes().to_vec().into(),
        body: body.into(),
        stored_at: Wall::from_millis(1_700_000_000_000),
        keep_until: Wall::FOREVER,
        expired_at: None,
    }
}

/// Waits for a condition that another thread or process brings about.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let pause = Duration::from_millis(5);
    let mut tries = PATIENCE.as_millis() / pause.as_millis();
    while !condition() {
        assert!(tries > 0, "never came true: {what}");
        tries -= 1;
        std::thread::sleep(pause);
    }
}
