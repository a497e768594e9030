//! Content negotiation by weight (RFC 9110 section 12.4.2 and 12.5): which codings and media types
//! a client takes.
//!
//! Members that are malformed never widen what is sent: a broken weight counts as zero.

use crate::http::fields::Fields;
use crate::http::list::{Parameters, members, split_parameters};

/// A weight in thousandths, 0 to 1000 (RFC 9110 section 12.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quality(u16);

impl Quality {
    /// Not acceptable.
    pub const NONE: Self = Self(0);
    /// The weight of a member that states none.
    pub const FULL: Self = Self(1_000);

    /// Reads a `qvalue`: `0` or `1` and up to three decimals, at most 1.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (whole, decimals) = match text {
            [whole] => (whole, &[][..]),
            [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
            _ => return None,
        };
        let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
        let mut thousandths = digit(whole)? * 1_000;
        for (byte, unit) in decimals.iter().zip([100, 10, 1]) {
            thousandths += digit(byte)? * unit;
        }
        (thousandths <= 1_000).then_some(Self(thousandths))
    }

    /// In thousandths.
    #[must_use]
    pub const fn thousandths(self) -> u16 {
        self.0
    }

    /// Whether the client takes it at all.
    #[must_use]
    pub const fn is_acceptable(self) -> bool {
        self.0 > 0
    }

    /// The weight among the parameters of a member: the first `q`; zero if that is malformed.
    fn of(mut parameters: Parameters<'_>) -> Self {
        match parameters.find(|parameter| parameter.is("q")) {
            None => Self::FULL,
            Some(weight) => weight.value.and_then(Self::parse).unwrap_or(Self::NONE),
        }
    }
}

/// What an Accept-Encoding field says about gzip and about no coding (RFC 9110 section 12.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codings {
    /// The weight of gzip, also under its old name `x-gzip` (section 8.4.1.3).
    ///
    /// Zero without any Accept-Encoding field: by the RFC such a client takes everything, in fact
    /// it is a simple program that cannot inflate.
    pub gzip: Quality,
    /// The weight of sending the content as it is: full unless something is said.
    pub identity: Quality,
    /// Whether identity (or `*`) got its weight from the client.
    weighed: bool,
}

impl Codings {
    /// Reads the lines of Accept-Encoding. A coding named twice gets its lower weight.
    #[must_use]
    pub fn from_lines<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut gzip, mut identity, mut star) = (None, None, None);
        for (coding, parameters) in lines.flat_map(members).map(split_parameters) {
            let slot = if is_gzip(coding) {
                &mut gzip
            } else if coding.eq_ignore_ascii_case(b"identity") {
                &mut identity
            } else if coding == b"*" {
                &mut star
            } else {
                continue;
            };
            let quality = Quality::of(parameters);
            *slot = Some(slot.map_or(quality, |earlier: Quality| earlier.min(quality)));
        }
        // `*` rules out identity when it weighs nothing, else it says nothing about it.
        let barred = star.filter(|quality| !quality.is_acceptable());
        Self {
            gzip: gzip.or(star).unwrap_or(Quality::NONE),
            identity: identity.or(barred).unwrap_or(Quality::FULL),
            weighed: identity.or(barred).is_some(),
        }
    }

    /// Whether gzip is the better answer: acceptable, and identity not explicitly preferred.
    #[must_use]
    pub fn prefers_gzip(self) -> bool {
        self.gzip.is_acceptable() && (!self.weighed || self.gzip >= self.identity)
    }
}

/// What the request's Accept-Encoding says.
#[must_use]
pub fn codings(request: &Fields) -> Codings {
    Codings::from_lines(request.all("Accept-Encoding"))
}

/// Whether a content coding is gzip, under its old name too (RFC 9110 section 8.4.1.3).
#[must_use]
pub fn is_gzip(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(name: &str, lines: &[&str]) -> Fields {
        let mut fields = Fields::new();
        for line in lines {
            fields.push(name, line);
        }
        fields
    }

    #[test]
    fn gzip_is_taken_when_its_weight_is_above_zero() {
        // (lines, accepts, prefers)
        let rows: &[(&[&str], bool, bool)] = &[
            (&[], false, false),
            (&[""], false, false),
            (&["gzip"], true, true),
            (&["GZip"], true, true),
            (&["x-gzip"], true, true),
            (&["gzip, deflate, br, zstd"], true, true),
            (&["deflate", "br;q=1, gzip;q=0.1"], true, true),
            (&["gzip;q=0"], false, false),
            (&["gzip ; q=0.000"], false, false),
            (&["gzip;q=0.001"], true, true),
            (&["gzip; Q=0"], false, false),
            (&["*"], true, true),
            (&["*;q=0"], false, false),
            (&["gzip, *;q=0"], true, true),
            (&["gzip;q=0, *"], false, false),
            (&["identity"], false, false),
            (&["identity, gzip;q=0.5"], true, false),
            (&["identity;q=0.5, gzip"], true, true),
            (&["identity;q=0.5, gzip;q=0.5"], true, true),
            (&["identity;q=0, gzip;q=0.1"], true, true),
            (&["br"], false, false),
            (&["gzipx, agzip"], false, false),
            // Malformed weights widen nothing.
            (&["gzip;q=2"], false, false),
            (&["gzip;q=0.1234"], false, false),
            (&["gzip;q=-1"], false, false),
            (&["gzip;q="], false, false),
            (&["gzip;q"], false, false),
            (&["gzip;q=abc, *"], false, false),
            (&["gzip, gzip;q=0"], false, false),
            (&["x-gzip;q=0, gzip"], false, false),
            (&["gzip;level=9"], true, true),
        ];
        for (lines, accepts, prefers) in rows {
            let fields = request("accept-encoding", lines);
            let found = {
                let codings = codings(&fields);
                (codings.gzip.is_acceptable(), codings.prefers_gzip())
            };
            assert_eq!(found, (*accepts, *prefers), "{lines:?}");
        }
    }

    #[test]
    fn identity_is_taken_unless_ruled_out() {
        let rows = [
            ("gzip", Quality::FULL),
            ("*;q=0.5", Quality::FULL),
            ("identity;q=0", Quality::NONE),
            ("*;q=0", Quality::NONE),
            ("identity;q=0.5, *;q=0", Quality(500)),
        ];
        for (value, expected) in rows {
            assert_eq!(
                codings(&request("Accept-Encoding", &[value])).identity,
                expected,
                "{value}"
            );
        }
        assert_eq!(codings(&Fields::new()).identity, Quality::FULL);
    }

    #[test]
    fn a_weight_has_at_most_three_decimals() {
        let rows = [
            ("0", Some(0)),
            ("1", Some(1_000)),
            ("0.", Some(0)),
            ("1.", Some(1_000)),
            ("0.5", Some(500)),
            ("0.25", Some(250)),
            ("0.123", Some(123)),
            ("1.000", Some(1_000)),
            ("1.001", None),
            ("0.1234", None),
            ("2", None),
            ("", None),
            (".5", None),
            ("00", None),
            ("0,5", None),
            ("1.0.", None),
        ];
        for (text, expected) in rows {
            let found = Quality::parse(text.as_bytes()).map(Quality::thousandths);
            assert_eq!(found, expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_weight_reads_back(thousandths in 0_u16..=1_000) {
            let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
            prop_assert_eq!(Quality::parse(text.as_bytes()), Some(Quality(thousandths)));
        }

        #[test]
        fn other_codings_change_nothing(weight in 0_u16..=1_000, other in "(br|deflate|zstd)") {
            let gzip = format!("gzip;q={}.{:03}", weight / 1_000, weight % 1_000);
            for line in [format!("{other}, {gzip}"), format!("{gzip},{other};q=0")] {
                let found = codings(&request("Accept-Encoding", &[&line]));
                prop_assert_eq!(found.gzip, Quality(weight));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (Codings::from_lines([&line[..]].into_iter()), Quality::parse(&line));
        }
    }
}
