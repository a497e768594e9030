//! Any bytes as a PROXY header, as forwarding fields, as a trace, and in a line of the access log:
//! no panic, what is accepted is within its bound, and a line stays one line of printable ASCII.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use apiproxyd::base::Wall;
use apiproxyd::http::{Version, trace};
use apiproxyd::limit::TrustedProxies;
use apiproxyd::limit::proxy_protocol::{HEADER_BYTES_MAX, Progress, parse};
use apiproxyd::logs::{End, Form, Heard, Line, Masks};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match parse(input) {
        Ok(Progress::Done { consumed, .. }) => {
            assert!(consumed <= input.len() && consumed <= HEADER_BYTES_MAX);
            for cut in 0..consumed {
                assert_eq!(parse(&input[..cut]), Ok(Progress::Incomplete), "{cut}");
            }
        }
        Ok(Progress::Incomplete) => assert!(input.len() < HEADER_BYTES_MAX),
        Err(refusal) => assert!(!refusal.as_str().is_empty()),
    }
    let (one, other) = input.split_at(input.len() / 2);
    let trusted = TrustedProxies::parse(&["10.0.0.0/8"]).unwrap_or_default();
    let peer = IpAddr::from([10, 0, 0, 1]);
    // What a proxy appends decides, whatever stands before it.
    let line = [one, b",192.0.2.7"].concat();
    let lines = [other, &line];
    let client = trusted.client_address(peer, lines.into_iter(), std::iter::empty());
    assert_eq!(client, IpAddr::from([192, 0, 2, 7]));
    let _ = trusted.client_address(peer, std::iter::empty(), lines.into_iter());
    let id = trace::trace_id(std::iter::once(input));
    assert!(id.is_none_or(|it| it.len() == 32));
    let heard = Heard {
        method: "GET",
        path: one,
        query: Some(other),
        host: one,
        version: Version::Http11,
        scheme: "http",
        agent: Some(other),
        trace: id,
    };
    let line = Line {
        at: Wall::from_millis(input.len() as u64),
        took: Duration::ZERO,
        client,
        peer: None,
        key: None,
        heard: Some(heard),
        status: 200,
        bytes: 0,
        cache: "hit",
        detail: None,
        upstream: None,
        end: End::Complete,
        request_id: "id",
    };
    for form in [Form::Json, Form::Text] {
        let mut text = Vec::new();
        line.write(form, &Masks::default(), &mut text);
        assert_eq!(text.pop(), Some(b'\n'));
        assert!(text.len() < 16 * 1024 && text.iter().all(|it| (b' '..=b'~').contains(it)));
    }
});
