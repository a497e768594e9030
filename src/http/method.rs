//! Request methods (RFC 9110 section 9).

use std::fmt;

use crate::http::fields::is_token_byte;

/// A request method. Case-sensitive: `get` is an extension method, not GET.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 9110 section 9.3.1.
    Get,
    /// RFC 9110 section 9.3.2.
    Head,
    /// RFC 9110 section 9.3.3.
    Post,
    /// RFC 9110 section 9.3.4.
    Put,
    /// RFC 9110 section 9.3.5.
    Delete,
    /// RFC 9110 section 9.3.6.
    Connect,
    /// RFC 9110 section 9.3.7.
    Options,
    /// RFC 9110 section 9.3.8.
    Trace,
    /// RFC 5789.
    Patch,
    /// The safe method with content (draft-ietf-httpbis-safe-method-w-body).
    Query,
    /// Any other token.
    Extension(Box<str>),
}

impl Method {
    /// Reads a method; `None` when it is not a token. Allocates for extension methods only.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            b"QUERY" => Self::Query,
            other => {
                let token = !other.is_empty() && other.iter().all(|b| is_token_byte(*b));
                let text = std::str::from_utf8(other).ok().filter(|_| token)?;
                Self::Extension(text.into())
            }
        })
    }

    /// The method as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Query => "QUERY",
            Self::Extension(name) => name,
        }
    }

    /// Asks for no change at the origin (RFC 9110 section 9.2.1). Unknown methods are unsafe.
    #[must_use]
    pub const fn is_safe(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace | Self::Query)
    }

    /// May be sent again after a failure (RFC 9110 section 9.2.2).
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive_tokens() {
        assert_eq!(Method::from_bytes(b"GET"), Some(Method::Get));
        assert_eq!(Method::from_bytes(b"get"), Some(Method::Extension("get".into())));
        assert_eq!(Method::from_bytes(b"G T"), None);
        assert_eq!(Method::from_bytes(b""), None);
    }

    #[test]
    fn every_known_method_reads_back() {
        for name in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
        ] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(method.as_str(), name);
            assert!(!matches!(method, Method::Extension(_)), "{name}");
        }
    }

    #[test]
    fn an_unknown_method_is_neither_safe_nor_idempotent() {
        let method = Method::from_bytes(b"PURGE").unwrap();
        assert!(!method.is_safe() && !method.is_idempotent());
        assert!(Method::Put.is_idempotent() && !Method::Put.is_safe());
    }
}
