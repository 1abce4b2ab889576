//! One node as the agent holds it: assignment, ledger, kubelet, outbox.
//!
//! Everything that the session brings goes through here, in this order: check,
//! ledger, objects, pods. Everything that pods say leaves through the outbox.

pub mod ledger;
pub mod store;
pub mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::{Env, Scope};
use triarch_kubelet::Kubelet;
use triarch_kubelet::model::{ContainerStatus, Pod, PodStatus};
use triarch_kubelet::ports::{Host, NodeConfig, NodeContext, Note, Reporter};
use triarch_kubelet::probe::Dialer;
use triarch_kubelet::runtime::Runtime;
use triarch_rpc::node::{Assign, Delta, PodStatusUpdate, Welcome};

use crate::net::host_ports;
use crate::session::assignment::{Assignment, Change, Refused};
use crate::session::events::Recorder;
use crate::session::outbox::Outbox;
use ledger::Ledger;
use store::Store;
use tokens::Tokens;

/// Which events a node reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    All,
    Warnings,
    None,
}

/// What a node is made of.
pub struct Parts {
    pub env: Env,
    pub config: NodeConfig,
    pub boot_id: String,
    pub runtime: Arc<dyn Runtime>,
    pub dialer: Arc<dyn Dialer>,
    pub ledger: Option<Ledger>,
    pub events: Events,
    /// Resources that the node has no use for.
    pub without: Vec<String>,
}

/// What exists before the node's disk does, because volumes need it.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<Store>,
    pub outbox: Arc<Outbox>,
    pub tokens: Arc<Tokens>,
}

impl Shared {
    pub fn new(env: &Env) -> Shared {
        let outbox = Arc::new(Outbox::new(env.clone()));
        Shared { store: Arc::default(), tokens: Arc::new(Tokens::new(env.clone(), outbox.clone())), outbox }
    }
}

pub struct Node {
    config: Arc<NodeConfig>,
    boot_id: String,
    kubelet: Arc<Kubelet>,
    shared: Shared,
    state: Mutex<State>,
    node_json: Mutex<Bytes>,
    without: Vec<String>,
    connected: AtomicBool,
    /// Wakes who waits for a Welcome's facts.
    pub welcomed: Notify,
    /// Wakes who watches how the node is: it may have changed.
    pub look: Notify,
    welcome: Mutex<Option<Welcome>>,
}

struct State {
    assignment: Assignment,
    ledger: Option<Ledger>,
}

impl Node {
    /// A node whose pods' tasks end with `scope`. What the ledger holds is
    /// taken up at once, before any replica answers.
    pub fn start(parts: Parts, shared: Shared, host: Arc<dyn Host>, scope: Scope) -> Arc<Node> {
        let config = Arc::new(parts.config);
        let reporter = Arc::new(NodeReporter {
            env: parts.env.clone(),
            node: config.name.clone(),
            outbox: shared.outbox.clone(),
            store: shared.store.clone(),
            recorder: Mutex::default(),
            events: parts.events,
        });
        let ctx = NodeContext {
            env: parts.env,
            config: config.clone(),
            runtime: parts.runtime,
            host,
            objects: shared.store.clone(),
            reporter,
            dialer: parts.dialer,
        };
        let mut assignment = Assignment::new(parts.ledger.is_some());
        let mut ledger = parts.ledger;
        let restored = ledger.as_mut().map(Ledger::take).unwrap_or_default();
        let change = Change { complete: true, upserts: restored.items.clone(), removals: Vec::new() };
        assignment.restore(restored.term, restored.revision, restored.items);
        let node = Arc::new(Node {
            config,
            boot_id: parts.boot_id,
            kubelet: Kubelet::start(ctx, scope),
            shared,
            state: Mutex::new(State { assignment, ledger }),
            node_json: Mutex::default(),
            without: parts.without,
            connected: AtomicBool::new(false),
            welcomed: Notify::new(),
            look: Notify::new(),
            welcome: Mutex::new(restored.welcome),
        });
        node.take_up(change, false);
        node
    }

    pub fn env(&self) -> &Env {
        &self.kubelet.context().env
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn config(&self) -> &Arc<NodeConfig> {
        &self.config
    }

    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    pub fn kubelet(&self) -> &Arc<Kubelet> {
        &self.kubelet
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.shared.outbox
    }

    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.shared.tokens
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    pub fn without_resources(&self) -> Vec<String> {
        self.without.clone()
    }

    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The Node object to register with; kept current by who computes it.
    pub fn node_json(&self) -> Bytes {
        self.node_json.lock().clone()
    }

    pub fn set_node_json(&self, json: Bytes) {
        *self.node_json.lock() = json;
    }

    /// Term and revision of the assignment in force.
    pub fn position(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.assignment.term, state.assignment.revision)
    }

    pub fn session_started(&self) {
        self.state.lock().assignment.session_started();
    }

    /// Replicas and API endpoints as last heard, also from the ledger.
    pub fn welcome(&self) -> Option<Welcome> {
        self.welcome.lock().clone()
    }

    pub fn welcomed(&self, w: &Welcome) {
        let changed = {
            let mut known = self.welcome.lock();
            let place = |w: &Welcome| (w.servers.clone(), w.api_endpoints.clone());
            let changed = known.as_ref().map(place) != Some(place(w));
            *known = Some(w.clone());
            changed
        };
        if changed {
            if let Some(ledger) = &mut self.state.lock().ledger {
                ledger.welcome(w);
            }
            self.welcomed.notify_one();
        }
    }

    /// A part of the complete set; true when it was the last and is in force.
    pub fn assign(&self, part: Assign) -> Result<bool, Refused> {
        let change = {
            let mut state = self.state.lock();
            let Some(change) = state.assignment.assign(part)? else { return Ok(false) };
            let State { assignment, ledger } = &mut *state;
            if let Some(ledger) = ledger {
                ledger.rewrite(assignment, self.welcome.lock().as_ref());
            }
            change
        };
        self.take_up(change, true);
        self.report_differences();
        Ok(true)
    }

    /// Reports again what the control plane has otherwise: somebody else wrote
    /// it, as the node controller does when it takes the node for lost.
    pub fn report_differences(&self) {
        self.kubelet.report_again(|pod, status, terminated| terminated || !same(&pod.status, status));
    }

    pub fn delta(&self, delta: Delta) -> Result<(), Refused> {
        let change = {
            let mut state = self.state.lock();
            let change = state.assignment.delta(delta)?;
            let State { assignment, ledger } = &mut *state;
            if let Some(ledger) = ledger {
                ledger.append(assignment, &change, self.welcome.lock().as_ref());
            }
            change
        };
        self.take_up(change, true);
        Ok(())
    }

    /// Makes the ledger's last words durable; called now and then, off the runtime.
    pub fn sync_ledger(&self) {
        let file = self.state.lock().ledger.as_mut().and_then(Ledger::dirty_file);
        if let Some(file) = file
            && let Err(e) = file.sync_data()
        {
            tracing::warn!(error = %e, "the ledger could not be written to disk");
        }
    }

    /// Hands a change on: objects first, so that pods find what they refer to.
    fn take_up(&self, change: Change, authoritative: bool) {
        let mut pods = Vec::new();
        let mut touched = Vec::new();
        if change.complete {
            self.shared.store.begin_complete();
        }
        for (key, json) in &change.upserts {
            if key.resource == "pods" {
                match serde_json::from_slice::<Pod>(json) {
                    Ok(pod) => pods.push(pod),
                    Err(e) => tracing::error!(pod = %key.name, namespace = %key.namespace, error = %e, "not a pod"),
                }
            } else if self.shared.store.put(key, json) {
                touched.push(key);
            }
        }
        for key in &change.removals {
            if key.resource == "pods" {
                if !change.complete {
                    self.kubelet.remove(&key.namespace, &key.name);
                }
            } else {
                self.shared.store.remove(key);
            }
        }
        if change.complete {
            self.shared.store.end_complete();
            let gone = self.kubelet.uids_besides(&pods);
            self.kubelet.replace(pods, authoritative);
            gone.iter().for_each(|uid| self.shared.outbox.forget_pod(uid));
        } else {
            pods.into_iter().for_each(|p| self.kubelet.upsert(p));
        }
        for key in touched.iter().filter(|k| k.resource == "configmaps" || k.resource == "secrets") {
            self.kubelet.object_changed(&key.resource, &key.namespace, &key.name);
        }
    }
}

/// Whether the API's status already says what the node would.
fn same(api: &PodStatus, ours: &PodStatus) -> bool {
    let conditions = |s: &PodStatus| -> Vec<(String, String)> {
        s.conditions.iter().map(|c| (c.kind.clone(), c.status.clone())).collect()
    };
    let containers = |list: &[ContainerStatus]| -> Vec<_> {
        list.iter().map(|c| (c.container_id.clone(), c.ready, c.restart_count, c.state.clone())).collect()
    };
    api.phase == ours.phase
        && api.pod_ip == ours.pod_ip
        && conditions(api) == conditions(ours)
        && containers(&api.container_statuses) == containers(&ours.container_statuses)
        && containers(&api.init_container_statuses) == containers(&ours.init_container_statuses)
}

struct NodeReporter {
    env: Env,
    node: String,
    outbox: Arc<Outbox>,
    store: Arc<Store>,
    recorder: Mutex<Recorder>,
    events: Events,
}

impl Reporter for NodeReporter {
    fn status(&self, pod: &Pod, status: &PodStatus, terminated: bool) {
        let json = serde_json::to_vec(status).expect("a status is plain data");
        self.outbox.pod(PodStatusUpdate {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            status_json: json.into(),
            terminated,
        });
        if host_ports::any(pod) {
            self.store.network.notify_one();
        }
    }

    fn event(&self, pod: &Pod, note: Note) {
        let wanted = match self.events {
            Events::All => true,
            Events::Warnings => note.warning,
            Events::None => false,
        };
        if !wanted {
            return;
        }
        let event = self.recorder.lock().record(&self.node, pod, &note, self.env.wall());
        if let Some(event) = event {
            self.outbox.event(serde_json::to_vec(&event).expect("an event is plain data").into());
        }
    }
}
