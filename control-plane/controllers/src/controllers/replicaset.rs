//! ReplicaSets: as many pods as are asked for, no more.
//!
//! No bookkeeping of expected creations is needed: the driver shows a key
//! again only when the snapshot includes what was written for it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;
use triarch_env::Wall;

use crate::world::{Any, Change, World, orphans};
use crate::*;

const COMPONENT: &str = "replicaset-controller";
/// Pods created or deleted in one pass.
const BURST: usize = 500;

/// Rest of a set per pod: a set of ten thousand is looked at five times a second.
const PER_POD: Duration = Duration::from_micros(20);

pub struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        match change.resource {
            resources::REPLICA_SETS => out.push(Key::new(resources::REPLICA_SETS, change.name.clone())),
            resources::PODS => {
                let namespace = &change.name.namespace;
                for pod in [&change.old, &change.new].into_iter().flatten().filter_map(Any::metadata) {
                    match controller_of(pod) {
                        Some(r) if r.kind == "ReplicaSet" => {
                            out.push(Key::new(resources::REPLICA_SETS, Name::new(namespace, &r.name)));
                        }
                        Some(_) => {}
                        None => {
                            let sets = world.replica_sets.in_namespace(namespace);
                            let adopters = sets.filter(|(_, rs)| selects(rs, pod));
                            out.extend(adopters.map(|(n, _)| Key::new(resources::REPLICA_SETS, n.clone())));
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn concurrency(&self) -> usize {
        16
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let Some(rs) = cx.world.replica_sets.get(&key.name) else { return Plan::nothing() };
        let mut plan = Plan::default();
        let claimed = claim(cx.world, rs, &mut plan);
        let active: Vec<&Arc<Pod>> = claimed.iter().filter(|p| pod_active(p)).copied().collect();
        plan.cooldown = PER_POD * claimed.len() as u32;
        let terminating = claimed.iter().filter(|p| deleting(&p.metadata) && !pod_terminal(p)).count();

        let want = rs.spec.replicas.unwrap_or(1);
        let diff = active.len() as i64 - i64::from(want);
        let manage = (!deleting(&rs.metadata)).then(|| manage(cx, rs, &active, diff)).flatten();
        let status = status(cx, rs, &active, terminating, diff);
        let changed = rs.status.as_ref() != Some(&status);
        let write_status = || {
            let mut object = ReplicaSet::clone(rs);
            object.status = Some(status.clone());
            let (resource, object) = (resources::REPLICA_SETS, to_value(&object));
            Step::Sequence(vec![Op::UpdateSub { resource, subresource: "status", object }.into()])
        };
        // After a failure the status goes first: it tells why, whatever the retry does.
        let status_first = cx.failure.is_some();
        if changed && status_first {
            plan.steps.push(write_status());
        }
        plan.steps.extend(manage);
        if changed && !status_first {
            plan.steps.push(write_status());
        }
        let min_ready = rs.spec.min_ready_seconds.unwrap_or(0);
        if let Some(left) = active.iter().filter_map(|p| pod_available(p, min_ready, cx.now).err().flatten()).min() {
            plan.after(key, Duration::from_secs(left.max(1) as u64));
        }
        plan
    }
}

fn selects(rs: &ReplicaSet, pod: &ObjectMeta) -> bool {
    !selector::is_empty(&rs.spec.selector) && selector::matches(&rs.spec.selector, pod.labels.as_ref())
}

/// The pods that are this set's: its own that match, after releasing those that
/// do not, and orphans that match, which are adopted.
fn claim<'a>(world: &'a World, rs: &'a ReplicaSet, plan: &mut Plan) -> Vec<&'a Arc<Pod>> {
    let me = uid(&rs.metadata);
    let namespace = rs.metadata.namespace.as_deref().unwrap_or_default();
    let mut claimed = Vec::new();
    let mut patches = Vec::new();
    for pod in world.pods_of(me) {
        if selects(rs, &pod.metadata) {
            claimed.push(pod);
        } else if !deleting(&pod.metadata) && !deleting(&rs.metadata) {
            let owners: Vec<&OwnerReference> =
                pod.metadata.owner_references.iter().flatten().filter(|r| r.uid != me).collect();
            patches.push(owners_patch(&pod.metadata, owners));
        }
    }
    if !deleting(&rs.metadata) {
        let orphans = orphans(namespace);
        let names = world.pods_by_controller.get(&orphans);
        for pod in names.filter_map(|n| world.pods.get(n)).filter(|p| pod_active(p) && selects(rs, &p.metadata)) {
            let mine = controller_ref(rs);
            let owners = pod.metadata.owner_references.iter().flatten().chain([&mine]).collect();
            patches.push(owners_patch(&pod.metadata, owners));
            claimed.push(pod);
        }
    }
    if !patches.is_empty() {
        plan.steps.push(Step::All(patches));
    }
    claimed.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    claimed
}

fn owners_patch(m: &ObjectMeta, owners: Vec<&OwnerReference>) -> Write {
    let owners = if owners.is_empty() { serde_json::Value::Null } else { to_value(&owners) };
    let patch = json!({"metadata": {"ownerReferences": owners, "uid": m.uid, "resourceVersion": m.resource_version}});
    Op::Patch { resource: resources::PODS, name: name_of(m), subresource: None, patch }.into()
}

/// Creates what is missing or deletes what is too much.
fn manage(cx: &Context<'_>, rs: &ReplicaSet, active: &[&Arc<Pod>], diff: i64) -> Option<Step> {
    if diff < 0 {
        let template = rs.spec.template.clone().unwrap_or_default();
        let from = template.metadata.unwrap_or_default();
        let pod = Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", rs.metadata.name.as_deref().unwrap_or_default())),
                namespace: rs.metadata.namespace.clone(),
                labels: from.labels,
                annotations: from.annotations,
                finalizers: from.finalizers,
                owner_references: Some(vec![controller_ref(rs)]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            status: None,
        };
        let write = Write::from(Op::Create { resource: resources::PODS, object: to_value(&pod) })
            .ok(note(rs, COMPONENT, "Normal", "SuccessfulCreate", "Created pod: {name}"))
            .err(note(rs, COMPONENT, "Warning", "FailedCreate", "Error creating: {error}"));
        let n = usize::try_from(-diff).unwrap_or(BURST).min(BURST);
        return Some(Step::SlowStart(vec![write; n]));
    }
    if diff == 0 {
        return None;
    }
    let n = usize::try_from(diff).unwrap_or(BURST).min(BURST).min(active.len());
    let ranks = related_per_node(cx.world, rs);
    let mut victims: Vec<_> = active.iter().map(|p| (removal_rank(p, &ranks, cx.now), *p)).collect();
    victims.sort_by(|a, b| a.0.cmp(&b.0));
    let writes = victims.into_iter().take(n).map(|(_, pod)| {
        let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        let name = name_of(&pod.metadata);
        let deleted = format!("Deleted pod: {}", name.name);
        Write::from(Op::Delete { resource: resources::PODS, name, options })
            .ok(note(rs, COMPONENT, "Normal", "SuccessfulDelete", deleted))
            .err(note(rs, COMPONENT, "Warning", "FailedDelete", "Error deleting: {error}"))
    });
    Some(Step::All(writes.collect()))
}

/// Active pods per node of this set and its siblings (sets of the same controller).
fn related_per_node(world: &World, rs: &ReplicaSet) -> BTreeMap<String, usize> {
    let mut uids = vec![uid(&rs.metadata).to_owned()];
    if let Some(owner) = controller_of(&rs.metadata) {
        let siblings = world.replica_sets_by_controller.get(&owner.uid).filter_map(|n| world.replica_sets.get(n));
        uids = siblings.map(|s| uid(&s.metadata).to_owned()).collect();
    }
    let mut per_node = BTreeMap::new();
    for u in &uids {
        for pod in world.pods_of(u).filter(|p| pod_active(p)) {
            if let Some(node) = pod_node(pod) {
                *per_node.entry(node.to_owned()).or_insert(0) += 1;
            }
        }
    }
    per_node
}

/// Smaller is deleted sooner: unassigned, pending, not ready, cheap, crowded,
/// ready for a shorter time, restarted more often, younger. Times are compared
/// by order of magnitude, and the uid decides between equals.
fn removal_rank(pod: &Pod, per_node: &BTreeMap<String, usize>, now: Wall) -> impl Ord + use<> {
    let phase = match pod_phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = pod_ready(pod);
    let cost: i32 = annotation(&pod.metadata, "controller.kubernetes.io/pod-deletion-cost")
        .and_then(|c| c.parse().ok())
        .unwrap_or(0);
    let crowd = pod_node(pod).and_then(|n| per_node.get(n)).copied().unwrap_or(0);
    let magnitude = |since: i64| {
        let age = now.secs() - since;
        if age <= 0 { -1 } else { i64::from((age as u64).ilog2()) }
    };
    let ready_since = if ready {
        pod_condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref()).map_or(-2, |t| magnitude(secs(t)))
    } else {
        0
    };
    let restarts = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten()))
        .map(|c| c.restart_count)
        .max()
        .unwrap_or(0);
    (
        (pod_node(pod).is_some(), phase, ready, cost, Reverse(crowd)),
        (ready_since, Reverse(restarts), magnitude(created(&pod.metadata)), uid(&pod.metadata).to_owned()),
    )
}

fn status(cx: &Context<'_>, rs: &ReplicaSet, active: &[&Arc<Pod>], terminating: usize, diff: i64) -> ReplicaSetStatus {
    let spec = &rs.spec;
    let template_labels =
        spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone()).unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let count = |f: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| f(p)).count() as i32;
    let positive = |n: i32| (n > 0).then_some(n);
    let mut conditions = rs.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let failed = cx.failure.filter(|e| matches!(e, WriteError::Other(_)) && diff != 0);
    let has = conditions.iter().any(|c| c.type_.as_deref() == Some("ReplicaFailure"));
    match failed {
        Some(error) if !has => conditions.push(ReplicaSetCondition {
            type_: Some("ReplicaFailure".into()),
            status: Some("True".into()),
            reason: Some(if diff < 0 { "FailedCreate" } else { "FailedDelete" }.into()),
            message: Some(error.to_string()),
            last_transition_time: Some(time(cx.now)),
        }),
        None if has => conditions.retain(|c| c.type_.as_deref() != Some("ReplicaFailure")),
        _ => {}
    }
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: positive(count(&|p| selector::subset(&template_labels, p.metadata.labels.as_ref()))),
        ready_replicas: positive(count(&pod_ready)),
        available_replicas: positive(count(&|p| pod_available(p, min_ready, cx.now).is_ok())),
        terminating_replicas: Some(terminating as i32),
        observed_generation: rs.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn rs(replicas: i32) -> serde_json::Value {
        json!({"metadata": {"name": "web", "namespace": "d", "uid": "rs-1", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    }

    fn pod(name: &str, owner: Option<&str>, extra: serde_json::Value) -> serde_json::Value {
        let mut p = json!({"metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": []}, "status": {"phase": "Running"}});
        if let Some(u) = owner {
            p["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": u, "controller": true}]);
        }
        crate::testing::merge(&mut p, &extra);
        p
    }

    fn key() -> Key {
        Key::new(resources::REPLICA_SETS, Name::new("d", "web"))
    }

    #[test]
    fn missing_pods_are_created_in_slow_start_with_owner_and_events() {
        let plan = Fixture::new().put(resources::REPLICA_SETS, rs(3)).reconcile(&ReplicaSets, &key());
        let Step::SlowStart(writes) = &plan.steps[0] else { panic!("{plan:?}") };
        assert_eq!(writes.len(), 3);
        let Op::Create { object, .. } = &writes[0].op else { panic!() };
        assert_eq!(object["metadata"]["generateName"], "web-");
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "rs-1");
        assert_eq!(writes[0].on_ok.as_ref().unwrap().message, "Created pod: {name}");
        let Step::Sequence(s) = &plan.steps[1] else { panic!() };
        let Op::UpdateSub { object, subresource: "status", .. } = &s[0].op else { panic!() };
        assert_eq!(object["status"], json!({"replicas": 0, "observedGeneration": 1, "terminatingReplicas": 0}));
    }

    #[test]
    fn too_many_pods_lose_the_unassigned_then_the_unready_first() {
        let ready =
            json!({"spec": {"nodeName": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let plan = Fixture::new()
            .put(resources::REPLICA_SETS, rs(1))
            .put(resources::PODS, pod("a", Some("rs-1"), ready))
            .put(resources::PODS, pod("b", Some("rs-1"), json!({"spec": {"nodeName": "n1"}})))
            .put(resources::PODS, pod("c", Some("rs-1"), json!({})))
            .reconcile(&ReplicaSets, &key());
        let Step::All(writes) = &plan.steps[0] else { panic!("{plan:?}") };
        let gone: Vec<_> = writes.iter().map(|w| w.on_ok.as_ref().unwrap().message.as_str()).collect();
        assert_eq!(gone, ["Deleted pod: c", "Deleted pod: b"]);
    }

    #[test]
    fn orphans_that_match_are_adopted_and_own_pods_that_do_not_are_released() {
        let plan = Fixture::new()
            .put(resources::REPLICA_SETS, rs(1))
            .put(resources::PODS, pod("a", None, json!({})))
            .put(resources::PODS, pod("b", Some("rs-1"), json!({"metadata": {"labels": {"app": "other"}}})))
            .reconcile(&ReplicaSets, &key());
        let Step::All(writes) = &plan.steps[0] else { panic!("{plan:?}") };
        let owners: Vec<_> = writes
            .iter()
            .map(|w| match &w.op {
                Op::Patch { name, patch, .. } => (name.name.to_string(), patch["metadata"]["ownerReferences"].clone()),
                o => panic!("{o:?}"),
            })
            .collect();
        assert_eq!(owners[0], ("b".into(), serde_json::Value::Null));
        assert_eq!((owners[1].0.as_str(), &owners[1].1[0]["uid"]), ("a", &json!("rs-1")));
        assert_eq!(plan.steps.len(), 2, "adopted pods count: nothing is created");
    }

    #[test]
    fn a_failed_creation_is_told_in_the_status_before_the_retry() {
        let f = Fixture::new().put(resources::REPLICA_SETS, rs(2));
        let plan = f.reconcile_after(&ReplicaSets, &key(), WriteError::Other("quota".into()));
        let Step::Sequence(s) = &plan.steps[0] else { panic!("{plan:?}") };
        let Op::UpdateSub { object, .. } = &s[0].op else { panic!() };
        let c = &object["status"]["conditions"][0];
        assert_eq!(
            (&c["type"], &c["reason"], &c["message"]),
            (&json!("ReplicaFailure"), &json!("FailedCreate"), &json!("quota"))
        );
        assert!(matches!(plan.steps[1], Step::SlowStart(_)));
    }

    #[test]
    fn nothing_is_written_when_nothing_changes() {
        let mut set = rs(1);
        set["status"] =
            json!({"replicas": 1, "fullyLabeledReplicas": 1, "observedGeneration": 1, "terminatingReplicas": 0});
        let plan = Fixture::new()
            .put(resources::REPLICA_SETS, set)
            .put(resources::PODS, pod("a", Some("rs-1"), json!({})))
            .reconcile(&ReplicaSets, &key());
        assert!(plan.is_empty(), "{plan:?}");
    }
}
