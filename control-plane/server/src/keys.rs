//! The cluster's key material: made once by the first replica, kept in the
//! store sealed, opened by every replica with the key file of its data
//! directory.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use triarch_env::{Secret, Wall};
use triarch_mvcc::{Key, Mvcc, Object};
use triarch_pki::PkiError;
use triarch_pki::ca::{AltNames, Ca, CertAndKey, Usage};
use triarch_pki::identity::Identity;
use triarch_pki::jwt::ServiceAccountKey;
use triarch_pki::seal::SealKey;

/// Serving, peer and client certificates live a year and renew at two thirds.
pub const CERT_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// What the sealed record says that it is.
const CONTEXT: &str = "triarch cluster keys v1";

/// Everything that signs in this cluster.
pub struct ClusterKeys {
    /// Signs serving certificates and clients.
    pub ca: Ca,
    /// Signs what only replicas show each other.
    pub peer_ca: Ca,
    /// Signs the front proxy's client certificate.
    pub front_proxy_ca: Ca,
    pub service_account: ServiceAccountKey,
}

#[derive(Serialize, Deserialize)]
struct Record {
    ca: (String, String),
    peer_ca: (String, String),
    front_proxy_ca: (String, String),
    service_account: String,
}

/// Where the record stands in the store.
pub fn store_key() -> Key {
    Key::new("~keys", "", "cluster")
}

impl ClusterKeys {
    pub fn generate(now: Wall) -> Result<ClusterKeys, PkiError> {
        Ok(ClusterKeys {
            ca: Ca::generate("triarch-ca", now)?,
            peer_ca: Ca::generate("triarch-peer-ca", now)?,
            front_proxy_ca: Ca::generate("triarch-front-proxy-ca", now)?,
            service_account: ServiceAccountKey::generate()?,
        })
    }

    /// The record as it is stored.
    pub fn seal(&self, key: &SealKey) -> Object {
        let pair = |ca: &Ca| (ca.certificate_pem().to_owned(), ca.key_pem().expose().to_owned());
        let record = Record {
            ca: pair(&self.ca),
            peer_ca: pair(&self.peer_ca),
            front_proxy_ca: pair(&self.front_proxy_ca),
            service_account: self.service_account.key_pem().expose().to_owned(),
        };
        let plain = serde_json::to_vec(&record).expect("a struct of strings serialises");
        Object::plain(key.seal(CONTEXT, &plain))
    }

    /// Opens the record in `store`; `None` when it has not arrived yet.
    pub fn open(store: &Mvcc, key: &SealKey) -> Result<Option<ClusterKeys>, PkiError> {
        let Some(stored) = store.get(&store_key()) else { return Ok(None) };
        let plain = key.open(CONTEXT, &stored.object.bytes)?;
        let r: Record = serde_json::from_slice(&plain).map_err(|_| PkiError::Unseal)?;
        let load = |(cert, key): &(String, String)| Ca::load(cert, &Secret::new(key.as_str()));
        Ok(Some(ClusterKeys {
            ca: load(&r.ca)?,
            peer_ca: load(&r.peer_ca)?,
            front_proxy_ca: load(&r.front_proxy_ca)?,
            service_account: ServiceAccountKey::load(&Secret::new(r.service_account))?,
        }))
    }

    /// The certificate that a replica shows to clients; the CA is sent along,
    /// so that a joiner can pin it.
    pub fn serving(&self, name: &str, san: &AltNames, now: Wall) -> Result<CertAndKey, PkiError> {
        let who = Identity::new(&format!("triarch-{name}"), &[]);
        let mut cert = self.ca.issue(&who, san, Usage::Server, now, CERT_LIFETIME)?;
        cert.certificate_pem.push_str(self.ca.certificate_pem());
        Ok(cert)
    }

    /// The certificate that a replica shows to its peers, both ways.
    pub fn peer(&self, name: &str, san: &AltNames, now: Wall) -> Result<CertAndKey, PkiError> {
        let who = Identity::new(&format!("system:triarch-replica:{name}"), &["system:triarch-replicas"]);
        self.peer_ca.issue(&who, san, Usage::Peer, now, CERT_LIFETIME)
    }

    /// A client certificate for a person or a component.
    pub fn client(&self, who: &Identity, now: Wall, lifetime: Duration) -> Result<CertAndKey, PkiError> {
        self.ca.issue(who, &AltNames::default(), Usage::Client, now, lifetime)
    }
}

#[cfg(test)]
mod tests {
    use triarch_mvcc::{Db, LocalDb, Op, Txn};

    use super::*;

    #[tokio::test]
    async fn sealed_keys_come_back_from_the_store_under_the_same_key_only() {
        let db = LocalDb::new(triarch_mvcc::Limits::default());
        let seal = SealKey::generate();
        assert!(ClusterKeys::open(db.mvcc(), &seal).unwrap().is_none());
        let keys = ClusterKeys::generate(Wall::from_secs(1_800_000_000)).unwrap();
        db.commit(Txn { ops: vec![Op::Put(store_key(), keys.seal(&seal))], ..Txn::default() }).await.unwrap();
        let back = ClusterKeys::open(db.mvcc(), &seal).unwrap().unwrap();
        assert_eq!(back.ca.fingerprint(), keys.ca.fingerprint());
        assert!(ClusterKeys::open(db.mvcc(), &SealKey::generate()).is_err());
    }
}
