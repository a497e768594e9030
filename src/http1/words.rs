//! Text in machine words: eight bytes at a time, without `unsafe` and without intrinsics.
//!
//! A *hit* is the high bit of a byte in a word that is otherwise zero. The lowest hit is exact;
//! those above it may be wrong, since a borrow runs upwards. All callers look at the lowest only,
//! or at whether there is one at all.

/// The byte eight times.
pub(super) const fn each(byte: u8) -> u64 {
    ONES * byte as u64
}

/// Hits where a byte is `byte`.
#[inline(always)]
pub(super) const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ each(byte), 1)
}

/// Hits where a byte is less than `limit`, which is at most 128.
#[inline(always)]
pub(super) const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(each(limit)) & !word & HIGH
}

/// Hits where a byte is not ASCII.
#[inline(always)]
pub(super) const fn not_ascii(word: u64) -> u64 {
    word & HIGH
}

/// The first place from `at` on that is a hit; `hits` looks at words and `is_hit` at what is left
/// at the end, both by the same rule.
#[inline(always)]
pub(super) fn find(
    text: &[u8],
    mut at: usize,
    hits: impl Fn(u64) -> u64,
    is_hit: impl Fn(u8) -> bool,
) -> Option<usize> {
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let found = hits(u64::from_le_bytes(*chunk));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = text.get(at..)?;
    Some(at + rest.iter().position(|byte| is_hit(*byte))?)
}

/// Whether every byte is a letter, a digit, or one of `two`. By chunks that the compiler turns into
/// vectors; the last one overlaps the one before.
#[inline(always)]
pub(super) fn is_plain(text: &[u8], two: [u8; 2]) -> bool {
    if let Some(last) = text.last_chunk::<16>() {
        let (chunks, _) = text.as_chunks::<16>();
        return chunks.iter().all(|chunk| is_plain_chunk(chunk, two)) && is_plain_chunk(last, two);
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        return is_plain_chunk(first, two) && is_plain_chunk(last, two);
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        return is_plain_chunk(first, two) && is_plain_chunk(last, two);
    }
    text.iter().all(|byte| is_plain_chunk(&[*byte], two))
}

#[inline(always)]
fn is_plain_chunk<const N: usize>(chunk: &[u8; N], two: [u8; 2]) -> bool {
    let [one, other] = two;
    let odd = chunk.iter().fold(0, |odd, byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        odd | u8::from(!(letter | digit | (*byte == one) | (*byte == other)))
    });
    odd == 0
}

/// Past as many whole vectors from `at` on as hold nothing but what may stand in a field value and
/// is no tab.
#[inline(always)]
pub(super) fn skip_value(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        let odd = chunk.iter().fold(0, |odd, byte| odd | u8::from(*byte < 0x20 || *byte == 0x7f));
        if odd != 0 {
            break;
        }
        at += 32;
    }
    at
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lowest_hit_is_that_of_a_walk(bytes: [u8; 8], byte: u8, limit in 1_u8..=128) {
            let word = u64::from_le_bytes(bytes);
            let lowest = |hits: u64| (hits != 0).then(|| hits.trailing_zeros() as usize / 8);
            let walk = |is: &dyn Fn(u8) -> bool| bytes.iter().position(|it| is(*it));
            prop_assert_eq!(lowest(equal(word, byte)), walk(&|it| it == byte));
            prop_assert_eq!(lowest(below(word, limit)), walk(&|it| it < limit));
            prop_assert_eq!(lowest(not_ascii(word)), walk(&|it| !it.is_ascii()));
        }

        #[test]
        fn find_agrees_with_a_walk(text in "[ -~]{0,40}", byte in b' '..=b'~', at in 0_usize..50) {
            let text = text.as_bytes();
            let found = find(text, at, |word| equal(word, byte), |it| it == byte);
            let walked = text.iter().enumerate().skip(at).find(|(_, it)| **it == byte);
            prop_assert_eq!(found, walked.map(|(at, _)| at));
        }

        #[test]
        fn plain_text_agrees_with_a_walk(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let plain = |it: &u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.');
            prop_assert_eq!(is_plain(&text, [b'-', b'.']), text.iter().all(plain));
        }

        #[test]
        fn one_odd_byte_is_seen_wherever_it_stands(length in 1_usize..70, at: usize, byte: u8) {
            let mut text = vec![b'a'; length];
            text[at % length] = byte;
            let plain = |it: &u8| it.is_ascii_alphanumeric() || *it == b'-';
            prop_assert_eq!(is_plain(&text, [b'-', b'-']), text.iter().all(plain));
            let skipped = skip_value(&text, 0);
            let odd = text.iter().position(|it| *it < 0x20 || *it == 0x7f);
            prop_assert!(odd.is_none_or(|odd| skipped <= odd) && skipped <= length);
        }
    }
}
