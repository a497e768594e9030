use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Wake};
use std::time::Duration;

use super::*;
use crate::base::{Seed, Wall};
use crate::cache::{Facts, Key, Ledger, LifetimeSource};

/// An entry of a compressible type.
fn plain(name: u32, bytes: usize) -> Arc<Entry> {
    let text = format!("{{\"name\":{name}}}");
    entry(text.bytes().cycle().take(bytes).collect::<Vec<u8>>(), &[("ETag", "\"e\"")])
}

fn zipped(name: u32, bytes: usize) -> Arc<Entry> {
    let body = encode::gzip(plain(name, bytes).body(), encode::Level::default()).unwrap();
    entry(body, &[("Content-Encoding", "gzip"), ("ETag", "\"e\""), ("Accept-Ranges", "bytes")])
}

fn entry(body: Vec<u8>, more: &[(&str, &str)]) -> Arc<Entry> {
    let facts = Facts {
        response_time: Wall::EPOCH,
        date: Wall::EPOCH,
        initial_age: Duration::ZERO,
        lifetime: Duration::ZERO,
        stale_while_revalidate: None,
        stale_if_error: None,
        status: 200,
        lifetime_source: LifetimeSource::None,
        stale_forbidden: false,
        no_cache: false,
        immutable: false,
        has_validator: true,
        shareable: true,
    };
    let mut fields = Fields::new();
    fields.push("Content-Type", "application/json");
    fields.push("Content-Length", body.len().to_string());
    more.iter().for_each(|(name, value)| fields.push(name, *value));
    let ledger = Arc::new(Ledger::new(u64::MAX));
    Arc::new(Entry::new(Key::new(b"k", &Seed::fixed(1)), facts, &fields, body.into(), &ledger))
}

fn recipe() -> Recipe {
    let level = encode::Level::default();
    Recipe { level, halvings: 0, inflated_bytes_max: 100 << 20 }
}

struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let (bell, woken): (_, Receiver<()>) = channel();
    let waker = Waker::from(Arc::new(Bell(bell)));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        woken.recv_timeout(Duration::from_secs(60)).expect("nobody wakes the waiting client");
    }
}

/// Keeps the only thread busy until what is returned is dropped.
fn hold(encoder: &Encoder, entry: &Arc<Entry>) -> Sender<()> {
    let (release, hold) = channel::<()>();
    let wish = encoder.wish(entry, move |_| {
        let _ = hold.recv();
        None
    });
    assert_eq!(wish, Wish::InHand);
    release
}

#[test]
fn many_who_want_one_entry_have_it_made_once() {
    let encoder = Encoder::start(1).unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    for round in 0..50 {
        let entry = plain(round, 100_000);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let (encoder, entry, made) = (&encoder, &entry, Arc::clone(&made));
                scope.spawn(move || {
                    let wish = encoder.wish(entry, move |it| {
                        made.fetch_add(1, Ordering::Relaxed);
                        recipe().make(it)
                    });
                    assert_eq!(wish, Wish::InHand);
                    block_on(encoder.desk.ended(entry));
                    assert!(matches!(entry.other_coding(), OtherCoding::Made(_)));
                });
            }
        });
    }
    assert_eq!(made.load(Ordering::Relaxed), 50);
    assert_eq!(encoder.desk.lock().bytes, 0);
}

#[test]
fn what_is_plain_stays_plain_while_the_queue_is_full_and_what_is_zipped_waits() {
    let encoder = Encoder::start(1).unwrap();
    let first = plain(0, QUEUE_BYTES_MAX as usize + 1);
    let busy = hold(&encoder, &first);
    let (refused, waiting) = (plain(1, 100_000), zipped(2, 1_000_000));
    block_on(encoder.made(&refused, recipe()));
    assert_eq!(refused.other_coding(), OtherCoding::NotMade);
    std::thread::scope(|scope| {
        let zipped = scope.spawn(|| block_on(encoder.made(&waiting, recipe())));
        while encoder.desk.lock().room.is_empty() {
            std::thread::yield_now();
        }
        drop(busy);
        zipped.join().unwrap();
    });
    assert!(matches!(waiting.other_coding(), OtherCoding::Made(it) if it.body.len() == 1_000_000));
    block_on(encoder.made(&refused, recipe()));
    assert!(matches!(refused.other_coding(), OtherCoding::Made(_)));
}

#[test]
fn the_number_of_jobs_is_bounded_too() {
    let encoder = Encoder::start(1).unwrap();
    let busy = hold(&encoder, &plain(0, 1));
    let small: Vec<_> = (0..2 * JOBS_MAX).map(|_| plain(1, 10)).collect();
    let taken = small.iter().filter(|it| encoder.wish(it, |_| None) == Wish::InHand).count();
    assert_eq!(taken, JOBS_MAX - 1);
    drop(busy);
    small.iter().for_each(|it| block_on(encoder.desk.ended(it)));
    assert!(encoder.desk.lock().making.is_empty());
}

#[test]
fn a_panic_leaves_nobody_waiting_and_the_entry_as_it_was() {
    let encoder = Encoder::start(1).unwrap();
    let entry = plain(1, 100_000);
    assert_eq!(encoder.wish(&entry, |_| panic!("on purpose")), Wish::InHand);
    block_on(encoder.desk.ended(&entry));
    assert_eq!(entry.other_coding(), OtherCoding::NotMade);
    block_on(encoder.made(&entry, recipe()));
    assert!(matches!(entry.other_coding(), OtherCoding::Made(_)));
}

#[test]
fn the_other_coding_has_a_head_of_its_own() {
    let plain = plain(1, 50_000);
    let made = recipe().make(&plain).unwrap();
    assert_eq!(made.fields.single("Content-Encoding"), Some(&b"gzip"[..]));
    assert_eq!(made.fields.single("ETag"), Some(&b"W/\"e\""[..]));
    let length = made.body.len().to_string();
    assert_eq!(made.fields.single("Content-Length"), Some(length.as_bytes()));
    assert_eq!(encode::gunzip(&made.body, 50_000).as_deref(), Ok(&plain.body()[..]));

    let made = recipe().make(&zipped(1, 50_000)).unwrap();
    assert_eq!(made.body, plain.body());
    assert!(!made.fields.contains("Content-Encoding") && !made.fields.contains("Accept-Ranges"));
    assert_eq!(made.fields.single("ETag"), Some(&b"W/\"e\""[..]));
}

#[test]
fn a_core_does_what_takes_it_a_millisecond_and_a_half() {
    let (usual, high) = (recipe(), Recipe { halvings: 3, ..recipe() });
    assert!(
        usual.is_for_core(&plain(1, 64 * 1024)) && !usual.is_for_core(&plain(1, 64 * 1024 + 1))
    );
    assert!(high.is_for_core(&plain(1, 8 * 1024)) && !high.is_for_core(&plain(1, 8 * 1024 + 1)));
    // Small as it is stored, large as it is sent.
    assert!(usual.is_for_core(&zipped(1, 64 * 1024)) && !usual.is_for_core(&zipped(1, 1 << 20)));
}

/// RFC 9530 section 3.1: a digest is of one coding.
#[test]
fn no_digest_goes_with_the_other_coding() {
    let digests = ["Content-Digest", "Repr-Digest", "Content-MD5", "digest"];
    let all: Vec<(&str, &str)> = digests.iter().map(|name| (*name, "sha-256=:AAAA:")).collect();
    let plain = plain(1, 4_000);
    let zipped = encode::gzip(plain.body(), encode::Level::default()).unwrap();
    let zipped = entry(zipped, &[&all[..], &[("Content-Encoding", "gzip")]].concat());
    let plain = entry(plain.body().to_vec(), &all);
    for stored in [plain, zipped] {
        let made = recipe().make(&stored).unwrap();
        for name in digests {
            assert!(stored.fields().contains(name) && !made.fields.contains(name), "{name}");
        }
    }
}

/// RFC 1952 section 2.2, RFC 9110 section 8.4.1.3.
#[test]
fn several_members_and_the_old_name_are_inflated_too() {
    let plain = plain(1, 4_000);
    let one = encode::gzip(plain.body(), encode::Level::default()).unwrap();
    for coding in ["gzip", "x-gzip", "X-GZIP"] {
        let stored = entry([&one[..], &one].concat(), &[("Content-Encoding", coding)]);
        assert!(stored.marks().gzip);
        let made = recipe().make(&stored).unwrap();
        assert_eq!(made.body, [&plain.body()[..], plain.body()].concat());
        assert!(!made.fields.contains("Content-Encoding"));
    }
    // What it becomes is not known beforehand, so that no core may do it.
    let long = entry([&one[..], &one].concat(), &[("Content-Encoding", "gzip")]);
    assert!(!recipe().is_for_core(&long) && recipe().is_for_core(&zipped(1, 4_000)));
}
