//! The daemon as a process: its configuration, its start, what `/proc` knows of it, its end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::message::Response;
use super::origin::Origin;
use super::{PATIENCE, eventually};

/// A configuration and a folder, from which the daemon can be started more than once.
pub struct Setup {
    config: Value,
    args: Vec<String>,
    /// What starts the binary; nothing for the binary itself.
    starter: Vec<String>,
    home: Arc<TempDir>,
}

impl Setup {
    /// In front of `origin`: two cores, any free port, a cache of its own, no rate limit.
    pub fn over(origin: &Origin) -> Self {
        Self::at(&origin.url())
    }

    /// In front of whatever is at `entry_point`.
    pub fn at(entry_point: &str) -> Self {
        let home = TempDir::with_prefix("apiproxyd-test-").unwrap();
        let mut config = json!({
            "entry_point": entry_point,
            "server": { "port": 0, "cores": 2 },
            "cache": { "path": home.path().join("cache.db") },
            "security": { "block_private_ips": false, "rate_limit_enabled": false },
        });
        if let Ok(driver) = std::env::var("APIPROXYD_TEST_DRIVER") {
            config["server"]["driver"] = json!(driver);
        }
        Self { config, args: Vec::new(), starter: Vec::new(), home: Arc::new(home) }
    }

    /// Sets a field by its JSON path: `cache.ttl`.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        let field = path.split('.').fold(&mut self.config, |at, name| &mut at[name]);
        *field = value.into();
        self
    }

    /// Takes a field out again.
    #[must_use]
    pub fn without(mut self, group: &str, name: &str) -> Self {
        self.config[group].as_object_mut().unwrap().remove(name);
        self
    }

    /// Another argument behind `run --config FILE`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Started by this command, which gets the binary and its arguments and becomes it.
    #[must_use]
    pub fn started_by(mut self, starter: Vec<String>) -> Self {
        self.starter = starter;
        self
    }

    /// The folder of the cache and of `HOME`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts the daemon and waits until it listens.
    #[track_caller]
    pub fn start(&self) -> Proxy {
        self.launch().unwrap_or_else(|refused| panic!("did not start: {refused:?}"))
    }

    /// Starts the daemon, which is expected to refuse.
    #[track_caller]
    pub fn refused(&self) -> Refused {
        match self.launch() {
            Ok(proxy) => panic!("started on {}", proxy.addr),
            Err(refused) => refused,
        }
    }

    /// Starts the daemon; returns when it listens or has ended.
    #[track_caller]
    pub fn launch(&self) -> Result<Proxy, Refused> {
        let file = self.home.path().join("config.json");
        fs::write(&file, self.config.to_string()).unwrap();
        let binary = env!("CARGO_BIN_EXE_apiproxyd");
        let mut command = match self.starter.split_first() {
            None => Command::new(binary),
            Some((starter, args)) => {
                let mut command = Command::new(starter);
                command.args(args).arg(binary);
                command
            }
        };
        command.args(["run", "--config"]).arg(&file).args(&self.args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("APIPROXYD_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Proxy::spawn(command, self.home.clone())
    }
}

/// How a start ended that did not lead to a listening daemon.
#[derive(Debug)]
pub struct Refused {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running daemon. Dropping it ends it in good order and fails the test when it had died,
/// panicked, or does not end with 0.
pub struct Proxy {
    child: Child,
    addr: SocketAddr,
    stdout: Output,
    stderr: Output,
    /// Exit code, once waited for.
    ended: Option<Option<i32>>,
    home: Arc<TempDir>,
}

impl Proxy {
    #[track_caller]
    fn spawn(mut command: Command, home: Arc<TempDir>) -> Result<Self, Refused> {
        let mut child = command.spawn().expect("the binary cannot be run");
        let (stdout, first) = Output::collect(child.stdout.take().unwrap());
        let (stderr, _) = Output::collect(child.stderr.take().unwrap());
        let Some(line) = first.recv_timeout(PATIENCE).expect("the daemon prints nothing") else {
            let code = child.wait().unwrap().code();
            return Err(Refused { code, stdout: stdout.end(), stderr: stderr.end() });
        };
        let addr = listening(&line).unwrap_or_else(|| panic!("first line: {line:?}"));
        Ok(Self { child, addr, stdout, stderr, ended: None, home })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A new connection to it.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// A GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// A request without a body on a connection of its own.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        self.connect().ask(method, target, fields)
    }

    /// Removes everything cached, through the admin endpoint.
    #[track_caller]
    pub fn clear(&self) {
        let cleared = self.ask("POST", "/cache/clear", &[]);
        assert_eq!(cleared.status, 200, "{cleared:?}");
    }

    /// The JSON of `/cache/stats`.
    #[track_caller]
    pub fn stats(&self) -> Value {
        let stats = self.get("/cache/stats");
        assert_eq!(stats.status, 200, "{stats:?}");
        stats.json()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let statm = fs::read_to_string(self.proc("statm")).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64
    }

    /// The most that was ever resident, in bytes.
    pub fn rss_peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Open descriptors.
    pub fn fd_count(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// What its descriptors are, to say what leaked.
    pub fn fds(&self) -> Vec<String> {
        let links = fs::read_dir(self.proc("fd")).unwrap().flatten();
        let mut names: Vec<String> = links
            .filter_map(|it| fs::read_link(it.path()).ok())
            .map(|it| it.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Its TCP connections as the kernel sees them: addresses, state, what waits to be sent and
    /// read, in its own notation.
    pub fn sockets(&self) -> Vec<String> {
        let fds = self.fds();
        let tables = ["net/tcp", "net/tcp6"].map(|it| fs::read_to_string(self.proc(it)));
        let rows = tables.iter().flatten().flat_map(|it| it.lines().skip(1));
        let rows = rows.map(|it| it.split_whitespace().collect::<Vec<_>>());
        let ours = rows.filter(|it| fds.contains(&format!("socket:[{}]", it[9])));
        ours.map(|it| it[1..5].join(" ")).collect()
    }

    /// Waits until no more descriptors are open than `most`.
    #[track_caller]
    pub fn await_fds(&self, most: usize) {
        let start = Instant::now();
        while self.fd_count() > most {
            assert!(start.elapsed() < PATIENCE, "more than {most} left: {:?}", self.fds());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// User and system time of all its threads, from the scheduler's own account.
    pub fn cpu_time(&self) -> Duration {
        let tasks = fs::read_dir(self.proc("task")).unwrap().flatten();
        let nanos = tasks.map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.text.lock().unwrap().clone()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.text.lock().unwrap().clone()
    }

    /// Whether the process still runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.id(), signal).unwrap();
    }

    /// Waits for its end: the exit code, `None` for a signal.
    #[track_caller]
    pub fn await_exit(&mut self) -> Option<i32> {
        if let Some(code) = self.ended {
            return code;
        }
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "does not end; log:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(2));
        };
        self.ended = Some(status.code());
        status.code()
    }

    /// Ends it in good order (SIGTERM), which must give exit code 0.
    #[track_caller]
    pub fn stop(mut self) {
        self.end();
    }

    /// Ends it without mercy (SIGKILL).
    #[track_caller]
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.await_exit(), None);
    }

    #[track_caller]
    fn end(&mut self) {
        if self.ended.is_none() {
            assert!(self.lives(), "died during the test; log:\n{}", self.stderr());
            self.signal(Signal::SIGTERM);
            assert_eq!(self.await_exit(), Some(0), "exit code; log:\n{}", self.stderr());
        }
        let log = self.stderr();
        assert!(!log.contains("panicked at"), "{log}");
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.child.kill().ok();
            self.child.wait().ok();
            eprintln!("log of the daemon:\n{}", self.stderr());
        } else {
            self.end();
        }
    }
}

/// `apiproxyd VERSION listening on http://ADDR:PORT`
fn listening(line: &str) -> Option<SocketAddr> {
    let url = line.strip_prefix("apiproxyd ")?.split_once(" listening on ")?.1;
    let addr = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    addr.trim_end().parse().ok()
}

/// What a process writes to one of its streams, read by a thread so that it never blocks.
struct Output {
    text: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

impl Output {
    /// Also returns where the first line arrives, or `None` when the stream ends without one.
    fn collect(stream: impl Read + Send + 'static) -> (Self, Receiver<Option<String>>) {
        let text = Arc::new(Mutex::new(String::new()));
        let (first, arrival) = channel();
        let ours = text.clone();
        let thread = std::thread::spawn(move || {
            let mut first = Some(first);
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let part = String::from_utf8_lossy(&line).into_owned();
                ours.lock().unwrap().push_str(&part);
                if let Some(first) = first.take() {
                    first.send(Some(part)).ok();
                }
                line.clear();
            }
            if let Some(first) = first {
                first.send(None).ok();
            }
        });
        (Self { text, thread }, arrival)
    }

    /// Everything, once the process has ended.
    fn end(self) -> String {
        self.thread.join().unwrap();
        Arc::into_inner(self.text).unwrap().into_inner().unwrap()
    }
}
