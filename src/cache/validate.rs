//! Validation: what the origin is asked, and whether its 304 speaks of what is stored (RFC 9111
//! sections 4.3.1 and 4.3.4).

use crate::base::Wall;
use crate::cache::freshness;
use crate::http::conditional::{Strong, Validators};
use crate::http::range::Range;
use crate::http::{EntityTag, Fields, ResponseHead, parse_http_date};

/// Makes the request to the origin conditional on the stored response: both validators, where it
/// has them (RFC 9111 section 4.3.1). The client's own If-None-Match, If-Modified-Since, If-Range
/// and Range go: the answer must be about the whole stored response; theirs are judged
/// afterwards against what results. Without a stored validator the request asks for it in full.
pub fn conditional_request(fields: &mut Fields, stored: &Fields, now: Wall) {
    unconditional_request(fields);
    let tag = stored.get("ETag").filter(|value| EntityTag::parse(value).is_some());
    if let Some(tag) = tag {
        fields.push("If-None-Match", tag);
    }
    // As it was received: some origins compare the text.
    let modified = stored.get("Last-Modified");
    if let Some(modified) = modified.filter(|value| parse_http_date(value, now).is_some()) {
        fields.push("If-Modified-Since", modified);
    }
}

/// Makes the request ask for the range that a stored part lacks, or for the whole should that have
/// changed (RFC 9110 section 13.1.5). Nothing is pushed unless the part has a strong validator.
pub fn range_request(fields: &mut Fields, stored: &Fields, missing: Range, now: Wall) {
    unconditional_request(fields);
    let name = match Validators::of_fields(206, stored, now).strong() {
        Some(Strong::Tag(_)) => "ETag",
        Some(Strong::Date(_)) => "Last-Modified",
        None => return,
    };
    if let Some(validator) = stored.get(name) {
        fields.push("Range", format!("bytes={missing}"));
        fields.push("If-Range", validator);
    }
}

/// Makes the request ask for the whole response: to fill the cache, or after a 304 that was
/// about another one.
pub fn unconditional_request(fields: &mut Fields) {
    for name in ["If-None-Match", "If-Modified-Since", "If-Range", "Range"] {
        fields.remove(name);
    }
}

/// Whether the 304 is about the stored response (RFC 9111 section 4.3.4). Where it is not, it must
/// not update, and the response has to be asked for in full.
///
/// A 304 without validators answers the one that was asked about. A strong tag selects the same
/// strong tag; a weak one compares weakly; Last-Modified counts where there is no tag to compare.
#[must_use]
pub fn selects(stored: &Fields, not_modified: &ResponseHead, now: Wall) -> bool {
    let received = &not_modified.fields;
    if let Some(tag) = received.get("ETag").and_then(EntityTag::parse) {
        let stored = stored.get("ETag").and_then(EntityTag::parse);
        return stored.is_some_and(|stored| {
            if tag.weak { tag.weak_eq(&stored) } else { tag.strong_eq(&stored) }
        });
    }
    match freshness::instant(received, "Last-Modified", now) {
        Some(modified) => freshness::instant(stored, "Last-Modified", now) == Some(modified),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::sample::{Lines, NOW, fields, head};

    const OLD: &str = "Wed, 01 Jan 2020 00:00:00 GMT";
    const NEW: &str = "Thu, 02 Jan 2020 00:00:00 GMT";

    /// RFC 9111 section 4.3.1.
    #[test]
    fn both_stored_validators_are_sent_and_the_clients_own_are_not() {
        let mut request = fields(&[
            ("If-None-Match", "\"client\""),
            ("If-Modified-Since", NEW),
            ("If-Range", "\"client\""),
            ("Range", "bytes=0-1"),
            ("Abc", "123"),
        ]);
        let stored = fields(&[("ETag", "W/\"a\""), ("Last-Modified", OLD)]);
        conditional_request(&mut request, &stored, NOW);
        let expected = [("Abc", "123"), ("If-None-Match", "W/\"a\""), ("If-Modified-Since", OLD)];
        assert_eq!(request, fields(&expected));
    }

    #[test]
    fn a_malformed_validator_is_not_sent() {
        let mut request = fields(&[("Range", "bytes=0-1")]);
        let stored = fields(&[("ETag", "unquoted"), ("Last-Modified", "yesterday")]);
        conditional_request(&mut request, &stored, NOW);
        assert!(request.is_empty());
    }

    /// RFC 9110 section 13.1.5: a strong validator, a tag before a date.
    #[test]
    fn what_a_part_lacks_is_asked_for_with_its_strong_validator() {
        const DATED: (&str, &str) = ("Date", "Fri, 03 Jan 2020 00:00:00 GMT");
        let cases: &[(Lines<'_>, Option<&str>)] = &[
            (&[("ETag", "\"a\""), ("Last-Modified", OLD), DATED], Some("\"a\"")),
            (&[("Last-Modified", OLD), DATED], Some(OLD)),
            (&[("ETag", "W/\"a\""), ("Last-Modified", OLD), DATED], None),
            (&[("Last-Modified", OLD)], None),
            (&[], None),
        ];
        for (stored, validator) in cases {
            let own = [("If-None-Match", "\"client\""), ("Range", "bytes=0-1"), ("Abc", "123")];
            let mut request = fields(&own);
            range_request(&mut request, &fields(stored), Range::Open { first: 5 }, NOW);
            let mut expected = fields(&[("Abc", "123")]);
            if let Some(validator) = validator {
                expected.push("Range", "bytes=5-");
                expected.push("If-Range", validator);
            }
            assert_eq!(request, expected, "{stored:?}");
        }
    }

    /// RFC 9111 section 4.3.4.
    #[test]
    fn a_304_updates_only_the_response_whose_validator_it_carries() {
        let cases: &[(Lines<'_>, Lines<'_>, bool)] = &[
            (&[("ETag", "\"a\"")], &[("ETag", "\"a\"")], true),
            (&[("ETag", "\"a\"")], &[("ETag", "\"b\"")], false),
            (&[("ETag", "\"a\"")], &[("ETag", "W/\"a\"")], true),
            (&[("ETag", "W/\"a\"")], &[("ETag", "W/\"a\"")], true),
            (&[("ETag", "W/\"a\"")], &[("ETag", "\"a\"")], false),
            (&[("ETag", "\"a\"")], &[], true),
            (&[("Last-Modified", OLD)], &[("Last-Modified", OLD)], true),
            (&[("Last-Modified", OLD)], &[("Last-Modified", NEW)], false),
            (&[("ETag", "\"a\"")], &[("Last-Modified", OLD)], false),
            (&[("Last-Modified", OLD)], &[("ETag", "\"a\"")], false),
            // The tag decides where both have one.
            (
                &[("ETag", "\"a\""), ("Last-Modified", OLD)],
                &[("ETag", "\"a\""), ("Last-Modified", NEW)],
                true,
            ),
            (&[], &[], true),
        ];
        for (stored, received, expected) in cases {
            let head = head(304, received);
            assert_eq!(selects(&fields(stored), &head, NOW), *expected, "{stored:?} {received:?}");
        }
    }
}
