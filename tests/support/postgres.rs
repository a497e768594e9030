//! A private PostgreSQL cluster: made in a temporary folder, ended and removed with its last user.
//!
//! Tests of one process share it, each in a database of its own. A shell waits beside it for the
//! end of the test process, however that ends, and cleans up.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A running cluster.
pub struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
    /// Its standard input is our sign of life.
    warden: Option<Child>,
}

/// A database of a cluster; the cluster lives as long as any of them.
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A new database in the cluster that all tests of this process share; none if PostgreSQL is not
/// installed.
pub fn database() -> Option<Database> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = match shared.upgrade() {
        Some(cluster) => cluster,
        None => {
            let cluster = Arc::new(Cluster::start()?);
            *shared = Arc::downgrade(&cluster);
            cluster
        }
    };
    drop(shared);
    Some(cluster.database())
}

/// A cluster for a test that stops or breaks it.
pub fn own_cluster() -> Option<Database> {
    Some(Arc::new(Cluster::start()?).database())
}

impl Database {
    /// Over the cluster's Unix socket.
    pub fn dsn(&self) -> String {
        self.cluster.dsn(&self.name)
    }

    /// Over TCP on the loopback address.
    pub fn tcp_dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=apiproxyd dbname={}", self.cluster.port, self.name)
    }

    /// A connection that checks what the store did, or meddles with it.
    pub fn connect(&self) -> postgres::Client {
        postgres::Client::connect(&self.dsn(), postgres::NoTls).unwrap()
    }
}

impl Cluster {
    fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            eprintln!("PostgreSQL is not installed: nothing was tested");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some((user, group)) = other_user() {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let mut initdb = as_other_user(&bin.join("initdb"));
        initdb.args(["-A", "trust", "-U", "apiproxyd", "--no-sync", "-E", "UTF8", "--locale=C"]);
        initdb.arg("-D").arg(folder.join("data")).current_dir("/");
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut cluster = Self { folder, bin, port, warden: None };
        cluster.warden = Some(cluster.post_warden());
        cluster.resume();
        Some(cluster)
    }

    /// Removes the cluster when this process has ended or dropped the pipe.
    fn post_warden(&self) -> Child {
        let script = r#"cat >/dev/null
            pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
            if [ -n "$pid" ]; then
                kill -CONT "$pid"; kill -QUIT "$pid"
                n=0
                while kill -0 "$pid" && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
            fi 2>/dev/null
            rm -rf "$1""#;
        let mut warden = Command::new("sh");
        warden.args(["-c", script, "sh"]).arg(&self.folder).stdin(Stdio::piped());
        warden.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn pg_ctl(&self, args: &[&str]) -> bool {
        let mut pg_ctl = as_other_user(&self.bin.join("pg_ctl"));
        pg_ctl.arg("-D").arg(self.folder.join("data")).args(args).current_dir("/");
        pg_ctl.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Starts the server, after [`Cluster::stop`] too, and waits until it takes connections.
    pub fn resume(&self) {
        let options = format!(
            "-k {} -p {} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60 \
             -c shared_buffers=16MB -c autovacuum_naptime=5s",
            self.folder.display(),
            self.port
        );
        let log = self.folder.join("log");
        let log = log.to_str().unwrap();
        let started = self.pg_ctl(&["-w", "-t", "60", "-l", log, "-o", &options, "start"]);
        assert!(started, "{}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Ends the server; `mode` is `fast` or, like a crash, `immediate`.
    pub fn stop(&self, mode: &str) {
        assert!(self.pg_ctl(&["-w", "-t", "60", "-m", mode, "stop"]));
    }

    /// The server's processes: the one that listens, and one for each connection.
    pub fn processes(&self) -> Vec<i32> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let main: i32 = file.lines().next().unwrap().parse().unwrap();
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
        let children = children.split_whitespace().map(|it| it.parse().unwrap());
        std::iter::once(main).chain(children).collect()
    }

    /// Sends a signal to all of them.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        for process in self.processes() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), signal).ok();
        }
    }

    /// The port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the server's files are.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A file system of 32 MiB that the server may use; none without the right to mount.
    pub fn small_disk(&self) -> Option<SmallDisk> {
        let path = self.folder.join("small");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m", "none"]).arg(&path).stderr(Stdio::null());
        if !mount.status().is_ok_and(|it| it.success()) {
            return None;
        }
        if let Some((user, group)) = other_user() {
            chown(&path, Some(user), Some(group)).unwrap();
        }
        Some(SmallDisk(path))
    }

    /// Makes a file that the server can read, as it demands it for a key.
    pub fn give(&self, file: &Path) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = other_user() {
            chown(file, Some(user), Some(group)).unwrap();
        }
    }

    fn dsn(&self, name: &str) -> String {
        let folder = self.folder.display();
        format!("host={folder} port={} user=apiproxyd dbname={name}", self.port)
    }

    fn database(self: Arc<Self>) -> Database {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let mut client = postgres::Client::connect(&self.dsn("postgres"), postgres::NoTls).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        Database { cluster: self, name }
    }
}

/// A mounted file system, until dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut warden) = self.warden.take() {
            drop(warden.stdin.take());
            warden.wait().ok();
        }
    }
}

/// The server refuses to run as root.
fn other_user() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    ["postgres", "nobody"].into_iter().find_map(|name| {
        let user = nix::unistd::User::from_name(name).ok()??;
        Some((user.uid.as_raw(), user.gid.as_raw()))
    })
}

fn as_other_user(program: &Path) -> Command {
    let Some((user, group)) = other_user() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
    command.arg("--clear-groups").arg("--").arg(program);
    command
}

/// The folder with `initdb`: in the path, or where Debian keeps it.
fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|it| it.path().join("bin")).collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    folders.into_iter().find(|it| it.join("initdb").exists() && it.join("pg_ctl").exists())
}
