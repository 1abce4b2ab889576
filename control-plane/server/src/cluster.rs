//! What the whole cluster shares and every replica must agree on: kept in the
//! store by the first replica, taken over by the others.

use serde::{Deserialize, Serialize};
use triarch_mvcc::{Db, Key, Mvcc, Object};
use triarch_raft::{NodeId, RaftDb};

use crate::config::ServerConfiguration;

/// The cluster's own configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfiguration {
    pub service_cidr: String,
    pub cluster_cidr: String,
    pub cluster_domain: String,
}

/// Where it stands in the store.
pub fn store_key() -> Key {
    Key::new("~config", "", "cluster")
}

/// Where Service allocation looks for its range (plain text).
pub fn service_cidr_key() -> Key {
    Key::new("~config", "", "service-cidr")
}

/// Where a replica keeps what pods are told to dial (plain text).
pub fn endpoint_key(id: NodeId) -> Key {
    Key::new("~endpoints", "", &id.to_string())
}

/// What pods are told to dial, for every voter.
pub fn endpoints(db: &RaftDb) -> Vec<(NodeId, String)> {
    let said = |id: NodeId| {
        let stored = db.mvcc().get(&endpoint_key(id))?;
        String::from_utf8(stored.object.bytes.to_vec()).ok()
    };
    db.voters().into_iter().map(|(id, r)| (id, said(id).unwrap_or(r.client_address))).collect()
}

impl ClusterConfiguration {
    pub fn of(config: &ServerConfiguration) -> ClusterConfiguration {
        ClusterConfiguration {
            service_cidr: config.service_cidr.clone(),
            cluster_cidr: config.cluster_cidr.clone(),
            cluster_domain: config.cluster_domain.clone(),
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings serialises")
    }

    pub fn object(&self) -> Object {
        Object::plain(self.to_json().into_bytes())
    }

    pub fn open(store: &Mvcc) -> Option<ClusterConfiguration> {
        serde_json::from_slice(&store.get(&store_key())?.object.bytes).ok()
    }

    pub fn put_into(&self, config: &mut ServerConfiguration) {
        for (name, own, shared) in [
            ("serviceCidr", &mut config.service_cidr, &self.service_cidr),
            ("clusterCidr", &mut config.cluster_cidr, &self.cluster_cidr),
            ("clusterDomain", &mut config.cluster_domain, &self.cluster_domain),
        ] {
            if own != shared {
                tracing::warn!(key = name, own, cluster = shared, "the cluster's value is used");
                own.clone_from(shared);
            }
        }
    }
}

/// Takes over what a joined cluster shares.
pub fn adopt(config: &mut ServerConfiguration, json: &str) -> anyhow::Result<()> {
    let shared: ClusterConfiguration = serde_json::from_str(json)?;
    shared.put_into(config);
    Ok(())
}
