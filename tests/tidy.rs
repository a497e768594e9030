//! Checks of the source itself: layering, file length, banned text.
//!
//! Rust enforces privacy between modules but not direction, so one crate can grow import cycles
//! that nobody decided on. This test holds the direction. See "Layers" in ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules, lowest layer first. A module may name modules of lower layers only.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["http"],
    &["http1", "cache", "limit", "breaker", "route", "ssrf"],
    &["metrics"],
    &["config"],
    &["net", "store"],
    &["proxy"],
    &["admin"],
    &["server"],
    &["cli"],
    &["lib", "main"],
];

const FILE_LINES_MAX: usize = 500;
/// The last two would slip past `modules_import_lower_layers_only`.
const BANNED: &[&str] = &["dbg!(", "todo!(", "FIXME", "#[ignore]", "crate::{", "super::super"];

#[test]
fn modules_import_lower_layers_only() {
    let mut errors = Vec::new();
    for file in source_files(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let from = top_module(&file);
        let Some(from_layer) = layer(&from) else {
            errors.push(format!("{}: `{from}` is in no layer", file.display()));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for to in crate_modules(line) {
                let Some(to_layer) = layer(to) else { continue };
                if to != from && to_layer >= from_layer {
                    let at = format!("{}:{}", file.display(), number + 1);
                    errors.push(format!("{at}: `{from}` must not import `{to}`"));
                }
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn files_are_short_and_clean() {
    let mut errors = Vec::new();
    for file in source_files(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            errors.push(format!("{}: {lines} lines", file.display()));
        }
        for (number, line) in text.lines().enumerate() {
            for banned in BANNED.iter().filter(|it| line.contains(**it)) {
                errors.push(format!("{}:{}: {banned}", file.display(), number + 1));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// `src/http1/chunked.rs` and `src/http1.rs` both belong to `http1`.
fn top_module(file: &Path) -> String {
    let first = file.components().nth(1).unwrap();
    let name = Path::new(first.as_os_str()).file_stem().unwrap();
    name.to_str().unwrap().to_owned()
}

/// Names that follow `crate::` on this line, comments left out.
fn crate_modules(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn source_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
