//! The certificate is read again: when its files change, and on SIGHUP; a bad one changes nothing.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use std::fs;

use nix::sys::signal::Signal;
use support::tls::{self, Made};
use support::{Origin, Proxy, Setup, answer, eventually};

fn serving(made: &Made) -> (Setup, Proxy, Origin) {
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=60")], "x"));
    let setup = made.shown_by(Setup::over(&origin));
    let proxy = setup.start();
    (setup, proxy, origin)
}

fn serves(proxy: &Proxy, made: &Made) -> bool {
    made.connect(proxy.addr()).is_ok_and(|mut it| it.ask("GET", "/api/x", &[]).status == 200)
}

#[test]
fn a_new_pair_of_files_is_used_without_being_told() {
    let (old, new) = (tls::make(), tls::make());
    let (setup, proxy, _origin) = serving(&old);
    assert!(serves(&proxy, &old) && !serves(&proxy, &new));
    let mut kept = old.connect(proxy.addr()).unwrap();
    new.write(setup.home());
    eventually("the new one is served", || serves(&proxy, &new));
    assert!(!serves(&proxy, &old));
    // Connections that are there go on.
    assert_eq!(kept.ask("GET", "/api/x", &[]).status, 200);
}

#[test]
fn a_signal_reads_it_at_once() {
    let (old, new) = (tls::make(), tls::make());
    let (setup, proxy, _origin) = serving(&old);
    new.write(setup.home());
    proxy.signal(Signal::SIGHUP);
    eventually("the new one is served", || serves(&proxy, &new));
}

#[test]
fn a_bad_file_is_reported_and_the_old_certificate_stays() {
    let (old, other) = (tls::make(), tls::make());
    let (setup, proxy, _origin) = serving(&old);
    // A key of another certificate: halfway through a replacement.
    fs::write(setup.home().join("key.pem"), &other.key).unwrap();
    eventually("it is reported", || proxy.stderr().contains("the old certificate stays"));
    assert!(serves(&proxy, &old));
    fs::write(setup.home().join("key.pem"), "no PEM").unwrap();
    proxy.signal(Signal::SIGHUP);
    eventually("again", || proxy.stderr().matches("the old certificate stays").count() >= 2);
    assert!(serves(&proxy, &old));
    other.write(setup.home());
    eventually("the other one is served", || serves(&proxy, &other));
}
