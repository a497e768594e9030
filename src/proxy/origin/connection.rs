//! One exchange with an origin, whichever protocol carries it.
//!
//! ```text
//!  send | sender ... -> head (interim ...) -> head (final) -> chunk ... -> finish
//! ```

use bytes::Bytes;

use crate::http::ResponseHead;
use crate::proxy::error::Fault;
use crate::proxy::origin::http1::{self, Http1};
use crate::proxy::origin::http2::{self, Http2};
use crate::proxy::origin::pool::Pool;
use crate::proxy::origin::request::OutgoingHead;

/// An exchange's connection.
pub enum Connection {
    /// A connection of its own until the exchange is over.
    Http1(Http1),
    /// A stream of the core's one connection.
    Http2(Http2),
}

/// The sending side of an exchange, for a body that goes out while the answer may come in.
pub enum Sender {
    /// See [`Connection::Http1`].
    Http1(http1::Sender),
    /// See [`Connection::Http2`].
    Http2(http2::Sender),
}

/// What [`Connection::head`] read.
pub enum Head {
    /// 1xx: another head follows.
    Interim(ResponseHead),
    /// The answer. Its body is read from the connection.
    Final(ResponseHead),
}

/// What is known of an origin's dealing with a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It may have acted on it.
    Unknown,
    /// It said that it has not acted on it (RFC 9113 section 8.7).
    Refused,
    /// It never looked at it: it was ending the connection (RFC 9113 section 6.8).
    Never,
}

/// What [`Connection::at_hand`] found.
pub enum AtHand {
    /// All of the body.
    Whole(Vec<Bytes>),
    /// Its beginning; more will come.
    Part(Vec<Bytes>),
}

impl Connection {
    /// Sends a head and what there is of a body, which is all of it.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the origin takes no more: it may have answered all the same.
    pub async fn send(&mut self, head: &OutgoingHead<'_>, body: Bytes) -> Result<(), Fault> {
        match self {
            Self::Http1(http1) => http1.send(head.to_text(), body).await,
            Self::Http2(http2) => http2.send(head, body).await,
        }
    }

    /// Sends a head; the body follows from the returned side.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub async fn send_head(&mut self, head: &OutgoingHead<'_>) -> Result<Sender, Fault> {
        match self {
            Self::Http1(http1) => {
                http1.send(head.to_text(), Bytes::new()).await?;
                Ok(Sender::Http1(http1.sender(head.body)))
            }
            Self::Http2(http2) => http2.send_head(head).await.map(Sender::Http2),
        }
    }

    /// Reads the next head, interim or final. A final body that is stated to be longer than
    /// `bytes_max`, or becomes so, is [`Fault::TooLarge`].
    ///
    /// # Errors
    /// [`Fault::Reset`] when the connection ends first, [`Fault::Invalid`] when it is no HTTP.
    pub async fn head(&mut self, expected: &http1::Expected<'_>) -> Result<Head, Fault> {
        match self {
            Self::Http1(http1) => http1.head(expected).await,
            // Boxed: it waits for more than one thing, and most origins speak HTTP/1.1.
            Self::Http2(http2) => Box::pin(http2.head(expected)).await,
        }
    }

    /// The length of the body that the origin stated; zero where there is none.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Http1(http1) => http1.length(),
            Self::Http2(http2) => http2.length(),
        }
    }

    /// Whether all of the body has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_done(),
            Self::Http2(http2) => http2.is_done(),
        }
    }

    /// Reads the body's next bytes; `None` at its end.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::Invalid`], [`Fault::TooLarge`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        match self {
            Self::Http1(http1) => http1.chunk().await,
            Self::Http2(http2) => http2.chunk().await,
        }
    }

    /// The body's bytes that have arrived already, and whether that is all of it. Never waits.
    ///
    /// # Errors
    /// As [`Connection::chunk`].
    pub fn at_hand(&mut self) -> Result<AtHand, Fault> {
        match self {
            Self::Http1(http1) => http1.at_hand(),
            Self::Http2(http2) => http2.at_hand(),
        }
    }

    /// Whether it has carried an exchange before: a failure may be the race with an origin that
    /// closes an idle connection.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_reused(),
            Self::Http2(http2) => http2.is_reused(),
        }
    }

    /// Whether the origin has said anything about this request.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_answered(),
            Self::Http2(http2) => http2.is_answered(),
        }
    }

    /// What is known of the origin's dealing with this request, should it fail.
    #[must_use]
    pub const fn handling(&self) -> Handling {
        match self {
            Self::Http1(_) => Handling::Unknown,
            Self::Http2(http2) => http2.handling(),
        }
    }

    /// Gives the connection back when its answer is complete and allows another exchange.
    pub fn finish(self, pool: &Pool) {
        match self {
            Self::Http1(http1) => http1.finish(pool),
            // The stream has ended; the connection was never taken.
            Self::Http2(_) => {}
        }
    }
}

impl Sender {
    /// Sends a piece of the body, waiting while the origin takes no more.
    ///
    /// # Errors
    /// [`Fault::Reset`] when the origin takes no more at all.
    pub async fn send(&self, piece: Bytes) -> Result<(), Fault> {
        match self {
            Self::Http1(sender) => sender.send(piece).await,
            Self::Http2(sender) => sender.send(piece).await,
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn finish(&self) -> Result<(), Fault> {
        match self {
            Self::Http1(sender) => sender.finish().await,
            Self::Http2(sender) => sender.finish(),
        }
    }

    /// Whether a piece is on its way: the origin takes no more for now.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_writing(),
            Self::Http2(sender) => sender.is_writing(),
        }
    }
}
