//! rustls configurations: who listens how, who trusts whom.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::PkiError;
use crate::ca::CertAndKey;

/// Whether a listener asks its clients for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Verified when given (the API: tokens are the alternative).
    Optional,
    /// Refused without one (replica to replica).
    Required,
}

fn err(e: impl std::fmt::Display) -> PkiError {
    PkiError::Tls(e.to_string())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// All certificates of a PEM text.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(err)
}

fn key(cert: &CertAndKey) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(cert.key_pem.expose().as_bytes()).map_err(err)
}

fn roots(pem: &str) -> Result<RootCertStore, PkiError> {
    let mut store = RootCertStore::empty();
    for cert in certificates(pem)? {
        store.add(cert).map_err(err)?;
    }
    Ok(store)
}

/// A listener that shows `cert` and checks clients against `client_cas` (PEM,
/// several allowed).
pub fn server(cert: &CertAndKey, client_cas: &str, auth: ClientAuth, alpn: &[&str]) -> Result<ServerConfig, PkiError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_cas)?), provider());
    let verifier = match auth {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Required => verifier,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(err)?
        .with_client_cert_verifier(verifier.build().map_err(err)?)
        .with_single_cert(certificates(&cert.certificate_pem)?, key(cert)?)
        .map_err(err)?;
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(config)
}

/// A client that trusts `ca` (PEM) and shows `cert` when it has one.
pub fn client(ca: &str, cert: Option<&CertAndKey>, alpn: &[&str]) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(err)?
        .with_root_certificates(roots(ca)?);
    let mut config = match cert {
        Some(c) => builder.with_client_auth_cert(certificates(&c.certificate_pem)?, key(c)?).map_err(err)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(config)
}

/// A client for the first contact: it knows only the SHA-256 of the CA (from
/// the token) and accepts a server whose chain ends in exactly that
/// certificate and is signed by it. The server must send its CA along.
pub fn pinned_client(ca_sha256: [u8; 32], alpn: &[&str]) -> Result<ClientConfig, PkiError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(err)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { ca_sha256, provider: provider() }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(config)
}

#[derive(Debug)]
struct Pinned {
    ca_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates.iter().find(|c| crate::token::sha256(c) == self.ca_sha256).ok_or_else(|| {
            rustls::Error::General("the server's CA is not the one that the token names (another cluster?)".into())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let cert = rustls::server::ParsedCertificate::try_from(end_entity)?;
        // The token, not a host name, says which cluster this is, so the name
        // in the certificate is not compared.
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &cert,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use rustls::{ClientConnection, ServerConnection};
    use triarch_env::Wall;

    use super::*;
    use crate::ca::{AltNames, Ca, Usage};
    use crate::identity::Identity;

    const NOW: Duration = Duration::from_secs(3600);

    fn now() -> Wall {
        let d = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Wall::from_secs(d.as_secs() as i64)
    }

    /// Runs a handshake in memory; the error is the first that either side saw.
    fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(), rustls::Error> {
        let mut c = ClientConnection::new(Arc::new(client), "127.0.0.1".try_into().unwrap())?;
        let mut s = ServerConnection::new(Arc::new(server))?;
        for _ in 0..10 {
            let mut wire = Vec::new();
            while c.wants_write() {
                c.write_tls(&mut wire).unwrap();
            }
            let mut from = &wire[..];
            while !from.is_empty() {
                s.read_tls(&mut from).unwrap();
                s.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while s.wants_write() {
                s.write_tls(&mut wire).unwrap();
            }
            let mut from = &wire[..];
            while !from.is_empty() {
                c.read_tls(&mut from).unwrap();
                c.process_new_packets()?;
            }
            let _pending = (c.reader().read(&mut [0; 1]), s.writer().flush());
        }
        assert!(!c.is_handshaking() && !s.is_handshaking());
        Ok(())
    }

    fn cluster() -> (Ca, CertAndKey) {
        let ca = Ca::generate("ca", now()).unwrap();
        let names = AltNames::parse(["127.0.0.1", "localhost"]);
        let mut cert = ca.issue(&Identity::new("server", &[]), &names, Usage::Server, now(), NOW).unwrap();
        cert.certificate_pem.push_str(ca.certificate_pem());
        (ca, cert)
    }

    #[test]
    fn a_pinned_client_accepts_only_the_cluster_that_its_token_names() {
        let (ca, cert) = cluster();
        let (other, _) = cluster();
        let listener = || server(&cert, ca.certificate_pem(), ClientAuth::Optional, &["h2"]).unwrap();
        handshake(pinned_client(ca.fingerprint(), &["h2"]).unwrap(), listener()).unwrap();
        let e = handshake(pinned_client(other.fingerprint(), &["h2"]).unwrap(), listener()).unwrap_err();
        assert!(e.to_string().contains("another cluster"), "{e}");
    }

    #[test]
    fn a_peer_without_a_certificate_of_the_cluster_is_refused() {
        let (ca, cert) = cluster();
        let (foreign, _) = cluster();
        let listener = || server(&cert, ca.certificate_pem(), ClientAuth::Required, &[]).unwrap();
        assert!(handshake(client(ca.certificate_pem(), None, &[]).unwrap(), listener()).is_err());
        let peer =
            |ca: &Ca| ca.issue(&Identity::new("peer", &[]), &AltNames::default(), Usage::Peer, now(), NOW).unwrap();
        handshake(client(ca.certificate_pem(), Some(&peer(&ca)), &[]).unwrap(), listener()).unwrap();
        assert!(handshake(client(ca.certificate_pem(), Some(&peer(&foreign)), &[]).unwrap(), listener()).is_err());
    }
}
