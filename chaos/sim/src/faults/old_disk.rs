//! A replica comes back on a copy of its disks that was made before it last
//! started: it must be refused, since it has forgotten what it acknowledged. And
//! however long that takes, it must neither vote nor take entries meanwhile.

use std::sync::Arc;
use std::time::Duration;

use triarch_env::SimDisk;
use triarch_raft::NodeId;

use super::{back_whole, between, leader_or_any};
use crate::machine::Up;
use crate::run::Run;

pub const REFUSED: &str = "old-disk-refused";
pub const FIRST: &str = "introduced-first";
/// By then a majority is reached again, whatever the network does.
const LIMIT: Duration = Duration::from_secs(90);

/// Everybody else runs and has noted the latest start of `id`.
fn noted(run: &Run, id: NodeId) -> bool {
    let Some(up) = run.up(id) else { return false };
    let own = up.db.starts().own();
    run.all(|other| other.db.config().node_id == id || other.db.starts().seen(id) >= own)
}

/// What a replica on an old copy does until it is refused, watched; for some time
/// perhaps nobody hears its introduction, and the others elect a leader.
async fn refused(run: &Arc<Run>, id: NodeId, up: &Up) {
    let promised = |up: &Up| {
        let state = up.wal.state();
        (state.vote, state.last)
    };
    let before = promised(up);
    if run.env.random_below(2) == 0 {
        run.env.sleep(between(run, 100, 2000)).await;
        let leader = leader_or_any(run);
        if leader != id && run.kill(leader) {
            run.env.sleep(between(run, 5, 2000)).await;
            run.restart(leader).await;
        }
    }
    run.env.sleep(between(run, 0, 1000)).await;
    run.network.set_unheard(id, false);
    run.until(LIMIT, || up.db.is_stopped()).await;
    run.tally.checked(REFUSED, 1);
    if !up.db.is_refused() {
        run.tally.violation(REFUSED, format!("replica {id} runs on a disk from before its last start"));
    }
    run.tally.checked(FIRST, 1);
    let after = promised(up);
    if after != before {
        let what = format!("replica {id} was refused, and its log went from {before:?} to {after:?} until then");
        run.tally.violation(FIRST, what);
    }
}

pub async fn inject(run: Arc<Run>) {
    let id = run.any();
    if run.alone() || !run.kill(id) {
        return;
    }
    let seed = run.env.random_u64();
    let (disk, checkpoint) = run
        .machine_mut(id, |m| (SimDisk::holding(seed, &m.disk.image()), SimDisk::holding(!seed, &m.checkpoint.image())));
    back_whole(&run, id).await;
    run.env.sleep(between(&run, 100, 3000)).await;
    if !run.until(Duration::from_secs(5), || noted(&run, id)).await || !run.power_off(id) {
        return;
    }
    run.tally.fault("old-disk");
    let now = run
        .machine_mut(id, |m| (std::mem::replace(&mut m.disk, disk), std::mem::replace(&mut m.checkpoint, checkpoint)));
    run.trace.line(|| format!("r{id} comes back on an old copy of its disks"));
    run.network.set_unheard(id, run.env.random_below(2) == 0);
    if let Some(Ok(up)) = run.start(id).await {
        refused(&run, id, &up).await;
    }
    run.network.set_unheard(id, false);
    run.power_off(id);
    run.machine_mut(id, |m| (m.disk, m.checkpoint) = now);
    back_whole(&run, id).await;
}
