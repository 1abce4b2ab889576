//! openraft's type configuration, generic over the async runtime, and the few
//! values of it that we store: replicas and entry payloads.
//!
//! Invariant: leader ids are openraft's `leader_id_adv` (term, node), which is
//! what [`triarch_mvcc::Epoch`] names, so that an epoch is one leadership.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::impls::leader_id_adv;
use openraft::{AsyncRuntime, RaftTypeConfig};
use serde::{Deserialize, Serialize};
use triarch_mvcc::Epoch;

/// A replica's number in its cluster; never reused.
pub type NodeId = u64;

/// One replica as the membership knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The operator's name for it (`--name`).
    pub name: String,
    /// Where its peers dial it: `host:port`.
    pub peer_address: String,
    /// Where clients reach its API server: `host:port`.
    pub client_address: String,
    /// Drawn once per data directory. A directory that was wiped draws another
    /// one, and its owner is refused under the old id.
    pub incarnation: u64,
}

/// A batch of transactions, encoded once by its proposer: the same bytes go to
/// the log and over the wire. The first byte is [`crate::codec`]'s tag.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} B)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// openraft's types over runtime `R`.
pub struct TypeConfig<R>(PhantomData<fn() -> R>);

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, NodeId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type EntryPayload = openraft::EntryPayload<Payload, NodeId, Replica>;
pub(crate) type Entry = openraft::Entry<LeaderId, EntryPayload>;
pub(crate) type Membership = openraft::Membership<NodeId, Replica>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, Replica>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, NodeId, Replica>;

impl<R: AsyncRuntime> RaftTypeConfig for TypeConfig<R> {
    type D = Payload;
    type R = ();
    type NodeId = NodeId;
    type Node = Replica;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// The leadership that a leader id is.
pub(crate) fn epoch_of(id: &LeaderId) -> Epoch {
    Epoch { term: id.term, node: id.node_id }
}

// Derives would ask the same of `R`, which is only a marker here.
impl<R> Clone for TypeConfig<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for TypeConfig<R> {}
impl<R> Default for TypeConfig<R> {
    fn default() -> Self {
        TypeConfig(PhantomData)
    }
}
impl<R> fmt::Debug for TypeConfig<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypeConfig")
    }
}
impl<R> PartialEq for TypeConfig<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for TypeConfig<R> {}
impl<R> PartialOrd for TypeConfig<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for TypeConfig<R> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
