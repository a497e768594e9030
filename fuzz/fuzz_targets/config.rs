//! Any text as a configuration file: no panic, no hang, and a refusal says why.
#![no_main]

use std::path::Path;

use apiproxyd::config::{Sources, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let no_variable = |_: &str| None;
    let no_file = |_: &Path| Err("there are no files here".to_owned());
    let sources = Sources {
        text: Some(text),
        environment: &no_variable,
        read_file: &no_file,
        home: None,
        overrides: &[],
    };
    if let Err(faults) = parse(&sources) {
        assert!(!faults.faults.is_empty());
        assert!(!faults.to_string().is_empty());
    }
});
