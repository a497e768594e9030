//! A million bodies: written in two ways, one value has one digest; changed, it has another. The
//! property in `tests`, with a generator that costs next to nothing, so that so many can be had
//! with each run of the suite. A failure names the seed that replays it.

use std::collections::BTreeMap;

use super::tests::{Style, Value, change, json, style};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn style(&mut self) -> Style {
        style(&self.next().to_le_bytes())
    }

    fn text(&mut self) -> String {
        // Few and short, so that names meet and neighbours differ in one place.
        let odd = self.below(4) == 0;
        let chars: &[char] = if odd { super::tests::ODD_CHARS } else { &['a', 'b'] };
        (0..self.below(3)).map(|_| chars[self.below(chars.len())]).collect()
    }

    fn number(&mut self) -> String {
        match self.below(4) {
            // Within what simd-json reads as an integer.
            0 => (self.next() >> 4).to_string(),
            1 => format!("-{}.{}e{}", self.below(30), self.below(300), self.below(40)),
            _ => super::tests::NUMBERS[self.below(super::tests::NUMBERS.len())].to_owned(),
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        let kinds = if depth == 0 { 3 } else { 5 };
        match self.below(kinds) {
            0 => Value::Literal(["null", "true", "false"][self.below(3)]),
            1 => Value::Number(self.number()),
            2 => Value::String(self.text()),
            3 => Value::Array((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            _ => {
                let members = (0..self.below(4)).map(|_| (self.text(), self.value(depth - 1)));
                Value::Object(members.collect::<BTreeMap<_, _>>())
            }
        }
    }
}

fn written(value: &Value, mut style: Style) -> String {
    let mut out = String::new();
    style.write(value, &mut out);
    out
}

fn check(seed: u64) -> usize {
    let mut random = Random(seed);
    let value = random.value(3);
    let (one, other) = (written(&value, random.style()), written(&value, random.style()));
    let digest = json(&one).unwrap_or_else(|error| panic!("seed {seed}: {error:?} for {one}"));
    assert_eq!(json(&other), Ok(digest), "seed {seed}: {one} against {other}");
    let mut changed = value.clone();
    change(&mut changed, &mut random.style());
    let third = written(&changed, random.style());
    let same = json(&third) == Ok(digest);
    assert_eq!(same, changed == value, "seed {seed}: {one} against {third}");
    usize::from(!same)
}

#[test]
fn a_million_bodies_have_the_digests_of_their_values() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let differing: usize = std::thread::scope(|scope| {
        let part =
            |thread: u64| (thread..CASES).step_by(threads as usize).map(check).sum::<usize>();
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        running.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert!(differing > CASES as usize / 2, "only {differing} were changed");
}

const CASES: u64 = 1_000_000;
