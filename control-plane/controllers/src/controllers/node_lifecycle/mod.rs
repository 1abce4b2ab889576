//! Nodes that stop being heard: conditions, taints, and what is said of their pods.
//!
//! Liveness is in the leader's memory; only transitions are written. The Lease
//! in `kube-node-lease` shows it to others and decides nothing here.

mod lease;
pub mod taint_eviction;
mod taints;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use serde_json::json;

use crate::world::Change;
use crate::*;

/// Silence after which a node is no longer known to be ready.
pub const GRACE: Duration = Duration::from_secs(50);
const COMPONENT: &str = "node-controller";

/// Heartbeats, as the leader's gateway has seen them.
pub trait NodeLiveness: Send + Sync + 'static {
    /// How long ago the node was heard in this leadership; `None`: not yet.
    fn heard(&self, node: &str) -> Option<Duration>;
    /// How long this leadership has lasted: a node that was not heard yet has
    /// its full grace period from its start.
    fn leading(&self) -> Duration;
}

pub struct NodeLifecycle {
    liveness: Arc<dyn NodeLiveness>,
    grace: Duration,
}

impl NodeLifecycle {
    pub fn new(liveness: Arc<dyn NodeLiveness>, grace: Duration) -> NodeLifecycle {
        NodeLifecycle { liveness, grace }
    }

    fn silence(&self, node: &Node, cx: &Context<'_>) -> Duration {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.liveness.heard(name).unwrap_or_else(|| {
            // A node that has just been created has not had its grace period either.
            let age = Duration::from_secs(u64::try_from(cx.now.secs() - created(&node.metadata)).unwrap_or(0));
            self.liveness.leading().min(age)
        })
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        match &change.new {
            Some(Any::Node(new)) => {
                out.push(Key::new(resources::NODES, change.name.clone()));
                // When the first node is ready again, or the last one is not, the others' taints change.
                let was = match &change.old {
                    Some(Any::Node(old)) => is_ready(old),
                    _ => false,
                };
                if was != is_ready(new) && world.nodes.values().filter(|n| is_ready(n)).count() <= 1 {
                    out.extend(world.nodes.iter().map(|(n, _)| Key::new(resources::NODES, n.clone())));
                }
            }
            // A pod that says it is ready on a node that is not.
            Some(Any::Pod(p)) if pod_ready(p) => {
                if let Some(node) = pod_node(p)
                    && world.nodes.named(node).is_some_and(|n| !is_ready(n))
                {
                    out.push(Key::new(resources::NODES, Name::cluster(node)));
                }
            }
            _ => {}
        }
    }

    fn first(&self) -> Vec<Key> {
        vec![lease::key()]
    }

    fn concurrency(&self) -> usize {
        32
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        if *key == lease::key() {
            return lease::renew(&*self.liveness, cx);
        }
        let mut plan = Plan::default();
        let Some(node) = cx.world.nodes.get(&key.name).filter(|n| !deleting(&n.metadata)) else { return plan };
        let silence = self.silence(node, cx);
        let mut node = Node::clone(node);
        if silence < self.grace {
            plan.after(key, self.grace - silence + Duration::from_millis(100));
        } else {
            plan.after(key, self.grace);
            let was_ready = is_ready(&node);
            if mark_unknown(&mut node, cx) {
                let object = to_value(&node);
                let mut write =
                    Write::from(Op::UpdateSub { resource: resources::NODES, subresource: "status", object });
                if was_ready {
                    let message = format!("Node {} status is now: NodeNotReady", key.name.name);
                    write = write.ok(note(&node, COMPONENT, "Normal", "NodeNotReady", message));
                }
                plan.push(write);
                // Taints follow in the next pass: they are written against the node's next revision.
                return plan;
            }
        }
        let now_ready = is_ready(&node);
        if let Some(op) = taints::sync(&node, cx) {
            plan.push(op);
        }
        if !now_ready {
            let pods: Vec<Write> =
                cx.world.pods_on(&key.name.name).filter(|p| pod_ready(p)).map(|p| unready(p, cx)).collect();
            if !pods.is_empty() {
                plan.steps.push(Step::All(pods));
            }
        }
        plan
    }
}

pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

/// Ready and the pressures become Unknown; `false` when they were.
fn mark_unknown(node: &mut Node, cx: &Context<'_>) -> bool {
    const KINDS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    if KINDS.iter().all(|k| condition(node, k).is_some_and(|c| c.status == "Unknown")) {
        return false;
    }
    let never = node.metadata.creation_timestamp.clone();
    let list = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in KINDS {
        match list.iter_mut().find(|c| c.type_ == kind) {
            Some(c) if c.status != "Unknown" => {
                c.status = "Unknown".into();
                c.reason = Some("NodeStatusUnknown".into());
                c.message = Some("Kubelet stopped posting node status.".into());
                c.last_transition_time = Some(time(cx.now));
            }
            Some(_) => {}
            None => list.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: never.clone(),
                last_transition_time: Some(time(cx.now)),
            }),
        }
    }
    true
}

/// A pod on a node that is not ready is not ready.
fn unready(pod: &Pod, cx: &Context<'_>) -> Write {
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    for c in conditions.iter_mut().filter(|c| c.type_ == "Ready") {
        c.status = "False".into();
        c.last_transition_time = Some(time(cx.now));
    }
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": conditions}});
    let name = name_of(&pod.metadata);
    Write::from(Op::Patch { resource: resources::PODS, name, subresource: Some("status"), patch }).ok(note(
        pod,
        COMPONENT,
        "Warning",
        "NodeNotReady",
        "Node is not ready",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::Value;
    use std::collections::BTreeMap;

    pub(super) struct Fake {
        pub heard: BTreeMap<&'static str, u64>,
        pub leading: u64,
    }

    impl NodeLiveness for Fake {
        fn heard(&self, node: &str) -> Option<Duration> {
            self.heard.get(node).copied().map(Duration::from_secs)
        }
        fn leading(&self) -> Duration {
            Duration::from_secs(self.leading)
        }
    }

    fn lifecycle(heard: &[(&'static str, u64)], leading: u64) -> NodeLifecycle {
        NodeLifecycle::new(Arc::new(Fake { heard: heard.iter().copied().collect(), leading }), GRACE)
    }

    fn node(name: &str, ready: &str) -> Value {
        let c = |t: &str, s: &str| json!({"type": t, "status": s});
        let other = if ready == "Unknown" { "Unknown" } else { "False" };
        json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {},
            "status": {"conditions": [c("MemoryPressure", other), c("DiskPressure", other), c("PIDPressure", other), c("Ready", ready)]}})
    }

    fn key(n: &str) -> Key {
        Key::new(resources::NODES, Name::cluster(n))
    }

    #[test]
    fn a_silent_node_becomes_unknown_with_upstreams_words() {
        let f = Fixture::new().put(resources::NODES, node("a", "True")).put(resources::NODES, node("b", "True"));
        let plan = f.reconcile(&lifecycle(&[("a", 60), ("b", 1)], 1000), &key("a"));
        let w = plan.writes().next().unwrap();
        let Op::UpdateSub { object, subresource: "status", .. } = &w.op else { panic!("{w:?}") };
        let ready = &object["status"]["conditions"][3];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("Unknown"), &json!("NodeStatusUnknown")));
        assert_eq!(ready["message"], "Kubelet stopped posting node status.");
        assert_eq!(w.on_ok.as_ref().unwrap().message, "Node a status is now: NodeNotReady");
        assert!(f.reconcile(&lifecycle(&[("a", 1), ("b", 60)], 1000), &key("a")).is_empty());
    }

    #[test]
    fn a_new_leader_gives_every_node_its_full_grace() {
        let f = Fixture::new().put(resources::NODES, node("a", "True"));
        let plan = f.reconcile(&lifecycle(&[], 10), &key("a"));
        assert!(plan.is_empty());
        assert_eq!(plan.requeue, [(key("a"), Duration::from_millis(40_100))]);
        assert!(!f.reconcile(&lifecycle(&[], 51), &key("a")).is_empty());
    }

    #[test]
    fn an_unreachable_node_is_tainted_and_its_pods_are_not_ready() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": {"nodeName": "a", "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let f = Fixture::new()
            .put(resources::NODES, node("a", "Unknown"))
            .put(resources::NODES, node("b", "True"))
            .put(resources::PODS, pod);
        let plan = f.reconcile(&lifecycle(&[("a", 60), ("b", 1)], 1000), &key("a"));
        let ops: Vec<_> = plan.writes().map(|w| w.op.clone()).collect();
        let [Op::Patch { patch: node, .. }, Op::Patch { patch: pod, .. }] = &ops[..] else { panic!("{ops:?}") };
        let taints: Vec<_> = node["spec"]["taints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| format!("{}:{}", t["key"], t["effect"]))
            .collect();
        assert_eq!(
            taints,
            ["\"node.kubernetes.io/unreachable\":\"NoSchedule\"", "\"node.kubernetes.io/unreachable\":\"NoExecute\""]
        );
        assert_eq!(pod["status"]["conditions"][0]["status"], "False");
    }

    #[test]
    fn when_every_node_is_silent_nothing_is_evicted() {
        let f = Fixture::new().put(resources::NODES, node("a", "Unknown"));
        let plan = f.reconcile(&lifecycle(&[("a", 60)], 1000), &key("a"));
        let Op::Patch { patch, .. } = &plan.writes().next().unwrap().op else { panic!() };
        let effects: Vec<_> = patch["spec"]["taints"].as_array().unwrap().iter().map(|t| t["effect"].clone()).collect();
        assert_eq!(effects, ["NoSchedule"]);
    }

    #[test]
    fn leases_are_made_and_renewed_for_nodes_that_were_heard() {
        let mut f = Fixture::new()
            .put(resources::NAMESPACES, json!({"metadata": {"name": "kube-node-lease", "uid": "n"}}))
            .put(resources::NODES, node("a", "True"))
            .put(resources::NODES, node("b", "True"));
        let c = lifecycle(&[("a", 3)], 1000);
        let plan = f.reconcile(&c, &lease::key());
        let [w] = &plan.writes().collect::<Vec<_>>()[..] else { panic!("{plan:?}") };
        let Op::Create { object, .. } = &w.op else { panic!() };
        assert_eq!(
            (&object["metadata"]["name"], &object["spec"]["renewTime"]),
            (&json!("a"), &json!("1970-01-12T13:46:37.000000Z"))
        );
        assert_eq!(plan.requeue, [(lease::key(), Duration::from_secs(40))]);
        f.set(resources::LEASES, object.clone());
        assert!(matches!(f.reconcile(&c, &lease::key()).writes().next().unwrap().op, Op::Patch { .. }));
    }
}
