//! The fixed lists that label values come from, and the mapping of everything else to them.

use crate::http::Method;

/// What the cache had to do with an answer: the label `cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CacheResult {
    /// Answered from the store, fresh.
    Hit,
    /// Fetched from the origin, or shared the fetch of another request.
    Miss,
    /// Answered from the store, stale.
    Stale,
    /// Answered from the store after the origin confirmed it.
    Revalidated,
    /// The cache does not handle such requests.
    Bypass,
    /// An error of ours took the place of the origin's answer.
    Error,
    /// The cache was not asked: operator endpoints, refusals.
    None,
}

impl CacheResult {
    /// Every result, in the order of the enum.
    pub const ALL: [Self; 7] = [
        Self::Hit,
        Self::Miss,
        Self::Stale,
        Self::Revalidated,
        Self::Bypass,
        Self::Error,
        Self::None,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
            Self::Error => "error",
            Self::None => "none",
        }
    }
}

/// Values of the label `method`; the last stands for every other method.
pub const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY", OTHER];

/// Index of a method in [`METHODS`].
#[must_use]
pub const fn method_index(method: &Method) -> usize {
    match method {
        Method::Get => 0,
        Method::Head => 1,
        Method::Post => 2,
        Method::Put => 3,
        Method::Delete => 4,
        Method::Patch => 5,
        Method::Options => 6,
        Method::Query => 7,
        Method::Connect | Method::Trace | Method::Extension(_) => METHOD_OTHER,
    }
}

/// Index of `other` in [`METHODS`].
pub const METHOD_OTHER: usize = METHODS.len() - 1;

/// Values of the label `status_class`.
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Index of a status in [`STATUS_CLASSES`]. A status outside 100 to 599 is invalid and counts as
/// 5xx (RFC 9110 section 15).
#[must_use]
pub const fn status_class_index(status: u16) -> usize {
    match status {
        100..=199 => 0,
        200..=299 => 1,
        300..=399 => 2,
        400..=499 => 3,
        _ => 4,
    }
}

/// Words for why an exchange with an upstream failed: the label `reason`. The last stands for words
/// that are not listed.
pub const UPSTREAM_FAILURES: [&str; 18] = [
    "resolve",
    "not_allowed",
    "dial",
    "tls",
    "reset",
    "truncated",
    "invalid",
    "too_large",
    "timeout",
    "busy",
    "queued",
    "circuit_open",
    "paused",
    "offline_not_cached",
    "status",
    "abandoned",
    "internal",
    OTHER,
];

/// Words for why an HTTP/1 request's head or body was refused: the label `reason`. Those of `http1`
/// first, then time-outs; the last stands for words that are not listed.
pub const HEAD_REFUSALS: [&str; 47] = [
    "too_many_empty_lines",
    "bare_lf",
    "bare_cr",
    "bad_method",
    "method_too_long",
    "bad_spacing",
    "bad_target_byte",
    "fragment_in_target",
    "bad_target_form",
    "bad_scheme",
    "bad_target_authority",
    "target_too_long",
    "missing_version",
    "bad_version",
    "unsupported_version",
    "space_before_first_field",
    "obs_fold",
    "space_before_colon",
    "empty_field_name",
    "bad_field_name",
    "bad_field_value",
    "too_many_fields",
    "field_too_large",
    "head_too_large",
    "missing_host",
    "repeated_host",
    "bad_host",
    "authority_mismatch",
    "repeated_content_length",
    "bad_content_length",
    "length_and_coding",
    "coding_in_http10",
    "bad_coding",
    "unsupported_coding",
    "connection_field",
    "unknown_expectation",
    "parser_disagreement",
    "bad_chunk_size",
    "chunk_size_too_long",
    "bad_chunk_extension",
    "chunk_extension_too_long",
    "bad_chunk_line_end",
    "missing_chunk_crlf",
    "trailer_too_large",
    "body_truncated",
    "timeout",
    OTHER,
];

/// Statuses with which the daemon refuses a request itself: the label `status`. All others count
/// as `other`. The tests of `proxy::error` hold that these are the ones there are.
pub const REFUSAL_STATUSES: [u16; 17] =
    [400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 421, 429, 431, 501, 503, 504, 505];

/// The label value for what is on no list.
pub const OTHER: &str = "other";

/// Index of `word` in `words`, or of their last, which stands for all others. A scan: for paths
/// that fail.
pub(crate) fn word_index(words: &[&str], word: &str) -> usize {
    debug_assert_eq!(words.last(), Some(&OTHER));
    words.iter().position(|it| *it == word).unwrap_or(words.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_clients_make_up_share_one_label() {
        for name in ["PURGE", "get", "CONNECT", "TRACE", "X", "GETGETGET"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(METHODS[method_index(&method)], OTHER, "{name}");
        }
        for name in &METHODS[..METHOD_OTHER] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(METHODS[method_index(&method)], *name);
        }
    }

    #[test]
    fn invalid_statuses_count_as_server_errors() {
        // RFC 9110 section 15
        let rows = [(100, "1xx"), (199, "1xx"), (200, "2xx"), (304, "3xx"), (499, "4xx")];
        let invalid = [0, 99, 500, 599, 600, 999, u16::MAX].map(|it| (it, "5xx"));
        for (status, class) in rows.into_iter().chain(invalid) {
            assert_eq!(STATUS_CLASSES[status_class_index(status)], class, "{status}");
        }
    }

    #[test]
    fn words_are_distinct_snake_case_and_end_in_other() {
        let results = CacheResult::ALL.map(CacheResult::as_str);
        for words in [&UPSTREAM_FAILURES[..], &HEAD_REFUSALS[..], &results[..]] {
            for (place, word) in words.iter().enumerate() {
                assert!(word.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()), "{word}");
                assert!(!words[..place].contains(word), "{word} stands twice");
            }
        }
        assert_eq!((UPSTREAM_FAILURES.last(), HEAD_REFUSALS.last()), (Some(&OTHER), Some(&OTHER)));
    }

    #[test]
    fn every_reason_of_the_parsers_is_listed() {
        for source in [
            include_str!("../http1/fault.rs"),
            include_str!("../http1/body.rs"),
            include_str!("../http1/chunked.rs"),
        ] {
            // Those of responses are counted as upstream failures.
            let requests = source.split("enum ResponseFault").next().unwrap();
            let words = requests.split("=> \"").skip(1).map(|it| it.split('"').next().unwrap());
            let words: Vec<&str> = words.collect();
            assert!(!words.is_empty());
            for word in words {
                assert!(HEAD_REFUSALS.contains(&word), "{word} is not listed");
            }
        }
    }

    #[test]
    fn a_word_on_no_list_counts_as_other() {
        assert_eq!(UPSTREAM_FAILURES[word_index(&UPSTREAM_FAILURES, "tls")], "tls");
        for word in ["", "TLS", "tls ", "no such word", OTHER] {
            assert_eq!(UPSTREAM_FAILURES[word_index(&UPSTREAM_FAILURES, word)], OTHER, "{word}");
        }
    }

    #[test]
    fn results_stand_in_the_order_of_their_numbers() {
        for (place, result) in CacheResult::ALL.iter().enumerate() {
            assert_eq!(*result as usize, place, "{result:?}");
        }
    }
}
