//! TLS settings from files: what is wrong with them is said in words for the operator.
//!
//! Versions 1.2 and 1.3 with AEAD ECDHE suites only, which is all that rustls has; no early data,
//! since it can be replayed (RFC 8446 section 8).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerSessionMemoryCache;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Sessions the server keeps for TLS 1.2 clients without tickets; about 1 KiB each at most.
const SERVER_SESSIONS_MAX: usize = 4096;
/// Origins whose sessions the client keeps.
const CLIENT_SESSIONS_MAX: usize = 256;

/// Why TLS settings can't be used.
#[derive(Debug)]
pub enum TlsConfigError {
    /// The certificate file can't be read.
    CertUnreadable(PathBuf, io::Error),
    /// The key file can't be read.
    KeyUnreadable(PathBuf, io::Error),
    /// The file of extra trust anchors can't be read.
    CaUnreadable(PathBuf, io::Error),
    /// The file is read, but is not PEM.
    NotPem(PathBuf, String),
    /// The file has no certificate in it.
    NoCertificate(PathBuf),
    /// The file has no private key in it.
    NoKey(PathBuf),
    /// The key belongs to another certificate.
    KeyMismatch(PathBuf, PathBuf),
    /// The file has a certificate in it that is no trust anchor.
    BadAnchor(PathBuf, rustls::Error),
    /// Neither the platform nor the file has a trust anchor: no origin could be verified.
    NoRoots(String),
    /// rustls refuses the certificate or the key.
    Refused(PathBuf, rustls::Error),
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertUnreadable(path, error) => {
                write!(f, "cert file unreadable: {}: {error}", path.display())
            }
            Self::KeyUnreadable(path, error) => {
                write!(f, "key file unreadable: {}: {error}", path.display())
            }
            Self::CaUnreadable(path, error) => {
                write!(f, "ca file unreadable: {}: {error}", path.display())
            }
            Self::NotPem(path, why) => write!(f, "not PEM: {}: {why}", path.display()),
            Self::NoCertificate(path) => write!(f, "no certificate in {}", path.display()),
            Self::NoKey(path) => write!(f, "no private key in {}", path.display()),
            Self::KeyMismatch(key, cert) => {
                write!(f, "key does not match: {} is not for {}", key.display(), cert.display())
            }
            Self::BadAnchor(path, error) => {
                write!(f, "not a trust anchor: {}: {error}", path.display())
            }
            Self::NoRoots(why) => write!(f, "no trust anchors on this machine: {why}"),
            Self::Refused(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for TlsConfigError {}

/// The server's settings from a PEM certificate chain and its key. `alpn` lists the protocols
/// offered, best first (`h2`, `http/1.1`). Sessions are resumed by tickets, and by an identifier
/// for TLS 1.2 clients without. Reads files: not on a core.
///
/// # Errors
/// See [`TlsConfigError`].
pub fn server_config(
    cert_file: &Path,
    key_file: &Path,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsConfigError> {
    let chain = certificates(cert_file, TlsConfigError::CertUnreadable)?;
    let key = private_key(key_file)?;
    let refused = |error| TlsConfigError::Refused(cert_file.to_owned(), error);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsConfigError::KeyMismatch(key_file.to_owned(), cert_file.to_owned())
            }
            error => refused(error),
        })?;
    config.alpn_protocols = owned(alpn);
    config.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS_MAX);
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(refused)?;
    Ok(config)
}

/// The client's settings: the platform's trust anchors and those of `ca_file`. `alpn` lists the
/// protocols offered, best first. Sessions are resumed. Reads files: not on a core.
///
/// # Errors
/// See [`TlsConfigError`].
pub fn client_config(
    ca_file: Option<&Path>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsConfigError> {
    let native = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some platforms ship anchors that no parser takes: those are left out.
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        for anchor in certificates(path, TlsConfigError::CaUnreadable)? {
            let bad = |error| TlsConfigError::BadAnchor(path.to_owned(), error);
            roots.add(anchor).map_err(bad)?;
        }
    }
    if roots.is_empty() {
        let first = native.errors.first().map(ToString::to_string);
        return Err(TlsConfigError::NoRoots(first.unwrap_or_else(|| "none found".to_owned())));
    }
    let refused = |error| TlsConfigError::Refused(PathBuf::new(), error);
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS_MAX);
    Ok(config)
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|it| it.to_vec()).collect()
}

fn certificates(
    path: &Path,
    unreadable: fn(PathBuf, io::Error) -> TlsConfigError,
) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let text = std::fs::read(path).map_err(|error| unreadable(path.to_owned(), error))?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| not_pem(path, &error))?;
    if chain.is_empty() {
        return Err(TlsConfigError::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    let text = std::fs::read(path);
    let text = text.map_err(|error| TlsConfigError::KeyUnreadable(path.to_owned(), error))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsConfigError::NoKey(path.to_owned()),
        error => not_pem(path, &error),
    })
}

fn not_pem(path: &Path, error: &pem::Error) -> TlsConfigError {
    TlsConfigError::NotPem(path.to_owned(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn every_fault_of_the_server_files_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (cert, key) = pair("localhost");
        let (_, other_key) = pair("localhost");
        let torn = cert.replace("-----END", "-----").replace('M', "!");
        let (cert, key) = (file("cert", &cert), file("key", &key));
        let (other, empty) = (file("other", &other_key), file("empty", ""));
        let (torn, none) = (file("torn", &torn), dir.path().join("none"));
        server_config(&cert, &key, &[b"h2"]).unwrap();
        for (cert_file, key_file, words) in [
            (&none, &key, "cert file unreadable"),
            (&cert, &none, "key file unreadable"),
            (&empty, &key, "no certificate in"),
            (&key, &key, "no certificate in"),
            (&cert, &cert, "no private key in"),
            (&cert, &empty, "no private key in"),
            (&torn, &key, "not PEM"),
            (&cert, &other, "key does not match"),
        ] {
            let error = server_config(cert_file, key_file, &[]).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn every_fault_of_the_ca_file_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca");
        let error = client_config(Some(&path), &[]).unwrap_err().to_string();
        assert!(error.starts_with("ca file unreadable"), "{error}");
        std::fs::write(&path, "").unwrap();
        let error = client_config(Some(&path), &[]).unwrap_err().to_string();
        assert!(error.starts_with("no certificate in"), "{error}");
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, bad).unwrap();
        let error = client_config(Some(&path), &[]).unwrap_err().to_string();
        assert!(error.starts_with("not a trust anchor"), "{error}");
        std::fs::write(&path, pair("localhost").0).unwrap();
        client_config(Some(&path), &[b"http/1.1"]).unwrap();
    }
}
