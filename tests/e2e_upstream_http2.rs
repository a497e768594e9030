//! Origins that speak HTTP/2 (RFC 9113): one connection for a core, a stream for each exchange.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use support::multiplex::Exchange;
use support::{Authority, Limits, Multiplexing, Proxy, Setup};

/// The daemon in front of an HTTP/2 origin whose certificate it trusts.
struct Edge {
    proxy: Proxy,
    origin: Multiplexing,
}

impl Edge {
    fn over<F>(
        limits: Limits,
        configure: impl FnOnce(Setup) -> Setup,
        play: impl Fn(Exchange) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let authority = Authority::new();
        let tls = authority.issue(&["localhost"]).server(&["h2", "http/1.1"]);
        let origin = Multiplexing::start(tls, limits, play);
        let setup = Setup::at(&origin.url());
        let file = authority.write(setup.home());
        let setup = setup.with("client.ca_file", file.to_str().unwrap());
        Self { proxy: configure(setup).start(), origin }
    }
}

#[test]
fn request_and_answer_go_through() {
    let edge = Edge::over(Limits::default(), |it| it, async |exchange| {
        let body = format!("{} {}", exchange.seen.method, exchange.target());
        exchange.answer(200, &[("cache-control", "max-age=60")], body);
    });
    let answer = edge.proxy.get("/api/v1/x?a=1");
    assert_eq!((answer.status, answer.text()), (200, "GET /v1/x?a=1"));
    assert_eq!(edge.proxy.get("/api/v1/x?a=1").cache(), "HIT");
    assert_eq!(answer.field("Via"), Some("2.0 apiproxyd"));
    assert_eq!(edge.origin.count(), 1);
}
