//! Answers that no exchange makes: to what can't be read as a request, and in the place of an
//! answer that broke before any of it was sent.

use crate::http::Fields;
use crate::http::date::write_http_date;
use crate::http1::RequestFault;
use crate::http1::write::write_response_head;
use crate::proxy::answer;
use crate::proxy::core::Core;
use crate::proxy::error::{Fault, Problem, Refusal};
use crate::proxy::gate::Standings;
use crate::proxy::hit::Ready;
use crate::proxy::record;
use crate::proxy::request::{Peer, RequestId};

/// Appends the answer to a message that is no HTTP, which begins with `input`.
pub fn refuse(core: &Core, peer: &Peer, fault: RequestFault, input: &[u8], out: &mut Vec<u8>) {
    let ready = problem(core, peer, &Refusal::Malformed(fault).problem(), fault.as_str());
    write_last(ready, input, out);
}

/// Appends the answer to a client that never finished its request, which begins with `input`.
pub fn refuse_slow(core: &Core, peer: &Peer, input: &[u8], out: &mut Vec<u8>) {
    write_last(problem(core, peer, &Refusal::Slow.problem(), "timeout"), input, out);
}

/// Appends the answer in the place of one that broke before any of it was sent. That exchange has
/// been counted already.
pub fn write_fault(core: &Core, fault: Fault, out: &mut Vec<u8>) {
    let id = RequestId::new(None, core.next_id());
    write_last(problem_of(core, &fault.problem(), &id), b"", out);
}

/// The answer to an HTTP/2 request whose head is not acceptable.
#[must_use]
pub fn refuse_http2(core: &Core, peer: &Peer, fault: RequestFault) -> Ready {
    problem(core, peer, &Refusal::Malformed(fault).problem(), fault.as_str())
}

/// Appends the last answer of a connection. To what begins like a HEAD it has no content (RFC 9110
/// section 9.3.2).
fn write_last(ready: Ready, input: &[u8], out: &mut Vec<u8>) {
    let Ready { status, mut fields, body } = ready;
    fields.push("Connection", "close");
    write_response_head(out, status, &fields);
    if !input.trim_ascii_start().starts_with(b"HEAD ") {
        out.extend_from_slice(&body);
    }
}

/// The answer to a request that could not be read, counted and logged.
fn problem(core: &Core, peer: &Peer, problem: &Problem, why: &'static str) -> Ready {
    let id = RequestId::new(None, core.next_id());
    let ready = problem_of(core, problem, &id);
    record::broken(core, peer, problem.status, why, ready.body.len() as u64, &id);
    ready
}

fn problem_of(core: &Core, problem: &Problem, id: &RequestId) -> Ready {
    let body = problem.to_json(id.as_str());
    let mut fields = Fields::new();
    fields.push("Date", write_http_date(crate::net::wall()));
    fields.extend(&problem.fields());
    fields.push("Content-Length", body.len().to_string());
    answer::push_own(core.plan(), &mut fields, id, &Standings::default());
    Ready { status: problem.status, fields, body: body.into() }
}
