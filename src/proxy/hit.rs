//! The hit path: one synchronous function from request bytes to response bytes.
//!
//! Parses out of the connection's buffer, asks the gate, finds a fresh entry in this core's part
//! of L1 and appends the finished answer to the connection's output. It takes no lock, awaits
//! nothing and allocates nothing. Whatever is not plainly a hit becomes a [`Task`] for the slow
//! path, with everything decided here decided once.
//!
//! A request that came over HTTP/2 takes the same way from its parsed head on ([`serve_http2`]).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::key::Class;
use crate::cache::{Entry, Kind, OtherCoding};
use crate::http::hop::{Ending, is_hop_by_hop};
use crate::http::target::{normalise_path, normalise_query};
use crate::http::{Fields, Method, RequestHead, accept, trace};
use crate::http1::write::write_status_line;
use crate::http1::{BodyLength, Mask, Name, Request, Scheme, Slots, Target, parse_request};
use crate::logs::{End, Heard, Line};
use crate::metrics::{CacheResult, Counter};
use crate::net::mono;
use crate::proxy::answer;
use crate::proxy::core::{Core, Moment};
use crate::proxy::error::Refusal;
use crate::proxy::gate::{self, Asked, Gate, Sender};
use crate::proxy::keyed::Keyed;
use crate::proxy::plan::{Plan, Upstream};
use crate::proxy::record;
use crate::proxy::request::{Destination, Framing, Peer, RequestId, Spelling, Task, Trail};
use crate::proxy::unreadable;
use crate::proxy::variant;

/// What became of the buffer's first request.
pub enum Step {
    /// It is not complete.
    More,
    /// It is answered.
    Done {
        /// Bytes of the buffer it took.
        consumed: usize,
        /// Whether the connection goes on.
        persistent: bool,
        /// What follows the output: the body, where it is too large to be copied.
        body: Option<Bytes>,
    },
    /// It needs an exchange.
    Slow {
        /// Bytes of the buffer its head took.
        consumed: usize,
        /// The exchange.
        task: Box<Task>,
    },
    /// It is no HTTP; the answer says so, and nothing after it has a meaning.
    Broken,
}

/// What became of a request that came over HTTP/2.
pub enum Served {
    /// It is answered.
    Hit(Ready),
    /// It needs an exchange.
    Slow(Box<Task>),
}

/// A finished answer, for whatever protocol.
pub struct Ready {
    /// The status.
    pub status: u16,
    /// All fields, Content-Length included.
    pub fields: Fields,
    /// The body to send: none for HEAD.
    pub body: Bytes,
}

/// What a look at a request came to.
enum Looked {
    Hit(Found, Sender),
    Slow(Box<Task>),
}

/// A request being looked at.
struct Reading<'a, 'h, 'b> {
    core: &'a Core,
    peer: &'a Peer,
    request: &'a Request<'h, 'b>,
    client: IpAddr,
    id: RequestId,
    now: Moment,
}

/// Serves the request that `input` starts with. `closing`: the connection ends after the answer.
pub fn serve(
    core: &Core,
    peer: &Peer,
    input: &[u8],
    out: &mut Vec<u8>,
    now: Moment,
    closing: bool,
) -> Step {
    let mut slots = Slots::new();
    let request = match parse_request(input, &core.plan().request_limits, &mut slots) {
        Ok(Some(request)) => request,
        Ok(None) => return Step::More,
        Err(fault) => {
            unreadable::refuse(core, peer, fault, input, out);
            return Step::Broken;
        }
    };
    let reading = Reading::new(core, peer, &request, now);
    match reading.look() {
        Looked::Hit(hit, sender) => {
            let persistent = request.persistent && !closing;
            let body = reading.write(&hit, &sender, persistent, out);
            Step::Done { consumed: request.head_len, persistent, body }
        }
        Looked::Slow(task) => Step::Slow { consumed: request.head_len, task },
    }
}

/// Serves a request that came over HTTP/2.
pub fn serve_http2(core: &Core, peer: &Peer, request: &Request<'_, '_>, now: Moment) -> Served {
    let reading = Reading::new(core, peer, request, now);
    match reading.look() {
        Looked::Hit(hit, sender) => Served::Hit(reading.reply(&hit, &sender)),
        Looked::Slow(task) => Served::Slow(task),
    }
}

/// A fresh entry in the form the client takes.
struct Found {
    entry: Arc<Entry>,
    form: Form,
}

impl Found {
    /// What is sent of the entry.
    #[inline(always)]
    fn parts(&self) -> (&Fields, &Bytes) {
        match (self.form, self.entry.other_coding()) {
            (Form::OtherCoding, OtherCoding::Made(other)) => (&other.fields, &other.body),
            _ => (self.entry.fields(), self.entry.body()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    AsStored,
    OtherCoding,
}

impl<'a, 'h, 'b> Reading<'a, 'h, 'b> {
    #[inline(always)]
    fn new(core: &'a Core, peer: &'a Peer, request: &'a Request<'h, 'b>, now: Moment) -> Self {
        let client = client_address(core.plan(), peer, request);
        let id = RequestId::new(request.value(Name::XRequestId), core.next_id());
        Self { core, peer, request, client, id, now }
    }

    /// Asks the gate, then this core's memory.
    #[inline(always)]
    fn look(&self) -> Looked {
        let request = self.request;
        let (path, query) = match normal_target(self.core.plan(), self.peer, request) {
            Ok(normal) => normal,
            Err(refusal) => {
                return self.slow("/", None, Destination::Refused(refusal), Sender::default());
            }
        };
        if request.known.repeated(Name::XApiKey) {
            let refused = Destination::Refused(Refusal::RepeatedKey);
            return self.slow(&text(&path), query.as_deref(), refused, Sender::default());
        }
        let key = request.value(Name::XApiKey);
        let asked = Asked { method: &request.method, path: &path, key, client: self.client };
        let (destination, sender) = match gate::check(self.core, asked, self.now.mono) {
            Gate::Proxy { upstream, path, sender } => {
                if let Some(hit) = self.hit(upstream, path, query.as_deref()) {
                    return Looked::Hit(hit, sender);
                }
                let destination = Destination::Upstream(upstream.index);
                return self.slow(&text(path), query.as_deref(), destination, sender);
            }
            Gate::Admin => (Destination::Admin, Sender::default()),
            Gate::Refused { refusal, standings } => {
                (Destination::Refused(refusal), Sender { key: None, standings })
            }
        };
        self.slow(&text(&path), query.as_deref(), destination, sender)
    }

    /// A fresh entry of this core that answers a request without any conditions.
    fn hit(&self, upstream: &Upstream, path: &[u8], query: Option<&[u8]>) -> Option<Found> {
        let request = self.request;
        let plain = !request.known.any(NEEDS_POLICY)
            && !self.names_fields()
            && matches!(request.method, Method::Get | Method::Head)
            && matches!(request.body, BodyLength::None | BodyLength::Length(0))
            && upstream.policy.methods.contains(&request.method);
        if !plain {
            return None;
        }
        let mut key = self.core.key.borrow_mut();
        let api_key = request.value(Name::XApiKey);
        let keyed = Keyed { class: Class::Read, path, query, api_key, body: None };
        keyed.write(self.core.plan(), upstream, &mut key);
        let mut shard = self.core.shard.borrow_mut();
        let found = shard.get(self.core.shared.seed.hash(&key), &key)?;
        let entry = match found.kind() {
            Kind::Content => Arc::clone(found),
            Kind::Part(_) => return None,
            Kind::VaryIndex(_) => {
                let index = Arc::clone(found);
                let values = |name: &str| combined(request, name);
                let seed = &self.core.shared.seed;
                variant::find_in_shard(seed, &mut shard, &mut key, &index, values)?
            }
        };
        if !entry.facts().serves_plain_request(self.now.wall) {
            return None;
        }
        let form = self.form(&entry)?;
        Some(Found { entry, form })
    }

    /// Whether Connection may name fields that end here: no other client's answer may be chosen by
    /// what the origin would never see.
    #[inline(always)]
    fn names_fields(&self) -> bool {
        let usual = |value: &[u8]| {
            value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
        };
        self.request.known.has(Name::Connection)
            && !self.request.values(Name::Connection).all(usual)
    }

    /// Which coding of the entry the client takes; `None` when it would have to be made first.
    fn form(&self, entry: &Entry) -> Option<Form> {
        let marks = entry.marks();
        if !marks.gzip && !marks.compressible {
            return Some(Form::AsStored);
        }
        let lines = self.request.values(Name::AcceptEncoding);
        let codings = accept::Codings::from_lines(lines);
        let wants_other =
            if marks.gzip { !codings.gzip.is_acceptable() } else { codings.prefers_gzip() };
        if !wants_other {
            return Some(Form::AsStored);
        }
        match entry.other_coding() {
            OtherCoding::Made(_) => Some(Form::OtherCoding),
            OtherCoding::Useless => Some(Form::AsStored),
            OtherCoding::NotMade => None,
        }
    }

    /// Appends the finished answer, or its head; what is left of it then.
    #[inline(always)]
    fn write(
        &self,
        found: &Found,
        sender: &Sender,
        persistent: bool,
        out: &mut Vec<u8>,
    ) -> Option<Bytes> {
        let (fields, body) = found.parts();
        let copied = if body.len() <= COPY_BYTES_MAX { body.len() } else { 0 };
        out.reserve(fields.as_wire().len() + copied + HEAD_EXTRA_BYTES);
        write_status_line(out, found.entry.status());
        self.push_fields(found, fields, sender, out);
        push_connection(self.request, persistent, out);
        out.extend_from_slice(b"\r\n");
        if self.request.method == Method::Head {
            self.count(found, sender, 0);
            return None;
        }
        self.count(found, sender, body.len() as u64);
        if body.len() > COPY_BYTES_MAX {
            return Some(body.clone());
        }
        out.extend_from_slice(body);
        None
    }

    /// The finished answer.
    fn reply(&self, found: &Found, sender: &Sender) -> Ready {
        let (stored, body) = found.parts();
        let mut fields = Fields::with_capacity(stored.as_wire().len() + HEAD_EXTRA_BYTES);
        fields.extend_with(|out| self.push_fields(found, stored, sender, out));
        let head_only = self.request.method == Method::Head;
        let body = if head_only { Bytes::new() } else { body.clone() };
        self.count(found, sender, body.len() as u64);
        Ready { status: found.entry.status(), fields, body }
    }

    /// Appends the fields of the answer.
    #[inline(always)]
    fn push_fields(&self, found: &Found, fields: &Fields, sender: &Sender, out: &mut Vec<u8>) {
        let (core, entry) = (self.core, &*found.entry);
        out.extend_from_slice(fields.as_wire());
        if entry.marks().own_fields {
            core.plan().marks.push_missing(fields, out);
        } else {
            out.extend_from_slice(core.plan().marks.block());
        }
        let facts = entry.facts();
        answer::push_age(facts.age(self.now.wall), out);
        answer::push_hit(facts.ttl(self.now.wall), out);
        answer::push_exchange(core.plan(), &self.id, &sender.standings, out);
    }

    #[inline(always)]
    fn count(&self, found: &Found, sender: &Sender, bytes: u64) {
        let (core, status) = (self.core, found.entry.status());
        core.cells.on_hit(&self.request.method, status, CacheResult::Hit, bytes);
        core.cells.inc(Counter::L1Hits);
        if core.access.is_some() {
            self.note(status, bytes, sender);
        }
    }

    /// A line in the access log, if it wants one.
    #[cold]
    fn note(&self, status: u16, bytes: u64, sender: &Sender) {
        let Some(access) = record::wanting(self.core, status, End::Complete) else { return };
        let (request, took) = (self.request, mono().since(self.now.mono));
        access.note(&Line {
            at: self.now.wall.plus(took),
            took,
            client: self.client,
            peer: record::other(self.peer.socket, self.client),
            key: record::key_name(self.core, sender.key),
            heard: Some(Heard {
                method: request.method.as_str(),
                path: request.target.path().unwrap_or_default(),
                query: request.target.query(),
                host: request.authority,
                version: request.version,
                scheme: record::scheme(self.peer),
                agent: request.value(Name::UserAgent),
                trace: trace::trace_id(request.values(Name::Traceparent)),
            }),
            status,
            bytes,
            cache: CacheResult::Hit.as_str(),
            detail: None,
            upstream: None,
            end: End::Complete,
            request_id: self.id.as_str(),
        });
    }

    /// The target as it came, where there is a log that may want it. What is asked of the daemon
    /// itself may have a token, or a whole request, in its query.
    fn spelling(&self, destination: Destination) -> Option<Box<Spelling>> {
        self.core.access.as_ref()?;
        let target = &self.request.target;
        let own = matches!(destination, Destination::Admin);
        Some(Box::new(Spelling {
            path: target.path().unwrap_or(b"*").into(),
            query: target.query().filter(|_| !own).map(Into::into),
        }))
    }

    /// Everything that was decided, owned, for the slow path.
    fn slow(
        &self,
        path: &str,
        query: Option<&[u8]>,
        destination: Destination,
        sender: Sender,
    ) -> Looked {
        let request = self.request;
        let mut fields = request.to_fields();
        if self.names_fields() {
            // Before anybody looks: cache key, policy and origin are to see one set of fields.
            let ending = Ending::of(&fields);
            fields.retain(|field| is_hop_by_hop(field.name) || !ending.has(field.name));
        }
        let head = RequestHead {
            method: request.method.clone(),
            path: path.to_owned(),
            query: query.map(text).map(Cow::into_owned),
            authority: text(request.authority).into_owned(),
            version: request.version,
            fields,
        };
        let framing = Framing {
            version: request.version,
            // What follows a refused CONNECT may have been meant for the tunnel.
            persistent: request.persistent && request.method != Method::Connect,
            body: request.body,
            expects_continue: request.expects_continue,
        };
        let task = Task {
            head,
            framing,
            peer: *self.peer,
            client: self.client,
            id: self.id,
            destination,
            standings: sender.standings,
            started: self.now.mono,
            trail: Trail {
                target: self.spelling(destination),
                key: sender.key,
                ..Trail::default()
            },
        };
        Looked::Slow(Box::new(task))
    }
}

/// The address that is limited: the peer's, or what trusted proxies say of it.
fn client_address(plan: &Plan, peer: &Peer, request: &Request<'_, '_>) -> IpAddr {
    if plan.trusted_proxies.is_empty() || !request.known.any(FORWARDED) {
        return peer.address;
    }
    plan.trusted_proxies.client_address(
        peer.address,
        request.values(Name::XForwardedFor),
        request.values(Name::Forwarded),
    )
}

type Normal<'b> = (Cow<'b, [u8]>, Option<Cow<'b, [u8]>>);

/// The one spelling of path and query that the gate, the key and the upstream see.
fn normal_target<'b>(
    plan: &Plan,
    peer: &Peer,
    request: &Request<'_, 'b>,
) -> Result<Normal<'b>, Refusal> {
    let (path, query) = match request.target {
        Target::Absolute { scheme: Scheme::Https, .. } if !peer.tls => {
            return Err(Refusal::Misdirected);
        }
        Target::Asterisk => return Ok((Cow::Borrowed(b"*"), None)),
        Target::Authority(_) => return Err(Refusal::MethodNotAllowed(gate::METHODS)),
        ref target => (target.path().unwrap_or(b"/"), target.query()),
    };
    let path = normalise_path(path, plan.slashes).map_err(|it| Refusal::BadTarget(it.as_str()))?;
    let query = query.map(normalise_query).transpose();
    let query = query.map_err(|it| Refusal::BadTarget(it.as_str()))?;
    Ok((path, query))
}

/// All lines of a field, joined; borrowed where there is one.
fn combined<'b>(request: &Request<'_, 'b>, name: &str) -> Option<Cow<'b, [u8]>> {
    let mut lines = request.fields.iter().filter(|it| it.is(name));
    let first = lines.next()?;
    let mut all = Cow::Borrowed(first.value);
    for line in lines {
        let joined = all.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.value);
    }
    Some(all)
}

fn push_connection(request: &Request<'_, '_>, persistent: bool, out: &mut Vec<u8>) {
    if !persistent {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if request.version == crate::http::Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

/// Paths and queries are ASCII once normalised; an authority was checked by the parser.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// With any of these the cache policy decides, on the slow path.
const NEEDS_POLICY: Mask = Mask::of(&[
    Name::CacheControl,
    Name::Pragma,
    Name::Authorization,
    Name::Range,
    Name::IfRange,
    Name::IfNoneMatch,
    Name::IfModifiedSince,
    Name::IfMatch,
    Name::IfUnmodifiedSince,
    Name::Expect,
]);
const FORWARDED: Mask = Mask::of(&[Name::XForwardedFor, Name::Forwarded]);
/// A larger body is not copied: a client that does not read would hold it, which nobody counts. Up
/// to this length one write of a copy costs less than two writes.
const COPY_BYTES_MAX: usize = 64 * 1024;
/// Room for the status line and what `answer` adds.
const HEAD_EXTRA_BYTES: usize = 1024;
