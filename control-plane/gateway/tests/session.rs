//! A session with an agent over the real registry, without a transport.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_gateway::session::{self, Settings, Shared};
use triarch_gateway::{Board, Liveness};
use triarch_mvcc::{Key, Limits, LocalDb};
use triarch_registry::{KindTable, Registry, RequestContext};
use triarch_rpc::node::agent_message::Body;
use triarch_rpc::node::{AgentMessage, Heartbeat, Hello};

fn shared() -> Shared {
    let env = Env::new(TokioRuntime::current());
    let db = LocalDb::new(Limits::default());
    let table = KindTable::new(triarch_kinds::KINDS);
    let registry = Registry::new(db, env.clone(), table, Arc::new(triarch_admission::Chain));
    let board = Board::new(registry.mvcc().clone());
    board.start(&env, &Scope::new());
    Shared {
        liveness: Arc::new(Liveness::new(env.clone())),
        board,
        registry,
        settings: Arc::new(Settings::default),
        term: Arc::new(|| 1),
        env,
    }
}

fn ready(shared: &Shared) -> Value {
    let Some(stored) = shared.registry.mvcc().get(&Key::new("nodes", "", "n1")) else { return Value::Null };
    let node = triarch_gateway::node_set::value(&stored);
    let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|c| c["type"] == "Ready").map_or(Value::Null, |c| c["status"].clone())
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..4000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_node_that_was_taken_for_lost_while_its_session_lived_is_ready_again_with_its_next_heartbeat() {
    let shared = shared();
    let (agent, inbound) = mpsc::channel::<AgentMessage>(8);
    let (out, mut answers) = mpsc::channel(64);
    let inbound =
        futures::stream::unfold(inbound, |mut rx| async move { rx.recv().await.map(|m| (Ok::<_, Infallible>(m), rx)) });
    tokio::spawn(async move { while answers.recv().await.is_some() {} });
    let running = shared.clone();
    tokio::spawn(async move { session::run(running, Scope::new(), |n| n == "n1", inbound.boxed(), out).await });
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    let hello = Hello { node_name: "n1".into(), node_json: node.to_string().into(), ..Hello::default() };
    agent.send(AgentMessage { body: Some(Body::Hello(hello)) }).await.unwrap();
    until("registered", || ready(&shared) == "True").await;

    // What the node controller writes of a node that its leader has not heard.
    let client = shared.registry.client(RequestContext::component("system:kube-controller-manager", None));
    let mut lost = client.get(client.kind("v1", "Node").unwrap(), "", "n1").await.unwrap();
    lost["status"]["conditions"][0]["status"] = "Unknown".into();
    lost["status"]["conditions"][0]["reason"] = "NodeStatusUnknown".into();
    client.update_status(lost).await.unwrap();
    assert_eq!(ready(&shared), "Unknown");

    agent.send(AgentMessage { body: Some(Body::Heartbeat(Heartbeat::default())) }).await.unwrap();
    until("ready again", || ready(&shared) == "True").await;
}
