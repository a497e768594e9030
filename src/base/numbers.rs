//! Numbers that look random, for what must not fall into step or repeat, and is no secret.

use std::cell::Cell;

/// A sequence of numbers (SplitMix64): a counter whose steps are scattered over all 64 bits by a
/// bijection, so that no two are equal before 2^64. Whoever sees one can work out the next: nothing
/// may rest on their being guessed. Some five instructions each.
#[derive(Debug)]
pub struct Numbers(Cell<u64>);

impl Numbers {
    /// A sequence of its own for each seed, however close to one another those are.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// The next one.
    pub fn next(&self) -> u64 {
        let next = self.0.get().wrapping_add(STEP);
        self.0.set(next);
        scattered(next)
    }
}

/// Each step can be undone: a shift to the right by half or less, and a product with an odd number.
const fn scattered(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Odd, so that the counter goes through all numbers; the golden ratio's share of 2^64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    /// Published with the algorithm (Steele, Lea and Flood; the values of Java's SplittableRandom
    /// and of the reference in C for this seed).
    #[test]
    fn the_sequence_is_the_published_one() {
        let numbers = Numbers::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| numbers.next()), expected);
    }

    /// The inverse, step by step: there is one just if no two numbers are scattered to one.
    #[test]
    fn scattering_can_be_undone() {
        /// Of an odd number, by Newton's iteration.
        fn inverse(odd: u64) -> u64 {
            let step = |x: u64, _| x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
            (0..6).fold(odd, step)
        }
        fn unshifted(mixed: u64, by: u32) -> u64 {
            (0..64 / by).fold(mixed, |found, _| mixed ^ (found >> by))
        }
        for number in [0, 1, 2, 0xff, u64::MAX, STEP, 1 << 63, 0x0123_4567_89ab_cdef] {
            let mixed = unshifted(scattered(number), 31);
            let mixed = unshifted(mixed.wrapping_mul(inverse(0x94d0_49bb_1331_11eb)), 27);
            let back = unshifted(mixed.wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9)), 30);
            assert_eq!(back, number);
        }
    }
}
