//! What the node has to say, in order of urgency, with nothing queued twice.
//!
//! A status is kept as the latest value for each pod until the control plane
//! has acknowledged it, so however fast pods change, the outbox holds one per
//! pod; it is sent again in a new session. Nobody waits here: producers leave
//! values, the session's writer takes them. Heartbeats go before statuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::{Env, Mono};
use triarch_rpc::node::agent_message::Body;
use triarch_rpc::node::*;

/// Statuses in one message.
const BATCH: usize = 256;
/// Bytes in one batch, unless a single status is larger.
const BATCH_BYTES: usize = 1 << 20;
/// Unacknowledged batches.
const IN_FLIGHT: usize = 4;
/// Statuses wait this long for others, so that a pod's first steps are one write.
const LINGER: Duration = Duration::from_millis(8);
const MAX_EVENTS: usize = 1024;
const MAX_TOKENS: usize = 256;

pub struct Outbox {
    env: Env,
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    heartbeat: Option<Heartbeat>,
    ack: Option<u64>,
    tokens: VecDeque<TokenRequest>,
    pods: BTreeMap<String, (u64, PodStatusUpdate)>,
    dirty: BTreeSet<String>,
    dirty_since: Option<Mono>,
    node: Option<(u64, Bytes)>,
    node_dirty: bool,
    events: VecDeque<Bytes>,
    dropped_events: u64,
    flying: BTreeMap<u64, Vec<(String, u64)>>,
    sequence: u64,
    version: u64,
    session: u64,
}

/// Figures for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Depth {
    pub statuses: usize,
    pub events: usize,
    pub dropped_events: u64,
}

impl Outbox {
    pub fn new(env: Env) -> Outbox {
        Outbox { env, inner: Mutex::default(), wake: Notify::new() }
    }

    pub fn heartbeat(&self, sequence: u64, applied_revision: u64) {
        self.inner.lock().heartbeat = Some(Heartbeat { sequence, applied_revision });
        self.wake.notify_one();
    }

    pub fn ack(&self, revision: u64) {
        self.inner.lock().ack = Some(revision);
        self.wake.notify_one();
    }

    /// Asks for a token; false when too many requests wait already.
    pub fn token(&self, request: TokenRequest) -> bool {
        let mut inner = self.inner.lock();
        if inner.tokens.len() >= MAX_TOKENS {
            return false;
        }
        inner.tokens.push_back(request);
        drop(inner);
        self.wake.notify_one();
        true
    }

    pub fn pod(&self, update: PodStatusUpdate) {
        let now = self.env.mono();
        let mut inner = self.inner.lock();
        inner.version += 1;
        let version = inner.version;
        inner.dirty.insert(update.uid.clone());
        inner.dirty_since.get_or_insert(now);
        inner.pods.insert(update.uid.clone(), (version, update));
        drop(inner);
        self.wake.notify_one();
    }

    /// The pod is gone from the assignment: nothing more to say about it.
    pub fn forget_pod(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.pods.remove(uid);
        inner.dirty.remove(uid);
    }

    pub fn node(&self, status: Bytes) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        inner.node = Some((inner.version, status));
        inner.node_dirty = true;
        drop(inner);
        self.wake.notify_one();
    }

    /// At the bound the oldest event is dropped and counted.
    pub fn event(&self, event: Bytes) {
        let mut inner = self.inner.lock();
        if inner.events.len() >= MAX_EVENTS {
            inner.events.pop_front();
            inner.dropped_events += 1;
        }
        inner.events.push_back(event);
        drop(inner);
        self.wake.notify_one();
    }

    /// A new session: what was not acknowledged is said again. Returns the
    /// session's number, without which [`Outbox::next`] gives nothing.
    pub fn reset(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.session += 1;
        inner.heartbeat = None;
        inner.ack = None;
        inner.flying.clear();
        inner.dirty = inner.pods.keys().cloned().collect();
        inner.node_dirty = inner.node.is_some();
        inner.session
    }

    /// Takes in that a batch was stored.
    pub fn acknowledged(&self, ack: &StatusAck) {
        let mut inner = self.inner.lock();
        let Some(sent) = inner.flying.remove(&ack.sequence) else { return };
        for refusal in &ack.refused {
            tracing::info!(uid = %refusal.uid, reason = %refusal.reason, "the control plane refused a pod's status");
        }
        for (uid, version) in sent {
            if uid.is_empty() {
                continue;
            }
            if inner.pods.get(&uid).is_some_and(|(v, _)| *v == version) {
                inner.pods.remove(&uid);
            }
        }
        drop(inner);
        self.wake.notify_one();
    }

    pub fn depth(&self) -> Depth {
        let inner = self.inner.lock();
        Depth { statuses: inner.pods.len(), events: inner.events.len(), dropped_events: inner.dropped_events }
    }

    /// The next message of session `session`; `None` once another has begun.
    pub async fn next(&self, session: u64) -> Option<AgentMessage> {
        loop {
            let wait = {
                let mut inner = self.inner.lock();
                if inner.session != session {
                    drop(inner);
                    // Passes the wake-up on to the session that is current.
                    self.wake.notify_one();
                    return None;
                }
                match self.take(&mut inner) {
                    Ok(body) => return Some(AgentMessage { body: Some(body) }),
                    Err(wait) => wait,
                }
            };
            match wait {
                None => self.wake.notified().await,
                Some(d) => {
                    let sleep = self.env.sleep(d);
                    let woken = std::pin::pin!(self.wake.notified());
                    futures::future::select(woken, sleep).await;
                }
            }
        }
    }

    fn take(&self, inner: &mut Inner) -> Result<Body, Option<Duration>> {
        if let Some(heartbeat) = inner.heartbeat.take() {
            return Ok(Body::Heartbeat(heartbeat));
        }
        if let Some(revision) = inner.ack.take() {
            return Ok(Body::Ack(Ack { revision }));
        }
        if let Some(token) = inner.tokens.pop_front() {
            return Ok(Body::Token(token));
        }
        let mut wait = None;
        if (inner.node_dirty || !inner.dirty.is_empty()) && inner.flying.len() < IN_FLIGHT {
            let age = inner.dirty_since.map_or(LINGER, |since| self.env.mono() - since);
            if age >= LINGER || inner.dirty.len() >= BATCH {
                return Ok(Body::Status(batch(inner)));
            }
            wait = Some(LINGER - age);
        }
        if !inner.events.is_empty() {
            let count = inner.events.len().min(BATCH);
            return Ok(Body::Events(EventBatch { events_json: inner.events.drain(..count).collect() }));
        }
        Err(wait)
    }
}

fn batch(inner: &mut Inner) -> StatusBatch {
    inner.sequence += 1;
    let sequence = inner.sequence;
    let mut out = StatusBatch { sequence, ..Default::default() };
    let mut sent = Vec::new();
    let mut bytes = 0;
    while out.pods.len() < BATCH && bytes < BATCH_BYTES {
        let Some(uid) = inner.dirty.pop_first() else { break };
        if let Some((version, update)) = inner.pods.get(&uid) {
            bytes += update.status_json.len();
            sent.push((uid, *version));
            out.pods.push(update.clone());
        }
    }
    if inner.dirty.is_empty() {
        inner.dirty_since = None;
    }
    if std::mem::take(&mut inner.node_dirty)
        && let Some((version, status)) = &inner.node
    {
        out.node_status_json = status.clone();
        sent.push((String::new(), *version));
    }
    inner.flying.insert(sequence, sent);
    out
}

#[cfg(test)]
mod tests {
    use triarch_env::TokioRuntime;

    use super::*;

    fn update(uid: &str, status: &str) -> PodStatusUpdate {
        let status_json = Bytes::copy_from_slice(status.as_bytes());
        PodStatusUpdate { uid: uid.into(), status_json, ..Default::default() }
    }

    fn statuses(m: AgentMessage) -> StatusBatch {
        match m.body {
            Some(Body::Status(s)) => s,
            other => panic!("not a status: {other:?}"),
        }
    }

    #[tokio::test]
    async fn only_the_latest_status_of_a_pod_is_sent_and_urgent_things_go_first() {
        let o = Outbox::new(Env::new(TokioRuntime::current()));
        let s = o.reset();
        o.pod(update("a", "1"));
        o.pod(update("a", "2"));
        o.event(Bytes::from_static(b"{}"));
        o.heartbeat(7, 3);
        assert!(matches!(o.next(s).await.and_then(|m| m.body), Some(Body::Heartbeat(h)) if h.sequence == 7));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            match o.next(s).await.and_then(|m| m.body) {
                Some(Body::Status(b)) => {
                    assert_eq!(b.pods.len(), 1);
                    assert_eq!(&b.pods[0].status_json[..], b"2");
                    kinds.push("status");
                }
                Some(Body::Events(_)) => kinds.push("events"),
                other => panic!("{other:?}"),
            }
        }
        kinds.sort_unstable();
        assert_eq!(kinds, ["events", "status"]);
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_is_said_again_in_a_new_session() {
        let o = Outbox::new(Env::new(TokioRuntime::current()));
        let first = o.reset();
        o.pod(update("a", "1"));
        o.pod(update("b", "1"));
        let sent = statuses(o.next(first).await.expect("a batch"));
        assert_eq!(sent.pods.len(), 2);
        o.pod(update("b", "2"));
        o.acknowledged(&StatusAck { sequence: sent.sequence, refused: vec![] });
        let second = o.reset();
        let again = statuses(o.next(second).await.expect("a batch"));
        assert_eq!(again.pods.iter().map(|p| p.uid.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(o.next(first).await.is_none(), "the old session's writer ends");
    }

    #[tokio::test]
    async fn events_are_bounded_and_the_loss_is_counted() {
        let o = Outbox::new(Env::new(TokioRuntime::current()));
        for _ in 0..MAX_EVENTS + 5 {
            o.event(Bytes::new());
        }
        assert_eq!((o.depth().events, o.depth().dropped_events), (MAX_EVENTS, 5));
    }
}
