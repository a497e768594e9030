//! Gzip of whole bodies (RFC 1952), both ways, by libdeflate.
//!
//! Bodies are whole in memory when they are encoded, so that one call with the output's bound known
//! does, and no stream is needed. Cost for a MiB of JSON, measured: 7 ms at level 1, 26 ms at 6,
//! 97 ms at 9, 1 ms to inflate; the caller moves more than 64 KiB off the core.
//!
//! Knows nothing of types and fields: what is worth encoding, and what the head then says, is
//! decided by the policy.

use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

/// How hard to compress: 1 (fastest) to 12 (smallest). Default 6, as libdeflate's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level(CompressionLvl);

impl Level {
    /// The level of that number; `None` outside 1 to 12.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        let known = (1..=12).contains(&level);
        CompressionLvl::new(i32::from(level)).ok().filter(|_| known).map(Self)
    }
}

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateFault {
    /// Not gzip, cut short, or its checksum is wrong.
    Corrupt,
    /// It would become larger than the bound.
    TooLarge,
    /// Something follows that is no further member: to ignore it would cut the body short.
    TrailingData,
}

impl InflateFault {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Corrupt => "gzip_corrupt",
            Self::TooLarge => "gzip_too_large",
            Self::TrailingData => "gzip_trailing_data",
        }
    }
}

/// The body as gzip, or `None` when that would not be smaller. The same body and level give the
/// same bytes, on every core and after every restart, so that one validator can name them.
#[must_use]
pub fn gzip(body: &[u8], level: Level) -> Option<Vec<u8>> {
    // No room for more than the body itself: what would be larger fails early.
    let mut out = vec![0; body.len()];
    let bytes = Compressor::new(level.0).gzip_compress(body, &mut out).ok()?;
    debug_assert!(bytes <= body.len());
    (bytes < body.len()).then(|| {
        out.truncate(bytes);
        out.shrink_to_fit();
        out
    })
}

/// The plain body of a gzip body, that of all its members (RFC 1952 section 2.2), at most
/// `bytes_max` long. Never allocates more than that, nor much more than the data can become.
///
/// # Errors
/// [`InflateFault`]; the data is refused as a whole.
pub fn gunzip(data: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateFault> {
    match member(data, bytes_max) {
        Err(InflateFault::TrailingData) => members(data, bytes_max),
        one => one,
    }
}

/// As [`gunzip`], of several members.
///
/// libdeflate does not say where a member ends. It is the first place at which another may begin
/// and before which there is a whole one: most often the first that looks like a beginning. The
/// compressed bytes look like one every 16 MiB; a body that does so again and again is refused.
fn members(data: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateFault> {
    let (mut out, mut rest, mut misses) = (Vec::new(), data, 0);
    while !rest.is_empty() {
        let room = bytes_max - out.len();
        let begins = memchr::memmem::find_iter(rest, &MAGIC).filter(|at| *at > 0);
        let mut found = None;
        for end in begins.chain([rest.len()]) {
            let Some((head, tail)) = rest.split_at_checked(end) else { break };
            match member(head, room) {
                Ok(plain) => {
                    found = Some((plain, tail));
                    break;
                }
                Err(InflateFault::TooLarge) if tail.is_empty() => {
                    return Err(InflateFault::TooLarge);
                }
                Err(_) => misses += 1,
            }
            if misses > MISSES_MAX {
                break;
            }
        }
        let (plain, tail) = found.ok_or(InflateFault::TrailingData)?;
        out.extend_from_slice(&plain);
        rest = tail;
    }
    debug_assert!(out.len() <= bytes_max);
    Ok(out)
}

/// The plain body of one member, which `data` is and nothing else.
fn member(data: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateFault> {
    let (crc, stated) = trailer(data).ok_or(InflateFault::Corrupt)?;
    // The stated size is the sender's word and only that: a size that deflate can't reach
    // (1 : 1032 at best) is a lie, one above the bound would be refused anyway.
    let stated_bytes = usize::try_from(stated).map_err(|_| InflateFault::TooLarge)?;
    if stated_bytes > data.len().saturating_mul(RATIO_MAX) {
        return Err(InflateFault::Corrupt);
    }
    if stated_bytes > bytes_max {
        return Err(InflateFault::TooLarge);
    }
    let mut out = vec![0; stated_bytes];
    let bytes = match Decompressor::new().gzip_decompress(data, &mut out) {
        Ok(bytes) => bytes,
        Err(DecompressionError::BadData) => return Err(InflateFault::Corrupt),
        // The first member is longer than the last one says.
        Err(DecompressionError::InsufficientSpace) => return Err(InflateFault::TrailingData),
    };
    if bytes != stated_bytes || libdeflater::crc32(&out) != crc || has_more(data) {
        return Err(InflateFault::TrailingData);
    }
    Ok(out)
}

/// How large a gzip body says that it becomes, which bounds the work of [`gunzip`], true or not. Of
/// several members only the last one's size is easily found: then it is what they could become.
#[must_use]
pub fn stated_bytes(data: &[u8]) -> u64 {
    let reach = (data.len() as u64).saturating_mul(RATIO_MAX as u64);
    if memchr::memmem::find_iter(data, &MAGIC).any(|at| at > 0) {
        return reach;
    }
    trailer(data).map_or(0, |(_, bytes)| u64::from(bytes)).min(reach)
}

/// Whether something follows the first member of `data`, which decodes and ends as the last does.
///
/// libdeflate stops after the first member and doesn't say where. Its end can be no other than the
/// last eight bytes unless the same eight stand elsewhere too, as in one member sent twice; then it
/// is worth to decode again without the last byte, which only fails when that byte was needed.
fn has_more(data: &[u8]) -> bool {
    let Some((_, rest)) = data.split_last() else { return false };
    let end = data.get(data.len().saturating_sub(8)..).unwrap_or_default();
    if memchr::memmem::find(rest, end).is_none() {
        return false;
    }
    let mut again = vec![0; trailer(data).map_or(0, |(_, bytes)| bytes as usize)];
    Decompressor::new().gzip_decompress(rest, &mut again).is_ok()
}

/// The checksum and size that end a gzip file (RFC 1952 section 2.3.1).
fn trailer(data: &[u8]) -> Option<(u32, u32)> {
    let (rest, size) = data.split_last_chunk()?;
    let (_, crc) = rest.split_last_chunk()?;
    Some((u32::from_le_bytes(*crc), u32::from_le_bytes(*size)))
}

/// How a member begins: the two bytes that name the format, and the one method there is (RFC 1952
/// section 2.3.1).
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Places that look like the beginning of a member and are none, in one body.
const MISSES_MAX: usize = 16;
/// No deflate stream expands further: 258 bytes from two bits.
const RATIO_MAX: usize = 1_032;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> Vec<u8> {
        b"{\"name\":\"value\"},".repeat(300)
    }

    #[test]
    fn a_body_comes_back_at_every_level() {
        for level in 1..=12 {
            let small = gzip(&text(), Level::new(level).unwrap()).unwrap();
            assert!(small.len() < text().len() / 10);
            assert_eq!(gunzip(&small, text().len()), Ok(text()));
        }
        assert_eq!((Level::new(0), Level::new(13)), (None, None));
        assert_eq!(Level::default(), Level::new(6).unwrap());
    }

    #[test]
    fn what_does_not_shrink_is_left_plain() {
        assert_eq!(gzip(b"", Level::default()), None);
        assert_eq!(gzip(b"abc", Level::default()), None);
    }

    #[test]
    fn the_bound_holds_to_the_byte() {
        let small = gzip(&text(), Level::default()).unwrap();
        assert_eq!(gunzip(&small, text().len() - 1), Err(InflateFault::TooLarge));
        assert_eq!(gunzip(&small, text().len()), Ok(text()));
        assert_eq!(stated_bytes(&small), text().len() as u64);
    }

    #[test]
    fn a_stated_size_beyond_reach_takes_no_memory() {
        let mut lie = gzip(&text(), Level::default()).unwrap();
        let at = lie.len() - 4;
        lie[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(gunzip(&lie, usize::MAX), Err(InflateFault::Corrupt));
        assert_eq!(stated_bytes(&lie), (lie.len() * RATIO_MAX) as u64);
        assert_eq!(stated_bytes(b""), 0);
    }

    /// RFC 1952 section 2.2: members simply follow one another.
    #[test]
    fn all_members_are_inflated() {
        let short = gzip(&text(), Level::default()).unwrap();
        let long = gzip(&b"b".repeat(10_000), Level::default()).unwrap();
        let empty = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0][..], &[0; 8]].concat();
        let parts = [(&short, text()), (&long, b"b".repeat(10_000)), (&empty, Vec::new())];
        for (a, plain_a) in &parts {
            for (b, plain_b) in &parts {
                for (c, plain_c) in &parts {
                    let plain = [&plain_a[..], plain_b, plain_c].concat();
                    let data = [&a[..], b, c].concat();
                    assert_eq!(gunzip(&data, plain.len()).as_ref(), Ok(&plain));
                    assert_eq!(gunzip(&data, 1 << 20), Ok(plain.clone()));
                    assert!(stated_bytes(&data) >= plain.len() as u64);
                    if !plain.is_empty() {
                        assert!(gunzip(&data, plain.len() - 1).is_err());
                    }
                    for cut in [1, 8, c.len() - 1] {
                        assert!(gunzip(&data[..data.len() - cut], 1 << 20).is_err(), "{cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_member_that_holds_the_bytes_of_a_beginning_is_not_cut_there() {
        let one = gzip(&text(), Level::default()).unwrap();
        // Stored as they are: header, one final stored block, its length and complement.
        let stored = |body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap();
            let mut data = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
            data.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(&(!length).to_le_bytes());
            data.extend_from_slice(body);
            data.extend_from_slice(&libdeflater::crc32(body).to_le_bytes());
            data.extend_from_slice(&u32::from(length).to_le_bytes());
            data
        };
        for (times, fault) in [(1, None), (16, None), (20, Some(InflateFault::TrailingData))] {
            let body = [MAGIC.as_slice(), b"--------------------"].concat().repeat(times);
            let alone = gunzip(&stored(&body), 1 << 20);
            assert_eq!(alone.as_ref(), Ok(&body), "one member is never searched");
            let both = gunzip(&[stored(&body), one.clone()].concat(), 1 << 20);
            assert_eq!(both, fault.map_or(Ok([body, text()].concat()), Err), "{times}");
        }
    }

    #[test]
    fn what_follows_and_is_no_member_is_not_lost_silently() {
        let one = gzip(&text(), Level::default()).unwrap();
        for more in [&b"\0"[..], b"trailing", &[0x1f, 0x8b, 8], &one[..20]] {
            assert!(gunzip(&[&one[..], more].concat(), 1 << 20).is_err(), "{more:?}");
        }
        // One member that merely holds its own last bytes is not taken for two.
        let end = &one[one.len() - 8..];
        let mut named = one[..10].to_vec();
        named[3] = 4; // FEXTRA: a length and that many bytes follow.
        let named = [&named[..], &[8, 0], end, &one[10..]].concat();
        assert!(gunzip(&named, 1 << 20).is_ok());
        assert_eq!(gunzip(&[&one[..], &b"\0\0\0\0\0\0\0\0"[..]].concat(), 1 << 20).ok(), None);
    }

    #[test]
    fn every_cut_is_an_error() {
        let small = gzip(&text(), Level::default()).unwrap();
        for end in 0..small.len() {
            assert!(gunzip(&small[..end], 1 << 20).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(body in proptest::collection::vec(0..4u8, 0..3_000)) {
            if let Some(small) = gzip(&body, Level::default()) {
                prop_assert_eq!(gunzip(&small, body.len()), Ok(body));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(mut data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = gunzip(&data, 4_096);
            data.splice(0..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
            prop_assert!(gunzip(&data, 4_096).map_or(0, |out| out.len()) <= 4_096);
        }
    }
}
