//! What a replica starts from: its own checkpoint, nothing, or, when its
//! checkpoint was lost, a peer's.
//!
//! Invariant: what is loaded reaches at least to where the log was purged, so
//! that the log goes on from it without a hole.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use triarch_checkpoint::Opened;
use triarch_env::Env;
use triarch_mvcc::{Header, Import};
use triarch_wal::WalHandle;

use crate::codec::{self, StoredMembershipRec};
use crate::config::RaftConfig;
use crate::db::StartError;
use crate::store::{self, LoadError};
use crate::stores::Stores;
use crate::transport::PeerTransport;
use crate::types::NodeId;

/// How long a replica that lost its checkpoint looks for a peer that has one.
const SEARCH: Duration = Duration::from_secs(120);
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);

/// Whom the log belongs to, kept in the log itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    cluster_id: String,
    node_id: NodeId,
    incarnation: u64,
}

/// The state to start from.
pub(crate) struct Start {
    /// `None`: an empty one.
    pub state: Option<(Header, Import)>,
    pub membership: StoredMembershipRec,
    /// It is on disk already.
    pub durable: bool,
}

/// Writes the owner into a new log, and refuses another's, and one that was
/// emptied behind the back of its directory's identity.
pub(crate) async fn own_log(config: &RaftConfig, wal: &WalHandle) -> Result<(), StartError> {
    let me = Owner {
        cluster_id: config.cluster_id.clone(),
        node_id: config.node_id,
        incarnation: config.replica.incarnation,
    };
    match wal.state().identity {
        Some(bytes) => {
            let found: Owner = codec::decode("the log's owner", &bytes)
                .map_err(|e| StartError::Foreign(format!("the log's owner cannot be read: {e}")))?;
            if found != me {
                return Err(StartError::Foreign(format!(
                    "the log in wal/ is of replica {} of cluster {} (incarnation {:016x}), and IDENTITY names replica \
                     {} of cluster {} (incarnation {:016x})",
                    found.node_id, found.cluster_id, found.incarnation, me.node_id, me.cluster_id, me.incarnation
                )));
            }
            Ok(())
        }
        None if !config.new_log => Err(StartError::Wiped(config.node_id)),
        None => Ok(wal.save_identity(codec::encode(&me)).await?),
    }
}

pub(crate) async fn start_from(
    config: &RaftConfig,
    env: &Env,
    stores: &Stores,
    transport: &dyn PeerTransport,
) -> Result<Start, StartError> {
    let purged = stores.wal.state().purged.map(|p| p.index);
    let lost = match &stores.found {
        Opened::Found(header) => {
            match store::load(&stores.checkpoint, header, &config.mvcc, (&config.cluster_id, config.node_id)) {
                Ok(l) if purged.is_none_or(|p| p <= l.header.applied.index) => {
                    drop_refuted_tail(&stores.wal, &l.header).await?;
                    return Ok(Start { state: Some((l.header, l.import)), membership: l.membership, durable: true });
                }
                Ok(l) => format!(
                    "it reaches to entry {}, but the log begins after {}",
                    l.header.applied.index,
                    purged.unwrap_or(0)
                ),
                Err(LoadError::Refused(why)) => return Err(StartError::Checkpoint(why)),
                Err(LoadError::Lost(why)) => why,
            }
        }
        Opened::Lost(why) => why.clone(),
        Opened::Empty => "there is none".into(),
    };
    // The log begins at the beginning: it holds everything.
    let Some(purged) = purged else {
        return Ok(Start { state: None, membership: StoredMembershipRec::default(), durable: false });
    };
    if stores.peers.iter().all(|p| p.id == config.node_id) {
        return Err(StartError::Checkpoint(format!(
            "it is lost ({lost}) and PEERS names no other replica that could give its own; restore the directory \
             checkpoint/ or the file PEERS, or remove this replica and join it again"
        )));
    }
    tracing::warn!(lost, "the checkpoint is lost; asking the other replicas for theirs");
    let found = env.timeout(SEARCH, async {
        loop {
            for peer in stores.peers.iter().filter(|p| p.id != config.node_id) {
                match crate::snapshot::pull(env, transport, peer, purged, &config.timers, &config.mvcc).await {
                    Ok(received) => return received,
                    Err(why) => tracing::info!(peer = peer.id, why, "the peer sent no checkpoint; asking on"),
                }
            }
            env.sleep(BETWEEN_ROUNDS).await;
        }
    });
    match found.await {
        Ok(r) => {
            drop_refuted_tail(&stores.wal, &r.header).await?;
            Ok(Start { state: Some((r.header, r.import)), membership: r.membership, durable: false })
        }
        Err(_) => Err(StartError::Checkpoint(format!(
            "it is lost ({lost}) and no other replica gave its own within {SEARCH:?}; start another replica, or remove \
             this one and join it again"
        ))),
    }
}

/// Cuts off what the log has in the place of the checkpoint's last entry and
/// after it, when that is another entry. A checkpoint holds committed entries
/// only: the log's own was never committed, nor was anything behind it. (It is
/// the tail of a leader that was replaced, and that lost its checkpoint before
/// it heard of it; or the machine stopped between writing a snapshot and
/// cutting the log.)
async fn drop_refuted_tail(wal: &WalHandle, header: &Header) -> Result<(), StartError> {
    let applied = &header.applied;
    let state = wal.state();
    if state.purged.is_some_and(|p| p.index >= applied.index) || state.first > applied.index {
        return Ok(());
    }
    match wal.id_at(applied.index) {
        Some(id) if (id.term, id.node) != (applied.term, applied.node) => {
            tracing::warn!(
                index = id.index,
                term = id.term,
                "the log ends in entries that were never committed; cutting them off"
            );
            Ok(wal.truncate_after(applied.index.checked_sub(1)).await?)
        }
        _ => Ok(()),
    }
}
