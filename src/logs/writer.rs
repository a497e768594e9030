//! The thread that writes lines, and the bounded queue before it.
//!
//! Batches go in, empty buffers come back. Whoever offers a batch never waits: a full queue drops
//! it and counts its lines. A file is appended to, made anew when it is gone, and opened again when
//! asked (after a rotation); one that can't be written loses lines, counted, and is tried again
//! with each batch.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The standard error stream.
    Stderr,
    /// The end of this file.
    File(PathBuf),
}

/// A log's way out. Shared by reference; lives as long as the process.
#[derive(Debug)]
pub struct Writer {
    batches: Sender<Batch>,
    spares: Receiver<Vec<u8>>,
    state: Arc<State>,
}

/// Lines in one piece.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

#[derive(Debug, Default)]
struct State {
    dropped: AtomicU64,
    reopen: AtomicBool,
    /// Batches accepted and not yet written.
    pending: AtomicU64,
    written: Mutex<()>,
    progress: Condvar,
}

impl Writer {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// The file can't be opened, or no thread started.
    pub fn start(name: &str, target: Target) -> io::Result<Arc<Self>> {
        let out = Out::open(target)?;
        let (batches, arrivals) = bounded(QUEUE_BATCHES);
        let (returns, spares) = bounded(QUEUE_BATCHES);
        let state = Arc::new(State::default());
        let theirs = Arc::clone(&state);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(out, &arrivals, &returns, &theirs))?;
        Ok(Arc::new(Self { batches, spares, state }))
    }

    /// Hands `lines` lines over and gives an empty buffer for the next ones. Never waits.
    #[must_use]
    pub fn offer(&self, bytes: Vec<u8>, lines: u64) -> Vec<u8> {
        self.state.pending.fetch_add(1, Ordering::AcqRel);
        match self.batches.try_send(Batch { bytes, lines }) {
            Ok(()) => self.spares.try_recv().unwrap_or_default(),
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.state.dropped.fetch_add(batch.lines, Ordering::Relaxed);
                self.state.settle();
                let mut bytes = batch.bytes;
                bytes.clear();
                bytes
            }
        }
    }

    /// Lines that were not written, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Has the file opened by its name again, before the next line.
    pub fn reopen(&self) {
        self.state.reopen.store(true, Ordering::Release);
        // An empty batch wakes the thread; where the queue is full, it is awake.
        drop(self.offer(Vec::new(), 0));
    }

    /// Waits until all that was handed over is written, for at most `span`. Not on a core.
    pub fn flush(&self, span: Duration) {
        let until = Instant::now() + span;
        let mut written = self.state.written.lock().unwrap_or_else(PoisonError::into_inner);
        while self.state.pending.load(Ordering::Acquire) > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.state.progress.wait_timeout(written, left.min(FLUSH_POLL));
            written = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn settle(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.progress.notify_all();
        }
    }
}

fn run(mut out: Out, arrivals: &Receiver<Batch>, returns: &Sender<Vec<u8>>, state: &State) {
    for batch in arrivals {
        if state.reopen.swap(false, Ordering::AcqRel) {
            out.reopen();
        }
        if !batch.bytes.is_empty() && !out.write(&batch.bytes) {
            state.dropped.fetch_add(batch.lines, Ordering::Relaxed);
        }
        state.settle();
        let mut bytes = batch.bytes;
        bytes.clear();
        // When nobody needs it, it is freed.
        let _ = returns.try_send(bytes);
    }
}

/// The target, opened.
struct Out {
    target: Target,
    file: Option<File>,
    /// The last write ended within a line.
    torn: bool,
    /// When a failure was last reported.
    reported: Option<Instant>,
}

impl Out {
    fn open(target: Target) -> io::Result<Self> {
        let file = open(&target)?;
        Ok(Self { target, file, torn: false, reported: None })
    }

    /// The old file stays in use when the new one can't be opened.
    fn reopen(&mut self) {
        match open(&self.target) {
            Ok(file) => self.file = file,
            Err(error) => self.report("opened again", &error),
        }
    }

    /// Whether all of it was written.
    fn write(&mut self, bytes: &[u8]) -> bool {
        let written = match &mut self.file {
            // The lock keeps the lines of several logs whole.
            None => io::stderr().lock().write_all(bytes),
            Some(file) => append(file, bytes, &mut self.torn),
        };
        if let Err(error) = &written {
            self.report("written", error);
        }
        written.is_ok()
    }

    /// To standard error, since the log itself is what fails; seldom, since it fails often.
    fn report(&mut self, what: &str, error: &io::Error) {
        let Target::File(path) = &self.target else { return };
        if self.reported.is_some_and(|it| it.elapsed() < REPORT_SPAN) {
            return;
        }
        self.reported = Some(Instant::now());
        let line = format!("apiproxyd: {} can't be {what}: {error}\n", path.display());
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Appends all or says what failed; a line cut in the middle is ended before the next one.
fn append(file: &mut File, bytes: &[u8], torn: &mut bool) -> io::Result<()> {
    if *torn {
        file.write_all(b"\n")?;
        *torn = false;
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                let (done, after) = rest.split_at(count);
                *torn = done.last() != Some(&b'\n');
                rest = after;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// For its owner and group: addresses of clients are nobody else's business.
fn open(target: &Target) -> io::Result<Option<File>> {
    match target {
        Target::Stderr => Ok(None),
        Target::File(path) => {
            OpenOptions::new().append(true).create(true).mode(0o640).open(path).map(Some)
        }
    }
}

/// Batches that may wait: 128 of 16 to 32 KiB, 4 MiB at most.
const QUEUE_BATCHES: usize = 128;
const REPORT_SPAN: Duration = Duration::from_secs(30);
/// A wake-up may be lost between the look and the wait.
const FLUSH_POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn read(path: &PathBuf) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn lines_arrive_in_order_and_buffers_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let writer = Writer::start("log", Target::File(path.clone())).unwrap();
        let mut buffer = Vec::with_capacity(64);
        for number in 0..100 {
            buffer.extend_from_slice(format!("line {number}\n").as_bytes());
            buffer = writer.offer(buffer, 1);
            assert!(buffer.is_empty());
            writer.flush(LONG);
        }
        let expected: String = (0..100).map(|it| format!("line {it}\n")).collect();
        assert_eq!(read(&path), format!("before\n{expected}"));
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn a_rotated_file_is_opened_by_its_name_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let writer = Writer::start("log", Target::File(path.clone())).unwrap();
        drop(writer.offer(b"one\n".to_vec(), 1));
        writer.flush(LONG);
        std::fs::rename(&path, &old).unwrap();
        drop(writer.offer(b"two\n".to_vec(), 1));
        writer.flush(LONG);
        assert_eq!((read(&path), read(&old)), (String::new(), "one\ntwo\n".to_owned()));
        writer.reopen();
        drop(writer.offer(b"three\n".to_vec(), 1));
        writer.flush(LONG);
        assert_eq!((read(&path), read(&old)), ("three\n".to_owned(), "one\ntwo\n".to_owned()));
    }

    #[test]
    fn a_queue_that_is_full_drops_and_counts_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Both ends: nobody reads, and the open does not wait.
        let held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let writer = Writer::start("log", Target::File(path)).unwrap();
        let batch = vec![b'x'; 1 << 20];
        // The pipe takes one batch at most into the thread's hands; the queue the next ones.
        for _ in 0..QUEUE_BATCHES + 10 {
            drop(writer.offer(batch[..4096].to_vec(), 3));
        }
        for _ in 0..QUEUE_BATCHES {
            drop(writer.offer(batch.clone(), 3));
        }
        let dropped = writer.dropped();
        assert!(dropped > 0 && dropped.is_multiple_of(3), "{dropped}");
        drop(held);
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        let mut torn = false;
        append(&mut file, b"half", &mut torn).unwrap();
        assert!(torn);
        append(&mut file, b"whole\n", &mut torn).unwrap();
        assert!(!torn);
        assert_eq!(read(&path), "half\nwhole\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_once() {
        let path = PathBuf::from("/dev/null/none");
        assert!(Writer::start("log", Target::File(path)).is_err());
    }
}
