//! Any bytes as a chunked body; the first byte says in which pieces they come.
#![no_main]

use apiproxyd::http1::{ChunkFault, ChunkedDecoder, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, body)) = input.split_first() else { return };
    let whole = read(body, body.len());
    assert_eq!(read(body, usize::from(piece)), whole);
});

/// Data, bytes consumed, whether that was the end, trailers.
type Outcome = Result<(Vec<u8>, usize, bool, Vec<u8>), ChunkFault>;

fn read(body: &[u8], piece: usize) -> Outcome {
    let limits = Limits { chunk_ext_bytes_max: 64, trailer_bytes_max: 256, ..Limits::default() };
    let mut decoder = ChunkedDecoder::new(&limits);
    let (mut data, mut at) = (Vec::new(), 0);
    for piece in body.chunks(piece.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() && !decoder.is_done() {
            let step = decoder.decode(rest)?;
            assert!(step.consumed > 0 && step.data.end <= step.consumed);
            data.extend_from_slice(&rest[step.data]);
            at += step.consumed;
            rest = &rest[step.consumed..];
        }
    }
    let done = decoder.is_done();
    Ok((data, at, done, decoder.take_trailers().as_wire().to_vec()))
}
