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
    &["net", "store", "logs"],
    &["proxy"],
    &["admin"],
    &["server"],
    &["cli"],
    &["lib", "main"],
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;
/// The last two would slip past `modules_import_lower_layers_only`.
const BANNED: &[&str] = &["dbg!(", "todo!(", "FIXME", "#[ignore]", "crate::{", "super::super"];
/// Everything that is written in Rust. This file names what is banned, so it is left out there.
const FOLDERS: &[&str] = &["src", "tests", "benches", "fuzz/fuzz_targets"];

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
    for file in all_files() {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            errors.push(format!("{}: {lines} lines", file.display()));
        }
        if file.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", file.display(), number + 1);
            for banned in BANNED.iter().filter(|it| line.contains(**it)) {
                errors.push(format!("{at}: {banned}"));
            }
            if line.chars().count() > LINE_COLUMNS_MAX {
                errors.push(format!("{at}: longer than {LINE_COLUMNS_MAX} columns"));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut errors = Vec::new();
    for file in all_files() {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for start in (0..lines.len()).filter(|it| opens_function(lines[*it])) {
            let length = function_lines(&lines[start..]);
            if length > FUNCTION_LINES_MAX {
                errors.push(format!("{}:{}: {length} lines", file.display(), start + 1));
            }
        }
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

/// Lines up to the brace below the column of `fn`, where rustfmt puts it; 1 for what has no body.
fn function_lines(lines: &[&str]) -> usize {
    let column = |line: &str| line.len() - line.trim_start().len();
    for (number, line) in lines.iter().enumerate() {
        let same = column(line) == column(lines[0]) && !line.is_empty();
        if same && number > 0 && line.trim_start().starts_with('}') {
            return number + 1;
        }
        if same && line.ends_with([';', '}']) {
            return 1;
        }
    }
    1
}

/// A file at the top of `tests/` or `benches/` that Cargo.toml or an attribute leaves out would
/// never run.
#[test]
fn every_bench_is_declared_without_the_test_harness() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    for file in fs::read_dir("benches").unwrap().map(|it| it.unwrap().path()) {
        if file.extension().is_some_and(|it| it == "rs") {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let declared = format!("[[bench]]\nname = \"{name}\"\nharness = false\n");
            assert!(manifest.contains(&declared), "{name} in Cargo.toml");
        }
    }
}

fn opens_function(line: &str) -> bool {
    let mut words = line.trim_start().split(' ');
    let qualifiers = ["pub", "const", "async", "unsafe", "extern"];
    words.find(|it| !qualifiers.contains(it) && !it.starts_with("pub(")) == Some("fn")
}

fn all_files() -> Vec<PathBuf> {
    let folders = FOLDERS.iter().map(Path::new).filter(|it| it.is_dir());
    folders.flat_map(source_files).collect()
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
