//! A replica is away until the others have purged the log that it needs, so
//! that it must be brought up by a snapshot, which may be interrupted. A burst
//! of writes sees to it that the log moves on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use triarch_mvcc::{Db, Object, Op, Txn};
use triarch_raft::NodeId;

use super::{back_whole, between, isolate};
use crate::machine::Up;
use crate::network::Weather;
use crate::run::Run;
use crate::workloads;

/// How long the others may take to write and purge enough.
const BEHIND: Duration = Duration::from_secs(20);
/// How long a snapshot may take to begin, and to arrive.
const ARRIVES: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
/// Writes at a time, and how long they may take.
const BURST: u64 = 20;
const BETWEEN: Duration = Duration::from_millis(300);
/// With a longer window the log is not purged within [`BEHIND`].
const WINDOW: u64 = 200;

fn pages(up: &Up) -> u64 {
    up.db.counters().snapshot_pages_received.load(Ordering::Relaxed)
}

fn installed(up: &Up) -> u64 {
    up.db.counters().snapshots_installed.load(Ordering::Relaxed)
}

fn checkpoints(run: &Run) -> u64 {
    let leader = run.leader().and_then(|id| run.up(id));
    leader.map_or(0, |up| up.db.counters().checkpoints.load(Ordering::Relaxed))
}

pub async fn inject(run: Arc<Run>) {
    lag(&run, false).await;
}

pub async fn interrupted(run: Arc<Run>) {
    lag(&run, true).await;
}

/// A few more writes, one after the other, through who leads.
async fn burst(run: &Run) {
    for n in 0..BURST {
        let Some(leader) = run.leader() else { return };
        let key = workloads::key(workloads::BURST, &format!("b{n}"));
        let put = Op::Put(key, Object::plain(format!("{}", run.env.random_u64())));
        let _ = workloads::write(run, "burst", leader, Txn { ops: vec![put], ..Txn::default() }).await;
    }
}

async fn lag(run: &Arc<Run>, interrupts: bool) {
    let leader = run.leader();
    let followers: Vec<NodeId> = run.ids().into_iter().filter(|id| Some(*id) != leader).collect();
    if leader.is_none() || followers.is_empty() || run.settings.window_events > WINDOW {
        return;
    }
    let id = followers[run.env.random_below(followers.len() as u64) as usize];
    let Some(up) = run.up(id) else { return };
    let at = up.db.mvcc().applied().index;
    drop(up);
    // What is only cut off keeps the log that is on its way to it.
    let off = if run.env.random_below(2) == 0 { run.kill(id) } else { run.power_off(id) };
    if !off {
        return;
    }
    let behind = || run.ups().iter().any(|(_, up)| up.wal.state().purged.is_some_and(|p| p.index > at));
    let end = run.env.mono() + BEHIND;
    while !behind() && run.env.mono() < end {
        // Not forever, where nobody leads.
        let _ = run.env.timeout(BETWEEN, burst(run)).await;
        run.env.sleep(Duration::from_millis(20)).await;
    }
    if !behind() {
        run.trace.line(|| format!("the log is not purged behind r{id}, which is at entry {at}"));
        return back_whole(run, id).await;
    }
    run.trace.line(|| format!("the log is purged behind r{id}, which is at entry {at}"));
    // Slowly, so that much can happen meanwhile.
    let delay_max = between(run, 5, 40);
    run.network.set_weather(Weather { delay_max, ..Weather::FAIR });
    run.restart(id).await;
    if let Some(up) = run.up(id) {
        bring_up(run, id, &up, interrupts).await;
    }
    run.network.set_weather(Weather::FAIR);
    if run.up(id).is_none() {
        back_whole(run, id).await;
    }
}

async fn bring_up(run: &Arc<Run>, id: NodeId, up: &Up, interrupts: bool) {
    let (before, had, checkpointed) = (pages(up), installed(up), checkpoints(run));
    let (mut begun, mut meanwhile) = (false, false);
    let end = run.env.mono() + ARRIVES;
    while run.env.mono() < end && installed(up) == had && !(begun && interrupts) {
        begun |= pages(up) > before;
        meanwhile |= begun && checkpoints(run) > checkpointed;
        run.env.sleep(LOOK).await;
    }
    if begun {
        run.tally.fault("log-purged-behind");
    }
    if meanwhile && installed(up) > had {
        run.tally.fault("checkpoint-during-snapshot");
    }
    if begun && interrupts && installed(up) == had {
        run.tally.fault("snapshot-interrupted");
        interrupt(run, id).await;
    }
}

/// Either end goes away, or the way between them.
async fn interrupt(run: &Arc<Run>, id: NodeId) {
    let sender = run.leader().unwrap_or(id);
    run.trace.line(|| format!("the snapshot from r{sender} to r{id} is interrupted"));
    match run.env.random_below(4) {
        0 => {
            run.power_off(id);
            back_whole(run, id).await;
        }
        1 => {
            run.kill(id);
            run.restart(id).await;
        }
        2 => {
            run.kill(sender);
            run.restart(sender).await;
        }
        _ => {
            isolate::cut(run, &[id].into());
            run.env.sleep(between(run, 100, 3000)).await;
            run.network.unblock_all();
        }
    }
}
