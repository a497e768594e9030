//! Any bytes as a JSON text; the first byte says in which pieces they come. What another reader
//! takes is JSON, and what is JSON is UTF-8.
#![no_main]

use apiproxyd::http::json::Checker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, text)) = input.split_first() else { return };
    let whole = check(text, text.len());
    assert_eq!(check(text, usize::from(piece)), whole);
    match whole {
        Ok(()) => assert!(std::str::from_utf8(text).is_ok()),
        Err(at) => {
            assert!(at <= text.len());
            assert!(serde_json::from_slice::<serde_json::Value>(text).is_err());
        }
    }
});

fn check(text: &[u8], piece: usize) -> Result<(), usize> {
    let mut checker = Checker::default();
    text.chunks(piece.max(1)).try_for_each(|it| checker.push(it))?;
    checker.finish()
}
