//! Where kinds are stored, by the names that [`triarch_mvcc::Key`] uses, and
//! the table that finds a resource from an owner reference.

pub const CERTIFICATE_SIGNING_REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";
pub const CONFIG_MAPS: &str = "configmaps";
pub const DEPLOYMENTS: &str = "deployments.apps";
pub const ENDPOINTS: &str = "endpoints";
pub const ENDPOINT_SLICES: &str = "endpointslices.discovery.k8s.io";
pub const EVENTS: &str = "events";
pub const LEASES: &str = "leases.coordination.k8s.io";
pub const NAMESPACES: &str = "namespaces";
pub const NODES: &str = "nodes";
pub const PODS: &str = "pods";
pub const REPLICA_SETS: &str = "replicasets.apps";
pub const SECRETS: &str = "secrets";
pub const SERVICES: &str = "services";
pub const SERVICE_ACCOUNTS: &str = "serviceaccounts";

/// A stored kind, as far as garbage collection and namespace deletion need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindInfo {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    pub kind: &'static str,
    pub resource: &'static str,
    /// `pods`, `replicasets`: without the group.
    pub plural: &'static str,
    pub namespaced: bool,
}

/// All stored kinds of this server, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Kinds(Vec<KindInfo>);

impl Kinds {
    pub fn new(mut kinds: Vec<KindInfo>) -> Kinds {
        kinds.sort_by(|a, b| (a.resource, &a.api_version).cmp(&(b.resource, &b.api_version)));
        Kinds(kinds)
    }

    pub fn iter(&self) -> impl Iterator<Item = &KindInfo> {
        self.0.iter()
    }

    /// Each store once.
    pub fn resources(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.0.iter().map(|k| k.resource).collect();
        all.dedup();
        all
    }

    /// By an owner reference's `apiVersion` and `kind`; the version is not
    /// compared, as owners are found in whatever version they are stored.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<&KindInfo> {
        let group = |v: &str| v.split_once('/').map(|(g, _)| g.to_owned()).unwrap_or_default();
        self.0.iter().find(|k| k.kind == kind && group(&k.api_version) == group(api_version))
    }

    pub fn by_resource(&self, resource: &str) -> Option<&KindInfo> {
        self.0.iter().find(|k| k.resource == resource)
    }
}

/// The kinds that tests of this crate and of the scheduler work with.
pub fn known() -> Kinds {
    let k = |api_version: &str, kind, resource, plural, namespaced| KindInfo {
        api_version: api_version.to_owned(),
        kind,
        resource,
        plural,
        namespaced,
    };
    Kinds::new(vec![
        k(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            CERTIFICATE_SIGNING_REQUESTS,
            "certificatesigningrequests",
            false,
        ),
        k("v1", "ConfigMap", CONFIG_MAPS, "configmaps", true),
        k("apps/v1", "Deployment", DEPLOYMENTS, "deployments", true),
        k("v1", "Endpoints", ENDPOINTS, "endpoints", true),
        k("discovery.k8s.io/v1", "EndpointSlice", ENDPOINT_SLICES, "endpointslices", true),
        k("v1", "Event", EVENTS, "events", true),
        k("coordination.k8s.io/v1", "Lease", LEASES, "leases", true),
        k("v1", "Namespace", NAMESPACES, "namespaces", false),
        k("v1", "Node", NODES, "nodes", false),
        k("v1", "Pod", PODS, "pods", true),
        k("apps/v1", "ReplicaSet", REPLICA_SETS, "replicasets", true),
        k("v1", "Secret", SECRETS, "secrets", true),
        k("v1", "Service", SERVICES, "services", true),
        k("v1", "ServiceAccount", SERVICE_ACCOUNTS, "serviceaccounts", true),
    ])
}
