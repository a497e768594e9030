//! What the documents list is what the program has: reasons, fields, endpoints, codes, files.
//!
//! A document that names something that is gone, or leaves out something that has come, misleads
//! for years. What a program can compare, it compares here; the prose is for people to keep true.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests do I/O")]

use std::fs;
use std::path::Path;

use apiproxyd::cache::Reason;
use apiproxyd::config::{render, rows};
use apiproxyd::http::untrusted::{UNTRUSTED, UNTRUSTED_PREFIXES};
use apiproxyd::logs::Line;
use apiproxyd::metrics::labels::UPSTREAM_FAILURES;
use apiproxyd::metrics::{Counter, Gauge};

const README: &str = include_str!("../README.md");
const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");
const TUNING: &str = include_str!("../tuning.md");

/// Rows of the table of reasons that start with this word; some are names of fields as well.
fn rows_of(word: &str) -> usize {
    let (_, rest) = README.split_once("| `detail` | why |").unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let start = format!("| `{word}` |");
    table.lines().filter(|it| it.starts_with(&start)).count()
}

fn source(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_reason_is_explained_once() {
    for reason in Reason::ALL {
        assert_eq!(rows_of(reason.as_str()), 1, "{}", reason.as_str());
    }
}

/// The faults of an upstream are details of Cache-Status as well.
#[test]
fn every_fault_of_an_upstream_is_named() {
    let source = source("src/proxy/error.rs");
    let (_, faults) = source.split_once("impl Fault {").unwrap();
    let (faults, _) = faults.split_once("pub fn problem").unwrap();
    let words: Vec<_> = faults.lines().filter_map(|it| quoted(it.split_once("=>")?.1)).collect();
    assert!(words.len() >= 10, "{words:?}");
    for word in &words {
        assert!(UPSTREAM_FAILURES.contains(word), "{word} is no label");
    }
    // Told in Cache-Status as fwd-status.
    for word in words.into_iter().filter(|it| *it != "status") {
        assert!(README.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn the_fields_are_those_of_the_program() {
    let (_, rest) = README.split_once("<!-- fields: begin -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- fields: end -->").unwrap();
    assert!(
        table == render::table(),
        "write anew what stands between the marks, with `apiproxyd config fields`"
    );
    for row in rows() {
        assert!(README.contains(&format!("| `{}` |", row.name())), "{}", row.path);
    }
}

/// Whose fields are removed is for operators to look up.
#[test]
fn every_field_that_no_client_may_write_is_listed() {
    let prefixes = UNTRUSTED_PREFIXES.iter().map(|it| format!("`{it}*`"));
    let names = UNTRUSTED.iter().map(|it| format!("`{it}`"));
    for name in prefixes.chain(names) {
        assert!(README.contains(&name) || name == "`X-Request-Id`", "{name}");
    }
}

#[test]
fn every_endpoint_is_listed_with_its_method() {
    let source = source("src/admin/mod.rs");
    let mut count = 0;
    for line in source.lines().filter(|it| it.trim_start().starts_with("Endpoint::new(\"")) {
        let path = quoted(line).unwrap();
        let (_, method) = line.split_once("Method::").unwrap();
        let (method, _) = method.split_once(',').unwrap();
        let start = format!("| `{path}` | {} |", method.to_uppercase());
        assert!(README.lines().any(|it| it.starts_with(&start)), "{start}");
        count += 1;
    }
    assert!(count >= 9, "the table of endpoints has moved");
}

#[test]
fn every_code_of_an_error_is_listed_with_its_status() {
    let source = source("src/proxy/error.rs");
    // Rust may break the line between status and code.
    let flat: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut codes = Vec::new();
    for call in flat.split("Problem::new(").skip(1) {
        let call = call.trim_start();
        let digits: String = call.chars().take_while(char::is_ascii_digit).collect();
        if let (Ok(status), Some(code)) = (digits.parse::<u16>(), quoted(call)) {
            codes.push((status, code.to_owned()));
        }
    }
    let (_, malformed) = flat.split_once("let code = match status {").unwrap();
    let (malformed, _) = malformed.split_once('}').unwrap();
    for arm in malformed.split(',') {
        let Some((status, code)) = arm.split_once("=>") else { continue };
        if let (Ok(status), Some(code)) = (status.trim().parse::<u16>(), quoted(code)) {
            codes.push((status, code.to_owned()));
        }
    }
    assert!(codes.len() >= 20, "{codes:?}");
    for (status, code) in codes {
        let start = format!("| {status} | `{code}` |");
        assert_eq!(README.lines().filter(|it| it.starts_with(&start)).count(), 1, "{start}");
    }
}

#[test]
fn every_member_of_the_access_log_is_explained() {
    let (_, rest) = README.split_once("| member | meaning |").unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let cells: String = table.lines().filter_map(|it| it.split('|').nth(1)).collect();
    for member in Line::MEMBERS {
        assert_eq!(cells.matches(&format!("`{member}`")).count(), 1, "{member}");
    }
}

#[test]
fn every_module_stands_on_the_map() {
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().and_then(|it| it.to_str()).unwrap().to_owned();
        if path.is_dir() {
            assert!(ARCHITECTURE.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
fn every_file_that_is_named_exists() {
    for (document, text) in [("README", README), ("ARCHITECTURE", ARCHITECTURE), ("tuning", TUNING)]
    {
        let in_marks = text.split('`').skip(1).step_by(2);
        let in_links = text.split("](").skip(1).filter_map(|it| it.split(')').next());
        let named = in_marks
            .filter(|it| it.starts_with("src/") || it.starts_with("tests/"))
            .chain(in_links.filter(|it| !it.contains("://")));
        let mut count = 0;
        for path in named {
            match path.strip_prefix('#') {
                Some(anchor) => assert!(has_heading(text, anchor), "{document}: #{anchor}"),
                None => assert!(Path::new(path).exists(), "{document}: {path}"),
            }
            count += 1;
        }
        assert!(count > 0, "{document} names nothing");
    }
}

#[test]
fn every_metric_that_is_named_exists() {
    let known: Vec<_> = apiproxyd::metrics::table::rows().map(|row| row.name).collect();
    let mut count = 0;
    for text in [README, ARCHITECTURE, TUNING] {
        for name in text.split('`').skip(1).step_by(2).filter(|it| it.starts_with("apiproxyd_")) {
            let exists = match name.strip_suffix('*') {
                Some(start) => known.iter().any(|it| it.starts_with(start)),
                None => known.contains(&name),
            };
            assert!(exists, "{name}");
            count += 1;
        }
    }
    assert!(count > 0, "no metric is named");
}

/// A row of the table is a promise: somewhere it is counted.
#[test]
fn every_counter_and_gauge_of_the_table_is_counted() {
    let mut text = String::new();
    let mut folders = vec![Path::new("src").to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("metrics") {
                folders.push(path);
            } else if path.is_file() {
                text.push_str(&source(path.to_str().unwrap()));
            }
        }
    }
    let counters = Counter::ALL.iter().map(|it| format!("Counter::{it:?}"));
    let gauges = Gauge::ALL.iter().map(|it| format!("Gauge::{it:?}"));
    let counted = |name: &str| {
        let ends = |rest: &str| !rest.starts_with(|it: char| it.is_alphanumeric());
        text.match_indices(name).any(|(at, _)| ends(&text[at + name.len()..]))
    };
    let missing: Vec<String> = counters.chain(gauges).filter(|it| !counted(it)).collect();
    // No connection speaks HTTP/2 yet: none is what there is to count.
    let yet_to_come: Vec<_> =
        missing.iter().filter(|it| *it != "Counter::Http2Connections").collect();
    assert!(yet_to_come.is_empty(), "{yet_to_come:?}");
}

/// Whether a heading has that anchor: its words in lower case, joined by hyphens.
fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter(|it| it.starts_with('#'));
    headings
        .map(|it| it.trim_start_matches('#').trim().to_lowercase())
        .any(|it| it.replace(',', "").replace(' ', "-") == anchor)
}

/// What stands between the first two quotation marks.
fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}
