//! Every wait for an origin ends in time, with the right answer, and with the client that leaves.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use support::client::request;
use support::{Client, Connection, Fault, Metrics, Origin, Proxy, Setup, answer, eventually};

const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const SECOND: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_secs(3);

/// Deadlines of one second, and no breaker.
fn hasty(setup: Setup) -> Setup {
    setup
        .with("client.request_timeout", 1)
        .with("client.dial_timeout", 1)
        .with("client.circuit_breaker_enabled", false)
        .with("security.require_json_body", false)
        .with("security.max_request_body_size", 0)
}

/// Asserts that something took a second, or not much more on a busy machine.
#[track_caller]
fn assert_a_second(started: Instant) {
    let took = started.elapsed();
    assert!(took >= SECOND && took < SECOND + BUSY, "{took:?}");
}

#[track_caller]
fn assert_late(client: &mut Client, method: &str) {
    let late = client.read(method);
    assert_eq!((late.status, late.problem()), (504, "upstream_timeout".to_owned()));
}

/// An address that never answers: the queue of its listener is full, so that the kernel drops
/// whoever knocks.
fn black_hole() -> (Socket, TcpStream, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let queued = TcpStream::connect(address).unwrap();
    let full = format!(":{:04X} 00000000:0000 0A 00000000:00000001 ", address.port());
    eventually("its queue is full", || {
        std::fs::read_to_string("/proc/self/net/tcp").unwrap().contains(&full)
    });
    (listener, queued, address)
}

#[test]
fn address_that_does_not_answer() {
    let (_hole, _queued, address) = black_hole();
    let setup = hasty(Setup::at(&format!("http://{address}")));
    let proxy = setup.with("client.request_timeout", 20).start();
    let started = Instant::now();
    assert_late(proxy.connect().send(request("GET", "/api/v1/x", &[], "")), "GET");
    assert_a_second(started);
}

/// At each point of the answer's head: the time is that of the whole head, not of each byte.
#[test]
fn head_that_stalls_or_drips() {
    let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\n";
    let origin = Origin::script(move |connection| {
        let Some(request) = connection.request() else { return };
        let stop: usize = request.target[1..].parse().unwrap();
        if stop < head.len() {
            connection.send(&head[..stop]);
            return connection.await_close();
        }
        for byte in head.bytes() {
            connection.send([byte]);
            sleep(Duration::from_millis(50));
        }
    });
    let proxy = hasty(Setup::over(&origin)).start();
    let mut clients = Vec::new();
    let started = Instant::now();
    for stop in [0, 1, 9, 16, 30, head.len() - 1, head.len()] {
        let mut client = proxy.connect();
        client.send_request("POST", &format!("/api/{stop}"), &JSON, "{}");
        clients.push(client);
    }
    for client in &mut clients {
        assert_late(client, "POST");
    }
    assert_a_second(started);
    eventually("the connections are closed", || origin.open() == 0);
}

/// A body may take its time as long as something comes.
#[test]
fn body_that_goes_on_slowly_is_whole() {
    let origin = Origin::script(|connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
            for _ in 0..8 {
                connection.send("x");
                sleep(Duration::from_millis(250));
            }
        }
    });
    let proxy = hasty(Setup::over(&origin)).start();
    let started = Instant::now();
    assert_eq!(proxy.get("/api/v1/x").text(), "xxxxxxxx");
    assert!(started.elapsed() > SECOND);
}

#[test]
fn body_that_stalls_is_cut_and_not_stored() {
    let origin = Origin::script(|connection| {
        let Some(request) = connection.request() else { return };
        let keep = if request.target == "/keep" { "max-age=60" } else { "no-store" };
        connection.send(format!("HTTP/1.1 200 OK\r\nCache-Control: {keep}\r\n"));
        connection.send("Content-Length: 8\r\n\r\nxxxx");
        connection.await_close();
    });
    let proxy = hasty(Setup::over(&origin)).start();
    for target in ["/api/keep", "/api/pass", "/api/keep"] {
        let mut client = proxy.connect();
        let started = Instant::now();
        client.send(request("GET", target, &[], ""));
        let Err(Fault::Cut(part)) = client.try_read("GET") else { panic!("not cut") };
        assert_eq!(part.body, b"xxxx");
        assert_a_second(started);
    }
    assert_eq!(origin.count(), 3);
    eventually("the connections are closed", || origin.open() == 0);
}

/// What is gathered before it is sent has the time of the whole exchange, however it drips.
#[test]
fn gathered_body_that_drips() {
    let origin = Origin::script(|connection| {
        if connection.request().is_some() {
            connection.send("HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\n");
            while connection.send("x") {
                sleep(Duration::from_millis(50));
            }
        }
    });
    let proxy = hasty(Setup::over(&origin)).start();
    let started = Instant::now();
    assert_late(proxy.connect().send(request("GET", "/api/v1/x", &[], "")), "GET");
    assert_a_second(started);
    eventually("the connection is closed", || origin.open() == 0);
}

/// The head of an upload, with a length that is not sent to its end.
fn upload(target: &str, length: usize) -> String {
    format!("PUT {target} HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: {length}\r\n\r\n")
}

/// An origin that reads the head of an upload and nothing more.
fn deaf() -> Origin {
    Origin::script(|connection: &mut Connection| {
        if connection.head().is_some() {
            connection.await_hang_up();
        }
    })
}

#[test]
fn upload_that_the_origin_does_not_take() {
    let origin = deaf();
    let proxy = hasty(Setup::over(&origin)).start();
    let mut client = proxy.connect();
    client.send(upload("/api/v1/x", 1 << 30));
    let piece = vec![b'x'; 256 * 1024];
    let mut stalled = Instant::now();
    while client.try_send_part(&piece, Duration::from_millis(300)).is_some() {
        stalled = Instant::now();
    }
    // Once, not once more for an answer to what was not taken.
    assert_late(&mut client, "PUT");
    let took = stalled.elapsed();
    assert!(took < Duration::from_millis(1_900), "{took:?}");
    await_free(&proxy);
}

/// The origin has all of it and says nothing.
#[test]
fn upload_that_is_not_answered() {
    let origin = Origin::script(|connection| {
        if connection.request().is_some() {
            connection.await_close();
        }
    });
    let proxy = hasty(Setup::over(&origin)).start();
    let mut client = proxy.connect();
    client.send_all(&[&upload("/api/v1/x", 5), "hello"]);
    let started = Instant::now();
    assert_late(&mut client, "PUT");
    assert_a_second(started);
}

/// Waits until nothing is under way and no connection is open.
#[track_caller]
fn await_free(proxy: &Proxy) {
    eventually("all is over", || {
        let metrics = Metrics::of(proxy);
        let taken = metrics.sum("apiproxyd_upstream_permits_taken", &[]);
        metrics.value("apiproxyd_requests_in_flight") + taken == 0.0
    });
}

/// A deadline of its own would end each of these too, in half a minute.
#[test]
fn client_that_leaves_ends_what_only_it_waits_for() {
    let origin = Origin::script(move |connection| {
        let Some(head) = connection.head() else { return };
        if head.contains("/stream") {
            connection.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\r\nsome");
        }
        connection.await_close();
    });
    let proxy = Setup::over(&origin).with("security.require_json_body", false).start();
    let asks: [fn(&mut Client); 4] = [
        |client| client.send_request("DELETE", "/api/head", &[], ""),
        |client| {
            client.send(request("GET", "/api/stream", &[], ""));
            client.await_text("some");
        },
        // All of an upload, and the beginning of one.
        |client| client.send_all(&[&upload("/api/upload", 5), "hello"]),
        |client| client.send_all(&[&upload("/api/upload", 50), "hello"]),
    ];
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.connect()).collect();
    clients.iter_mut().zip(asks.iter().cycle()).for_each(|(client, ask)| ask(client));
    eventually("the origin is asked", || origin.open() == 8);
    let started = Instant::now();
    for (number, client) in clients.into_iter().enumerate() {
        if number < 4 { client.reset() } else { drop(client) }
    }
    eventually("the origin is free", || origin.open() == 0);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    await_free(&proxy);
}

/// While the origin takes no more of an upload nothing is read of the client, so that its leave is
/// not seen: the origin's own time ends it.
#[test]
fn client_that_leaves_a_stalled_upload_is_not_waited_for_longer_than_the_origin() {
    let origin = deaf();
    let proxy = hasty(Setup::over(&origin)).with("client.request_timeout", 2).start();
    let mut client = proxy.connect();
    client.send(upload("/api/v1/x", 1 << 30));
    let piece = vec![b'x'; 256 * 1024];
    while client.try_send_part(&piece, Duration::from_millis(300)).is_some() {}
    let started = Instant::now();
    client.reset();
    await_free(&proxy);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// Routes have times of their own.
#[test]
fn time_of_a_route_holds_for_it_alone() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let origin = Origin::respond(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(1_800));
        answer(200, &[NO_STORE], "late")
    });
    let proxy = Setup::over(&origin)
        .with("routes", json!([{ "prefix": "/hasty", "request_timeout": 1 }]))
        .start();
    let mut hasty = proxy.connect();
    hasty.send(request("GET", "/api/hasty/x", &[], ""));
    let mut patient = proxy.connect();
    patient.send(request("GET", "/api/patient/x", &[], ""));
    assert_late(&mut hasty, "GET");
    assert_eq!(patient.read("GET").text(), "late");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// They wait in memory for a client that reads nothing, and what waits for the origin goes on: a
/// write that was dropped with it would leave no way to the client.
#[test]
fn interim_answers_that_a_client_does_not_take_hold_nothing_up() {
    const HINTS: usize = 30;
    let origin = Origin::script(|connection| {
        if connection.request().is_none() {
            return;
        }
        let link = format!("Link: {}\r\n", "x".repeat(8_000)).repeat(15);
        for _ in 0..HINTS {
            connection.send(format!("HTTP/1.1 103 Early Hints\r\n{link}\r\n"));
        }
        connection.await_close();
    });
    for (method, fields, body) in [("GET", &[][..], ""), ("POST", &JSON[..], "{}")] {
        let proxy = hasty(Setup::over(&origin)).with("client.request_timeout", 3).start();
        let mut client = Client::connect_narrow(proxy.addr());
        client.send_request(method, "/api/v1/x", fields, body);
        eventually("it is given up", || {
            Metrics::of(&proxy).sum("apiproxyd_upstream_failures_total", &[]) > 0.0
        });
        let late = client.read(method);
        assert_eq!((late.status, late.interim.len()), (504, HINTS), "{method}");
    }
}
