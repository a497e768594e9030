//! The policy facts as an entry and a record keep them: 56 bytes instead of 88.
//!
//! A `Duration` spends 16 bytes and an optional one as many again on nanoseconds that no cache
//! directive has; here a span is its milliseconds, and whether an optional one is there is a bit.
//! An entry with them fits an allocator's bin of 192 bytes instead of 224. To unpack is a few
//! multiplications, and those of fields that the caller doesn't look at are optimised away.

use std::time::Duration;

use crate::base::Wall;
use crate::cache::facts::{Facts, LifetimeSource};

/// The facts in their small form. Equal facts have one form only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) response_time: Wall,
    pub(crate) date: Wall,
    /// The four spans in milliseconds: initial age, lifetime, stale-while-revalidate and
    /// stale-if-error; zero where the bit for it is not set.
    pub(crate) spans: [u64; 4],
    pub(crate) status: u16,
    pub(crate) lifetime_source: LifetimeSource,
    /// A sum of the bits below.
    pub(crate) flags: u8,
}

impl Packed {
    /// The small form. Spans are cut to whole milliseconds, which is all that the policy makes.
    pub(crate) fn new(facts: &Facts) -> Self {
        // All fields by name: a new one must find its place here.
        let Facts {
            response_time,
            date,
            initial_age,
            lifetime,
            stale_while_revalidate,
            stale_if_error,
            status,
            lifetime_source,
            stale_forbidden,
            no_cache,
            immutable,
            has_validator,
            shareable,
        } = *facts;
        let flags = [
            (stale_forbidden, STALE_FORBIDDEN),
            (no_cache, NO_CACHE),
            (immutable, IMMUTABLE),
            (has_validator, HAS_VALIDATOR),
            (shareable, SHAREABLE),
            (stale_while_revalidate.is_some(), HAS_REFRESH),
            (stale_if_error.is_some(), HAS_IF_ERROR),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set).fold(0, |sum, (_, bit)| sum | bit);
        let refresh = stale_while_revalidate.unwrap_or_default();
        let if_error = stale_if_error.unwrap_or_default();
        let spans = [initial_age, lifetime, refresh, if_error].map(millis);
        Self { response_time, date, spans, status, lifetime_source, flags }
    }

    /// Whether this is a form that [`Packed::new`] makes of facts in their ranges.
    pub(crate) const fn is_valid(&self) -> bool {
        let [_, _, refresh, if_error] = self.spans;
        self.status >= 200
            && self.status <= 999
            && self.flags & !FLAGS == 0
            && (self.has(HAS_REFRESH) || refresh == 0)
            && (self.has(HAS_IF_ERROR) || if_error == 0)
    }

    /// The facts.
    #[inline]
    pub(crate) fn facts(&self) -> Facts {
        let [initial_age, lifetime, refresh, if_error] = self.spans;
        let span = Duration::from_millis;
        Facts {
            response_time: self.response_time,
            date: self.date,
            initial_age: span(initial_age),
            lifetime: span(lifetime),
            stale_while_revalidate: self.has(HAS_REFRESH).then(|| span(refresh)),
            stale_if_error: self.has(HAS_IF_ERROR).then(|| span(if_error)),
            status: self.status,
            lifetime_source: self.lifetime_source,
            stale_forbidden: self.has(STALE_FORBIDDEN),
            no_cache: self.has(NO_CACHE),
            immutable: self.has(IMMUTABLE),
            has_validator: self.has(HAS_VALIDATOR),
            shareable: self.has(SHAREABLE),
        }
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

const STALE_FORBIDDEN: u8 = 1;
const NO_CACHE: u8 = 2;
const IMMUTABLE: u8 = 4;
const HAS_VALIDATOR: u8 = 8;
const HAS_REFRESH: u8 = 16;
const HAS_IF_ERROR: u8 = 32;
const SHAREABLE: u8 = 64;
const FLAGS: u8 = 127;

const _: () = assert!(size_of::<Packed>() == 56);

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span() -> impl Strategy<Value = Duration> {
        prop_oneof![0..5u64, any::<u64>()].prop_map(Duration::from_millis)
    }

    /// Any facts that the policy can make.
    pub(crate) fn any_facts() -> impl Strategy<Value = Facts> {
        let times = (any::<u64>(), any::<u64>(), span(), span());
        let leave = (proptest::option::of(span()), proptest::option::of(span()));
        let rest = (200..=999_u16, 0..7_u8, any::<[bool; 5]>());
        (times, leave, rest).prop_map(|(times, leave, (status, source, flags))| Facts {
            response_time: Wall::from_millis(times.0),
            date: Wall::from_millis(times.1),
            initial_age: times.2,
            lifetime: times.3,
            stale_while_revalidate: leave.0,
            stale_if_error: leave.1,
            status,
            lifetime_source: LifetimeSource::from_code(source).unwrap(),
            stale_forbidden: flags[0],
            no_cache: flags[1],
            immutable: flags[2],
            has_validator: flags[3],
            shareable: flags[4],
        })
    }

    /// Facts of no interest.
    pub(crate) fn plain_facts() -> Facts {
        let packed = Packed {
            response_time: Wall::EPOCH,
            date: Wall::EPOCH,
            spans: [0; 4],
            status: 200,
            lifetime_source: LifetimeSource::None,
            flags: 0,
        };
        packed.facts()
    }

    proptest! {
        #[test]
        fn facts_come_out_as_they_went_in(facts in any_facts()) {
            let packed = Packed::new(&facts);
            prop_assert!(packed.is_valid());
            prop_assert_eq!(packed.facts(), facts);
        }
    }

    #[test]
    fn a_span_beyond_all_milliseconds_is_the_longest() {
        let facts = Facts { lifetime: Duration::MAX, ..plain_facts() };
        assert_eq!(Packed::new(&facts).facts().lifetime, Duration::from_millis(u64::MAX));
    }
}
