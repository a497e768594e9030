//! Any values in the fields that the policy reads: no panic, and a field section that is passed on
//! is still one.
#![no_main]

use apiproxyd::base::Wall;
use apiproxyd::breaker::pause;
use apiproxyd::cache::{Exchange, RequestFacts, Settings, Vary, storable, stored_fields, targeted};
use apiproxyd::http::date::{parse_http_date, write_http_date};
use apiproxyd::http::range::{Ranges, resolve};
use apiproxyd::http::{Fields, Method, ResponseHead, Version, accept, hop};
use libfuzzer_sys::fuzz_target;

const NAMES: &[&str] = &[
    "Cache-Control", "CDN-Cache-Control", "Expires", "Date", "Age", "Vary", "ETag", "Pragma",
    "Last-Modified", "Connection", "Range", "If-Range", "If-None-Match", "Accept-Encoding",
    "Retry-After", "RateLimit", "Content-Range", "Set-Cookie", "Surrogate-Control",
];

fuzz_target!(|input: &[u8]| {
    let mut fields = Fields::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some((which, value)) = line.split_first() else { continue };
        fields.push(NAMES[usize::from(*which) % NAMES.len()], value);
    }
    let now = Wall::from_secs(1_700_000_000);
    let times = Exchange { requested: now, responded: now };
    let head = ResponseHead { status: 200, version: Version::Http11, fields };
    let request = RequestFacts::parse(&Method::Get, &head.fields);
    let _ = storable(&request, &head, times, &Settings::default());
    let stored = stored_fields(&head, times);
    assert_eq!(Fields::from_wire(stored.as_wire()), Some(stored));
    let _ = (Vary::of(&head.fields), targeted::parse(&head.fields), accept::codings(&head.fields));
    let _ = pause::asked_for(&head, now);
    if let Some(ranges) = head.fields.single("Range").and_then(Ranges::parse) {
        let _ = resolve(&ranges, 1_000);
    }
    if let Some(date) = head.fields.single("Date").and_then(|it| parse_http_date(it, now)) {
        assert_eq!(parse_http_date(&write_http_date(date), now), Some(date));
    }
    let mut kept = head.fields.clone();
    hop::strip_hop_by_hop(&mut kept);
    assert_eq!(Fields::from_wire(kept.as_wire()), Some(kept));
});
