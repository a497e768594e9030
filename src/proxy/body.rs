//! A request's body, as far as it must be whole before the request goes on.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;

use crate::http::json::Checker;
use crate::http::list::field_members;
use crate::http::{Method, media};
use crate::http1::BodyLength;
use crate::metrics::Counter;
use crate::proxy::bodies::{Full, Gathered};
use crate::proxy::core::Core;
use crate::proxy::downstream::{BodyEnd, Downstream};
use crate::proxy::error::Refusal;
use crate::proxy::request::{Destination, Task};

/// What there is of a body.
pub enum RequestBody {
    /// Nothing.
    None,
    /// All of it.
    Whole(Bytes),
    /// It is read as it goes out.
    Streamed,
}

/// Reads a body that is part of the key, must be JSON, or has no stated length where the upstream
/// needs one; leaves any other to be streamed.
pub async fn take(
    core: &Core,
    task: &Task,
    in_key: bool,
    client: &impl Downstream,
) -> Result<RequestBody, BodyEnd> {
    if let BodyLength::Length(length) = task.framing.body
        && length > core.plan().request_body_bytes_max
    {
        return Err(BodyEnd::Refused(Refusal::BodyTooLarge));
    }
    if !task.has_body() {
        return Ok(RequestBody::None);
    }
    let json = must_be_json(core, task);
    if !json && !in_key && !needs_length(core, task) {
        return Ok(RequestBody::Streamed);
    }
    if json && let Err(refusal) = declared_as_json(task) {
        // Chunks may turn out to be none: without a body there is nothing to declare.
        let is_empty = may_be_empty(task) && client.body().await?.is_none();
        return if is_empty { Ok(RequestBody::None) } else { Err(BodyEnd::Refused(refusal)) };
    }
    let check = json.then(JsonCheck::default);
    let length = match task.framing.body {
        BodyLength::Length(length) => Some(length),
        BodyLength::None | BodyLength::Chunked => None,
    };
    let account = &core.plan().request_bodies;
    let gathered = match account.body(length) {
        Ok(body) => whole(body, check, client).await,
        Err(full) => Err(full.into()),
    };
    match gathered {
        Ok(body) if body.as_slice().is_empty() => Ok(RequestBody::None),
        Ok(body) => Ok(RequestBody::Whole(body.into_bytes())),
        Err(Ended::Client(end)) => Err(end),
        Err(Ended::Full) => {
            core.cells.inc(Counter::RequestBodiesShed);
            Err(BodyEnd::Refused(Refusal::Overloaded))
        }
    }
}

/// RFC 9112 section 6.1: chunks only for those who are known to read them.
fn needs_length(core: &Core, task: &Task) -> bool {
    let Destination::Upstream(index) = task.destination else { return false };
    let upstream = core.plan().upstream(index);
    task.framing.body == BodyLength::Chunked && core.shared.upstream(upstream).wants_length()
}

fn must_be_json(core: &Core, task: &Task) -> bool {
    let sends = matches!(task.head.method, Method::Post | Method::Put | Method::Patch);
    core.plan().json_only && sends
}

fn declared_as_json(task: &Task) -> Result<(), Refusal> {
    let fields = &task.head.fields;
    let kind = fields.single("Content-Type").and_then(media::MediaType::parse);
    if !kind.is_some_and(|it| it.is_json()) {
        return Err(Refusal::NotJson);
    }
    let mut codings = field_members(fields, "Content-Encoding");
    let plain = codings.all(|it| it.eq_ignore_ascii_case(b"identity"));
    if plain { Ok(()) } else { Err(Refusal::Coded) }
}

/// Whether it is not known yet that there is a body. A client that waits for 100 Continue has one
/// (RFC 9110 section 10.1.1): it is refused before it sends it.
fn may_be_empty(task: &Task) -> bool {
    task.framing.body == BodyLength::Chunked && !task.framing.expects_continue
}

async fn whole(
    mut body: Gathered,
    mut check: Option<JsonCheck>,
    client: &impl Downstream,
) -> Result<Gathered, Ended> {
    let mut since_turn = 0;
    while let Some(chunk) = client.body().await? {
        body.push(&chunk)?;
        if let Some(check) = &mut check
            && let Err(at) = check.on_growth(body.as_slice())
        {
            drop(body);
            return Err(unwanted(at, client).await.into());
        }
        since_turn += chunk.len();
        if since_turn >= TURN_BYTES {
            since_turn = 0;
            give_way().await;
        }
    }
    let check = check.filter(|_| !body.as_slice().is_empty());
    match check.map_or(Ok(()), |check| check.at_end(body.as_slice())) {
        Ok(()) => Ok(body),
        Err(at) => Err(BodyEnd::Refused(Refusal::BadJson(at)).into()),
    }
}

/// Why a body was not gathered.
enum Ended {
    /// On the client's side.
    Client(BodyEnd),
    /// Others have all the memory for it.
    Full,
}

impl From<BodyEnd> for Ended {
    fn from(end: BodyEnd) -> Self {
        Self::Client(end)
    }
}

impl From<Full> for Ended {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

/// Reads away the rest of a body that is no JSON, so that its client, which is still sending, gets
/// the answer.
async fn unwanted(at: usize, client: &impl Downstream) -> BodyEnd {
    loop {
        match client.body().await {
            Ok(Some(_)) => give_way().await,
            Ok(None) => return BodyEnd::Refused(Refusal::BadJson(at)),
            Err(end) => return end,
        }
    }
}

/// Lets the core's other tasks have their turn: on epoll, what a fast client sends is always there
/// already, so that reading it never waits. The runtime runs a task that wakes itself before all
/// others; so another one wakes this, which then stands behind those that are waiting.
async fn give_way() {
    let mut asked = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        monoio::spawn(async move { waker.wake() });
        Poll::Pending
    })
    .await;
}

/// Whether a body that is being gathered is JSON.
///
/// A short one is given to simd-json once it is whole, which is the cheaper way for most texts.
/// But it reads values, and refuses what the grammar allows and it can't hold (large numbers, lone
/// surrogates, deep nesting); so the grammar's own machine decides what is refused, and where. That
/// one sees long bodies from the start, piece by piece: simd-json would stop the core for 25 ms a
/// MiB and take 28 times the memory of the body.
#[derive(Default)]
struct JsonCheck {
    grammar: Checker,
    /// Bytes that it has seen.
    seen: usize,
}

impl JsonCheck {
    /// More of the body is there.
    ///
    /// # Errors
    /// The offset of the first byte that is no JSON there.
    fn on_growth(&mut self, body: &[u8]) -> Result<(), usize> {
        if body.len() <= QUICK_BYTES_MAX {
            return Ok(());
        }
        self.see(body)
    }

    /// All of it is there.
    ///
    /// # Errors
    /// As [`JsonCheck::on_growth`]; the body's length, where something is missing at its end.
    fn at_end(mut self, body: &[u8]) -> Result<(), usize> {
        if self.seen == 0 {
            // It works in place.
            let mut copy = body.to_vec();
            if simd_json::to_tape(&mut copy).is_ok() {
                return Ok(());
            }
        }
        self.see(body)?;
        self.grammar.finish()
    }

    fn see(&mut self, body: &[u8]) -> Result<(), usize> {
        let new = body.get(self.seen..).unwrap_or_default();
        self.seen = body.len();
        self.grammar.push(new)
    }
}

/// Longer bodies are checked while they arrive.
const QUICK_BYTES_MAX: usize = 64 * 1024;
/// After so many bytes, some 0.2 ms of checking, others have their turn.
const TURN_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    fn checked(text: &[u8]) -> Result<(), usize> {
        JsonCheck::default().at_end(text)
    }

    #[test]
    fn the_position_of_a_fault_is_that_of_the_first_byte_that_can_t_stand_there() {
        let rows: &[(&str, usize)] = &[
            ("x", 0),
            ("{\"a\":", 5),
            ("[1,2,]", 5),
            ("{\"a\":1}x", 7),
            ("{\"a\":\"\u{1}\"}", 6),
            ("{\n\"a\": tru}", 10),
            ("[\n1,\n2,\n\u{e9}]", 8),
            ("", 0),
        ];
        for (text, expected) in rows {
            assert_eq!(checked(text.as_bytes()), Err(*expected), "{text:?}");
        }
        assert_eq!(checked(b"{\"a\":[1,2.5e3,\"\\u00e9\"]}"), Ok(()));
    }

    /// What simd-json alone would refuse.
    #[test]
    fn the_grammar_decides_and_not_what_a_reader_can_hold() {
        let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
        let long = "9".repeat(401);
        for text in [
            "{\"wei\":123456789012345678901234567890}",
            "[18446744073709551616]",
            "[1e400]",
            "[\"\\ud800\"]",
            &deep,
            &long,
        ] {
            assert_eq!(checked(text.as_bytes()), Ok(()), "{text:.40}");
        }
        assert_eq!(checked(b"[\"\xed\xa0\x80\"]"), Err(3), "not UTF-8");
    }

    /// On epoll a task that only wakes itself runs before all others, as long as it likes.
    #[test]
    fn a_long_check_gives_others_their_turn() {
        let runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new();
        runtime.build().unwrap().block_on(async {
            let served = Rc::new(Cell::new(false));
            let other = Rc::clone(&served);
            monoio::spawn(async move { other.set(true) });
            give_way().await;
            assert!(served.get());
        });
    }

    #[test]
    fn a_long_body_is_checked_while_it_arrives() {
        let text = format!("[{}0 x]", "0,".repeat(100_000));
        let mut check = JsonCheck::default();
        let mut faults = 0;
        for end in (0..text.len()).step_by(16 * 1024).skip(1) {
            let arrived = &text.as_bytes()[..end];
            assert_eq!(check.on_growth(arrived), Ok(()));
            assert_eq!(check.seen, if end > QUICK_BYTES_MAX { end } else { 0 });
            faults += 1;
        }
        assert!(faults > 5);
        assert_eq!(check.at_end(text.as_bytes()), Err(text.len() - 2));
    }
}
