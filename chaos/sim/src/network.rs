//! The network between the replicas, which the faults break.
//!
//! Streams behave as TCP connections: in order, without loss, until they break;
//! a blocked direction holds what is sent on it, and the news of a break takes
//! the same way as data. Calls are lost, delayed and delivered twice. A replica
//! whose process was killed answers with a reset; one whose machine has no
//! power answers nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use triarch_env::{Env, Scope};
use triarch_raft::sim::Process;
use triarch_raft::{
    Call, Incoming, Lane, Message, NodeId, Peer, PeerError, PeerHandler, PeerStream, PeerTransport, STREAM_DEPTH,
    Sender,
};

use crate::tally::Tally;

/// What the wire does to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    pub delay_min: Duration,
    pub delay_max: Duration,
    /// Calls lost, in percent; on streams a loss is a retransmission.
    pub loss: u64,
    /// Calls delivered twice, in percent.
    pub twice: u64,
    /// Messages in ten thousand after which their stream breaks.
    pub breaks: u64,
}

impl Weather {
    pub const FAIR: Weather = Weather {
        delay_min: Duration::from_micros(100),
        delay_max: Duration::from_millis(1),
        loss: 0,
        twice: 0,
        breaks: 0,
    };
}

struct Endpoint {
    handler: Arc<dyn PeerHandler>,
    process: Process,
}

struct Inner {
    listening: BTreeMap<NodeId, Endpoint>,
    /// Machines without power.
    dark: BTreeSet<NodeId>,
    /// Directions that carry nothing.
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose agents reach nobody.
    cut_off: BTreeSet<u32>,
    /// Replicas whose introductions are lost.
    unheard: BTreeSet<NodeId>,
    weather: Weather,
    streams: BTreeMap<u64, (NodeId, NodeId, Scope)>,
    next: u64,
}

impl Inner {
    fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.contains(&(from, to)) || self.dark.contains(&from) || self.dark.contains(&to)
    }
}

/// The network of one run; clones share it.
#[derive(Clone)]
pub struct Network {
    env: Env,
    tally: Tally,
    inner: Arc<Mutex<Inner>>,
    /// Something is reached again that was not.
    opened: Arc<Notify>,
}

impl Network {
    pub fn new(env: Env, tally: Tally) -> Network {
        let inner = Inner {
            listening: BTreeMap::new(),
            dark: BTreeSet::new(),
            blocked: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            unheard: BTreeSet::new(),
            weather: Weather::FAIR,
            streams: BTreeMap::new(),
            next: 0,
        };
        Network { env, tally, inner: Arc::new(Mutex::new(inner)), opened: Arc::default() }
    }

    pub fn attach(&self, id: NodeId, handler: Arc<dyn PeerHandler>, process: Process) {
        let mut inner = self.inner.lock();
        inner.listening.insert(id, Endpoint { handler, process });
    }

    /// The machine has power again; nobody listens there yet.
    pub fn power_on(&self, id: NodeId) {
        self.inner.lock().dark.remove(&id);
        self.opened.notify_waiters();
    }

    /// Nobody listens for `id` any more. `dark`: nothing answers in its place.
    pub fn detach(&self, id: NodeId, dark: bool) {
        let mut inner = self.inner.lock();
        inner.listening.remove(&id);
        if dark {
            inner.dark.insert(id);
        }
    }

    pub fn block(&self, from: NodeId, to: NodeId) {
        self.inner.lock().blocked.insert((from, to));
    }

    /// Between the replicas.
    pub fn unblock_all(&self) {
        self.inner.lock().blocked.clear();
        self.opened.notify_waiters();
    }

    /// The node's agent reaches no replica, and none reaches it.
    pub fn cut_off(&self, node: u32) {
        self.inner.lock().cut_off.insert(node);
    }

    pub fn reconnect(&self, node: u32) {
        self.inner.lock().cut_off.remove(&node);
        self.opened.notify_waiters();
    }

    /// Whether the introductions of a replica are lost, and nothing else of it.
    pub fn set_unheard(&self, id: NodeId, unheard: bool) {
        let mut inner = self.inner.lock();
        if unheard {
            inner.unheard.insert(id)
        } else {
            inner.unheard.remove(&id)
        };
    }

    pub fn set_weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// Breaks every stream between two replicas; returns how many.
    pub fn reset(&self, a: NodeId, b: NodeId) -> usize {
        let between = |x: NodeId, y: NodeId| (x, y) == (a, b) || (x, y) == (b, a);
        let broken: Vec<Scope> =
            self.inner.lock().streams.values().filter(|(x, y, _)| between(*x, *y)).map(|s| s.2.clone()).collect();
        broken.iter().for_each(Scope::cancel);
        broken.len()
    }

    pub fn transport(&self, cluster_id: &str, id: NodeId, incarnation: u64) -> Arc<SimTransport> {
        let me = Sender { cluster_id: cluster_id.into(), id, incarnation, to: 0 };
        Arc::new(SimTransport { network: self.clone(), me })
    }

    pub fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.inner.lock().is_blocked(from, to)
    }

    /// Resolves once `closed` is not so any more.
    async fn until_open(&self, closed: impl Fn(&Inner) -> bool) {
        loop {
            let opened = self.opened.notified();
            let mut opened = std::pin::pin!(opened);
            // Registered before the look, so that no change falls in between.
            opened.as_mut().enable();
            if !closed(&self.inner.lock()) {
                return;
            }
            opened.await;
        }
    }

    /// Resolves once what `from` sends gets to `to`.
    async fn way(&self, from: NodeId, to: NodeId) {
        self.until_open(|inner| inner.is_blocked(from, to)).await;
    }

    /// Resolves once node and replica reach each other.
    pub async fn node_way(&self, node: u32, replica: NodeId) {
        self.until_open(|inner| inner.dark.contains(&replica) || inner.cut_off.contains(&node)).await;
    }

    fn weather(&self) -> Weather {
        self.inner.lock().weather
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.env.random_below(100) < percent
    }

    fn delay(&self) -> Duration {
        let w = self.weather();
        let span = (w.delay_max - w.delay_min).as_micros() as u64;
        w.delay_min + Duration::from_micros(self.env.random_below(span + 1))
    }

    /// One datagram's way; `false`: lost.
    async fn transit(&self, from: NodeId, to: NodeId) -> bool {
        self.env.sleep(self.delay()).await;
        let lost = self.chance(self.weather().loss);
        if lost {
            self.tally.fault("message-loss");
        }
        !lost && !self.is_blocked(from, to)
    }

    fn endpoint(&self, id: NodeId) -> Option<(Arc<dyn PeerHandler>, Process)> {
        let inner = self.inner.lock();
        let found = inner.listening.get(&id).filter(|e| !e.process.is_killed());
        found.map(|e| (e.handler.clone(), e.process.clone()))
    }

    /// Carries one direction; returns who ended it.
    async fn direction(&self, (from, to): (NodeId, NodeId), rx: &mut Incoming, tx: &mpsc::Sender<Message>) -> NodeId {
        let mut queue: VecDeque<(triarch_env::Mono, Message)> = VecDeque::new();
        let (mut last, mut ended) = (self.env.mono(), false);
        loop {
            let next = queue.front().map(|(at, _)| *at);
            if ended && next.is_none() {
                return from;
            }
            let due = async {
                match next {
                    Some(at) => self.env.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let room = !ended && queue.len() < STREAM_DEPTH;
            let more = async { if room { rx.recv().await } else { std::future::pending().await } };
            futures::select_biased! {
                () = tx.closed().fuse() => return to,
                message = std::pin::pin!(more.fuse()) => match message {
                    Some(m) => {
                        let w = self.weather();
                        let mut delay = self.delay();
                        if self.chance(w.loss) {
                            delay += Duration::from_millis(200);
                        }
                        last = last.max(self.env.mono() + delay);
                        queue.push_back((last, m));
                        if w.breaks > 0 && self.env.random_below(10_000) < w.breaks {
                            self.tally.fault("stream-break");
                            return from;
                        }
                    }
                    None => ended = true,
                },
                () = std::pin::pin!(due.fuse()) => {
                    futures::select_biased! {
                        () = self.way(from, to).fuse() => {}
                        () = tx.closed().fuse() => return to,
                    }
                    if let Some((_, m)) = queue.pop_front()
                        && tx.send(m).await.is_err()
                    {
                        return to;
                    }
                }
            }
        }
    }

    /// Carries a stream from `a` to `b` until it breaks. What an end sent before
    /// it closed still arrives.
    async fn carry(self, (a, b): (NodeId, NodeId), mut near: PeerStream, mut far: PeerStream) {
        let ended_by = {
            let mut there = std::pin::pin!(self.direction((a, b), &mut near.rx, &far.tx).fuse());
            let mut back = std::pin::pin!(self.direction((b, a), &mut far.rx, &near.tx).fuse());
            futures::select_biased! {
                who = there => if who == a { a } else { back.await },
                who = back => if who == b { b } else { there.await },
            }
        };
        let other = if ended_by == a { b } else { a };
        // The reset travels as anything else does.
        self.env.sleep(self.delay()).await;
        self.way(ended_by, other).await;
    }
}

/// One replica's way into the network.
pub struct SimTransport {
    network: Network,
    me: Sender,
}

impl SimTransport {
    fn sender(&self, to: NodeId) -> Sender {
        Sender { to, ..self.me.clone() }
    }

    /// The process that answers at `to`; never, when nothing does.
    async fn reach(&self, to: NodeId) -> Result<(Arc<dyn PeerHandler>, Process), PeerError> {
        let net = &self.network;
        if !net.transit(self.me.id, to).await {
            std::future::pending::<()>().await;
        }
        match net.endpoint(to) {
            Some(found) => Ok(found),
            None => Err(self.back(to, Err(PeerError::Unreachable(to, "connection refused".into()))).await),
        }
    }

    /// The answer's way back.
    async fn back(&self, from: NodeId, answer: Result<std::convert::Infallible, PeerError>) -> PeerError {
        if !self.network.transit(from, self.me.id).await {
            std::future::pending::<()>().await;
        }
        match answer {
            Ok(never) => match never {},
            Err(e) => e,
        }
    }
}

#[async_trait]
impl PeerTransport for SimTransport {
    async fn call(&self, peer: &Peer, call: Call, body: Bytes) -> Result<Bytes, PeerError> {
        if call == Call::Introduce && self.network.inner.lock().unheard.contains(&self.me.id) {
            std::future::pending::<()>().await;
        }
        let (handler, process) = self.reach(peer.id).await?;
        let deliver = |tx: Option<oneshot::Sender<_>>| {
            let (handler, from, body) = (handler.clone(), self.sender(peer.id), body.clone());
            process.spawn(async move {
                let answer = handler.call(&from, call, body).await;
                tx.map(|tx| tx.send(answer));
            });
        };
        let (tx, rx) = oneshot::channel();
        deliver(Some(tx));
        if self.network.chance(self.network.weather().twice) {
            self.network.tally.fault("message-duplicate");
            deliver(None);
        }
        let reset = || Err(PeerError::Unreachable(peer.id, "connection reset".into()));
        let answer = rx.await.unwrap_or_else(|_| reset());
        if !self.network.transit(peer.id, self.me.id).await {
            std::future::pending::<()>().await;
        }
        answer
    }

    async fn open(&self, peer: &Peer, lane: Lane) -> Result<PeerStream, PeerError> {
        let (handler, process) = self.reach(peer.id).await?;
        let (near, far) = (PeerStream::pair(), PeerStream::pair());
        let (tx, rx) = oneshot::channel();
        let (from, theirs) = (self.sender(peer.id), far.0);
        process.spawn(async move {
            // Nobody waits when the dialler has given up: the stream is then dropped.
            let _ = tx.send(handler.stream(&from, lane, theirs));
        });
        let reset = || Err(PeerError::Unreachable(peer.id, "connection reset".into()));
        rx.await.unwrap_or_else(|_| reset())?;
        if !self.network.transit(peer.id, self.me.id).await {
            std::future::pending::<()>().await;
        }
        let (net, scope, pair) = (self.network.clone(), Scope::new(), (self.me.id, peer.id));
        let id = {
            let mut inner = net.inner.lock();
            inner.next += 1;
            let id = inner.next;
            inner.streams.insert(id, (pair.0, pair.1, scope.clone()));
            id
        };
        let (near_end, far_end) = (near.1, far.1);
        net.env.clone().spawn("stream", async move {
            scope.run(net.clone().carry(pair, near_end, far_end)).await;
            net.inner.lock().streams.remove(&id);
        });
        Ok(near.0)
    }
}
