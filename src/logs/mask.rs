//! Query parameters that carry credentials: their names are logged, their values are not.
//!
//! A parameter is known by its name, decoded and in lower case: by the whole of it (`key`, `sig`),
//! or by a part (`access_token`, `X-Amz-Signature`). What stands in a path, or inside another
//! parameter's value, can't be told from anything else and is logged as it is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

/// The names whose values are not logged: a fixed list, and those of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    /// In lower case.
    more: Vec<Box<[u8]>>,
}

impl Masks {
    /// The fixed list and these names, in any case.
    pub fn new<T: AsRef<str>>(more: impl IntoIterator<Item = T>) -> Self {
        let lower = |name: T| name.as_ref().to_ascii_lowercase().into_bytes().into();
        Self { more: more.into_iter().map(lower).collect() }
    }

    /// Gives `query` in pieces, each value of a masked parameter as `***`.
    pub(super) fn write(&self, query: &[u8], mut put: impl FnMut(&[u8])) {
        let mut rest = query;
        while !rest.is_empty() {
            // Some servers take semicolons for separators too.
            let end = rest.iter().position(|byte| matches!(byte, b'&' | b';'));
            let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
            let name_end = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
            let (name, value) = piece.split_at(name_end);
            put(name);
            if value.len() > 1 && self.hides(name) {
                put(b"=***");
            } else {
                put(value);
            }
            let (separator, after) = after.split_at(after.len().min(1));
            put(separator);
            rest = after;
        }
    }

    fn hides(&self, name: &[u8]) -> bool {
        let mut plain = [0; NAME_BYTES_MAX];
        let Some(name) = decoded(name, &mut plain) else { return true };
        EXACT.iter().any(|it| it.as_bytes() == name)
            || self.more.iter().any(|it| &**it == name)
            || PARTS.iter().any(|it| memchr::memmem::find(name, it.as_bytes()).is_some())
    }
}

/// The name without percent-encoding, in lower case; `None` when it is longer than any we know.
fn decoded<'p>(name: &[u8], plain: &'p mut [u8; NAME_BYTES_MAX]) -> Option<&'p [u8]> {
    let (mut rest, mut len) = (name, 0);
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', rest.get(1..)?),
            },
            (byte, after) => (*byte, after),
        };
        *plain.get_mut(len)? = byte.to_ascii_lowercase();
        len += 1;
        rest = after;
    }
    plain.get(..len)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok())
}

/// Names that are credentials as they stand.
const EXACT: &[&str] =
    &["auth", "code", "hmac", "jwt", "key", "otp", "pass", "pin", "pwd", "sid", "sig", "ticket"];

/// Parts that make a name a credential's.
const PARTS: &[&str] = &[
    "access-key",
    "access_key",
    "accesskey",
    "api-key",
    "api_key",
    "apikey",
    "assertion",
    "authorization",
    "credential",
    "passphrase",
    "passwd",
    "password",
    "private-key",
    "private_key",
    "secret",
    "session",
    "signature",
    "token",
];

/// A longer name is masked unread: no honest parameter is called so.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(query: &str) -> String {
        let masks = Masks::new(["Tenant", "x y"]);
        let mut out = Vec::new();
        masks.write(query.as_bytes(), |piece| out.extend_from_slice(piece));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_of_credentials_are_replaced_and_nothing_else() {
        let rows = [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("token=abc", "token=***"),
            ("a=1&Access_Token=abc&b=2", "a=1&Access_Token=***&b=2"),
            ("%74oken=abc", "%74oken=***"),
            ("api%5Fkey=abc", "api%5Fkey=***"),
            ("X-Amz-Signature=ab;x=1", "X-Amz-Signature=***;x=1"),
            ("key=a=b=c", "key=***"),
            ("key=", "key="),
            ("key", "key"),
            ("keyword=x&monkey=y&author=z", "keyword=x&monkey=y&author=z"),
            ("tenant=acme&TENANT=b", "tenant=***&TENANT=***"),
            ("x%20y=1", "x%20y=***"),
            ("&&=&=x", "&&=&=x"),
            ("%=1&%4=2&%zz=3", "%=1&%4=2&%zz=3"),
        ];
        for (query, expected) in rows {
            assert_eq!(masked(query), expected, "{query}");
        }
        let long = format!("{}=x", "a".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(masked(&long), format!("{}***", &long[..long.len() - 1]));
    }

    proptest! {
        #[test]
        fn no_value_of_a_credential_survives(
            before in "[a-z=&;%]{0,20}",
            name in prop::sample::select(vec!["token", "KEY", "client_secret", "%70assword"]),
            separator in prop::sample::select(vec!["&", ";"]),
            after in "[a-z=&;%]{0,20}",
        ) {
            let query = format!("{before}{separator}{name}=SECRET9{separator}{after}");
            prop_assert!(!masked(&query).contains("SECRET9"));
        }
    }
}
