//! The policy facts as an entry and a record keep them: 40 bytes instead of 88.
//!
//! A `Duration` spends 16 bytes and an optional one as many again on nanoseconds that no cache
//! directive has; here a span is its milliseconds, or the seconds of a directive, and whether an
//! optional one is there is a bit. An entry with them fits an allocator's bin of 160 bytes instead
//! of 192. To unpack is a few multiplications, and those of fields that the caller doesn't look at
//! are optimised away.

use std::time::Duration;

use crate::base::Wall;
use crate::cache::facts::{Facts, LifetimeSource};

/// The facts in their small form. Equal facts have one form only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) response_time: Wall,
    /// Initial age and lifetime in milliseconds.
    pub(crate) spans: [u64; 2],
    /// In seconds since 1970, as the field states it.
    pub(crate) date_secs: u32,
    /// stale-while-revalidate and stale-if-error in seconds, as RFC 5861 states them; zero where
    /// the bit for it is not set.
    pub(crate) leaves: [u32; 2],
    pub(crate) status: u16,
    /// A sum of the bits below, the source of the lifetime, and the marks.
    bits: u16,
}

/// What the hit path must know of an entry beside its facts: found once, when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The body is stored as gzip.
    pub gzip: bool,
    /// The body is stored plain, is of a type and size worth to compress, and may be transformed.
    pub compressible: bool,
    /// The origin set fields that the caller adds to every answer.
    pub own_fields: bool,
}

impl Packed {
    /// The small form. Spans are cut to whole milliseconds, the date and the leaves to whole
    /// seconds, which is all that the policy makes; beyond 136 years they are that long.
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
        let spans = [initial_age, lifetime].map(millis);
        let leaves =
            [stale_while_revalidate, stale_if_error].map(|it| seconds(it.unwrap_or_default()));
        let date_secs = u32::try_from(date.as_secs()).unwrap_or(u32::MAX);
        let bits = u16::from(flags) | u16::from(lifetime_source.code()) << SOURCE_SHIFT;
        Self { response_time, spans, date_secs, leaves, status, bits }
    }

    /// A form from its parts, `flags` and `source` as [`Packed::flags`] and [`Packed::source`] have
    /// them; `None` if [`Packed::new`] makes none like it.
    pub(crate) fn from_parts(
        times: (Wall, u32),
        spans: [u64; 2],
        leaves: [u32; 2],
        status: u16,
        (flags, source): (u8, u8),
    ) -> Option<Self> {
        let source = LifetimeSource::from_code(source)?;
        let bits = u16::from(flags) | u16::from(source.code()) << SOURCE_SHIFT;
        let (response_time, date_secs) = times;
        let packed = Self { response_time, spans, date_secs, leaves, status, bits };
        (flags & !FLAGS == 0 && packed.is_valid()).then_some(packed)
    }

    /// The bits that are facts.
    pub(crate) const fn flags(&self) -> u8 {
        (self.bits & FLAGS as u16) as u8
    }

    /// The code of the lifetime's source.
    pub(crate) const fn source(&self) -> u8 {
        (self.bits >> SOURCE_SHIFT & SOURCE_MASK) as u8
    }

    /// Whether this is a form that [`Packed::new`] makes of facts in their ranges.
    pub(crate) const fn is_valid(&self) -> bool {
        let [refresh, if_error] = self.leaves;
        self.status >= 200
            && self.status <= 999
            && (self.has(HAS_REFRESH) || refresh == 0)
            && (self.has(HAS_IF_ERROR) || if_error == 0)
    }

    /// The marks: none until they are set.
    #[inline]
    pub(crate) const fn marks(&self) -> Marks {
        Marks {
            gzip: self.bits & GZIP != 0,
            compressible: self.bits & COMPRESSIBLE != 0,
            own_fields: self.bits & OWN_FIELDS != 0,
        }
    }

    /// The same with these marks.
    pub(crate) const fn with_marks(mut self, marks: Marks) -> Self {
        self.bits &= !(GZIP | COMPRESSIBLE | OWN_FIELDS);
        if marks.gzip {
            self.bits |= GZIP;
        }
        if marks.compressible {
            self.bits |= COMPRESSIBLE;
        }
        if marks.own_fields {
            self.bits |= OWN_FIELDS;
        }
        self
    }

    /// The facts.
    #[inline]
    pub(crate) fn facts(&self) -> Facts {
        let [initial_age, lifetime] = self.spans;
        let [refresh, if_error] = self.leaves;
        let span = Duration::from_millis;
        let leave = |seconds| Duration::from_secs(u64::from(seconds));
        Facts {
            response_time: self.response_time,
            date: Wall::from_secs(u64::from(self.date_secs)),
            initial_age: span(initial_age),
            lifetime: span(lifetime),
            stale_while_revalidate: self.has(HAS_REFRESH).then(|| leave(refresh)),
            stale_if_error: self.has(HAS_IF_ERROR).then(|| leave(if_error)),
            status: self.status,
            // Only codes of sources are ever put there.
            lifetime_source: LifetimeSource::from_code(self.source())
                .unwrap_or(LifetimeSource::None),
            stale_forbidden: self.has(STALE_FORBIDDEN),
            no_cache: self.has(NO_CACHE),
            immutable: self.has(IMMUTABLE),
            has_validator: self.has(HAS_VALIDATOR),
            shareable: self.has(SHAREABLE),
        }
    }

    const fn has(&self, flag: u8) -> bool {
        self.bits & flag as u16 != 0
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

const STALE_FORBIDDEN: u8 = 1;
const NO_CACHE: u8 = 2;
const IMMUTABLE: u8 = 4;
const HAS_VALIDATOR: u8 = 8;
const HAS_REFRESH: u8 = 16;
const HAS_IF_ERROR: u8 = 32;
const SHAREABLE: u8 = 64;
const FLAGS: u8 = 127;

const GZIP: u16 = 1 << 7;
const COMPRESSIBLE: u16 = 1 << 8;
const OWN_FIELDS: u16 = 1 << 9;
const SOURCE_SHIFT: u16 = 10;
const SOURCE_MASK: u16 = 7;

const _: () = assert!(size_of::<Packed>() == 40);

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span() -> impl Strategy<Value = Duration> {
        prop_oneof![0..5u64, any::<u64>()].prop_map(Duration::from_millis)
    }

    fn leave() -> impl Strategy<Value = Option<Duration>> {
        let seconds = prop_oneof![0..5u32, any::<u32>()];
        proptest::option::of(seconds.prop_map(|it| Duration::from_secs(u64::from(it))))
    }

    /// Any facts that the policy can make.
    pub(crate) fn any_facts() -> impl Strategy<Value = Facts> {
        let times = (any::<u64>(), any::<u32>(), span(), span());
        let leave = (leave(), leave());
        let rest = (200..=999_u16, 0..7_u8, any::<[bool; 5]>());
        (times, leave, rest).prop_map(|(times, leave, (status, source, flags))| Facts {
            response_time: Wall::from_millis(times.0),
            date: Wall::from_secs(u64::from(times.1)),
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
        let none = LifetimeSource::None.code();
        let packed = Packed::from_parts((Wall::EPOCH, 0), [0; 2], [0; 2], 200, (0, none));
        packed.unwrap().facts()
    }

    proptest! {
        #[test]
        fn facts_come_out_as_they_went_in(facts in any_facts()) {
            let packed = Packed::new(&facts);
            prop_assert!(packed.is_valid());
            prop_assert_eq!(packed.facts(), facts);
            for marks in 0..8_u8 {
                let marks = Marks {
                    gzip: marks & 1 != 0,
                    compressible: marks & 2 != 0,
                    own_fields: marks & 4 != 0,
                };
                let marked = packed.with_marks(marks);
                prop_assert_eq!((marked.marks(), marked.facts()), (marks, facts));
                prop_assert_eq!(marked.with_marks(Marks::default()), packed);
            }
        }
    }

    #[test]
    fn a_span_beyond_all_milliseconds_is_the_longest() {
        let facts = Facts { lifetime: Duration::MAX, ..plain_facts() };
        assert_eq!(Packed::new(&facts).facts().lifetime, Duration::from_millis(u64::MAX));
    }
}
