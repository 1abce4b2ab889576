//! The Leases in `kube-node-lease`: liveness as others can see it.

use std::time::Duration;

use serde_json::json;
use triarch_env::Wall;

use super::NodeLiveness;
use crate::*;

const NAMESPACE: &str = "kube-node-lease";
/// A Lease is renewed this often, all in one batch.
const INTERVAL: Duration = Duration::from_secs(40);

pub(super) fn key() -> Key {
    Key::new(resources::LEASES, Name::cluster(""))
}

/// Renews the Lease of every node that was heard since the last time.
pub(super) fn renew(liveness: &dyn NodeLiveness, cx: &Context<'_>) -> Plan {
    let mut plan = Plan::default();
    if cx.world.namespaces.named(NAMESPACE).is_none() {
        plan.after(&key(), Duration::from_secs(1));
        return plan;
    }
    let mut writes = Vec::new();
    for (name, node) in cx.world.nodes.iter() {
        let Some(silence) = liveness.heard(&name.name).filter(|s| *s < INTERVAL) else { continue };
        let heard = Wall { micros: cx.now.micros - i64::try_from(silence.as_micros()).unwrap_or(0) }.rfc3339_micro();
        writes.push(match cx.store.get(resources::LEASES, NAMESPACE, &name.name) {
            None => Op::Create {
                resource: resources::LEASES,
                object: json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": &*name.name, "namespace": NAMESPACE, "ownerReferences": [
                        {"apiVersion": "v1", "kind": "Node", "name": &*name.name, "uid": node.metadata.uid}]},
                    "spec": {"holderIdentity": &*name.name, "leaseDurationSeconds": INTERVAL.as_secs(), "renewTime": heard}}),
            }
            .into(),
            Some(_) => Op::Patch {
                resource: resources::LEASES,
                name: Name::new(NAMESPACE, &name.name),
                subresource: None,
                patch: json!({"spec": {"renewTime": heard}}),
            }
            .into(),
        });
    }
    if !writes.is_empty() {
        plan.steps.push(Step::All(writes));
    }
    // An empty cluster is looked at again soon, so that a new node's Lease does not take long.
    plan.after(&key(), if plan.is_empty() { Duration::from_secs(5) } else { INTERVAL });
    plan
}
