//! One agent's session: the complete set, then deltas; status, events, tokens
//! and heartbeats the other way. No transport here: messages in, messages out.
//!
//! Reading and writing never wait for each other: one task sends assignments,
//! the caller's loop takes messages, and status batches are written by a third.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use triarch_env::{Env, Scope};
use triarch_registry::Registry;
use triarch_rpc::node::agent_message::Body as FromAgent;
use triarch_rpc::node::control_message::Body as ToAgent;
use triarch_rpc::node::{
    AgentMessage, Assign, ControlMessage, Delta, Goodbye, HeartbeatAck, Hello, Item, Refusal, StatusAck, StatusBatch,
    TokenResponse, Welcome,
};

use crate::board::{Board, Dirty};
use crate::liveness::Liveness;
use crate::node_set::NodeSet;
use crate::writes::NodeWriter;

/// Bytes of objects in one Assign or Delta message; larger ones are split.
const MESSAGE_BYTES: usize = 1 << 20;
/// Status and event batches of one session that wait to be written; when the
/// queue is full the session stops reading, and HTTP/2 tells the agent to wait.
const WRITE_QUEUE: usize = 16;
/// Writes of one status batch in flight at once.
const CONCURRENT_WRITES: usize = 16;
/// Wait before a status that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What every session of a replica shares.
#[derive(Clone)]
pub struct Shared {
    pub env: Env,
    pub registry: Arc<Registry>,
    pub board: Arc<Board>,
    pub liveness: Arc<Liveness>,
    /// As they are now: replicas come and go.
    pub settings: Arc<dyn Fn() -> Settings + Send + Sync>,
    /// The present term, for assignments.
    pub term: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// What agents are told of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub heartbeat_interval: Duration,
    pub servers: Vec<String>,
    pub api_endpoints: Vec<String>,
    pub cluster_domain: String,
    pub service_cidr: String,
    pub cluster_id: String,
}

/// Why a session was refused or ended; the text goes to the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("the first message of a session is Hello")]
    NoHello,
    #[error("the certificate does not speak for node {0:?}")]
    Forbidden(String),
    #[error("the node object cannot be registered: {0}")]
    Register(String),
}

enum Work {
    Status(StatusBatch),
    /// The node was given up and is heard: its last status once more.
    Again,
    Events(Vec<bytes::Bytes>),
    Token(triarch_rpc::node::TokenRequest),
}

/// Runs a session until its stream ends, its receiver is gone or `scope` ends.
pub async fn run<S, E>(
    shared: Shared,
    scope: Scope,
    may_speak_for: impl Fn(&str) -> bool,
    mut inbound: S,
    out: mpsc::Sender<ControlMessage>,
) -> Result<(), SessionError>
where
    S: Stream<Item = Result<AgentMessage, E>> + Unpin + Send,
{
    let hello = match inbound.next().await {
        Some(Ok(AgentMessage { body: Some(FromAgent::Hello(h)) })) => h,
        _ => return Err(SessionError::NoHello),
    };
    let node = hello.node_name.clone();
    if !may_speak_for(&node) {
        return Err(SessionError::Forbidden(node));
    }
    let writer = Arc::new(NodeWriter::new(&shared.registry, &node));
    register(&shared, &writer, &hello).await?;
    shared.liveness.heard(&node);
    tracing::info!(node, agent = hello.agent_version, "node session opened");

    let local = scope.child();
    let guard = EndWith(local.clone());
    let (work, queue) = mpsc::channel(WRITE_QUEUE);
    shared.env.spawn_in(&local, "gateway-assign", assign(shared.clone(), hello, out.clone()));
    shared.env.spawn_in(&local, "gateway-write", write(shared.env.clone(), writer.clone(), queue, out.clone()));
    loop {
        let message = match scope.run(inbound.next()).await {
            Some(Some(Ok(m))) => m,
            Some(_) => break,
            None => {
                let bye = Goodbye { reason: "this replica is stopping".into() };
                let _gone = out.try_send(ControlMessage { body: Some(ToAgent::Goodbye(bye)) });
                break;
            }
        };
        let job = match message.body {
            Some(FromAgent::Heartbeat(h)) => {
                shared.liveness.heard(&node);
                let ack = ToAgent::HeartbeatAck(HeartbeatAck { sequence: h.sequence });
                if out.send(ControlMessage { body: Some(ack) }).await.is_err() {
                    break;
                }
                if !writer.given_up() {
                    continue;
                }
                Work::Again
            }
            Some(FromAgent::Status(s)) => Work::Status(s),
            Some(FromAgent::Events(e)) => Work::Events(e.events_json),
            Some(FromAgent::Token(t)) => Work::Token(t),
            Some(FromAgent::Hello(_) | FromAgent::Ack(_)) | None => continue,
        };
        shared.liveness.heard(&node);
        if work.send(job).await.is_err() {
            break;
        }
    }
    drop(guard);
    tracing::info!(node, "node session ended");
    Ok(())
}

/// Cancels a scope when the session's loop is left, however that happens.
struct EndWith(Scope);

impl Drop for EndWith {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn register(shared: &Shared, writer: &NodeWriter, hello: &Hello) -> Result<(), SessionError> {
    let node = serde_json::from_slice(&hello.node_json).map_err(|e| SessionError::Register(e.to_string()))?;
    writer.register(node).await.map_err(|s| SessionError::Register(s.message.clone()))?;
    // The session's own reads see the registration.
    let _reached = shared.registry.db().read_barrier().await;
    Ok(())
}

/// Sends the complete set and then deltas, for as long as somebody takes them.
async fn assign(shared: Shared, hello: Hello, out: mpsc::Sender<ControlMessage>) {
    let settings = (shared.settings)();
    let welcome = Welcome {
        term: (shared.term)(),
        heartbeat_interval_ms: settings.heartbeat_interval.as_millis() as u32,
        servers: settings.servers,
        api_endpoints: settings.api_endpoints,
    };
    if out.send(ControlMessage { body: Some(ToAgent::Welcome(welcome)) }).await.is_err() {
        return;
    }
    let store = shared.registry.mvcc().clone();
    let place = shared.board.join(&hello.node_name, &hello.without_resources);
    let mut set = NodeSet::new(&hello.node_name, hello.without_resources.clone());
    loop {
        let dirty = place.next().await;
        // Read before the values: they are at this revision or later, and what
        // is later is announced again with its own.
        let (term, revision) = ((shared.term)(), store.revision());
        let messages = match dirty {
            Dirty::Whole => {
                let pods = shared.board.pods_of(&hello.node_name).unwrap_or_default();
                let items = set.full(&store, &pods);
                place.refer(set.references());
                let chunks = chunk(items);
                let last = chunks.len() - 1;
                let message = |(i, items)| ToAgent::Assign(Assign { term, revision, items, last: i == last });
                chunks.into_iter().enumerate().map(message).collect::<Vec<_>>()
            }
            Dirty::Keys(keys) => {
                let mut change = set.delta(&store, &keys);
                place.refer(set.references());
                if change.upserts.is_empty() && change.removals.is_empty() {
                    continue;
                }
                let chunks = chunk(change.upserts);
                let last = chunks.len() - 1;
                chunks
                    .into_iter()
                    .enumerate()
                    .map(|(i, upserts)| {
                        let removals = if i == last { std::mem::take(&mut change.removals) } else { Vec::new() };
                        ToAgent::Delta(Delta { term, revision, upserts, removals })
                    })
                    .collect()
            }
        };
        for body in messages {
            if out.send(ControlMessage { body: Some(body) }).await.is_err() {
                return;
            }
        }
    }
}

/// Splits items into messages of bounded size; at least one, maybe empty.
fn chunk(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut out = vec![Vec::new()];
    let mut size = 0;
    for item in items {
        if size > 0 && size + item.json.len() > MESSAGE_BYTES {
            out.push(Vec::new());
            size = 0;
        }
        size += item.json.len();
        out.last_mut().expect("starts with one").push(item);
    }
    out
}

/// Writes what the agent reports, in order, a batch's pods concurrently.
async fn write(env: Env, writer: Arc<NodeWriter>, mut queue: mpsc::Receiver<Work>, out: mpsc::Sender<ControlMessage>) {
    while let Some(job) = queue.recv().await {
        let answer = match job {
            Work::Status(batch) => Some(ToAgent::StatusAck(status(env.clone(), writer.clone(), batch).await)),
            Work::Again => {
                writer.node_status_again().await;
                None
            }
            Work::Events(events) => {
                writer.events(events).await;
                None
            }
            Work::Token(r) => Some(ToAgent::Token(match writer.token(&r).await {
                Ok((token, expires)) => {
                    TokenResponse { id: r.id, token, expiration_unix_seconds: expires, error: String::new() }
                }
                Err(s) => TokenResponse { id: r.id, error: s.message.clone(), ..TokenResponse::default() },
            })),
        };
        if let Some(body) = answer
            && out.send(ControlMessage { body: Some(body) }).await.is_err()
        {
            return;
        }
    }
}

/// Writes a whole batch, again and again until each is written or refused:
/// only then does the agent hear of it. (The session's end breaks this off,
/// and the agent sends what was not acknowledged to its next replica.)
async fn status(env: Env, writer: Arc<NodeWriter>, batch: StatusBatch) -> StatusAck {
    let (sequence, of_node) = (batch.sequence, batch.node_status_json.clone());
    let node = node_status(env.clone(), writer.clone(), of_node);
    let (refused, ()) = futures::join!(pod_statuses(env, writer, batch), node);
    StatusAck { sequence, refused }
}

/// The node's part of a batch; an agent says it once, so it is not dropped.
async fn node_status(env: Env, writer: Arc<NodeWriter>, json: bytes::Bytes) {
    if json.is_empty() {
        return;
    }
    let Ok(node) = serde_json::from_slice(&json) else {
        tracing::warn!("a node status is not JSON and is left out");
        return;
    };
    while let Err(s) = writer.node_status(&node).await {
        if refused(&s) {
            tracing::warn!(message = %s.message, "node status refused");
            return;
        }
        tracing::debug!(message = %s.message, "node status not written yet");
        env.sleep(RETRY).await;
    }
}

/// Whether a write would be refused in the same way if it were tried again.
fn refused(s: &triarch_api::status::Status) -> bool {
    matches!(s.code, 400 | 403 | 404 | 422)
}

async fn pod_statuses(env: Env, writer: Arc<NodeWriter>, batch: StatusBatch) -> Vec<Refusal> {
    let refused: Vec<Option<Refusal>> = futures::stream::iter(batch.pods)
        .map(|update| {
            let (env, writer) = (env.clone(), writer.clone());
            async move {
                loop {
                    match writer.pod_status(&update).await {
                        Ok(None) => return None,
                        Ok(Some(reason)) => return Some(Refusal { uid: update.uid, reason }),
                        Err(s) => {
                            tracing::debug!(pod = update.name, message = %s.message, "pod status not written yet");
                            env.sleep(RETRY).await;
                        }
                    }
                }
            }
        })
        .buffer_unordered(CONCURRENT_WRITES)
        .collect()
        .await;
    refused.into_iter().flatten().collect()
}
