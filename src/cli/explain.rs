//! `apiproxyd explain`: asks the running daemon's `/cache/explain` and prints what it says.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::load::Loader;
use crate::cli::{failure, print, usage};
use crate::config::Settings;

/// The request to be explained, as it was written.
pub(super) struct Asked {
    pub(super) target: String,
    pub(super) method: String,
    pub(super) header: Vec<String>,
    pub(super) body: String,
}

/// Asks and prints.
pub(super) fn explain(loader: &Loader, asked: &Asked) -> ExitCode {
    let settings = match loader.load() {
        Ok(parsed) => parsed.settings,
        Err(error) => return usage(error),
    };
    if settings.server.tls_enabled {
        return usage(
            "explain speaks to listeners without TLS; ask /cache/explain with your client",
        );
    }
    match ask(&settings, asked) {
        Ok((200, body)) => {
            print(&readable(&body));
            ExitCode::SUCCESS
        }
        Ok((status, body)) => failure(format!("the daemon answered {status}: {}", body.trim_end())),
        Err(error) => failure(format!("cannot ask the daemon: {error}")),
    }
}

fn ask(settings: &Settings, asked: &Asked) -> io::Result<(u16, String)> {
    let (host, port) = (&settings.server.host, settings.server.port);
    let address = (host.as_str(), port).to_socket_addrs()?.next();
    let mut address = address.ok_or_else(|| io::Error::other("the address has no host"))?;
    if address.ip().is_unspecified() {
        // The daemon listens everywhere; ask it here.
        let here = if address.is_ipv6() {
            IpAddr::V6([0, 0, 0, 0, 0, 0, 0, 1].into())
        } else {
            IpAddr::V4([127, 0, 0, 1].into())
        };
        address.set_ip(here);
    }
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request(settings, asked).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parsed(&answer).ok_or_else(|| io::Error::other("the answer is no HTTP"))
}

fn request(settings: &Settings, asked: &Asked) -> String {
    let mut target =
        format!("/cache/explain?method={}&path={}", encoded(&asked.method), encoded(&asked.target));
    for header in &asked.header {
        target.push_str("&header=");
        target.push_str(&encoded(header));
    }
    if !asked.body.is_empty() {
        target.push_str("&body=");
        target.push_str(&encoded(&asked.body));
    }
    let token = settings.security.admin_token.expose();
    let authorization =
        if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n{authorization}\r\n")
}

/// Everything but unreserved characters escaped (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Status and body of an answer that ends with its connection.
fn parsed(answer: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Indented for people; as it came when it is no JSON.
fn readable(body: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(body);
    let pretty = value.and_then(|it| serde_json::to_string_pretty(&it));
    pretty.map_or_else(|_| body.to_owned(), |it| it + "\n")
}

const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stand_for_themselves() {
        assert_eq!(encoded("/v1/x?a=1&b=ä~"), "%2Fv1%2Fx%3Fa%3D1%26b%3D%C3%A4~");
    }

    #[test]
    fn an_answer_is_its_status_and_what_follows_the_empty_line() {
        let answer = b"HTTP/1.1 403 Forbidden\r\nA: b\r\n\r\n{}\r\n\r\n";
        assert_eq!(parsed(answer), Some((403, "{}\r\n\r\n".to_owned())));
        assert_eq!(parsed(b"no HTTP"), None);
    }
}
