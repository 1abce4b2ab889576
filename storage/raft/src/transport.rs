//! The network seam: calls and long-lived streams between replicas. Production
//! puts gRPC behind it ([`crate::grpc`]), tests and the simulation something
//! that they can break.
//!
//! ```text
//!   RaftDb ─► PeerTransport ~~~ network ~~~► PeerHandler ─► the peer's RaftDb
//! ```
//!
//! Invariant that an implementation keeps: a stream delivers in order, without
//! loss and without duplicates, until it breaks; a break is seen by both ends.
//! Calls may be lost, delayed, duplicated and reordered.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::types::NodeId;

/// Messages that a stream may hold in each direction before its sender waits.
pub const STREAM_DEPTH: usize = 256;

/// One request, one answer. The caller sets the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Vote,
    TransferLeader,
    ReadIndex,
    LeaderLost,
    Status,
    /// Asked of the leader by another replica: what only its memory knows.
    Ask,
    /// A replica that has just started; see [`crate::starts`].
    Introduce,
}

/// One long-lived stream per peer and lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Entries, leader to follower.
    Log,
    /// Liveness, leader to follower; never behind a large batch of entries.
    Heartbeat,
    /// Proposals, follower to leader.
    Forward,
    /// Snapshot pages.
    Snapshot,
}

impl Lane {
    pub const ALL: [Lane; 4] = [Lane::Log, Lane::Heartbeat, Lane::Forward, Lane::Snapshot];

    pub fn number(self) -> u32 {
        match self {
            Lane::Log => 0,
            Lane::Heartbeat => 1,
            Lane::Forward => 2,
            Lane::Snapshot => 3,
        }
    }

    pub fn from_number(n: u32) -> Option<Lane> {
        Lane::ALL.into_iter().find(|l| l.number() == n)
    }
}

/// A unit on a stream: a body, and log payloads that are passed by reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub body: Bytes,
    pub payloads: Vec<Bytes>,
}

/// One end of a stream. Dropping it breaks the stream; `rx` ends when it broke.
#[derive(Debug)]
pub struct PeerStream {
    pub tx: mpsc::Sender<Message>,
    pub rx: Incoming,
}

/// What comes in on a stream.
pub enum Incoming {
    Queue(mpsc::Receiver<Message>),
    /// Read by whoever receives, without a task and a queue between; it ends
    /// when the stream broke.
    Direct(BoxStream<'static, Message>),
}

impl Incoming {
    /// The next message; `None` when the stream broke. May be dropped and called again.
    pub async fn recv(&mut self) -> Option<Message> {
        match self {
            Incoming::Queue(rx) => rx.recv().await,
            Incoming::Direct(stream) => stream.next().await,
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Incoming::Queue(_) => "Incoming::Queue",
            Incoming::Direct(_) => "Incoming::Direct",
        })
    }
}

impl PeerStream {
    /// Two ends joined in memory.
    pub fn pair() -> (PeerStream, PeerStream) {
        let (atx, arx) = mpsc::channel(STREAM_DEPTH);
        let (btx, brx) = mpsc::channel(STREAM_DEPTH);
        let end = |tx, rx| PeerStream { tx, rx: Incoming::Queue(rx) };
        (end(atx, brx), end(btx, arx))
    }
}

/// Why a peer was not reached or said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("cannot reach replica {0}: {1}")]
    Unreachable(NodeId, String),
    /// It is another cluster's, another replica's, or a wiped one.
    #[error("refused: {0}")]
    Refused(String),
    #[error("replica {0} failed: {1}")]
    Failed(NodeId, String),
}

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub id: NodeId,
    /// `host:port`.
    pub address: String,
}

/// The way to other replicas.
#[async_trait]
pub trait PeerTransport: Send + Sync + 'static {
    async fn call(&self, peer: &Peer, call: Call, body: Bytes) -> Result<Bytes, PeerError>;
    /// Opens a stream; the caller sets the deadline.
    async fn open(&self, peer: &Peer, lane: Lane) -> Result<PeerStream, PeerError>;
}

/// Who sends, as the transport has verified it (cluster) or carries it (incarnation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub cluster_id: String,
    pub id: NodeId,
    pub incarnation: u64,
    /// Whom the sender believes to talk to.
    pub to: NodeId,
}

/// The receiving side; a replica hands out its own by `RaftDb::peer_handler`.
#[async_trait]
pub trait PeerHandler: Send + Sync + 'static {
    async fn call(&self, from: &Sender, call: Call, body: Bytes) -> Result<Bytes, PeerError>;
    /// Serves a stream until it breaks; returns at once.
    fn stream(&self, from: &Sender, lane: Lane, stream: PeerStream) -> Result<(), PeerError>;
    /// The transport has refused this sender before it came here.
    fn refused(&self, _from: &Sender, _why: &str) {}
}

/// A transport that reaches nobody: a cluster of one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

#[async_trait]
impl PeerTransport for NoPeers {
    async fn call(&self, peer: &Peer, _: Call, _: Bytes) -> Result<Bytes, PeerError> {
        Err(PeerError::Unreachable(peer.id, "this replica has no peer transport".into()))
    }

    async fn open(&self, peer: &Peer, _: Lane) -> Result<PeerStream, PeerError> {
        Err(PeerError::Unreachable(peer.id, "this replica has no peer transport".into()))
    }
}

pub type SharedTransport = Arc<dyn PeerTransport>;
