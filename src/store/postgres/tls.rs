//! TLS towards the database, as strict as `sslmode` asks.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::dsn::{Dsn, Verify};
use crate::store::fault::StartError;

/// The connector for this connection string.
///
/// # Errors
/// When the trust anchors that it names cannot be read, or there are none.
pub(crate) fn connector(dsn: &Dsn) -> Result<MakeRustlsConnect, StartError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|err| refusal(&err))?;
    let config = match dsn.verify {
        Verify::ChainAndName => builder.with_root_certificates(roots(dsn)?).with_no_client_auth(),
        Verify::Chain | Verify::Nothing => {
            let chain = match dsn.verify {
                Verify::Nothing => None,
                Verify::Chain | Verify::ChainAndName => Some(chain_verifier(dsn, &provider)?),
            };
            let lenient = Arc::new(Lenient { chain, provider });
            builder.dangerous().with_custom_certificate_verifier(lenient).with_no_client_auth()
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn chain_verifier(
    dsn: &Dsn,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, StartError> {
    let roots = Arc::new(roots(dsn)?);
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|err| refusal(&err))
}

fn roots(dsn: &Dsn) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    match &dsn.roots {
        Some(path) => {
            let context = |err: &dyn std::fmt::Display| {
                refusal(&format_args!("sslrootcert {}: {err}", path.display()))
            };
            for cert in CertificateDer::pem_file_iter(path).map_err(|err| context(&err))? {
                let cert = cert.map_err(|err| context(&err))?;
                roots.add(cert).map_err(|err| context(&err))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(refusal(&"no trust anchors for this sslmode"));
    }
    Ok(roots)
}

fn refusal(detail: &dyn std::fmt::Display) -> StartError {
    StartError::Dsn { detail: detail.to_string() }
}

/// Accepts any name, and without a chain verifier any certificate: what the modes below
/// `verify-full` are defined to accept. Signatures are checked all the same.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The chain is checked before the name: a wrong name means that the chain is good.
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
