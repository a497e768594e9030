//! Memory while many large bodies arrive at once, answers and requests: bounded, whatever they are
//! to become.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use support::metrics::Metrics;
use support::{Connection, Gate, Origin, Proxy, Setup, eventually};

const MIB: usize = 1 << 20;
const BODY: usize = 8 * MIB;
const CLIENTS: usize = 20;

/// The one right body of a path.
fn body_of(path: &str) -> Vec<u8> {
    format!("{path} ").bytes().cycle().take(BODY).collect()
}

/// Sends half of an answer, waits until the gate is open, and sends the rest.
fn play(connection: &mut Connection, gate: &Gate, chunked: bool) {
    while let Some(request) = connection.request() {
        let body = body_of(&request.target);
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {BODY}")
        };
        let fields =
            "Cache-Control: public, max-age=600\r\nContent-Type: application/octet-stream\r\n";
        connection.send(format!("HTTP/1.1 200 OK\r\n{fields}{framing}\r\n\r\n"));
        let (first, rest) = body.split_at(BODY / 2);
        for (half, wait) in [(first, true), (rest, false)] {
            for part in half.chunks(64 * 1024) {
                if chunked {
                    connection.send(format!("{:x}\r\n", part.len()));
                }
                connection.send(part);
                if chunked {
                    connection.send("\r\n");
                }
            }
            if wait {
                gate.pass();
            }
        }
        if chunked {
            connection.send("0\r\n\r\n");
        }
    }
}

fn setup(origin: &Origin) -> Setup {
    Setup::over(origin)
        .with("cache.backend", "none")
        .with("cache.memory_cache_max_bytes", 32 * MIB)
        .with("cache.memory_cache_max_object", 2 * BODY)
}

/// The most that the daemon takes until it is stopped.
struct Peak {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Peak {
    fn watch(proxy: &Proxy) -> Self {
        let (stop, pid) = (Arc::<AtomicBool>::default(), proxy.pid());
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !ended.load(Ordering::SeqCst) {
                let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
                let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
                peak = peak.max(pages * 4096);
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn many_at_once(chunked: bool, fields: &[(&str, &str)]) {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| play(connection, &held, chunked));
    let proxy = setup(&origin).start();
    let peak = Peak::watch(&proxy);
    let (right, details) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // The rest comes when each client has the head of his answer: when it is decided about all.
    let (start, decided) = (Barrier::new(CLIENTS), Barrier::new(CLIENTS + 1));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (proxy, right, details) = (&proxy, &right, &details);
            let (start, decided) = (&start, &decided);
            scope.spawn(move || {
                let mut connection = proxy.connect();
                start.wait();
                connection.send_request("GET", &format!("/api/{client}"), fields, "");
                connection.await_bytes(1);
                decided.wait();
                let response = connection.read("GET");
                assert!(response.body == body_of(&format!("/{client}")), "client {client}");
                let told = response.field("Cache-Status").unwrap().contains("detail=no_room");
                details.fetch_add(usize::from(told), Ordering::SeqCst);
                right.fetch_add(1, Ordering::SeqCst);
            });
        }
        decided.wait();
        gate.open();
    });
    assert_eq!(right.load(Ordering::SeqCst), CLIENTS);
    if !chunked {
        // Two of 8 MiB fit into half of 32.
        assert!(details.load(Ordering::SeqCst) >= CLIENTS - 2, "{details:?} were told");
    }
    let peak = peak.end();
    // 160 MiB in all; 16 for bodies that arrive, 32 for entries, copies and queues to clients.
    println!("{} MiB at most", peak >> 20);
    assert!(peak < 110 << 20, "{} MiB", peak >> 20);
    eventually("what was held for them is given back", || {
        let stats = proxy.stats();
        stats["l1"]["size_bytes"].as_u64().unwrap() <= 32 << 20
    });
    // And afterwards there is room again.
    let again = proxy.get("/api/again");
    assert!(again.field("Cache-Status").unwrap().contains("stored"), "{:?}", again.fields);
    assert_eq!(proxy.get("/api/again").cache(), "HIT");
}

#[test]
fn many_large_answers_of_known_length_stay_within_memory() {
    many_at_once(false, &[]);
}

/// They go alone, and are copied while they are passed on.
#[test]
fn many_large_answers_for_authorized_clients_stay_within_memory() {
    many_at_once(false, &[("Authorization", "Bearer x")]);
}

#[test]
fn many_large_answers_of_unknown_length_stay_within_memory() {
    many_at_once(true, &[]);
}

/// Followers that read a body for which memory runs out get all of it.
#[test]
fn readers_of_a_body_that_is_not_kept_get_it_whole() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| play(connection, &held, true));
    let proxy = setup(&origin).start();
    let mut first: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    let mut others: Vec<_> = (0..6).map(|_| proxy.connect()).collect();
    for (number, client) in others.iter_mut().enumerate() {
        client.send_request("GET", &format!("/api/other/{number}"), &[], "");
    }
    for client in &mut first {
        client.send_request("GET", "/api/shared", &[], "");
    }
    std::thread::scope(|scope| {
        for client in &mut first {
            scope.spawn(move || {
                assert!(client.read("GET").body == body_of("/shared"));
            });
        }
        for (number, client) in others.iter_mut().enumerate() {
            scope.spawn(move || {
                assert!(client.read("GET").body == body_of(&format!("/other/{number}")));
            });
        }
        origin.await_requests(7);
        gate.open();
    });
}

/// The limit is the process's, whichever cores the entries are on.
#[test]
fn entries_of_all_cores_together_stay_within_the_limit() {
    let origin = Origin::respond(|request| {
        let body = request.target.bytes().cycle().take(64 * 1024).collect::<Vec<_>>();
        let fields = [("Cache-Control", "max-age=600"), ("Content-Type", "image/x")];
        support::answer(200, &fields, body)
    });
    let limit = 16 * MIB;
    let proxy = Setup::over(&origin)
        .with("cache.backend", "none")
        .with("cache.memory_cache_max_bytes", limit)
        .start();
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (proxy, most) = (&proxy, &most);
            scope.spawn(move || {
                let mut connection = proxy.connect();
                for number in 0..120 {
                    let response = connection.get(&format!("/api/{client}/{number}"));
                    assert_eq!(response.body.len(), 64 * 1024);
                    if number % 10 == 9 {
                        let bytes = proxy.stats()["l1"]["size_bytes"].as_u64().unwrap();
                        most.fetch_max(usize::try_from(bytes).unwrap(), Ordering::SeqCst);
                    }
                }
            });
        }
    });
    // Four times as much as fits went through; what is being put in may be over for a moment.
    let most = most.into_inner();
    assert!((limit / 2..limit + 8 * 128 * 1024).contains(&most), "{most} bytes");
    eventually("the cores have shed what is over", || {
        proxy.stats()["l1"]["size_bytes"].as_u64().unwrap() <= limit as u64
    });
}

/// A body that must be whole before it goes on takes memory for as long as its client likes.
#[test]
fn request_bodies_that_are_held_stay_within_their_memory() {
    let origin = Origin::fixed(support::answer(200, &[("Cache-Control", "no-store")], "x"));
    let proxy = Setup::over(&origin).with("security.max_request_body_memory", 16 * MIB).start();
    let held = || Metrics::of(&proxy).value("apiproxyd_request_body_memory_bytes");
    let part = format!("{:x}\r\n[0{}\r\n", 3 * MIB + 2, " ".repeat(3 * MIB));
    let head = "POST /api/x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    let mut waiting = Vec::new();
    let mut refused = 0;
    for mut client in clients.drain(..) {
        let before = held();
        client.send(head);
        // Who is refused may be so before all is sent.
        let _ = client.try_send(&part);
        eventually("it is held or refused", || {
            !client.is_silent() || held() - before > (3 * MIB) as f64
        });
        if client.is_silent() {
            waiting.push(client);
            continue;
        }
        let response = client.read("POST");
        assert_eq!((response.status, response.problem().as_str()), (503, "overloaded"));
        assert_eq!(response.field("Retry-After"), Some("1"));
        refused += 1;
    }
    assert!((2..=5).contains(&waiting.len()) && refused == CLIENTS - waiting.len(), "{refused}");
    assert!(held() <= 16.0 * 1024.0 * 1024.0);
    let shed = Metrics::of(&proxy).value("apiproxyd_request_bodies_shed_total");
    assert_eq!(shed, refused as f64);
    for mut client in waiting {
        client.send("1\r\n]\r\n0\r\n\r\n");
        assert_eq!(client.read("POST").status, 200);
    }
    eventually("what was held is given back", || held() == 0.0);
    assert_eq!(proxy.connect().post("/api/x", "[1]").status, 200);
}
