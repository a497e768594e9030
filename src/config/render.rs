//! What the schema and a parsed configuration look like on paper.

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::node::{Node, json_text};
use crate::config::reader::{Origin, Shown};
use crate::config::resolved::Settings;
use crate::config::row::Row;
use crate::config::settings::rows;
use crate::config::words::Backend;

/// The example file: every field with its default, in the schema's order.
#[must_use]
pub fn example() -> String {
    object(rows().filter(|row| !row.path.contains('[')).map(|row| (row.path, row.preset.node())))
}

/// Effective values as a configuration file, secrets masked; `null` where nothing is set.
#[must_use]
pub fn effective(shown: &[Shown]) -> String {
    let mut fields = Vec::<(&str, Node)>::new();
    let mut routes = Vec::<Node>::new();
    let mut open = None;
    for Shown { path, node, .. } in shown {
        let Some((index, name)) = path.strip_prefix("routes[").and_then(|it| it.split_once("]."))
        else {
            fields.push((path, node.clone()));
            continue;
        };
        if routes.is_empty() {
            fields.push(("routes", Node::Null)); // Its place; filled in below.
        }
        if open != Some(index) {
            open = Some(index);
            routes.push(Node::Object(Vec::new()));
        }
        if let Some(Node::Object(members)) = routes.last_mut() {
            members.push((name.to_owned(), node.clone()));
        }
    }
    if let Some(place) = fields.iter_mut().find(|it| it.0 == "routes" && !routes.is_empty()) {
        place.1 = Node::List(routes);
    }
    object(fields.into_iter())
}

/// One line a field: path, value, what decided it. Secrets are masked.
#[must_use]
pub fn listing(shown: &[Shown]) -> String {
    let path_width = shown.iter().map(|it| it.path.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Shown { path, node, origin } in shown {
        let value = node.to_string();
        let _ = match origin {
            Origin::Default => writeln!(out, "{path:path_width$}  {value}"),
            origin => writeln!(out, "{path:path_width$}  {value}  <- {origin}"),
        };
    }
    out
}

/// The README's table: a section for each group, a row for each field.
#[must_use]
pub fn table() -> String {
    let mut out = String::new();
    let mut group = None;
    for row in rows() {
        if group != Some(row.group()) {
            group = Some(row.group());
            let title = match row.group() {
                "" => "top level",
                other => other,
            };
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}### {title}\n");
            out.push_str("| field | default | unit, range | meaning |\n|---|---|---|---|\n");
        }
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            row.name(),
            default_cell(row),
            limits_cell(row),
            meaning_cell(row)
        );
    }
    out
}

fn default_cell(row: &Row) -> String {
    match row.preset.node() {
        Node::Object(members) => {
            let member = |(name, value): &(String, Node)| format!("{name}: {value}");
            members.iter().map(member).collect::<Vec<_>>().join("<br>")
        }
        node => format!("`{node}`"),
    }
}

fn limits_cell(row: &Row) -> String {
    let parts = [row.unit.to_owned(), row.range()];
    parts.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", ")
}

fn meaning_cell(row: &Row) -> String {
    let mut cell = row.meaning.replace('|', "\\|");
    if !row.memory.is_empty() {
        let _ = write!(cell, " Memory: {}.", row.memory);
    }
    if let Some(variable) = row.environment() {
        let _ = write!(cell, " `{variable}`.");
    }
    cell
}

/// One line: where it would listen, for whom it would cache, with which tiers.
#[must_use]
pub fn summary(settings: &Settings) -> String {
    let Settings { server, cache, upstreams, .. } = settings;
    let scheme = if server.tls_enabled { "https" } else { "http" };
    let host = match server.ip() {
        Some(ip) if ip.is_ipv6() => format!("[{ip}]"),
        _ => server.host.clone(),
    };
    let upstream = upstreams.first().map(|it| it.upstream.to_string()).unwrap_or_default();
    let more = match upstreams.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let memory = if cache.memory_cache_enabled { "memory" } else { "" };
    let disk = match cache.backend {
        Backend::None => "",
        other => other.as_str(),
    };
    let tiers: Vec<_> = [memory, disk].into_iter().filter(|it| !it.is_empty()).collect();
    let tiers = if tiers.is_empty() { "none".to_owned() } else { tiers.join(" + ") };
    format!(
        "{scheme}://{host}:{}{} -> {upstream}{more}; cache: {tiers}, ttl {}; cores: {}; driver: {}",
        server.port,
        server.api_prefix.as_str(),
        span(cache.ttl),
        server.cores,
        server.driver.as_str(),
    )
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        secs if secs >= 3_600 && secs % 3_600 == 0 => format!("{} h", secs / 3_600),
        secs => format!("{secs} s"),
    }
}

/// Fields as one JSON object with a group on a level of its own.
fn object<'a>(fields: impl Iterator<Item = (&'a str, Node)>) -> String {
    let mut out = String::from("{");
    let mut open = "";
    let mut first = true;
    for (path, node) in fields {
        let (group, name) = path.rsplit_once('.').unwrap_or(("", path));
        if group != open {
            if !open.is_empty() {
                out.push_str("\n  }");
                first = false;
            }
            if !group.is_empty() {
                out.push_str(if first { "\n" } else { ",\n" });
                let _ = write!(out, "  {}: {{", json_text(group));
                first = true;
            }
            open = group;
        }
        out.push_str(if first { "\n" } else { ",\n" });
        first = false;
        let indent = if group.is_empty() { "  " } else { "    " };
        let _ = write!(out, "{indent}{}: {}", json_text(name), value(&node, indent));
    }
    out.push_str(if open.is_empty() { "\n}\n" } else { "\n  }\n}\n" });
    out
}

/// An object a line a member, everything else on one line.
fn value(node: &Node, indent: &str) -> String {
    let Node::Object(members) = node else { return node.to_string() };
    let lines = members.iter().map(|(name, it)| format!("{indent}  {}: {it}", json_text(name)));
    format!("{{\n{}\n{indent}}}", lines.collect::<Vec<_>>().join(",\n"))
}
