//! The Node authorizer: what a node agent's own identity may do over the API.
//!
//! A user `system:node:<name>` in `system:nodes` reads what pods bound to its
//! node refer to and writes about itself. NodeRestriction (admission) holds
//! back what verbs alone cannot: other nodes' objects and labels.

use std::sync::Arc;

use serde_json::Value;
use triarch_mvcc::{ListRequest, Mvcc, Prefix};
use triarch_registry::{AuthzAttributes, Decision, UserInfo};

use crate::NODES;
use crate::bootstrap::node_rules;
use crate::rules::Rule;
use crate::stored::{text, value};

/// See the module's text.
pub struct NodeAuthorizer {
    store: Arc<Mvcc>,
    rules: Vec<Rule>,
}

/// The node that a user is, when it is one.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    user.in_group(NODES).then(|| user.name.strip_prefix("system:node:")).flatten().filter(|n| !n.is_empty())
}

impl NodeAuthorizer {
    pub fn new(store: Arc<Mvcc>) -> NodeAuthorizer {
        NodeAuthorizer { store, rules: node_rules() }
    }

    pub fn decide(&self, user: &UserInfo, a: &AuthzAttributes) -> Decision {
        let no = |reason: String| Decision::NoOpinion { reason };
        let Some(node) = node_name(user) else { return no(String::new()) };
        let allow = || Decision::Allow { reason: String::new() };
        if !a.resource_request {
            return no(String::new());
        }
        match (a.group.as_str(), a.resource.as_str()) {
            ("", "configmaps" | "secrets") => {
                if !matches!(a.verb.as_str(), "get" | "list" | "watch")
                    || a.name.is_empty()
                    || !a.subresource.is_empty()
                {
                    return no(format!(
                        "No Object name found, or the verb {:?} is not a read of a single object",
                        a.verb
                    ));
                }
                if self.pods_of(node, &a.namespace).iter().any(|p| refers_to(p, &a.resource, &a.name)) {
                    return allow();
                }
                no(format!("no relationship found between node '{node}' and this object"))
            }
            ("", "serviceaccounts") if a.subresource == "token" => {
                if a.verb != "create" || a.name.is_empty() {
                    return no("can only create tokens for individual service accounts".into());
                }
                if self.pods_of(node, &a.namespace).iter().any(|p| text(p, "/spec/serviceAccountName") == a.name) {
                    return allow();
                }
                no(format!("no relationship found between node '{node}' and this object"))
            }
            ("coordination.k8s.io", "leases") => {
                if a.namespace != "kube-node-lease" {
                    return no(format!("can only access leases in the \"{}\" system namespace", "kube-node-lease"));
                }
                let own = a.name == node || (a.verb == "create" && a.name.is_empty());
                if own && matches!(a.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
                    return allow();
                }
                no("can only access node lease with the same name as the requesting node".into())
            }
            ("", "nodes") if !a.name.is_empty() && a.name != node => {
                no(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
            }
            ("", "pods") if a.verb == "get" && a.subresource.is_empty() => {
                let own = self.pods_of(node, &a.namespace);
                if own.iter().any(|p| text(p, "/metadata/name") == a.name) {
                    return allow();
                }
                no(format!("no relationship found between node '{node}' and this object"))
            }
            ("", "pods") if matches!(a.verb.as_str(), "list" | "watch") => {
                if a.field_selector.split(',').any(|f| f.strip_prefix("spec.nodeName=") == Some(node)) {
                    return allow();
                }
                no(format!(
                    "can only list/watch pods with spec.nodeName field selector of the requesting node '{node}'"
                ))
            }
            _ if self.rules.iter().any(|r| r.allows(a)) => allow(),
            _ => no(String::new()),
        }
    }

    /// Pods of a namespace that are bound to `node`.
    fn pods_of(&self, node: &str, namespace: &str) -> Vec<Value> {
        let request = ListRequest { prefix: Prefix::namespaced("pods", namespace), after: None, limit: 0, at: None };
        let Ok(list) = self.store.list(&request) else { return Vec::new() };
        list.items.iter().map(|s| value(&s.object)).filter(|p| text(p, "/spec/nodeName") == node).collect()
    }
}

/// Whether a pod's spec names the ConfigMap or Secret.
fn refers_to(pod: &Value, resource: &str, name: &str) -> bool {
    let secret = resource == "secrets";
    let (env_key, env_from, volume, volume_name, projected) = if secret {
        ("secretKeyRef", "secretRef", "secret", "secretName", "secret")
    } else {
        ("configMapKeyRef", "configMapRef", "configMap", "name", "configMap")
    };
    let array = |v: &Value, p: &str| v.pointer(p).and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |v: &Value, p: &str| text(v, p) == name;
    let containers = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
    let in_containers = containers.iter().flat_map(|p| array(pod, p)).any(|c| {
        array(&c, "/env").iter().any(|e| named(e, &format!("/valueFrom/{env_key}/name")))
            || array(&c, "/envFrom").iter().any(|e| named(e, &format!("/{env_from}/name")))
    });
    let in_volumes = array(pod, "/spec/volumes").iter().any(|v| {
        named(v, &format!("/{volume}/{volume_name}"))
            || array(v, "/projected/sources").iter().any(|s| named(s, &format!("/{projected}/name")))
    });
    let pulled = secret && array(pod, "/spec/imagePullSecrets").iter().any(|s| named(s, "/name"));
    in_containers || in_volumes || pulled
}
