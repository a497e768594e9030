//! Which of the fields that the proxy cares about a head has, found in one pass over its lines.
//!
//! A name is recognised by a perfect hash of its length, first and last byte, then compared in
//! machine words: a few cycles for each line, no text scan later. What the hit path must know
//! ("is there anything that needs the slow path?") is one AND of the bit set with a [`Mask`].

use crate::http1::Line;

macro_rules! names {
    ($($variant:ident = $text:literal,)+) => {
        /// A field whose presence a head's parse notes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Name {
            $(#[doc = concat!("`", $text, "`")] $variant,)+
        }

        impl Name {
            /// Every name, in the order of the enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in lower case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

names! {
    Host = "host",
    Connection = "connection",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Expect = "expect",
    Upgrade = "upgrade",
    Te = "te",
    Trailer = "trailer",
    CacheControl = "cache-control",
    Pragma = "pragma",
    Authorization = "authorization",
    Cookie = "cookie",
    Range = "range",
    IfRange = "if-range",
    IfNoneMatch = "if-none-match",
    IfModifiedSince = "if-modified-since",
    IfMatch = "if-match",
    IfUnmodifiedSince = "if-unmodified-since",
    AcceptEncoding = "accept-encoding",
    XApiKey = "x-api-key",
    XRequestId = "x-request-id",
    XForwardedFor = "x-forwarded-for",
    Forwarded = "forwarded",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    Origin = "origin",
    Traceparent = "traceparent",
    Accept = "accept",
    AcceptLanguage = "accept-language",
    UserAgent = "user-agent",
    Via = "via",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthorization = "proxy-authorization",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    Http2Settings = "http2-settings",
    MaxForwards = "max-forwards",
}

impl Name {
    /// Recognises a field name in any case. Any bytes will do; what is recognised is a token.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Option<Self> {
        let (&first, &last) = (name.first()?, name.last()?);
        let entry = TABLE.get(slot(name.len(), first, last))?;
        let found = entry.name?;
        let same = entry.len == name.len() && entry.fold.or(words(name)) == entry.words;
        same.then_some(found)
    }
}

/// A set of names, built at compile time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask(u64);

impl Mask {
    /// The set of these names.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "the index is below the length")]
    pub const fn of(names: &[Name]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < names.len() {
            bits |= 1 << names[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// This set and `other`.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The known fields of one head. Small and cheap to copy: the table of indices stays with the
/// slots of the parse.
#[derive(Clone, Copy, Debug)]
pub struct Known<'h> {
    sets: Sets,
    first: &'h Firsts,
}

/// Index of the first line of each name; meaningless for one that is not present.
pub(super) type Firsts = [u8; Name::ALL.len()];

/// Notes names, line by line.
pub(super) struct Noting<'h> {
    sets: Sets,
    first: &'h mut Firsts,
}

#[derive(Clone, Copy, Debug)]
struct Sets {
    present: u64,
    repeated: u64,
}

impl<'h> Noting<'h> {
    #[inline]
    pub(super) fn new(first: &'h mut Firsts) -> Self {
        Self { sets: Sets { present: 0, repeated: 0 }, first }
    }

    /// Notes that line `index` is named `name`.
    #[inline]
    pub(super) fn note(&mut self, name: Name, index: usize) {
        let bit = 1 << name as u8;
        if self.sets.present & bit != 0 {
            self.sets.repeated |= bit;
            return;
        }
        self.sets.present |= bit;
        if let (Some(first), Ok(index)) = (self.first.get_mut(name as usize), u8::try_from(index)) {
            *first = index;
        }
    }

    /// What was noted.
    #[inline]
    pub(super) fn finish(self) -> Known<'h> {
        Known { sets: self.sets, first: self.first }
    }
}

impl Known<'_> {
    /// Whether there is a field of that name.
    #[must_use]
    pub const fn has(&self, name: Name) -> bool {
        self.sets.present & (1 << name as u8) != 0
    }

    /// Whether there is a field of any of these names. One AND.
    #[must_use]
    pub const fn any(&self, mask: Mask) -> bool {
        self.sets.present & mask.0 != 0
    }

    /// Whether there is more than one line of that name.
    #[must_use]
    pub const fn repeated(&self, name: Name) -> bool {
        self.sets.repeated & (1 << name as u8) != 0
    }

    /// Whether there is more than one line of any of these names.
    #[must_use]
    pub const fn any_repeated(&self, mask: Mask) -> bool {
        self.sets.repeated & mask.0 != 0
    }

    /// The value of the first line of that name. `lines` must be those of the same head.
    #[must_use]
    pub fn value<'b>(&self, name: Name, lines: &[Line<'b>]) -> Option<&'b [u8]> {
        if !self.has(name) {
            return None;
        }
        let line = lines.get(usize::from(*self.first.get(name as usize)?))?;
        debug_assert!(line.is(name.as_str()));
        Some(line.value)
    }

    /// The values of all lines of that name, in order. `lines` must be those of the same head.
    pub fn values<'a, 'b>(
        &self,
        name: Name,
        lines: &'a [Line<'b>],
    ) -> impl Iterator<Item = &'b [u8]> + use<'a, 'b> {
        let from = if self.has(name) { self.first.get(name as usize) } else { None };
        let from = from.map_or(lines.len(), |index| usize::from(*index));
        let end = if self.repeated(name) { lines.len() } else { from.saturating_add(1) };
        let run = lines.get(from..end.min(lines.len())).unwrap_or_default();
        run.iter().filter(move |line| line.is(name.as_str())).map(|line| line.value)
    }
}

/// At most 24 bytes. Not an array: its comparison would go through memory, which costs more than
/// the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Words(u64, u64, u64);

impl Words {
    #[inline(always)]
    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0, self.1 | other.1, self.2 | other.2)
    }

    /// [`FOLD`] where a byte is a lower case letter, so that nothing else is folded onto it.
    const fn letters(self) -> Self {
        Self(letters(self.0), letters(self.1), letters(self.2))
    }
}

const fn letters(word: u64) -> u64 {
    let (mut fold, mut at) = (0, 0);
    while at < 64 {
        if ((word >> at) as u8).is_ascii_lowercase() {
            fold |= (FOLD as u64) << at;
        }
        at += 8;
    }
    fold
}

#[derive(Clone, Copy)]
struct Entry {
    name: Option<Name>,
    len: usize,
    words: Words,
    fold: Words,
}

/// The hash is perfect for [`Name::ALL`]; [`build_table`] fails the build should it no longer be.
#[inline]
const fn slot(len: usize, first: u8, last: u8) -> usize {
    (len + (first | FOLD) as usize * 71 + (last | FOLD) as usize) % TABLE_LEN
}

/// Whether `value` is `word`, which is in lower case and of at most 24 bytes, in any case.
#[inline]
pub(super) fn is_word(value: &[u8], word: &'static [u8]) -> bool {
    debug_assert!(word.len() <= 24);
    value.len() == word.len() && words(word).letters().or(words(value)) == words(word)
}

/// At most 24 bytes. Texts of one length have equal words exactly when they are equal.
#[inline]
const fn words(name: &[u8]) -> Words {
    if let (Some(head), Some(tail)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        let (head, tail) = (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
        let middle = match name.split_at_checked(8) {
            Some((_, rest)) if name.len() > 16 => match rest.first_chunk::<8>() {
                Some(chunk) => u64::from_le_bytes(*chunk),
                None => 0,
            },
            _ => 0,
        };
        return Words(head, middle, tail);
    }
    if let (Some(head), Some(tail)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        let (head, tail) = (u32::from_le_bytes(*head), u32::from_le_bytes(*tail));
        return Words(head as u64, tail as u64, 0);
    }
    let (mut word, mut rest) = (0, name);
    while let Some((byte, after)) = rest.split_first() {
        word = word << 8 | *byte as u64;
        rest = after;
    }
    Words(word, 0, 0)
}

#[allow(clippy::indexing_slicing, reason = "evaluated at compile time only")]
const fn build_table() -> [Entry; TABLE_LEN] {
    let nothing = Words(0, 0, 0);
    let mut table = [Entry { name: None, len: 0, words: nothing, fold: nothing }; TABLE_LEN];
    let mut i = 0;
    while i < Name::ALL.len() {
        let name = Name::ALL[i];
        let text = name.as_str().as_bytes();
        let at = slot(text.len(), text[0], text[text.len() - 1]);
        assert!(table[at].name.is_none(), "two names share a slot");
        assert!(text.len() <= 24, "`words` compares 24 bytes");
        let words = words(text);
        table[at] = Entry { name: Some(name), len: text.len(), words, fold: words.letters() };
        i += 1;
    }
    table
}

const TABLE_LEN: usize = 128;
/// Sets the bit that tells lower from upper case letters.
const FOLD: u8 = 0x20;
static TABLE: [Entry; TABLE_LEN] = build_table();

const _: () = assert!(Name::ALL.len() <= 64, "a set is one machine word");
const _: () = assert!(crate::http1::FIELDS_MAX <= 256, "an index is one byte");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_text(name: &[u8]) -> Option<Name> {
        Name::ALL.iter().copied().find(|it| it.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    #[test]
    fn every_name_is_known_in_any_case() {
        for name in Name::ALL {
            let text = name.as_str();
            assert_eq!(Name::of(text.as_bytes()), Some(*name));
            assert_eq!(Name::of(text.to_ascii_uppercase().as_bytes()), Some(*name));
        }
    }

    #[test]
    fn a_name_that_differs_in_one_byte_is_not_known() {
        for name in Name::ALL {
            let text = name.as_str().as_bytes();
            for at in 0..text.len() {
                for byte in 0..=255 {
                    let mut other = text.to_vec();
                    other[at] = byte;
                    assert_eq!(Name::of(&other), by_text(&other), "{}", other.escape_ascii());
                }
            }
            assert_eq!(Name::of(&text[1..]), by_text(&text[1..]));
            assert_eq!(Name::of(&[text, b"x"].concat()), None);
        }
    }

    #[test]
    fn the_first_line_of_a_name_and_its_repetition_are_noted() {
        let line = |name: &'static str, value| Line { name: name.as_bytes(), value };
        let lines = [line("A", b"0"), line("Range", b"1"), line("b", b""), line("RANGE", b"2")];
        let mut first = [0; Name::ALL.len()];
        let mut noting = Noting::new(&mut first);
        for (index, line) in lines.iter().enumerate() {
            if let Some(name) = Name::of(line.name) {
                noting.note(name, index);
            }
        }
        let known = noting.finish();
        assert!(known.has(Name::Range) && known.repeated(Name::Range));
        assert_eq!(known.value(Name::Range, &lines), Some(&b"1"[..]));
        let values: Vec<_> = known.values(Name::Range, &lines).collect();
        assert_eq!(values, [b"1", b"2"]);
        assert!(known.any(Mask::of(&[Name::Host, Name::Range])));
        assert!(!known.any(Mask::of(&[Name::Host]).or(Mask::of(&[Name::Te]))));
        assert_eq!(known.values(Name::Host, &lines).count(), 0);
        assert_eq!(known.value(Name::Host, &lines), None);
    }

    proptest! {
        #[test]
        fn recognition_agrees_with_a_comparison_of_text(
            name in prop::collection::vec(any::<u8>(), 0..26),
        ) {
            prop_assert_eq!(Name::of(&name), by_text(&name));
        }
    }
}
