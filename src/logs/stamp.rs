//! The time of a line: UTC to the millisecond, as in RFC 3339.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::base::Wall;

/// Appends `2026-11-23T15:48:27.123Z`. Past the year 9999 the year has more digits.
pub(super) fn push(instant: Wall, out: &mut Vec<u8>) {
    let (secs, millis) = (instant.as_secs(), instant.as_millis() % 1_000);
    let (year, month, day) = civil(secs / 86_400);
    let second_of_day = secs % 86_400;
    let (hour, minute) = (second_of_day / 3_600, second_of_day / 60 % 60);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (hour, 2, b':'),
        (minute, 2, b':'),
        (second_of_day % 60, 2, b'.'),
        (millis, 3, b'Z'),
    ];
    for (number, digits, end) in parts {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(number);
        out.extend(std::iter::repeat_n(b'0', digits - digits.min(text.len())));
        out.extend_from_slice(text.as_bytes());
        out.push(end);
    }
}

/// Year, month and day of a number of days since 1970-01-01. Years begin in March here, which puts
/// the leap day last; the lengths of the months from March on repeat 31 30 31 30 31.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days.min(DAYS_MAX) + DAYS_BEFORE_EPOCH;
    let (era, in_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let leap_days = in_era / 1_460 - in_era / 36_524 + in_era / 146_096;
    let year = (in_era - leap_days) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let (month, next) = if from_march < 10 { (from_march + 3, 0) } else { (from_march - 9, 1) };
    debug_assert!((1..=12).contains(&month) && (1..=31).contains(&day));
    (era * 400 + year + next, month, day)
}

/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_EPOCH: u64 = 719_468;
const DAYS_OF_400_YEARS: u64 = 146_097;
/// Keeps the sums far from the end of their range.
const DAYS_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_http_date;

    fn text(millis: u64) -> String {
        let mut out = Vec::new();
        push(Wall::from_millis(millis), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_instants_are_written_so() {
        let rows = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_795_448_907_123, "2026-11-23T15:48:27.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
        ];
        for (millis, expected) in rows {
            assert_eq!(text(millis), expected);
        }
        assert!(text(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn every_day_is_the_one_that_http_dates_name() {
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct"];
        for day in (0..80_000).step_by(7) {
            let wall = Wall::from_secs(day * 86_400);
            let http = String::from_utf8(crate::http::write_http_date(wall).to_vec()).unwrap();
            let parts: Vec<&str> = http.split([' ', ',']).filter(|it| !it.is_empty()).collect();
            let month = names
                .iter()
                .position(|it| *it == parts[2])
                .map_or_else(|| if parts[2] == "Nov" { 11 } else { 12 }, |at| at + 1);
            let expected = format!("{}-{month:02}-{}T00:00:00.000Z", parts[3], parts[1]);
            assert_eq!(text(wall.as_millis()), expected);
            assert_eq!(parse_http_date(http.as_bytes(), wall), Some(wall));
        }
    }
}
