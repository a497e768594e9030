//! `/cache/explain?method=GET&path=/v1/x`: what would become of a request, and why.
//!
//! The path may be written with or without the API prefix; its query with `%3F` for the `?` and
//! `%26` for each `&`. `header=Name:value` adds a field, `body=` a body for the methods that are
//! cached by it; `method` is GET where it is not said.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::admin::reply::Answered;
use crate::cache::Kind;
use crate::http::target::{normalise_path, normalise_query};
use crate::http::{Fields, Method, RequestHead};
use crate::proxy::error::Refusal;
use crate::proxy::explain::{BAD_DESCRIPTION, Described, Explanation, Found, explain as decide};
use crate::proxy::{Core, Task};

/// Explains the request that the query describes.
pub async fn explain(core: &Rc<Core>, task: &Task) -> Result<Answered, Refusal> {
    let described = described(core, task)?;
    let request = json!({
        "method": described.head.method.as_str(),
        "path": described.head.path,
        "query": described.head.query,
    });
    let explanation = decide(core, task, described).await;
    Ok(Answered::json(200, &rendered(core, request, &explanation)))
}

fn described(core: &Core, task: &Task) -> Result<Described, Refusal> {
    let (mut method, mut target, mut body) = (Method::Get, None, None);
    let mut fields = Fields::new();
    let query = task.head.query.as_deref().unwrap_or_default();
    for part in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = part.split_once('=').ok_or(BAD_DESCRIPTION)?;
        let value = decoded(value.as_bytes()).ok_or(BAD_DESCRIPTION)?;
        match name {
            "method" => method = Method::from_bytes(&value).ok_or(BAD_DESCRIPTION)?,
            "path" => target = Some(value),
            "body" => body = Some(value.into()),
            "header" => push_field(&mut fields, &value).ok_or(BAD_DESCRIPTION)?,
            _ => return Err(BAD_DESCRIPTION),
        }
    }
    let target = target.ok_or(BAD_DESCRIPTION)?;
    let (path, query) = normal(core, &target).ok_or(BAD_DESCRIPTION)?;
    let authority = task.head.authority.clone();
    let version = task.head.version;
    let head = RequestHead { method, path, query, authority, version, fields };
    Ok(Described { head, body })
}

/// The path under the API prefix, and the query, in the spelling that keys have.
fn normal(core: &Core, target: &[u8]) -> Option<(String, Option<String>)> {
    let plan = core.plan();
    let mut halves = target.splitn(2, |byte| *byte == b'?');
    let path = normalise_path(halves.next()?, plan.slashes).ok()?;
    let query = halves.next().map(normalise_query).transpose().ok()?;
    let prefixed = !plan.prefix.as_str().is_empty();
    let inner = if prefixed { plan.prefix.strip(&path) } else { None };
    let path = String::from_utf8(inner.unwrap_or(&path).to_vec()).ok()?;
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

/// Percent-decoding (RFC 3986 section 2.1); `None` for an escape that is none.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => *other,
        });
    }
    Some(out)
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
