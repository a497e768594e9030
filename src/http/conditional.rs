//! Conditional requests (RFC 9110 section 13) against a stored response (RFC 9111 section 4.3.2).
//!
//! A cache evaluates If-None-Match, If-Modified-Since and If-Range. If-Match and
//! If-Unmodified-Since are for the origin: see [`has_origin_conditions`].
//!
//! ```text
//! stored status is not 2xx ------------------------------> Proceed   (section 13.2.1)
//! If-None-Match there? -- matches --- GET, HEAD, QUERY --> NotModified
//!   |                        +------- other methods -----> Failed (412)
//!   |  +-- does not match -------------------------------> Proceed
//!   no
//! If-Modified-Since, GET or HEAD, valid, not older ------> NotModified
//! anything else -----------------------------------------> Proceed
//! ```

use std::time::Duration;

use crate::base::Wall;
use crate::http::date::parse_http_date;
use crate::http::etag::{EntityTag, if_none_match_matches};
use crate::http::fields::Fields;
use crate::http::message::ResponseHead;
use crate::http::method::Method;
use crate::http::range::Ranges;

/// What the preconditions of a request make of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// Answer 304 with the stored response's metadata.
    NotModified,
    /// Answer 412.
    Failed,
}

/// What conditions are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The stored response's status.
    pub status: u16,
    /// Its entity tag; `None` also when malformed or repeated.
    pub etag: Option<EntityTag<'a>>,
    /// Its Last-Modified; `None` also when invalid or repeated.
    pub last_modified: Option<Wall>,
    /// Its Date; `None` also when invalid or repeated.
    pub date: Option<Wall>,
    /// When it was received, which stands in for a missing Date.
    pub received: Wall,
}

/// A strong validator.
#[derive(Clone, Copy, Debug)]
pub enum Strong<'a> {
    /// An entity tag.
    Tag(EntityTag<'a>),
    /// A Last-Modified that is strong.
    Date(Wall),
}

impl Strong<'_> {
    /// Whether both name the same bytes.
    #[must_use]
    pub fn names_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tag(one), Self::Tag(other)) => one.strong_eq(other),
            (Self::Date(one), Self::Date(other)) => one == other,
            (Self::Tag(_), Self::Date(_)) | (Self::Date(_), Self::Tag(_)) => false,
        }
    }
}

impl<'a> Validators<'a> {
    /// The validators of a response that was received at `received`.
    #[must_use]
    pub fn of(response: &'a ResponseHead, received: Wall) -> Self {
        Self::of_fields(response.status, &response.fields, received)
    }

    /// As [`Validators::of`], for a caller that holds status and fields apart.
    #[must_use]
    pub fn of_fields(status: u16, fields: &'a Fields, received: Wall) -> Self {
        let date = |name| parse_http_date(fields.single(name)?, received);
        Self {
            status,
            etag: fields.single("ETag").and_then(EntityTag::parse),
            last_modified: date("Last-Modified"),
            date: date("Date"),
            received,
        }
    }

    /// The validator that names one sequence of bytes and no other: the entity tag if it is strong,
    /// else Last-Modified where there is no tag and the date is strong (RFC 9110 section 8.8.1).
    #[must_use]
    pub fn strong(&self) -> Option<Strong<'a>> {
        match (self.etag, self.last_modified) {
            (Some(tag), _) => (!tag.weak).then_some(Strong::Tag(tag)),
            (None, Some(date)) => self.has_strong_date().then_some(Strong::Date(date)),
            (None, None) => None,
        }
    }

    /// The instant up to which the representation is known not to have changed (RFC 9111 section
    /// 4.3.2, the three cases in their order).
    fn unchanged_since(&self) -> Wall {
        self.last_modified.or(self.date).unwrap_or(self.received)
    }

    /// Whether Last-Modified identifies one representation only (RFC 9110 section 8.8.2.2): a later
    /// change within the same second would have been visible to the clock that wrote Date.
    fn has_strong_date(&self) -> bool {
        let (Some(modified), Some(date)) = (self.last_modified, self.date) else { return false };
        date.since(modified) >= STRONG_DATE_DISTANCE
    }
}

/// Evaluates the conditions that a cache evaluates, in the order of RFC 9110 section 13.2.2.
///
/// `now` places two-digit years. Costs one scan of the fields and, for each condition present,
/// its parsing.
#[must_use]
pub fn evaluate(
    method: &Method,
    request: &Fields,
    stored: &Validators<'_>,
    now: Wall,
) -> Precondition {
    // Section 13.2.1: only where the answer without conditions would be a 2xx.
    if !(200..300).contains(&stored.status) {
        return Precondition::Proceed;
    }
    if request.contains("If-None-Match") {
        // Section 13.1.3: If-Modified-Since is ignored beside it, whatever it says.
        return match if_none_match_matches(request, stored.etag.as_ref()) {
            false => Precondition::Proceed,
            true if reads(method) => Precondition::NotModified,
            true => Precondition::Failed,
        };
    }
    if matches!(method, Method::Get | Method::Head)
        && let Some(since) = if_modified_since(request, now)
        && stored.unchanged_since().as_secs() <= since.as_secs()
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

/// The instant in If-Modified-Since; `None` when it is absent, repeated or no HTTP date, which all
/// mean that it is ignored (RFC 9110 section 13.1.3).
#[must_use]
pub fn if_modified_since(request: &Fields, now: Wall) -> Option<Wall> {
    parse_http_date(request.single("If-Modified-Since")?, now)
}

/// Whether If-Match or If-Unmodified-Since is there: conditions on the origin's state that a cache
/// must not answer from its store (RFC 9111 section 4.3.2).
#[must_use]
pub fn has_origin_conditions(request: &Fields) -> bool {
    request.contains("If-Match") || request.contains("If-Unmodified-Since")
}

/// Whether any condition of RFC 9110 section 13.1 is there.
#[must_use]
pub fn has_conditions(request: &Fields) -> bool {
    let names =
        ["If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range"];
    request.iter().any(|field| names.iter().any(|name| field.is(name)))
}

/// Whether Range may be honoured as far as If-Range is concerned (RFC 9110 section 13.1.5): it is
/// absent, or its validator is strong and equal to the stored one. When false, answer with the
/// whole representation.
#[must_use]
pub fn if_range_holds(request: &Fields, stored: &Validators<'_>, now: Wall) -> bool {
    if !request.contains("If-Range") {
        return true;
    }
    let Some(value) = request.single("If-Range") else { return false };
    if let Some(tag) = EntityTag::parse(value) {
        return stored.etag.is_some_and(|etag| etag.strong_eq(&tag));
    }
    // Exact match, not "not older": a date is an identifier here.
    let same = parse_http_date(value, now).is_some_and(|date| stored.last_modified == Some(date));
    same && stored.has_strong_date()
}

/// The ranges that the answer is to have; `None` where the whole is wanted: no Range, one that is
/// ignored (another method than GET, malformed, another unit, too many), or an If-Range that does
/// not hold.
#[must_use]
pub fn wanted_ranges(
    method: &Method,
    request: &Fields,
    stored: &Validators<'_>,
    now: Wall,
) -> Option<Ranges> {
    if *method != Method::Get || !if_range_holds(request, stored, now) {
        return None;
    }
    Ranges::parse(request.single("Range")?)
}

/// Methods that select a representation, for which "not modified" is an answer. For QUERY as for
/// GET (draft-ietf-httpbis-safe-method-w-body); section 13.1.2 wants 412 for the others.
const fn reads(method: &Method) -> bool {
    matches!(method, Method::Get | Method::Head | Method::Query)
}

/// RFC 9110 section 8.8.2.2 asks for at least one second, and for enough more that clocks which
/// differ don't matter; its predecessors said 60 seconds.
const STRONG_DATE_DISTANCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Precondition::{Failed, NotModified, Proceed};
    use super::*;
    use crate::http::message::Version;

    const NOW: Wall = Wall::from_secs(1_782_907_200);
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const DATE: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn fields(lines: Lines<'_>) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name, value);
        }
        fields
    }

    fn response(status: u16, lines: Lines<'_>) -> ResponseHead {
        ResponseHead { status, version: Version::Http11, fields: fields(lines) }
    }

    fn usual() -> ResponseHead {
        response(200, &[("ETag", "\"a\""), ("Last-Modified", MODIFIED), ("Date", DATE)])
    }

    #[test]
    fn preconditions_are_evaluated_in_the_order_of_section_13_2_2() {
        const INM: &str = "If-None-Match";
        const IMS: &str = "If-Modified-Since";
        let response = usual();
        let stored = Validators::of(&response, NOW);
        let rows: &[(Method, Lines<'_>, Precondition)] = &[
            (Method::Get, &[], Proceed),
            // Section 13.1.2
            (Method::Get, &[(INM, "\"a\"")], NotModified),
            (Method::Head, &[(INM, "W/\"a\"")], NotModified),
            (Method::Query, &[(INM, "\"a\"")], NotModified),
            (Method::Get, &[(INM, "\"b\", \"a\"")], NotModified),
            (Method::Get, &[(INM, "\"b\""), (INM, "\"a\"")], NotModified),
            (Method::Get, &[(INM, "*")], NotModified),
            (Method::Get, &[(INM, "\"b\"")], Proceed),
            (Method::Put, &[(INM, "*")], Failed),
            (Method::Post, &[(INM, "\"a\"")], Failed),
            (Method::Put, &[(INM, "\"b\"")], Proceed),
            // Section 13.1.3: ignored beside If-None-Match, even a broken one
            (Method::Get, &[(INM, "\"b\""), (IMS, AFTER)], Proceed),
            (Method::Get, &[(INM, "broken"), (IMS, AFTER)], Proceed),
            (Method::Get, &[(INM, "\"a\""), (IMS, BEFORE)], NotModified),
            (Method::Get, &[(IMS, BEFORE)], Proceed),
            (Method::Get, &[(IMS, MODIFIED)], NotModified),
            (Method::Get, &[(IMS, AFTER)], NotModified),
            (Method::Head, &[(IMS, "Sunday, 06-Nov-94 08:49:37 GMT")], NotModified),
            (Method::Post, &[(IMS, AFTER)], Proceed),
            (Method::Query, &[(IMS, AFTER)], Proceed),
            (Method::Get, &[(IMS, "tomorrow")], Proceed),
            (Method::Get, &[(IMS, "")], Proceed),
            (Method::Get, &[(IMS, AFTER), (IMS, AFTER)], Proceed),
            // RFC 9111 section 4.3.2: not for a cache
            (Method::Get, &[("If-Match", "\"b\"")], Proceed),
            (Method::Get, &[("If-Unmodified-Since", BEFORE)], Proceed),
        ];
        for (method, lines, expected) in rows {
            let found = evaluate(method, &fields(lines), &stored, NOW);
            assert_eq!(found, *expected, "{method} {lines:?}");
        }
    }

    #[test]
    fn conditions_don_t_apply_to_a_stored_status_other_than_2xx() {
        // RFC 9110 section 13.2.1
        let request = fields(&[("If-None-Match", "\"a\"")]);
        for (status, expected) in
            [(200, NotModified), (206, NotModified), (301, Proceed), (404, Proceed), (500, Proceed)]
        {
            let response = ResponseHead { status, ..usual() };
            let stored = Validators::of(&response, NOW);
            assert_eq!(evaluate(&Method::Get, &request, &stored, NOW), expected, "{status}");
        }
    }

    #[test]
    fn date_and_time_of_receipt_stand_in_for_last_modified() {
        // RFC 9111 section 4.3.2, (stored fields, If-Modified-Since, expected)
        let rows: &[(Lines<'_>, &str, Precondition)] = &[
            (&[("Date", MODIFIED)], BEFORE, Proceed),
            (&[("Date", MODIFIED)], MODIFIED, NotModified),
            (&[("Last-Modified", "broken"), ("Date", MODIFIED)], MODIFIED, NotModified),
            (&[("Last-Modified", "broken"), ("Date", MODIFIED)], BEFORE, Proceed),
            (&[], AFTER, Proceed),
            (&[], "Wed, 01 Jul 2026 12:00:00 GMT", NotModified),
            (&[], "Wed, 01 Jul 2026 11:59:59 GMT", Proceed),
        ];
        for (lines, since, expected) in rows {
            let response = response(200, lines);
            let stored = Validators::of(&response, NOW);
            let request = fields(&[("If-Modified-Since", since)]);
            let found = evaluate(&Method::Get, &request, &stored, NOW);
            assert_eq!(found, *expected, "{lines:?} {since}");
        }
    }

    #[test]
    fn a_stored_response_without_tag_matches_the_star_only() {
        let response = response(200, &[("ETag", "unquoted"), ("Last-Modified", MODIFIED)]);
        let stored = Validators::of(&response, NOW);
        for (value, expected) in
            [("unquoted", Proceed), ("\"unquoted\"", Proceed), ("*", NotModified)]
        {
            let request = fields(&[("If-None-Match", value)]);
            assert_eq!(evaluate(&Method::Get, &request, &stored, NOW), expected, "{value}");
        }
    }

    #[test]
    fn if_range_wants_a_strong_validator_and_an_exact_match() {
        let weak = [("ETag", "W/\"a\""), ("Last-Modified", MODIFIED), ("Date", MODIFIED)];
        let weak = response(200, &weak);
        let undated = response(200, &[("Last-Modified", MODIFIED)]);
        let usual = usual();
        // RFC 9110 section 13.1.5
        let rows: &[(&ResponseHead, &[&str], bool)] = &[
            (&usual, &[], true),
            (&usual, &["\"a\""], true),
            (&usual, &["\"b\""], false),
            (&usual, &["W/\"a\""], false),
            (&usual, &["*"], false),
            (&usual, &["\"a\", \"b\""], false),
            (&usual, &["\"a\"", "\"a\""], false),
            (&usual, &[""], false),
            (&usual, &[MODIFIED], true),
            (&usual, &["Sun Nov  6 08:49:37 1994"], true),
            (&usual, &[BEFORE], false),
            (&usual, &[AFTER], false),
            (&usual, &[DATE], false),
            (&weak, &["W/\"a\""], false),
            (&weak, &["\"a\""], false),
            // Section 8.8.2.2: it may have changed again within that second.
            (&weak, &[MODIFIED], false),
            (&undated, &[MODIFIED], false),
        ];
        for (response, lines, expected) in rows {
            let lines: Vec<_> = lines.iter().map(|value| ("If-Range", *value)).collect();
            let stored = Validators::of(response, NOW);
            assert_eq!(if_range_holds(&fields(&lines), &stored, NOW), *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_date_is_a_strong_validator_a_minute_after_the_change() {
        // RFC 9110 section 8.8.2.2
        let request = fields(&[("If-Range", MODIFIED)]);
        for (date, expected) in [
            ("Sun, 06 Nov 1994 08:50:36 GMT", false),
            ("Sun, 06 Nov 1994 08:50:37 GMT", true),
            (BEFORE, false),
        ] {
            let response = response(200, &[("Last-Modified", MODIFIED), ("Date", date)]);
            let stored = Validators::of(&response, NOW);
            assert_eq!(if_range_holds(&request, &stored, NOW), expected, "{date}");
        }
    }

    /// RFC 9110 section 8.8.1.
    #[test]
    fn a_strong_validator_is_a_strong_tag_or_a_strong_date() {
        let (old, tag) = (("Last-Modified", MODIFIED), ("ETag", "\"a\""));
        let rows: &[(Lines<'_>, Option<&str>)] = &[
            (&[tag], Some("tag")),
            (&[tag, old, ("Date", MODIFIED)], Some("tag")),
            (&[("ETag", "W/\"a\""), old, ("Date", DATE)], None),
            (&[old, ("Date", DATE)], Some("date")),
            (&[old, ("Date", AFTER)], None),
            (&[old], None),
            (&[], None),
        ];
        for (lines, expected) in rows {
            let response = response(200, lines);
            let found = Validators::of(&response, NOW).strong().map(|it| match it {
                Strong::Tag(_) => "tag",
                Strong::Date(_) => "date",
            });
            assert_eq!(found, *expected, "{lines:?}");
        }
        let (tag, other) = (response(200, &[tag]), response(200, &[("ETag", "\"b\"")]));
        let date = response(200, &[old, ("Date", DATE)]);
        let all = [&tag, &other, &date].map(|it| Validators::of(it, NOW).strong().unwrap());
        for (at, one) in all.iter().enumerate() {
            for (place, another) in all.iter().enumerate() {
                assert_eq!(one.names_same(another), at == place);
            }
        }
    }

    /// RFC 9110 section 14.2.
    #[test]
    fn ranges_are_wanted_by_get_alone_and_only_if_if_range_holds() {
        let usual = usual();
        let stored = Validators::of(&usual, NOW);
        let range = ("Range", "bytes=0-1");
        let rows: &[(Method, Lines<'_>, bool)] = &[
            (Method::Get, &[range], true),
            (Method::Get, &[range, ("If-Range", "\"a\"")], true),
            (Method::Get, &[range, ("If-Range", "\"b\"")], false),
            (Method::Get, &[], false),
            (Method::Get, &[("Range", "lines=0-1")], false),
            (Method::Get, &[range, range], false),
            (Method::Head, &[range], false),
            (Method::Post, &[range], false),
        ];
        for (method, lines, expected) in rows {
            let found = wanted_ranges(method, &fields(lines), &stored, NOW);
            assert_eq!(found.is_some(), *expected, "{method} {lines:?}");
        }
    }

    #[test]
    fn conditions_for_the_origin_are_told_apart() {
        for (name, any, origin) in [
            ("if-match", true, true),
            ("If-Unmodified-Since", true, true),
            ("If-None-Match", true, false),
            ("if-modified-since", true, false),
            ("If-Range", true, false),
            ("If", false, false),
        ] {
            let request = fields(&[(name, "x")]);
            let found = (has_conditions(&request), has_origin_conditions(&request));
            assert_eq!(found, (any, origin), "{name}");
        }
    }

    proptest! {
        #[test]
        fn not_modified_needs_a_condition_that_holds(
            tag in "(\\*|\"[ab]\"|W/\"a\"|broken)?", since in 0_u64..4, modified in 0_u64..4,
        ) {
            let date = |secs| crate::http::date::write_http_date(Wall::from_secs(secs));
            let (since_text, modified_text) = (date(since), date(modified));
            let mut request = Fields::new();
            request.push("If-Modified-Since", since_text);
            if !tag.is_empty() {
                request.push("If-None-Match", &tag);
            }
            let mut response = response(200, &[("ETag", "\"a\"")]);
            response.fields.push("Last-Modified", modified_text);
            let stored = Validators::of(&response, NOW);
            let expected = match tag.as_str() {
                "" => modified <= since,
                "*" | "\"a\"" | "W/\"a\"" => true,
                _ => false,
            };
            let found = evaluate(&Method::Get, &request, &stored, NOW);
            prop_assert_eq!(found == NotModified, expected);
            prop_assert_ne!(found, Failed);
        }
    }
}
