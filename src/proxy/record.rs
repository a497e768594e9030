//! The end of an exchange: what is counted of it, and its line in the access log.
//!
//! Every request ends in exactly one of the functions here: answered by the slow path, answered by
//! the hit path, no HTTP at all, or left by its client before an answer.

use std::net::IpAddr;
use std::time::Duration;

use crate::cache::{CacheStatus, Forward, Outcome};
use crate::http::trace;
use crate::logs::{Access, End, Heard, Line};
use crate::metrics::{CacheResult, Counter};
use crate::net::{mono, wall};
use crate::proxy::core::Core;
use crate::proxy::request::{Peer, RequestId, Task};

/// What the cache had to do with an answer, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// For the metrics.
    pub result: CacheResult,
    /// One word: a reason's, a fault's or a refusal's.
    pub detail: Option<&'static str>,
    /// It shared the fetch of another request.
    pub collapsed: bool,
}

/// What a client got of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// So many bytes.
    pub bytes: u64,
    /// How it ended.
    pub end: End,
}

impl Told {
    /// An error of the daemon's own, and why.
    #[must_use]
    pub const fn error(detail: &'static str) -> Self {
        Self { result: CacheResult::Error, detail: Some(detail), collapsed: false }
    }

    /// A refusal: the cache was not asked.
    #[must_use]
    pub const fn refused(detail: &'static str) -> Self {
        Self { result: CacheResult::None, detail: Some(detail), collapsed: false }
    }
}

impl From<CacheResult> for Told {
    fn from(result: CacheResult) -> Self {
        Self { result, detail: None, collapsed: false }
    }
}

impl From<&CacheStatus> for Told {
    fn from(status: &CacheStatus) -> Self {
        let result = match status.outcome {
            Outcome::Hit | Outcome::StaleForError(Forward::Request) => CacheResult::Hit,
            Outcome::StaleHit | Outcome::StaleForError(_) => CacheResult::Stale,
            Outcome::Revalidated(_) => CacheResult::Revalidated,
            Outcome::Forwarded(_) if status.x_cache() == "BYPASS" => CacheResult::Bypass,
            Outcome::Forwarded(_) => CacheResult::Miss,
            Outcome::Local => CacheResult::None,
        };
        let detail = status.detail.map(crate::cache::Reason::as_str);
        Self { result, detail, collapsed: status.collapsed }
    }
}

impl Sent {
    /// All of an answer.
    #[must_use]
    pub const fn whole(bytes: u64) -> Self {
        Self { bytes, end: End::Complete }
    }

    /// So much, and then the client was gone.
    #[must_use]
    pub const fn left(bytes: u64) -> Self {
        Self { bytes, end: End::ClientLeft }
    }

    /// So much, and then the upstream's part ended.
    #[must_use]
    pub const fn cut(bytes: u64) -> Self {
        Self { bytes, end: End::Cut }
    }
}

/// The slow path has answered.
pub fn answered(core: &Core, task: &Task, status: u16, told: Told, sent: Sent) {
    let took = mono().since(task.started);
    if told.result == CacheResult::Stale {
        core.cells.inc(Counter::StaleServed);
    }
    if told.collapsed {
        core.cells.inc(Counter::Coalesced);
    }
    core.cells.on_response(&task.head.method, status, told.result, took, sent.bytes);
    if let Some(access) = wanting(core, status, sent.end) {
        note(core, access, task, status, told, sent, took);
    }
}

/// The client left before its answer was through, and so before it was counted.
pub fn left(core: &Core, task: &Task) {
    core.cells.inc(Counter::RequestsAbandoned);
    if let Some(access) = wanting(core, STATUS_LEFT, End::ClientLeft) {
        let took = mono().since(task.started);
        let told = CacheResult::None.into();
        note(core, access, task, STATUS_LEFT, told, Sent::left(0), took);
    }
}

/// What came was no HTTP, or did not come in time; the answer said so.
pub fn broken(
    core: &Core,
    peer: &Peer,
    status: u16,
    detail: &'static str,
    bytes: u64,
    id: &RequestId,
) {
    core.cells.inc(Counter::H1Refused);
    core.cells.on_head_refusal(detail);
    core.cells.on_refusal(status);
    if let Some(access) = wanting(core, status, End::Complete) {
        access.note(&Line {
            at: wall(),
            took: Duration::ZERO,
            client: peer.address,
            peer: other(peer.socket, peer.address),
            key: None,
            heard: None,
            status,
            bytes,
            cache: CacheResult::None.as_str(),
            detail: Some(detail),
            upstream: None,
            end: End::Complete,
            request_id: id.as_str(),
        });
    }
}

/// The access log, if there is one and it wants a line of this. A cut answer is an error.
pub fn wanting(core: &Core, status: u16, end: End) -> Option<&Access> {
    let status = if end == End::Cut { status.max(500) } else { status };
    core.access.as_ref().filter(|it| it.wants(status))
}

/// The name of a client's key.
pub fn key_name(core: &Core, number: Option<u16>) -> Option<&str> {
    number.and_then(|it| core.plan().keys.key(it)).map(|it| it.name.as_str())
}

/// The other end of the socket where that is not the client.
#[must_use]
pub fn other(socket: IpAddr, client: IpAddr) -> Option<IpAddr> {
    (socket != client).then_some(socket)
}

/// The word for a connection's scheme.
#[must_use]
pub const fn scheme(peer: &Peer) -> &'static str {
    if peer.tls { "https" } else { "http" }
}

#[cold]
fn note(
    core: &Core,
    access: &Access,
    task: &Task,
    status: u16,
    told: Told,
    sent: Sent,
    took: Duration,
) {
    let head = &task.head;
    let target = task.trail.target.as_deref();
    access.note(&Line {
        at: wall(),
        took,
        client: task.client,
        peer: other(task.peer.socket, task.client),
        key: key_name(core, task.trail.key),
        heard: Some(Heard {
            method: head.method.as_str(),
            path: target.map_or(head.path.as_bytes(), |it| &it.path),
            query: target.and_then(|it| it.query.as_deref()),
            host: head.authority.as_bytes(),
            version: head.version,
            scheme: scheme(&task.peer),
            agent: head.fields.get("User-Agent"),
            trace: trace::trace_id(head.fields.all("traceparent")),
        }),
        status,
        bytes: sent.bytes,
        cache: told.result.as_str(),
        detail: told.detail,
        upstream: task.trail.upstream.get(),
        end: sent.end,
        request_id: task.id.as_str(),
    });
}

/// What nginx logs for a client that left, and what log tools know.
const STATUS_LEFT: u16 = 499;
