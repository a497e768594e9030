//! Content coding: who gets gzip, who gets it plain, and what validators then name.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod support;

use libdeflater::{CompressionLvl, Compressor, Decompressor};
use support::client::request;
use support::{Gate, Origin, Proxy, Response, Setup, answer, load};

const GZIP: (&str, &str) = ("Accept-Encoding", "gzip");

/// JSON that does not compress to nothing.
fn json(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 40);
    let mut seed = 1_u64;
    while text.len() < bytes {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.extend(format!("{{\"id\":{},\"name\":\"n{}\"}},", seed >> 40, seed >> 58).bytes());
    }
    text.truncate(bytes);
    text
}

fn gunzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 64 << 20];
    let bytes = Decompressor::new().gzip_decompress(data, &mut out).expect("gzip");
    out.truncate(bytes);
    out
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; data.len() + 1024];
    let bytes = Compressor::new(CompressionLvl::default()).gzip_compress(data, &mut out).unwrap();
    out.truncate(bytes);
    out
}

fn serving(body: &[u8]) -> Origin {
    let fields = [
        ("Cache-Control", "max-age=600"),
        ("Content-Type", "application/json"),
        ("ETag", "\"v1\""),
        ("Accept-Ranges", "bytes"),
    ];
    Origin::fixed(answer(200, &fields, body))
}

fn get(proxy: &Proxy, more: &[(&str, &str)]) -> Response {
    proxy.ask("GET", "/api/v1/x", more)
}

fn is_gzip(response: &Response, body: &[u8]) {
    assert_eq!(response.field("Content-Encoding"), Some("gzip"));
    assert_eq!(response.field("ETag"), Some("W/\"v1\""));
    assert_eq!(response.field("Vary"), Some("Accept-Encoding"));
    assert_eq!(response.field("Accept-Ranges"), None);
    assert!(response.body.len() < body.len() && gunzip(&response.body) == body);
}

fn is_plain(response: &Response, body: &[u8]) {
    assert_eq!(response.field("Content-Encoding"), None);
    assert_eq!(response.field("ETag"), Some("\"v1\""));
    assert_eq!(response.field("Vary"), Some("Accept-Encoding"));
    assert!(response.body == body);
}

#[test]
fn the_first_client_that_wants_gzip_gets_it_from_what_is_stored_plain() {
    for bytes in [2_000, 60_000, 300_000, 3_000_000] {
        let body = json(bytes);
        let origin = serving(&body);
        let proxy = Setup::over(&origin).start();
        is_plain(&get(&proxy, &[]), &body);
        for _ in 0..3 {
            let hit = get(&proxy, &[GZIP]);
            assert_eq!(hit.cache(), "HIT");
            is_gzip(&hit, &body);
            is_plain(&get(&proxy, &[]), &body);
        }
        assert_eq!(origin.count(), 1);
    }
}

/// What is sent while it arrives is sent as it arrives.
#[test]
fn a_body_that_streams_through_is_plain_and_says_that_it_varies() {
    let body = json(3_000_000);
    let (sent, gate) = (body.clone(), Gate::default());
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        if connection.request().is_some() {
            connection.send(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"v1\"\r\n\
                 Content-Type: application/json\r\nContent-Length: 3000000\r\n\r\n",
            );
            connection.send(&sent[..1_000_000]);
            // Until the client has some of it: else all might be here before it is looked at.
            held.pass();
            connection.send(&sent[1_000_000..]);
            connection.await_close();
        }
    });
    let proxy = Setup::over(&origin).start();
    let mut client = proxy.connect();
    client.send(request("GET", "/api/v1/x", &[GZIP], "")).await_text("\r\n\r\n{\"id\"");
    gate.open();
    let miss = client.read("GET");
    assert_eq!(miss.cache(), "MISS");
    is_plain(&miss, &body);
    is_gzip(&get(&proxy, &[GZIP]), &body);
}

#[test]
fn a_small_body_stays_plain_and_a_type_that_does_not_shrink_too() {
    let small = json(900);
    let origin = serving(&small);
    let proxy = Setup::over(&origin).start();
    for _ in 0..3 {
        let response = get(&proxy, &[GZIP]);
        assert_eq!((response.field("Content-Encoding"), response.field("Vary")), (None, None));
        assert!(response.body == small);
    }
    let fields = [("Cache-Control", "max-age=600"), ("Content-Type", "image/jpeg")];
    let image = Origin::fixed(answer(200, &fields, json(50_000)));
    let proxy = Setup::over(&image).start();
    for _ in 0..3 {
        let response = get(&proxy, &[GZIP]);
        assert_eq!((response.field("Content-Encoding"), response.field("Vary")), (None, None));
    }
}

#[test]
fn what_the_origin_zipped_is_kept_so_and_inflated_for_those_who_cannot_read_it() {
    for bytes in [5_000, 2_000_000] {
        let body = json(bytes);
        let zipped = gzip(&body);
        let fields = [
            ("Cache-Control", "max-age=600"),
            ("Content-Type", "application/json"),
            ("Content-Encoding", "gzip"),
            ("ETag", "\"z1\""),
        ];
        let origin = Origin::fixed(answer(200, &fields, &zipped));
        let proxy = Setup::over(&origin).start();
        for turn in 0..3 {
            let as_stored = get(&proxy, &[GZIP]);
            assert_eq!(as_stored.field("ETag"), Some("\"z1\""), "turn {turn}");
            assert_eq!(as_stored.field("Vary"), Some("Accept-Encoding"));
            assert!(as_stored.body == zipped);
            let inflated = get(&proxy, &[]);
            assert_eq!(inflated.field("ETag"), Some("W/\"z1\""), "turn {turn}");
            assert_eq!(inflated.field("Content-Encoding"), None);
            assert_eq!(inflated.field("Vary"), Some("Accept-Encoding"));
            assert!(inflated.body == body);
        }
        assert_eq!(origin.count(), 1);
    }
}

/// RFC 9110 section 13.1.5: a date in If-Range, or a part without it, is of the bytes as stored.
#[test]
fn a_part_is_a_part_of_what_is_stored() {
    let body = json(300_000);
    let origin = serving(&body);
    let proxy = Setup::over(&origin).start();
    is_plain(&get(&proxy, &[]), &body);
    is_gzip(&get(&proxy, &[GZIP]), &body);
    for more in [&[][..], &[("If-Range", "\"v1\"")]] {
        let asked = [&[GZIP, ("Range", "bytes=1000-1999")][..], more].concat();
        let part = get(&proxy, &asked);
        assert_eq!((part.status, part.field("ETag")), (206, Some("\"v1\"")));
        assert_eq!(part.field("Content-Encoding"), None);
        assert!(part.body == body[1000..2000]);
    }
    // The tag of the gzip form names no bytes that parts could be taken of.
    let asked = [GZIP, ("Range", "bytes=1000-1999"), ("If-Range", "W/\"v1\"")];
    assert_eq!(get(&proxy, &asked).status, 200);
}

#[test]
fn a_confirmation_has_the_tag_of_the_form_that_there_would_be() {
    let body = json(300_000);
    let origin = serving(&body);
    let proxy = Setup::over(&origin).start();
    is_plain(&get(&proxy, &[]), &body);
    for turn in 0..2 {
        for known in ["\"v1\"", "W/\"v1\""] {
            let zipped = get(&proxy, &[GZIP, ("If-None-Match", known)]);
            assert_eq!((zipped.status, zipped.field("ETag")), (304, Some("W/\"v1\"")), "{turn}");
            assert_eq!(zipped.field("Vary"), Some("Accept-Encoding"));
            let plain = get(&proxy, &[("If-None-Match", known)]);
            assert_eq!((plain.status, plain.field("ETag")), (304, Some("\"v1\"")), "{turn}");
        }
        is_gzip(&get(&proxy, &[GZIP, ("If-None-Match", "\"v0\"")]), &body);
    }
    assert_eq!(origin.count(), 1);
}

/// RFC 9110 section 7.7, RFC 9111 section 5.2.2.6.
#[test]
fn what_must_not_be_transformed_goes_to_nobody_in_another_coding() {
    let body = json(5_000);
    let zipped = gzip(&body);
    let (plain, coded) = (body.clone(), zipped.clone());
    let origin = Origin::respond(move |asked| {
        let fixed = [
            ("Cache-Control", "max-age=600, no-transform"),
            ("Content-Type", "application/json"),
            ("Vary", "Accept-Encoding"),
        ];
        match (asked.target.as_str(), asked.field("Accept-Encoding")) {
            ("/v1/x", Some("identity")) => answer(200, &fixed, &plain),
            _ => answer(200, &[&fixed[..], &[("Content-Encoding", "gzip")]].concat(), &coded),
        }
    });
    let proxy = Setup::over(&origin).start();
    assert!(get(&proxy, &[GZIP]).body == zipped);
    for condition in [&[][..], &[("Range", "bytes=0-9")], &[("If-None-Match", "\"x\"")]] {
        proxy.clear();
        assert!(get(&proxy, &[GZIP]).body == zipped);
        let before = origin.count();
        let refused = get(&proxy, &[&[("Accept-Encoding", "gzip;q=0")][..], condition].concat());
        assert_eq!((refused.field("Content-Encoding"), refused.cache()), (None, "MISS"));
        assert!(body.starts_with(&refused.body) && !refused.body.is_empty());
        assert_eq!(origin.count(), before + 1);
        assert_eq!(origin.last().field("Accept-Encoding"), Some("identity"));
    }
    // What came plain stays plain, and serves everybody.
    let hit = get(&proxy, &[GZIP]);
    assert_eq!((hit.cache(), hit.field("Content-Encoding")), ("HIT", None));
    assert!(hit.body == body);
    // An origin that has nothing else is taken at its word.
    let only = proxy.ask("GET", "/api/v1/only", &[]);
    assert_eq!(only.field("Content-Encoding"), Some("gzip"));
    assert!(only.body == zipped);
}

/// RFC 9111 section 5.2.1.6.
#[test]
fn a_request_can_forbid_to_transform_what_is_stored() {
    const FIXED: (&str, &str) = ("Cache-Control", "no-transform");
    let body = json(5_000);
    let origin = serving(&body);
    let proxy = Setup::over(&origin).start();
    is_plain(&get(&proxy, &[]), &body);
    is_gzip(&get(&proxy, &[GZIP]), &body);
    let fixed = get(&proxy, &[GZIP, FIXED]);
    assert_eq!(fixed.cache(), "HIT");
    is_plain(&fixed, &body);
    assert_eq!(origin.count(), 1);
}

/// RFC 9530: a digest is of certain bytes.
#[test]
fn digests_go_only_with_the_bytes_they_are_of() {
    let body = json(5_000);
    let digests = ["Content-Digest", "Content-MD5", "Digest", "Repr-Digest"];
    let mut fields = vec![("Cache-Control", "max-age=600"), ("Content-Type", "application/json")];
    fields.extend(digests.map(|name| (name, "sha-256=:AAAA:")));
    fields.push(("ETag", "\"v1\""));
    let origin = Origin::fixed(answer(200, &fields, &body));
    let proxy = Setup::over(&origin).start();
    let kept = |more: &[(&str, &str)]| {
        let response = get(&proxy, more);
        let kept = digests.iter().filter(|name| response.field(name).is_some());
        (response.status, kept.copied().collect::<Vec<_>>())
    };
    assert_eq!(kept(&[]), (200, digests.to_vec()));
    assert_eq!(kept(&[]), (200, digests.to_vec()));
    assert_eq!(kept(&[GZIP]), (200, vec![]));
    // That of the representation holds for each range of it.
    assert_eq!(kept(&[("Range", "bytes=0-4")]), (206, vec!["Repr-Digest"]));
    assert_eq!(kept(&[("Range", "bytes=0-4,10-12")]), (206, vec!["Repr-Digest"]));
    assert_eq!(kept(&[("Range", "bytes=9000-")]), (416, vec![]));
    let same = ("If-None-Match", "\"v1\"");
    assert_eq!(kept(&[same]), (304, vec!["Digest", "Repr-Digest"]));
    assert_eq!(kept(&[same, GZIP]), (304, vec![]));
}

/// RFC 1952 section 2.2, RFC 9110 section 8.4.1.3.
#[test]
fn several_members_and_x_gzip_are_inflated_for_those_who_refuse_gzip() {
    let body = json(5_000);
    let zipped = gzip(&body);
    for (coding, members) in [("gzip", 2), ("x-gzip", 1), ("x-gzip", 3)] {
        let stored = zipped.repeat(members);
        let fields = [
            ("Cache-Control", "max-age=600"),
            ("Content-Type", "application/json"),
            ("Content-Encoding", coding),
            ("ETag", "\"z1\""),
        ];
        let origin = Origin::fixed(answer(200, &fields, &stored));
        let proxy = Setup::over(&origin).start();
        assert!(get(&proxy, &[GZIP]).body == stored);
        for _ in 0..2 {
            let refused = get(&proxy, &[("Accept-Encoding", "gzip;q=0")]);
            assert_eq!((refused.cache(), refused.field("Content-Encoding")), ("HIT", None));
            assert!(refused.body == body.repeat(members), "{coding} {members}");
        }
        assert_eq!(origin.count(), 1);
    }
}

#[test]
fn many_clients_at_once_all_get_the_same_bytes() {
    let body = json(2_000_000);
    let origin = serving(&body);
    let proxy = Setup::over(&origin).start();
    is_plain(&get(&proxy, &[]), &body);
    let mut clients = load::connect_all(proxy.addr(), 60);
    load::send_all(&mut clients, &request("GET", "/api/v1/x", &[GZIP], ""));
    let answers: Vec<Response> = clients.iter_mut().map(|it| it.read("GET")).collect();
    answers.iter().for_each(|it| is_gzip(it, &body));
    assert!(answers.windows(2).all(|it| it[0].body == it[1].body));
}

/// At the highest level this body takes a second or so: one core, which serves others meanwhile.
#[test]
fn a_core_serves_others_while_a_large_body_is_compressed() {
    let body = json(4_000_000);
    let origin = serving(&body);
    let proxy =
        Setup::over(&origin).with("server.cores", 1).with("cache.compression_level", 12).start();
    is_plain(&get(&proxy, &[]), &body);
    let mut waiting = proxy.connect();
    waiting.send(request("GET", "/api/v1/x", &[GZIP], ""));
    let mut other = proxy.connect();
    for _ in 0..20 {
        assert_eq!(other.get("/livez").status, 200);
    }
    assert!(waiting.is_silent(), "the body was compressed before others were served");
    is_gzip(&waiting.read("GET"), &body);
}
