//! A connection of HTTP/2 on which things go wrong.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderValue, Request, Response};
use tokio::time::sleep;

use super::book::Right;
use super::{Player, Resets};
use crate::support::multiplex::{Either, Sending, either};

/// Answers until the connection ends, for whatever reason.
pub(super) async fn play(mut player: Player, stream: impl Resets + 'static) {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(player.dice.pick(&[3, 20, 100]));
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    loop {
        // A connection's life is as long as nothing strikes, looked at now and then.
        match either(connection.accept(), sleep(Duration::from_millis(100))).await {
            Either::Left(Some(Ok((request, respond)))) => {
                let dice = player.dice.split();
                let player = Player { dice, ..player.clone() };
                tokio::task::spawn_local(answer(player, request, respond));
            }
            Either::Left(None | Some(Err(_))) => return,
            Either::Right(()) if player.moods.strikes(20, &mut player.dice) => {
                match player.dice.roll(3) {
                    0 => connection.graceful_shutdown(),
                    1 => connection.abrupt_shutdown(Reason::INTERNAL_ERROR),
                    _ => return,
                }
            }
            Either::Right(()) => {}
        }
    }
}

/// What goes wrong with a stream.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Refuse,
    Reset,
    Forget,
    Stall,
    BodyReset,
    TooShort,
    TooLong,
    Drip,
    Error,
}

const ALL: [Wrong; 9] = [
    Wrong::Refuse,
    Wrong::Reset,
    Wrong::Forget,
    Wrong::Stall,
    Wrong::BodyReset,
    Wrong::TooShort,
    Wrong::TooLong,
    Wrong::Drip,
    Wrong::Error,
];

async fn answer(
    mut player: Player,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, mut body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("", |it| it.as_str());
    let wrong = player.moods.strikes(100, &mut player.dice).then(|| player.dice.pick(&ALL));
    if matches!(wrong, Some(Wrong::Refuse)) {
        player.book.on_refused();
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).ok();
    }
    player.book.on_request(head.method.as_str(), target);
    let status = match wrong {
        Some(Wrong::Error) => player.dice.pick(&[500, 502, 503]),
        _ => 200,
    };
    let tag = head.headers.get("if-none-match").and_then(|it| it.to_str().ok());
    let right = player.book.answer(target, tag.filter(|_| status == 200), status);
    let is_head = head.method == http::Method::HEAD;
    match wrong {
        Some(Wrong::Reset) => {
            let reasons = [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM];
            respond.send_reset(player.dice.pick(&reasons));
        }
        Some(Wrong::Forget) => {}
        Some(Wrong::Stall) => {
            let patience = player.dice.millis(3_000);
            let given_up = poll_fn(|cx| respond.poll_reset(cx));
            if let Either::Right(()) = either(given_up, sleep(patience)).await {
                say(&mut player, None, right, is_head, respond).await;
            }
        }
        _ => say(&mut player, wrong, right, is_head, respond).await,
    }
}

/// Says it, with what goes wrong in the body.
async fn say(
    player: &mut Player,
    wrong: Option<Wrong>,
    right: Right,
    is_head: bool,
    mut respond: SendResponse<Bytes>,
) {
    let mut response = Response::builder().status(right.status);
    for (name, value) in &right.fields {
        response = response.header(*name, HeaderValue::from_str(value).unwrap());
    }
    let length = match wrong {
        Some(Wrong::TooShort) => Some(right.body.len() + 1 + player.dice.place(10_000)),
        Some(Wrong::TooLong) => Some(right.body.len()),
        _ => player.dice.happens(700).then_some(right.body.len()),
    };
    if let Some(length) = length.filter(|_| right.status != 304) {
        response = response.header("Content-Length", length);
    }
    let bodiless = is_head || right.status == 304;
    let Ok(stream) = respond.send_response(response.body(()).unwrap(), bodiless) else { return };
    if bodiless {
        return;
    }
    let (mut stream, mut body) = (Sending::of(stream), Bytes::from(right.body));
    match wrong {
        Some(Wrong::BodyReset) => {
            let part = body.split_to(player.dice.place(body.len()));
            if stream.all(part).await.is_some() {
                stream.reset(player.dice.pick(&[Reason::INTERNAL_ERROR, Reason::NO_ERROR]));
            }
            return;
        }
        Some(Wrong::Drip) => {
            while !body.is_empty() {
                let piece = body.split_to((body.len() / 20 + 1).min(body.len()));
                if stream.all(piece).await.is_none() {
                    return;
                }
                sleep(player.dice.millis(30)).await;
            }
        }
        Some(Wrong::TooLong) => {
            let sent = stream.all(body).await;
            if sent.is_none() || stream.all(Bytes::from_static(b"wrong")).await.is_none() {
                return;
            }
        }
        _ => {
            if stream.all(body).await.is_none() {
                return;
            }
        }
    }
    stream.end();
}
