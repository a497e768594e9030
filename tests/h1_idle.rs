//! What idle connections cost: next to nothing, whatever they did before.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::Edge;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Client, eventually, load};

/// Connections held idle.
const COUNT: usize = 4000;
/// Measured: 1,340 bytes for each in a debug build, on either driver.
const BYTES_MAX: u64 = 1536;

/// As many descriptors as may be had, here and, inherited, in the daemon.
fn raise_descriptor_limit() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap_or(usize::MAX)
}

fn serve_once(clients: &mut [Client]) {
    for client in clients {
        assert_eq!(client.get("/health").status, 200);
    }
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let limit = raise_descriptor_limit();
    assert!(limit > COUNT + 200, "{limit} descriptors are too few for this test");
    let edge = Edge::plain();
    // What the process needs once.
    serve_once(&mut load::connect_all(edge.proxy.addr(), 50));
    let before = edge.proxy.rss_bytes();
    let mut clients = load::connect_all(edge.proxy.addr(), COUNT);
    serve_once(&mut clients);
    let each = || edge.proxy.rss_bytes().saturating_sub(before) / COUNT as u64;
    eventually("they cost little", || each() <= BYTES_MAX);
    // They live, and are served as before.
    serve_once(&mut clients[..100]);
    drop(clients);
}

/// A connection that was parked answers at once, whole pipelines included.
#[test]
fn a_parked_connection_is_served_again() {
    let edge = Edge::plain();
    let mut clients = load::connect_all(edge.proxy.addr(), 400);
    serve_once(&mut clients);
    for round in 0..3 {
        for client in &mut clients {
            let request = edge::head("GET /livez HTTP/1.1", "");
            client.send(request.repeat(round + 1));
            for _ in 0..=round {
                assert_eq!(client.read("GET").status, 200);
            }
        }
    }
}
