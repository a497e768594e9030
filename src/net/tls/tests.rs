use std::cell::OnceCell;
use std::path::PathBuf;
use std::time::Duration;

use monoio::io::Canceller;
use monoio::time::{sleep, timeout};

use super::*;
use crate::net::runtime::testing::on_both;
use crate::net::tcp::tests::{pair, pattern, until};

mod garbage;

/// One server identity and a client that trusts it.
struct Party {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    ca_file: PathBuf,
    _dir: tempfile::TempDir,
}

fn party(server_alpn: &[&[u8]], client_alpn: &[&[u8]]) -> Party {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Arc::new(server_config(&cert, &key, server_alpn).unwrap());
    let client = Arc::new(client_config(Some(&cert), client_alpn).unwrap());
    Party { server, client, ca_file: cert, _dir: dir }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

impl Party {
    /// Both ends' outcomes: client, server.
    async fn shake(&self) -> (io::Result<TlsStream>, io::Result<TlsStream>) {
        let (near, far) = pair();
        let server = monoio::spawn(accept(far, self.server.clone()));
        let client = connect(near, self.client.clone(), localhost()).await;
        (client, server.await)
    }

    async fn connected(&self) -> (Rc<TlsStream>, Rc<TlsStream>) {
        let (client, server) = self.shake().await;
        (Rc::new(client.unwrap()), Rc::new(server.unwrap()))
    }
}

async fn connected() -> (Rc<TlsStream>, Rc<TlsStream>) {
    thread_local!(static PARTY: OnceCell<Rc<Party>> = const { OnceCell::new() });
    let party = PARTY.with(|it| it.get_or_init(|| Rc::new(party(&[], &[]))).clone());
    party.connected().await
}

async fn read_exactly(tls: &TlsStream, len: usize) -> Vec<u8> {
    let mut buf = Vec::with_capacity(len);
    while buf.len() < len {
        let (result, back) = tls.read(buf).await;
        assert_ne!(result.unwrap(), 0, "ended early");
        buf = back;
    }
    buf
}

/// Reads to the end; what came, and the error if it was one.
async fn drain(tls: &TlsStream) -> (usize, io::Result<()>) {
    let (mut buf, mut total) = (Vec::with_capacity(64 * 1024), 0);
    loop {
        let (result, back) = tls.read(buf).await;
        buf = back;
        buf.clear();
        match result {
            Ok(0) => return (total, Ok(())),
            Ok(count) => total += count,
            Err(error) => return (total, Err(error)),
        }
    }
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    on_both(|| async {
        let (client, server) = connected().await;
        let data = pattern(8 << 20);
        let mut tasks = Vec::new();
        for tls in [client, server] {
            let (writer, sent, expected) = (tls.clone(), data.clone(), data.clone());
            tasks.push(monoio::spawn(async move {
                writer.write_all(sent).await.0.unwrap();
                writer.close_notify().await.unwrap();
            }));
            tasks.push(monoio::spawn(async move {
                assert!(read_exactly(&tls, expected.len()).await == expected);
                assert_eq!(tls.read(Vec::with_capacity(1)).await.0.unwrap(), 0);
            }));
        }
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn head_and_body_of_any_size_arrive_in_order() {
    on_both(|| async {
        let (client, server) = connected().await;
        for body_len in [0, 1, 16_380, 16_384, 65_536, 65_537, 1 << 20] {
            let (body, tls) = (pattern(body_len), server.clone());
            let sent = Bytes::from(body.clone());
            let write = monoio::spawn(async move {
                let (result, head) = tls.write_two(b"head".to_vec(), sent).await;
                result.unwrap();
                assert!(head.is_empty());
            });
            let got = read_exactly(&client, 4 + body_len).await;
            assert_eq!(&got[..4], b"head");
            assert!(got[4..] == body);
            write.await;
        }
    });
}

#[test]
fn read_appends_no_more_than_the_spare_capacity() {
    on_both(|| async {
        let (client, server) = connected().await;
        server.write_all(pattern(40_000)).await.0.unwrap();
        let mut got = Vec::new();
        while got.len() < 40_000 {
            let mut buf = Vec::with_capacity(7);
            buf.push(b'x');
            let room = buf.capacity();
            let (result, buf) = client.read(buf).await;
            assert_eq!(buf.len(), 1 + result.unwrap());
            assert_eq!((buf[0], buf.capacity()), (b'x', room));
            got.extend_from_slice(&buf[1..]);
        }
        assert!(got == pattern(40_000));
    });
}

#[test]
fn alpn_is_agreed_in_the_servers_order_or_refused() {
    on_both(|| async {
        let both = party(&[b"h2", b"http/1.1"], &[b"http/1.1", b"h2"]);
        let (client, server) = both.connected().await;
        assert_eq!((client.alpn(), server.alpn()), (Some(&b"h2"[..]), Some(&b"h2"[..])));
        let (client, server) = party(&[b"h2"], &[]).connected().await;
        assert_eq!((client.alpn(), server.alpn()), (None, None));
        let (client, server) = party(&[b"h2"], &[b"http/1.1"]).shake().await;
        assert_eq!(client.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(server.unwrap_err().kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn second_connection_resumes_the_session_in_both_versions() {
    on_both(|| async {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let mut party = party(&[], &[]);
            let mut roots = rustls::RootCertStore::empty();
            let pem = std::fs::read(&party.ca_file).unwrap();
            use rustls::pki_types::pem::PemObject;
            roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let client = ClientConfig::builder_with_provider(provider);
            let client = client.with_protocol_versions(&[version]).unwrap();
            let client = client.with_root_certificates(roots).with_no_client_auth();
            party.client = Arc::new(client);
            for resumed in [false, true, true] {
                let (client, server) = party.connected().await;
                assert_eq!(client.inner.tls.borrow().protocol_version(), Some(version.version));
                assert_eq!((client.is_resumed(), server.is_resumed()), (resumed, resumed));
                // The ticket comes with the first data.
                server.write_all(b"x".to_vec()).await.0.unwrap();
                read_exactly(&client, 1).await;
            }
        }
    });
}

#[test]
fn untrusted_or_misnamed_server_is_refused_and_told_so() {
    on_both(|| async {
        let (one, mut other) = (party(&[], &[]), party(&[], &[]));
        other.server = one.server.clone();
        let (client, server) = other.shake().await;
        assert!(client.unwrap_err().to_string().contains("certificate"));
        assert!(server.unwrap_err().to_string().contains("alert"));

        let (near, far) = pair();
        let server = monoio::spawn(accept(far, one.server.clone()));
        let name = ServerName::try_from("example.com").unwrap();
        let error = connect(near, one.client.clone(), name).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("not valid for name"), "{error}");
        assert!(server.await.is_err());
    });
}

#[test]
fn stream_cut_without_close_notify_is_an_error_after_its_data() {
    on_both(|| async {
        let (client, server) = connected().await;
        server.write_all(pattern(1_000)).await.0.unwrap();
        server.tcp().shutdown_write().unwrap();
        let (count, result) = drain(&client).await;
        assert_eq!(count, 1_000);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let (client, server) = connected().await;
        server.write_all(pattern(1_000)).await.0.unwrap();
        server.close_notify().await.unwrap();
        server.close_notify().await.unwrap();
        let error = server.write_all(b"more".to_vec()).await.0.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(drain(&client).await, (1_000, Ok(()))));
        // The other direction is still open.
        client.write_all(b"late".to_vec()).await.0.unwrap();
        assert_eq!(read_exactly(&server, 4).await, b"late");
    });
}

#[test]
fn cancelled_read_loses_no_byte() {
    on_both(|| async {
        let (client, server) = connected().await;
        let data = pattern(200_000);
        let sent = data.clone();
        let writer = monoio::spawn(async move {
            for chunk in sent.chunks(977) {
                server.write_all(chunk.to_vec()).await.0.unwrap();
                sleep(Duration::from_micros(20)).await;
            }
            server
        });
        let (mut got, mut cancelled) = (Vec::with_capacity(data.len()), 0);
        while got.len() < data.len() {
            let canceller = Canceller::new();
            let handle = canceller.handle();
            let cancel = monoio::spawn(async move {
                sleep(Duration::from_micros(50)).await;
                canceller.cancel();
            });
            let (result, back) = client.read_cancelable(got, handle).await;
            got = back;
            match result {
                Ok(count) => assert_ne!(count, 0),
                Err(error) => {
                    assert!(crate::net::tcp::is_canceled(&error), "{error}");
                    cancelled += 1;
                }
            }
            cancel.await;
        }
        writer.await;
        assert!(got == data, "bytes lost after {cancelled} cancels");
    });
}

#[test]
fn shutdown_both_wakes_a_pending_read() {
    on_both(|| async {
        let (client, _server) = connected().await;
        let tls = client.clone();
        let reader = monoio::spawn(async move { tls.read(Vec::with_capacity(8)).await.0 });
        sleep(Duration::from_millis(1)).await;
        client.tcp().shutdown_both();
        assert_eq!(reader.await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn session_tickets_are_no_data_for_an_idle_connection() {
    on_both(|| async {
        let (client, server) = connected().await;
        // The tickets have arrived, unread.
        until(|| client.tcp().peek_state() == Peek::Data).await;
        assert_eq!(client.peek_state(), Peek::Nothing);
        assert_eq!(client.tcp().peek_state(), Peek::Nothing);
        let nothing = timeout(Duration::from_millis(5), client.readable()).await;
        assert!(nothing.is_err(), "{nothing:?}");

        server.write_all(b"data".to_vec()).await.0.unwrap();
        assert_eq!(client.readable().await.unwrap(), Peek::Data);
        assert_eq!(client.peek_state(), Peek::Data);
        assert_eq!(read_exactly(&client, 4).await, b"data");
        server.close_notify().await.unwrap();
        assert_eq!(client.readable().await.unwrap(), Peek::Closed);
        assert_eq!(client.read(Vec::with_capacity(1)).await.0.unwrap(), 0);
    });
}

#[test]
fn peek_is_harmless_beside_a_read() {
    on_both(|| async {
        let (client, server) = connected().await;
        let tls = client.clone();
        let reader = monoio::spawn(async move { read_exactly(&tls, 100_000).await });
        let writer = monoio::spawn(async move { server.write_all(pattern(100_000)).await.0 });
        while !reader.is_finished() {
            let _ = client.peek_state();
            sleep(Duration::from_micros(50)).await;
        }
        writer.await.unwrap();
        assert!(reader.await == pattern(100_000));
    });
}

#[test]
fn try_write_never_waits_and_loses_nothing() {
    on_both(|| async {
        let (client, server) = connected().await;
        let bytes = pattern(5_000_000);
        let (mut sent, mut refused) = (0, 0);
        // Until nothing goes any more: then somebody reads.
        while refused < 3 {
            match server.try_write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    refused += 1;
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        assert!(sent > 0 && sent < bytes.len(), "{sent}");
        let reader = monoio::spawn(async move { read_exactly(&client, 5_000_000).await });
        let (result, _) = server.write_all(bytes[sent..].to_vec()).await;
        result.unwrap();
        assert!(reader.await == bytes);
    });
}

#[test]
fn readers_bytes_get_out_when_the_socket_was_full() {
    on_both(|| async {
        for drop_early in [false, true] {
            let (client, server) = connected().await;
            let mut junk = 0;
            while let Ok(count) = server.tcp().try_write(&[0; 65_536]) {
                junk += count;
            }
            // As a reader would cause it.
            server.inner.tls.borrow_mut().send_close_notify();
            server.inner.flush_now();
            assert_eq!(Rc::strong_count(&server.inner), 2, "a task waits for room");
            let inner = Rc::downgrade(&server.inner);
            let server = (!drop_early).then_some(server);
            let mut total = 0;
            let mut buf = Vec::with_capacity(65_536);
            while drop_early || total < junk + 24 {
                let result;
                (result, buf) = client.tcp().read(buf).await;
                buf.clear();
                match result {
                    Ok(0) | Err(_) => break,
                    Ok(count) => total += count,
                }
            }
            if server.is_some() {
                assert!(total > junk + 20, "{total} of {junk} and an alert");
            }
            // The task has ended; with its connection, all is gone.
            let left = usize::from(server.is_some());
            until(|| inner.strong_count() == left).await;
        }
    });
}

#[test]
fn handshakes_dropped_midway_leave_no_socket() {
    on_both(|| async {
        let party = party(&[], &[]);
        let mut ports = Vec::new();
        for _ in 0..20 {
            let (near, far) = pair();
            ports.push(near.peer_addr().port());
            let shake = accept(far, party.server.clone());
            assert!(timeout(Duration::from_millis(2), shake).await.is_err());
            drop(near);
        }
        // ESTABLISHED or CLOSE_WAIT: somebody still holds the descriptor.
        let held = || {
            let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
            let held = |port: &u16| {
                let ours = format!(":{port:04X} ");
                table.lines().any(|line| {
                    let mut words = line.split_ascii_whitespace().skip(1);
                    let local = words.next().unwrap_or_default();
                    let state = words.nth(1).unwrap_or_default();
                    format!("{local} ").ends_with(&ours) && matches!(state, "01" | "08")
                })
            };
            ports.iter().filter(|port| held(port)).count()
        };
        until(|| held() == 0).await;
    });
}
