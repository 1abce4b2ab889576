//! One fault from the hurt until all is well again, and what was seen of it.

use std::time::Duration;

use anyhow::Context;

use crate::faults::{Hit, Kind};
use crate::stage::{LEADER_TIMEOUT, Stage, wait};

/// One fault, done. Times are nanoseconds of the run.
#[derive(Clone, Debug)]
pub struct Done {
    pub name: &'static str,
    /// Name of the replica that was hit; of the leader for those that hit all.
    pub replica: String,
    /// Its index.
    pub hit: usize,
    pub led: bool,
    /// Before the hurt, after it, after the healing, and when all had caught up.
    pub at: u64,
    pub hurt: u64,
    pub healed: u64,
    pub whole: u64,
    /// Elections from the hurt until a leader was seen, and from then until all
    /// were well: the second should be none.
    pub elections: u64,
    pub disturbed: u64,
}

/// Does it, and returns when all replicas are well and caught up.
///
/// # Errors
/// It could not be done, or the cluster did not get well.
pub async fn one(stage: &mut Stage, kind: &Kind, hit: Hit) -> anyhow::Result<Done> {
    let before = stage.leader().await?;
    let shared = stage.shared.clone();
    let at = shared.now();
    (kind.hurt)(stage, &hit).await.context("the hurt")?;
    let hurt = shared.now();
    let mut settled = None;
    if kind.goes_on {
        // Somebody leads and acknowledges before the hurt is healed.
        let acked = shared.acked();
        settled = Some(stage.leader().await?.term);
        let more = || shared.acked() > acked;
        wait(LEADER_TIMEOUT, more).await.context("no write was acknowledged after the fault")?;
    }
    let left = Duration::from_millis(hit.ms).saturating_sub(Duration::from_nanos(shared.now() - at));
    tokio::time::sleep(left).await;
    if kind.goes_on && !left.is_zero() {
        settled = Some(stage.leader().await?.term);
    }
    (kind.heal)(stage, &hit).await.context("the healing")?;
    let healed = shared.now();
    stage.away.clear();
    for replica in 0..stage.replicas() {
        stage.caught_up(replica).await?;
    }
    let after = stage.leader().await?;
    let whole = shared.now();
    shared.go_home();
    let settled = settled.unwrap_or(after.term);
    Ok(Done {
        name: kind.name,
        replica: stage.name(hit.replica),
        hit: hit.replica,
        led: before.replica == hit.replica,
        at,
        hurt,
        healed,
        whole,
        elections: settled.saturating_sub(before.term),
        disturbed: after.term.saturating_sub(settled),
    })
}

/// Times at which a watch broke at a replica that this fault did not touch.
pub fn breaks(done: &Done, watched: &[crate::watcher::Watched], all: bool) -> usize {
    let all_streams = watched.iter().flat_map(|w| w.resumed.iter());
    all_streams.filter(|r| (done.at..=done.whole).contains(&r.at) && !all && r.replica != done.hit).count()
}
