//! NodeRestriction: what a node agent may write, beyond what the Node
//! authorizer lets it address: its own Node, its own pods' status, its own
//! lease, tokens of its own pods.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;
use triarch_api::meta;
use triarch_api::status::Status;
use triarch_kinds::stored;
use triarch_kinds::value::{at, entries, get, is_set, list_at, metadata_map, opt, same, str_at, str_of};
use triarch_registry::{Attributes, Operation, UserInfo};

use crate::{Plugin, forbidden};

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels that an agent sets on its own Node.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/exclude-from-external-load-balancers",
];
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(node) = node_of(&attrs.ctx.user) else { return Ok(()) };
        if node.is_empty() {
            return Err(forbidden(attrs, format!("could not determine node from user {:?}", attrs.ctx.user.name)));
        }
        match (attrs.kind.group, attrs.kind.plural, attrs.subresource) {
            ("", "pods", None) => pod(attrs, &node),
            ("", "pods", Some("status")) => pod_status(attrs, &node),
            ("", "pods", Some("eviction")) => pod_eviction(attrs, &node),
            ("", "pods", Some(other)) => Err(forbidden(
                attrs,
                format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"),
            )),
            ("", "nodes", _) => own_node(attrs, &node),
            ("", "serviceaccounts", Some("token")) => token(attrs, &node),
            ("coordination.k8s.io", "leases", _) => lease(attrs, &node),
            _ => Ok(()),
        }
    }
}

/// The node that a user is; empty when it is a node without a name.
fn node_of(user: &UserInfo) -> Option<String> {
    let name = user.name.strip_prefix("system:node:")?;
    user.in_group("system:nodes").then(|| name.to_owned())
}

/// The pod as stored: nodes are judged by where the pod is, not by what they send.
fn stored_pod<'a>(attrs: &Attributes<'a>) -> Option<Cow<'a, Value>> {
    let stored = || stored::get(attrs.store, "pods", attrs.namespace, attrs.name).map(Cow::Owned);
    attrs.old.map(Cow::Borrowed).or_else(stored)
}

fn bound_to(pod: &Value, node: &str) -> bool {
    str_at(pod, &["spec", "nodeName"]) == node
}

fn pod(attrs: &Attributes<'_>, node: &str) -> Result<(), Status> {
    match attrs.operation {
        Operation::Create => mirror_pod(attrs, node),
        Operation::Delete => match stored_pod(attrs) {
            Some(pod) if !bound_to(&pod, node) => {
                Err(forbidden(attrs, format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
            }
            _ => Ok(()),
        },
        other => Err(forbidden(
            attrs,
            format!("unexpected operation {:?}, node {node:?} can only create and delete mirror pods", other.as_str()),
        )),
    }
}

fn mirror_pod(attrs: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let Some(pod) = attrs.object() else { return Ok(()) };
    if metadata_map(pod, "annotations", MIRROR).is_none() {
        let why = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
        return Err(forbidden(attrs, why));
    }
    if !bound_to(pod, node) {
        return Err(forbidden(attrs, format!("node {node:?} can only create pods with spec.nodeName set to itself")));
    }
    let own = |r: &meta::OwnerRef<'_>| r.kind == "Node" && r.name == node && r.controller;
    let owners: Vec<_> = meta::owner_refs(pod).collect();
    if owners.len() != 1 || !own(&owners[0]) {
        let why = format!("node {node:?} can only create pods with a single owner reference set to itself");
        return Err(forbidden(attrs, why));
    }
    let refuse = |what: &str| Err(forbidden(attrs, format!("node {node:?} can not create pods that reference {what}")));
    if !str_at(pod, &["spec", "serviceAccountName"]).is_empty() {
        return refuse("a service account");
    }
    for volume in list_at(pod, &["spec", "volumes"]) {
        for (source, what) in
            [("secret", "secrets"), ("configMap", "configmaps"), ("persistentVolumeClaim", "persistentvolumeclaims")]
        {
            if is_set(volume, source) {
                return refuse(what);
            }
        }
    }
    Ok(())
}

fn pod_status(attrs: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if attrs.operation != Operation::Update {
        let why =
            format!("unexpected operation {:?}, node {node:?} can only update pod status", attrs.operation.as_str());
        return Err(forbidden(attrs, why));
    }
    let Some(old) = stored_pod(attrs) else { return Ok(()) };
    if !bound_to(&old, node) {
        let why = format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself");
        return Err(forbidden(attrs, why));
    }
    let labels = ["metadata", "labels"];
    if attrs.object().is_some_and(|new| !same(at(new, &labels), at(&old, &labels))) {
        return Err(forbidden(attrs, format!("node {node:?} cannot update labels through pod status")));
    }
    Ok(())
}

fn pod_eviction(attrs: &Attributes<'_>, node: &str) -> Result<(), Status> {
    match stored_pod(attrs) {
        Some(pod) if !bound_to(&pod, node) => {
            Err(forbidden(attrs, format!("node {node} can only evict pods with spec.nodeName set to itself")))
        }
        _ => Ok(()),
    }
}

fn own_node(attrs: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let new = attrs.object();
    let requested = if attrs.name.is_empty() { new.map_or("", meta::name) } else { attrs.name };
    if requested != node {
        return Err(forbidden(attrs, format!("node {node:?} is not allowed to modify node {requested:?}")));
    }
    let Some(new) = new else { return Ok(()) };
    match attrs.operation {
        Operation::Create => {
            let labels = forbidden_labels(new, &Value::Null);
            if !labels.is_empty() {
                let why = format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", "));
                return Err(forbidden(attrs, why));
            }
        }
        Operation::Update => {
            let Some(old) = attrs.old else { return Ok(()) };
            let taints = ["spec", "taints"];
            if !same(at(new, &taints), at(old, &taints)) {
                return Err(forbidden(attrs, format!("node {node:?} is not allowed to modify taints")));
            }
            let labels = forbidden_labels(new, old);
            if !labels.is_empty() {
                let why = format!("is not allowed to modify labels: {}", labels.join(", "));
                return Err(forbidden(attrs, why));
            }
            let owners = ["metadata", "ownerReferences"];
            if !same(at(new, &owners), at(old, &owners)) {
                return Err(forbidden(attrs, format!("node {node:?} is not allowed to modify ownerReferences")));
            }
        }
        Operation::Delete | Operation::Connect => {}
    }
    Ok(())
}

/// Changed labels in Kubernetes' own namespaces that are not an agent's to set.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let (now, was) = (at(new, &["metadata"]), at(old, &["metadata"]));
    let keys: BTreeSet<&str> =
        entries(now, "labels").into_iter().chain(entries(was, "labels")).map(|(k, _)| k).collect();
    let changed = keys.into_iter().filter(|k| get(get(now, "labels"), k) != get(get(was, "labels"), k));
    changed.filter(|k| reserved(k)).map(str::to_owned).collect()
}

fn reserved(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else { return false };
    let within =
        |domain: &str| namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    kubernetes && !OWN_LABELS.contains(&key) && !OWN_NAMESPACES.iter().any(|own| within(own))
}

fn lease(attrs: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if attrs.namespace != "kube-node-lease" {
        return Err(forbidden(attrs, "can only access leases in the \"kube-node-lease\" system namespace"));
    }
    let name = if attrs.name.is_empty() { attrs.object().map_or("", meta::name) } else { attrs.name };
    if name != node {
        return Err(forbidden(attrs, "can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

/// A node asks for tokens only on behalf of the pods that it runs.
fn token(attrs: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let bound = attrs.object().and_then(|request| opt(get(request, "spec"), "boundObjectRef"));
    let pod = bound
        .filter(|b| str_of(b, "apiVersion") == "v1" && str_of(b, "kind") == "Pod" && !str_of(b, "name").is_empty());
    let Some(pod) = pod else { return Err(forbidden(attrs, "node requested token not bound to a pod")) };
    let (name, uid) = (str_of(pod, "name"), str_of(pod, "uid"));
    if uid.is_empty() {
        return Err(forbidden(attrs, "node requested token with a pod binding without a uid"));
    }
    let Some(pod) = stored::get(attrs.store, "pods", attrs.namespace, name) else {
        return Err(Status::not_found(("", "pods"), name));
    };
    let have = str_at(&pod, &["metadata", "uid"]);
    if have != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(forbidden(attrs, why));
    }
    if !bound_to(&pod, node) {
        return Err(forbidden(attrs, "node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}
