//! Objects that a cluster has on its first day besides namespaces and the
//! `kubernetes` Service: RBAC's bootstrap policy, cluster-info, and what
//! extension API servers need to trust the front proxy.

use serde_json::{Value, json};

use crate::config::ServerConfiguration;
use crate::keys::ClusterKeys;

/// All of them; the leader creates those that are missing.
pub fn objects(keys: &ClusterKeys, config: &ServerConfiguration) -> Vec<Value> {
    let ca = keys.ca.certificate_pem();
    let mut all = triarch_auth::bootstrap::objects();
    all.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": ca,
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-client-ca-file": keys.front_proxy_ca.certificate_pem(),
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        },
    }));
    all.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": cluster_info(ca, config)},
    }));
    all
}

/// A kubeconfig without a user: where the cluster is and which CA it has.
fn cluster_info(ca: &str, config: &ServerConfiguration) -> String {
    use base64::Engine;
    let data = base64::prelude::BASE64_STANDARD.encode(ca);
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {data}\n    server: https://{}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n",
        config.advertised()
    )
}
