//! Replicas of two releases side by side: those that were born with the older one
//! are upgraded one after the other, perhaps with a step back in between. When
//! there is none left, one that comes back with the older release is refused, and
//! so is one that would join with it.

use std::sync::Arc;
use std::time::Duration;

use triarch_mvcc::{Db, levels};
use triarch_raft::{MembershipError, NodeId};

use super::{back_whole, between};
use crate::run::Run;

/// By then a majority has told it, or it has come to the entry that raised the level.
const LIMIT: Duration = Duration::from_secs(90);

/// Those of the older release, the leader first or last, the others as they come.
fn order(run: &Run) -> Vec<NodeId> {
    let mut old = run.older();
    let leader = run.leader();
    let first = run.env.random_below(2) == 0;
    old.sort_by_key(|id| ((Some(*id) == leader) != first, *id));
    old
}

/// The replica is ended and comes back with a release that supports `level`.
pub async fn install(run: &Arc<Run>, id: NodeId, level: u64) {
    let ended = if run.env.random_below(2) == 0 { run.kill(id) } else { run.power_off(id) };
    run.trace.line(|| format!("r{id} is given a release of level {level}"));
    run.machine_mut(id, |m| m.supports = level);
    if ended {
        back_whole(run, id).await;
    }
}

pub async fn inject(run: Arc<Run>) {
    let old = order(&run);
    if old.is_empty() {
        return refused(&run).await;
    }
    run.tally.fault("two-levels");
    for (n, id) in old.iter().enumerate() {
        run.env.sleep(between(&run, 0, 3000)).await;
        install(&run, *id, levels::LATEST).await;
        // As long as another one is of the older release, nothing is lost by going back.
        if n + 1 < old.len() && run.env.random_below(2) == 0 {
            run.tally.fault("level-step-back");
            install(&run, *id, levels::FIRST).await;
            run.env.sleep(between(&run, 0, 1000)).await;
            install(&run, *id, levels::LATEST).await;
        }
    }
}

async fn refused(run: &Arc<Run>) {
    joins_not(run).await;
    let id = run.any();
    let Some(up) = run.up(id) else { return };
    let level = up.db.mvcc().feature_level();
    crate::invariants::levels::look(run, id, &up, level);
    drop(up);
    if level < levels::LATEST || !run.kill(id) {
        return;
    }
    run.machine_mut(id, |m| m.supports = levels::FIRST);
    run.trace.line(|| format!("r{id} comes back with the older release"));
    let why = match run.start(id).await {
        Some(Err(why)) => Some(why),
        Some(Ok(up)) => {
            run.until(LIMIT, || up.db.is_stopped()).await;
            if up.db.is_refused() { Some(up.db.stopped().await) } else { None }
        }
        None => Some(String::new()),
    };
    run.tally.checked(crate::invariants::levels::NAME, 1);
    run.tally.fault("older-release-refused");
    let named = why.as_ref().is_some_and(|why| why.contains("feature level"));
    if !named && why.as_deref() != Some("") {
        run.tally.violation(
            crate::invariants::levels::NAME,
            format!("replica {id} comes back with a release that is too old: {why:?}"),
        );
    }
    run.power_off(id);
    run.machine_mut(id, |m| m.supports = levels::LATEST);
    back_whole(run, id).await;
}

/// One that would join with the older release is told so, and is no member.
async fn joins_not(run: &Arc<Run>) {
    let Some(leader) = run.leader() else { return };
    let replica = run.new_machine().replica;
    let name = replica.name.clone();
    let asked = run.call(leader, |db| async move {
        // Below that it would be a member, which is waited for.
        let raised = db.mvcc().feature_level() > levels::FIRST;
        if raised { Some(db.add_replica(replica, levels::FIRST).await) } else { None }
    });
    let Ok(Some(answer)) = asked.await else { return };
    run.tally.checked(crate::invariants::levels::NAME, 1);
    if let Ok(id) = answer {
        run.tally.violation(
            crate::invariants::levels::NAME,
            format!("{name} joins as replica {id} with a release that is too old"),
        );
    } else if !matches!(answer, Err(MembershipError::TooOld(_))) {
        run.trace.line(|| format!("{name} does not join: {answer:?}"));
    }
}
