//! A control plane in memory for the agent's tests: it assigns what a test says,
//! stores what nodes report and opens the tunnels that a test asks for.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use triarch_agent::session::{Inbound, Outbound, Uplink, UplinkError};
use triarch_rpc::node::agent_message::Body as Said;
use triarch_rpc::node::control_message::Body as Control;
use triarch_rpc::node::*;

/// A control plane that stores what nodes report and assigns what a test says.
#[derive(Default)]
pub struct Gateway(pub Mutex<Plane>);

#[derive(Default)]
pub struct Plane {
    pub down: bool,
    pub term: u64,
    pub revision: u64,
    pub pods: BTreeMap<String, Value>,
    pub statuses: BTreeMap<String, (Value, bool)>,
    pub hellos: Vec<(usize, Hello)>,
    pub heartbeats: u64,
    pub acked: u64,
    pub events: Vec<Value>,
    pub sessions: Vec<mpsc::UnboundedSender<ControlMessage>>,
    /// Objects besides pods, by resource, namespace and name.
    pub objects: BTreeMap<(String, String, String), Value>,
    tunnels: Vec<mpsc::UnboundedSender<TunnelOpen>>,
    /// Open tunnels by id: what the agent sends, and the way to it.
    waiting: BTreeMap<String, mpsc::UnboundedSender<(Outbound<TunnelFrame>, mpsc::UnboundedSender<TunnelFrame>)>>,
}

fn message(body: Control) -> ControlMessage {
    ControlMessage { body: Some(body) }
}

fn object(resource: &str, namespace: &str, name: &str, object: &Value) -> Item {
    let key = ItemKey { resource: resource.into(), namespace: namespace.into(), name: name.into() };
    Item { key: Some(key), revision: 0, json: serde_json::to_vec(object).expect("json").into() }
}

fn item(name: &str, object: &Value) -> Item {
    let key = ItemKey { resource: "pods".into(), namespace: "d".into(), name: name.into() };
    Item { key: Some(key), revision: 0, json: serde_json::to_vec(object).expect("json").into() }
}

pub fn pod(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}"), "generation": 1},
        "spec": {"containers": [{"name": "c", "image": "web:1"}]}})
}

impl Plane {
    fn assign(&self) -> ControlMessage {
        let other = self.objects.iter().map(|((r, ns, n), o)| object(r, ns, n, o));
        let items = self.pods.iter().map(|(n, o)| item(n, o)).chain(other).collect();
        message(Control::Assign(Assign { term: self.term, revision: self.revision, items, last: true }))
    }

    fn tell(&mut self, m: ControlMessage) {
        self.sessions.retain(|s| s.send(m.clone()).is_ok());
    }
}

impl Gateway {
    pub fn new() -> Arc<Gateway> {
        let plane = Plane { term: 1, revision: 10, ..Default::default() };
        Arc::new(Gateway(Mutex::new(plane)))
    }

    pub fn put(&self, name: &str, object: Value) {
        let mut p = self.0.lock();
        p.revision += 1;
        p.pods.insert(name.into(), object.clone());
        let delta = Delta { term: p.term, revision: p.revision, upserts: vec![item(name, &object)], removals: vec![] };
        p.tell(message(Control::Delta(delta)));
    }

    /// Assigns an object that is no pod.
    pub fn set(&self, resource: &str, name: &str, value: Value) {
        let mut p = self.0.lock();
        p.revision += 1;
        let upserts = vec![object(resource, "d", name, &value)];
        p.objects.insert((resource.into(), "d".into(), name.into()), value);
        let delta = Delta { term: p.term, revision: p.revision, upserts, removals: vec![] };
        p.tell(message(Control::Delta(delta)));
    }

    /// Asks the agent for a tunnel and waits for it.
    pub async fn tunnel(&self, kind: tunnel_open::Kind) -> (Outbound<TunnelFrame>, mpsc::UnboundedSender<TunnelFrame>) {
        let (tx, mut rx) = mpsc::unbounded_channel();
        {
            let mut p = self.0.lock();
            let id = format!("t{}", p.waiting.len());
            p.waiting.insert(id.clone(), tx);
            let open = TunnelOpen { id, kind: Some(kind) };
            p.tunnels.retain(|t| t.send(open.clone()).is_ok());
        }
        rx.recv().await.expect("the agent opens the tunnel")
    }

    pub fn remove(&self, name: &str) {
        let mut p = self.0.lock();
        p.revision += 1;
        p.pods.remove(name);
        let key = ItemKey { resource: "pods".into(), namespace: "d".into(), name: name.into() };
        let delta = Delta { term: p.term, revision: p.revision, upserts: vec![], removals: vec![key] };
        p.tell(message(Control::Delta(delta)));
    }

    pub fn fail(&self, down: bool) {
        let mut p = self.0.lock();
        p.down = down;
        p.sessions.clear();
    }

    pub fn phase(&self, name: &str) -> String {
        let p = self.0.lock();
        p.statuses.get(name).and_then(|(s, _)| s["phase"].as_str()).unwrap_or_default().to_owned()
    }

    fn hear(&self, said: Said, to: &mpsc::UnboundedSender<ControlMessage>) {
        let mut p = self.0.lock();
        match said {
            Said::Heartbeat(h) => {
                p.heartbeats += 1;
                let _ = to.send(message(Control::HeartbeatAck(HeartbeatAck { sequence: h.sequence })));
            }
            Said::Status(batch) => {
                for s in batch.pods {
                    let status: Value = serde_json::from_slice(&s.status_json).expect("a status");
                    if let Some(object) = p.pods.get_mut(&s.name) {
                        object["status"] = status.clone();
                    }
                    p.statuses.insert(s.name, (status, s.terminated));
                }
                let ack = StatusAck { sequence: batch.sequence, refused: vec![] };
                let _ = to.send(message(Control::StatusAck(ack)));
            }
            Said::Ack(a) => p.acked = a.revision,
            Said::Events(e) => {
                p.events.extend(e.events_json.iter().map(|b| serde_json::from_slice::<Value>(b).expect("an event")));
            }
            Said::Hello(_) | Said::Token(_) => {}
        }
    }
}

/// Replicas 0 and 1 of a gateway; replica 0 never answers.
pub struct Line(pub Arc<Gateway>);

#[async_trait]
impl Uplink for Line {
    fn replicas(&self) -> usize {
        2
    }

    async fn session(
        &self,
        replica: usize,
        _node: &str,
        mut outbound: Outbound<AgentMessage>,
    ) -> Result<Inbound<ControlMessage>, UplinkError> {
        if replica == 0 || self.0.0.lock().down {
            return Err(UplinkError::Unreachable("connection refused".into()));
        }
        let Some(Some(Said::Hello(hello))) = outbound.next().await.map(|m| m.body) else {
            return Err(UplinkError::Refused("no hello".into()));
        };
        let (tx, rx) = mpsc::unbounded_channel();
        {
            let mut p = self.0.0.lock();
            p.hellos.push((replica, hello));
            let welcome = Welcome { term: p.term, heartbeat_interval_ms: 100, ..Default::default() };
            let _ = tx.send(message(Control::Welcome(welcome)));
            let _ = tx.send(p.assign());
            p.sessions.push(tx.clone());
        }
        let gateway = self.0.clone();
        let weak = tx.downgrade();
        drop(tx);
        tokio::spawn(async move {
            while let Some(m) = outbound.next().await {
                let Some(tx) = weak.upgrade() else { return };
                gateway.hear(m.body.expect("a body"), &tx);
            }
        });
        Ok(futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|m| (Ok(m), rx)) }).boxed())
    }

    async fn tunnels(&self, replica: usize, _node: &str) -> Result<Inbound<TunnelOpen>, UplinkError> {
        if replica == 0 || self.0.0.lock().down {
            return Err(UplinkError::Unreachable("connection refused".into()));
        }
        let (tx, rx) = mpsc::unbounded_channel();
        self.0.0.lock().tunnels.push(tx);
        Ok(futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|m| (Ok(m), rx)) }).boxed())
    }

    async fn tunnel(
        &self,
        _replica: usize,
        _node: &str,
        mut outbound: Outbound<TunnelFrame>,
    ) -> Result<Inbound<TunnelFrame>, UplinkError> {
        let Some(Some(tunnel_frame::Body::Hello(hello))) = outbound.next().await.map(|f| f.body) else {
            return Err(UplinkError::Refused("no hello".into()));
        };
        let (tx, rx) = mpsc::unbounded_channel();
        if let Some(asked) = self.0.0.lock().waiting.remove(&hello.id) {
            let _ = asked.send((outbound, tx));
        }
        Ok(futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|m| (Ok(m), rx)) }).boxed())
    }
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
