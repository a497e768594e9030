//! The connection string of PostgreSQL: what the driver understands, and `sslmode` as libpq defines
//! it. Checked with the rest of the configuration, read once more by the store.
//!
//! The driver knows `disable`, `prefer` and `require` and leaves certificates to its TLS library;
//! users write the six modes of libpq. So `sslmode` and `sslrootcert` are taken out of the string
//! here and the rest is left to the driver's own parser.

use std::path::PathBuf;

use tokio_postgres::config::SslMode;

/// A parsed connection string.
pub struct Dsn {
    /// All but TLS and time-outs.
    pub config: tokio_postgres::Config,
    /// Whether TLS is tried or demanded.
    pub mode: SslMode,
    /// What is asked of the server's certificate.
    pub verify: Verify,
    /// `sslrootcert`, if given: the trust anchors in place of the system's.
    pub roots: Option<PathBuf>,
}

/// How far the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Not at all: encryption against listeners only (`allow`, `prefer`, `require`).
    Nothing,
    /// Its chain, not its name (`verify-ca`, or `require` with `sslrootcert`).
    Chain,
    /// Its chain and its name (`verify-full`).
    ChainAndName,
}

impl Dsn {
    /// Parses a URL or a list of `key=value`.
    ///
    /// # Errors
    /// What is wrong, never with the string itself: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, options) = take_tls_options(text)?;
        let config: tokio_postgres::Config =
            rest.parse().map_err(|err: tokio_postgres::Error| {
                let cause = std::error::Error::source(&err).map(ToString::to_string);
                cause.unwrap_or_else(|| err.to_string())
            })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("no host is given".to_owned());
        }
        let roots = options.roots.filter(|it| it != "system").map(PathBuf::from);
        let (mode, verify) = match options.mode.as_deref() {
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            None | Some("allow" | "prefer") => (SslMode::Prefer, Verify::Nothing),
            Some("require") if roots.is_some() => (SslMode::Require, Verify::Chain),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Chain),
            Some("verify-full") => (SslMode::Require, Verify::ChainAndName),
            Some(_) => {
                let known = "disable, allow, prefer, require, verify-ca, verify-full";
                return Err(format!("sslmode must be one of {known}"));
            }
        };
        Ok(Self { config, mode, verify, roots })
    }
}

#[derive(Default)]
struct TlsOptions {
    mode: Option<String>,
    roots: Option<String>,
}

impl TlsOptions {
    /// Whether the option was one of these and has been taken.
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.roots = Some(value.to_owned()),
            _ => return false,
        }
        true
    }
}

fn take_tls_options(text: &str) -> Result<(String, TlsOptions), String> {
    let is_url = ["postgres://", "postgresql://"].iter().any(|it| text.starts_with(it));
    if is_url { Ok(from_url(text)) } else { from_pairs(text) }
}

fn from_url(text: &str) -> (String, TlsOptions) {
    let mut options = TlsOptions::default();
    let Some((base, query)) = text.split_once('?') else { return (text.to_owned(), options) };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            !options.take(key, &percent_decoded(value))
        })
        .collect();
    let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (rest, options)
}

/// A path in a URL may be escaped. What is no valid escape stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let byte = hex.and_then(|it| std::str::from_utf8(it).ok());
        match byte.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `key=value key='quoted \' value'`, with blanks around `=` allowed.
fn from_pairs(text: &str) -> Result<(String, TlsOptions), String> {
    let mut options = TlsOptions::default();
    let mut kept = String::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|it| it.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok((kept, options));
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|it| *it != '=' && !it.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|it| it.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err("expected `key=value` pairs or a postgres:// URL".to_owned());
        }
        while chars.next_if(|it| it.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err("a quote is not closed".to_owned()),
                None => break,
            }
        }
        if !options.take(&key, &value) {
            let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
            kept.push_str(&format!("{key}='{escaped}' "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::Host;

    fn parsed(text: &str) -> Dsn {
        Dsn::parse(text).unwrap_or_else(|err| panic!("{text}: {err}"))
    }

    #[test]
    fn sslmode_means_what_libpq_says() {
        use Verify::{Chain, ChainAndName, Nothing};
        for (options, mode, verify) in [
            ("", SslMode::Prefer, Nothing),
            ("?sslmode=disable", SslMode::Disable, Nothing),
            ("?sslmode=allow", SslMode::Prefer, Nothing),
            ("?sslmode=prefer", SslMode::Prefer, Nothing),
            ("?sslmode=require", SslMode::Require, Nothing),
            ("?sslmode=require&sslrootcert=/ca.pem", SslMode::Require, Chain),
            ("?sslmode=verify-ca", SslMode::Require, Chain),
            ("?sslmode=verify-full&sslrootcert=system", SslMode::Require, ChainAndName),
        ] {
            let dsn = parsed(&format!("postgres://u:p@h/d{options}"));
            assert_eq!((dsn.mode, dsn.verify), (mode, verify), "{options}");
        }
    }

    #[test]
    fn both_spellings_are_understood() {
        for text in [
            "postgresql://user:se%20cret@db.test:5433/name?connect_timeout=3&sslmode=require\
             &sslrootcert=/a%2Fb.pem",
            "host=db.test port = 5433 user='user' password='se cret' dbname=name \
             connect_timeout=3 sslmode=require sslrootcert='/a/b.pem'",
        ] {
            let dsn = parsed(text);
            assert_eq!(dsn.config.get_hosts(), [Host::Tcp("db.test".to_owned())]);
            assert_eq!(dsn.config.get_ports(), [5433]);
            assert_eq!(dsn.config.get_user(), Some("user"));
            assert_eq!(dsn.config.get_password(), Some(&b"se cret"[..]));
            assert_eq!(dsn.config.get_dbname(), Some("name"));
            assert_eq!(dsn.roots, Some(PathBuf::from("/a/b.pem")));
            assert_eq!(dsn.mode, SslMode::Require);
        }
        let quoted = parsed(r"host=h password='it\'s \\ hard' user=u");
        assert_eq!(quoted.config.get_password(), Some(&br"it's \ hard"[..]));
    }

    #[test]
    fn a_refusal_does_not_show_the_string() {
        for text in [
            "postgres://u:hunter2@h/d?sslmode=maybe",
            "postgres://u:hunter2@h:notaport/d",
            "postgres://u:hunter2@h/d?no_such_option=1",
            "host=h password=hunter2 sslcert=/x",
            "user=u password=hunter2",
            "host=h password='hunter2",
            "hunter2",
        ] {
            let refused = Dsn::parse(text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
