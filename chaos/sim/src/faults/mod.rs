//! What goes wrong, one file each. A fault undoes itself before it returns.
//!
//! Three lanes inject faults at the same time: into replicas and their disks,
//! into the network between them, and into nodes; each seed takes another order. At most one replica's
//! durable state is damaged at a time, and it comes back whole before the next:
//! more than that no quorum survives.

mod agent_cut_off;
mod agent_kill;
mod at_rest;
mod checkpoint_error;
mod checkpoint_lost;
mod checkpoint_old;
mod clock_jump;
mod crash_all;
mod disk_full;
mod disk_stall;
mod flapping;
mod fsync_error;
mod isolate;
mod kill;
mod lag;
mod leader_transfer;
pub mod lost_files;
pub mod old_disk;
mod one_way;
mod pause;
mod power_loss;
mod replace;
mod restart_storm;
mod slow_fsync;
mod stream_reset;
pub mod two_levels;
mod weather;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use triarch_env::SimDisk;
use triarch_raft::NodeId;

use crate::machine::Up;
use crate::run::Run;
use crate::settings::Stack;

/// A fault.
pub struct Fault {
    /// What the table calls it; also where it came about by itself.
    pub names: &'static [&'static str],
    pub inject: fn(Arc<Run>) -> BoxFuture<'static, ()>,
}

macro_rules! faults {
    ($($names:expr => $inject:path;)*) => {
        &[$(Fault { names: &$names, inject: |run| $inject(run).boxed() }),*]
    };
}

/// Of processes and disks.
pub const LOCAL: &[Fault] = faults! {
    ["kill"] => kill::any;
    ["leader-kill"] => kill::leader;
    ["power-loss", "torn-tail"] => power_loss::any;
    ["leader-power-loss"] => power_loss::leader;
    ["crash-all"] => crash_all::inject;
    ["restart-storm"] => restart_storm::inject;
    ["pause"] => pause::any;
    ["leader-pause"] => pause::leader;
    ["disk-stall"] => disk_stall::inject;
    ["slow-fsync"] => slow_fsync::inject;
    ["fsync-error"] => fsync_error::inject;
    ["disk-full"] => disk_full::inject;
    ["leader-transfer"] => leader_transfer::inject;
    ["checkpoint-error"] => checkpoint_error::inject;
    ["checkpoint-lost"] => checkpoint_lost::inject;
    ["clock-jump"] => clock_jump::inject;
    ["replica-replaced"] => replace::inject;
    ["log-purged-behind", "checkpoint-during-snapshot"] => lag::inject;
    ["snapshot-interrupted"] => lag::interrupted;
    ["checkpoint-old"] => checkpoint_old::inject;
    ["old-disk"] => old_disk::inject;
    ["damage-at-rest", "damage-refused"] => at_rest::inject;
    ["two-levels", "level-step-back", "older-release-refused"] => two_levels::inject;
    ["file-lost", "file-lost-refused"] => lost_files::inject;
};

/// Of the network.
pub const NETWORK: &[Fault] = faults! {
    ["partition"] => isolate::any;
    ["leader-cut-off"] => isolate::leader;
    ["partition-one-way"] => one_way::inject;
    ["partition-flapping"] => flapping::inject;
    ["stream-reset"] => stream_reset::inject;
    ["bad-weather", "message-loss", "message-duplicate", "stream-break"] => weather::inject;
};

/// Of nodes.
pub const NODES: &[Fault] = faults! {
    ["agent-kill"] => agent_kill::inject;
    ["agent-cut-off"] => agent_cut_off::inject;
};

/// The leader's crash in the middle of a Deployment's story, which the
/// workload injects at the moment that it needs.
pub const MID_ROLLOUT: &str = "mid-rollout-kill";

/// Every name that the table of such a run shows.
pub fn names(stack: Stack) -> impl Iterator<Item = &'static str> {
    let whole = stack == Stack::Whole;
    let lanes = LOCAL.iter().chain(NETWORK).chain(NODES.iter().filter(move |_| whole));
    lanes.flat_map(|f| f.names).copied().chain(Some(MID_ROLLOUT).filter(|_| whole))
}

/// Injects faults for as long as the load lasts.
pub async fn run(run: &Arc<Run>) {
    let end = run.env.mono() + run.settings.load;
    futures::join!(lane(run, LOCAL, end, true), lane(run, NETWORK, end, false), async {
        if run.settings.stack == Stack::Whole {
            lane(run, NODES, end, false).await;
        }
    });
}

async fn lane(run: &Arc<Run>, faults: &'static [Fault], end: triarch_env::Mono, damages: bool) {
    // Neighbouring seeds begin at neighbouring faults, so that few seeds have them all.
    let first = run.seed as usize * 5;
    for n in 0.. {
        run.env.sleep(run.env.jitter(run.settings.calm, 90)).await;
        if run.env.mono() >= end {
            return;
        }
        let fault = match run.env.random_below(4) {
            0 => &faults[run.env.random_below(faults.len() as u64) as usize],
            _ => &faults[(first + n) % faults.len()],
        };
        let _one_at_a_time = if damages { Some(run.damage.lock().await) } else { None };
        (fault.inject)(run.clone()).await;
    }
}

/// A time between two bounds, in milliseconds.
fn between(run: &Run, low: u64, high: u64) -> Duration {
    Duration::from_millis(low + run.env.random_below(high - low + 1))
}

/// Somebody whose disks may be damaged: the others run and have everything, since
/// this is damage to one replica at a time.
async fn one_to_damage(run: &Arc<Run>) -> Option<NodeId> {
    let fit = |up: &Up| up.db.is_ready() && !up.process.is_paused();
    let all = !run.alone() && run.until(Duration::from_secs(5), || run.all(fit)).await;
    all.then(|| run.any())
}

/// The files of a disk with something in them, and how far each is used.
fn used(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
    let used = |bytes: &Vec<u8>| bytes.iter().rposition(|b| *b != 0).map(|last| last as u64 + 1);
    disk.image().iter().filter_map(|(path, bytes)| Some((path.clone(), used(bytes)?))).collect()
}

/// The leader, or anybody when nobody leads.
fn leader_or_any(run: &Run) -> NodeId {
    run.leader().unwrap_or_else(|| run.any())
}

/// Starts a replica and waits until it has caught up: damage is done to one at a time.
async fn back_whole(run: &Arc<Run>, id: NodeId) {
    run.restart(id).await;
    if let Some(up) = run.up(id) {
        let ready = run.env.timeout(Duration::from_secs(30), up.db.ready()).await;
        run.trace.line(|| format!("r{id} ready: {}", ready.is_ok()));
    }
}

/// Waits for a replica to stop by itself after its disk has refused; `false`
/// when it did not although the disk had.
async fn must_stop(run: &Arc<Run>, id: NodeId, refused: impl Fn() -> bool) {
    let Some(up) = run.up(id) else { return };
    let stopped = || up.db.is_stopped();
    run.until(Duration::from_secs(5), || refused() || stopped()).await;
    if !refused() {
        return;
    }
    // From the refusal on it has as long as it needs to be told.
    let done = run.until(Duration::from_secs(2), stopped).await;
    run.tally.checked("disk-failure-stops", 1);
    if !done {
        run.tally.violation("disk-failure-stops", format!("replica {id} goes on after its log's disk refused"));
    }
}
