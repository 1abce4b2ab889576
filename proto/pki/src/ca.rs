//! Certificate authorities (ECDSA P-256) and the certificates they issue.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateSigningRequestDer;
use time::OffsetDateTime;
use triarch_env::{Secret, Wall};

use crate::PkiError;
use crate::identity::Identity;

/// Certificates start this much before now, so that a clock a little behind
/// does not refuse them.
const BACKDATE: Duration = Duration::from_secs(300);

/// How long an authority is valid: ten years.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);

/// A certificate with its private key, both PEM.
#[derive(Clone, Debug)]
pub struct CertAndKey {
    pub certificate_pem: String,
    pub key_pem: Secret,
}

/// What a certificate is for. Several may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    /// Replica to replica: both ends.
    Peer,
}

/// Host names and addresses of a server certificate.
#[derive(Clone, Debug, Default)]
pub struct AltNames {
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
}

impl AltNames {
    /// Sorts each entry into names and addresses.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> AltNames {
        let mut out = AltNames::default();
        for e in entries {
            match e.parse() {
                Ok(ip) if !out.ips.contains(&ip) => out.ips.push(ip),
                Err(_) if !out.dns.iter().any(|d| d == e) => out.dns.push(e.to_owned()),
                _ => {}
            }
        }
        out
    }
}

/// A certificate authority: its certificate and the key that signs.
pub struct Ca {
    certificate_pem: String,
    key_pem: Secret,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca(…)")
    }
}

impl Ca {
    /// A new self-signed authority named `common_name`.
    pub fn generate(common_name: &str, now: Wall) -> Result<Ca, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params_for(common_name, &[], now, CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?;
        Ca::load(&cert.pem(), &Secret::new(key.serialize_pem()))
    }

    /// An authority from its PEM certificate and key.
    pub fn load(certificate_pem: &str, key_pem: &Secret) -> Result<Ca, PkiError> {
        let key = KeyPair::from_pem(key_pem.expose())?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        Ok(Ca { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.clone(), issuer })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    /// SHA-256 of the certificate's DER: what join tokens pin.
    pub fn fingerprint(&self) -> [u8; 32] {
        crate::token::fingerprint_pem(&self.certificate_pem).expect("our own certificate is PEM")
    }

    /// A certificate and a fresh key for `identity`. At most two groups fit
    /// into a subject made here.
    pub fn issue(
        &self,
        identity: &Identity,
        names: &AltNames,
        usage: Usage,
        now: Wall,
        lifetime: Duration,
    ) -> Result<CertAndKey, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params_for(&identity.user, &identity.groups, now, lifetime)?;
        for dns in &names.dns {
            params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into()?));
        }
        params.subject_alt_names.extend(names.ips.iter().copied().map(SanType::IpAddress));
        set_usage(&mut params, usage);
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(CertAndKey { certificate_pem: cert.pem(), key_pem: Secret::new(key.serialize_pem()) })
    }

    /// Signs a request (DER) with the subject that the *caller* decided on; of
    /// the request only the public key is used, after its signature is checked.
    pub fn sign_csr_as(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        usage: Usage,
        now: Wall,
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let mut csr = parse_csr(csr_der)?;
        let mut params = params_for(&identity.user, &identity.groups, now, lifetime)?;
        set_usage(&mut params, usage);
        csr.params = params;
        Ok(csr.signed_by(&self.issuer)?.pem())
    }

    /// Signs a request (PEM) as it stands: subject and alternative names are
    /// the requester's, usages and lifetime the caller's.
    pub fn sign_csr(
        &self,
        csr_pem: &str,
        usages: &[ExtendedUsage],
        now: Wall,
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let block = pem::parse(csr_pem).map_err(|e| PkiError::Csr(e.to_string()))?;
        let mut csr = parse_csr(block.contents())?;
        let (not_before, not_after) = validity(now, lifetime);
        csr.params.not_before = not_before;
        csr.params.not_after = not_after;
        csr.params.is_ca = IsCa::ExplicitNoCa;
        csr.params.serial_number = Some(serial());
        csr.params.use_authority_key_identifier_extension = true;
        csr.params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        csr.params.extended_key_usages = usages
            .iter()
            .map(|u| match u {
                ExtendedUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
            })
            .collect();
        Ok(csr.signed_by(&self.issuer)?.pem())
    }
}

/// Extended key usages that the signers of certificates.k8s.io grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendedUsage {
    ClientAuth,
    ServerAuth,
}

/// A fresh key and a request (DER) for it, as a joining agent sends it.
pub fn request(identity: &Identity) -> Result<(Secret, Vec<u8>), PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&identity.user, &identity.groups);
    let csr = params.serialize_request(&key)?;
    Ok((Secret::new(key.serialize_pem()), csr.der().to_vec()))
}

fn parse_csr(der: &[u8]) -> Result<CertificateSigningRequestParams, PkiError> {
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
        .map_err(|e| PkiError::Csr(e.to_string()))
}

fn set_usage(params: &mut CertificateParams, usage: Usage) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = match usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
}

fn params_for(cn: &str, groups: &[String], now: Wall, lifetime: Duration) -> Result<CertificateParams, PkiError> {
    if groups.len() > 2 {
        return Err(PkiError::Parse("a certificate made here names at most two groups".into()));
    }
    let (not_before, not_after) = validity(now, lifetime);
    let mut params = CertificateParams::default();
    params.not_before = not_before;
    params.not_after = not_after;
    params.serial_number = Some(serial());
    params.distinguished_name = subject(cn, groups);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The library keeps one value per attribute type; a second organization goes
/// in under the same OID spelt out.
fn subject(cn: &str, groups: &[String]) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    for (ty, group) in types.into_iter().zip(groups) {
        dn.push(ty, group.as_str());
    }
    dn.push(DnType::CommonName, cn);
    dn
}

fn validity(now: Wall, lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let at = |secs: i64| OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let start = now.secs().saturating_sub(BACKDATE.as_secs() as i64);
    (at(start), at(now.secs().saturating_add(lifetime.as_secs() as i64)))
}

fn serial() -> SerialNumber {
    let mut bytes = [0u8; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).expect("the system has entropy");
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall { micros: 1_800_000_000_000_000 };

    #[test]
    fn an_issued_certificate_names_its_user_and_both_groups() {
        let ca = Ca::generate("triarch-ca", NOW).unwrap();
        let who = Identity::new("admin", &["system:masters", "ops"]);
        let got = ca.issue(&who, &AltNames::default(), Usage::Client, NOW, Duration::from_secs(3600)).unwrap();
        assert_eq!(crate::identity::from_pem(&got.certificate_pem).unwrap().identity, who);
    }

    #[test]
    fn a_signed_request_has_the_subject_that_the_signer_decided_on() {
        let ca = Ca::generate("triarch-ca", NOW).unwrap();
        let (_, csr) = request(&Identity::new("system:masters-please", &["system:masters"])).unwrap();
        let node = Identity::new("system:node:n1", &["system:nodes"]);
        let pem = ca.sign_csr_as(&csr, &node, Usage::Client, NOW, Duration::from_secs(60)).unwrap();
        let cert = crate::identity::from_pem(&pem).unwrap();
        assert_eq!(cert.identity, node);
        assert_eq!(cert.not_after.secs(), NOW.secs() + 60);
    }

    #[test]
    fn a_request_with_a_broken_signature_is_refused() {
        let ca = Ca::generate("triarch-ca", NOW).unwrap();
        let who = Identity::new("x", &[]);
        let (_, mut csr) = request(&who).unwrap();
        let last = csr.len() - 1;
        csr[last] ^= 1;
        let err = ca.sign_csr_as(&csr, &who, Usage::Client, NOW, Duration::from_secs(60)).unwrap_err();
        assert!(matches!(err, PkiError::Csr(_)), "{err}");
    }
}
