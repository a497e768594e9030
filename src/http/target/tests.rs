use proptest::prelude::*;

use super::TargetFault::*;
use super::*;

fn path(raw: &str) -> Result<String, TargetFault> {
    let path = normalise_path(raw.as_bytes(), Slashes::Refuse)?;
    Ok(String::from_utf8(path.into_owned()).unwrap())
}

fn path_with_slashes(raw: &str) -> Result<String, TargetFault> {
    let path = normalise_path(raw.as_bytes(), Slashes::Allow)?;
    Ok(String::from_utf8(path.into_owned()).unwrap())
}

#[test]
fn a_normal_path_is_borrowed() {
    for raw in [
        "/",
        "/v1/users",
        "/a//b/",
        "//",
        "/a.json",
        "/v1.2/x",
        "/.well-known/x",
        "/...",
        "/a/..b/.c/d./e..",
        "/caf%C3%A9",
        "/a%20b",
        "/100%25",
        "/%252e%252e/",
        "/a;x=1/b",
        "/a;../b",
        "/!$&'()*+,;=:@-_~",
        "/{id}|[1]^\"<>`",
    ] {
        let found = normalise_path(raw.as_bytes(), Slashes::Refuse);
        assert!(matches!(found, Ok(Cow::Borrowed(text)) if text == raw.as_bytes()), "{raw}");
    }
}

#[test]
fn escapes_get_one_spelling() {
    // RFC 3986 sections 6.2.2.1 and 6.2.2.2
    let rows = [
        ("/%41%7a%30%2D%5f%7E", "/Az0-_~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%3a%3B", "/%3A%3B"),
        ("/%2541", "/%2541"),
        ("/%25%34%31", "/%2541"),
        ("/a%20b%41", "/a%20bA"),
        ("/%3f%23", "/%3F%23"),
        ("/a%2Ejson", "/a.json"),
    ];
    for (raw, expected) in rows {
        assert_eq!(path(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn dot_segments_are_removed_however_spelt() {
    // RFC 3986 section 5.2.4
    let rows = [
        ("/.", "/"),
        ("/..", "/"),
        ("/./", "/"),
        ("/../", "/"),
        ("/../..", "/"),
        ("/../../a", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/b/../", "/a/"),
        ("/a/b/c/./../../g", "/a/g"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/%2e%2e", "/"),
        ("/a//../b", "/a/b"),
        ("/..//a", "//a"),
        ("/a/b/%2e%2e/%2e%2e/%2e%2e/etc", "/etc"),
        ("/%2e%2e%2e/x", "/.../x"),
        ("/%2e", "/"),
    ];
    for (raw, expected) in rows {
        assert_eq!(path(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn what_servers_read_differently_is_refused() {
    let rows = [
        ("", NotAbsolute),
        ("*", NotAbsolute),
        ("a/b", NotAbsolute),
        ("http://a/b", NotAbsolute),
        ("%2Fa", NotAbsolute),
        ("/a b", Control),
        ("/a\tb", Control),
        ("/a\r\nb", Control),
        ("/a\0b", Control),
        ("/a\u{7f}", Control),
        ("/caf\u{e9}", NonAscii),
        ("/a#b", Delimiter),
        ("/a?b", Delimiter),
        ("/a\\b", Backslash),
        ("/a%5cb", Backslash),
        ("/a%5C", Backslash),
        ("/%", BadEscape),
        ("/%4", BadEscape),
        ("/%zz", BadEscape),
        ("/%4g", BadEscape),
        ("/%%41", BadEscape),
        ("/%+1", BadEscape),
        ("/%u0041", BadEscape),
        ("/%00", EncodedControl),
        ("/a%0d%0a", EncodedControl),
        ("/%1F", EncodedControl),
        ("/%7f", EncodedControl),
        ("/a%2fb", EncodedSlash),
        ("/a/..%2F..%2Fb", EncodedSlash),
        ("/a/..;/b", AmbiguousDots),
        ("/a/..;x=1/b", AmbiguousDots),
        ("/a/.;/b", AmbiguousDots),
        ("/a/%2e%2e;/b", AmbiguousDots),
        ("/a/..;", AmbiguousDots),
    ];
    for (raw, expected) in rows {
        assert_eq!(path(raw), Err(expected), "{raw:?}");
        if expected != EncodedSlash {
            assert_eq!(path_with_slashes(raw), Err(expected), "{raw:?}");
        }
    }
}

#[test]
fn an_allowed_encoded_slash_stays_encoded() {
    let rows = [
        ("/a%2Fb", Ok("/a%2Fb")),
        ("/a%2fb", Ok("/a%2Fb")),
        ("/a%2Fb/../c", Ok("/c")),
        ("/a%2F%2Fb", Ok("/a%2F%2Fb")),
        ("/a%2F...", Ok("/a%2F...")),
        ("/a%2F.b", Ok("/a%2F.b")),
        ("/a/../b%2Fc/./d", Ok("/b%2Fc/d")),
        ("/a/..%2Fb", Err(AmbiguousDots)),
        ("/a%2F..", Err(AmbiguousDots)),
        ("/a%2f%2e%2e/b", Err(AmbiguousDots)),
        ("/a/.%2Fb", Err(AmbiguousDots)),
        ("/a%2F..;/b", Err(AmbiguousDots)),
        ("/%2F../b", Err(AmbiguousDots)),
        ("/../a%2F../b", Err(AmbiguousDots)),
        ("/a%5Cb", Err(Backslash)),
    ];
    for (raw, expected) in rows {
        assert_eq!(path_with_slashes(raw), expected.map(str::to_owned), "{raw}");
    }
    let kept = normalise_path(b"/a%2Fb", Slashes::Allow);
    assert!(matches!(kept, Ok(Cow::Borrowed(b"/a%2Fb"))));
}

#[test]
fn a_query_is_checked_and_left_alone() {
    for raw in ["", "a=1&b=2", "q=%zz&%4", "a=%00%0a", "path=/../x\\y", "a=b#c", "?", "a=%2f;b"] {
        let found = normalise_query(raw.as_bytes());
        assert!(matches!(found, Ok(Cow::Borrowed(text)) if text == raw.as_bytes()), "{raw}");
    }
    for (raw, expected) in [
        ("a=b c", Control),
        ("a\n", Control),
        ("\0", Control),
        ("\u{7f}", Control),
        ("\u{e9}", NonAscii),
    ] {
        assert_eq!(normalise_query(raw.as_bytes()), Err(expected), "{raw:?}");
    }
}

#[test]
fn a_query_is_sorted_by_name_and_equal_names_keep_their_order() {
    let rows = [
        ("", ""),
        ("a", "a"),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1", "a=2&a=1"),
        ("b=1&a=2&a=1", "a=2&a=1&b=1"),
        ("ab=1&a=2&a-=3", "a=2&a-=3&ab=1"),
        ("a=&a", "a=&a"),
        ("b&&a", "&a&b"),
        ("a=1&a=1&A=1", "A=1&a=1&a=1"),
        ("z=%41&a=b=c", "a=b=c&z=%41"),
        ("&", "&"),
    ];
    for (query, expected) in rows {
        let found = sorted_query(query.as_bytes());
        assert_eq!(std::str::from_utf8(&found), Ok(expected), "{query}");
        assert_eq!(matches!(found, Cow::Borrowed(_)), query == expected, "{query}");
    }
}

#[test]
fn every_fault_has_its_own_word() {
    let faults = [
        NotAbsolute,
        Control,
        NonAscii,
        Delimiter,
        Backslash,
        BadEscape,
        EncodedControl,
        EncodedSlash,
        AmbiguousDots,
    ];
    let words: std::collections::HashSet<_> = faults.iter().map(|fault| fault.as_str()).collect();
    assert_eq!(words.len(), faults.len());
}

/// Decodes one byte at a time, then applies RFC 3986 section 5.2.4 as it is written there.
fn slow_path(raw: &[u8], slashes: Slashes) -> Option<Vec<u8>> {
    let mut decoded = String::new();
    let mut at = 0;
    while at < raw.len() {
        match raw[at] {
            b'%' => {
                let digits = std::str::from_utf8(raw.get(at + 1..at + 3)?).ok()?;
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                let byte = u8::from_str_radix(digits, 16).unwrap();
                let refused = byte < 0x20 || byte == 0x7f || byte == b'\\';
                if refused || byte == b'/' && slashes == Slashes::Refuse {
                    return None;
                }
                if is_unreserved(byte) {
                    decoded.push(char::from(byte));
                } else {
                    decoded.push_str(&format!("%{byte:02X}"));
                }
                at += 3;
            }
            b'\\' | b'#' | b'?' | 0..=b' ' | 0x7f.. => return None,
            byte => {
                decoded.push(char::from(byte));
                at += 1;
            }
        }
    }
    for segment in decoded.split('/').chain(decoded.split("%2F").flat_map(|it| it.split('/'))) {
        if segment.starts_with(".;") || segment.starts_with("..;") {
            return None;
        }
    }
    let dots = |text: &str| text.split('/').filter(|it| matches!(*it, "." | "..")).count();
    if dots(&decoded) != dots(&decoded.replace("%2F", "/")) || !decoded.starts_with('/') {
        return None;
    }
    Some(slow_remove_dot_segments(decoded).into_bytes())
}

fn slow_remove_dot_segments(mut input: String) -> String {
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") || input.starts_with("/../") {
            let parent = input.starts_with("/../");
            input = input[if parent { 3 } else { 2 }..].to_owned();
            if parent {
                output.truncate(output.rfind('/').unwrap_or(0));
            }
        } else if input == "/." || input == "/.." {
            if input == "/.." {
                output.truncate(output.rfind('/').unwrap_or(0));
            }
            input = "/".to_owned();
        } else {
            let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.push_str(&input[..end]);
            input = input[end..].to_owned();
        }
    }
    output
}

/// Pieces that make interesting paths likely.
fn any_path() -> impl Strategy<Value = String> {
    let piece = "(/|/|\\.|\\.\\.|a|b;|%2[eEfF]|%2e|%41|%c3%A9|%25|;|%5c|%00|%|~|\\\\|#| )";
    prop::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn normalising_agrees_with_a_slow_reading(raw in any_path()) {
        for slashes in [Slashes::Refuse, Slashes::Allow] {
            let fast = normalise_path(raw.as_bytes(), slashes).ok().map(Cow::into_owned);
            prop_assert_eq!(fast, slow_path(raw.as_bytes(), slashes), "{} {:?}", raw, slashes);
        }
    }

    #[test]
    fn normalising_twice_changes_nothing(raw in any_path()) {
        for slashes in [Slashes::Refuse, Slashes::Allow] {
            if let Ok(once) = normalise_path(raw.as_bytes(), slashes) {
                let twice = normalise_path(&once, slashes);
                prop_assert!(matches!(twice, Ok(Cow::Borrowed(text)) if text == &once[..]));
            }
        }
    }

    #[test]
    fn a_path_let_through_holds_nothing_refused(raw in prop::collection::vec(any::<u8>(), 0..30)) {
        let mut raw = raw;
        raw.insert(0, b'/');
        if let Ok(path) = normalise_path(&raw, Slashes::Refuse) {
            prop_assert!(path.starts_with(b"/"));
            prop_assert!(path.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'\\'));
            prop_assert!(segments(&path).all(|segment| !is_dot_segment(segment)));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = normalise_path(&raw, Slashes::Allow);
        let _ = normalise_query(&raw);
        let _ = sorted_query(&raw);
    }

    #[test]
    fn sorting_keeps_every_piece_and_is_stable(query in "[ab=&]{0,16}") {
        let sorted = sorted_query(query.as_bytes()).into_owned();
        let pieces = |text: &[u8]| {
            let pieces = text.split(|it| *it == b'&').map(<[u8]>::to_vec);
            let mut pieces: Vec<Vec<u8>> = pieces.collect();
            pieces.sort();
            pieces
        };
        prop_assert_eq!(pieces(&sorted), pieces(query.as_bytes()));
        prop_assert!(matches!(sorted_query(&sorted), Cow::Borrowed(_)));
    }
}
