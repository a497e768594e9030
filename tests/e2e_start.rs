//! Starting and ending: what refuses to start says why in one line; what ends, ends in order.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::fs;
use std::net::TcpListener;

use nix::sys::signal::Signal;
use support::client::request;
use support::{Fault, Gate, Origin, Refused, Setup, answer, eventually};

/// One clear line on stderr, nothing on stdout, and the exit code.
#[track_caller]
fn assert_refused(refused: &Refused, codes: &[i32], words: &[&str]) {
    assert!(refused.code.is_some_and(|code| codes.contains(&code)), "{refused:?}");
    assert!(!refused.stdout.contains("listening on"), "{refused:?}");
    let lines: Vec<&str> = refused.stderr.lines().filter(|it| !it.trim().is_empty()).collect();
    let telling = lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert_eq!(telling, 1, "one line with {words:?} in {refused:#?}");
    assert_eq!(lines.len(), 1, "no other line: {refused:#?}");
    assert!(!refused.stderr.contains("panicked"), "{refused:?}");
}

fn origin() -> Origin {
    Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"))
}

#[test]
fn first_line_names_version_and_address() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    let first = proxy.stdout().lines().next().unwrap().to_owned();
    let expected =
        format!("apiproxyd {} listening on http://{}", env!("CARGO_PKG_VERSION"), proxy.addr());
    assert_eq!(first, expected);
    assert!(proxy.addr().ip().is_loopback(), "loopback unless told otherwise");
}

#[test]
fn start_tells_what_runs() {
    let origin = origin();
    let proxy = Setup::over(&origin).start();
    for word in [&origin.addr().to_string(), "cores", "sqlite", "no rate limit", "private"] {
        eventually(word, || proxy.stdout().contains(word));
    }
    let driver = |text: String| text.contains("io_uring") || text.contains("epoll");
    eventually("the driver", || driver(proxy.stdout()));
}

#[test]
fn wrong_value_is_refused_with_its_path() {
    let refused = Setup::over(&origin()).with("cache.ttl", "soon").refused();
    assert_refused(&refused, &[64], &["cache.ttl"]);
}

#[test]
fn unreadable_configuration_is_refused() {
    let setup = Setup::over(&origin());
    let missing = setup.home().join("missing.json");
    let refused = setup.arg("--config").arg(missing.to_str().unwrap()).refused();
    // Given twice, clap may refuse first: either way it is a fault of usage.
    assert_eq!(refused.code, Some(64), "{refused:?}");
}

#[test]
fn unknown_argument_is_a_fault_of_usage() {
    let refused = Setup::over(&origin()).arg("--no-such-argument").refused();
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("--no-such-argument"), "{refused:?}");
}

#[test]
fn occupied_port_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = Setup::over(&origin()).with("server.port", port).refused();
    assert_refused(&refused, &[64, 70], &[&format!("127.0.0.1:{port}"), "in use"]);
}

/// Both set SO_REUSEPORT: the kernel alone would let the second one in.
#[test]
fn port_of_another_instance_is_refused() {
    let origin = origin();
    let first = Setup::over(&origin).start();
    let refused = Setup::over(&origin).with("server.port", first.addr().port()).refused();
    assert_refused(&refused, &[64, 70], &[&first.addr().to_string(), "in use"]);
    assert_eq!(first.get("/api/v1/x").status, 200, "the first one still serves");
}

/// A file where a folder should be: that stops root, too.
#[test]
fn unreadable_certificate_is_refused() {
    let setup = Setup::over(&origin());
    let missing = setup.home().join("missing.pem");
    let path = missing.to_str().unwrap().to_owned();
    let setup = setup
        .with("server.tls_enabled", true)
        .with("server.tls_cert_file", path.as_str())
        .with("server.tls_key_file", path.as_str());
    assert_refused(&setup.refused(), &[64, 70], &[&path]);
}

#[test]
fn certificate_without_a_certificate_is_refused() {
    let setup = Setup::over(&origin());
    let empty = setup.home().join("empty.pem");
    fs::write(&empty, "not a certificate").unwrap();
    let path = empty.to_str().unwrap().to_owned();
    let setup = setup
        .with("server.tls_enabled", true)
        .with("server.tls_cert_file", path.as_str())
        .with("server.tls_key_file", path.as_str());
    assert_refused(&setup.refused(), &[64, 70], &[&path]);
}

#[test]
fn private_upstream_is_refused_with_the_remedy_unless_allowed() {
    let origin = origin();
    let refused = Setup::over(&origin).without("security", "block_private_ips").refused();
    assert_refused(&refused, &[64], &["127.0.0.1", "--allow-private-upstream"]);

    let allowed = Setup::over(&origin).without("security", "block_private_ips");
    let proxy = allowed.arg("--allow-private-upstream").start();
    assert_eq!(proxy.get("/api/v1/x").status, 200);
}

#[test]
fn name_that_resolves_to_a_private_address_is_refused_with_the_remedy() {
    let origin = origin();
    let setup = Setup::at(&format!("http://localhost:{}", origin.addr().port()));
    let refused = setup.without("security", "block_private_ips").refused();
    assert_refused(&refused, &[64, 70], &["localhost", "--allow-private-upstream"]);
}

#[test]
fn cache_folder_and_file_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let origin = origin();
    let setup = Setup::over(&origin);
    let folder = setup.home().join("deep/cache");
    let setup = setup.with("cache.path", folder.join("cache.db").to_str().unwrap());
    let proxy = setup.start();
    proxy.get("/api/v1/x");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("cache.db")), 0o600);
    proxy.stop();
}

#[test]
fn either_signal_ends_an_idle_daemon_with_0() {
    let origin = origin();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut proxy = Setup::over(&origin).start();
        let mut idle = proxy.connect();
        idle.get("/api/v1/x");
        proxy.signal(signal);
        assert_eq!(proxy.await_exit(), Some(0), "{signal}: {}", proxy.stderr());
        idle.expect_close();
    }
}

#[test]
fn request_in_flight_is_completed_before_the_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        if connection.request().is_none() {
            return;
        }
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        held.pass();
        connection.send("5\r\n-last\r\n0\r\n\r\n");
    });
    let mut proxy = Setup::over(&origin).start();
    let addr = proxy.addr();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/v1/x", &[], ""));
    client.await_text("first");
    proxy.signal(Signal::SIGTERM);
    eventually("the port is given up", || std::net::TcpStream::connect(addr).is_err());
    assert!(proxy.lives());
    gate.open();
    let response = client.read("GET");
    assert_eq!((response.status, response.text()), (200, "first-last"));
    client.expect_close();
    assert_eq!(proxy.await_exit(), Some(0), "{}", proxy.stderr());
}

#[test]
fn request_that_never_ends_is_cut_at_the_shutdown_timeout() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        if connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            held.pass();
        }
    });
    let mut proxy = Setup::over(&origin).with("server.shutdown_timeout", 1).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/v1/x", &[], ""));
    client.await_text("first");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.await_exit(), Some(0), "{}", proxy.stderr());
    assert!(matches!(client.try_read("GET"), Err(Fault::Cut(_))));
    gate.open();
}

#[test]
fn what_was_answered_before_the_end_is_stored_by_then() {
    let origin = Origin::respond(|request| {
        answer(200, &[("Cache-Control", "max-age=600")], &request.target)
    });
    let setup = Setup::over(&origin);
    let proxy = setup.start();
    let mut client = proxy.connect();
    for number in 0..200 {
        client.get(&format!("/api/{number}"));
    }
    drop(client);
    proxy.stop();
    let proxy = setup.start();
    let mut client = proxy.connect();
    for number in 0..200 {
        assert_eq!(client.get(&format!("/api/{number}")).cache(), "HIT", "{number}");
    }
    assert_eq!(origin.count(), 200);
}
