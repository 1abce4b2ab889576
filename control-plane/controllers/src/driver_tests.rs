//! The driver over a real store: reconcilers together, failures, epochs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use triarch_env::{Env, Scope, TokioRuntime};

use super::*;
use crate::testing::FakeApi;
use crate::{Name, Op, resources};

fn start(api: &Arc<FakeApi>, scope: &Scope, controllers: Vec<Arc<dyn Controller>>) -> (Env, Manager) {
    let env = Env::new(TokioRuntime::current());
    let manager = Manager::start(Setup {
        env: env.clone(),
        scope: scope.clone(),
        mvcc: api.mvcc().clone(),
        writer: api.clone(),
        kinds: resources::known(),
        controllers,
        listeners: Vec::new(),
    });
    (env, manager)
}

/// Waits until `what` holds; the bound is only there to fail instead of hang.
async fn eventually(what: impl Fn() -> bool) {
    for _ in 0..3000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come true");
}

fn deployment(replicas: i32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Makes every pod that is not ready ready, and removes those that are being
/// deleted, as kubelets would.
async fn kubelet(api: &FakeApi) {
    for p in api.list(resources::PODS) {
        if p["status"]["phase"].is_null() {
            let name = p["metadata"]["name"].as_str().unwrap();
            let ready = json!({"status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            let name = Name::new("d", name);
            let _ = api.write(&Op::Patch { resource: resources::PODS, name, subresource: None, patch: ready }).await;
        }
    }
}

#[tokio::test]
async fn a_deployment_rolls_from_one_image_to_the_next_and_its_pods_follow() {
    let api = FakeApi::new();
    let scope = Scope::new();
    let controllers: Vec<Arc<dyn Controller>> = vec![
        Arc::new(crate::controllers::deployment::Deployments),
        Arc::new(crate::controllers::replicaset::ReplicaSets),
        Arc::new(crate::controllers::garbage_collector::GarbageCollector),
    ];
    let (_env, _manager) = start(&api, &scope, controllers);
    api.create(resources::DEPLOYMENTS, deployment(3, "v1")).await;
    let images = |api: &FakeApi| -> Vec<String> {
        let mut all: Vec<String> = api
            .list(resources::PODS)
            .iter()
            .map(|p| p["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    eventually(|| images(&api) == ["v1"; 3]).await;
    kubelet(&api).await;
    let complete = |api: &FakeApi| {
        let d = api.get(resources::DEPLOYMENTS, "d", "web").unwrap_or_default();
        d["status"]["availableReplicas"] == 3
            && d["status"]["updatedReplicas"] == 3
            && d["status"]["replicas"] == 3
            && d["status"]["observedGeneration"] == d["metadata"]["generation"]
            && d["status"]["conditions"]
                .as_array()
                .is_some_and(|c| c.iter().any(|c| c["reason"] == "NewReplicaSetAvailable"))
    };
    eventually(|| complete(&api)).await;
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    api.edit(resources::DEPLOYMENTS, "d", "web", template).await;
    for _ in 0..1000 {
        kubelet(&api).await;
        if images(&api) == ["v2"; 3] && complete(&api) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(images(&api), ["v2"; 3]);
    let d = api.get(resources::DEPLOYMENTS, "d", "web").unwrap();
    assert_eq!(d["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    eventually(|| {
        let events: Vec<String> = api
            .list(resources::EVENTS)
            .iter()
            .filter(|e| e["reason"] == "ScalingReplicaSet")
            .map(|e| e["message"].to_string())
            .collect();
        events.iter().any(|m| m.contains("from 0 to 3")) && events.iter().any(|m| m.contains("from 1 to 0"))
    })
    .await;
    // Deleting the Deployment takes its sets and pods with it.
    let options = crate::DeleteOptions::default();
    api.write(&Op::Delete { resource: resources::DEPLOYMENTS, name: Name::new("d", "web"), options }).await.unwrap();
    eventually(|| api.list(resources::PODS).is_empty() && api.list(resources::REPLICA_SETS).is_empty()).await;
    scope.cancel();
}

#[tokio::test]
async fn exactly_as_many_pods_are_created_as_are_missing_however_slow_the_snapshot() {
    let api = FakeApi::new();
    let scope = Scope::new();
    let (_env, _manager) = start(&api, &scope, vec![Arc::new(crate::controllers::replicaset::ReplicaSets)]);
    let mut rs = deployment(200, "v1");
    rs["kind"] = json!("ReplicaSet");
    api.create(resources::REPLICA_SETS, rs).await;
    eventually(|| api.get(resources::REPLICA_SETS, "d", "web").unwrap()["status"]["replicas"] == 200).await;
    let creates = api.log().iter().filter(|o| matches!(o, Op::Create { resource: resources::PODS, .. })).count();
    assert_eq!(creates, 200);
    scope.cancel();
}

#[tokio::test]
async fn a_full_quota_is_asked_a_few_times_and_not_for_every_pod() {
    let api = FakeApi::new();
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    api.refuse(move |op| match op {
        Op::Create { resource: resources::PODS, .. } if count.fetch_add(1, Ordering::SeqCst) < 3 => {
            Some(crate::WriteError::Other("exceeded quota".into()))
        }
        _ => None,
    });
    let scope = Scope::new();
    let (_env, _manager) = start(&api, &scope, vec![Arc::new(crate::controllers::replicaset::ReplicaSets)]);
    let mut rs = deployment(50, "v1");
    rs["kind"] = json!("ReplicaSet");
    api.create(resources::REPLICA_SETS, rs).await;
    eventually(|| api.list(resources::PODS).len() == 50).await;
    assert_eq!(tries.load(Ordering::SeqCst), 53, "one for each refusal, then all");
    eventually(|| {
        let rs = api.get(resources::REPLICA_SETS, "d", "web").unwrap();
        rs["status"]["replicas"] == 50 && rs["status"]["conditions"].is_null()
    })
    .await;
    let told = api.log().iter().any(|o| match o {
        Op::UpdateSub { object, .. } => object["status"]["conditions"][0]["message"] == "exceeded quota",
        _ => false,
    });
    assert!(told, "the failure was shown while it lasted");
    scope.cancel();
}

#[tokio::test]
async fn nothing_is_written_after_the_epochs_scope_has_ended() {
    let api = FakeApi::new();
    let scope = Scope::new();
    let (_env, manager) = start(&api, &scope, vec![Arc::new(crate::controllers::service_account::ServiceAccounts)]);
    let ns = |n: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}});
    api.create(resources::NAMESPACES, ns("a")).await;
    eventually(|| api.get(resources::SERVICE_ACCOUNTS, "a", "default").is_some()).await;
    scope.cancel();
    tokio::task::yield_now().await;
    let before = api.log().len();
    api.create(resources::NAMESPACES, ns("b")).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.log().len(), before + 1);
    assert!(manager.feed().revision() < api.mvcc().revision());
}

#[tokio::test]
async fn the_snapshot_holds_what_was_there_before_and_follows_every_kind_in_one_order() {
    let api = FakeApi::new();
    api.create(resources::NODES, json!({"metadata": {"name": "n1"}})).await;
    let scope = Scope::new();
    let (_env, manager) = start(&api, &scope, Vec::new());
    let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": []}});
    api.create(resources::PODS, pod).await;
    api.write(&Op::Bind { name: Name::new("d", "p"), uid: String::new(), node: "n1".into() }).await.unwrap();
    eventually(|| manager.feed().revision() == api.mvcc().revision()).await;
    let world = manager.feed().world();
    assert_eq!((world.nodes.len(), world.pods_on("n1").count()), (1, 1));
    let rv = world.pods.values().next().unwrap().metadata.resource_version.clone();
    assert_eq!(rv, Some(world.revision.to_string()));
    scope.cancel();
}
