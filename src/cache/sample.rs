//! Messages and instants for the tests of this folder.

use std::time::Duration;

use crate::base::Wall;
use crate::cache::facts::Exchange;
use crate::cache::request::RequestFacts;
use crate::http::{Fields, Method, ResponseHead, Version, write_http_date};

/// Field lines.
pub(crate) type Lines<'a> = &'a [(&'a str, &'a str)];

/// When the sample exchanges take place: 2023-11-14T22:13:20Z.
pub(crate) const NOW: Wall = Wall::from_secs(1_700_000_000);
/// [`NOW`] as a field value.
pub(crate) const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
/// An exchange that took no time.
pub(crate) const AT_ONCE: Exchange = Exchange { requested: NOW, responded: NOW };

pub(crate) fn fields(lines: Lines<'_>) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.push(name, value);
    }
    fields
}

pub(crate) fn head(status: u16, lines: Lines<'_>) -> ResponseHead {
    ResponseHead { status, version: Version::Http11, fields: fields(lines) }
}

/// A GET.
pub(crate) fn get(lines: Lines<'_>) -> RequestFacts {
    RequestFacts::parse(&Method::Get, &fields(lines))
}

/// A GET with that Cache-Control.
pub(crate) fn get_with(cache_control: &str) -> RequestFacts {
    get(&[("Cache-Control", cache_control)])
}

/// So many seconds after [`NOW`], as a field value.
pub(crate) fn date(seconds: i64) -> String {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let instant = if seconds < 0 { NOW.minus(span) } else { NOW.plus(span) };
    String::from_utf8_lossy(&write_http_date(instant)).into_owned()
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
