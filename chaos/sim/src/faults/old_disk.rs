//! A replica comes back on a copy of its disks that was made before it last
//! started: it must be refused, since it has forgotten what it acknowledged.

use std::sync::Arc;
use std::time::Duration;

use triarch_env::SimDisk;
use triarch_raft::NodeId;

use super::{back_whole, between};
use crate::run::Run;

pub const REFUSED: &str = "old-disk-refused";
/// By then a majority is reached again, whatever the network does.
const LIMIT: Duration = Duration::from_secs(90);

/// Everybody else runs and has noted the latest start of `id`.
fn noted(run: &Run, id: NodeId) -> bool {
    let Some(up) = run.up(id) else { return false };
    let own = up.db.starts().own();
    run.all(|other| other.db.config().node_id == id || other.db.starts().seen(id) >= own)
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
    if let Some(Ok(up)) = run.start(id).await {
        run.until(LIMIT, || up.db.is_stopped()).await;
        run.tally.checked(REFUSED, 1);
        if !up.db.is_refused() {
            run.tally.violation(REFUSED, format!("replica {id} runs on a disk from before its last start"));
        }
    }
    run.power_off(id);
    run.machine_mut(id, |m| (m.disk, m.checkpoint) = now);
    back_whole(&run, id).await;
}
