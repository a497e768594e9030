//! A hosts file of a daemon's own: names that mean what a test says, and move when it says so.
//!
//! The daemon asks the system (`getaddrinfo`), and where the system looks can't be configured for a
//! process. So it is started in a mount namespace in which another file stands at `/etc/hosts`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::proxy::Setup;

/// The file.
pub struct Hosts {
    folder: TempDir,
}

impl Hosts {
    /// With these lines. `None`, and a note, where the machine grants no namespaces of users and
    /// mounts, as some containers don't.
    pub fn with(lines: &str) -> Option<Self> {
        let hosts = Self { folder: TempDir::with_prefix("apiproxyd-hosts-").unwrap() };
        hosts.set(lines);
        let [command, args @ ..] = &hosts.starter()[..] else { return None };
        let tried = Command::new(command).args(args).arg("true").stderr(Stdio::null()).status();
        if !tried.is_ok_and(|it| it.success()) {
            eprintln!("not tested: no hosts file of one's own on this machine");
            return None;
        }
        Some(hosts)
    }

    /// Other lines. In place: the namespace has the file, not its name.
    pub fn set(&self, lines: &str) {
        std::fs::write(self.file(), lines).unwrap();
    }

    /// So that the daemon sees it.
    pub fn setup(&self, setup: Setup) -> Setup {
        setup.started_by(self.starter())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    fn starter(&self) -> Vec<String> {
        let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", self.file().display());
        ["unshare", "-r", "-m", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec()
    }
}
