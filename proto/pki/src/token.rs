//! Join tokens: `triarch1.<class>.<id>.<secret>.<sha256 of the CA>`.
//!
//! The class (node or server) is part of the token and of the record that the
//! store keeps; a token of one class never does the other's work. The store
//! keeps the secret's SHA-256 only. The joiner pins the CA from the TLS
//! handshake before it sends the token.

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use triarch_env::{Secret, Wall};

use crate::PkiError;

/// Who may use a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenClass {
    Node,
    Server,
}

impl TokenClass {
    pub fn as_str(self) -> &'static str {
        match self {
            TokenClass::Node => "node",
            TokenClass::Server => "server",
        }
    }

    pub fn parse(text: &str) -> Option<TokenClass> {
        match text {
            "node" => Some(TokenClass::Node),
            "server" => Some(TokenClass::Server),
            _ => None,
        }
    }
}

/// A join token as its holder has it.
#[derive(Clone, Debug)]
pub struct JoinToken {
    pub class: TokenClass,
    /// Public part: names the record in the store.
    pub id: String,
    pub secret: Secret,
    /// SHA-256 of the cluster CA's DER.
    pub ca_sha256: [u8; 32],
}

/// What the store keeps of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub class: TokenClass,
    /// Lower-case hex.
    pub secret_sha256: String,
    /// Unix seconds.
    pub expires_at: i64,
}

impl JoinToken {
    pub fn generate(class: TokenClass, ca_sha256: [u8; 32]) -> JoinToken {
        JoinToken { class, id: random_hex(5), secret: Secret::new(random_hex(20)), ca_sha256 }
    }

    /// The token's text. It holds the secret: print it only to who asked for it.
    pub fn to_text(&self) -> Secret {
        Secret::new(format!(
            "triarch1.{}.{}.{}.{}",
            self.class.as_str(),
            self.id,
            self.secret.expose(),
            hex(&self.ca_sha256)
        ))
    }

    /// # Errors
    /// Says what a token looks like; never repeats what it got.
    pub fn parse(text: &str) -> Result<JoinToken, PkiError> {
        let bad = || {
            PkiError::Token(
                "not a join token: expected triarch1.<node|server>.<id>.<secret>.<sha256>, as `triarch token create` prints it"
                    .into(),
            )
        };
        let parts: Vec<&str> = text.trim().split('.').collect();
        let ["triarch1", class, id, secret, ca] = parts[..] else { return Err(bad()) };
        let hexadecimal = |s: &str| !s.is_empty() && s.len() <= 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
        if !hexadecimal(id) || !hexadecimal(secret) {
            return Err(bad());
        }
        Ok(JoinToken {
            class: TokenClass::parse(class).ok_or_else(bad)?,
            id: id.to_owned(),
            secret: Secret::new(secret),
            ca_sha256: unhex(ca).ok_or_else(bad)?,
        })
    }

    /// The record to store for this token.
    pub fn record(&self, expires_at: Wall) -> TokenRecord {
        TokenRecord {
            class: self.class,
            secret_sha256: hex(&sha256(self.secret.expose().as_bytes())),
            expires_at: expires_at.secs(),
        }
    }
}

impl TokenRecord {
    /// Whether `token` is the one recorded, of the class wanted, and in time.
    /// The comparison takes the same time whatever is wrong.
    pub fn accepts(&self, token: &JoinToken, wanted: TokenClass, now: Wall) -> Result<(), PkiError> {
        let given = hex(&sha256(token.secret.expose().as_bytes()));
        let differs = given.bytes().zip(self.secret_sha256.bytes()).fold(0u8, |acc, (a, b)| acc | (a ^ b));
        if differs != 0 || given.len() != self.secret_sha256.len() {
            return Err(PkiError::Token("unknown token".into()));
        }
        if self.class != wanted {
            return Err(PkiError::Token(format!(
                "a token of class {} cannot join as a {}; make one with `triarch token create --class {}`",
                self.class.as_str(),
                wanted.as_str(),
                wanted.as_str()
            )));
        }
        if now.secs() >= self.expires_at {
            return Err(PkiError::Token("the token has expired; make a new one with `triarch token create`".into()));
        }
        Ok(())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _infallible = write!(s, "{b:02x}");
        s
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut out = [0u8; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).ok()?;
    }
    Some(out)
}

/// SHA-256 of the first certificate in a PEM text.
pub fn fingerprint_pem(text: &str) -> Result<[u8; 32], PkiError> {
    let block = pem::parse(text).map_err(|e| PkiError::Parse(e.to_string()))?;
    Ok(sha256(block.contents()))
}

/// `2 * bytes` random hexadecimal digits from the system.
pub fn random_hex(bytes: usize) -> String {
    let mut buf = vec![0u8; bytes];
    SystemRandom::new().fill(&mut buf).expect("the system has entropy");
    hex(&buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_form_and_its_secret_is_not_printed() {
        let t = JoinToken::generate(TokenClass::Node, [7; 32]);
        let back = JoinToken::parse(t.to_text().expose()).unwrap();
        assert_eq!((back.class, &back.id, back.ca_sha256), (t.class, &t.id, t.ca_sha256));
        assert!(!format!("{t:?}").contains(t.secret.expose()));
    }

    #[test]
    fn a_token_of_the_wrong_class_or_past_its_time_is_refused() {
        let t = JoinToken::generate(TokenClass::Node, [7; 32]);
        let rec = t.record(Wall::from_secs(100));
        rec.accepts(&t, TokenClass::Node, Wall::from_secs(99)).unwrap();
        assert!(rec.accepts(&t, TokenClass::Node, Wall::from_secs(100)).unwrap_err().to_string().contains("expired"));
        assert!(
            rec.accepts(&t, TokenClass::Server, Wall::from_secs(0)).unwrap_err().to_string().contains("class node")
        );
        let mut forged = t.clone();
        forged.secret = Secret::new("00");
        assert!(rec.accepts(&forged, TokenClass::Node, Wall::from_secs(0)).is_err());
    }

    #[test]
    fn text_that_is_no_token_is_refused_without_repeating_it() {
        for bad in ["", "triarch1.node.zz", "triarch1.king.aa.bb.cc", "triarch1.node.aa.bb.éé"] {
            let e = JoinToken::parse(bad).unwrap_err().to_string();
            assert!(e.contains("not a join token"), "{e}");
        }
    }
}
