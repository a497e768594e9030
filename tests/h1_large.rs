//! What is large or comes in many pieces: connections go on behind it, and it costs what it is.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use std::time::Duration;

use edge::{Edge, Failures, head, must, read};
use support::client::request;
use support::{Client, Gate, Origin, Setup, answer, eventually};

const MIB: usize = 1024 * 1024;

/// However long its body was, a request that was read to its end is followed by the next one.
#[test]
fn rfc9112_9_3_connection_goes_on_behind_a_long_body() {
    let edge = Edge::plain();
    let mut failures = Failures::default();
    for bytes in [262_143, 262_144, 262_145, 3 * MIB] {
        let body = "x".repeat(bytes);
        let chunked = format!(
            "POST /api/chunked HTTP/1.1\r\nHost: proxy.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             {bytes:x}\r\n{body}\r\n0\r\n\r\n"
        );
        for (row, upload) in [
            (format!("{bytes} bytes"), request("POST", "/api/counted", &[], &body)),
            (format!("{bytes} bytes, chunked"), chunked.into_bytes()),
        ] {
            let mut client = edge.send([upload, request("GET", "/api/next", &[], "")].concat());
            let both = read(&mut client, "POST").and_then(|first| {
                must(first.field("Connection").is_none(), || "it says close".to_owned())?;
                must(first.status == 200, || first.status.to_string())?;
                let next = read(&mut client, "GET")?;
                must(next.text() == "GET /next", || next.text().to_owned())
            });
            failures.note(&row, both);
        }
    }
    failures.assert_none();
}

/// An origin that answers early leaves a rest of the body, which is read away if it is short.
#[test]
fn rfc9112_9_3_connection_goes_on_behind_a_body_that_was_read_in_part() {
    let origin = Origin::script(|connection| {
        while let Some(head) = connection.head() {
            let early = head.starts_with("POST");
            if early && connection.take(200_000).is_none() {
                return;
            }
            if !connection.send(answer(200, &[("Cache-Control", "no-store")], "x")) || early {
                return;
            }
        }
    });
    let edge = Edge::over(origin, |setup| setup);
    let upload = request("POST", "/api/x", &[], &"x".repeat(400_000));
    let mut client = edge.send(upload);
    let first = client.read("POST");
    assert_eq!((first.status, first.field("Connection")), (200, None), "{first:?}");
    assert_eq!(client.get("/api/y").status, 200);
}

/// A million chunks are read and passed on as they lie in the buffer, not one by one: measured in
/// the CPU time of the same bytes in one chunk.
#[test]
fn rfc9112_7_1_many_small_chunks_cost_little_more_than_few_large_ones() {
    const CHUNKS: usize = 200_000;
    let origin = Origin::respond(|request| match request.target.as_str() {
        "/many" => {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(CHUNKS)).into_bytes()
        }
        _ => answer(200, &[("Cache-Control", "no-store")], request.body.len().to_string()),
    });
    let edge = Edge::over(origin, |setup| setup);
    let spent = |ask: &dyn Fn(&mut Client)| {
        let before = edge.proxy.cpu_time();
        ask(&mut edge.proxy.connect());
        edge.proxy.cpu_time() - before
    };
    let down = spent(&|client| assert_eq!(client.get("/api/many").body.len(), CHUNKS));
    let up = spent(&|client| {
        let fields = "Transfer-Encoding: chunked\r\n";
        client.send(head("POST /api/many-up HTTP/1.1", fields));
        client.send("1\r\nx\r\n".repeat(CHUNKS) + "0\r\n\r\n");
        assert_eq!(client.read("POST").text(), CHUNKS.to_string());
    });
    // One write for each of them took seconds. The bound is for a debug build on a busy machine.
    assert!(down < Duration::from_millis(700), "down: {down:?}");
    assert!(up < Duration::from_millis(700), "up: {up:?}");
}

/// The end of a chunk is part of it: there are clients that hand it on only then.
#[test]
fn rfc9112_7_1_large_chunk_is_sent_with_its_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            connection.send(
                "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            for bytes in [20_000, 200_000] {
                connection.send(format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes)));
                held.pass();
            }
            connection.send("0\r\n\r\n");
        }
    });
    let edge = Edge::over(origin, |setup| setup);
    let mut client = edge.send(head("GET /api/x HTTP/1.1", ""));
    client.await_text("xx\r\n");
    gate.open();
    assert_eq!(client.read("GET").body.len(), 220_000);
}

/// A stored body is shared by all who read it: whoever does not read holds none of it.
#[test]
fn clients_that_do_not_read_hold_no_copies_of_what_is_stored() {
    const CLIENTS: usize = 40;
    let body = "x".repeat(3 * MIB);
    let origin = Origin::fixed(answer(200, &[("Cache-Control", "max-age=600")], &body));
    let setup = Setup::over(&origin).with("server.cores", 1);
    let proxy = setup.start();
    assert_eq!(proxy.get("/api/x").body.len(), body.len());
    assert_eq!(proxy.get("/api/x").cache(), "HIT");
    let before = proxy.rss_bytes();
    let narrow = |_| {
        let mut client = Client::connect_narrow(proxy.addr());
        client.send(request("GET", "/api/x", &[], ""));
        client.await_bytes(16);
        client
    };
    let mut clients: Vec<Client> = (0..CLIENTS).map(narrow).collect();
    let grown = proxy.rss_bytes().saturating_sub(before);
    assert!(grown < (CLIENTS * MIB / 2) as u64, "{grown} bytes for {CLIENTS} clients");
    // Whoever reads after all gets all of it.
    assert_eq!(clients.remove(0).read("GET").body.len(), body.len());
}

/// What is kept of an origin that sends byte by byte is what it sent, not a buffer for each.
#[test]
fn origin_that_dribbles_costs_what_it_sends() {
    const BYTES: usize = 4_000;
    let origin = Origin::script(|connection| {
        while connection.request().is_some() {
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {BYTES}\r\n\r\n"
            ));
            for _ in 0..BYTES {
                connection.send("x");
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    });
    let proxy = Setup::over(&origin).with("server.cores", 1).start();
    assert_eq!(proxy.get("/health").status, 200);
    let before = proxy.rss_bytes();
    let mut readers: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    for (number, reader) in readers.iter_mut().enumerate() {
        reader.send(request("GET", &format!("/api/{number}"), &[], ""));
    }
    for reader in &mut readers {
        assert_eq!(reader.read("GET").body.len(), BYTES);
    }
    let grown = proxy.rss_bytes().saturating_sub(before);
    // A buffer of 4 KiB for each byte would be 64 MiB.
    assert!(grown < 16 * MIB as u64, "{grown} bytes");
}

/// Fields that Connection names end here before anything is looked up: what is stored of a request
/// that hid one must not answer those who show it.
#[test]
fn rfc9110_7_6_1_field_named_in_connection_is_hidden_from_the_cache_too() {
    let origin = Origin::respond(|request| {
        let tenant = request.field("X-Tenant").unwrap_or("none").to_owned();
        answer(200, &[("Cache-Control", "max-age=600"), ("Vary", "X-Tenant")], tenant)
    });
    let proxy = Setup::over(&origin).start();
    let hidden = [("Connection", "keep-alive, x-tenant"), ("X-Tenant", "acme")];
    for _ in 0..2 {
        assert_eq!(proxy.ask("GET", "/api/t", &hidden).text(), "none");
    }
    assert_eq!(proxy.ask("GET", "/api/t", &[("X-Tenant", "acme")]).text(), "acme");
    assert_eq!(proxy.ask("GET", "/api/t", &hidden).text(), "none");
    assert_eq!(proxy.ask("GET", "/api/t", &[]).text(), "none");
    assert_eq!(origin.count(), 2);
}

/// RFC 9110 section 8.6: no interim answer has a Content-Length.
#[test]
fn rfc9110_8_6_interim_answer_passes_on_without_a_length() {
    let origin = Origin::script(|connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nContent-Length: 0\r\n\r\n");
            connection.send(answer(200, &[("Cache-Control", "no-store")], "x"));
        }
    });
    let edge = Edge::over(origin, |setup| setup);
    let mut client = edge.send(head("GET /api/x HTTP/1.1", ""));
    let text = client.await_text("X-Request-Id").to_vec();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (interim, _) = text.split_once("\r\n\r\n").unwrap();
    assert!(interim.contains("103") && interim.contains("Link: <a>"), "{interim}");
    assert!(!interim.contains("Content-Length"), "{interim}");
}

/// RFC 9110 section 9.3.2: a refusal of HEAD has no content, however early it comes.
#[test]
fn rfc9110_9_3_2_refused_head_has_no_content() {
    let edge = Edge::plain();
    for request in
        ["HEAD /api/x HTTP/1.1\r\n\r\n", "HEAD /api/x HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n"]
    {
        let mut client = edge.send(request);
        let answer = String::from_utf8(client.read_to_end()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

/// An empty line behind a request begins no other: nobody waits for an answer to it.
#[test]
fn rfc9112_2_2_stray_line_end_gets_no_answer() {
    let edge = Edge::with(|setup| setup.with("server.read_timeout", 1));
    let mut client = edge.send([&request("GET", "/api/x", &[], "")[..], b"\r\n"].concat());
    assert_eq!(client.read("GET").status, 200);
    client.expect_close();
    eventually("the next one is served", || edge.proxy.get("/api/y").status == 200);
}
