//! The checkpoint: what it holds is openraft's snapshot, and how far it is is
//! how far the log may be purged.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use triarch_mvcc::{Header, Pin};

use crate::codec::{LogRec, StoredMembershipRec};
use crate::shared::Shared;
use crate::snapshot::{Pinned, SnapshotData};
use crate::types::{LeaderId, LogId, NodeId, Replica, SnapshotMeta, StoredMembership};

type Snapshot = openraft::Snapshot<LeaderId, NodeId, Replica, SnapshotData>;

pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Memberships since the checkpoint, oldest first: which one was in force
    /// at a past entry is asked when the checkpoint gets there.
    memberships: VecDeque<StoredMembershipRec>,
}

impl Checkpointer {
    pub fn new(shared: Arc<Shared>, membership: StoredMembershipRec) -> Arc<Checkpointer> {
        let state = State { memberships: VecDeque::from([membership]) };
        Arc::new(Checkpointer { shared, state: Mutex::new(state) })
    }

    /// Entry `at` is applied; `membership` is in force.
    pub fn applied(&self, _at: LogId, membership: &StoredMembership) {
        let mut state = self.state.lock();
        let known = state.memberships.back().and_then(|m| m.at);
        if known != membership.log_id().map(LogRec::from) {
            state.memberships.push_back(membership.into());
        }
    }

    fn membership_at(&self, index: u64) -> StoredMembershipRec {
        let state = self.state.lock();
        let found = state.memberships.iter().rev().find(|m| m.at.is_none_or(|at| at.index <= index));
        found.cloned().unwrap_or_default()
    }

    fn meta(&self, header: &Header) -> Option<SnapshotMeta> {
        let at = header.applied;
        let last = LogRec { term: at.term, node: at.node, index: at.index };
        let last_membership = self.membership_at(at.index).try_into().ok()?;
        Some(SnapshotMeta { last_log_id: Some(last.into()), last_membership })
    }

    /// The snapshot that another replica would get.
    pub fn current(&self) -> Option<Snapshot> {
        let pin: Pin = self.shared.mvcc.pin_exported().ok()?;
        let header = pin.header();
        if header.applied.term == 0 {
            return None;
        }
        let meta = self.meta(&header)?;
        let membership = StoredMembershipRec::from(&meta.last_membership);
        Some(Snapshot { meta, snapshot: SnapshotData::Pinned(Arc::new(Pinned { pin, header, membership })) })
    }

    pub async fn install(&self, _snapshot: SnapshotData) -> io::Result<()> {
        Err(io::Error::other("not yet"))
    }
}
