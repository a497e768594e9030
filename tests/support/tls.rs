//! A TLS client of the tests, and certificates that are made for them: good ones, and ones that
//! nobody should take.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::PATIENCE;
use super::client::request;
use super::message::{Reader, Response};
use super::proxy::Setup;

/// A certificate for `localhost` and its key, as PEM.
pub struct Made {
    pub cert: String,
    pub key: String,
}

/// Makes one; no two are alike.
pub fn make() -> Made {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Made { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

/// A certificate authority of a test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes one; no two are alike.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes its certificate into `folder`, for `client.ca_file`.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let file = folder.join("authority.pem");
        std::fs::write(&file, self.0.pem()).unwrap();
        file
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Made {
        self.sign(params(names))
    }

    /// One that was valid once.
    pub fn issue_expired(&self, names: &[&str]) -> Made {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Made {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Made { cert: cert.pem(), key: key.serialize_pem() }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Made {
    /// What a server with this certificate needs, offering these protocols.
    pub fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// What a client needs that trusts this certificate and no other, offering these protocols.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Writes both into `folder`, the way a tool that renews certificates would.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        for (file, text) in [(&cert, &self.cert), (&key, &self.key)] {
            let new = file.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, file).unwrap();
        }
        (cert, key)
    }

    /// A daemon that shows it to its clients.
    #[must_use]
    pub fn shown_by(&self, setup: Setup) -> Setup {
        let (cert, key) = self.write(setup.home());
        setup
            .with("server.tls_enabled", true)
            .with("server.tls_cert_file", cert.to_str().unwrap())
            .with("server.tls_key_file", key.to_str().unwrap())
    }

    /// A connection that trusts this certificate and no other.
    pub fn connect(&self, addr: SocketAddr) -> std::io::Result<Secure> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        self.over(stream)
    }

    /// The same over a socket that has been written to already.
    pub fn over(&self, stream: TcpStream) -> std::io::Result<Secure> {
        self.offering(stream, &[])
    }

    /// The same, offering these protocols.
    pub fn offering(&self, stream: TcpStream, alpn: &[&str]) -> std::io::Result<Secure> {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(self.client(alpn), name).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Secure { stream, buf: Vec::new() })
    }
}

/// A connection over TLS.
pub struct Secure {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buf: Vec<u8>,
}

impl Secure {
    /// The protocol agreed on (ALPN).
    pub fn protocol(&self) -> Option<String> {
        let protocol = self.stream.conn.alpn_protocol();
        protocol.map(|it| String::from_utf8_lossy(it).into_owned())
    }

    /// A request without a body and its answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        self.stream.write_all(&request(method, target, fields, "")).unwrap();
        Reader { from: &mut self.stream, buf: &mut self.buf }
            .response(method)
            .unwrap_or_else(|fault| panic!("no answer to {method}: {fault:?}"))
    }
}
