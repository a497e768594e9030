//! What makes two request bodies the same, for methods that are cached by their body.
//!
//! A body's digest is that of its media type and bytes. For JSON the bytes are replaced by a
//! canonical form, so that clients which write members in another order or indent differently share
//! an entry:
//!
//! * order of members and insignificant white space don't matter; strings, member names included,
//!   compare by what they denote (`"\u0061"` is `"a"`);
//! * everything else does: order of elements, and the spelling of numbers (`1`, `1.0` and `1e0` are
//!   three things, since an origin may tell them apart).
//!
//! The canonical form writes each value as a tag and, for strings and numbers, a length and the
//! bytes; it is never shown, only hashed. To mistake two bodies for one another would hand one
//! client the other's answer, so whatever leaves a doubt is refused and the request bypasses the
//! cache: duplicate members (RFC 8259 section 4 leaves their meaning open), lone surrogates,
//! invalid UTF-8, and any text on which the scanner here and simd-json differ. The scanner exists
//! because simd-json's tape has lost the spelling of numbers; simd-json is the second opinion on
//! all else.
//!
//! Cost: about 10 ns per byte and 16 bytes of memory per value, for bodies up to
//! [`JSON_BYTES_MAX`].

use memchr::memchr2;
use sha2::{Digest as _, Sha256};

use crate::cache::key::BodyDigest;

/// Why a body has no digest: the word is the reason of the bypass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCanonical {
    /// Larger than [`JSON_BYTES_MAX`].
    TooLarge,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// Not JSON (RFC 8259).
    Malformed,
    /// Not UTF-8, or an escape that denotes half a surrogate pair.
    InvalidUnicode,
    /// An object with two members of one name.
    DuplicateMember,
    /// JSON by the letter, but the two readers differ: a number beyond simd-json's range, for one.
    Doubtful,
}

impl NotCanonical {
    /// Every reason, for documents and tests.
    pub const ALL: [Self; 6] = [
        Self::TooLarge,
        Self::TooDeep,
        Self::Malformed,
        Self::InvalidUnicode,
        Self::DuplicateMember,
        Self::Doubtful,
    ];

    /// The word for logs, metrics and Cache-Status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "json_too_large",
            Self::TooDeep => "json_too_deep",
            Self::Malformed => "json_malformed",
            Self::InvalidUnicode => "json_invalid_unicode",
            Self::DuplicateMember => "json_duplicate_member",
            Self::Doubtful => "json_doubtful",
        }
    }
}

/// The digest of a body and its Content-Type (empty when there is none), for
/// [`crate::cache::key::KeyWriter::body`].
///
/// The type is compared as it is spelt: another spelling costs a miss, never a wrong answer.
///
/// # Errors
/// [`NotCanonical`] for JSON types only; any other body has a digest.
pub fn digest_body(content_type: &[u8], body: &[u8]) -> Result<BodyDigest, NotCanonical> {
    let mut hash = of_type(content_type);
    if is_json(content_type) {
        hash.update(b"j");
        hash.update(canonical(body)?);
    } else {
        hash.update(b"r");
        hash.update(body);
    }
    Ok(hash.finalize().into())
}

/// The digest of a request that has a Content-Type perhaps, and no body: of every type there is one
/// such body, although nothing at all is no JSON.
#[must_use]
pub fn digest_nothing(content_type: &[u8]) -> BodyDigest {
    of_type(content_type).chain_update(b"n").finalize().into()
}

fn of_type(content_type: &[u8]) -> Sha256 {
    let length = (content_type.len() as u64).to_be_bytes();
    Sha256::new().chain_update(length).chain_update(content_type)
}

/// Whether a Content-Type names JSON: `application/json` or any type that ends in `+json`
/// (RFC 6839 section 3.1).
#[must_use]
pub fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let suffix = essence.len().checked_sub(5).and_then(|at| essence.get(at..));
    essence.eq_ignore_ascii_case(b"application/json")
        || suffix.is_some_and(|it| it.eq_ignore_ascii_case(b"+json"))
}

/// The canonical form of a JSON text.
fn canonical(text: &[u8]) -> Result<Vec<u8>, NotCanonical> {
    if text.len() > JSON_BYTES_MAX {
        return Err(NotCanonical::TooLarge);
    }
    if std::str::from_utf8(text).is_err() {
        return Err(NotCanonical::InvalidUnicode);
    }
    let mut scanner = Scanner { text, at: 0, strings: Vec::new(), nodes: Vec::new() };
    scanner.document()?;
    let Scanner { strings, nodes, .. } = scanner;
    let mut out = Vec::with_capacity(text.len());
    Writer { text, strings: &strings, nodes: &nodes }.write(0, &mut out)?;
    second_opinion(text, nodes.len())?;
    Ok(out)
}

/// simd-json must find the text good, with as many values (member names among them).
fn second_opinion(text: &[u8], values: usize) -> Result<(), NotCanonical> {
    let mut scratch = text.to_vec();
    match simd_json::to_tape(&mut scratch) {
        Ok(tape) if tape.0.len() == values => Ok(()),
        Ok(_) | Err(_) => Err(NotCanonical::Doubtful),
    }
}

/// A value, or a member's name. A container's children follow it.
#[derive(Clone, Copy, Debug)]
struct Node {
    kind: Kind,
    /// Of a string in `strings`, of a number in the text; nothing else has one.
    start: u32,
    end: u32,
    /// The node after this one and all its children.
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String,
    Number,
    Null,
    True,
    False,
}

/// Reads RFC 8259 to the letter, no more and no less, into nodes in the order of the text.
struct Scanner<'a> {
    /// Valid UTF-8, at most `JSON_BYTES_MAX` long, so that positions fit u32.
    text: &'a [u8],
    at: usize,
    /// Decoded strings, one after the other.
    strings: Vec<u8>,
    nodes: Vec<Node>,
}

type Step<T = ()> = Result<T, NotCanonical>;

impl Scanner<'_> {
    fn document(&mut self) -> Step {
        self.value(0)?;
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(NotCanonical::Malformed) }
    }

    fn value(&mut self, depth: usize) -> Step {
        if depth > DEPTH_MAX {
            return Err(NotCanonical::TooDeep);
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.literal(b"null", Kind::Null),
            Some(b't') => self.literal(b"true", Kind::True),
            Some(b'f') => self.literal(b"false", Kind::False),
            Some(_) | None => Err(NotCanonical::Malformed),
        }
    }

    fn object(&mut self, depth: usize) -> Step {
        let node = self.open(Kind::Object, 0, 0);
        self.at += 1;
        if !self.took(b'}') {
            loop {
                self.skip_space();
                if self.peek() != Some(b'"') {
                    return Err(NotCanonical::Malformed);
                }
                self.string()?;
                self.expect(b':')?;
                self.value(depth + 1)?;
                if !self.took(b',') {
                    break;
                }
            }
            self.expect(b'}')?;
        }
        self.close(node);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Step {
        let node = self.open(Kind::Array, 0, 0);
        self.at += 1;
        if !self.took(b']') {
            loop {
                self.value(depth + 1)?;
                if !self.took(b',') {
                    break;
                }
            }
            self.expect(b']')?;
        }
        self.close(node);
        Ok(())
    }

    fn string(&mut self) -> Step {
        debug_assert_eq!(self.peek(), Some(b'"'));
        let start = self.strings.len();
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let run = memchr2(b'"', b'\\', rest).ok_or(NotCanonical::Malformed)?;
            let plain = rest.get(..run).unwrap_or_default();
            if plain.iter().any(|byte| *byte < 0x20) {
                return Err(NotCanonical::Malformed);
            }
            self.strings.extend_from_slice(plain);
            self.at += run + 1;
            if rest.get(run) == Some(&b'"') {
                break;
            }
            self.escape()?;
        }
        let node = self.open(Kind::String, start, self.strings.len());
        self.close(node);
        Ok(())
    }

    /// What follows a backslash (RFC 8259 section 7).
    fn escape(&mut self) -> Step {
        let decoded = match self.next().ok_or(NotCanonical::Malformed)? {
            b'u' => return self.unicode_escape(),
            plain @ (b'"' | b'\\' | b'/') => plain,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return Err(NotCanonical::Malformed),
        };
        self.strings.push(decoded);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Step {
        let first = self.four_hex()?;
        let mut code = first;
        if (0xd800..0xdc00).contains(&first) {
            if self.next() != Some(b'\\') || self.next() != Some(b'u') {
                return Err(NotCanonical::InvalidUnicode);
            }
            let second = self.four_hex()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(NotCanonical::InvalidUnicode);
            }
            code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        }
        // A low half that stands alone is no char.
        let decoded = char::from_u32(code).ok_or(NotCanonical::InvalidUnicode)?;
        self.strings.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn four_hex(&mut self) -> Step<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or(NotCanonical::Malformed)?;
        }
        Ok(code)
    }

    /// RFC 8259 section 6.
    fn number(&mut self) -> Step {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let node = self.open(Kind::Number, start, self.at);
        self.close(node);
        Ok(())
    }

    fn digits(&mut self) -> Step {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { Err(NotCanonical::Malformed) } else { Ok(()) }
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Step {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(NotCanonical::Malformed);
        }
        self.at += word.len();
        let node = self.open(kind, 0, 0);
        self.close(node);
        Ok(())
    }

    fn open(&mut self, kind: Kind, start: usize, end: usize) -> usize {
        debug_assert!(start <= end && end <= JSON_BYTES_MAX);
        // Decoded strings are never longer than the text, whose length fits.
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next: 0 });
        self.nodes.len() - 1
    }

    fn close(&mut self, node: usize) {
        let next = self.nodes.len() as u32;
        if let Some(node) = self.nodes.get_mut(node) {
            node.next = next;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes that byte if it comes next, white space aside.
    fn took(&mut self, byte: u8) -> bool {
        self.skip_space();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Step {
        if self.took(byte) { Ok(()) } else { Err(NotCanonical::Malformed) }
    }
}

/// Writes the canonical form. No value's form is a prefix of another's, so that the whole is
/// unambiguous.
struct Writer<'a> {
    text: &'a [u8],
    strings: &'a [u8],
    nodes: &'a [Node],
}

impl Writer<'_> {
    /// Writes the value at a node; returns the node after it.
    fn write(&self, at: u32, out: &mut Vec<u8>) -> Step<u32> {
        let node = self.node(at)?;
        match node.kind {
            Kind::Null => out.push(b'z'),
            Kind::True => out.push(b't'),
            Kind::False => out.push(b'f'),
            Kind::String => Self::sized(b's', self.span(self.strings, node), out),
            Kind::Number => Self::sized(b'n', self.span(self.text, node), out),
            Kind::Array => {
                out.push(b'[');
                let mut child = at + 1;
                while child < node.next {
                    child = self.write(child, out)?;
                }
                out.push(b']');
            }
            Kind::Object => {
                out.push(b'{');
                for (name, value) in self.members(at, node)? {
                    Self::sized(b's', name, out);
                    self.write(value, out)?;
                }
                out.push(b'}');
            }
        }
        Ok(node.next)
    }

    /// An object's members by name, each once.
    fn members(&self, at: u32, object: Node) -> Step<Vec<(&[u8], u32)>> {
        let mut members = Vec::new();
        let mut name_at = at + 1;
        while name_at < object.next {
            let name = self.span(self.strings, self.node(name_at)?);
            members.push((name, name_at + 1));
            name_at = self.node(name_at + 1)?.next;
        }
        members.sort_unstable();
        let twice = members.windows(2).any(|two| matches!(two, [a, b] if a.0 == b.0));
        if twice { Err(NotCanonical::DuplicateMember) } else { Ok(members) }
    }

    fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(bytes);
    }

    fn node(&self, at: u32) -> Step<Node> {
        debug_assert!((at as usize) < self.nodes.len());
        self.nodes.get(at as usize).copied().ok_or(NotCanonical::Doubtful)
    }

    fn span<'a>(&self, bytes: &'a [u8], node: Node) -> &'a [u8] {
        bytes.get(node.start as usize..node.end as usize).unwrap_or_default()
    }
}

/// The largest JSON body that is made canonical, since a core does nothing else meanwhile. Queries
/// sent as bodies are far smaller.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// How deep arrays and objects may nest; bounds the stack.
pub const DEPTH_MAX: usize = 128;

const _: () = assert!(JSON_BYTES_MAX < u32::MAX as usize);

#[cfg(test)]
mod million;
#[cfg(test)]
mod tests;
