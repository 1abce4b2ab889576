//! rustls configurations: who listens how, who trusts whom.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use triarch_env::Wall;

use crate::PkiError;
use crate::ca::CertAndKey;

/// Whether a listener asks its clients for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Asked for; who shows one proves that its key is theirs, and whether it
    /// is good is for [`ClientTrust`] to say. So a bad one gets an answer in
    /// the protocol above (401) instead of a broken connection, as in
    /// Kubernetes; and a token beside it still counts.
    Optional,
    /// Refused without a good one (replica to replica).
    Required,
}

/// What a listener needs: how it speaks, and whom it believes.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    pub clients: ClientTrust,
}

/// The authorities whose client certificates count.
#[derive(Clone, Debug)]
pub struct ClientTrust(Arc<dyn ClientCertVerifier>);

impl ClientTrust {
    /// Checks a chain (DER, leaf first) as of `now`: signed by an authority,
    /// for use by a client, and valid. Nothing shown is nothing to refuse.
    ///
    /// The error is in the words of Go's crypto/x509, which is what people
    /// know from Kubernetes' logs.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Wall) -> Result<(), PkiError> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(()) };
        let since_epoch = Duration::from_micros(now.micros.max(0).unsigned_abs());
        match self.0.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since_epoch)) {
            Ok(_) => Ok(()),
            Err(e) => Err(PkiError::Untrusted(untrusted(&e))),
        }
    }
}

fn untrusted(e: &rustls::Error) -> String {
    use CertificateError as C;
    let rustls::Error::InvalidCertificate(e) = e else { return e.to_string() };
    match e {
        C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => EXPIRED.into(),
        C::UnknownIssuer | C::BadSignature => FOREIGN.into(),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => "certificate specifies an incompatible key usage".into(),
        other => other.to_string(),
    }
}

/// Said of a certificate whose time is over or has not come.
pub const EXPIRED: &str = "certificate has expired or is not yet valid";
/// Said of a certificate that nobody who is believed has signed.
pub const FOREIGN: &str = "certificate signed by unknown authority";

/// Lets any chain through the handshake. What it still checks is that the
/// client has the key of what it shows.
#[derive(Debug)]
struct Shown(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
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
pub fn server(cert: &CertAndKey, client_cas: &str, auth: ClientAuth, alpn: &[&str]) -> Result<ServerTls, PkiError> {
    let good = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_cas)?), provider());
    let good = good.build().map_err(err)?;
    let clients = ClientTrust(good.clone());
    let verifier: Arc<dyn ClientCertVerifier> = match auth {
        ClientAuth::Optional => Arc::new(Shown(good)),
        ClientAuth::Required => good,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(err)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&cert.certificate_pem)?, key(cert)?)
        .map_err(err)?;
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(ServerTls { config: Arc::new(config), clients })
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

    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::ca::{AltNames, Ca, Usage};
    use crate::identity::Identity;

    const NOW: Duration = Duration::from_secs(3600);

    fn now() -> Wall {
        let d = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Wall::from_secs(d.as_secs() as i64)
    }

    /// Runs a handshake in memory; the error is the first that either side saw.
    fn handshake(client: ClientConfig, server: ServerTls) -> Result<(), rustls::Error> {
        let mut c = ClientConnection::new(Arc::new(client), "127.0.0.1".try_into().unwrap())?;
        let mut s = ServerConnection::new(server.config)?;
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

    #[test]
    fn a_client_certificate_that_is_shown_is_judged_by_who_signed_it_for_what_and_when() {
        let (ca, cert) = cluster();
        let (foreign, _) = cluster();
        let tls = server(&cert, ca.certificate_pem(), ClientAuth::Optional, &[]).unwrap();
        let issue =
            |ca: &Ca, usage| ca.issue(&Identity::new("me", &[]), &AltNames::default(), usage, now(), NOW).unwrap();
        let said = |pair: &CertAndKey, at: Wall| {
            tls.clients.verify(&certificates(&pair.certificate_pem).unwrap(), at).map_err(|e| e.to_string())
        };
        let (mine, theirs) = (issue(&ca, Usage::Client), issue(&foreign, Usage::Client));
        assert_eq!(said(&mine, now()), Ok(()));
        assert_eq!(said(&mine, now() + NOW * 2), Err(format!("x509: {EXPIRED}")));
        assert_eq!(said(&theirs, now()), Err(format!("x509: {FOREIGN}")));
        let e = said(&issue(&ca, Usage::Server), now()).unwrap_err();
        assert_eq!(e, "x509: certificate specifies an incompatible key usage");
        assert!(tls.clients.verify(&[], now()).is_ok());
        // The handshake lets all of them through, so that they can be answered.
        let shows = |pair| client(ca.certificate_pem(), pair, &[]).unwrap();
        handshake(shows(Some(&theirs)), tls.clone()).unwrap();
        handshake(shows(None), tls.clone()).unwrap();
        // All but one whose key the client does not have.
        let stolen = CertAndKey { certificate_pem: mine.certificate_pem.clone(), ..issue(&ca, Usage::Client) };
        assert!(client(ca.certificate_pem(), Some(&stolen), &[]).map_or(true, |c| handshake(c, tls).is_err()));
    }
}
