//! Bytes that no honest peer sends, at every moment of a connection: always a clean error.

use std::time::Instant;

use super::*;

/// Until a write that nobody reads has filled all buffers on its way.
async fn until_stalled(tls: &TlsStream) {
    let mut last = (0, Instant::now());
    until(|| {
        let sent = tls.tcp().bytes_sent();
        if sent != last.0 {
            last = (sent, Instant::now());
        }
        sent > 100_000 && last.1.elapsed() > Duration::from_millis(20)
    })
    .await;
}

/// Records that no honest peer sends, at least one of each kind that rustls tells apart.
fn garbage() -> Vec<Vec<u8>> {
    let random: Vec<u8> =
        (0..600_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let record =
        |kind: u8, len: u16, body: &[u8]| [&[kind, 3, 3][..], &len.to_be_bytes(), body].concat();
    vec![
        random.clone(),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
        record(23, 600, &random),
        record(22, 600, &random),
        record(21, 600, &random),
        record(21, 2, &[2, 80]),
        record(20, 1, &[7]),
        record(99, 600, &random),
        record(23, 0, &[]),
        record(23, u16::MAX, &random),
    ]
}

#[test]
fn garbage_before_the_handshake_is_a_clean_error() {
    on_both(|| async {
        let party = party(&[], &[]);
        for bytes in garbage() {
            let (near, far) = pair();
            let server = monoio::spawn(accept(far, party.server.clone()));
            near.write_all(bytes.clone()).await.0.unwrap();
            near.shutdown_write().unwrap();
            assert!(server.await.is_err(), "{bytes:?}");

            let (near, far) = pair();
            let client = monoio::spawn(connect(near, party.client.clone(), localhost()));
            far.write_all(bytes.clone()).await.0.unwrap();
            far.shutdown_write().unwrap();
            assert!(client.await.is_err(), "{bytes:?}");
        }
    });
}

#[test]
fn garbage_within_the_handshake_is_a_clean_error_answered_by_an_alert() {
    on_both(|| async {
        let party = party(&[], &[]);
        for bytes in garbage() {
            let (near, far) = pair();
            let server = monoio::spawn(accept(far, party.server.clone()));
            let mut hello = Vec::new();
            let mut client = ClientConnection::new(party.client.clone(), localhost()).unwrap();
            client.write_tls(&mut hello).unwrap();
            hello.extend_from_slice(&bytes);
            near.write_all(hello).await.0.unwrap();
            near.shutdown_write().unwrap();
            assert!(server.await.is_err(), "{bytes:?}");
            // ServerHello and what follows it came back, whatever came after the hello.
            let (result, answer) = near.read(Vec::with_capacity(16)).await;
            assert!(result.is_err() || answer.first() == Some(&22), "{answer:?}");
        }
    });
}

#[test]
fn garbage_after_the_handshake_ends_reading_but_not_before_earlier_data() {
    on_both(|| async {
        for bytes in garbage() {
            let (client, server) = connected().await;
            client.write_all(b"before".to_vec()).await.0.unwrap();
            client.tcp().write_all(bytes.clone()).await.0.unwrap();
            client.tcp().shutdown_write().unwrap();
            let (count, result) = drain(&server).await;
            let first = result.unwrap_err();
            assert_eq!(count, 6, "{bytes:?}");
            // The same error for ever after.
            let again = server.read(Vec::with_capacity(1)).await.0.unwrap_err();
            assert_eq!(again.kind(), first.kind());
            assert!(matches!(server.peek_state(), Peek::Error | Peek::Closed));
            if first.kind() == io::ErrorKind::InvalidData {
                assert_eq!(server.peek_state(), Peek::Error);
                let write = server.write_all(b"x".to_vec()).await.0;
                assert_eq!(write.unwrap_err().kind(), io::ErrorKind::InvalidData);
                // The alert has left although nobody was writing.
                server.tcp().shutdown_both();
                let told = drain(&client).await.1.unwrap_err();
                let sent_alert = !told.to_string().contains("close_notify");
                assert!(sent_alert || bytes.starts_with(&[21]), "{told} after {bytes:?}");
            }
        }
    });
}

#[test]
fn garbage_while_a_large_write_is_unread_is_a_clean_error() {
    on_both(|| async {
        for bytes in garbage() {
            let (client, server) = connected().await;
            let writer = server.clone();
            let writer = monoio::spawn(async move { writer.write_all(vec![7; 16 << 20]).await.0 });
            until_stalled(&server).await;
            client.tcp().write_all(bytes.clone()).await.0.unwrap();
            client.tcp().shutdown_write().unwrap();
            let (count, result) = drain(&server).await;
            assert_eq!(count, 0);
            result.unwrap_err();
            // The write is still under way; the connection's driver ends it.
            server.tcp().shutdown_both();
            writer.await.unwrap_err();
        }
    });
}
