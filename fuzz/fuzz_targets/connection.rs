//! A whole connection: bytes in, messages out, in two ways of cutting the bytes.
//!
//! What a smuggled request is: the second of two messages for one reader, body of the first for
//! another. So the messages found must not depend on how the bytes arrived.
#![no_main]

use apiproxyd::http1::{BodyReader, Limits, Slots, parse_request, worth_parsing};
use libfuzzer_sys::fuzz_target;

#[path = "../../src/http1/reference/connection/serve.rs"]
mod serve;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    assert_eq!(serve::serve(bytes, usize::from(piece)), serve::serve(bytes, bytes.len()));
});
