//! A network in memory between replicas of one process, for tests: links can be
//! cut or held up in one direction, and a replica can be taken off at once, as a
//! killed process is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use triarch_env::{Env, Scope};

use crate::transport::{
    Call, Incoming, Lane, Message, Peer, PeerError, PeerHandler, PeerStream, PeerTransport, Sender,
};
use crate::types::NodeId;

/// How often a direction that is held up is looked at again.
const LOOK: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Inner {
    handlers: BTreeMap<NodeId, Arc<dyn PeerHandler>>,
    /// Links that lose everything, by their two ends in order.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Directions (from, to) that deliver nothing for now, and lose nothing.
    held: BTreeSet<(NodeId, NodeId)>,
    /// What each message of a stream takes.
    delay: Duration,
    /// Messages that streams have delivered, by lane and direction (from, to).
    delivered: BTreeMap<(Lane, NodeId, NodeId), u64>,
    /// Ends the streams between two replicas.
    streams: BTreeMap<(NodeId, NodeId), Scope>,
}

/// The network; cheap to clone.
#[derive(Clone)]
pub struct LocalNetwork {
    env: Env,
    inner: Arc<Mutex<Inner>>,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl LocalNetwork {
    pub fn new(env: Env) -> LocalNetwork {
        LocalNetwork { env, inner: Arc::default() }
    }

    /// Replica `id` answers from now on.
    pub fn attach(&self, id: NodeId, handler: Arc<dyn PeerHandler>) {
        self.inner.lock().handlers.insert(id, handler);
    }

    /// Replica `id` is gone: its streams break, as a killed process's do.
    pub fn detach(&self, id: NodeId) {
        let broken: Vec<Scope> = {
            let mut inner = self.inner.lock();
            inner.handlers.remove(&id);
            let of = |(a, b): &(NodeId, NodeId)| *a == id || *b == id;
            let keys: Vec<_> = inner.streams.keys().filter(|k| of(k)).copied().collect();
            keys.iter().filter_map(|k| inner.streams.remove(k)).collect()
        };
        broken.iter().for_each(Scope::cancel);
    }

    /// Cuts the link between two replicas, and breaks its streams.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        let broken = {
            let mut inner = self.inner.lock();
            inner.cut.insert(pair(a, b));
            inner.streams.remove(&pair(a, b))
        };
        broken.iter().for_each(Scope::cancel);
    }

    /// Holds up what `from` sends to `to`: it arrives after [`LocalNetwork::release`].
    pub fn hold(&self, from: NodeId, to: NodeId) {
        self.inner.lock().held.insert((from, to));
    }

    pub fn release(&self, from: NodeId, to: NodeId) {
        self.inner.lock().held.remove(&(from, to));
    }

    /// From now on each message of a stream takes this long, one after another.
    pub fn set_delay(&self, delay: Duration) {
        self.inner.lock().delay = delay;
    }

    /// Messages that the streams of a lane have delivered in one direction.
    pub fn delivered(&self, lane: Lane, from: NodeId, to: NodeId) -> u64 {
        self.inner.lock().delivered.get(&(lane, from, to)).copied().unwrap_or(0)
    }

    /// Waits while the direction is held up.
    async fn pass(&self, from: NodeId, to: NodeId) {
        while self.inner.lock().held.contains(&(from, to)) {
            self.env.sleep(LOOK).await;
        }
    }

    /// Mends every link.
    pub fn mend(&self) {
        self.inner.lock().cut.clear();
    }

    /// The transport of the replica that `sender` introduces.
    pub fn transport(&self, cluster_id: &str, id: NodeId, incarnation: u64) -> Arc<LocalTransport> {
        let me = Sender { cluster_id: cluster_id.into(), id, incarnation, to: 0 };
        Arc::new(LocalTransport { network: self.clone(), me })
    }

    fn reach(&self, from: NodeId, to: NodeId) -> Result<Arc<dyn PeerHandler>, PeerError> {
        let inner = self.inner.lock();
        if inner.cut.contains(&pair(from, to)) {
            return Err(PeerError::Unreachable(to, "the link is cut".into()));
        }
        inner.handlers.get(&to).cloned().ok_or_else(|| PeerError::Unreachable(to, "nobody listens".into()))
    }
}

/// One replica's way into the network.
pub struct LocalTransport {
    network: LocalNetwork,
    me: Sender,
}

#[async_trait]
impl PeerTransport for LocalTransport {
    async fn call(&self, peer: &Peer, call: Call, body: Bytes) -> Result<Bytes, PeerError> {
        self.network.pass(self.me.id, peer.id).await;
        let handler = self.network.reach(self.me.id, peer.id)?;
        let answer = handler.call(&Sender { to: peer.id, ..self.me.clone() }, call, body).await;
        self.network.pass(peer.id, self.me.id).await;
        // The answer needs the link as well.
        self.network.reach(self.me.id, peer.id)?;
        answer
    }

    async fn open(&self, peer: &Peer, lane: Lane) -> Result<PeerStream, PeerError> {
        self.network.pass(self.me.id, peer.id).await;
        let handler = self.network.reach(self.me.id, peer.id)?;
        let scope = self.network.inner.lock().streams.entry(pair(self.me.id, peer.id)).or_default().clone();
        let (near, far) = (PeerStream::pair(), PeerStream::pair());
        handler.stream(&Sender { to: peer.id, ..self.me.clone() }, lane, far.0)?;
        self.pump(&scope, (lane, self.me.id, peer.id), near.1.rx, far.1.tx);
        self.pump(&scope, (lane, peer.id, self.me.id), far.1.rx, near.1.tx);
        Ok(near.0)
    }
}

impl LocalTransport {
    /// Carries one direction until either end or the link breaks.
    fn pump(&self, scope: &Scope, way: (Lane, NodeId, NodeId), mut from: Incoming, to: mpsc::Sender<Message>) {
        let network = self.network.clone();
        self.network.env.spawn_in(scope, "link", async move {
            loop {
                tokio::select! {
                    biased;
                    () = to.closed() => return,
                    message = from.recv() => match message {
                        Some(m) => {
                            let delay = network.inner.lock().delay;
                            if !delay.is_zero() {
                                network.env.sleep(delay).await;
                            }
                            network.pass(way.1, way.2).await;
                            if to.send(m).await.is_err() { return }
                            *network.inner.lock().delivered.entry(way).or_default() += 1;
                        }
                        None => return,
                    },
                }
            }
        });
    }
}
