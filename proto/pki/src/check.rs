//! Whether certificates and keys that lay in files are still what was issued.

use rcgen::KeyPair;
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::PkiError;
use crate::ca::CertAndKey;

fn der(text: &str) -> Result<Vec<u8>, PkiError> {
    Ok(pem::parse(text).map_err(|e| PkiError::Parse(e.to_string()))?.into_contents())
}

/// Two readers: the one of TLS takes nothing but DER to the letter, and the
/// other shows what a signature is to be checked with.
fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    ParsedCertificate::try_from(&CertificateDer::from(der)).map_err(|e| PkiError::Parse(e.to_string()))?;
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err(PkiError::Parse("bytes behind its end".into())),
        Err(e) => Err(PkiError::Parse(e.to_string())),
    }
}

/// An authority's certificate (PEM) is signed by its own key.
pub fn authority(ca_pem: &str) -> Result<(), PkiError> {
    signed_by(ca_pem, ca_pem)
}

/// A certificate (PEM; of a chain the first) is signed by this authority.
pub fn signed_by(certificate_pem: &str, ca_pem: &str) -> Result<(), PkiError> {
    let (cert, ca) = (der(certificate_pem)?, der(ca_pem)?);
    let (cert, ca) = (parse(&cert)?, parse(&ca)?);
    let good = cert.verify_signature(Some(ca.public_key()));
    good.map_err(|_| PkiError::Parse("its signature does not match".into()))
}

/// A key goes with its certificate.
pub fn key_of(pair: &CertAndKey) -> Result<(), PkiError> {
    let key = KeyPair::from_pem(pair.key_pem.expose())?;
    let cert = der(&pair.certificate_pem)?;
    match *parse(&cert)?.public_key().subject_public_key.data == *key.public_key_raw() {
        true => Ok(()),
        false => Err(PkiError::Parse("the key is not the certificate's".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use triarch_env::{Secret, Wall};

    use super::*;
    use crate::ca::{AltNames, Ca, Usage};
    use crate::identity::Identity;

    #[test]
    fn every_flipped_byte_of_a_certificate_or_key_is_noticed_or_changes_nothing() {
        let now = Wall::from_secs(1_800_000_000);
        let ca = Ca::generate("ca", now).unwrap();
        let who = Identity::new("r1", &[]);
        let pair = ca.issue(&who, &AltNames::default(), Usage::Peer, now, Duration::from_secs(60)).unwrap();
        let check = |ca_pem: &str, pair: &CertAndKey| {
            authority(ca_pem)?;
            signed_by(&pair.certificate_pem, ca_pem)?;
            key_of(pair)
        };
        check(ca.certificate_pem(), &pair).unwrap();
        let blocks = |text: &str| pem::parse(text).ok();
        let mut noticed = 0;
        for n in 0..3 {
            let texts = [ca.certificate_pem(), &pair.certificate_pem, pair.key_pem.expose()];
            for at in 0..texts[n].len() {
                let mut bytes = texts[n].as_bytes().to_vec();
                bytes[at] ^= 1 << (at % 7);
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                let mut files = texts.map(str::to_owned);
                let same = blocks(&changed) == blocks(&files[n]);
                files[n] = changed;
                let [ca_pem, certificate_pem, key] = files;
                let damaged = CertAndKey { certificate_pem, key_pem: Secret::new(key) };
                match check(&ca_pem, &damaged) {
                    Err(_) => noticed += 1,
                    Ok(()) => assert!(same || n == 2, "file {n}, byte {at}"),
                }
            }
        }
        assert!(noticed > 1000, "{noticed}");
    }
}
