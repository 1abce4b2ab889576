//! Pods that nobody else removes: bound to a node that is gone, deleted before
//! they had a node, or finished long ago and too many.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::world::{Any, Change};
use crate::*;

/// A node that is gone may register again; its pods are given this long.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Finished pods that are kept.
pub const TERMINATED_THRESHOLD: usize = 12_500;
const SWEEP: Duration = Duration::from_secs(20);
/// Deletions of one pass.
const BATCH: usize = 500;

/// Key of a node whose quarantine is over.
const GONE: &str = "~gone-nodes";
const SWEEPER: &str = "~terminated-pods";

pub struct PodGc;

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        match (&change.new, change.resource) {
            (None, resources::NODES) => out.push(Key::new(resources::NODES, change.name.clone())),
            (Some(Any::Pod(p)), _) => match pod_node(p) {
                Some(node) if world.nodes.named(node).is_none() => {
                    out.push(Key::new(resources::NODES, Name::cluster(node)))
                }
                None if deleting(&p.metadata) => out.push(Key::new(resources::PODS, change.name.clone())),
                _ => {}
            },
            _ => {}
        }
    }

    fn first(&self) -> Vec<Key> {
        vec![Key::new(SWEEPER, Name::cluster(""))]
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let mut plan = Plan::default();
        match key.resource {
            resources::NODES if cx.world.nodes.get(&key.name).is_none() => {
                plan.after(&Key::new(GONE, key.name.clone()), QUARANTINE);
            }
            GONE if cx.world.nodes.get(&key.name).is_none() => {
                let pods: Vec<_> = cx.world.pods_on(&key.name.name).take(BATCH).collect();
                if pods.len() == BATCH {
                    plan.after(key, Duration::from_secs(1));
                }
                for pod in pods {
                    if !pod_terminal(pod) {
                        plan.push(fail(pod, cx, "DeletionByPodGC", "PodGC: node no longer exists"));
                    }
                    plan.push(force_delete(pod));
                }
            }
            resources::PODS => {
                if let Some(p) = cx.world.pods.get(&key.name).filter(|p| pod_node(p).is_none() && deleting(&p.metadata))
                {
                    plan.push(force_delete(p));
                }
            }
            SWEEPER => {
                let mut done: Vec<_> =
                    cx.world.pods.values().filter(|p| pod_terminal(p) && !deleting(&p.metadata)).collect();
                let excess = done.len().saturating_sub(TERMINATED_THRESHOLD).min(BATCH);
                if excess > 0 {
                    done.sort_by_key(|p| (created(&p.metadata), name_of(&p.metadata)));
                    plan.steps.push(Step::All(done[..excess].iter().map(|p| force_delete(p).into()).collect()));
                }
                plan.after(key, SWEEP);
            }
            _ => {}
        }
        plan
    }
}

fn force_delete(pod: &Pod) -> Op {
    let options =
        DeleteOptions { uid: pod.metadata.uid.clone(), grace_period_seconds: Some(0), ..DeleteOptions::default() };
    Op::Delete { resource: resources::PODS, name: name_of(&pod.metadata), options }
}

/// Marks a pod failed, with the condition that tells why it was disrupted.
fn fail(pod: &Pod, cx: &Context<'_>, reason: &str, message: &str) -> Op {
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    conditions.retain(|c| c.type_ != "DisruptionTarget");
    let mut list = to_value(&conditions);
    if let Some(l) = list.as_array_mut() {
        l.push(json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": cx.now.rfc3339()}));
    }
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": list}});
    Op::Patch { resource: resources::PODS, name: name_of(&pod.metadata), subresource: Some("status"), patch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn pod(name: &str, extra: serde_json::Value) -> serde_json::Value {
        let mut p = json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"containers": []}});
        crate::testing::merge(&mut p, &extra);
        p
    }

    #[test]
    fn pods_of_a_gone_node_fail_and_go_after_the_quarantine() {
        let mut f = Fixture::new().put(resources::PODS, pod("a", json!({"spec": {"nodeName": "n1"}})));
        let node = Key::new(resources::NODES, Name::cluster("n1"));
        let gone = Key::new(GONE, Name::cluster("n1"));
        assert_eq!(f.reconcile(&PodGc, &node).requeue, [(gone.clone(), QUARANTINE)]);
        let plan = f.reconcile(&PodGc, &gone);
        let ops: Vec<_> = plan.writes().map(|w| &w.op).collect();
        let [Op::Patch { patch, .. }, Op::Delete { options, .. }] = ops[..] else { panic!("{ops:?}") };
        assert_eq!((&patch["status"]["phase"], options.grace_period_seconds), (&json!("Failed"), Some(0)));
        f.set(resources::NODES, json!({"metadata": {"name": "n1", "uid": "n"}}));
        assert!(f.reconcile(&PodGc, &gone).is_empty(), "it came back in time");
    }

    #[test]
    fn a_pod_deleted_before_it_had_a_node_is_removed() {
        let f = Fixture::new()
            .put(resources::PODS, pod("a", json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}})));
        let plan = f.reconcile(&PodGc, &Key::new(resources::PODS, Name::new("d", "a")));
        assert!(matches!(plan.writes().next().unwrap().op, Op::Delete { .. }));
    }

    #[test]
    fn the_oldest_finished_pods_beyond_the_threshold_go() {
        let mut f = Fixture::new();
        let p = |n: usize| {
            let c = format!("2020-01-01T{:02}:{:02}:{:02}Z", n / 3600, n / 60 % 60, n % 60);
            pod(&format!("p{n}"), json!({"metadata": {"creationTimestamp": c}, "status": {"phase": "Succeeded"}}))
        };
        for n in (0..TERMINATED_THRESHOLD + 2).rev() {
            let v = p(n);
            let o = crate::testing::stored(&v);
            let any = Any::decode(resources::PODS, &o, 1).unwrap();
            f.world.apply(resources::PODS, Name::new("d", format!("p{n}")), Some(any), o.meta);
        }
        let plan = f.reconcile(&PodGc, &PodGc.first()[0]);
        let gone: Vec<_> = plan
            .writes()
            .map(|w| match &w.op {
                Op::Delete { name, .. } => name.name.to_string(),
                o => panic!("{o:?}"),
            })
            .collect();
        assert_eq!(gone, ["p0", "p1"]);
    }
}
