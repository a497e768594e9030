//! Origins that fail in the middle: nothing partial looks whole, nothing is asked twice that must
//! not be (RFC 9112 sections 8 and 9, RFC 9110 section 9.2.2).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edge::{Edge, Failures, Then, must, post, raw_origin};
use support::{Connection, Fault, Gate, Origin, answer, eventually};

/// A body too long to be gathered before its head is passed on.
fn long() -> String {
    "x".repeat(300_000)
}

#[test]
fn an_answer_cut_after_its_start_cuts_the_client_and_is_not_stored() {
    let body = long();
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n493e0\r\n{body}\r\n");
    let stated = format!("{head}Content-Length: 300001\r\n\r\n{body}");
    let small = format!("{head}Content-Length: 4\r\n\r\nabc");
    let rows = [
        ("9112-8 a short body, closed", small.clone(), Then::Close),
        ("9112-8 a short body, reset", small, Then::Reset),
        ("9112-8 a length, closed", stated.clone(), Then::Close),
        ("9112-8 a length, reset", stated, Then::Reset),
        ("9112-8 no last chunk, closed", chunked.clone(), Then::Close),
        ("9112-8 no last chunk, reset", chunked.clone(), Then::Reset),
        ("9112-8 in the size of a chunk", format!("{chunked}1"), Then::Close),
        ("9112-8 in a chunk", format!("{chunked}5\r\nabc"), Then::Close),
        ("9112-8 in the last chunk", format!("{chunked}0\r\n"), Then::Close),
        ("9112-8 in the trailers", format!("{chunked}0\r\nX: 1\r\n"), Then::Close),
        ("9112-7.1 a bad size", format!("{chunked}zz\r\n"), Then::Keep),
        ("9112-7.1 a negative size", format!("{chunked}-1\r\n"), Then::Keep),
        ("9112-7.1 a size with a space", format!("{chunked}1 \r\na\r\n0\r\n\r\n"), Then::Keep),
        ("9112-7.1 a size beyond 64 bits", format!("{chunked}1ffffffffffffffff\r\n"), Then::Keep),
        ("9112-7.1 no line end behind data", format!("{chunked}1\r\nab\r\n"), Then::Keep),
        ("9112-2.2 LF behind a size", format!("{chunked}1\na\r\n0\r\n\r\n"), Then::Keep),
        ("9112-7.1.2 a bad trailer", format!("{chunked}0\r\nX : 1\r\n\r\n"), Then::Keep),
        ("9112-8 until the close, reset", format!("{head}\r\n{body}"), Then::Reset),
    ];
    for no_store in [false, true] {
        let rows: Vec<(&str, Vec<u8>, Then)> = rows
            .iter()
            .map(|(rule, bytes, then)| {
                let bytes =
                    if no_store { bytes.replace("max-age=60", "no-store") } else { bytes.clone() };
                (*rule, bytes.into_bytes(), *then)
            })
            .collect();
        let origin = raw_origin(rows.iter().map(|it| (it.1.clone(), it.2)).collect());
        let edge = Edge::over(origin, |setup| setup);
        let mut failures = Failures::default();
        for (number, (rule, ..)) in rows.iter().enumerate() {
            failures.note(&format!("{rule}, no-store: {no_store}"), cut(&edge, number));
        }
        failures.assert_none();
    }
}

/// Asks twice: neither answer is whole, and both came from the origin.
fn cut(edge: &Edge, number: usize) -> Result<(), String> {
    let before = edge.origin.count();
    for _ in 0..2 {
        let mut client = edge.proxy.connect();
        client.send_request("GET", &format!("/api/r/{number}"), &[], "");
        match client.try_read("GET") {
            Err(Fault::Cut(_)) => {}
            Ok(answer) if answer.status == 502 => {}
            Ok(answer) => {
                return Err(format!("{} with {} bytes", answer.status, answer.body.len()));
            }
            Err(other) => return Err(format!("{other:?}")),
        }
    }
    let asked = edge.origin.count() - before;
    must(asked >= 2, || format!("asked {asked} times: stored"))
}

/// An HTTP/1.0 client knows the end of such a body by the close alone, so a cut must not look like
/// an end: it gets no answer at all.
#[test]
fn rfc9112_8_a_cut_answer_does_not_look_whole_to_an_http10_client() {
    let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n";
    let origin = raw_origin(vec![(format!("{head}3\r\nabc\r\n").into_bytes(), Then::Close)]);
    let edge = Edge::over(origin, |setup| setup);
    let mut client = edge.send("GET /api/r/0 HTTP/1.0\r\n\r\n");
    // Nothing of it was sent yet, so that the client can be told.
    let answer = client.read("GET");
    assert_eq!((answer.status, answer.field("Connection")), (502, Some("close")), "{answer:?}");
    client.expect_close();
}

/// The origin closes the idle connection in the moment of its reuse, having read the request.
fn closes_at_reuse(connection: &mut Connection) {
    if connection.request().is_some() {
        connection.send(answer(200, &[("Cache-Control", "no-store")], "first"));
        // Whatever comes next on this connection is read and not answered.
        if connection.number == 0 {
            connection.request();
            return;
        }
        while connection.request().is_some() {
            connection.send(answer(200, &[("Cache-Control", "no-store")], "again"));
        }
    }
}

fn origin_that_closes_at_reuse() -> Edge {
    let edge = Edge::over(Origin::script(closes_at_reuse), |setup| setup.with("server.cores", 1));
    assert_eq!(edge.proxy.get("/api/x").text(), "first");
    edge
}

#[test]
fn rfc9110_9_2_2_an_idempotent_request_is_repeated_once_on_a_new_connection() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let edge = origin_that_closes_at_reuse();
        let response = edge.proxy.ask(method, "/api/x", &[]);
        assert_eq!(response.status, 200, "{method}: {response:?}");
        let seen: Vec<String> = edge.origin.requests().into_iter().map(|it| it.method).collect();
        assert_eq!(seen, ["GET", method, method]);
        assert_eq!(edge.origin.connections(), 2);
    }
}

#[test]
fn rfc9110_9_2_2_a_post_is_never_sent_twice() {
    for body in
        ["Content-Length: 2\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
    {
        for json in [false, true] {
            let origin = Origin::script(closes_at_reuse);
            let edge = Edge::over(origin, |setup| {
                setup.with("server.cores", 1).with("security.require_json_body", json)
            });
            assert_eq!(edge.proxy.get("/api/x").text(), "first");
            let bytes = format!(
                "POST /api/x HTTP/1.1\r\nHost: proxy.test\r\n\
                 Content-Type: application/json\r\n{body}"
            );
            let status = edge.send(bytes).read("POST").status;
            let posts = edge.origin.requests().iter().filter(|it| it.method == "POST").count();
            assert_eq!(posts, 1, "{status}");
            assert!(matches!(status, 200 | 502), "{status}");
        }
    }
}

/// All pooled connections may be dead: the repetition takes a new one, not another of those.
#[test]
fn rfc9110_9_2_2_the_repetition_does_not_take_another_dead_connection() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        let Some(first) = connection.request() else { return };
        if first.target.starts_with("/warm") {
            held.pass();
            connection.send(answer(200, &[("Cache-Control", "no-store")], "warm"));
            // As above: read, then closed without an answer.
            connection.request();
            return;
        }
        connection.send(answer(200, &[("Cache-Control", "no-store")], "fresh"));
    });
    let edge = Edge::over(origin, |setup| setup.with("server.cores", 1));
    let mut clients: Vec<_> = (0..4)
        .map(|number| edge.send(edge::head(&format!("GET /api/warm/{number} HTTP/1.1"), "")))
        .collect();
    edge.origin.await_requests(4);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read("GET").text(), "warm");
    }
    assert_eq!(edge.proxy.get("/api/x").text(), "fresh");
    assert_eq!(edge.origin.count(), 6, "one of the dead, one new");
}

/// Nobody knows whether the origin has acted on it: what asks for no change, or says how to tell
/// two from one, goes out once more on another connection, and anything else does not.
#[test]
fn rfc9110_9_2_2_a_reset_of_a_fresh_connection_repeats_what_does_no_harm() {
    let json = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let keyed = format!("{json}Idempotency-Key: 7\r\n");
    for (line, fields, body, sent) in [
        ("GET /api/x HTTP/1.1", "", "", 2),
        ("HEAD /api/x HTTP/1.1", "", "", 2),
        ("OPTIONS /api/x HTTP/1.1", "", "", 2),
        ("POST /api/x HTTP/1.1", &*keyed, "{}", 2),
        ("POST /api/x HTTP/1.1", json, "{}", 1),
        ("PUT /api/x HTTP/1.1", json, "{}", 1),
        ("DELETE /api/x HTTP/1.1", "", "", 1),
    ] {
        let origin = Origin::script(|connection| {
            connection.request();
            connection.reset();
        });
        // JSON, so that the body is whole and can be sent again.
        let edge = Edge::over(origin, |setup| {
            setup.with("client.retry_budget", 1.0).with("security.require_json_body", true)
        });
        let mut client = edge.send(edge::head(line, fields) + body);
        let method = line.split(' ').next().unwrap();
        assert_eq!(client.read(method).status, 502, "{line}");
        assert_eq!(edge.origin.count(), sent, "{line} {fields}");
    }
}

/// An outage must not be answered with twice the load.
#[test]
fn retries_are_a_share_of_the_requests() {
    let origin = Origin::script(|connection| {
        connection.request();
        connection.reset();
    });
    let edge = Edge::over(origin, |setup| {
        setup.with("client.retry_budget", 0.2).with("client.circuit_breaker_enabled", false)
    });
    for number in 0..100 {
        assert_eq!(edge.proxy.get(&format!("/api/{number}")).status, 502);
    }
    let sent = edge.origin.count();
    assert!((115..=121).contains(&sent), "{sent} for 100 requests and a share of 0.2");
}

#[test]
fn rfc9112_9_6_an_answer_before_a_reset_is_an_answer() {
    let origin = Origin::script(|connection| {
        if connection.request().is_some() {
            connection.send(answer(200, &[("Cache-Control", "no-store")], "whole"));
            connection.reset();
        }
    });
    let edge = Edge::over(origin, |setup| setup.with("server.cores", 1));
    for _ in 0..20 {
        // The reset may overtake the answer in the origin's kernel; a part never passes for it.
        let response = edge.proxy.get("/api/x");
        assert!(response.status == 502 || response.text() == "whole", "{response:?}");
    }
}

/// The origin answers a large body early, without reading it (RFC 9112 section 9.5).
#[test]
fn rfc9112_9_5_an_early_answer_reaches_the_client_and_ends_the_sending() {
    for json in [false, true] {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::script(move |connection| {
            if connection.head().is_some() {
                connection.send(answer(413, &[("Connection", "close")], "too much"));
                held.pass();
            }
        });
        let edge = Edge::over(origin, |setup| setup.with("security.require_json_body", json));
        let body = format!("[{}0]", "0,".repeat(5_000_000));
        let fields =
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let mut client = edge.proxy.connect();
        client.try_send(post(&fields, &body)).ok();
        let response = client.read("POST");
        assert_eq!((response.status, response.text()), (413, "too much"), "whole first: {json}");
        gate.open();
    }
}

/// The same while the client has not sent everything: its answer is not destroyed by a reset.
#[test]
fn rfc9112_9_5_an_early_answer_survives_a_client_that_still_sends() {
    // Short enough to be read away, and too long for that.
    for (length, sent) in [(100_000, 100_000), (9_000_000, 200_000)] {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::script(move |connection| {
            if connection.head().is_some() {
                connection.take(1000);
                connection.send(answer(422, &[("Connection", "close")], "no"));
                held.pass();
            }
        });
        let edge = Edge::over(origin, |setup| setup);
        let mut client = TcpStream::connect(edge.proxy.addr()).unwrap();
        client.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let request = post(&format!("Content-Length: {length}\r\n"), &"x".repeat(1000));
        client.write_all(request.as_bytes()).unwrap();
        // The answer is there, and not read yet.
        assert_eq!(client.peek(&mut [0]).unwrap(), 1);
        for _ in 1..sent / 1000 {
            client.write_all(&[b'x'; 1000]).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("a reset");
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 422 ") && answer.ends_with("\r\n\r\nno"), "{answer}");
        gate.open();
    }
}

/// Both directions at once: an origin that answers while it reads gets all of the body.
#[test]
fn rfc9112_9_5_a_body_goes_on_while_the_answer_comes() {
    let origin = Origin::script(|connection| {
        while connection.head().is_some() {
            connection
                .send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 5\r\n\r\n");
            let mut echoed = 0;
            while echoed < 5 {
                let Some(byte) = connection.take(1) else { return };
                if byte[0].is_ascii_alphabetic() {
                    connection.send(byte);
                    echoed += 1;
                }
            }
        }
    });
    let edge = Edge::over(origin, |setup| setup);
    let mut client = edge.send(post("Content-Length: 5\r\n", ""));
    for byte in *b"hello" {
        client.send([byte]);
    }
    assert_eq!(client.read("POST").text(), "hello");
    client.send(post("Transfer-Encoding: chunked\r\n", ""));
    for byte in *b"again" {
        client.send([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read("POST").text(), "again");
}

/// A connection on which a request was cut short is not used for the next one.
#[test]
fn rfc9112_9_3_a_connection_with_half_a_request_is_not_used_again() {
    let edge = Edge::with(|setup| setup.with("server.cores", 1));
    let mut client = edge.send(post("Content-Length: 10\r\n", "half"));
    eventually("the origin hears of it", || edge.origin.connections() == 1);
    client.half_close();
    client.expect_close();
    assert_eq!(edge.proxy.get("/api/next").text(), "GET /next");
    assert_eq!(edge.origin.count(), 1);
    assert_eq!(edge.origin.connections(), 2);
}

/// Late bytes on an idle connection make it unusable, whatever they look like.
#[test]
fn rfc9112_9_3_bytes_on_an_idle_connection_end_it() {
    let (asked, sent) = (Gate::default(), Gate::default());
    let (ask, said) = (asked.clone(), sent.clone());
    let counter = Arc::new(AtomicUsize::new(0));
    let counted = counter.clone();
    let origin = Origin::script(move |connection| {
        while connection.request().is_some() {
            connection.send(answer(200, &[("Cache-Control", "no-store")], "good"));
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                ask.pass();
                connection.send(answer(200, &[], "evil"));
                said.open();
            }
        }
    });
    let edge = Edge::over(origin, |setup| setup.with("server.cores", 1));
    assert_eq!(edge.proxy.get("/api/x").text(), "good");
    asked.open();
    sent.pass();
    for _ in 0..20 {
        assert_eq!(edge.proxy.get("/api/x").text(), "good");
    }
}

#[test]
fn rfc9110_15_6_5_a_silent_origin_is_answered_504() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |connection| {
        connection.request();
        held.pass();
    });
    let edge = Edge::over(origin, |setup| setup.with("client.request_timeout", 1));
    let rows = [edge::head("GET /api/x HTTP/1.1", ""), post("Content-Length: 2\r\n", "{}")];
    for bytes in rows {
        let response = edge.send(bytes).read("GET");
        assert_eq!((response.status, response.problem().as_str()), (504, "upstream_timeout"));
    }
    gate.open();
}
