//! Continue tokens: where a paged list goes on, and at which revision.
//!
//! The format is public (base64url of a small JSON object). A token with
//! revision -1 goes on at the latest state: it is what a 410 offers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use triarch_mvcc::{Key, Revision};

use crate::Kind;

/// Longer tokens are refused before they are decoded.
const MAX_TOKEN: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

/// A decoded token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// `None`: at the latest revision (an inconsistent continuation).
    pub revision: Option<Revision>,
    /// The last key of the previous page.
    pub after: Key,
}

impl Continue {
    pub fn encode(revision: Option<Revision>, last: &Key) -> String {
        let rv = revision.map_or(-1, |r| i64::try_from(r).unwrap_or(i64::MAX));
        let start = match last.namespace() {
            "" => format!("{}\0", last.name()),
            ns => format!("{ns}/{}\0", last.name()),
        };
        let wire = Wire { v: "meta.k8s.io/v1".into(), rv, start };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// The error is upstream's text, to be shown in a 400.
    pub fn decode(kind: &Kind, text: &str) -> Result<Continue, String> {
        let invalid = |why: &dyn std::fmt::Display| format!("continue key is not valid: {why}");
        if text.len() > MAX_TOKEN {
            return Err(invalid(&"too long"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| {
            // Go names the first byte that it cannot use.
            let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            let at = text.bytes().position(|b| !alphabet(b)).unwrap_or(text.len() / 4 * 4);
            invalid(&format!("illegal base64 data at input byte {at}"))
        })?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|e| invalid(&e))?;
        if wire.v != "meta.k8s.io/v1" {
            return Err(format!(
                "continue key is not valid: server does not recognize this encoded version {}",
                wire.v
            ));
        }
        if wire.rv == 0 {
            return Err(
                "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()
            );
        }
        let start = wire.start.trim_end_matches('\0');
        if start.is_empty() {
            return Err("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)".into());
        }
        let (ns, name) = if kind.namespaced() { start.split_once('/').unwrap_or((start, "")) } else { ("", start) };
        if start.contains("..") || name.contains('/') || start.contains('\0') {
            return Err(invalid(&wire.start));
        }
        Ok(Continue { revision: u64::try_from(wire.rv).ok(), after: Key::new(kind.resource, ns, name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Kind = Kind { resource: "pods", ..Kind::BASE };

    #[test]
    fn a_token_says_where_and_when_and_foreign_ones_are_refused() {
        let key = Key::new("pods", "ns", "a");
        let token = Continue::encode(Some(7), &key);
        assert_eq!(Continue::decode(&PODS, &token), Ok(Continue { revision: Some(7), after: key.clone() }));
        assert_eq!(Continue::decode(&PODS, &Continue::encode(None, &key)).map(|c| c.revision), Ok(None));
        for bad in
            ["%%", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":3,"start":"../x"}"#), &"a".repeat(5000)]
        {
            assert!(Continue::decode(&PODS, bad).unwrap_err().starts_with("continue key is not valid"), "{bad}");
        }
    }
}
