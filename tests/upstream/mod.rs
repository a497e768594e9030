//! The daemon in front of origins that speak TLS, with an authority that it trusts.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::Future;

use crate::support::multiplex::Exchange;
use crate::support::{Authority, Connection, Limits, Metrics, Multiplexing, Origin, Proxy, Setup};

/// In front of an origin that offers HTTP/2 and plays it well.
pub struct Multi {
    pub proxy: Proxy,
    pub origin: Multiplexing,
}

impl Multi {
    /// One core, so that what is counted for a core is exact.
    pub fn over<F>(play: impl Fn(Exchange) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self::with(Limits::default(), |setup| setup.with("server.cores", 1), play)
    }

    /// Configured further.
    pub fn with<F>(
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
        let setup = trusting(Setup::at(&origin.url()), &authority);
        Self { proxy: configure(setup).start(), origin }
    }

    /// The value of a series of `/metrics`.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        Metrics::of(&self.proxy).value(series)
    }
}

/// In front of an origin of plain threads inside TLS.
pub struct Secure {
    pub proxy: Proxy,
    pub origin: Origin,
}

impl Secure {
    /// One core; the origin offers these protocols.
    pub fn over(alpn: &[&str], script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        Self::with(alpn, |setup| setup.with("server.cores", 1), script)
    }

    /// Configured further.
    pub fn with(
        alpn: &[&str],
        configure: impl FnOnce(Setup) -> Setup,
        script: impl Fn(&mut Connection) + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let tls = authority.issue(&["localhost", "127.0.0.1"]).server(alpn);
        let origin = Origin::secure(tls, script);
        let setup = trusting(Setup::over(&origin), &authority);
        Self { proxy: configure(setup).start(), origin }
    }
}

/// With that authority beside those of the platform.
pub fn trusting(setup: Setup, authority: &Authority) -> Setup {
    let file = authority.write(setup.home());
    setup.with("client.ca_file", file.to_str().unwrap())
}
