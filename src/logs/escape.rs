//! Bytes from outside as text that can't end a line, leave its quotes, or move a terminal's cursor.
//!
//! What is not printable ASCII is written as an escape, byte by byte. A byte above 127 becomes the
//! character of that number in JSON: whatever encoding was meant, the output is ASCII, and two
//! different inputs stay different.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

/// Appends `text` as the content of a JSON string (RFC 8259 section 7).
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) {
    escaped(text, out, b"\\u00");
}

/// Appends `text` as the content of a quoted value of the text form.
pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    escaped(text, out, b"\\x");
}

/// Whether `text` can stand as a value of the text form without quotes.
pub(super) fn is_plain(text: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, b'!' | b'#'..=b'<' | b'>'..=b'[' | b']'..=b'~');
    !text.is_empty() && text.iter().all(plain)
}

fn escaped(mut text: &[u8], out: &mut Vec<u8>, introducer: &[u8]) {
    loop {
        let clean = text.iter().position(|byte| !is_clean(*byte)).unwrap_or(text.len());
        let (head, rest) = text.split_at(clean);
        out.extend_from_slice(head);
        let Some((byte, rest)) = rest.split_first() else { return };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            byte => {
                out.extend_from_slice(introducer);
                out.extend([byte >> 4, byte & 15].map(hex));
            }
        }
        text = rest;
    }
}

const fn is_clean(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

const fn hex(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json_of(text: &[u8]) -> String {
        let mut out = Vec::new();
        json(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_could_end_a_line_or_a_string_is_escaped() {
        let rows: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"plain /v1/x?y=1", "plain /v1/x?y=1"),
            (b"a\r\nb", "a\\u000d\\u000ab"),
            (b"\"},{\"", "\\\"},{\\\""),
            (b"\\", "\\\\"),
            (b"\x1b[2J\x7f\0", "\\u001b[2J\\u007f\\u0000"),
            // C1 controls move cursors as well.
            ("\u{9b}é".as_bytes(), "\\u00c2\\u009b\\u00c3\\u00a9"),
        ];
        for (text, expected) in rows {
            assert_eq!(json_of(text), *expected, "{text:?}");
        }
        let mut out = Vec::new();
        quoted(b"a\nb\"", &mut out);
        assert_eq!(out, b"a\\x0ab\\\"");
    }

    #[test]
    fn a_value_without_quotes_has_nothing_that_splits() {
        for plain in ["GET", "/v1/x", "127.0.0.1", "[::1]", "hit", "a:b;c"] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
        }
        for other in ["", " ", "a b", "a=b", "a\"b", "a\\b", "a\n", "\u{e9}", "\x7f", "\t"] {
            assert!(!is_plain(other.as_bytes()), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_line_of_ascii_that_reads_back(text: Vec<u8>) {
            let written = json_of(&text);
            prop_assert!(written.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let read: String = serde_json::from_str(&format!("\"{written}\"")).unwrap();
            let byte = |it: char| u8::try_from(u32::from(it)).unwrap();
            prop_assert_eq!(read.chars().map(byte).collect::<Vec<u8>>(), text.clone());
            let mut out = Vec::new();
            quoted(&text, &mut out);
            prop_assert!(out.iter().all(|byte| (b' '..=b'~').contains(byte)));
        }
    }
}
