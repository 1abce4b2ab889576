//! Hollow nodes against a gateway in memory: joining a session, running what is
//! assigned, reporting it, and living through the loss of replicas.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Gateway, Line, pod, until};
use serde_json::json;
use triarch_agent::node::ledger::Ledger;
use triarch_agent::node::{Events, Node, Parts, Shared};
use triarch_agent::session::run;
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_kubelet::ports::{HollowHost, NodeConfig};
use triarch_kubelet::probe::HollowDialer;
use triarch_kubelet::runtime::Runtime;
use triarch_kubelet::runtime::hollow::HollowRuntime;

struct Agent {
    node: Arc<Node>,
    scope: Scope,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

fn agent(gateway: &Arc<Gateway>, runtime: Arc<HollowRuntime>, dir: Option<&Path>) -> Agent {
    let env = Env::new(TokioRuntime::current());
    let config = NodeConfig {
        name: "hollow-0001".into(),
        ips: vec!["192.0.2.1".into()],
        runtime_name: "hollow".into(),
        relist: Duration::from_secs(60),
        ..Default::default()
    };
    let parts = Parts {
        env: env.clone(),
        config,
        boot_id: "b".into(),
        runtime,
        dialer: Arc::new(HollowDialer),
        ledger: dir.map(|d| Ledger::open(d).expect("opens")),
        events: Events::All,
        without: vec![],
    };
    let scope = Scope::new();
    let shared = Shared::new(&env);
    let node = Node::start(parts, shared, Arc::new(HollowHost), scope.clone());
    node.set_node_json(Bytes::from_static(b"{}"));
    env.spawn_in(&scope, "session", run::keep(node.clone(), Arc::new(Line(gateway.clone())), scope.clone()));
    Agent { node, scope }
}

fn runtime() -> Arc<HollowRuntime> {
    HollowRuntime::new(Env::new(TokioRuntime::current()), 1)
}

#[tokio::test]
async fn assigned_pods_run_and_their_statuses_reach_the_control_plane() {
    let g = Gateway::new();
    g.0.lock().pods.insert("p".into(), pod("p"));
    let a = agent(&g, runtime(), None);
    until("p runs", || g.phase("p") == "Running").await;
    g.put("q", pod("q"));
    until("q runs", || g.phase("q") == "Running").await;
    until("the delta is acknowledged", || g.0.lock().acked == 11).await;
    until("heartbeats", || g.0.lock().heartbeats > 2).await;
    until("events", || g.0.lock().events.iter().any(|e| e["reason"] == "Started")).await;
    assert!(a.node.is_connected());
    assert_eq!(g.0.lock().hellos[0].0, 1, "the replica that answers");
}

#[tokio::test]
async fn a_status_that_somebody_else_changed_is_reported_as_it_is_again() {
    let g = Gateway::new();
    g.0.lock().pods.insert("p".into(), pod("p"));
    let _a = agent(&g, runtime(), None);
    until("p runs", || g.phase("p") == "Running").await;
    let ready = |g: &Gateway| {
        let p = g.0.lock();
        let all = p.pods["p"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    until("p is ready", || ready(&g)).await;
    // As the node controller does with the pods of a node that it cannot hear.
    let mut told = g.0.lock().pods["p"].clone();
    for c in told["status"]["conditions"].as_array_mut().expect("conditions") {
        if c["type"] == "Ready" {
            c["status"] = "False".into();
        }
    }
    g.put("p", told);
    assert!(!ready(&g));
    until("p is ready again", || ready(&g)).await;
}

#[tokio::test]
async fn a_deleted_pod_is_reported_ended_and_forgotten_when_its_object_goes() {
    let g = Gateway::new();
    g.0.lock().pods.insert("p".into(), pod("p"));
    let (rt, deleted) = (runtime(), {
        let mut p = pod("p");
        p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        p["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        p
    });
    let a = agent(&g, rt.clone(), None);
    until("p runs", || g.phase("p") == "Running").await;
    g.put("p", deleted);
    until("p has ended", || g.0.lock().statuses["p"].1).await;
    assert!(rt.list().await.expect("lists").is_empty());
    g.remove("p");
    until("p is forgotten", || a.node.kubelet().is_empty()).await;
}

#[tokio::test]
async fn pods_go_on_while_no_replica_answers_and_what_happened_is_told_afterwards() {
    let g = Gateway::new();
    g.0.lock().pods.insert("p".into(), pod("p"));
    let rt = runtime();
    let _a = agent(&g, rt.clone(), None);
    until("p runs", || g.phase("p") == "Running").await;
    g.fail(true);
    let id = rt.list().await.expect("lists")[0].containers[0].id.clone();
    rt.exit(&id, 9, "Error");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let seen = rt.list().await.expect("lists");
    assert_eq!(seen[0].containers[0].restart_count, 1, "restarted with nobody to tell");
    g.fail(false);
    let restarts = || g.0.lock().statuses["p"].0["containerStatuses"][0]["restartCount"].as_i64();
    until("the restart is told", || restarts() == Some(1)).await;
}

#[tokio::test]
async fn an_agent_boots_its_pods_from_the_ledger_with_no_replica_answering() {
    let dir = tempfile::tempdir().expect("a folder");
    let g = Gateway::new();
    g.0.lock().pods.insert("p".into(), pod("p"));
    let first = agent(&g, runtime(), Some(dir.path()));
    until("p runs", || g.phase("p") == "Running").await;
    drop(first);
    g.fail(true);
    // The machine came up again: an empty runtime, and nobody to ask.
    let rt = runtime();
    let second = agent(&g, rt.clone(), Some(dir.path()));
    for _ in 0..1000 {
        if rt.list().await.expect("lists").iter().any(|p| p.running().next().is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rt.list().await.expect("lists")[0].name, "p");
    assert!(!second.node.is_connected());
    g.fail(false);
    until("connected", || second.node.is_connected()).await;
    assert_eq!(g.0.lock().hellos.last().expect("one").1.ledger_revision, 10);
}

#[tokio::test]
async fn an_older_replica_is_not_believed() {
    let g = Gateway::new();
    g.0.lock().pods.insert("p".into(), pod("p"));
    let rt = runtime();
    let a = agent(&g, rt.clone(), None);
    until("p runs", || g.phase("p") == "Running").await;
    {
        let mut p = g.0.lock();
        p.pods.clear();
        p.revision = 5;
        p.sessions.clear();
    }
    until("another session was tried", || g.0.lock().hellos.len() >= 3).await;
    assert_eq!((a.node.position(), a.node.kubelet().len()), ((1, 10), 1), "the pod stays");
}

#[tokio::test]
async fn a_thousand_pods_come_up_on_many_nodes_in_one_process() {
    let env = Env::new(TokioRuntime::current());
    let mut all = Vec::new();
    for i in 0..50 {
        let g = Gateway::new();
        for p in 0..20 {
            g.0.lock().pods.insert(format!("p{p}"), pod(&format!("p{p}")));
        }
        let a = agent(&g, HollowRuntime::new(env.clone(), i), None);
        all.push((g, a));
    }
    for (g, _) in &all {
        until("all run", || {
            let p = g.0.lock();
            p.statuses.len() == 20 && p.statuses.values().all(|(s, _)| s["phase"] == "Running")
        })
        .await;
        let p = g.0.lock();
        let ips: std::collections::BTreeSet<_> = p.statuses.values().map(|(s, _)| s["podIP"].to_string()).collect();
        assert_eq!(ips.len(), 20, "every pod has an address of its own");
    }
}
