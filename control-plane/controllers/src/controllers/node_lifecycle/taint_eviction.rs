//! Deletes pods from nodes with NoExecute taints that they do not tolerate, or
//! no longer tolerate.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use serde_json::json;

use crate::world::Change;
use crate::*;

const COMPONENT: &str = "taint-eviction-controller";

pub struct TaintEviction;

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        match &change.new {
            Some(Any::Pod(p)) => {
                let node = pod_node(p).and_then(|n| world.nodes.named(n));
                if node.is_some_and(|n| no_execute(n).next().is_some()) {
                    out.push(Key::new(resources::PODS, change.name.clone()));
                }
            }
            Some(Any::Node(n)) => {
                let before = match &change.old {
                    Some(Any::Node(o)) => no_execute(o).cloned().collect(),
                    _ => Vec::new(),
                };
                let after: Vec<Taint> = no_execute(n).cloned().collect();
                if before != after && !after.is_empty() {
                    let pods = world.pods_by_node.get(&change.name.name);
                    out.extend(pods.map(|p| Key::new(resources::PODS, p.clone())));
                }
            }
            _ => {}
        }
    }

    fn concurrency(&self) -> usize {
        8
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = cx.world.pods.get(&key.name).filter(|p| !deleting(&p.metadata)) else { return plan };
        let Some(node) = pod_node(pod).and_then(|n| cx.world.nodes.named(n)) else { return plan };
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        let mut at: Option<i64> = None;
        for taint in no_execute(node) {
            // A taint without its time gets one from the node controller first.
            let Some(added) = taint.time_added.as_ref().map(secs) else { continue };
            let using: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
            if using.is_empty() {
                at = Some(i64::MIN);
                continue;
            }
            // The shortest of those that apply; one without a limit tolerates for ever only when all do.
            if let Some(least) = using.iter().filter_map(|t| t.toleration_seconds).map(|s| s.max(0)).min() {
                let due = added.saturating_add(least);
                at = Some(at.map_or(due, |a| a.min(due)));
            }
        }
        match at {
            None => {}
            Some(due) if due > cx.now.secs() => {
                plan.after(key, Duration::from_secs(u64::try_from(due - cx.now.secs()).unwrap_or(0)));
            }
            Some(_) => {
                plan.push(disrupted(pod, cx));
                let name = key.name.clone();
                let message = format!("Marking for deletion Pod {}/{}", name.namespace, name.name);
                let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
                plan.push(Write::from(Op::Delete { resource: resources::PODS, name, options }).ok(note(
                    &**pod,
                    COMPONENT,
                    "Normal",
                    "TaintManagerEviction",
                    message,
                )));
            }
        }
        plan
    }
}

fn no_execute(node: &k8s_openapi::api::core::v1::Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| t.effect == "NoExecute")
}

/// Whether a toleration is for a taint.
pub fn tolerates(t: &Toleration, taint: &Taint) -> bool {
    let effect = t.effect.as_deref().unwrap_or_default();
    let key = t.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match t.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Exists" => true,
        _ => false,
    }
}

fn disrupted(pod: &Pod, cx: &Context<'_>) -> Op {
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    conditions.retain(|c| c.type_ != "DisruptionTarget");
    let mut list = to_value(&conditions);
    if let Some(l) = list.as_array_mut() {
        l.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": cx.now.rfc3339()}));
    }
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": list}});
    Op::Patch { resource: resources::PODS, name: name_of(&pod.metadata), subresource: Some("status"), patch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::Value;

    fn plan(tolerations: Value, now: i64) -> Plan {
        let key = Key::new(resources::PODS, Name::new("d", "p"));
        Fixture::new()
            .at(now)
            .put(resources::NODES, json!({"metadata": {"name": "n", "uid": "n"}, "spec": {"taints": [
                {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "1970-01-12T13:46:40Z"}]}}))
            .put(resources::PODS, json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"},
                "spec": {"nodeName": "n", "containers": [], "tolerations": tolerations}}))
            .reconcile(&TaintEviction, &key)
    }

    #[test]
    fn a_pod_without_toleration_goes_at_once_with_the_reason_in_its_status() {
        let p = plan(json!([]), 1_000_000);
        let ops: Vec<_> = p.writes().collect();
        let Op::Patch { patch, .. } = &ops[0].op else { panic!() };
        assert_eq!(patch["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
        assert_eq!(ops[1].on_ok.as_ref().unwrap().message, "Marking for deletion Pod d/p");
    }

    #[test]
    fn toleration_seconds_count_from_the_taint() {
        let t = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
        assert_eq!(plan(t.clone(), 1_000_100).requeue[0].1, Duration::from_secs(200));
        assert!(!plan(t, 1_000_300).is_empty());
    }

    #[test]
    fn a_pod_that_tolerates_for_ever_stays() {
        let p = plan(json!([{"operator": "Exists"}]), 9_000_000);
        assert!(p.is_empty() && p.requeue.is_empty());
    }
}
