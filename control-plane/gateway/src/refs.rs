//! The ConfigMaps and Secrets that a pod's spec refers to.

use std::collections::BTreeSet;

use serde_json::Value;
use triarch_mvcc::Key;

/// References beyond this many of one pod are left out (upstream's own limits
/// on volumes and containers keep real pods far below).
const MAX_REFS: usize = 4096;

/// Keys of every ConfigMap and Secret that the pod names: in environment
/// variables, volumes and image pull secrets.
pub fn of_pod(pod: &Value) -> BTreeSet<Key> {
    let mut out = BTreeSet::new();
    let ns = pod.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let spec = &pod["spec"];
    let mut add = |resource: &str, name: &Value| {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty() && out.len() < MAX_REFS) {
            out.insert(Key::new(resource, ns, name));
        }
    };
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for c in items(&spec[list]) {
            for e in items(&c["env"]) {
                add("configmaps", &e["valueFrom"]["configMapKeyRef"]["name"]);
                add("secrets", &e["valueFrom"]["secretKeyRef"]["name"]);
            }
            for e in items(&c["envFrom"]) {
                add("configmaps", &e["configMapRef"]["name"]);
                add("secrets", &e["secretRef"]["name"]);
            }
        }
    }
    for v in items(&spec["volumes"]) {
        add("configmaps", &v["configMap"]["name"]);
        add("secrets", &v["secret"]["secretName"]);
        for s in items(&v["projected"]["sources"]) {
            add("configmaps", &s["configMap"]["name"]);
            add("secrets", &s["secret"]["name"]);
        }
    }
    for s in items(&spec["imagePullSecrets"]) {
        add("secrets", &s["name"]);
    }
    out
}

fn items(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_a_configmap_or_a_secret_is_found() {
        let pod = json!({"metadata": {"namespace": "ns"}, "spec": {
            "initContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}]}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "b"}}}], "envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "d"}}]}],
            "volumes": [{"configMap": {"name": "e"}}, {"secret": {"secretName": "f"}},
                {"projected": {"sources": [{"configMap": {"name": "g"}}, {"secret": {"name": "h"}}, {"serviceAccountToken": {}}]}}],
            "imagePullSecrets": [{"name": "i"}],
        }});
        let names: Vec<String> = of_pod(&pod).iter().map(|k| format!("{}/{}", k.resource(), k.name())).collect();
        assert_eq!(
            names,
            [
                "configmaps/a",
                "configmaps/c",
                "configmaps/e",
                "configmaps/g",
                "secrets/b",
                "secrets/d",
                "secrets/f",
                "secrets/h",
                "secrets/i",
            ]
        );
    }
}
