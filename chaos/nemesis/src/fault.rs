//! Hurting the leader, and making it whole again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use triarch_lab::Cluster;

use crate::options::Fault;
use crate::shared::Shared;

/// How long a paused leader stays so.
const PAUSE: Duration = Duration::from_millis(1500);
/// A cluster without a leader for longer is given up.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A replica that has not caught up by then is given up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// One fault, done.
#[derive(Clone, Debug)]
pub struct Done {
    /// When, nanoseconds of the run.
    pub at: u64,
    pub leader: String,
    /// From the fault until all were well again.
    pub whole_after: Duration,
}

/// Hurts whoever leads, and returns when all replicas are well and caught up.
pub async fn once(cluster: &mut Cluster, shared: &Arc<Shared>, fault: Fault) -> anyhow::Result<Done> {
    let (leader, _) = wait_for_leader(cluster).await?;
    let name = cluster.replicas()[leader].name().to_owned();
    let began = Instant::now();
    let at = shared.now();
    match fault {
        Fault::Kill => tokio::task::block_in_place(|| cluster.kill(leader))?,
        Fault::Stop => {
            let by_itself = tokio::task::block_in_place(|| cluster.replica(leader).stop());
            if !by_itself {
                bail!("replica {name} did not stop when asked to");
            }
        }
        Fault::Pause => {
            cluster.replica(leader).pause();
            tokio::time::sleep(PAUSE).await;
            cluster.replica(leader).resume();
        }
        Fault::Transfer => {
            let said = cluster.triarch(&["leader", "transfer"]).await?;
            if !said.starts_with("leader=") {
                bail!("leader transfer: {said}");
            }
        }
    }
    if matches!(fault, Fault::Kill | Fault::Stop) {
        // Another one leads and acknowledges before the old one comes back.
        let before = shared.acked();
        wait_for_leader(cluster).await?;
        wait(LEADER_TIMEOUT, || shared.acked() > before).await.context("no write was acknowledged after the fault")?;
        cluster.restart(leader)?;
    }
    caught_up(cluster, leader, shared.head()).await?;
    shared.go_home();
    Ok(Done { at, leader: name, whole_after: began.elapsed() })
}

/// Index of the leader, and its term.
pub async fn wait_for_leader(cluster: &Cluster) -> anyhow::Result<(usize, u64)> {
    let end = Instant::now() + LEADER_TIMEOUT;
    loop {
        if let Ok(status) = cluster.status().await {
            let name = status["leader"].as_str().unwrap_or_default();
            if let Some(i) = cluster.replicas().iter().position(|r| r.name() == name)
                && cluster.replicas()[i].id().is_some_and(|id| id.alive())
            {
                return Ok((i, status["term"].as_u64().unwrap_or(0)));
            }
        }
        if Instant::now() >= end {
            bail!("no leader after {LEADER_TIMEOUT:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Until replica `i` is ready and has applied `revision`.
async fn caught_up(cluster: &mut Cluster, i: usize, revision: u64) -> anyhow::Result<()> {
    cluster.wait_ready(i).await?;
    let name = cluster.replicas()[i].name().to_owned();
    let end = Instant::now() + CATCH_UP_TIMEOUT;
    loop {
        let status = cluster.status().await?;
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        let own = replicas.iter().find(|r| r["name"] == name.as_str());
        if own.is_some_and(|r| r["ready"] == true && r["applied_revision"].as_u64() >= Some(revision)) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("replica {name} has not caught up to {revision} after {CATCH_UP_TIMEOUT:?}: {own:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Until `done`, or an error after `limit`.
pub async fn wait(limit: Duration, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() >= end {
            bail!("nothing after {limit:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
