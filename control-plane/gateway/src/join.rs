//! Joining: a token of class node for a client certificate.

use std::time::Duration;

use triarch_env::Wall;
use triarch_mvcc::{Key, Mvcc};
use triarch_pki::PkiError;
use triarch_pki::ca::{Ca, Usage};
use triarch_pki::identity::Identity;
use triarch_pki::token::{JoinToken, TokenClass, TokenRecord};

/// Node certificates live a year; agents renew at two thirds.
pub const NODE_CERT_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// The name under which a process of simulated nodes joins.
pub const HOLLOW: &str = "hollow-*";

/// Where a token's record stands in the store.
pub fn token_key(id: &str) -> Key {
    Key::new("~tokens", "", id)
}

/// Checks a token of `wanted` class against the store.
pub fn check_token(store: &Mvcc, text: &str, wanted: TokenClass, now: Wall) -> Result<(), PkiError> {
    let token = JoinToken::parse(text)?;
    let stored = store.get(&token_key(&token.id)).ok_or_else(|| {
        PkiError::Token("unknown or expired token; make a new one with `triarch token create`".into())
    })?;
    let record: TokenRecord = serde_json::from_slice(&stored.object.bytes)
        .map_err(|_| PkiError::Token("the token's record is unreadable".into()))?;
    record.accepts(&token, wanted, now)
}

/// Why a node's name is no good; `None` when it is.
pub fn bad_name(name: &str) -> Option<String> {
    if name == HOLLOW {
        return None;
    }
    let errors = triarch_api::names::dns1123_subdomain(name);
    (!errors.is_empty()).then(|| format!("node name {name:?}: {}", errors.join(", ")))
}

/// Signs the agent's request: the subject is ours, not the request's.
pub fn sign(ca: &Ca, csr_der: &[u8], node: &str, now: Wall) -> Result<String, PkiError> {
    let who = Identity::new(&format!("system:node:{node}"), &[triarch_auth::NODES]);
    ca.sign_csr_as(csr_der, &who, Usage::Client, now, NODE_CERT_LIFETIME)
}

/// Whether a certificate for `holder` speaks for `node`: its own name, or, for
/// a process of simulated nodes, `hollow-` and digits.
pub fn speaks_for(holder: &str, node: &str) -> bool {
    if holder == HOLLOW {
        let digits = node.strip_prefix("hollow-").unwrap_or_default();
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    }
    holder == node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hollow_certificate_speaks_for_hollow_nodes_and_no_other() {
        assert!(speaks_for(HOLLOW, "hollow-0001"));
        for other in ["n1", "hollow-", "hollow-x", "hollow-*"] {
            assert!(!speaks_for(HOLLOW, other), "{other}");
        }
        assert!(speaks_for("n1", "n1") && !speaks_for("n1", "n2"));
        assert!(bad_name("N_1").is_some() && bad_name("n1").is_none());
    }
}
