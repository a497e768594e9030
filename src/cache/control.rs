//! Cache-Control directives (RFC 9111 section 5.2), parsed once into plain values.
//!
//! What is doubtful is read so that less is cached: a number that is none makes a response stale
//! (section 4.2.1), a restriction holds however oddly it is written, a permission holds only in its
//! proper form. Text that is no directive at all (`private;max-age=60`, `"no-store"`) is searched
//! for the words of restrictions. Of a repeated directive the first counts (section 4.2.1).
//! Arguments may be quoted or not (section 5.2). Unknown directives are ignored (section 5.2.3).

use std::borrow::Cow;
use std::time::Duration;

use crate::cache::targeted;
use crate::http::Fields;
use crate::http::fields::is_token_byte;
use crate::http::list;

/// The directives of a request (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `max-age`: the oldest response that will do.
    pub max_age: Option<Duration>,
    /// `min-fresh`: how long the response must stay fresh.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: how stale a response may be; [`Duration::MAX`] without an argument.
    pub max_stale: Option<Duration>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// `no-cache`, or `Pragma: no-cache` where there is no Cache-Control (section 5.4).
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
}

impl RequestControl {
    /// Reads Cache-Control and Pragma. A malformed number counts as the most demanding one.
    #[must_use]
    pub fn parse(fields: &Fields) -> Self {
        let mut control = Self::default();
        for member in list::field_members(fields, "Cache-Control") {
            control.apply(&Directive::parse(member));
        }
        if !fields.contains("Cache-Control") {
            let mut pragma = list::field_members(fields, "Pragma");
            control.no_cache = pragma.any(|member| member.eq_ignore_ascii_case(b"no-cache"));
        }
        control
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        for word in directive.unreadable() {
            self.no_cache |= word.eq_ignore_ascii_case(b"no-cache");
            self.no_store |= word.eq_ignore_ascii_case(b"no-store");
            self.no_transform |= word.eq_ignore_ascii_case(b"no-transform");
        }
        if directive.is("max-age") {
            set_first(&mut self.max_age, directive.seconds().unwrap_or(Duration::ZERO));
        } else if directive.is("min-fresh") {
            set_first(&mut self.min_fresh, directive.seconds().unwrap_or(Duration::MAX));
        } else if directive.is("max-stale") {
            let any = directive.argument.is_none();
            let span = if any { Some(Duration::MAX) } else { directive.seconds() };
            set_first(&mut self.max_stale, span.unwrap_or(Duration::ZERO));
        } else if directive.is("stale-if-error") {
            set_first(&mut self.stale_if_error, directive.seconds().unwrap_or(Duration::ZERO));
        } else if directive.is("no-cache") {
            self.no_cache = true;
        } else if directive.is("no-store") {
            self.no_store = true;
        } else if directive.is("no-transform") {
            self.no_transform = true;
        } else if directive.is("only-if-cached") {
            self.only_if_cached = true;
        }
    }
}

/// The directives of a response (RFC 9111 section 5.2.2, RFC 5861, RFC 8246), of Cache-Control or
/// of the targeted field that stands in its place (RFC 9213).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// `s-maxage`; zero when its argument is no number.
    pub s_maxage: Option<Duration>,
    /// `max-age`; zero when its argument is no number.
    pub max_age: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861 section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without a field list.
    pub no_cache: bool,
    /// `private` without a field list.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// These come from a targeted field; Cache-Control and Expires don't count (RFC 9213
    /// section 2.2).
    pub targeted: bool,
    /// The field names that `no-cache="..."` and `private="..."` list: not to be stored.
    pub withheld: Vec<Box<[u8]>>,
}

impl ResponseControl {
    /// Reads the first targeted field that is valid and not empty, otherwise Cache-Control.
    #[must_use]
    pub fn parse(fields: &Fields) -> Self {
        if let Some(control) = targeted::parse(fields) {
            return control;
        }
        let mut control = Self::default();
        for member in list::field_members(fields, "Cache-Control") {
            control.apply(&Directive::parse(member));
        }
        control
    }

    /// Whether stale answers are forbidden: section 4.2.4, and 5.2.2.10 for `s-maxage`.
    #[must_use]
    pub const fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }

    /// Whether the response to a request with Authorization may be shared (section 3.5).
    #[must_use]
    pub const fn shares_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// Whether a directive says in so many words that a shared cache may keep the response: then
    /// also one that sets a cookie (section 7.3).
    #[must_use]
    pub const fn allows_storing(&self) -> bool {
        self.public || self.s_maxage.is_some() || self.max_age.is_some()
    }

    /// Whether the field of that name must not be stored.
    #[must_use]
    pub fn withholds(&self, name: &[u8]) -> bool {
        self.withheld.iter().any(|withheld| withheld.eq_ignore_ascii_case(name))
    }

    /// Takes the names that a `no-cache` or `private` lists; says whether there was one.
    pub(crate) fn withhold(&mut self, names: &[u8]) -> bool {
        let names = list::members(names).filter(|name| list::is_token(name));
        let before = self.withheld.len();
        self.withheld.extend(names.map(Box::from));
        self.withheld.len() > before
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        directive.unreadable().for_each(|word| self.restrict(word));
        if directive.is("max-age") {
            set_first(&mut self.max_age, directive.seconds().unwrap_or(Duration::ZERO));
        } else if directive.is("s-maxage") {
            set_first(&mut self.s_maxage, directive.seconds().unwrap_or(Duration::ZERO));
        } else if directive.is("stale-while-revalidate") {
            let span = directive.seconds().unwrap_or(Duration::ZERO);
            set_first(&mut self.stale_while_revalidate, span);
        } else if directive.is("stale-if-error") {
            set_first(&mut self.stale_if_error, directive.seconds().unwrap_or(Duration::ZERO));
        } else if directive.is("no-cache") {
            self.no_cache |= !self.withhold(&directive.text());
        } else if directive.is("private") {
            self.private |= !self.withhold(&directive.text());
        } else {
            self.apply_flag(directive);
        }
    }

    /// A word of text that is no directive: it holds if it is a restriction's, with the strictest
    /// argument that it could have.
    fn restrict(&mut self, word: &[u8]) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("max-age") {
            set_first(&mut self.max_age, Duration::ZERO);
        } else if is("s-maxage") {
            set_first(&mut self.s_maxage, Duration::ZERO);
        }
        self.no_store |= is("no-store");
        self.no_cache |= is("no-cache");
        self.private |= is("private");
        self.must_revalidate |= is("must-revalidate");
        self.proxy_revalidate |= is("proxy-revalidate");
    }

    fn apply_flag(&mut self, directive: &Directive<'_>) {
        let permitted = directive.argument.is_none();
        if directive.is("no-store") {
            self.no_store = true;
        } else if directive.is("must-revalidate") {
            self.must_revalidate = true;
        } else if directive.is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if directive.is("public") {
            self.public |= permitted;
        } else if directive.is("must-understand") {
            self.must_understand |= permitted;
        } else if directive.is("immutable") {
            self.immutable |= permitted;
        }
    }
}

/// Whether `no-transform` forbids to change the content (RFC 9110 section 7.7, RFC 9111 section
/// 5.2.2.6), its coding included. It speaks to every hop, so that only Cache-Control says it.
#[must_use]
pub fn forbids_transforming(response: &Fields) -> bool {
    list::field_members(response, "Cache-Control").any(|member| {
        let directive = Directive::parse(member);
        let mut words = directive.unreadable();
        directive.is("no-transform") || words.any(|it| it.eq_ignore_ascii_case(b"no-transform"))
    })
}

/// One directive as it was written.
#[derive(Clone, Copy, Debug)]
struct Directive<'a> {
    /// Without white space around it.
    name: &'a [u8],
    /// What follows the `=`, with the white space that does not belong there.
    argument: Option<&'a [u8]>,
    /// White space stood before the `=`, where none may be.
    spaced: bool,
}

impl<'a> Directive<'a> {
    fn parse(member: &'a [u8]) -> Self {
        let mut parts = member.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let argument = parts.next();
        let trimmed = list::trim(name);
        Self { name: trimmed, argument, spaced: trimmed.len() != name.len() }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The words of the part that can't be read: all of it where the name is no token, the argument
    /// where that is neither token nor string.
    fn unreadable(&self) -> impl Iterator<Item = &'a [u8]> {
        let plain = |name: &[u8]| list::is_token(name) && !name.contains(&b'\'');
        let argument = self.argument.map(list::trim).filter(|it| !it.is_empty());
        let odd = argument.filter(|it| list::token_or_quoted(it).is_none());
        let (name, argument) =
            if plain(self.name) { (None, odd) } else { (Some(self.name), argument) };
        // An apostrophe may stand in a token, and for a quote.
        let ends = |byte: &u8| !is_token_byte(*byte) || *byte == b'\'';
        let words = move |text: &'a [u8]| text.split(ends).filter(|word| !word.is_empty());
        name.into_iter().chain(argument).flat_map(words)
    }

    /// The argument as delta-seconds (section 1.2.2), quoted or not; too large is very long.
    fn seconds(&self) -> Option<Duration> {
        let argument = self.argument.filter(|_| !self.spaced)?;
        let text = list::token_or_quoted(argument)?;
        list::delta_seconds(&text).map(|seconds| Duration::from_secs(u64::from(seconds)))
    }

    /// The argument as a list of names, read leniently: a restriction.
    fn text(&self) -> Cow<'a, [u8]> {
        let Some(argument) = self.argument.map(list::trim) else { return Cow::default() };
        list::unquote(argument).unwrap_or(Cow::Borrowed(argument))
    }
}

/// Of a repeated directive the first counts (section 4.2.1).
fn set_first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

#[cfg(test)]
mod tests;
