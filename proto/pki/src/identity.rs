//! The user and groups that a client certificate names (common name and
//! organizations), as Kubernetes reads them.

use triarch_env::Wall;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::PkiError;

/// A user name and its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

impl Identity {
    pub fn new(user: &str, groups: &[&str]) -> Identity {
        Identity { user: user.to_owned(), groups: groups.iter().map(|g| (*g).to_owned()).collect() }
    }
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    pub identity: Identity,
    pub not_before: Wall,
    pub not_after: Wall,
    /// SHA-256 of the DER, lower-case hex.
    pub fingerprint: String,
}

impl CertificateInfo {
    /// When to renew: two thirds of the way through its life.
    pub fn renew_at(&self) -> Wall {
        let life = self.not_after.micros - self.not_before.micros;
        Wall { micros: self.not_before.micros + life / 3 * 2 }
    }
}

/// Reads a certificate that TLS has already verified.
pub fn from_der(der: &[u8]) -> Result<CertificateInfo, PkiError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| PkiError::Parse(e.to_string()))?;
    let subject = cert.subject();
    let user = subject.iter_common_name().next().and_then(|a| a.as_str().ok()).unwrap_or_default().to_owned();
    let groups = subject.iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_owned).collect();
    Ok(CertificateInfo {
        identity: Identity { user, groups },
        not_before: Wall::from_secs(cert.validity().not_before.timestamp()),
        not_after: Wall::from_secs(cert.validity().not_after.timestamp()),
        fingerprint: crate::token::hex(&crate::token::sha256(der)),
    })
}

/// Reads the first certificate of a PEM file.
pub fn from_pem(text: &str) -> Result<CertificateInfo, PkiError> {
    let block = pem::parse(text).map_err(|e| PkiError::Parse(e.to_string()))?;
    from_der(block.contents())
}
