//! Answers of the origin, well-formed and not (RFC 9112 sections 4, 6 and 7).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

mod edge;
mod support;

use edge::Then::{Close, Keep};
use edge::{Edge, Failures, Then, must, post, raw_origin, read};
use support::{Origin, Proxy};

/// Method, rule, what the origin sends (see [`bytes`]), what it does then, status and body at the
/// client.
type Row = (&'static str, &'static str, &'static str, Then, u16, &'static str);

/// The text with its shorthands written out.
fn bytes(text: &str) -> Vec<u8> {
    let large = format!("{{ok}}X: {}\r\n{{abc}}", "x".repeat(300_000));
    let many = format!("{{ok}}{}{{abc}}", "X: 1\r\n".repeat(200));
    let interims = format!("{}{{ok}}{{abc}}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(100));
    text.replace("{large}", &large)
        .replace("{many}", &many)
        .replace("{interims}", &interims)
        .replace("{102}", "HTTP/1.1 102 Processing\r\n\r\n")
        .replace("{evil}", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        .replace("{ok}", "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n")
        .replace("{abc}", "Content-Length: 3\r\n\r\nabc")
        .into_bytes()
}

/// Asks for each row twice over one connection, so that nothing of a first answer can be taken
/// for the second.
#[track_caller]
fn assert_answers(rows: &[Row]) {
    let origin = raw_origin(rows.iter().map(|row| (bytes(row.2), row.3)).collect());
    let edge = Edge::over(origin, |setup| setup.with("client.request_timeout", 5));
    let mut failures = Failures::default();
    for (number, row) in rows.iter().enumerate() {
        failures.note(row.1, check(&edge.proxy, row, number));
    }
    failures.assert_none();
}

fn check(proxy: &Proxy, row: &Row, number: usize) -> Result<(), String> {
    let (method, .., status, body) = *row;
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send_request(method, &format!("/api/r/{number}"), &[], "");
        let answer = read(&mut client, method)?;
        must(answer.status == status, || format!("{} {}", answer.status, answer.text()))?;
        if status == 502 && method != "HEAD" {
            must(answer.problem() == "upstream_invalid", || answer.problem())?;
        } else {
            must(answer.text() == body, || format!("the body {:?}", answer.text()))?;
        }
        client.send_request("GET", "/api/next", &[], "");
        let next = read(&mut client, "GET")?;
        must(next.text() == "GET /next", || format!("then {:?}", next.text()))?;
    }
    Ok(())
}

#[test]
fn answers_of_every_framing_reach_the_client() {
    assert_answers(FRAMED);
}

#[test]
fn broken_answers_become_502() {
    assert_answers(BROKEN);
}

/// What follows a complete answer belongs to nobody; the connection it came on is not used again.
#[test]
fn rfc9112_9_3_nothing_behind_an_answer_becomes_the_next_one() {
    assert_answers(FOLLOWED);
}

/// RFC 8297, RFC 9110 section 15.2: 103 goes on, without what belongs to the origin's connection.
#[test]
fn rfc8297_2_early_hints_are_passed_on_and_100_is_not() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
    for cache_control in ["no-store", "max-age=60"] {
        let answer = format!(
            "HTTP/1.1 100 Continue\r\n\r\n{hints}{hints}HTTP/1.1 200 OK\r\n\
             Cache-Control: {cache_control}\r\nContent-Length: 1\r\n\r\nx"
        );
        let edge = Edge::over(support::Origin::fixed(answer), |setup| setup);
        let streamed = edge::post("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n");
        let whole = edge::head("GET /api/x HTTP/1.1", "");
        let past = edge::head("DELETE /api/x HTTP/1.1", "");
        for bytes in [whole, past, streamed] {
            let response = edge.send(&bytes).read("GET");
            let hints: Vec<_> = response.interim.iter().map(|it| it.0).collect();
            assert_eq!((response.status, hints), (200, vec![103, 103]), "{bytes}");
            for (_, fields) in &response.interim {
                assert_eq!(fields.only("Link"), Some("</a>"));
                assert_eq!(
                    (fields.only("X-Hop"), fields.only("Connection")),
                    (None, None),
                    "{bytes}"
                );
            }
        }
    }
}

/// An answer to HEAD and a 304 state the length of what they don't carry (RFC 9110 section 8.6).
#[test]
fn rfc9110_8_6_the_length_of_a_head_is_passed_on() {
    let bytes = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 12345\r\n\r\n";
    let edge = Edge::over(support::Origin::fixed(bytes), |setup| setup);
    let response = edge.proxy.ask("HEAD", "/api/x", &[]);
    assert_eq!(response.field("Content-Length"), Some("12345"));
    let validated = "HTTP/1.1 304 Not\r\nETag: \"a\"\r\n\r\n";
    let edge = Edge::over(support::Origin::fixed(validated), |setup| setup);
    let fields =
        [("If-None-Match", "\"a\""), ("Cache-Control", "no-store"), ("Authorization", "x")];
    let response = edge.proxy.ask("GET", "/api/x", &fields);
    assert!(matches!(response.status, 304 | 502), "{response:?}");
}

/// What must reach the client.
const FRAMED: &[Row] = &[
    ("GET", "9112-6.2 a length", "{ok}{abc}", Keep, 200, "abc"),
    ("GET", "9112-5.1 a space before the colon", "{ok}X : a\r\n{abc}", Keep, 200, "abc"),
    ("GET", "9112-6.2 no bytes", "{ok}Content-Length: 0\r\n\r\n", Keep, 200, ""),
    (
        "GET",
        "9112-7.1 chunks",
        "{ok}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        Keep,
        200,
        "abc",
    ),
    ("GET", "9112-7.1 no chunk", "{ok}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Keep, 200, ""),
    (
        "GET",
        "9112-7.1.1 extensions",
        "{ok}Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n",
        Keep,
        200,
        "abc",
    ),
    (
        "GET",
        "9112-7.1.2 trailers",
        "{ok}Transfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n",
        Keep,
        200,
        "abc",
    ),
    ("GET", "9112-6.3 until the close", "{ok}\r\nabc", Close, 200, "abc"),
    ("GET", "9112-6.3 until the close, nothing", "{ok}\r\n", Close, 200, ""),
    ("GET", "9112-9.3 HTTP/1.0 until the close", "HTTP/1.0 200 OK\r\n\r\nabc", Close, 200, "abc"),
    ("GET", "9112-9.3 HTTP/1.0 with a length", "HTTP/1.0 200 OK\r\n{abc}", Close, 200, "abc"),
    (
        "GET",
        "9112-9.3 HTTP/1.0 kept alive",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n{abc}",
        Keep,
        200,
        "abc",
    ),
    ("GET", "9112-9.6 close", "{ok}Connection: close\r\n{abc}", Close, 200, "abc"),
    ("GET", "9112-4 no reason", "HTTP/1.1 200 \r\n{abc}", Keep, 200, "abc"),
    ("GET", "9112-4 not even a space", "HTTP/1.1 200\r\n{abc}", Keep, 200, "abc"),
    ("GET", "9110-15 an unregistered status", "HTTP/1.1 299 Odd\r\n{abc}", Keep, 299, "abc"),
    ("GET", "9110-15.3.5 204", "HTTP/1.1 204 No\r\n\r\n", Keep, 204, ""),
    (
        "GET",
        "9110-15.3.5 204 with a length of 0",
        "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
        Keep,
        204,
        "",
    ),
    (
        "GET",
        "9110-15.4.5 304 nobody asked for",
        "HTTP/1.1 304 Not\r\nETag: \"a\"\r\n\r\n",
        Keep,
        502,
        "",
    ),
    ("HEAD", "9110-9.3.2 HEAD with a length", "{ok}Content-Length: 3\r\n\r\n", Keep, 200, ""),
    ("HEAD", "9110-9.3.2 HEAD, chunked", "{ok}Transfer-Encoding: chunked\r\n\r\n", Keep, 200, ""),
    ("HEAD", "9110-9.3.2 HEAD without framing", "{ok}\r\n", Keep, 200, ""),
    ("GET", "9110-15.2.1 100 first", "HTTP/1.1 100 Continue\r\n\r\n{ok}{abc}", Keep, 200, "abc"),
    (
        "GET",
        "9110-15.2 an unknown 1xx first",
        "HTTP/1.1 199 Soon\r\nX: 1\r\n\r\n{ok}{abc}",
        Keep,
        200,
        "abc",
    ),
    ("GET", "9110-15.2 three of them", "{102}{102}{102}{ok}{abc}", Keep, 200, "abc"),
];

/// What must not.
const BROKEN: &[Row] = &[
    (
        "GET",
        "9112-6.3 both",
        "{ok}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Keep,
        502,
        "",
    ),
    (
        "GET",
        "9112-6.3 two lengths",
        "{ok}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        Keep,
        502,
        "",
    ),
    ("GET", "9112-6.3 two equal lengths", "{ok}Content-Length: 3\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-6.3 a list of lengths", "{ok}Content-Length: 3, 3\r\n\r\nabc", Keep, 502, ""),
    ("GET", "9112-6.3 a negative length", "{ok}Content-Length: -3\r\n\r\nabc", Keep, 502, ""),
    ("GET", "9112-6.3 a length with a sign", "{ok}Content-Length: +3\r\n\r\nabc", Keep, 502, ""),
    (
        "GET",
        "9112-6.3 a length beyond 64 bits",
        "{ok}Content-Length: 18446744073709551616\r\n\r\nabc",
        Keep,
        502,
        "",
    ),
    ("GET", "9112-6.1 another coding", "{ok}Transfer-Encoding: gzip\r\n\r\nabc", Close, 502, ""),
    (
        "GET",
        "9112-6.1 a coding before chunked",
        "{ok}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Keep,
        502,
        "",
    ),
    (
        "GET",
        "9112-6.1 chunked twice",
        "{ok}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Keep,
        502,
        "",
    ),
    (
        "GET",
        "9112-6.1 chunked in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Close,
        502,
        "",
    ),
    ("GET", "9112-5.2 a folded field", "{ok}X: a\r\n b\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-5.1 a space between", "{ok}X Y: a\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-5 no colon", "{ok}X\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-2.2 LF alone", "{ok}X: 1\n{abc}", Keep, 502, ""),
    ("GET", "9112-2.2 CR in a value", "{ok}X: 1\r2\r\n{abc}", Keep, 502, ""),
    ("GET", "9110-5.5 NUL in a value", "{ok}X: 1\0\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-2.2 LF behind the status line", "HTTP/1.1 200 OK\n{abc}", Keep, 502, ""),
    ("GET", "9112-4 a status of two digits", "HTTP/1.1 20 OK\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-4 a status of four digits", "HTTP/1.1 2000 OK\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-4 a status below 100", "HTTP/1.1 099 OK\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-4 a status that is no number", "HTTP/1.1 OK 200\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-4 a control byte in the reason", "HTTP/1.1 200 O\x01K\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-4 an empty line first", "\r\n{ok}{abc}", Keep, 502, ""),
    ("GET", "9110-2.5 HTTP/2.0", "HTTP/2.0 200 OK\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-2.3 another protocol", "ICY 200 OK\r\n{abc}", Keep, 502, ""),
    ("GET", "9112-2.3 no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n", Keep, 502, ""),
    ("GET", "9112-2.3 HTTP/0.9", "<html></html>\n", Close, 502, ""),
    (
        "GET",
        "9110-15.2.2 101",
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        Keep,
        502,
        "",
    ),
    (
        "GET",
        "9110-15.2 an interim answer with a body",
        "HTTP/1.1 103 Hints\r\n{abc}{ok}{abc}",
        Keep,
        502,
        "",
    ),
    ("GET", "9110-15.2 interim answers without end", "{interims}", Keep, 502, ""),
    ("GET", "9110-5.4 a head that is too large", "{large}", Keep, 502, ""),
    ("GET", "9110-5.4 too many fields", "{many}", Keep, 502, ""),
    ("POST", "9112-6.3 the same for POST", "{ok}Content-Length: 3\r\n{abc}", Keep, 502, ""),
    (
        "HEAD",
        "9112-6.3 the same for HEAD",
        "{ok}Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
        Keep,
        502,
        "",
    ),
];

/// Answers with something behind them.
const FOLLOWED: &[Row] = &[
    ("GET", "9112-6.2 behind a length", "{ok}{abc}{evil}", Keep, 200, "abc"),
    ("GET", "9112-6.2 behind no bytes", "{ok}Content-Length: 0\r\n\r\n{evil}", Keep, 200, ""),
    (
        "GET",
        "9112-7.1 behind the last chunk",
        "{ok}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{evil}",
        Keep,
        200,
        "abc",
    ),
    ("GET", "9112-6.3 behind a 204", "HTTP/1.1 204 No\r\n\r\n{evil}", Keep, 204, ""),
    (
        "GET",
        "9112-6.3 a 204 with a length",
        "HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil",
        Keep,
        204,
        "",
    ),
    ("HEAD", "9112-6.3 HEAD with a body", "{ok}Content-Length: 4\r\n\r\nevil", Keep, 200, ""),
    ("HEAD", "9112-6.3 behind HEAD", "{ok}Content-Length: 4\r\n\r\n{evil}", Keep, 200, ""),
    ("GET", "9112-6.3 one byte", "{ok}{abc}X", Keep, 200, "abc"),
    ("GET", "9112-2.2 an empty line", "{ok}{abc}\r\n", Keep, 200, "abc"),
];

/// RFC 9112 section 6.1: an origin of HTTP/1.0 is sent a length, not chunks.
#[test]
fn rfc9112_6_1_chunks_are_not_sent_to_an_origin_of_http10() {
    let origin = Origin::script(|connection| {
        let Some(request) = connection.request() else { return };
        let framing = request.field("Transfer-Encoding").or(request.field("Content-Length"));
        let said = format!("{framing:?} {}", String::from_utf8_lossy(&request.body));
        connection.send(format!("HTTP/1.0 200 OK\r\nCache-Control: no-store\r\n\r\n{said}"));
        connection.close();
    });
    let edge = Edge::over(origin, |setup| setup);
    let upload = post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let mut said = Vec::new();
    for _ in 0..2 {
        said.push(edge.send(&upload).read("POST").text().to_owned());
    }
    // Nothing was known of it the first time.
    assert_eq!(said, ["Some(\"chunked\") abcde", "Some(\"5\") abcde"]);
}
