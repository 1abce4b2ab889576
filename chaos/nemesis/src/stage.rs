//! What faults happen to: a cluster of our own with its network, disks and
//! clocks, and how to ask it who leads.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use triarch_lab::cluster::Network;
use triarch_lab::disk::Disk;
use triarch_lab::{Cluster, Lab};

use crate::clocks::Clocks;
use crate::shared::Shared;

/// A cluster without a leader for longer is given up.
pub const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A replica that has not caught up by then is given up.
pub const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// One replica's answer to who leads.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// See the module's text.
pub struct Stage {
    // Replicas go before what they stand on.
    pub lab: Lab,
    pub network: Option<Network>,
    /// One a replica, or none.
    pub disks: Vec<Disk>,
    pub clocks: Option<Clocks>,
    /// Programs that a rolling upgrade goes to and fro between; empty: none.
    pub builds: Vec<PathBuf>,
    /// Index in `builds` of what runs.
    pub build: usize,
    /// Replicas that are not asked, because they cannot answer.
    pub away: BTreeSet<usize>,
    pub shared: Arc<Shared>,
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    pub replica: usize,
    pub term: u64,
}

impl Stage {
    pub fn cluster(&mut self) -> &mut Cluster {
        self.lab.cluster()
    }

    pub fn replicas(&mut self) -> usize {
        self.cluster().replicas().len()
    }

    /// All but `replica`.
    pub fn others(&mut self, replica: usize) -> Vec<usize> {
        (0..self.replicas()).filter(|i| *i != replica).collect()
    }

    pub fn network(&self) -> anyhow::Result<&Network> {
        self.network.as_ref().context("this needs replicas in namespaces")
    }

    pub fn disk(&mut self, replica: usize) -> anyhow::Result<&mut Disk> {
        self.disks.get_mut(replica).context("this needs replicas on disks of their own")
    }

    pub fn name(&mut self, replica: usize) -> String {
        self.cluster().replicas()[replica].name().to_owned()
    }

    /// Waits until one that is not away leads, as one of those says.
    pub async fn leader(&mut self) -> anyhow::Result<Leader> {
        let end = Instant::now() + LEADER_TIMEOUT;
        loop {
            for i in 0..self.replicas() {
                if self.away.contains(&i) {
                    continue;
                }
                let Some(status) = self.cluster().status_of(i, ASK_TIMEOUT).await else { continue };
                let name = status["leader"].as_str().unwrap_or_default();
                let replicas = self.cluster().replicas();
                let at = replicas.iter().position(|r| r.name() == name && r.id().is_some_and(|id| id.alive()));
                let term = status["term"].as_u64().unwrap_or(0);
                if let Some(replica) = at.filter(|at| !self.away.contains(at)) {
                    return Ok(Leader { replica, term });
                }
            }
            if Instant::now() >= end {
                bail!("no leader after {LEADER_TIMEOUT:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Until replica `i` is ready and has applied all that was acknowledged so far.
    pub async fn caught_up(&mut self, i: usize) -> anyhow::Result<()> {
        let revision = self.shared.head();
        self.cluster().wait_ready(i).await?;
        let name = self.name(i);
        let end = Instant::now() + CATCH_UP_TIMEOUT;
        let mut own = None;
        loop {
            for at in 0..self.replicas() {
                let Some(status) = self.cluster().status_of(at, ASK_TIMEOUT).await else { continue };
                own = status["replicas"].as_array().into_iter().flatten().find(|r| r["name"] == name.as_str()).cloned();
                break;
            }
            let well = |r: &serde_json::Value| {
                r["ready"] == true && r["role"] == "voter" && r["applied_revision"].as_u64() >= Some(revision)
            };
            if own.as_ref().is_some_and(well) {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("replica {name} has not caught up to {revision} after {CATCH_UP_TIMEOUT:?}: {own:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGTERM; an error when it does not go by itself.
    pub fn stop(&mut self, replica: usize) -> anyhow::Result<()> {
        let by_itself = tokio::task::block_in_place(|| self.cluster().replica(replica).stop());
        if !by_itself {
            bail!("replica {} did not stop when asked to", self.name(replica));
        }
        Ok(())
    }

    pub fn kill(&mut self, replica: usize) -> anyhow::Result<()> {
        Ok(tokio::task::block_in_place(|| self.cluster().kill(replica))?)
    }

    /// Followers first, the leader last: stop, start (with `program` when there
    /// is one), wait until it has caught up.
    pub async fn roll(&mut self, program: Option<PathBuf>) -> anyhow::Result<()> {
        let leader = self.leader().await?.replica;
        for replica in self.others(leader).into_iter().chain([leader]) {
            self.stop(replica)?;
            if let Some(program) = &program {
                self.cluster().replica(replica).set_program(program);
            }
            self.cluster().restart(replica)?;
            self.caught_up(replica).await?;
        }
        Ok(())
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
