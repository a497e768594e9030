//! The response fields that `security.headers` adds.

use crate::config::decode::{Decode, Scope, Wrong};
use crate::config::node::{Node, quoted};

/// One response field to add where the origin set none of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderSetting {
    /// Field name as configured; compare without regard to case.
    pub name: String,
    /// Field value: printable ASCII, spaces and tabs, not empty.
    pub value: String,
    /// Only on connections with TLS (RFC 6797 section 7.2).
    pub tls_only: bool,
}

/// The response fields to add to every answer, none with an empty value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityHeaders(pub Vec<HeaderSetting>);

/// The defaults.
pub(super) const PRESET: &[(&str, &str)] = &[
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-XSS-Protection", "1; mode=block"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Content-Security-Policy", "default-src 'self'"),
    (STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
];

const STRICT_TRANSPORT_SECURITY: &str = "Strict-Transport-Security";

/// Fields that frame a message, steer a cache or belong to one answer: not to be overwritten.
const FORBIDDEN: &[&str] = &[
    "age",
    "cache-control",
    "cache-status",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "keep-alive",
    "last-modified",
    "proxy-connection",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "x-cache",
    "x-request-id",
];

/// The defaults with what was given laid over them, in the order of the defaults.
pub(super) fn merged(preset: &Node, given: Node) -> Node {
    let (Node::Object(mut members), Node::Object(more)) = (preset.clone(), given.clone()) else {
        return given;
    };
    for (name, value) in more {
        match members.iter_mut().find(|(it, _)| it.eq_ignore_ascii_case(&name)) {
            // `null` is "not given": the default stays.
            Some(_) if value == Node::Null => {}
            Some(member) => member.1 = value,
            None => members.push((name, value)),
        }
    }
    Node::Object(members)
}

impl Decode for SecurityHeaders {
    fn decode(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let Node::Object(members) = node else { return Err(scope.mismatch(node)) };
        let mut headers = Vec::new();
        for (name, value) in members {
            let text = match value {
                Node::Null => continue,
                Node::Text(text) => text,
                other => {
                    let what =
                        format!("{}: expected a string, found {}", quoted(name), other.found());
                    return Err(Wrong::new(what, "write \"\" to drop the field"));
                }
            };
            check(name, text)?;
            if !text.is_empty() {
                let tls_only = name.eq_ignore_ascii_case(STRICT_TRANSPORT_SECURITY);
                headers.push(HeaderSetting { name: name.clone(), value: text.clone(), tls_only });
            }
        }
        Ok(Self(headers))
    }
}

fn check(name: &str, value: &str) -> Result<(), Wrong> {
    let token = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(token) {
        let what = format!("{} is not a field name", quoted(name));
        return Err(Wrong::new(what, "write letters, digits and hyphens"));
    }
    if FORBIDDEN.iter().any(|it| it.eq_ignore_ascii_case(name)) {
        let what = format!("{name} is written by the daemon and the origin alone");
        return Err(Wrong::new(what, "remove it"));
    }
    let printable = value.bytes().all(|it| it == b'\t' || it == b' ' || it.is_ascii_graphic());
    if !printable || value.trim() != value || value.len() > VALUE_BYTES_MAX {
        let what = format!("{name}: {} is not a field value", quoted(value));
        return Err(Wrong::new(what, "write printable ASCII without spaces around it"));
    }
    Ok(())
}

/// Keeps response heads within what clients accept (commonly 8 KiB for all of it).
const VALUE_BYTES_MAX: usize = 4_096;
const NAME_BYTES_MAX: usize = 64;
