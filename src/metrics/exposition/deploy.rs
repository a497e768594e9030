//! What `deploy/` names is there: metrics, their labels, and the values of those that are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::tests::{Families, cores, extras};
use super::*;
use crate::metrics::table::rows;

/// Label -> values that a scrape shows.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Every name that a query may use, with its labels.
fn shown() -> BTreeMap<String, Labels> {
    let families = Families::parse(&render(&cores(), extras(), Format::Classic));
    let mut names: BTreeMap<String, Labels> = BTreeMap::new();
    for sample in families.samples {
        let labels = names.entry(sample.name).or_default();
        for (key, value) in sample.labels {
            labels.entry(key).or_default().insert(value);
        }
    }
    names
}

/// One use of a metric: its name and what stands in braces behind it.
#[derive(Debug, PartialEq)]
struct Use<'a> {
    name: &'a str,
    labels: Option<&'a str>,
}

fn uses(text: &str) -> Vec<Use<'_>> {
    let starts = text.match_indices("apiproxyd_").map(|(at, _)| &text[at..]);
    let of = |rest: &'_ str| {
        let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        rest.find(|c| !part(c)).unwrap_or(rest.len())
    };
    starts
        .map(|rest| {
            let (name, rest) = rest.split_at(of(rest));
            let labels = rest.strip_prefix('{').and_then(|it| it.split_once('}'));
            Use { name, labels: labels.map(|(labels, _)| labels) }
        })
        .collect()
}

/// `key`, or `key OP "value"` with alternatives between bars.
fn matcher(text: &str) -> (&str, Vec<&str>) {
    let part = |c: char| c.is_ascii_lowercase() || c == '_';
    let text = text.trim();
    let (key, rest) = text.split_at(text.find(|c| !part(c)).unwrap_or(text.len()));
    let value = rest.trim_start_matches(['=', '!', '~', ' ']).trim_matches('"');
    // A variable of a dashboard stands for anything.
    let values = if value.contains('$') { "" } else { value };
    (key, values.split('|').filter(|it| !it.is_empty()).collect())
}

/// Those whose values come from the operator or the machine.
const FREE: &[&str] = &["job", "instance", "upstream", "core", "version", "driver", "store"];

fn faults(text: &str) -> Vec<String> {
    let shown = shown();
    let mut faults = Vec::new();
    for it in uses(text) {
        let Some(known) = shown.get(it.name) else {
            faults.push(format!("{} is no metric", it.name));
            continue;
        };
        for (key, values) in it.labels.into_iter().flat_map(|it| it.split(',')).map(matcher) {
            if FREE.contains(&key) {
                continue;
            }
            let Some(known) = known.get(key) else {
                faults.push(format!("{} has no label {key:?}", it.name));
                continue;
            };
            for value in values.iter().filter(|value| !known.contains(**value)) {
                faults.push(format!("{} has no {key}={value:?}", it.name));
            }
        }
    }
    faults
}

/// The strings in a JSON document, one a line, without their escapes.
fn strings(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::String(text) => {
            out.push_str(text);
            out.push('\n');
        }
        serde_json::Value::Array(items) => items.iter().for_each(|it| strings(it, out)),
        serde_json::Value::Object(members) => members.values().for_each(|it| strings(it, out)),
        _ => {}
    }
}

#[test]
fn dashboards_and_rules_name_metrics_labels_and_values_that_exist() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut checked = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = match path.extension().and_then(|it| it.to_str()) {
            Some("yml") => fs::read_to_string(&path).unwrap(),
            Some("json") => {
                let json = fs::read_to_string(&path).unwrap();
                let mut text = String::new();
                strings(&serde_json::from_str(&json).unwrap(), &mut text);
                text
            }
            _ => continue,
        };
        assert_eq!(faults(&text), [""; 0], "{}", path.display());
        checked += uses(&text).len();
    }
    assert!(checked > 80, "{checked} uses found");
}

#[test]
fn the_readme_names_metrics_that_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/README.md");
    let text = fs::read_to_string(path).unwrap();
    for it in uses(&text) {
        // Such as "all names begin with `apiproxyd_`".
        let group = it.name.ends_with('_');
        let row = rows().find(|row| row.name == it.name || group && row.name.starts_with(it.name));
        let row = row.unwrap_or_else(|| panic!("{} is no metric", it.name));
        for key in it.labels.into_iter().flat_map(|it| it.split(',')).map(str::trim) {
            assert!(row.labels.contains(&key), "{} has no label {key}", it.name);
        }
    }
}

#[test]
fn what_does_not_exist_is_found() {
    let rows = [
        ("rate(apiproxyd_requests_total{cache=~\"hit|miss\", job=\"x\"}[5m]) > 0", ""),
        ("apiproxyd_request_duration_seconds_bucket{le=\"+Inf\"}", ""),
        ("apiproxyd_request_total", "apiproxyd_request_total is no metric"),
        (
            "apiproxyd_requests_total{code=\"200\"}",
            "apiproxyd_requests_total has no label \"code\"",
        ),
        (
            "apiproxyd_requests_total{cache=~\"hit|hot\"}",
            "apiproxyd_requests_total has no cache=\"hot\"",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(faults(text).join("; "), expected, "{text}");
    }
}
