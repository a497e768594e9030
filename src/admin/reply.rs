//! An operator endpoint's answer on its way out.

use serde::Serialize;

use crate::http::{Fields, ResponseHead, Version};
use crate::metrics::CacheResult;
use crate::proxy::downstream::Downstream;
use crate::proxy::gate::METHODS;
use crate::proxy::{Core, Task, deliver};

/// What an endpoint answers.
pub struct Answered {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    allow: Option<&'static str>,
}

impl Answered {
    /// JSON, its members in the order of the type, ended by a newline.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        let Ok(mut body) = serde_json::to_vec(value) else {
            return Self::text(500, "the answer could not be written\n");
        };
        body.push(b'\n');
        Self { status, content_type: "application/json", body, allow: None }
    }

    /// Plain text.
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into(), allow: None }
    }

    /// Text of a stated type.
    pub const fn typed(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status: 200, content_type, body, allow: None }
    }

    /// What the server as a whole takes (RFC 9110 section 9.3.7).
    pub fn options() -> Self {
        Self { status: 204, content_type: "", body: Vec::new(), allow: Some(METHODS) }
    }
}

/// Sends it.
pub async fn send(core: &Core, task: &Task, answered: Answered, client: &impl Downstream) {
    let Answered { status, content_type, body, allow } = answered;
    let mut fields = Fields::new();
    fields.push("Date", crate::http::date::write_http_date(crate::net::wall()));
    if !content_type.is_empty() {
        fields.push("Content-Type", content_type);
    }
    if let Some(allow) = allow {
        fields.push("Allow", allow);
    }
    fields.push("Cache-Control", "no-store");
    let head = ResponseHead { status, version: Version::Http11, fields };
    let length = (status != 204).then_some(body.len() as u64);
    let answer = deliver::Whole { head, body: body.into(), length };
    deliver::whole(core, task, answer, CacheResult::None, client).await;
}
