use std::rc::Rc;
use std::time::Instant;

use monoio::io::Canceller;

use super::*;
use crate::net::runtime::testing::on_both;

/// Two ends of one connection, inside the running runtime.
pub(crate) fn pair() -> (Tcp, Tcp) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let near = StdStream::connect(address).unwrap();
    let (far, peer) = listener.accept().unwrap();
    (Tcp::from_std(near, address).unwrap(), Tcp::from_std(far, peer).unwrap())
}

/// Bytes whose order and place can be checked.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 65_536) as u8).collect()
}

async fn read_exactly(tcp: &Tcp, len: usize) -> Vec<u8> {
    let mut buf = Vec::with_capacity(len);
    while buf.len() < len {
        let (result, back) = tcp.read(buf).await;
        assert_ne!(result.unwrap(), 0, "ended early");
        buf = back;
    }
    buf
}

/// Waits for a condition that the other side's packets bring about.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "condition never came");
        monoio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn read_appends_and_leaves_what_is_there() {
    on_both(|| async {
        let (near, far) = pair();
        far.write_all(b" world".to_vec()).await.0.unwrap();
        let mut buf = Vec::with_capacity(64);
        buf.extend_from_slice(b"hello");
        let (result, buf) = near.read(buf).await;
        assert_eq!(result.unwrap(), 6);
        assert_eq!(buf, b"hello world");
        assert_eq!((near.bytes_received(), far.bytes_sent()), (6, 6));
    });
}

#[test]
fn end_of_stream_reads_as_zero_and_keeps_the_buffer() {
    on_both(|| async {
        let (near, far) = pair();
        far.shutdown_write().unwrap();
        let mut buf = Vec::with_capacity(8);
        buf.push(b'x');
        let (result, buf) = near.read(buf).await;
        assert_eq!(result.unwrap(), 0);
        assert_eq!(buf, b"x");
    });
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    on_both(|| async {
        let (near, far) = pair();
        let (near, far) = (Rc::new(near), Rc::new(far));
        let data = pattern(8 << 20);
        let write = |tcp: Rc<Tcp>, data: Vec<u8>| {
            monoio::spawn(async move { tcp.write_all(data).await.0.unwrap() })
        };
        let writers = [write(near.clone(), data.clone()), write(far.clone(), data.clone())];
        let read = |tcp: Rc<Tcp>, len| monoio::spawn(async move { read_exactly(&tcp, len).await });
        let readers = [read(near.clone(), data.len()), read(far.clone(), data.len())];
        for reader in readers {
            assert!(reader.await == data);
        }
        for writer in writers {
            writer.await;
        }
        assert_eq!(near.bytes_sent(), 8 << 20);
    });
}

#[test]
fn head_and_body_arrive_in_order_whatever_their_size() {
    on_both(|| async {
        for body_len in [0, 1, COALESCE_BYTES_MAX, COALESCE_BYTES_MAX + 1, 3 << 20] {
            let (near, far) = pair();
            let body = pattern(body_len);
            let sent = Bytes::from(body.clone());
            let writer = monoio::spawn(async move {
                let (result, head) = near.write_two(b"head".to_vec(), sent).await;
                result.unwrap();
                assert!(head.is_empty() && head.capacity() >= 4);
            });
            let got = read_exactly(&far, 4 + body_len).await;
            assert_eq!(&got[..4], b"head");
            assert!(got[4..] == body);
            writer.await;
            assert_eq!(far.read(Vec::with_capacity(1)).await.0.unwrap(), 0);
        }
    });
}

#[test]
fn readable_waits_and_consumes_nothing() {
    on_both(|| async {
        let (near, far) = pair();
        assert_eq!(near.peek_state(), Peek::Nothing);
        let near = Rc::new(near);
        let waiter = near.clone();
        let waiter = monoio::spawn(async move { waiter.readable().await.unwrap() });
        // The waiter holds the reader's place: proof that it waits and has not returned.
        until(|| near.reader.half.try_borrow_mut().is_err()).await;
        far.write_all(b"abc".to_vec()).await.0.unwrap();
        assert_eq!(waiter.await, Peek::Data);
        assert_eq!(near.readable().await.unwrap(), Peek::Data);
        assert_eq!(read_exactly(&near, 3).await, b"abc");
        assert_eq!(near.peek_state(), Peek::Nothing);
        drop(far);
        assert_eq!(near.readable().await.unwrap(), Peek::Closed);
        assert_eq!(near.peek_state(), Peek::Closed);
    });
}

#[test]
fn dropped_readable_leaves_the_connection_usable() {
    on_both(|| async {
        let (near, far) = pair();
        let waited = monoio::time::timeout(Duration::from_millis(5), near.readable()).await;
        assert!(waited.is_err());
        far.write_all(b"abc".to_vec()).await.0.unwrap();
        assert_eq!(read_exactly(&near, 3).await, b"abc");
    });
}

#[test]
fn reset_is_told_from_an_end() {
    on_both(|| async {
        let (near, far) = pair();
        // Closing with unread bytes resets the connection.
        near.write_all(b"unread".to_vec()).await.0.unwrap();
        until(|| far.peek_state() == Peek::Data).await;
        drop(far);
        until(|| near.peek_state() == Peek::Error).await;
    });
}

#[test]
fn shutdown_both_wakes_a_pending_read_and_a_pending_write() {
    on_both(|| async {
        let (near, _far) = pair();
        let near = Rc::new(near);
        let tcp = near.clone();
        let reader = monoio::spawn(async move { tcp.read(Vec::with_capacity(8)).await.0 });
        let tcp = near.clone();
        let writer = monoio::spawn(async move { tcp.write_all(vec![0; 64 << 20]).await.0 });
        // The peer reads nothing: the writer stalls once both socket buffers are full.
        let mut last = 0;
        until(|| {
            let sent = near.bytes_sent();
            let stalled = sent > 0 && sent == last;
            last = sent;
            stalled
        })
        .await;
        near.shutdown_both();
        assert!(matches!(reader.await, Ok(0) | Err(_)));
        assert!(writer.await.is_err());
    });
}

#[test]
fn cancelled_read_loses_no_byte() {
    on_both(|| async {
        let (near, far) = pair();
        let (near, total) = (Rc::new(near), 20_000_usize);
        let data = pattern(total);
        let sent = data.clone();
        let writer = monoio::spawn(async move {
            for chunk in sent.chunks(7) {
                far.write_all(chunk.to_vec()).await.0.unwrap();
            }
        });
        let (mut got, mut cancelled) = (Vec::with_capacity(total), 0);
        while got.len() < total {
            let canceller = Canceller::new();
            let handle = canceller.handle();
            let race = monoio::spawn(async move {
                // Ends the turn, so that the read is in flight when the cancel comes.
                monoio::time::sleep(Duration::from_micros(50)).await;
                canceller.cancel();
            });
            let (result, back) = near.read_cancelable(got, handle).await;
            got = back;
            match result {
                Ok(count) => assert_ne!(count, 0),
                Err(error) => {
                    assert!(is_canceled(&error), "{error}");
                    cancelled += 1;
                }
            }
            race.await;
        }
        writer.await;
        assert!(got == data, "bytes lost after {cancelled} cancels");
    });
}

#[test]
fn cancel_ends_a_read_that_nothing_arrives_for() {
    on_both(|| async {
        let (near, far) = pair();
        let canceller = Canceller::new();
        let handle = canceller.handle();
        let cancel = monoio::spawn(async move {
            monoio::time::sleep(Duration::from_millis(1)).await;
            canceller.cancel();
        });
        let (result, buf) = near.read_cancelable(Vec::with_capacity(8), handle).await;
        assert!(is_canceled(&result.unwrap_err()));
        cancel.await;
        far.write_all(b"late".to_vec()).await.0.unwrap();
        let (result, buf) = near.read(buf).await;
        assert_eq!((result.unwrap(), buf.as_slice()), (4, b"late".as_slice()));
    });
}

#[test]
fn second_reader_is_refused_and_a_dropped_read_abandons_the_direction() {
    on_both(|| async {
        let (near, far) = pair();
        let near = Rc::new(near);
        let tcp = near.clone();
        let pending = monoio::time::timeout(Duration::from_millis(20), async move {
            tcp.read(Vec::with_capacity(8)).await.0
        });
        let pending = monoio::spawn(pending);
        until(|| near.reader.half.try_borrow_mut().is_err()).await;
        let second = near.read(Vec::with_capacity(8)).await.0.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        assert!(pending.await.is_err(), "the read timed out");
        let after = near.read(Vec::with_capacity(8)).await.0.unwrap_err();
        assert_eq!(after.kind(), io::ErrorKind::Other);
        // The other direction is as good as before.
        near.write_all(b"abc".to_vec()).await.0.unwrap();
        assert_eq!(read_exactly(&far, 3).await, b"abc");
    });
}

#[test]
fn try_write_and_try_read_never_wait() {
    on_both(|| async {
        let (near, far) = pair();
        let mut buf = [0; 8];
        let error = near.try_read(&mut buf).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(far.try_write(b"abc").unwrap(), 3);
        until(|| near.peek_state() == Peek::Data).await;
        assert_eq!(near.try_read(&mut buf).unwrap(), 3);
        while far.try_write(&[0; 65_536]).is_ok() {}
        assert_eq!(far.try_write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}
