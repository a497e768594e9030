//! Origins by name: one that moves, one with several addresses, one that is not known yet, and one
//! that leads where nobody should go.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::{Connection, Hosts, Metrics, Origin, Proxy, Setup, answer, eventually};

/// Says who it is.
fn named(addr: SocketAddr, name: &'static str) -> Origin {
    Origin::script_at(addr, move |connection: &mut Connection| {
        while connection.request().is_some() {
            connection.send(answer(200, &[("Cache-Control", "no-store")], name));
        }
    })
}

fn local(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// In front of `origin.test` at this port.
fn over(hosts: &Hosts, port: u16) -> Setup {
    let setup = Setup::at(&format!("http://origin.test:{port}"));
    hosts.setup(setup.with("client.resolve_ttl", 1).with("client.circuit_breaker_enabled", false))
}

fn open_connections(proxy: &Proxy) -> f64 {
    Metrics::of(proxy).sum("apiproxyd_upstream_connections", &[])
}

/// New requests go to the new address within the time that a name holds, without an error; what was
/// kept open to the old one is closed, also if nobody asks for anything.
#[test]
fn origin_that_moves_is_followed_and_its_old_connections_are_closed() {
    let Some(hosts) = Hosts::with("127.0.0.1 origin.test\n") else { return };
    let old = named(local(1, 0), "old");
    let new = named(local(2, old.addr().port()), "new");
    let proxy = over(&hosts, old.addr().port()).start();
    assert_eq!(proxy.get("/api/x").text(), "old");
    assert_eq!((old.open(), open_connections(&proxy)), (1, 1.0));

    hosts.set("127.0.0.2 origin.test\n");
    let moved = Instant::now();
    eventually("the old connection is closed", || old.open() == 0);
    assert!(moved.elapsed() < Duration::from_secs(6), "{:?}", moved.elapsed());
    assert_eq!(proxy.get("/api/x").text(), "new");

    hosts.set("127.0.0.1 origin.test\n");
    eventually("it is followed back", || {
        let response = proxy.get("/api/x");
        assert_eq!(response.status, 200);
        response.text() == "old"
    });
    eventually("that connection is closed too", || new.open() == 0);
    let host = format!("origin.test:{}", new.addr().port());
    assert_eq!(new.last().field("Host"), Some(&*host));
}

/// A port that takes no connection: its queue is full. What fills it is to be kept.
fn black_hole(addr: SocketAddr) -> (Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket.listen(0).unwrap();
    let patience = Duration::from_millis(300);
    let filling = (0..8).map_while(|_| TcpStream::connect_timeout(&addr, patience).ok());
    (socket, filling.collect())
}

/// RFC 8305 section 5: an address that does not answer costs a quarter of a second.
#[test]
fn several_addresses_are_tried_in_turn() {
    let Some(hosts) = Hosts::with("127.0.0.3 origin.test\n127.0.0.1 origin.test\n") else { return };
    // The system puts the address first that is nearer to our own (RFC 6724 section 5, rule 9).
    let origin = named(local(3, 0), "here");
    let port = origin.addr().port();
    // At first nobody listens there, later nobody answers.
    for is_silent in [false, true] {
        let _hole = is_silent.then(|| black_hole(local(1, port)));
        let proxy = over(&hosts, port).start();
        let started = Instant::now();
        assert_eq!(proxy.get("/api/x").text(), "here");
        let took = started.elapsed();
        let least = Duration::from_millis(if is_silent { 200 } else { 0 });
        assert!(took >= least && took < Duration::from_secs(5), "{is_silent}: {took:?}");
    }
}

/// Both families, of which one has no origin.
#[test]
fn name_with_both_families_reaches_the_one_that_answers() {
    let Some(hosts) = Hosts::with("::1 origin.test\n127.0.0.1 origin.test\n") else { return };
    let origin = named(local(1, 0), "v4");
    assert_eq!(over(&hosts, origin.addr().port()).start().get("/api/x").text(), "v4");
    // A machine without IPv6 has nothing more to show.
    let Ok(probe) = TcpListener::bind("[::1]:0") else { return };
    drop(probe);
    let origin = named("[::1]:0".parse().unwrap(), "v6");
    assert_eq!(over(&hosts, origin.addr().port()).start().get("/api/x").text(), "v6");
}

/// An error at once, and no more than that: it is asked for again after a second.
#[test]
fn name_that_is_not_known_yet_is_found_when_it_is() {
    let Some(hosts) = Hosts::with("127.0.0.1 localhost\n") else { return };
    let origin = named(local(1, 0), "found");
    let proxy = over(&hosts, origin.addr().port()).start();
    let failed = proxy.get("/api/x");
    assert_eq!((failed.status, failed.problem().as_str()), (502, "upstream_unreachable"));
    let failures = Metrics::of(&proxy).sum("apiproxyd_upstream_failures_total", &["\"resolve\""]);
    assert_eq!(failures, 1.0);
    hosts.set("127.0.0.1 origin.test\n");
    eventually("it is found", || proxy.get("/api/x").status == 200);
}

/// Where a name leads is looked at for each connection, and what is not allowed is never dialled.
/// (At the start it leads nowhere: what it leads to then is refused then.)
#[test]
fn name_that_leads_to_a_private_address_is_refused() {
    let Some(hosts) = Hosts::with("127.0.0.1 localhost\n") else { return };
    let origin = named(local(1, 0), "private");
    let guarded = over(&hosts, origin.addr().port()).with("security.block_private_ips", true);
    for target in ["127.0.0.1", "::1", "169.254.169.254", "10.0.0.1", "::ffff:127.0.0.1"] {
        hosts.set("127.0.0.1 localhost\n");
        let proxy = guarded.start();
        assert_eq!(proxy.get("/api/x").status, 502);
        hosts.set(&format!("{target} origin.test\n"));
        eventually("it is found out", || proxy.get("/api/x").status != 502);
        let refused = proxy.get("/api/x");
        assert_eq!((refused.status, refused.problem().as_str()), (403, "upstream_not_allowed"));
        assert!(!refused.text().contains(target), "{}", refused.text());
        let opened = Metrics::of(&proxy).value("apiproxyd_upstream_connections_opened_total");
        assert_eq!((origin.connections(), opened), (0, 0.0));
    }
}

/// The same at the start, where it can be said to the one who starts it.
#[test]
fn name_that_leads_to_a_private_address_is_refused_at_the_start() {
    let Some(hosts) = Hosts::with("127.0.0.1 origin.test\n") else { return };
    let refused = over(&hosts, 80).with("security.block_private_ips", true).refused();
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("http://origin.test"), "{refused:?}");
}
