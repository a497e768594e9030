//! The event loop of one core: io_uring with the flags that make it cheap, io_uring without them,
//! or epoll, whichever the kernel grants first.
//!
//! `coop_taskrun` and `single_issuer` save a third of the CPU per request, but kernels before 6.0
//! refuse them; container seccomp profiles and a small `RLIMIT_MEMLOCK` refuse rings altogether.
//! monoio's own fusion driver falls back only in the last case, hence this module.

use std::fmt;
use std::future::Future;
use std::io;

use io_uring::IoUring;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Ring entries when the configuration says nothing. More were not measured to bring anything,
/// and they count against `RLIMIT_MEMLOCK`.
pub const ENTRIES_DEFAULT: u32 = 1024;

/// Which event loop to use (`server.driver`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where it is granted, epoll otherwise.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll, also where io_uring is granted.
    Epoll,
}

/// What a runtime became, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring with `coop_taskrun` and `single_issuer`.
    IoUring,
    /// io_uring, the kernel having refused the flags.
    IoUringWithoutFlags,
    /// epoll.
    Epoll,
}

impl DriverKind {
    /// The name for the log and `/health`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::IoUringWithoutFlags => "io_uring without flags",
            Self::Epoll => "epoll",
        }
    }
}

/// A monoio runtime with its timer, on one of the two drivers.
///
/// Belongs to the thread that built it: the ring is bound to its creator (`single_issuer`).
/// Before it is dropped all its tasks must have ended, or ring and sockets leak.
pub struct Runtime {
    flavour: Flavour,
    kind: DriverKind,
}

enum Flavour {
    Uring(Box<monoio::Runtime<TimeDriver<IoUringDriver>>>),
    Epoll(Box<monoio::Runtime<TimeDriver<LegacyDriver>>>),
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Builds the runtime of the calling thread. `entries` is the ring's size (at least 256, at
    /// most 32768; default [`ENTRIES_DEFAULT`]).
    ///
    /// # Errors
    /// The error of the last driver tried: no ring and no epoll (descriptors exhausted), or, with
    /// [`Driver::IoUring`], no ring (`EPERM` from seccomp, `ENOMEM` from `RLIMIT_MEMLOCK`).
    pub fn build(driver: Driver, entries: u32) -> io::Result<Self> {
        if driver != Driver::Epoll {
            let flagged = uring(entries, Flags::CoopSingleIssuer);
            if let Ok(flavour) = flagged {
                return Ok(Self { flavour, kind: DriverKind::IoUring });
            }
            match uring(entries, Flags::None) {
                Ok(flavour) => {
                    return Ok(Self { flavour, kind: DriverKind::IoUringWithoutFlags });
                }
                Err(error) if driver == Driver::IoUring => return Err(error),
                Err(_) => {}
            }
        }
        let epoll = RuntimeBuilder::<LegacyDriver>::new().with_entries(entries).enable_timer();
        Ok(Self { flavour: Flavour::Epoll(Box::new(epoll.build()?)), kind: DriverKind::Epoll })
    }

    /// Which driver it became.
    #[must_use]
    pub const fn kind(&self) -> DriverKind {
        self.kind
    }

    /// Runs `future` and the tasks it spawns until it is ready.
    ///
    /// # Panics
    /// When called inside a running runtime, or when a spawned task panics.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match &mut self.flavour {
            Flavour::Uring(runtime) => runtime.block_on(future),
            Flavour::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

#[derive(Clone, Copy)]
enum Flags {
    CoopSingleIssuer,
    None,
}

fn uring(entries: u32, flags: Flags) -> io::Result<Flavour> {
    let mut ring = IoUring::builder();
    if matches!(flags, Flags::CoopSingleIssuer) {
        ring.setup_coop_taskrun().setup_single_issuer();
    }
    let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(entries).uring_builder(ring);
    Ok(Flavour::Uring(Box::new(builder.enable_timer().build()?)))
}

/// The CPUs this process may run on, ascending: what a container or `taskset` left of the machine.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// `EINVAL` when the CPU does not exist or is not among [`allowed_cpus`].
pub fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Test support: runs a test body on both drivers, each on a thread of its own.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Runs `body` to its end on io_uring and then on epoll.
    pub(crate) fn on_both<F, Fut>(body: F)
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = ()>,
    {
        for driver in [Driver::IoUring, Driver::Epoll] {
            std::thread::scope(|scope| {
                let run = || Runtime::build(driver, 256).unwrap().block_on(body());
                let ended = scope.spawn(run).join();
                assert!(ended.is_ok(), "failed on {driver:?}");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_driver_runs_tasks_and_timers() {
        for driver in [Driver::Auto, Driver::IoUring, Driver::Epoll] {
            let mut runtime = Runtime::build(driver, ENTRIES_DEFAULT).unwrap();
            let task = async {
                monoio::time::sleep(Duration::from_millis(1)).await;
                monoio::spawn(async { 7 }).await
            };
            assert_eq!(runtime.block_on(task), 7);
            let epoll = runtime.kind() == DriverKind::Epoll;
            assert_eq!(epoll, driver == Driver::Epoll, "{}", runtime.kind().as_str());
        }
    }

    #[test]
    fn refused_ring_falls_back_to_epoll_only_when_that_is_allowed() {
        // Above the kernel's limit of entries: refused with flags and without.
        let entries = 1 << 20;
        let runtime = Runtime::build(Driver::Auto, entries).unwrap();
        assert_eq!(runtime.kind(), DriverKind::Epoll);
        assert!(Runtime::build(Driver::IoUring, entries).is_err());
    }

    #[test]
    fn pinned_thread_stays_on_its_cpu() {
        std::thread::spawn(|| {
            let cpu = *allowed_cpus().unwrap().last().unwrap();
            pin_to(cpu).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [cpu]);
            assert!(pin_to(CpuSet::count()).is_err());
        })
        .join()
        .unwrap();
    }
}
