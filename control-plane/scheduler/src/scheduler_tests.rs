//! The loop over a real store, with the manager's snapshot and recorder.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use triarch_controllers::testing::FakeApi;
use triarch_controllers::{Manager, Name, Op, Setup, WriteError, Writer, resources};
use triarch_env::{Env, Scope, TokioRuntime};

use super::Scheduler;

fn start(api: &Arc<FakeApi>) -> Scope {
    let (env, scope) = (Env::new(TokioRuntime::current()), Scope::new());
    let scheduler = Scheduler::new();
    let manager = Manager::start(Setup {
        env: env.clone(),
        scope: scope.clone(),
        mvcc: api.mvcc().clone(),
        writer: api.clone(),
        kinds: resources::known(),
        controllers: Vec::new(),
        listeners: vec![scheduler.clone()],
    });
    scheduler.start(&env, &scope, manager.feed().clone(), api.clone(), manager.recorder().clone());
    scope
}

async fn eventually(what: impl Fn() -> bool) {
    for _ in 0..3000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come true");
}

fn node(name: &str, pods: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": pods.to_string()}}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "d"},
        "spec": {"containers": [{"name": "c"}]}})
}

fn bound(api: &FakeApi) -> Vec<String> {
    api.list(resources::PODS).iter().filter_map(|p| p["spec"]["nodeName"].as_str().map(str::to_owned)).collect()
}

fn events(api: &FakeApi, reason: &str) -> Vec<String> {
    let all = api.list(resources::EVENTS);
    all.iter().filter(|e| e["reason"] == reason).map(|e| e["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pods_get_nodes_each_once_and_no_node_gets_more_than_it_takes() {
    let api = FakeApi::new();
    for i in 0..4 {
        api.create(resources::NODES, node(&format!("n{i}"), 50)).await;
    }
    let scope = start(&api);
    for i in 0..200 {
        api.create(resources::PODS, pod(&format!("p{i}"))).await;
    }
    eventually(|| bound(&api).len() == 200).await;
    let mut on = bound(&api);
    on.sort();
    for i in 0..4 {
        assert_eq!(on.iter().filter(|n| **n == format!("n{i}")).count(), 50);
    }
    eventually(|| !events(&api, "Scheduled").is_empty()).await;
    assert!(
        events(&api, "Scheduled").iter().any(|m| m.starts_with("Successfully assigned d/p") && m.contains(" to n"))
    );
    let binds = api.log().iter().filter(|o| matches!(o, Op::Bind { .. })).count();
    assert_eq!(binds, 200);
    scope.cancel();
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_is_told_why_and_goes_when_a_node_comes() {
    let api = FakeApi::new();
    api.create(resources::NODES, node("n0", 0)).await;
    let scope = start(&api);
    api.create(resources::PODS, pod("p")).await;
    let condition = || api.get(resources::PODS, "d", "p").unwrap()["status"]["conditions"][0].clone();
    eventually(|| condition()["reason"] == "Unschedulable").await;
    let told = "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!((condition()["message"].as_str(), condition()["status"].as_str()), (Some(told), Some("False")));
    eventually(|| events(&api, "FailedScheduling") == [told]).await;
    api.create(resources::NODES, node("n1", 5)).await;
    eventually(|| bound(&api) == ["n1"]).await;
    scope.cancel();
}

#[tokio::test]
async fn a_binding_that_fails_gives_its_place_back() {
    let api = FakeApi::new();
    let mut left = 1;
    api.refuse(move |op| match op {
        Op::Bind { .. } if left > 0 => {
            left -= 1;
            Some(WriteError::Other("no".into()))
        }
        _ => None,
    });
    api.create(resources::NODES, node("n0", 1)).await;
    let scope = start(&api);
    api.create(resources::PODS, pod("p")).await;
    eventually(|| bound(&api) == ["n0"]).await;
    scope.cancel();
}

#[tokio::test]
async fn a_deleted_pod_makes_room_for_the_next() {
    let api = FakeApi::new();
    api.create(resources::NODES, node("n0", 1)).await;
    let scope = start(&api);
    api.create(resources::PODS, pod("a")).await;
    eventually(|| bound(&api).len() == 1).await;
    api.create(resources::PODS, pod("b")).await;
    eventually(|| api.get(resources::PODS, "d", "b").unwrap()["status"]["conditions"].is_array()).await;
    let name = Name::new("d", "a");
    api.write(&Op::Delete { resource: resources::PODS, name, options: Default::default() }).await.unwrap();
    eventually(|| api.get(resources::PODS, "d", "b").unwrap()["spec"]["nodeName"] == "n0").await;
    scope.cancel();
}
