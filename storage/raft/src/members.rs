//! Who belongs to the cluster: ids for newcomers, promotion, removal, handing
//! leadership over, and the status of all.
//!
//! Invariant: an id is given out once. The counter is replicated state, raised
//! before the newcomer is added, so that no crash gives an id twice.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use triarch_mvcc::levels::{self, fits};
use triarch_mvcc::{Db, Guard, Key, Object, Op, Txn, TxnOutcome};

use crate::codec;
use crate::core::{Core, MembershipError};
use crate::db::{ClusterStatus, RaftDb, ReplicaStatus};
use crate::leadership::LeaderView;
use crate::shared::Shared;
use crate::transport::{Call, Peer};
use crate::types::{NodeId, Replica};
use crate::wire::PeerStatus;

/// A learner this close to the leader's log may become a voter.
const CAUGHT_UP: u64 = 1000;
const PROMOTE_WAIT: Duration = Duration::from_secs(300);
const TRANSFER_WAIT: Duration = Duration::from_secs(5);
const STATUS_WAIT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);

/// Where the last id that was given out is kept.
fn counter_key() -> Key {
    Key::new("~system", "", "last-replica-id")
}

fn failed(e: impl ToString) -> MembershipError {
    MembershipError::Failed(e.to_string())
}

/// Raises the counter and returns the new id.
async fn allocate(db: &RaftDb, shared: &Shared) -> Result<NodeId, MembershipError> {
    // Each round is lost only to another allocation.
    for _ in 0..64 {
        db.read_barrier().await.map_err(failed)?;
        let held = db.mvcc().get(&counter_key());
        let last = match &held {
            Some(stored) => codec::decode::<u64>("the last replica id", &stored.object.bytes).map_err(failed)?,
            None => shared.membership.read().membership().nodes().map(|(id, _)| *id).max().unwrap_or(0),
        };
        let next = last.checked_add(1).ok_or_else(|| failed("replica ids are used up"))?;
        let guard = match &held {
            Some(stored) => Guard::ModRevision(counter_key(), stored.mod_revision),
            None => Guard::Absent(counter_key()),
        };
        let txn = Txn {
            guards: vec![guard],
            ops: vec![Op::Put(counter_key(), Object::plain(codec::encode(&next)))],
            epoch: None,
        };
        match db.commit(txn).await.map_err(failed)?.outcome {
            TxnOutcome::Committed { .. } => return Ok(next),
            TxnOutcome::GuardFailed { .. } => {}
            other => return Err(failed(format!("{other:?}"))),
        }
    }
    Err(failed("too many replicas join at once; try again"))
}

pub(crate) async fn add(
    db: &RaftDb,
    shared: &Shared,
    core: &dyn Core,
    replica: Replica,
    supports: u64,
) -> Result<NodeId, MembershipError> {
    // Held until the newcomer is in, so that who asks again finds it.
    let _one_by_one = shared.joining.lock().await;
    let members = core.members().await?;
    let known = members.membership();
    if let Some((id, _)) = known.nodes().find(|(_, r)| r.name == replica.name && r.incarnation == replica.incarnation) {
        return Ok(*id);
    }
    if known.nodes().any(|(_, r)| r.name == replica.name) {
        return Err(failed(format!(
            "a replica named {} is a member already; remove it first, or join under another name",
            replica.name
        )));
    }
    if shared.leadership.view().leader != Some(shared.id()) {
        return Err(MembershipError::NotLeader(shared.leadership.view().leader));
    }
    // Its counter is read behind whatever was written before, the level too.
    let id = allocate(db, shared).await?;
    fits(shared.mvcc.feature_level(), supports.max(levels::FIRST))?;
    core.add_learner(id, replica).await?;
    Ok(id)
}

pub(crate) async fn promote(shared: &Shared, core: &dyn Core, id: NodeId) -> Result<(), MembershipError> {
    let waited = shared.env.timeout(PROMOTE_WAIT, async {
        if core.members().await?.membership().get_node(&id).is_none() {
            return Err(MembershipError::Unknown(id));
        }
        loop {
            let status = core.status();
            if status.leader != Some(shared.id()) {
                return Err(MembershipError::NotLeader(status.leader));
            }
            let matched = status.followers.get(&id).and_then(|(matched, _)| *matched);
            if let (Some(matched), Some(last)) = (matched, status.last_log)
                && matched + CAUGHT_UP >= last
            {
                return core.promote(id).await;
            }
            shared.env.sleep(POLL).await;
        }
    });
    waited.await.unwrap_or(Err(MembershipError::Timeout(PROMOTE_WAIT)))
}

pub(crate) async fn transfer(
    shared: &Shared,
    core: &dyn Core,
    to: Option<NodeId>,
) -> Result<LeaderView, MembershipError> {
    let status = core.status();
    let best = || {
        let others = status.voters.iter().filter(|id| **id != shared.id());
        others.max_by_key(|id| (status.followers.get(id).and_then(|(m, _)| *m), **id)).copied()
    };
    let to = to.or_else(best).ok_or_else(|| failed("there is no other voter"))?;
    if to == shared.id() && status.leader == Some(to) {
        return Ok(shared.leadership.view());
    }
    core.transfer_leader(to).await?;
    let moved = shared.leadership.until(|v| (v.leader == Some(to)).then_some(*v));
    shared.env.timeout(TRANSFER_WAIT, moved).await.map_err(|_| MembershipError::Timeout(TRANSFER_WAIT))
}

pub(crate) async fn status(shared: &Shared, core: &dyn Core) -> ClusterStatus {
    let core = core.status();
    let view = shared.leadership.view();
    let mut asked: FuturesOrdered<_> = core
        .nodes
        .iter()
        .map(|(id, replica)| {
            let peer = Peer { id: *id, address: replica.peer_address.clone() };
            async move {
                let call = shared.transport.call(&peer, Call::Status, Bytes::new());
                let own = peer.id == shared.id();
                let answer = match own {
                    true => None,
                    false => shared.env.timeout(STATUS_WAIT, call).await.ok().and_then(Result::ok),
                };
                (peer.id, own, answer.and_then(|b| codec::decode_grown::<PeerStatus>("a status", &b).ok()))
            }
        })
        .collect();
    let mut replicas = Vec::new();
    while let Some((id, own, answer)) = asked.next().await {
        let replica = &core.nodes[&id];
        let answer = if own { Some(shared.own_status()) } else { answer };
        let reachable = answer.is_some();
        let answer = answer.unwrap_or_default();
        let last_ack = if Some(id) == core.leader {
            core.quorum_ack
        } else {
            core.followers.get(&id).and_then(|(_, acked)| *acked)
        };
        replicas.push(ReplicaStatus {
            id,
            name: replica.name.clone(),
            client_address: replica.client_address.clone(),
            peer_address: replica.peer_address.clone(),
            voter: core.voters.contains(&id),
            reachable,
            ready: answer.ready,
            pid: answer.pid,
            applied_index: answer.applied_index,
            applied_revision: answer.applied_revision,
            disk_bytes: answer.disk_bytes,
            supports: if reachable { answer.supports.max(levels::FIRST) } else { 0 },
            last_ack,
        });
    }
    ClusterStatus { term: view.term, leader: view.leader, replicas }
}
