use proptest::prelude::*;

use super::*;

type Outcome = Result<(Vec<u8>, usize, Fields, bool), ChunkFault>;

/// Feeds pieces of the given sizes (the last one repeats) and collects what comes out.
fn feed(limits: &Limits, input: &[u8], pieces: &[usize]) -> Outcome {
    let mut decoder = ChunkedDecoder::new(limits);
    let (mut data, mut at, mut pieces) = (Vec::new(), 0, pieces.iter().copied());
    let mut piece = input.len();
    while at < input.len() && !decoder.is_done() {
        piece = pieces.next().unwrap_or(piece).max(1);
        let end = input.len().min(at + piece);
        while at < end && !decoder.is_done() {
            let step = decoder.decode(&input[at..end])?;
            assert!(step.consumed > 0, "no progress");
            assert!(step.data.end <= step.consumed);
            assert_eq!(step.done, decoder.is_done());
            data.extend_from_slice(&input[at..][step.data]);
            at += step.consumed;
        }
    }
    let done = decoder.is_done();
    Ok((data, at, decoder.take_trailers(), done))
}

fn decode(input: &[u8]) -> Outcome {
    feed(&Limits::default(), input, &[])
}

/// Bodies that must be refused, each with the section that says so.
const REFUSED: &[(&str, &[u8], ChunkFault)] = &[
    ("7.1 no size", b"\r\n", ChunkFault::BadSize),
    ("7.1 not hexadecimal", b"g\r\n", ChunkFault::BadSize),
    ("7.1 0x", b"0x1\r\na\r\n", ChunkFault::BadSize),
    ("7.1 plus", b"+1\r\na\r\n", ChunkFault::BadSize),
    ("7.1 minus", b"-1\r\na\r\n", ChunkFault::BadSize),
    ("7.1 space before", b" 1\r\na\r\n", ChunkFault::BadSize),
    ("7.1 space after", b"1 \r\na\r\n", ChunkFault::BadSize),
    ("7.1 tab after", b"1\t\r\na\r\n", ChunkFault::BadSize),
    ("7.1 space before the extension", b"1 ;a\r\na\r\n", ChunkFault::BadSize),
    ("7.1 underscore", b"1_0\r\n", ChunkFault::BadSize),
    ("7.1 comma", b"1,1\r\n", ChunkFault::BadSize),
    ("7.1 NUL", b"1\0\r\n", ChunkFault::BadSize),
    ("7.1 17 digits", b"10000000000000000\r\n", ChunkFault::SizeTooLong),
    ("7.1 17 zeros", b"00000000000000000\r\n", ChunkFault::SizeTooLong),
    ("7.1 bare LF", b"1\na\r\n", ChunkFault::BadLineEnd),
    ("7.1 bare CR", b"1\ra\r\n", ChunkFault::BadLineEnd),
    ("7.1 CR CR LF", b"1\r\r\na\r\n", ChunkFault::BadLineEnd),
    ("7.1.1 bare LF in an extension", b"1;a\nb\r\n", ChunkFault::BadLineEnd),
    ("7.1.1 bare CR in an extension", b"1;a\rb\r\n", ChunkFault::BadLineEnd),
    ("7.1.1 a control byte in an extension", b"1;a\x01\r\n", ChunkFault::BadExtension),
    ("7.1.1 NUL in an extension", b"1;a\0\r\n", ChunkFault::BadExtension),
    ("7.1.1 DEL in an extension", b"1;\x7f\r\n", ChunkFault::BadExtension),
    ("7.1 more data than the size", b"1\r\nab\r\n", ChunkFault::MissingCrlf),
    ("7.1 less data than the size", b"3\r\na\r\n0\r\n\r\n", ChunkFault::MissingCrlf),
    ("7.1 bare LF after data", b"1\r\na\n", ChunkFault::MissingCrlf),
    ("7.1 bare CR after data", b"1\r\na\rb", ChunkFault::MissingCrlf),
    ("7.1 no CRLF after data", b"1\r\na0\r\n\r\n", ChunkFault::MissingCrlf),
    ("7.1.2 bare LF at the end", b"0\r\n\n", ChunkFault::Trailer(FieldFault::BareLf)),
    ("7.1.2 bare CR at the end", b"0\r\n\rX", ChunkFault::Trailer(FieldFault::BareCr)),
    ("7.1.2 garbage for the end", b"0\r\nab\r\n", ChunkFault::Trailer(FieldFault::BadName)),
    (
        "7.1.2 the next request for the end",
        b"0\r\nGET / HTTP/1.1\r\n",
        ChunkFault::Trailer(FieldFault::SpaceBeforeColon),
    ),
    ("7.1.2 obs-fold", b"0\r\nA: b\r\n c\r\n\r\n", ChunkFault::Trailer(FieldFault::ObsFold)),
    ("7.1.2 NUL", b"0\r\nA: \0\r\n\r\n", ChunkFault::Trailer(FieldFault::BadValue)),
    (
        "7.1.2 white space before the colon",
        b"0\r\nA : b\r\n\r\n",
        ChunkFault::Trailer(FieldFault::SpaceBeforeColon),
    ),
];

type Row = (&'static str, &'static [u8], &'static [u8], &'static [u8]);

/// Bodies that must be read: input, data, trailers. Each ends the input.
const READ: &[Row] = &[
    ("7.1 empty", b"0\r\n\r\n", b"", b""),
    ("7.1 many zeros", b"0000000000000000\r\n\r\n", b"", b""),
    ("7.1 two chunks", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde", b""),
    (
        "7.1 either case",
        b"a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n",
        b"0123456789abcdefghij",
        b"",
    ),
    ("7.1 leading zeros", b"0003\r\nabc\r\n00\r\n\r\n", b"abc", b""),
    ("7.1 CRLF as data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", b""),
    ("7.1.1 extensions are ignored", b"1;a=b; c=\"d;e\" ;f\r\nx\r\n0;\xe9\t\r\n\r\n", b"x", b""),
    ("7.1.1 an empty extension", b"1;\r\nx\r\n0;;\r\n\r\n", b"x", b""),
    ("7.1.2 trailers", b"0\r\nX-Sum: 1 \r\nB:0\r\n\r\n", b"", b"X-Sum: 1\r\nB: 0\r\n"),
    ("7.1.2 an empty trailer value", b"0\r\nX:\r\n\r\n", b"", b"X: \r\n"),
    (
        "9110 6.5.1 forbidden trailers",
        b"0\r\nContent-Length: 1\r\nA: b\r\n\
        HOST: c\r\nCDN-Cache-Control: e\r\n\r\n",
        b"",
        b"A: b\r\n",
    ),
];

#[test]
fn every_fault_of_the_table_is_refused_with_its_reason() {
    for (rule, input, fault) in REFUSED {
        assert_eq!(decode(input), Err(*fault), "{rule}");
        assert_eq!(fault.status(), 400, "{rule}");
        let after_data = [b"1\r\nx\r\n", *input].concat();
        assert_eq!(decode(&after_data), Err(*fault), "{rule}");
    }
}

#[test]
fn every_body_of_the_table_is_read_to_its_end_and_no_further() {
    for (rule, input, data, trailers) in READ {
        let more = [*input, b"GET /"].concat();
        let (read, consumed, fields, done) = decode(&more).unwrap();
        assert_eq!((read.as_slice(), consumed, done), (*data, input.len(), true), "{rule}");
        assert_eq!(fields.as_wire(), *trailers, "{rule}");
    }
}

#[test]
fn no_beginning_of_a_body_is_done() {
    for (rule, input, ..) in READ {
        for len in 0..input.len() {
            let (_, consumed, _, done) = decode(&input[..len]).unwrap();
            assert_eq!((consumed, done), (len, false), "{rule}");
        }
    }
}

#[test]
fn each_sample_split_at_every_byte_gives_the_same() {
    let limits = Limits::default();
    let refused = REFUSED.iter().map(|it| it.1);
    for input in READ.iter().map(|it| it.1).chain(refused) {
        let whole = decode(input);
        for at in 1..input.len() {
            assert_eq!(feed(&limits, input, &[at]), whole, "{} at {at}", input.escape_ascii());
        }
        assert_eq!(feed(&limits, input, &[1]), whole, "{}", input.escape_ascii());
    }
}

#[test]
fn rfc9112_7_1_the_largest_size_is_64_bits() {
    let mut decoder = ChunkedDecoder::new(&Limits::default());
    let step = decoder.decode(b"ffffffffffffffff\r\nab").unwrap();
    assert_eq!((step.consumed, step.data), (20, 18..20));
    let step = decoder.decode(&[b'c'; 1_000]).unwrap();
    assert_eq!((step.consumed, step.data, step.done), (1_000, 0..1_000, false));
}

#[test]
fn extensions_are_bounded_by_line_and_by_data() {
    let limits = Limits { chunk_ext_bytes_max: 10, ..Limits::default() };
    let line = |ext: usize| format!("5;{}\r\nabcde\r\n", "x".repeat(ext - 1));
    assert!(feed(&limits, line(10).as_bytes(), &[]).is_ok());
    assert_eq!(feed(&limits, line(11).as_bytes(), &[]), Err(ChunkFault::ExtensionTooLong));
    assert!(feed(&limits, line(5).repeat(100).as_bytes(), &[]).is_ok());
    let outweighing = line(7).repeat(100);
    assert_eq!(feed(&limits, outweighing.as_bytes(), &[]), Err(ChunkFault::ExtensionTooLong));
}

#[test]
fn trailers_are_bounded() {
    let limits =
        Limits { trailer_bytes_max: 20, fields_max: 2, field_bytes_max: 16, ..Limits::default() };
    let judge = |trailers: &str| {
        feed(&limits, format!("0\r\n{trailers}\r\n").as_bytes(), &[]).map(|it| it.3)
    };
    assert_eq!(judge("A: bcde\r\nA: bcdefgh\r\n"), Err(ChunkFault::TrailerTooLarge));
    assert_eq!(judge("A: bcde\r\nA: bcdefg\r\n"), Ok(true));
    assert_eq!(judge("A:b\r\nA:b\r\nA:b\r\n"), Err(ChunkFault::Trailer(FieldFault::TooMany)));
    let fault = judge("A: 34567890123456\r\n").unwrap_err();
    assert_eq!((fault, fault.status()), (ChunkFault::Trailer(FieldFault::TooLarge), 431));
    assert_eq!(ChunkFault::TrailerTooLarge.status(), 431);
}

#[test]
fn rfc9110_6_5_1_names_that_act_before_the_content_are_no_trailers() {
    for name in [
        "Transfer-Encoding",
        "te",
        "AUTHORIZATION",
        "Set-Cookie",
        "x-forwarded-host",
        "X-HTTP-Method-Override",
    ] {
        assert!(is_forbidden_trailer(name.as_bytes()), "{name}");
    }
    for name in ["Grpc-Status", "X-Checksum", "Server-Timing", "Digest", "x", "X-Forwarded"] {
        assert!(!is_forbidden_trailer(name.as_bytes()), "{name}");
    }
    assert!(FORBIDDEN_TRAILERS.is_sorted());
}

#[test]
fn the_head_of_a_chunk_has_no_more_digits_than_needed() {
    for (len, head) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (0xabcdef, "abcdef\r\n"),
        (u64::MAX, "ffffffffffffffff\r\n"),
    ] {
        assert_eq!(encode_chunk_head(len).as_bytes(), head.as_bytes());
    }
}

#[test]
fn an_empty_chunk_is_not_written() {
    let mut out = Vec::new();
    write_chunk(&mut out, b"");
    assert!(out.is_empty());
    write_last_chunk(&mut out, &Fields::new());
    assert_eq!(out, LAST_CHUNK);
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself_however_it_is_split(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        trailer in "[a-z]{0,5}",
        pieces in prop::collection::vec(1..30_usize, 1..20),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            write_chunk(&mut wire, chunk);
        }
        let mut trailers = Fields::new();
        trailers.push("x-t", &trailer);
        write_last_chunk(&mut wire, &trailers);
        let read = feed(&Limits::default(), &wire, &pieces);
        prop_assert_eq!(read, Ok((chunks.concat(), wire.len(), trailers, true)));
    }

    #[test]
    fn any_input_gives_the_same_however_it_is_split(
        input in "(([0-9a-c]{1,2}|0|;x| |A: b)?(\r\n|\n|\r|[a-c]{0,3}))*",
        pieces in prop::collection::vec(1..8_usize, 1..20),
    ) {
        let limits = Limits { chunk_ext_bytes_max: 4, ..Limits::default() };
        let whole = feed(&limits, input.as_bytes(), &[]);
        prop_assert_eq!(feed(&limits, input.as_bytes(), &pieces), whole);
    }
}
