//! Any bytes as a request head: no panic, and no beginning judged otherwise than the whole.
#![no_main]

use apiproxyd::http::Fields;
use apiproxyd::http1::{Limits, Slots, parse_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits {
        head_bytes_max: 2_048,
        target_bytes_max: 256,
        fields_max: 20,
        field_bytes_max: 512,
        ..Limits::default()
    };
    let mut slots = Slots::new();
    let whole = parse_request(input, &limits, &mut slots);
    if let Ok(Some(request)) = &whole {
        assert!(request.head_len <= input.len());
        assert!(input[..request.head_len].ends_with(b"\r\n\r\n"));
        let fields = request.to_fields();
        assert_eq!(Fields::from_wire(fields.as_wire()), Some(fields));
    }
    let whole = whole.map(|it| it.map(|it| (it.head_len, it.body, it.persistent)));
    let mut cut = input.len();
    while cut > 0 {
        cut = cut * 3 / 4;
        let mut slots = Slots::new();
        let part = parse_request(&input[..cut], &limits, &mut slots);
        let part = part.map(|it| it.map(|it| (it.head_len, it.body, it.persistent)));
        assert!(part == Ok(None) || part == whole, "{cut}");
    }
});
