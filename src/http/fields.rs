//! Header fields, kept as the text that goes on an HTTP/1 wire.
//!
//! One buffer, `name ": " value CRLF` for each field in the order it came, and one word that says
//! which names can't be there. To send them is one copy, to store them costs that word. To find a
//! field is a scan with `memchr`; but most questions are for fields that a message does not have,
//! and those are answered by the word. The fast path never searches here: the HTTP/1 parser has
//! already noted where the fields it needs stand.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr3};

/// An ordered list of header fields. Names compare without regard to ASCII case.
#[derive(Clone, Default)]
pub struct Fields {
    /// Each field is `name ": " value CRLF`; a name is a non-empty token, a value has no CR, LF
    /// or NUL and no white space at its ends.
    wire: Vec<u8>,
    /// The bits of all names ([`bit`]), and perhaps of some that are there no more.
    names: u64,
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.wire == other.wire
    }
}

impl Eq for Fields {}

/// One field line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it was spelt.
    pub name: &'a [u8],
    /// The value without surrounding white space.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether the name is `name`, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl Fields {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self { wire: Vec::new(), names: 0 }
    }

    /// No fields yet, room for `bytes` of text.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { wire: Vec::with_capacity(bytes), names: 0 }
    }

    /// Takes text in the form of [`Fields::as_wire`]; `None` when it is not in that form.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        names_of(wire).map(|names| Self { wire: wire.to_vec(), names })
    }

    /// The fields as HTTP/1 text, each ended by CRLF; without the empty line that ends a head.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// Adds a field at the end.
    ///
    /// The name must be a token (what a parser let through, or a literal). Should a value hold CR,
    /// LF or NUL nevertheless, each such byte becomes a space (RFC 9110 section 5.5), so that no
    /// caller can split a message.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref().trim_ascii());
        debug_assert!(!name.is_empty() && name.iter().all(|b| is_token_byte(*b)));
        self.names |= bit(name);
        self.wire.reserve(name.len() + value.len() + 4);
        self.wire.extend_from_slice(name);
        self.wire.extend_from_slice(b": ");
        if memchr3(b'\r', b'\n', 0, value).is_some() {
            let spaced =
                value.iter().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { *b });
            let spaced: Vec<u8> = spaced.collect();
            self.wire.extend_from_slice(spaced.trim_ascii());
        } else {
            self.wire.extend_from_slice(value);
        }
        self.wire.extend_from_slice(b"\r\n");
    }

    /// Removes every field of that name, then adds one at the end.
    pub fn replace(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.push(name, value);
    }

    /// Removes every field of that name; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.contains(name) {
            return false;
        }
        self.retain(|field| !field.is(name));
        true
    }

    /// Keeps the fields for which `keep` says so, in their order. Moves bytes, allocates nothing.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let (mut from, mut to, mut names) = (0, 0, 0);
        while let Some((field, line)) = self.wire.get(from..).and_then(first_line) {
            let (bytes, kept) = (line.len(), keep(field));
            if kept {
                names |= bit(field.name);
                self.wire.copy_within(from..from + bytes, to);
                to += bytes;
            }
            from += bytes;
        }
        self.wire.truncate(to);
        self.names = names;
    }

    /// Makes room for `bytes` of text more.
    pub fn reserve(&mut self, bytes: usize) {
        self.wire.reserve(bytes);
    }

    /// Adds all fields of `other` at the end.
    pub fn extend(&mut self, other: &Self) {
        self.names |= other.names;
        self.wire.extend_from_slice(&other.wire);
    }

    /// Adds lines that `write` appends in the form of [`Fields::as_wire`]; for composers that make
    /// several at once. Cheaper than a [`Fields::push`] for each by a copy.
    ///
    /// The names must be tokens and the values clean, as of a parse or a literal.
    pub fn extend_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.wire.len();
        write(&mut self.wire);
        let added = self.wire.get(start..).unwrap_or_default();
        debug_assert!(names_of(added).is_some(), "{:?}", added.escape_ascii().to_string());
        self.names |= lines(added).fold(0, |names, (field, _)| names | bit(field.name));
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        lines(&self.wire).map(|(field, _)| field)
    }

    /// The values of all fields of that name, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.named(name).map(|field| field.value)
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.named(name).next().map(|field| field.value)
    }

    /// The value of the field of that name if exactly one is there: a singleton field that is
    /// repeated says nothing certain (RFC 9110 section 5.5).
    #[must_use]
    pub fn single(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.all(name);
        lines.next().filter(|_| lines.next().is_none())
    }

    /// Whether a field of that name is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All values of that name joined by `", "` (RFC 9110 section 5.3); borrowed when there is one.
    #[must_use]
    pub fn combined(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut lines = self.all(name);
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = first.to_vec();
        for value in std::iter::once(second).chain(lines) {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }

    /// The fields of that name, in order. Where its bit is not set there is none.
    #[inline]
    fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = Field<'a>> + Clone {
        let wire = if self.names & bit(name.as_bytes()) == 0 { &[] } else { self.wire.as_slice() };
        lines(wire).map(|(field, _)| field).filter(move |field| field.is(name))
    }
}

/// The fields of a text in the form of [`Fields::as_wire`], each with its line.
fn lines(wire: &[u8]) -> impl Iterator<Item = (Field<'_>, &[u8])> + Clone {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (field, line) = first_line(rest)?;
        rest = rest.get(line.len()..)?;
        Some((field, line))
    })
}

#[inline]
fn first_line(wire: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let line = wire.get(..=memchr(b'\n', wire)?)?;
    let colon = memchr(b':', line)?;
    let value = line.get(colon + 2..line.len() - 2)?;
    Some((Field { name: line.get(..colon)?, value }, line))
}

/// The bits of the names in a text; `None` when it is not in the form of [`Fields::as_wire`].
fn names_of(wire: &[u8]) -> Option<u64> {
    let (mut rest, mut names) = (wire, 0);
    while !rest.is_empty() {
        let end = memchr(b'\n', rest)?;
        let line = rest.get(..end)?.strip_suffix(b"\r")?;
        let colon = memchr(b':', line)?;
        let name = line.get(..colon)?;
        let value = line.get(colon + 1..)?.strip_prefix(b" ")?;
        let clean = memchr3(b'\r', b'\n', 0, value).is_none();
        if name.is_empty() || !name.iter().all(|b| is_token_byte(*b)) || !clean {
            return None;
        }
        if value.trim_ascii().len() != value.len() {
            return None;
        }
        names |= bit(name);
        rest = rest.get(end + 1..)?;
    }
    Some(names)
}

/// The bit of a name in [`Fields::names`], the same in any case: its length and outer letters tell
/// most names apart.
#[inline]
const fn bit(name: &[u8]) -> u64 {
    let [first, .., last] = name else { return 1 };
    let (first, last) = ((*first | FOLD) as usize, (*last | FOLD) as usize);
    1 << ((name.len() * 7 + first * 5 + last * 11) % 64)
}

/// Folds the case of a letter.
const FOLD: u8 = 0x20;

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.escape_ascii(), self.value.escape_ascii())
    }
}

/// Whether `byte` may stand in a token: a field name or a method (RFC 9110 section 5.6.2).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
            | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Fields {
        let mut fields = Fields::new();
        fields.push("Date", "today");
        fields.push("Vary", "a");
        fields.push("X-Empty", "");
        fields.push("vary", " b ");
        fields
    }

    #[test]
    fn names_compare_without_case_and_order_is_kept() {
        let fields = sample();
        assert_eq!(fields.all("VARY").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(fields.get("date"), Some(&b"today"[..]));
        assert_eq!(fields.get("x-empty"), Some(&b""[..]));
        assert_eq!(fields.combined("vary").as_deref(), Some(&b"a, b"[..]));
        assert_eq!(fields.iter().count(), 4);
        assert_eq!(fields.single("DATE"), Some(&b"today"[..]));
        assert_eq!((fields.single("vary"), fields.single("none")), (None, None));
    }

    #[test]
    fn wire_text_round_trips() {
        let fields = sample();
        assert_eq!(fields.as_wire(), b"Date: today\r\nVary: a\r\nX-Empty: \r\nvary: b\r\n");
        assert_eq!(Fields::from_wire(fields.as_wire()), Some(fields));
    }

    #[test]
    fn text_in_another_form_is_refused() {
        for wire in
            ["a: b", "a:b\r\n", "a: b\n", ": b\r\n", "a b: c\r\n", "a: b \r\n", "a: \rb\r\n"]
        {
            assert_eq!(Fields::from_wire(wire.as_bytes()), None, "{wire:?}");
        }
    }

    #[test]
    fn every_name_is_found_however_the_fields_came_to_be() {
        let names = ["Date", "ETag", "x-a", "X-B", "A", "Content-Length", "content-type", "Zz"];
        for spelling in [str::to_owned, str::to_lowercase, str::to_uppercase] {
            let mut pushed = Fields::new();
            for name in names {
                pushed.push(spelling(name), "1");
            }
            let parsed = Fields::from_wire(pushed.as_wire()).unwrap();
            let mut extended = Fields::new();
            extended.extend(&pushed);
            let mut written = Fields::new();
            written.extend_with(|out| out.extend_from_slice(pushed.as_wire()));
            let mut retained = pushed.clone();
            retained.push("Gone", "1");
            retained.retain(|field| !field.is("gone"));
            for fields in [&pushed, &parsed, &extended, &written, &retained] {
                assert!(names.iter().all(|name| fields.get(name) == Some(b"1")), "{fields:?}");
                assert!(!fields.contains("gone"));
            }
        }
    }

    #[test]
    fn a_value_cannot_split_the_message() {
        let mut fields = Fields::new();
        fields.push("A", "b\r\nEvil: 1\0");
        assert_eq!(fields.as_wire(), b"A: b  Evil: 1\r\n");
    }

    #[test]
    fn remove_and_replace_take_every_line_of_the_name() {
        let mut fields = sample();
        assert!(fields.remove("Vary"));
        assert!(!fields.remove("Vary"));
        fields.replace("date", "now");
        assert_eq!(fields.as_wire(), b"X-Empty: \r\ndate: now\r\n");
    }
}
