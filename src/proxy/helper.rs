//! Threads for work that would hold up a core: to walk through all keys, to free what was cleared,
//! to compress.
//!
//! One queue, bounded; who finds it full does the work himself or does without it, as stated where
//! that is decided. A panic ends the job that panicked. The threads end with the last owner.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam::channel::{Sender, TrySendError, bounded};

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// The threads.
pub struct Helper {
    jobs: Sender<Job>,
}

impl Helper {
    /// Starts so many threads of that name, each of which does one job after the other; `depth` of
    /// them may wait.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(name: &str, threads: usize, depth: usize) -> std::io::Result<Self> {
        let (jobs, queue) = bounded::<Job>(depth);
        for _ in 0..threads.max(1) {
            let queue = queue.clone();
            let work = move || {
                for job in queue {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        tracing::error!("a job of a helper thread panicked");
                    }
                }
            };
            std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        }
        Ok(Self { jobs })
    }

    /// Hands a job over.
    ///
    /// # Errors
    /// The job, when too many are waiting.
    pub fn take(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|err| match err {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }

    /// Drops something large elsewhere; here, when too much is waiting.
    pub fn discard(&self, it: impl Send + 'static) {
        drop(self.take(Box::new(move || drop(it))));
    }
}

/// Purges and discarded shards that may wait: each is a walk of some ten milliseconds.
pub const CHORES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn jobs_are_done_in_order_and_one_that_panics_harms_no_other() {
        let helper = Helper::start("helper-test", 1, 8).unwrap();
        let (sender, receiver) = channel();
        for number in 0..3 {
            let sender = sender.clone();
            let job = Box::new(move || {
                assert_ne!(number, 1, "on purpose");
                sender.send(number).unwrap();
            });
            assert!(helper.take(job).is_ok());
        }
        let next = || receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((next(), next()), (0, 2));
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let helper = Helper::start("helper-test", 1, 1).unwrap();
        let (release, hold) = channel::<()>();
        let (started, waiting) = channel();
        let first = Box::new(move || {
            started.send(()).unwrap();
            let _ = hold.recv();
        });
        assert!(helper.take(first).is_ok());
        waiting.recv().unwrap();
        assert!(helper.take(Box::new(|| ())).is_ok());
        assert!(helper.take(Box::new(|| ())).is_err());
        drop(release);
    }
}
