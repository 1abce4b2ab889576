//! A Deployment through its life, objects in and writes out.

use super::*;
use crate::testing::{Fixture, merge};
use serde_json::Value;

fn key() -> Key {
    Key::new(resources::DEPLOYMENTS, Name::new("d", "web"))
}

fn deployment(extra: Value) -> Value {
    let mut d = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "dep-1", "generation": 1, "annotations": {"note": "x"}},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
    });
    merge(&mut d, &extra);
    d
}

/// A set of the Deployment at `image`, with `size` asked for and `available` there.
fn set(name: &str, image: &str, revision: u32, size: i32, available: i32, created: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "generation": 1, "creationTimestamp": created,
            "labels": {"app": "web", "pod-template-hash": name},
            "annotations": {"note": "x", REVISION: revision.to_string(), DESIRED: "4", MAX: "5"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "dep-1", "controller": true}]},
        "spec": {"replicas": size, "selector": {"matchLabels": {"app": "web", "pod-template-hash": name}},
            "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": name}},
                "spec": {"containers": [{"name": "c", "image": image}]}}},
        "status": {"replicas": size, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1},
    })
}

const T1: &str = "2020-01-01T00:00:00Z";
const T2: &str = "2020-01-02T00:00:00Z";

/// `(set, new size)` of each patch that resizes.
fn sizes(plan: &Plan) -> Vec<(String, i64)> {
    plan.writes()
        .filter_map(|w| match &w.op {
            Op::Patch { name, patch, resource: resources::REPLICA_SETS, .. } => {
                Some((name.name.to_string(), patch["spec"]["replicas"].as_i64()?))
            }
            _ => None,
        })
        .collect()
}

fn status(plan: &Plan) -> Option<Value> {
    plan.writes().find_map(|w| match &w.op {
        Op::UpdateSub { object, .. } => Some(object["status"].clone()),
        _ => None,
    })
}

fn reason<'a>(status: &'a Value, kind: &str) -> &'a str {
    let c = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap();
    c["reason"].as_str().unwrap()
}

#[test]
fn the_first_set_is_created_at_full_size_with_hash_revision_and_event() {
    let plan = Fixture::new().put(resources::DEPLOYMENTS, deployment(json!({}))).reconcile(&Deployments, &key());
    let w = plan.writes().next().unwrap();
    let Op::Create { object, .. } = &w.op else { panic!("{w:?}") };
    let name = object["metadata"]["name"].as_str().unwrap();
    let hash = name.strip_prefix("web-").unwrap();
    assert!(hash.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
    assert_eq!(object["spec"]["selector"]["matchLabels"]["pod-template-hash"], hash);
    assert_eq!(object["spec"]["template"]["metadata"]["labels"]["pod-template-hash"], hash);
    assert_eq!(object["metadata"]["annotations"], json!({"note": "x", REVISION: "1", DESIRED: "4", MAX: "5"}));
    assert_eq!(object["spec"]["replicas"], 4);
    assert_eq!(w.on_ok.as_ref().unwrap().message, format!("Scaled up replica set {name} from 0 to 4"));
    assert_eq!(reason(&status(&plan).unwrap(), "Progressing"), "NewReplicaSetCreated");
}

#[test]
fn a_new_template_gets_a_set_of_the_surge_and_then_the_old_one_shrinks() {
    let d = deployment(
        json!({"metadata": {"annotations": {REVISION: "1"}}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
    );
    let f = Fixture::new().put(resources::DEPLOYMENTS, d).put(resources::REPLICA_SETS, set("old", "v1", 1, 4, 4, T1));
    let plan = f.reconcile(&Deployments, &key());
    let Op::Create { object, .. } = &plan.writes().next().unwrap().op else { panic!("{plan:?}") };
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["annotations"][REVISION]), (&json!(1), &json!("2")));

    let d = deployment(
        json!({"metadata": {"annotations": {REVISION: "2"}}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
    );
    let f = f.put(resources::DEPLOYMENTS, d).put(resources::REPLICA_SETS, set("new", "v2", 2, 1, 0, T2));
    let plan = f.reconcile(&Deployments, &key());
    assert_eq!(sizes(&plan), [("old".to_owned(), 3)]);
    let down = plan.writes().next().unwrap().on_ok.clone().unwrap();
    assert_eq!(down.message, "Scaled down replica set old from 4 to 3");

    let f = f.put(resources::REPLICA_SETS, set("old", "v1", 1, 3, 3, T1));
    assert_eq!(sizes(&f.reconcile(&Deployments, &key())), [("new".to_owned(), 2)], "what the old set gave up");
}

#[test]
fn unavailable_old_pods_go_first_and_availability_is_kept() {
    let d = deployment(
        json!({"metadata": {"annotations": {REVISION: "2"}}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
    );
    let f = Fixture::new()
        .put(resources::DEPLOYMENTS, d)
        .put(resources::REPLICA_SETS, set("old", "v1", 1, 3, 2, T1))
        .put(resources::REPLICA_SETS, set("new", "v2", 2, 2, 1, T2));
    assert_eq!(sizes(&f.reconcile(&Deployments, &key())), [("old".to_owned(), 2)]);
}

#[test]
fn a_finished_rollout_says_so_and_drops_history_beyond_the_limit() {
    let d = deployment(json!({"metadata": {"annotations": {REVISION: "5"}}}));
    let mut f =
        Fixture::new().put(resources::DEPLOYMENTS, d).put(resources::REPLICA_SETS, set("cur", "v1", 5, 4, 4, T2));
    for i in 1..=4 {
        f.set(resources::REPLICA_SETS, set(&format!("h{i}"), &format!("old{i}"), i, 0, 0, T1));
    }
    let plan = f.reconcile(&Deployments, &key());
    let gone: Vec<_> = plan
        .writes()
        .filter_map(|w| match &w.op {
            Op::Delete { name, .. } => Some(name.name.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(gone, ["h1", "h2"]);
    let s = status(&plan).unwrap();
    assert_eq!(
        (reason(&s, "Progressing"), reason(&s, "Available")),
        ("NewReplicaSetAvailable", "MinimumReplicasAvailable")
    );
    assert_eq!((&s["replicas"], &s["updatedReplicas"], &s["availableReplicas"]), (&json!(4), &json!(4), &json!(4)));
}

#[test]
fn going_back_to_an_old_template_gives_its_set_the_next_revision_and_history() {
    let d = deployment(json!({"metadata": {"annotations": {REVISION: "2"}}}));
    let f = Fixture::new()
        .put(resources::DEPLOYMENTS, d)
        .put(resources::REPLICA_SETS, set("a", "v1", 1, 0, 0, T1))
        .put(resources::REPLICA_SETS, set("b", "v2", 2, 4, 4, T2));
    let plan = f.reconcile(&Deployments, &key());
    let Op::Patch { name, patch, .. } = &plan.writes().next().unwrap().op else { panic!("{plan:?}") };
    assert_eq!(&*name.name, "a");
    assert_eq!(patch["metadata"]["annotations"], json!({REVISION: "3", REVISION_HISTORY: "1"}));
}

#[test]
fn a_rollout_without_progress_times_out_and_is_looked_at_when_it_would() {
    let started = |at: &str| {
        json!({"metadata": {"annotations": {REVISION: "1"}}, "status": {"observedGeneration": 1, "replicas": 4, "updatedReplicas": 4,
            "unavailableReplicas": 4, "conditions": [
                {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": at, "lastTransitionTime": at}]}})
    };
    let make = |d: Value| {
        Fixture::new()
            .at(1_000_000)
            .put(resources::DEPLOYMENTS, d)
            .put(resources::REPLICA_SETS, set("a", "v1", 1, 4, 0, T1))
    };
    let fresh = make(deployment(started("1970-01-12T13:40:00Z"))); // 400 s ago
    assert_eq!(fresh.reconcile(&Deployments, &key()).requeue, [(key(), Duration::from_secs(201))]);
    let late = make(deployment(started("1970-01-12T13:30:00Z"))).reconcile(&Deployments, &key());
    assert_eq!(reason(&status(&late).unwrap(), "Progressing"), "ProgressDeadlineExceeded");
    assert!(late.requeue.is_empty());
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let d = deployment(
        json!({"metadata": {"annotations": {REVISION: "2"}}, "spec": {"replicas": 8, "template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
    );
    let f = Fixture::new()
        .put(resources::DEPLOYMENTS, d)
        .put(resources::REPLICA_SETS, set("old", "v1", 1, 3, 3, T1))
        .put(resources::REPLICA_SETS, set("new", "v2", 2, 2, 1, T2));
    let mut got = sizes(&f.reconcile(&Deployments, &key()));
    got.sort();
    assert_eq!(got, [("new".to_owned(), 4), ("old".to_owned(), 6)]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let d = deployment(json!({"metadata": {"annotations": {REVISION: "1"}}, "spec": {"paused": true, "replicas": 6,
        "template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}));
    let f = Fixture::new().put(resources::DEPLOYMENTS, d).put(resources::REPLICA_SETS, set("old", "v1", 1, 4, 4, T1));
    let plan = f.reconcile(&Deployments, &key());
    assert_eq!(sizes(&plan), [("old".to_owned(), 6)]);
    assert!(!plan.writes().any(|w| matches!(w.op, Op::Create { .. })));
    assert_eq!(reason(&status(&plan).unwrap(), "Progressing"), "DeploymentPaused");
}

#[test]
fn recreate_waits_for_every_old_pod() {
    let d = |image: &str| {
        let mut d = deployment(json!({"metadata": {"annotations": {REVISION: "1"}},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}));
        d["spec"]["strategy"] = json!({"type": "Recreate"});
        d
    };
    let mut f =
        Fixture::new().put(resources::DEPLOYMENTS, d("v2")).put(resources::REPLICA_SETS, set("old", "v1", 1, 4, 4, T1));
    assert_eq!(sizes(&f.reconcile(&Deployments, &key())), [("old".to_owned(), 0)]);
    f.set(resources::REPLICA_SETS, set("old", "v1", 1, 0, 0, T1));
    f.set(resources::PODS, json!({"metadata": {"name": "p", "namespace": "d", "uid": "p", "deletionTimestamp": T2,
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "old", "uid": "old", "controller": true}]}}));
    let waits = f.reconcile(&Deployments, &key());
    assert!(!waits.writes().any(|w| matches!(w.op, Op::Create { .. })), "{waits:?}");
    let gone = f.remove(resources::PODS, Name::new("d", "p"));
    f.set(resources::REPLICA_SETS, {
        let mut s = set("old", "v1", 1, 0, 0, T1);
        s["metadata"]["annotations"][DESIRED] = json!("4");
        s
    });
    let mut keys = Vec::new();
    Deployments.keys(&f.world, &gone, &mut keys);
    assert!(keys.is_empty() || keys == [key()]);
    let plan = f.reconcile(&Deployments, &key());
    let Some(Op::Create { object, .. }) = plan.writes().next().map(|w| &w.op) else { panic!("{plan:?}") };
    assert_eq!(object["spec"]["replicas"], 4);
}

#[test]
fn a_name_that_another_set_has_raises_the_collision_count() {
    let f = Fixture::new().put(resources::DEPLOYMENTS, deployment(json!({})));
    let Op::Create { object, .. } = &f.reconcile(&Deployments, &key()).writes().next().unwrap().op.clone() else {
        panic!()
    };
    let mut other = set(object["metadata"]["name"].as_str().unwrap(), "else", 1, 0, 0, T1);
    other["metadata"]["ownerReferences"][0]["uid"] = json!("somebody");
    let f = f.put(resources::REPLICA_SETS, other);
    let plan = f.reconcile_after(&Deployments, &key(), WriteError::AlreadyExists("x".into()));
    assert_eq!(status(&plan).unwrap()["collisionCount"], 1);
    assert!(!plan.writes().any(|w| matches!(w.op, Op::Create { .. })));
}
