use std::future::Future;
use std::pin::pin;
use std::task::Context;

use super::*;

fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn chunk(text: &'static str) -> Option<Piece> {
    Some(Piece::Chunk(Bytes::from_static(text.as_bytes())))
}

fn full() -> Bytes {
    Bytes::from(vec![0; PASSING_BYTES_MAX])
}

#[test]
fn late_reader_of_a_kept_body_starts_at_the_beginning() {
    let body = Growing::new(Keep::All);
    let mut early = body.reader().unwrap();
    assert_eq!(now(early.next()), None);
    body.push(Bytes::from_static(b"ab"));
    body.push(Bytes::new());
    body.push(Bytes::from_static(b"cd"));
    assert_eq!(now(early.next()), chunk("ab"));
    body.finish(Complete::Whole);
    body.finish(Complete::CutShort);
    let mut late = body.reader().unwrap();
    assert_eq!(now(late.next()), chunk("ab"));
    assert_eq!(now(late.next()), chunk("cd"));
    assert_eq!(now(late.next()), Some(Piece::End));
    assert_eq!(body.concatenated(), "abcd");
}

#[test]
fn a_kept_body_goes_on_without_readers() {
    let body = Growing::new(Keep::All);
    drop(body.reader());
    body.abandon();
    body.push(full());
    assert_eq!((now(body.room()), now(body.deserted())), (Some(true), None));
    assert_eq!(body.concatenated().len(), PASSING_BYTES_MAX);
}

#[test]
fn writer_of_a_passing_body_waits_for_its_reader() {
    let body = Growing::new(Keep::Passing);
    body.push(full());
    assert_eq!(now(body.room()), None);
    let mut reader = body.reader().unwrap();
    assert!(matches!(now(reader.next()), Some(Piece::Chunk(_))));
    assert_eq!(now(body.room()), Some(true));
    drop(reader);
    assert_eq!((now(body.room()), now(body.deserted())), (Some(false), Some(())));
}

#[test]
fn cut_body_is_reported_after_its_chunks() {
    let body = Growing::new(Keep::Passing);
    let mut reader = body.reader().unwrap();
    body.push(Bytes::from_static(b"a"));
    body.finish(Complete::CutShort);
    assert_eq!(now(reader.next()), chunk("a"));
    assert_eq!(now(reader.next()), Some(Piece::Truncated));
}

#[test]
fn a_body_that_nobody_began_to_read_is_abandoned() {
    let body = Growing::new(Keep::Passing);
    body.push(full());
    body.abandon();
    assert_eq!(now(body.room()), Some(false));
    assert!(body.reader().is_none());
}

#[test]
fn a_body_that_is_let_go_is_read_to_its_end_by_those_who_read_it() {
    let body = Growing::new(Keep::All);
    let (mut fast, mut slow) = (body.reader().unwrap(), body.reader().unwrap());
    for text in ["a", "b", "c"] {
        body.push(Bytes::from_static(text.as_bytes()));
    }
    assert_eq!(now(fast.next()), chunk("a"));
    assert_eq!(now(fast.next()), chunk("b"));
    assert_eq!(now(slow.next()), chunk("a"));
    assert!(body.let_go());
    assert!(body.reader().is_none(), "the beginning is gone");
    body.push(full());
    assert_eq!(now(body.room()), None, "the slower one has not taken it");
    assert_eq!(now(fast.next()), chunk("c"));
    assert!(matches!(now(fast.next()), Some(Piece::Chunk(_))));
    for text in ["b", "c"] {
        assert_eq!(now(body.room()), None);
        assert_eq!(now(slow.next()), chunk(text));
    }
    drop(slow);
    assert_eq!(now(body.room()), Some(true));
    body.finish(Complete::Whole);
    assert_eq!(now(fast.next()), Some(Piece::End));
}

#[test]
fn a_body_that_is_let_go_without_readers_has_none_any_more() {
    for read_before in [false, true] {
        let body = Growing::new(Keep::All);
        body.push(full());
        if read_before {
            drop(body.reader());
        }
        assert!(!body.let_go());
        assert_eq!(now(body.room()), Some(false));
        assert!(body.reader().is_none());
    }
}

/// One who comes after the first has left is read for.
#[test]
fn a_body_that_is_let_go_goes_on_for_who_came_after_it_was_abandoned() {
    let body = Growing::new(Keep::All);
    body.abandon();
    let mut late = body.reader().unwrap();
    assert!(body.let_go());
    body.push(Bytes::from_static(b"a"));
    assert_eq!((now(body.room()), now(late.next())), (Some(true), chunk("a")));
}

#[test]
fn a_kept_body_is_given_up_only_while_nobody_reads_it() {
    let body = Growing::new(Keep::All);
    let reader = body.reader().unwrap();
    assert_eq!((body.is_read(), now(body.unread()), body.give_up()), (true, None, false));
    assert_eq!(now(body.passing()), None);
    drop(reader);
    assert_eq!((body.is_read(), now(body.unread()), body.give_up()), (false, Some(()), true));
    assert_eq!(now(body.passing()), Some(()));
    assert!(body.reader().is_none());
}

/// Who waits for the whole learns at once that there will be none.
#[test]
fn letting_a_body_go_wakes_who_waits_for_the_whole() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let count = Arc::new(Count(std::sync::atomic::AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let body = Growing::new(Keep::All);
    let _reader = body.reader().unwrap();
    let mut waiting = pin!(body.passing());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(body.let_go());
    assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1);
}
