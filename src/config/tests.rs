use super::*;

#[test]
fn an_empty_object_gives_the_defaults() {
    let sources = Sources {
        text: Some("{}"),
        environment: &|_| None,
        read_file: &|_| Err("none".to_owned()),
        home: None,
        overrides: &[],
    };
    let parsed = parse(&sources).unwrap();
    assert_eq!(parsed.settings.server.port, 9002);
    assert!(parsed.notes.is_empty());
}
