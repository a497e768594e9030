//! Chance that can be played again.

use std::time::Duration;

/// A small generator (xorshift64*).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same rolls.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    /// A length or place below `sides`, which may be 0.
    pub fn place(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll((sides as u64).max(1))).unwrap()
    }

    /// Whether something that happens `times` in a thousand happens now.
    pub fn happens(&mut self, times: u64) -> bool {
        self.roll(1_000) < times
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.place(from.len())]
    }

    /// Milliseconds below `most`.
    pub fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.roll(most))
    }

    /// Dice of their own for somebody else.
    pub fn split(&mut self) -> Self {
        Self::new(self.roll(u64::from(u32::MAX)))
    }
}
