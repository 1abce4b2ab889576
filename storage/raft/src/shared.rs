//! What the parts of one replica share: its environment, its memory, and what
//! it knows of the others. Holds no openraft type that depends on the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use triarch_env::{Env, Scope};
use triarch_mvcc::{CommitError, Mvcc};

use crate::acks::Acks;
use crate::ask::Answers;
use crate::config::RaftConfig;
use crate::counters::Counters;
use crate::figures::Latencies;
use crate::leadership::{LeaderView, LeaderWatch};
use crate::outcomes::Outcomes;
use crate::progress::Progress;
use crate::starts::{Gate, Gated};
use crate::transport::{Peer, SharedTransport};
use crate::types::{NodeId, Replica, StoredMembership};
use crate::wire::PeerStatus;

pub(crate) struct Shared {
    pub env: Env,
    /// Ends when the replica stops; every task of it hangs on this.
    pub scope: Scope,
    pub config: RaftConfig,
    pub mvcc: Arc<Mvcc>,
    /// Waits at the gate, but for what is harmless.
    pub transport: SharedTransport,
    /// Whether this replica takes part.
    pub gate: Arc<Gate>,
    pub progress: Progress,
    pub leadership: LeaderWatch,
    pub outcomes: Outcomes,
    /// What the peers have accepted of this replica as their leader.
    pub acks: Acks,
    pub counters: Arc<Counters>,
    pub latencies: Arc<Latencies>,
    /// Names this life of the process in proposal ids.
    pub life: u64,
    /// The effective membership, as of the last look.
    pub membership: RwLock<Arc<StoredMembership>>,
    /// Who answers what the others ask the leader.
    pub answers: RwLock<Option<Arc<dyn Answers>>>,
    /// Newcomers are given their ids one after the other.
    pub joining: tokio::sync::Mutex<()>,
    stopped: Mutex<Option<String>>,
    refused: AtomicBool,
    /// Of log and checkpoint, as of the last look.
    pub disk_bytes: AtomicU64,
    ready: AtomicBool,
    ready_changed: Notify,
}

impl Shared {
    pub fn new(env: Env, scope: Scope, config: RaftConfig, mvcc: Arc<Mvcc>, transport: SharedTransport) -> Arc<Shared> {
        // 0 is never drawn, so that it can mean "nobody".
        let life = env.random_u64().max(1);
        let gate: Arc<Gate> = Arc::default();
        let transport = Arc::new(Gated { gate: gate.clone(), inner: transport });
        Arc::new(Shared {
            env,
            scope,
            config,
            mvcc,
            transport,
            gate,
            progress: Progress::default(),
            leadership: LeaderWatch::default(),
            outcomes: Outcomes::default(),
            acks: Acks::default(),
            counters: Arc::default(),
            latencies: Arc::default(),
            life,
            membership: RwLock::default(),
            answers: RwLock::new(None),
            joining: tokio::sync::Mutex::new(()),
            stopped: Mutex::new(None),
            refused: AtomicBool::new(false),
            disk_bytes: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            ready_changed: Notify::new(),
        })
    }

    pub fn id(&self) -> NodeId {
        self.config.node_id
    }

    pub fn replica(&self, id: NodeId) -> Option<Replica> {
        self.membership.read().membership().get_node(&id).cloned()
    }

    /// The other replicas: those `known` from the last life, since the
    /// checkpoint's membership is older; else that one.
    pub fn others(&self, known: &[Peer]) -> Vec<Peer> {
        let members = self.membership.read().clone();
        let nodes = members.membership().nodes().map(|(id, r)| Peer { id: *id, address: r.peer_address.clone() });
        let all: Vec<Peer> = if known.is_empty() { nodes.collect() } else { known.to_vec() };
        all.into_iter().filter(|p| p.id != self.id()).collect()
    }

    pub fn peer(&self, id: NodeId) -> Option<Peer> {
        self.replica(id).map(|r| Peer { id, address: r.peer_address })
    }

    /// Ends everything; the first reason stays.
    pub fn stop(&self, reason: impl Into<String>) {
        self.stopped.lock().get_or_insert(reason.into());
        self.scope.cancel();
        self.outcomes.close();
        // It may hold this replica's own handle.
        *self.answers.write() = None;
        // Whoever still asks must not believe that it leads.
        let term = self.leadership.view().term;
        self.leadership.publish(LeaderView { term, leader: None, leading: None });
    }

    /// Stops for good: this data directory must not be used.
    pub fn refuse(&self, reason: String) {
        self.refused.store(true, Ordering::Release);
        self.stop(reason);
    }

    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    pub fn stop_reason(&self) -> String {
        self.stopped.lock().clone().unwrap_or_else(|| "shutting down".into())
    }

    pub fn stopped_error(&self) -> CommitError {
        CommitError::Stopped(self.stop_reason())
    }

    /// This replica has caught up.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
        self.ready_changed.notify_waiters();
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub async fn ready(&self) {
        let changed = self.ready_changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        if !self.is_ready() {
            changed.await;
        }
    }

    /// What this replica says of itself.
    pub fn own_status(&self) -> PeerStatus {
        PeerStatus {
            applied_index: self.progress.index(),
            applied_revision: self.progress.revision(),
            term: self.leadership.view().term,
            pid: std::process::id(),
            disk_bytes: self.disk_bytes.load(Ordering::Relaxed),
            ready: self.is_ready(),
            supports: self.config.supports,
        }
    }
}

/// Lets the tasks that are ready run first.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
