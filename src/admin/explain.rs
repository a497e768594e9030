//! `/cache/explain?method=GET&path=/v1/x`: what would become of a request, and why.
//!
//! The path may be written with or without the API prefix; its query with `%3F` for the `?` and
//! `%26` for each `&`. `header=Name:value` adds a field, `body=` a body for the methods that are
//! cached by it; `method` is GET where it is not said.

use std::rc::Rc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::admin::query;
use crate::admin::reply::Answered;
use crate::cache::Kind;
use crate::http::target::normalise_query;
use crate::http::{Fields, Method, RequestHead};
use crate::proxy::error::Refusal;
use crate::proxy::explain::{BAD_DESCRIPTION, NOT_CONSIDERED};
use crate::proxy::explain::{Described, Explanation, Found, explain as decide};
use crate::proxy::{Core, Task};

/// Explains the request that the query describes. Where its path has two readings, the one that
/// something is stored for, else the decoded one.
pub async fn explain(core: &Rc<Core>, task: &Task) -> Result<Answered, Refusal> {
    let mut first = None;
    for described in described(core, task)? {
        let request = json!({
            "method": described.head.method.as_str(),
            "path": described.head.path,
            "query": described.head.query,
        });
        let explanation = decide(core, task, described).await;
        let is_found = explanation.found.is_some();
        let answered = Answered::json(200, &rendered(core, request, &explanation));
        if is_found {
            return Ok(answered);
        }
        first = first.or(Some(answered));
    }
    first.ok_or(BAD_DESCRIPTION)
}

/// The request as described, in each reading of its path.
fn described(core: &Core, task: &Task) -> Result<Vec<Described>, Refusal> {
    let (mut method, mut targets, mut body) = (Method::Get, Vec::new(), None);
    let mut fields = Fields::new();
    for (name, value) in query::parameters(task) {
        let plain = || query::decoded(value).ok_or(BAD_DESCRIPTION);
        match name {
            "method" => method = Method::from_bytes(&plain()?).ok_or(BAD_DESCRIPTION)?,
            "path" => targets = query::readings(value),
            "body" => body = Some(plain()?.into()),
            "header" => push_field(&mut fields, &plain()?).ok_or(BAD_DESCRIPTION)?,
            _ => return Err(BAD_DESCRIPTION),
        }
    }
    let targets = targets.iter().filter_map(|it| normal(core, it));
    let described = targets.map(|(path, query)| Described {
        head: RequestHead {
            method: method.clone(),
            path,
            query,
            authority: task.head.authority.clone(),
            version: task.head.version,
            fields: fields.clone(),
        },
        body: Option::<Bytes>::clone(&body),
    });
    Ok(described.collect())
}

/// The path under the API prefix, and the query, in the spelling that keys have.
fn normal(core: &Core, target: &[u8]) -> Option<(String, Option<String>)> {
    let mut halves = target.splitn(2, |byte| *byte == b'?');
    let path = query::normal_path(core, halves.next()?)?;
    let query = halves.next().map(normalise_query).transpose().ok()?;
    let query = query.map(|it| String::from_utf8(it.into_owned())).transpose().ok()?;
    Some((path, query))
}

fn push_field(fields: &mut Fields, line: &[u8]) -> Option<()> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.get(1..)?.trim_ascii();
    // Read back, since only a well-formed field may stand in a request.
    let mut text = Vec::with_capacity(line.len() + 3);
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
    fields.extend(&Fields::from_wire(&text)?);
    Some(())
}

fn rendered(core: &Core, request: Value, explanation: &Explanation) -> Value {
    let upstream = explanation.upstream.map(|it| core.plan().upstream(it));
    let key = explanation.key.as_ref().zip(upstream);
    let status = explanation.status.as_ref().map(|it| {
        let mut text = Vec::new();
        it.write(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    json!({
        "request": request,
        "upstream": upstream.map(|it| it.target.to_string()),
        "key": key.map(|(key, _)| key.parts().map(|it| it.to_string())),
        "key_digest": key.map(|(key, upstream)| hex(&key.digest(&upstream.name()))),
        "vary": explanation.vary,
        "stored": explanation.found.as_ref().map(stored),
        "action": explanation.action.as_str(),
        "reason": explanation.reason,
        "cache_status": status,
        "not_considered": NOT_CONSIDERED,
    })
}

fn stored(found: &Found) -> Value {
    let (facts, now) = (found.entry.facts(), crate::net::wall());
    json!({
        "l1": found.memory,
        "l2": found.second_tier,
        "status": found.entry.status(),
        "body_bytes": found.entry.body().len(),
        "content_range": match found.entry.kind() {
            Kind::Part(part) => Some(part.content_range()),
            Kind::Content | Kind::VaryIndex(_) => None,
        },
        "age": facts.age(now).as_secs(),
        "lifetime": facts.lifetime.as_secs(),
        "lifetime_source": facts.lifetime_source.as_str(),
        "ttl": facts.ttl(now),
        "validator": facts.has_validator,
        "stale_forbidden": facts.stale_forbidden,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
