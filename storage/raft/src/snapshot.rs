//! Snapshots between replicas.

use std::sync::Arc;

use openraft::AsyncRuntime;
use triarch_mvcc::{Header, Pin};

use crate::checkpointer::Checkpointer;
use crate::codec::{StoredMembershipRec, VoteRec};
use crate::node::Raft;
use crate::shared::Shared;
use crate::transport::{Peer, PeerStream};

/// A view of one entry's state.
pub(crate) struct Pinned {
    pub pin: Pin,
    pub header: Header,
    pub membership: StoredMembershipRec,
}

/// What openraft calls the snapshot's data.
pub(crate) enum SnapshotData {
    Pinned(Arc<Pinned>),
}

pub(crate) async fn send(
    _shared: &Shared,
    _peer: &Peer,
    _vote: Option<VoteRec>,
    _data: &SnapshotData,
) -> Result<VoteRec, String> {
    Err("not yet".into())
}

pub(crate) async fn serve<R: AsyncRuntime>(_: &Shared, _: &Arc<Checkpointer>, _: &Raft<R>, _: PeerStream) {}
