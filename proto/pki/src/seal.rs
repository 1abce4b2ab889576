//! Key material at rest: AES-256-GCM under a key that each replica keeps in a
//! 0600 file beside its data, never in the store.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use triarch_env::Secret;

use crate::PkiError;

/// The key that seals the cluster's key material.
#[derive(Clone)]
pub struct SealKey(Secret);

impl SealKey {
    /// A fresh random key.
    pub fn generate() -> SealKey {
        let mut bytes = [0u8; 32];
        SystemRandom::new().fill(&mut bytes).expect("the system has entropy");
        SealKey(Secret::new(BASE64_STANDARD.encode(bytes)))
    }

    /// A key from its text form (44 characters of base64).
    pub fn parse(text: &str) -> Result<SealKey, PkiError> {
        match BASE64_STANDARD.decode(text.trim()) {
            Ok(b) if b.len() == 32 => Ok(SealKey(Secret::new(text.trim()))),
            _ => Err(PkiError::Unseal),
        }
    }

    /// The text form, for the key file.
    pub fn to_text(&self) -> &Secret {
        &self.0
    }

    fn key(&self) -> LessSafeKey {
        let bytes = BASE64_STANDARD.decode(self.0.expose()).expect("checked when it was made");
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).expect("32 bytes"))
    }

    /// Seals `plain`; `context` names what it is and must be the same to open it.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the system has entropy");
        let mut out = plain.to_vec();
        self.key()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut out)
            .expect("the input is far below the cipher's limit");
        [&nonce[..], &out].concat()
    }

    /// Opens what [`SealKey::seal`] made under the same context.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, PkiError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(PkiError::Unseal)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| PkiError::Unseal)?;
        let mut body = body.to_vec();
        let plain = self.key().open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| PkiError::Unseal)?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_data_opens_only_under_its_own_key_and_context() {
        let key = SealKey::generate();
        let sealed = key.seal("ca-key", b"secret");
        assert_eq!(SealKey::parse(key.to_text().expose()).unwrap().open("ca-key", &sealed).unwrap(), b"secret");
        assert!(key.open("other", &sealed).is_err());
        assert!(SealKey::generate().open("ca-key", &sealed).is_err());
        assert!(key.open("ca-key", &sealed[..5]).is_err());
    }
}
