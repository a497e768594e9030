//! The daemon's own key, should an origin send it back: the fields that hold it end here.
//!
//! Some origins answer with the request's fields, in a debugging field or in a redirect. The key is
//! for the two of us; an answer is for clients, and may be stored for all of them. Bodies are not
//! looked into: they may be coded, are passed on while they arrive, and are what their validators
//! say they are. An origin that shows keys in bodies must not be given one.

use crate::config::Secret;
use crate::http::Fields;

/// Removes `X-API-Key`, and every field whose value holds `key`.
pub fn drop_key(fields: &mut Fields, key: &Secret) {
    let key = key.expose().as_bytes();
    debug_assert!(!key.is_empty());
    let telling = key.len() >= KEY_BYTES_MIN;
    let holds = |text: &[u8]| telling && memchr::memmem::find(text, key).is_some();
    if fields.contains("X-API-Key") || holds(fields.as_wire()) {
        fields.retain(|field| !field.is("X-API-Key") && !holds(field.value));
    }
}

/// A shorter key would be found in values that have nothing to do with it.
const KEY_BYTES_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn left(given: &[(&str, &str)], key: &str) -> usize {
        let mut fields = Fields::new();
        given.iter().for_each(|(name, value)| fields.push(name, value));
        drop_key(&mut fields, &Secret::new(key));
        fields.iter().count()
    }

    #[test]
    fn fields_that_hold_the_key_are_dropped_and_no_others() {
        let answer = [
            ("X-Api-Key", "0123456789"),
            ("X-Debug", "got X-API-Key: 0123456789; ok"),
            ("Location", "/next?key=0123456789"),
            ("Content-Type", "application/json"),
            ("Age", "012345678"),
        ];
        assert_eq!(left(&answer, "0123456789"), 2);
        assert_eq!(left(&answer[1..], "another key"), 4);
        // Too short to tell: only the field of that name.
        assert_eq!(left(&answer, "0"), 4);
    }
}
