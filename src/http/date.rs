//! HTTP dates (RFC 9110 section 5.6.7): three forms in, one form out.
//!
//! Strict about layout, since a date that is guessed wrong makes a response fresh that is not:
//! every digit and separator stands where the grammar puts it. Lenient where the RFCs ask for it:
//! letters in any case (RFC 9111 section 4.2), and a weekday that does not fit the date, which
//! carries no information.
//!
//! Cost: some ten nanoseconds either way, no allocation.

use crate::base::Wall;

/// Reads an HTTP date, in whole seconds.
///
/// `None` for anything that is not one of IMF-fixdate, RFC 850 or asctime to the letter: another
/// zone, a missing zone, one-digit days, a 30th of February. A leap second counts as the second
/// after it. Dates before 1970 become [`Wall::EPOCH`], which for expiry and validators is the same.
///
/// `now` places the two-digit year of the RFC 850 form: the latest year with those digits that is
/// not more than 50 years in the future.
#[must_use]
pub fn parse_http_date(text: &[u8], now: Wall) -> Option<Wall> {
    let stamp = match text.len() {
        29 => imf_fixdate(text)?,
        24 => asctime(text)?,
        _ => rfc850(text, now)?,
    };
    stamp.to_wall()
}

/// Writes an HTTP date in the form that senders must use, IMF-fixdate.
///
/// Fractions of a second are cut off; what lies after the year 9999 is written as its last second.
#[must_use]
pub fn write_http_date(instant: Wall) -> [u8; 29] {
    let stamp = Stamp::from_secs(instant.as_secs().min(SECS_MAX));
    let [w0, w1, w2] = stamp.weekday_name();
    let [n0, n1, n2] = stamp.month_name();
    let [d0, d1] = digits(stamp.day);
    let [y0, y1] = digits(stamp.year / 100);
    let [y2, y3] = digits(stamp.year % 100);
    let [h0, h1] = digits(stamp.second_of_day / 3_600);
    let [m0, m1] = digits(stamp.second_of_day / 60 % 60);
    let [s0, s1] = digits(stamp.second_of_day % 60);
    [
        w0, w1, w2, b',', b' ', d0, d1, b' ', n0, n1, n2, b' ', y0, y1, y2, y3, b' ', h0, h1, b':',
        m0, m1, b':', s0, s1, b' ', b'G', b'M', b'T',
    ]
}

/// A date and time of day in the Gregorian calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    /// 0 to 9999.
    year: u32,
    /// 1 to 12.
    month: u32,
    /// 1 to 31; whether the month has it is checked in [`Stamp::to_wall`].
    day: u32,
    /// 0 to 86400; the last is a leap second's.
    second_of_day: u32,
}

impl Stamp {
    fn to_wall(self) -> Option<Wall> {
        if self.day == 0 || self.day > days_of_month(self.year, self.month) {
            return None;
        }
        // Years that begin in March put the leap day last, so that the days before a month need
        // no table: the lengths from March on repeat 31 30 31 30 31, 153 days for five months.
        let (year, month) = match self.month {
            1 | 2 => (i64::from(self.year) - 1, i64::from(self.month) + 9),
            _ => (i64::from(self.year), i64::from(self.month) - 3),
        };
        let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let in_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        let days = 365 * year + leaps + in_year - DAYS_BEFORE_EPOCH;
        let secs = days * 86_400 + i64::from(self.second_of_day);
        Some(u64::try_from(secs).map_or(Wall::EPOCH, Wall::from_secs))
    }

    /// The inverse of [`Stamp::to_wall`] for instants up to [`SECS_MAX`].
    fn from_secs(secs: u64) -> Self {
        debug_assert!(secs <= SECS_MAX);
        // Within u32: 9999 years are less than four million days.
        let days = (secs / 86_400) as u32 + DAYS_BEFORE_EPOCH as u32;
        let (cycle, in_cycle) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
        // Take the leap days out; what is left divides by 365.
        let year_of_cycle =
            (in_cycle - in_cycle / 1_460 + in_cycle / 36_524 - in_cycle / 146_096) / 365;
        let in_year = in_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let march_month = (5 * in_year + 2) / 153;
        let day = in_year - (153 * march_month + 2) / 5 + 1;
        let (month, carry) =
            if march_month < 10 { (march_month + 3, 0) } else { (march_month - 9, 1) };
        let year = cycle * 400 + year_of_cycle + carry;
        Self { year, month, day, second_of_day: (secs % 86_400) as u32 }
    }

    fn weekday_name(self) -> [u8; 3] {
        let days = self.to_wall().unwrap_or_default().as_secs() / 86_400;
        // 1970-01-01 was a Thursday.
        let index = (days + 4) % 7;
        WEEKDAYS.get(index as usize).map_or(*b"???", |name| first_three(name))
    }

    fn month_name(self) -> [u8; 3] {
        MONTHS.get(self.month as usize - 1).copied().unwrap_or(*b"???")
    }

    /// What a comparison within one year looks at.
    const fn within_year(self) -> (u32, u32, u32) {
        (self.month, self.day, self.second_of_day)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<Stamp> {
    let &[
        w0,
        w1,
        w2,
        b',',
        b' ',
        d0,
        d1,
        b' ',
        n0,
        n1,
        n2,
        b' ',
        y0,
        y1,
        y2,
        y3,
        b' ',
        h0,
        h1,
        b':',
        m0,
        m1,
        b':',
        s0,
        s1,
        b' ',
        z0,
        z1,
        z2,
    ] = text
    else {
        return None;
    };
    if !is_short_weekday([w0, w1, w2]) || !is_gmt([z0, z1, z2]) {
        return None;
    }
    Some(Stamp {
        year: number(y0, y1)? * 100 + number(y2, y3)?,
        month: month([n0, n1, n2])?,
        day: number(d0, d1)?,
        second_of_day: second_of_day([h0, h1], [m0, m1], [s0, s1])?,
    })
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<Stamp> {
    let &[
        w0,
        w1,
        w2,
        b' ',
        n0,
        n1,
        n2,
        b' ',
        d0,
        d1,
        b' ',
        h0,
        h1,
        b':',
        m0,
        m1,
        b':',
        s0,
        s1,
        b' ',
        y0,
        y1,
        y2,
        y3,
    ] = text
    else {
        return None;
    };
    if !is_short_weekday([w0, w1, w2]) {
        return None;
    }
    Some(Stamp {
        year: number(y0, y1)? * 100 + number(y2, y3)?,
        month: month([n0, n1, n2])?,
        day: number(if d0 == b' ' { b'0' } else { d0 }, d1)?,
        second_of_day: second_of_day([h0, h1], [m0, m1], [s0, s1])?,
    })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], now: Wall) -> Option<Stamp> {
    let (weekday, rest) = text.split_at_checked(memchr::memchr(b',', text)?)?;
    let &[
        b',',
        b' ',
        d0,
        d1,
        b'-',
        n0,
        n1,
        n2,
        b'-',
        y0,
        y1,
        b' ',
        h0,
        h1,
        b':',
        m0,
        m1,
        b':',
        s0,
        s1,
        b' ',
        z0,
        z1,
        z2,
    ] = rest
    else {
        return None;
    };
    let known = WEEKDAYS.iter().any(|name| weekday.eq_ignore_ascii_case(name));
    if !known || !is_gmt([z0, z1, z2]) {
        return None;
    }
    let stamp = Stamp {
        year: number(y0, y1)?,
        month: month([n0, n1, n2])?,
        day: number(d0, d1)?,
        second_of_day: second_of_day([h0, h1], [m0, m1], [s0, s1])?,
    };
    Some(place_in_century(stamp, now))
}

/// Gives a stamp with a two-digit year the latest century in which it is not more than 50 years
/// after `now` (RFC 9110 section 5.6.7).
fn place_in_century(stamp: Stamp, now: Wall) -> Stamp {
    let today = Stamp::from_secs(now.as_secs().min(SECS_MAX));
    let latest = today.year + 50;
    let mut year = latest - latest % 100 + stamp.year;
    if (year, stamp.within_year()) > (latest, today.within_year()) {
        year -= 100;
    }
    Stamp { year, ..stamp }
}

fn second_of_day(hour: [u8; 2], minute: [u8; 2], second: [u8; 2]) -> Option<u32> {
    let pair = |[tens, ones]: [u8; 2]| number(tens, ones);
    let (hour, minute, second) = (pair(hour)?, pair(minute)?, pair(second)?);
    // 60 is a leap second.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3_600 + minute * 60 + second)
}

fn number(tens: u8, ones: u8) -> Option<u32> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

fn digits(number: u32) -> [u8; 2] {
    debug_assert!(number < 100);
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

fn month(name: [u8; 3]) -> Option<u32> {
    let index = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(&name))?;
    u32::try_from(index + 1).ok()
}

fn is_short_weekday(name: [u8; 3]) -> bool {
    WEEKDAYS.iter().any(|known| first_three(known).eq_ignore_ascii_case(&name))
}

fn is_gmt(zone: [u8; 3]) -> bool {
    zone.eq_ignore_ascii_case(b"GMT")
}

fn first_three(name: &[u8]) -> [u8; 3] {
    name.first_chunk().copied().unwrap_or(*b"???")
}

const fn days_of_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_EPOCH: i64 = 719_468;
const DAYS_OF_400_YEARS: u32 = 146_097;
/// 9999-12-31 23:59:59, the last second with a four-digit year.
const SECS_MAX: u64 = 253_402_300_799;

const WEEKDAYS: [&[u8]; 7] =
    [b"Sunday", b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday"];
const MONTHS: [[u8; 3]; 12] = [
    *b"Jan", *b"Feb", *b"Mar", *b"Apr", *b"May", *b"Jun", *b"Jul", *b"Aug", *b"Sep", *b"Oct",
    *b"Nov", *b"Dec",
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;

    /// 2026-07-01 12:00:00.
    const NOW: Wall = Wall::from_secs(1_782_907_200);

    fn secs(text: &str) -> Option<u64> {
        parse_http_date(text.as_bytes(), NOW).map(Wall::as_secs)
    }

    #[test]
    fn the_three_forms_name_one_instant() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            // RFC 9111 section 4.2: a cache matches without regard to case.
            "SUN, 06 nov 1994 08:49:37 gmt",
            "sunday, 06-NOV-94 08:49:37 Gmt",
            "sun nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
            // The weekday says nothing that the date does not say.
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Saturday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(secs(text), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "now",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun,  6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun,  06  Nov  1994 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Abc 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Thu, 29 Feb 2023 08:49:37 GMT",
            "Thu, 29 Feb 1900 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:00:61 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 EST",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sun Nov   08:49:37 1994",
        ] {
            assert_eq!(secs(text), None, "{text}");
        }
    }

    #[test]
    fn leap_days_and_leap_seconds_are_dates() {
        assert_eq!(secs("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(secs("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400));
        assert_eq!(secs("Sat, 31 Dec 2016 23:59:60 GMT"), Some(1_483_228_800));
    }

    #[test]
    fn a_date_before_the_epoch_is_the_epoch() {
        for text in ["Wed, 31 Dec 1969 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"] {
            assert_eq!(secs(text), Some(0), "{text}");
        }
        assert_eq!(secs("Sat, 01 Jan 0000 00:00:00 GMT"), Some(0));
    }

    #[test]
    fn a_two_digit_year_lies_at_most_fifty_years_ahead() {
        let rows = [
            (NOW, "Wednesday, 01-Jul-76 12:00:00 GMT", "Wed, 01 Jul 2076 12:00:00 GMT"),
            (NOW, "Thursday, 01-Jul-76 12:00:01 GMT", "Thu, 01 Jul 1976 12:00:01 GMT"),
            (NOW, "Friday, 02-Jul-76 00:00:00 GMT", "Fri, 02 Jul 1976 00:00:00 GMT"),
            (NOW, "Saturday, 01-Jan-00 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT"),
            (NOW, "Friday, 31-Dec-99 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:59 GMT"),
            (Wall::from_secs(3_786_912_000), "Friday, 01-Jan-10 00:00:00 GMT", "2110"),
        ];
        for (now, text, expected) in rows {
            let written = write_http_date(parse_http_date(text.as_bytes(), now).unwrap());
            let written = std::str::from_utf8(&written).unwrap();
            assert!(written.contains(expected), "{text}: {written}");
        }
    }

    #[test]
    fn an_instant_past_the_year_9999_is_written_as_its_last_second() {
        assert_eq!(&write_http_date(Wall::FOREVER), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&write_http_date(Wall::EPOCH), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&write_http_date(Wall::from_millis(1_999)), b"Thu, 01 Jan 1970 00:00:01 GMT");
    }

    #[test]
    fn every_day_reads_back_and_follows_the_one_before() {
        for day in 0..=SECS_MAX / 86_400 {
            let stamp = Stamp::from_secs(day * 86_400);
            assert_eq!(stamp.to_wall(), Some(Wall::from_secs(day * 86_400)));
            assert!((1..=days_of_month(stamp.year, stamp.month)).contains(&stamp.day));
        }
    }

    proptest! {
        #[test]
        fn written_dates_read_back(secs in 0..=SECS_MAX) {
            let text = write_http_date(Wall::from_secs(secs));
            prop_assert_eq!(parse_http_date(&text, NOW), Some(Wall::from_secs(secs)));
        }

        #[test]
        fn writing_agrees_with_httpdate(secs in 0..=SECS_MAX) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
            let text = write_http_date(Wall::from_secs(secs));
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), httpdate::fmt_http_date(time));
        }

        #[test]
        fn what_we_read_of_a_damaged_date_httpdate_reads_alike(
            secs in 0_u64..4_000_000_000, at in 0_usize..29, byte in 0x20_u8..0x7f,
        ) {
            let mut text = write_http_date(Wall::from_secs(secs));
            text[at] = byte;
            let theirs = httpdate::parse_http_date(std::str::from_utf8(&text).unwrap());
            if let (Some(ours), Ok(theirs)) = (parse_http_date(&text, NOW), theirs) {
                let theirs = theirs.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                prop_assert_eq!(ours.as_secs(), theirs.as_secs());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..40),
            now in any::<u64>()) {
            let _ = parse_http_date(&text, Wall::from_millis(now));
        }

        #[test]
        fn date_like_text_never_panics(text in "[A-Z][a-z]{2,8},? [0-9 -]{0,4}[A-Z][a-z]{2}[- ]\
            [0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2}( GMT)?", now in any::<u64>()) {
            let _ = parse_http_date(text.as_bytes(), Wall::from_millis(now));
        }
    }
}
