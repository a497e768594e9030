//! One thread for each core: its runtime, its state, its end.

use std::process;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::Driver as Wanted;
use crate::logs::Access;
use crate::net::runtime::{self, Driver, Runtime};
use crate::net::ticks;
use crate::proxy::Core;
use crate::server::accept::{self, Seats};
use crate::server::janitor;
use crate::server::start::{StartError, Started};
use crate::server::watch::{Spans, Watch};

/// The running cores.
pub struct Cores {
    threads: Vec<JoinHandle<()>>,
    orders: Vec<Arc<Orders>>,
    driver: &'static str,
}

/// What the main thread tells a core.
#[derive(Default)]
pub struct Orders {
    draining: AtomicBool,
    /// Milliseconds the drain may take.
    span: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Cores {
    /// Starts them all and waits until each accepts.
    pub fn start(started: &Started) -> Result<Self, StartError> {
        let (sender, receiver) = mpsc::channel();
        let seats = Arc::new(Seats::new(started.shared.plan.settings.server.max_connections));
        let mut cores = Self { threads: Vec::new(), orders: Vec::new(), driver: "" };
        for (index, cpu) in started.cpus.iter().enumerate() {
            let orders = Arc::new(Orders::default());
            let Some(listener) = started.listener() else {
                return Err(StartError::Machine("a listener is missing".to_owned()));
            };
            let setup = Setup {
                index,
                cpu: *cpu,
                shared: Arc::clone(&started.shared),
                listener,
                tls: started.certificate.as_ref().map(|it| it.current()),
                seats: Arc::clone(&seats),
                orders: Arc::clone(&orders),
            };
            let sender = sender.clone();
            let thread = std::thread::Builder::new()
                .name(format!("core-{index}"))
                .spawn(move || setup.run(&sender))
                .map_err(|error| StartError::Machine(format!("cannot start a core: {error}")))?;
            cores.threads.push(thread);
            cores.orders.push(orders);
        }
        for _ in &cores.threads {
            match receiver.recv() {
                Ok(Ok(driver)) => cores.driver = driver,
                Ok(Err(error)) => return Err(StartError::Machine(error)),
                Err(_) => return Err(StartError::Machine("a core ended at its start".to_owned())),
            }
        }
        let _ = started.shared.driver.set(cores.driver);
        Ok(cores)
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.threads.len()
    }

    /// What they run on.
    pub const fn driver(&self) -> &'static str {
        self.driver
    }

    /// Tells them to finish what they are doing.
    pub fn drain(&self, span: Duration) {
        for orders in &self.orders {
            let millis = usize::try_from(span.as_millis()).unwrap_or(usize::MAX);
            orders.span.store(millis, Ordering::Relaxed);
            orders.draining.store(true, Ordering::Release);
            let waker = orders.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Waits for their ends; a core that is late is left behind.
    pub fn join(self, until: Instant) {
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < until + JOIN_GRACE {
                std::thread::sleep(JOIN_POLL);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Orders {
    /// Sleeps until the order to drain; how long that may take.
    pub async fn drain(&self) -> Duration {
        std::future::poll_fn(|cx| {
            let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if self.draining.load(Ordering::Acquire) {
                let millis = self.span.load(Ordering::Relaxed) as u64;
                return std::task::Poll::Ready(Duration::from_millis(millis));
            }
            *waker = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await
    }
}

/// What a core's thread is given.
struct Setup {
    index: usize,
    cpu: Option<usize>,
    shared: crate::server::SharedState,
    listener: std::net::TcpListener,
    tls: Option<Arc<arc_swap::ArcSwap<rustls::ServerConfig>>>,
    seats: Arc<Seats>,
    orders: Arc<Orders>,
}

impl Setup {
    fn run(self, ready: &mpsc::Sender<Result<&'static str, String>>) {
        let index = self.index;
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.serve(ready)));
        if ran.is_err() {
            crate::logs::flush_events();
            eprintln!("apiproxyd: core {index} died of a bug; ending the process");
            process::exit(i32::from(EXIT_BUG));
        }
    }

    fn serve(self, ready: &mpsc::Sender<Result<&'static str, String>>) {
        if let Some(cpu) = self.cpu
            && let Err(error) = runtime::pin_to(cpu)
        {
            tracing::warn!(core = self.index, cpu, %error, "not pinned");
        }
        let wanted = match self.shared.plan.settings.server.driver {
            Wanted::Auto => Driver::Auto,
            Wanted::IoUring => Driver::IoUring,
            Wanted::Epoll => Driver::Epoll,
        };
        match Runtime::build(wanted, runtime::ENTRIES_DEFAULT) {
            Ok(mut runtime) => {
                let driver = runtime.kind().as_str();
                runtime.block_on(self.main(driver, ready));
            }
            Err(error) => {
                let _ = ready.send(Err(format!("server.driver: {error}")));
            }
        }
    }

    async fn main(self, driver: &'static str, ready: &mpsc::Sender<Result<&'static str, String>>) {
        let acceptor = match crate::net::listen::Acceptor::new(self.listener) {
            Ok(acceptor) => acceptor,
            Err(error) => {
                let _ = ready.send(Err(format!("cannot listen: {error}")));
                return;
            }
        };
        let core = Core::new(self.index, self.shared);
        let server = &core.plan().settings.server;
        let watch = Watch::new(Spans {
            read: server.read_timeout,
            write: server.write_timeout,
            idle: server.idle_timeout,
        });
        if let Some(store) = &core.store {
            drop(monoio::spawn(store.drain()));
        }
        let cells = Arc::clone(&core.cells);
        let ticking = Rc::clone(&watch);
        drop(monoio::spawn(ticks::run(move |lag| {
            cells.on_tick(crate::net::mono(), lag);
            ticking.on_tick();
        })));
        drop(monoio::spawn(Rc::clone(&core).housekeeping()));
        if core.access.is_some() {
            drop(monoio::spawn(flush_access(Rc::clone(&core))));
        }
        if core.index == 0 {
            drop(monoio::spawn(janitor::run(Rc::clone(&core))));
        }
        let _ = ready.send(Ok(driver));
        let door = accept::Door {
            core: Rc::clone(&core),
            watch: Rc::clone(&watch),
            tls: self.tls,
            seats: self.seats,
        };
        let span = door.accept_until(acceptor, self.orders.drain()).await;
        drained(&watch, span).await;
        // A purge on a core that still drains must not wait for this one.
        core.shared.inboxes[core.index].close();
        if let Some(access) = &core.access {
            access.flush();
        }
    }
}

/// Hands lines of the access log over that would wait for others.
async fn flush_access(core: Rc<Core>) {
    while let Some(access) = &core.access {
        monoio::time::sleep(Access::FLUSH_SPAN).await;
        access.flush();
    }
}

/// Lets the exchanges under way end, for so long; then ends them.
async fn drained(watch: &Rc<Watch>, span: Duration) {
    watch.drain();
    let until = crate::net::mono().plus(span);
    while !watch.is_empty() && crate::net::mono() < until {
        monoio::time::sleep(DRAIN_POLL).await;
    }
    if !watch.is_empty() {
        tracing::warn!(connections = watch.len(), "cut at the end of the drain");
        watch.abort();
        monoio::time::sleep(DRAIN_POLL).await;
    }
}

/// How long a core may take beyond the drain before it is left behind.
const JOIN_GRACE: Duration = Duration::from_secs(1);
const JOIN_POLL: Duration = Duration::from_millis(5);
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// The exit code of a bug.
const EXIT_BUG: u8 = 70;
