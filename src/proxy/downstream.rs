//! What an exchange needs of the client's side, whatever protocol it speaks.
//!
//! The drivers (`server::h1`, and HTTP/2 when it comes) implement it; the exchange is written once.
//! Every method ends with [`Gone`] when the client has left or stalls past its time.

use bytes::Bytes;

use crate::http::Fields;
use crate::proxy::error::Refusal;

/// The client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Why there is no more of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The client has left or its connection broke.
    Gone,
    /// What it sent is not acceptable.
    Refused(Refusal),
}

/// A response's head on its way to the client.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// End-to-end fields, without framing.
    pub fields: Fields,
    /// What follows.
    pub length: Length,
}

/// What is known of the body's length before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// None, and the fields stand as they are (HEAD, 204, 304).
    Bodyless,
    /// None now, but a HEAD's or 304's Content-Length says what a GET would bring.
    BodylessOf(u64),
    /// So many bytes.
    Known(u64),
    /// Not known: chunked, or until the connection closes.
    Unknown,
}

/// One exchange's client.
#[allow(async_fn_in_trait, reason = "one thread: no future here needs to be Send")]
pub trait Downstream {
    /// The next bytes of the request's body; `None` at its end. Sends `100 Continue` when the
    /// client waits for it.
    async fn body(&self) -> Result<Option<Bytes>, BodyEnd>;

    /// An interim answer (102, 103), where the protocol carries it.
    async fn interim(&self, status: u16, fields: &Fields) -> Result<(), Gone>;

    /// A whole answer in one write.
    async fn whole(&self, reply: Reply, body: Bytes) -> Result<(), Gone>;

    /// The head of an answer whose body follows in pieces.
    async fn start(&self, reply: Reply) -> Result<(), Gone>;

    /// A piece of the body. Waits while the client can't take more.
    async fn chunk(&self, chunk: Bytes) -> Result<(), Gone>;

    /// The body is complete.
    async fn finish(&self) -> Result<(), Gone>;

    /// The body can't be completed: the client must not take what it has for the whole.
    fn cut(&self);

    /// Waits until the client leaves; never ends while it stays.
    async fn gone(&self);
}
