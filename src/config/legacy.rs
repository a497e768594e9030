//! Names that older files use at the top level.

use std::collections::BTreeMap;

use crate::config::fault::Note;
use crate::config::node::Node;
use crate::config::reader::{Given, Origin};

/// Older names found in a file, with their values.
pub(super) type Older = BTreeMap<String, Node>;

/// Older name and the field it became; `None` for what has no meaning any more.
const OLDER: &[(&str, Option<&str>)] = &[
    ("endpoint", Some("entry_point")),
    ("daemon_host", Some("server.host")),
    ("daemon_port", Some("server.port")),
    ("cache_backend", Some("cache.backend")),
    ("cache_path", Some("cache.path")),
    ("cache_ttl", Some("cache.ttl")),
    ("postgres_dsn", Some("cache.postgres_dsn")),
    ("user_id", None),
    ("tier", None),
    ("plugins", None),
];

pub(super) fn is_older(name: &str) -> bool {
    OLDER.iter().any(|(older, _)| *older == name)
}

/// Puts older fields where the newer ones are absent, and notes each.
///
/// Empty strings and zeros count as absent: the program that wrote those files wrote unset
/// fields too.
pub(super) fn map(older: Older, given: &mut BTreeMap<String, Given>, notes: &mut Vec<Note>) {
    for (name, node) in older {
        let field = OLDER.iter().find(|(it, _)| *it == name).and_then(|(_, field)| *field);
        let text = match field {
            None => "has no meaning any more, ignored".to_owned(),
            Some(_) if is_unset(&node) => continue,
            Some(field) if given.get(field).is_some_and(|it| !is_empty(&it.node)) => {
                format!("older name of `{field}`, which is set: ignored")
            }
            Some(field) => {
                let origin = Origin::Older(name.clone());
                given.insert(field.to_owned(), Given { node, origin });
                format!("older name of `{field}`, taken over")
            }
        };
        notes.push(Note { path: name, text });
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(node, Node::Text(text) if text.is_empty())
}

fn is_unset(node: &Node) -> bool {
    is_empty(node) || matches!(node, Node::Null | Node::Whole(0))
}
