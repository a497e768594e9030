//! Any bytes as a response head: no panic, and no beginning judged otherwise than the whole.
#![no_main]

use apiproxyd::http::{Fields, Method};
use apiproxyd::http1::{Limits, parse_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { head_bytes_max: 2_048, fields_max: 20, ..Limits::default() };
    for method in [Method::Get, Method::Head] {
        let whole = parse_response(input, &limits, &method);
        if let Ok(Some(response)) = &whole {
            assert!(input[..response.head_len].ends_with(b"\r\n"));
            let wire = response.head.fields.as_wire();
            assert_eq!(Fields::from_wire(wire).as_ref(), Some(&response.head.fields));
        }
        let mut cut = input.len();
        while cut > 0 {
            cut = cut * 3 / 4;
            let part = parse_response(&input[..cut], &limits, &method);
            assert!(part == Ok(None) || part == whole, "{cut}");
        }
    }
});
