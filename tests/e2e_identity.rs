//! Who a client is: behind proxies that are trusted, behind load balancers with PROXY headers, and
//! when it lies about it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::net::{IpAddr, SocketAddr};

use serde_json::json;
use support::client::request;
use support::tls;
use support::{Client, Metrics, Origin, Proxy, Setup, answer, eventually};

fn origin() -> Origin {
    Origin::fixed(answer(200, &[("Cache-Control", "no-store")], "x"))
}

/// The address that the origin is told for a request with these fields.
fn told(proxy: &Proxy, origin: &Origin, fields: &[(&str, &str)]) -> String {
    assert_eq!(proxy.ask("GET", "/api/x", fields).status, 200);
    origin.last().field("X-Forwarded-For").unwrap().to_owned()
}

#[test]
fn a_client_that_nobody_vouches_for_is_its_peer_whatever_it_says() {
    let origin = origin();
    for trusted in [json!([]), json!(["192.0.2.0/24"])] {
        let proxy = Setup::over(&origin).with("security.trusted_proxies", trusted).start();
        for fields in [
            &[][..],
            &[("X-Forwarded-For", "9.9.9.9")],
            &[("X-Forwarded-For", "9.9.9.9, 127.0.0.1")],
            &[("Forwarded", "for=9.9.9.9")],
            &[("X-Real-IP", "9.9.9.9"), ("True-Client-IP", "9.9.9.9"), ("X-Client-IP", "9.9.9.9")],
        ] {
            assert_eq!(told(&proxy, &origin, fields), "127.0.0.1", "{fields:?}");
        }
    }
}

#[test]
fn behind_trusted_proxies_the_last_address_that_is_not_theirs_counts() {
    let origin = origin();
    let trusted = json!(["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"]);
    let proxy = Setup::over(&origin).with("security.trusted_proxies", trusted).start();
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[], "127.0.0.1"),
        (&[("X-Forwarded-For", "192.0.2.7")], "192.0.2.7"),
        // What stands before it was written by the client.
        (&[("X-Forwarded-For", "1.1.1.1, 192.0.2.7")], "192.0.2.7"),
        (
            &[("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "192.0.2.7, 10.0.0.2")],
            "192.0.2.7",
        ),
        (&[("X-Forwarded-For", "127.0.0.1, 192.0.2.7, 10.1.1.1, 2001:db8::5")], "192.0.2.7"),
        (&[("X-Forwarded-For", "[2a00::7]:99")], "2a00::7"),
        (&[("X-Forwarded-For", "::ffff:192.0.2.7")], "192.0.2.7"),
        // Garbage ends the walk at the proxy that sent it.
        (&[("X-Forwarded-For", "192.0.2.7, garbage")], "127.0.0.1"),
        (&[("X-Forwarded-For", "192.0.2.7, unknown, 10.0.0.2")], "10.0.0.2"),
        (&[("Forwarded", "for=1.1.1.1, for=192.0.2.7;proto=https, for=10.0.0.2")], "192.0.2.7"),
        (&[("Forwarded", "for=\"[2a00::7]:99\"")], "2a00::7"),
        (&[("Forwarded", "for=1.1.1.1;x=\", for=192.0.2.7")], "127.0.0.1"),
        (&[("X-Forwarded-For", "192.0.2.7"), ("Forwarded", "for=9.9.9.9")], "192.0.2.7"),
    ];
    for (fields, expected) in rows {
        assert_eq!(told(&proxy, &origin, fields), *expected, "{fields:?}");
    }
}

/// However a client spoofs, it stays one client for the limiter.
#[test]
fn a_spoofed_address_brings_no_new_quota() {
    let origin = origin();
    let proxy = Setup::over(&origin)
        .with("security.rate_limit_enabled", true)
        .with("security.rate_limit_per_ip", 1)
        .with("security.rate_limit_burst", 5)
        .start();
    let admitted = (0..40).filter(|number| {
        let forged = format!("192.0.2.{number}");
        let fields = [("X-Forwarded-For", forged.as_str()), ("Forwarded", "for=9.9.9.9")];
        proxy.ask("GET", "/api/x", &fields).status == 200
    });
    assert_eq!(admitted.count(), 5);
    // The same behind a proxy that appends what it sees.
    let proxy = Setup::over(&origin)
        .with("security.rate_limit_enabled", true)
        .with("security.rate_limit_per_ip", 1)
        .with("security.rate_limit_burst", 5)
        .with("security.trusted_proxies", json!(["127.0.0.1"]))
        .start();
    let admitted = (0..40).filter(|number| {
        let line = format!("192.0.2.{number}, 198.51.100.7");
        proxy.ask("GET", "/api/x", &[("X-Forwarded-For", &line)]).status == 200
    });
    assert_eq!(admitted.count(), 5);
}

/// An address that is only claimed opens no operator's endpoint.
#[test]
fn a_claimed_loopback_address_is_no_operator() {
    let origin = origin();
    let behind = Setup::over(&origin).with("security.proxy_protocol", true).start();
    let clear = request("POST", "/cache/clear", &[], "");
    let mut stranger = Client::connect(behind.addr());
    stranger.send([b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".as_slice(), &clear].concat());
    let refused = stranger.read("POST");
    assert_eq!((refused.status, refused.problem().as_str()), (403, "forbidden"));
    // From this machine, by the balancer's word and by its socket.
    let mut local = Client::connect(behind.addr());
    local.send([b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".as_slice(), &clear].concat());
    assert_eq!(local.read("POST").status, 200);
}

/// A version 2 header: command, family, addresses and additions.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    header.extend_from_slice(block);
    header
}

/// Addresses and ports of both ends.
fn block(source: &str, destination: &str) -> Vec<u8> {
    let ends = [source, destination].map(|it| it.parse::<SocketAddr>().unwrap());
    let mut block = Vec::new();
    for end in ends {
        match end.ip() {
            IpAddr::V4(v4) => block.extend(v4.octets()),
            IpAddr::V6(v6) => block.extend(v6.octets()),
        }
    }
    ends.iter().for_each(|end| block.extend(end.port().to_be_bytes()));
    block
}

/// Headers that are to be accepted, and the client that each names.
fn accepted() -> Vec<(Vec<u8>, &'static str)> {
    let tcp4 = block("192.0.2.1:51234", "192.0.2.2:443");
    let tcp6 = block("[2001:db8::1]:51234", "[2001:db8::2]:443");
    let additions = [tcp4.as_slice(), &[4, 0, 3, 1, 2, 3, 0xe0, 0, 0]].concat();
    let large = [tcp4.as_slice(), &[5, 0x07, 0x00], &[0; 0x700]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 443\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 51234 443\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN what ever\r\n".to_vec(), "127.0.0.1"),
        (v2(1, 0x11, &tcp4), "192.0.2.1"),
        (v2(1, 0x21, &tcp6), "2001:db8::1"),
        (v2(1, 0x11, &additions), "192.0.2.1"),
        (v2(1, 0x11, &large), "192.0.2.1"),
        (v2(1, 0x31, &[0; 216]), "127.0.0.1"),
        (v2(1, 0x00, &[]), "127.0.0.1"),
        // LOCAL: the balancer's own health check.
        (v2(0, 0x00, &[]), "127.0.0.1"),
        (v2(0, 0x11, &tcp4), "127.0.0.1"),
    ]
}

#[test]
fn a_proxy_header_names_the_client_whichever_way_its_bytes_arrive() {
    let origin = origin();
    let proxy = Setup::over(&origin).with("security.proxy_protocol", true).start();
    let get = request("GET", "/api/x", &[], "");
    for (header, client) in accepted() {
        // In one piece with the first two requests of a pipeline.
        let mut whole = Client::connect(proxy.addr());
        whole.send([header.as_slice(), &get, &get].concat());
        assert_eq!([whole.read("GET").status, whole.read("GET").status], [200, 200]);
        assert_eq!(origin.last().field("X-Forwarded-For"), Some(client));
        // And the connection goes on as that client's.
        assert_eq!(whole.get("/api/x").status, 200);
        assert_eq!(origin.last().field("X-Forwarded-For"), Some(client));
    }
    // Byte by byte, the header and what follows it.
    for (header, client) in accepted().into_iter().filter(|it| it.0.len() < 100) {
        let mut slow = Client::connect(proxy.addr());
        for byte in [header.as_slice(), &get].concat() {
            slow.send([byte]);
        }
        assert_eq!(slow.read("GET").status, 200);
        assert_eq!(origin.last().field("X-Forwarded-For"), Some(client));
    }
}

#[test]
fn what_is_no_proxy_header_is_closed_without_a_word_and_counted() {
    let origin = origin();
    let proxy = Setup::over(&origin).with("security.proxy_protocol", true).start();
    let get = request("GET", "/api/x", &[], "");
    let tcp4 = block("192.0.2.1:51234", "192.0.2.2:443");
    let rows: Vec<Vec<u8>> = vec![
        get.clone(),
        b"\x16\x03\x01\x02\x00\x01".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 51234\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 443\n".to_vec(),
        b"PROXY TCP5 192.0.2.1 192.0.2.2 51234 443\r\n".to_vec(),
        [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
        v2(2, 0x11, &tcp4),
        v2(1, 0x12, &tcp4),
        v2(1, 0x11, &tcp4[..4]),
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x21, 0x11, 0xff, 0xff], &[0; 3_000]].concat(),
    ];
    for row in &rows {
        let mut client = Client::connect(proxy.addr());
        client.try_send([row.as_slice(), &get].concat()).ok();
        client.expect_close();
    }
    // A check whether the port is open.
    for _ in 0..3 {
        drop(Client::connect(proxy.addr()));
    }
    let scrape = || {
        let mut client = Client::connect(proxy.addr());
        client.send("PROXY UNKNOWN\r\n");
        Metrics::parse(client.get("/metrics").text())
    };
    let of = |metrics: &Metrics, result: &str| {
        metrics.value(&format!("apiproxyd_proxy_protocol_headers_total{{result=\"{result}\"}}"))
    };
    eventually("the checks are counted", || of(&scrape(), "closed") == 3.0);
    let metrics = scrape();
    assert_eq!(of(&metrics, "refused"), rows.len() as f64);
    assert!(of(&metrics, "local") >= 2.0);
    assert_eq!(of(&metrics, "ok"), 0.0);
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let origin = origin();
    let setup = Setup::over(&origin).with("server.read_timeout", 1);
    let proxy = setup.with("security.proxy_protocol", true).start();
    let mut silent = Client::connect(proxy.addr());
    let mut half = Client::connect(proxy.addr());
    half.send("PROXY TCP4 192.0.2.1 ");
    silent.expect_close();
    half.expect_close();
    let mut client = Client::connect(proxy.addr());
    client.send("PROXY UNKNOWN\r\n");
    let metrics = Metrics::parse(client.get("/metrics").text());
    assert_eq!(metrics.value("apiproxyd_proxy_protocol_headers_total{result=\"timeout\"}"), 2.0);
}

/// With `trusted_proxies` set, strangers must send a header as well, and are not believed.
#[test]
fn a_header_from_a_stranger_is_read_and_not_believed() {
    let origin = origin();
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 443\r\n";
    let get = request("GET", "/api/x", &[("X-Forwarded-For", "9.9.9.9")], "");
    for (trusted, expected) in [
        (json!(["198.51.100.0/24"]), "127.0.0.1"),
        (json!(["127.0.0.1"]), "192.0.2.1"),
        // A proxy before the balancer: its word counts as well.
        (json!(["127.0.0.1", "192.0.2.1"]), "9.9.9.9"),
    ] {
        let setup = Setup::over(&origin).with("security.proxy_protocol", true);
        let proxy = setup.with("security.trusted_proxies", trusted).start();
        let mut client = Client::connect(proxy.addr());
        client.send([header.as_slice(), &get].concat());
        assert_eq!(client.read("GET").status, 200);
        assert_eq!(origin.last().field("X-Forwarded-For"), Some(expected));
    }
}

#[test]
fn a_proxy_header_comes_before_the_tls_handshake() {
    let origin = origin();
    let made = tls::make();
    let setup = Setup::over(&origin).with("security.proxy_protocol", true);
    let proxy = made.shown_by(setup).start();
    for (header, expected) in accepted() {
        let mut client = Client::connect(proxy.addr());
        client.send(&header);
        let mut secure = made.over(client.into_stream()).unwrap();
        assert_eq!(secure.ask("GET", "/api/x", &[]).status, 200);
        let seen = origin.last();
        assert_eq!(seen.field("X-Forwarded-For"), Some(expected));
        assert_eq!(seen.field("X-Forwarded-Proto"), Some("https"));
    }
}

/// From whom X-Forwarded-For is believed.
#[test]
fn the_scheme_that_a_trusted_proxy_says_is_passed_on() {
    let origin = origin();
    for (trusted, said, expected) in [
        (json!(["127.0.0.1"]), &["https"][..], "https"),
        (json!(["127.0.0.1"]), &["HTTPS"], "https"),
        (json!(["127.0.0.1"]), &["http"], "http"),
        (json!(["127.0.0.1"]), &[], "http"),
        (json!(["127.0.0.1"]), &["gopher"], "http"),
        (json!(["127.0.0.1"]), &["https, http"], "http"),
        (json!(["127.0.0.1"]), &["https", "https"], "http"),
        (json!(["192.0.2.1"]), &["https"], "http"),
        (json!([]), &["https"], "http"),
    ] {
        let proxy = Setup::over(&origin).with("security.trusted_proxies", trusted).start();
        let mut fields = vec![("X-Forwarded-For", "198.51.100.1")];
        fields.extend(said.iter().map(|it| ("X-Forwarded-Proto", *it)));
        for method in ["GET", "DELETE"] {
            assert_eq!(proxy.ask(method, "/api/x", &fields).status, 200);
            let seen = origin.last();
            assert_eq!(seen.fields.all("X-Forwarded-Proto").collect::<Vec<_>>(), [expected]);
        }
        // Also where the body is passed on as it comes.
        let mut client = proxy.connect();
        client.send_request("DELETE", "/api/x", &fields, "body");
        assert_eq!(client.read("DELETE").status, 200);
        assert_eq!(origin.last().field("X-Forwarded-Proto"), Some(expected), "{said:?}");
    }
}
