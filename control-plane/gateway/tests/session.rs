//! Sessions over the real registry and kinds, with node lifecycle beside them:
//! what an agent says of its node is stored once, kept by others' writes, and
//! never lost between the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use triarch_controllers::controllers::node_lifecycle::{GRACE, NodeLifecycle, NodeLiveness};
use triarch_controllers::{Manager, RegistryWriter, Setup, kinds_of};
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_gateway::session::{self, Settings, Shared};
use triarch_gateway::{Board, Liveness};
use triarch_mvcc::{CommitError, Committed, Db, Key, Limits, LocalDb, Mvcc, Revision, Txn};
use triarch_registry::{KindTable, PatchType, Registry, RequestContext};
use triarch_rpc::node::agent_message::Body as FromAgent;
use triarch_rpc::node::control_message::Body as ToAgent;
use triarch_rpc::node::{AgentMessage, ControlMessage, Heartbeat, Hello, StatusBatch};

/// A store whose next writes of this many find no leader.
struct Flaky {
    inner: Arc<LocalDb>,
    failures: AtomicUsize,
}

#[async_trait]
impl Db for Flaky {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let left = |n: usize| n.checked_sub(1);
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Err(CommitError::NoLeader(Duration::from_secs(10)));
        }
        self.inner.commit(txn).await
    }
    async fn read_barrier(&self) -> Result<Revision, CommitError> {
        self.inner.read_barrier().await
    }
    async fn wait_revision(&self, revision: Revision, timeout: Duration) -> bool {
        self.inner.wait_revision(revision, timeout).await
    }
    fn mvcc(&self) -> &Arc<Mvcc> {
        self.inner.mvcc()
    }
}

struct Heard(Duration);

impl NodeLiveness for Heard {
    fn heard(&self, _: &str) -> Option<Duration> {
        Some(self.0)
    }
    fn leading(&self) -> Duration {
        Duration::from_secs(1000)
    }
}

/// One replica with a session of node `n1`.
struct Replica {
    env: Env,
    db: Arc<Flaky>,
    registry: Arc<Registry>,
    scope: Scope,
    agent: UnboundedSender<Result<AgentMessage, ()>>,
    answers: mpsc::Receiver<ControlMessage>,
    sequence: u64,
}

impl Replica {
    fn start(first: Value) -> Replica {
        let (env, scope) = (Env::new(TokioRuntime::current()), Scope::new());
        let db = Arc::new(Flaky { inner: LocalDb::new(Limits::default()), failures: AtomicUsize::new(0) });
        let registry = Registry::new(
            db.clone(),
            env.clone(),
            KindTable::new(triarch_kinds::KINDS),
            Arc::new(triarch_admission::Chain::new(Arc::new(triarch_registry::AlwaysAllow))),
        );
        let board = Board::of(&registry).expect("pods can be selected by node");
        board.start(&env, &scope);
        let shared = Shared {
            env: env.clone(),
            registry: registry.clone(),
            board,
            liveness: Arc::new(Liveness::new(env.clone())),
            settings: Arc::new(|| Settings { heartbeat_interval: Duration::from_secs(10), ..Settings::default() }),
            term: Arc::new(|| 1),
        };
        let (agent, inbound) = unbounded();
        let (out, answers) = mpsc::channel(1024);
        let (within, own) = (scope.clone(), scope.child());
        env.spawn_in(&within, "session", async move {
            let _ended = session::run(shared, own, |_| true, inbound, out).await;
        });
        let node = json!({"metadata": {"name": "n1"}, "spec": {}, "status": first});
        let hello =
            Hello { node_name: "n1".into(), node_json: node.to_string().into_bytes().into(), ..Hello::default() };
        let mut replica = Replica { env, db, registry, scope, agent, answers, sequence: 0 };
        replica.say(FromAgent::Hello(hello));
        replica
    }

    /// Runs node lifecycle over it, which believes that the node was heard `ago`.
    fn lifecycle(&self, scope: &Scope, ago: Duration) -> Manager {
        let writer = RegistryWriter::new(&self.registry, "system:kube-controller-manager", None);
        Manager::start(Setup {
            env: self.env.clone(),
            scope: scope.clone(),
            mvcc: self.registry.mvcc().clone(),
            writer: Arc::new(writer),
            kinds: kinds_of(self.registry.kinds()),
            controllers: vec![Arc::new(NodeLifecycle::new(Arc::new(Heard(ago)), GRACE))],
            listeners: Vec::new(),
        })
    }

    fn say(&mut self, body: FromAgent) {
        self.agent.unbounded_send(Ok(AgentMessage { body: Some(body) })).unwrap();
    }

    fn status(&mut self, status: Value) -> u64 {
        self.sequence += 1;
        let node_status_json = status.to_string().into_bytes().into();
        self.say(FromAgent::Status(StatusBatch { sequence: self.sequence, node_status_json, ..Default::default() }));
        self.sequence
    }

    async fn acknowledged(&mut self, sequence: u64) {
        while let Some(m) = self.answers.recv().await {
            if matches!(&m.body, Some(ToAgent::StatusAck(a)) if a.sequence == sequence) {
                return;
            }
        }
        panic!("the session ended");
    }

    fn node(&self) -> Value {
        let found = self.registry.mvcc().get(&Key::new("nodes", "", "n1"));
        found.map_or(Value::Null, |s| triarch_gateway::node_set::value(&s))
    }

    /// The bound is only there to fail instead of hang.
    async fn eventually(&self, what: impl Fn(&Value) -> bool) {
        for _ in 0..2000 {
            if what(&self.node()) {
                return;
            }
            self.env.sleep(Duration::from_millis(10)).await;
        }
        panic!("did not come true: {}", self.node());
    }
}

fn status(ready: bool) -> Value {
    let c = |kind: &str, on: bool| json!({"type": kind, "status": if on { "True" } else { "False" }});
    json!({"conditions": [c("MemoryPressure", false), c("DiskPressure", false), c("PIDPressure", false), c("Ready", ready)]})
}

fn ready(node: &Value) -> &str {
    let all = node["status"]["conditions"].as_array().into_iter().flatten();
    all.filter(|c| c["type"] == "Ready").filter_map(|c| c["status"].as_str()).next().unwrap_or_default()
}

fn taints(node: &Value) -> Vec<&str> {
    node["spec"]["taints"].as_array().into_iter().flatten().filter_map(|t| t["key"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taints_follow_readiness_however_the_agents_and_the_controllers_writes_interleave() {
    let mut r = Replica::start(status(false));
    let _manager = r.lifecycle(&r.scope, Duration::from_secs(1));
    r.eventually(|n| taints(n) == ["node.kubernetes.io/not-ready"]).await;
    for turn in 0..40u64 {
        // Faster than the controller, slower, and in between.
        let mut last = 0;
        for step in 0..turn % 5 {
            last = r.status(status(step % 2 == 0));
            r.env.sleep(Duration::from_micros(turn * 150)).await;
        }
        last = last.max(r.status(status(true)));
        r.acknowledged(last).await;
        r.eventually(|n| ready(n) == "True" && taints(n).is_empty()).await;
        let last = r.status(status(false));
        r.acknowledged(last).await;
        r.eventually(|n| ready(n) == "False" && taints(n).contains(&"node.kubernetes.io/not-ready")).await;
    }
    r.scope.cancel();
}

#[tokio::test]
async fn a_node_status_is_acknowledged_only_once_it_is_stored() {
    let mut r = Replica::start(status(false));
    r.eventually(|n| ready(n) == "False").await;
    r.db.failures.store(2, Ordering::SeqCst);
    let sequence = r.status(status(true));
    r.acknowledged(sequence).await;
    assert_eq!((ready(&r.node()), r.db.failures.load(Ordering::SeqCst)), ("True", 0));
    r.scope.cancel();
}

#[tokio::test]
async fn a_node_that_was_given_up_and_speaks_again_is_what_it_last_said() {
    let mut r = Replica::start(status(true));
    let leadership = Scope::new();
    let _manager = r.lifecycle(&leadership, Duration::from_secs(100));
    r.eventually(|n| ready(n) == "Unknown").await;
    leadership.cancel();
    // It was heard after all, and believes that all is as it said.
    r.say(FromAgent::Heartbeat(Heartbeat { sequence: 1, applied_revision: 0 }));
    r.eventually(|n| ready(n) == "True").await;
    r.scope.cancel();
}

#[tokio::test]
async fn what_others_wrote_into_the_node_survives_the_agents_statuses() {
    let mut r = Replica::start(status(false));
    r.eventually(|n| ready(n) == "False").await;
    let user = r.registry.client(RequestContext::component("admin", None));
    let kind = user.kind("v1", "Node").unwrap();
    for turn in 0..20 {
        let label =
            json!({"metadata": {"labels": {"turn": turn.to_string()}}, "spec": {"unschedulable": turn % 2 == 0}});
        let sequence = r.status(status(turn % 2 == 0));
        user.patch(kind, "", "n1", PatchType::Merge, &label, None).await.unwrap();
        r.acknowledged(sequence).await;
        let node = r.node();
        assert_eq!(node["metadata"]["labels"]["turn"], turn.to_string());
        assert_eq!(node["spec"]["unschedulable"].as_bool().unwrap_or(false), turn % 2 == 0);
        assert_eq!(ready(&node), if turn % 2 == 0 { "True" } else { "False" });
    }
    r.scope.cancel();
}
