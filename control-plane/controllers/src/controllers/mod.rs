//! The controllers, one file or folder each, and the list that names them all.

pub mod bootstrap;
pub mod certificates;
pub mod deployment;
pub mod endpoints;
pub mod expiry;
pub mod garbage_collector;
pub mod kubernetes_service;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replicaset;
pub mod root_ca;
pub mod service_account;

use std::sync::Arc;

use serde_json::Value;

use crate::Controller;

/// What controllers take from outside the store.
#[derive(Clone)]
pub struct Config {
    /// Pods' addresses; one /`node_mask` of it per node.
    pub cluster_cidr: ipnet::IpNet,
    /// Prefix length of a node's range, 24 for IPv4.
    pub node_mask: u8,
    /// PEM, published to every namespace.
    pub root_ca: String,
    /// Heartbeats as the gateway has seen them.
    pub liveness: Arc<dyn node_lifecycle::NodeLiveness>,
    pub signer: Arc<dyn certificates::Signer>,
    /// The replicas' advertise addresses and port, now.
    pub api_endpoints: Arc<dyn kubernetes_service::ApiEndpoints>,
    /// First address of the service range: the `kubernetes` Service's.
    pub api_service_ip: std::net::IpAddr,
    /// How long a node may be silent.
    pub node_grace: std::time::Duration,
    /// How long Events are kept after they were last seen.
    pub event_ttl: std::time::Duration,
    /// Objects that must exist (RBAC's bootstrap roles and bindings).
    pub bootstrap: Arc<Vec<Value>>,
}

/// A line of [`CONTROLLERS`].
pub struct Entry {
    /// As its file or folder is named.
    pub name: &'static str,
    pub make: fn(&Config) -> Vec<Arc<dyn Controller>>,
}

macro_rules! entries {
    ($($name:ident: $make:expr;)*) => {
        &[$(Entry { name: stringify!($name), make: $make }),*]
    };
}

/// Every controller of an epoch.
pub const CONTROLLERS: &[Entry] = entries! {
    bootstrap: |c| vec![Arc::new(bootstrap::Bootstrap::new(c.bootstrap.clone()))];
    certificates: |c| vec![Arc::new(certificates::Approver), Arc::new(certificates::Signing::new(c.signer.clone())), Arc::new(certificates::Cleaner)];
    deployment: |_| vec![Arc::new(deployment::Deployments)];
    endpoints: |_| vec![Arc::new(endpoints::Slices), Arc::new(endpoints::Legacy)];
    expiry: |c| vec![Arc::new(expiry::Expiry { event_ttl: c.event_ttl })];
    garbage_collector: |_| vec![Arc::new(garbage_collector::GarbageCollector)];
    kubernetes_service: |c| vec![Arc::new(kubernetes_service::KubernetesService::new(c.api_endpoints.clone(), c.api_service_ip))];
    namespace: |_| vec![Arc::new(namespace::Namespaces)];
    node_ipam: |c| vec![Arc::new(node_ipam::NodeIpam::new(c.cluster_cidr, c.node_mask))];
    node_lifecycle: |c| vec![Arc::new(node_lifecycle::NodeLifecycle::new(c.liveness.clone(), c.node_grace)), Arc::new(node_lifecycle::taint_eviction::TaintEviction)];
    pod_gc: |_| vec![Arc::new(pod_gc::PodGc)];
    replicaset: |_| vec![Arc::new(replicaset::ReplicaSets)];
    root_ca: |c| vec![Arc::new(root_ca::RootCa::new(c.root_ca.clone()))];
    service_account: |_| vec![Arc::new(service_account::ServiceAccounts)];
};

/// All of them, made.
pub fn all(config: &Config) -> Vec<Arc<dyn Controller>> {
    CONTROLLERS.iter().flat_map(|e| (e.make)(config)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_every_controller_in_the_folder() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controllers");
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
            .filter(|n| n != "mod")
            .collect();
        found.sort();
        assert_eq!(CONTROLLERS.iter().map(|e| e.name).collect::<Vec<_>>(), found);
    }
}
