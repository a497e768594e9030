//! The fields a response varies on: stand-in until the policy's own are merged.

/// Lower-case field names, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VarySpec {
    names: Box<str>,
}

impl VarySpec {
    /// Reads names separated by commas; `None` unless lower-case tokens, ascending.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let token = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| {
                    crate::http::fields::is_token_byte(b) && !b.is_ascii_uppercase() && b != b'*'
                })
        };
        let ascending = text.split(',').zip(text.split(',').skip(1)).all(|(a, b)| a < b);
        (ascending && text.split(',').all(token)).then(|| Self { names: text.into() })
    }

    /// The names separated by commas.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.names
    }
}
