//! A core's side of the access log: who gets a line, and the batch that lines are gathered in.

use std::cell::RefCell;
use std::sync::Arc;

use crate::base::Numbers;
use crate::config::AccessLog;
use crate::logs::line::{Form, Line};
use crate::logs::mask::Masks;
use crate::logs::writer::Writer;

/// What all cores' access logs have in common.
#[derive(Debug)]
pub struct Setup {
    /// Which requests get a line.
    pub which: AccessLog,
    /// With [`AccessLog::Sampled`]: one in so many.
    pub every: u32,
    /// How lines are written.
    pub form: Form,
    /// What is not shown of queries.
    pub masks: Masks,
    /// Where they go.
    pub writer: Arc<Writer>,
}

/// The access log of one core. Not shared.
#[derive(Debug)]
pub struct Access {
    setup: Arc<Setup>,
    batch: RefCell<Batch>,
    /// What samples are drawn by.
    draws: Numbers,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl Access {
    /// The log of one core; `seed` differs from core to core.
    #[must_use]
    pub fn new(setup: Arc<Setup>, seed: u64) -> Self {
        Self { setup, batch: RefCell::default(), draws: Numbers::new(seed) }
    }

    /// Whether a request that was answered so gets a line. Samples are drawn, not counted: traffic
    /// with a rhythm must not fall into step with them.
    #[must_use]
    pub fn wants(&self, status: u16) -> bool {
        match self.setup.which {
            AccessLog::Off => false,
            AccessLog::All => true,
            AccessLog::Errors => status >= 500,
            AccessLog::Sampled => {
                self.draws.next().is_multiple_of(u64::from(self.setup.every.max(1)))
            }
        }
    }

    /// Writes a line into the batch; hands that over when it is large.
    pub fn note(&self, line: &Line<'_>) {
        let mut batch = self.batch.borrow_mut();
        if batch.bytes.capacity() == 0 {
            batch.bytes.reserve(BATCH_BYTES + BATCH_BYTES / 2);
        }
        line.write(self.setup.form, &self.setup.masks, &mut batch.bytes);
        batch.lines += 1;
        if batch.bytes.len() >= BATCH_BYTES {
            self.hand_over(&mut batch);
        }
    }

    /// Hands over what there is. Called every [`FLUSH_SPAN`](Self::FLUSH_SPAN) and at the end.
    pub fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.lines > 0 {
            self.hand_over(&mut batch);
        }
    }

    /// How long a line may wait for others: what a crash can lose.
    pub const FLUSH_SPAN: std::time::Duration = std::time::Duration::from_millis(200);

    fn hand_over(&self, batch: &mut Batch) {
        let Batch { bytes, lines } = std::mem::take(batch);
        batch.bytes = self.setup.writer.offer(bytes, lines);
    }
}

/// What is gathered before it is handed over: some hundred lines, one wake-up of the thread.
const BATCH_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::writer::Target;

    fn access(which: AccessLog, every: u32) -> Access {
        let writer = Writer::start("log", Target::File("/dev/null".into())).unwrap();
        let setup = Setup { which, every, form: Form::Text, masks: Masks::default(), writer };
        Access::new(Arc::new(setup), 7)
    }

    fn wanted(access: &Access, status: u16, times: usize) -> usize {
        (0..times).filter(|_| access.wants(status)).count()
    }

    #[test]
    fn each_choice_wants_what_it_says() {
        for (which, of_200, of_404, of_502) in
            [(AccessLog::Off, 0, 0, 0), (AccessLog::All, 9, 9, 9), (AccessLog::Errors, 0, 0, 9)]
        {
            let access = access(which, 1);
            let counts = [200, 404, 502].map(|status| wanted(&access, status, 9));
            assert_eq!(counts, [of_200, of_404, of_502], "{which:?}");
        }
    }

    #[test]
    fn samples_are_one_in_so_many_and_follow_no_rhythm() {
        let access = access(AccessLog::Sampled, 10);
        let all = wanted(&access, 200, 100_000);
        assert!((9_000..11_000).contains(&all), "{all}");
        // Every tenth request alone: were they counted, all or none of these would be taken.
        let taken: Vec<bool> = (0..10_000).map(|_| access.wants(200)).collect();
        let tenths = taken.iter().step_by(10).filter(|it| **it).count();
        assert!((50..200).contains(&tenths), "{tenths}");
        let every = super::tests::access(AccessLog::Sampled, 1);
        assert_eq!(wanted(&every, 200, 50), 50);
    }
}
