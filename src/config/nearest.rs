//! The known name that a mistyped one most likely meant.

/// The candidate with the smallest edit distance from `name`, ASCII case ignored; `None` when
/// even that one is too far away to be a slip (more than a third of its length, at least 2).
///
/// Cost: length of `name` times length of each candidate; `name` is cut at 64 bytes.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name: Vec<u8> = name.bytes().take(NAME_BYTES_MAX).collect();
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, candidate.as_bytes()), candidate))
        .filter(|(far, candidate)| *far <= (candidate.len() / 3).max(2) && *far < candidate.len())
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance with one row of memory; a transposition of neighbours counts two.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(to) {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(from.len())
}

/// Longer than every known name; bounds the work for a hostile file.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ttl", "tll", 1),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(from.as_bytes(), to.as_bytes()), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_slip_is_found_and_a_stranger_is_not() {
        let known = ["ttl", "path", "backend", "memory_cache_size", "memory_cache_max_bytes"];
        assert_eq!(nearest("tll", known), Some("ttl"));
        assert_eq!(nearest("Backend", known), Some("backend"));
        assert_eq!(nearest("memory_cache_sizes", known), Some("memory_cache_size"));
        assert_eq!(nearest("frobnicate", known), None);
        assert_eq!(nearest("", known), None);
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in "[a-c]{0,8}", b in "[a-c]{0,8}", c in "[a-c]{0,8}") {
            let (a, b, c) = (a.as_bytes(), b.as_bytes(), c.as_bytes());
            prop_assert_eq!(distance(a, b), distance(b, a));
            prop_assert_eq!(distance(a, b) == 0, a == b);
            prop_assert!(distance(a, c) <= distance(a, b) + distance(b, c));
        }
    }
}
