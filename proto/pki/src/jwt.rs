//! Service-account tokens: JWTs signed with ES256 by ring.

use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::signature::{Error as SigError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use triarch_env::{Secret, Wall};

use crate::PkiError;
use crate::token::sha256;

/// Tokens longer than this are refused unread, in bytes.
pub const MAX_TOKEN_LEN: usize = 16 * 1024;

struct RingSigner(EcdsaKeyPair);

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, msg: &[u8]) -> Result<Vec<u8>, SigError> {
        self.0.sign(&SystemRandom::new(), msg).map(|s| s.as_ref().to_vec()).map_err(|_| SigError::new())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

struct RingVerifier(Vec<u8>);

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, msg: &[u8], signature: &Vec<u8>) -> Result<(), SigError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(msg, signature).map_err(|_| SigError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

fn signer(alg: &Algorithm, key: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    if *alg != Algorithm::ES256 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_bytes(), &SystemRandom::new())
        .map_err(|_| ErrorKind::InvalidEcdsaKey)?;
    Ok(Box::new(RingSigner(pair)))
}

fn verifier(alg: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    if *alg != Algorithm::ES256 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(RingVerifier(key.try_get_as_bytes()?.to_vec())))
}

pub(crate) fn install_provider() {
    static PROVIDER: OnceLock<CryptoProvider> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    });
    let _already = provider.install_default();
}

/// The claims of a bound service-account token, as Kubernetes writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    pub nbf: i64,
    pub sub: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    pub serviceaccount: Ref,
    #[serde(default, rename = "warnafter", skip_serializing_if = "Option::is_none")]
    pub warn_after: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The key that signs and verifies service-account tokens.
pub struct ServiceAccountKey {
    key_pem: Secret,
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    point: Vec<u8>,
}

impl std::fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceAccountKey({})", self.key_id)
    }
}

impl ServiceAccountKey {
    pub fn generate() -> Result<ServiceAccountKey, PkiError> {
        ServiceAccountKey::load(&Secret::new(KeyPair::generate()?.serialize_pem()))
    }

    /// From a PKCS#8 PEM of a P-256 key.
    pub fn load(key_pem: &Secret) -> Result<ServiceAccountKey, PkiError> {
        install_provider();
        let pair = KeyPair::from_pem(key_pem.expose())?;
        let point = pair.der_bytes().to_vec();
        Ok(ServiceAccountKey {
            key_pem: key_pem.clone(),
            encoding: EncodingKey::from_ec_der(pair.serialized_der()),
            decoding: DecodingKey::from_ec_der(&point),
            key_id: BASE64_URL_SAFE_NO_PAD.encode(sha256(&pair.subject_public_key_info())),
            point,
        })
    }

    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    /// Signs `claims`.
    pub fn sign(&self, claims: &Claims) -> Result<Secret, PkiError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding)
            .map(Secret::new)
            .map_err(|e| PkiError::Token(e.to_string()))
    }

    /// Checks signature, issuer, times and audience (`audiences`: any of them
    /// will do), and returns the claims.
    pub fn verify(&self, token: &str, issuer: &str, audiences: &[&str], now: Wall) -> Result<Claims, PkiError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(PkiError::Token("longer than 16 KiB".into()));
        }
        let mut v = Validation::new(Algorithm::ES256);
        // Times are checked below against the caller's clock.
        v.validate_exp = false;
        v.validate_nbf = false;
        v.required_spec_claims.clear();
        v.set_issuer(&[issuer]);
        v.set_audience(audiences);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &v)
            .map_err(|e| PkiError::Token(e.to_string()))?
            .claims;
        if now.secs() >= claims.exp {
            return Err(PkiError::Token("service account token has expired".into()));
        }
        if now.secs() + 60 < claims.nbf {
            return Err(PkiError::Token("service account token is not valid yet".into()));
        }
        Ok(claims)
    }

    /// The JSON Web Key Set served at `/openid/v1/jwks`.
    pub fn jwks(&self) -> serde_json::Value {
        let (x, y) = self.point[1..].split_at(32);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": BASE64_URL_SAFE_NO_PAD.encode(x), "y": BASE64_URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            aud: vec!["https://kubernetes.default.svc".into()],
            exp: 1000,
            iat: 0,
            iss: "https://kubernetes.default.svc".into(),
            jti: String::new(),
            kubernetes: KubernetesClaims { namespace: "default".into(), ..KubernetesClaims::default() },
            nbf: 0,
            sub: "system:serviceaccount:default:default".into(),
        }
    }

    #[test]
    fn a_token_verifies_with_its_own_key_audience_and_time_only() {
        let key = ServiceAccountKey::generate().unwrap();
        let (iss, aud) = ("https://kubernetes.default.svc", ["https://kubernetes.default.svc"]);
        let token = key.sign(&claims()).unwrap();
        let again = ServiceAccountKey::load(key.key_pem()).unwrap();
        assert_eq!(again.verify(token.expose(), iss, &aud, Wall::from_secs(10)).unwrap(), claims());
        assert!(key.verify(token.expose(), iss, &aud, Wall::from_secs(1000)).is_err());
        assert!(key.verify(token.expose(), iss, &["vault"], Wall::from_secs(10)).is_err());
        assert!(key.verify(token.expose(), "https://elsewhere", &aud, Wall::from_secs(10)).is_err());
        let other = ServiceAccountKey::generate().unwrap();
        assert!(other.verify(token.expose(), iss, &aud, Wall::from_secs(10)).is_err());
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let key = ServiceAccountKey::generate().unwrap();
        let head = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let body = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
        assert!(key.verify(&format!("{head}.{body}."), &claims().iss, &["x"], Wall::from_secs(1)).is_err());
    }
}
