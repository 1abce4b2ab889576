//! The leader's raising of the feature level, once every member says that it
//! supports more; see [`triarch_mvcc::levels`].
//!
//! ```text
//!   leader ─► Status ─► every voter and learner ─► the lowest that one supports
//!          ─► a write of the level, under the leader's epoch ─► apply, everywhere
//! ```
//! Invariants: nobody is taken for a member that supports more than it has said
//! (who does not say is of the first level), and nobody becomes a member between
//! the question and the write. Who comes back with an older release afterwards
//! is refused: when it starts, by those to whom it is introduced, or before it
//! applies the entry that raises the level.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use triarch_mutants::mutant;
use triarch_mvcc::levels::{self, TooOld};
use triarch_mvcc::{AppliedAt, Db, Epoch, ProposalId, Txn};

use crate::core::Core;
use crate::db::{RaftDb, StartError};
use crate::shared::Shared;

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_secs(1);
/// How long the first replica of a cluster waits for its own level.
const BORN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// The level to raise to from `level`; `None`: it stays. `members`: what each
/// supports, as far as it has said.
fn next(level: u64, members: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    let mut lowest = None::<u64>;
    for supports in members {
        let supports = supports?;
        lowest = Some(lowest.map_or(supports, |l| l.min(supports)));
    }
    lowest.filter(|to| *to > level)
}

/// One round; the error says why there was none.
async fn round(db: &RaftDb, shared: &Shared, core: &dyn Core, epoch: Epoch) -> Result<(), String> {
    // Nobody joins meanwhile.
    let _one_by_one = shared.joining.lock().await;
    let members = core.members().await.map_err(|e| e.to_string())?;
    let status = crate::members::status(shared, core).await;
    let supports = |id: &u64| {
        let said = status.replicas.iter().find(|r| r.id == *id && r.reachable).map(|r| r.supports);
        if mutant("level-raised-early") { Some(shared.config.supports) } else { said }
    };
    let level = shared.mvcc.feature_level();
    let Some(to) = next(level, members.membership().nodes().map(|(id, _)| supports(id))) else { return Ok(()) };
    db.commit(shared.mvcc.raise(to, epoch)).await.map_err(|e| e.to_string())?;
    tracing::info!(from = level, to, "every replica supports more: the feature level is raised");
    Ok(())
}

/// Runs until its leader scope ends, or there is nothing left to raise.
pub(crate) async fn run(db: Arc<RaftDb>, shared: Arc<Shared>, core: Arc<dyn Core>, epoch: Epoch) {
    while shared.mvcc.feature_level() < shared.config.supports {
        if let Err(why) = round(&db, &shared, &*core, epoch).await {
            tracing::debug!(why, "the feature level was not raised; trying again later");
        }
        shared.env.sleep(ROUND).await;
    }
}

/// Waits until a new cluster is at the level of its first replica.
pub(crate) async fn born(shared: &Shared) {
    let raised = async {
        while shared.mvcc.feature_level() < shared.config.supports && !shared.scope.is_cancelled() {
            shared.env.sleep(POLL).await;
        }
    };
    // Without a leader there is nothing to wait for; what needs the level is told so.
    let _ = shared.env.timeout(BORN, raised).await;
}

/// Whether a replica that supports `supports` may start on a state of `level`.
pub(crate) fn begin(level: u64, supports: u64) -> Result<(), StartError> {
    levels::fits(level, supports).map_err(|e| StartError::Refused(e.to_string()))
}

/// Stops this replica for good when it does not support `level`.
pub(crate) fn admit(shared: &Shared, level: u64) -> Result<(), TooOld> {
    levels::fits(level, shared.config.supports).inspect_err(|e| {
        tracing::error!(error = %e, "this release is too old");
        shared.refuse(e.to_string());
    })
}

/// Refuses a batch that raises the level above what this replica supports: it
/// must not apply it, nor anything behind it.
pub(crate) fn admit_batch(shared: &Shared, batch: &[(ProposalId, Txn)], at: AppliedAt) -> io::Result<()> {
    match batch.iter().filter_map(|(_, txn)| txn.sets_level(at.epoch())).max() {
        Some(level) if level > shared.mvcc.feature_level() => admit(shared, level).map_err(io::Error::other),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn a_level_rises_to_the_lowest_that_everybody_supports_and_waits_for_the_silent() {
        assert_eq!(next(1, [Some(2), Some(3), Some(2)]), Some(2));
        assert_eq!(next(2, [Some(2), Some(3), Some(2)]), None);
        assert_eq!(next(3, [Some(2), Some(2), Some(2)]), None, "it is never lowered");
        assert_eq!(next(1, [Some(2), None, Some(2)]), None);
        assert_eq!(next(1, [Some(4)]), Some(4), "a cluster of one");
        assert_eq!(next(1, []), None);
    }
}
