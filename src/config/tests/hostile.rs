//! Texts that nobody meant well: nothing panics, nothing secret is printed.

use proptest::prelude::*;

use crate::config::tests::parse_in;
use crate::config::{Node, render, rows};

/// A JSON text that is often nearly a configuration.
fn near_configuration() -> impl Strategy<Value = String> {
    let names: Vec<String> = rows()
        .flat_map(|row| [row.path.to_owned(), row.name().to_owned(), row.group().to_owned()])
        .collect();
    let value = prop_oneof![
        Just("null".to_owned()),
        any::<u64>().prop_map(|it| it.to_string()),
        any::<i32>().prop_map(|it| it.to_string()),
        any::<f64>()
            .prop_filter("JSON has no such", |it| it.is_finite())
            .prop_map(|it| it.to_string()),
        any::<bool>().prop_map(|it| it.to_string()),
        "\\PC{0,8}".prop_map(|it| Node::Text(it).to_string()),
        "\\PC{0,8}".prop_map(|it| format!("[{}, 1]", Node::Text(it))),
    ];
    let member = (proptest::sample::select(names), value)
        .prop_map(|(name, value)| format!("{}: {value}", Node::Text(name)));
    let group =
        proptest::collection::vec(member, 0..6).prop_map(|it| format!("{{{}}}", it.join(", ")));
    let groups = proptest::sample::select(vec!["server", "cache", "security", "client", "log"]);
    let nested = (groups, group.clone()).prop_map(|(name, it)| format!("{name:?}: {it}"));
    let routes = group.prop_map(|it| format!("\"routes\": [{it}]"));
    proptest::collection::vec(prop_oneof![nested, routes], 0..5)
        .prop_map(|it| format!("{{{}}}", it.join(", ")))
}

fn secret_paths() -> Vec<&'static str> {
    rows().filter(|row| row.is_secret()).map(|row| row.path).collect()
}

#[test]
fn a_hostile_name_cannot_forge_a_line() {
    let text = r#"{"x\nok: all is well": 1, "cache": {"\u001b[2J": 1}, "routes": [{"a\rb": 1}]}"#;
    let faults = parse_in(text, &[], &[], &[]).unwrap_err();
    assert_eq!(faults.notes.len(), 3, "{faults:?}");
    for note in &faults.notes {
        assert!(!note.to_string().chars().any(char::is_control), "{note:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_every_line_is_one_line(text in near_configuration()) {
        let (faults, notes) = match parse_in(&text, &[], &[], &[]) {
            Ok(parsed) => {
                prop_assert!(!render::listing(&parsed.shown).is_empty());
                prop_assert!(Node::parse(&render::effective(&parsed.shown)).is_ok());
                (Vec::new(), parsed.notes)
            }
            Err(faults) => {
                prop_assert!(!faults.faults.is_empty());
                (faults.faults, faults.notes)
            }
        };
        let notes = notes.iter().map(ToString::to_string);
        let lines = faults.iter().map(ToString::to_string).chain(notes);
        for line in lines {
            prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
        }
    }

    #[test]
    fn no_secret_is_ever_printed(
        field in proptest::sample::select(secret_paths()),
        fault in any::<bool>(),
    ) {
        let value = match (field.ends_with("client_api_keys"), fault) {
            (true, false) => r#"["hunter2"]"#,
            (true, true) => r#"["hunter2", "hunter2", {"key": "hunter2", "name": "hunter2 "}]"#,
            (false, false) => r#""hunter2""#,
            (false, true) => r#"["hunter2"]"#,
        };
        let name = field.rsplit(['.']).next().unwrap();
        let text = match field.split_once('.') {
            Some(("routes[]", _)) => {
                format!(r#"{{"routes": [{{"prefix": "/a", "{name}": {value}}}]}}"#)
            }
            Some((group, _)) => format!(r#"{{"{group}": {{"{name}": {value}}}}}"#),
            None => format!(r#"{{"{name}": {value}}}"#),
        };
        let printed = match parse_in(&text, &[], &[], &[]) {
            Ok(parsed) => format!(
                "{:?} {} {} {}", parsed, render::listing(&parsed.shown),
                render::effective(&parsed.shown), render::summary(&parsed.settings)
            ),
            Err(faults) => format!("{faults:?} {faults}"),
        };
        prop_assert!(!printed.contains("hunter2"), "{}", printed);
    }
}
