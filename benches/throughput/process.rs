//! The processes under measurement, and the CPU time of their core threads.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::floor;

/// A server or a floor; ended when dropped.
pub struct Process {
    child: Child,
    pub addr: SocketAddr,
}

/// The real server: one core on `cpu`, everything at its default but what would limit the load.
pub fn server(
    origin: SocketAddr,
    cpu: usize,
    memory: bool,
    folder: &Path,
    driver: String,
) -> Process {
    fs::create_dir(folder).unwrap();
    let config = serde_json::json!({
        "entry_point": format!("http://{origin}"),
        // A list pins; a bare number would be a count.
        "server": { "port": 0, "cores": format!("{cpu}-{cpu}"), "driver": driver },
        "cache": { "path": folder.join("cache.db"), "memory_cache_enabled": memory },
        "security": { "block_private_ips": false, "rate_limit_enabled": false },
    });
    configured(&config, folder)
}

/// The real server with a configuration, which is written into `folder`.
pub fn configured(config: &serde_json::Value, folder: &Path) -> Process {
    let file = folder.join("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_apiproxyd"));
    command.args(["run", "--config"]).arg(&file).env("HOME", folder);
    start(command)
}

/// This binary again, as a floor that answers with the bytes of `canned`.
pub fn floor(canned: &Path, cpu: usize, driver: String) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(floor::VARIABLE, canned).env(floor::CPU_VARIABLE, cpu.to_string());
    command.env("APIPROXYD_TEST_DRIVER", driver);
    start(command)
}

fn start(mut command: Command) -> Process {
    // The affinity of the caller is inherited, which must not bind the server's other threads.
    let all = apiproxyd_cpus();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(child.id() as i32), &all).ok();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let Some(addr) = super::listening(&line) else {
        child.kill().ok();
        panic!("did not start: {line:?}");
    };
    // The rest is read by nobody else; without a reader a full pipe would stop the process.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    Process { child, addr }
}

/// Every CPU there may be; the kernel takes away those that are not for us.
fn apiproxyd_cpus() -> nix::sched::CpuSet {
    let mut set = nix::sched::CpuSet::new();
    for cpu in 0..nix::sched::CpuSet::count() {
        set.set(cpu).ok();
    }
    set
}

impl Process {
    /// Resident memory.
    pub fn rss_bytes(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64
    }

    /// CPU time, user and system, of the threads named `core-N`.
    ///
    /// The scheduler's own account in nanoseconds, where the kernel keeps it; else the ticks of
    /// `stat`, 10 ms each.
    pub fn core_cpu(&self) -> Duration {
        self.cpu_of("core-")
    }

    /// The same of the threads whose names begin so.
    pub fn cpu_of(&self, prefix: &str) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten();
        let threads = tasks.filter(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|it| it.starts_with(prefix))
        });
        threads.map(|task| thread_cpu(&task.path())).sum()
    }
}

fn thread_cpu(task: &Path) -> Duration {
    if let Ok(text) = fs::read_to_string(task.join("schedstat"))
        && let Some(nanos) = text.split(' ').next().and_then(|it| it.parse().ok())
    {
        return Duration::from_nanos(nanos);
    }
    let text = fs::read_to_string(task.join("stat")).unwrap_or_default();
    let behind_name = text.rsplit_once(") ").map_or("", |it| it.1);
    let ticks = behind_name.split(' ').skip(11).take(2).filter_map(|it| it.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
